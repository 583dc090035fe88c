"""Exercises of 01 · How few colours does a photo need?"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rvq_tutorial.course.check.judging import Unsolved, Wrong, compare, difference, exercise, run, shown
from rvq_tutorial.search import nearest


@exercise
def file_bits(answer: Callable) -> str:
    """Height, width, K → bits of the indices and of the codebook, 24 for each codeword."""

    def indices(h: int, w: int, k: int) -> float:
        return h * w * math.log2(k)

    mistakes = {
        "The codebook is missing: it is sent along, 24 bits for each codeword.": indices,
        "An index isn't K bits long: K things are told apart by log2(K) bits.": lambda h, w, k: h * w * k + 24 * k,
        "One index names a whole colour: don't count it once for each channel.": lambda h, w, k: (
            3 * indices(h, w, k) + 24 * k
        ),
        "A codeword has three channels of 8 bits: it takes 24 bits.": lambda h, w, k: indices(h, w, k) + 8 * k,
        "A codeword takes 3 bytes, which are 24 bits.": lambda h, w, k: indices(h, w, k) + 3 * k,
        "That is one codeword; the codebook has K of them.": lambda h, w, k: indices(h, w, k) + 24,
        "The codebook is sent once, and not with every pixel.": [
            lambda h, w, k: h * w * (math.log2(k) + 24),
            lambda h, w, k: h * w * (math.log2(k) + 24 * k),
        ],
        "A codeword in the codebook is a whole colour, 24 bits; indices name the pixels alone.": lambda h, w, k: (
            (h * w + k) * math.log2(k)
        ),
        "24 bits a pixel is the photo as it was: now each pixel takes one index, log2(K) bits.": [
            lambda h, w, k: 24 * h * w,
            lambda h, w, k: 24 * h * w + 24 * k,
        ],
        "K has one binary digit more than an index: take K.bit_length() - 1.": lambda h, w, k: (
            h * w * k.bit_length() + 24 * k
        ),
        "These are the bits of one pixel: its index is sent for each of height · width pixels.": [
            lambda h, w, k: math.log2(k),
            lambda h, w, k: math.log2(k) + 24 * k,
            lambda h, w, k: math.log2(k) + 24 * k / (h * w),
        ],
        "This is the part that the codebook takes; return the bits of all.": lambda h, w, k: (
            24 * k / (indices(h, w, k) + 24 * k)
        ),
        "The logarithm is that to base 2: math.log2.": [
            lambda h, w, k: h * w * math.log(k) + 24 * k,
            lambda h, w, k: h * w * math.log10(k) + 24 * k,
        ],
        "These are bytes; the question is about bits.": lambda h, w, k: (indices(h, w, k) + 24 * k) / 8,
    }
    for height, width, size in [(100, 80, 16), (7, 5, 2), (214, 320, 256), (30, 40, 8)]:
        inputs = {"height": height, "width": width, "codebook_size": size}
        compare(answer, lambda h, w, k: indices(h, w, k) + 24 * k, mistakes, **inputs)
    return "Right for every size tried. Our photo with K = 16: 273,920 bits of indices, 384 of codebook, a 700th."


@exercise
def nearest_colours(answer: Callable) -> str:
    """(N, 3), (K, 3) → (N,): the index of the nearest codeword."""
    mistakes = {
        "These are the codewords farthest away: the smallest distance wins, so take argmin.": lambda x, codebook: (
            torch.cdist(x, codebook).argmax(1)
        ),
        "The minimum is taken over the pixels; take it over the codewords.": lambda x, codebook: torch.cdist(
            x, codebook
        ).argmin(0),
        "Without the square, positive and negative differences cancel.": lambda x, codebook: (
            (x[:, None] - codebook).sum(2).argmin(1)
        ),
        "Square each channel's difference first, then sum: this compares brightness alone.": lambda x, codebook: (
            (x[:, None] - codebook).sum(2).square().argmin(1)
        ),
        "These are distances added up along the axes; nearest is by the sum of squares.": lambda x, codebook: (
            torch.cdist(x, codebook, p=1).argmin(1)
        ),
        "These are the smallest distances: the index of each is asked for, so take argmin.": lambda x, codebook: (
            (x[:, None] - codebook).square().sum(2).amin(1)
        ),
        "The sum runs over the codewords: sum over the components, the last axis.": lambda x, codebook: (
            (x[:, None] - codebook).square().sum(1).argmin(1)
        ),
        "These are colours, already decoded: return the indices.": lambda x, codebook: codebook[nearest(x, codebook)],
        "min gives the distances and the indices, two tensors: argmin gives the indices alone.": lambda x, codebook: (
            tuple(torch.cdist(x, codebook).square().min(1))
        ),
        "One axis is left over, of size 1: return shape (N,), without keepdim.": lambda x, codebook: nearest(
            x, codebook
        )[:, None],
        "argmin without an axis looks through the whole table: argmin(1) is along the codewords.": lambda x, codebook: (
            torch.cdist(x, codebook).argmin()
        ),
        "This is the largest product, in which bright codewords win: compare distances.": lambda x, codebook: (
            x @ codebook.T
        ).argmax(1),
        "This compares the largest difference of a channel alone: sum the squares of all three.": lambda x, codebook: (
            (x[:, None] - codebook).abs().amax(2).argmin(1)
        ),
        "This compares directions alone, in which a dark and a bright red are one: compare distances.": lambda x, c: (
            torch.nn.functional.cosine_similarity(x[:, None], c, dim=2).argmax(1)
        ),
        "This compares one channel alone: sum the squares of all three.": [
            lambda x, codebook, channel=channel: (x[:, None] - codebook).square()[..., channel].argmin(1)
            for channel in range(3)
        ],
        "In ‖x − c‖² = ‖x‖² − 2 x·c + ‖c‖² the product counts twice.": lambda x, codebook: (
            codebook.square().sum(1) - x @ codebook.T
        ).argmin(1),
        "Indices start at 0, not at 1.": lambda x, codebook: nearest(x, codebook) + 1,
        "Each channel has an index of its own here: sum the squares over the channels before argmin.": lambda x, c: (
            (x[:, None] - c).square().argmin(1)
        ),
    }
    for num, size in [(50, 8), (8, 50), (200, 2), (1, 16)]:
        compare(answer, nearest, mistakes, pixels=torch.rand(num, 3), codebook=torch.rand(size, 3))
    return "nearest_colours finds the nearest codeword for every pixel tried."


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
    one_pixel = "new[indices] += pixels adds only one pixel to each row: index_add_ adds them all."
    old_in_sum = "The old codewords are in the sums: start from zeros."
    half_way = "With (old + pixel) / 2 the last pixels weigh most: sum all of them, then divide by their number."
    mistakes = {
        "These are sums: divide each by the number of its pixels.": [_sums],
        "Each sum is divided by the number of all pixels: divide by that of the codeword's own.": [
            lambda x, i, c: _sums(x, i, c) / len(x)
        ],
        "Each sum is divided by K: divide by the number of the codeword's own pixels.": [
            lambda x, i, c: _sums(x, i, c) / len(c)
        ],
        "Each sum is divided by N / K, as if all codewords had equally many pixels: divide by its own number.": [
            lambda x, i, c: _sums(x, i, c) * len(c) / len(x)
        ],
        "Each count is one too large: every codeword has a pixel here, so divide by the count itself.": [
            lambda x, i, c: _sums(x, i, c) / (_counts(i, c) + 1)
        ],
        "The pixels are assigned anew: the indices are given, so use those.": [
            lambda x, i, c: _means(x, nearest(x, c), c),
            lambda x, i, c: _means(x, nearest(x, c), c).nan_to_num(),
            lambda x, i, c: _sums(x, nearest(x, c), c) / _counts(nearest(x, c), c).clamp(min=1),
        ],
        "This is decoding, a codeword for each pixel: return a new codebook, a mean for each codeword.": [
            lambda x, i, c: c[i]
        ],
        "The codewords haven't moved.": [lambda x, i, c: c],
        "These are medians; the mean is what makes the sum of squares smallest.": [
            lambda x, i, c: _each(c, lambda k: x[i == k].median(0).values)
        ],
        "The old codeword is averaged in as well: take its pixels alone.": [
            lambda x, i, c: (_sums(x, i, c) + c) / (_counts(i, c) + 1),
            lambda x, i, c: (_means(x, i, c) + c) / 2,
        ],
        old_in_sum: [lambda x, i, c: _sums(x, i, c) + c, lambda x, i, c: (_sums(x, i, c) + c) / _counts(i, c)],
        one_pixel: [
            lambda x, i, c: _assigned(x, i, torch.zeros_like(c)),
            lambda x, i, c: _assigned(x, i, torch.zeros_like(c)) / _counts(i, c),
            lambda x, i, c: _assigned(x, i, c),
            lambda x, i, c: _assigned(x, i, c) / _counts(i, c),
        ],
        half_way: [lambda x, i, c: _halved(x, i, c), lambda x, i, c: _halved(x, i, torch.zeros_like(c))],
        ".mean() is one number for all components: .mean(0) is the mean over the pixels alone.": [
            lambda x, i, c: _each(c, lambda k: x[i == k].mean()),
            lambda x, i, c: _each(c, lambda k: x[i == k].mean())[:, None].expand_as(c),
        ],
        "This is the mean of all pixels: take those that chose the codeword, pixels[indices == k].": [
            lambda x, i, c: x.mean(0).expand_as(c)
        ],
    }
    for num, dim, size in [(40, 3, 5), (300, 3, 16), (30, 2, 30), (9, 4, 1)]:
        indices = torch.cat([torch.arange(size), torch.randint(size, (num - size,))])[torch.randperm(num)]
        compare(answer, _means, mistakes, pixels=torch.rand(num, dim), indices=indices, codebook=torch.rand(size, dim))
    return "Each codeword moves to the mean of its pixels, on every input tried."


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
        where = f"Seen with {num} pixels and {size} codewords, of which {size - num_used} are unused."
        if not isinstance(moved, Tensor) or moved.shape != codebook.shape:
            raise Wrong(f"Return a codebook of shape {tuple(codebook.shape)}, not {shown(moved)}. {where}")
        used = torch.zeros(size, dtype=torch.bool).index_fill(0, names, True)
        if moved[~used].isnan().any():
            raise Wrong(f"Unused codewords become NaN, 0 / 0: divide by counts.clamp(min=1), replace them. {where}")
        single = torch.bincount(indices, minlength=size)[used] == 1
        _judge_used(moved[used], _means(pixels, indices, codebook)[used], codebook[used], single, where)
        _judge_rescued(moved[~used], pixels, indices, codebook, where)
    return "Used codewords move to their means, unused ones to the pixels that need them most."


def _judge_used(moved: Tensor, means: Tensor, before: Tensor, single: Tensor, where: str) -> None:
    """Raise Wrong unless each used codeword is at its mean; single: which of them have one pixel."""
    fault = difference(moved, means, "the mean of a used codeword")
    if not fault:
        return
    if not difference(moved, before):
        raise Wrong(f"Used codewords stay where they were: they move to their means, as in exercise 3. {where}")
    if torch.equal((moved - means).abs().amax(1) > 1e-4, single):
        raise Wrong(f"A codeword with a single pixel is used, too: it moves to that pixel. {where}")
    raise Wrong(f"{fault} (counting the used codewords alone). {where}")


def _judge_rescued(rescued: Tensor, pixels: Tensor, indices: Tensor, codebook: Tensor, where: str) -> None:
    """Raise Wrong unless the rescued codewords are the pixels farthest from their codewords, in any order."""
    if not len(rescued):
        return
    differences = pixels - codebook[indices]
    after = pixels - _means(pixels, indices, codebook)[indices]
    distances, chosen = (pixels - rescued[:, None]).norm(dim=2).min(1)

    def are_worst(badness: Tensor) -> bool:
        return set(chosen.tolist()) == set(badness.topk(len(chosen)).indices.tolist())

    faults = {
        "Unused codewords end at 0, in black.": not rescued.any(),
        "Unused codewords stay where they were.": (rescued[:, None] - codebook).norm(dim=2).amin() < 1e-5,
        "Unused codewords should become pixels, and one of them is none.": distances.max() > 1e-4,
        "Several unused codewords take the same pixel: give each one of its own.": len(chosen.unique()) < len(chosen),
    }
    ways = {
        "These pixels are served best: take those with the largest distances.": -differences.square().sum(1),
        "These pixels are farthest from the means: measure before any codeword has moved.": after.square().sum(1),
        "These distances are added up along the axes: worst served is by the sum of squares.": differences.abs().sum(1),
        "Without the square, positive and negative differences cancel.": differences.sum(1),
        "This compares the largest difference of a channel alone: sum the squares of all three.": (
            differences.abs().amax(1)
        ),
    }
    if not are_worst(differences.square().sum(1)):
        faults |= {words: are_worst(badness) for words, badness in ways.items()}
        faults["Unused codewords become pixels, but not those farthest from the codewords that they chose."] = True
    for words, found in faults.items():
        if found:
            raise Wrong(f"{words} {where}")


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
        where = f"Seen on a photo of {num_colours} colour{'s' * (num_colours > 1)}, for {target:g} dB."
        if isinstance(found, tuple | list) or torch.as_tensor(found).numel() != 1:
            raise Wrong(f"Return one number, the codebook size. {where}")
        if found != needed:
            raise Wrong(f"{_size_fault(float(found), needed, num_colours)} {where}")
    try:
        found = run(answer, photo=_photo(1000), target=200.0)
    except Unsolved:
        found = None
    if found != 256:
        words = "nothing is returned" if found is None else f"{shown(found)} is returned"
        raise Wrong(f"Where no size reaches the target, {words}: it should be 256. Seen with 1000 colours, for 200 dB.")
    return "The smallest size that is good enough, on every photo tried."


def _size_fault(found: float, needed: int, num_colours: int) -> str:
    if num_colours == 1 and found == 4:
        return "These are not the photo's pixels: reshape(-1, 3) mixes places and channels; photo.flatten(1).T doesn't."
    if found == math.log2(needed):
        return f"{found:g} are the bits of an index; the codebook size is asked for, {needed}."
    if found not in [2**bits for bits in range(9)]:
        return f"{found:.4g} is none of the codebook sizes 1, 2, 4, ..., 256."
    if found < needed:
        return f"With {found:g} colours the PSNR is still below the target; it takes {needed}."
    if found == 256:
        words = "Return it at the first PSNR ≥ target, and 256 only after the loop."
        return f"256 is for a photo that no size is good enough for; here {needed} will do. {words}"
    return f"{found:g} is enough, and not the smallest: {needed} will do."
