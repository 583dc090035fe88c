"""Exercises of 01 · How few colours does a photo need?"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rvq_tutorial.course.check.judging import Unsolved, Wrong, compare, difference, exercise, run, shown
from rvq_tutorial.course.check.sentences import say
from rvq_tutorial.search import nearest


@exercise
def file_bits(answer: Callable) -> str:
    """Height, width, K → bits of the indices and of the codebook, 24 for each codeword."""

    def indices(h: int, w: int, k: int) -> float:
        return h * w * math.log2(k)

    mistakes = dict(
        codebook_missing=indices,
        not_k_bits=lambda h, w, k: h * w * k + 24 * k,
        three_indices=lambda h, w, k: 3 * indices(h, w, k) + 24 * k,
        one_channel=lambda h, w, k: indices(h, w, k) + 8 * k,
        bytes_of_codeword=lambda h, w, k: indices(h, w, k) + 3 * k,
        one_codeword=lambda h, w, k: indices(h, w, k) + 24,
        codebook_at_every_pixel=[
            lambda h, w, k: h * w * (math.log2(k) + 24),
            lambda h, w, k: h * w * (math.log2(k) + 24 * k),
        ],
        codewords_as_indices=lambda h, w, k: (h * w + k) * math.log2(k),
        photo_as_it_was=[lambda h, w, k: 24 * h * w, lambda h, w, k: 24 * h * w + 24 * k],
        one_digit_more=lambda h, w, k: h * w * k.bit_length() + 24 * k,
        one_pixel=[
            lambda h, w, k: math.log2(k),
            lambda h, w, k: math.log2(k) + 24 * k,
            lambda h, w, k: math.log2(k) + 24 * k / (h * w),
        ],
        part_of_codebook=lambda h, w, k: 24 * k / (indices(h, w, k) + 24 * k),
        logarithm=[lambda h, w, k: h * w * math.log(k) + 24 * k, lambda h, w, k: h * w * math.log10(k) + 24 * k],
        bytes=lambda h, w, k: (indices(h, w, k) + 24 * k) / 8,
    )
    for height, width, size in [(100, 80, 16), (7, 5, 2), (214, 320, 256), (30, 40, 8)]:
        inputs = {"height": height, "width": width, "codebook_size": size}
        compare(answer, lambda h, w, k: indices(h, w, k) + 24 * k, mistakes, **inputs)
    return say("right")


@exercise
def nearest_colours(answer: Callable) -> str:
    """(N, 3), (K, 3) → (N,): the index of the nearest codeword."""
    mistakes = dict(
        farthest=lambda x, c: torch.cdist(x, c).argmax(1),
        over_pixels=lambda x, c: torch.cdist(x, c).argmin(0),
        without_square=lambda x, c: (x[:, None] - c).sum(2).argmin(1),
        squared_after_sum=lambda x, c: (x[:, None] - c).sum(2).square().argmin(1),
        along_axes=lambda x, c: torch.cdist(x, c, p=1).argmin(1),
        distances=lambda x, c: (x[:, None] - c).square().sum(2).amin(1),
        summed_over_codewords=lambda x, c: (x[:, None] - c).square().sum(1).argmin(1),
        colours=lambda x, c: c[nearest(x, c)],
        min_for_argmin=lambda x, c: tuple(torch.cdist(x, c).square().min(1)),
        one_axis_more=lambda x, c: nearest(x, c)[:, None],
        whole_table=lambda x, c: torch.cdist(x, c).argmin(),
        product=lambda x, c: (x @ c.T).argmax(1),
        largest_difference=lambda x, c: (x[:, None] - c).abs().amax(2).argmin(1),
        directions=lambda x, c: torch.nn.functional.cosine_similarity(x[:, None], c, dim=2).argmax(1),
        one_channel=[
            lambda x, c, channel=channel: (x[:, None] - c).square()[..., channel].argmin(1) for channel in range(3)
        ],
        product_once=lambda x, c: (c.square().sum(1) - x @ c.T).argmin(1),
        from_one=lambda x, c: nearest(x, c) + 1,
        index_of_each_channel=lambda x, c: (x[:, None] - c).square().argmin(1),
    )
    for num, size in [(50, 8), (8, 50), (200, 2), (1, 16)]:
        compare(answer, nearest, mistakes, pixels=torch.rand(num, 3), codebook=torch.rand(size, 3))
    return say("right")


def _sums(pixels: Tensor, indices: Tensor, codebook: Tensor) -> Tensor:
    return torch.zeros_like(codebook).index_add_(0, indices, pixels)


def _counts(indices: Tensor, codebook: Tensor) -> Tensor:
    return torch.bincount(indices, minlength=len(codebook))[:, None]


def _means(pixels: Tensor, indices: Tensor, codebook: Tensor) -> Tensor:
    """The mean of each codeword's pixels; NaN for one without any."""
    return _sums(pixels, indices, codebook) / _counts(indices, codebook)


