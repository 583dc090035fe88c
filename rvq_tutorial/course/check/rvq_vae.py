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
from rvq_tutorial.quantizers import ResidualVectorQuantizer


def _dropped(indices: Tensor, kept: Tensor, shift: int = 0, mark: int = -1) -> Tensor:
    stage = torch.arange(indices.shape[-1])
    return torch.where(stage + shift >= kept.view(-1, 1, 1, 1), mark, indices)


DROP_MISTAKES = {
    "One stage too few is kept: with kept = 2, stages 0 and 1 stay.": lambda i, k: _dropped(i, k, shift=1),
    "One stage too many is kept: with kept = 2, stages 0 and 1 stay.": lambda i, k: _dropped(i, k, shift=-1),
    "Dropped stages have the index 0, which is a codeword like any other: write -1.": lambda i, k: _dropped(i, k, 0, 0),
    "The first stages are dropped and the last kept: it must be the other way round.": lambda i, k: _dropped(
        i.flip(-1), k
    ).flip(-1),
    "The kept stages are overwritten and the dropped ones stay: turn the mask round.": lambda i, k: torch.where(
        _dropped(i, k) < 0, i, -1
    ),
    "Every image keeps as many stages as the first: each has its own number in kept.": lambda i, k: _dropped(
        i, k[:1].expand_as(k)
    ),
    "Every image keeps as many stages as the image that keeps most: each has its own number in kept.": lambda i, k: (
        _dropped(i, k.max().expand_as(k))
    ),
    "Every image keeps as few stages as the image that keeps fewest: each has its own number in kept.": lambda i, k: (
        _dropped(i, k.min().expand_as(k))
    ),
    "kept says how many stages stay, not how many go.": lambda i, k: _dropped(i, i.shape[-1] - k),
    "Stages are dropped in one patch alone: an image drops them in all its patches.": lambda i, k: torch.cat(
        [_dropped(i, k)[:, :1, :1], i.flatten(1, 2)[:, None, 1:]], 2
    ).view(i.shape),
    "Nothing is dropped.": lambda i, k: i,
    "The indices are whole numbers: write -1, not -1.0.": lambda i, k: _dropped(i, k).float(),
    "1 is taken from the dropped indices: write -1 in their place.": lambda i, k: torch.where(
        _dropped(i, k) < 0, i - 1, i
    ),
    "All indices came down by one: the kept ones stay as they are.": lambda i, k: (
        _dropped(i, k) - (_dropped(i, k) >= 0)
    ),
    "This is the mask: return the indices, with -1 where a stage is dropped.": lambda i, k: (_dropped(i, k) < 0).long(),
    "This is the mask of what is kept: return the indices, with -1 elsewhere.": lambda i, k: (
        _dropped(i, k) >= 0
    ).long(),
    "Rows or columns of the image are dropped: the stages are the last axis.": [
        lambda i, k: _dropped(i.mT, k).mT,
        lambda i, k: _dropped(i.transpose(1, 3), k).transpose(1, 3),
    ],
    "The dropped stages are cut off for all images alike: keep all M entries and write -1 into some.": lambda i, k: i[
        ..., : k.max()
    ],
    "The dropped stages are cut off for all images alike, at the smallest of kept: keep all M entries.": (
        lambda i, k: i[..., : k.min()]
    ),
}


@exercise
def drop_stages(answer: Callable) -> str:
    """(B, h, w, M), (B,) → (B, h, w, M): −1 in the stages that an image doesn't keep."""
    given_kept = [torch.tensor(kept) for kept in ([3, 1, 7, 5], [2], [1, 4, 2, 3, 4, 1])]
    for shape, kept in zip([(4, 3, 2, 8), (1, 2, 2, 3), (6, 1, 5, 4)], given_kept, strict=True):
        compare(answer, _dropped, DROP_MISTAKES, indices=torch.randint(2, 16, shape), kept=kept)
    return "Every image keeps its own number of stages, on every input tried."


