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
    (lambda: 0.5, "Half is a guess"),
    (lambda: 63 / 64, "leaves a codeword out"),
    (lambda: 64 * (63 / 64) ** 64, "how many codewords are left out"),
    (lambda: math.factorial(64) / 64**64, "chance that all 64 occur"),
    (lambda: (1 / 64) ** 63, "one and the same codeword"),
    (lambda: -0.365, "never below 0"),
    (lambda: 1 - (63 / 64) ** 63, "the power is 64, not 63"),
    (lambda: 0.8, "Not 0.8: .* by all with"),
    (lambda: "most of them", "can't be used"),
]


def _share(indices: torch.Tensor, size: int) -> torch.Tensor:
    return torch.bincount(indices.flatten(), minlength=size) / indices.numel()


def _entropy(indices: torch.Tensor, size: int) -> torch.Tensor:
    return torch.special.entr(_share(indices, size)).sum()  # in nats


def _perplexity(share: torch.Tensor, total=torch.sum) -> torch.Tensor:
    return 2 ** -total(share[share > 0] * share[share > 0].log2())


def _perplexity_of_flat_indices_alone(indices: torch.Tensor, size: int) -> torch.Tensor:
    return _perplexity(torch.bincount(indices, minlength=size) / indices.numel())


WRONG["perplexity"] = [
    (lambda indices, size: 2 ** -(_share(indices, size) * _share(indices, size).log2()).sum(), "0 · log 0"),
    (lambda indices, size: _entropy(indices, size) / math.log(2), "is the entropy in bits"),
    (lambda indices, size: 2 ** _entropy(indices, size), "natural and the power's base is 2"),
    (lambda indices, size: (_entropy(indices, size) / math.log(2)).exp(), "base 2 and the power base e"),
    (lambda indices, size: (-_entropy(indices, size)).exp(), "sign is wrong"),
    (lambda indices, size: len(indices.unique()), "how many different codewords"),
    (lambda indices, size: metrics.usage(indices, size), "That is the usage"),
    (lambda indices, size: _entropy(indices, size), "e to that power"),
    (_perplexity_of_flat_indices_alone, "flatten"),
    (lambda indices, size: _perplexity(torch.bincount(indices.flatten(), minlength=size)), "These are no shares"),
    (lambda indices, size: _perplexity(torch.bincount(indices.flatten()) / size), "These are no shares"),
    (lambda indices, size: _perplexity(torch.bincount(indices.flatten()) / len(indices)), "These are no shares"),
    (lambda indices, size: _perplexity(_share(indices, size), torch.mean), "not their mean"),
    (lambda indices, size: 2 ** (_entropy(indices, size) / math.log(2) / size), "not their mean, over all K"),
    (lambda indices, size: 2 ** -_share(indices, size)[_share(indices, size) > 0].log2().sum(), "not weighed"),
    (lambda indices, size: 1 / (_share(indices, size) ** 2).sum(), "1 / Σ p²"),
    (
        lambda indices, size: _perplexity(torch.bincount(indices.flatten(), minlength=size).float().softmax(0)),
        "A softmax of the counts",
    ),
    (lambda indices, size: math.log2(size), "log₂ K"),
]


def _ema(codebook, shares, x, indices, decay, *, old=None, new=None, per=None, rate=None, count=None, errors=None):
    """One step of the moving average. Given: the weights of the old and the new share, what the counts are divided by,
    the codewords' rate, n̄ (of counts, the new shares and N), the vectors that are summed.
    """
    old, new = decay if old is None else old, 1 - decay if new is None else new
    counts = torch.bincount(indices, minlength=len(codebook))
    errors = x - codebook[indices] if errors is None else errors
    error_sums = torch.zeros_like(codebook).index_add(0, indices, errors)
    moved = old * shares + new * counts / (per or len(x))
    divisor = count(counts, moved, len(x)) if count else moved * len(x)
    step = (1 - decay if rate is None else rate) / divisor.clamp_min(1e-30)
    return codebook + step[:, None] * error_sums, moved


