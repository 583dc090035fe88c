"""Exercises of 06 · What do codes of an image mean?"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial.autoencoder.models import VQVAE, Decoder, Encoder
from rvq_tutorial.course.check.judging import Wrong, compare, exercise, given, gradients, known, run, shown
from rvq_tutorial.course.check.sentences import say
from rvq_tutorial.quantizers import VectorQuantizer


@exercise
def reach(answer: Callable) -> str:
    """Number of blocks, stride → the side, in pixels, of the square that one index can change."""
    mistakes = dict(
        constants=lambda b, s: 72,
        constant_stride=lambda b, s: (2 * b + 3) * 8,
        constant_blocks=lambda b, s: 9 * s,
        latents=lambda b, s: 2 * b + 3,
        without_first_convolution=lambda b, s: (2 * b + 1) * s,
        without_middle=lambda b, s: (2 * b + 2) * s,
        one_side=lambda b, s: (b + 2) * s,
        middle_and_one_side=lambda b, s: (b + 1) * s,
        all_convolutions_3_by_3=lambda b, s: (4 * b + 3) * s,
        blocks_3_by_3_alone=lambda b, s: (4 * b + 1) * s,
        three_times=lambda b, s: 3 ** (b + 1) * s,
        three_places_each=lambda b, s: 3 * (b + 1) * s,
        pixels_for_places=lambda b, s: s + 2 * (b + 1),
        without_first_convolution_and_middle=lambda b, s: 2 * b * s,
        one_convolution=lambda b, s: 3 * s,
        twice=lambda b, s: 2 ** (b + 1) * s,
        transposed_counted=lambda b, s: (2 * b + 5) * s,
        one_pixel_less=lambda b, s: (2 * b + 3) * s - 1,
        one_pixel_more=lambda b, s: (2 * b + 3) * s + 1,
        middle_of_one_pixel=lambda b, s: (2 * b + 2) * s + 1,
        pixels_of_square=lambda b, s: ((2 * b + 3) * s) ** 2,
        places_of_square=lambda b, s: (2 * b + 3) ** 2,
        patch_alone=lambda b, s: s,
    )
    for blocks, stride in [(3, 8), (1, 16), (2, 4), (5, 16)]:
        inputs = {"num_blocks": blocks, "stride": stride}
        if isinstance(side := run(answer, **inputs), tuple | list):
            raise Wrong("several", given=given(inputs), side=shown(side))
        compare(answer, lambda b, s: (2 * (b + 1) + 1) * s, mistakes, **inputs)
    return say("right")


def _terms(x: Tensor, y: Tensor, z_e: Tensor, z_q: Tensor, *weights: float, of: Callable = F.mse_loss) -> Tensor:
    """The three terms of a VQ-VAE's loss, each a mean, with their weights."""
    terms = of(y, x), of(z_q, z_e.detach()), of(z_e, z_q.detach())
    return sum(weight * term for weight, term in zip(weights, terms, strict=True))


def _weighed(weights: Callable) -> Callable:
    """The loss whose terms have the weights of a function of x, z, the variance v and β."""
    return lambda x, y, z_e, z_q, v, b: _terms(x, y, z_e, z_q, *weights(x, z_e, v, b))


def _loss_with_gradients(loss: Callable) -> Callable:
    """A loss as a function that returns its value and its gradients by the rebuilt images, z_e and z_q."""

    @functools.wraps(loss)
    def judged(x: Tensor, rebuilt: Tensor, z_e: Tensor, z_q: Tensor, *weights: float) -> tuple[Tensor, ...] | None:
        value = loss(x, rebuilt, z_e, z_q, *weights)
        return None if value is None else (value, *gradients(value, rebuilt, z_e, z_q))

    return judged


