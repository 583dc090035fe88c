"""Exercises of 05 · How close to the limit are we?"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial.course.check.judging import Wrong, compare, difference, exercise, given, parts, run
from rvq_tutorial.search import nearest, nearest_ways

# Functions of dim, K and M, in place of M · log₂ K / dim.
RATE_MISTAKES: dict[str, Callable[[int, int, int], float]] = {
    "These are the bits of a vector: its dim components share them.": lambda dim, size, num: num * math.log2(size),
    "The bits of a vector are shared among its dim components: divide by dim, don't multiply.": lambda dim, size, num: (
        num * math.log2(size) * dim
    ),
    "There are M stages, and each takes log₂ K bits.": lambda dim, size, num: math.log2(size) / dim,
    "An index among K codewords takes log₂ K bits, not K.": lambda dim, size, num: num * size / dim,
    "M indices take M · log₂ K bits, not log₂ of M · K: there are Kᴹ choices.": lambda dim, size, num: (
        math.log2(num * size) / dim
    ),
    "The stages' bits add up, M · log₂ K: the number of stages is no exponent.": lambda dim, size, num: (
        math.log2(size) ** num / dim
    ),
    "Kᴹ is the number of choices; the bits are its logarithm to base 2.": lambda dim, size, num: size**num / dim,
    "A bit is a choice between two: take the logarithm to base 2.": lambda dim, size, num: num * math.log(size) / dim,
    "A bit is a choice between two: take the logarithm to base 2, not 10.": lambda dim, size, num: (
        num * math.log10(size) / dim
    ),
    "This is upside down: bits per dimension, not dimensions per bit.": lambda dim, size, num: (
        dim / (num * math.log2(size))
    ),
    "The bits are shared by the dim components, not by the K codewords.": lambda dim, size, num: (
        num * math.log2(size) / size
    ),
    "The bits are shared by the dim components, not by the M stages.": lambda dim, size, num: math.log2(size) / num,
    "An index among K codewords takes log₂ K bits, and there are M of them.": lambda dim, size, num: size / dim,
    "M · K codewords are stored; M indices of log₂ K bits are sent.": lambda dim, size, num: num * size,
    "Divide the bits by dim, not the number of codewords: log₂ K / dim, not log₂ of K / dim.": lambda dim, size, num: (
        num * math.log2(size / dim)
    ),
    "Don't round: 10 codewords take log₂ 10 = 3.32 bits.": lambda dim, size, num: num * round(math.log2(size)) / dim,
    "Don't round up: 10 codewords take log₂ 10 = 3.32 bits.": lambda dim, size, num: (
        num * math.ceil(math.log2(size)) / dim
    ),
    "Don't round: bits per dimension needn't be whole.": lambda dim, size, num: num * math.log2(size) // dim,
    "Don't round up: bits per dimension needn't be whole.": lambda dim, size, num: math.ceil(
        num * math.log2(size) / dim
    ),
    "M indices of log₂ K bits each take M · log₂ K bits: multiply, don't add.": lambda dim, size, num: (
        (num + math.log2(size)) / dim
    ),
}
# Functions of σ², R and dim, in place of σ² 2^(−2R).
BOUND_MISTAKES: dict[str, Callable[[float, float, int], float]] = {
    "The exponent is −2 R: each bit divides the distortion by 4, not by 2.": lambda variance, rate, dim: (
        variance * 2**-rate
    ),
    "The exponent is −2 R, not −R / 2.": lambda variance, rate, dim: variance * 2 ** (-rate / 2),
    "2 to the power −2 R, or 4 to the power −R: not both.": lambda variance, rate, dim: variance * 4 ** (-2 * rate),
    "R is already per dimension: don't divide by dim once more.": lambda variance, rate, dim: (
        variance * 4 ** (-rate / dim)
    ),
    "Mind the sign: the exponent is −2 R, and more bits leave less distortion.": lambda variance, rate, dim: (
        variance * 4**rate
    ),
    "R stands in the exponent: 2 to the power −2 R, not a division by a multiple of R.": lambda variance, rate, dim: (
        variance / (4 * rate)
    ),
    "2**-2 * R is a quarter of R: put brackets around the exponent, 2 ** (-2 * R).": lambda variance, rate, dim: (
        variance * 2**-2 * rate
    ),
    "σ² stands before the power, not in its base.": lambda variance, rate, dim: (2 * variance) ** (-2 * rate),
    "This is in dB: return the squared error itself.": lambda variance, rate, dim: 10 * math.log10(variance * 4**-rate),
    "The bound grows with the variance: σ² stands before the power.": lambda variance, rate, dim: 4**-rate,
    "σ² is the variance itself: don't square it.": lambda variance, rate, dim: variance**2 * 4**-rate,
    "σ² is the variance as it is given: don't take its root.": lambda variance, rate, dim: variance**0.5 * 4**-rate,
    "Multiply by the variance, don't divide by it.": lambda variance, rate, dim: 4**-rate / variance,
    "The exponent takes the rate per dimension, not the bits of a vector.": lambda variance, rate, dim: (
        variance * 4 ** -(rate * dim)
    ),
    "The base of the power is 2, not e.": lambda variance, rate, dim: variance * math.exp(-2 * rate),
    "This is the error of a whole vector: D is the mean per dimension, so don't multiply by dim.": (
        lambda variance, rate, dim: dim * variance * 4**-rate
    ),
}


@exercise
def rate_and_bound(answer: Callable) -> str:
    """dim, K, M, variance → bits per dimension, and the least distortion of Gaussian components at that rate."""
    for dim, size, num, variance in [(7, 32, 3, 2.0), (8, 256, 1, 1.0), (16, 64, 4, 0.5), (3, 10, 1, 1.0)]:
        inputs = {"dim": dim, "codebook_size": size, "num_quantizers": num, "variance": variance}
        rate, bound = parts(run(answer, **inputs), "the rate R", "the least distortion D")
        wanted = num * math.log2(size) / dim
        if not difference((bound, rate), (wanted, variance * 4**-wanted)):
            raise Wrong("These are the distortion and the rate: return the rate first.")
        rates = {words: mistake(dim, size, num) for words, mistake in RATE_MISTAKES.items()}
        _judge_number(rate, wanted, "the rate", rates, inputs)
        bounds = {words: mistake(variance, wanted, dim) for words, mistake in BOUND_MISTAKES.items()}
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


def _ranked(table: Tensor, beam_size: int | None, columns: int) -> tuple[Tensor, Tensor]:
    """Parents and indices of the least numbers in a table, taken for one of so many columns."""
    ways = table.flatten().argsort()[:beam_size]
    return ways // columns, ways % columns


def _one_way_each(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    distances, indices = torch.cdist(residuals, codebook).min(1)
    parents = distances.argsort()[:beam_size]
    return parents, indices[parents]


def _unordered_ways(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    ways = torch.cdist(residuals, codebook).flatten().argsort()[:beam_size].sort().values
    return ways // len(codebook), ways % len(codebook)


def _row_by_row(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    ways = torch.cdist(residuals, codebook).argsort()[:beam_size]
    return ways // len(codebook), ways % len(codebook)


def _values_and_ways(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    return tuple(torch.cdist(residuals, codebook).square().flatten().topk(beam_size, largest=False))


def _vectors_of_ways(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    parents, indices = _ways(residuals, codebook, beam_size)
    return residuals[parents], codebook[indices]


def _split_by_division(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    ways = torch.cdist(residuals, codebook).flatten().argsort()[:beam_size]
    return ways / len(codebook), ways % len(codebook)


def _one_path_each(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    distances, parents = torch.cdist(residuals, codebook).min(0)
    indices = distances.argsort()[:beam_size]
    return parents[indices], indices


def _values_for_places(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    ways = torch.cdist(residuals, codebook).square().flatten().sort().values[:beam_size]
    return ways // len(codebook), ways % len(codebook)


WAYS_MISTAKES = {
    "These are the worst ways on: short residuals are good, so sort from small to large.": lambda r, c, beam: _ranked(
        -torch.cdist(r, c), beam, len(c)
    ),
    "These are the worst ways on, from the end of the sorted list: the shortest residuals stand at its beginning.": (
        lambda r, c, beam: tuple(part.flip(0) for part in _ranked(-torch.cdist(r, c), beam, len(c)))
    ),
    "A row of the table has K places, not beam_size: parent = way // K, index = way % K.": lambda r, c, beam: _ranked(
        torch.cdist(r, c), beam, beam
    ),
    "Each path goes on in one way only here; a good path may deserve several, a bad one none.": _one_way_each,
    "These are indices and parents; return the parents first.": lambda *inputs: _ways(*inputs)[::-1],
    "A row of the table has K places, not B: parent = way // K, index = way % K.": lambda r, c, beam: _ranked(
        torch.cdist(r, c), beam, len(r)
    ),
    "The table stands on its side: a row for each path, a column for each codeword.": lambda r, c, beam: _ranked(
        torch.cdist(c, r), beam, len(c)
    ),
    "These are the right ways, and not in their order: the shortest residual comes first.": _unordered_ways,
    "All ways are here; keep the first beam_size.": lambda r, c, beam: _ways(r, c, len(r) * len(c)),
    "Only the best way is here; keep the first beam_size.": lambda r, c, beam: _ways(r, c, 1),
    "Only the first path goes on here; look at the residuals of all B.": lambda r, c, beam: _ways(r[:1], c, beam),
    "What the paths had left before is added in; only what the ways leave over counts.": lambda r, c, beam: _ranked(
        torch.cdist(r, c).square() + r.square().sum(-1, keepdim=True), beam, len(c)
    ),
    "Each path is sorted on its own: flatten the table first, so that all ways compete.": _row_by_row,
    "A residual and a codeword are subtracted, not added.": lambda r, c, beam: _ways(r, -c, beam),
    "The differences are added up as they are, and cancel: square them first.": lambda r, c, beam: _ranked(
        (r[:, None] - c).sum(-1), beam, len(c)
    ),
    "This adds up |differences|; a length is made of their squares.": lambda r, c, beam: _ranked(
        torch.cdist(r, c, 1), beam, len(c)
    ),
    "These are codewords, not what is left over: subtract them from the residuals first.": lambda r, c, beam: _ranked(
        c.norm(dim=-1).expand(len(r), -1), beam, len(c)
    ),
    "Each path goes on once here, whatever beam_size: all ways compete.": lambda r, c, beam: (
        torch.arange(len(r)),
        nearest(r, c),
    ),
    "Each path goes on once here, and the first are kept, good or bad: all ways compete.": lambda r, c, beam: (
        torch.arange(len(r))[:beam],
        nearest(r, c)[:beam],
    ),
    "Each codeword is reached from one path only here; a good codeword may serve several.": _one_path_each,
    "The squares are not added up: sum them over the components, .sum(-1), before you flatten.": lambda r, c, beam: (
        _ranked((r[:, None] - c).square(), beam, len(c))
    ),
    "This ranks by the products r · c; the residual left over is r − c, and its length counts.": lambda r, c, beam: (
        _ranked(-r @ c.T, beam, len(c))
    ),
    "These are made of the table's numbers; argsort gives their places.": _values_for_places,
    "topk gives values and places; split the places into parents, way // K, and indices, way % K.": _values_and_ways,
    "These are vectors: return their row numbers, the parents and the indices.": _vectors_of_ways,
    "A parent is a whole number: divide with //.": _split_by_division,
}


@exercise
def best_ways(answer: Callable) -> str:
    """(B, dim), (K, dim), beam_size → the parents and indices of the best ways to go on, best first."""
    for paths, dim, size, beam_size in [(4, 3, 16, 6), (3, 2, 5, 4), (8, 4, 4, 10), (1, 2, 8, 3)]:
        scale = torch.linspace(0.8, 2, paths)[:, None]  # good and bad paths
        residuals, codebook = scale * torch.randn(paths, dim), torch.randn(size, dim)
        inputs = {"residuals": residuals, "codebook": codebook, "beam_size": beam_size}
        parts(run(answer, **inputs), "parents", "indices")
        compare(answer, _ways, WAYS_MISTAKES, **inputs)
    return "best_ways finds the shortest residuals among all B · K, best first."


def _score_of_last(scores: Tensor, left_over: Tensor) -> Tensor:
    return left_over.square().sum(-1)


def _beam(
    x: Tensor,
    codebooks: Tensor,
    beam_size: int,
    score: Callable[[Tensor, Tensor], Tensor] = _score_of_last,
    mixed_up: str = "",
) -> tuple[Tensor, Tensor]:
    """All paths of the beam, least score first, and what they leave over: (N, beam, M), (N, beam, dim).

    score: (the scores of the paths so far (N, B, 1), what the ways leave over (N, B, K, dim)) -> (N, B, K).
    mixed_up: what goes wrong after the ranking, if anything.
    """
    residuals, scores = x[:, None], x.new_zeros(len(x), 1)
    paths = torch.zeros(len(x), 1, 0, dtype=torch.int64)
    for codebook in codebooks:
        left_over = residuals[:, :, None] - codebook
        scores = score(scores[:, :, None], left_over).flatten(1)
        scores, ways = scores.topk(min(beam_size, scores.shape[1]), largest=False)
        parents, indices = ways // len(codebook), ways % len(codebook)
        if mixed_up == "parents and indices":
            parents, indices = indices, parents
        elif mixed_up == "parents":
            parents = torch.arange(parents.shape[1]).expand_as(parents)
        rows = parents.clamp(max=paths.shape[1] - 1)[:, :, None]

        if mixed_up == "residuals as they were":
            residuals = residuals.take_along_dim(rows, 1)
        elif mixed_up == "residuals of x":
            residuals = x[:, None] - codebook[indices]
        else:
            picked = {"residuals by index": indices, "residuals by parent": parents}.get(mixed_up, ways)
            residuals = left_over.flatten(1, 2).take_along_dim(picked[:, :, None], 1)

        old = paths.take_along_dim(rows, 1)
        new = {"parents appended": parents, "ways appended": ways}.get(mixed_up, indices)[:, :, None]
        paths = torch.cat([new, old] if mixed_up == "backwards" else [old, new], -1)
    return paths, residuals


def _best_of_beam(*inputs: Any, **change: str) -> Tensor:
    return _beam(*inputs, **change)[0][:, 0]


def _sum_of_all(scores: Tensor, left_over: Tensor) -> Tensor:
    return scores + left_over.square().sum(-1)


def _chosen_at_the_end(x: Tensor, codebooks: Tensor, beam_size: int) -> Tensor:
    paths, residuals = _beam(x, codebooks, beam_size, _sum_of_all)
    best = residuals.square().sum(-1).argmin(1)
    return paths[torch.arange(len(x)), best]


def _chosen_in_the_last_stage(x: Tensor, codebooks: Tensor, beam_size: int) -> Tensor:
    paths, residuals = _beam(x, codebooks[:-1], beam_size, _sum_of_all)
    ways = _score_of_last(residuals, residuals[:, :, None] - codebooks[-1]).flatten(1).argmin(1)
    parents, indices = ways // codebooks.shape[1], ways % codebooks.shape[1]
    return torch.cat([paths[torch.arange(len(x)), parents], indices[:, None]], 1)


def _best_of_all_sums(x: Tensor, codebooks: Tensor, beam_size: int) -> Tensor:
    return _best_of_beam(x, codebooks, codebooks.shape[1] ** len(codebooks))


BEAM_MISTAKES = {
    "The paths are still ranked by the sum of all stages' errors; only the last residual counts.": (
        lambda x, codebooks, beam: _best_of_beam(x, codebooks, beam, _sum_of_all)
    ),
    "The sum of all stages' errors still decides which paths go on; it must count nowhere.": [
        _chosen_at_the_end,
        _chosen_in_the_last_stage,
    ],
    "This is the best of all sums: keep only the beam_size best paths after each stage.": _best_of_all_sums,
    "This is the greedy search: keep beam_size paths, not one.": lambda x, codebooks, beam: _best_of_beam(
        x, codebooks, 1
    ),
    "These paths leave the longest residuals: topk takes the largest unless told largest=False.": (
        lambda x, codebooks, beam: _best_of_beam(x, codebooks, beam, lambda _, left_over: -left_over.square().sum(-1))
    ),
    "These are all paths of the beam; return the best of each vector, (N, M).": lambda *inputs: _beam(*inputs)[0],
    "This is the worst path of the beam; topk puts the best first.": lambda *inputs: _beam(*inputs)[0][:, -1],
    "The new indices are appended to the wrong paths: take each one's parent's path along.": lambda *inputs: (
        _best_of_beam(*inputs, mixed_up="parents")
    ),
    "The residuals kept are those of other ways: pick them by `ways`, not by `indices`.": lambda *inputs: _best_of_beam(
        *inputs, mixed_up="residuals by index"
    ),
    "The residuals kept are those of other ways: pick them by `ways`, not by `parents`.": lambda *inputs: _best_of_beam(
        *inputs, mixed_up="residuals by parent"
    ),
    "The residuals go on as they were: take what the chosen ways leave over.": lambda *inputs: _best_of_beam(
        *inputs, mixed_up="residuals as they were"
    ),
    "Only the last codeword is subtracted from x: subtract it from the path's residual.": lambda *inputs: _best_of_beam(
        *inputs, mixed_up="residuals of x"
    ),
    "Parents and indices have changed places: parent = way // K, index = way % K.": lambda *inputs: _best_of_beam(
        *inputs, mixed_up="parents and indices"
    ),
    "The parents are appended to the paths: append the indices.": lambda *inputs: _best_of_beam(
        *inputs, mixed_up="parents appended"
    ),
    "The ways are appended to the paths: append the indices, way % K.": lambda *inputs: _best_of_beam(
        *inputs, mixed_up="ways appended"
    ),
    "The paths run backwards: the first stage's index comes first.": lambda *inputs: _best_of_beam(
        *inputs, mixed_up="backwards"
    ),
    "The paths are ranked by the sum of all stages' lengths; only the last residual counts.": lambda *inputs: (
        _best_of_beam(*inputs, lambda scores, left_over: scores + left_over.norm(dim=-1))
    ),
    "This is the first vector's path alone: return a row for each vector, (N, M).": lambda *inputs: _best_of_beam(
        *inputs
    )[0],
    "The differences are added up as they are, and cancel: square them first.": lambda x, codebooks, beam: (
        _best_of_beam(x, codebooks, beam, lambda _, left_over: left_over.sum(-1))
    ),
    "This adds up |differences|; a length is made of their squares.": lambda x, codebooks, beam: _best_of_beam(
        x, codebooks, beam, lambda _, left_over: left_over.abs().sum(-1)
    ),
    "What was left before the last stage is taken off again: the last residual alone is the score.": (
        lambda x, codebooks, beam: _best_of_beam(
            x, codebooks, beam, lambda scores, left_over: left_over.square().sum(-1) - scores
        )
    ),
    "The stages stand in rows: a vector's indices belong in a row, (N, M).": lambda *inputs: _best_of_beam(*inputs).T,
    "Only the last stage's indices are here: return the whole path, (N, M).": lambda *inputs: _best_of_beam(*inputs)[
        :, -1
    ],
    "Only the first stage's indices are here: return the whole path, (N, M).": lambda *inputs: _best_of_beam(*inputs)[
        :, :1
    ],
    "This is what the best path leaves over: return its indices.": lambda *inputs: _beam(*inputs)[1][:, 0],
    "This is the rebuilt vector: return the indices of its path.": lambda x, *inputs: x - _beam(x, *inputs)[1][:, 0],
}


@exercise
def beam_encode(answer: Callable) -> str:
    """(N, dim), (M, K, dim), beam_size → (N, M): the path that leaves the shortest last residual."""
    for num, dim, stages, size, beam_size in [(40, 2, 3, 5, 5), (60, 4, 4, 8, 8), (20, 3, 2, 6, 36), (10, 2, 1, 4, 3)]:
        codebooks = 0.6 ** torch.arange(stages).view(-1, 1, 1) * torch.randn(stages, size, dim)
        inputs = {"x": torch.randn(num, dim), "codebooks": codebooks, "beam_size": beam_size}
        compare(answer, _best_of_beam, BEAM_MISTAKES, **inputs)
    return "beam_encode ranks by the last residual, and finds the same paths as the reference."


def _in_pieces(x: Tensor, codebooks: Tensor) -> list[Tensor]:
    """Each piece's codewords, (N, dim/S) each."""
    pieces = x.chunk(len(codebooks), 1)
    return [codebook[nearest(piece, codebook)] for piece, codebook in zip(pieces, codebooks, strict=True)]


