"""Checks of what a caller passes in: one sentence that names the argument, what came and what was expected.

Values are looked at on a CPU alone: an accelerator runs ahead of the program, which would have to wait for it. Nor
inside torch.compile: a compiled graph can't look at values and stop.
"""

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

from rvq_tutorial.language import said


def check_vectors(x: Tensor, name: str, axes: str | None = None) -> None:
    """Raise unless `x` is a floating-point tensor, not empty, all of it finite, with `axes` as in "(K, dim)"."""
    check_floating(x, name)
    if x.numel() == 0:
        raise ValueError(said("{name} must not be empty, got shape {shape}", name=name, shape=tuple(x.shape)))
    check_finite(x, name)
    if axes is not None and x.ndim != axes.count(",") + 1:
        shape = tuple(x.shape)
        raise ValueError(said("{name} must have shape {axes}, got {shape}", name=name, axes=axes, shape=shape))


def check_codebooks(codebooks: Iterable[Tensor], name: str) -> None:
    """Raise unless `codebooks` are matrices (K, dim), at least one, of one dim, each a good one for check_vectors."""
    dims = []
    for m, codebook in enumerate(codebooks):
        check_vectors(codebook, f"{name}[{m}]", "(K, dim)")
        dims.append(codebook.shape[1])
    if not dims:
        raise ValueError(said("{name} must hold at least one stage's codewords, got none", name=name))
    if min(dims) < max(dims):
        sentence = said(
            "{name} must hold vectors of one size dim, got {low} and {high}", name=name, low=min(dims), high=max(dims)
        )
        raise ValueError(sentence)


def check_floating(x: Tensor, name: str) -> None:
    """Raise unless `x` is a floating-point tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(said("{name} must be a torch.Tensor, got {kind}", name=name, kind=type(x).__name__))
    if not x.is_floating_point():
        raise TypeError(said("{name} must be a floating-point tensor, got {dtype}", name=name, dtype=x.dtype))


def can_look(x: Tensor) -> bool:
    """Are there values in `x`, and can the program look at them without waiting?"""
    return x.numel() > 0 and x.device.type == "cpu" and not torch.compiler.is_compiling()


def check_finite(x: Tensor, name: str) -> None:
    """Raise if there is NaN or infinity in `x`, as far as one can look."""
    if can_look(x):
        low, high = x.detach().aminmax()
        if not (low.isfinite() and high.isfinite()):
            raise ValueError(said("{name} must be finite, got NaN or infinity among its values", name=name))


def check_first_pass() -> None:
    """Raise in a forward pass that a backward pass computes anew, as torch.utils.checkpoint does.

    A graph that torch.compile made before can't look.
    """
    if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
        raise RuntimeError(
            said(
                "a quantizer that learns can't be part of what torch.utils.checkpoint computes twice; "
                'call it outside, or keep its codebook as it is with codebook_update="none"'
            )
        )


def check_mask(mask: Tensor, shape: torch.Size) -> None:
    """Raise unless `mask` is a bool tensor of x's shape without its channels."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(said("mask must be a bool tensor, True where x is real, got {got}", got=got))
    if mask.shape != shape:
        raise ValueError(
            said(
                "mask must have x's shape without channels, {shape}, got {got}",
                shape=tuple(shape),
                got=tuple(mask.shape),
            )
        )


def check_indices(indices: Tensor, low: int, high: int) -> bool:
    """Raise unless `indices` is an integer tensor, all of it from `low` to `high`. → May any of them be negative?"""
    if not isinstance(indices, Tensor):
        raise TypeError(said("{name} must be a torch.Tensor, got {kind}", name="indices", kind=type(indices).__name__))
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise TypeError(said("indices must be an integer tensor, got {dtype}", dtype=indices.dtype))
    if not can_look(indices):
        return low < 0
    least, most = (int(i) for i in indices.long().aminmax())  # for uint16, torch has no aminmax
    if least < low or most > high:
        raise ValueError(
            said(
                "indices must lie between {low} and {high}, got {least} to {most}",
                low=low,
                high=high,
                least=least,
                most=most,
            )
        )
    return least < 0


def check_stages(indices: Tensor, codebook_sizes: Sequence[int]) -> bool:
    """As check_indices, from −1, for 1 to M stages along the last axis, each with its own number of codewords."""
    skips = check_indices(indices, -1, max(codebook_sizes) - 1)
    if indices.ndim == 0 or not 1 <= indices.shape[-1] <= len(codebook_sizes):
        raise ValueError(
            said(
                "indices must have 1 to {stages} stages along the last axis, got shape {shape}",
                stages=len(codebook_sizes),
                shape=tuple(indices.shape),
            )
        )
    if min(codebook_sizes) < max(codebook_sizes):
        for codebook_size, index in zip(codebook_sizes, indices.unbind(-1), strict=False):
            check_indices(index, -1, codebook_size - 1)
    return skips


def check_levels(levels: Sequence[int]) -> None:
    """Raise unless `levels` are whole numbers ≥ 2, one for each channel, whose product an int64 can count."""
    if not isinstance(levels, Sequence) or isinstance(levels, str) or not levels:
        raise ValueError(
            said("levels must be a list with a whole number ≥ 2 for each channel, got {levels!r}", levels=levels)
        )
    for each in levels:
        check_whole(each, said("each of levels"), low=2)
    if math.prod(levels) > 2**63 - 1:
        raise ValueError(
            said("levels must have a product below 2^63, for an index to hold it, got {levels}", levels=list(levels))
        )


def check_one_of(value: str, name: str, *allowed: str) -> None:
    """Raise unless `value` is one of those allowed."""
    if value not in allowed:
        *others, last = (f'"{word}"' for word in allowed)
        first = said(", ").join(others)
        raise ValueError(
            said("{name} must be {others} or {last}, got {value!r}", name=name, others=first, last=last, value=value)
        )


def check_whole(value: int, name: str, high: int | None = None, low: int = 1) -> None:
    """Raise unless `value` is a whole number from `low` to `high`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < low or (high is not None and value > high):
        limits = f"≥ {low}" if high is None else said("from {low} to {high}", low=low, high=high)
        raise ValueError(
            said("{name} must be a whole number {limits}, got {value!r}", name=name, limits=limits, value=value)
        )


def check_range(value: float, name: str, low: float, high: float) -> None:
    """Raise unless `value` is a finite number, low ≤ `value` ≤ high."""
    if not isinstance(value, Real) or isinstance(value, bool) or not (low <= value <= high and math.isfinite(value)):
        limits = f"≥ {low:g}" if high == math.inf else said("from {low:g} to {high:g}", low=low, high=high)
        raise ValueError(said("{name} must be a number {limits}, got {value!r}", name=name, limits=limits, value=value))
