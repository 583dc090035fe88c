"""JPEG, WebP and AVIF as Pillow writes them: what a codec of one's own is compared with, by PSNR."""

import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rvq_tutorial import metrics
from rvq_tutorial.arguments import check_whole

Options = Mapping[str, Any]  # of Pillow's `save`

JPEG = [{"optimize": True, "progressive": p, "subsampling": s} for p in (False, True) for s in ("4:4:4", "4:2:0")]
WEBP = [{"method": 6}]  # its most thorough
# At 4:4:4 and tuned to PSNR, the AVIF of a photo has the highest PSNR of its size.
AVIF = [{"subsampling": "4:4:4", "advanced": {"tune": "psnr"}, "max_threads": 1}]
KINDS: dict[str, list[Options]] = {"JPEG": JPEG, "WebP": WEBP, "AVIF": AVIF}
MOST_THOROUGH = {"AVIF": {"speed": 0}}  # a photo takes half a minute and more; by default AVIF's speed is Pillow's own


def encode(photo: Tensor, kind: str, quality: int, options: Options) -> bytes:
    """A file of the photo (3, H, W) in [0, 1]."""
    picture = Image.fromarray((255 * photo).round().byte().permute(1, 2, 0).numpy())
    file = io.BytesIO()
    picture.save(file, kind, quality=quality, **options)
    return file.getvalue()


def decode(file: bytes) -> Tensor:
    """The photo (3, H, W), values in [0, 1], in a file of any kind that Pillow reads."""
    pixels = np.array(Image.open(io.BytesIO(file)).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255


def best_within(photo: Tensor, kind: str, max_bytes: int) -> bytes:
    """The file of the highest PSNR, over all options and qualities, that has at most so many bytes.

    Where none is so small, the smallest. The highest quality that fits is found by halving, as if sizes rose with every
    step of quality; a few times they don't, and a file a tenth of a decibel better may be passed over.
    """
    check_whole(max_bytes, "max_bytes")
    found = [_largest_within(photo, kind, options, max_bytes) for options in KINDS[kind]]
    fitting = [file for file in found if len(file) <= max_bytes]
    if not fitting:
        return min(found, key=len)
    return max(fitting, key=lambda file: metrics.psnr(decode(file), photo))


def _largest_within(photo: Tensor, kind: str, options: Options, max_bytes: int) -> bytes:
    low, high = 0, 95
    smallest = best = encode(photo, kind, low, options)
    if len(smallest) > max_bytes:
        return smallest
    while low < high:
        middle = (low + high + 1) // 2
        file = encode(photo, kind, middle, options)
        best, low, high = (file, middle, high) if len(file) <= max_bytes else (best, low, middle - 1)
    return best


def points(photo: Tensor, kind: str, qualities: Iterable[int]) -> list[tuple[float, float]]:
    """(bits per pixel, PSNR) of the files that no other beats in both, small to large, at the most thorough."""
    found = []
    for quality in qualities:
        for options in KINDS[kind]:
            file = encode(photo, kind, quality, {**options, **MOST_THOROUGH.get(kind, {})})
            found.append((8 * len(file) / photo[0].numel(), metrics.psnr(decode(file), photo)))
    best: list[tuple[float, float]] = []
    for rate, psnr in sorted(found, key=lambda point: (point[0], -point[1])):
        if not best or psnr > best[-1][1]:
            best.append((rate, psnr))
    return best
