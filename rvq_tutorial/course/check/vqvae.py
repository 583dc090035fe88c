"""Exercises of 06 · What do codes of an image mean?"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial.autoencoder.models import VQVAE, Decoder, Encoder
from rvq_tutorial.course.check.judging import Wrong, compare, exercise, given, gradients, run, shown
from rvq_tutorial.quantizers import VectorQuantizer


@exercise
def reach(answer: Callable) -> str:
    """Number of blocks, stride → the side, in pixels, of the square that one index can change."""
    mistakes = {
        "The number is right for 3 blocks and stride 8 alone: both are given.": lambda b, s: 72,
        "It counts with 8 pixels a place, whatever stride is.": lambda b, s: (2 * b + 3) * 8,
        "It counts with 3 blocks, whatever num_blocks is.": lambda b, s: 9 * s,
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
        "That is how far the change gets on one side; the square has two sides, and a middle.": lambda b, s: (
            (b + 1) * s
        ),
        "A 1 × 1 convolution looks at no neighbour: count the 3 × 3 ones alone.": lambda b, s: (4 * b + 3) * s,
        "A 1 × 1 convolution looks at no neighbour, and the decoder's first one is 3 × 3: count all that are 3 × 3, "
        "and no other.": lambda b, s: (4 * b + 1) * s,
        "A convolution of 3 × 3 makes the side longer by two places, not three times as long.": (
            lambda b, s: 3 ** (b + 1) * s
        ),
        "A convolution of 3 × 3 makes the side longer by two places: the third is the place where it starts.": (
            lambda b, s: 3 * (b + 1) * s
        ),
        "A convolution spreads the change by places of the grid, not by pixels: first count places, then multiply by "
        "stride.": lambda b, s: s + 2 * (b + 1),
        "The decoder's first convolution is missing, and the square's middle, the patch itself.": lambda b, s: (
            2 * b * s
        ),
        "That is one convolution of 3 × 3; every block has one more.": lambda b, s: 3 * s,
        "A convolution of 3 × 3 makes the side longer by two places, not twice as long.": lambda b, s: 2 ** (b + 1) * s,
        "The last, transposed convolution lays each place's pixels beside the others: it reaches no neighbour.": (
            lambda b, s: (2 * b + 5) * s
        ),
        "The square is of whole places, and here one pixel is missing.": lambda b, s: (2 * b + 3) * s - 1,
        "The square is of whole places, and here is one pixel more.": lambda b, s: (2 * b + 3) * s + 1,
        "The middle is a whole place, of stride pixels, and not one pixel.": lambda b, s: (2 * b + 2) * s + 1,
        "That is the number of pixels in the square; its side is asked for.": lambda b, s: ((2 * b + 3) * s) ** 2,
        "That is the number of places in the square; its side in pixels is asked for.": lambda b, s: (2 * b + 3) ** 2,
        "That is the patch alone, as if no convolution looked at its neighbours.": lambda b, s: s,
    }
    for blocks, stride in [(3, 8), (1, 16), (2, 4), (5, 16)]:
        inputs = {"num_blocks": blocks, "stride": stride}
        if isinstance(side := run(answer, **inputs), tuple | list):
            raise Wrong(f"Return the side alone, one number, {given(inputs)}. This is {shown(side)}.")
        compare(answer, lambda b, s: (2 * (b + 1) + 1) * s, mistakes, **inputs)
    return "Right for every decoder tried: stride · (2 · (num_blocks + 1) + 1) pixels."


def _balanced(x: Tensor, rebuilt: Tensor, z_e: Tensor, z_q: Tensor, variance: float, beta: float) -> Tensor:
    return _vqvae_terms(x, rebuilt, z_e, z_q, 1 / variance, 1, beta)


def _all_summed(x: Tensor, rebuilt: Tensor, z_e: Tensor, z_q: Tensor, variance: float, beta: float) -> Tensor:
    terms = ((x - rebuilt) ** 2).sum() / variance, ((z_q - z_e.detach()) ** 2).sum(), ((z_e - z_q.detach()) ** 2).sum()
    return terms[0] + terms[1] + beta * terms[2]


def _summed_latents(x: Tensor, rebuilt: Tensor, z_e: Tensor, z_q: Tensor, variance: float, beta: float) -> Tensor:
    return _vqvae_terms(x, rebuilt, z_e, z_q, 1 / variance, z_e.numel(), beta * z_e.numel())


def _squared_lengths(x: Tensor, rebuilt: Tensor, z_e: Tensor, z_q: Tensor, variance: float, beta: float) -> Tensor:
    return _vqvae_terms(x, rebuilt, z_e, z_q, 1 / variance, z_e.shape[1], beta * z_e.shape[1])


def _moving(x: Tensor, rebuilt: Tensor, moved: Tensor, held: Tensor, variance: float, beta: float) -> Tensor:
    """Both of the quantizer's losses with the same tensor detached."""
    return F.mse_loss(rebuilt, x) / variance + (1 + beta) * F.mse_loss(moved, held.detach())


