"""Several training processes that learn one codebook: every one sees what a single process with all the data would.

A `group` are the processes that work together; None: all of them. Without torch.distributed, before its start, or
outside of the group each function is what its name says for one process alone.

Within it all wait for each other. So where one process takes a training step, all must, be it with no vectors; a step
on one process alone waits in vain, until the timeout of torch.distributed.init_process_group is over. Then gloo raises
an error, to which a sentence is added here (not in a compiled step, where gloo's own stands alone); NCCL, for which no
program waits, ends the process from a thread of its own and writes which operation it was.

The compiled steps of two processes may be different graphs, since their batches differ. Yet all must meet in the same
order: so no sum is one that torch.compile could find twice in one of the graphs, and do only once.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class Members:
    """The group that a module belongs to: copies of the module share it, and no file can hold it."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group

    def __deepcopy__(self, memo: object) -> "Members":
        return self

    def __reduce__(self) -> tuple[type["Members"], tuple[()]]:
        return Members, ()


def many(group: dist.ProcessGroup | None = None) -> bool:
    """Is this process one of several in the group?"""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1


def total(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The sum of every process's `x` (which may be overwritten)."""
    if many(group):
        _meet(dist.all_reduce, x, group=group)
    return x


def all_rows(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Every process's rows, (Nᵢ, dim), one below the other."""
    if not many(group):
        return x
    each = torch.zeros(dist.get_world_size(group), dtype=torch.int64, device=x.device)
    each[dist.get_rank(group)] = len(x)
    sizes = total(each, group).tolist()
    padded = x.new_zeros(max(sizes), x.shape[1])
    padded[: len(x)] = x
    everyone = [torch.empty_like(padded) for _ in sizes]
    _meet(dist.all_gather, everyone, padded, group=group)
    return torch.cat([rows[:size] for rows, size in zip(everyone, sizes, strict=True)])


def spread_rows(num: int, seed: Tensor, x: Tensor, active: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """`num` of every process's active rows of x, well spread: the same on all processes, others for another `seed`.

    Active row number i·φ⁻¹ mod 1, as a share of all of them, for i = seed·num, seed·num + 1, …: multiples of the golden
    ratio spread evenly (Knuth, The Art of Computer Programming 3, sec. 6.4). A random draw would differ between
    processes.

    Args:
        x: this process's rows, (N, dim).
        active: (N,), which of them may be taken.

    Returns:
        The rows, (num, dim); zeros where no row is active.
    """
    count = active.cumsum(0)
    mine = active.sum()
    before, everyone = _place(mine, seed, group)
    if len(x) == 0:  # the others may have rows, and wait for this one
        x = x.new_zeros(1, x.shape[1])
    golden = 2654435769  # φ⁻¹ · 2³²
    steps = (seed * num + torch.arange(num, device=x.device)) % 2**31
    wanted = (steps * golden % 2**32) * everyone // 2**32 - before  # 0: this process's first active row
    here = (wanted >= 0) & (wanted < mine)
    rows = torch.searchsorted(count, wanted + 1).clamp(0, len(x) - 1)
    return total(torch.where(here.unsqueeze(-1), x.index_select(0, rows), 0), group)


def first(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The first process's `x`."""
    if many(group):
        _meet(dist.broadcast, x, src=dist.get_global_rank(group, 0) if group else 0, group=group)
    return x


def _place(number: Tensor, seed: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor]:
    """The sum of the numbers of the processes before this one, and of all: tensors, that nobody waits for.

    The seed goes along, so that no two codebooks exchange the same.
    """
    if not many(group):
        return torch.zeros_like(number), number
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    each = F.pad(seed.reshape(1), (size, 0))
    each[rank] = number
    each = total(each, group)
    return each[:rank].sum(), each[:size].sum()


def _meet(exchange: Callable[..., Any], *args: Any, group: dist.ProcessGroup | None, **settings: Any) -> None:
    try:
        exchange(*args, group=group, **settings)
    except RuntimeError as error:
        raise RuntimeError(
            f"process {dist.get_rank(group)} did not reach all {dist.get_world_size(group)} processes that learn a "
            "codebook together: every one must take each training step, be it with no vectors; else give the quantizer "
            f"a process_group of those that do, or call eval() where one works alone ({error})"
        ) from error