def _ema_dividing_by_zero(codebook, shares, x, indices, decay):
    new = decay * shares + (1 - decay) * torch.bincount(indices, minlength=len(codebook)) / len(x)
    errors = torch.zeros_like(codebook).index_add(0, indices, x - codebook[indices])
    return codebook + (1 - decay) * errors / (new * len(x))[:, None], new


def _ema_in_place(codebook, shares, x, indices, decay):
    codebook += 1
    return codebook, shares


def _ema_of_means(codebook, shares, x, indices, decay):
    counts = torch.bincount(indices, minlength=len(codebook))
    means = torch.zeros_like(codebook).index_add(0, indices, x) / counts.clamp_min(1)[:, None]
    return decay * codebook + (1 - decay) * means, decay * shares + (1 - decay) * counts / len(x)


WRONG["ema_step"] = [
    (_ema_dividing_by_zero, "turns into nan"),
    (lambda *i: _ema(*i[:4], 1 - i[4]), "changed places, twice"),
    (lambda *i: _ema(*i, old=1 - i[4], new=i[4]), "changed places in the shares"),
    (lambda *i: _ema(*i, rate=i[4]), "changed places in the codewords' step"),
    (lambda *i: _ema(*i, rate=1), "without the factor 1 − decay"),
    (lambda *i: _ema(*i, new=1), "weigh them by 1 − decay"),
    (lambda *i: _ema(*i, old=0, new=1), "this batch's alone"),
    (lambda *i: _ema(*i, count=lambda counts, new, num: i[1] * num), "from before the step"),
    (lambda *i: _ema(*i, count=lambda counts, new, num: counts), "the batch's own count"),
    (lambda *i: _ema(*i, count=lambda counts, new, num: new), "is divided by a share"),
    (lambda *i: _ema(*i, count=lambda counts, new, num: new * len(i[0])), "not times K"),
    (
        lambda *i: _ema(*i, count=lambda counts, new, num: new * num * counts.clamp_min(1)),
        "by the batch's count and then",
    ),
    (lambda *i: _ema(*i, per=1, count=lambda counts, new, num: new), "or they grow with the batch"),
    (lambda *i: _ema(*i, per=1), "before they are averaged"),
    (lambda *i: _ema(*i, count=lambda counts, new, num: torch.ones_like(new)), "not divided by n̄"),
    (lambda *i: _ema(*i, per=len(i[2]) / len(i[0])), "not measured in fair shares"),
    (lambda *i: _ema(*i, per=len(i[0])), "not by K"),
    (lambda *i: _ema(*i, errors=i[0][i[3]] - i[2]), "the wrong way"),
    (lambda *i: _ema(*i, errors=i[2]), "sums of vectors"),
    (lambda *i: _ema(*i, errors=i[2] - i[2].mean(0)), "from the mean of the batch"),
    (lambda *i: (_ema(*i)[0], i[1]), "are the old ones"),
    (lambda *i: (i[0], _ema(*i)[1]), "have not moved"),
    (lambda *i: (_ema(*i)[0] - i[0], _ema(*i)[1]), "add it to where they were"),
    (_ema_of_means, "averages the batch's means"),
    (lambda *i: _ema(*i)[::-1], "The codebook comes first"),
    (lambda *i: _ema(*i)[0], "Return 2 things"),
    (_ema_in_place, "changes codebook in place"),
]


def _follow(codebook, sums, counts, x, decay):
    indices = nearest(x, codebook)
    counts = decay * counts + (1 - decay) * torch.bincount(indices, minlength=len(codebook))
    return decay * sums + (1 - decay) * torch.zeros_like(codebook).index_add(0, indices, x), counts


