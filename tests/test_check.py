"""The exercises' checks: each accepts the solution in its notebook's source, and rejects likely wrong ones.

To add a check's wrong answers, give them to WRONG, each with a part of what the learner should then be told.
"""

import ast
import contextlib
import functools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jupytext
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial import check, kmeans, metrics, nearest, straight_through

SOURCES = Path(__file__).parent.parent / "notebooks" / "sources"
DEFINITIONS = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef

# Exercise → wrong answers, each with a regular expression for what its learner is told.
WRONG: dict[str, list[tuple[Any, str]]] = {}

# --- 01 · How few colours does a photo need? -------------------------------------------------------

WRONG["file_bits"] = [
    (lambda height, width, size: height * width * math.log2(size), "codebook is missing"),
    (lambda height, width, size: height * width * size + 24 * size, "isn't K bits"),
    (lambda height, width, size: 3 * height * width * math.log2(size) + 24 * size, "whole colour"),
    (lambda height, width, size: height * width * math.log2(size) + 8 * size, "takes 24 bits"),
    (lambda height, width, size: height * width * (math.log2(size) + 24), "sent once"),
    (lambda height, width, size: height * width * math.log2(size) + 3 * size, "3 bytes"),
    (lambda height, width, size: height * width * math.log2(size) + 24, "has K of them"),
    (lambda height, width, size: height * width * math.log(size) + 24 * size, "base 2"),
    (lambda height, width, size: (height * width * math.log2(size) + 24 * size) / 8, "bytes"),
    (lambda height, width, size: 0, "should be 32384, and is 0"),
]

WRONG["nearest_colours"] = [
    (lambda pixels, codebook: torch.cdist(pixels, codebook).argmax(1), "farthest"),
    (lambda pixels, codebook: torch.cdist(pixels, codebook).argmin(0), "over the codewords"),
    (lambda pixels, codebook: (pixels[:, None] - codebook).sum(-1).argmin(1), "cancel"),
    (lambda pixels, codebook: (pixels[:, None] - codebook).sum(-1).abs().argmin(1), "brightness"),
    (lambda pixels, codebook: (pixels[:, None] - codebook).abs().sum(-1).argmin(1), "along the axes"),
    (lambda pixels, codebook: torch.cdist(pixels, codebook).square().amin(1), "take argmin"),
    (lambda pixels, codebook: (pixels[:, None] - codebook).square().sum(1).argmin(1), "the last axis"),
    (lambda pixels, codebook: (pixels[:, None] - codebook).square().sum(-1).min(1), "one tensor, and is 2 of them"),
    (lambda pixels, codebook: codebook[nearest(pixels, codebook)], "already decoded"),
    (lambda pixels, codebook: (pixels - codebook).square().sum(1).argmin(), "raises RuntimeError"),
    (lambda pixels, codebook: nearest(pixels, codebook)[:, None], "should have shape"),
]


def _moved(pixels: Tensor, indices: Tensor, codebook: Tensor) -> Tensor:
    rows = [pixels[indices == k].mean(0) for k in range(len(codebook))]
    return torch.stack(rows)


def _moved_in_place(pixels: Tensor, indices: Tensor, codebook: Tensor) -> Tensor:
    return codebook.copy_(_moved(pixels, indices, codebook))


def _summed_pixels(pixels: Tensor, indices: Tensor, codebook: Tensor) -> Tensor:
    return torch.stack([pixels[indices == k].sum(0) for k in range(len(codebook))])


WRONG["move_codewords"] = [
    (_summed_pixels, "These are sums"),
    (lambda pixels, indices, codebook: _summed_pixels(pixels, indices, codebook) / len(pixels), "number of all pixels"),
    (lambda pixels, indices, codebook: _summed_pixels(pixels, indices, codebook) / len(codebook), "divided by K"),
    (lambda pixels, indices, codebook: codebook + 0, "haven't moved"),
    (_moved_in_place, "changes codebook in place"),
    (
        lambda pixels, indices, codebook: torch.stack(
            [pixels[indices == k].median(0).values for k in range(len(codebook))]
        ),
        "medians",
    ),
    (
        lambda pixels, indices, codebook: torch.stack(
            [torch.cat([pixels[indices == k], codebook[[k]]]).mean(0) for k in range(len(codebook))]
        ),
        "averaged in",
    ),
    (
        lambda pixels, indices, codebook: torch.stack([pixels[indices == k].mean() for k in range(len(codebook))]),
        "should have shape",
    ),
]


def _rescued(
    pixels: Tensor, indices: Tensor, codebook: Tensor, places: Callable[[Tensor, Tensor, int], Tensor]
) -> Tensor:
    """Used codewords moved; the unused ones go to places(pixels, distances, how many)."""
    moved = _moved(pixels, indices, codebook)
    unused = moved.isnan().any(1)
    distances = (pixels - codebook[indices]).square().sum(1)
    moved[unused] = places(pixels, distances, int(unused.sum()))
    return moved


def _stay(pixels: Tensor, indices: Tensor, codebook: Tensor) -> Tensor:
    moved = _moved(pixels, indices, codebook)
    return torch.where(moved.isnan(), codebook, moved)


def _measured_after(pixels: Tensor, indices: Tensor, codebook: Tensor) -> Tensor:
    moved = _moved(pixels, indices, codebook)
    unused = moved.isnan().any(1)
    moved[unused] = pixels[(pixels - moved[indices]).square().sum(1).topk(int(unused.sum())).indices]
    return moved


