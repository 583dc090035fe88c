"""Exercises of 04 · Why many small codebooks, not one big one?"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial.course.check.judging import (
    Unsolved,
    Wrong,
    compare,
    difference,
    exercise,
    given,
    gradients,
    parts,
    run,
)
from rvq_tutorial.search import nearest

STAGES_MISTAKES = {
    (2, 2, 2): "Stage 2 doesn't get 16.4 again: it gets what stage 1 leaves over, 16.4 − 20.",
    (2, 0, 2): "The residual that stage 3 gets is −3.6 − (−3): mind its sign.",
    (2, 1, 0): "Stage 2 gets 16.4 − 20 = −3.6: −3 lies nearer than 0.",
    (2, 1, 1): "Stage 2 gets 16.4 − 20 = −3.6, not 0: −3 is nearest.",
    (2, 2, 0): "What stage 2 gets is negative: 16.4 − 20, not 20 − 16.4.",
    (20, -3, -1): "These are the codewords; their indices are asked for, counted from 0.",
    (3, 1, 1): "Indices count from 0.",
    (0, 2, 2): "Indices are counted from 0, from left to right.",
}
REBUILT_MISTAKES = {
    16.4: "16.4 is x itself: the number rebuilt is what the three codewords add up to",
    0.4: "this is what is left over in the end: add the three codewords",
    -0.4: "this is what is left over in the end: add the three codewords",
    24.0: "add each codeword with its sign: 20 − 3 − 1",
    2.0: "this is the sum of the indices: add the three codewords",
}


@exercise
def predicted_stages(answer: Callable) -> str:
    """→ the indices of 16.4 in the codebooks (0, 10, 20), (−3, 0, 3) and (−1, 0, 1), and the sum of the codewords."""
    indices, rebuilt = parts(run(answer), "the list of the three indices", "the number that they rebuild")
    if isinstance(rebuilt, list | tuple):
        raise Wrong("The indices come first, then the number rebuilt.")
    indices = indices.tolist() if isinstance(indices, Tensor) else indices
    indices = [int(index) for index in parts(indices, "index of stage 1", "index of stage 2", "index of stage 3")]
    if tuple(indices) in STAGES_MISTAKES:
        raise Wrong(STAGES_MISTAKES[tuple(indices)])
    if indices[0] == 1:
        raise Wrong("10 lies below 16.4, and 20 lies nearer: a residual may be negative.")
    for stage, (index, wanted) in enumerate(zip(indices, (2, 0, 0), strict=True), 1):
        if index != wanted:
            raise Wrong(f"The index of stage {stage} is not {index}: which codeword is nearest to what it receives?")
    if fault := difference(rebuilt, 16.0, "the number rebuilt"):
        known = [words for number, words in REBUILT_MISTAKES.items() if not difference(rebuilt, number)]
        raise Wrong(f"The indices are right, but {known[0] if known else f'{fault}: add the three codewords'}.")
    return "20, then −3 of the −3.6 left over, then −1 of the −0.6: 16, and 0.4 is lost."


def _encode(
    x: Tensor,
    codebooks: Tensor,
    hand_on: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda x, got, chosen: got - chosen,
    choose: Callable[[Tensor, Tensor], Tensor] = nearest,
) -> Tensor:
    """Indices by choose, where a stage gets hand_on(x, what the stage before it got, the codeword chosen there)."""
    got, indices = x, []
    for codebook in codebooks:
        indices.append(choose(got, codebook))
        got = hand_on(x, got, codebook[indices[-1]])
    return torch.stack(indices, 1)


def _rebuilt(x: Tensor, codebooks: Tensor) -> Tensor:
    return sum(codebook[index] for codebook, index in zip(codebooks, _encode(x, codebooks).T, strict=True))


def _index_subtracted(x: Tensor, codebooks: Tensor) -> Tensor:
    got, indices = x, []
    for codebook in codebooks:
        indices.append(nearest(got, codebook))
        got = got - indices[-1].unsqueeze(1)
    return torch.stack(indices, 1)


ENCODE_MISTAKES = {
    "Every stage gets x itself: hand on what the stage before it leaves over.": lambda x, codebooks: _encode(
        x, codebooks, lambda x, got, chosen: x
    ),
    "Subtract from the residual, not from x: stage 3 gets what stages 1 and 2 both leave.": lambda x, codebooks: (
        _encode(x, codebooks, lambda x, got, chosen: x - chosen)
    ),
    "The codeword is added to the residual: subtract it.": lambda x, codebooks: _encode(
        x, codebooks, lambda x, got, chosen: got + chosen
    ),
    "The residual is turned round: what is left over is residual − codeword, not codeword − residual.": (
        lambda x, codebooks: _encode(x, codebooks, lambda x, got, chosen: chosen - got)
    ),
    "The codeword is handed on: the next stage gets what is left over, residual − codeword.": lambda x, codebooks: (
        _encode(x, codebooks, lambda x, got, chosen: chosen)
    ),
    "The index is subtracted: subtract its codeword, codebook[index].": _index_subtracted,
    "This is the farthest codeword: take the argmin of the distances, not their argmax.": lambda x, codebooks: _encode(
        x, codebooks, choose=lambda got, codebook: torch.cdist(got, codebook).argmax(1)
    ),
    "The greatest dot product is not the least distance: long codewords win it.": lambda x, codebooks: _encode(
        x, codebooks, choose=lambda got, codebook: (got @ codebook.T).argmax(1)
    ),
    "All stages use the first codebook: each has its own.": lambda x, codebooks: _encode(
        x, codebooks[:1].expand_as(codebooks)
    ),
    "The stages run backwards: the first codebook comes first.": lambda x, codebooks: _encode(x, codebooks.flip(0)),
    "A vector's indices stand in a column; put them in a row: stack along dim=1.": lambda x, codebooks: (
        _encode(x, codebooks).T
    ),
    "The stages' indices lie end to end: torch.stack(..., dim=1) gives each vector a row of its own.": (
        lambda x, codebooks: _encode(x, codebooks).T.flatten()
    ),
    "The last stage is missing: each of the M codebooks gives an index.": lambda x, codebooks: _encode(x, codebooks)[
        :, :-1
    ],
    "The first stage is missing: collect its index too, before the residual is made.": lambda x, codebooks: _encode(
        x, codebooks
    )[:, 1:],
    "These are the last stage's indices alone: collect those of every stage.": lambda x, codebooks: _encode(
        x, codebooks
    )[:, -1],
    "This is the rebuilt vector: return the indices of its codewords.": _rebuilt,
    "This is what the last stage leaves over: return the indices.": lambda x, codebooks: x - _rebuilt(x, codebooks),
}


@exercise
def residual_encode(answer: Callable) -> str:
    """(N, dim), (M, K, dim) → (N, M): the index of the codeword nearest to each stage's residual."""
    for num, dim, stages, size in [(9, 2, 4, 5), (64, 3, 3, 16), (50, 8, 2, 50), (6, 4, 1, 3)]:
        scales = 0.6 ** torch.arange(stages).view(-1, 1, 1)
        codebooks = scales * torch.randn(stages, size, dim)
        compare(answer, _encode, ENCODE_MISTAKES, x=torch.randn(num, dim), codebooks=codebooks)
    return "Every stage gets what the stages before it leave over."


