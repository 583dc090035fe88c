"""Wrong answers to the exercises of 03 · Why do most codewords die?"""

import math
from typing import Any

import torch

from rvq_tutorial import metrics, nearest

# Exercise → wrong answers, each with a regular expression for what its learner is told.
WRONG: dict[str, list[tuple[Any, str]]] = {}

WRONG["seen_in_batch"] = [
    (lambda: 1.0, "luck beyond belief"),
    (lambda: (63 / 64) ** 64, "does not occur"),
    (lambda: 100 * (1 - (63 / 64) ** 64), "from 0 to 1"),
    (lambda: 1 / 64, "one vector chooses one codeword"),
    (lambda: 40.6, "divided by 64"),
    (lambda: 0.5, "Not 0.5: "),
    (lambda: "most of them", "can't be used"),
]


def _share(indices: torch.Tensor, size: int) -> torch.Tensor:
    return torch.bincount(indices.flatten(), minlength=size) / indices.numel()


def _entropy(indices: torch.Tensor, size: int) -> torch.Tensor:
    return torch.special.entr(_share(indices, size)).sum()  # in nats


WRONG["perplexity"] = [
    (lambda indices, size: 2 ** -(_share(indices, size) * _share(indices, size).log2()).sum(), "0 · log 0"),
    (lambda indices, size: _entropy(indices, size) / math.log(2), "is the entropy in bits"),
    (lambda indices, size: 2 ** _entropy(indices, size), "natural and the power's base is 2"),
    (lambda indices, size: (_entropy(indices, size) / math.log(2)).exp(), "base 2 and the power base e"),
    (lambda indices, size: (-_entropy(indices, size)).exp(), "sign is wrong"),
    (lambda indices, size: len(indices.unique()), "how many different codewords"),
    (lambda indices, size: metrics.usage(indices, size), "the result should be .* and is"),
    (lambda indices, size: _entropy(indices[:, None].argmax(1), size).exp(), "the result should be .* and is"),
]


def _ema(codebook, usage, x, indices, decay, count=lambda counts, usage: usage, sign=1, per=None):
    """One step of the moving average; `count` makes N, of the batch's counts and the usage times N vectors."""
    counts = torch.bincount(indices, minlength=len(codebook))
    errors = torch.zeros_like(codebook).index_add(0, indices, x - codebook[indices])
    new = decay * usage + (1 - decay) * counts / (per or len(x))
    divisor = count(counts, new * len(x)).clamp_min(1e-30)
    return codebook + sign * (1 - decay) * errors / divisor[:, None], new


def _ema_dividing_by_zero(codebook, usage, x, indices, decay):
    new = decay * usage + (1 - decay) * torch.bincount(indices, minlength=len(codebook)) / len(x)
    errors = torch.zeros_like(codebook).index_add(0, indices, x - codebook[indices])
    return codebook + (1 - decay) * errors / (new * len(x))[:, None], new


def _ema_from_zero(codebook, usage, x, indices, decay):
    """The step of codewords at 0, where a vector's error is the vector, added to the codebook."""
    step, new = _ema(torch.zeros_like(codebook), usage, x, indices, decay)
    return codebook + step, new


def _ema_in_place(codebook, usage, x, indices, decay):
    codebook += 1
    return codebook, usage


WRONG["ema_step"] = [
    (_ema_dividing_by_zero, "turns into nan"),
    (lambda *inputs: _ema(*inputs[:4], 1 - inputs[4]), "changed places"),
    (lambda *inputs: _ema(*inputs, count=lambda *_: inputs[1] * len(inputs[2])), "from before the step"),
    (lambda *inputs: _ema(*inputs, count=lambda counts, usage: counts), "the batch's own count"),
    (lambda *inputs: _ema(*inputs, count=lambda counts, usage: usage / len(inputs[2])), "is divided by a share"),
    (lambda *inputs: _ema(*inputs, per=1, count=lambda counts, usage: usage / len(inputs[2])), "The usage is a share"),
    (lambda *inputs: _ema(*inputs, sign=-1), "the wrong way"),
    (lambda codebook, *rest: _ema_from_zero(codebook, *rest), "sums of vectors"),
    (lambda *inputs: _ema(*inputs)[0], "Return 2 things"),
    (_ema_in_place, "changes codebook in place"),
]


