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
    (lambda num_blocks, stride: stride * (num_blocks + 1), "gets on one side"),
    (lambda num_blocks, stride: stride * (1 + 4 * num_blocks), "count all that are 3 × 3, and no other"),
    (lambda num_blocks, stride: stride * 3 ** (num_blocks + 1), "not three times as long"),
    (lambda num_blocks, stride: stride * 3 * (num_blocks + 1), "the third is the place where it starts"),
    (lambda num_blocks, stride: stride + 2 * (num_blocks + 1), "not by pixels"),
    (lambda num_blocks, stride: (2 * num_blocks + 3) ** 2, "number of places"),
    (lambda num_blocks, stride: stride * 2 * num_blocks, "first convolution is missing, and"),
    (lambda num_blocks, stride: stride * (2 * num_blocks + 3) - 1, "of whole places"),
    (lambda num_blocks, stride: stride * (2 * num_blocks + 3) + 1, "of whole places"),
    (lambda num_blocks, stride: 1 + 2 * stride * (num_blocks + 1), "and not one pixel"),
    (lambda num_blocks, stride: 72, "3 blocks and stride 8 alone"),
    (lambda num_blocks, stride: stride * 3, "every block has one more"),
    (lambda num_blocks, stride: stride * 2 ** (num_blocks + 1), "not twice as long"),
    (lambda num_blocks, stride: stride * (1 + 2 * (num_blocks + 2)), "it reaches no neighbour"),
    (lambda num_blocks, stride: 8 * (2 * num_blocks + 3), "8 pixels a place"),
    (lambda num_blocks, stride: 9 * stride, "3 blocks, whatever"),
    (lambda num_blocks, stride: (stride * (2 * num_blocks + 3), stride * (2 * num_blocks + 3)), "the side alone"),
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
    (lambda *inputs: _weighed(*inputs[:4], 1 / inputs[4], 1, inputs[5]).item(), r"without item\(\)"),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, 1 / v / len(x), 1, b), "size of the batch once more"),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, 1 / v, 1, b) / 3, "mean of the three terms"),
    (
        lambda x, r, z_e, z_q, v, b: (
            F.mse_loss(r, x).sqrt() / v + F.mse_loss(z_q, z_e.detach()) + b * F.mse_loss(z_e, z_q.detach())
        ),
        "The root",
    ),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, 1 / v, 1, 1 - b), "weighed by 1 − β"),
    (
        lambda x, r, z_e, z_q, v, b: F.mse_loss(r, x) / v + F.mse_loss(z_q, z_e.detach()) + b * F.mse_loss(z_e, z_q),
        "moves the codebook too",
    ),
    (
        lambda x, r, z_e, z_q, v, b: F.mse_loss(r, x) / v + F.mse_loss(z_q, z_e) + b * F.mse_loss(z_e, z_q.detach()),
        "moves the encoder too",
    ),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r.detach(), z_e, z_q, 1 / v, 1, b), "nothing moves the decoder"),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, 1 / v, 1, 0), "The commitment loss is gone"),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, 0, 1, b), "reconstruction's error is gone"),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, 1 / v, 1, -b), "is subtracted"),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, 1 / v, 1, 0.25), "always 0.25"),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, 1 / math.sqrt(v), 1, b), "standard deviation"),
    (lambda x, r, z_e, z_q, v, b: _weighed(x, r, z_e, z_q, 1 / x.var(), 1, b), "variance of these images"),
    (
        lambda x, r, z_e, z_q, v, b: (
            F.mse_loss(r, x, reduction="sum") / v
            + F.mse_loss(z_q, z_e.detach(), reduction="sum")
            + b * F.mse_loss(z_e, z_q.detach(), reduction="sum")
        ),
        "All three terms are sums",
    ),
    (
        lambda x, r, z_e, z_q, v, b: (
            F.mse_loss(r, x, reduction="sum") / v + F.mse_loss(z_q, z_e.detach()) + b * F.mse_loss(z_e, z_q.detach())
        ),
        "whole batch",
    ),
    (
        lambda x, r, z_e, z_q, v, b: (
            (r - x).abs().mean() / v + (z_q - z_e.detach()).abs().mean() + b * (z_e - z_q.detach()).abs().mean()
        ),
        "These are absolute differences",
    ),
    (
        lambda x, r, z_e, z_q, v, b: (
            (r - x).abs().mean() / v + F.mse_loss(z_q, z_e.detach()) + b * F.mse_loss(z_e, z_q.detach())
        ),
        "of absolute differences; square",
    ),
    (
        lambda x, r, z_e, z_q, v, b: (
            F.mse_loss(r, x) / v
            + (z_q - z_e.detach()).square().sum(1).mean()
            + b * (z_e - z_q.detach()).square().sum(1).mean()
        ),
        "squared lengths",
    ),
    (
        lambda x, r, z_e, z_q, v, b: (
            F.mse_loss(r, x) / v + (z_q - z_e.detach()).square().sum() + b * (z_e - z_q.detach()).square().sum()
        ),
        "codebook loss and the commitment loss are sums",
    ),
    (
        lambda x, r, z_e, z_q, v, b: (
            ((r - x).square().sum() / v + (z_q - z_e.detach()).square().sum() + b * (z_e - z_q.detach()).square().sum())
            / len(x)
        ),
        "sums over an image",
    ),
    (
        lambda x, r, z_e, z_q, v, b: (
            (F.mse_loss(r, x) + F.mse_loss(z_q, z_e.detach())) / v + b * F.mse_loss(z_e, z_q.detach())
        ),
        "codebook loss is divided by the variance",
    ),
    (
        lambda x, r, z_e, z_q, v, b: (
            F.mse_loss(r, x) / v + F.mse_loss(z_q, z_e.detach()) + b * F.mse_loss(z_e.detach(), z_q)
        ),
        "none of them holds the encoder",
    ),
    (
        lambda x, r, z_e, z_q, v, b: (
            F.mse_loss(r, x) / v + F.mse_loss(z_q.detach(), z_e) + b * F.mse_loss(z_e, z_q.detach())
        ),
        "none of them moves the codebook",
    ),
    (
        lambda x, r, z_e, z_q, v, b: (
            F.mse_loss(r, x) / v + F.mse_loss(z_q.detach(), z_e) + b * F.mse_loss(z_e.detach(), z_q)
        ),
        "here it weighs the codebook loss",
    ),
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
    (lambda model, size: model.decode(torch.arange(size)), "indices \\(B, h, w\\)"),
    (lambda model, size: model.decode(torch.arange(size)[None]), "indices \\(B, h, w\\)"),
    (lambda model, size: model.decoder(model.quantizer.codebook[:size]), "indices \\(B, h, w\\)"),
    (lambda model, size: model.decode(torch.arange(1, size + 1)[:, None, None]), "run from 0 to K − 1"),
    (lambda model, size: model.decode(torch.arange(256)[:, None, None]), "K is given"),
    (lambda model, size: model.decode(torch.arange(size).flip(0)[:, None, None]), "last codeword to the first"),
    (lambda model, size: model.decode(torch.arange(size)[:, None, None]).mean((2, 3)), "return the pictures"),
    (lambda model, size: model.decode(torch.arange(size)[:, None, None]).mean((2, 3), True), "shrunk to its mean"),
    (lambda model, size: model.decode(torch.arange(size - 1)[:, None, None]), "last codeword is missing"),
    (lambda model, size: model.decode(torch.arange(1, size)[:, None, None]), "first codeword is missing"),
    (lambda model, size: model.decode(torch.arange(size)[:, None, None].expand(-1, 8, 8)), "grid of 8 × 8 places"),
    (
        lambda model, size: model.decode(torch.arange(size)[:, None, None].expand(-1, 3, 3))[..., 4:8, 4:8],
        "among its like",
    ),
    (lambda model, size: model.quantizer.decode(torch.arange(size)[:, None, None]), "in a grid of its own, not yet"),
    (
        lambda model, size: torch.stack([model.decode(torch.tensor([[[k]]])) for k in range(size)]),
        "batch axis of its own",
    ),
    (lambda model, size: model.decode(torch.ones(size, 1, 1).long()), "number 1"),
    (lambda model, size: torch.cat([model.decode(torch.tensor([[[k]]]))[0] for k in range(size)]), "stack gives each"),
    (lambda model, size: model(torch.arange(size)[:, None, None]), "the model itself takes images"),
    (lambda model, size: [model.decode(torch.tensor([[[k]]])) for k in range(size)], "torch.stack makes one"),
    (lambda model, size: model.decode(torch.arange(size)[:, None, None]).clamp(0, 1), "clipped"),
    (lambda model, size: model.decode(torch.arange(size)[:, None, None]).permute(0, 2, 3, 1), "last axis"),
    (lambda model, size: model.decode(torch.tensor([[[0]]])), "first codeword alone"),
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
    (lambda indices, counts: -torch.log2(counts.clamp(min=1) / counts.clamp(min=1).sum())[indices], "that are 0"),
    (
        lambda indices, counts: -torch.log2((raised := torch.where(counts > 0, counts + 1, 0)) / raised.sum())[indices],
        "stay at 0",
    ),
    (lambda indices, counts: -torch.log2((counts[indices] + 1) / (counts.max() + 1)), "by the largest"),
    (lambda indices, counts: torch.log2(counts[indices] + 1.0), "and take minus the logarithm"),
    (lambda indices, counts: -torch.log2(counts[indices] + 1.0), "divide them by their sum first"),
    (lambda indices, counts: -torch.log2(1 + counts[indices] / counts.sum()), "not to the shares"),
    (
        lambda indices, counts: -((share := (counts + 1) / (counts + 1).sum()) * share.log2()).sum(),
        "entropy of the codebook",
    ),
    (lambda indices, counts: -torch.log2(counts[indices] / counts.sum() + 1e-8), "20 bits or more"),
    (lambda indices, counts: -torch.log2((counts[indices] + 1) / (counts.sum() + 1)), "their sum grew by K"),
    (lambda indices, counts: -torch.log2((counts[indices] + 1) / (counts[indices] + 1).sum()), "this photo's places"),
    (lambda indices, counts: 2 ** _bits(indices, counts), "one over the share"),
    (lambda indices, counts: _bits(indices, counts) * 2 ** -_bits(indices, counts), "terms of an entropy"),
    (lambda indices, counts: _bits(indices, counts) / math.log2(10), "not 10"),
    (lambda indices, counts: _bits(indices, counts).ceil(), "rounded up"),
    (lambda indices, counts: _bits(indices, counts).mean(), "the mean over the photo"),
    (lambda indices, counts: _bits(indices, counts).sum(), "the sum over the photo"),
]
