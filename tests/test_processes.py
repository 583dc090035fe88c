"""Two processes that learn one codebook: on both it becomes what one process with all the data would make of it."""

import copy
import socket
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from rvq_tutorial import ResidualVectorQuantizer, VectorQuantizer, processes

NUM = 200  # vectors in all
SPLITS = {"even halves": 100, "uneven halves": 130, "all on one": 200}  # how many of them the first process gets
DIM = 4


def vq(**settings):
    return VectorQuantizer(DIM, 8, decay=0.9, **settings)


def rvq(num_quantizers=3, **settings):
    return ResidualVectorQuantizer(DIM, 8, num_quantizers, decay=0.9, **settings)


def short_rvq():
    return rvq(2)


def batches(num):
    """The same on every process."""
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(NUM, DIM, generator=generator) for _ in range(num)]


def steps(quantizer, share):
    """Some training steps on this process's `share` of the rows."""
    for batch in batches(10):
        quantizer(batch[share])
    return quantizer.state_dict()


def fit(quantizer, share):
    torch.manual_seed(7 + (share.start or 0))  # every process draws other random numbers; the first one's count
    return quantizer.fit(batches(1)[0][share]).state_dict()


def fit_and_steps(quantizer, share):
    fit(quantizer, share)
    return steps(quantizer, share)


def restart(quantizer, share):
    """One step that restarts every codeword that is far away."""
    with torch.no_grad():
        for stage in quantizer.stages:
            stage.vectors[2:6] = 1000
            stage.usage.fill_(1 / 8)
            stage.usage[2:6] = 0
    quantizer(batches(1)[0][share])
    return quantizer.state_dict()


def first_batch_empties_a_stage(quantizer, share):
    """The first process's vectors never come to the last stage; the second's do."""
    rows = batches(1)[0][share]
    for stage in quantizer.stages:
        index = torch.zeros(len(rows), dtype=torch.int64)
        if (share.start or 0) == 0:
            index[: SPLITS["even halves"]] = -1
        error = (rows - stage.lookup(index)) * (index >= 0)[:, None]
        stage.update(rows, error, index)
    return quantizer.state_dict()


def not_finite_on_one(quantizer, share):
    """Both have to leave the batch out, also the process whose vectors are fine."""
    batch = batches(1)[0].clone()
    batch[3] = torch.nan
    quantizer(batch[share])
    return quantizer.state_dict()


def spread(_, share):
    rows = torch.arange(float(NUM))[:, None][share]
    return {str(seed): processes.spread_rows(30, torch.tensor(seed), rows, rows[:, 0] >= 0) for seed in (0, 1, 10**6)}


def spread_over_active(_, share):
    """Some rows of both processes are active, one, some of the first process, none."""
    rows = torch.arange(float(NUM))[:, None]
    some = {
        "a third": rows[:, 0] % 3 == 0,
        "one": rows[:, 0] == 150,
        "the first": rows[:, 0] < 90,
        "none": rows[:, 0] < 0,
    }
    return {
        name: processes.spread_rows(30, torch.tensor(4), rows[share], active[share]) for name, active in some.items()
    }


SCENARIOS = {
    "VQ steps": (vq, steps),
    "VQ steps by gradient": (lambda: vq(codebook_update="gradient"), steps),
    "VQ fit": (vq, fit),
    "VQ fit and steps": (vq, fit_and_steps),
    "VQ restart": (vq, restart),
    "RVQ steps": (rvq, steps),
    "RVQ fit and steps": (rvq, fit_and_steps),
    "RVQ fit with a beam": (lambda: rvq(beam_size=3), fit),
    "RVQ restart": (rvq, restart),
    "dropped on one process": (vq, first_batch_empties_a_stage),
    "not finite on one process": (rvq, not_finite_on_one),
    "spread rows": (vq, spread),
    "spread rows over active ones": (vq, spread_over_active),
}


def play(name, share):
    make, run = SCENARIOS[name]
    torch.manual_seed(3)
    return copy.deepcopy(run(make(), share))


def join(rank, port, world_size=2, seconds=60):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=seconds),
    )


def worker(rank, port, folder):
    join(rank, port)
    results = {}
    for split, num_first in SPLITS.items():
        share = slice(0, num_first) if rank == 0 else slice(num_first, NUM)
        results[split] = {name: play(name, share) for name in SCENARIOS}
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of two real processes came to."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(worker, (free_port(), folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


# How many of the vectors the first of two processes gets at each step. The first number of vectors has a graph of its
# own, so have 0 and 1, and one is for all others: the two processes run different graphs at the same time.
FIRST_GETS = (130, 0, 200, 1)


def changing_steps(quantizer, step, rank=None):
    for num_first, batch in zip(FIRST_GETS, batches(len(FIRST_GETS)), strict=True):
        share = {0: slice(num_first), 1: slice(num_first, None), None: slice(None)}[rank]
        step(batch[share].requires_grad_()).loss.backward()
    return quantizer.state_dict()