# The mistakes in each of the three numbers, by dim, K and M.
COST_MISTAKES = [
    {
        "An index among K codewords takes log₂ K bits, not K.": lambda dim, size, num: num * size,
        "Each of the M stages sends an index: M times log₂ K.": lambda dim, size, num: math.log2(size),
        "log₂ K is the power of 2 that makes K; math.log is another logarithm.": lambda dim, size, num: (
            num * math.log(size)
        ),
        "Stages add their bits: M times log₂ K, not log₂ K to the M.": lambda dim, size, num: math.log2(size) ** num,
        "A stage's index chooses among its own K codewords, not among all M · K.": lambda dim, size, num: math.log2(
            num * size
        ),
        "An index is sent once for a vector, not once for each of its components: dim has no part in the bits.": (
            lambda dim, size, num: dim * num * math.log2(size)
        ),
        "Leave log₂ K as it is, also where it isn't a whole number: rounded up, it is no longer the bits.": (
            lambda dim, size, num: num * math.ceil(math.log2(size))
        ),
        "Leave log₂ K as it is, also where it isn't a whole number: rounded down, it names too few codewords.": (
            lambda dim, size, num: num * int(math.log2(size))
        ),
        "The bits of a vector come first, then the numbers stored.": lambda dim, size, num: num * size * dim,
    },
    {
        "A codeword is a vector of dim numbers: the M codebooks hold M · K of those.": lambda dim, size, num: (
            num * size
        ),
        "Codebooks lie beside each other in memory: they add up, M · K · dim.": lambda dim, size, num: size**num * dim,
        "This is a single stage: there are M of them.": lambda dim, size, num: size * dim,
        "These are bytes, 4 for a number in float32: the numbers are asked for.": lambda dim, size, num: (
            4 * num * size * dim
        ),
    },
    {
        "As many codewords as there are sums: each of M stages has K choices, and choices multiply.": (
            lambda dim, size, num: num * size * dim
        ),
        "These are the codewords; each is a vector of dim numbers.": lambda dim, size, num: size**num,
        "K choices, M times over, are K to the M, not M to the K.": lambda dim, size, num: num**size * dim,
        "Only the choices multiply: K to the M codewords, each of dim numbers, not of dim to the M.": (
            lambda dim, size, num: (size * dim) ** num
        ),
        "This is one codebook of K codewords: it can't rebuild as many vectors as M stages.": lambda dim, size, num: (
            size * dim
        ),
        "These are bytes, 4 for a number in float32: the numbers are asked for.": lambda dim, size, num: (
            4 * size**num * dim
        ),
    },
]