def _product(x: Tensor, codebooks: Tensor) -> Tensor:
    return torch.cat(_in_pieces(x, codebooks), 1)


def _every_sth(x: Tensor, codebooks: Tensor) -> Tensor:
    pieces = [x[:, s :: len(codebooks)] for s in range(len(codebooks))]
    return torch.cat([c[nearest(piece, c)] for piece, c in zip(pieces, codebooks, strict=True)], 1)


def _every_sth_in_its_place(x: Tensor, codebooks: Tensor) -> Tensor:
    pieces = [x[:, s :: len(codebooks)] for s in range(len(codebooks))]
    return torch.stack([c[nearest(piece, c)] for piece, c in zip(pieces, codebooks, strict=True)], 2).flatten(1)


def _by_absolute_differences(x: Tensor, codebooks: Tensor) -> Tensor:
    pieces = zip(x.chunk(len(codebooks), 1), codebooks, strict=True)
    return torch.cat([codebook[torch.cdist(piece, codebook, 1).argmin(1)] for piece, codebook in pieces], 1)


def _one_index_for_the_vector(x: Tensor, codebooks: Tensor) -> Tensor:
    joined = torch.cat(list(codebooks), 1)
    return joined[nearest(x, joined)]


def _one_index_for_all(x: Tensor, codebooks: Tensor) -> Tensor:
    index = nearest(x.chunk(len(codebooks), 1)[0], codebooks[0])
    return torch.cat([codebook[index] for codebook in codebooks], 1)


