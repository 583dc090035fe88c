"""Wrong answers to the exercises of 04 · Why many small codebooks, not one big one?"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial import nearest, straight_through

# Exercise → wrong answers, each with a regular expression for what its learner is told.
WRONG: dict[str, list[tuple[Any, str]]] = {}

WRONG["predicted_stages"] = [
    (lambda: ([1, 2, 2], 14.0), "20 lies nearer"),
    (lambda: ([2, 2, 2], 24.0), "doesn't get 16.4 again"),
    (lambda: ([20, -3, -1], 16.0), "their indices are asked for"),
    (lambda: ([3, 1, 1], 16.0), "count from 0"),
    (lambda: ([2, 0, 2], 18.0), "mind its sign"),
    (lambda: ([2, 1, 0], 19.0), "−3 lies nearer than 0"),
    (lambda: ([2, 2, 0], 22.0), "not 20 − 16.4"),
    (lambda: ([2, 0, 0], 16.4), "16.4 is x itself"),
    (lambda: ([2, 0, 0], 0.4), "what is left over in the end"),
    (lambda: ([2, 0, 0], -0.4), "what is left over in the end"),
    (lambda: ([2, 0, 0], 24.0), "with its sign"),
    (lambda: ([2, 0, 0], 2), "sum of the indices"),
    (lambda: (torch.tensor([2, 0, 0]), 15.0), "number rebuilt should be 16, and is 15"),
    (lambda: ([1, 2, 0], 12.0), "20 lies nearer"),
    (lambda: ([2, 1, 1], 20.0), "Stage 2 gets"),
    (lambda: ([0, 2, 2], 16.0), "counted from 0, from left to right"),
    (lambda: (16.0, [2, 0, 0]), "indices come first"),
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


def _appended(x: Tensor, codebooks: Tensor) -> list[Tensor]:
    return list(_encode(x, codebooks, lambda x, given, chosen: given - chosen).T)


def _right(x: Tensor, codebooks: Tensor) -> Tensor:
    return torch.stack(_appended(x, codebooks), 1)


def _first_codebook_always(x: Tensor, codebooks: Tensor) -> Tensor:
    return _right(x, torch.stack([codebooks[0] for _ in codebooks]))


def _index_for_codeword(x: Tensor, codebooks: Tensor) -> Tensor:
    residual, indices = x, []
    for codebook in codebooks:
        indices.append(nearest(residual, codebook))
        residual = residual - indices[-1][:, None]
    return torch.stack(indices, dim=1)


def _swapped_search(x: Tensor, codebooks: Tensor) -> Tensor:
    residual, indices = x, []
    for codebook in codebooks:
        index = nearest(codebook, residual)
        indices.append(index)
        residual = residual - codebook[index]
    return torch.stack(indices, dim=1)


def _summed_codewords(x: Tensor, codebooks: Tensor) -> Tensor:
    return sum(codebook[index] for codebook, index in zip(codebooks, _appended(x, codebooks), strict=True))


def _farthest(x, codebooks):
    residual, indices = x, []
    for codebook in codebooks:
        index = torch.cdist(residual, codebook).argmax(dim=1)
        residual = residual - codebook[index]
        indices.append(index)
    return torch.stack(indices, dim=1)


def _dot_product(x, codebooks):
    residual, indices = x, []
    for codebook in codebooks:
        index = (residual @ codebook.T).argmax(dim=1)
        residual = residual - codebook[index]
        indices.append(index)
    return torch.stack(indices, dim=1)


WRONG["residual_encode"] = [
    (lambda x, codebooks: _encode(x, codebooks, lambda x, given, chosen: x), "Every stage gets x itself"),
    (lambda x, codebooks: _encode(x, codebooks, lambda x, given, chosen: x - chosen), "not from x"),
    (lambda x, codebooks: _encode(x, codebooks, lambda x, given, chosen: given + chosen), "added"),
    (lambda x, codebooks: _encode(x, codebooks, lambda x, given, chosen: chosen - given), "turned round"),
    (lambda x, codebooks: _encode(x, codebooks, lambda x, given, chosen: chosen), "codeword is handed on"),
    (lambda x, codebooks: _right(x, codebooks).T, "along dim=1"),
    (lambda x, codebooks: torch.cat(_appended(x, codebooks)), "end to end"),
    (lambda x, codebooks: _appended(x, codebooks), "torch.stack makes one"),
    (lambda x, codebooks: _right(x, codebooks.flip(0)), "backwards"),
    (_first_codebook_always, "each has its own"),
    (_farthest, "farthest codeword"),
    (_dot_product, "dot product"),
    (_index_for_codeword, "index is subtracted"),
    (_swapped_search, "raises (RuntimeError|IndexError)"),
    (_encode_in_place, "changes x in place"),
    (_forgotten_stage, "last stage is missing"),
    (lambda x, codebooks: _right(x, codebooks)[:, 1:], "first stage is missing"),
    (lambda x, codebooks: _right(x, codebooks)[:, -1], "last stage's indices alone"),
    (_summed_codewords, "This is the rebuilt vector"),
    (lambda x, codebooks: x - _summed_codewords(x, codebooks), "last stage leaves over"),
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
    (lambda dim, size, num: (math.log2(num * size), num * size * dim, size**num * dim), "among its own K"),
    (lambda dim, size, num: (dim * num * math.log2(size), num * size * dim, size**num * dim), "no part in the bits"),
    (lambda dim, size, num: (num * math.ceil(math.log2(size)), num * size * dim, size**num * dim), "rounded up"),
    (lambda dim, size, num: (num * int(math.log2(size)), num * size * dim, size**num * dim), "rounded down"),
    (lambda dim, size, num: (num * size * dim, num * math.log2(size), size**num * dim), "bits of a vector come first"),
    (lambda dim, size, num: (num * math.log2(size), 4 * num * size * dim, size**num * dim), "These are bytes"),
    (lambda dim, size, num: (num * math.log2(size), num * size * dim, 4 * size**num * dim), "These are bytes"),
    (lambda dim, size, num: (num * math.log2(size), num * size * dim, (size * dim) ** num), "Only the choices"),
    (lambda dim, size, num: (num * math.log2(size), num * size * dim, size * dim), "one codebook of K codewords"),
    (lambda dim, size, num: (num * math.log2(size), num * size * dim, 1), "should be 262,144, and this is 1"),
    (lambda dim, size, num: num * math.log2(size), "Return 3 things"),
]


def _splits(bits: int) -> list[tuple[int, int]]:
    return [(num, 2 ** (bits // num)) for num in range(1, bits + 1) if bits % num == 0]


def _first_split(dim: int, bits: int, memory: int, fits: Callable[[int, int], bool]) -> tuple[int, int] | None:
    return next((split for split in _splits(bits) if fits(*split)), None)


def _any_number_of_stages(dim: int, bits: int, memory: int) -> tuple[int, int]:
    return next((m, 2 ** (bits // m)) for m in range(1, bits + 1) if m * 2 ** (bits // m) * dim <= memory)


def _uneven_stages(dim: int, bits: int, memory: int) -> tuple[int, float]:
    return next((m, 2 ** (bits / m)) for m in range(1, bits + 1) if m * 2 ** (bits / m) * dim <= memory)


def _never_as_many_stages_as_bits(dim: int, bits: int, memory: int) -> tuple[int, int] | None:
    return next((split for split in _splits(bits)[:-1] if split[0] * split[1] * dim <= memory), None)


WRONG["best_split"] = [
    (lambda dim, bits, memory: _splits(bits)[-1], "most and smallest stages"),
    (lambda dim, bits, memory: (bits, 2), "most and smallest stages"),
    (lambda dim, bits, memory: _first_split(dim, bits, memory, lambda m, k: m * k <= memory), "not M · K"),
    (lambda dim, bits, memory: _first_split(dim, bits, memory, lambda m, k: k * dim <= memory), "not K · dim"),
    (lambda dim, bits, memory: _first_split(dim, bits, memory, lambda m, k: m * k * dim * 4 <= memory), "not bytes"),
    (lambda dim, bits, memory: _first_split(dim, bits, memory, lambda m, k: m * k * dim < memory), "≤, not <"),
    (lambda dim, bits, memory: _first_split(dim, bits, memory, lambda m, k: m * k * dim <= memory)[::-1], "M first"),
    (lambda dim, bits, memory: (1, 2**bits), "One codebook has the least error, if it fits"),
    (lambda dim, bits, memory: (2, bits // 2), "2 stages of 6 codewords don't make 12 bits"),
    (lambda dim, bits, memory: (2, 2 ** (bits // 2)), "M = 2, K = 64 takes 128 numbers"),
    (_any_number_of_stages, "doesn't divide"),
    (_uneven_stages, "doesn't divide"),
    (_never_as_many_stages_as_bits, "Some split always fits"),
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


def _in_values(
    x: Tensor, codebooks: Tensor, output: Callable[[Tensor, list[Tensor]], Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The right terms, and straight-through around output(x, the chosen codewords of every stage)."""
    _, terms = _one_around_all(x, codebooks)
    indices = _encode(x, codebooks, lambda x, given, chosen: given - chosen)
    return straight_through(x, output(x, [c[i] for c, i in zip(codebooks, indices.T, strict=True)])), terms


