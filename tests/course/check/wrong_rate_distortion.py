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


def _rate_and(dim: int, size: int, num: int, bound: Callable[[float], float]) -> tuple[float, float]:
    rate = num * math.log2(size) / dim
    return rate, bound(rate)


WRONG["rate_and_bound"] = [
    (lambda dim, size, num, variance: ((num + math.log2(size)) / dim, 1.0), "multiply, don't add"),
    (lambda dim, size, num, variance: (math.ceil(num * math.log2(size) / dim), 1.0), "up: bits per dimension"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: dim * variance * 4**-r), "a whole vector"),
    (lambda dim, size, num, variance: (num * math.log2(size), variance * 4 ** -(num * math.log2(size) / dim)), "share"),
    (lambda dim, size, num, variance: (dim * num * math.log2(size), 1.0), "divide by dim"),
    (lambda dim, size, num, variance: (math.log2(size) / dim, 1.0), "M stages"),
    (lambda dim, size, num, variance: (num * size / dim, 1.0), "not K"),
    (lambda dim, size, num, variance: (math.log2(num * size) / dim, 1.0), "there are Kᴹ choices"),
    (lambda dim, size, num, variance: (math.log2(size) ** num / dim, 1.0), "no exponent"),
    (lambda dim, size, num, variance: (size**num / dim, 1.0), "its logarithm to base 2"),
    (lambda dim, size, num, variance: (num * math.log(size) / dim, 1.0), "base 2"),
    (lambda dim, size, num, variance: (num * math.log10(size) / dim, 1.0), "base 2, not 10"),
    (lambda dim, size, num, variance: _rounded_up(dim, size, num, variance), "round up"),
    (lambda dim, size, num, variance: (num * size, 1.0), "are stored"),
    (lambda dim, size, num, variance: (num * math.log2(size / dim), 1.0), "not the number of codewords"),
    (lambda dim, size, num, variance: (size / dim, 1.0), "there are M of them"),
    (lambda dim, size, num, variance: (dim / (num * math.log2(size)), 1.0), "upside down"),
    (lambda dim, size, num, variance: (num * math.log2(size) / size, 1.0), "not by the K"),
    (lambda dim, size, num, variance: (math.log2(size) / num, 1.0), "not by the M"),
    (lambda dim, size, num, variance: (num * math.log2(size) // dim, 1.0), "needn't be whole"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: variance * 4**-r)[::-1], "rate first"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: variance * 2**-r), "divides .* by 4"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: variance * 2 ** (-r / 2)), "not −R / 2"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: variance * 2 ** (2 * r)), "Mind the sign"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: variance / (4 * r)), "in the exponent"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: variance * 4 ** (-2 * r)), "not both"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: variance * 2 ** (-2 * r / dim)), "once more"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: variance * 2**-2 * r), "put brackets"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: (variance * 2) ** (-2 * r)), "in its base"),
    (
        lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: 10 * math.log10(variance * 4**-r)),
        "in dB",
    ),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: 4**-r), "grows with the variance"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: variance**2 * 4**-r), "don't square"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: variance**0.5 * 4**-r), "take its root"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: 1 / variance * 4**-r), "don't divide"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: variance * 4 ** -(r * dim)), "per dimension"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: variance * math.exp(-2 * r)), "not e"),
    (lambda dim, size, num, variance: _rate_and(dim, size, num, lambda r: 7.0), "should be 0.1025\\d, and is 7"),
    (lambda dim, size, num, variance: 0.5, "Return 2 things"),
]


def _rounded_up(dim: int, size: int, num: int, variance: float) -> tuple[float, float]:
    rate = num * math.ceil(math.log2(size)) / dim
    return rate, variance * 4**-rate


def _table(residuals: Tensor, codebook: Tensor) -> Tensor:
    return (residuals[:, None] - codebook).square().sum(-1)