def _restart(
    codebook, sums, counts, x, decay, threshold, *, dead=None, rows=None, fair=None, total=None, new=None, row=False
):
    """EMA and restart. Given: who is dead and what average use is (of the new counts), the rows of x, and the sums and
    counts of the restarted; row: the codebook's rows are replaced as well.
    """
    sums, counts = _follow(codebook, sums, counts, x, decay)
    dead = dead(counts) if dead else counts < threshold * counts.mean()
    fair = fair(counts) if fair else counts.mean()
    rows = x[: len(codebook)] if rows is None else rows(dead)
    sums = torch.where(dead[:, None], total(rows, fair, sums) if total else rows * fair, sums)
    counts = torch.where(dead, new(fair, counts) if new else fair, counts)
    moved = sums / counts.clamp_min(1e-5)[:, None]
    return torch.where(dead[:, None], rows, moved) if row else moved, sums, counts


def _old_sums(rows, fair, sums):
    return sums


def _bare_rows(rows, fair, sums):
    return rows


def _old_counts(fair, counts):
    return counts


def _encodec(codebook, sums, counts, x, decay, threshold):
    """The restart is overwritten."""
    indices = nearest(x, codebook)
    dead = counts < threshold * counts.mean()
    codebook = torch.where(dead[:, None], x[: len(codebook)], codebook)
    counts = decay * counts + (1 - decay) * torch.bincount(indices, minlength=len(codebook))
    sums = decay * sums + (1 - decay) * torch.zeros_like(codebook).index_add(0, indices, x)
    return sums / counts.clamp_min(1e-5)[:, None], sums, counts


def _restart_before_following(codebook, sums, counts, x, decay, threshold):
    """All three are restarted, and then decay with the rest."""
    indices = nearest(x, codebook)
    dead = counts < threshold * counts.mean()
    counts = torch.where(dead, counts.mean(), counts)
    sums = torch.where(dead[:, None], x[: len(codebook)] * counts[:, None], sums)
    counts = decay * counts + (1 - decay) * torch.bincount(indices, minlength=len(codebook))
    sums = decay * sums + (1 - decay) * torch.zeros_like(codebook).index_add(0, indices, x)
    return sums / counts.clamp_min(1e-5)[:, None], sums, counts


def _first_rows(x):
    def rows(dead):
        placed = x[: len(dead)].clone()
        placed[dead] = x[: int(dead.sum())]
        return placed

    return rows


def _restart_in_place(codebook, sums, counts, x, decay, threshold):
    counts *= decay
    return codebook, sums, counts


def _living_stay(codebook, sums, counts, x, decay, threshold):
    """The restarted are right; the other rows of the codebook are the old ones."""
    _, new_sums, new_counts = _restart(codebook, sums, counts, x, decay, threshold)
    followed = _follow(codebook, sums, counts, x, decay)[1]
    dead = followed < threshold * followed.mean()
    return torch.where(dead[:, None], x[: len(codebook)], codebook), new_sums, new_counts


