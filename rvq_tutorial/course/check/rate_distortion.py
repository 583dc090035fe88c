"""Exercises of 05 · How close to the limit are we?"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial.course.check.judging import Wrong, compare, difference, exercise, given, known, parts, run
from rvq_tutorial.course.check.sentences import say
from rvq_tutorial.search import nearest, nearest_ways

# Functions of dim, K and M, in place of M · log₂ K / dim.
RATE_MISTAKES = dict(
    bits_of_vector=lambda dim, k, m: m * math.log2(k),
    multiplied_by_dim=lambda dim, k, m: m * math.log2(k) * dim,
    one_stage=lambda dim, k, m: math.log2(k) / dim,
    not_k_bits=lambda dim, k, m: m * k / dim,
    log_of_m_k=lambda dim, k, m: math.log2(m * k) / dim,
    bits_to_the_m=lambda dim, k, m: math.log2(k) ** m / dim,
    choices=lambda dim, k, m: k**m / dim,
    natural_logarithm=lambda dim, k, m: m * math.log(k) / dim,
    logarithm_to_10=lambda dim, k, m: m * math.log10(k) / dim,
    upside_down=lambda dim, k, m: dim / (m * math.log2(k)),
    shared_by_codewords=lambda dim, k, m: m * math.log2(k) / k,
    shared_by_stages=lambda dim, k, m: math.log2(k) / m,
    without_logarithm=lambda dim, k, m: k / dim,
    codewords_stored=lambda dim, k, m: m * k,
    log_of_share=lambda dim, k, m: m * math.log2(k / dim),
    rounded=lambda dim, k, m: m * round(math.log2(k)) / dim,
    rounded_up=lambda dim, k, m: m * math.ceil(math.log2(k)) / dim,
    share_rounded=lambda dim, k, m: m * math.log2(k) // dim,
    share_rounded_up=lambda dim, k, m: math.ceil(m * math.log2(k) / dim),
    added=lambda dim, k, m: (m + math.log2(k)) / dim,
)
# Functions of σ², R and dim, in place of σ² 2^(−2R).
BOUND_MISTAKES = dict(
    exponent_r=lambda v, r, dim: v * 2**-r,
    exponent_half_r=lambda v, r, dim: v * 2 ** (-r / 2),
    twice=lambda v, r, dim: v * 4 ** (-2 * r),
    r_by_dim=lambda v, r, dim: v * 4 ** (-r / dim),
    exponent_sign=lambda v, r, dim: v * 4**r,
    divided_by_r=lambda v, r, dim: v / (4 * r),
    without_brackets=lambda v, r, dim: v * 2**-2 * r,
    variance_in_base=lambda v, r, dim: (2 * v) ** (-2 * r),
    in_db=lambda v, r, dim: 10 * math.log10(v * 4**-r),
    without_variance=lambda v, r, dim: 4**-r,
    variance_squared=lambda v, r, dim: v**2 * 4**-r,
    standard_deviation=lambda v, r, dim: v**0.5 * 4**-r,
    divided_by_variance=lambda v, r, dim: 4**-r / v,
    bits_of_vector_in_exponent=lambda v, r, dim: v * 4 ** -(r * dim),
    base_e=lambda v, r, dim: v * math.exp(-2 * r),
    error_of_vector=lambda v, r, dim: dim * v * 4**-r,
)


@exercise
def rate_and_bound(answer: Callable) -> str:
    """dim, K, M, variance → bits per dimension, and the least distortion of Gaussian components at that rate."""
    for dim, size, num, variance in [(7, 32, 3, 2.0), (8, 256, 1, 1.0), (16, 64, 4, 0.5), (3, 10, 1, 1.0)]:
        inputs = {"dim": dim, "codebook_size": size, "num_quantizers": num, "variance": variance}
        rate, bound = parts(run(answer, **inputs), "rate_r", "distortion_d")
        wanted = num * math.log2(size) / dim
        if not difference((bound, rate), (wanted, variance * 4**-wanted)):
            raise Wrong("rate_first")
        _judge(difference(rate, wanted, "the_rate"), known(rate, RATE_MISTAKES, dim, size, num), inputs)
        fault = difference(bound, variance * 4**-wanted, "the_distortion")
        _judge(fault, known(bound, BOUND_MISTAKES, variance, wanted, dim), inputs)
    return say("right")


def _judge(fault: str, mistake: str | None, inputs: Mapping[str, Any]) -> None:
    """Raise Wrong for a fault, with the sentence of a mistake if it is one."""
    if fault and mistake:
        raise Wrong(mistake, inputs)
    if fault:
        raise Wrong("fault", fault=fault, given=given(inputs))


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


WAYS_MISTAKES = dict(
    worst=lambda r, c, beam: _ranked(-torch.cdist(r, c), beam, len(c)),
    worst_from_the_end=lambda r, c, beam: tuple(part.flip(0) for part in _ranked(-torch.cdist(r, c), beam, len(c))),
    rows_of_beam_size=lambda r, c, beam: _ranked(torch.cdist(r, c), beam, beam),
    one_way_each=_one_way_each,
    indices_first=lambda *inputs: _ways(*inputs)[::-1],
    rows_of_b=lambda r, c, beam: _ranked(torch.cdist(r, c), beam, len(r)),
    on_its_side=lambda r, c, beam: _ranked(torch.cdist(c, r), beam, len(c)),
    unordered=_unordered_ways,
    all_ways=lambda r, c, beam: _ways(r, c, len(r) * len(c)),
    best_alone=lambda r, c, beam: _ways(r, c, 1),
    first_path_alone=lambda r, c, beam: _ways(r[:1], c, beam),
    left_before_added=lambda r, c, beam: _ranked(
        torch.cdist(r, c).square() + r.square().sum(-1, keepdim=True), beam, len(c)
    ),
    row_by_row=_row_by_row,
    added=lambda r, c, beam: _ways(r, -c, beam),
    differences_cancel=lambda r, c, beam: _ranked((r[:, None] - c).sum(-1), beam, len(c)),
    absolute=lambda r, c, beam: _ranked(torch.cdist(r, c, 1), beam, len(c)),
    codewords_ranked=lambda r, c, beam: _ranked(c.norm(dim=-1).expand(len(r), -1), beam, len(c)),
    once_each=lambda r, c, beam: (torch.arange(len(r)), nearest(r, c)),
    once_each_first_kept=lambda r, c, beam: (torch.arange(len(r))[:beam], nearest(r, c)[:beam]),
    one_path_each=_one_path_each,
    not_added_up=lambda r, c, beam: _ranked((r[:, None] - c).square(), beam, len(c)),
    products=lambda r, c, beam: _ranked(-r @ c.T, beam, len(c)),
    values_for_places=_values_for_places,
    values_and_ways=_values_and_ways,
    vectors=_vectors_of_ways,
    divided=_split_by_division,
)


@exercise
def best_ways(answer: Callable) -> str:
    """(B, dim), (K, dim), beam_size → the parents and indices of the best ways to go on, best first."""
    for paths, dim, size, beam_size in [(4, 3, 16, 6), (3, 2, 5, 4), (8, 4, 4, 10), (1, 2, 8, 3)]:
        scale = torch.linspace(0.8, 2, paths)[:, None]  # good and bad paths
        residuals, codebook = scale * torch.randn(paths, dim), torch.randn(size, dim)
        inputs = {"residuals": residuals, "codebook": codebook, "beam_size": beam_size}
        parts(run(answer, **inputs), "parents", "indices")
        compare(answer, _ways, WAYS_MISTAKES, **inputs)
    return say("right")


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
        if mixed_up == "parents_and_indices":
            parents, indices = indices, parents
        elif mixed_up == "parents":
            parents = torch.arange(parents.shape[1]).expand_as(parents)
        rows = parents.clamp(max=paths.shape[1] - 1)[:, :, None]

        if mixed_up == "residuals_as_they_were":
            residuals = residuals.take_along_dim(rows, 1)
        elif mixed_up == "residuals_of_x":
            residuals = x[:, None] - codebook[indices]
        else:
            picked = {"residuals_by_index": indices, "residuals_by_parent": parents}.get(mixed_up, ways)
            residuals = left_over.flatten(1, 2).take_along_dim(picked[:, :, None], 1)

        old = paths.take_along_dim(rows, 1)
        new = {"parents_appended": parents, "ways_appended": ways}.get(mixed_up, indices)[:, :, None]
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


BEAM_MISTAKES = dict(
    sum_of_errors=lambda x, c, beam: _best_of_beam(x, c, beam, _sum_of_all),
    sum_of_errors_at_the_end=[_chosen_at_the_end, _chosen_in_the_last_stage],
    best_of_all_sums=_best_of_all_sums,
    greedy=lambda x, c, beam: _best_of_beam(x, c, 1),
    longest=lambda x, c, beam: _best_of_beam(x, c, beam, lambda _, left_over: -left_over.square().sum(-1)),
    all_paths=lambda *of: _beam(*of)[0],
    worst=lambda *of: _beam(*of)[0][:, -1],
    wrong_parents=lambda *of: _best_of_beam(*of, mixed_up="parents"),
    residuals_by_index=lambda *of: _best_of_beam(*of, mixed_up="residuals_by_index"),
    residuals_by_parent=lambda *of: _best_of_beam(*of, mixed_up="residuals_by_parent"),
    residuals_as_they_were=lambda *of: _best_of_beam(*of, mixed_up="residuals_as_they_were"),
    residuals_of_x=lambda *of: _best_of_beam(*of, mixed_up="residuals_of_x"),
    parents_and_indices=lambda *of: _best_of_beam(*of, mixed_up="parents_and_indices"),
    parents_appended=lambda *of: _best_of_beam(*of, mixed_up="parents_appended"),
    ways_appended=lambda *of: _best_of_beam(*of, mixed_up="ways_appended"),
    backwards=lambda *of: _best_of_beam(*of, mixed_up="backwards"),
    sum_of_lengths=lambda *of: _best_of_beam(*of, lambda scores, left_over: scores + left_over.norm(dim=-1)),
    first_vector_alone=lambda *of: _best_of_beam(*of)[0],
    differences_cancel=lambda x, c, beam: _best_of_beam(x, c, beam, lambda _, left_over: left_over.sum(-1)),
    absolute=lambda x, c, beam: _best_of_beam(x, c, beam, lambda _, left_over: left_over.abs().sum(-1)),
    left_before_taken_off=lambda x, c, beam: _best_of_beam(
        x, c, beam, lambda scores, left_over: left_over.square().sum(-1) - scores
    ),
    stages_in_rows=lambda *of: _best_of_beam(*of).T,
    last_stage_alone=lambda *of: _best_of_beam(*of)[:, -1],
    first_stage_alone=lambda *of: _best_of_beam(*of)[:, :1],
    left_over=lambda *of: _beam(*of)[1][:, 0],
    rebuilt=lambda x, *of: x - _beam(x, *of)[1][:, 0],
)


@exercise
def beam_encode(answer: Callable) -> str:
    """(N, dim), (M, K, dim), beam_size → (N, M): the path that leaves the shortest last residual."""
    for num, dim, stages, size, beam_size in [(40, 2, 3, 5, 5), (60, 4, 4, 8, 8), (20, 3, 2, 6, 36), (10, 2, 1, 4, 3)]:
        codebooks = 0.6 ** torch.arange(stages).view(-1, 1, 1) * torch.randn(stages, size, dim)
        inputs = {"x": torch.randn(num, dim), "codebooks": codebooks, "beam_size": beam_size}
        compare(answer, _best_of_beam, BEAM_MISTAKES, **inputs)
    return say("right")


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


PRODUCT_MISTAKES = dict(
    first_codebook_always=lambda x, codebooks: _product(x, codebooks[:1].expand_as(codebooks)),
    last_codebook_always=lambda x, codebooks: _product(x, codebooks[-1:].expand_as(codebooks)),
    index_of_first_piece=_one_index_for_all,
    first_piece_always=_first_piece_to_all,
    all_codebooks=lambda x, codebooks: _product(x, codebooks.flatten(0, 1).expand(len(codebooks), -1, -1)),
    codebooks_backwards=lambda x, codebooks: _product(x, codebooks.flip(0)),
    pieces_backwards=lambda x, codebooks: torch.cat(_in_pieces(x, codebooks)[::-1], 1),
    every_sth=[_every_sth, _every_sth_in_its_place],
    one_index=_one_index_for_the_vector,
    absolute=_by_absolute_differences,
    reshaped=_reshaped,
    indices=_piece_indices,
    searched_in_first=lambda x, codebooks: _looked_up(x, codebooks, codebooks[:1].expand_as(codebooks), codebooks),
    taken_from_first=lambda x, codebooks: _looked_up(x, codebooks, codebooks, codebooks[:1].expand_as(codebooks)),
    indices_in_rows=lambda x, codebooks: _piece_indices(x, codebooks).T,
    one_by_one=lambda x, codebooks: tuple(_in_pieces(x, codebooks)),
    shuffled=lambda x, codebooks: torch.stack(_in_pieces(x, codebooks), 2).flatten(1),
    stacked_last=lambda x, codebooks: torch.stack(_in_pieces(x, codebooks), -1),
    first_piece_repeated=lambda x, codebooks: torch.cat(_in_pieces(x, codebooks)[:1] * len(codebooks), 1),
    stacked_and_reshaped=lambda x, codebooks: torch.stack(_in_pieces(x, codebooks)).reshape(x.shape),
    mean=lambda x, codebooks: torch.stack(_in_pieces(x, codebooks)).mean(0),
    stacked=lambda x, codebooks: torch.stack(_in_pieces(x, codebooks)),
    stacked_in_dimension=lambda x, codebooks: torch.stack(_in_pieces(x, codebooks), 1),
    below_each_other=lambda x, codebooks: torch.cat(_in_pieces(x, codebooks)),
    added_up=lambda x, codebooks: sum(_in_pieces(x, codebooks)),
    first_piece_alone=lambda x, codebooks: _in_pieces(x, codebooks)[0],
    last_piece_alone=lambda x, codebooks: _in_pieces(x, codebooks)[-1],
    farthest=_farthest,
    left_over=lambda x, codebooks: x - _product(x, codebooks),
    x_itself=lambda x, codebooks: x,
)


@exercise
def product_quantize(answer: Callable) -> str:
    """(N, dim), (S, K, dim/S) → (N, dim): each piece replaced by the nearest codeword of its own codebook."""
    for num, pieces, size, length in [(30, 2, 8, 3), (50, 4, 4, 2), (9, 3, 5, 1), (7, 1, 6, 4)]:
        x, codebooks = torch.randn(num, pieces * length), torch.randn(pieces, size, length)
        compare(answer, _product, PRODUCT_MISTAKES, x=x, codebooks=codebooks)
    return say("right")


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


SHARES_MISTAKES = dict(
    equal=lambda v, bits: torch.full_like(v, bits / len(v)),
    by_variance=_in_proportion,
    by_deviation=lambda v, bits: _in_proportion(v.sqrt(), bits),
    by_logarithm=lambda v, bits: _in_proportion(v.log2(), bits),
    by_logarithm_of_1_more=lambda v, bits: _in_proportion((1 + v).log2(), bits),
    by_inverse=lambda v, bits: _in_proportion(1 / v, bits),
    all_to_largest=lambda v, bits: bits * F.one_hot(v.argmax(), len(v)),
    whole_bits=_handed_out,
    rounded=lambda v, bits: _water_filling(v, bits).round(),
    half_as_steep=lambda v, bits: _water_filling(v**2, bits),
    set_to_0=lambda v, bits: _without_floor(v, bits).clamp(min=0),
    set_to_0_and_scaled=lambda v, bits: _in_proportion(_without_floor(v, bits).clamp(min=0), bits),
    below_0=_without_floor,
    sorted=lambda v, bits: _water_filling(v, bits).sort(descending=True).values,
    sum_of_1=lambda v, bits: _water_filling(v, bits) / bits,
    bits_to_each=lambda v, bits: _water_filling(v, bits * len(v)),
    distortions=lambda v, bits: v * 4 ** -_water_filling(v, bits),
    all_to_each=lambda v, bits: torch.full_like(v, bits),
    large_pieces=lambda v, bits: _handed_out(v, bits, bits / 10),
    level_of_least=lambda v, bits: 0.5 * torch.log2(v / v.min()),
    level_of_mean=lambda v, bits: 0.5 * torch.log2(v / v.mean()).clamp(min=0),
    by_difference_of_logarithms=lambda v, bits: _in_proportion((v / v.min()).log2(), bits),
    twice_as_steep=lambda v, bits: _water_filling(v.sqrt(), bits),
    subtracted=lambda v, bits: _handed_out(v, bits, bits / 2000, lambda left, piece: left - piece),
    divided_by_4_each=lambda v, bits: _handed_out(v, bits, bits / 2000, lambda left, piece: left / 4),
    to_least=lambda v, bits: bits * F.one_hot(v.argmin(), len(v)),
    divided_by_dim=lambda v, bits: _water_filling(v, bits) / len(v),
    times_dim=lambda v, bits: _water_filling(v, bits) * len(v),
    whole_logarithm=lambda v, bits: (bits / len(v) + v.log2() - v.log2().mean()).clamp(min=0),
    bits_by_dim=lambda v, bits: _water_filling(v, bits / len(v)),
    reversed=lambda v, bits: _water_filling(v, bits).flip(0),
    quarters=lambda v, bits: _handed_out(v, bits, 0.25),
    all_to_first=lambda v, bits: bits * F.one_hot(torch.tensor(0), len(v)),
)


@exercise
def share_bits(answer: Callable) -> str:
    """Variances (dim,), bits → the bits of each component that leave the least mean distortion."""
    cases = [([16.0, 1.0], 4.0), ([0.25, 0.002, 0.0025, 0.0005], 4.0), ([1.0, 9.0], 1.0), ([0.5, 8.0, 2.0], 5.0)]
    cases = [(torch.tensor(values), bits) for values, bits in cases]
    answers = [run(answer, variances=variances, bits=bits) for variances, bits in cases]
    for (variances, _), shares in zip(cases, answers, strict=True):
        if not isinstance(shares, Tensor) or shares.shape != variances.shape:
            raise Wrong("no_shares", given=given({"variances": variances}))
    for (variances, bits), shares in zip(cases, answers, strict=True):
        if fault := _fault_of_shares(variances, bits, shares.double()):
            facts = {"fault": fault, "variances": [round(v, 4) for v in variances.tolist()], "bits": bits}
            for name, mistake in SHARES_MISTAKES.items():
                if _shares_like(mistake, cases, answers):
                    raise Wrong(name, say("seen_for", **facts))
            raise Wrong("seen_for", **facts)
    return say("right")


def _fault_of_shares(variances: Tensor, bits: float, shares: Tensor) -> str:
    if shares.min() < -1e-3:
        return say("share_below_0", least=shares.min())
    if abs(shares.sum() - bits) > 0.01 * bits:
        return say("other_sum", sum=shares.sum())
    error, least = ((variances * 4**-s).mean() for s in (shares, _water_filling(variances, bits)))
    return "" if error < 1.01 * least else say("distortion", error=error, least=least)


def _shares_like(mistake: Callable, cases: list[tuple[Tensor, float]], answers: list[Tensor]) -> bool:
    """Whether these are the answers that a mistake gives to all cases, within a hundredth of the bits."""
    pairs = zip(cases, answers, strict=True)
    return all(
        torch.allclose(shares.double(), mistake(*case).double(), atol=0.01 * case[1], equal_nan=True)
        for case, shares in pairs
    )
