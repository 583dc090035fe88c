"""Wrong answers to the exercises of 07 · One model, every bitrate?"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Exercise → wrong answers, each with a regular expression for what its learner is told.
WRONG: dict[str, list[tuple[Any, str]]] = {}


def _with_dropped(indices: Tensor, kept: Tensor, dropped: int = -1) -> Tensor:
    rows = [
        torch.where(torch.arange(row.shape[-1]) < num, row, dropped) for row, num in zip(indices, kept, strict=True)
    ]
    return torch.stack(rows)


def _in_place(indices: Tensor, kept: Tensor) -> Tensor:
    for row, num in zip(indices, kept, strict=True):
        row[..., num:] = -1
    return indices


def _first_patch_alone(indices: Tensor, kept: Tensor) -> Tensor:
    dropped = indices.clone()
    for image, num in zip(dropped, kept, strict=True):
        image[0, 0, num:] = -1
    return dropped


WRONG["drop_stages"] = [
    (lambda indices, kept: _with_dropped(indices, kept - 1), "too few"),
    (lambda indices, kept: _with_dropped(indices, kept + 1), "too many"),
    (lambda indices, kept: _with_dropped(indices, kept, dropped=0), "codeword like any other"),
    (lambda indices, kept: indices * (torch.arange(indices.shape[-1]) < kept.view(-1, 1, 1, 1)), "like any other"),
    (lambda indices, kept: _with_dropped(indices.flip(-1), kept).flip(-1), "other way round"),
    (lambda indices, kept: torch.where(_with_dropped(indices, kept) == -1, indices, -1), "turn the mask round"),
    (lambda indices, kept: _with_dropped(indices, torch.full_like(kept, kept[0])), "as the first"),
    (lambda indices, kept: _with_dropped(indices, torch.full_like(kept, kept.max())), "keeps most"),
    (lambda indices, kept: _with_dropped(indices, torch.full_like(kept, kept.min())), "keeps fewest"),
    (lambda indices, kept: _with_dropped(indices, indices.shape[-1] - kept), "not how many go"),
    (lambda indices, kept: _first_patch_alone(indices, kept), "one patch alone"),
    (lambda indices, kept: _with_dropped(indices.transpose(1, 3), kept).transpose(1, 3), "last axis"),
    (lambda indices, kept: indices.clone(), "Nothing is dropped"),
    (lambda indices, kept: _with_dropped(indices.float(), kept), "not -1.0"),
    (lambda indices, kept: torch.arange(indices.shape[-1]) >= kept.view(-1, 1, 1, 1).expand_as(indices), "the mask"),
    (lambda indices, kept: _with_dropped(indices, kept) >= 0, "mask of what is kept"),
    (lambda indices, kept: torch.where(_with_dropped(indices, kept) < 0, indices - 1, indices), "1 is taken"),
    (lambda indices, kept: _with_dropped(indices.transpose(2, 3), kept).transpose(2, 3), "last axis"),
    (lambda indices, kept: indices[..., : kept.max()], "cut off"),
    (lambda indices, kept: indices[..., : kept.min()], "cut off"),
    (_in_place, "in place"),
    (lambda indices, kept: torch.where(torch.arange(indices.shape[-1]) >= kept, -1, indices), "raises RuntimeError"),
    (lambda indices, kept: 0, "✗"),
]


def _central(image: Tensor, height: int, width: int) -> Tensor:
    return image.narrow(2, (image.shape[2] - height) // 2, height).narrow(3, (image.shape[3] - width) // 2, width)


def _zeroed(indices: Tensor, num: int) -> Tensor:
    return indices * (torch.arange(indices.shape[-1]) < num)


WRONG["decode_prefix"] = [
    (lambda model, indices, num, h, w: model.decode(indices)[..., :h, :w], "All stages"),
    (lambda model, indices, num, h, w: model.decode(indices), "All stages .* filled-up"),
    (lambda model, indices, num, h, w: model.decode(indices[..., -num:])[..., :h, :w], "last stages"),
    (lambda model, indices, num, h, w: model.decode(indices[..., num:])[..., :h, :w], "skipped"),
    (lambda model, indices, num, h, w: model.decode(indices[..., num - 1 : num])[..., :h, :w], "alone"),
    (lambda model, indices, num, h, w: model.decode(indices[..., : num + 1])[..., :h, :w], "too many"),
    (lambda model, indices, num, h, w: model.decode(indices[..., : num - 1])[..., :h, :w], "too few"),
    (lambda model, indices, num, h, w: model.decode(indices[..., :num]), "filled-up"),
    (lambda model, indices, num, h, w: model.decode(indices[..., :num])[..., -h:, -w:], "bottom and right"),
    (lambda model, indices, num, h, w: model.decode(indices[..., :num])[:, :, :w, :h], "swapped"),
    (lambda model, indices, num, h, w: model.decode(indices[..., :num])[:, :, :h], "Only the height"),
    (lambda model, indices, num, h, w: model.decode(indices[..., :num])[..., :w], "Only the width"),
    (lambda model, indices, num, h, w: F.interpolate(model.decode(indices[..., :num]), (h, w)), "squeezed"),
    (lambda model, indices, num, h, w: _central(model.decode(indices[..., :num]), h, w), "on all sides"),
    (lambda model, indices, num, h, w: model.decode(_zeroed(indices, num))[..., :h, :w], "codeword like any other"),
    (lambda model, indices, num, h, w: model.decode(indices[..., :num])[0, :, :h, :w], "batch is lost"),
    (lambda model, indices, num, h, w: model.decode(indices[..., :num])[..., :h, :w].permute(0, 2, 3, 1), "colours"),
    (lambda model, indices, num, h, w: model.decode(indices[:num])[..., :h, :w], "first images of the batch"),
    (lambda model, indices, num, h, w: model.decode(indices[:, :num])[..., :h, :w], "rows of patches"),
    (lambda model, indices, num, h, w: indices[..., :num], "hand them to"),
    (lambda model, indices, num, h, w: model.quantizer.decode(indices[..., :num]), "model.decode makes"),
]


def _bits_left(beside: Tensor, left: Tensor, index: Tensor, extra: float = 1, more: float | None = None) -> Tensor:
    counts = beside[left] + extra
    total = counts.sum(1) if more is None else beside[left].sum(1) + more
    return -torch.log2(counts[torch.arange(len(index)), index] / total)


WRONG["bits_given_left"] = [
    (lambda beside, left, index: _bits_left(beside, left, index, 0), "never seen"),
    (lambda beside, left, index: _bits_left(beside, left, index, 1, 0), "more than 1"),
    (lambda beside, left, index: _bits_left(beside, left, index, 1, 1), "K more in all"),
    (lambda beside, left, index: _bits_left(beside, left, index, 0, len(beside)), "not their sum alone"),
    (lambda beside, left, index: _bits_left(beside, index, left), "swapped"),
    (lambda beside, left, index: -((beside + 1) / (beside + 1).sum())[left, index].log2(), "how likely the pair"),
    (lambda beside, left, index: -(beside / beside.sum())[left, index].log2(), "share of all pairs"),
    (lambda beside, left, index: -((beside + 1) / (beside + 1).sum(0))[left, index].log2(), "a column's share"),
    (lambda beside, left, index: -((beside.sum(0) + 1) / (beside.sum(0) + 1).sum())[index].log2(), "has no say"),
    (lambda beside, left, index: -((beside + 1).sum(0) / (beside + 1).sum())[index].log2(), "has no say"),
    (lambda beside, left, index: -((beside + 1).sum(1) / (beside + 1).sum())[left].log2(), "belong to the left"),
    (lambda beside, left, index: -((beside + 1) / (beside + 1).sum(1))[left, index].log2(), "keepdim=True"),
    (lambda beside, left, index: -beside.float().softmax(1)[left, index].log2(), "softmax makes powers"),
    (lambda beside, left, index: _bits_left(beside, left, index, 1e-9), "dozens of bits"),
    (lambda beside, left, index: -((beside + 1)[left, index] / len(index)).log2(), "how many indices came"),
    (lambda beside, left, index: _bits_left(beside, left, index) * math.log(2), "to base 2"),
    (lambda beside, left, index: _bits_left(beside, left, index) * math.log10(2), "not 10"),
    (lambda beside, left, index: -_bits_left(beside, left, index), "Mind the sign"),
    (lambda beside, left, index: (-_bits_left(beside, left, index)).exp2(), "probabilities"),
    (lambda beside, left, index: _bits_left(beside, left, index).exp2(), "1/p"),
    (lambda beside, left, index: _bits_left(beside, left, index).mean(), "mean"),
    (lambda beside, left, index: _bits_left(beside, left, index).sum(), "sum: give"),
    (lambda beside, left, index: _bits_left(beside, left, index).ceil(), "needn't be whole"),
    (lambda beside, left, index: -((beside + 1) / (beside + 1).sum(1, keepdim=True)).log2(), "table of all pairs"),
    (lambda beside, left, index: -((beside + 1) / (beside + 1).sum(1, keepdim=True))[left].log2(), "pick the index"),
    (lambda beside, left, index: "8 bits", "a tensor or a number"),
]


def _costs(error: Tensor, bits: Tensor, price: float) -> Tensor:
    return torch.stack([error[:, m] + price * bits[m] for m in range(len(bits))], 1)


def _greedy(error: Tensor, bits: Tensor, price: float) -> Tensor:
    """Buys one stage after another, until the next costs more than it saves."""
    found = []
    for row in error:
        m = 1
        while m < len(bits) and row[m - 1] - row[m] > price * (bits[m] - bits[m - 1]):
            m += 1
        found.append(m)
    return torch.tensor(found)


WRONG["stages_at_price"] = [
    (lambda error, bits, price: _costs(error, bits, price).argmin(1), "add 1"),
    (lambda error, bits, price: _costs(error, bits, price).argmin(1) + 2, "One stage too many"),
    (lambda error, bits, price: _costs(error, bits, price).argmax(1) + 1, "costs most"),
    (lambda error, bits, price: _costs(price * error, bits, 1).argmin(1) + 1, "belongs to the bits"),
    (lambda error, bits, price: (error + bits).argmin(1) + 1, "count as they are"),
    (lambda error, bits, price: (error + bits / price).argmin(1) + 1, "divides the bits"),
    (lambda error, bits, price: error.argmin(1) + 1, "no say"),
    (lambda error, bits, price: (error - price * bits).argmin(1) + 1, "don't subtract"),
    (lambda error, bits, price: (error * price * bits).argmin(1) + 1, "times bits"),
    (lambda error, bits, price: (error + price * bits.cumsum(0)).argmin(1) + 1, "up once more"),
    (lambda error, bits, price: (error + price * torch.tensor([4.0, *bits.diff()])).argmin(1) + 1, "all of it"),
    (lambda error, bits, price: (error + price * (1 + torch.arange(len(bits)))).argmin(1) + 1, "not of a stage"),
    (lambda error, bits, price: _costs(error.sqrt(), bits, price).argmin(1) + 1, "root"),
    (lambda error, bits, price: (_costs(error, bits, price).sum(0).argmin() + 1).repeat(len(error)), "same number"),
    (lambda error, bits, price: _costs(error, bits, price).sum(0).argmin() + 1, "single number"),
    (lambda error, bits, price: ((error.sum(0) + price * bits).argmin() + 1).repeat(len(error)), "same number"),
    (lambda error, bits, price: _costs(error, bits, price).argmin(0) + 1, "least over the patches"),
    (lambda error, bits, price: _costs(error, bits, price).argmin() + 1, "best place in the whole table"),
    (lambda error, bits, price: (error + price * 8 * (1 + torch.arange(len(bits)))).argmin(1) + 1, "needn't be 8"),
    (lambda error, bits, price: (error / bits + price).argmin(1) + 1, "shared out among the bits"),
    (lambda error, bits, price: (error / bits > price).sum(1), "shared out among the bits"),
    (_greedy, "the one after it may"),
    (lambda error, bits, price: 1 + (error.diff() < -price * bits.diff()).sum(1), "wherever they stand"),
    (lambda error, bits, price: _costs(error, bits, price).amin(1), "what it costs"),
    (_costs, "costs of every number"),
    (lambda error, bits, price: _costs(error, bits, price).argmin(1) + 1.0, "whole"),
]


def _first_win(ours: list, jpeg: list, **options: float) -> int:
    """Number of our first point at which JPEG is at least as good; one past the last if there is none."""
    return (*_wins(ours, jpeg, **options), True).index(True)


def _wins(ours: list, jpeg: list, **options: float) -> list[bool]:
    rates, psnrs = zip(*jpeg, strict=True)
    return [bool(np.interp(rate, rates, psnrs, **({"left": -math.inf} | options)) >= psnr) for rate, psnr in ours]


def _ours_at(ours: list, jpeg: list) -> float:
    return next((q for q, p in jpeg if p >= np.interp(q, *zip(*ours, strict=True), left=-math.inf)), math.inf)


def _or(answer: Any, never: Any) -> Any:
    """An answer that is right but for what it gives where JPEG never wins."""

    def answered(ours: list, jpeg: list) -> Any:
        place = _first_win(ours, jpeg)
        return answer(ours, place) if place < len(ours) else (never() if callable(never) else never)

    return answered


def _raises() -> None:
    raise StopIteration


def _rate(ours: list, place: int) -> float:
    return ours[place][0]


WRONG["jpeg_wins_from"] = [
    (
        lambda ours, jpeg: [*ours, (math.inf, 0)][(*_wins(ours, jpeg, left=jpeg[0][1]), True).index(True)][0],
        "nothing to show",
    ),
    (
        lambda ours, jpeg: next(
            (r for r, p in ours if np.interp(r, *zip(*jpeg, strict=True), left=-math.inf) > p), math.inf
        ),
        "where both are equal",
    ),
    (
        lambda ours, jpeg: next((r for i, (r, _) in enumerate(ours) if all(_wins(ours, jpeg)[i:])), math.inf),
        "for good",
    ),
    (lambda ours, jpeg: next(r for r, p in ours if p >= np.interp(r, *zip(*jpeg, strict=True))), "where ours is"),
    (lambda ours, jpeg: max(r for (r, _), won in zip(ours, _wins(ours, jpeg), strict=True) if won), "That is the last"),
    (lambda ours, jpeg: ours[_first_win(ours, jpeg) - 1][0], "last rate"),
    (
        lambda ours, jpeg: next((a[0] for a, b in zip(ours, jpeg, strict=False) if a[1] <= b[1]), math.inf),
        "the same number in both lists",
    ),
    (
        lambda ours, jpeg: next(
            (r for r, p in ours if dict(jpeg)[min(dict(jpeg), key=lambda q: abs(q - r))] >= p), math.inf
        ),
        "nearest point",
    ),
    (
        lambda ours, jpeg: next((r for r, p in ours if any(q <= r and s >= p for q, s in jpeg)), math.inf),
        "largest file that fits",
    ),
    (lambda ours, jpeg: next((r for r, p in ours if next(s for q, s in jpeg if q >= r) >= p)), "next larger"),
    (_ours_at, "one of JPEG's rates"),
    (
        lambda ours, jpeg: next(q for q, p in jpeg if q >= ours[0][0] and p >= np.interp(q, *zip(*ours, strict=True))),
        "one of JPEG's rates",
    ),
    (lambda ours, jpeg: np.interp(ours[_first_win(ours, jpeg)][0], *zip(*jpeg, strict=True)), "JPEG's PSNR"),
    (lambda ours, jpeg: _first_win(ours, jpeg), "number of a point"),
    (lambda ours, jpeg: ours[_first_win(ours, jpeg)][1], "rate and PSNR is mixed up"),
    (lambda ours, jpeg: ours[_first_win(ours, jpeg)], "a whole point"),
    (lambda ours, jpeg: [r for (r, _), won in zip(ours, _wins(ours, jpeg), strict=True) if won], "all of our rates"),
    (_wins, "true and false"),
    (_or(_rate, never=None), "return math.inf, not None"),
    (_or(_rate, never=0.7), "return math.inf, not 0.7"),
    (_or(_rate, never=_raises), "StopIteration"),
    (lambda ours, jpeg: "at 0.3", "a tensor or a number"),
]