WRONG["restarting_step"] = [
    (_encodec, "The restart does nothing"),
    (lambda *i: _restart(*i, total=_old_sums, new=_old_counts, row=True), "lasts until the next step"),
    (lambda *i: _restart(*i, total=_old_sums, row=True), "Row and count are new, and the sum still tells"),
    (lambda *i: _restart(*i, total=_old_sums), "The count is new, and the sum still tells"),
    (lambda *i: _restart(*i, total=_bare_rows), "A sum belongs to a count: the sum of a restarted"),
    (lambda *i: _restart(*i, total=_bare_rows, row=True), "The rows are right, but a sum belongs to a count"),
    (lambda *i: _restart(*i, total=_bare_rows, new=_old_counts), "these sums are bare vectors"),
    (
        lambda *i: _restart(*i, total=_bare_rows, new=_old_counts, row=True),
        "the sums are bare vectors without their count",
    ),
    (lambda *i: _restart(*i, total=_bare_rows, fair=lambda counts: 1.0), "the mean of the counts, not 1"),
    (lambda *i: _restart(*i, new=_old_counts), "The sums are those of average use, and the counts still low"),
    (lambda *i: _restart(*i, new=_old_counts, row=True), "The rows are right, the sums those of average use"),
    (lambda *i: _restart(*i, fair=lambda counts: len(i[3]) / len(i[0])), "N / K is that only once"),
    (lambda *i: _restart(*i, fair=lambda counts: 1 / len(counts)), "1 / K is the fair share"),
    (lambda *i: _restart(*i, fair=lambda c: c[c >= i[5] * c.mean()].mean()), "not of the living codewords' alone"),
    (lambda *i: _restart(*i, fair=lambda counts: i[5] * counts.mean()), "That is the threshold as a count"),
    (lambda *i: _restart(*i, rows=_first_rows(i[3])), "the first rows, one after the other|go to other rows"),
    (lambda *i: _restart(*i, rows=lambda _: i[3][torch.randperm(len(i[3]))[: len(i[0])]]), "go to other rows of it"),
    (lambda *i: _restart(*i, rows=lambda _: i[3][:1].expand_as(i[0])), "go to the first row|go to other rows"),
    (lambda *i: _restart(*i, rows=lambda _: i[3].mean(0).expand_as(i[0])), "the mean of the batch"),
    (lambda *i: _restart(*i, dead=lambda counts: counts < i[5]), "not taken of average use"),
    (lambda *i: _restart(*i, dead=lambda counts: counts < i[5] / len(counts)), "not taken of average use"),
    (lambda *i: _restart(*i, dead=lambda counts: counts < 2), "not taken of average use"),
    (lambda *i: _restart(*i, dead=lambda counts: counts < i[5] * counts.max()), "not their maximum"),
    (lambda *i: _restart(*i, dead=lambda counts: counts < i[5] * counts.sum()), "not their sum"),
    (_living_stay, "The living don't follow"),
    (lambda *i: _restart(*i, total=lambda rows, fair, sums: 0 * rows, row=True), "the sums are 0"),
    (lambda *i: _restart(*i[:4], 1 - i[4], i[5]), "decay and 1 − decay have changed places"),
    (lambda *i: _restart(*i[:4], 0.99, 0.1), "use the arguments"),
    (lambda *i: _restart(*i, dead=lambda _: i[2] < i[5] * i[2].mean()), "from before the step"),
    (lambda *i: _restart(*i, dead=lambda counts: counts > i[5] * counts.mean()), "The living restart"),
    (_restart_before_following, "comes before the batch is followed"),
    (_restart_in_place, "changes counts in place"),
    (lambda *i: (_restart(*i)[0], *_restart(*i)[:0:-1]), "in this order"),
    (lambda *i: _restart(*i)[0], "should be 3 things"),
]

WRONG["steps_until_restart"] = [
    (lambda decay, threshold: math.log(threshold) / math.log(decay), "Right but for the rounding"),
    (lambda decay, threshold: int(math.log(threshold) / math.log(decay)), "One step early"),
    (lambda decay, threshold: math.ceil(math.log(threshold) / math.log(decay)) + 1, "One step late"),
    (lambda decay, threshold: math.log(decay) / math.log(threshold), "wrong way round"),
    (lambda decay, threshold: round(1 / (1 - decay)), "how far the average looks back"),
    (lambda decay, threshold: math.ceil(math.log(decay) / math.log(threshold)), "wrong way round, and rounded"),
    (lambda decay, threshold: -math.log(threshold) / math.log(decay), "wrong sign"),
    (lambda decay, threshold: math.ceil(-math.log(threshold) / math.log(decay)), "wrong sign"),
    (lambda decay, threshold: math.ceil(math.log(threshold) / math.log(1 - decay)), "not times 1 − decay"),
    (lambda decay, threshold: math.ceil((1 - threshold) / (1 - decay) - 1e-9), "falls by a factor"),
    (lambda decay, threshold: math.ceil(math.log10(threshold) / math.log(decay)), "different bases"),
    (
        lambda decay, threshold: decay ** math.ceil(math.log(threshold) / math.log(decay)),
        "how small the share has become",
    ),
    (lambda decay, threshold: math.ceil(math.log(threshold) / (decay - 1)), "the law has log decay"),
    (lambda decay, threshold: 230, "use the arguments"),
    (lambda decay, threshold: 0, "should be 8, and is 0"),
]
