"""Exercises of 07 · One model, every bitrate?"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial.autoencoder.models import VQVAE, Decoder, Encoder
from rvq_tutorial.course.check.judging import Wrong, compare, exercise, given
from rvq_tutorial.course.check.sentences import say
from rvq_tutorial.quantizers import ResidualVectorQuantizer


def _dropped(indices: Tensor, kept: Tensor, shift: int = 0, mark: int = -1) -> Tensor:
    stage = torch.arange(indices.shape[-1])
    return torch.where(stage + shift >= kept.view(-1, 1, 1, 1), mark, indices)


DROP_MISTAKES = dict(
    one_too_few=lambda i, k: _dropped(i, k, shift=1),
    one_too_many=lambda i, k: _dropped(i, k, shift=-1),
    index_0=lambda i, k: _dropped(i, k, 0, 0),
    first_dropped=lambda i, k: _dropped(i.flip(-1), k).flip(-1),
    mask_turned_round=lambda i, k: torch.where(_dropped(i, k) < 0, i, -1),
    as_the_first=lambda i, k: _dropped(i, k[:1].expand_as(k)),
    as_the_most=lambda i, k: _dropped(i, k.max().expand_as(k)),
    as_the_fewest=lambda i, k: _dropped(i, k.min().expand_as(k)),
    kept_for_dropped=lambda i, k: _dropped(i, i.shape[-1] - k),
    one_patch=lambda i, k: torch.cat([_dropped(i, k)[:, :1, :1], i.flatten(1, 2)[:, None, 1:]], 2).view(i.shape),
    nothing_dropped=lambda i, k: i,
    floats=lambda i, k: _dropped(i, k).float(),
    one_taken=lambda i, k: torch.where(_dropped(i, k) < 0, i - 1, i),
    all_one_lower=lambda i, k: _dropped(i, k) - (_dropped(i, k) >= 0),
    mask=lambda i, k: (_dropped(i, k) < 0).long(),
    mask_of_kept=lambda i, k: (_dropped(i, k) >= 0).long(),
    other_axis=[lambda i, k: _dropped(i.mT, k).mT, lambda i, k: _dropped(i.transpose(1, 3), k).transpose(1, 3)],
    cut_off=lambda i, k: i[..., : k.max()],
    cut_off_at_smallest=lambda i, k: i[..., : k.min()],
)


@exercise
def drop_stages(answer: Callable) -> str:
    """(B, h, w, M), (B,) → (B, h, w, M): −1 in the stages that an image doesn't keep."""
    given_kept = [torch.tensor(kept) for kept in ([3, 1, 7, 5], [2], [1, 4, 2, 3, 4, 1])]
    for shape, kept in zip([(4, 3, 2, 8), (1, 2, 2, 3), (6, 1, 5, 4)], given_kept, strict=True):
        compare(answer, _dropped, DROP_MISTAKES, indices=torch.randint(2, 16, shape), kept=kept)
    return say("right")


def _middle(image: Tensor, height: int, width: int) -> Tensor:
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[..., top : top + height, left : left + width]


