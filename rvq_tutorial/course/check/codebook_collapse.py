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
from rvq_tutorial.course.check.sentences import say
from rvq_tutorial.search import nearest

MISSED = (63 / 64) ** 64  # the chance that 64 vectors leave a codeword out

SEEN_MISTAKES = dict(
    all=1.0,
    missed=MISSED,
    percent=100 * (1 - MISSED),
    one_chance=1 / 64,
    one_miss=63 / 64,
    number_of_codewords=64 * (1 - MISSED),
    number_missed=64 * MISSED,
    chance_of_all=math.factorial(64) / 64**64,
    chance_of_one=(1 / 64) ** 63,
    half=0.5,
)


@exercise
def seen_in_batch(answer: Callable) -> str:
    """→ the expected share of 64 equally likely codewords that occur among 64 vectors."""
    share = float(run(answer))
    for name, value in SEEN_MISTAKES.items():
        if math.isclose(share, value, rel_tol=0.01):
            raise Wrong(name)
    if math.isclose(share, 1 - (63 / 64) ** 63, rel_tol=1e-5):  # as near to the right share as a good guess
        raise Wrong("power_63")
    if share < 0:
        raise Wrong("below_0")
    if not abs(share - (1 - MISSED)) < 0.02:
        raise Wrong("other", share=share)
    return say("right", share=1 - MISSED)


def _share(indices: Tensor, codebook_size: int) -> Tensor:
    return torch.bincount(indices.flatten(), minlength=codebook_size) / indices.numel()


def _sum_of_logs(share: Tensor, log: Callable = torch.log2) -> Tensor:
    """Σ p log p."""
    return (share[share > 0] * log(share[share > 0])).sum()


PERPLEXITY_MISTAKES = dict(
    entropy=lambda i, size: -_sum_of_logs(_share(i, size)),
    entropy_by_e=lambda i, size: -_sum_of_logs(_share(i, size), torch.log),
    by_e_of_2=lambda i, size: 2 ** -_sum_of_logs(_share(i, size), torch.log),
    by_2_of_e=lambda i, size: (-_sum_of_logs(_share(i, size))).exp(),
    sign=lambda i, size: 2 ** _sum_of_logs(_share(i, size)),
    number_of_codewords=lambda i, size: float(len(i.unique())),
    usage=metrics.usage,
    mean=lambda i, size: 2 ** -(_sum_of_logs(_share(i, size)) / len(i.unique())),
    mean_of_all=lambda i, size: 2 ** -(_sum_of_logs(_share(i, size)) / size),
    counts=lambda i, size: 2 ** -_sum_of_logs(_share(i, size) * i.numel()),
    unweighed=lambda i, size: 2 ** -_share(i, size)[_share(i, size) > 0].log2().sum(),
    by_squares=lambda i, size: 1 / _share(i, size).square().sum(),
    softmax=lambda i, size: 2 ** -_sum_of_logs(torch.bincount(i.flatten(), minlength=size).float().softmax(0)),
    log_of_size=lambda i, size: math.log2(size),
)


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
            if indices.ndim > 1:
                raise Wrong("any_shape", wrong=wrong) from wrong
            raise
        if _has_nan(result):
            raise Wrong("nan")
        compare(answer, metrics.perplexity, PERPLEXITY_MISTAKES, **inputs)
    return say("right")


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


EMA_SLIPS = dict(
    swapped_twice={
        "shares": lambda s: (1 - s.decay) * s.old + s.decay * s.counts / s.num,
        "rate": lambda s: s.decay,
    },
    swapped_in_shares={"shares": lambda s: (1 - s.decay) * s.old + s.decay * s.counts / s.num},
    swapped_in_step={"rate": lambda s: s.decay},
    without_factor={"rate": lambda s: 1},
    counts_in_full={"shares": lambda s: s.decay * s.old + s.counts / s.num},
    batch_alone={"shares": lambda s: s.counts / s.num},
    old_shares_divide={"n": lambda s: s.old * s.num},
    batch_divides={"n": lambda s: s.counts},
    share_divides={"n": lambda s: s.shares},
    times_k={"n": lambda s: s.shares * len(s.codebook)},
    not_divided={"n": lambda s: torch.ones_like(s.shares)},
    divided_twice={"n": lambda s: s.shares * s.num * s.counts.clamp_min(1)},
    shares_of_counts={
        "shares": lambda s: s.decay * s.old + (1 - s.decay) * s.counts,
        "n": lambda s: s.shares,
    },
    counts_averaged={"shares": lambda s: s.decay * s.old + (1 - s.decay) * s.counts},
    fair_shares={"shares": lambda s: s.decay * s.old + (1 - s.decay) * s.counts / s.num * len(s.codebook)},
    divided_by_k={"shares": lambda s: s.decay * s.old + (1 - s.decay) * s.counts / len(s.codebook)},
    wrong_way={"rate": lambda s: s.decay - 1},
    sums_of_vectors={"errors": lambda s: torch.zeros_like(s.codebook).index_add(0, s.indices, s.x)},
    errors_from_mean={"errors": lambda s: torch.zeros_like(s.codebook).index_add(0, s.indices, s.x - s.x.mean(0))},
    old_shares={"result": lambda s: (s.moved, s.old)},
    unmoved={"moved": lambda s: s.codebook},
    the_move_alone={"moved": lambda s: (s.rate / s.n.clamp_min(1e-30))[:, None] * s.errors},
    means_averaged={
        "moved": lambda s: (
            s.decay * s.codebook
            + (1 - s.decay) * torch.zeros_like(s.codebook).index_add(0, s.indices, s.x) / s.counts.clamp_min(1)[:, None]
        )
    },
    shares_first={"result": lambda s: (s.shares, s.moved)},
)
EMA_MISTAKES = {name: functools.partial(_ema_step, **slips) for name, slips in EMA_SLIPS.items()}