# The mistakes in the weights of the three terms, 1 / v, 1 and β.
WEIGHTS_MISTAKES = dict(
    sum_over_pixels=lambda x, z, v, b: (x[0].numel() / v, 1, b),
    sum_over_pixels_without_variance=lambda x, z, v, b: (x[0].numel(), 1, b),
    sum_over_batch=lambda x, z, v, b: (x.numel() / v, 1, b),
    divided_by_batch=lambda x, z, v, b: (1 / v / len(x), 1, b),
    mean_of_terms=lambda x, z, v, b: (1 / v / 3, 1 / 3, b / 3),
    commitment_by_1_minus_beta=lambda x, z, v, b: (1 / v, 1, 1 - b),
    codebook_by_variance=lambda x, z, v, b: (1 / v, 1 / v, b),
    without_variance=lambda x, z, v, b: (1, 1, b),
    times_variance=lambda x, z, v, b: (v, 1, b),
    by_deviation=lambda x, z, v, b: (v**-0.5, 1, b),
    by_variance_of_images=lambda x, z, v, b: (1 / x.var().item(), 1, b),
    all_by_variance=lambda x, z, v, b: (1 / v, 1 / v, b / v),
    beta_on_codebook=lambda x, z, v, b: (1 / v, b, 1),
    beta_on_both=lambda x, z, v, b: (1 / v, b, b),
    without_beta=lambda x, z, v, b: (1 / v, 1, 1),
    beta_of_quarter=lambda x, z, v, b: (1 / v, 1, 0.25),
    commitment_subtracted=lambda x, z, v, b: (1 / v, 1, -b),
    without_reconstruction=lambda x, z, v, b: (0, 1, b),
    without_commitment=lambda x, z, v, b: (1 / v, 1, 0),
    without_codebook=lambda x, z, v, b: (1 / v, 0, b),
    sums_of_latents=lambda x, z, v, b: (1 / v, z.numel(), b * z.numel()),
    squared_lengths=lambda x, z, v, b: (1 / v, z.shape[1], b * z.shape[1]),
)
SUMMED = functools.partial(F.mse_loss, reduction="sum")
# The other mistakes in the loss of images x, their reconstructions y and both latents.
LOSS_MISTAKES = dict(
    root=lambda x, y, z_e, z_q, v, b: F.mse_loss(y, x).sqrt() / v + _terms(x, y, z_e, z_q, 0, 1, b),
    commitment_undetached=lambda x, y, z_e, z_q, v, b: _terms(x, y, z_e, z_q, 1 / v, 1, 0) + b * F.mse_loss(z_e, z_q),
    codebook_undetached=lambda x, y, z_e, z_q, v, b: _terms(x, y, z_e, z_q, 1 / v, 0, b) + F.mse_loss(z_e, z_q),
    reconstruction_detached=lambda x, y, z_e, z_q, v, b: _terms(x, y.detach(), z_e, z_q, 1 / v, 1, b),
    all_sums=lambda x, y, z_e, z_q, v, b: _terms(x, y, z_e, z_q, 1 / v, 1, b, of=SUMMED),
    all_sums_over_image=lambda x, y, z_e, z_q, v, b: _terms(x, y, z_e, z_q, 1 / v, 1, b, of=SUMMED) / len(x),
    absolute=lambda x, y, z_e, z_q, v, b: _terms(x, y, z_e, z_q, 1 / v, 1, b, of=F.l1_loss),
    reconstruction_absolute=lambda x, y, z_e, z_q, v, b: F.l1_loss(y, x) / v + _terms(x, y, z_e, z_q, 0, 1, b),
    both_detach_z_e=lambda x, y, z_e, z_q, v, b: F.mse_loss(y, x) / v + (1 + b) * F.mse_loss(z_q, z_e.detach()),
    both_detach_z_q=lambda x, y, z_e, z_q, v, b: F.mse_loss(y, x) / v + (1 + b) * F.mse_loss(z_e, z_q.detach()),
    nothing_detached=lambda x, y, z_e, z_q, v, b: F.mse_loss(y, x) / v + (1 + b) * F.mse_loss(z_e, z_q),
)