def _piece_indices(x: Tensor, codebooks: Tensor) -> Tensor:
    pieces = x.chunk(len(codebooks), 1)
    return torch.stack([nearest(piece, c) for piece, c in zip(pieces, codebooks, strict=True)], 1)


def _first_piece_to_all(x: Tensor, codebooks: Tensor) -> Tensor:
    first = x.chunk(len(codebooks), 1)[0]
    return torch.cat([codebook[nearest(first, codebook)] for codebook in codebooks], 1)


def _farthest(x: Tensor, codebooks: Tensor) -> Tensor:
    pieces = zip(x.chunk(len(codebooks), 1), codebooks, strict=True)
    return torch.cat([codebook[torch.cdist(piece, codebook).argmax(1)] for piece, codebook in pieces], 1)


def _reshaped(x: Tensor, codebooks: Tensor) -> Tensor:
    pieces = zip(x.reshape(len(codebooks), len(x), -1), codebooks, strict=True)
    return torch.cat([codebook[nearest(piece, codebook)] for piece, codebook in pieces], 1)


def _looked_up(x: Tensor, codebooks: Tensor, searched: Tensor, taken: Tensor) -> Tensor:
    """The pieces, searched in some codebooks and taken from others."""
    pieces = zip(x.chunk(len(codebooks), 1), searched, taken, strict=True)
    return torch.cat([b[nearest(piece, a)] for piece, a, b in pieces], 1)