# By the model v, indices, m, height and width.
PREFIX_MISTAKES = dict(
    all_stages=lambda v, i, m, h, w: v.decode(i)[..., :h, :w],
    last_stages=lambda v, i, m, h, w: v.decode(i[..., -m:])[..., :h, :w],
    first_skipped=lambda v, i, m, h, w: v.decode(i[..., m:])[..., :h, :w],
    one_stage=lambda v, i, m, h, w: v.decode(i[..., m - 1 : m])[..., :h, :w],
    one_too_many=lambda v, i, m, h, w: v.decode(i[..., : m + 1])[..., :h, :w],
    one_too_few=lambda v, i, m, h, w: v.decode(i[..., : m - 1])[..., :h, :w],
    uncut=lambda v, i, m, h, w: v.decode(i[..., :m]),
    all_stages_uncut=lambda v, i, m, h, w: v.decode(i),
    cut_top_left=lambda v, i, m, h, w: v.decode(i[..., :m])[..., -h:, -w:],
    cut_on_all_sides=lambda v, i, m, h, w: _middle(v.decode(i[..., :m]), h, w),
    index_0=lambda v, i, m, h, w: v.decode(F.pad(i[..., :m], (0, i.shape[-1] - m)))[..., :h, :w],
    swapped=lambda v, i, m, h, w: v.decode(i[..., :m])[..., :w, :h],
    height_alone=lambda v, i, m, h, w: v.decode(i[..., :m])[..., :h, :],
    width_alone=lambda v, i, m, h, w: v.decode(i[..., :m])[..., :w],
    squeezed=lambda v, i, m, h, w: F.interpolate(v.decode(i[..., :m]), (h, w)),
    squeezed_smoothly=lambda v, i, m, h, w: F.interpolate(v.decode(i[..., :m]), (h, w), mode="bilinear"),
    first_image_alone=lambda v, i, m, h, w: v.decode(i[..., :m])[0, :, :h, :w],
    colours_last=lambda v, i, m, h, w: v.decode(i[..., :m])[..., :h, :w].permute(0, 2, 3, 1),
    first_images=lambda v, i, m, h, w: v.decode(i[:m])[..., :h, :w],
    first_rows=lambda v, i, m, h, w: v.decode(i[:, :m])[..., :h, :w],
    indices=lambda v, i, m, h, w: i[..., :m],
    codewords=lambda v, i, m, h, w: v.quantizer.decode(i[..., :m]),
)


@exercise
def decode_prefix(answer: Callable) -> str:
    """Model, indices (B, h, w, M), number of stages, height, width → (B, 3, height, width)."""
    sizes = {"dim": 6, "width": 8, "stride": 4, "num_blocks": 1}
    quantizer = ResidualVectorQuantizer(6, 8, 5, channel_dim=1)
    model = VQVAE(Encoder(**sizes), quantizer, Decoder(**sizes)).eval()

    def of_model(decode: Callable) -> Callable:
        """Whether values outside [0, 1] are cut off is left to the learner."""

        @functools.wraps(decode)
        def clamped(*inputs: Any) -> Any:
            image = decode(model, *inputs)
            return image.clamp(0, 1) if isinstance(image, Tensor) and image.is_floating_point() else image

        return clamped

    def right(model: VQVAE, indices: Tensor, stages: int, height: int, width: int) -> Tensor:
        return model.decode(indices[..., :stages])[..., :height, :width]

    mistakes = {name: of_model(mistake) for name, mistake in PREFIX_MISTAKES.items()}
    with torch.no_grad():
        for batch, height, width, stages in [(3, 10, 13, 2), (1, 8, 8, 1), (1, 9, 6, 3), (1, 5, 7, 4)]:
            indices = model.encode(torch.rand(batch, 3, height, width))
            inputs = {"indices": indices, "num_quantizers": stages, "height": height, "width": width}
            compare(of_model(answer), of_model(right), mistakes, **inputs)
    return say("right")


def _bits(share: Tensor) -> Tensor:
    return -share.log2()


def _share(beside: Tensor, left: Tensor, index: Tensor, seen: int = 1, total: int | None = None) -> Tensor:
    """p(index | left), where each pair counts `seen` times more than it was seen, and all of a row `total` times."""
    total = len(beside) if total is None else total
    return (beside[left, index] + seen) / (beside[left].sum(-1) + total)


