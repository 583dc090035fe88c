"""Checks of what a caller passes in: one sentence that names the argument, what came and what was expected.

Inside torch.compile only shapes and types are checked: a compiled graph can't look at values and stop.
"""

import math
from numbers import Integral, Real

import torch
from torch import Tensor


def check_vectors(x: Tensor, name: str) -> None:
    """Raise unless `x` is a floating-point tensor with something in it, all of it finite."""
    check_floating(x, name)
    if x.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(x.shape)}")
    check_finite(x, name)


def check_floating(x: Tensor, name: str) -> None:
    """Raise unless `x` is a floating-point tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got {x.dtype}")


def check_finite(x: Tensor, name: str) -> None:
    """Raise if there is NaN or infinity in `x`."""
    if x.numel() > 0 and not torch.compiler.is_compiling():
        low, high = x.detach().aminmax()
        if not (low.isfinite() and high.isfinite()):
            raise ValueError(f"{name} must be finite, got NaN or infinity among its values")


def check_first_pass() -> None:
    """Raise in a forward pass that a backward pass computes anew, as torch.utils.checkpoint does.

    A graph that torch.compile made before can't look.
    """
    if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
        raise RuntimeError(
            "a quantizer that learns can't be part of what torch.utils.checkpoint computes twice; "
            'call it outside, or keep its codebook as it is with codebook_update="none"'
        )


def check_indices(indices: Tensor, low: int, high: int) -> None:
    """Raise unless `indices` is an integer tensor, all of it from `low` to `high`."""
    if not isinstance(indices, Tensor):
        raise TypeError(f"indices must be a torch.Tensor, got {type(indices).__name__}")
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise TypeError(f"indices must be an integer tensor, got {indices.dtype}")
    if indices.numel() > 0 and not torch.compiler.is_compiling():
        least, most = (int(i) for i in indices.long().aminmax())  # for uint16, torch has no aminmax
        if least < low or most > high:
            raise ValueError(f"indices must lie between {low} and {high}, got {least} to {most}")


def check_whole(value: int, name: str, high: int | None = None) -> None:
    """Raise unless `value` is a whole number from 1 to `high`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1 or (high is not None and value > high):
        limits = "≥ 1" if high is None else f"from 1 to {high}"
        raise ValueError(f"{name} must be a whole number {limits}, got {value!r}")


def check_range(value: float, name: str, low: float, high: float) -> None:
    """Raise unless `value` is a finite number, low ≤ `value` ≤ high."""
    if not isinstance(value, Real) or not (low <= value <= high and math.isfinite(value)):
        limits = f"≥ {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} must be a number {limits}, got {value!r}")