@exercise
def ema_step(answer: Callable) -> str:
    """Codebook, shares, x, indices, decay → the codebook and the shares after one step of the moving average."""
    for num, dim, size, decay in [(50, 3, 8, 0.9), (200, 2, 16, 0.99), (4, 4, 6, 0.7)]:
        shares = torch.rand(size)
        shares[-1] = 0  # this codeword was never used, and isn't now
        x, indices = torch.randn(num, dim), torch.randint(size - 1, (num,))
        state = {"codebook": torch.randn(size, dim), "shares": shares / shares.sum()}
        inputs = state | {"x": x, "indices": indices, "decay": decay}
        if any(map(_has_nan, parts(run(answer, **inputs), "codebook", "shares"))):
            raise Wrong("nan")
        compare(answer, _ema_step, EMA_MISTAKES, **inputs)
    return say("right")


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


KEPT_COUNTS, KEPT_SUMS = {"new_counts": lambda s: s.counts}, {"new_sums": lambda s: s.sums}
ROWS, BARE = {"moved": _row_replaced}, {"weight": lambda s: 1}
RESTART_SLIPS = dict(
    does_nothing=KEPT_COUNTS | KEPT_SUMS,
    until_next_step=KEPT_COUNTS | KEPT_SUMS | ROWS,
    old_sum=KEPT_SUMS | ROWS,
    new_count_alone=KEPT_SUMS,
    bare_sum=BARE,
    bare_sum_right_row=BARE | ROWS,
    bare_sum_old_count=BARE | KEPT_COUNTS,
    bare_sum_old_count_right_row=BARE | KEPT_COUNTS | ROWS,
    dead_again=KEPT_COUNTS | {"weight": lambda s: s.counts[:, None]},
    low_count=KEPT_COUNTS,
    low_count_right_row=KEPT_COUNTS | ROWS,
    count_of_1={"fair": lambda s: 1.0},
    count_of_the_batch={"fair": lambda s: len(s.x) / len(s.codebook)},
    fair_share={"fair": lambda s: 1 / len(s.codebook)},
    mean_of_the_living={"fair": lambda s: s.counts[~s.dead].mean()},
    threshold_as_count={"fair": lambda s: s.threshold * s.counts.mean()},
    first_rows={"rows": lambda s: s.x[(s.dead.cumsum(0) - 1).clamp_min(0)]},
    first_row={"rows": lambda s: s.x[:1]},
    mean_of_batch={"rows": lambda s: s.x.mean(0)},
    threshold_alone={"dead": lambda s: s.counts < s.threshold},
    threshold_of_maximum={"dead": lambda s: s.counts < s.threshold * s.counts.max()},
    threshold_of_sum={"dead": lambda s: s.counts < s.threshold * s.counts.sum()},
    living_unmoved={"moved": lambda s: torch.where(s.dead[:, None], s.rows, s.codebook)},
    sum_of_0={"weight": lambda s: 0} | ROWS,
    dead_before_the_step={"dead": lambda s: s.old_counts < s.threshold * s.old_counts.mean()},
    living_restart={"dead": lambda s: s.counts > s.threshold * s.counts.mean()},
    order={"result": lambda s: (s.moved, s.new_counts, s.new_sums)},
)


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


RESTART_MISTAKES = dict(
    swapped=lambda *of: _restarting_step(*of[:4], 1 - of[4], of[5]),
    constants=lambda *of: _restarting_step(*of[:4], 0.99, 0.1),
    **{name: functools.partial(_restarting_step, **slips) for name, slips in RESTART_SLIPS.items()},
    restart_first=_restart_first,
)


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
            raise Wrong("other_rows")
        compare(answer, _restarting_step, RESTART_MISTAKES, **inputs)
    return say("right")


def _steps(decay: float, threshold: float) -> float:
    """Where decayᵗ is exactly the threshold."""
    return math.log(threshold) / math.log(decay)


STEPS_MISTAKES = dict(
    not_whole=_steps,
    one_early=lambda *of: math.floor(_steps(*of)),
    one_late=lambda *of: math.ceil(_steps(*of)) + 1,
    upside_down=lambda *of: 1 / _steps(*of),
    upside_down_and_rounded=lambda *of: math.ceil(1 / _steps(*of)),
    negative=[lambda *of: -_steps(*of), lambda *of: math.ceil(-_steps(*of)), lambda *of: math.floor(-_steps(*of))],
    looks_back=lambda decay, threshold: round(1 / (1 - decay)),
    falls_by_steps=lambda decay, threshold: math.ceil(round((1 - threshold) / (1 - decay), 9)),
    times_one_minus_decay=lambda decay, threshold: math.ceil(_steps(1 - decay, threshold)),
    two_bases=lambda decay, threshold: math.ceil(math.log10(threshold) / math.log(decay)),
    share_then=lambda decay, threshold: decay ** math.ceil(_steps(decay, threshold)),
    near=lambda decay, threshold: math.ceil(-math.log(threshold) / (1 - decay)),
    constants=lambda *of: 230,
)


@exercise
def steps_until_restart(answer: Callable) -> str:
    """Decay, threshold → the first whole t with decayᵗ below the threshold."""
    for decay, threshold in [(0.6, 0.02), (0.99, 0.1), (0.95, 0.1), (0.5, 0.3), (0.999, 0.5)]:
        compare(answer, lambda *of: math.ceil(_steps(*of)), STEPS_MISTAKES, decay=decay, threshold=threshold)
    return say("right")
