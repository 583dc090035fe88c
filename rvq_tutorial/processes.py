"""Several training processes that learn one codebook: every one sees what a single process with all the data would.

Without torch.distributed, or before its start, each function is what its name says for the one process there is.

All of them wait for every process. So where one process takes a training step, all must, be it with no vectors; a step
on one process alone waits in vain, until the `timeout` of torch.distributed.init_process_group is over.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def many() -> bool:
    """Is this process one of several?"""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def total(x: Tensor) -> Tensor:
    """The sum of every process's `x` (which may be overwritten)."""
    if many():
        dist.all_reduce(x)
    return x


def all_rows(x: Tensor) -> Tensor:
    """Every process's rows, (Nᵢ, dim), one below the other."""
    if not many():
        return x
    sizes = _sizes(x).tolist()
    padded = x.new_zeros(max(sizes), x.shape[1])
    padded[: len(x)] = x
    everyone = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(everyone, padded)
    return torch.cat([rows[:size] for rows, size in zip(everyone, sizes, strict=True)])


def spread_rows(num: int, seed: Tensor, *tensors: Tensor) -> list[Tensor]:
    """`num` of every process's rows of each tensor, well spread: the same on all processes, others for another `seed`.

    Row number i·φ⁻¹ mod 1, as a share of all rows, for i = seed·num, seed·num + 1, …: multiples of the golden ratio
    spread evenly (Knuth, The Art of Computer Programming 3, sec. 6.4). A random draw would differ between processes.
    """
    length, device = len(tensors[0]), tensors[0].device
    before, all_of_them = _place(tensors[0]) if many() else (0, length)
    if length == 0:  # the others may have rows, and wait for this one
        tensors = tuple(tensor.new_zeros(1, tensor.shape[1]) for tensor in tensors)
    golden = 2654435769  # φ⁻¹ · 2³²
    steps = (seed * num + torch.arange(num, device=device)) % 2**31
    rows = (steps * golden % 2**32) * all_of_them // 2**32 - before
    mine = ((rows >= 0) & (rows < length)).unsqueeze(-1)
    rows = rows.clamp(0, max(length, 1) - 1)
    return [total(tensor.index_select(0, rows) * mine) for tensor in tensors]


def first(x: Tensor) -> Tensor:
    """The first process's `x`."""
    if many():
        dist.broadcast(x, src=0)
    return x


def _place(x: Tensor) -> tuple[Tensor, Tensor]:
    """How many rows come before this process's, and how many there are in all: numbers that nobody waits for."""
    sizes = _sizes(x)
    return sizes[: dist.get_rank()].sum(), sizes.sum()


def _sizes(x: Tensor) -> Tensor:
    """How many rows each process has."""
    # One number each, with an axis: torch.compile can't gather tensors that have none.
    sizes = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(x)], device=x.device))
    return torch.cat(sizes)