def _middle(image: Tensor, height: int, width: int) -> Tensor:
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[..., top : top + height, left : left + width]


DecodePrefix = Callable[[VQVAE, Tensor, int, int, int], Tensor]  # model, indices, m, height, width
PREFIX_MISTAKES: dict[str, DecodePrefix] = {
    "All stages are used: keep the first num_quantizers of them.": lambda v, i, m, h, w: v.decode(i)[..., :h, :w],
    "These are the last stages: the first ones are asked for.": lambda v, i, m, h, w: v.decode(i[..., -m:])[
        ..., :h, :w
    ],
    "The first stages are skipped: indices[..., :m] keeps them, indices[..., m:] the others.": lambda v, i, m, h, w: (
        v.decode(i[..., m:])[..., :h, :w]
    ),
    "This is stage number num_quantizers alone: decode it with all those before it.": lambda v, i, m, h, w: v.decode(
        i[..., m - 1 : m]
    )[..., :h, :w],
    "One stage too many is used: indices[..., :m] holds m of them.": lambda v, i, m, h, w: v.decode(i[..., : m + 1])[
        ..., :h, :w
    ],
    "One stage too few is used: indices[..., :m] holds m of them.": lambda v, i, m, h, w: v.decode(i[..., : m - 1])[
        ..., :h, :w
    ],
    "The image still has its filled-up patches: cut it to height and width.": lambda v, i, m, h, w: v.decode(
        i[..., :m]
    ),
    "All stages are used, and the image still has its filled-up patches.": lambda v, i, m, h, w: v.decode(i),
    "The image is cut at the top and left; the filling is at the bottom and right.": lambda v, i, m, h, w: v.decode(
        i[..., :m]
    )[..., -h:, -w:],
    "The image is cut on all sides: the filling is at the bottom and right alone.": lambda v, i, m, h, w: _middle(
        v.decode(i[..., :m]), h, w
    ),
    "The later stages have the index 0, which is a codeword like any other: leave them out.": lambda v, i, m, h, w: (
        v.decode(F.pad(i[..., :m], (0, i.shape[-1] - m)))[..., :h, :w]
    ),
    "Height and width are swapped: an image is (B, 3, height, width).": lambda v, i, m, h, w: v.decode(i[..., :m])[
        ..., :w, :h
    ],
    "Only the height is cut: the width has filled-up patches too.": lambda v, i, m, h, w: v.decode(i[..., :m])[
        ..., :h, :
    ],
    "Only the width is cut: the height has filled-up patches too.": lambda v, i, m, h, w: v.decode(i[..., :m])[..., :w],
    "The image is squeezed to its size: cut the filling off instead.": lambda v, i, m, h, w: F.interpolate(
        v.decode(i[..., :m]), (h, w)
    ),
    "The image is squeezed to its size, smoothly: cut the filling off instead.": lambda v, i, m, h, w: F.interpolate(
        v.decode(i[..., :m]), (h, w), mode="bilinear"
    ),
    "The batch is lost: return (B, 3, height, width), for every image of the batch.": lambda v, i, m, h, w: v.decode(
        i[..., :m]
    )[0, :, :h, :w],
    "The colours are the last axis: leave the image as (B, 3, height, width).": lambda v, i, m, h, w: v.decode(
        i[..., :m]
    )[..., :h, :w].permute(0, 2, 3, 1),
    "These are the first images of the batch: the stages are the last axis.": lambda v, i, m, h, w: v.decode(i[:m])[
        ..., :h, :w
    ],
    "These are the first rows of patches: the stages are the last axis.": lambda v, i, m, h, w: v.decode(i[:, :m])[
        ..., :h, :w
    ],
    "These are the kept indices: hand them to model.decode.": lambda v, i, m, h, w: i[..., :m],
    "These are the indices' codewords, added up: model.decode makes an image of them.": lambda v, i, m, h, w: (
        v.quantizer.decode(i[..., :m])
    ),
}