PRODUCT_MISTAKES = {
    "All pieces use the first codebook; each has its own.": lambda x, codebooks: _product(
        x, codebooks[:1].expand_as(codebooks)
    ),
    "All pieces use the last codebook; each has its own.": lambda x, codebooks: _product(
        x, codebooks[-1:].expand_as(codebooks)
    ),
    "All pieces use the index of the first; each is looked up on its own.": _one_index_for_all,
    "Every codebook gets the first piece; each piece goes to its own codebook.": _first_piece_to_all,
    "Each piece may use the codewords of all codebooks here; each has one codebook of its own.": lambda x, codebooks: (
        _product(x, codebooks.flatten(0, 1).expand(len(codebooks), -1, -1))
    ),
    "The codebooks are in the wrong order: the first piece belongs to the first codebook.": lambda x, codebooks: (
        _product(x, codebooks.flip(0))
    ),
    "The pieces are joined in another order: the first comes first.": lambda x, codebooks: torch.cat(
        _in_pieces(x, codebooks)[::-1], 1
    ),
    "The pieces are made of every S-th component; take neighbouring ones, as chunk does.": [
        _every_sth,
        _every_sth_in_its_place,
    ],
    "A vector gets one index for all its pieces here; each piece has an index of its own.": _one_index_for_the_vector,
    "This adds up |differences|; nearest is where their squares add up to least.": _by_absolute_differences,
    "reshape mixes the rows here: cut each row into pieces, x.chunk(S, dim=1).": _reshaped,
    "These are the indices; return the codewords, joined.": _piece_indices,
    "Each piece is searched in the first codebook; each has its own to be searched in.": lambda x, codebooks: (
        _looked_up(x, codebooks, codebooks[:1].expand_as(codebooks), codebooks)
    ),
    "Each piece is searched in its own codebook, and then taken from the first: take it from its own.": (
        lambda x, codebooks: _looked_up(x, codebooks, codebooks, codebooks[:1].expand_as(codebooks))
    ),
    "These are the indices, a row for each piece; return the codewords, joined.": lambda x, codebooks: (
        _piece_indices(x, codebooks).T
    ),
    "These are the pieces, one by one: join them, torch.cat(..., dim=1).": lambda x, codebooks: tuple(
        _in_pieces(x, codebooks)
    ),
    "The pieces are shuffled into each other, component by component: join them, torch.cat(..., dim=1).": (
        lambda x, codebooks: torch.stack(_in_pieces(x, codebooks), 2).flatten(1)
    ),
    "The pieces are stacked in a last dimension; join them, torch.cat(..., dim=1).": lambda x, codebooks: torch.stack(
        _in_pieces(x, codebooks), -1
    ),
    "The first piece is here S times: join all pieces.": lambda x, codebooks: torch.cat(
        _in_pieces(x, codebooks)[:1] * len(codebooks), 1
    ),
    "Stacked and then reshaped, the pieces of other vectors get in: join them, torch.cat(..., dim=1).": (
        lambda x, codebooks: torch.stack(_in_pieces(x, codebooks)).reshape(x.shape)
    ),
    "This is the mean of the pieces; here they are joined, torch.cat(..., dim=1).": lambda x, codebooks: torch.stack(
        _in_pieces(x, codebooks)
    ).mean(0),
    "The pieces are stacked; join them along the components, torch.cat(..., dim=1).": lambda x, codebooks: torch.stack(
        _in_pieces(x, codebooks)
    ),
    "The pieces are stacked in a dimension of their own; join them, torch.cat(..., dim=1).": lambda x, codebooks: (
        torch.stack(_in_pieces(x, codebooks), 1)
    ),
    "The pieces lie below each other; join them along the components, dim=1.": lambda x, codebooks: torch.cat(
        _in_pieces(x, codebooks)
    ),
    "The pieces are added up, as stages are; here they are joined, torch.cat(..., dim=1).": lambda x, codebooks: sum(
        _in_pieces(x, codebooks)
    ),
    "Only the first piece is here: return after the loop, with all pieces joined.": lambda x, codebooks: _in_pieces(
        x, codebooks
    )[0],
    "Only the last piece is here: collect all, and join them.": lambda x, codebooks: _in_pieces(x, codebooks)[-1],
    "These are the codewords farthest from the pieces: take the nearest.": _farthest,
    "This is what is left over: return the codewords themselves.": lambda x, codebooks: x - _product(x, codebooks),
    "This is x itself: replace each piece by its nearest codeword.": lambda x, codebooks: x,
}


