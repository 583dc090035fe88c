"""Instant feedback on the exercises: each check tries a learner's answer and prints one line.

"✓ " it is right, "○ " it is not solved yet, "✗ " it is wrong, and what is wrong on which input. Nothing here raises.
A check is a function marked `@exercise`: it raises `Wrong` or `Unsolved`, or returns what to say of a right answer.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial import metrics
from rvq_tutorial.models import VQVAE, Decoder, Encoder
from rvq_tutorial.quantizers import ResidualVectorQuantizer, VectorQuantizer, straight_through
from rvq_tutorial.search import nearest, nearest_ways

# --- What all checks share -------------------------------------------------------------------------


class Wrong(Exception):
    """An answer is wrong; the message tells the learner why, on which input."""


class Unsolved(Exception):
    """There is no answer yet; the message says what was found instead."""


def exercise(judge: Callable[[Any], str]) -> Callable[[Any], None]:
    """Make a check of a judge of answers: it prints one line, whatever happens, and leaves torch's seed alone."""

    @functools.wraps(judge)
    def check(answer: Any) -> None:
        print(_verdict(judge, answer))

    check.__annotations__ = {"answer": Any, "return": None}
    return check


def _verdict(judge: Callable[[Any], str], answer: Any) -> str:
    if answer is None or answer is ...:
        return "○ Not solved yet."
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return f"✓ {judge(answer)}"
    except Unsolved as unsolved:
        return f"○ Not solved yet: {unsolved}"
    except Wrong as wrong:
        return f"✗ {wrong}"
    except Exception as error:  # of the judge, on an answer unlike any it knows
        return f"✗ This answer can't be used: {_told(error)}"


def run(function: Callable, **inputs: Any) -> Any:
    """What the learner's function returns for these inputs, given to it in this order.

    Raises Unsolved for None, and Wrong where it raises or changes an input.
    """
    before = [value.detach().clone() if isinstance(value, Tensor) else value for value in inputs.values()]
    try:
        result = function(*inputs.values())
    except Exception as error:
        raise Wrong(f"{_named(function)} raises {_told(error)} {given(inputs)}.") from error
    if result is None:
        raise Unsolved(f"{_named(function)} returns None.")
    for (name, value), old in zip(inputs.items(), before, strict=True):
        if isinstance(value, Tensor) and not torch.equal(value, old):
            raise Wrong(f"{_named(function)} changes {name} in place {given(inputs)}: leave it as it was.")
    return result


def compare(
    function: Callable, reference: Callable, mistakes: Mapping[str, Callable] | None = None, /, **inputs: Any
) -> Any:
    """Run the learner's function and the reference on the same inputs; return the result where both agree.

    Raises Wrong where they differ: with the words of the first of `mistakes`, a function each, that gives the
    learner's result, or else with the first place where they differ.
    """
    result, wanted = run(function, **inputs), reference(*inputs.values())
    if fault := difference(result, wanted):
        known = [words for words, mistake in (mistakes or {}).items() if _gives(mistake, inputs, result)]
        raise Wrong(f"{known[0]} Seen {given(inputs)}." if known else f"{_named(function)}: {fault} {given(inputs)}.")
    return result


def _gives(mistake: Callable, inputs: Mapping[str, Any], result: Any) -> bool:
    try:
        return not difference(result, mistake(*inputs.values()))
    except Exception:  # this mistake can't be made on these inputs
        return False


def parts(result: Any, *names: str) -> Any:
    """The parts of a result, one for each name; raises Wrong, with the names, where there are not as many."""
    if not isinstance(result, tuple | list) or len(result) != len(names):
        raise Wrong(f"Return {len(names)} things, in this order: {', '.join(names)}. This is {_shown(result)}.")
    return result


def gradients(output: Any, *inputs: Tensor) -> list[Tensor]:
    """The gradient of the sum of a tensor by each of the inputs; zeros where there is none."""
    zeros = [torch.zeros_like(x) for x in inputs]
    if not (isinstance(output, Tensor) and output.requires_grad):
        return zeros
    found = torch.autograd.grad(output.sum(), inputs, retain_graph=True, allow_unused=True)
    return [zero if gradient is None else gradient for zero, gradient in zip(zeros, found, strict=True)]


def difference(result: Any, wanted: Any, name: str = "the result") -> str:
    """In words, the first thing in which a result differs from what is wanted (numbers, tensors, tuples); or ""."""
    if isinstance(wanted, tuple):
        if not isinstance(result, tuple | list) or len(result) != len(wanted):
            return f"{name} should be {len(wanted)} things, in order, and is {_shown(result)}"
        parts = enumerate(zip(result, wanted, strict=True), 1)
        return next((fault for i, (a, b) in parts if (fault := difference(a, b, f"{name}, part {i},"))), "")
    if isinstance(result, tuple | list) and result and all(isinstance(part, Tensor) for part in result):
        return f"{name} should be one tensor, and is {len(result)} of them (torch.stack makes one of several)"
    try:
        result = torch.as_tensor(result).detach()
    except Exception:
        return f"{name} should be a tensor or a number, and is {_shown(result)}"
    wanted = torch.as_tensor(wanted).detach()
    if result.shape != wanted.shape:
        return f"{name} should have shape {tuple(wanted.shape)}, and has {tuple(result.shape)}"
    if not wanted.is_floating_point() and result.is_floating_point():
        return f"{name} should hold whole numbers, and holds {result.dtype}"
    close = torch.isclose(result.double(), wanted.double(), rtol=1e-4, atol=1e-5)
    if close.all():
        return ""
    place = tuple((~close).nonzero()[0].tolist())
    at = f" at {list(place)}" if place else ""
    return f"{name} should be {wanted[place].item():.5g}{at}, and is {result[place].item():.5g}"


def given(inputs: Mapping[str, Any]) -> str:
    """The inputs in words: "for x of shape (3, 2), codebook of shape (5, 2) and beta = 0.5"."""
    if not inputs:
        return "without input"
    *others, last = (_shown(value, name) for name, value in inputs.items())
    return f"for {', '.join(others)} and {last}" if others else f"for {last}"


def _shown(value: Any, name: str = "") -> str:
    if isinstance(value, Tensor) and value.ndim:
        return f"{name or 'a tensor'} of shape {tuple(value.shape)}"
    value = f"{value:.4g}" if isinstance(value, float) else " ".join(repr(value).split())
    value = value if len(value) <= 60 else value[:57] + "..."
    return f"{name} = {value}" if name else value


def _named(function: Callable) -> str:
    return getattr(function, "__name__", "your answer").replace("<lambda>", "your answer")


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return type(error).__name__ + (f" ({lines[0]})" if lines else "")


# --- 01 · How few colours does a photo need? -------------------------------------------------------


@exercise
def file_bits(answer: Callable) -> str:
    """Height, width, K → bits of the indices and of the codebook, 24 for each codeword."""
    mistakes = {
        "The codebook is missing: it is sent along, 24 bits for each codeword.": lambda h, w, k: h * w * math.log2(k),
        "An index isn't K bits long: K things are told apart by log2(K) bits.": lambda h, w, k: h * w * k + 24 * k,
        "One index names a whole colour: don't count it once for each channel.": lambda h, w, k: (
            3 * h * w * math.log2(k) + 24 * k
        ),
        "A codeword has three channels of 8 bits: it takes 24 bits.": lambda h, w, k: h * w * math.log2(k) + 8 * k,
        "A codeword takes 3 bytes, which are 24 bits.": lambda h, w, k: h * w * math.log2(k) + 3 * k,
        "That is one codeword; the codebook has K of them.": lambda h, w, k: h * w * math.log2(k) + 24,
        "The codebook is sent once, and not with every pixel.": lambda h, w, k: h * w * (math.log2(k) + 24),
        "The logarithm is that to base 2: math.log2.": lambda h, w, k: h * w * math.log(k) + 24 * k,
        "These are bytes; the question is about bits.": lambda h, w, k: (h * w * math.log2(k) + 24 * k) / 8,
    }
    for height, width, size in [(100, 80, 16), (7, 5, 2), (214, 320, 256), (30, 40, 8)]:
        inputs = {"height": height, "width": width, "codebook_size": size}
        compare(answer, lambda h, w, k: h * w * math.log2(k) + 24 * k, mistakes, **inputs)
    return "Right for every size tried. Our photo with K = 16: 273,920 bits of indices, 384 of codebook, a 700th."


