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