@exercise
def product_quantize(answer: Callable) -> str:
    """(N, dim), (S, K, dim/S) → (N, dim): each piece replaced by the nearest codeword of its own codebook."""
    for num, pieces, size, length in [(30, 2, 8, 3), (50, 4, 4, 2), (9, 3, 5, 1), (7, 1, 6, 4)]:
        x, codebooks = torch.randn(num, pieces * length), torch.randn(pieces, size, length)
        compare(answer, _product, PRODUCT_MISTAKES, x=x, codebooks=codebooks)
    return "product_quantize looks every piece up in its own codebook."


def _water_filling(variances: Tensor, bits: float) -> Tensor:
    low, high = variances.new_zeros(()), variances.max()
    for _ in range(60):
        level = (low + high) / 2
        shares = (0.5 * torch.log2(variances / level)).clamp(min=0)
        low, high = (level, high) if shares.sum() > bits else (low, level)
    return shares


def _without_floor(variances: Tensor, bits: float) -> Tensor:
    """The shares that level all distortions, the least variances' too: these get less than 0 bits."""
    logarithms = variances.log2()
    return bits / len(variances) + 0.5 * (logarithms - logarithms.mean())


def _handed_out(
    variances: Tensor,
    bits: float,
    piece: float = 1.0,
    paid: Callable[[Tensor, float], Tensor] = lambda left, piece: left * 4**-piece,
) -> Tensor:
    """Pieces, each to the component with the most distortion left; paid: (what is left, piece) -> what is left then."""
    shares, left = torch.zeros_like(variances), variances.clone()
    for _ in range(round(bits / piece)):
        most = left.argmax()
        shares[most] += piece
        left[most] = paid(left[most], piece)
    return shares


