"""Wrong answers to the exercises of 06 · What do codes of an image mean?"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Exercise → wrong answers, each with a regular expression for what its learner is told.
WRONG: dict[str, list[tuple[Any, str]]] = {}

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
