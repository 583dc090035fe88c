"""A file of at most so many bytes: each patch stops after as many stages as are worth their price.

Sky needs fewer stages than fur. A patch stops where going on would take less off its error than the price of a stage,
and we look for the price at which the file just fits (Shoham & Gersho 1988: no stage of another patch would then have
been the better buy).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rvq_tutorial.arguments import check_whole
from rvq_tutorial.language import said

CLOSE, AIM, TRIES = 0.99, 0.995, 12  # of the bytes allowed: the share that will do, that aimed at, and how often


def fitted(paths: Tensor, left: Tensor, max_bytes: int, codebook_size: int, write: Callable[[Tensor], bytes]) -> bytes:
    """The best file of at most `max_bytes` that `write` makes of indices, given what `encode_each` found.

    Raises:
        TypeError, ValueError: not even one stage for each patch fits.
    """
    check_whole(max_bytes, "max_bytes")
    best, whole = write(paths[..., 0, :1]), write(paths[..., -1, :])
    if len(best) > max_bytes:
        raise ValueError(
            said(
                "max_bytes must be at least {least}, one stage for each patch, got {max_bytes}",
                least=len(best),
                max_bytes=max_bytes,
            )
        )
    if len(whole) <= max_bytes:
        return whole

    # As many further stages are bought as savings are above the price, about, and the size grows with them, about.
    savings = (left[..., :-1] - left[..., 1:]).flatten().clamp_min(0).sort(descending=True).values
    low, high, one_stage, aim = 0, len(savings), len(best), AIM * max_bytes
    further = 8 * (aim - one_stage) / math.log2(codebook_size)
    for count in range(TRIES):
        if len(best) >= CLOSE * max_bytes:
            break
        if count % 3 == 2 or not low < further < high:  # halving never fails
            further = (low + high) / 2
        found = write(stop_early(paths, left, savings[int(further)].item()))
        if len(best) < len(found) <= max_bytes:
            best = found
        low, high = (further, high) if len(found) < aim else (low, further)
        further *= (aim - one_stage) / max(1, len(found) - one_stage)
    return best


def stop_early(paths: Tensor, left: Tensor, price: float) -> Tensor:
    """Give each vector the number of stages m that makes ‖error‖² + price · m least.

    Both tensors as from `encode_each`: indices (..., M, M), squared errors (..., M) → indices (..., m), −1 after the
    stop, where m is the largest number of stages that some vector has.
    """
    stages = torch.arange(1, left.shape[-1] + 1)
    last = (left + price * stages).argmin(-1)
    return torch.take_along_dim(paths, last[..., None, None], -2)[..., 0, : last.max() + 1]
