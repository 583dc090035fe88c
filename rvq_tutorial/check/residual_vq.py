"""Exercises of 04 · Why many small codebooks, not one big one?"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial.check.judging import Wrong, compare, difference, exercise, given, gradients, parts, run
from rvq_tutorial.search import nearest


@exercise
def predicted_stages(answer: Callable) -> str:
    """→ the indices of 16.4 in the codebooks (0, 10, 20), (−3, 0, 3) and (−1, 0, 1), and the sum of the codewords."""
    indices, rebuilt = parts(run(answer), "the list of the three indices", "the number that they rebuild")
    mistakes = {
        (1, 2, 2): "10 lies below 16.4, and 20 lies nearer: a residual may be negative.",
        (2, 2, 2): "Stage 2 doesn't get 16.4 again: it gets what stage 1 leaves over, 16.4 − 20.",
        (2, 0, 2): "The residual that stage 3 gets is −3.6 − (−3): mind its sign.",
        (20, -3, -1): "These are the codewords; their indices are asked for, counted from 0.",
        (3, 1, 1): "Indices count from 0.",
    }
    indices = indices.tolist() if isinstance(indices, Tensor) else indices
    indices = [int(index) for index in parts(indices, "index of stage 1", "index of stage 2", "index of stage 3")]
    if tuple(indices) in mistakes:
        raise Wrong(mistakes[tuple(indices)])
    for stage, (index, wanted) in enumerate(zip(indices, (2, 0, 0), strict=True), 1):
        if index != wanted:
            raise Wrong(f"The index of stage {stage} is not {index}: which codeword is nearest to what it receives?")
    if fault := difference(rebuilt, 16.0, "the number rebuilt"):
        raise Wrong(f"The indices are right, but {fault}: add the three codewords.")
    return "20, then −3 of the −3.6 left over, then −1 of the −0.6: 16, and 0.4 is lost."


def _residual_encode(x: Tensor, codebooks: Tensor) -> Tensor:
    indices = []
    for codebook in codebooks:
        indices.append(nearest(x, codebook))
        x = x - codebook[indices[-1]]
    return torch.stack(indices, 1)


def _subtracted_from_x(x: Tensor, codebooks: Tensor) -> Tensor:
    residual, indices = x, []
    for codebook in codebooks:
        indices.append(nearest(residual, codebook))
        residual = x - codebook[indices[-1]]
    return torch.stack(indices, 1)


def _added(x: Tensor, codebooks: Tensor) -> Tensor:
    indices = []
    for codebook in codebooks:
        indices.append(nearest(x, codebook))
        x = x + codebook[indices[-1]]
    return torch.stack(indices, 1)


@exercise
def residual_encode(answer: Callable) -> str:
    """(N, dim), (M, K, dim) → (N, M): the index of the codeword nearest to each stage's residual."""
    mistakes = {
        "Every stage gets x itself: hand on what the stage before it leaves over.": lambda x, codebooks: torch.stack(
            [nearest(x, codebook) for codebook in codebooks], 1
        ),
        "Subtract from the residual, not from x: stage 3 gets what stages 1 and 2 both leave.": _subtracted_from_x,
        "The codeword is added to the residual: subtract it.": _added,
        "A vector's indices stand in a column; put them in a row: stack along dim=1.": lambda x, codebooks: (
            _residual_encode(x, codebooks).T
        ),
        "The stages run backwards: the first codebook comes first.": lambda x, codebooks: _residual_encode(
            x, codebooks.flip(0)
        ),
    }
    for num, dim, stages, size in [(9, 2, 4, 5), (64, 3, 3, 16), (50, 8, 2, 50), (6, 4, 1, 3)]:
        scales = 0.6 ** torch.arange(stages).view(-1, 1, 1)
        codebooks = scales * torch.randn(stages, size, dim)
        compare(answer, _residual_encode, mistakes, x=torch.randn(num, dim), codebooks=codebooks)
    return "Every stage gets what the stages before it leave over."


@exercise
def cost(answer: Callable) -> str:
    """dim, K, M → bits a vector, numbers in M codebooks, numbers in one codebook with Kᴹ codewords."""
    names = "The bits of a vector", "The numbers in M codebooks", "The numbers in one codebook"
    words = [
        {
            "An index among K codewords takes log₂ K bits, not K.": lambda dim, size, num: num * size,
            "Each of the M stages sends an index: M times log₂ K.": lambda dim, size, num: math.log2(size),
            "log₂ K is the power of 2 that makes K; math.log is another logarithm.": lambda dim, size, num: (
                num * math.log(size)
            ),
            "Stages add their bits: M times log₂ K, not log₂ K to the M.": lambda dim, size, num: (
                math.log2(size) ** num
            ),
        },
        {
            "A codeword is a vector of dim numbers: the M codebooks hold M · K of those.": lambda dim, size, num: (
                num * size
            ),
            "Codebooks lie beside each other in memory: they add up, M · K · dim.": lambda dim, size, num: (
                size**num * dim
            ),
            "This is a single stage: there are M of them.": lambda dim, size, num: size * dim,
        },
        {
            "As many codewords as there are sums: each of M stages has K choices, and choices multiply.": (
                lambda dim, size, num: num * size * dim
            ),
            "These are the codewords; each is a vector of dim numbers.": lambda dim, size, num: size**num,
            "K choices, M times over, are K to the M, not M to the K.": lambda dim, size, num: num**size * dim,
        },
    ]
    for dim, size, num in [(64, 16, 3), (4, 10, 5), (3, 4, 1), (1, 2, 6)]:
        inputs = {"dim": dim, "codebook_size": size, "num_quantizers": num}
        wanted = num * math.log2(size), num * size * dim, size**num * dim
        results = [float(result) for result in parts(run(answer, **inputs), *names)]
        for name, result, right, mistakes in zip(names, results, wanted, words, strict=True):
            if not difference(result, float(right)):
                continue
            made = [mistake for mistake in mistakes if not difference(result, float(mistakes[mistake](dim, size, num)))]
            told = made[0] if made else f"{name} should be {right:,.7g}, and this is {result:,.7g}."
            raise Wrong(f"{told} Seen {given(inputs)}.")
    return "Bits and memory add up, M · log₂ K and M · K · dim; what can be rebuilt multiplies, Kᴹ."


