"""Exercises of 02 · How does a lookup learn?"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial.course.check.judging import Wrong, compare, difference, exercise, given, gradients, parts, run, shown
from rvq_tutorial.quantizers import straight_through
from rvq_tutorial.search import nearest


def _half_squares(codebook: Tensor) -> Tensor:
    return codebook.square().sum(1) / 2


# Mistakes, each as the function of x and the codebook that makes it.
_NEAREST_MISTAKES: dict[str, Callable[[Tensor, Tensor], Tensor] | list[Callable[[Tensor, Tensor], Tensor]]] = {
    "These are the codewords farthest away: the smallest score wins, so take argmin.": (
        lambda x, c: torch.cdist(x, c).argmax(1)
    ),
    "The product has the wrong sign: ½‖c‖² − x·c.": lambda x, c: (_half_squares(c) + x @ c.T).argmin(1),
    "Codewords with a large norm win too often: add to each codeword's score its own ½‖c‖².": lambda x, c: (
        x @ c.T
    ).argmax(1),
    "The minus is lost: a large product means near, so it is argmin of ½‖c‖² − x·c.": lambda x, c: (x @ c.T).argmin(1),
    "The squares weigh too much: it is ½‖c‖² − x·c, or ‖c‖² − 2 x·c.": [
        lambda x, c: (2 * _half_squares(c) - x @ c.T).argmin(1),
        lambda x, c: (2 * _half_squares(c) - x @ c.T / 2).argmin(1),
    ],
    "The squares weigh too little: it is ½‖c‖² − x·c, or ‖c‖² − 2 x·c.": (
        lambda x, c: (_half_squares(c) - 2 * x @ c.T).argmin(1)
    ),
    "That is ½‖c‖, half the length: it is ½‖c‖², half the square.": lambda x, c: (c.norm(dim=1) / 2 - x @ c.T).argmin(
        1
    ),
    "That is ‖c‖, the length: it is ½‖c‖², half the square.": lambda x, c: (c.norm(dim=1) - x @ c.T).argmin(1),
    "The components are summed before they are squared: square first, ‖c‖² is the sum of the squares.": (
        lambda x, c: (c.sum(1).square() / 2 - x @ c.T).argmin(1)
    ),
    "The squares are averaged over the components, the products summed: sum both.": (
        lambda x, c: (c.square().mean(1) / 2 - x @ c.T).argmin(1)
    ),
    "Only the directions are compared: a codeword's length counts too.": (
        lambda x, c: (F.normalize(x) @ F.normalize(c).T).argmax(1)
    ),
    "The differences are summed without squares, so they cancel.": lambda x, c: (x[:, None] - c).sum(2).argmin(1),
    "These are nearest along the axes, by absolute differences: square them.": (
        lambda x, c: torch.cdist(x, c, p=1).argmin(1)
    ),
    "The minimum is taken over the vectors; take it over the codewords, argmin(1).": [
        lambda x, c: torch.cdist(x, c).argmin(0),
        lambda x, c: (_half_squares(c) - x @ c.T).argmin(0),
    ],
    "argmin without an axis gives one number for the whole table: argmin(1) gives one for each row.": [
        lambda x, c: torch.cdist(x, c).argmin(),
        lambda x, c: (_half_squares(c) - x @ c.T).argmin(),
    ],
    "These are the smallest scores; asked is where they stand: argmin, not min.": (
        lambda x, c: (_half_squares(c) - x @ c.T).amin(1)
    ),
    "These are the smallest distances; asked is where they stand: argmin, not min.": lambda x, c: torch.cdist(
        x, c
    ).amin(1),
    "These are the scores of all codewords: take argmin(1), the place of the smallest.": (
        lambda x, c: _half_squares(c) - x @ c.T
    ),
    "These are the codewords themselves: return their indices.": lambda x, c: c[nearest(x, c)],
    "These are the right numbers as floats: indices are whole numbers, as argmin gives them.": (
        lambda x, c: nearest(x, c).float()
    ),
    "The result is a column, (N, 1), and not (N,): leave out keepdim.": lambda x, c: nearest(x, c)[:, None],
}


@exercise
def nearest_code(answer: Callable) -> str:
    """(N, dim), (K, dim) → (N,): the index of the nearest codeword."""
    for num, dim, size in [(200, 3, 32), (64, 2, 16), (50, 8, 50), (1, 4, 2)]:
        scale = torch.rand(size, 1) * 3  # codewords near and far, or their norms would hardly matter
        inputs = {"x": torch.randn(num, dim), "codebook": scale * torch.randn(size, dim)}
        result = run(answer, **inputs)
        if isinstance(result, tuple) and len(result) == 2:
            raise Wrong("These are values and indices together: min gives both. Return the indices alone, argmin.")
        compare(answer, nearest, _NEAREST_MISTAKES, **inputs)
    return "nearest_code finds the nearest codeword on every input tried."


_PRETENDED_SLOPES = {
    0.0: "Straight-through takes x̂ for x + a constant: it moves with x, so the slope isn't 0.",
    1.0: "That is the slope of x̂ alone, which is pretended to be 1. The loss is a square of x̂ − 0.9: chain rule.",
    -1.2: "The slope of the loss is taken at the value of x̂, which is 0, and not at x = 0.3.",
    1.2: "The slope of the loss is taken at the value of x̂, 0, and not at 0.3; and a larger x̂ lowers the loss.",
    -0.6: "That is x − 0.9. The slope of a square brings a factor 2, and it is taken at x̂ = 0.",
    1.8: "The slope has the other sign: a larger x̂ would be nearer to 0.9, so the loss falls.",
    -0.9: "The derivative of a square brings a factor 2.",
    0.2: "The nearest codeword to 0.3 is 0, not 1.",
    0.81: "That is the loss itself, (0 − 0.9)². Its slope by x̂ is asked.",
    0.36: "That is (0.3 − 0.9)²: a loss, and at x. Asked is its slope, at x̂'s value.",
}


@exercise
def predicted_slopes(answer: Callable) -> str:
    """→ the slope of (x̂ − 0.9)² at x = 0.3 among the codewords −1, 0, 1, and what straight-through says it is."""
    true, pretended = parts(run(answer), "the true slope", "the slope with straight-through")
    if not difference(true, -1.8) and not difference(pretended, 0.0):
        raise Wrong("They are the wrong way round: first the true slope, then that of straight-through.")
    if difference(true, 0.0):
        raise Wrong(
            f"The true slope is not {shown(true)}: a small step from 0.3 leaves x̂ at 0, and the loss where it was."
        )
    for value, words in _PRETENDED_SLOPES.items():
        if not difference(pretended, value):
            raise Wrong(words)
    if difference(pretended, -1.8):
        raise Wrong(f"The slope with straight-through is not {shown(pretended)}: take 2 (x̂ − 0.9) at x̂'s value.")
    return "The true slope is 0; straight-through says 2 (0 − 0.9) = −1.8."


_NO_ITEM = "leave out .item() and float()."

# What a loss may be instead of the mean of the squared errors. {loss} is its name.
_LOSS_MISTAKES: dict[str, Callable[[Tensor], Tensor]] = {
    "The {loss} is a sum: take the mean.": lambda error: error.square().sum(),
    "The {loss} is summed over the components: average over them too.": lambda error: error.square().sum(1).mean(),
    "The {loss} is summed over the vectors: average over them too.": lambda error: error.square().mean(1).sum(),
    "The {loss} is multiplied by 0.25: leave β out here, it comes in when the losses are added.": (
        lambda error: 0.25 * error.square().mean()
    ),
    "The {loss} is multiplied by 0.1: leave β out here, it comes in when the losses are added.": (
        lambda error: 0.1 * error.square().mean()
    ),
    "The {loss} is halved: leave the ½ out, a mean of squares is all.": lambda error: error.square().mean() / 2,
    "The {loss} is a length: it wants the squared difference, without a root.": lambda error: error.norm(),
    "The {loss} is the root of the mean: leave the root out.": lambda error: error.square().mean().sqrt(),
    "The {loss} averages lengths: it wants squared differences, without a root.": lambda error: error.norm(
        dim=1
    ).mean(),
    "The {loss} takes absolute values: square the differences.": lambda error: error.abs().mean(),
    "The {loss} isn't squared: differences of both signs cancel.": lambda error: error.mean(),
    "The {loss} isn't squared, and differences of both signs cancel.": lambda error: -error.mean(),
    "The {loss} is the square of a mean: square first, or differences of both signs cancel.": (
        lambda error: error.mean().square()
    ),
    "The {loss} holds both losses: return each by itself.": lambda error: 2 * error.square().mean(),
    "The {loss} isn't squared yet, nor averaged: the mean of the squared differences is asked.": lambda error: error,
    "The {loss} has the wrong sign: an error is never below 0.": lambda error: -error.square().mean(),
    "The {loss} isn't averaged yet: one number for all vectors and components.": lambda error: error.square(),
    "The {loss} is averaged over the components alone: one number for all vectors.": lambda error: error.square().mean(
        1
    ),
}


@exercise
def vq_losses(answer: Callable) -> str:
    """(N, dim), (N, dim) → codebook loss and commitment loss, both means."""
    names = "codebook loss", "commitment loss"
    for shape in [(6, 3), (50, 2), (1, 8)]:
        x, quantized = (torch.randn(shape, requires_grad=True) for _ in range(2))
        result = run(answer, x=x, quantized=quantized)
        if isinstance(result, Tensor) and not result.ndim:
            raise Wrong("This is one number: return the two losses, codebook_loss, commitment_loss, not their sum.")
        losses = parts(result, *names)
        wanted = F.mse_loss(x, quantized)
        for name, loss in zip(names, losses, strict=True):
            fault = difference(loss, wanted, f"The {name}")
            if not fault:
                continue
            for words, mistake in _LOSS_MISTAKES.items():
                if not difference(loss, mistake(x - quantized)):
                    raise Wrong(f"{words.format(loss=name)} Seen for x and quantized of shape {shape}.")
            raise Wrong(f"{fault} for x and quantized of shape {shape}.")
        if not all(isinstance(loss, Tensor) for loss in losses):
            raise Wrong(f"These are plain numbers, through which no gradient flows: {_NO_ITEM}")

        moves = [[bool(gradient.any()) for gradient in gradients(loss, x, quantized)] for loss in losses]
        if moves == [[True, False], [False, True]]:
            raise Wrong("They are the wrong way round: x holds still in the codebook loss, which moves the codewords.")
        if not any(moves[0] + moves[1]):
            raise Wrong("Neither loss moves anything: detach one tensor in each, and leave the other its gradient.")
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


# Mistakes in the result, each with how it is made of features, codebook and the right result.
_FEATURE_MISTAKES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "The result has its channels last: permute it back to (B, C, H, W).": lambda x, c, right: right.movedim(1, -1),
    "The vectors are cut across channels and places: reshape only renames axes. Move the channels last with "
    "permute(0, 2, 3, 1).": lambda x, c, right: c[nearest(x.reshape(-1, c.shape[1]), c)].reshape(x.shape),
    "On the way there reshape only renames axes, and cuts the vectors across channels and places: move the channels "
    "last with permute(0, 2, 3, 1).": (
        lambda x, c, right: c[nearest(x.reshape(right.movedim(1, -1).shape), c)].movedim(-1, 1)
    ),
    "On the way back reshape only renames axes, and mixes channels with places: move the channels with "
    "permute(0, 3, 1, 2).": lambda x, c, right: right.movedim(1, -1).reshape(x.shape),
    "On the way back H and W have changed places: permute(0, 3, 1, 2).": lambda x, c, right: right.mT,
    "The result is still the features: straight_through takes the gradient's side first, and the value second.": (
        lambda x, c, right: x
    ),
    "These are indices: look the codewords up.": lambda x, c, right: nearest(x.movedim(1, -1), c),
}

# Mistakes in the loss, each with how it is made of the mean squared error D and β; right is (1 + β) D.
_LOSS_OF_FEATURES_MISTAKES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "β is missing in the loss: codebook loss + β · commitment loss.": lambda error, beta: 2 * error,
    "β weighs both losses: it belongs to the commitment loss alone.": lambda error, beta: 2 * beta * error,
    "The loss holds the commitment loss alone: add the codebook loss.": lambda error, beta: beta * error,
    "The loss holds one of the two losses: codebook loss + β · commitment loss.": lambda error, beta: error,
    "β is written as 0.25: take the argument beta.": lambda error, beta: 1.25 * error,
    "The losses are subtracted: add them.": lambda error, beta: (1 - beta) * error,
}


def _across_layouts(features: Tensor, codebook: Tensor, beta: float) -> Tensor:
    quantized, _ = _quantized_features(features, codebook, beta)
    return (1 + beta) * (quantized - features.movedim(1, -1)).square().mean()


@exercise
def quantize_features(answer: Callable) -> str:
    """(B, C, H, W), (K, C), β → the quantized features and the loss."""
    names = "the quantized features", "the loss"
    inputs = _features((1, 4, 4, 4))  # C = H = W: here the two layouts can be mistaken for each other
    quantized, loss = parts(run(answer, **inputs), *names)
    if _looks_like(loss, _across_layouts, *inputs.values()):
        raise Wrong(
            "The loss still compares a tensor with channels last with one with channels second: one place's channels "
            f"with another place's. Seen {given(inputs)}."
        )
    for shape in [(2, 6, 5, 5), (2, 5, 3, 4), (3, 8, 1, 6), (1, 4, 4, 4)]:
        inputs = _features(shape)
        quantized, loss = parts(run(answer, **inputs), *names)
        if isinstance(quantized, Tensor) and not quantized.ndim:
            raise Wrong("They are the wrong way round: first the quantized features, then the loss.")
        if isinstance(loss, Tensor) and loss.ndim:
            raise Wrong(
                f"The loss isn't averaged, it has shape {tuple(loss.shape)}: one number, the mean over everything."
            )
        _judge_result(quantized, **inputs)
        _judge_loss(loss, **inputs)
        if not isinstance(loss, Tensor):
            raise Wrong(f"The loss is a plain number, through which no gradient flows: {_NO_ITEM}")
        _judge_gradients(quantized, loss, **inputs)
    return "Values, losses and gradients are right, for every shape tried."


def _features(shape: tuple[int, ...]) -> dict[str, Any]:
    features, codebook = torch.randn(shape, requires_grad=True), torch.randn(16, shape[1], requires_grad=True)
    return {"features": features, "codebook": codebook, "beta": 0.4}


def _looks_like(result: Any, mistake: Callable[..., Tensor], *inputs: Any) -> bool:
    try:
        return not difference(result, mistake(*inputs))
    except Exception:  # this mistake can't be made with these shapes
        return False


def _judge_result(quantized: Any, **inputs: Any) -> None:
    features, codebook = inputs["features"], inputs["codebook"]
    right, _ = _quantized_features(**inputs)
    if fault := difference(quantized, right, "The result"):
        mistakes = _FEATURE_MISTAKES.items()
        known = [words for words, made in mistakes if _looks_like(quantized, made, features, codebook, right)]
        raise Wrong(f"{known[0] if known else fault + '.'} Seen {given(inputs)}.")


def _judge_loss(loss: Any, **inputs: Any) -> None:
    features, beta = inputs["features"], inputs["beta"]
    quantized, right = _quantized_features(**inputs)
    if fault := difference(loss, right, "The loss"):
        error = F.mse_loss(quantized, features)
        known = [words for words, made in _LOSS_OF_FEATURES_MISTAKES.items() if not difference(loss, made(error, beta))]
        for number, over in ((features.numel(), "all components"), (features.shape[1], "the channels")):
            if not difference(loss, (1 + beta) * number * error):
                known.append(f"The losses are sums over {over}, {number} times too large here: take means.")
        raise Wrong(f"{known[0] if known else fault + '.'} Seen {given(inputs)}.")


def _judge_gradients(quantized: Tensor, loss: Tensor, features: Tensor, codebook: Tensor, beta: float) -> None:
    weights = torch.randn(features.shape)
    by_features, by_codebook = gradients(weights * quantized, features, codebook)
    if by_codebook.any():
        raise Wrong("The result must not move the codebook: return straight_through(features, ...).")
    if difference(by_features, weights):
        raise Wrong("The result's gradient must reach the features as it is: return straight_through(features, ...).")
    found = tuple(gradients(loss, features, codebook))
    of_features, of_codebook = gradients(_quantized_features(features, codebook, beta)[1], features, codebook)
    both, still, unmoved = 1 + beta, torch.zeros_like(of_features), torch.zeros_like(of_codebook)
    hidden = "The losses are taken with the result of straight_through, which hides the codebook from them: take them "
    hidden += "with the codewords as they were looked up."
    mistakes = [
        (of_features / beta, of_codebook * beta, "β weighs the wrong loss: it belongs to the one that moves features."),
        (of_features * both / beta, of_codebook * both, "Nothing is detached: in each loss one side holds still."),
        (of_features * both / beta, of_codebook, "The codebook loss moves the features too: detach them in it."),
        (of_features, of_codebook * both, "The commitment loss moves the codewords too: detach them in it."),
        (still, of_codebook, "The features get nothing from it: the commitment loss must leave them their gradient."),
        (still, of_codebook * both, "The features get nothing from it: in one of the losses only they may move."),
        (still, unmoved, "It moves nothing: in each loss only one side is detached."),
        (of_features, unmoved, "The codebook gets nothing from it: the codebook loss must leave it its gradient."),
        (
            of_features * both / beta,
            unmoved,
            "The codebook gets nothing from it: in one of the losses only it may move.",
        ),
        (of_features * (beta - 1) / beta, unmoved, hidden),
        (-of_features * both / beta, unmoved, hidden),
    ]
    for wrong_features, wrong_codebook, words in mistakes:
        if not difference(found, (wrong_features, wrong_codebook)):
            raise Wrong(f"The loss has the right value, and not the right gradient. {words}")
    if difference(found, (of_features, of_codebook)):
        raise Wrong("The loss has the right value, and not the right gradient: in each loss, detach one side.")


_BETA_MISTAKES: dict[str, Callable | list[Callable]] = {
    "That is the share that x goes: to the codeword's 1 part x goes β parts.": lambda share: 1 - share,
    "That is the share itself: at β = 1 the codeword goes half the way.": lambda share: share,
    "That is the β at which x goes this share; here it is the codeword.": lambda share: share / (1 - share),
    "Too large by 1: at β = 0 the codeword goes all the way.": lambda share: 1 / share,
    "Too large by 2: 1 is taken off, not added.": lambda share: 1 / share + 1,
    "This is the share at a given β; the question is the other way round.": lambda share: 1 / (1 + share),
    "This is x's share at a given β; the question is the codeword's share, and the other way round.": lambda share: (
        share / (1 + share)
    ),
    "The sign is turned: β is not below 0.": lambda share: 1 - 1 / share,
    "The whole way is 1 + β parts, not β: the codeword's share is 1 / (1 + β).": lambda share: 1 / share - share,
    "The share is taken in percent; it is a number from 0 to 1.": lambda share: 100 / share - 1,
    "// rounds down to a whole number: divide with /.": lambda share: 1 // share - 1,
    "The result is rounded: return the number as it is.": [
        lambda share: round(1 / share - 1, 1),
        lambda share: round(1 / share - 1, 2),
    ],
    "That is a straight line through two measured shares; try a third β: the law is curved.": [
        lambda share: 2 * (1 - share),
        lambda share: 1.25 * (1 - share),
    ],
    "That is 100 times too large: β is a factor, not a percentage.": lambda share: 100 * (1 / share - 1),
}


@exercise
def beta_for(answer: Callable) -> str:
    """The share of the way that the codeword goes → the β for which it does."""
    results = [run(answer, share=share) for share in (0.8, 0.3)]
    if not difference(*results):
        raise Wrong(f"That is {shown(results[0])} for every share: β must depend on the share that is asked for.")
    for share in (0.3, 0.8, 0.5, 0.05, 1.0):
        compare(answer, lambda share: 1 / share - 1, _BETA_MISTAKES, share=share)
    return "The codeword goes 1 / (1 + β) of the way, so β = 1 / share − 1."