@exercise
def cost(answer: Callable) -> str:
    """dim, K, M → bits a vector, numbers in M codebooks, numbers in one codebook with Kᴹ codewords."""
    names = "The bits of a vector", "The numbers in M codebooks", "The numbers in one codebook"
    for dim, size, num in [(64, 16, 3), (4, 10, 5), (3, 4, 1), (1, 2, 6)]:
        inputs = {"dim": dim, "codebook_size": size, "num_quantizers": num}
        wanted = num * math.log2(size), num * size * dim, size**num * dim
        results = [float(result) for result in parts(run(answer, **inputs), *names)]
        for name, result, right, mistakes in zip(names, results, wanted, COST_MISTAKES, strict=True):
            if not difference(result, float(right)):
                continue
            made = [mistake for mistake in mistakes if not difference(result, float(mistakes[mistake](dim, size, num)))]
            told = made[0] if made else f"{name} should be {right:,.7g}, and this is {result:,.7g}."
            raise Wrong(f"{told} Seen {given(inputs)}.")
    return "Bits and memory add up, M · log₂ K and M · K · dim; what can be rebuilt multiplies, Kᴹ."


def _best_split(
    dim: int,
    bits: int,
    memory: int,
    fits: Callable[[int, int, int, int], bool] = lambda num, size, dim, memory: num * size * dim <= memory,
) -> tuple[int, int]:
    return next(split for split in _splits(bits) if fits(*split, dim, memory))