def _same_input_for_all(x: Tensor, codebooks: Tensor) -> tuple[Tensor, list[Tensor]]:
    chosen = [codebook[nearest(x, codebook)].detach() for codebook in codebooks]
    return straight_through(x, sum(chosen)), [F.mse_loss(x, c) for c in chosen]


def _detached_before_the_loop(x: Tensor, codebooks: Tensor) -> tuple[Tensor, list[Tensor]]:
    total, terms = _one_around_all(x.detach(), codebooks)
    return straight_through(x, total), terms


def _detached_whole(x: Tensor, codebooks: Tensor) -> tuple[Tensor, list[Tensor]]:
    return _stages(x, codebooks, lambda residual, chosen: (residual - chosen).detach())


def _detached_after_straight_through(x: Tensor, codebooks: Tensor) -> tuple[Tensor, list[Tensor]]:
    total, terms = _stages(x, codebooks, lambda r, chosen: (r - straight_through(r, chosen)).detach())
    return straight_through(x, total), terms


def _silent_with_one_around(x: Tensor, codebooks: Tensor) -> tuple[Tensor, list[Tensor]]:
    total, terms = _silent_stages(x, codebooks)
    return straight_through(x, total), terms


def _codewords_move_in_the_residual(x: Tensor, codebooks: Tensor) -> tuple[Tensor, list[Tensor]]:
    total, terms = _stages(x, codebooks, lambda residual, chosen: residual - chosen)
    return straight_through(x, total), terms


