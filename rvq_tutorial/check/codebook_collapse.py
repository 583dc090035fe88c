"""Exercises of 03 · Why do most codewords die?"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rvq_tutorial import metrics
from rvq_tutorial.check.judging import Wrong, compare, exercise, parts, run
from rvq_tutorial.search import nearest


@exercise
def seen_in_batch(answer: Callable) -> str:
    """→ the expected share of 64 equally likely codewords that occur among 64 vectors."""
    share = run(answer)
    wanted = 1 - (1 - 1 / 64) ** 64
    mistakes = {
        1.0: "For a usage of 1 each vector would have to choose a codeword that no other chose: luck beyond belief.",
        1 - wanted: "That is the share that does not occur; the share that does is 1 minus it.",
        100 * wanted: "Right in percent; give the share as a number from 0 to 1.",
        1 / 64: "That is the chance that one vector chooses one codeword; there are 64 vectors.",
        64 * wanted: "That is how many codewords occur; the share is that number divided by 64.",
    }
    share = float(share)
    for value, words in mistakes.items():
        if math.isclose(share, value, rel_tol=0.01):
            raise Wrong(words)
    if not abs(share - wanted) < 0.02:
        raise Wrong(
            f"Not {share:.3g}: a codeword is missed by one vector with chance 63/64, by all with chance (63/64) ** 64."
        )
    return f"1 − (63/64)⁶⁴ = {wanted:.1%} of the codewords occur, on average."


def _entropy(indices: Tensor, codebook_size: int, log: Callable = torch.log2) -> Tensor:
    share = torch.bincount(indices.flatten(), minlength=codebook_size) / indices.numel()
    return -(share[share > 0] * log(share[share > 0])).sum()


def _has_nan(result: Any) -> bool:
    return isinstance(result, float | Tensor) and bool(torch.as_tensor(result).isnan().any())


@exercise
def perplexity(answer: Callable) -> str:
    """Indices of any shape, K → 2 to their entropy in bits."""
    mistakes = {
        "That is the entropy in bits; the perplexity is 2 to that power.": _entropy,
        "The logarithm is natural and the power's base is 2: both should be 2, or both e.": (
            lambda indices, codebook_size: 2 ** _entropy(indices, codebook_size, torch.log)
        ),
        "The logarithm has base 2 and the power base e: both should be 2, or both e.": (
            lambda indices, codebook_size: _entropy(indices, codebook_size).exp()
        ),
        "The sign is wrong: p log p is negative, so the entropy is minus the sum.": (
            lambda indices, codebook_size: 2 ** -_entropy(indices, codebook_size)
        ),
        "That is how many different codewords occur; perplexity weighs them by how often they do.": (
            lambda indices, codebook_size: float(len(indices.unique()))
        ),
    }
    rare = torch.cat([torch.zeros(500), torch.arange(64)]).long()
    for indices, codebook_size in [
        (torch.randint(8, (400,)) ** 2 // 7, 16),
        (rare, 64),
        (torch.randint(5, (3, 20)), 5),
        (torch.zeros(7).long(), 4),
    ]:
        inputs = {"indices": indices, "codebook_size": codebook_size}
        if _has_nan(run(answer, **inputs)):
            raise Wrong("Where a codeword doesn't occur, 0 · log 0 is not a number: leave out the shares that are 0.")
        compare(answer, metrics.perplexity, mistakes, **inputs)
    return "perplexity is right, for codewords that are never used too."


def _ema_step(
    codebook: Tensor, usage: Tensor, x: Tensor, indices: Tensor, decay: float, divisor: str = "new"
) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(indices, minlength=len(codebook))
    error_sums = torch.zeros_like(codebook).index_add(0, indices, x - codebook[indices])
    moved = decay * usage + (1 - decay) * counts / len(x)
    divisors = {"new": moved * len(x), "old": usage * len(x), "batch": counts, "share": moved}
    step = (1 - decay) / divisors[divisor].clamp_min(1e-30)
    return codebook + step[:, None] * error_sums, moved


def _ema_of_counts(codebook: Tensor, usage: Tensor, x: Tensor, indices: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(indices, minlength=len(codebook))
    usage = decay * usage + (1 - decay) * counts
    error_sums = torch.zeros_like(codebook).index_add(0, indices, x - codebook[indices])
    return codebook + ((1 - decay) / usage.clamp_min(1e-30))[:, None] * error_sums, usage


def _ema_of_vectors(codebook: Tensor, usage: Tensor, x: Tensor, indices: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    _, usage = _ema_step(codebook, usage, x, indices, decay)
    sums = torch.zeros_like(codebook).index_add(0, indices, x)
    return codebook + ((1 - decay) / (usage * len(x)).clamp_min(1e-30))[:, None] * sums, usage


@exercise
def ema_step(answer: Callable) -> str:
    """Codebook, usage, x, indices, decay → the codebook and the usage after one step of the moving average."""
    mistakes = {
        "decay and 1 − decay have changed places: decay is the share of the past that is kept.": (
            lambda codebook, usage, x, indices, decay: _ema_step(codebook, usage, x, indices, 1 - decay)
        ),
        "The codewords are divided by the usage from before the step; n̄ is the new one.": (
            lambda *inputs: _ema_step(*inputs, divisor="old")
        ),
        "The error is divided by the batch's own count; n̄ is the moving average, usage times the number of vectors.": (
            lambda *inputs: _ema_step(*inputs, divisor="batch")
        ),
        "The error is divided by a share; n̄ is that share times the number of vectors.": (
            lambda *inputs: _ema_step(*inputs, divisor="share")
        ),
        "The usage is a share: divide the counts by the number of vectors, or it grows with the batch.": (
            _ema_of_counts
        ),
        "The codewords move the wrong way: a vector's error is x − codeword.": (
            lambda codebook, *rest: (2 * codebook - _ema_step(codebook, *rest)[0], _ema_step(codebook, *rest)[1])
        ),
        "These are sums of vectors; the formula sums their errors, x − codeword.": _ema_of_vectors,
    }
    for num, dim, size, decay in [(50, 3, 8, 0.9), (200, 2, 16, 0.99), (4, 4, 6, 0.7)]:
        usage = torch.rand(size)
        usage[-1] = 0  # this codeword was never used, and isn't now
        x, indices = torch.randn(num, dim), torch.randint(size - 1, (num,))
        state = {"codebook": torch.randn(size, dim), "usage": usage / usage.sum()}
        inputs = state | {"x": x, "indices": indices, "decay": decay}
        if any(map(_has_nan, parts(run(answer, **inputs), "the codebook", "the usage"))):
            raise Wrong("A codeword whose usage is 0 turns into nan, 0 / 0: keep the divisor above 0 with clamp_min.")
        compare(answer, _ema_step, mistakes, **inputs)
    return "ema_step moves codewords and usage as the moving average does, for every decay tried."


def _follow(sums: Tensor, counts: Tensor, x: Tensor, indices: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    counts = decay * counts + (1 - decay) * torch.bincount(indices, minlength=len(counts))
    return decay * sums + (1 - decay) * torch.zeros_like(sums).index_add(0, indices, x), counts


def _quotient(sums: Tensor, counts: Tensor) -> Tensor:
    return sums / counts.clamp_min(1e-5)[:, None]


def _restarting_step(
    codebook: Tensor, sums: Tensor, counts: Tensor, x: Tensor, decay: float, threshold: float, repair: str = "all"
) -> tuple[Tensor, Tensor, Tensor]:
    """Follow, then restart; `repair` says which part of the restart is done, or done wrong."""
    rows = x[: len(codebook)]
    sums, counts = _follow(sums, counts, x, nearest(x, codebook), decay)
    dead = counts < (threshold if repair == "absolute" else threshold * counts.mean())
    fair = counts.mean()
    if repair == "row":
        return torch.where(dead[:, None], rows, _quotient(sums, counts)), sums, counts
    if repair == "row and count":
        return torch.where(dead[:, None], rows, _quotient(sums, counts)), sums, torch.where(dead, fair, counts)
    if repair == "first rows":
        rows = rows[(dead.cumsum(0) - 1).clamp_min(0)]
    if repair != "sum":
        counts = torch.where(dead, 1.0 if repair == "one" else fair, counts)
    restarted = rows if repair == "mean" else rows * counts[:, None]
    sums = torch.where(dead[:, None], restarted, sums)
    return _quotient(sums, counts), sums, counts


def _restart_overwritten(
    codebook: Tensor, sums: Tensor, counts: Tensor, x: Tensor, decay: float, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    sums, counts = _follow(sums, counts, x, nearest(x, codebook), decay)
    return _quotient(sums, counts), sums, counts


def _restart_first(
    codebook: Tensor, sums: Tensor, counts: Tensor, x: Tensor, decay: float, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    indices = nearest(x, codebook)
    dead = counts < threshold * counts.mean()
    counts = torch.where(dead, counts.mean(), counts)
    sums = torch.where(dead[:, None], x[: len(codebook)] * counts[:, None], sums)
    sums, counts = _follow(sums, counts, x, indices, decay)
    return _quotient(sums, counts), sums, counts


@exercise
def restarting_step(answer: Callable) -> str:
    """Codebook, sums, counts, x, decay, threshold → the three of them after an EMA step and a restart of the dead."""
    mistakes = {
        "The restart does nothing: the codebook is computed from sums and counts, which still tell of the old place.": (
            _restart_overwritten
        ),
        "The restart lasts until the next step, which computes the codebook from the old sums and counts again.": (
            lambda *inputs: _restarting_step(*inputs, repair="row")
        ),
        "Row and count are new, and the sum still tells of the old place: the next step goes back there.": (
            lambda *inputs: _restarting_step(*inputs, repair="row and count")
        ),
        "A restarted codeword counts as one of average use: its count is the mean of the counts, not 1.": (
            lambda *inputs: _restarting_step(*inputs, repair="one")
        ),
        "Dead codeword number k goes to row k of x; these take the first rows, one after the other.": (
            lambda *inputs: _restarting_step(*inputs, repair="first rows")
        ),
        "A sum belongs to a count: the sum of a restarted codeword is its vector times its new count.": (
            lambda *inputs: _restarting_step(*inputs, repair="mean")
        ),
        "The restarted codewords stand right and keep their low counts: in the next step they are dead again.": (
            lambda *inputs: _restarting_step(*inputs, repair="sum")
        ),
        "The threshold is absolute: a codeword is dead below threshold times the mean of the counts.": (
            lambda *inputs: _restarting_step(*inputs, repair="absolute")
        ),
        "This restart lasts, but it comes before the batch is followed; let it come after, by the new counts.": (
            _restart_first
        ),
    }
    for num, dim, size, decay, threshold in [(128, 8, 64, 0.99, 0.1), (64, 2, 32, 0.9, 0.2), (40, 3, 12, 0.5, 0.3)]:
        dead = torch.arange(size) % 3 == 0
        codebook = torch.where(dead[:, None], 100.0, 1.0) * torch.randn(size, dim)
        counts = torch.where(dead, torch.tensor([0.02, 0.8]).repeat(size // 2), 20 + 80 * torch.rand(size))
        state = {"codebook": codebook, "sums": codebook * counts[:, None], "counts": counts}
        settings = {"decay": decay, "threshold": threshold}
        compare(answer, _restarting_step, mistakes, **state, x=torch.randn(num, dim), **settings)
    return "Every dead codeword restarts at its vector, and stays there."


@exercise
def steps_until_restart(answer: Callable) -> str:
    """Decay, threshold → the first whole t with decayᵗ below the threshold."""

    def exact(decay: float, threshold: float) -> float:
        return math.log(threshold) / math.log(decay)

    mistakes = {
        "Right but for the rounding: the answer is the first whole number of steps beyond it.": exact,
        "One step early: after so many steps the usage is still above the threshold.": lambda *inputs: math.floor(
            exact(*inputs)
        ),
        "One step late.": lambda *inputs: math.ceil(exact(*inputs)) + 1,
        "The logarithms are the wrong way round: decayᵗ = threshold gives t = log threshold / log decay.": (
            lambda *inputs: 1 / exact(*inputs)
        ),
        "1 / (1 − decay) is how far the average looks back; the threshold counts too.": lambda decay, threshold: round(
            1 / (1 - decay)
        ),
    }
    for decay, threshold in [(0.99, 0.1), (0.95, 0.1), (0.5, 0.3), (0.9, 0.02), (0.999, 0.5)]:
        compare(answer, lambda *inputs: math.ceil(exact(*inputs)), mistakes, decay=decay, threshold=threshold)
    return "t = log threshold / log decay, rounded up: 230 steps for 0.99 and 0.1."