@exercise
def nearest_colours(answer: Callable) -> str:
    """(N, 3), (K, 3) → (N,): the index of the nearest codeword."""
    mistakes = {
        "These are the codewords farthest away: the smallest distance wins, so take argmin.": lambda x, codebook: (
            torch.cdist(x, codebook).argmax(1)
        ),
        "The minimum is taken over the pixels; take it over the codewords.": lambda x, codebook: torch.cdist(
            x, codebook
        ).argmin(0),
        "Without the square, positive and negative differences cancel.": lambda x, codebook: (
            (x[:, None] - codebook).sum(2).argmin(1)
        ),
        "Square each channel's difference first, then sum: this compares brightness alone.": lambda x, codebook: (
            (x[:, None] - codebook).sum(2).square().argmin(1)
        ),
        "These are distances added up along the axes; nearest is by the sum of squares.": lambda x, codebook: (
            torch.cdist(x, codebook, p=1).argmin(1)
        ),
        "These are the smallest distances: the index of each is asked for, so take argmin.": lambda x, codebook: (
            (x[:, None] - codebook).square().sum(2).amin(1)
        ),
        "The sum runs over the codewords: sum over the components, the last axis.": lambda x, codebook: (
            (x[:, None] - codebook).square().sum(1).argmin(1)
        ),
        "These are colours, already decoded: return the indices.": lambda x, codebook: codebook[nearest(x, codebook)],
    }
    for num, size in [(50, 8), (8, 50), (200, 2), (1, 16)]:
        compare(answer, nearest, mistakes, pixels=torch.rand(num, 3), codebook=torch.rand(size, 3))
    return "nearest_colours finds the nearest codeword for every pixel tried."


def _sums(pixels: Tensor, indices: Tensor, codebook: Tensor) -> Tensor:
    return torch.zeros_like(codebook).index_add_(0, indices, pixels)


def _means(pixels: Tensor, indices: Tensor, codebook: Tensor) -> Tensor:
    """The mean of each codeword's pixels; NaN for one without any."""
    return _sums(pixels, indices, codebook) / torch.bincount(indices, minlength=len(codebook))[:, None]


@exercise
def move_codewords(answer: Callable) -> str:
    """(N, dim), (N,), (K, dim) → (K, dim): the mean of each codeword's pixels."""
    mistakes = {
        "These are sums: divide each by the number of its pixels.": _sums,
        "Each sum is divided by the number of all pixels: divide by that of the codeword's own.": lambda x, i, c: (
            _sums(x, i, c) / len(x)
        ),
        "Each sum is divided by K: divide by the number of the codeword's own pixels.": lambda x, i, c: (
            _sums(x, i, c) / len(c)
        ),
        "The codewords haven't moved.": lambda x, i, c: c,
        "These are medians; the mean is what makes the sum of squares smallest.": lambda x, i, c: torch.stack(
            [x[i == k].median(0).values for k in range(len(c))]
        ),
        "The old codeword is averaged in as well: take its pixels alone.": lambda x, i, c: (
            (_sums(x, i, c) + c) / (torch.bincount(i, minlength=len(c))[:, None] + 1)
        ),
    }
    for num, dim, size in [(40, 3, 5), (300, 3, 16), (30, 2, 30), (9, 4, 1)]:
        indices = torch.cat([torch.arange(size), torch.randint(size, (num - size,))])[torch.randperm(num)]
        compare(answer, _means, mistakes, pixels=torch.rand(num, dim), indices=indices, codebook=torch.rand(size, dim))
    return "Each codeword moves to the mean of its pixels, on every input tried."


@exercise
def rescue_codewords(answer: Callable) -> str:
    """(N, dim), (N,), (K, dim) → (K, dim): used codewords at their means, unused ones at the worst-served pixels."""
    for num, size, num_used in [(60, 8, 6), (200, 16, 16), (50, 10, 3), (20, 4, 1)]:
        names = torch.randperm(size)[:num_used]
        indices = names[torch.cat([torch.arange(num_used), torch.randint(num_used, (num - num_used,))])]
        pixels, codebook = torch.rand(num, 3), torch.rand(size, 3)
        moved = run(answer, pixels=pixels, indices=indices, codebook=codebook)
        where = f"Seen with {num} pixels and {size} codewords, of which {size - num_used} are unused."
        if not isinstance(moved, Tensor) or moved.shape != codebook.shape:
            raise Wrong(f"Return a codebook of shape {tuple(codebook.shape)}, not {_shown(moved)}. {where}")
        used = torch.zeros(size, dtype=torch.bool).index_fill(0, names, True)
        if moved[~used].isnan().any():
            raise Wrong(f"Unused codewords become NaN, 0 / 0: divide by counts.clamp(min=1), replace them. {where}")
        if fault := difference(moved[used], _means(pixels, indices, codebook)[used], "the mean of a used codeword"):
            raise Wrong(f"{fault} (counting the used codewords alone). {where}")
        _judge_rescued(moved[~used], pixels, indices, codebook, where)
    return "Used codewords move to their means, unused ones to the pixels that need them most."


def _judge_rescued(rescued: Tensor, pixels: Tensor, indices: Tensor, codebook: Tensor, where: str) -> None:
    """Raise Wrong unless the rescued codewords are the pixels farthest from their codewords, in any order."""
    if not len(rescued):
        return
    worst_first = (pixels - codebook[indices]).square().sum(1).argsort(descending=True)
    distances, chosen = (pixels - rescued[:, None]).norm(dim=2).min(1)
    faults = {
        "Unused codewords end at 0, in black.": not rescued.any(),
        "Unused codewords stay where they were.": (rescued[:, None] - codebook).norm(dim=2).amin() < 1e-5,
        "Unused codewords should become pixels, and one of them is none.": distances.max() > 1e-4,
        "Several unused codewords take the same pixel: give each one of its own.": len(chosen.unique()) < len(chosen),
        "These pixels are served best: take those with the largest distances.": (
            set(chosen.tolist()) == set(worst_first[-len(chosen) :].tolist())
        ),
        "Unused codewords become pixels, but not those farthest from the codewords they chose, before any moved.": (
            set(chosen.tolist()) != set(worst_first[: len(chosen)].tolist())
        ),
    }
    for words, found in faults.items():
        if found:
            raise Wrong(f"{words} {where}")


@exercise
def colours_needed(answer: Callable) -> str:
    """(3, H, W), PSNR in dB → the smallest codebook size, a power of 2, that reaches it."""
    for num_colours, target in [(16, 50.0), (4, 60.0), (1, 40.0), (8, 2.0), (64, 45.0)]:
        colours = torch.cartesian_prod(*[torch.linspace(0, 1, 4)] * 3)[torch.randperm(64)[:num_colours]]
        order = torch.arange(48 * 64) % num_colours
        photo = colours[order[torch.randperm(len(order))]].T.unflatten(1, (48, 64))
        needed = num_colours if target > 10 else 1
        found = run(answer, photo=photo, target=target)
        where = f"Seen on a photo of {num_colours} colour{'s' * (num_colours > 1)}, for {target:g} dB."
        if isinstance(found, tuple | list) or torch.as_tensor(found).numel() != 1:
            raise Wrong(f"Return one number, the codebook size. {where}")
        if found != needed:
            raise Wrong(f"{_size_fault(float(found), needed)} {where}")
    return "The smallest size that is good enough, on every photo tried."


def _size_fault(found: float, needed: int) -> str:
    if found == math.log2(needed):
        return f"{found:g} are the bits of an index; the codebook size is asked for, {needed}."
    if found not in [2**bits for bits in range(9)]:
        return f"{found:.4g} is none of the codebook sizes 1, 2, 4, ..., 256."
    if found < needed:
        return f"With {found:g} colours the PSNR is still below the target; it takes {needed}."
    return f"{found:g} is enough, and not the smallest: {needed} will do."


# --- 02 · How does a lookup learn? -----------------------------------------------------------------


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
            f"The true slope is not {_shown(true)}: a small step from 0.3 leaves x̂ at 0, and the loss where it was."
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
        raise Wrong(f"The slope with straight-through is not {_shown(pretended)}: take 2 (x̂ − 0.9) at x̂'s value.")
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


# --- 03 · Why do most codewords die? ---------------------------------------------------------------


@exercise
def seen_in_batch(answer: Callable) -> str:
    """→ the expected share of 64 equally likely codewords that occur among 64 vectors."""
    share = run(answer)
    wanted = 1 - (1 - 1 / 64) ** 64
    mistakes = {
        1.0: "For a usage of 1 each vector would have to choose a codeword that no other chose: luck beyond belief.",
        1 - wanted: "That is the share that does not occur; the share that does is 1 minus it.",
        100 * wanted: "Right in percent; give the share as a number from 0 to 1.",
        1 / 64: "That is the chance that one vector chooses one codeword; there are 64 vectors.",
        64 * wanted: "That is how many codewords occur; the share is that number divided by 64.",
    }
    share = float(share)
    for value, words in mistakes.items():
        if math.isclose(share, value, rel_tol=0.01):
            raise Wrong(words)
    if not abs(share - wanted) < 0.02:
        raise Wrong(
            f"Not {share:.3g}: a codeword is missed by one vector with chance 63/64, by all with chance (63/64) ** 64."
        )
    return f"1 − (63/64)⁶⁴ = {wanted:.1%} of the codewords occur, on average."