def _split(ways: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    return ways // columns, ways % columns


def _one_each(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    errors, indices = _table(residuals, codebook).min(1)
    return errors.argsort()[:beam_size], indices[errors.argsort()[:beam_size]]


def _vectors(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    parents, indices = _split(_table(residuals, codebook).flatten().argsort()[:beam_size], len(codebook))
    return residuals[parents], codebook[indices]


WRONG["best_ways"] = [
    (lambda r, c, beam: tuple(_table(r, c).flatten().topk(beam, largest=False)), "topk gives values and places"),
    (
        lambda r, c, beam: _split((_table(r, c) + r.square().sum(-1)[:, None]).flatten().argsort()[:beam], len(c)),
        "had left before is added in",
    ),
    (lambda r, c, beam: _split((-_table(r, c)).flatten().argsort()[:beam], len(c)), "worst ways"),
    (lambda r, c, beam: _split(_table(r, c).flatten().topk(beam).indices, len(c)), "worst ways"),
    (lambda r, c, beam: _split(_table(r, c).flatten().argsort()[-beam:], len(c)), "end of the sorted list"),
    (lambda r, c, beam: _split(_table(r, c).flatten().argsort()[:beam], beam), "K places, not beam_size"),
    (_one_each, "one way only"),
    (lambda r, c, beam: _split(_table(r, c).flatten().argsort()[:beam], len(c))[::-1], "parents first"),
    (lambda r, c, beam: _split(_table(r, c).flatten().argsort()[:beam], len(r)), "K places, not B"),
    (lambda r, c, beam: _split(_table(r, c).T.flatten().argsort()[:beam], len(c)), "on its side"),
    (lambda r, c, beam: _split(_table(r, c).flatten().argsort(), len(c)), "keep the first"),
    (lambda r, c, beam: _split(_table(r, c).flatten().argsort()[:1], len(c)), "Only the best way"),
    (lambda r, c, beam: _split(_table(r, c).flatten().argsort()[:beam].sort().values, len(c)), "not in their order"),
    (lambda r, c, beam: _split(_table(r[:1], c).flatten().argsort()[:beam], len(c)), "first path"),
    (lambda r, c, beam: _split(_table(r, c).argsort()[:beam], len(c)), "flatten the table first"),
    (lambda r, c, beam: _split((r[:, None] + c).norm(dim=-1).flatten().argsort()[:beam], len(c)), "not added"),
    (lambda r, c, beam: _split((r[:, None] - c).sum(-1).flatten().argsort()[:beam], len(c)), "square them"),
    (lambda r, c, beam: _split((r[:, None] - c).abs().sum(-1).flatten().argsort()[:beam], len(c)), "their squares"),
    (lambda r, c, beam: (torch.arange(len(r)), _table(r, c).argmin(1)), "goes on once here, whatever"),
    (lambda r, c, beam: (torch.arange(len(r))[:beam], nearest(r, c)[:beam]), "goes on once here"),
    (
        lambda r, c, beam: ((best := _table(r, c).min(0)).indices[k := best.values.argsort()[:beam]], k),
        "reached from one path",
    ),
    (lambda r, c, beam: _split((r[:, None] - c).square().flatten().argsort()[:beam], len(c)), "squares are not added"),
    (lambda r, c, beam: _split((r @ c.T).flatten().argsort(descending=True)[:beam], len(c)), "by the products"),
    (lambda r, c, beam: _split(_table(r, c).flatten().sort().values[:beam], len(c)), "argsort gives their places"),
    (_vectors, "row numbers"),
    (lambda r, c, beam: ((w := _table(r, c).flatten().argsort()[:beam]) / len(c), w % len(c)), "divide with //"),
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
                    left = residual - codeword
                    error = {"sum": left, "abs": left.abs()}.get(change, left.square()).sum().item()
                    error += before if change in ("summed", "summed, but for the choice") else 0
                    error += before if change == "summed, but for the last" and len(path) + 1 < len(codebooks) else 0
                    error -= before if change == "taken off" else 0
                    error = before + left.norm().item() if change == "lengths" else error
                    ways.append((error, left, [*path, k], row))
            ways.sort(key=lambda way: way[0], reverse=change == "longest")
            kept = ways[: 1 if change == "greedy" else beam_size]
            if change == "mixed up":
                last = len(beam) - 1
                kept = [(e, r, [*beam[min(i, last)][2], path[-1]], 0) for i, (e, r, path, _) in enumerate(kept)]
            beam = [way[:3] for way in kept]
        if change == "summed, but for the choice":
            beam.sort(key=lambda way: way[1].square().sum().item())
        chosen.append(beam[-1 if change == "worst" else 0][2])
    return torch.tensor(chosen)


def _mixed_up(x: Tensor, codebooks: Tensor, beam_size: int, change: str) -> Tensor:
    """The beam search as in the notebook, with one mistake after the ranking."""
    residuals, paths = x[:, None], torch.zeros(len(x), 1, 0, dtype=torch.int64)
    for codebook in codebooks:
        left_over = residuals[:, :, None] - codebook
        scores = left_over.square().sum(-1).flatten(1)
        ways = scores.topk(min(beam_size, scores.shape[1]), largest=False).indices
        parents, indices = ways // len(codebook), ways % len(codebook)
        if change == "swapped":
            parents, indices = indices, parents
        if change == "as they were":
            residuals = residuals.take_along_dim(parents[:, :, None], 1)
        elif change == "of x":
            residuals = x[:, None] - codebook[indices]
        else:
            picked = {"by index": indices, "by parent": parents}.get(change, ways)
            residuals = left_over.flatten(1, 2).take_along_dim(picked[:, :, None], 1)
        new = {"parents": parents, "ways": ways}.get(change, indices)
        paths = torch.cat([paths.take_along_dim(parents[:, :, None], 1), new[:, :, None]], -1)
    return paths[:, 0]


def _all_sums(x: Tensor, codebooks: Tensor) -> Tensor:
    paths = torch.cartesian_prod(*[torch.arange(codebooks.shape[1])] * len(codebooks)).view(-1, len(codebooks))
    sums = sum(codebook[index] for codebook, index in zip(codebooks, paths.T, strict=True))
    return paths[nearest(x, sums)]


def _rebuilt(x: Tensor, codebooks: Tensor, beam_size: int) -> Tensor:
    paths = _searched(x, codebooks, beam_size)
    return sum(codebook[index] for codebook, index in zip(codebooks, paths.T, strict=True))


WRONG["beam_encode"] = [
    (lambda x, codebooks, beam: _searched(x, codebooks, beam, "summed, but for the last"), "which paths go on"),
    (lambda x, codebooks, beam: _all_sums(x, codebooks), "best of all sums"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam, "summed"), "sum of all stages"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam, "summed, but for the choice"), "which paths go on"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam, "greedy"), "greedy"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam, "worst"), "worst path"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam, "longest"), "largest=False"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam, "mixed up"), "wrong paths"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam, "sum"), "square them"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam, "abs"), "their squares"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam, "taken off"), "taken off again"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam, "lengths"), "sum of all stages' lengths"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam)[0], "first vector's path alone"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam).flip(1), "run backwards"),
    (lambda x, codebooks, beam: _mixed_up(x, codebooks, beam, "by index"), "by `ways`, not by `indices`"),
    (lambda x, codebooks, beam: _mixed_up(x, codebooks, beam, "by parent"), "by `ways`, not by `parents`"),
    (lambda x, codebooks, beam: _mixed_up(x, codebooks, beam, "as they were"), "go on as they were"),
    (lambda x, codebooks, beam: _mixed_up(x, codebooks, beam, "of x"), "subtracted from x"),
    (lambda x, codebooks, beam: _mixed_up(x, codebooks, beam, "swapped"), "changed places"),
    (lambda x, codebooks, beam: _mixed_up(x, codebooks, beam, "parents"), "parents are appended"),
    (lambda x, codebooks, beam: _mixed_up(x, codebooks, beam, "ways"), "ways are appended"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam).T, "stand in rows"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam)[:, -1], "Only the last stage"),
    (lambda x, codebooks, beam: _searched(x, codebooks, beam)[:, :1], "Only the first stage"),
    (_rebuilt, "rebuilt vector"),
    (lambda x, codebooks, beam: x - _rebuilt(x, codebooks, beam), "leaves over"),
]


