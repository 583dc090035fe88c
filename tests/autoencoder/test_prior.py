import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rvq_tutorial.autoencoder import IndexPrior, prior

SIZES = st.integers(1, 9)


def random_grid(*shape, high=5, seed=0):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def smooth_grid(size=24, stages=3, high=8, seed=0):
    """Indices that change seldom from place to place, and those of a later stage follow from the stage before."""
    first = random_grid(size // 4, size // 4, high=high, seed=seed).repeat_interleave(4, 0).repeat_interleave(4, 1)
    return torch.stack([(first + stage) % high for stage in range(stages)], -1)


def bits_per_index(stage, grid):
    indices = grid.numpy()
    bits = 0.0
    for rows, columns, _, weights in stage.walk(indices):
        share = weights[range(len(rows)), indices[rows, columns, stage.stage]] / weights.sum(1)
        bits -= np.log2(share).sum()
    return bits / indices[..., 0].size


def test_before_fit_every_index_is_equally_likely():
    stage = IndexPrior(5, 3).stages[2]
    for _, _, _, weights in stage.walk(random_grid(4, 6, 3).numpy()):
        assert (weights == weights[0, 0]).all() and weights[0, 0] > 0
    assert bits_per_index(stage, random_grid(4, 6, 3)) == pytest.approx(math.log2(5))


def test_the_tables_hold_what_the_formula_says():
    """Counted again, index by index."""
    grids = [random_grid(5, 7, 3, seed=seed) for seed in range(3)]
    for stage in IndexPrior(5, 3).fit(grids).stages:
        m = stage.stage
        later = [[(0, 0, -1)], [(0, 0, -2)]][:m] or [[(-1, 1, 0)]]
        groups = [[(0, -1, 0), (-1, 0, 0)], *later]
        assert len(stage.votes) == len(groups)

        count = np.full(5, 0.5)
        for grid in grids:
            for k in grid[..., m].flatten().tolist():
                count[k] += 1
        share = count / count.sum()
        np.testing.assert_array_equal(stage.frequency, np.round(16 * np.log2(share)))

        for table, places in zip(stage.votes, groups, strict=True):
            pairs = np.zeros((5, 5))
            for grid, (down, right, earlier) in product(grids, places):
                for row, column in product(range(5), range(7)):
                    if row + down >= 0 and 0 <= column + right < 7:
                        pairs[grid[row + down, column + right, m + earlier], grid[row, column, m]] += 1
            beside = (pairs + 256 * share) / (pairs.sum(1, keepdims=True) + 256)
            np.testing.assert_array_equal(table, np.round(16 * 0.6 * np.log2(beside / share)))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (6, 1), (2, 2), (4, 7)])
def test_the_weights_are_what_the_voters_say(height, width):
    """Edges too: a voter that isn't there says nothing."""
    grid = random_grid(height, width, 3)
    for stage in IndexPrior(5, 3).fit([smooth_grid(high=5), grid]).stages:
        m = stage.stage
        for rows, columns, _, weights in stage.walk(grid.numpy()):
            for row, column, weight in zip(rows, columns, weights, strict=True):
                score = stage.frequency.int()
                for table, places in zip(stage.votes.int(), stage.voters, strict=True):
                    for down, right, earlier in places:
                        if row + down >= 0 and 0 <= column + right < width:
                            score = score + table[grid[row + down, column + right, m + earlier]]
                expected = 2.0 ** ((score - score.max()).numpy() / 16)
                np.testing.assert_allclose(weight / weight.max(), expected, atol=1e-5)


@given(height=SIZES, width=SIZES)
def test_every_place_is_visited_once(height, width):
    visits = np.zeros((height, width), int)
    for rows, columns, _, weights in IndexPrior(3, 1).stages[0].walk(np.zeros((height, width, 1), int)):
        assert len(rows) == len(columns) == len(weights)
        np.add.at(visits, (rows, columns), 1)
    assert (visits == 1).all()


