"""Exercises of 02 · How does a lookup learn?"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial.check.judging import Wrong, compare, difference, exercise, gradients, parts, run, shown
from rvq_tutorial.quantizers import straight_through
from rvq_tutorial.search import nearest


@exercise
def nearest_code(answer: Callable) -> str:
    """(N, dim), (K, dim) → (N,): the index of the nearest codeword."""
    mistakes = {
        "These are the codewords farthest away: the smallest distance wins, so take argmin.": lambda x, codebook: (
            torch.cdist(x, codebook).argmax(1)
        ),
        "The product has the wrong sign: ½‖c‖² − x·c.": lambda x, codebook: (
            codebook.square().sum(1) / 2 + x @ codebook.T
        ).argmin(1),
        "Codewords with a large norm win too often: leave out ‖x‖², but not ½‖c‖².": lambda x, codebook: (
            -x @ codebook.T
        ).argmin(1),
        "The norms weigh too much: it is ½‖c‖² − x·c, or ‖c‖² − 2 x·c.": lambda x, codebook: (
            codebook.square().sum(1) - x @ codebook.T
        ).argmin(1),
        "The minimum is taken over the vectors; take it over the codewords, argmin(1).": lambda x, codebook: (
            torch.cdist(x, codebook).argmin(0)
        ),
    }
    for num, dim, size in [(7, 3, 5), (64, 2, 16), (50, 8, 50), (1, 4, 2)]:
        scale = torch.rand(size, 1) * 3  # codewords near and far, or their norms would hardly matter
        compare(answer, nearest, mistakes, x=torch.randn(num, dim), codebook=scale * torch.randn(size, dim))
    return "nearest_code finds the nearest codeword on every input tried."


@exercise
def predicted_slopes(answer: Callable) -> str:
    """→ the slope of (x̂ − 0.9)² at x = 0.3 among the codewords −1, 0, 1, and what straight-through says it is."""
    true, pretended = parts(run(answer), "the true slope", "the slope with straight-through")
    if difference(true, 0.0):
        raise Wrong(
            f"The true slope is not {shown(true)}: a small step from 0.3 leaves x̂ at 0, and the loss where it was."
        )
    mistakes = {
        0.0: "Straight-through takes x̂ for x + a constant: it moves with x, so the slope isn't 0.",
        -1.2: "The slope of the loss is taken at the value of x̂, which is 0, and not at x = 0.3.",
        1.8: "The slope has the other sign: a larger x̂ would be nearer to 0.9, so the loss falls.",
        -0.9: "The derivative of a square brings a factor 2.",
    }
    for value, words in mistakes.items():
        if not difference(pretended, value):
            raise Wrong(words)
    if difference(pretended, -1.8):
        raise Wrong(f"The slope with straight-through is not {shown(pretended)}: take 2 (x̂ − 0.9) at x̂'s value.")
    return "The true slope is 0; straight-through says 2 (0 − 0.9) = −1.8."


@exercise
def vq_losses(answer: Callable) -> str:
    """(N, dim), (N, dim) → codebook loss and commitment loss, both means."""
    names = "codebook loss", "commitment loss"
    for shape in [(6, 3), (50, 2), (1, 8)]:
        x, quantized = (torch.randn(shape, requires_grad=True) for _ in range(2))
        losses = parts(run(answer, x=x, quantized=quantized), *names)
        wanted = F.mse_loss(x, quantized)
        for name, loss in zip(names, losses, strict=True):
            if not difference(loss, wanted):
                continue
            if not difference(loss, wanted * x.numel()):
                raise Wrong(f"The {name} is a sum, {x.numel()} times too large for shape {shape}: take the mean.")
            if not difference(loss, wanted * shape[1]):
                raise Wrong(f"The {name} is {shape[1]} times too large for shape {shape}: average over components too.")
            raise Wrong(f"{difference(loss, wanted, f'The {name}')} for x and quantized of shape {shape}.")

        moves = [[bool(gradient.any()) for gradient in gradients(loss, x, quantized)] for loss in losses]
        if moves == [[True, False], [False, True]]:
            raise Wrong("They are the wrong way round: x holds still in the codebook loss, which moves the codewords.")
        if moves[0][0]:
            raise Wrong("The codebook loss must leave x where it is: detach x in it.")
        if moves[1][1]:
            raise Wrong("The commitment loss must leave the codewords where they are: detach quantized in it.")
        if not moves[0][1]:
            raise Wrong("The codebook loss moves nothing: quantized must keep its gradient in it.")
        if not moves[1][0]:
            raise Wrong("The commitment loss moves nothing: x must keep its gradient in it.")
    return "Both losses have the right value, and each moves what it should and nothing else."


def _quantized_features(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    x = features.movedim(1, -1)
    chosen = codebook[nearest(x, codebook)]
    loss = F.mse_loss(chosen, x.detach()) + beta * F.mse_loss(x, chosen.detach())
    return straight_through(features, chosen.movedim(-1, 1)), loss


def _compared_across_layouts(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    quantized, _ = _quantized_features(features, codebook, beta)
    return quantized, (1 + beta) * (quantized - features.movedim(1, -1)).square().mean()


def _reshaped(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    quantized, loss = _quantized_features(features.reshape(-1, codebook.shape[1], 1, 1), codebook, beta)
    return quantized.reshape(features.shape), loss


def _left_channels_last(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    quantized, loss = _quantized_features(features, codebook, beta)
    return quantized.movedim(1, -1), loss


@exercise
def quantize_features(answer: Callable) -> str:
    """(B, C, H, W), (K, C), β → the quantized features and the loss."""
    mistakes = {
        "The loss still compares a tensor with channels last with one with channels second.": _compared_across_layouts,
        "The vectors are cut across channels and places: move the axis with permute, reshape only renames.": _reshaped,
        "The result has its channels last: permute it back to (B, C, H, W).": _left_channels_last,
    }
    for shape in [(1, 4, 4, 4), (2, 5, 3, 4), (3, 8, 1, 6)]:
        features, codebook = torch.randn(shape, requires_grad=True), torch.randn(16, shape[1], requires_grad=True)
        inputs = {"features": features, "codebook": codebook, "beta": 0.5}
        parts(run(answer, **inputs), "the quantized features", "the loss")
        quantized, loss = compare(answer, _quantized_features, mistakes, **inputs)
        weights = torch.randn(shape)
        by_features, by_codebook = gradients(weights * quantized, features, codebook)
        if by_codebook.any():
            raise Wrong("The result must not move the codebook: return straight_through(features, ...).")
        if difference(by_features, weights):
            raise Wrong(
                "The result's gradient must reach the features as it is: return straight_through(features, ...)."
            )
        moves = gradients(loss, features, codebook)
        if difference(moves, tuple(gradients(_quantized_features(**inputs)[1], features, codebook))):
            raise Wrong(
                "The loss has the right value, and not the right gradient: β weighs the term that moves features."
            )
    return "Values, losses and gradients are right, for every shape tried."


@exercise
def beta_for(answer: Callable) -> str:
    """The share of the way that the codeword goes → the β for which it does."""
    mistakes = {
        "That is the share that x goes: to the codeword's 1 part x goes β parts.": lambda share: 1 - share,
        "That is the β at which x goes this share; here it is the codeword.": lambda share: share / (1 - share),
        "Too large by 1: at β = 0 the codeword goes all the way.": lambda share: 1 / share,
        "This is the share at a given β; the question is the other way round.": lambda share: 1 / (1 + share),
    }
    for share in (0.8, 0.5, 0.3, 0.05, 1.0):
        compare(answer, lambda share: 1 / share - 1, mistakes, share=share)
    return "The codeword goes 1 / (1 + β) of the way, so β = 1 / share − 1."
