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
    known,
    parts,
    run,
)
from rvq_tutorial.course.check.sentences import say
from rvq_tutorial.search import nearest

STAGES_MISTAKES = dict(
    stage_2_gets_x=(2, 2, 2),
    stage_3_sign=(2, 0, 2),
    zero_in_stage_2=(2, 1, 0),
    zeros=(2, 1, 1),
    stage_2_sign=(2, 2, 0),
    codewords=(20, -3, -1),
    from_one=(3, 1, 1),
    from_the_right=(0, 2, 2),
)
REBUILT_MISTAKES = dict(x_itself=16.4, left_over=[0.4, -0.4], without_signs=24.0, sum_of_indices=2.0)


@exercise
def predicted_stages(answer: Callable) -> str:
    """→ the indices of 16.4 in the codebooks (0, 10, 20), (−3, 0, 3) and (−1, 0, 1), and the sum of the codewords."""
    indices, rebuilt = parts(run(answer), "indices", "number")
    if isinstance(rebuilt, list | tuple):
        raise Wrong("indices_first")
    indices = indices.tolist() if isinstance(indices, Tensor) else indices
    indices = tuple(int(index) for index in parts(indices, "index_1", "index_2", "index_3"))
    if mistake := known(indices, STAGES_MISTAKES):
        raise Wrong(mistake)
    if indices[0] == 1:
        raise Wrong("next_lower")
    for stage, (index, wanted) in enumerate(zip(indices, (2, 0, 0), strict=True), 1):
        if index != wanted:
            raise Wrong("other_index", stage=stage, index=index)
    if fault := difference(rebuilt, 16.0, "number_rebuilt"):
        raise Wrong(known(rebuilt, REBUILT_MISTAKES) or "other_number", fault=fault)
    return say("right")


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


ENCODE_MISTAKES = dict(
    every_stage_gets_x=lambda x, codebooks: _encode(x, codebooks, lambda x, got, chosen: x),
    subtracted_from_x=lambda x, codebooks: _encode(x, codebooks, lambda x, got, chosen: x - chosen),
    added=lambda x, codebooks: _encode(x, codebooks, lambda x, got, chosen: got + chosen),
    turned_round=lambda x, codebooks: _encode(x, codebooks, lambda x, got, chosen: chosen - got),
    codeword_handed_on=lambda x, codebooks: _encode(x, codebooks, lambda x, got, chosen: chosen),
    index_subtracted=_index_subtracted,
    farthest=lambda x, codebooks: _encode(x, codebooks, choose=lambda got, c: torch.cdist(got, c).argmax(1)),
    dot_product=lambda x, codebooks: _encode(x, codebooks, choose=lambda got, c: (got @ c.T).argmax(1)),
    first_codebook_always=lambda x, codebooks: _encode(x, codebooks[:1].expand_as(codebooks)),
    backwards=lambda x, codebooks: _encode(x, codebooks.flip(0)),
    in_columns=lambda x, codebooks: _encode(x, codebooks).T,
    end_to_end=lambda x, codebooks: _encode(x, codebooks).T.flatten(),
    last_stage_missing=lambda x, codebooks: _encode(x, codebooks)[:, :-1],
    first_stage_missing=lambda x, codebooks: _encode(x, codebooks)[:, 1:],
    last_stage_alone=lambda x, codebooks: _encode(x, codebooks)[:, -1],
    rebuilt=_rebuilt,
    left_over=lambda x, codebooks: x - _rebuilt(x, codebooks),
)


@exercise
def residual_encode(answer: Callable) -> str:
    """(N, dim), (M, K, dim) → (N, M): the index of the codeword nearest to each stage's residual."""
    for num, dim, stages, size in [(9, 2, 4, 5), (64, 3, 3, 16), (50, 8, 2, 50), (6, 4, 1, 3)]:
        scales = 0.6 ** torch.arange(stages).view(-1, 1, 1)
        codebooks = scales * torch.randn(stages, size, dim)
        compare(answer, _encode, ENCODE_MISTAKES, x=torch.randn(num, dim), codebooks=codebooks)
    return say("right")


# The mistakes in each of the three numbers, by dim, K and M.
COST_MISTAKES = {
    "bits": dict(
        not_k_bits=lambda dim, k, m: m * k,
        one_stage_of_bits=lambda dim, k, m: math.log2(k),
        another_logarithm=lambda dim, k, m: m * math.log(k),
        bits_to_the_m=lambda dim, k, m: math.log2(k) ** m,
        among_all_codewords=lambda dim, k, m: math.log2(m * k),
        sent_for_each_component=lambda dim, k, m: dim * m * math.log2(k),
        rounded_up=lambda dim, k, m: m * math.ceil(math.log2(k)),
        rounded_down=lambda dim, k, m: m * int(math.log2(k)),
        numbers_first=lambda dim, k, m: m * k * dim,
    ),
    "numbers_in_stages": dict(
        codewords_not_numbers=lambda dim, k, m: m * k,
        multiplied=lambda dim, k, m: k**m * dim,
        one_stage_of_numbers=lambda dim, k, m: k * dim,
        bytes=lambda dim, k, m: 4 * m * k * dim,
    ),
    "numbers_in_one": dict(
        as_many_as_in_stages=lambda dim, k, m: m * k * dim,
        codewords_alone=lambda dim, k, m: k**m,
        m_to_the_k=lambda dim, k, m: m**k * dim,
        dim_to_the_m=lambda dim, k, m: (k * dim) ** m,
        one_codebook_of_k=lambda dim, k, m: k * dim,
        bytes=lambda dim, k, m: 4 * k**m * dim,
    ),
}