def _assigned(pixels: Tensor, indices: Tensor, start: Tensor) -> Tensor:
    """What `start[indices] += pixels` makes: of several pixels for one row, only one is added."""
    moved = start.clone()
    moved[indices] += pixels
    return moved


def _halved(pixels: Tensor, indices: Tensor, start: Tensor) -> Tensor:
    """Each pixel in turn pulls its codeword half of the way."""
    moved = start.clone()
    for pixel, index in zip(pixels, indices, strict=True):
        moved[index] = (moved[index] + pixel) / 2
    return moved


def _each(codebook: Tensor, of: Callable[[int], Tensor]) -> Tensor:
    return torch.stack([of(k) for k in range(len(codebook))])


@exercise
def move_codewords(answer: Callable) -> str:
    """(N, dim), (N,), (K, dim) → (K, dim): the mean of each codeword's pixels."""
    mistakes = dict(
        sums=_sums,
        divided_by_all=lambda x, i, c: _sums(x, i, c) / len(x),
        divided_by_k=lambda x, i, c: _sums(x, i, c) / len(c),
        divided_by_fair_share=lambda x, i, c: _sums(x, i, c) * len(c) / len(x),
        count_too_large=lambda x, i, c: _sums(x, i, c) / (_counts(i, c) + 1),
        assigned_anew=[
            lambda x, i, c: _means(x, nearest(x, c), c),
            lambda x, i, c: _means(x, nearest(x, c), c).nan_to_num(),
            lambda x, i, c: _sums(x, nearest(x, c), c) / _counts(nearest(x, c), c).clamp(min=1),
        ],
        decoded=lambda x, i, c: c[i],
        unmoved=lambda x, i, c: c,
        medians=lambda x, i, c: _each(c, lambda k: x[i == k].median(0).values),
        old_averaged_in=[
            lambda x, i, c: (_sums(x, i, c) + c) / (_counts(i, c) + 1),
            lambda x, i, c: (_means(x, i, c) + c) / 2,
        ],
        old_in_sum=[lambda x, i, c: _sums(x, i, c) + c, lambda x, i, c: (_sums(x, i, c) + c) / _counts(i, c)],
        one_pixel_added=[
            lambda x, i, c: _assigned(x, i, torch.zeros_like(c)),
            lambda x, i, c: _assigned(x, i, torch.zeros_like(c)) / _counts(i, c),
            lambda x, i, c: _assigned(x, i, c),
            lambda x, i, c: _assigned(x, i, c) / _counts(i, c),
        ],
        half_way=[lambda x, i, c: _halved(x, i, c), lambda x, i, c: _halved(x, i, torch.zeros_like(c))],
        one_number=[
            lambda x, i, c: _each(c, lambda k: x[i == k].mean()),
            lambda x, i, c: _each(c, lambda k: x[i == k].mean())[:, None].expand_as(c),
        ],
        mean_of_all=lambda x, i, c: x.mean(0).expand_as(c),
    )
    for num, dim, size in [(40, 3, 5), (300, 3, 16), (30, 2, 30), (9, 4, 1)]:
        indices = torch.cat([torch.arange(size), torch.randint(size, (num - size,))])[torch.randperm(num)]
        compare(answer, _means, mistakes, pixels=torch.rand(num, dim), indices=indices, codebook=torch.rand(size, dim))
    return say("right")


