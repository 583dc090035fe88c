"""Exercises of 03 · Why do most codewords die?"""

import functools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from rvq_tutorial import metrics
from rvq_tutorial.course.check.judging import Wrong, compare, difference, exercise, parts, run
from rvq_tutorial.search import nearest

MISSED = (63 / 64) ** 64  # the chance that 64 vectors leave a codeword out

SEEN_MISTAKES = {
    "For a usage of 1 each vector would have to choose a codeword that no other chose: luck beyond belief.": 1.0,
    "That is the share that does not occur; the share that does is 1 minus it.": MISSED,
    "Right in percent; give the share as a number from 0 to 1.": 100 * (1 - MISSED),
    "That is the chance that one vector chooses one codeword; there are 64 vectors.": 1 / 64,
    "That is the chance that one vector leaves a codeword out; there are 64 vectors.": 63 / 64,
    "That is how many codewords occur; the share is that number divided by 64.": 64 * (1 - MISSED),
    "That is how many codewords are left out; the share that occurs is asked for.": 64 * MISSED,
    "That is the chance that all 64 occur; asked for is the share that occurs on average.": (
        math.factorial(64) / 64**64
    ),
    "That is the chance that all vectors choose one and the same codeword.": (1 / 64) ** 63,
    "Half is a guess: a codeword is left out by one vector with chance 63/64, and by all 64 with (63/64) ** 64.": 0.5,
}


@exercise
def seen_in_batch(answer: Callable) -> str:
    """→ the expected share of 64 equally likely codewords that occur among 64 vectors."""
    share = float(run(answer))
    for words, value in SEEN_MISTAKES.items():
        if math.isclose(share, value, rel_tol=0.01):
            raise Wrong(words)
    if math.isclose(share, 1 - (63 / 64) ** 63, rel_tol=1e-5):  # as near to the right share as a good guess
        raise Wrong("All 64 vectors have to leave the codeword out: the power is 64, not 63.")
    if share < 0:
        raise Wrong("A share is never below 0.")
    if not abs(share - (1 - MISSED)) < 0.02:
        raise Wrong(
            f"Not {share:.3g}: a codeword is left out by one vector with chance 63/64, by all with (63/64) ** 64."
        )
    return f"1 − (63/64)⁶⁴ = {1 - MISSED:.1%} of the codewords occur, on average."


def _share(indices: Tensor, codebook_size: int) -> Tensor:
    return torch.bincount(indices.flatten(), minlength=codebook_size) / indices.numel()


def _sum_of_logs(share: Tensor, log: Callable = torch.log2) -> Tensor:
    """Σ p log p."""
    return (share[share > 0] * log(share[share > 0])).sum()


PERPLEXITY_MISTAKES = {
    "That is the entropy in bits; the perplexity is 2 to that power.": lambda i, size: -_sum_of_logs(_share(i, size)),
    "That is the entropy, by the natural logarithm; the perplexity is e to that power.": lambda i, size: (
        -_sum_of_logs(_share(i, size), torch.log)
    ),
    "The logarithm is natural and the power's base is 2: both should be 2, or both e.": lambda i, size: (
        2 ** -_sum_of_logs(_share(i, size), torch.log)
    ),
    "The logarithm has base 2 and the power base e: both should be 2, or both e.": lambda i, size: (
        -_sum_of_logs(_share(i, size))
    ).exp(),
    "The sign is wrong: p log p is negative, so the entropy is minus the sum.": lambda i, size: (
        2 ** _sum_of_logs(_share(i, size))
    ),
    "That is how many different codewords occur; perplexity weighs them by how often they do.": lambda i, size: float(
        len(i.unique())
    ),
    "That is the usage, the share of the codewords that occur; perplexity weighs them by how often they do.": (
        metrics.usage
    ),
    "The entropy is the sum of −p log p over the codewords, not their mean.": lambda i, size: (
        2 ** -(_sum_of_logs(_share(i, size)) / len(i.unique()))
    ),
    "The entropy is the sum of −p log p over the codewords, not their mean, over all K.": lambda i, size: (
        2 ** -(_sum_of_logs(_share(i, size)) / size)
    ),
    "These are no shares: divide each count by the number of all indices, `indices.numel()`.": lambda i, size: (
        2 ** -_sum_of_logs(_share(i, size) * i.numel())
    ),
    "The logarithm is not weighed: each codeword adds −p log p, not −log p.": lambda i, size: (
        2 ** -_share(i, size)[_share(i, size) > 0].log2().sum()
    ),
    "That is 1 / Σ p², which counts codewords by weight too; the perplexity goes by the entropy.": lambda i, size: (
        1 / _share(i, size).square().sum()
    ),
    "A softmax of the counts is no share: divide each count by the number of all indices.": lambda i, size: (
        2 ** -_sum_of_logs(torch.bincount(i.flatten(), minlength=size).float().softmax(0))
    ),
    "That is log₂ K, the bits an index costs; the entropy is the bits it tells.": lambda i, size: math.log2(size),
}