def compiled_changing_steps(make, rank):
    torch.manual_seed(3)
    quantizer = make()
    return changing_steps(quantizer, torch.compile(quantizer, fullgraph=True, backend="aot_eager"), rank)


def draw_for_two_stages(x, first_active, second_active):
    """As in a training step: beside work that has a gradient. Only there torch.compile looks for work done twice."""
    with torch.no_grad():
        actives = first_active, second_active
        rows = [processes.spread_rows(8, seed, x, active) for seed, active in zip(SEEDS, actives, strict=True)]
    return torch.stack(rows), x.square().sum()


SEEDS = torch.tensor([3]), torch.tensor([4])


def compiled_draws_with_one_mask(rank):
    """The first process uses one mask for both stages, which a compiler may take for the same work twice."""
    x, active = torch.arange(20.0)[:, None][10 * rank : 10 * rank + 10], torch.ones(10, dtype=torch.bool)
    draw = torch.compile(draw_for_two_stages, fullgraph=True, backend="aot_eager")
    rows, _ = draw(x.requires_grad_(), active, active if rank == 0 else active.clone())
    return rows


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.quantizer, self.decoder = nn.Linear(DIM, DIM), short_rvq(), nn.Linear(DIM, DIM)

    def forward(self, x):
        output = self.quantizer(self.encoder(x))
        return (self.decoder(output.quantized) - x).square().mean() + output.loss