@exercise
def rescue_codewords(answer: Callable) -> str:
    """(N, dim), (N,), (K, dim) → (K, dim): used codewords at their means, unused ones at the worst-served pixels."""
    # One used codeword has a single pixel: it is used all the same.
    for num, size, num_used in [(50, 10, 3), (60, 8, 6), (200, 16, 16), (20, 4, 1)]:
        names = torch.randperm(size)[:num_used]
        others = torch.randint(min(1, num_used - 1), num_used, (num - num_used,))
        indices = names[torch.cat([torch.arange(num_used), others])]
        pixels, codebook = torch.rand(num, 3), torch.rand(size, 3)
        moved = run(answer, pixels=pixels, indices=indices, codebook=codebook)
        where = say("seen_with", num=num, size=size, unused=size - num_used)
        if not isinstance(moved, Tensor) or moved.shape != codebook.shape:
            raise Wrong("other_shape", where, shape=tuple(codebook.shape), moved=shown(moved))
        used = torch.zeros(size, dtype=torch.bool).index_fill(0, names, True)
        if moved[~used].isnan().any():
            raise Wrong("nan", where)
        single = torch.bincount(indices, minlength=size)[used] == 1
        _judge_used(moved[used], _means(pixels, indices, codebook)[used], codebook[used], single, where)
        _judge_rescued(moved[~used], pixels, indices, codebook, where)
    return say("right")


def _judge_used(moved: Tensor, means: Tensor, before: Tensor, single: Tensor, where: str) -> None:
    """Raise Wrong unless each used codeword is at its mean; single: which of them have one pixel."""
    fault = difference(moved, means, "mean")
    if not fault:
        return
    if not difference(moved, before):
        raise Wrong("used_stay", where)
    if torch.equal((moved - means).abs().amax(1) > 1e-4, single):
        raise Wrong("single_pixel", where)
    raise Wrong("other_mean", where, fault=fault)


def _judge_rescued(rescued: Tensor, pixels: Tensor, indices: Tensor, codebook: Tensor, where: str) -> None:
    """Raise Wrong unless the rescued codewords are the pixels farthest from their codewords, in any order."""
    if not len(rescued):
        return
    differences = pixels - codebook[indices]
    after = pixels - _means(pixels, indices, codebook)[indices]
    distances, chosen = (pixels - rescued[:, None]).norm(dim=2).min(1)

    def are_worst(badness: Tensor) -> bool:
        return set(chosen.tolist()) == set(badness.topk(len(chosen)).indices.tolist())

    faults = dict(
        black=not rescued.any(),
        where_they_were=(rescued[:, None] - codebook).norm(dim=2).amin() < 1e-5,
        no_pixel=distances.max() > 1e-4,
        same_pixel=len(chosen.unique()) < len(chosen),
    )
    ways = dict(
        served_best=-differences.square().sum(1),
        farthest_from_means=after.square().sum(1),
        along_axes=differences.abs().sum(1),
        without_square=differences.sum(1),
        largest_difference=differences.abs().amax(1),
    )
    if not are_worst(differences.square().sum(1)):
        faults |= {name: are_worst(badness) for name, badness in ways.items()} | dict(not_worst=True)
    for name, found in faults.items():
        if found:
            raise Wrong(name, where)


def _photo(num_colours: int) -> Tensor:
    """A photo of 48 × 64 pixels with exactly so many colours, each as often as the others."""
    side = math.ceil(num_colours ** (1 / 3))
    colours = torch.cartesian_prod(*[torch.linspace(0, 1, max(side, 4))] * 3)
    colours = colours[torch.randperm(len(colours))[:num_colours]]
    order = torch.arange(48 * 64) % num_colours
    return colours[order[torch.randperm(len(order))]].T.unflatten(1, (48, 64))


@exercise
def colours_needed(answer: Callable) -> str:
    """(3, H, W), PSNR in dB → the smallest codebook size, a power of 2, that reaches it."""
    # One colour, read wrongly by reshape(-1, 3), becomes three: no other mistake says 4.
    for num_colours, target, needed in [(1, 40.0, 1), (16, 50.0, 16), (3, 60.0, 4), (8, 2.0, 1), (64, 45.0, 64)]:
        found = run(answer, photo=_photo(num_colours), target=target)
        where = say("seen_on_one" if num_colours == 1 else "seen_on_several", num_colours=num_colours, target=target)
        if isinstance(found, tuple | list) or torch.as_tensor(found).numel() != 1:
            raise Wrong("one_number", where)
        if found != needed:
            faults = dict(
                not_pixels=num_colours == 1 and found == 4,
                bits=found == math.log2(needed),
                no_size=found not in [2**bits for bits in range(9)],
                too_few=found < needed,
                always_256=found == 256,
                not_smallest=True,
            )
            raise Wrong(next(name for name in faults if faults[name]), where, found=float(found), needed=needed)
    try:
        found = run(answer, photo=_photo(1000), target=200.0)
    except Unsolved:
        found = None
    if found != 256:
        raise Wrong("nothing_out_of_reach" if found is None else "other_out_of_reach", found=shown(found))
    return say("right")