def _restart(codebook, sums, counts, x, decay, threshold, first=False, row=False, absolute=False, weight=None):
    """EMA and restart, in the order and with the part of the bookkeeping that the settings say."""
    indices = nearest(x, codebook)

    def follow(sums, counts):
        counts = decay * counts + (1 - decay) * torch.bincount(indices, minlength=len(codebook))
        return decay * sums + (1 - decay) * torch.zeros_like(codebook).index_add(0, indices, x), counts

    if not first:
        sums, counts = follow(sums, counts)
    dead = counts < threshold * (1 if absolute else counts.mean())
    if not row:
        weight = counts.mean() if weight is None else weight
        sums = torch.where(dead[:, None], weight * x[: len(codebook)], sums)
        counts = torch.where(dead, counts.mean(), counts)
    if first:
        sums, counts = follow(sums, counts)
    codebook = sums / counts.clamp_min(1e-5)[:, None]
    return torch.where(dead[:, None], x[: len(codebook)], codebook) if row and not first else codebook, sums, counts


def _restart_beside_old_sums(codebook, sums, counts, x, decay, threshold):
    """Row and count are replaced, and the sum forgotten."""
    moved, old_sums, old_counts = _restart(codebook, sums, counts, x, decay, threshold, row=True)
    return moved, old_sums, torch.where(old_counts < threshold * old_counts.mean(), old_counts.mean(), old_counts)


def _restart_with_count_one(codebook, sums, counts, x, decay, threshold):
    moved, old_sums, old_counts = _restart(codebook, sums, counts, x, decay, threshold, row=True)
    dead = old_counts < threshold * old_counts.mean()
    return moved, torch.where(dead[:, None], moved, old_sums), torch.where(dead, 1.0, old_counts)


def _restart_at_first_rows(codebook, sums, counts, x, decay, threshold):
    _, sums, counts = _restart(codebook, sums, counts, x, decay, threshold, row=True)
    dead = counts < threshold * counts.mean()
    counts = torch.where(dead, counts.mean(), counts)
    sums[dead] = x[: dead.sum()] * counts[dead, None]
    return sums / counts[:, None], sums, counts


def _restart_with_low_counts(codebook, sums, counts, x, decay, threshold):
    moved, *_ = _restart(codebook, sums, counts, x, decay, threshold)
    counts = decay * counts + (1 - decay) * torch.bincount(nearest(x, codebook), minlength=len(codebook))
    return moved, moved * counts[:, None], counts


WRONG["restarting_step"] = [
    (lambda *inputs: _restart(*inputs, first=True, row=True), "The restart does nothing"),
    (lambda *inputs: _restart(*inputs, row=True), "lasts until the next step"),
    (lambda *inputs: _restart(*inputs, weight=1), "A sum belongs to a count"),
    (_restart_beside_old_sums, "the sum still tells of the old place"),
    (_restart_with_count_one, "the mean of the counts, not 1"),
    (_restart_at_first_rows, "goes to row k of x"),
    (_restart_with_low_counts, "keep their low counts"),
    (lambda *inputs: _restart(*inputs, absolute=True), "threshold is absolute"),
    (lambda *inputs: _restart(*inputs, first=True), "comes before the batch is followed"),
    (lambda *inputs: _restart(*inputs)[0], "should be 3 things"),
]

WRONG["steps_until_restart"] = [
    (lambda decay, threshold: math.log(threshold) / math.log(decay), "Right but for the rounding"),
    (lambda decay, threshold: int(math.log(threshold) / math.log(decay)), "One step early"),
    (lambda decay, threshold: math.ceil(math.log(threshold) / math.log(decay)) + 1, "One step late"),
    (lambda decay, threshold: math.log(decay) / math.log(threshold), "wrong way round"),
    (lambda decay, threshold: round(1 / (1 - decay)), "how far the average looks back"),
    (lambda decay, threshold: 0, "should be 230, and is 0"),
]