def _in_proportion(weights: Tensor, bits: float) -> Tensor:
    return bits * weights / weights.sum()


SHARES_MISTAKES = {
    "All components get the same share here.": lambda v, bits: torch.full_like(v, bits / len(v)),
    "The bits are shared in proportion to the variances here; but each bit divides by 4.": _in_proportion,
    "The bits are shared in proportion to the standard deviations here.": lambda v, bits: _in_proportion(
        v.sqrt(), bits
    ),
    "The bits are shared in proportion to the variances' logarithms here.": lambda v, bits: _in_proportion(
        v.log2(), bits
    ),
    "The bits are shared in proportion to log₂(1 + v) here; it is half the differences of log₂ v that count.": (
        lambda v, bits: _in_proportion((1 + v).log2(), bits)
    ),
    "The smaller a variance, the more bits it gets here: it should be the other way round.": lambda v, bits: (
        _in_proportion(1 / v, bits)
    ),
    "All bits go to the largest variance here. After a few bits, another component has more distortion left.": (
        lambda v, bits: bits * F.one_hot(v.argmax(), len(v))
    ),
    "These are whole bits: cut them into smaller pieces.": _handed_out,
    "These are the best shares rounded to whole bits: cut the bits into smaller pieces.": lambda v, bits: (
        _water_filling(v, bits).round()
    ),
    "This levels v · 2⁻ᵇ; but a bit divides the distortion by 4: v · 2⁻²ᵇ.": lambda v, bits: _water_filling(v**2, bits),
    "A share below 0 is set to 0, and the others keep theirs: so too many bits are spent. The level must rise.": (
        lambda v, bits: _without_floor(v, bits).clamp(min=0)
    ),
    "Shares below 0 are set to 0, and the others scaled: so their distortions are no longer alike. Raise the level.": (
        lambda v, bits: _in_proportion(_without_floor(v, bits).clamp(min=0), bits)
    ),
    "These shares leave some component less than 0 bits: none can give any back.": _without_floor,
    "These are the right shares, from large to small: each belongs to its own component.": lambda v, bits: (
        _water_filling(v, bits).sort(descending=True).values
    ),
    "These shares add up to 1: hand out bits, not parts of them.": lambda v, bits: _water_filling(v, bits) / bits,
    "This gives `bits` to each component on average: they are for all together.": lambda v, bits: _water_filling(
        v, bits * len(v)
    ),
    "These are the distortions that are left: return the bits.": lambda v, bits: v * 4 ** -_water_filling(v, bits),
    "Each component gets all bits here: they are for all together.": lambda v, bits: torch.full_like(v, bits),
    "The pieces are too large: cut the bits into smaller ones.": lambda v, bits: _handed_out(v, bits, bits / 10),
    "The level is the least variance here, whatever the number of bits: let it depend on them.": lambda v, bits: (
        0.5 * torch.log2(v / v.min())
    ),
    "The level is the mean variance here, whatever the number of bits: let it depend on them.": lambda v, bits: (
        0.5 * torch.log2(v / v.mean()).clamp(min=0)
    ),
    "The bits are shared in proportion to logarithms here; it is half their differences that count.": (
        lambda v, bits: _in_proportion((v / v.min()).log2(), bits)
    ),
    "This levels v · 2⁻⁴ᵇ, or the standard deviations; level the distortions, v · 2⁻²ᵇ.": lambda v, bits: (
        _water_filling(v.sqrt(), bits)
    ),
    "The bits are subtracted from the variances; but each bit divides by 4: v · 2⁻²ᵇ.": lambda v, bits: _handed_out(
        v, bits, bits / 2000, lambda left, piece: left - piece
    ),
    "Each piece divides by 4 here, however small it is: b bits divide by 4ᵇ.": lambda v, bits: _handed_out(
        v, bits, bits / 2000, lambda left, piece: left / 4
    ),
    "The bits go where least distortion is left: take the largest, argmax.": lambda v, bits: (
        bits * F.one_hot(v.argmin(), len(v))
    ),
    "These are the right shares divided by dim: `bits` is for all together, and all of it is spent.": lambda v, bits: (
        _water_filling(v, bits) / len(v)
    ),
    "These are the right shares times dim: they add up to too much.": lambda v, bits: _water_filling(v, bits) * len(v),
    "A bit divides the distortion by 4, so half of log₂ v counts, not all of it.": lambda v, bits: (
        bits / len(v) + v.log2() - v.log2().mean()
    ).clamp(min=0),
    "Only bits / dim are shared here: `bits` is for all together, and all of it is spent.": lambda v, bits: (
        _water_filling(v, bits / len(v))
    ),
    "These are the right shares in reverse order: each belongs to its own component.": lambda v, bits: _water_filling(
        v, bits
    ).flip(0),
    "Pieces of a quarter of a bit are too large: cut the bits into smaller ones.": lambda v, bits: _handed_out(
        v, bits, 0.25
    ),
    "All bits go to the first component here.": lambda v, bits: bits * F.one_hot(torch.tensor(0), len(v)),
}


