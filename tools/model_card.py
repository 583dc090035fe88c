"""Measure the shipped model on the held-out photographs, beside JPEG, and write its model card."""

import copy
import io
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rvq_tutorial import data, metrics
from rvq_tutorial.codec import Codec
from rvq_tutorial.models import VQVAE

RATES = (0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7)  # bits per pixel


class Point(NamedTuple):
    """One way to store one photograph."""

    bits_per_pixel: float
    psnr: float  # dB


def stages(codec: Codec, photo: Tensor) -> list[Point]:
    """The photograph (3, H, W) as a file of 1, 2, … stages, encoded anew for each."""
    points = []
    for m in range(1, codec.model.quantizer.num_quantizers + 1):
        file = codec.compress(photo, num_quantizers=m)
        points.append(Point(8 * len(file) / photo[0].numel(), metrics.psnr(codec.decompress(file), photo)))
    return points


@torch.no_grad()
def prefixes(model: VQVAE, photo: Tensor) -> list[float]:
    """PSNR of the photograph from the first 1, 2, … stages of one encoding with them all."""
    height, width = photo.shape[1:]
    indices = model.encode(photo[None])
    images = [model.decode(indices[..., :m])[0, :, :height, :width] for m in range(1, indices.shape[-1] + 1)]
    return [metrics.psnr(image.clamp(0, 1), photo) for image in images]


@torch.no_grad()
def bypassed(model: VQVAE, photo: Tensor) -> float:
    """PSNR of the photograph after encoder and decoder alone."""
    height, width = photo.shape[1:]
    return metrics.psnr(model.decoder(model.latents(photo[None]))[0, :, :height, :width].clamp(0, 1), photo)


@torch.no_grad()
def usage(model: VQVAE, photos: list[Tensor]) -> list[float]:
    """Share of each stage's codewords that the photographs use."""
    indices = torch.cat([model.encode(photo[None]).flatten(0, 2) for photo in photos])
    return [metrics.usage(stage, model.quantizer.codebook_size) for stage in indices.unbind(-1)]


def within(codec: Codec, photo: Tensor, bits_per_pixel: float) -> Point:
    """The photograph as the best file of at most that size, its patches of as many stages as they need."""
    pixels = photo[0].numel()
    file = codec.compress(photo, max_bytes=int(bits_per_pixel * pixels / 8))
    return Point(8 * len(file) / pixels, metrics.psnr(codec.decompress(file), photo))


def jpeg(photo: Tensor) -> list[Point]:
    """The photograph at every quality of Pillow's JPEG, with and without coarser colour, small to large."""
    settings = [{"quality": quality, "optimize": True} for quality in range(1, 96)]
    return _points(photo, "JPEG", [{**each, "subsampling": kind} for each in settings for kind in ("4:4:4", "4:2:0")])


def webp(photo: Tensor) -> list[Point]:
    """The photograph at every quality of Pillow's WebP, with its most thorough method, small to large."""
    return _points(photo, "WebP", [{"quality": quality, "method": 6} for quality in range(101)])


def _points(photo: Tensor, kind: str, settings: list[dict]) -> list[Point]:
    pixels = (255 * photo).round().byte().permute(1, 2, 0).numpy()
    points = []
    for options in settings:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **options)
        rebuilt = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
        points.append(Point(8 * len(file.getvalue()) / photo[0].numel(), metrics.psnr(rebuilt, photo)))
    return sorted(points)


def best_psnr(points: list[Point], bits_per_pixel: float) -> float:
    """The best within that size, or of the smallest file if none is that small."""
    return max((point.psnr for point in points if point.bits_per_pixel <= bits_per_pixel), default=points[0].psnr)


def least_bits(points: list[Point], psnr: float) -> float:
    """Bits per pixel of the smallest file that is at least that good."""
    return min(point.bits_per_pixel for point in points if point.psnr >= psnr)