WRONG["rescue_codewords"] = [
    (_moved, "become NaN"),
    (_stay, "stay where they were"),
    (lambda pixels, indices, codebook: _moved(pixels, indices, codebook).nan_to_num(), "in black"),
    (lambda *inputs: _rescued(*inputs, lambda pixels, distances, num: pixels.mean(0)), "one of them is none"),
    (lambda *inputs: _rescued(*inputs, lambda pixels, distances, num: pixels[distances.argmax()]), "same pixel"),
    (
        lambda *inputs: _rescued(*inputs, lambda pixels, distances, num: pixels[distances.argsort()[:num]]),
        "served best",
    ),
    (lambda *inputs: _rescued(*inputs, lambda pixels, distances, num: pixels[:num]), "not those farthest"),
    (_measured_after, "they chose, before any moved"),
    (lambda pixels, indices, codebook: _moved(pixels, indices, codebook)[indices.unique()], "Return a codebook"),
    (
        lambda *inputs: _rescued(*inputs, lambda pixels, d, num: pixels[d.topk(num).indices]) + 0.1,
        "the mean of a used codeword should be",
    ),
]


def _needed(photo: Tensor, target: float) -> int:
    pixels = photo.flatten(1).T
    sizes = [2**bits for bits in range(9)]
    fits = (kmeans(pixels, size).centroids for size in sizes)
    enough = (metrics.psnr(pixels, book[nearest(pixels, book)]) >= target for book in fits)
    return next(size for size, good in zip(sizes, enough, strict=False) if good)


