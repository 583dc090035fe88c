"""Wrong answers to the exercises of 05 · How close to the limit are we?"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial import nearest

# Exercise → wrong answers, each with a regular expression for what its learner is told.
WRONG: dict[str, list[tuple[Any, str]]] = {}

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