def _entropy(indices: Tensor, codebook_size: int, log: Callable = torch.log2) -> Tensor:
    share = torch.bincount(indices.flatten(), minlength=codebook_size) / indices.numel()
    return -(share[share > 0] * log(share[share > 0])).sum()


def _has_nan(result: Any) -> bool:
    return isinstance(result, float | Tensor) and bool(torch.as_tensor(result).isnan().any())


@exercise
def perplexity(answer: Callable) -> str:
    """Indices of any shape, K → 2 to their entropy in bits."""
    mistakes = {
        "That is the entropy in bits; the perplexity is 2 to that power.": _entropy,
        "The logarithm is natural and the power's base is 2: both should be 2, or both e.": (
            lambda indices, codebook_size: 2 ** _entropy(indices, codebook_size, torch.log)
        ),
        "The logarithm has base 2 and the power base e: both should be 2, or both e.": (
            lambda indices, codebook_size: _entropy(indices, codebook_size).exp()
        ),
        "The sign is wrong: p log p is negative, so the entropy is minus the sum.": (
            lambda indices, codebook_size: 2 ** -_entropy(indices, codebook_size)
        ),
        "That is how many different codewords occur; perplexity weighs them by how often they do.": (
            lambda indices, codebook_size: float(len(indices.unique()))
        ),
    }
    rare = torch.cat([torch.zeros(500), torch.arange(64)]).long()
    for indices, codebook_size in [
        (torch.randint(8, (400,)) ** 2 // 7, 16),
        (rare, 64),
        (torch.randint(5, (3, 20)), 5),
        (torch.zeros(7).long(), 4),
    ]:
        inputs = {"indices": indices, "codebook_size": codebook_size}
        if _has_nan(run(answer, **inputs)):
            raise Wrong("Where a codeword doesn't occur, 0 · log 0 is not a number: leave out the shares that are 0.")
        compare(answer, metrics.perplexity, mistakes, **inputs)
    return "perplexity is right, for codewords that are never used too."


def _ema_step(
    codebook: Tensor, usage: Tensor, x: Tensor, indices: Tensor, decay: float, divisor: str = "new"
) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(indices, minlength=len(codebook))
    error_sums = torch.zeros_like(codebook).index_add(0, indices, x - codebook[indices])
    moved = decay * usage + (1 - decay) * counts / len(x)
    divisors = {"new": moved * len(x), "old": usage * len(x), "batch": counts, "share": moved}
    step = (1 - decay) / divisors[divisor].clamp_min(1e-30)
    return codebook + step[:, None] * error_sums, moved


def _ema_of_counts(codebook: Tensor, usage: Tensor, x: Tensor, indices: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(indices, minlength=len(codebook))
    usage = decay * usage + (1 - decay) * counts
    error_sums = torch.zeros_like(codebook).index_add(0, indices, x - codebook[indices])
    return codebook + ((1 - decay) / usage.clamp_min(1e-30))[:, None] * error_sums, usage


def _ema_of_vectors(codebook: Tensor, usage: Tensor, x: Tensor, indices: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    _, usage = _ema_step(codebook, usage, x, indices, decay)
    sums = torch.zeros_like(codebook).index_add(0, indices, x)
    return codebook + ((1 - decay) / (usage * len(x)).clamp_min(1e-30))[:, None] * sums, usage


@exercise
def ema_step(answer: Callable) -> str:
    """Codebook, usage, x, indices, decay → the codebook and the usage after one step of the moving average."""
    mistakes = {
        "decay and 1 − decay have changed places: decay is the share of the past that is kept.": (
            lambda codebook, usage, x, indices, decay: _ema_step(codebook, usage, x, indices, 1 - decay)
        ),
        "The codewords are divided by the usage from before the step; n̄ is the new one.": (
            lambda *inputs: _ema_step(*inputs, divisor="old")
        ),
        "The error is divided by the batch's own count; n̄ is the moving average, usage times the number of vectors.": (
            lambda *inputs: _ema_step(*inputs, divisor="batch")
        ),
        "The error is divided by a share; n̄ is that share times the number of vectors.": (
            lambda *inputs: _ema_step(*inputs, divisor="share")
        ),
        "The usage is a share: divide the counts by the number of vectors, or it grows with the batch.": (
            _ema_of_counts
        ),
        "The codewords move the wrong way: a vector's error is x − codeword.": (
            lambda codebook, *rest: (2 * codebook - _ema_step(codebook, *rest)[0], _ema_step(codebook, *rest)[1])
        ),
        "These are sums of vectors; the formula sums their errors, x − codeword.": _ema_of_vectors,
    }
    for num, dim, size, decay in [(50, 3, 8, 0.9), (200, 2, 16, 0.99), (4, 4, 6, 0.7)]:
        usage = torch.rand(size)
        usage[-1] = 0  # this codeword was never used, and isn't now
        x, indices = torch.randn(num, dim), torch.randint(size - 1, (num,))
        state = {"codebook": torch.randn(size, dim), "usage": usage / usage.sum()}
        inputs = state | {"x": x, "indices": indices, "decay": decay}
        if any(map(_has_nan, parts(run(answer, **inputs), "the codebook", "the usage"))):
            raise Wrong("A codeword whose usage is 0 turns into nan, 0 / 0: keep the divisor above 0 with clamp_min.")
        compare(answer, _ema_step, mistakes, **inputs)
    return "ema_step moves codewords and usage as the moving average does, for every decay tried."


def _follow(sums: Tensor, counts: Tensor, x: Tensor, indices: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    counts = decay * counts + (1 - decay) * torch.bincount(indices, minlength=len(counts))
    return decay * sums + (1 - decay) * torch.zeros_like(sums).index_add(0, indices, x), counts


def _quotient(sums: Tensor, counts: Tensor) -> Tensor:
    return sums / counts.clamp_min(1e-5)[:, None]


def _restarting_step(
    codebook: Tensor, sums: Tensor, counts: Tensor, x: Tensor, decay: float, threshold: float, repair: str = "all"
) -> tuple[Tensor, Tensor, Tensor]:
    """Follow, then restart; `repair` says which part of the restart is done, or done wrong."""
    rows = x[: len(codebook)]
    sums, counts = _follow(sums, counts, x, nearest(x, codebook), decay)
    dead = counts < (threshold if repair == "absolute" else threshold * counts.mean())
    fair = counts.mean()
    if repair == "row":
        return torch.where(dead[:, None], rows, _quotient(sums, counts)), sums, counts
    if repair == "row and count":
        return torch.where(dead[:, None], rows, _quotient(sums, counts)), sums, torch.where(dead, fair, counts)
    if repair == "first rows":
        rows = rows[(dead.cumsum(0) - 1).clamp_min(0)]
    if repair != "sum":
        counts = torch.where(dead, 1.0 if repair == "one" else fair, counts)
    restarted = rows if repair == "mean" else rows * counts[:, None]
    sums = torch.where(dead[:, None], restarted, sums)
    return _quotient(sums, counts), sums, counts


def _restart_overwritten(
    codebook: Tensor, sums: Tensor, counts: Tensor, x: Tensor, decay: float, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    sums, counts = _follow(sums, counts, x, nearest(x, codebook), decay)
    return _quotient(sums, counts), sums, counts


def _restart_first(
    codebook: Tensor, sums: Tensor, counts: Tensor, x: Tensor, decay: float, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    indices = nearest(x, codebook)
    dead = counts < threshold * counts.mean()
    counts = torch.where(dead, counts.mean(), counts)
    sums = torch.where(dead[:, None], x[: len(codebook)] * counts[:, None], sums)
    sums, counts = _follow(sums, counts, x, indices, decay)
    return _quotient(sums, counts), sums, counts


@exercise
def restarting_step(answer: Callable) -> str:
    """Codebook, sums, counts, x, decay, threshold → the three of them after an EMA step and a restart of the dead."""
    mistakes = {
        "The restart does nothing: the codebook is computed from sums and counts, which still tell of the old place.": (
            _restart_overwritten
        ),
        "The restart lasts until the next step, which computes the codebook from the old sums and counts again.": (
            lambda *inputs: _restarting_step(*inputs, repair="row")
        ),
        "Row and count are new, and the sum still tells of the old place: the next step goes back there.": (
            lambda *inputs: _restarting_step(*inputs, repair="row and count")
        ),
        "A restarted codeword counts as one of average use: its count is the mean of the counts, not 1.": (
            lambda *inputs: _restarting_step(*inputs, repair="one")
        ),
        "Dead codeword number k goes to row k of x; these take the first rows, one after the other.": (
            lambda *inputs: _restarting_step(*inputs, repair="first rows")
        ),
        "A sum belongs to a count: the sum of a restarted codeword is its vector times its new count.": (
            lambda *inputs: _restarting_step(*inputs, repair="mean")
        ),
        "The restarted codewords stand right and keep their low counts: in the next step they are dead again.": (
            lambda *inputs: _restarting_step(*inputs, repair="sum")
        ),
        "The threshold is absolute: a codeword is dead below threshold times the mean of the counts.": (
            lambda *inputs: _restarting_step(*inputs, repair="absolute")
        ),
        "This restart lasts, but it comes before the batch is followed; let it come after, by the new counts.": (
            _restart_first
        ),
    }
    for num, dim, size, decay, threshold in [(128, 8, 64, 0.99, 0.1), (64, 2, 32, 0.9, 0.2), (40, 3, 12, 0.5, 0.3)]:
        dead = torch.arange(size) % 3 == 0
        codebook = torch.where(dead[:, None], 100.0, 1.0) * torch.randn(size, dim)
        counts = torch.where(dead, torch.tensor([0.02, 0.8]).repeat(size // 2), 20 + 80 * torch.rand(size))
        state = {"codebook": codebook, "sums": codebook * counts[:, None], "counts": counts}
        settings = {"decay": decay, "threshold": threshold}
        compare(answer, _restarting_step, mistakes, **state, x=torch.randn(num, dim), **settings)
    return "Every dead codeword restarts at its vector, and stays there."


@exercise
def steps_until_restart(answer: Callable) -> str:
    """Decay, threshold → the first whole t with decayᵗ below the threshold."""

    def exact(decay: float, threshold: float) -> float:
        return math.log(threshold) / math.log(decay)

    mistakes = {
        "Right but for the rounding: the answer is the first whole number of steps beyond it.": exact,
        "One step early: after so many steps the usage is still above the threshold.": lambda *inputs: math.floor(
            exact(*inputs)
        ),
        "One step late.": lambda *inputs: math.ceil(exact(*inputs)) + 1,
        "The logarithms are the wrong way round: decayᵗ = threshold gives t = log threshold / log decay.": (
            lambda *inputs: 1 / exact(*inputs)
        ),
        "1 / (1 − decay) is how far the average looks back; the threshold counts too.": lambda decay, threshold: round(
            1 / (1 - decay)
        ),
    }
    for decay, threshold in [(0.99, 0.1), (0.95, 0.1), (0.5, 0.3), (0.9, 0.02), (0.999, 0.5)]:
        compare(answer, lambda *inputs: math.ceil(exact(*inputs)), mistakes, decay=decay, threshold=threshold)
    return "t = log threshold / log decay, rounded up: 230 steps for 0.99 and 0.1."


# --- 04 · Why many small codebooks, not one big one? -----------------------------------------------


@exercise
def predicted_stages(answer: Callable) -> str:
    """→ the indices of 16.4 in the codebooks (0, 10, 20), (−3, 0, 3) and (−1, 0, 1), and the sum of the codewords."""
    indices, rebuilt = parts(run(answer), "the list of the three indices", "the number that they rebuild")
    mistakes = {
        (1, 2, 2): "10 lies below 16.4, and 20 lies nearer: a residual may be negative.",
        (2, 2, 2): "Stage 2 doesn't get 16.4 again: it gets what stage 1 leaves over, 16.4 − 20.",
        (2, 0, 2): "The residual that stage 3 gets is −3.6 − (−3): mind its sign.",
        (20, -3, -1): "These are the codewords; their indices are asked for, counted from 0.",
        (3, 1, 1): "Indices count from 0.",
    }
    indices = indices.tolist() if isinstance(indices, Tensor) else indices
    indices = [int(index) for index in parts(indices, "index of stage 1", "index of stage 2", "index of stage 3")]
    if tuple(indices) in mistakes:
        raise Wrong(mistakes[tuple(indices)])
    for stage, (index, wanted) in enumerate(zip(indices, (2, 0, 0), strict=True), 1):
        if index != wanted:
            raise Wrong(f"The index of stage {stage} is not {index}: which codeword is nearest to what it receives?")
    if fault := difference(rebuilt, 16.0, "the number rebuilt"):
        raise Wrong(f"The indices are right, but {fault}: add the three codewords.")
    return "20, then −3 of the −3.6 left over, then −1 of the −0.6: 16, and 0.4 is lost."


def _residual_encode(x: Tensor, codebooks: Tensor) -> Tensor:
    indices = []
    for codebook in codebooks:
        indices.append(nearest(x, codebook))
        x = x - codebook[indices[-1]]
    return torch.stack(indices, 1)


def _subtracted_from_x(x: Tensor, codebooks: Tensor) -> Tensor:
    residual, indices = x, []
    for codebook in codebooks:
        indices.append(nearest(residual, codebook))
        residual = x - codebook[indices[-1]]
    return torch.stack(indices, 1)


def _added(x: Tensor, codebooks: Tensor) -> Tensor:
    indices = []
    for codebook in codebooks:
        indices.append(nearest(x, codebook))
        x = x + codebook[indices[-1]]
    return torch.stack(indices, 1)


@exercise
def residual_encode(answer: Callable) -> str:
    """(N, dim), (M, K, dim) → (N, M): the index of the codeword nearest to each stage's residual."""
    mistakes = {
        "Every stage gets x itself: hand on what the stage before it leaves over.": lambda x, codebooks: torch.stack(
            [nearest(x, codebook) for codebook in codebooks], 1
        ),
        "Subtract from the residual, not from x: stage 3 gets what stages 1 and 2 both leave.": _subtracted_from_x,
        "The codeword is added to the residual: subtract it.": _added,
        "A vector's indices stand in a column; put them in a row: stack along dim=1.": lambda x, codebooks: (
            _residual_encode(x, codebooks).T
        ),
        "The stages run backwards: the first codebook comes first.": lambda x, codebooks: _residual_encode(
            x, codebooks.flip(0)
        ),
    }
    for num, dim, stages, size in [(9, 2, 4, 5), (64, 3, 3, 16), (50, 8, 2, 50), (6, 4, 1, 3)]:
        scales = 0.6 ** torch.arange(stages).view(-1, 1, 1)
        codebooks = scales * torch.randn(stages, size, dim)
        compare(answer, _residual_encode, mistakes, x=torch.randn(num, dim), codebooks=codebooks)
    return "Every stage gets what the stages before it leave over."


@exercise
def cost(answer: Callable) -> str:
    """dim, K, M → bits a vector, numbers in M codebooks, numbers in one codebook with Kᴹ codewords."""
    names = "The bits of a vector", "The numbers in M codebooks", "The numbers in one codebook"
    words = [
        {
            "An index among K codewords takes log₂ K bits, not K.": lambda dim, size, num: num * size,
            "Each of the M stages sends an index: M times log₂ K.": lambda dim, size, num: math.log2(size),
            "log₂ K is the power of 2 that makes K; math.log is another logarithm.": lambda dim, size, num: (
                num * math.log(size)
            ),
            "Stages add their bits: M times log₂ K, not log₂ K to the M.": lambda dim, size, num: (
                math.log2(size) ** num
            ),
        },
        {
            "A codeword is a vector of dim numbers: the M codebooks hold M · K of those.": lambda dim, size, num: (
                num * size
            ),
            "Codebooks lie beside each other in memory: they add up, M · K · dim.": lambda dim, size, num: (
                size**num * dim
            ),
            "This is a single stage: there are M of them.": lambda dim, size, num: size * dim,
        },
        {
            "As many codewords as there are sums: each of M stages has K choices, and choices multiply.": (
                lambda dim, size, num: num * size * dim
            ),
            "These are the codewords; each is a vector of dim numbers.": lambda dim, size, num: size**num,
            "K choices, M times over, are K to the M, not M to the K.": lambda dim, size, num: num**size * dim,
        },
    ]
    for dim, size, num in [(64, 16, 3), (4, 10, 5), (3, 4, 1), (1, 2, 6)]:
        inputs = {"dim": dim, "codebook_size": size, "num_quantizers": num}
        wanted = num * math.log2(size), num * size * dim, size**num * dim
        results = [float(result) for result in parts(run(answer, **inputs), *names)]
        for name, result, right, mistakes in zip(names, results, wanted, words, strict=True):
            if not difference(result, float(right)):
                continue
            made = [mistake for mistake in mistakes if not difference(result, float(mistakes[mistake](dim, size, num)))]
            told = made[0] if made else f"{name} should be {right:,.7g}, and this is {result:,.7g}."
            raise Wrong(f"{told} Seen {given(inputs)}.")
    return "Bits and memory add up, M · log₂ K and M · K · dim; what can be rebuilt multiplies, Kᴹ."


def _best_split(dim: int, bits: int, memory: int) -> tuple[int, int]:
    splits = [(num, 2 ** (bits // num)) for num in range(1, bits + 1) if bits % num == 0]
    return next((num, size) for num, size in splits if num * size * dim <= memory)


@exercise
def best_split(answer: Callable) -> str:
    """dim, bits, memory → M and K of the equal stages that leave the least error: the fewest that fit."""
    tried = [(4, 12, 600), (4, 12, 512), (4, 12, 200), (48, 24, 40_000), (2, 10, 5000), (8, 15, 10_000), (3, 8, 64)]
    for dim, bits, memory in tried:
        inputs = {"dim": dim, "bits": bits, "memory": memory}
        num, size = parts(run(answer, **inputs), "M", "K")
        best = _best_split(**inputs)
        if (num, size) == best[::-1] != best:
            raise Wrong(f"That is K and M: return M first. Seen {given(inputs)}.")
        if size**num != 2**bits:
            raise Wrong(
                f"{num} stages of {size} codewords don't make {bits} bits: M · log₂ K does. Seen {given(inputs)}."
            )
        if num * size * dim > memory:
            raise Wrong(
                f"M = {num}, K = {size} takes {num * size * dim:,} numbers, M · K · dim: too many {given(inputs)}."
            )
        if (num, size) != best:
            raise Wrong(f"M = {num}, K = {size} fits, and so does M = {best[0]} with less error {given(inputs)}.")
    return "The fewest, largest codebooks that fit leave the least error."


def _commitment_terms(x: Tensor, codebooks: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The sum of the chosen codewords, and every stage's commitment term, x moving in each."""
    residual, terms = x, []
    for codebook in codebooks.detach():
        chosen = codebook[nearest(residual, codebook)]
        terms.append(F.mse_loss(residual, chosen))
        residual = residual - chosen
    return x - residual, terms


@exercise
def residual_layer(answer: Callable) -> str:
    """(N, dim), (M, K, dim) → the quantized vectors with one straight-through, and the M commitment terms."""
    for num, dim, stages, size in [(9, 2, 4, 5), (30, 3, 2, 8), (5, 4, 1, 3)]:
        x = torch.randn(num, dim, requires_grad=True)
        codebooks = (0.6 ** torch.arange(stages).view(-1, 1, 1) * torch.randn(stages, size, dim)).requires_grad_()
        inputs = {"x": x, "codebooks": codebooks}
        quantized, terms = parts(run(answer, **inputs), "the quantized vectors", "the list of commitment terms")
        wanted, wanted_terms = _commitment_terms(x, codebooks)
        if fault := difference(quantized, wanted, "the quantized tensor"):
            raise Wrong(f"{fault} {given(inputs)}.")
        _judge_output(quantized, x, codebooks)
        if not isinstance(terms, Tensor | tuple | list) or getattr(terms, "ndim", 1) == 0 or len(terms) != stages:
            raise Wrong(f"There should be {stages} commitment terms, one a stage, for codebooks of {stages} stages.")
        for stage, (term, right) in enumerate(zip(terms, wanted_terms, strict=True), 1):
            if fault := difference(term, right, f"the commitment term of stage {stage}"):
                raise Wrong(f"{fault} {given(inputs)}.")
            _judge_pull(stage, term, right, x, codebooks)
    return "The Jacobian is the identity, and every stage pulls."


def _judge_output(quantized: Tensor, x: Tensor, codebooks: Tensor) -> None:
    weights, stages = torch.randn_like(x), len(codebooks)
    by_x, by_codebooks = gradients(weights * quantized, x, codebooks)
    if by_codebooks.any():
        raise Wrong("The output moves the codebooks: add up detached codewords.")
    if not by_x.any():
        raise Wrong("No gradient of the output reaches x: return straight_through(x, ...).")
    if stages > 1 and not difference(by_x, stages * weights):
        raise Wrong(
            f"With {stages} stages the output's gradient arrives {stages} times too large: one straight-through."
        )
    if difference(by_x, weights):
        raise Wrong("The output's gradient must reach x as it is: one straight-through, around the sum of all stages.")


def _judge_pull(stage: int, term: Tensor, right: Tensor, x: Tensor, codebooks: Tensor) -> None:
    by_x, by_codebooks = gradients(term, x, codebooks)
    if by_codebooks.any():
        raise Wrong(f"The commitment term of stage {stage} moves the codebooks: detach the codewords.")
    if not by_x.any() and stage == 1:
        raise Wrong("The commitment term of stage 1 doesn't pull x: don't detach the residual.")
    if not by_x.any():
        raise Wrong(
            f"The commitment term of stage {stage} doesn't pull x: subtract plain codewords from a residual that moves "
            "with x, not their straight-through."
        )
    if difference(by_x, *gradients(right, x)):
        raise Wrong(f"The commitment term of stage {stage} has the right value and the wrong gradient by x.")


# --- 05 · How close to the limit are we? -----------------------------------------------------------


@exercise
def rate_and_bound(answer: Callable) -> str:
    """dim, K, M, variance → bits per dimension, and the least distortion of Gaussian components at that rate."""
    for dim, size, num, variance in [(4, 8, 2, 2.0), (8, 256, 1, 1.0), (16, 64, 4, 0.5), (3, 10, 1, 1.0)]:
        inputs = {"dim": dim, "codebook_size": size, "num_quantizers": num, "variance": variance}
        rate, bound = parts(run(answer, **inputs), "the rate R", "the least distortion D")
        wanted = num * math.log2(size) / dim
        rates = {
            "These are the bits of a vector; its dim components share them.": wanted * dim,
            "There are M stages, and each takes log₂ K bits.": wanted / num,
            "An index among K codewords takes log₂ K bits, not K.": num * size / dim,
            "A bit is a choice between two: take the logarithm to base 2.": wanted * math.log(2),
        }
        _judge_number(rate, wanted, "the rate", rates, inputs)
        bounds = {
            "The exponent is −2 R: each bit divides the distortion by 4, not by 2.": variance * 2**-wanted,
            "The line scales with the variance: σ² stands before the power.": 4**-wanted,
            "σ² is the variance itself: don't square it.": variance**2 * 4**-wanted,
            "The exponent takes the rate per dimension, not the bits of a vector.": variance * 4 ** -(wanted * dim),
            "The base of the power is 2, not e.": variance * math.exp(-2 * wanted),
        }
        _judge_number(bound, variance * 4**-wanted, "the least distortion", bounds, inputs)
    return "R = M · log₂ K / dim, and D = σ² 2^(−2R)."


def _judge_number(
    result: Any, wanted: float, name: str, mistakes: Mapping[str, float], inputs: Mapping[str, Any]
) -> None:
    """Raise Wrong unless a result is the number wanted, with the words of the first mistake that gives it."""
    fault = difference(result, wanted, name)
    if fault:
        known = [words for words, value in mistakes.items() if not difference(result, value)]
        raise Wrong(f"{known[0]} Seen {given(inputs)}." if known else f"{fault} {given(inputs)}.")


def _ways(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    parents, indices = nearest_ways(residuals[None], codebook, beam_size)
    return parents[0], indices[0]


def _worst_ways(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    ways = torch.cdist(residuals, codebook).flatten().argsort(descending=True)[:beam_size]
    return ways // len(codebook), ways % len(codebook)


def _one_way_each(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    distances, indices = torch.cdist(residuals, codebook).min(1)
    parents = distances.argsort()[:beam_size]
    return parents, indices[parents]


def _split_by_paths(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    ways = torch.cdist(residuals, codebook).flatten().argsort()[:beam_size]
    return ways // len(residuals), ways % len(residuals)


def _unordered_ways(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor]:
    ways = torch.cdist(residuals, codebook).flatten().argsort()[:beam_size].sort().values
    return ways // len(codebook), ways % len(codebook)


@exercise
def best_ways(answer: Callable) -> str:
    """(B, dim), (K, dim), beam_size → the parents and indices of the best ways to go on, best first."""
    mistakes = {
        "These are the worst ways on: short residuals are good, so sort from small to large.": _worst_ways,
        "Each path goes on in one way only here; a good path may deserve several, a bad one none.": _one_way_each,
        "These are indices and parents; return the parents first.": lambda *inputs: _ways(*inputs)[::-1],
        "A row of the table has K places, not B: parent = way // K, index = way % K.": _split_by_paths,
        "These are the right ways, and not in their order: the shortest residual comes first.": _unordered_ways,
        "All ways are here; keep the first beam_size.": (
            lambda residuals, codebook, beam_size: _ways(residuals, codebook, len(residuals) * len(codebook))
        ),
        "Only the first path goes on here; look at the residuals of all B.": (
            lambda residuals, codebook, beam_size: _ways(residuals[:1], codebook, beam_size)
        ),
    }
    for paths, dim, size, beam_size in [(3, 2, 5, 4), (4, 3, 16, 4), (8, 4, 4, 10), (1, 2, 8, 3)]:
        scale = torch.linspace(0.5, 3, paths)[:, None]  # good and bad paths
        residuals, codebook = scale * torch.randn(paths, dim), torch.randn(size, dim)
        inputs = {"residuals": residuals, "codebook": codebook, "beam_size": beam_size}
        parts(run(answer, **inputs), "parents", "indices")
        compare(answer, _ways, mistakes, **inputs)
    return "best_ways finds the shortest residuals among all B · K, best first."


def _beam(
    x: Tensor, codebooks: Tensor, beam_size: int, summed: bool = False, follow: bool = True, largest: bool = False
) -> Tensor:
    """(N, beam, M), best path first.

    `summed` ranks by all stages' errors, not `follow` forgets whose path it is, `largest` keeps the worst.
    """
    residuals, scores = x[:, None], x.new_zeros(len(x), 1)
    paths = torch.zeros(len(x), 1, 0, dtype=torch.int64)
    for codebook in codebooks:
        left_over = residuals[:, :, None] - codebook
        errors = left_over.square().sum(-1)
        scores = (scores[:, :, None] + errors if summed else errors).flatten(1)
        scores, ways = scores.topk(min(beam_size, scores.shape[1]), largest=largest)
        parents, indices = ways // len(codebook), ways % len(codebook)
        residuals = left_over.flatten(1, 2).take_along_dim(ways[:, :, None], 1)
        parents = parents if follow else torch.arange(parents.shape[1]).clamp(max=paths.shape[1] - 1).expand_as(parents)
        paths = torch.cat([paths.take_along_dim(parents[:, :, None], 1), indices[:, :, None]], -1)
    return paths


@exercise
def beam_encode(answer: Callable) -> str:
    """(N, dim), (M, K, dim), beam_size → (N, M): the path that leaves the shortest last residual."""
    mistakes = {
        "The paths are still ranked by the sum of all stages' errors; only the last residual counts.": (
            lambda x, codebooks, beam_size: _beam(x, codebooks, beam_size, summed=True)[:, 0]
        ),
        "This is the greedy search: keep beam_size paths, not one.": (
            lambda x, codebooks, beam_size: _beam(x, codebooks, 1)[:, 0]
        ),
        "These paths leave the longest residuals: topk takes the largest unless told largest=False.": (
            lambda x, codebooks, beam_size: _beam(x, codebooks, beam_size, largest=True)[:, 0]
        ),
        "These are all paths of the beam; return the best of each vector, (N, M).": _beam,
        "This is the worst path of the beam; topk puts the best first.": (
            lambda x, codebooks, beam_size: _beam(x, codebooks, beam_size)[:, -1]
        ),
        "The new indices are appended to the wrong paths: take each one's parent's path along.": (
            lambda x, codebooks, beam_size: _beam(x, codebooks, beam_size, follow=False)[:, 0]
        ),
    }
    for num, dim, stages, size, beam_size in [(40, 2, 3, 5, 4), (60, 4, 4, 8, 8), (20, 3, 2, 6, 36), (10, 2, 1, 4, 3)]:
        codebooks = 0.6 ** torch.arange(stages).view(-1, 1, 1) * torch.randn(stages, size, dim)
        inputs = {"x": torch.randn(num, dim), "codebooks": codebooks, "beam_size": beam_size}
        compare(answer, lambda *inputs: _beam(*inputs)[:, 0], mistakes, **inputs)
    return "beam_encode ranks by the last residual, and finds the same paths as the reference."


def _product(x: Tensor, codebooks: Tensor) -> Tensor:
    pieces = x.chunk(len(codebooks), 1)
    return torch.cat([c[nearest(piece, c)] for piece, c in zip(pieces, codebooks, strict=True)], 1)


def _interleaved(x: Tensor, codebooks: Tensor) -> Tensor:
    pieces = [x[:, s :: len(codebooks)] for s in range(len(codebooks))]
    return torch.cat([c[nearest(piece, c)] for piece, c in zip(pieces, codebooks, strict=True)], 1)


def _one_index_for_all(x: Tensor, codebooks: Tensor) -> Tensor:
    index = nearest(x.chunk(len(codebooks), 1)[0], codebooks[0])
    return torch.cat([codebook[index] for codebook in codebooks], 1)


def _piece_indices(x: Tensor, codebooks: Tensor) -> Tensor:
    pieces = x.chunk(len(codebooks), 1)
    return torch.stack([nearest(piece, c) for piece, c in zip(pieces, codebooks, strict=True)], 1)


@exercise
def product_quantize(answer: Callable) -> str:
    """(N, dim), (S, K, dim/S) → (N, dim): each piece replaced by the nearest codeword of its own codebook."""
    mistakes = {
        "All pieces use the first codebook; each has its own.": (
            lambda x, codebooks: _product(x, codebooks[:1].expand_as(codebooks))
        ),
        "All pieces use the index of the first; each is looked up on its own.": _one_index_for_all,
        "The pieces are made of every S-th component; take neighbouring ones, as chunk does.": _interleaved,
        "These are the indices; return the codewords, joined.": _piece_indices,
        "The pieces are stacked; join them along the components, torch.cat(..., dim=1).": (
            lambda x, codebooks: torch.stack(_product(x, codebooks).chunk(len(codebooks), 1))
        ),
    }
    for num, pieces, size, length in [(30, 2, 8, 2), (50, 4, 4, 3), (9, 3, 5, 1), (7, 1, 6, 4)]:
        x, codebooks = torch.randn(num, pieces * length), torch.randn(pieces, size, length)
        compare(answer, _product, mistakes, x=x, codebooks=codebooks)
    return "product_quantize looks every piece up in its own codebook."


def _water_filling(variances: Tensor, bits: float) -> Tensor:
    low, high = variances.new_zeros(()), variances.max()
    for _ in range(60):
        level = (low + high) / 2
        shares = (0.5 * torch.log2(variances / level)).clamp(min=0)
        low, high = (level, high) if shares.sum() > bits else (low, level)
    return shares


@exercise
def share_bits(answer: Callable) -> str:
    """Variances (dim,), bits → the bits of each component that leave the least mean distortion."""
    photo = [0.25, 0.002, 0.0025, 0.0005]
    for values, bits in [([16.0, 1.0], 4.0), ([1.0, 1.0, 1.0], 3.0), (photo, 4.0), ([9.0, 1.0], 1.0)]:
        variances = torch.tensor(values)
        inputs = {"variances": variances, "bits": bits}
        seen = f"for variances {[round(v, 4) for v in variances.tolist()]} and {bits:g} bits"
        shares = run(answer, **inputs)
        wanted = _water_filling(variances, bits)
        if not isinstance(shares, Tensor) or shares.shape != variances.shape:
            raise Wrong(f"Return a tensor with the bits of each component, shape {tuple(variances.shape)}, {seen}.")
        if shares.min() < -1e-3:
            raise Wrong(f"A component gets {shares.min():.3g} bits, {seen}: it can't give any back; none is below 0.")
        if abs(shares.sum() - bits) > 0.01 * bits:
            raise Wrong(f"The shares add up to {shares.sum():.4g}, {seen}.")
        error, least = ((variances * 4**-s).mean() for s in (shares, wanted))
        if error > 1.02 * least:
            hints = {
                "With equal shares": torch.full_like(variances, bits / len(variances)),
                "Shared in proportion to the variances": bits * variances / variances.sum(),
                "With all bits for the largest variance": bits * F.one_hot(variances.argmax(), len(variances)),
            }
            how = [words for words, known in hints.items() if torch.allclose(shares, known.float(), atol=0.01 * bits)]
            raise Wrong(
                f"{how[0] if how else 'So shared'}, the mean distortion is {error:.4g}; it can be {least:.4g}, {seen}. "
                "Which component has the most distortion left?"
            )
    return "The distortions are levelled from the top, and no component gets less than 0 bits."


# --- 06 · What do codes of an image mean? ----------------------------------------------------------


@exercise
def reach(answer: Callable) -> str:
    """Number of blocks, stride → the side, in pixels, of the square that one index can change."""
    mistakes = {
        "These are latents; each of them becomes stride pixels.": lambda b, s: 2 * b + 3,
        "The decoder's first convolution is 3 × 3 too: count it with those of the blocks.": lambda b, s: (
            (2 * b + 1) * s
        ),
        "The square has a middle, the patch itself: add one to what is reached on both sides.": lambda b, s: (
            (2 * b + 2) * s
        ),
        "A convolution of 3 × 3 reaches one further on each side: to the left and to the right.": lambda b, s: (
            (b + 2) * s
        ),
        "A 1 × 1 convolution looks at no neighbour: count the 3 × 3 ones alone.": lambda b, s: (4 * b + 3) * s,
        "That is the number of pixels in the square; its side is asked for.": lambda b, s: ((2 * b + 3) * s) ** 2,
        "That is the patch alone, as if no convolution looked at its neighbours.": lambda b, s: s,
    }
    for blocks, stride in [(3, 8), (1, 8), (2, 4), (5, 16)]:
        inputs = {"num_blocks": blocks, "stride": stride}
        compare(answer, lambda b, s: (2 * (b + 1) + 1) * s, mistakes, **inputs)
    return "Right for every decoder tried: stride · (2 · (num_blocks + 1) + 1) pixels."


def _balanced(x: Tensor, rebuilt: Tensor, z_e: Tensor, z_q: Tensor, variance: float, beta: float) -> Tensor:
    return _vqvae_terms(x, rebuilt, z_e, z_q, 1 / variance, 1, beta)


def _vqvae_terms(
    x: Tensor, rebuilt: Tensor, z_e: Tensor, z_q: Tensor, rebuilding: float, codebook: float, commitment: float
) -> Tensor:
    """The three terms of a VQ-VAE's loss, each a mean, with their weights."""
    terms = F.mse_loss(rebuilt, x), F.mse_loss(z_q, z_e.detach()), F.mse_loss(z_e, z_q.detach())
    return rebuilding * terms[0] + codebook * terms[1] + commitment * terms[2]


def _loss_with_gradients(loss: Callable) -> Callable:
    """A loss as a function that returns its value and its gradients by the rebuilt images, z_e and z_q."""

    @functools.wraps(loss)
    def judged(x: Tensor, rebuilt: Tensor, z_e: Tensor, z_q: Tensor, *weights: float) -> tuple[Tensor, ...] | None:
        value = loss(x, rebuilt, z_e, z_q, *weights)
        return None if value is None else (value, *gradients(value, rebuilt, z_e, z_q))

    return judged


@exercise
def balanced_loss(answer: Callable) -> str:
    """Images, rebuilt images, z_e, z_q, variance, β → the loss, each of its terms a mean."""
    mistakes = {
        "The reconstruction's error is still a sum over the pixels: it grows with the image.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, x[0].numel() / v, 1, b)
        ),
        "The reconstruction's error is still a sum over the pixels, and not divided by the variance.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, x[0].numel(), 1, b)
        ),
        "Divide the reconstruction's error by the variance.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 1, 1, b)
        ),
        "The reconstruction's error is multiplied by the variance; divide by it.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, v, 1, b)
        ),
        "All terms are divided by the variance; only the reconstruction's is measured in pixels.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 1 / v, 1 / v, b / v)
        ),
        "β weighs the commitment loss, and here it weighs the codebook loss.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 1 / v, b, 1)
        ),
        "β weighs both losses of the quantizer; it belongs to the commitment loss alone.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 1 / v, b, b)
        ),
        "The commitment loss is missing its β.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 1 / v, 1, 1)
        ),
        "The codebook loss is gone.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 1 / v, 0, b)
        ),
        "The value is right, and the gradients aren't: nothing is detached.": (
            lambda x, rebuilt, z_e, z_q, v, b: F.mse_loss(rebuilt, x) / v + (1 + b) * F.mse_loss(z_e, z_q)
        ),
    }
    judged = {words: _loss_with_gradients(mistake) for words, mistake in mistakes.items()}
    for batch, side, variance, beta in [(2, 8, 0.1, 0.25), (1, 16, 0.5, 1.0), (3, 8, 0.05, 0.1)]:
        x, latents = torch.rand(batch, 3, side, side), torch.randn(2, batch, 4, side // 8, side // 8)
        rebuilt = (x + 0.1 * torch.randn_like(x)).requires_grad_()
        z_e, z_q = (z.clone().requires_grad_() for z in latents)
        inputs = {"images": x, "reconstruction": rebuilt, "z_e": z_e, "z_q": z_q, "variance": variance, "beta": beta}
        value = run(answer, **inputs)
        if not isinstance(value, Tensor) or value.ndim:
            raise Wrong(f"Return one number, a tensor without axes, {given(inputs)}. This is {_shown(value)}.")
        compare(_loss_with_gradients(answer), _loss_with_gradients(_balanced), judged, **inputs)
    return "Three means: no size of image or batch moves the balance, and every gradient is right."


@exercise
def alone(answer: Callable) -> str:
    """Model, K → (K, 3, s, s): each codeword decoded in a grid of its own."""
    sizes = {"dim": 6, "width": 8, "stride": 4, "num_blocks": 1}
    quantizer = VectorQuantizer(6, 10, channel_dim=1)
    model = VQVAE(Encoder(**sizes), quantizer, Decoder(**sizes)).eval()
    for weight in model.decoder.parameters():  # as it starts, the decoder looks at no neighbours
        torch.nn.init.normal_(weight, std=0.3)

    def right(size: int) -> Tensor:
        return model.decode(torch.arange(size).view(size, 1, 1))

    def cut(images: Tensor) -> Tensor:
        """One grid, decoded as a whole → its patches."""
        return images[0].unfold(1, 4, 4).unfold(2, 4, 4).flatten(1, 2).movedim(0, 1)

    mistakes = {
        "These are decoded in one row, and each colours its neighbours: give every index its own grid, (K, 1, 1).": (
            lambda k: cut(model.decode(torch.arange(k).view(1, 1, k)))
        ),
        "These are decoded in one column, and each colours its neighbours: give every index its own grid, (K, 1, 1).": (
            lambda k: cut(model.decode(torch.arange(k).view(1, k, 1)))
        ),
        "This is one image of K patches in a row: the first axis of the indices is the batch, so shape them "
        "(K, 1, 1).": lambda k: model.decode(torch.arange(k).view(1, 1, k)),
        "This is one image of K patches in a column: the first axis of the indices is the batch, so shape them "
        "(K, 1, 1).": lambda k: model.decode(torch.arange(k).view(1, k, 1)),
        "These are the codewords, not yet pictures: send them through the decoder.": lambda k: quantizer.codebook[:k],
        "Every picture shows the first codeword: the indices run from 0 to K − 1.": (
            lambda k: model.decode(torch.zeros(k, 1, 1, dtype=torch.int64))
        ),
    }

    @functools.wraps(answer)
    def with_model(size: int) -> Any:
        return answer(model, size)

    with torch.no_grad():
        for size in (10, 4):
            compare(with_model, right, mistakes, codebook_size=size)
    return "Every codeword decoded in a grid of its own, in the order of the indices."


def _surprise(indices: Tensor, counts: Tensor) -> Tensor:
    share = (counts + 1) / (counts + 1).sum()
    return -share.log2()[indices]


@exercise
def surprise(answer: Callable) -> str:
    """Indices (h, w), counts (K,) → the bits that each index deserves, (h, w)."""
    mistakes = {
        "The logarithm is that to base 2.": lambda i, c: _surprise(i, c) * math.log(2),
        "These are negative: the bits are minus the logarithm.": lambda i, c: -_surprise(i, c),
        "These are the shares themselves; the bits are minus their logarithm.": lambda i, c: 2 ** -_surprise(i, c),
        "Every index gets the same bits; a frequent one deserves fewer.": lambda i, c: torch.full(
            i.shape, math.log2(len(c))
        ),
        "That is one number for each codeword; look it up for every index.": lambda i, c: _surprise(
            torch.arange(len(c)), c
        ),
        "The shares don't add up to 1: divide by the sum of the counts that were raised by one.": (
            lambda i, c: -((c + 1) / c.sum()).log2()[i]
        ),
        "The counts were not raised by one.": lambda i, c: -(c / c.sum()).log2()[i],
        "These shares are those within this photo; count is what was seen in training.": (
            lambda i, c: _surprise(i, torch.bincount(i.flatten(), minlength=len(c)))
        ),
    }
    for height, width, size in [(3, 4, 8), (5, 2, 16), (1, 6, 4)]:
        counts = torch.randint(1, 50, (size,)) * (torch.arange(size) % 4 > 0)  # some were never seen
        inputs = {"indices": torch.randint(size, (height, width)), "counts": counts}
        inputs["indices"].view(-1)[0] = 0
        compare(answer, _surprise, mistakes, **inputs)
    return "Frequent indices get few bits, rare ones many, and none infinitely many."


# --- 07 · One model, every bitrate? ----------------------------------------------------------------


@exercise
def bits_per_pixel(answer: Callable) -> str:
    """Stride, K, M → M · log2 K / stride²."""
    mistakes = {
        "A latent stands for stride × stride pixels: divide by the square of the stride.": lambda s, k, m: (
            m * math.log2(k) / s
        ),
        "These are the bits of a whole latent: its pixels share them.": lambda s, k, m: m * math.log2(k),
        "Every stage adds its index: count all of them.": lambda s, k, m: math.log2(k) / s**2,
        "An index isn't K bits long: K things are told apart by log2(K) bits.": lambda s, k, m: m * k / s**2,
        "M indices of K values each are M · log2(K) bits, not log2(M · K).": lambda s, k, m: math.log2(m * k) / s**2,
        "The logarithm is that to base 2.": lambda s, k, m: m * math.log(k) / s**2,
    }
    for stride, size, stages in [(8, 256, 8), (8, 256, 1), (4, 1024, 2), (16, 16, 12)]:
        inputs = {"stride": stride, "codebook_size": size, "num_quantizers": stages}
        compare(answer, lambda s, k, m: m * math.log2(k) / s**2, mistakes, **inputs)
    return "Right for every setting tried: M · log2 K bits, shared by stride² pixels."


def _dropped(indices: Tensor, kept: Tensor, shift: int = 0) -> Tensor:
    stage = torch.arange(indices.shape[-1])
    return torch.where(stage + shift >= kept.view(-1, 1, 1, 1), -1, indices)


@exercise
def drop_stages(answer: Callable) -> str:
    """(B, h, w, M), (B,) → (B, h, w, M): −1 in the stages that an image doesn't keep."""
    mistakes = {
        "One stage too few is kept: with kept = 2, stages 0 and 1 stay.": lambda i, k: _dropped(i, k, shift=1),
        "One stage too many is kept: with kept = 2, stages 0 and 1 stay.": lambda i, k: _dropped(i, k, shift=-1),
        "Dropped stages have the index 0, which is a codeword like any other: write -1.": lambda i, k: _dropped(
            i, k
        ).clamp_min(0),
        "The first stages are dropped and the last kept: it must be the other way round.": lambda i, k: _dropped(
            i.flip(-1), k
        ).flip(-1),
        "Every image keeps as many stages as the first: each has its own number in kept.": lambda i, k: _dropped(
            i, k[:1].expand_as(k)
        ),
        "Nothing is dropped.": lambda i, k: i,
    }
    for batch, height, width, stages in [(4, 3, 2, 8), (1, 2, 2, 3), (6, 1, 5, 4)]:
        indices = torch.randint(16, (batch, height, width, stages))
        kept = torch.randint(1, stages + 1, (batch,))
        compare(answer, _dropped, mistakes, indices=indices, kept=kept)
    return "Every image keeps its own number of stages, on every input tried."


@exercise
def decode_prefix(answer: Callable) -> str:
    """Model, indices (B, h, w, M), number of stages, height, width → (B, 3, height, width)."""
    sizes = {"dim": 6, "width": 8, "stride": 4, "num_blocks": 1}
    quantizer = ResidualVectorQuantizer(6, 8, 4, channel_dim=1)
    model = VQVAE(Encoder(**sizes), quantizer, Decoder(**sizes)).eval()
    mistakes = {
        "All stages are used: keep the first num_quantizers of them.": lambda i, m, h, w: model.decode(i)[..., :h, :w],
        "These are the last stages: the first ones are asked for.": lambda i, m, h, w: model.decode(i[..., -m:])[
            ..., :h, :w
        ],
        "This is stage number num_quantizers alone: decode it with all those before it.": lambda i, m, h, w: (
            model.decode(i[..., m - 1 : m])[..., :h, :w]
        ),
        "The image still has its filled-up patches: cut it to height and width.": lambda i, m, h, w: model.decode(
            i[..., :m]
        ),
        "The image is cut at the top and left; the filling is at the bottom and right.": lambda i, m, h, w: (
            model.decode(i[..., :m])[..., -h:, -w:]
        ),
    }

    def right(indices: Tensor, stages: int, height: int, width: int) -> Tensor:
        return model.decode(indices[..., :stages])[..., :height, :width]

    @functools.wraps(answer)
    def with_model(*inputs: Any) -> Any:
        return answer(model, *inputs)

    with torch.no_grad():
        for batch, height, width, stages in [(2, 10, 13, 2), (1, 8, 8, 1), (1, 9, 6, 3), (1, 5, 7, 4)]:
            indices = model.encode(torch.rand(batch, 3, height, width))
            inputs = {"indices": indices, "num_quantizers": stages, "height": height, "width": width}
            compare(with_model, right, mistakes, **inputs)
    return "The right image from every prefix tried, cut to its size."


def _layers(layer_bytes: list[int], num_bytes: int, *, header: int = 13, frame: int = 8, partly: bool = False) -> int:
    """How many layers end (`partly`: begin) within the first bytes of a file."""
    end, whole = header, 0
    for size in layer_bytes:
        if (end if partly else end + frame + size - 1) >= num_bytes:
            break
        end += frame + size
        whole += 1
    return whole


@exercise
def layers_within(answer: Callable) -> str:
    """Sizes of the layers, number of bytes → how many layers are whole."""
    mistakes = {
        "The header and what stands before each layer are missing: 13 bytes once, and 8 for each layer.": (
            lambda sizes, n: _layers(sizes, n, header=0, frame=0)
        ),
        "The header is missing: the first 13 bytes are no layer's.": lambda sizes, n: _layers(sizes, n, header=0),
        "Before each layer stand 8 bytes, its length and its checksum.": lambda sizes, n: _layers(sizes, n, frame=0),
        "The 8 bytes stand before every layer, not once in the file.": lambda sizes, n: _layers(
            sizes, n, header=21, frame=0
        ),
        "A layer that is cut can't be read: count whole ones.": lambda sizes, n: _layers(sizes, n, partly=True),
        "A layer that ends with the last byte is whole.": lambda sizes, n: _layers(sizes, n - 1),
        "These are bits; the sizes are in bytes.": lambda sizes, n: _layers(sizes, 8 * n),
        "That is the number of bytes the layers take; how many layers are there?": lambda sizes, n: sum(
            sizes[: _layers(sizes, n)]
        ),
    }
    compare(answer, _layers, mistakes, layer_bytes=100 * [1], num_bytes=72)  # here each mistake gives its own number
    sizes = [40, 60, 60, 52, 48]
    ends = [13 + sum(8 + size for size in sizes[:count]) for count in range(1, 6)]
    for num_bytes in [ends[1], ends[0] - 1, ends[3] - 1, ends[4], 10_000, 0]:
        compare(answer, _layers, mistakes, layer_bytes=sizes, num_bytes=num_bytes)
    return "The right number, wherever the file was cut."


def _jpeg_wins(ours: list, jpeg: list, left: float | None = -math.inf, sign: int = 1) -> float:
    won = [rate for rate, psnr in ours if sign * (np.interp(rate, *zip(*jpeg, strict=True), left=left) - psnr) >= 0]
    return won[0] if won else math.inf


def _nearest_point(ours: list, jpeg: list) -> float:
    won = [rate for rate, psnr in ours if min(jpeg, key=lambda point: abs(point[0] - rate))[1] >= psnr]
    return won[0] if won else math.inf


@exercise
def jpeg_wins_from(answer: Callable) -> str:
    """Two lists of (bits per pixel, PSNR) → the first of our rates at which JPEG is at least as good, or inf."""
    mistakes = {
        "Below its smallest file JPEG has nothing to show, so it can't win there: np.interp(..., left=-math.inf).": (
            lambda ours, jpeg: _jpeg_wins(ours, jpeg, left=None)
        ),
        "This is where ours is at least as good; where is JPEG?": lambda ours, jpeg: _jpeg_wins(ours, jpeg, sign=-1),
        "That is the last rate at which ours still wins; the first at which JPEG does is asked for.": (
            lambda ours, jpeg: max(rate for rate, _ in ours if rate < _jpeg_wins(ours, jpeg))
        ),
        "The points with the same number in both lists have different rates: compare at the same rate.": (
            lambda ours, jpeg: next((a[0] for a, b in zip(ours, jpeg, strict=False) if b[1] >= a[1]), math.inf)
        ),
        "JPEG's nearest point is at another rate: read its PSNR off the line between two points.": _nearest_point,
        "That is the number of a point; its rate is asked for.": lambda ours, jpeg: next(
            i for i, (rate, _) in enumerate(ours) if rate == _jpeg_wins(ours, jpeg)
        ),
        "That is a PSNR; the rate is asked for.": lambda ours, jpeg: dict(ours)[_jpeg_wins(ours, jpeg)],
    }
    jpeg = [(0.1, 17.0), (0.15, 20.0), (0.2, 22.0), (0.4, 26.0), (0.8, 29.0)]
    # Each mistake gives its own number for these points.
    ours = [(0.16, 21.5), (0.21, 23.5), (0.29, 24.6), (0.45, 26.3), (0.58, 27.1), (0.7, 27.6)]
    everywhere_better = [(rate, psnr + 5) for rate, psnr in ours]
    for own, other in [(ours, jpeg), ([(0.05, 16.0), *ours], jpeg), (everywhere_better, jpeg), (ours[3:], jpeg)]:
        compare(answer, _jpeg_wins, mistakes, ours=own, jpeg=other)
    return "The first rate at which JPEG is as good, or inf, for every pair of curves tried."
