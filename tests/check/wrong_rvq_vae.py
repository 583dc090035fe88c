"""Wrong answers to the exercises of 07 · One model, every bitrate?"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Exercise → wrong answers, each with a regular expression for what its learner is told.
WRONG: dict[str, list[tuple[Any, str]]] = {}

WRONG["bits_per_pixel"] = [
    (lambda stride, size, stages: stages * math.log2(size) / stride, "square of the stride"),
    (lambda stride, size, stages: stages * math.log2(size), "share them"),
    (lambda stride, size, stages: math.log2(size) / stride**2, "Every stage"),
    (lambda stride, size, stages: stages * size / stride**2, "isn't K bits"),
    (lambda stride, size, stages: math.log2(size * stages) / stride**2, "not log2"),
    (lambda stride, size, stages: stages * math.log(size) / stride**2, "base 2"),
    (lambda stride, size, stages: 24, "should be 1, and is 24"),
]


def _with_dropped(indices: Tensor, kept: Tensor, dropped: int = -1) -> Tensor:
    rows = [
        torch.where(torch.arange(row.shape[-1]) < num, row, dropped) for row, num in zip(indices, kept, strict=True)
    ]
    return torch.stack(rows)


WRONG["drop_stages"] = [
    (lambda indices, kept: _with_dropped(indices, kept - 1), "too few"),
    (lambda indices, kept: _with_dropped(indices, kept + 1), "too many"),
    (lambda indices, kept: _with_dropped(indices, kept, dropped=0), "codeword like any other"),
    (lambda indices, kept: _with_dropped(indices.flip(-1), kept).flip(-1), "other way round"),
    (lambda indices, kept: _with_dropped(indices, torch.full_like(kept, kept[0])), "its own number"),
    (lambda indices, kept: indices.clone(), "Nothing is dropped"),
    (lambda indices, kept: indices[..., : kept.max()], "should"),
]

WRONG["decode_prefix"] = [
    (lambda model, indices, num, h, w: model.decode(indices)[..., :h, :w], "All stages"),
    (lambda model, indices, num, h, w: model.decode(indices[..., -num:])[..., :h, :w], "last stages"),
    (lambda model, indices, num, h, w: model.decode(indices[..., num - 1 : num])[..., :h, :w], "alone"),
    (lambda model, indices, num, h, w: model.decode(indices[..., :num]), "filled-up"),
    (lambda model, indices, num, h, w: model.decode(indices[..., :num])[..., -h:, -w:], "bottom and right"),
]


def _layers_within(sizes: list[int], num_bytes: int, header: int = 13, before_each: int = 8) -> int:
    ends = [header + sum(sizes[:count]) + before_each * count for count in range(1, len(sizes) + 1)]
    return sum(end <= num_bytes for end in ends)


WRONG["layers_within"] = [
    (lambda sizes, num: _layers_within(sizes, num, header=0, before_each=0), "13 bytes once, and 8"),
    (lambda sizes, num: _layers_within(sizes, num, header=0), "The header is missing"),
    (lambda sizes, num: _layers_within(sizes, num, before_each=0), "Before each layer stand 8"),
    (lambda sizes, num: _layers_within(sizes, num, header=21, before_each=0), "not once in the file"),
    (lambda sizes, num: min(_layers_within(sizes, num) + 1, len(sizes)), "can't be read"),
    (lambda sizes, num: _layers_within(sizes, num - 1), "ends with the last byte"),
    (lambda sizes, num: _layers_within(sizes, 8 * num), "These are bits"),
    (lambda sizes, num: sum(sizes[: _layers_within(sizes, num)]), "how many layers"),
    (lambda sizes, num: len(sizes), "the result should be"),
]


def _first_win(ours: list, jpeg: list, **options: float) -> int:
    """Number of our first point at which JPEG is at least as good; one past the last if there is none."""
    rates, psnrs = zip(*jpeg, strict=True)
    wins = [np.interp(rate, rates, psnrs, **options) >= psnr for rate, psnr in ours]
    return (*wins, True).index(True)


WRONG["jpeg_wins_from"] = [
    (lambda ours, jpeg: [*ours, (math.inf, 0)][_first_win(ours, jpeg)][0], "nothing to show"),
    (lambda ours, jpeg: next(r for r, p in ours if p >= np.interp(r, *zip(*jpeg, strict=True))), "where ours is"),
    (lambda ours, jpeg: ours[_first_win(ours, jpeg, left=-math.inf) - 1][0], "last rate"),
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
    (lambda ours, jpeg: _first_win(ours, jpeg, left=-math.inf), "number of a point"),
    (lambda ours, jpeg: ours[_first_win(ours, jpeg, left=-math.inf)][1], "a PSNR"),
    (lambda ours, jpeg: "at 0.3", "a tensor or a number"),
]