def _in_pieces(x: Tensor, codebooks: Tensor) -> list[Tensor]:
    return [c[nearest(p, c)] for p, c in zip(x.chunk(len(codebooks), 1), codebooks, strict=True)]


def _cut(x: Tensor, codebooks: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.chunk(len(codebooks), 1), codebooks, strict=True))


WRONG["product_quantize"] = [
    (
        lambda x, codebooks: torch.stack(
            [c[nearest(x[:, s :: len(codebooks)], c)] for s, c in enumerate(codebooks)], dim=2
        ).flatten(1),
        "every S-th",
    ),
    (lambda x, codebooks: (c := torch.hstack(list(codebooks)))[nearest(x, c)], "one index for all its pieces"),
    (
        lambda x, codebooks: torch.cat([c[torch.cdist(p, c, p=1).argmin(1)] for p, c in _cut(x, codebooks)], dim=1),
        "squares add up to least",
    ),
    (lambda x, codebooks: torch.cat(_in_pieces(x, codebooks[:1].repeat(len(codebooks), 1, 1)), 1), "first codebook"),
    (
        lambda x, codebooks: torch.cat(
            [codebooks[-1][nearest(p, codebooks[-1])] for p in x.chunk(len(codebooks), 1)], 1
        ),
        "last codebook",
    ),
    (
        lambda x, codebooks: torch.cat([c[nearest(x[:, : c.shape[1]], codebooks[0])] for c in codebooks], 1),
        "index of the first",
    ),
    (
        lambda x, codebooks: torch.cat([c[nearest(x[:, : c.shape[1]], c)] for c in codebooks], 1),
        "gets the first piece",
    ),
    (
        lambda x, codebooks: torch.cat(
            [(c := codebooks.flatten(0, 1))[nearest(p, c)] for p in x.chunk(len(codebooks), 1)], dim=1
        ),
        "codewords of all codebooks",
    ),
    (lambda x, codebooks: torch.cat(_in_pieces(x, codebooks.flip(0)), 1), "wrong order"),
    (lambda x, codebooks: torch.cat(list(reversed(_in_pieces(x, codebooks))), 1), "in another order"),
    (
        lambda x, codebooks: torch.cat(
            [c[nearest(x[:, s :: len(codebooks)], c)] for s, c in enumerate(codebooks)], dim=1
        ),
        "every S-th",
    ),
    (
        lambda x, codebooks: torch.cat(
            [c[nearest(p, c)] for p, c in zip(x.view(len(codebooks), len(x), -1), codebooks, strict=True)], dim=1
        ),
        "mixes the rows",
    ),
    (
        lambda x, codebooks: torch.stack(
            [nearest(p, c) for p, c in zip(x.chunk(len(codebooks), 1), codebooks, strict=True)], dim=1
        ),
        "indices",
    ),
    (
        lambda x, codebooks: torch.cat([c[nearest(p, codebooks[0])] for p, c in _cut(x, codebooks)], dim=1),
        "searched in the first codebook",
    ),
    (
        lambda x, codebooks: torch.cat([codebooks[0][nearest(p, c)] for p, c in _cut(x, codebooks)], dim=1),
        "then taken from the first",
    ),
    (lambda x, codebooks: torch.stack([nearest(p, c) for p, c in _cut(x, codebooks)]), "a row for each piece"),
    (lambda x, codebooks: _in_pieces(x, codebooks), "one by one"),
    (lambda x, codebooks: torch.stack(_in_pieces(x, codebooks), dim=2).flatten(1), "shuffled into each other"),
    (lambda x, codebooks: torch.stack(_in_pieces(x, codebooks), dim=-1), "a last dimension"),
    (lambda x, codebooks: torch.hstack(_in_pieces(x, codebooks)[:1] * len(codebooks)), "here S times"),
    (lambda x, codebooks: torch.stack(_in_pieces(x, codebooks)).reshape(len(x), -1), "pieces of other vectors"),
    (lambda x, codebooks: torch.stack(_in_pieces(x, codebooks)).mean(0), "mean of the pieces"),
    (lambda x, codebooks: torch.stack(_in_pieces(x, codebooks)), "stacked; join"),
    (lambda x, codebooks: torch.stack(_in_pieces(x, codebooks), dim=1), "a dimension of their own"),
    (lambda x, codebooks: torch.cat(_in_pieces(x, codebooks)), "below each other"),
    (lambda x, codebooks: sum(_in_pieces(x, codebooks)), "added up"),
    (lambda x, codebooks: _in_pieces(x, codebooks)[0], "Only the first piece"),
    (lambda x, codebooks: _in_pieces(x, codebooks)[-1], "Only the last piece"),
    (lambda x, codebooks: x - torch.cat(_in_pieces(x, codebooks), 1), "left over"),
    (lambda x, codebooks: x, "x itself"),
    (lambda x, codebooks: 2 * torch.cat(_in_pieces(x, codebooks), 1), "should be"),
]