TINY = (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6)  # usual for keeping a logarithm finite
LEFT_MISTAKES = dict(
    unseen_impossible=lambda n, i, k: _bits(_share(n, i, k, 0, 0)),
    sum_not_raised=lambda n, i, k: _bits(_share(n, i, k, 1, 0)),
    sum_raised_by_1=lambda n, i, k: _bits(_share(n, i, k, 1, 1)),
    count_not_raised=lambda n, i, k: _bits(_share(n, i, k, 0)),
    share_of_all_pairs=lambda n, i, k: _bits((n[i, k] + 1) / (n.sum() + n.numel())),
    share_of_all_pairs_not_raised=lambda n, i, k: _bits(n[i, k] / n.sum()),
    share_of_column=lambda n, i, k: _bits((n[i, k] + 1) / (n[:, k].sum(0) + len(n))),
    swapped=lambda n, i, k: _bits(_share(n, k, i)),
    turned_round=lambda n, i, k: _bits(_share(n.T, i, k)),
    left_ignored=[
        lambda n, i, k: _bits((n.sum(0)[k] + 1) / (n.sum() + len(n))),
        lambda n, i, k: _bits((n + 1).sum(0)[k] / (n + 1).sum()),
    ],
    bits_of_left=[
        lambda n, i, k: _bits((n.sum(1)[i] + 1) / (n.sum() + len(n))),
        lambda n, i, k: _bits((n + 1).sum(1)[i] / (n + 1).sum()),
    ],
    divided_by_columns=lambda n, i, k: _bits(((n + 1) / (n + 1).sum(1))[i, k]),
    softmax=lambda n, i, k: _bits(n.float().softmax(1)[i, k]),
    tiny=[lambda n, i, k, tiny=tiny: _bits((n[i, k] + tiny) / (n + tiny).sum(1)[i]) for tiny in TINY],
    divided_by_number=lambda n, i, k: _bits((n[i, k] + 1) / len(k)),
    natural_logarithm=lambda n, i, k: -_share(n, i, k).log(),
    logarithm_to_10=lambda n, i, k: -_share(n, i, k).log10(),
    sign=lambda n, i, k: _share(n, i, k).log2(),
    probabilities=_share,
    inverse=lambda n, i, k: 1 / _share(n, i, k),
    mean=lambda n, i, k: _bits(_share(n, i, k)).mean(),
    sum=lambda n, i, k: _bits(_share(n, i, k)).sum(),
    entropy=lambda n, i, k: (torch.special.entr((n + 1) / (n + 1).sum(1, keepdim=True)).sum(1) / math.log(2))[i],
    terms_of_entropy=lambda n, i, k: _share(n, i, k) * _bits(_share(n, i, k)),
    whole_bits=lambda n, i, k: _bits(_share(n, i, k)).ceil(),
    table=lambda n, i, k: _bits((n + 1) / (n + 1).sum(1, keepdim=True)),
    rows=lambda n, i, k: _bits((n + 1) / (n + 1).sum(1, keepdim=True))[i],
)


@exercise
def bits_given_left(answer: Callable) -> str:
    """Counts (K, K), left neighbours (N,), indices (N,) → bits (N,): log2 1/p(index | left), every pair once more."""
    for size, count, most in [(4, 6, 9), (16, 40, 3), (3, 1, 50)]:
        beside = torch.randint(most, (size, size))
        beside[:, 0] = 0  # never seen
        left, index = torch.randint(size, (count,)), torch.randint(size, (count,))
        index[0] = 0
        inputs = {"beside": beside, "left": left, "index": index}
        compare(answer, lambda *tables: _bits(_share(*tables)), LEFT_MISTAKES, **inputs)
    return say("right")


def _cost(error: Tensor, bits: Tensor, price: float) -> Tensor:
    return error + price * bits


def _cheapest(error: Tensor, bits: Tensor, price: float) -> Tensor:
    return _cost(error, bits, price).argmin(-1) + 1


def _first_that_does_not_pay(error: Tensor, bits: Tensor, price: float) -> Tensor:
    dearer = _cost(error, bits, price).diff(dim=-1) >= 0
    return torch.where(dearer.any(-1), dearer.int().argmax(-1), dearer.shape[-1]) + 1


def _buys(error: Tensor, bits: Tensor, price: float) -> Tensor:
    """How many further stages take more off the error than they cost, wherever they stand."""
    return 1 + (_cost(error, bits, price).diff(dim=-1) < 0).sum(-1)