@exercise
def balanced_loss(answer: Callable) -> str:
    """Images, rebuilt images, z_e, z_q, variance, β → the loss, each of its terms a mean."""
    balanced = _weighed(lambda x, z, v, b: (1 / v, 1, b))
    mistakes = {name: _weighed(weights) for name, weights in WEIGHTS_MISTAKES.items()} | LOSS_MISTAKES
    judged = {name: _loss_with_gradients(mistake) for name, mistake in mistakes.items()}
    for batch, side, variance, beta in [(2, 8, 0.1, 0.25), (1, 16, 0.5, 1.0), (3, 8, 0.05, 0.1)]:
        x, latents = torch.rand(batch, 3, side, side), torch.randn(2, batch, 4, side // 8, side // 8)
        rebuilt = (x + 0.1 * torch.randn_like(x)).requires_grad_()
        z_e, z_q = (z.clone().requires_grad_() for z in latents)
        inputs = {"images": x, "reconstruction": rebuilt, "z_e": z_e, "z_q": z_q, "variance": variance, "beta": beta}
        value = run(answer, **inputs)
        if isinstance(value, float):
            raise Wrong("without_gradient", value=shown(value))
        if not isinstance(value, Tensor) or value.ndim:
            raise Wrong("no_number_alone", given=given(inputs), value=shown(value))
        compare(_loss_with_gradients(answer), _loss_with_gradients(balanced), judged, **inputs)
    return say("right")


# What PyTorch or the quantizer says of some mistakes.
RAISED = dict(index_range=["must lie between"], images_for_indices=["images must"], no_grid=["conv2d", "channels"])


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

    mistakes = dict(
        in_a_row=lambda k: cut(model.decode(torch.arange(k).view(1, 1, k))),
        in_a_column=lambda k: cut(model.decode(torch.arange(k).view(1, k, 1))),
        one_image_in_a_row=lambda k: model.decode(torch.arange(k).view(1, 1, k)),
        one_image_in_a_column=lambda k: model.decode(torch.arange(k).view(1, k, 1)),
        codewords=lambda k: quantizer.codebook[:k],
        codewords_in_grids=lambda k: quantizer.decode(torch.arange(k).view(k, 1, 1)),
        first_always=lambda k: model.decode(torch.zeros(k, 1, 1, dtype=torch.int64)),
        second_always=lambda k: model.decode(torch.ones(k, 1, 1, dtype=torch.int64)),
        colours_joined=lambda k: right(k).flatten(0, 1),
        backwards=lambda k: right(k).flip(0),
        last_missing=lambda k: right(k)[:-1],
        first_missing=lambda k: right(k)[1:],
        first_alone=lambda k: right(1),
        mean_colours=lambda k: right(k).mean((2, 3)),
        shrunk_to_mean_colour=lambda k: right(k).mean((2, 3), keepdim=True),
        among_its_like=lambda k: grids(k, 3)[..., 4:8, 4:8],
        batch_axis_each=lambda k: right(k)[:, None],
        colours_last=lambda k: right(k).movedim(1, -1),
        clipped=lambda k: right(k).clamp(0, 1),
    )

    @functools.wraps(answer)
    def with_model(size: int) -> Any:
        try:
            return answer(model, size)
        except Exception as error:
            for name, said in RAISED.items():
                if any(words in str(error) for words in said):
                    raise type(error)(say(name)) from error
            raise

    with torch.no_grad():
        for size in (10, 4):
            inputs = {"codebook_size": size}
            filled = {side: functools.partial(grids, side=side) for side in range(2, 10)}
            if side := known(run(with_model, **inputs), filled, size):
                raise Wrong("filled_grid", inputs, side=side)
            compare(with_model, right, mistakes, **inputs)
    return say("right")


def _surprise(indices: Tensor, counts: Tensor) -> Tensor:
    return _bits(counts + 1)[indices]


def _bits(counts: Tensor) -> Tensor:
    """What each codeword's share of the counts deserves: (K,) → (K,)."""
    return -(counts / counts.sum()).log2()


TINY = (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6)  # usual for keeping a logarithm finite


@exercise
def surprise(answer: Callable) -> str:
    """Indices (h, w), counts (K,) → the bits that each index deserves, (h, w)."""
    mistakes = dict(
        natural_logarithm=lambda i, c: _surprise(i, c) * math.log(2),
        negative=lambda i, c: -_surprise(i, c),
        shares=lambda i, c: 2 ** -_surprise(i, c),
        equal=lambda i, c: torch.full(i.shape, math.log2(len(c))),
        of_each_codeword=lambda i, c: _surprise(torch.arange(len(c)), c),
        sum_not_raised=lambda i, c: -((c + 1) / c.sum()).log2()[i],
        sum_raised_by_1=lambda i, c: -((c + 1) / (c.sum() + 1)).log2()[i],
        by_largest=lambda i, c: -((c + 1) / (c + 1).max()).log2()[i],
        counts=lambda i, c: -(c + 1.0).log2()[i],
        counts_negative=lambda i, c: (c + 1.0).log2()[i],
        raised_shares=lambda i, c: -(c / c.sum() + 1).log2()[i],
        entropy=lambda i, c: torch.special.entr((c + 1) / (c + 1).sum()).sum() / math.log(2),
        not_raised=lambda i, c: _bits(c)[i],
        zeros_raised_alone=lambda i, c: _bits(c.clamp(min=1))[i],
        zeros_not_raised=lambda i, c: _bits(c + (c > 0))[i],
        counts_of_photo=lambda i, c: _surprise(i, torch.bincount(i.flatten(), minlength=len(c))),
        shares_of_places=lambda i, c: _bits(c[i] + 1),
        inverse=lambda i, c: 2 ** _surprise(i, c),
        terms_of_entropy=lambda i, c: _surprise(i, c) * 2 ** -_surprise(i, c),
        logarithm_to_10=lambda i, c: _surprise(i, c) * math.log10(2),
        rounded_up=lambda i, c: _surprise(i, c).ceil(),
        mean=lambda i, c: _surprise(i, c).mean(),
        sum=lambda i, c: _surprise(i, c).sum(),
    )
    for height, width, size in [(3, 4, 8), (5, 2, 16), (1, 6, 4)]:
        counts = torch.randint(1, 50, (size,)) * (torch.arange(size) % 4 > 0)  # some were never seen
        inputs = {"indices": torch.randint(size, (height, width)), "counts": counts}
        inputs["indices"].view(-1)[0] = 0
        bits = {tiny: -(counts / counts.sum() + tiny).log2()[inputs["indices"]] for tiny in TINY}
        if tiny := known(run(answer, **inputs), bits):
            raise Wrong("tiny_in_logarithm", inputs, tiny=tiny)
        compare(answer, _surprise, mistakes, **inputs)
    return say("right")