def _handed_out(variances: Tensor, bits: float, piece: float, base: float = 4.0) -> Tensor:
    shares = torch.zeros_like(variances)
    for _ in range(round(bits / piece)):
        shares[(variances * base**-shares).argmax()] += piece
    return shares


def _levelled(variances: Tensor, bits: float) -> Tensor:
    return bits / len(variances) + 0.5 * (variances.log2() - variances.log2().mean())


def _spent(variances: Tensor, bits: float, paid: Callable[[Tensor, float], Tensor]) -> Tensor:
    shares, left = torch.zeros_like(variances), variances.clone()
    for _ in range(2000):
        most = left.argmax()
        shares[most] += bits / 2000
        left[most] = paid(left[most], bits / 2000)
    return shares


def _by_logarithms(variances: Tensor, bits: float) -> Tensor:
    above = variances.log() - variances.log().min()
    return bits * above / above.sum()


def _scaled(variances: Tensor, bits: float) -> Tensor:
    shares = _levelled(variances, bits).clamp(min=0)
    return shares / shares.sum() * bits


WRONG["share_bits"] = [
    (lambda variances, bits: bits * variances.log1p() / variances.log1p().sum(), "log₂\\(1 \\+ v\\)"),
    (
        lambda variances, bits: (bits / len(variances) + variances.log2() - variances.log2().mean()).clamp(min=0),
        "half of log₂ v",
    ),
    (lambda variances, bits: _handed_out(variances, bits / len(variances), bits / 2000), "Only bits / dim"),
    (lambda variances, bits: _handed_out(variances, bits, bits / 2000).flip(0), "reverse order"),
    (lambda variances, bits: _handed_out(variances, bits, 0.25), "a quarter of a bit"),
    (lambda variances, bits: torch.full_like(variances, bits / len(variances)), "get the same share"),
    (lambda variances, bits: bits * variances / variances.sum(), "in proportion to the variances here"),
    (lambda variances, bits: bits * variances.sqrt() / variances.sqrt().sum(), "standard deviations"),
    (lambda variances, bits: bits * variances.log() / variances.log().sum(), "logarithms"),
    (lambda variances, bits: bits / variances / (1 / variances).sum(), "other way round"),
    (
        lambda variances, bits: bits * F.one_hot(variances.argmax(), len(variances)).float(),
        "All bits go to the largest",
    ),
    (lambda variances, bits: _handed_out(variances, bits, 1.0), "whole bits: cut"),
    (lambda variances, bits: _handed_out(variances, bits, bits / 2000).round(), "rounded to whole bits"),
    (lambda variances, bits: _handed_out(variances, bits, bits / 2000, base=2.0), "divides the distortion by 4"),
    (_levelled, "less than 0 bits"),
    (lambda variances, bits: _levelled(variances, bits).clamp(min=0), "too many bits"),
    (_scaled, "the others scaled"),
    (
        lambda variances, bits: _handed_out(variances, bits, bits / 2000).sort(descending=True).values,
        "its own component",
    ),
    (lambda variances, bits: _handed_out(variances, bits, bits / 2000) / bits, "add up to 1"),
    (lambda variances, bits: _handed_out(variances, bits * len(variances), bits / 2000), "for all together"),
    (lambda variances, bits: variances * 4 ** -_handed_out(variances, bits, bits / 2000), "distortions that are left"),
    (lambda variances, bits: torch.full_like(variances, bits), "gets all bits"),
    (lambda variances, bits: _handed_out(variances, bits, bits / 10), "too large"),
    (lambda variances, bits: 0.5 * (variances / variances.min()).log2(), "level is the least variance"),
    (lambda variances, bits: (0.5 * (variances / variances.mean()).log2()).clamp(min=0), "level is the mean variance"),
    (lambda variances, bits: _by_logarithms(variances, bits), "half their differences"),
    (lambda variances, bits: _handed_out(variances.sqrt(), bits, bits / 2000), "or the standard deviations"),
    (
        lambda variances, bits: _spent(variances, bits, lambda left, piece: left - piece),
        "subtracted from the variances",
    ),
    (lambda variances, bits: _spent(variances, bits, lambda left, piece: left / 4), "however small"),
    (lambda variances, bits: bits * F.one_hot(variances.argmin(), len(variances)), "least distortion is left"),
    (lambda variances, bits: _handed_out(variances, bits, bits / 2000) / len(variances), "divided by dim"),
    (lambda variances, bits: _handed_out(variances, bits, bits / 2000) * len(variances), "times dim"),
    (lambda variances, bits: 0.5 * (variances.log2() + bits).clamp(min=0), "add up to"),
    (lambda variances, bits: bits, "Return a tensor"),
    (lambda variances, bits: _handed_out(variances, bits, bits / 2000).tolist(), "Return a tensor"),
]