PRICE_MISTAKES = dict(
    from_0=lambda e, b, p: _cheapest(e, b, p) - 1,
    one_too_many=lambda e, b, p: _cheapest(e, b, p) + 1,
    dearest=lambda e, b, p: _cost(e, b, p).argmax(-1) + 1,
    price_of_error=lambda e, b, p: _cheapest(p * e, b, 1.0),
    without_price=lambda e, b, p: _cheapest(e, b, 1.0),
    without_bits=lambda e, b, p: e.argmin(-1) + 1,
    subtracted=lambda e, b, p: _cheapest(e, b, -p),
    multiplied=lambda e, b, p: (e * p * b).argmin(-1) + 1,
    added_up_again=lambda e, b, p: _cheapest(e, b.cumsum(0), p),
    last_stage_paid_alone=lambda e, b, p: _cheapest(e, b.diff(prepend=b.new_zeros(1)), p),
    bits_of_8=lambda e, b, p: _cheapest(e, 8 * torch.arange(1.0, len(b) + 1), p),
    error_by_bits=[
        lambda e, b, p: _cheapest(e / b, b, 0.0),
        lambda e, b, p: _cheapest(e / b, b, p),
        lambda e, b, p: (e / b > p).sum(-1),
    ],
    price_of_stage=lambda e, b, p: _cheapest(e, torch.arange(1.0, len(b) + 1), p),
    error_squared=lambda e, b, p: _cheapest(e**2, b, p),
    error_rooted=lambda e, b, p: _cheapest(e.sqrt(), b, p),
    same_for_all=[
        lambda e, b, p: _cheapest(e.mean(0), b, p).expand(len(e)),
        lambda e, b, p: _cheapest(e.sum(0), b, p).expand(len(e)),
    ],
    same_number_for_all=[lambda e, b, p: _cheapest(e.mean(0), b, p), lambda e, b, p: _cheapest(e.sum(0), b, p)],
    over_patches=[lambda e, b, p: _cost(e, b, p).argmin(0), lambda e, b, p: _cost(e, b, p).argmin(0) + 1],
    whole_table=[lambda e, b, p: _cost(e, b, p).argmin(), lambda e, b, p: _cost(e, b, p).argmin() + 1],
    first_that_does_not_pay=_first_that_does_not_pay,
    stages_that_pay=_buys,
    cost=lambda e, b, p: _cost(e, b, p).min(-1).values,
    costs=_cost,
    floats=lambda e, b, p: _cheapest(e, b, p).float(),
)


@exercise
def stages_at_price(answer: Callable) -> str:
    """Errors (N, M) and bits (M,) after 1 … M stages, a price → (N,): the number of stages of least cost."""
    bits = torch.tensor([4.0, 10.5, 17.0, 23.0, 29.0, 35.5])
    # At the first price each mistake gives its own answer for these errors.
    error = torch.tensor(
        [
            [90.0, 40.0, 20.0, 10.0, 5.0, 3.2],
            [10.0, 9.0, 8.5, 8.0, 7.9, 7.8],
            [60.0, 59.0, 12.0, 11.5, 11.0, 14.2],  # the second stage alone wouldn't pay
            [120.0, 80.0, 79.0, 30.0, 29.0, 15.0],
            [5.0, 4.5, 4.0, 3.3, 3.4, 4.3],  # with a beam, a stage more may be a little worse
        ]
    )
    for errors, price in [(error, 1.5), (error, 0.3), (error, 6.0), (error[:2, :3], 3.0), (error[2:3], 2.0)]:
        inputs = {"error": errors, "bits": bits[: errors.shape[1]], "price": price}
        compare(answer, _cheapest, PRICE_MISTAKES, **inputs)
    return say("right")


Points = Sequence[tuple[float, float]]


def _read_off(points: Points, rate: float, left: float | None = -math.inf) -> float:
    return float(np.interp(rate, *zip(*points, strict=True), left=left))


def _first(rates: list[float]) -> float:
    return rates[0] if rates else math.inf


def _jpeg_wins(ours: Points, jpeg: Points, left: float | None = -math.inf) -> float:
    return _first([rate for rate, psnr in ours if _read_off(jpeg, rate, left) >= psnr])


def _wins_for_good(ours: Points, jpeg: Points) -> float:
    wins = [_read_off(jpeg, rate) >= psnr for rate, psnr in ours]
    return _first([rate for place, (rate, _) in enumerate(ours) if all(wins[place:])])


def _crossing(ours: Points, jpeg: Points) -> float:
    """The rate, on a fine scale, at which the lines cross, from JPEG's smallest file on."""
    scale = np.linspace(ours[0][0], ours[-1][0], 20_001)
    return _first([rate for rate in scale if _read_off(jpeg, rate) >= _read_off(ours, rate)])


def _nearest_point(ours: Points, jpeg: Points) -> float:
    return _first([rate for rate, psnr in ours if min(jpeg, key=lambda point: abs(point[0] - rate))[1] >= psnr])


