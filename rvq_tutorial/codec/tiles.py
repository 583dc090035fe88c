"""Tiles: a large photo goes through the model in squares, each with a margin, so that memory stays small.

Its parts come out as they would from the whole: the margin is all that the networks can see beyond a tile.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

TILE = 1024  # pixels, a tile's side


class Span(NamedTuple):
    """One side of a tile, in cells of the grid of indices."""

    part: slice  # of the whole grid: what is wanted
    seen: slice  # of the whole grid: that, and the margin that it depends on
    kept: slice  # of what is seen: what is wanted


def tiles(grid: tuple[int, int], stride: int, margin: int) -> Iterator[tuple[Span, Span]]:
    """Rows and columns of each tile of a grid whose cells are stride × stride pixels."""
    size = max(1, TILE // stride)
    return itertools.product(*(list(_spans(length, size, margin)) for length in grid))


def reach(network: nn.Module) -> int:
    """How many cells away a cell can still make a difference, at most: the sum of what its convolutions reach."""
    convolutions = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d))
    return sum((max(layer.kernel_size) - min(layer.stride) + 1) // 2 for layer in convolutions)


def _spans(length: int, size: int, margin: int) -> Iterator[Span]:
    for start in range(0, length, size):
        stop = min(start + size, length)
        seen = slice(max(0, start - margin), min(length, stop + margin))
        yield Span(slice(start, stop), seen, slice(start - seen.start, stop - seen.start))