def _terms_after_subtracting(x: Tensor, codebooks: Tensor) -> tuple[Tensor, list[Tensor]]:
    residual, total, terms = x, 0, []
    for codebook in codebooks:
        chosen = codebook[nearest(residual, codebook)].detach()
        residual = residual - chosen
        total = total + chosen
        terms.append(F.mse_loss(residual, chosen))
    return straight_through(x, total), terms


def _terms_against_x(x: Tensor, codebooks: Tensor) -> tuple[Tensor, list[Tensor]]:
    residual, total, terms = x, 0, []
    for codebook in codebooks:
        chosen = codebook[nearest(residual, codebook)].detach()
        terms.append(F.mse_loss(x, chosen))
        residual = residual - chosen
        total = total + chosen
    return straight_through(x, total), terms


def _with_term(term: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], tuple[Tensor, list[Tensor]]]:
    return lambda x, codebooks: _one_around_all(x, codebooks, term=lambda r, chosen: term(r, chosen.detach()))


WRONG["residual_layer"] = [
    (_silent_stages, "stage 2 doesn't pull x.*not their straight-through"),
    (_silent_with_one_around, "stage 2 doesn't pull x.*not their straight-through"),
    (_detached_whole, "stage 2 doesn't pull x.*detached as a whole"),
    (_detached_after_straight_through, "stage 2 doesn't pull x.*detached as a whole"),
    (_detached_before_the_loop, "stage 1 doesn't pull x: don't detach the residual"),
    (_loud_decoder, "3 times too large"),
    (_undetached_codewords, "stage 1 moves the codebooks"),
    (_codewords_move_in_the_residual, "residual that stage 2 gets moves with the codebooks"),
    (_codebook_terms, "stage 1 doesn't pull x"),
    (_summed_terms, "squares are summed: take their mean over vectors"),
    (_with_term(lambda r, chosen: (r - chosen).square().sum(-1).mean()), "summed over the components"),
    (_with_term(lambda r, chosen: (r - chosen).norm(dim=-1).mean()), "these are distances"),
    (_with_term(lambda r, chosen: (r - chosen).abs().mean()), "differences' sizes"),
    (_with_term(lambda r, chosen: 0.25 * F.mse_loss(r, chosen)), "β comes later"),
    (
        lambda x, codebooks: (lambda q, t: (q, [term / len(codebooks) for term in t]))(*_one_around_all(x, codebooks)),
        "divided by the number of stages: leave each",
    ),
    (_terms_after_subtracting, "before you subtract"),
    (_terms_against_x, "stage 2 compares the codeword with x"),
    (_plain_sum, "output moves the codebooks"),
    (lambda x, codebooks: (_one_around_all(x, codebooks)[0].detach(), []), "No gradient of the output"),
    (lambda x, codebooks: (_one_around_all(x, codebooks)[0], _loud_decoder(x, codebooks)[1][:1]), "3 commitment terms"),
    (lambda x, codebooks: (lambda q, t: (q, sum(t)))(*_one_around_all(x, codebooks)), "3 commitment terms"),
    (lambda x, codebooks: (lambda q, t: (t, q))(*_one_around_all(x, codebooks)), "quantized vectors come first"),
    (lambda x, codebooks: _one_around_all(x, codebooks)[0], "Return 2 things"),
    (lambda x, codebooks: _in_values(x, codebooks, lambda x, chosen: sum(chosen) / len(chosen)), "divided by the num"),
    (lambda x, codebooks: _in_values(x, codebooks, lambda x, chosen: len(chosen) * sum(chosen)), "multiplied by the n"),
    (lambda x, codebooks: _in_values(x, codebooks, lambda x, chosen: chosen[-1]), "last stage's codeword alone"),
    (lambda x, codebooks: _in_values(x, codebooks, lambda x, chosen: sum(chosen[:-1])), "isn't in the sum"),
    (lambda x, codebooks: _in_values(x, codebooks, lambda x, chosen: x - sum(chosen)), "leaves over"),
    (lambda x, codebooks: _in_values(x, codebooks, lambda x, chosen: x), "output is x itself"),
    (_same_input_for_all, "Every stage gets x itself"),
]
