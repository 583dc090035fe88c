"""Wrong answers to the exercises of 01 · How few colours does a photo need?"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rvq_tutorial import kmeans, metrics, nearest

# Exercise → wrong answers, each with a regular expression for what its learner is told.
WRONG: dict[str, list[tuple[Any, str]]] = {}

WRONG["file_bits"] = [
    (lambda height, width, size: height * width * math.log2(size), "codebook is missing"),
    (lambda height, width, size: height * width * size + 24 * size, "isn't K bits"),
    (lambda height, width, size: 3 * height * width * math.log2(size) + 24 * size, "whole colour"),
    (lambda height, width, size: height * width * math.log2(size) + 8 * size, "takes 24 bits"),
    (lambda height, width, size: height * width * (math.log2(size) + 24), "sent once"),
    (lambda height, width, size: height * width * math.log2(size) + 3 * size, "3 bytes"),
    (lambda height, width, size: height * width * math.log2(size) + 24, "has K of them"),
    (lambda height, width, size: height * width * math.log(size) + 24 * size, "base 2"),
    (lambda height, width, size: (height * width * math.log2(size) + 24 * size) / 8, "bytes"),
    (lambda height, width, size: height * width * (math.log2(size) + 24 * size), "sent once"),
    (lambda height, width, size: (height * width + size) * math.log2(size), "indices name the pixels alone"),
    (lambda height, width, size: 24 * height * width + 24 * size, "the photo as it was"),
    (lambda height, width, size: height * width * size.bit_length() + 24 * size, "one binary digit more"),
    (lambda height, width, size: math.log2(size) + 24 * size / (height * width), "bits of one pixel"),
    (lambda height, width, size: 24 * size / (height * width * math.log2(size) + 24 * size), "the codebook takes"),
    (lambda height, width, size: height * width * math.log10(size) + 24 * size, "base 2"),
    (lambda height, width, size: 0, "should be 32384, and is 0"),
]

WRONG["nearest_colours"] = [
    (lambda pixels, codebook: torch.cdist(pixels, codebook).argmax(1), "farthest"),
    (lambda pixels, codebook: torch.cdist(pixels, codebook).argmin(0), "over the codewords"),
    (lambda pixels, codebook: (pixels[:, None] - codebook).sum(-1).argmin(1), "cancel"),
    (lambda pixels, codebook: (pixels[:, None] - codebook).sum(-1).abs().argmin(1), "brightness"),
    (lambda pixels, codebook: (pixels[:, None] - codebook).abs().sum(-1).argmin(1), "along the axes"),
    (lambda pixels, codebook: torch.cdist(pixels, codebook).square().amin(1), "take argmin"),
    (lambda pixels, codebook: (pixels[:, None] - codebook).square().sum(1).argmin(1), "the last axis"),
    (lambda pixels, codebook: (pixels[:, None] - codebook).square().sum(-1).min(1), "argmin gives the indices alone"),
    (lambda pixels, codebook: codebook[nearest(pixels, codebook)], "already decoded"),
    (lambda pixels, codebook: (pixels - codebook).square().sum(1).argmin(), "raises RuntimeError"),
    (lambda pixels, codebook: nearest(pixels, codebook)[:, None], "One axis is left over"),
    (lambda pixels, codebook: torch.cdist(pixels, codebook).argmin(), "without an axis"),
    (lambda pixels, codebook: (pixels @ codebook.T).argmax(-1), "bright codewords win"),
    (lambda pixels, codebook: (pixels[:, None] - codebook).abs().max(-1).values.argmin(1), "of a channel alone"),
    (
        lambda pixels, codebook: (pixels @ (codebook / codebook.norm(dim=1, keepdim=True)).T).argmax(1),
        "directions alone",
    ),
    (lambda pixels, codebook: torch.cdist(pixels[:, 1:2], codebook[:, 1:2]).argmin(1), "one channel alone"),
    (lambda pixels, codebook: (codebook.square().sum(1) - pixels @ codebook.T).argmin(1), "counts twice"),
    (lambda pixels, codebook: nearest(pixels, codebook) + 1, "start at 0"),
    (lambda pixels, codebook: (pixels[:, None] - codebook).square().argmin(1), "index of its own"),
]


def _moved(pixels: Tensor, indices: Tensor, codebook: Tensor) -> Tensor:
    rows = [pixels[indices == k].mean(0) for k in range(len(codebook))]
    return torch.stack(rows)


def _moved_in_place(pixels: Tensor, indices: Tensor, codebook: Tensor) -> Tensor:
    return codebook.copy_(_moved(pixels, indices, codebook))


def _pixel_by_pixel(indices: Tensor, pixels: Tensor, moved: Tensor, weight: float = 1.0) -> Tensor:
    for index, pixel in zip(indices.tolist(), pixels, strict=True):
        moved[index] += weight * (pixel - (weight < 1) * moved[index])
    return moved


def _all_at_once(indices: Tensor, pixels: Tensor, moved: Tensor) -> Tensor:
    moved[indices] += pixels
    return moved


def _summed_pixels(pixels: Tensor, indices: Tensor, codebook: Tensor) -> Tensor:
    return torch.stack([pixels[indices == k].sum(0) for k in range(len(codebook))])


WRONG["move_codewords"] = [
    (_summed_pixels, "These are sums"),
    (lambda pixels, indices, codebook: _summed_pixels(pixels, indices, codebook) / len(pixels), "number of all pixels"),
    (lambda pixels, indices, codebook: _summed_pixels(pixels, indices, codebook) / len(codebook), "divided by K"),
    (lambda pixels, indices, codebook: codebook + 0, "haven't moved"),
    (_moved_in_place, "changes codebook in place"),
    (
        lambda pixels, indices, codebook: torch.stack(
            [pixels[indices == k].median(0).values for k in range(len(codebook))]
        ),
        "medians",
    ),
    (
        lambda pixels, indices, codebook: torch.stack(
            [torch.cat([pixels[indices == k], codebook[[k]]]).mean(0) for k in range(len(codebook))]
        ),
        "averaged in",
    ),
    (
        lambda pixels, indices, codebook: torch.stack([pixels[indices == k].mean() for k in range(len(codebook))]),
        "one number for all components",
    ),
    (lambda pixels, indices, codebook: _pixel_by_pixel(indices, pixels, codebook.clone()), "start from zeros"),
    (
        lambda pixels, indices, codebook: (
            _pixel_by_pixel(indices, pixels, codebook.clone())
            / torch.bincount(indices, minlength=len(codebook)).unsqueeze(1)
        ),
        "start from zeros",
    ),
    (lambda pixels, indices, codebook: _pixel_by_pixel(indices, pixels, codebook.clone(), 0.5), "weigh most"),
    (lambda pixels, indices, codebook: _all_at_once(indices, pixels, torch.zeros_like(codebook)), "only one pixel"),
    (
        lambda pixels, indices, codebook: (
            _all_at_once(indices, pixels, codebook.clone()) / torch.bincount(indices, minlength=len(codebook))[:, None]
        ),
        "only one pixel",
    ),
    (lambda pixels, indices, codebook: pixels.mean(0).repeat(len(codebook), 1), "mean of all pixels"),
    (
        lambda pixels, indices, codebook: _summed_pixels(pixels, indices, codebook) / (len(pixels) / len(codebook)),
        "equally many pixels",
    ),
    (
        lambda pixels, indices, codebook: (
            _summed_pixels(pixels, indices, codebook) / (1 + torch.bincount(indices, minlength=len(codebook))[:, None])
        ),
        "one too large",
    ),
    (lambda pixels, indices, codebook: _moved(pixels, nearest(pixels, codebook), codebook), "assigned anew"),
    (lambda pixels, indices, codebook: codebook[indices], "This is decoding"),
]


def _rescued(
    pixels: Tensor, indices: Tensor, codebook: Tensor, places: Callable[[Tensor, Tensor, int], Tensor]
) -> Tensor:
    """Used codewords moved; the unused ones go to places(pixels, distances, how many)."""
    moved = _moved(pixels, indices, codebook)
    unused = moved.isnan().any(1)
    distances = (pixels - codebook[indices]).square().sum(1)
    moved[unused] = places(pixels, distances, int(unused.sum()))
    return moved


def _stay(pixels: Tensor, indices: Tensor, codebook: Tensor) -> Tensor:
    moved = _moved(pixels, indices, codebook)
    return torch.where(moved.isnan(), codebook, moved)


def _measured_after(pixels: Tensor, indices: Tensor, codebook: Tensor) -> Tensor:
    moved = _moved(pixels, indices, codebook)
    unused = moved.isnan().any(1)
    moved[unused] = pixels[(pixels - moved[indices]).square().sum(1).topk(int(unused.sum())).indices]
    return moved


def _single_is_unused(pixels: Tensor, indices: Tensor, codebook: Tensor) -> Tensor:
    moved = _moved(pixels, indices, codebook)
    unused = torch.bincount(indices, minlength=len(codebook)) <= 1
    distances = (pixels - codebook[indices]).square().sum(1)
    moved[unused] = pixels[distances.topk(int(unused.sum())).indices]
    return moved


def _used_stay(*inputs: Tensor) -> Tensor:
    indices, codebook = inputs[1:]
    rescued = _rescued(*inputs, lambda pixels, distances, num: pixels[distances.topk(num).indices])
    return rescued.index_copy(0, indices.unique(), codebook[indices.unique()])


def _by_badness(pixels: Tensor, indices: Tensor, codebook: Tensor, badness: Callable[[Tensor], Tensor]) -> Tensor:
    """The pixels that are worst by some other measure of their differences."""
    places = badness(pixels - codebook[indices])
    return _rescued(pixels, indices, codebook, lambda pixels, distances, num: pixels[places.topk(num).indices])


WRONG["rescue_codewords"] = [
    (_moved, "become NaN"),
    (_stay, "stay where they were"),
    (lambda pixels, indices, codebook: _moved(pixels, indices, codebook).nan_to_num(), "in black"),
    (lambda *inputs: _rescued(*inputs, lambda pixels, distances, num: pixels.mean(0)), "one of them is none"),
    (lambda *inputs: _rescued(*inputs, lambda pixels, distances, num: pixels[distances.argmax()]), "same pixel"),
    (
        lambda *inputs: _rescued(*inputs, lambda pixels, distances, num: pixels[distances.argsort()[:num]]),
        "served best",
    ),
    (lambda *inputs: _rescued(*inputs, lambda pixels, distances, num: pixels[:num]), "not those farthest"),
    (_measured_after, "before any codeword has moved"),
    (_single_is_unused, "with a single pixel is used, too"),
    (_used_stay, "Used codewords stay where they were"),
    (lambda *inputs: _by_badness(*inputs, lambda differences: differences.abs().sum(1)), "along the axes"),
    (lambda *inputs: _by_badness(*inputs, lambda differences: differences.sum(1)), "cancel"),
    (lambda *inputs: _by_badness(*inputs, lambda differences: differences.abs().amax(1)), "of a channel alone"),
    (lambda pixels, indices, codebook: _moved(pixels, indices, codebook)[indices.unique()], "Return a codebook"),
    (
        lambda *inputs: _rescued(*inputs, lambda pixels, d, num: pixels[d.topk(num).indices]) + 0.1,
        "the mean of a used codeword should be",
    ),
]


def _needed(
    photo: Tensor, target: float, pixels: Callable[[Tensor], Tensor] = lambda photo: photo.flatten(1).T
) -> int | None:
    """The smallest size that reaches the target; nothing where none does."""
    x = pixels(photo)
    for size in [2**bits for bits in range(9)]:
        book = kmeans(x, size, num_iters=10).centroids
        if metrics.psnr(x, book[nearest(x, book)]) >= target:
            return size


def _bits(photo: Tensor, target: float) -> int:
    return (_needed(photo, target) or 256).bit_length() - 1


def _first_or_256(photo: Tensor, target: float) -> int:
    return 1 if _needed(photo, target) == 1 else 256


def _any_number(photo: Tensor, target: float) -> int:
    """The smallest number of colours, a power of 2 or not."""
    x = photo.flatten(1).T
    for size in range(1, 257):
        book = kmeans(x, size, num_iters=2).centroids
        if metrics.psnr(x, book[nearest(x, book)]) >= target:
            return size
    return 256


WRONG["colours_needed"] = [
    (_first_or_256, "256 only after the loop"),
    (_any_number, "3 is none of the codebook sizes"),
    (_needed, "Where no size reaches the target, nothing is returned: it should be 256"),
    (lambda photo, target: _needed(photo, target, lambda photo: photo.reshape(-1, 3)), "mixes places and channels"),
    (lambda photo, target: (_needed(photo, target) or 512) // 2 or 1, "With 8 colours .* it takes 16"),
    (lambda photo, target: _needed(photo, target) or 512, "512 is returned: it should be 256"),
    (_bits, "0 are the bits"),
    (lambda photo, target: 1, "With 1 colours the PSNR is still below the target"),
    (lambda photo, target: 2 * (_needed(photo, target) or 128), "2 is enough, and not the smallest: 1"),
    (lambda photo, target: 256, "256 is for a photo that no size"),
    (lambda photo, target: target + 0.5, "40.5 is none of the codebook sizes"),
    (lambda photo, target: (_needed(photo, target), target), "Return one number"),
    (lambda photo, target: kmeans(photo, 4), "raises ValueError"),
]
