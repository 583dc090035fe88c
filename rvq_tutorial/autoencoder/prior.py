"""What an index's neighbours tell about it: the probabilities by which an entropy coder writes few bits for it.

A patch of a photo looks much like the one beside it, so its index is seldom a surprise, and an index that was expected
with probability p can be written in log2 1/p bits. Every index k has voters n, all of them known before it is decoded:
the indices of the same stage on the left and above, and those of the same place one and two stages earlier. (The first
stage has none before it; there the neighbour above on the right votes instead.) From training photos we count how often
each codeword occurs, and how much more or less often it does beside each codeword of a voter:

    log2 p(k | n₁, n₂, …)  =  log2 p(k)  +  0.6 · Σⱼ log2 (p(k | nⱼ) / p(k))  +  a constant.

Voters that told independent things would count fully: that is naive Bayes. These repeat each other: each counts 0.6.

A place may also stop: from some stage on it has no index, which is written −1, and neither hears nor votes. Whether it
goes on is asked before the index, and answered by the places before it in the same stage: of those with as many
neighbours that went on (left, above, above on the right: 0 to 3), what share did so too?

Encoder and decoder need the same probabilities to the last bit, on different machines too. So the sums are made of
whole sixteenths of a bit, and a table turns them into whole numbers, which every machine adds alike.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rvq_tutorial.arguments import check_indices, check_whole

# Where a voter stands, seen from the index that hears it: rows, columns and stages away.
LEFT, ABOVE, ABOVE_RIGHT, ONE_EARLIER, TWO_EARLIER = (0, -1, 0), (-1, 0, 0), (-1, 1, 0), (0, 0, -1), (0, 0, -2)
NEIGHBOURS = LEFT, ABOVE, ABOVE_RIGHT
Place = tuple[int, int, int]

VOTE_WEIGHT = 0.6
PSEUDO_COUNT = 256  # a voter that was seen less often than this has little to say
UNITS = 16  # to the bit
EXACT = 24  # float32 adds whole numbers without rounding while the sum stays within 2²⁴


class Step(NamedTuple):
    """Places of a stage that depend on none of each other, and what is to be expected there.

    The weights are whole numbers, float32; their shares are the probabilities.
    """

    rows: np.ndarray  # (n,)
    columns: np.ndarray  # (n,)
    ends: np.ndarray  # (n, 2): weights of stopping here, and of going on
    weights: np.ndarray  # (n, K): of each index, where it goes on


class StagePrior(nn.Module):
    """The tables of one stage, before `fit` all zero: every index is equally likely."""

    frequency: Tensor  # (K,), int16: log2 p(k), in sixteenths of a bit
    votes: Tensor  # (V, K, K), int8: what a voter's index n adds for k, at [v, n, k]

    def __init__(self, codebook_size: int, stage: int) -> None:
        super().__init__()
        earlier = (ONE_EARLIER, TWO_EARLIER)[:stage] or (ABOVE_RIGHT,)
        self.stage = stage
        self.voters = ((LEFT, ABOVE), *((place,) for place in earlier))  # left and above share a table
        self.register_buffer("frequency", torch.zeros(codebook_size, dtype=torch.int16))
        self.register_buffer("votes", torch.zeros(len(self.voters), codebook_size, codebook_size, dtype=torch.int8))

    def fit(self, grids: list[Tensor]) -> None:
        """Count in grids (..., h, w, M)."""
        size = len(self.frequency)
        count = 0.5 + sum(torch.bincount(grid[..., self.stage].flatten(), minlength=size) for grid in grids).double()
        share = count / count.sum()
        self.frequency.copy_(_in_units(share.log2()))
        for table, places in zip(self.votes, self.voters, strict=True):
            pairs = sum(_count_pairs(grid, self.stage, place, size) for place in places for grid in grids).double()
            share_beside = (pairs + PSEUDO_COUNT * share) / (pairs.sum(1, keepdim=True) + PSEUDO_COUNT)
            table.copy_(_in_units(VOTE_WEIGHT * (share_beside / share).log2()).clamp(-127, 127))

    def walk(self, indices: np.ndarray) -> Iterator[Step]:
        """Go through the stage's places in steps, but for those that stopped before.

        All voters of a step stand in earlier steps or stages of `indices` (h, w, M), so a decoder can fill in each
        step before it asks for the next.
        """
        frequency = self.frequency.cpu().numpy()
        silence = np.zeros((1, len(frequency)), np.int8)  # the last row, −1: a voter beyond the edge, or stopped
        tables = [np.concatenate([table, silence]) for table in self.votes.cpu().numpy()]
        places = {*NEIGHBOURS, *itertools.chain(*self.voters)}
        powers = _powers(len(frequency))
        ended = np.ones((len(NEIGHBOURS) + 1, 2), np.float32)  # how many stopped and went on so far, and one of each
        height, width, _ = indices.shape
        here = np.full((height + 1, width + 2), -1)  # this stage as far as it is known, with an edge above and beside
        for step in range(2 * height + width - 2):  # the places with 2 · row + column = step
            rows = np.arange(max(0, (step - width) // 2 + 1), min(height - 1, step // 2) + 1)
            columns = step - 2 * rows
            if self.stage > 0:
                alive = indices[rows, columns, self.stage - 1] >= 0
                rows, columns = rows[alive], columns[alive]
            found = {place: _at(place, rows, columns, here, indices[..., : self.stage]) for place in places}
            score = frequency
            for table, voters in zip(tables, self.voters, strict=True):
                for place in voters:
                    score = score + table[found[place]]
            shortfall = score.max(1, keepdims=True) - score
            around = sum(found[place] >= 0 for place in NEIGHBOURS)
            yield Step(rows, columns, ended[around], powers[np.minimum(shortfall, len(powers) - 1)])
            here[rows + 1, columns + 1] = index = indices[rows, columns, self.stage]
            np.add.at(ended, (around, (index >= 0).astype(int)), 1)


class IndexPrior(nn.Module):
    """How likely each index of a photo is, given those before it.

    Its tables take about 3 · num_quantizers · codebook_size² bytes: it is meant for some hundreds of codewords.
    """

    def __init__(self, codebook_size: int, num_quantizers: int) -> None:
        super().__init__()
        check_whole(codebook_size, "codebook_size", high=2**16)
        if codebook_size == 1:
            raise ValueError("codebook_size must be at least 2: of a single codeword there is nothing to say, got 1")
        check_whole(num_quantizers, "num_quantizers")
        self.codebook_size = codebook_size
        self.stages = nn.ModuleList(StagePrior(codebook_size, stage) for stage in range(num_quantizers))

    @property
    def least_bits(self) -> float:
        """What an index takes, however well it is foreseen: all others weigh at least 1 each (see `_powers`)."""
        return math.log2(1 + (self.codebook_size - 1) / _powers(self.codebook_size)[0].item())

    def fit(self, grids: Iterable[Tensor]) -> "IndexPrior":
        """Learn from the indices of training photos: grids (..., h, w, M), as `model.encode` gives them."""
        grids = list(grids)
        for grid in grids:
            check_indices(grid, 0, self.codebook_size - 1)
            if grid.ndim < 3 or grid.shape[-1] != len(self.stages):
                raise ValueError(f"grids must have shape (..., h, w, {len(self.stages)}), got {tuple(grid.shape)}")
        if not grids:
            raise ValueError("grids must hold at least one grid of indices, got none")
        grids = [grid.cpu().long() for grid in grids]
        for stage in self.stages:
            stage.fit(grids)
        return self


def _at(place: Place, rows: np.ndarray, columns: np.ndarray, here: np.ndarray, earlier: np.ndarray) -> np.ndarray:
    """What stands at that place, seen from each of the given ones: in a stage with an edge, or in those before it."""
    down, right, stages = place
    return earlier[rows, columns, stages] if stages else here[rows + 1 + down, columns + 1 + right]


def _count_pairs(grid: Tensor, stage: int, place: Place, size: int) -> Tensor:
    """How often each k has each n at that place: (..., h, w, M) → (K, K), at [n, k]."""
    height, width = grid.shape[-3:-1]
    down, right, later = place
    left, right_end = max(0, -right), width - max(0, right)
    own = grid[..., -down:, left:right_end, stage]
    voter = grid[..., : height + down, left + right : right_end + right, stage + later]
    return torch.bincount((voter * size + own).flatten(), minlength=size**2).view(size, size)


def _in_units(bits: Tensor) -> Tensor:
    return (UNITS * bits).round()


def _powers(size: int) -> np.ndarray:
    """2^(−i/16) for i = 0, 1, …, as whole numbers down to 1, so small that `size` of them add up exactly.

    Nothing weighs less than 1: also what was never seen in training must find its bits.
    """
    top = EXACT - (size - 1).bit_length()
    return np.array([round(2 ** (top - i / UNITS)) for i in range(UNITS * top + 1)], np.float32)