def _best_split(dim: int, bits: int, memory: int) -> tuple[int, int]:
    splits = [(num, 2 ** (bits // num)) for num in range(1, bits + 1) if bits % num == 0]
    return next((num, size) for num, size in splits if num * size * dim <= memory)


@exercise
def best_split(answer: Callable) -> str:
    """dim, bits, memory → M and K of the equal stages that leave the least error: the fewest that fit."""
    tried = [(4, 12, 600), (4, 12, 512), (4, 12, 200), (48, 24, 40_000), (2, 10, 5000), (8, 15, 10_000), (3, 8, 64)]
    for dim, bits, memory in tried:
        inputs = {"dim": dim, "bits": bits, "memory": memory}
        num, size = parts(run(answer, **inputs), "M", "K")
        best = _best_split(**inputs)
        if (num, size) == best[::-1] != best:
            raise Wrong(f"That is K and M: return M first. Seen {given(inputs)}.")
        if size**num != 2**bits:
            raise Wrong(
                f"{num} stages of {size} codewords don't make {bits} bits: M · log₂ K does. Seen {given(inputs)}."
            )
        if num * size * dim > memory:
            raise Wrong(
                f"M = {num}, K = {size} takes {num * size * dim:,} numbers, M · K · dim: too many {given(inputs)}."
            )
        if (num, size) != best:
            raise Wrong(f"M = {num}, K = {size} fits, and so does M = {best[0]} with less error {given(inputs)}.")
    return "The fewest, largest codebooks that fit leave the least error."


def _commitment_terms(x: Tensor, codebooks: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The sum of the chosen codewords, and every stage's commitment term, x moving in each."""
    residual, terms = x, []
    for codebook in codebooks.detach():
        chosen = codebook[nearest(residual, codebook)]
        terms.append(F.mse_loss(residual, chosen))
        residual = residual - chosen
    return x - residual, terms


@exercise
def residual_layer(answer: Callable) -> str:
    """(N, dim), (M, K, dim) → the quantized vectors with one straight-through, and the M commitment terms."""
    for num, dim, stages, size in [(9, 2, 4, 5), (30, 3, 2, 8), (5, 4, 1, 3)]:
        x = torch.randn(num, dim, requires_grad=True)
        codebooks = (0.6 ** torch.arange(stages).view(-1, 1, 1) * torch.randn(stages, size, dim)).requires_grad_()
        inputs = {"x": x, "codebooks": codebooks}
        quantized, terms = parts(run(answer, **inputs), "the quantized vectors", "the list of commitment terms")
        wanted, wanted_terms = _commitment_terms(x, codebooks)
        if fault := difference(quantized, wanted, "the quantized tensor"):
            raise Wrong(f"{fault} {given(inputs)}.")
        _judge_output(quantized, x, codebooks)
        if not isinstance(terms, Tensor | tuple | list) or getattr(terms, "ndim", 1) == 0 or len(terms) != stages:
            raise Wrong(f"There should be {stages} commitment terms, one a stage, for codebooks of {stages} stages.")
        for stage, (term, right) in enumerate(zip(terms, wanted_terms, strict=True), 1):
            if fault := difference(term, right, f"the commitment term of stage {stage}"):
                raise Wrong(f"{fault} {given(inputs)}.")
            _judge_pull(stage, term, right, x, codebooks)
    return "The Jacobian is the identity, and every stage pulls."


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
    if by_codebooks.any():
        raise Wrong(f"The commitment term of stage {stage} moves the codebooks: detach the codewords.")
    if not by_x.any() and stage == 1:
        raise Wrong("The commitment term of stage 1 doesn't pull x: don't detach the residual.")
    if not by_x.any():
        raise Wrong(
            f"The commitment term of stage {stage} doesn't pull x: subtract plain codewords from a residual that moves "
            "with x, not their straight-through."
        )
    if difference(by_x, *gradients(right, x)):
        raise Wrong(f"The commitment term of stage {stage} has the right value and the wrong gradient by x.")
