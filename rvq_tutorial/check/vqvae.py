"""Exercises of 06 · What do codes of an image mean?"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial.check.judging import Wrong, compare, exercise, given, gradients, run, shown
from rvq_tutorial.models import VQVAE, Decoder, Encoder
from rvq_tutorial.quantizers import VectorQuantizer


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
            raise Wrong(f"Return one number, a tensor without axes, {given(inputs)}. This is {shown(value)}.")
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