def stopping_grid(height, width, stages, seed):
    """Random indices; a random share of the places stops before each stage."""
    grid = random_grid(height, width, stages, seed=seed).numpy()
    kept = random_grid(height, width, high=stages + 1, seed=seed + 1).numpy()
    grid[np.arange(stages) >= kept[..., None]] = -1
    return grid


@given(height=SIZES, width=SIZES, stage=st.integers(0, 2), seed=st.integers(0, 99))
@settings(deadline=None)
def test_only_what_a_decoder_knows_already_counts(height, width, stage, seed):
    """Where nothing has been decoded yet, other numbers stand; the weights must be the same."""
    fitted = IndexPrior(5, 3).fit([smooth_grid(high=5), random_grid(9, 9, 3)]).stages[stage]
    grid = stopping_grid(height, width, 3, seed)
    known = stopping_grid(height, width, 3, seed + 100)
    known[..., :stage] = grid[..., :stage]
    known[grid[..., max(0, stage - 1)] < 0, stage] = -1  # whatever stopped before
    for expected, step in zip(fitted.walk(grid), fitted.walk(known), strict=True):
        for ours, theirs in zip(step, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        known[step.rows, step.columns, stage] = grid[step.rows, step.columns, stage]


@given(height=SIZES, width=SIZES, seed=st.integers(0, 99))
@settings(deadline=None)
def test_what_stopped_is_asked_no_more(height, width, seed):
    grid = stopping_grid(height, width, 3, seed)
    for stage in IndexPrior(5, 3).stages:
        visits = np.zeros((height, width), int)
        for rows, columns, *_ in stage.walk(grid):
            np.add.at(visits, (rows, columns), 1)
        alive = grid[..., stage.stage - 1] >= 0 if stage.stage else True
        np.testing.assert_array_equal(visits, np.where(alive, 1, 0) * np.ones_like(visits))


@pytest.mark.parametrize("stage", [0, 1])
def test_whether_a_place_goes_on_is_counted_among_those_with_as_many_neighbours_that_did(stage):
    """Counted again, place by place, from all the steps before."""
    grid = stopping_grid(12, 15, 2, seed=5)
    order = []  # (row, column, neighbours that went on, went on) of every place so far
    for rows, columns, ends, _ in IndexPrior(5, 2).stages[stage].walk(grid):
        before = list(order)
        for row, column, weights in zip(rows, columns, ends, strict=True):
            around = [(row, column - 1), (row - 1, column), (row - 1, column + 1)]
            around = sum(min(r, c) >= 0 and c < 15 and grid[r, c, stage] >= 0 for r, c in around)
            alike = [went_on for *_, count, went_on in before if count == around]
            np.testing.assert_array_equal(weights, [1 + alike.count(False), 1 + alike.count(True)])
            order.append((row, column, around, grid[row, column, stage] >= 0))
    assert len(order) == 180 if stage == 0 else len(order) < 180


@pytest.mark.parametrize("size", [2, 3, 17, 256, 300])
def test_weights_are_whole_and_add_up_exactly(size):
    fitted = IndexPrior(size, 2).fit([smooth_grid(high=size, stages=2), random_grid(9, 9, 2, high=size)])
    for stage in fitted.stages:
        for _, _, _, weights in stage.walk(random_grid(6, 6, 2, high=size).numpy()):
            assert weights.dtype == np.float32 and weights.flags.c_contiguous
            assert (weights == np.floor(weights)).all() and (weights >= 1).all()
            assert weights.astype(float).sum(1).max() <= 2**24
            assert weights.max(1).min() >= 256


@pytest.mark.parametrize("size", [2**bits for bits in range(1, 17)])
def test_no_weight_is_so_near_to_a_half_that_another_machine_could_round_it_elsewhere(size):
    top = 24 - round(math.log2(size))
    powers = prior._powers(size)
    exact = [2 ** (top - i / 16) for i in range(len(powers))]
    assert powers[0] * size == 2**24 and powers[-1] == 1
    assert min(abs(x % 1 - 0.5) for x in exact if x != 0.5) > 1e-6
    np.testing.assert_array_equal(powers, np.round(exact))


def test_what_is_alike_is_written_in_fewer_bits():
    grids = [smooth_grid(seed=seed) for seed in range(20)]
    held_out = smooth_grid(seed=99)
    fitted = IndexPrior(8, 3).fit(grids)
    first, *later = (bits_per_index(stage, held_out) for stage in fitted.stages)
    assert first < 1.5  # of log2 8 = 3
    assert all(bits < 0.5 for bits in later)


def test_a_surprise_costs_bits_but_can_be_written():
    same = torch.zeros(20, 20, 2, dtype=torch.int64)
    fitted = IndexPrior(256, 2).fit([same] * 100)
    for stage in fitted.stages:
        assert bits_per_index(stage, same) < 0.05
        for _, _, _, weights in stage.walk(same.numpy()):
            assert (weights >= 1).all()  # at weights of 0, one in twenty of random tables makes the range coder panic


def test_a_vote_ends_where_its_byte_does():
    """One codeword, rare in the whole, always stands beside itself: 0.6 · log2 of the ratio of shares exceeds 8."""
    grid = torch.zeros(2000, 2000, 1, dtype=torch.int64)
    grid[500:512, 500:512] = 1
    votes = IndexPrior(2, 1).fit([grid]).stages[0].votes
    assert votes[0, 1, 1] == 127 and votes[0, 1, 0] < 0


def test_left_and_above_share_their_table():
    grid = random_grid(6, 9, 2)
    fitted = IndexPrior(5, 2).fit([grid]).stages
    turned = IndexPrior(5, 2).fit([grid.transpose(0, 1)]).stages
    for a, b in zip(fitted, turned, strict=True):
        assert torch.equal(a.votes[0], b.votes[0]) and a.votes[0].any()


def test_a_batch_is_as_good_as_a_list():
    batch = random_grid(4, 6, 7, 2)
    one, other = IndexPrior(5, 2).fit([batch]), IndexPrior(5, 2).fit(iter(batch.to(torch.int16)))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_its_tables_travel_in_a_state_dict():
    fitted = IndexPrior(5, 2).fit([random_grid(6, 7, 2)])
    tensors = fitted.state_dict()
    assert all(not tensor.is_floating_point() for tensor in tensors.values())
    assert not list(fitted.parameters())
    other = IndexPrior(5, 2)
    other.load_state_dict(tensors)
    grid = random_grid(4, 4, 2, seed=1)
    assert [bits_per_index(stage, grid) for stage in other.stages] == [
        bits_per_index(stage, grid) for stage in fitted.stages
    ]


def test_the_courses_tables_stay_small():
    tensors = IndexPrior(256, 8).state_dict().values()
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) < 1.5e6


@pytest.mark.parametrize(
    ("grids", "error", "message"),
    [
        ([random_grid(4, 4, 3)], ValueError, r"grids must have shape \(..., h, w, 2\), got \(4, 4, 3\)"),
        ([random_grid(4, 2)], ValueError, r"grids must have shape \(..., h, w, 2\), got \(4, 2\)"),
        ([random_grid(4, 4, 2, high=9)], ValueError, "between 0 and 4, got 0 to"),
        ([random_grid(4, 4, 2) - 1], ValueError, "between 0 and 4, got -1"),
        ([torch.rand(4, 4, 2)], TypeError, "integer"),
        ([], ValueError, "grids must hold at least one"),
    ],
)
def test_bad_grids_are_named(grids, error, message):
    fitted = IndexPrior(5, 2)
    with pytest.raises(error, match=message):
        fitted.fit(grids)
    assert not any(tensor.any() for tensor in fitted.state_dict().values())


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="codebook_size must be at least 2"):
        IndexPrior(1, 2)
    with pytest.raises(ValueError, match="codebook_size must be a whole number"):
        IndexPrior(0, 2)
    with pytest.raises(ValueError, match="num_quantizers must be a whole number"):
        IndexPrior(4, 0)
