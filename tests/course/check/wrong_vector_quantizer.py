"""Wrong answers to the exercises of 02 · How does a lookup learn?"""

from collections.abc import Callable
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
    (lambda x, codebook: torch.cdist(x, codebook).argmin(), "one number for the whole table"),
    (lambda x, codebook: (codebook.square().sum(1) / 2 - x @ codebook.T).argmin(0), "over the codewords"),
    (lambda x, codebook: (codebook.square().sum(1) / 2 - x @ codebook.T).argmin(), "one number for the whole table"),
    (lambda x, codebook: (x @ codebook.T).argmax(1), "large norm"),
    (lambda x, codebook: (codebook.square().sum() / 2 - x @ codebook.T).argmin(1), "large norm .* its own ½‖c‖²"),
    (lambda x, codebook: (codebook.square().sum(1) - x @ codebook.T / 2).argmin(1), "weigh too much"),
    (lambda x, codebook: (x.square().sum(1, keepdim=True) / 2 - x @ codebook.T).argmin(1), "large norm"),
    (lambda x, codebook: (x @ codebook.T).argmin(1), "minus is lost"),
    (lambda x, codebook: (codebook.square().sum(1) / 2 + x @ codebook.T).argmin(1), "wrong sign"),
    (lambda x, codebook: (codebook.square().sum(1) / 2 - x @ codebook.T).argmax(1), "farthest"),
    (lambda x, codebook: (codebook.square().sum(1) - x @ codebook.T).argmin(1), "weigh too much"),
    (lambda x, codebook: (codebook.square().sum(1) / 2 - 2 * x @ codebook.T).argmin(1), "weigh too little"),
    (lambda x, codebook: (codebook.norm(dim=1) / 2 - x @ codebook.T).argmin(1), "half the length"),
    (lambda x, codebook: (codebook.sum(1).square() / 2 - x @ codebook.T).argmin(1), "summed before they are squared"),
    (lambda x, codebook: (codebook.square().mean(1) / 2 - x @ codebook.T).argmin(1), "sum both"),
    (lambda x, codebook: (F.normalize(x) @ F.normalize(codebook).T).argmax(1), "Only the directions"),
    (lambda x, codebook: (x[:, None] - codebook).sum(-1).argmin(1), "they cancel"),
    (lambda x, codebook: (x[:, None] - codebook).abs().sum(-1).argmin(1), "along the axes"),
    (lambda x, codebook: nearest(x, codebook).float(), "right numbers as floats"),
    (lambda x, codebook: torch.cdist(x, codebook).amin(1), "smallest distances"),
    (lambda x, codebook: (codebook.square().sum(1) / 2 - x @ codebook.T).min(1), "values and indices together"),
    (lambda x, codebook: codebook.square().sum(1) / 2 - x @ codebook.T, "scores of all codewords"),
    (lambda x, codebook: codebook[nearest(x, codebook)], "codewords themselves"),
    (lambda x, codebook: torch.cdist(x, codebook).argmin(1, keepdim=True), "a column"),
    (lambda x, codebook: (x @ codebook).argmin(1), "raises RuntimeError .* for x of shape"),
]

