"""Exercises of 07 · One model, every bitrate?"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rvq_tutorial.check.judging import compare, exercise
from rvq_tutorial.models import VQVAE, Decoder, Encoder
from rvq_tutorial.quantizers import ResidualVectorQuantizer


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