@exercise
def decode_prefix(answer: Callable) -> str:
    """Model, indices (B, h, w, M), number of stages, height, width → (B, 3, height, width)."""
    sizes = {"dim": 6, "width": 8, "stride": 4, "num_blocks": 1}
    quantizer = ResidualVectorQuantizer(6, 8, 5, channel_dim=1)
    model = VQVAE(Encoder(**sizes), quantizer, Decoder(**sizes)).eval()

    def of_model(decode: DecodePrefix) -> Callable:
        """Whether values outside [0, 1] are cut off is left to the learner."""

        @functools.wraps(decode)
        def clamped(*inputs: Any) -> Any:
            image = decode(model, *inputs)
            return image.clamp(0, 1) if isinstance(image, Tensor) and image.is_floating_point() else image

        return clamped

    def right(model: VQVAE, indices: Tensor, stages: int, height: int, width: int) -> Tensor:
        return model.decode(indices[..., :stages])[..., :height, :width]

    mistakes = {words: of_model(mistake) for words, mistake in PREFIX_MISTAKES.items()}
    with torch.no_grad():
        for batch, height, width, stages in [(3, 10, 13, 2), (1, 8, 8, 1), (1, 9, 6, 3), (1, 5, 7, 4)]:
            indices = model.encode(torch.rand(batch, 3, height, width))
            inputs = {"indices": indices, "num_quantizers": stages, "height": height, "width": width}
            compare(of_model(answer), of_model(right), mistakes, **inputs)
    return "The right image from every prefix tried, cut to its size."


def _bits(share: Tensor) -> Tensor:
    return -share.log2()


def _share(beside: Tensor, left: Tensor, index: Tensor, seen: int = 1, total: int | None = None) -> Tensor:
    """p(index | left), where each pair counts `seen` times more than it was seen, and all of a row `total` times."""
    total = len(beside) if total is None else total
    return (beside[left, index] + seen) / (beside[left].sum(-1) + total)