def compiled_ddp_in_mixed_precision(rank):
    torch.manual_seed(3)
    model = nn.parallel.DistributedDataParallel(Autoencoder())
    step = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for batch in batches(3):
        with torch.autocast("cpu", torch.bfloat16):
            loss = step(batch[:90] if rank == 0 else batch[90:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.module.state_dict()


def worker_compiled(rank, port, folder):
    join(rank, port)
    results = {
        "VQ": compiled_changing_steps(vq, rank),
        "RVQ": compiled_changing_steps(short_rvq, rank),
        "one mask": compiled_draws_with_one_mask(rank),
        "DDP": compiled_ddp_in_mixed_precision(rank),
    }
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both_compiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    mp.spawn(worker_compiled, (free_port(), folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize(("name", "make"), {"VQ": vq, "RVQ": short_rvq}.items())
def test_two_compiled_processes_equal_one_whatever_the_shares(both_compiled, name, make):
    torch.manual_seed(3)
    quantizer = make()
    for key, expected in changing_steps(quantizer, quantizer).items():
        assert torch.equal(both_compiled[0][name][key], both_compiled[1][name][key])
        torch.testing.assert_close(both_compiled[0][name][key], expected, atol=2e-6, rtol=0)


def test_compiled_stages_with_one_mask_do_not_share_their_exchange(both_compiled):
    active = torch.ones(20, dtype=torch.bool)
    expected, _ = draw_for_two_stages(torch.arange(20.0)[:, None], active, active)
    for results in both_compiled:
        assert torch.equal(results["one mask"], expected)


def test_compiled_ddp_in_mixed_precision_trains_equal_codebooks(both_compiled):
    torch.manual_seed(3)
    start = Autoencoder().state_dict()
    first, second = (results["DDP"] for results in both_compiled)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        assert value.isfinite().all()
        assert not torch.equal(value, start[name]), name


def worker_of_whom_the_first_steps_alone(rank, port, folder):
    join(rank, port, seconds=5)
    torch.manual_seed(3)
    quantizer = vq()
    (batch,) = batches(1)
    quantizer(batch)
    done = folder / "alone.pt"
    if rank == 0:
        before, start = copy.deepcopy(quantizer.state_dict()), time.monotonic()
        with pytest.raises(RuntimeError) as caught:
            quantizer(batch)
        report = {"says": str(caught.value), "seconds": time.monotonic() - start}
        report["unchanged"] = all(torch.equal(before[key], value) for key, value in quantizer.state_dict().items())
        torch.save(report, done)
    while not done.exists():  # this process lives on, and is free to do anything else
        time.sleep(0.1)
    quantizer.eval()(batch)
    (folder / f"{rank} goes on").touch()
    dist.destroy_process_group()


def test_a_step_on_one_process_alone_is_an_error_that_says_what_to_do(tmp_path):
    mp.spawn(worker_of_whom_the_first_steps_alone, (free_port(), tmp_path), nprocs=2)
    report = torch.load(tmp_path / "alone.pt", weights_only=True)
    assert 4 < report["seconds"] < 10
    assert report["unchanged"]
    for part in ("process 0", "all 2 processes", "each training step", "process_group", "eval()", "Timed out"):
        assert part in report["says"], part
    assert all((tmp_path / f"{rank} goes on").exists() for rank in (0, 1))


def in_a_group(group, number):
    """Every function once, for a process that brings `number`."""
    rows = torch.full((number, 2), float(number))
    return {
        "many": torch.tensor(processes.many(group)),
        "total": processes.total(torch.tensor([number]), group),
        "all rows": processes.all_rows(rows, group),
        "first": processes.first(torch.tensor([number]), group),
        "picked": processes.spread_rows(4, torch.tensor(1), rows, rows[:, 0] > 1, group),
    }


IN_THREE = slice(50), slice(50, 120), slice(120, NUM)


def worker_of_three(rank, port, folder):
    """The last two of three processes are a group; the first one works alone, and nobody waits for it."""
    join(rank, port, world_size=3)
    group = dist.new_group([1, 2])
    results = {"own group": in_a_group(group, rank + 1)}
    if rank > 0:
        results["twice"] = in_a_group(group, rank + 1)
    for name, compiles in (("plain", False), ("compiled", True)):
        torch.manual_seed(3)
        quantizer = vq()
        quantizer.process_group = group
        step = torch.compile(quantizer, fullgraph=True, backend="aot_eager") if compiles else quantizer
        for batch in batches(3):
            step(batch[IN_THREE[rank]])
        results[name] = quantizer.state_dict()
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    mp.spawn(worker_of_three, (free_port(), folder), nprocs=3)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(3)]


@pytest.mark.parametrize("how", ["plain", "compiled"])
def test_a_quantizer_learns_in_its_group(three, how):
    for members, share in (((0,), IN_THREE[0]), ((1, 2), slice(50, NUM))):
        torch.manual_seed(3)
        quantizer = vq()
        for batch in batches(3):
            quantizer(batch[share])
        for member in members:
            for key, expected in quantizer.state_dict().items():
                torch.testing.assert_close(three[member][how][key], expected, atol=2e-6, rtol=0)


def test_a_group_works_together_and_who_is_outside_alone(three):
    outside, first, second = three
    expected = {
        "many": torch.tensor(True),
        "total": torch.tensor([5]),
        "all rows": torch.tensor([2.0, 2, 3, 3, 3])[:, None].expand(5, 2),
        "first": torch.tensor([2]),
        "picked": torch.tensor([3.0, 2, 3, 2])[:, None].expand(4, 2),
    }
    for name, value in expected.items():
        for results in (first, second):
            assert torch.equal(results["own group"][name], value), name
            assert torch.equal(results["twice"][name], value), name
    assert outside["own group"]["many"].item() is False
    assert outside["own group"]["total"].tolist() == outside["own group"]["first"].tolist() == [1]
    assert outside["own group"]["all rows"].tolist() == [[1, 1]]
    assert outside["own group"]["picked"].tolist() == [[0, 0]] * 4


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("split", SPLITS)
def test_two_processes_equal_one(both, split, name):
    alone = play(name, slice(None))
    first, second = (results[split][name] for results in both)
    assert alone.keys() == first.keys() == second.keys()
    for key, expected in alone.items():
        assert torch.equal(first[key], second[key])
        torch.testing.assert_close(first[key], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("split", ["even halves", "uneven halves"])
def test_restarts_happened_and_took_vectors_of_both_processes(both, split):
    codebook = both[0][split]["VQ restart"]["stages.0.vectors"]
    (batch,) = batches(1)
    rows = [(batch == codeword).all(1).nonzero().flatten() for codeword in codebook[2:6]]
    assert all(len(row) == 1 for row in rows)
    assert any(row < SPLITS[split] for row in rows)
    assert any(row >= SPLITS[split] for row in rows)


def spread_alone(num, seed, rows, active=None):
    active = torch.ones(len(rows), dtype=torch.bool) if active is None else active
    return processes.spread_rows(num, torch.tensor(seed), rows, active)


def test_spread_rows_are_spread_and_change_with_the_seed():
    rows = torch.arange(1000.0)[:, None]
    seen = [spread_alone(20, seed, rows).flatten() for seed in range(50)]
    for picked in seen:
        assert len(picked.unique()) == 20
        assert picked.sort().values.diff().max() < 150  # no wide gap: 50 would be perfect
    assert len(torch.cat(seen).unique()) > 600


def test_more_rows_wanted_than_there_are():
    picked = spread_alone(12, 0, torch.arange(3.0)[:, None])
    assert set(picked.flatten().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("length", [1, 2, 7, 1000, 123_457])
def test_with_all_rows_active_the_rows_are_those_of_the_golden_ratio(length):
    """Shipped measurements hang on this very choice."""
    rows = torch.arange(length, dtype=torch.float64)[:, None]
    for seed in (0, 1, 2, 12345, 2**40):
        steps = (seed * 64 + torch.arange(64)) % 2**31
        expected = (steps * 2654435769 % 2**32) * length // 2**32
        picked = spread_alone(64, seed, rows)
        assert picked.flatten().tolist() == expected.tolist()


def test_only_active_rows_are_taken_and_all_are_in_turn():
    rows = torch.arange(100.0)[:, None]
    active = rows[:, 0] % 7 == 3
    picked = spread_alone(40, 3, rows, active)
    assert set(picked.flatten().tolist()) == set(rows[active].flatten().tolist())


@pytest.mark.parametrize("length", [0, 5])
def test_without_an_active_row_none_is_taken(length):
    picked = spread_alone(4, 3, torch.full((length, 2), torch.nan), torch.zeros(length, dtype=torch.bool))
    assert picked.tolist() == [[0, 0]] * 4