WRONG["predicted_slopes"] = [
    (lambda: (-1.8, -1.8), "true slope is not -1.8: a small step"),
    (lambda: (-1.2, -1.8), "true slope is not -1.2: a small step"),
    (lambda: (-1.8, 0), "wrong way round"),
    (lambda: (0, 0), "moves with x"),
    (lambda: (0, 1), "x̂ alone"),
    (lambda: (0.0, -1.2), "and not at x = 0.3"),
    (lambda: (0.0, 1.2), "and not at 0.3; and a larger"),
    (lambda: (0.0, 0.3 - 0.9), "That is x − 0.9"),
    (lambda: (0.0, 1.8), "other sign"),
    (lambda: (0.0, -0.9), "factor 2"),
    (lambda: (0.0, 2 * (1 - 0.9)), "is 0, not 1"),
    (lambda: (0.0, 0.81), "the loss itself"),
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


def _alike(loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Both losses made of the difference by the same rule, each with the right tensor held still."""
    return lambda x, quantized: (loss(x.detach() - quantized), loss(x - quantized.detach()))


WRONG["vq_losses"] = [
    (_undetached, "detach x"),
    (_loose_commitment, "detach quantized"),
    (_swapped, "wrong way round"),
    (_detached, "codebook loss moves nothing"),
    (_frozen_commitment, "commitment loss moves nothing"),
    (lambda x, quantized: 2 * [F.mse_loss(x.detach(), quantized.detach())], "Neither loss moves anything"),
    (_summed, "codebook loss is a sum: take the mean"),
    (_alike(lambda error: error.square().sum(1).mean()), "codebook loss is summed over the components"),
    (_alike(lambda error: error.norm(dim=1).square().mean()), "codebook loss is summed over the components"),
    (_alike(lambda error: error.square().sum() / error.shape[1]), "codebook loss is summed over the vectors"),
    (lambda x, q: (F.mse_loss(x.detach(), q), 0.25 * F.mse_loss(x, q.detach())), "commitment loss .* leave β out"),
    (lambda x, q: (0.25 * F.mse_loss(x.detach(), q), F.mse_loss(x, q.detach())), "codebook loss .* leave β out"),
    (lambda x, q: (F.mse_loss(x.detach(), q), 0.1 * F.mse_loss(x, q.detach())), "multiplied by 0.1: leave β out"),
    (lambda x, q: 2 * [F.mse_loss(x.detach(), q) + F.mse_loss(x, q.detach())], "holds both losses"),
    (_alike(lambda error: error.mean().square()), "square of a mean"),
    (_alike(lambda error: error), "isn't squared yet"),
    (_alike(lambda error: error.square().mean() / 2), "halved"),
    (_alike(lambda error: error.square().mean().sqrt()), "root of the mean"),
    (_alike(lambda error: error.norm(dim=1).mean()), "averages lengths"),
    (_alike(lambda error: error.norm()), "is a length"),
    (_alike(lambda error: error.abs().mean()), "absolute values"),
    (_alike(lambda error: error.mean()), "isn't squared: .* cancel\\. Seen"),
    (_alike(lambda error: -error.mean()), "isn't squared, .* cancel\\. Seen"),
    (lambda x, quantized: 2 * [F.mse_loss(x, quantized).item()], "plain numbers, .* leave out .item"),
    (_alike(lambda error: error.square()), "isn't averaged yet"),
    (_alike(lambda error: error.square().mean(1)), "over the components alone"),
    (lambda x, q: F.mse_loss(x.detach(), q) + 0.25 * F.mse_loss(x, q.detach()), "return the two losses"),
    (lambda x, quantized: [F.mse_loss(x, quantized)], "Return 2 things"),
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


def _mends(
    there: Callable[[Tensor], Tensor] = lambda features: features.permute(0, 2, 3, 1),
    back: Callable[[Tensor, Tensor], Tensor] = lambda chosen, features: chosen.permute(0, 3, 1, 2),
    loss: Callable[[Tensor, Tensor, float], Tensor] = lambda x, c, beta: (
        F.mse_loss(c, x.detach()) + beta * F.mse_loss(x, c.detach())
    ),
    result: Callable[[Tensor, Tensor], Tensor] = straight_through,
) -> Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]:
    """The solution, but for one of its parts."""

    def quantize_features(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        x = there(features)
        chosen = codebook[nearest(x, codebook)]
        return result(features, back(chosen, features)), loss(x, chosen, beta)

    return quantize_features


def _through_indices(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    x = features.permute(0, 2, 3, 1)
    return nearest(x, codebook), F.mse_loss(codebook[nearest(x, codebook)], x)


def _loss_of_the_result(detach: bool) -> Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]:
    """The losses taken with what straight_through returns."""

    def quantize_features(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        chosen = codebook[nearest(features.permute(0, 2, 3, 1), codebook)].permute(0, 3, 1, 2)
        result = straight_through(features, chosen)
        if not detach:
            return result, (1 + beta) * F.mse_loss(result, features.detach())
        return result, F.mse_loss(result, features.detach()) + beta * F.mse_loss(features, result.detach())

    return quantize_features


def _reshaped_there(features: Tensor) -> Tensor:
    batch, channels, height, width = features.shape
    return features.reshape(batch, height, width, channels)


WRONG["quantize_features"] = [
    (_classic, "still compares"),
    (_cut_by_reshape, "cut across .* permute\\(0, 2, 3, 1\\)"),
    (_mends(there=_reshaped_there), "On the way there reshape"),
    (_mends(there=lambda features: features.view(_reshaped_there(features).shape)), "On the way there reshape"),
    (_mends(back=lambda chosen, features: chosen.reshape(features.shape)), "On the way back reshape"),
    (_mends(back=lambda chosen, features: chosen.permute(0, 3, 2, 1)), "H and W have changed places"),
    (_channels_last, "permute it back"),
    (_mends(loss=lambda x, c, beta: ((1 + beta) * F.mse_loss(x, c)).item()), "plain number, .* leave out .item"),
    (_through_indices, "indices: look the codewords up"),
    (_mends(result=lambda features, quantized: straight_through(quantized, features)), "still the features"),
    (_plain_lookup, "must not move the codebook"),
    (_no_gradient, "reach the features"),
    (_everything_moves, "Nothing is detached"),
    (_beta_misplaced, "β weighs the wrong loss"),
    (_loss_of_the_result(detach=True), "hides the codebook"),
    (_loss_of_the_result(detach=False), "hides the codebook"),
    (_mends(loss=lambda x, c, beta: (1 + beta) * F.mse_loss(c, x.detach())), "in one of the losses only they may move"),
    (_mends(loss=lambda x, c, beta: (1 + beta) * F.mse_loss(x.detach(), c.detach())), "It moves nothing"),
    (_mends(loss=lambda x, c, beta: F.mse_loss(c, x.detach()) + F.mse_loss(x, c.detach())), "β is missing"),
    (_mends(loss=lambda x, c, beta: beta * (F.mse_loss(c, x.detach()) + F.mse_loss(x, c.detach()))), "both losses"),
    (_mends(loss=lambda x, c, beta: beta * F.mse_loss(x, c.detach())), "commitment loss alone: add"),
    (_mends(loss=lambda x, c, beta: F.mse_loss(c, x.detach())), "one of the two losses"),
    (_mends(loss=lambda x, c, beta: (1 + beta) * (x - c).square().sum()), "sums over all components"),
    (_mends(loss=lambda x, c, beta: (1 + beta) * (x - c).square().sum(-1).mean()), "sums over the channels"),
    (
        _mends(loss=lambda x, c, beta: F.mse_loss(c, x) + beta * F.mse_loss(x, c.detach())),
        "codebook loss moves the features too",
    ),
    (_mends(loss=lambda x, c, beta: F.mse_loss(c, x.detach()) + beta * F.mse_loss(x, c)), "detach them in it"),
    (_mends(loss=lambda x, c, beta: F.mse_loss(c, x.detach()) + 0.25 * F.mse_loss(x, c.detach())), "as 0.25"),
    (_mends(loss=lambda x, c, beta: (1 + beta) * (x - c).square()), "isn't averaged"),
    (lambda *inputs: _mends()(*inputs)[::-1], "wrong way round"),
    (lambda features, codebook, beta: features, "Return 2 things"),
]

WRONG["beta_for"] = [
    (lambda share: 1 - share, "share that x goes"),
    (lambda share: share, "the share itself"),
    (lambda share: share / (1 - share), "here it is the codeword"),
    (lambda share: 1 / share, "Too large by 1"),
    (lambda share: 1 / share + 1, "Too large by 2"),
    (lambda share: 1 / (1 + share), "other way round"),
    (lambda share: share / (1 + share), "x's share at a given β"),
    (lambda share: 1 - 1 / share, "sign is turned"),
    (lambda share: 100 / share - 1, "percent"),
    (lambda share: 1 // share - 1, "rounds down"),
    (lambda share: round(1 / share - 1, 1), "rounded"),
    (lambda share: round(1 / share - 1, 2), "rounded"),
    (lambda share: 2 * (1 - share), "straight line"),
    (lambda share: 1.25 * (1 - share), "straight line"),
    (lambda share: 100 * (1 / share - 1), "not a percentage"),
    (lambda share: 0.25, "0.25 for every share"),
    (lambda share: 2.0, "2 for every share"),
]