def _splits(bits: int) -> list[tuple[int, int]]:
    return [(num, 2 ** (bits // num)) for num in range(1, bits + 1) if bits % num == 0]


SPLIT_MISTAKES = {
    "That is K and M: return M first.": lambda dim, bits, memory: _best_split(dim, bits, memory)[::-1],
    "A split that takes exactly `memory` numbers fits too: ≤, not <.": lambda dim, bits, memory: _best_split(
        dim, bits, memory, lambda num, size, dim, memory: num * size * dim < memory
    ),
    "A codeword is dim numbers: M · K · dim is what must fit, not M · K.": lambda dim, bits, memory: _best_split(
        dim, bits, memory, lambda num, size, dim, memory: num * size <= memory
    ),
    "There are M codebooks to store: M · K · dim is what must fit, not K · dim.": lambda dim, bits, memory: _best_split(
        dim, bits, memory, lambda num, size, dim, memory: size * dim <= memory
    ),
    "`memory` counts numbers, not bytes: don't take 4 for each.": lambda dim, bits, memory: _best_split(
        dim, bits, memory, lambda num, size, dim, memory: 4 * num * size * dim <= memory
    ),
    "One codebook has the least error, if it fits: here it takes more than `memory`.": lambda dim, bits, memory: (
        1,
        2**bits,
    ),
    "These are the most and smallest stages, which leave the most error: begin with M = 1 and stop at the first that "
    "fits.": lambda dim, bits, memory: _splits(bits)[-1],
    "This takes the most stages of those that leave room for another: begin with M = 1 and stop at the first that "
    "fits.": lambda dim, bits, memory: _splits(bits)[-2],
}


@exercise
def best_split(answer: Callable) -> str:
    """dim, bits, memory → M and K of the equal stages that leave the least error: the fewest that fit."""
    tried = [
        (4, 12, 600),
        (1, 12, 30),
        (4, 12, 512),
        (4, 12, 200),
        (48, 24, 40_000),
        (2, 10, 5000),
        (8, 15, 10_000),
        (3, 8, 64),
    ]
    for dim, bits, memory in [*tried, (8, 15, 240)]:
        inputs = {"dim": dim, "bits": bits, "memory": memory}
        best = _best_split(**inputs)
        num, size = parts(_found(answer, best, inputs), "M", "K")
        if (num, size) == best:
            continue
        for words, mistake in SPLIT_MISTAKES.items():
            if _gives_split(mistake, inputs, (num, size)):
                raise Wrong(f"{words} Seen {given(inputs)}.")
        if num < 1 or bits % num:
            raise Wrong(f"M = {num:g} doesn't divide {bits} bits into equal whole parts. Seen {given(inputs)}.")
        if size != 2 ** (bits // num):
            raise Wrong(
                f"{num} stages of {size} codewords don't make {bits} bits: M · log₂ K does. Seen {given(inputs)}."
            )
        if num * size * dim > memory:
            raise Wrong(
                f"M = {num}, K = {size} takes {num * size * dim:,} numbers, M · K · dim: too many {given(inputs)}."
            )
        raise Wrong(f"M = {num}, K = {size} fits, and so does M = {best[0]} with less error {given(inputs)}.")
    return "The fewest, largest codebooks that fit leave the least error."


def _found(answer: Callable, best: tuple[int, int], inputs: dict[str, int]) -> object:
    """What the answer returns; that it returns nothing is a mistake where only the smallest codebooks fit."""
    try:
        return run(answer, **inputs)
    except Unsolved as unsolved:
        if best == (inputs["bits"], 2):
            raise Wrong(
                f"Some split always fits, here M = {best[0]} stages of 2 codewords {given(inputs)}."
            ) from unsolved
        raise


def _gives_split(mistake: Callable, inputs: dict[str, int], result: tuple[int, int]) -> bool:
    try:
        return mistake(**inputs) == result
    except (StopIteration, IndexError):  # this mistake finds no split here
        return False


def _commitment_terms(
    x: Tensor, codebooks: Tensor, term: Callable[[Tensor, Tensor], Tensor] = F.mse_loss
) -> tuple[Tensor, list[Tensor]]:
    """The sum of the chosen codewords, and every stage's commitment term, x moving in each."""
    residual, terms = x, []
    for codebook in codebooks.detach():
        chosen = codebook[nearest(residual, codebook)]
        terms.append(term(residual, chosen))
        residual = residual - chosen
    return x - residual, terms


def _not_handed_on(x: Tensor, codebooks: Tensor) -> Tensor:
    return sum(codebook[nearest(x, codebook)] for codebook in codebooks)


OUTPUT_MISTAKES = {
    "The sum of the codewords is divided by the number of stages: stages add up, they aren't averaged.": (
        lambda x, codebooks: _rebuilt(x, codebooks) / len(codebooks)
    ),
    "The sum of the codewords comes back multiplied by the number of stages: add each codeword once.": (
        lambda x, codebooks: _rebuilt(x, codebooks) * len(codebooks)
    ),
    "This is the last stage's codeword alone: add up those of all stages.": lambda x, codebooks: (
        _rebuilt(x, codebooks) - _rebuilt(x, codebooks[:-1])
    ),
    "The last stage's codeword isn't in the sum: add it before the loop ends.": lambda x, codebooks: _rebuilt(
        x, codebooks[:-1]
    ),
    "This is what the last stage leaves over, not the sum of the codewords.": lambda x, codebooks: (
        x - _rebuilt(x, codebooks)
    ),
    "The output is x itself: in its values it must be the sum of the codewords.": lambda x, codebooks: x,
    "Every stage gets x itself: hand on what the stage before it leaves over.": _not_handed_on,
}

# What a stage's term is instead, by the residual that comes in and the codeword chosen.
TERM_MISTAKES = {
    "the squares are summed: take their mean over vectors and components": lambda residual, chosen: F.mse_loss(
        residual, chosen, reduction="sum"
    ),
    "the squares are summed over the components: take their mean": lambda residual, chosen: (
        (residual - chosen).square().sum(-1).mean()
    ),
    "these are distances: take the mean of the squares": lambda residual, chosen: (
        (residual - chosen).norm(dim=-1).mean()
    ),
    "the mean of the differences' sizes is taken: take that of their squares": F.l1_loss,
    "a weight of 0.25 is in it: β comes later, outside": lambda residual, chosen: 0.25 * F.mse_loss(residual, chosen),
    "the codeword is compared with what is left over: compare it with the residual that came in, before you subtract": (
        lambda residual, chosen: F.mse_loss(residual - chosen, chosen)
    ),
}


@exercise
def residual_layer(answer: Callable) -> str:
    """(N, dim), (M, K, dim) → the quantized vectors with one straight-through, and the M commitment terms."""
    for num, dim, stages, size in [(9, 2, 3, 5), (30, 3, 2, 8), (5, 4, 1, 3)]:
        x = torch.randn(num, dim, requires_grad=True)
        codebooks = (0.6 ** torch.arange(stages).view(-1, 1, 1) * torch.randn(stages, size, dim)).requires_grad_()
        inputs = {"x": x, "codebooks": codebooks}
        quantized, terms = parts(run(answer, **inputs), "the quantized vectors", "the list of commitment terms")
        if isinstance(quantized, list | tuple) and isinstance(terms, Tensor):
            raise Wrong("The quantized vectors come first, then the list of commitment terms.")
        _judge_values(quantized, x, codebooks)
        _judge_output(quantized, x, codebooks)
        if not isinstance(terms, Tensor | tuple | list) or getattr(terms, "ndim", 1) == 0 or len(terms) != stages:
            raise Wrong(f"There should be {stages} commitment terms, one a stage, for codebooks of {stages} stages.")
        for stage, (term, right) in enumerate(zip(terms, _commitment_terms(x, codebooks)[1], strict=True), 1):
            _judge_term(stage, term, right, x, codebooks)
            _judge_pull(stage, term, right, x, codebooks)
    return "The Jacobian is the identity, and every stage pulls."


def _judge_values(quantized: Tensor, x: Tensor, codebooks: Tensor) -> None:
    fault = difference(quantized, _commitment_terms(x, codebooks)[0], "the quantized tensor")
    for words, mistake in OUTPUT_MISTAKES.items():
        if fault and not difference(quantized, mistake(x, codebooks)):
            raise Wrong(f"{words} Seen {given({'x': x, 'codebooks': codebooks})}.")
    if fault:
        raise Wrong(f"{fault} {given({'x': x, 'codebooks': codebooks})}.")


def _judge_term(stage: int, term: Tensor, right: Tensor, x: Tensor, codebooks: Tensor) -> None:
    fault = difference(term, right, f"the commitment term of stage {stage}")
    for words, mistake in TERM_MISTAKES.items():
        if fault and not difference(term, _commitment_terms(x, codebooks, mistake)[1][stage - 1]):
            raise Wrong(f"In the commitment term of stage {stage} {words}.")
    if fault and not difference(term, right / len(codebooks)):
        raise Wrong(f"The commitment term of stage {stage} is divided by the number of stages: leave each as it is.")
    if fault and not difference(term, F.mse_loss(x, _chosen(x, codebooks, stage))):
        raise Wrong(f"The commitment term of stage {stage} compares the codeword with x: compare it with the residual.")
    if fault:
        raise Wrong(f"{fault} {given({'x': x, 'codebooks': codebooks})}.")


def _chosen(x: Tensor, codebooks: Tensor, stage: int) -> Tensor:
    return _rebuilt(x, codebooks[:stage]) - (_rebuilt(x, codebooks[: stage - 1]) if stage > 1 else 0)


def _judge_output(quantized: Tensor, x: Tensor, codebooks: Tensor) -> None:
    weights, stages = torch.randn_like(x), len(codebooks)
    by_x, by_codebooks = gradients(weights * quantized, x, codebooks)
    if by_codebooks.any():
        raise Wrong("The output moves the codebooks: add up detached codewords.")
    if not by_x.any():
        raise Wrong("No gradient of the output reaches x: return straight_through(x, ...).")
    if stages > 1 and not difference(by_x, stages * weights):
        raise Wrong(
            f"With {stages} stages the output's gradient arrives {stages} times too large: one straight-through."
        )
    if difference(by_x, weights):
        raise Wrong("The output's gradient must reach x as it is: one straight-through, around the sum of all stages.")


def _judge_pull(stage: int, term: Tensor, right: Tensor, x: Tensor, codebooks: Tensor) -> None:
    by_x, by_codebooks = gradients(term, x, codebooks)
    if by_codebooks[stage - 1].any():
        raise Wrong(f"The commitment term of stage {stage} moves the codebooks: detach the codewords.")
    if by_codebooks.any():
        raise Wrong(
            f"The residual that stage {stage} gets moves with the codebooks before it: detach a codeword where it is "
            "subtracted, too."
        )
    if not by_x.any() and stage == 1:
        raise Wrong("The commitment term of stage 1 doesn't pull x: don't detach the residual.")
    if not by_x.any() and not _depends(term, x):
        raise Wrong(
            f"The commitment term of stage {stage} doesn't pull x: its residual is detached as a whole. Detach the "
            "codeword alone: residual - chosen.detach()."
        )
    if not by_x.any():
        raise Wrong(
            f"The commitment term of stage {stage} doesn't pull x: subtract plain codewords from a residual that moves "
            "with x, not their straight-through."
        )
    if difference(by_x, *gradients(right, x)):
        raise Wrong(f"The commitment term of stage {stage} has the right value and the wrong gradient by x.")


def _depends(term: Tensor, x: Tensor) -> bool:
    """Whether autograd finds a way from the term to x, be the slope along it zero."""
    return term.requires_grad and torch.autograd.grad(term, x, retain_graph=True, allow_unused=True)[0] is not None