@exercise
def cost(answer: Callable) -> str:
    """dim, K, M → bits a vector, numbers in M codebooks, numbers in one codebook with Kᴹ codewords."""
    for dim, size, num in [(64, 16, 3), (4, 10, 5), (3, 4, 1), (1, 2, 6)]:
        inputs = {"dim": dim, "codebook_size": size, "num_quantizers": num}
        wanted = num * math.log2(size), num * size * dim, size**num * dim
        results = map(float, parts(run(answer, **inputs), "bits", "numbers_in_stages", "numbers_in_one"))
        for (name, mistakes), result, right in zip(COST_MISTAKES.items(), results, wanted, strict=True):
            if difference(result, float(right)):
                mistake = known(result, mistakes, *map(float, (dim, size, num)))
                raise Wrong(mistake or "other_value", inputs, name=say(name), wanted=right, result=result)
    return say("right")


def _splits(bits: int) -> list[tuple[float, float]]:
    return [(float(num), 2.0 ** (bits // num)) for num in range(1, bits + 1) if bits % num == 0]


def _best_split(
    dim: int,
    bits: int,
    memory: int,
    fits: Callable[[float, float, int, int], bool] = lambda m, k, dim, memory: m * k * dim <= memory,
) -> tuple[float, float]:
    return next(split for split in _splits(bits) if fits(*split, dim, memory))


SPLIT_MISTAKES = dict(
    k_and_m=lambda *of: _best_split(*of)[::-1],
    less_than_memory=lambda *of: _best_split(*of, lambda m, k, dim, memory: m * k * dim < memory),
    without_dim=lambda *of: _best_split(*of, lambda m, k, dim, memory: m * k <= memory),
    without_m=lambda *of: _best_split(*of, lambda m, k, dim, memory: k * dim <= memory),
    in_bytes=lambda *of: _best_split(*of, lambda m, k, dim, memory: 4 * m * k * dim <= memory),
    one_codebook=lambda dim, bits, memory: _splits(bits)[0],
    smallest_stages=lambda dim, bits, memory: _splits(bits)[-1],
    one_stage_left_free=lambda dim, bits, memory: _splits(bits)[-2],
)


@exercise
def best_split(answer: Callable) -> str:
    """dim, bits, memory → M and K of the equal stages that leave the least error: the fewest that fit."""
    tried = [(4, 12, 600), (1, 12, 30), (4, 12, 512), (4, 12, 200), (48, 24, 40_000), (2, 10, 5000), (8, 15, 10_000)]
    for dim, bits, memory in [*tried, (3, 8, 64), (8, 15, 240)]:
        inputs = {"dim": dim, "bits": bits, "memory": memory}
        best = _best_split(**inputs)
        num, size = parts(_found(answer, best, inputs), "m", "k")
        if (num, size) == best:
            continue
        if mistake := known((num, size), SPLIT_MISTAKES, *inputs.values()):
            raise Wrong(mistake, inputs)
        facts = {"num": num, "size": size, "bits": bits, "given": given(inputs)}
        if num < 1 or bits % num:
            raise Wrong("unequal_parts", inputs, **facts)
        if size != 2 ** (bits // num):
            raise Wrong("other_bits", inputs, **facts)
        if num * size * dim > memory:
            raise Wrong("too_many_numbers", numbers=num * size * dim, **facts)
        raise Wrong("more_error", best=best[0], **facts)
    return say("right")


def _found(answer: Callable, best: tuple[float, float], inputs: dict[str, int]) -> object:
    """What the answer returns; that it returns nothing is a mistake where only the smallest codebooks fit."""
    try:
        return run(answer, **inputs)
    except Unsolved as unsolved:
        if best == (inputs["bits"], 2):
            raise Wrong("nothing_found", best=best[0], given=given(inputs)) from unsolved
        raise


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


OUTPUT_MISTAKES = dict(
    averaged=lambda x, codebooks: _rebuilt(x, codebooks) / len(codebooks),
    multiplied_by_stages=lambda x, codebooks: _rebuilt(x, codebooks) * len(codebooks),
    last_codeword_alone=lambda x, codebooks: _rebuilt(x, codebooks) - _rebuilt(x, codebooks[:-1]),
    last_codeword_missing=lambda x, codebooks: _rebuilt(x, codebooks[:-1]),
    left_over=lambda x, codebooks: x - _rebuilt(x, codebooks),
    x_itself=lambda x, codebooks: x,
    every_stage_gets_x=_not_handed_on,
)

# What a stage's term is instead, by the residual that comes in and the codeword chosen.
TERM_MISTAKES = dict(
    term_summed=lambda residual, chosen: F.mse_loss(residual, chosen, reduction="sum"),
    term_summed_over_components=lambda residual, chosen: (residual - chosen).square().sum(-1).mean(),
    term_of_distances=lambda residual, chosen: (residual - chosen).norm(dim=-1).mean(),
    term_of_sizes=F.l1_loss,
    term_weighed=lambda residual, chosen: 0.25 * F.mse_loss(residual, chosen),
    term_of_left_over=lambda residual, chosen: F.mse_loss(residual - chosen, chosen),
)


@exercise
def residual_layer(answer: Callable) -> str:
    """(N, dim), (M, K, dim) → the quantized vectors with one straight-through, and the M commitment terms."""
    for num, dim, stages, size in [(9, 2, 3, 5), (30, 3, 2, 8), (5, 4, 1, 3)]:
        x = torch.randn(num, dim, requires_grad=True)
        codebooks = (0.6 ** torch.arange(stages).view(-1, 1, 1) * torch.randn(stages, size, dim)).requires_grad_()
        inputs = {"x": x, "codebooks": codebooks}
        quantized, terms = parts(run(answer, **inputs), "quantized", "terms")
        if isinstance(quantized, list | tuple) and isinstance(terms, Tensor):
            raise Wrong("quantized_first")
        _judge_values(quantized, x, codebooks)
        _judge_output(quantized, x, codebooks)
        if not isinstance(terms, Tensor | tuple | list) or getattr(terms, "ndim", 1) == 0 or len(terms) != stages:
            raise Wrong("one_a_stage", stages=stages)
        for stage, (term, right) in enumerate(zip(terms, _commitment_terms(x, codebooks)[1], strict=True), 1):
            _judge_term(stage, term, right, x, codebooks)
            _judge_pull(stage, term, right, x, codebooks)
    return say("right")


def _judge_values(quantized: Tensor, x: Tensor, codebooks: Tensor) -> None:
    inputs = {"x": x, "codebooks": codebooks}
    if fault := difference(quantized, _commitment_terms(x, codebooks)[0], "output"):
        if mistake := known(quantized, OUTPUT_MISTAKES, x, codebooks):
            raise Wrong(mistake, inputs)
        raise Wrong("fault", fault=fault, given=given(inputs))


def _judge_term(stage: int, term: Tensor, right: Tensor, x: Tensor, codebooks: Tensor) -> None:
    if fault := difference(term, right, "term", stage=stage):
        terms = {name: _commitment_terms(x, codebooks, made)[1][stage - 1] for name, made in TERM_MISTAKES.items()}
        terms |= dict(term_averaged=right / len(codebooks), term_of_x=F.mse_loss(x, _chosen(x, codebooks, stage)))
        facts = {"fault": fault, "given": given({"x": x, "codebooks": codebooks})}
        raise Wrong(known(term, terms) or "fault", stage=stage, **facts)


def _chosen(x: Tensor, codebooks: Tensor, stage: int) -> Tensor:
    return _rebuilt(x, codebooks[:stage]) - (_rebuilt(x, codebooks[: stage - 1]) if stage > 1 else 0)


def _judge_output(quantized: Tensor, x: Tensor, codebooks: Tensor) -> None:
    weights, stages = torch.randn_like(x), len(codebooks)
    by_x, by_codebooks = gradients(weights * quantized, x, codebooks)
    if by_codebooks.any():
        raise Wrong("output_moves_codebooks")
    if not by_x.any():
        raise Wrong("output_without_gradient")
    if stages > 1 and not difference(by_x, stages * weights):
        raise Wrong("several_straight_throughs", stages=stages)
    if difference(by_x, weights):
        raise Wrong("other_gradient")


def _judge_pull(stage: int, term: Tensor, right: Tensor, x: Tensor, codebooks: Tensor) -> None:
    by_x, by_codebooks = gradients(term, x, codebooks)
    if by_codebooks[stage - 1].any():
        raise Wrong("term_moves_codebooks", stage=stage)
    if by_codebooks.any():
        raise Wrong("residual_moves_with_codebooks", stage=stage)
    if not by_x.any() and stage == 1:
        raise Wrong("term_1_without_pull")
    if not by_x.any():
        raise Wrong("hidden_by_straight_through" if _depends(term, x) else "residual_detached", stage=stage)
    if difference(by_x, *gradients(right, x)):
        raise Wrong("term_gradient", stage=stage)


def _depends(term: Tensor, x: Tensor) -> bool:
    """Whether autograd finds a way from the term to x, be the slope along it zero."""
    return term.requires_grad and torch.autograd.grad(term, x, retain_graph=True, allow_unused=True)[0] is not None
