"""Exercises of 05 · How close to the limit are we?"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial.check.judging import Wrong, compare, difference, exercise, given, parts, run
from rvq_tutorial.search import nearest, nearest_ways


@exercise
def rate_and_bound(answer: Callable) -> str:
    """dim, K, M, variance → bits per dimension, and the least distortion of Gaussian components at that rate."""
    for dim, size, num, variance in [(4, 8, 2, 2.0), (8, 256, 1, 1.0), (16, 64, 4, 0.5), (3, 10, 1, 1.0)]:
        inputs = {"dim": dim, "codebook_size": size, "num_quantizers": num, "variance": variance}
        rate, bound = parts(run(answer, **inputs), "the rate R", "the least distortion D")
        wanted = num * math.log2(size) / dim
        rates = {
            "These are the bits of a vector; its dim components share them.": wanted * dim,
            "There are M stages, and each takes log₂ K bits.": wanted / num,
            "An index among K codewords takes log₂ K bits, not K.": num * size / dim,
            "A bit is a choice between two: take the logarithm to base 2.": wanted * math.log(2),
        }
        _judge_number(rate, wanted, "the rate", rates, inputs)
        bounds = {
            "The exponent is −2 R: each bit divides the distortion by 4, not by 2.": variance * 2**-wanted,
            "The line scales with the variance: σ² stands before the power.": 4**-wanted,
            "σ² is the variance itself: don't square it.": variance**2 * 4**-wanted,
            "The exponent takes the rate per dimension, not the bits of a vector.": variance * 4 ** -(wanted * dim),
            "The base of the power is 2, not e.": variance * math.exp(-2 * wanted),
        }
        _judge_number(bound, variance * 4**-wanted, "the least distortion", bounds, inputs)
    return "R = M · log₂ K / dim, and D = σ² 2^(−2R)."


def _judge_number(
    result: Any, wanted: float, name: str, mistakes: Mapping[str, float], inputs: Mapping[str, Any]
) -> None:
    """Raise Wrong unless a result is the number wanted, with the words of the first mistake that gives it."""
    fault = difference(result, wanted, name)
    if fault:
        known = [words for words, value in mistakes.items() if not difference(result, value)]
        raise Wrong(f"{known[0]} Seen {given(inputs)}." if known else f"{fault} {given(inputs)}.")


def _ways(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    parents, indices = nearest_ways(residuals[None], codebook, beam_size)
    return parents[0], indices[0]


def _worst_ways(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    ways = torch.cdist(residuals, codebook).flatten().argsort(descending=True)[:beam_size]
    return ways // len(codebook), ways % len(codebook)


def _one_way_each(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    distances, indices = torch.cdist(residuals, codebook).min(1)
    parents = distances.argsort()[:beam_size]
    return parents, indices[parents]


def _split_by_paths(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    ways = torch.cdist(residuals, codebook).flatten().argsort()[:beam_size]
    return ways // len(residuals), ways % len(residuals)


def _unordered_ways(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    ways = torch.cdist(residuals, codebook).flatten().argsort()[:beam_size].sort().values
    return ways // len(codebook), ways % len(codebook)


@exercise
def best_ways(answer: Callable) -> str:
    """(B, dim), (K, dim), beam_size → the parents and indices of the best ways to go on, best first."""
    mistakes = {
        "These are the worst ways on: short residuals are good, so sort from small to large.": _worst_ways,
        "Each path goes on in one way only here; a good path may deserve several, a bad one none.": _one_way_each,
        "These are indices and parents; return the parents first.": lambda *inputs: _ways(*inputs)[::-1],
        "A row of the table has K places, not B: parent = way // K, index = way % K.": _split_by_paths,
        "These are the right ways, and not in their order: the shortest residual comes first.": _unordered_ways,
        "All ways are here; keep the first beam_size.": (
            lambda residuals, codebook, beam_size: _ways(residuals, codebook, len(residuals) * len(codebook))
        ),
        "Only the first path goes on here; look at the residuals of all B.": (
            lambda residuals, codebook, beam_size: _ways(residuals[:1], codebook, beam_size)
        ),
    }
    for paths, dim, size, beam_size in [(3, 2, 5, 4), (4, 3, 16, 4), (8, 4, 4, 10), (1, 2, 8, 3)]:
        scale = torch.linspace(0.5, 3, paths)[:, None]  # good and bad paths
        residuals, codebook = scale * torch.randn(paths, dim), torch.randn(size, dim)
        inputs = {"residuals": residuals, "codebook": codebook, "beam_size": beam_size}
        parts(run(answer, **inputs), "parents", "indices")
        compare(answer, _ways, mistakes, **inputs)
    return "best_ways finds the shortest residuals among all B · K, best first."


def _beam(
    x: Tensor, codebooks: Tensor, beam_size: int, summed: bool = False, follow: bool = True, largest: bool = False
) -> Tensor:
    """(N, beam, M), best path first.

    `summed` ranks by all stages' errors, not `follow` forgets whose path it is, `largest` keeps the worst.
    """
    residuals, scores = x[:, None], x.new_zeros(len(x), 1)
    paths = torch.zeros(len(x), 1, 0, dtype=torch.int64)
    for codebook in codebooks:
        left_over = residuals[:, :, None] - codebook
        errors = left_over.square().sum(-1)
        scores = (scores[:, :, None] + errors if summed else errors).flatten(1)
        scores, ways = scores.topk(min(beam_size, scores.shape[1]), largest=largest)
        parents, indices = ways // len(codebook), ways % len(codebook)
        residuals = left_over.flatten(1, 2).take_along_dim(ways[:, :, None], 1)
        parents = parents if follow else torch.arange(parents.shape[1]).clamp(max=paths.shape[1] - 1).expand_as(parents)
        paths = torch.cat([paths.take_along_dim(parents[:, :, None], 1), indices[:, :, None]], -1)
    return paths


@exercise
def beam_encode(answer: Callable) -> str:
    """(N, dim), (M, K, dim), beam_size → (N, M): the path that leaves the shortest last residual."""
    mistakes = {
        "The paths are still ranked by the sum of all stages' errors; only the last residual counts.": (
            lambda x, codebooks, beam_size: _beam(x, codebooks, beam_size, summed=True)[:, 0]
        ),
        "This is the greedy search: keep beam_size paths, not one.": (
            lambda x, codebooks, beam_size: _beam(x, codebooks, 1)[:, 0]
        ),
        "These paths leave the longest residuals: topk takes the largest unless told largest=False.": (
            lambda x, codebooks, beam_size: _beam(x, codebooks, beam_size, largest=True)[:, 0]
        ),
        "These are all paths of the beam; return the best of each vector, (N, M).": _beam,
        "This is the worst path of the beam; topk puts the best first.": (
            lambda x, codebooks, beam_size: _beam(x, codebooks, beam_size)[:, -1]
        ),
        "The new indices are appended to the wrong paths: take each one's parent's path along.": (
            lambda x, codebooks, beam_size: _beam(x, codebooks, beam_size, follow=False)[:, 0]
        ),
    }
    for num, dim, stages, size, beam_size in [(40, 2, 3, 5, 4), (60, 4, 4, 8, 8), (20, 3, 2, 6, 36), (10, 2, 1, 4, 3)]:
        codebooks = 0.6 ** torch.arange(stages).view(-1, 1, 1) * torch.randn(stages, size, dim)
        inputs = {"x": torch.randn(num, dim), "codebooks": codebooks, "beam_size": beam_size}
        compare(answer, lambda *inputs: _beam(*inputs)[:, 0], mistakes, **inputs)
    return "beam_encode ranks by the last residual, and finds the same paths as the reference."


def _product(x: Tensor, codebooks: Tensor) -> Tensor:
    pieces = x.chunk(len(codebooks), 1)
    return torch.cat([c[nearest(piece, c)] for piece, c in zip(pieces, codebooks, strict=True)], 1)


def _interleaved(x: Tensor, codebooks: Tensor) -> Tensor:
    pieces = [x[:, s :: len(codebooks)] for s in range(len(codebooks))]
    return torch.cat([c[nearest(piece, c)] for piece, c in zip(pieces, codebooks, strict=True)], 1)


def _one_index_for_all(x: Tensor, codebooks: Tensor) -> Tensor:
    index = nearest(x.chunk(len(codebooks), 1)[0], codebooks[0])
    return torch.cat([codebook[index] for codebook in codebooks], 1)


def _piece_indices(x: Tensor, codebooks: Tensor) -> Tensor:
    pieces = x.chunk(len(codebooks), 1)
    return torch.stack([nearest(piece, c) for piece, c in zip(pieces, codebooks, strict=True)], 1)


@exercise
def product_quantize(answer: Callable) -> str:
    """(N, dim), (S, K, dim/S) → (N, dim): each piece replaced by the nearest codeword of its own codebook."""
    mistakes = {
        "All pieces use the first codebook; each has its own.": (
            lambda x, codebooks: _product(x, codebooks[:1].expand_as(codebooks))
        ),
        "All pieces use the index of the first; each is looked up on its own.": _one_index_for_all,
        "The pieces are made of every S-th component; take neighbouring ones, as chunk does.": _interleaved,
        "These are the indices; return the codewords, joined.": _piece_indices,
        "The pieces are stacked; join them along the components, torch.cat(..., dim=1).": (
            lambda x, codebooks: torch.stack(_product(x, codebooks).chunk(len(codebooks), 1))
        ),
    }
    for num, pieces, size, length in [(30, 2, 8, 2), (50, 4, 4, 3), (9, 3, 5, 1), (7, 1, 6, 4)]:
        x, codebooks = torch.randn(num, pieces * length), torch.randn(pieces, size, length)
        compare(answer, _product, mistakes, x=x, codebooks=codebooks)
    return "product_quantize looks every piece up in its own codebook."


def _water_filling(variances: Tensor, bits: float) -> Tensor:
    low, high = variances.new_zeros(()), variances.max()
    for _ in range(60):
        level = (low + high) / 2
        shares = (0.5 * torch.log2(variances / level)).clamp(min=0)
        low, high = (level, high) if shares.sum() > bits else (low, level)
    return shares


@exercise
def share_bits(answer: Callable) -> str:
    """Variances (dim,), bits → the bits of each component that leave the least mean distortion."""
    photo = [0.25, 0.002, 0.0025, 0.0005]
    for values, bits in [([16.0, 1.0], 4.0), ([1.0, 1.0, 1.0], 3.0), (photo, 4.0), ([9.0, 1.0], 1.0)]:
        variances = torch.tensor(values)
        inputs = {"variances": variances, "bits": bits}
        seen = f"for variances {[round(v, 4) for v in variances.tolist()]} and {bits:g} bits"
        shares = run(answer, **inputs)
        wanted = _water_filling(variances, bits)
        if not isinstance(shares, Tensor) or shares.shape != variances.shape:
            raise Wrong(f"Return a tensor with the bits of each component, shape {tuple(variances.shape)}, {seen}.")
        if shares.min() < -1e-3:
            raise Wrong(f"A component gets {shares.min():.3g} bits, {seen}: it can't give any back; none is below 0.")
        if abs(shares.sum() - bits) > 0.01 * bits:
            raise Wrong(f"The shares add up to {shares.sum():.4g}, {seen}.")
        error, least = ((variances * 4**-s).mean() for s in (shares, wanted))
        if error > 1.02 * least:
            hints = {
                "With equal shares": torch.full_like(variances, bits / len(variances)),
                "Shared in proportion to the variances": bits * variances / variances.sum(),
                "With all bits for the largest variance": bits * F.one_hot(variances.argmax(), len(variances)),
            }
            how = [words for words, known in hints.items() if torch.allclose(shares, known.float(), atol=0.01 * bits)]
            raise Wrong(
                f"{how[0] if how else 'So shared'}, the mean distortion is {error:.4g}; it can be {least:.4g}, {seen}. "
                "Which component has the most distortion left?"
            )
    return "The distortions are levelled from the top, and no component gets less than 0 bits."