TINY = (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6)  # usual for keeping a logarithm finite
LEFT_MISTAKES = {
    "An index that was never seen beside this one gets p = 0 and infinitely many bits: count each once more.": (
        lambda n, i, k: _bits(_share(n, i, k, 0, 0))
    ),
    "The shares of a row add up to more than 1: of K counts that are one larger, the sum is K larger.": (
        lambda n, i, k: _bits(_share(n, i, k, 1, 0))
    ),
    "One more for each of K counts makes K more in all, not 1.": lambda n, i, k: _bits(_share(n, i, k, 1, 1)),
    "Each count is one larger too, not their sum alone.": lambda n, i, k: _bits(_share(n, i, k, 0)),
    "That is how likely the pair is among all pairs: among those with this left neighbour, divide by its row's sum.": (
        lambda n, i, k: _bits((n[i, k] + 1) / (n.sum() + n.numel()))
    ),
    "That is the pair's share of all pairs, and an unseen pair gets none: divide by its row's sum, one more each.": (
        lambda n, i, k: _bits(n[i, k] / n.sum())
    ),
    "That is p(left | index), a column's share: the left neighbour is known, so divide by its row's sum.": (
        lambda n, i, k: _bits((n[i, k] + 1) / (n[:, k].sum(0) + len(n)))
    ),
    "Row and column are swapped: beside[left, index] counts index to the right of left.": lambda n, i, k: _bits(
        _share(n, k, i)
    ),
    "The table is turned round: beside[left, index] counts index to the right of left.": lambda n, i, k: _bits(
        _share(n.T, i, k)
    ),
    "The left neighbour has no say: that is how often the index occurs anywhere.": [
        lambda n, i, k: _bits((n.sum(0)[k] + 1) / (n.sum() + len(n))),
        lambda n, i, k: _bits((n + 1).sum(0)[k] / (n + 1).sum()),
    ],
    "These bits belong to the left neighbour: it is known, the index is to be written.": [
        lambda n, i, k: _bits((n.sum(1)[i] + 1) / (n.sum() + len(n))),
        lambda n, i, k: _bits((n + 1).sum(1)[i] / (n + 1).sum()),
    ],
    "Each column is divided by a row's sum: a row's own sum needs keepdim=True.": lambda n, i, k: _bits(
        ((n + 1) / (n + 1).sum(1))[i, k]
    ),
    "A softmax makes powers of the counts: a share is the count, one more, divided by its row's sum.": [
        lambda n, i, k: _bits(n.float().softmax(1)[i, k]),
    ],
    "So tiny a count makes what was never seen cost dozens of bits: count each pair once more.": [
        lambda n, i, k, tiny=tiny: _bits((n[i, k] + tiny) / (n + tiny).sum(1)[i]) for tiny in TINY
    ],
    "That is the count divided by how many indices came: divide by its row's sum.": lambda n, i, k: _bits(
        (n[i, k] + 1) / len(k)
    ),
    "The logarithm is that to base 2.": lambda n, i, k: -_share(n, i, k).log(),
    "The logarithm is that to base 2, not 10.": lambda n, i, k: -_share(n, i, k).log10(),
    "Mind the sign: log2 of a probability is negative, and log2 1/p = −log2 p.": lambda n, i, k: _share(n, i, k).log2(),
    "These are the probabilities: how many bits is log2 1/p?": _share,
    "This is 1/p: its logarithm to base 2 is asked for.": lambda n, i, k: 1 / _share(n, i, k),
    "This is their mean: give the bits of each index.": lambda n, i, k: _bits(_share(n, i, k)).mean(),
    "This is their sum: give the bits of each index.": lambda n, i, k: _bits(_share(n, i, k)).sum(),
    "This is the entropy of what may follow: of the index that did follow, the bits are log2 1/p.": lambda n, i, k: (
        torch.special.entr((n + 1) / (n + 1).sum(1, keepdim=True)).sum(1) / math.log(2)
    )[i],
    "Bits are p · log2 1/p only on average over all indices: of one that came, they are log2 1/p.": lambda n, i, k: (
        _share(n, i, k) * _bits(_share(n, i, k))
    ),
    "An index's bits needn't be whole: an entropy coder writes fractions of one.": lambda n, i, k: _bits(
        _share(n, i, k)
    ).ceil(),
    "This is the table of all pairs: pick the pairs that came, [left, index].": lambda n, i, k: _bits(
        (n + 1) / (n + 1).sum(1, keepdim=True)
    ),
    "These are the bits of every index after this neighbour: pick the index that came.": lambda n, i, k: _bits(
        (n + 1) / (n + 1).sum(1, keepdim=True)
    )[i],
}


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
    return "log2 1/p(index | left) for every table tried, and nothing is impossible."


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