def _file_that_fits(ours: Points, jpeg: Points, above: bool = False) -> float:
    def best(rate: float) -> float:
        fitting = [psnr for other, psnr in jpeg if (other >= rate if above else other <= rate)]
        return (min if above else max)(fitting, default=math.inf if above else -math.inf)

    return _first([rate for rate, psnr in ours if best(rate) >= psnr])


JPEG_MISTAKES = dict(
    below_smallest_file=lambda ours, jpeg: _jpeg_wins(ours, jpeg, left=None),
    better_alone=lambda ours, jpeg: _first([rate for rate, psnr in ours if _read_off(jpeg, rate) > psnr]),
    for_good=_wins_for_good,
    ours_wins=lambda ours, jpeg: _first([rate for rate, psnr in ours if _read_off(jpeg, rate, None) <= psnr]),
    last_win=lambda ours, jpeg: max(rate for rate, psnr in ours if _read_off(jpeg, rate) >= psnr),
    last_loss=lambda ours, jpeg: max(rate for rate, _ in ours if rate < _jpeg_wins(ours, jpeg)),
    same_number=lambda ours, jpeg: _first([a[0] for a, b in zip(ours, jpeg, strict=False) if b[1] >= a[1]]),
    nearest_point=_nearest_point,
    file_that_fits=_file_that_fits,
    next_file=lambda ours, jpeg: _file_that_fits(ours, jpeg, above=True),
    rate_of_jpeg=[
        lambda ours, jpeg: _first([rate for rate, psnr in jpeg if psnr >= _read_off(ours, rate)]),
        lambda ours, jpeg: _first([rate for rate, psnr in jpeg if psnr >= _read_off(ours, rate, math.inf)]),
    ],
    crossing=_crossing,
    mixed_up=lambda ours, jpeg: _first([psnr for rate, psnr in ours if _read_off(jpeg, rate) >= psnr]),
    psnr=lambda ours, jpeg: _read_off(jpeg, _jpeg_wins(ours, jpeg)),
    number_of_point=lambda ours, jpeg: next(i for i, (rate, _) in enumerate(ours) if rate == _jpeg_wins(ours, jpeg)),
    points_before=lambda ours, jpeg: sum(_read_off(jpeg, rate) < psnr for rate, psnr in ours),
    by_how_much=lambda ours, jpeg: _read_off(jpeg, _jpeg_wins(ours, jpeg)) - dict(ours)[_jpeg_wins(ours, jpeg)],
    whole_point=lambda ours, jpeg: (_jpeg_wins(ours, jpeg), dict(ours)[_jpeg_wins(ours, jpeg)]),
    all_rates=lambda ours, jpeg: torch.tensor([rate for rate, psnr in ours if _read_off(jpeg, rate) >= psnr]),
    truths=lambda ours, jpeg: torch.tensor([_read_off(jpeg, rate) >= psnr for rate, psnr in ours]),
)


@exercise
def jpeg_wins_from(answer: Callable) -> str:
    """Two lists of (bits per pixel, PSNR) → the first of our rates at which JPEG is at least as good, or inf."""
    jpeg = [(0.04, 12.0), (0.05, 14.0), (0.1, 17.0), (0.15, 20.0), (0.2, 22.0), (0.4, 26.0), (0.8, 29.0)]
    # Each mistake gives its own number for these points. JPEG wins at .29, not at .33, and again from .45 on.
    ours = [(0.16, 22.2), (0.21, 23.5), (0.25, 23.6), (0.29, 23.7)]
    ours += [(0.33, 25.9), (0.45, 26.3), (0.58, 27.1), (0.7, 27.6)]
    below = [(0.03, 11.5), *ours]
    level = [(0.16, 21.5), (0.2, 22.0), (0.4, 26.5), (0.7, 27.6)]  # at .2 both are equal
    never = [(rate, psnr + 5) for rate, psnr in ours]

    for own in (ours, level, below, ours[4:]):
        compare(answer, _jpeg_wins, JPEG_MISTAKES, ours=own, jpeg=jpeg)
    try:
        answered = answer(never, jpeg)
    except Exception as error:
        facts = {"given": given({"ours": never, "jpeg": jpeg}), "error": type(error).__name__}
        raise Wrong("raises_for_never", **facts) from error
    if answered != math.inf:
        raise Wrong("never", answered=answered)
    return say("right")