def _absolute(x: Tensor, rebuilt: Tensor, z_e: Tensor, z_q: Tensor, variance: float, beta: float) -> Tensor:
    terms = F.l1_loss(rebuilt, x), F.l1_loss(z_q, z_e.detach()), F.l1_loss(z_e, z_q.detach())
    return terms[0] / variance + terms[1] + beta * terms[2]


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
        "The reconstruction's error is a sum over the whole batch: it grows with the image and with the batch.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, x.numel() / v, 1, b)
        ),
        "The reconstruction's error is divided by the size of the batch once more: its mean has done that already.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 1 / v / len(x), 1, b)
        ),
        "That is the mean of the three terms; add them.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 1 / v / 3, 1 / 3, b / 3)
        ),
        "The root of the reconstruction's error is taken; equation 3 has the squared error itself.": (
            lambda x, rebuilt, z_e, z_q, v, b: (
                F.mse_loss(rebuilt, x).sqrt() / v + _vqvae_terms(x, rebuilt, z_e, z_q, 0, 1, b)
            )
        ),
        "The commitment loss is weighed by 1 − β; its weight is β.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 1 / v, 1, 1 - b)
        ),
        "The commitment loss detaches nothing, so it moves the codebook too.": (
            lambda x, rebuilt, z_e, z_q, v, b: (
                _vqvae_terms(x, rebuilt, z_e, z_q, 1 / v, 1, 0) + b * F.mse_loss(z_e, z_q)
            )
        ),
        "The codebook loss detaches nothing, so it moves the encoder too.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 1 / v, 0, b) + F.mse_loss(z_e, z_q)
        ),
        "The reconstruction is detached, so nothing moves the decoder.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt.detach(), z_e, z_q, 1 / v, 1, b)
        ),
        "All three terms are sums; each should be a mean.": _all_summed,
        "All three terms are sums over an image; each should be a mean.": (
            lambda x, rebuilt, z_e, z_q, v, b: _all_summed(x, rebuilt, z_e, z_q, v, b) / len(x)
        ),
        "The codebook loss and the commitment loss are sums; each term should be a mean.": _summed_latents,
        "The codebook loss and the commitment loss are squared lengths, as equation 3 is printed; the three terms here "
        "are means over the components too.": _squared_lengths,
        "These are absolute differences; equation 3 squares them.": _absolute,
        "The reconstruction's error is of absolute differences; square them.": (
            lambda x, rebuilt, z_e, z_q, v, b: F.l1_loss(rebuilt, x) / v + _vqvae_terms(x, rebuilt, z_e, z_q, 0, 1, b)
        ),
        "The codebook loss is divided by the variance too; only the reconstruction's error is measured in pixels.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 1 / v, 1 / v, b)
        ),
        "Divide the reconstruction's error by the variance.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 1, 1, b)
        ),
        "The reconstruction's error is multiplied by the variance; divide by it.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, v, 1, b)
        ),
        "The reconstruction's error is divided by the standard deviation, the root of the variance.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, v**-0.5, 1, b)
        ),
        "The reconstruction's error is divided by the variance of these images; divide by the one that is given.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 1 / x.var().item(), 1, b)
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
        "β is given, and here it is always 0.25.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 1 / v, 1, 0.25)
        ),
        "The commitment loss is subtracted; all three terms are added.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 1 / v, 1, -b)
        ),
        "The reconstruction's error is gone.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 0, 1, b)
        ),
        "The commitment loss is gone.": (
            lambda x, rebuilt, z_e, z_q, v, b: _vqvae_terms(x, rebuilt, z_e, z_q, 1 / v, 1, 0)
        ),
        "Both losses of the quantizer detach z_e, so that none of them holds the encoder: the commitment loss detaches "
        "z_q.": lambda x, rebuilt, z_e, z_q, v, b: _moving(x, rebuilt, z_q, z_e, v, b),
        "Both losses of the quantizer detach z_q, so that none of them moves the codebook: the codebook loss detaches "
        "z_e.": lambda x, rebuilt, z_e, z_q, v, b: _moving(x, rebuilt, z_e, z_q, v, b),
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
        if isinstance(value, float):
            raise Wrong(f"This is a number without a gradient, {shown(value)}: return the tensor, without item().")
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

    def grids(size: int, side: int) -> Tensor:
        """Each index in a square grid of its like, decoded."""
        return model.decode(torch.arange(size).view(size, 1, 1).expand(size, side, side))

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
        "These are the codewords, each in a grid of its own, not yet pictures: send them through the decoder.": (
            lambda k: quantizer.decode(torch.arange(k).view(k, 1, 1))
        ),
        "Every picture shows the first codeword: the indices run from 0 to K − 1.": (
            lambda k: model.decode(torch.zeros(k, 1, 1, dtype=torch.int64))
        ),
        "Every picture shows the same codeword, number 1: the indices run from 0 to K − 1.": (
            lambda k: model.decode(torch.ones(k, 1, 1, dtype=torch.int64))
        ),
        "The pictures' colours are joined one after the other: torch.stack gives each picture a place of its own.": (
            lambda k: right(k).flatten(0, 1)
        ),
        "The pictures go from the last codeword to the first: their order is that of the indices.": (
            lambda k: right(k).flip(0)
        ),
        "The last codeword is missing: the indices run from 0 to K − 1.": lambda k: right(k)[:-1],
        "The first codeword is missing: the indices run from 0 to K − 1.": lambda k: right(k)[1:],
        "That is the first codeword alone; all K are asked for.": lambda k: right(1),
        "That is the mean colour of each codeword's picture; return the pictures.": lambda k: right(k).mean((2, 3)),
        "Each picture is shrunk to its mean colour; leave them as the decoder gives them.": (
            lambda k: right(k).mean((2, 3), keepdim=True)
        ),
        "Each codeword stands among its like in a grid of 3 × 3; alone is a grid of one place.": (
            lambda k: grids(k, 3)[..., 4:8, 4:8]
        ),
        "Each picture has a batch axis of its own: join them by torch.cat, or decode all as one batch.": (
            lambda k: right(k)[:, None]
        ),
        "The colours are the last axis here; leave the pictures as the decoder gives them, (K, 3, s, s).": (
            lambda k: right(k).movedim(1, -1)
        ),
        "The pictures are clipped to [0, 1]; leave them as the decoder gives them.": lambda k: right(k).clamp(0, 1),
        **{
            f"Each codeword fills a grid of {n} × {n} places; alone is a grid of one place, (K, 1, 1).": (
                lambda k, n=n: grids(k, n)
            )
            for n in range(2, 10)
        },
    }

    @functools.wraps(answer)
    def with_model(size: int) -> Any:
        try:
            return answer(model, size)
        except Exception as error:
            for said, meant in _RAISED.items():
                if said in str(error):
                    raise type(error)(meant) from error
            raise

    with torch.no_grad():
        for size in (10, 4):
            compare(with_model, right, mistakes, codebook_size=size)
    return "Every codeword decoded in a grid of its own, in the order of the indices."