PRICE_MISTAKES = {
    "Counted from 0: the first column holds the error of 1 stage, so add 1.": lambda e, b, p: _cheapest(e, b, p) - 1,
    "One stage too many: argmin counts from 0, so 1 is added once.": lambda e, b, p: _cheapest(e, b, p) + 1,
    "That is where it costs most: least is asked for.": lambda e, b, p: _cost(e, b, p).argmax(-1) + 1,
    "The price belongs to the bits as a factor: it neither multiplies the error nor divides the bits.": (
        lambda e, b, p: _cheapest(p * e, b, 1.0)
    ),
    "The bits count as they are: multiply them by the price.": lambda e, b, p: _cheapest(e, b, 1.0),
    "The bits have no say: add price · bits to the error.": lambda e, b, p: e.argmin(-1) + 1,
    "Error and bits are both to be small: add price · bits, don't subtract it.": lambda e, b, p: _cheapest(e, b, -p),
    "Error times bits is no price: add price · bits to the error.": lambda e, b, p: (e * p * b).argmin(-1) + 1,
    "bits already holds what m stages take together: don't add them up once more.": lambda e, b, p: _cheapest(
        e, b.cumsum(0), p
    ),
    "bits holds what m stages take together, and all of it is paid for, not the last stage's alone.": lambda e, b, p: (
        _cheapest(e, b.diff(prepend=b.new_zeros(1)), p)
    ),
    "What m stages take stands in bits, and needn't be 8 for each: multiply the price by bits.": lambda e, b, p: (
        _cheapest(e, 8 * torch.arange(1.0, len(b) + 1), p)
    ),
    "The error isn't shared out among the bits: add price · bits to it.": [
        lambda e, b, p: _cheapest(e / b, b, 0.0),
        lambda e, b, p: _cheapest(e / b, b, p),
        lambda e, b, p: (e / b > p).sum(-1),
    ],
    "The price is that of a bit, not of a stage: multiply it by bits.": lambda e, b, p: _cheapest(
        e, torch.arange(1.0, len(b) + 1), p
    ),
    "The error is squared already: add price · bits to it as it is.": lambda e, b, p: _cheapest(e**2, b, p),
    "The error stays squared: don't take its root.": lambda e, b, p: _cheapest(e.sqrt(), b, p),
    "Every patch gets the same number of stages: each has its own least.": [
        lambda e, b, p: _cheapest(e.mean(0), b, p).expand(len(e)),
        lambda e, b, p: _cheapest(e.sum(0), b, p).expand(len(e)),
    ],
    "Every patch got the same number of stages, a single number: each has its own least.": [
        lambda e, b, p: _cheapest(e.mean(0), b, p),
        lambda e, b, p: _cheapest(e.sum(0), b, p),
    ],
    "This is the least over the patches, for each number of stages: for each patch, take it over the stages.": [
        lambda e, b, p: _cost(e, b, p).argmin(0),
        lambda e, b, p: _cost(e, b, p).argmin(0) + 1,
    ],
    "This is the best place in the whole table, a single number: each patch has its own least.": [
        lambda e, b, p: _cost(e, b, p).argmin(),
        lambda e, b, p: _cost(e, b, p).argmin() + 1,
    ],
    "It stops at the first stage that doesn't pay, and the one after it may: look at every number of stages.": (
        _first_that_does_not_pay
    ),
    "Stages that pay are counted wherever they stand, but a patch can't skip one: compare the totals.": _buys,
    "This is what it costs: how many stages give it?": lambda e, b, p: _cost(e, b, p).min(-1).values,
    "These are the costs of every number of stages: which number is least?": _cost,
    "A number of stages is whole: argmin gives whole numbers.": lambda e, b, p: _cheapest(e, b, p).float(),
}


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
    return "Each patch buys as long as buying pays, at every price tried."


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