@exercise
def share_bits(answer: Callable) -> str:
    """Variances (dim,), bits → the bits of each component that leave the least mean distortion."""
    cases = [([16.0, 1.0], 4.0), ([0.25, 0.002, 0.0025, 0.0005], 4.0), ([1.0, 9.0], 1.0), ([0.5, 8.0, 2.0], 5.0)]
    cases = [(torch.tensor(values), bits) for values, bits in cases]
    answers = [run(answer, variances=variances, bits=bits) for variances, bits in cases]
    for (variances, _), shares in zip(cases, answers, strict=True):
        if not isinstance(shares, Tensor) or shares.shape != variances.shape:
            raise Wrong(f"Return a tensor with the bits of each component: {given({'variances': variances})}.")
    for (variances, bits), shares in zip(cases, answers, strict=True):
        fault = _fault_of_shares(variances, bits, shares.double())
        if fault:
            known = [words for words, mistake in SHARES_MISTAKES.items() if _shares_like(mistake, cases, answers)]
            seen = f"for variances {[round(v, 4) for v in variances.tolist()]} and {bits:g} bits"
            raise Wrong(f"{known[0] + ' ' if known else ''}{fault} {seen}.")
    return "The distortions are levelled from the top, and no component gets less than 0 bits."


def _fault_of_shares(variances: Tensor, bits: float, shares: Tensor) -> str:
    if shares.min() < -1e-3:
        return f"A component gets {shares.min():.3g} bits"
    if abs(shares.sum() - bits) > 0.01 * bits:
        return f"The shares add up to {shares.sum():.4g}"
    error, least = ((variances * 4**-s).mean() for s in (shares, _water_filling(variances, bits)))
    return "" if error < 1.01 * least else f"The mean distortion is {error:.4g}, and can be {least:.4g}"


def _shares_like(mistake: Callable, cases: list[tuple[Tensor, float]], answers: list[Tensor]) -> bool:
    """Whether these are the answers that a mistake gives to all cases, within a hundredth of the bits."""
    pairs = zip(cases, answers, strict=True)
    return all(
        torch.allclose(shares.double(), mistake(*case).double(), atol=0.01 * case[1], equal_nan=True)
        for case, shares in pairs
    )
