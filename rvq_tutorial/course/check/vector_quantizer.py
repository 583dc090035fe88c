"""Exercises of 02 · How does a lookup learn?"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial.course.check.judging import Wrong, compare, difference, exercise, gradients, known, parts, run, shown
from rvq_tutorial.course.check.sentences import say
from rvq_tutorial.quantizers import straight_through
from rvq_tutorial.search import nearest


def _half_squares(codebook: Tensor) -> Tensor:
    return codebook.square().sum(1) / 2


# Mistakes, each as the function of x and the codebook that makes it.
NEAREST_MISTAKES = dict(
    farthest=lambda x, c: torch.cdist(x, c).argmax(1),
    wrong_sign=lambda x, c: (_half_squares(c) + x @ c.T).argmin(1),
    without_squares=lambda x, c: (x @ c.T).argmax(1),
    minus_lost=lambda x, c: (x @ c.T).argmin(1),
    squares_too_heavy=[
        lambda x, c: (2 * _half_squares(c) - x @ c.T).argmin(1),
        lambda x, c: (2 * _half_squares(c) - x @ c.T / 2).argmin(1),
    ],
    squares_too_light=lambda x, c: (_half_squares(c) - 2 * x @ c.T).argmin(1),
    half_length=lambda x, c: (c.norm(dim=1) / 2 - x @ c.T).argmin(1),
    length=lambda x, c: (c.norm(dim=1) - x @ c.T).argmin(1),
    summed_before_squared=lambda x, c: (c.sum(1).square() / 2 - x @ c.T).argmin(1),
    squares_averaged=lambda x, c: (c.square().mean(1) / 2 - x @ c.T).argmin(1),
    directions=lambda x, c: (F.normalize(x) @ F.normalize(c).T).argmax(1),
    differences_cancel=lambda x, c: (x[:, None] - c).sum(2).argmin(1),
    along_axes=lambda x, c: torch.cdist(x, c, p=1).argmin(1),
    over_vectors=[lambda x, c: torch.cdist(x, c).argmin(0), lambda x, c: (_half_squares(c) - x @ c.T).argmin(0)],
    whole_table=[lambda x, c: torch.cdist(x, c).argmin(), lambda x, c: (_half_squares(c) - x @ c.T).argmin()],
    scores=lambda x, c: (_half_squares(c) - x @ c.T).amin(1),
    distances=lambda x, c: torch.cdist(x, c).amin(1),
    all_scores=lambda x, c: _half_squares(c) - x @ c.T,
    codewords=lambda x, c: c[nearest(x, c)],
    floats=lambda x, c: nearest(x, c).float(),
    column=lambda x, c: nearest(x, c)[:, None],
)


@exercise
def nearest_code(answer: Callable) -> str:
    """(N, dim), (K, dim) → (N,): the index of the nearest codeword."""
    for num, dim, size in [(200, 3, 32), (64, 2, 16), (50, 8, 50), (1, 4, 2)]:
        scale = torch.rand(size, 1) * 3  # codewords near and far, or their norms would hardly matter
        inputs = {"x": torch.randn(num, dim), "codebook": scale * torch.randn(size, dim)}
        result = run(answer, **inputs)
        if isinstance(result, tuple) and len(result) == 2:
            raise Wrong("values_and_indices")
        compare(answer, nearest, NEAREST_MISTAKES, **inputs)
    return say("right")


PRETENDED_SLOPES = dict(
    constant=0.0,
    slope_of_output=1.0,
    at_x=-1.2,
    at_x_with_other_sign=1.2,
    without_factor_at_x=-0.6,
    other_sign=1.8,
    without_factor=-0.9,
    codeword_1=0.2,
    loss=0.81,
    loss_at_x=0.36,
)


@exercise
def predicted_slopes(answer: Callable) -> str:
    """→ the slope of (x̂ − 0.9)² at x = 0.3 among the codewords −1, 0, 1, and what straight-through says it is."""
    true, pretended = parts(run(answer), "true", "pretended")
    if not difference(true, -1.8) and not difference(pretended, 0.0):
        raise Wrong("true_first")
    if difference(true, 0.0):
        raise Wrong("other_true", slope=shown(true))
    if mistake := known(pretended, PRETENDED_SLOPES):
        raise Wrong(mistake)
    if difference(pretended, -1.8):
        raise Wrong("other_pretended", slope=shown(pretended))
    return say("right")


# What a loss may be instead of the mean of the squared errors. {loss} is its name.
LOSS_MISTAKES = dict(
    summed=lambda error: error.square().sum(),
    summed_over_components=lambda error: error.square().sum(1).mean(),
    summed_over_vectors=lambda error: error.square().mean(1).sum(),
    weighed_by_quarter=lambda error: 0.25 * error.square().mean(),
    weighed_by_tenth=lambda error: 0.1 * error.square().mean(),
    halved=lambda error: error.square().mean() / 2,
    length=lambda error: error.norm(),
    rooted=lambda error: error.square().mean().sqrt(),
    lengths_averaged=lambda error: error.norm(dim=1).mean(),
    absolute=lambda error: error.abs().mean(),
    not_squared=lambda error: error.mean(),
    not_squared_and_negative=lambda error: -error.mean(),
    square_of_mean=lambda error: error.mean().square(),
    both_losses=lambda error: 2 * error.square().mean(),
    errors=lambda error: error,
    negative=lambda error: -error.square().mean(),
    squares=lambda error: error.square(),
    averaged_over_components=lambda error: error.square().mean(1),
)


@exercise
def vq_losses(answer: Callable) -> str:
    """(N, dim), (N, dim) → codebook loss and commitment loss, both means."""
    for shape in [(6, 3), (50, 2), (1, 8)]:
        x, quantized = (torch.randn(shape, requires_grad=True) for _ in range(2))
        result = run(answer, x=x, quantized=quantized)
        if isinstance(result, Tensor) and not result.ndim:
            raise Wrong("one_number")
        losses = parts(result, "codebook", "commitment")
        for name, loss in zip(("codebook", "commitment"), losses, strict=True):
            if fault := difference(loss, F.mse_loss(x, quantized), "the_loss", loss=say(name)):
                if mistake := known(loss, LOSS_MISTAKES, x - quantized):
                    raise Wrong(mistake, say("seen_for", shape=shape), loss=say(name))
                raise Wrong("other_loss", fault=fault, shape=shape)
        if not all(isinstance(loss, Tensor) for loss in losses):
            raise Wrong("plain_numbers")

        moves = [[bool(gradient.any()) for gradient in gradients(loss, x, quantized)] for loss in losses]
        if moves == [[True, False], [False, True]]:
            raise Wrong("wrong_way_round")
        if not any(moves[0] + moves[1]):
            raise Wrong("nothing_moves")
        if moves[0][0]:
            raise Wrong("codebook_loss_moves_x")
        if moves[1][1]:
            raise Wrong("commitment_loss_moves_codewords")
        if not moves[0][1]:
            raise Wrong("codebook_loss_moves_nothing")
        if not moves[1][0]:
            raise Wrong("commitment_loss_moves_nothing")
    return say("right")


def _quantized_features(features: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    x = features.movedim(1, -1)
    chosen = codebook[nearest(x, codebook)]
    loss = F.mse_loss(chosen, x.detach()) + beta * F.mse_loss(x, chosen.detach())
    return straight_through(features, chosen.movedim(-1, 1)), loss


# Mistakes in the result, each with how it is made of features, codebook and the right result.
FEATURE_MISTAKES = dict(
    channels_last=lambda x, c, right: right.movedim(1, -1),
    cut_there_and_back=lambda x, c, right: c[nearest(x.reshape(-1, c.shape[1]), c)].reshape(x.shape),
    cut_on_the_way_there=lambda x, c, right: c[nearest(x.reshape(right.movedim(1, -1).shape), c)].movedim(-1, 1),
    mixed_on_the_way_back=lambda x, c, right: right.movedim(1, -1).reshape(x.shape),
    turned_on_the_way_back=lambda x, c, right: right.mT,
    still_the_features=lambda x, c, right: x,
    indices=lambda x, c, right: nearest(x.movedim(1, -1), c),
)

# Mistakes in the loss, each with how it is made of the mean squared error D and β; right is (1 + β) D.
LOSS_OF_FEATURES_MISTAKES = dict(
    loss_without_beta=lambda error, beta: 2 * error,
    loss_with_beta_twice=lambda error, beta: 2 * beta * error,
    loss_of_commitment=lambda error, beta: beta * error,
    loss_of_one=lambda error, beta: error,
    loss_with_quarter=lambda error, beta: 1.25 * error,
    loss_of_difference=lambda error, beta: (1 - beta) * error,
)


def _across_layouts(features: Tensor, codebook: Tensor, beta: float) -> Tensor:
    quantized, _ = _quantized_features(features, codebook, beta)
    return (1 + beta) * (quantized - features.movedim(1, -1)).square().mean()


@exercise
def quantize_features(answer: Callable) -> str:
    """(B, C, H, W), (K, C), β → the quantized features and the loss."""
    inputs = _features((1, 4, 4, 4))  # C = H = W: here the two layouts can be mistaken for each other
    quantized, loss = parts(run(answer, **inputs), "quantized", "loss")
    if mistake := known(loss, dict(loss_across_layouts=_across_layouts), *inputs.values()):
        raise Wrong(mistake, inputs)
    for shape in [(2, 6, 5, 5), (2, 5, 3, 4), (3, 8, 1, 6), (1, 4, 4, 4)]:
        inputs = _features(shape)
        quantized, loss = parts(run(answer, **inputs), "quantized", "loss")
        if isinstance(quantized, Tensor) and not quantized.ndim:
            raise Wrong("wrong_way_round")
        if isinstance(loss, Tensor) and loss.ndim:
            raise Wrong("loss_not_averaged", shape=tuple(loss.shape))
        _judge_result(quantized, **inputs)
        _judge_loss(loss, **inputs)
        if not isinstance(loss, Tensor):
            raise Wrong("plain_number")
        _judge_gradients(quantized, loss, **inputs)
    return say("right")


def _features(shape: tuple[int, ...]) -> dict[str, Any]:
    features, codebook = torch.randn(shape, requires_grad=True), torch.randn(16, shape[1], requires_grad=True)
    return {"features": features, "codebook": codebook, "beta": 0.4}


def _judge_result(quantized: Any, **inputs: Any) -> None:
    right, _ = _quantized_features(**inputs)
    if fault := difference(quantized, right, "result"):
        mistake = known(quantized, FEATURE_MISTAKES, inputs["features"], inputs["codebook"], right)
        raise Wrong(mistake or "other", inputs, fault=fault)


def _judge_loss(loss: Any, **inputs: Any) -> None:
    features, beta = inputs["features"], inputs["beta"]
    quantized, right = _quantized_features(**inputs)
    if fault := difference(loss, right, "the_loss"):
        error, (numel, channels) = F.mse_loss(quantized, features), (features.numel(), features.shape[1])
        sums = dict(loss_summed=numel * right, loss_summed_over_channels=channels * right)
        mistake = known(loss, LOSS_OF_FEATURES_MISTAKES, error, beta) or known(loss, sums)
        raise Wrong(mistake or "other", inputs, fault=fault, numel=numel, channels=channels)


def _judge_gradients(quantized: Tensor, loss: Tensor, features: Tensor, codebook: Tensor, beta: float) -> None:
    weights = torch.randn(features.shape)
    by_features, by_codebook = gradients(weights * quantized, features, codebook)
    if by_codebook.any():
        raise Wrong("result_moves_codebook")
    if difference(by_features, weights):
        raise Wrong("other_gradient_of_result")
    found = tuple(gradients(loss, features, codebook))
    of_features, of_codebook = gradients(_quantized_features(features, codebook, beta)[1], features, codebook)
    both, still, unmoved = 1 + beta, torch.zeros_like(of_features), torch.zeros_like(of_codebook)
    mistakes = dict(
        beta_weighs_the_other=(of_features / beta, of_codebook * beta),
        nothing_detached=(of_features * both / beta, of_codebook * both),
        codebook_loss_moves_features=(of_features * both / beta, of_codebook),
        commitment_loss_moves_codewords=(of_features, of_codebook * both),
        commitment_loss_leaves_features=(still, of_codebook),
        both_leave_features=(still, of_codebook * both),
        moves_nothing=(still, unmoved),
        codebook_loss_leaves_codebook=(of_features, unmoved),
        both_leave_codebook=(of_features * both / beta, unmoved),
        hidden=[(of_features * (beta - 1) / beta, unmoved), (-of_features * both / beta, unmoved)],
    )
    if difference(found, (of_features, of_codebook)):
        raise Wrong(known(found, mistakes) or "other_gradient")


BETA_MISTAKES = dict(
    share_of_x=lambda share: 1 - share,
    share=lambda share: share,
    beta_for_x=lambda share: share / (1 - share),
    too_large_by_1=lambda share: 1 / share,
    too_large_by_2=lambda share: 1 / share + 1,
    share_at_beta=lambda share: 1 / (1 + share),
    share_of_x_at_beta=lambda share: share / (1 + share),
    negative=lambda share: 1 - 1 / share,
    beta_of_the_way=lambda share: 1 / share - share,
    percent=lambda share: 100 / share - 1,
    rounded_down=lambda share: 1 // share - 1,
    rounded=[lambda share: round(1 / share - 1, 1), lambda share: round(1 / share - 1, 2)],
    straight_line=[lambda share: 2 * (1 - share), lambda share: 1.25 * (1 - share)],
    hundredfold=lambda share: 100 * (1 / share - 1),
)


@exercise
def beta_for(answer: Callable) -> str:
    """The share of the way that the codeword goes → the β for which it does."""
    results = [run(answer, share=share) for share in (0.8, 0.3)]
    if not difference(*results):
        raise Wrong("always_the_same", beta=shown(results[0]))
    for share in (0.3, 0.8, 0.5, 0.05, 1.0):
        compare(answer, lambda share: 1 / share - 1, BETA_MISTAKES, share=share)
    return say("right")
