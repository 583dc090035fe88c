"""Wrong answers to the exercises of 02 · How does a lookup learn?"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial import nearest, straight_through

# Exercise → wrong answers, each with a regular expression for what its learner is told.
WRONG: dict[str, list[tuple[Any, str]]] = {}

WRONG["nearest_code"] = [
    (lambda x, codebook: torch.cdist(x, codebook).argmax(1), "farthest"),
    (lambda x, codebook: torch.cdist(x, codebook).argmin(0), "over the codewords"),
    (lambda x, codebook: (x @ codebook.T).argmax(1), "large norm"),
    (lambda x, codebook: (codebook.square().sum(1) / 2 + x @ codebook.T).argmin(1), "wrong sign"),
    (lambda x, codebook: (codebook.square().sum(1) - x @ codebook.T).argmin(1), "weigh too much"),
    (lambda x, codebook: torch.cdist(x, codebook).amin(1), "whole numbers"),
    (lambda x, codebook: (x @ codebook).argmin(1), "raises RuntimeError .* for x of shape"),
]

WRONG["predicted_slopes"] = [
    (lambda: (-1.8, -1.8), "true slope is not -1.8: a small step"),
    (lambda: (0, 0), "moves with x"),
    (lambda: (0.0, -1.2), "value of x̂"),
    (lambda: (0.0, 1.8), "other sign"),
    (lambda: (0.0, -0.9), "factor 2"),
    (lambda: (0.0, 5.0), "is not 5: take"),
    (lambda: -1.8, "Return 2 things, in this order: the true slope"),
]


def _undetached(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return F.mse_loss(quantized, x), F.mse_loss(x, quantized)


def _swapped(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return F.mse_loss(x, quantized.detach()), F.mse_loss(quantized, x.detach())


def _detached(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return F.mse_loss(x.detach(), quantized.detach()), F.mse_loss(x, quantized.detach())


def _frozen_commitment(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return F.mse_loss(x.detach(), quantized), F.mse_loss(x.detach(), quantized.detach())


def _loose_commitment(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return F.mse_loss(x.detach(), quantized), F.mse_loss(x, quantized)


def _summed(x: Tensor, quantized: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(x.numel() * loss for loss in _swapped(quantized, x))


WRONG["vq_losses"] = [
    (_undetached, "detach x"),
    (_loose_commitment, "detach quantized"),
    (_swapped, "wrong way round"),
    (_detached, "codebook loss moves nothing"),
    (_frozen_commitment, "commitment loss moves nothing"),
    (_summed, "codebook loss is a sum, 18 times too large"),
    (lambda x, quantized: (x - quantized).square().sum(1).mean().expand(2).unbind(), "3 times too large"),
    (lambda x, quantized: (F.mse_loss(x, quantized), 0.25 * F.mse_loss(x, quantized)), "The commitment loss should be"),
    (lambda x, quantized: F.mse_loss(x, quantized), "Return 2 things"),
]


def _classic(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    x = features.permute(0, 2, 3, 1)
    quantized = codebook[nearest(x, codebook)].permute(0, 3, 1, 2)
    loss = (quantized - x.detach()).square().mean() + beta * (quantized.detach() - x).square().mean()
    return straight_through(features, quantized), loss


def _cut_by_reshape(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    x = features.reshape(-1, codebook.shape[1])
    chosen = codebook[nearest(x, codebook)]
    loss = F.mse_loss(chosen, x.detach()) + beta * F.mse_loss(x, chosen.detach())
    return straight_through(x, chosen).reshape(features.shape), loss


def _mended(features: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features and codewords, both with channels last, and the mean squared difference, with every gradient."""
    x = features.permute(0, 2, 3, 1)
    chosen = codebook[nearest(x, codebook)]
    return x, chosen, F.mse_loss(x, chosen)


def _channels_last(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    x, chosen, loss = _mended(features, codebook)
    return straight_through(x, chosen), (1 + beta) * loss


def _plain_lookup(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    _, chosen, loss = _mended(features, codebook)
    return chosen.permute(0, 3, 1, 2), (1 + beta) * loss


def _no_gradient(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    _, chosen, loss = _mended(features, codebook)
    return chosen.permute(0, 3, 1, 2).detach(), (1 + beta) * loss


def _everything_moves(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    _, chosen, loss = _mended(features, codebook)
    return straight_through(features, chosen.permute(0, 3, 1, 2)), (1 + beta) * loss


def _beta_misplaced(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    x, chosen, _ = _mended(features, codebook)
    loss = beta * F.mse_loss(chosen, x.detach()) + F.mse_loss(x, chosen.detach())
    return straight_through(features, chosen.permute(0, 3, 1, 2)), loss


WRONG["quantize_features"] = [
    (_classic, "still compares"),
    (_cut_by_reshape, "reshape"),
    (_channels_last, "permute it back"),
    (_plain_lookup, "must not move the codebook"),
    (_no_gradient, "reach the features"),
    (_everything_moves, "not the right gradient"),
    (_beta_misplaced, "β weighs the term"),
    (lambda features, codebook, beta: features, "Return 2 things"),
]

WRONG["beta_for"] = [
    (lambda share: 1 - share, "share that x goes"),
    (lambda share: share / (1 - share), "here it is the codeword"),
    (lambda share: 1 / share, "Too large by 1"),
    (lambda share: 1 / (1 + share), "other way round"),
    (lambda share: 0.25, "should be 1, and is 0.25 for share = 0.5"),
]