def _has_nan(result: Any) -> bool:
    return isinstance(result, float | Tensor) and bool(torch.as_tensor(result).isnan().any())


@exercise
def perplexity(answer: Callable) -> str:
    """Indices of any shape, K → 2 to their entropy in bits."""
    rare = torch.cat([torch.zeros(500), torch.arange(64)]).long()
    for indices, codebook_size in [
        (torch.randint(8, (400,)) ** 2 // 7, 16),
        (rare, 64),
        (torch.randint(5, (3, 20)) ** 2 // 4, 5),
        (torch.zeros(7).long(), 4),
    ]:
        inputs = {"indices": indices, "codebook_size": codebook_size}
        try:
            result = run(answer, **inputs)
        except Wrong as wrong:
            flat = " Indices may have any shape: `flatten()` them first." if indices.ndim > 1 else ""
            raise Wrong(f"{wrong}{flat}") from wrong
        if _has_nan(result):
            raise Wrong("Where a codeword doesn't occur, 0 · log 0 is not a number: leave out the shares that are 0.")
        compare(answer, metrics.perplexity, PERPLEXITY_MISTAKES, **inputs)
    return "perplexity is right, for codewords that are never used too."


def _ema_step(
    codebook: Tensor, shares: Tensor, x: Tensor, indices: Tensor, decay: float, /, **slips: Callable
) -> tuple[Tensor, ...]:
    """The step, part by part; a slip makes the part of its name, from all that was made before."""
    made = SimpleNamespace(codebook=codebook, old=shares, x=x, indices=indices, decay=decay, num=len(x))

    def part(name: str, right: Callable) -> Any:
        setattr(made, name, slips.get(name, right)(made))
        return getattr(made, name)

    made.counts = torch.bincount(indices, minlength=len(codebook))
    part("errors", lambda s: torch.zeros_like(s.codebook).index_add(0, s.indices, s.x - s.codebook[s.indices]))
    part("shares", lambda s: s.decay * s.old + (1 - s.decay) * s.counts / s.num)
    part("n", lambda s: s.shares * s.num)
    part("rate", lambda s: 1 - s.decay)
    part("moved", lambda s: s.codebook + (s.rate / s.n.clamp_min(1e-30))[:, None] * s.errors)
    return part("result", lambda s: (s.moved, s.shares))


SWAPPED = "decay and 1 − decay have changed places"
EMA_SLIPS = {
    f"{SWAPPED}, twice: decay is the share of the past that is kept.": {
        "shares": lambda s: (1 - s.decay) * s.old + s.decay * s.counts / s.num,
        "rate": lambda s: s.decay,
    },
    f"{SWAPPED} in the shares: decay is the share of the past that is kept.": {
        "shares": lambda s: (1 - s.decay) * s.old + s.decay * s.counts / s.num
    },
    f"{SWAPPED} in the codewords' step: they move by (1 − decay) / n̄ times their errors.": {"rate": lambda s: s.decay},
    "The codewords move without the factor 1 − decay.": {"rate": lambda s: 1},
    "The new counts go into the shares in full: weigh them by 1 − decay.": {
        "shares": lambda s: s.decay * s.old + s.counts / s.num
    },
    "The shares are this batch's alone: keep decay times the old ones.": {"shares": lambda s: s.counts / s.num},
    "The codewords are divided by the shares from before the step; n̄ is the new one.": {"n": lambda s: s.old * s.num},
    "The error is divided by the batch's own count; n̄ is the moving average, share times the number of vectors.": {
        "n": lambda s: s.counts
    },
    "The error is divided by a share; n̄ is that share times the number of vectors.": {"n": lambda s: s.shares},
    "n̄ is the share times the number of vectors in the batch, not times K.": {
        "n": lambda s: s.shares * len(s.codebook)
    },
    "The sum of the errors is not divided by n̄.": {"n": lambda s: torch.ones_like(s.shares)},
    "The error's sum is divided by the batch's count and then by n̄: it is a sum over the vectors, no mean.": {
        "n": lambda s: s.shares * s.num * s.counts.clamp_min(1)
    },
    "These are shares: divide the counts by the number of vectors, or they grow with the batch.": {
        "shares": lambda s: s.decay * s.old + (1 - s.decay) * s.counts,
        "n": lambda s: s.shares,
    },
    "These are shares: divide the counts by the number of vectors before they are averaged.": {
        "shares": lambda s: s.decay * s.old + (1 - s.decay) * s.counts
    },
    "A share is a count divided by the number of vectors, and not measured in fair shares, times K.": {
        "shares": lambda s: s.decay * s.old + (1 - s.decay) * s.counts / s.num * len(s.codebook)
    },
    "A share is a count divided by the number of vectors, not by K.": {
        "shares": lambda s: s.decay * s.old + (1 - s.decay) * s.counts / len(s.codebook)
    },
    "The codewords move the wrong way: a vector's error is x − codeword.": {"rate": lambda s: s.decay - 1},
    "These are sums of vectors; the formula sums their errors, x − codeword.": {
        "errors": lambda s: torch.zeros_like(s.codebook).index_add(0, s.indices, s.x)
    },
    "Each error is counted from the mean of the batch; it is counted from the vector's own codeword.": {
        "errors": lambda s: torch.zeros_like(s.codebook).index_add(0, s.indices, s.x - s.x.mean(0))
    },
    "The codewords are right, and the shares that are returned are the old ones.": {
        "result": lambda s: (s.moved, s.old)
    },
    "The shares are right, and the codewords have not moved.": {"moved": lambda s: s.codebook},
    "That is how far the codewords move: add it to where they were.": {
        "moved": lambda s: (s.rate / s.n.clamp_min(1e-30))[:, None] * s.errors
    },
    "That averages the batch's means, however few vectors each stands for, and unused codewords shrink.": {
        "moved": lambda s: (
            s.decay * s.codebook
            + (1 - s.decay) * torch.zeros_like(s.codebook).index_add(0, s.indices, s.x) / s.counts.clamp_min(1)[:, None]
        )
    },
    "The codebook comes first, then the shares.": {"result": lambda s: (s.shares, s.moved)},
}
EMA_MISTAKES = {words: functools.partial(_ema_step, **slips) for words, slips in EMA_SLIPS.items()}


@exercise
def ema_step(answer: Callable) -> str:
    """Codebook, shares, x, indices, decay → the codebook and the shares after one step of the moving average."""
    for num, dim, size, decay in [(50, 3, 8, 0.9), (200, 2, 16, 0.99), (4, 4, 6, 0.7)]:
        shares = torch.rand(size)
        shares[-1] = 0  # this codeword was never used, and isn't now
        x, indices = torch.randn(num, dim), torch.randint(size - 1, (num,))
        state = {"codebook": torch.randn(size, dim), "shares": shares / shares.sum()}
        inputs = state | {"x": x, "indices": indices, "decay": decay}
        if any(map(_has_nan, parts(run(answer, **inputs), "the codebook", "the shares"))):
            raise Wrong("A codeword whose share is 0 turns into nan, 0 / 0: keep the divisor above 0 with clamp_min.")
        compare(answer, _ema_step, EMA_MISTAKES, **inputs)
    return "ema_step moves codewords and shares as the moving average does, for every decay tried."


def _restarting_step(
    codebook: Tensor, sums: Tensor, counts: Tensor, x: Tensor, decay: float, threshold: float, /, **slips: Callable
) -> tuple[Tensor, ...]:
    """Follow, then restart, part by part; a slip makes the part of its name, from all that was made before."""
    made = SimpleNamespace(codebook=codebook, sums=sums, counts=counts, x=x, threshold=threshold)

    def part(name: str, right: Callable) -> Any:
        setattr(made, name, slips.get(name, right)(made))
        return getattr(made, name)

    indices = nearest(x, codebook)
    made.old_counts = counts
    made.sums = decay * sums + (1 - decay) * torch.zeros_like(sums).index_add(0, indices, x)
    made.counts = decay * counts + (1 - decay) * torch.bincount(indices, minlength=len(counts))
    part("dead", lambda s: s.counts < s.threshold * s.counts.mean())
    part("rows", lambda s: s.x[: len(s.codebook)])
    part("fair", lambda s: s.counts.mean())
    part("weight", lambda s: s.fair)  # by which a restarted codeword's vector is multiplied to make its sum
    part("new_counts", lambda s: torch.where(s.dead, s.fair, s.counts))
    part("new_sums", lambda s: torch.where(s.dead[:, None], s.rows * s.weight, s.sums))
    part("moved", lambda s: s.new_sums / s.new_counts.clamp_min(1e-5)[:, None])
    return part("result", lambda s: (s.moved, s.new_sums, s.new_counts))


def _row_replaced(s: SimpleNamespace) -> Tensor:
    return torch.where(s.dead[:, None], s.rows, s.sums / s.counts.clamp_min(1e-5)[:, None])


KEPT_COUNTS, KEPT_SUMS, ROWS = (
    {"new_counts": lambda s: s.counts},
    {"new_sums": lambda s: s.sums},
    {"moved": _row_replaced},
)
BARE = {"weight": lambda s: 1}
RESTART_SLIPS: dict[str, dict[str, Callable]] = {
    "The restart does nothing: the codebook is computed from sums and counts, which still tell of the old place.": (
        KEPT_COUNTS | KEPT_SUMS
    ),
    "The restart lasts until the next step, which computes the codebook from the old sums and counts again.": (
        KEPT_COUNTS | KEPT_SUMS | ROWS
    ),
    "Row and count are new, and the sum still tells of the old place: the next step goes back there.": KEPT_SUMS | ROWS,
    "The count is new, and the sum still tells of the old place: their quotient is no vector of the batch.": KEPT_SUMS,
    "A sum belongs to a count: the sum of a restarted codeword is its vector times its new count.": BARE,
    "The rows are right, but a sum belongs to a count: the sum is the vector times its new count.": BARE | ROWS,
    "A sum belongs to a count: these sums are bare vectors, and the counts are still the old, low ones.": (
        BARE | KEPT_COUNTS
    ),
    "The rows are right, but the sums are bare vectors without their count, and the counts still low.": (
        BARE | KEPT_COUNTS | ROWS
    ),
    "The restarted codewords stand right and keep their low counts: in the next step they are dead again.": (
        KEPT_COUNTS | {"weight": lambda s: s.counts[:, None]}
    ),
    "The sums are those of average use, and the counts still low: a sum and its count change together.": KEPT_COUNTS,
    "The rows are right, the sums those of average use, and the counts still low: change them together.": (
        KEPT_COUNTS | ROWS
    ),
    "A restarted codeword counts as one of average use: its count is the mean of the counts, not 1.": {
        "fair": lambda s: 1.0
    },
    "Average use is the mean of the counts; N / K is that only once they have seen many batches of this size.": {
        "fair": lambda s: len(s.x) / len(s.codebook)
    },
    "1 / K is the fair share, and these are counts: average use is their mean.": {
        "fair": lambda s: 1 / len(s.codebook)
    },
    "Average use is the mean of all counts, not of the living codewords' alone.": {
        "fair": lambda s: s.counts[~s.dead].mean()
    },
    "That is the threshold as a count: a restarted codeword counts as one of average use.": {
        "fair": lambda s: s.threshold * s.counts.mean()
    },
    "Dead codeword number k goes to row k of x; these take the first rows, one after the other.": {
        "rows": lambda s: s.x[(s.dead.cumsum(0) - 1).clamp_min(0)]
    },
    "Dead codeword number k goes to row k of x; these all go to the first row.": {"rows": lambda s: s.x[:1]},
    "A restarted codeword goes to a vector of the batch; these go to the mean of the batch.": {
        "rows": lambda s: s.x.mean(0)
    },
    "The threshold is not taken of average use: a codeword is dead below threshold times the mean of the counts.": {
        "dead": lambda s: s.counts < s.threshold
    },
    "Average use is the mean of the counts, not their maximum: a codeword is dead below threshold times the mean.": {
        "dead": lambda s: s.counts < s.threshold * s.counts.max()
    },
    "Average use is the mean of the counts, not their sum: a codeword is dead below threshold times the mean.": {
        "dead": lambda s: s.counts < s.threshold * s.counts.sum()
    },
    "The living don't follow the batch: their codewords are the new sums divided by the new counts.": {
        "moved": lambda s: torch.where(s.dead[:, None], s.rows, s.codebook)
    },
    "Rows and counts are new, and the sums are 0: the next step goes to the origin.": ({"weight": lambda s: 0} | ROWS),
    "Dead is what the counts from before the step say; let the new counts say it.": {
        "dead": lambda s: s.old_counts < s.threshold * s.old_counts.mean()
    },
    "The living restart and the dead stay: dead is a count below the threshold.": {
        "dead": lambda s: s.counts > s.threshold * s.counts.mean()
    },
    "Return the codebook, the sums, the counts, in this order.": {
        "result": lambda s: (s.moved, s.new_counts, s.new_sums)
    },
}


def _restart_first(
    codebook: Tensor, sums: Tensor, counts: Tensor, x: Tensor, decay: float, threshold: float
) -> tuple[Tensor, ...]:
    """Restart by the counts from before the step, and follow the batch with the indices of the old codebook."""
    indices = nearest(x, codebook)
    dead = counts < threshold * counts.mean()
    counts = torch.where(dead, counts.mean(), counts)
    sums = torch.where(dead[:, None], x[: len(codebook)] * counts[:, None], sums)
    counts = decay * counts + (1 - decay) * torch.bincount(indices, minlength=len(counts))
    sums = decay * sums + (1 - decay) * torch.zeros_like(sums).index_add(0, indices, x)
    return sums / counts.clamp_min(1e-5)[:, None], sums, counts


RESTART_MISTAKES = {
    "decay and 1 − decay have changed places: decay is the share of the past that is kept.": (
        lambda *of: _restarting_step(*of[:4], 1 - of[4], of[5])
    ),
    "That is right for a decay of 0.99 and a threshold of 0.1 alone; use the arguments.": (
        lambda *of: _restarting_step(*of[:4], 0.99, 0.1)
    ),
    **{words: functools.partial(_restarting_step, **slips) for words, slips in RESTART_SLIPS.items()},
    "This restart lasts, but comes before the batch is followed; let it come after, by the new counts.": _restart_first,
}


def _restarts_at_other_rows(result: Any, inputs: dict[str, Any]) -> bool:
    """Whether all is right but for the rows of x, which may have been drawn at random."""
    if not isinstance(result, tuple | list) or not isinstance(result[0], Tensor):
        return False
    with_its_rows = _restarting_step(*inputs.values(), rows=lambda s: s.x[nearest(result[0], s.x)])
    return not difference(result, with_its_rows) and bool(difference(result, _restarting_step(*inputs.values())))


@exercise
def restarting_step(answer: Callable) -> str:
    """Codebook, sums, counts, x, decay, threshold → the three of them after an EMA step and a restart of the dead."""
    for num, dim, size, decay, threshold in [(128, 8, 64, 0.99, 0.1), (64, 2, 32, 0.9, 0.2), (40, 3, 12, 0.5, 0.3)]:
        dead, barely = torch.arange(size) % 3 == 0, 1  # one more dies in this step, by the new counts alone
        far = dead | (torch.arange(size) == barely)
        codebook = torch.where(far[:, None], 100.0, 1.0) * torch.randn(size, dim)
        counts = torch.where(dead, torch.tensor([0.0005, 2.5]).repeat(size // 2), 20 + 80 * torch.rand(size))
        counts[barely] = 0
        margin = 0.5 * threshold * (1 - decay) / decay * num / size
        counts[barely] = (threshold * counts.mean() + margin) / (1 - threshold / size)
        state = {"codebook": codebook, "sums": codebook * counts[:, None], "counts": counts}
        inputs = state | {"x": torch.randn(num, dim), "decay": decay, "threshold": threshold}
        if _restarts_at_other_rows(run(answer, **inputs), inputs):
            raise Wrong("Dead codeword number k goes to row k of x; these go to other rows of it.")
        compare(answer, _restarting_step, RESTART_MISTAKES, **inputs)
    return "Every dead codeword restarts at its vector, and stays there."


def _steps(decay: float, threshold: float) -> float:
    """Where decayᵗ is exactly the threshold."""
    return math.log(threshold) / math.log(decay)


STEPS_MISTAKES = {
    "Right but for the rounding: the answer is the first whole number of steps beyond it.": _steps,
    "One step early: after so many steps the share is still above the threshold.": lambda *of: math.floor(_steps(*of)),
    "One step late.": lambda *of: math.ceil(_steps(*of)) + 1,
    "The logarithms are the wrong way round: decayᵗ = threshold gives t = log threshold / log decay.": lambda *of: (
        1 / _steps(*of)
    ),
    "The logarithms are the wrong way round, and rounded: decayᵗ = threshold gives t = log threshold / log decay.": (
        lambda *of: math.ceil(1 / _steps(*of))
    ),
    "A share below the threshold is asked for; t = −log threshold / log decay has the wrong sign.": [
        lambda *of: -_steps(*of),
        lambda *of: math.ceil(-_steps(*of)),
        lambda *of: math.floor(-_steps(*of)),
    ],
    "1 / (1 − decay) is how far the average looks back; the threshold counts too.": lambda decay, threshold: round(
        1 / (1 - decay)
    ),
    "The share falls by a factor in each step, not by 1 − decay each time.": lambda decay, threshold: math.ceil(
        round((1 - threshold) / (1 - decay), 9)
    ),
    "Each step leaves the share times decay, not times 1 − decay.": lambda decay, threshold: math.ceil(
        _steps(1 - decay, threshold)
    ),
    "The two logarithms have different bases: take both by the same.": lambda decay, threshold: math.ceil(
        math.log10(threshold) / math.log(decay)
    ),
    "That is how small the share has become, not after how many steps.": lambda decay, threshold: (
        decay ** math.ceil(_steps(decay, threshold))
    ),
    "−log threshold / (1 − decay) is near, for a decay near 1; the law has log decay below the line.": (
        lambda decay, threshold: math.ceil(-math.log(threshold) / (1 - decay))
    ),
    "That is the answer for a decay of 0.99 and a threshold of 0.1 alone; use the arguments.": lambda *of: 230,
}


@exercise
def steps_until_restart(answer: Callable) -> str:
    """Decay, threshold → the first whole t with decayᵗ below the threshold."""
    for decay, threshold in [(0.6, 0.02), (0.99, 0.1), (0.95, 0.1), (0.5, 0.3), (0.999, 0.5)]:
        compare(answer, lambda *of: math.ceil(_steps(*of)), STEPS_MISTAKES, decay=decay, threshold=threshold)
    return "t = log threshold / log decay, rounded up: 230 steps for 0.99 and 0.1."