JPEG_MISTAKES = {
    "Below its smallest file JPEG has nothing to show, so it can't win there: np.interp(..., left=-math.inf).": (
        lambda ours, jpeg: _jpeg_wins(ours, jpeg, left=None)
    ),
    "At least as good is asked for: where both are equal, JPEG wins.": lambda ours, jpeg: _first(
        [rate for rate, psnr in ours if _read_off(jpeg, rate) > psnr]
    ),
    "That is where JPEG wins for good; the first rate at which it wins is asked for.": _wins_for_good,
    "This is where ours is at least as good; where is JPEG?": lambda ours, jpeg: _first(
        [rate for rate, psnr in ours if _read_off(jpeg, rate, None) <= psnr]
    ),
    "That is the last of our rates at which JPEG wins; the first is asked for.": lambda ours, jpeg: max(
        rate for rate, psnr in ours if _read_off(jpeg, rate) >= psnr
    ),
    "That is the last rate at which ours still wins; the first at which JPEG does is asked for.": lambda ours, jpeg: (
        max(rate for rate, _ in ours if rate < _jpeg_wins(ours, jpeg))
    ),
    "The points with the same number in both lists have different rates: compare at the same rate.": (
        lambda ours, jpeg: _first([a[0] for a, b in zip(ours, jpeg, strict=False) if b[1] >= a[1]])
    ),
    "JPEG's nearest point is at another rate: read its PSNR off the line between two points.": _nearest_point,
    "That is JPEG's largest file that fits, a step: read its PSNR off the line between two points.": _file_that_fits,
    "That is JPEG's next larger file: read its PSNR off the line between two points.": lambda ours, jpeg: (
        _file_that_fits(ours, jpeg, above=True)
    ),
    "That is one of JPEG's rates: the first of ours is asked for.": [
        lambda ours, jpeg: _first([rate for rate, psnr in jpeg if psnr >= _read_off(ours, rate)]),
        lambda ours, jpeg: _first([rate for rate, psnr in jpeg if psnr >= _read_off(ours, rate, math.inf)]),
    ],
    "That is where the lines cross, between two of our files: the first of our rates is asked for.": _crossing,
    "The order of rate and PSNR is mixed up: a point is (bits per pixel, PSNR).": lambda ours, jpeg: _first(
        [psnr for rate, psnr in ours if _read_off(jpeg, rate) >= psnr]
    ),
    "That is JPEG's PSNR there; the rate is asked for.": lambda ours, jpeg: _read_off(jpeg, _jpeg_wins(ours, jpeg)),
    "That is the number of a point; its rate is asked for.": lambda ours, jpeg: next(
        i for i, (rate, _) in enumerate(ours) if rate == _jpeg_wins(ours, jpeg)
    ),
    "That is how many of our points JPEG doesn't beat; the rate of the first that it does is asked for.": (
        lambda ours, jpeg: sum(_read_off(jpeg, rate) < psnr for rate, psnr in ours)
    ),
    "That is by how much JPEG wins there; the rate is asked for.": lambda ours, jpeg: (
        _read_off(jpeg, _jpeg_wins(ours, jpeg)) - dict(ours)[_jpeg_wins(ours, jpeg)]
    ),
    "That is a whole point; its rate alone is asked for.": lambda ours, jpeg: (
        _jpeg_wins(ours, jpeg),
        dict(ours)[_jpeg_wins(ours, jpeg)],
    ),
    "These are all of our rates at which JPEG wins; the first is asked for.": lambda ours, jpeg: torch.tensor(
        [rate for rate, psnr in ours if _read_off(jpeg, rate) >= psnr]
    ),
    "These are the words true and false for each of our points; the rate of the first true one is asked for.": (
        lambda ours, jpeg: torch.tensor([_read_off(jpeg, rate) >= psnr for rate, psnr in ours])
    ),
}
NEVER = "JPEG never wins there: then return math.inf, not {}."


@exercise
def jpeg_wins_from(answer: Callable) -> str:
    """Two lists of (bits per pixel, PSNR) → the first of our rates at which JPEG is at least as good, or inf."""
    jpeg = [(0.04, 12.0), (0.05, 14.0), (0.1, 17.0), (0.15, 20.0), (0.2, 22.0), (0.4, 26.0), (0.8, 29.0)]
    # Each mistake gives its own number for these points. JPEG wins at .29, not at .33, and again from .45 on.
    ours = [
        (0.16, 22.2),
        (0.21, 23.5),
        (0.25, 23.6),
        (0.29, 23.7),
        (0.33, 25.9),
        (0.45, 26.3),
        (0.58, 27.1),
        (0.7, 27.6),
    ]
    below = [(0.03, 11.5), *ours]
    level = [(0.16, 21.5), (0.2, 22.0), (0.4, 26.5), (0.7, 27.6)]  # at .2 both are equal
    never = [(rate, psnr + 5) for rate, psnr in ours]

    for own in (ours, level, below, ours[4:]):
        compare(answer, _jpeg_wins, JPEG_MISTAKES, ours=own, jpeg=jpeg)
    try:
        answered = answer(never, jpeg)
    except Exception as error:
        words = f"it raises {type(error).__name__}"
        raise Wrong(f"JPEG never wins {given({'ours': never, 'jpeg': jpeg})}: return math.inf; {words}.") from error
    if answered != math.inf:
        raise Wrong(NEVER.format(answered))
    return "The first rate at which JPEG is as good, or inf, for every pair of curves tried."