# What PyTorch or the quantizer says → what it means for whoever decodes every codeword alone.
_RAISED = {
    "must lie between": "the indices of K codewords run from 0 to K − 1, and K is given",
    "images must": "the model itself takes images; what takes indices is model.decode",
    "conv2d": "model.decode takes indices (B, h, w): with a grid of its own for each, (K, 1, 1)",
    "channels": "model.decode takes indices (B, h, w): with a grid of its own for each, (K, 1, 1)",
}


def _surprise(indices: Tensor, counts: Tensor) -> Tensor:
    return _bits(counts + 1)[indices]


def _bits(counts: Tensor) -> Tensor:
    """What each codeword's share of the counts deserves: (K,) → (K,)."""
    return -(counts / counts.sum()).log2()


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
        "The shares don't add up to 1: each of the K counts was raised by one, so their sum grew by K.": (
            lambda i, c: -((c + 1) / (c.sum() + 1)).log2()[i]
        ),
        "The counts are divided by the largest of them; shares are what is divided by their sum.": (
            lambda i, c: -((c + 1) / (c + 1).max()).log2()[i]
        ),
        "The counts are not yet shares: divide them by their sum first.": lambda i, c: -(c + 1.0).log2()[i],
        "The counts are not yet shares: divide them by their sum, and take minus the logarithm.": (
            lambda i, c: (c + 1.0).log2()[i]
        ),
        "Add one to the counts, not to the shares.": lambda i, c: -(c / c.sum() + 1).log2()[i],
        "That is the entropy of the codebook, a mean; the bits of each place are asked for.": (
            lambda i, c: torch.special.entr((c + 1) / (c + 1).sum()).sum() / math.log(2)
        ),
        "The counts were not raised by one.": lambda i, c: _bits(c)[i],
        "Raise all counts by one; here only those are raised that are 0.": lambda i, c: _bits(c.clamp(min=1))[i],
        "Here the counts are raised that are not 0, and those that are stay at 0: raise them all.": (
            lambda i, c: _bits(c + (c > 0))[i]
        ),
        **{
            f"Raise the counts by one; {tiny:g} in the logarithm makes what was never seen cost 20 bits or more.": (
                lambda i, c, tiny=tiny: -(c / c.sum() + tiny).log2()[i]
            )
            for tiny in (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6)
        },
        "These shares are those within this photo; counts is what was seen in training.": (
            lambda i, c: _surprise(i, torch.bincount(i.flatten(), minlength=len(c)))
        ),
        "These shares are of this photo's places: divide by the sum of all counts, before you look any up.": (
            lambda i, c: _bits(c[i] + 1)
        ),
        "That is one over the share; the bits are its logarithm.": lambda i, c: 2 ** _surprise(i, c),
        "These are the bits times the share, terms of an entropy; an index that occurs costs its bits whole.": (
            lambda i, c: _surprise(i, c) * 2 ** -_surprise(i, c)
        ),
        "The logarithm is that to base 2, not 10.": lambda i, c: _surprise(i, c) * math.log10(2),
        "The bits are rounded up; leave them as they are.": lambda i, c: _surprise(i, c).ceil(),
        "That is the mean over the photo; the bits of each place are asked for.": lambda i, c: _surprise(i, c).mean(),
        "That is the sum over the photo; the bits of each place are asked for.": lambda i, c: _surprise(i, c).sum(),
    }
    for height, width, size in [(3, 4, 8), (5, 2, 16), (1, 6, 4)]:
        counts = torch.randint(1, 50, (size,)) * (torch.arange(size) % 4 > 0)  # some were never seen
        inputs = {"indices": torch.randint(size, (height, width)), "counts": counts}
        inputs["indices"].view(-1)[0] = 0
        compare(answer, _surprise, mistakes, **inputs)
    return "Frequent indices get few bits, rare ones many, and none infinitely many."