WRONG["colours_needed"] = [
    (lambda photo, target: _needed(photo, target).bit_length() - 1, "4 are the bits"),
    (lambda photo, target: _needed(photo, target) // 2, "it takes 16"),
    (lambda photo, target: 2 * _needed(photo, target), "32 is enough, and not the smallest: 16"),
    (lambda photo, target: 256, "not the smallest"),
    (lambda photo, target: target + 0.5, "50.5 is none of the codebook sizes"),
    (lambda photo, target: (_needed(photo, target), target), "Return one number"),
    (lambda photo, target: kmeans(photo, 4), "raises ValueError"),
]

# --- 02 · How does a lookup learn? -----------------------------------------------------------------

WRONG["nearest_code"] = [
    (lambda x, codebook: torch.cdist(x, codebook).argmax(1), "farthest"),
    (lambda x, codebook: torch.cdist(x, codebook).argmin(0), "over the codewords"),
    (lambda x, codebook: (x @ codebook.T).argmax(1), "large norm"),
    (lambda x, codebook: (codebook.square().sum(1) / 2 + x @ codebook.T).argmin(1), "wrong sign"),
    (lambda x, codebook: (codebook.square().sum(1) - x @ codebook.T).argmin(1), "weigh too much"),
    (lambda x, codebook: torch.cdist(x, codebook).amin(1), "whole numbers"),
    (lambda x, codebook: (x @ codebook).argmin(1), "raises RuntimeError .* for x of shape"),
]

WRONG["predicted_slopes"] = [
    (lambda: (-1.8, -1.8), "true slope is not -1.8: a small step"),
    (lambda: (0, 0), "moves with x"),
    (lambda: (0.0, -1.2), "value of x̂"),
    (lambda: (0.0, 1.8), "other sign"),
    (lambda: (0.0, -0.9), "factor 2"),
    (lambda: (0.0, 5.0), "is not 5: take"),
    (lambda: -1.8, "Return 2 things, in this order: the true slope"),
]


def _undetached(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return F.mse_loss(quantized, x), F.mse_loss(x, quantized)


def _swapped(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return F.mse_loss(x, quantized.detach()), F.mse_loss(quantized, x.detach())


def _detached(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return F.mse_loss(x.detach(), quantized.detach()), F.mse_loss(x, quantized.detach())


def _frozen_commitment(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return F.mse_loss(x.detach(), quantized), F.mse_loss(x.detach(), quantized.detach())


def _loose_commitment(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return F.mse_loss(x.detach(), quantized), F.mse_loss(x, quantized)


def _summed(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(x.numel() * loss for loss in _swapped(quantized, x))


WRONG["vq_losses"] = [
    (_undetached, "detach x"),
    (_loose_commitment, "detach quantized"),
    (_swapped, "wrong way round"),
    (_detached, "codebook loss moves nothing"),
    (_frozen_commitment, "commitment loss moves nothing"),
    (_summed, "codebook loss is a sum, 18 times too large"),
    (lambda x, quantized: (x - quantized).square().sum(1).mean().expand(2).unbind(), "3 times too large"),
    (lambda x, quantized: (F.mse_loss(x, quantized), 0.25 * F.mse_loss(x, quantized)), "The commitment loss should be"),
    (lambda x, quantized: F.mse_loss(x, quantized), "Return 2 things"),
]


def _classic(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    x = features.permute(0, 2, 3, 1)
    quantized = codebook[nearest(x, codebook)].permute(0, 3, 1, 2)
    loss = (quantized - x.detach()).square().mean() + beta * (quantized.detach() - x).square().mean()
    return straight_through(features, quantized), loss


def _cut_by_reshape(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    x = features.reshape(-1, codebook.shape[1])
    chosen = codebook[nearest(x, codebook)]
    loss = F.mse_loss(chosen, x.detach()) + beta * F.mse_loss(x, chosen.detach())
    return straight_through(x, chosen).reshape(features.shape), loss


def _mended(features: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features and codewords, both with channels last, and the mean squared difference, with every gradient."""
    x = features.permute(0, 2, 3, 1)
    chosen = codebook[nearest(x, codebook)]
    return x, chosen, F.mse_loss(x, chosen)


def _channels_last(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    x, chosen, loss = _mended(features, codebook)
    return straight_through(x, chosen), (1 + beta) * loss


def _plain_lookup(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    _, chosen, loss = _mended(features, codebook)
    return chosen.permute(0, 3, 1, 2), (1 + beta) * loss


def _no_gradient(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    _, chosen, loss = _mended(features, codebook)
    return chosen.permute(0, 3, 1, 2).detach(), (1 + beta) * loss


def _everything_moves(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    _, chosen, loss = _mended(features, codebook)
    return straight_through(features, chosen.permute(0, 3, 1, 2)), (1 + beta) * loss


def _beta_misplaced(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    x, chosen, _ = _mended(features, codebook)
    loss = beta * F.mse_loss(chosen, x.detach()) + F.mse_loss(x, chosen.detach())
    return straight_through(features, chosen.permute(0, 3, 1, 2)), loss


WRONG["quantize_features"] = [
    (_classic, "still compares"),
    (_cut_by_reshape, "reshape"),
    (_channels_last, "permute it back"),
    (_plain_lookup, "must not move the codebook"),
    (_no_gradient, "reach the features"),
    (_everything_moves, "not the right gradient"),
    (_beta_misplaced, "β weighs the term"),
    (lambda features, codebook, beta: features, "Return 2 things"),
]

WRONG["beta_for"] = [
    (lambda share: 1 - share, "share that x goes"),
    (lambda share: share / (1 - share), "here it is the codeword"),
    (lambda share: 1 / share, "Too large by 1"),
    (lambda share: 1 / (1 + share), "other way round"),
    (lambda share: 0.25, "should be 1, and is 0.25 for share = 0.5"),
]

# --- 06 · What do codes of an image mean? ----------------------------------------------------------

WRONG["reach"] = [
    (lambda num_blocks, stride: 1 + 2 * (num_blocks + 1), "each of them becomes stride pixels"),
    (lambda num_blocks, stride: stride * (1 + 2 * num_blocks), "first convolution is 3 × 3 too"),
    (lambda num_blocks, stride: stride * 2 * (num_blocks + 1), "has a middle"),
    (lambda num_blocks, stride: stride * (1 + num_blocks + 1), "to the left and to the right"),
    (lambda num_blocks, stride: stride * (1 + 2 * (1 + 2 * num_blocks)), "1 × 1 convolution looks at no neighbour"),
    (lambda num_blocks, stride: (stride * (2 * num_blocks + 3)) ** 2, "its side is asked for"),
    (lambda num_blocks, stride: stride, "the patch alone"),
    (lambda num_blocks, stride: 100, "should be 72, and is 100"),
]


def _lopsided(x: Tensor, rebuilt: Tensor, z_e: Tensor, z_q: Tensor, variance: float, beta: float) -> Tensor:
    error = F.mse_loss(rebuilt, x, reduction="sum") / len(x) / variance
    return error + F.mse_loss(z_q, z_e.detach()) + beta * F.mse_loss(z_e, z_q.detach())


def _weighed(
    x: Tensor, rebuilt: Tensor, z_e: Tensor, z_q: Tensor, rebuilding: float, codebook: float, commitment: float
) -> Tensor:
    squares = [(rebuilt - x) ** 2, (z_q - z_e.detach()) ** 2, (z_e - z_q.detach()) ** 2]
    return sum(w * s.mean() for w, s in zip((rebuilding, codebook, commitment), squares, strict=True))


WRONG["balanced_loss"] = [
    (_lopsided, "still a sum over the pixels: it grows"),
    (lambda *inputs: _lopsided(*inputs[:4], 1, inputs[5]), "not divided by the variance"),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, 1, 1, b), "Divide the reconstruction's error"),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, v, 1, b), "multiplied by the variance"),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, 2 / v, 1, b), "should be"),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, 1, 1, b) / v, "All terms are divided"),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, 1 / v, b, 1), "here it weighs the codebook loss"),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, 1 / v, b, b), "commitment loss alone"),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, 1 / v, 1, 1), "missing its β"),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, 1 / v, 0, b), "codebook loss is gone"),
    (
        lambda x, r, z_e, z_q, v, b: ((r - x) ** 2).mean() / v + (1 + b) * ((z_e - z_q) ** 2).mean(),
        "nothing is detached",
    ),
    (lambda x, r, z_e, z_q, v, b: ((r - x) ** 2) / v, "Return one number"),
]


def _row_by_patches(model: Any, size: int) -> Tensor:
    return torch.stack(model.decode(torch.arange(size)[None, None])[0].chunk(size, dim=2))


def _column_by_patches(model: Any, size: int) -> Tensor:
    return torch.stack(model.decode(torch.arange(size)[None, :, None])[0].chunk(size, dim=1))


WRONG["alone"] = [
    (_row_by_patches, "in one row, and each colours its neighbours"),
    (_column_by_patches, "in one column, and each colours its neighbours"),
    (lambda model, size: model.decode(torch.arange(size)[None, None]), "one image of K patches in a row"),
    (lambda model, size: model.decode(torch.arange(size)[None, :, None]), "one image of K patches in a column"),
    (lambda model, size: model.quantizer.decode(torch.arange(size)[:, None, None])[..., 0, 0], "not yet pictures"),
    (lambda model, size: model.decode(torch.zeros(size, 1, 1).long()), "first codeword"),
    (lambda model, size: model.decode(torch.arange(size)), "raises"),
    (lambda model, size: model.decode(torch.arange(size).flip(0)[:, None, None]), "should be"),
]


def _bits(indices: Tensor, counts: Tensor) -> Tensor:
    return -torch.log2((counts[indices] + 1) / (counts.sum() + len(counts)))


WRONG["surprise"] = [
    (lambda indices, counts: _bits(indices, counts) * math.log(2), "base 2"),
    (lambda indices, counts: -_bits(indices, counts), "negative"),
    (lambda indices, counts: 2 ** -_bits(indices, counts), "the shares themselves"),
    (lambda indices, counts: torch.full(indices.shape, math.log2(len(counts))), "the same bits"),
    (lambda indices, counts: _bits(torch.arange(len(counts)), counts), "look it up for every index"),
    (lambda indices, counts: -torch.log2((counts[indices] + 1) / counts.sum()), "don't add up to 1"),
    (lambda indices, counts: -torch.log2(counts[indices] / counts.sum()), "not raised by one"),
    (
        lambda indices, counts: _bits(indices, torch.bincount(indices.flatten(), minlength=len(counts))),
        "within this photo",
    ),
    (lambda indices, counts: 8.0, "should have shape"),
]

# --- 07 · One model, every bitrate? ----------------------------------------------------------------

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

# --- 03 · Why do most codewords die? ---------------------------------------------------------------

WRONG["seen_in_batch"] = [
    (lambda: 1.0, "luck beyond belief"),
    (lambda: (63 / 64) ** 64, "does not occur"),
    (lambda: 100 * (1 - (63 / 64) ** 64), "from 0 to 1"),
    (lambda: 1 / 64, "one vector chooses one codeword"),
    (lambda: 40.6, "divided by 64"),
    (lambda: 0.5, "Not 0.5: "),
    (lambda: "most of them", "can't be used"),
]


def _share(indices: torch.Tensor, size: int) -> torch.Tensor:
    return torch.bincount(indices.flatten(), minlength=size) / indices.numel()


def _entropy(indices: torch.Tensor, size: int) -> torch.Tensor:
    return torch.special.entr(_share(indices, size)).sum()  # in nats


WRONG["perplexity"] = [
    (lambda indices, size: 2 ** -(_share(indices, size) * _share(indices, size).log2()).sum(), "0 · log 0"),
    (lambda indices, size: _entropy(indices, size) / math.log(2), "is the entropy in bits"),
    (lambda indices, size: 2 ** _entropy(indices, size), "natural and the power's base is 2"),
    (lambda indices, size: (_entropy(indices, size) / math.log(2)).exp(), "base 2 and the power base e"),
    (lambda indices, size: (-_entropy(indices, size)).exp(), "sign is wrong"),
    (lambda indices, size: len(indices.unique()), "how many different codewords"),
    (lambda indices, size: metrics.usage(indices, size), "the result should be .* and is"),
    (lambda indices, size: _entropy(indices[:, None].argmax(1), size).exp(), "the result should be .* and is"),
]


def _ema(codebook, usage, x, indices, decay, count=lambda counts, usage: usage, sign=1, per=None):
    """One step of the moving average; `count` makes N, of the batch's counts and the usage times N vectors."""
    counts = torch.bincount(indices, minlength=len(codebook))
    errors = torch.zeros_like(codebook).index_add(0, indices, x - codebook[indices])
    new = decay * usage + (1 - decay) * counts / (per or len(x))
    divisor = count(counts, new * len(x)).clamp_min(1e-30)
    return codebook + sign * (1 - decay) * errors / divisor[:, None], new


def _ema_dividing_by_zero(codebook, usage, x, indices, decay):
    new = decay * usage + (1 - decay) * torch.bincount(indices, minlength=len(codebook)) / len(x)
    errors = torch.zeros_like(codebook).index_add(0, indices, x - codebook[indices])
    return codebook + (1 - decay) * errors / (new * len(x))[:, None], new


def _ema_from_zero(codebook, usage, x, indices, decay):
    """The step of codewords at 0, where a vector's error is the vector, added to the codebook."""
    step, new = _ema(torch.zeros_like(codebook), usage, x, indices, decay)
    return codebook + step, new


def _ema_in_place(codebook, usage, x, indices, decay):
    codebook += 1
    return codebook, usage


WRONG["ema_step"] = [
    (_ema_dividing_by_zero, "turns into nan"),
    (lambda *inputs: _ema(*inputs[:4], 1 - inputs[4]), "changed places"),
    (lambda *inputs: _ema(*inputs, count=lambda *_: inputs[1] * len(inputs[2])), "from before the step"),
    (lambda *inputs: _ema(*inputs, count=lambda counts, usage: counts), "the batch's own count"),
    (lambda *inputs: _ema(*inputs, count=lambda counts, usage: usage / len(inputs[2])), "is divided by a share"),
    (lambda *inputs: _ema(*inputs, per=1, count=lambda counts, usage: usage / len(inputs[2])), "The usage is a share"),
    (lambda *inputs: _ema(*inputs, sign=-1), "the wrong way"),
    (lambda codebook, *rest: _ema_from_zero(codebook, *rest), "sums of vectors"),
    (lambda *inputs: _ema(*inputs)[0], "Return 2 things"),
    (_ema_in_place, "changes codebook in place"),
]


def _restart(codebook, sums, counts, x, decay, threshold, first=False, row=False, absolute=False, weight=None):
    """EMA and restart, in the order and with the part of the bookkeeping that the settings say."""
    indices = nearest(x, codebook)

    def follow(sums, counts):
        counts = decay * counts + (1 - decay) * torch.bincount(indices, minlength=len(codebook))
        return decay * sums + (1 - decay) * torch.zeros_like(codebook).index_add(0, indices, x), counts

    if not first:
        sums, counts = follow(sums, counts)
    dead = counts < threshold * (1 if absolute else counts.mean())
    if not row:
        weight = counts.mean() if weight is None else weight
        sums = torch.where(dead[:, None], weight * x[: len(codebook)], sums)
        counts = torch.where(dead, counts.mean(), counts)
    if first:
        sums, counts = follow(sums, counts)
    codebook = sums / counts.clamp_min(1e-5)[:, None]
    return torch.where(dead[:, None], x[: len(codebook)], codebook) if row and not first else codebook, sums, counts


def _restart_beside_old_sums(codebook, sums, counts, x, decay, threshold):
    """Row and count are replaced, and the sum forgotten."""
    moved, old_sums, old_counts = _restart(codebook, sums, counts, x, decay, threshold, row=True)
    return moved, old_sums, torch.where(old_counts < threshold * old_counts.mean(), old_counts.mean(), old_counts)


def _restart_with_count_one(codebook, sums, counts, x, decay, threshold):
    moved, old_sums, old_counts = _restart(codebook, sums, counts, x, decay, threshold, row=True)
    dead = old_counts < threshold * old_counts.mean()
    return moved, torch.where(dead[:, None], moved, old_sums), torch.where(dead, 1.0, old_counts)


def _restart_at_first_rows(codebook, sums, counts, x, decay, threshold):
    _, sums, counts = _restart(codebook, sums, counts, x, decay, threshold, row=True)
    dead = counts < threshold * counts.mean()
    counts = torch.where(dead, counts.mean(), counts)
    sums[dead] = x[: dead.sum()] * counts[dead, None]
    return sums / counts[:, None], sums, counts


def _restart_with_low_counts(codebook, sums, counts, x, decay, threshold):
    moved, *_ = _restart(codebook, sums, counts, x, decay, threshold)
    counts = decay * counts + (1 - decay) * torch.bincount(nearest(x, codebook), minlength=len(codebook))
    return moved, moved * counts[:, None], counts


WRONG["restarting_step"] = [
    (lambda *inputs: _restart(*inputs, first=True, row=True), "The restart does nothing"),
    (lambda *inputs: _restart(*inputs, row=True), "lasts until the next step"),
    (lambda *inputs: _restart(*inputs, weight=1), "A sum belongs to a count"),
    (_restart_beside_old_sums, "the sum still tells of the old place"),
    (_restart_with_count_one, "the mean of the counts, not 1"),
    (_restart_at_first_rows, "goes to row k of x"),
    (_restart_with_low_counts, "keep their low counts"),
    (lambda *inputs: _restart(*inputs, absolute=True), "threshold is absolute"),
    (lambda *inputs: _restart(*inputs, first=True), "comes before the batch is followed"),
    (lambda *inputs: _restart(*inputs)[0], "should be 3 things"),
]

WRONG["steps_until_restart"] = [
    (lambda decay, threshold: math.log(threshold) / math.log(decay), "Right but for the rounding"),
    (lambda decay, threshold: int(math.log(threshold) / math.log(decay)), "One step early"),
    (lambda decay, threshold: math.ceil(math.log(threshold) / math.log(decay)) + 1, "One step late"),
    (lambda decay, threshold: math.log(decay) / math.log(threshold), "wrong way round"),
    (lambda decay, threshold: round(1 / (1 - decay)), "how far the average looks back"),
    (lambda decay, threshold: 0, "should be 230, and is 0"),
]

# --- 04 · Why many small codebooks, not one big one? -----------------------------------------------

WRONG["predicted_stages"] = [
    (lambda: ([1, 2, 2], 14.0), "20 lies nearer"),
    (lambda: ([2, 2, 2], 24.0), "doesn't get 16.4 again"),
    (lambda: ([20, -3, -1], 16.0), "their indices are asked for"),
    (lambda: ([3, 1, 1], 16.0), "count from 0"),
    (lambda: ([2, 0, 2], 18.0), "mind its sign"),
    (lambda: ([2, 1, 0], 19.0), "stage 2 is not 1"),
    (lambda: ([2, 0, 0], 16.4), "number rebuilt should be 16, and is 16.4"),
    (lambda: (torch.tensor([2, 0, 0]), 15.0), "number rebuilt should be 16, and is 15"),
    (lambda: [2, 0, 0], "Return 2 things"),
    (lambda: [2, 0, 0] / 2, "raises TypeError .* without input"),
]


def _encode(x: Tensor, codebooks: Tensor, next_input: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """Indices, where a stage gets next_input(x, what the stage before it got, the codeword chosen there)."""
    given, indices = x, []
    for codebook in codebooks:
        indices.append(nearest(given, codebook))
        given = next_input(x, given, codebook[indices[-1]])
    return torch.stack(indices, 1)


def _encode_in_place(x: Tensor, codebooks: Tensor) -> Tensor:
    return _encode(x, codebooks, lambda x, given, chosen: given.sub_(chosen))


def _forgotten_stage(x: Tensor, codebooks: Tensor) -> Tensor:
    return _encode(x, codebooks, lambda x, given, chosen: given - chosen)[:, :-1]


WRONG["residual_encode"] = [
    (lambda x, codebooks: _encode(x, codebooks, lambda x, given, chosen: x), "Every stage gets x itself"),
    (lambda x, codebooks: _encode(x, codebooks, lambda x, given, chosen: x - chosen), "not from x"),
    (lambda x, codebooks: _encode(x, codebooks, lambda x, given, chosen: given + chosen), "added"),
    (lambda x, codebooks: _encode(x, codebooks, lambda x, given, chosen: chosen - given), "should be"),
    (lambda x, codebooks: _encode(x, codebooks, lambda x, given, chosen: given - chosen).T, "along dim=1"),
    (lambda x, codebooks: _encode(x, codebooks.flip(0), lambda x, given, chosen: given - chosen), "backwards"),
    (_encode_in_place, "changes x in place"),
    (_forgotten_stage, "should have shape"),
]

WRONG["cost"] = [
    (lambda dim, size, num: (num * size, num * size * dim, size**num * dim), "log₂ K bits, not K"),
    (lambda dim, size, num: (math.log2(size), num * size * dim, size**num * dim), "M times log₂ K"),
    (lambda dim, size, num: (num * math.log(size), num * size * dim, size**num * dim), "another logarithm"),
    (lambda dim, size, num: (math.log2(size) ** num, num * size * dim, size**num * dim), "add their bits"),
    (lambda dim, size, num: (num * math.log2(size), num * size, size**num * dim), "vector of dim numbers: the M"),
    (lambda dim, size, num: (num * math.log2(size), size**num * dim, size**num * dim), "beside each other"),
    (lambda dim, size, num: (num * math.log2(size), size * dim, size**num * dim), "there are M of them"),
    (lambda dim, size, num: (num * math.log2(size), num * size * dim, num * size * dim), "choices multiply"),
    (lambda dim, size, num: (num * math.log2(size), num * size * dim, size**num), "each is a vector"),
    (lambda dim, size, num: (num * math.log2(size), num * size * dim, num**size * dim), "not M to the K"),
    (
        lambda dim, size, num: (num * math.log2(size), num * size * dim, 1),
        "should be 262,144, and this is 1",
    ),
    (lambda dim, size, num: num * math.log2(size), "Return 3 things"),
]


def _splits(bits: int) -> list[tuple[int, int]]:
    return [(num, 2 ** (bits // num)) for num in range(1, bits + 1) if bits % num == 0]


WRONG["best_split"] = [
    (lambda dim, bits, memory: _splits(bits)[-1], "M = 12, K = 2 fits, and so does M = 2 with less error"),
    (lambda dim, bits, memory: next(s for s in _splits(bits) if s[0] * s[1] <= memory), "too many .* memory = 200"),
    (lambda dim, bits, memory: next(s for s in _splits(bits) if s[0] * s[1] * dim <= memory)[::-1], "return M first"),
    (lambda dim, bits, memory: next(s for s in _splits(bits) if s[0] * s[1] * dim < memory), "memory = 512"),
    (lambda dim, bits, memory: (1, 2**bits), "16,384 numbers, M · K · dim: too many"),
    (lambda dim, bits, memory: (2, bits // 2), "2 stages of 6 codewords don't make 12 bits"),
    (lambda dim, bits, memory: 3, "Return 2 things"),
]


def _stages(
    x: Tensor,
    codebooks: Tensor,
    subtract: Callable[[Tensor, Tensor], Tensor],
    term: Callable[[Tensor, Tensor], Tensor] = lambda residual, chosen: F.mse_loss(residual, chosen.detach()),
) -> tuple[Tensor, list[Tensor]]:
    """The sum of every stage's straight-through, and the terms; `subtract` makes the next residual."""
    residual, total, terms = x, 0, []
    for codebook in codebooks:
        chosen = codebook[nearest(residual, codebook)]
        terms.append(term(residual, chosen))
        total = total + straight_through(residual, chosen)
        residual = subtract(residual, chosen)
    return total, terms


def _silent_stages(x: Tensor, codebooks: Tensor) -> tuple[Tensor, list[Tensor]]:
    return _stages(x, codebooks, lambda residual, chosen: residual - straight_through(residual, chosen))


def _loud_decoder(x: Tensor, codebooks: Tensor) -> tuple[Tensor, list[Tensor]]:
    return _stages(x, codebooks, lambda residual, chosen: residual - chosen.detach())


def _one_around_all(x: Tensor, codebooks: Tensor, **options: Callable) -> tuple[Tensor, list[Tensor]]:
    total, terms = _stages(x, codebooks, lambda residual, chosen: residual - chosen.detach(), **options)
    return straight_through(x, total), terms


def _undetached_codewords(x: Tensor, codebooks: Tensor) -> tuple[Tensor, list[Tensor]]:
    return _one_around_all(x, codebooks, term=lambda residual, chosen: F.mse_loss(residual, chosen))


def _codebook_terms(x: Tensor, codebooks: Tensor) -> tuple[Tensor, list[Tensor]]:
    return _one_around_all(x, codebooks, term=lambda residual, chosen: F.mse_loss(residual.detach(), chosen.detach()))


def _summed_terms(x: Tensor, codebooks: Tensor) -> tuple[Tensor, list[Tensor]]:
    return _one_around_all(x, codebooks, term=lambda residual, chosen: (residual - chosen.detach()).square().sum())


def _plain_sum(x: Tensor, codebooks: Tensor) -> tuple[Tensor, list[Tensor]]:
    _, terms = _loud_decoder(x, codebooks)
    indices = _encode(x, codebooks, lambda x, given, chosen: given - chosen)
    return sum(codebook[index] for codebook, index in zip(codebooks, indices.T, strict=True)), terms


WRONG["residual_layer"] = [
    (_silent_stages, "stage 2 doesn't pull x"),
    (_loud_decoder, "4 times too large"),
    (_undetached_codewords, "stage 1 moves the codebooks"),
    (_codebook_terms, "stage 1 doesn't pull x"),
    (_summed_terms, "commitment term of stage 1 should be"),
    (_plain_sum, "output moves the codebooks"),
    (lambda x, codebooks: (_one_around_all(x, codebooks)[0].detach(), []), "No gradient of the output"),
    (lambda x, codebooks: (2 * _one_around_all(x, codebooks)[0], []), "quantized tensor should be"),
    (lambda x, codebooks: (_one_around_all(x, codebooks)[0], _loud_decoder(x, codebooks)[1][:1]), "4 commitment terms"),
    (lambda x, codebooks: (lambda q, t: (q, sum(t)))(*_one_around_all(x, codebooks)), "4 commitment terms"),
]

# --- 05 · How close to the limit are we? -----------------------------------------------------------

WRONG["rate_and_bound"] = [
    (lambda dim, size, num, variance: (num * math.log2(size), variance * 4 ** -(num * math.log2(size) / dim)), "share"),
    (lambda dim, size, num, variance: (math.log2(size) / dim, 1.0), "M stages"),
    (lambda dim, size, num, variance: (num * size / dim, 1.0), "not K"),
    (lambda dim, size, num, variance: (num * math.log(size) / dim, 1.0), "base 2"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: variance * 2**-r), "divides .* by 4"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: 4**-r), "scales with the variance"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: variance**2 * 4**-r), "don't square"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: variance * 4 ** -(r * dim)), "per dimension"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: variance * math.exp(-2 * r)), "not e"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: 7.0), "should be 0.25, and is 7"),
    (lambda dim, size, num, variance: 0.5, "Return 2 things"),
]


def _rate_and(dim: int, size: int, num: int, bound: Callable[[float], float]) -> tuple[float, float]:
    rate = num * math.log2(size) / dim
    return rate, bound(rate)


def _table(residuals: Tensor, codebook: Tensor) -> Tensor:
    return (residuals[:, None] - codebook).square().sum(-1)


def _split(ways: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    return ways // columns, ways % columns


def _one_each(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    errors, indices = _table(residuals, codebook).min(1)
    return errors.argsort()[:beam_size], indices[errors.argsort()[:beam_size]]


WRONG["best_ways"] = [
    (lambda r, c, beam: _split((-_table(r, c)).flatten().argsort()[:beam], len(c)), "worst ways"),
    (_one_each, "one way only"),
    (lambda r, c, beam: _split(_table(r, c).flatten().argsort()[:beam], len(c))[::-1], "parents first"),
    (lambda r, c, beam: _split(_table(r, c).flatten().argsort()[:beam], len(r)), "K places, not B"),
    (lambda r, c, beam: _split(_table(r, c).flatten().argsort(), len(c)), "keep the first"),
    (lambda r, c, beam: _split(_table(r, c).flatten().argsort()[:beam].sort().values, len(c)), "not in their order"),
    (lambda r, c, beam: _split(_table(r[:1], c).flatten().argsort()[:beam], len(c)), "first path"),
    (lambda r, c, beam: _table(r, c).flatten().argsort()[:beam], "Return 2 things, in this order: parents"),
]


def _searched(x: Tensor, codebooks: Tensor, beam_size: int, change: str = "") -> Tensor:
    """The beam search, one vector at a time and with lists, with one mistake."""
    chosen = []
    for vector in x:
        beam = [(0.0, vector, [])]
        for codebook in codebooks:
            ways = []
            for row, (before, residual, path) in enumerate(beam):
                for k, codeword in enumerate(codebook):
                    error = (residual - codeword).square().sum().item()
                    ways.append((error + (before if change == "summed" else 0), residual - codeword, [*path, k], row))
            ways.sort(key=lambda way: way[0], reverse=change == "longest")
            kept = ways[: 1 if change == "greedy" else beam_size]
            if change == "mixed up":
                last = len(beam) - 1
                kept = [(e, r, [*beam[min(i, last)][2], path[-1]], 0) for i, (e, r, path, _) in enumerate(kept)]
            beam = [way[:3] for way in kept]
        chosen.append(beam[-1 if change == "worst" else 0][2])
    return torch.tensor(chosen)


WRONG["beam_encode"] = [
    (lambda x, codebooks, beam: _searched(x, codebooks, beam, "summed"), "sum of all stages"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam, "greedy"), "greedy"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam, "worst"), "worst path"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam, "longest"), "largest=False"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam, "mixed up"), "wrong paths"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam)[:, :1], "should have shape"),
]


def _in_pieces(x: Tensor, codebooks: Tensor) -> list[Tensor]:
    return [c[nearest(p, c)] for p, c in zip(x.chunk(len(codebooks), 1), codebooks, strict=True)]


WRONG["product_quantize"] = [
    (lambda x, codebooks: torch.cat(_in_pieces(x, codebooks[:1].repeat(len(codebooks), 1, 1)), 1), "first codebook"),
    (
        lambda x, codebooks: torch.cat([c[nearest(x[:, : c.shape[1]], codebooks[0])] for c in codebooks], 1),
        "index of the first",
    ),
    (
        lambda x, codebooks: torch.cat(
            [c[nearest(x[:, s :: len(codebooks)], c)] for s, c in enumerate(codebooks)], dim=1
        ),
        "every S-th",
    ),
    (
        lambda x, codebooks: torch.stack(
            [nearest(p, c) for p, c in zip(x.chunk(len(codebooks), 1), codebooks, strict=True)], dim=1
        ),
        "indices",
    ),
    (lambda x, codebooks: torch.stack(_in_pieces(x, codebooks)), "stacked"),
    (lambda x, codebooks: x, "should be"),
]

WRONG["share_bits"] = [
    (lambda variances, bits: torch.full_like(variances, bits / len(variances)), "With equal shares"),
    (lambda variances, bits: bits * variances / variances.sum(), "in proportion to the variances"),
    (lambda variances, bits: bits * F.one_hot(variances.argmax(), len(variances)).float(), "all bits for the largest"),
    (
        lambda variances, bits: bits / len(variances) + 0.5 * (variances.log2() - variances.log2().mean()),
        "none is below 0",
    ),
    (lambda variances, bits: 0.5 * (variances.log2() + bits).clamp(min=0), "add up to"),
    (lambda variances, bits: bits, "Return a tensor"),
]

# --- Every exercise of every notebook --------------------------------------------------------------


class Exercise(NamedTuple):
    """A call `check.name(answer)` that stands in a notebook's source."""

    topic: str
    name: str
    answer: str  # an expression


def _code_cells(topic: str) -> list[Any]:
    notebook = jupytext.read(SOURCES / f"{topic}.py")
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _exercises() -> list[Exercise]:
    calls = re.compile(r"^check\.(\w+)\((.*)\)$", re.MULTILINE)
    topics = sorted(path.stem for path in SOURCES.glob("*.py"))
    return [Exercise(t, *call) for t in topics for cell in _code_cells(t) for call in calls.findall(cell.source)]


@functools.cache
def _solved_names(topic: str) -> dict[str, Any]:
    """What a notebook's imports, functions, classes and solved exercises define; nothing else of it is run."""
    names: dict[str, Any] = {}
    for cell in _code_cells(topic):
        body = ast.parse(cell.source).body
        if "exercise" not in cell.metadata.get("tags", []):
            body = [node for node in body if isinstance(node, DEFINITIONS)]
        for node in body:
            with contextlib.suppress(NameError):  # a definition that needs the notebook's data; no solution may
                exec(compile(ast.Module([node], []), topic, "exec"), names)
    return names


def solution(exercise: Exercise) -> Any:
    """The answer to an exercise that its notebook's source holds."""
    return eval(exercise.answer, _solved_names(exercise.topic))


EXERCISES = _exercises()
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
each_wrong_answer = pytest.mark.parametrize(
    ("name", "answer", "words"),
    [pytest.param(name, *case, id=f"{name}-{i}") for name, cases in WRONG.items() for i, case in enumerate(cases)],
)


@each_exercise
def test_a_check_accepts_the_solution(exercise: Exercise, capsys: pytest.CaptureFixture) -> None:
    getattr(check, exercise.name)(solution(exercise))
    assert re.fullmatch(r"✓ .*\n", capsys.readouterr().out)


@each_exercise
def test_a_check_waits_for_a_stub(exercise: Exercise, capsys: pytest.CaptureFixture) -> None:
    stub = (lambda *_: None) if callable(solution(exercise)) else None
    getattr(check, exercise.name)(stub)
    assert re.fullmatch(r"○ .*\n", capsys.readouterr().out)


@each_exercise
def test_a_check_has_three_wrong_answers_to_reject(exercise: Exercise) -> None:
    assert len(WRONG.get(exercise.name, [])) >= 3


@each_wrong_answer
def test_a_check_says_what_is_wrong(name: str, answer: Any, words: str, capsys: pytest.CaptureFixture) -> None:
    getattr(check, name)(answer)
    said = capsys.readouterr().out
    assert re.fullmatch(r"✗ .*\n", said) and re.search(words, said), said


# --- What all checks share -------------------------------------------------------------------------


@check.exercise
def _double(answer: Callable) -> str:
    """A check as small as can be: x → 2 x."""
    check.compare(answer, lambda x: 2 * x, {"That is the square.": lambda x: x**2}, x=torch.tensor([3.0, 1.0]))
    return "doubled"


def _in_place(x: Tensor) -> Tensor:
    return x.mul_(2)


def _raising(x: Tensor) -> Tensor:
    raise ValueError("first line\nsecond line")


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (lambda x: x + x, "✓ doubled"),
        (None, "○ Not solved yet."),
        (..., "○ Not solved yet."),
        (lambda x: None, "○ Not solved yet: your answer returns None."),
        (lambda x: x**2, "✗ That is the square. Seen for x of shape (2,)."),
        (lambda x: 3 * x, "✗ your answer: the result should be 6 at [0], and is 9 for x of shape (2,)."),
        (lambda x: x[:1], "✗ your answer: the result should have shape (2,), and has (1,) for x of shape (2,)."),
        (
            lambda x: "six",
            "✗ your answer: the result should be a tensor or a number, and is 'six' for x of shape (2,).",
        ),
        (_in_place, "✗ _in_place changes x in place for x of shape (2,): leave it as it was."),
        (_raising, "✗ _raising raises ValueError (first line) for x of shape (2,)."),
        (6, "✗ your answer raises TypeError ('int' object is not callable) for x of shape (2,)."),
    ],
)
def test_a_check_prints_one_line_and_never_raises(answer: Any, line: str, capsys: pytest.CaptureFixture) -> None:
    _double(answer)
    assert capsys.readouterr().out == f"{line}\n"


def test_a_check_that_fails_itself_still_prints_one_line(capsys: pytest.CaptureFixture) -> None:
    check.exercise(lambda answer: answer.missing)(6)
    assert capsys.readouterr().out.startswith("✗ This answer can't be used: AttributeError")


def test_a_check_leaves_the_random_numbers_alone(capsys: pytest.CaptureFixture) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    _double(lambda x: 2 * x + 0 * torch.rand(1))
    assert torch.equal(torch.rand(3), expected)


def test_a_check_tries_the_same_inputs_every_time(capsys: pytest.CaptureFixture) -> None:
    @check.exercise
    def draw(answer: Callable) -> str:
        return f"{torch.rand(1).item()}"

    draw(abs), draw(abs)
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


@pytest.mark.parametrize(
    ("result", "wanted", "words"),
    [
        ((1, 2.0), (1, 2.0), "^$"),
        ([torch.ones(2), 3], (torch.ones(2), 3), "^$"),
        ((1, 2.5), (1, 2.0), "part 2, should be 2, and is 2.5"),
        (1, (1, 2), "should be 2 things, in order, and is 1"),
        (torch.ones(3), torch.ones(3).long(), "whole numbers, and holds torch.float32"),
        (float("nan"), 0.0, "should be 0, and is nan"),
    ],
)
def test_a_difference_is_put_into_words(result: Any, wanted: Any, words: str) -> None:
    assert re.search(words, check.difference(result, wanted))