def seconds(action: Callable[[], object], repeats: int = 15) -> float:
    """Least time of some runs: what other programs take from the others is not the model's."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def quantizer_share(model: VQVAE, crops: Tensor) -> float:
    """Share of a training step that is spent in the quantizer, forward and backward."""

    def step() -> None:
        output = model(crops)
        (F.mse_loss(output.reconstruction, crops) + output.loss).backward()

    def quantize() -> None:
        output = model.quantizer(latents)
        (output.quantized.sum() + output.loss).backward()

    model = copy.deepcopy(model).train()  # its codebooks move
    model.quantizer.beam_size = 1
    latents = model.latents(crops).detach().requires_grad_()
    return seconds(quantize) / seconds(step)


def write(path: Path, codec: Codec, training: str) -> None:
    """Measure everything and write the card; `training` says in a sentence or two how the model was made."""
    model, photos = codec.model, list(data.photos().held_out.values())
    points, files = [stages(codec, photo) for photo in photos], [jpeg(photo) for photo in photos]
    budgets = [[within(codec, photo, rate) for photo in photos] for rate in RATES]
    gain = fmean(each[-1].psnr - each[0].psnr for each in points)
    gap = fmean(bypassed(model, photo) - each[-1].psnr for photo, each in zip(photos, points, strict=True))
    square = F.interpolate(photos[-1][None], (512, 512), mode="bilinear")
    with torch.no_grad():
        indices = model.encode(square)
        encoding, decoding = seconds(lambda: model.encode(square)), seconds(lambda: model.decode(indices))
    card = CARD.format(
        training=training,
        table="\n".join(_rows(model, photos, points, files)),
        budgets="\n".join(_budget_rows(budgets, files, [webp(photo) for photo in photos])),
        wins="\n".join(_wins(data.photos().held_out, zip(*budgets, strict=True), files)),
        gain=gain,
        gap=gap,
        share=quantizer_share(model, data.photo_crops(64, 64)),
        encoding=encoding,
        decoding=decoding,
        threads=torch.get_num_threads(),
    )
    path.write_text(card, encoding="utf-8")


def _wins(names: Iterable[str], points: Iterable[Iterable[Point]], files: list[list[Point]]) -> Iterator[str]:
    """For each photograph, where the model is better than JPEG at equal size."""
    for name, ours, theirs in zip(names, points, files, strict=True):
        budgets = zip(RATES, ours, strict=True)
        won = [rate for rate, point in budgets if point.psnr > best_psnr(theirs, point.bits_per_pixel)]
        yield f"- {name}: {', '.join(map(str, won)) or 'none'}"


def _budget_rows(budgets: list[list[Point]], jpegs: list[list[Point]], webps: list[list[Point]]) -> Iterator[str]:
    """A row of the card's second table for every rate, from the points of every photograph."""
    for rate, points in zip(RATES, budgets, strict=True):
        psnr = fmean(ours.psnr for ours in points)
        rivals, sizes = zip(*(_compared(points, files) for files in (jpegs, webps)), strict=True)
        cells = [f"{rate}", f"{psnr:.2f}", *(f"{rival:.2f}" for rival in rivals), *(f"{size:.2f}" for size in sizes)]
        yield f"| {' | '.join(cells)} |"


def _compared(points: Iterable[Point], files: list[list[Point]]) -> tuple[float, float]:
    """Means over the photographs: the rival's PSNR at the size of our file, and our size over its at our PSNR."""
    pairs = list(zip(points, files, strict=True))
    rival = fmean(best_psnr(file, ours.bits_per_pixel) for ours, file in pairs)
    return rival, fmean(ours.bits_per_pixel / least_bits(file, ours.psnr) for ours, file in pairs)


def _rows(model: VQVAE, photos: list[Tensor], points: list[list[Point]], files: list[list[Point]]) -> Iterator[str]:
    """A row of the card's table for every number of stages, from the points of every photograph."""
    truncated = [fmean(column) for column in zip(*(prefixes(model, photo) for photo in photos), strict=True)]
    used = usage(model, photos)
    plain = math.log2(model.quantizer.codebook_size) / model.encoder.stride**2
    for m, at_m in enumerate(zip(*points, strict=True)):
        rate, psnr = (fmean(column) for column in zip(*at_m, strict=True))
        rival, size = _compared(at_m, files)
        yield (
            f"| {m + 1} | {plain * (m + 1):.3f} | {rate:.3f} | {psnr:.2f} | {rival:.2f} | {size:.2f} "
            f"| {truncated[m]:.2f} | {used[m]:.1%} |"
        )


CARD = """\
# Model card: photos.safetensors

A residual VQ-VAE for photographs: 8 stages of 256 codewords, one latent for each patch of 8 × 8 pixels. It serves
notebook 07, so that there are good pictures before anything is trained.

**How it was made.** {training}

**Data.** The seven training photographs of `rvq_tutorial.data`, in crops of 64 × 64 pixels at several scales, turned,
mirrored, with their saturation, contrast and brightness changed; but for the last rounds, half of them with their
colour channels swapped.

**Measured** on the three held-out photographs, on which nothing was fitted; means over the photographs. *Plain* bits
per pixel count log2 256 = 8 bits an index, *file* counts all bytes that `rvq_tutorial.codec` writes.

| stages | plain | file | PSNR, dB | JPEG at that size | size / JPEG's at that PSNR | cut from 8 | codewords used |
|---|---|---|---|---|---|---|---|
{table}

The same model where every patch stops after as many stages as it needs, in files of at most so many bits per pixel
(`compress(photo, max_bytes=…)`):

| bits per pixel | PSNR, dB | JPEG | WebP | size / JPEG's at that PSNR | size / WebP's |
|---|---|---|---|---|---|
{budgets}

- From 1 to 8 stages it gains {gain:.2f} dB.
- With the quantizer bypassed it gives {gap:.2f} dB more than with 8 stages.
- The quantizer takes {share:.0%} of a training step (64 crops).
- With {threads} thread(s), 512 × 512 pixels take {encoding:.2f} s to indices and {decoding:.2f} s back.

JPEG is Pillow's, with optimized tables, at the best of all its qualities with and without coarser colour; WebP is
Pillow's with its most thorough method. Where no file of theirs is as small, their smallest counts. Bits per pixel at
which the model is better than a JPEG of the same size:

{wins}

At all others JPEG wins.

**Limits.** Seven photographs are few. Text, drawings and textures unlike theirs come out blurred, and no number of
stages gives a picture without loss.
"""
