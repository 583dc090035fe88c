"""Two ways past the choice of a codeword, which has no gradient."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Gradient = Literal["straight-through", "rotation"]


def straight_through(x: Tensor, quantized: Tensor) -> Tensor:
    """The value of `quantized`, exactly, with the gradient of `x` (Bengio et al. 2013; VQ-VAE, sec. 3.2)."""
    return quantized.detach() + (x - x.detach())


def rotate(x: Tensor, quantized: Tensor) -> Tensor:
    """The value of `quantized`, exactly, with the gradient of the turn and the scaling that take `x` there.

    Both (..., dim). So the gradient keeps its angle to the vector, and is ‖quantized‖ / ‖x‖ times as long (the rotation
    trick: Fifty et al. 2024, sec. 4). Zero has no direction to turn from: there the gradient goes straight through.
    """
    with torch.no_grad():
        start, end = F.normalize(x, dim=-1), F.normalize(quantized, dim=-1)
        between = F.normalize(start + end, dim=-1)
        size = x.norm(dim=-1, keepdim=True)
        scale = quantized.norm(dim=-1, keepdim=True) / torch.where(size > 0, size, 1)
    # Two reflections, first at `between`, then at `end`, turn `start` into `end` and leave what is orthogonal to both.
    turned = x - 2 * between * _dot(between, x) + 2 * end * _dot(start, x)
    turned = torch.where(size > 0, scale * turned, x)
    return straight_through(turned, quantized)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1, keepdim=True)


CARRY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"straight-through": straight_through, "rotation": rotate}
