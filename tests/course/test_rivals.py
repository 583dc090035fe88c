"""The rivals' files: they decode to the photo's size, fit into the bytes allowed, and none better was passed over."""

import pytest
import torch

from rvq_tutorial import metrics
from rvq_tutorial.course import data, rivals

PHOTO = data.photos().held_out["chelsea"][:, 100:148, 150:222]
each_kind = pytest.mark.parametrize("kind", rivals.KINDS)


@each_kind
def test_a_file_decodes_to_the_photo_about(kind):
    file = rivals.encode(PHOTO, kind, 90, rivals.KINDS[kind][0])
    image = rivals.decode(file)
    assert image.shape == PHOTO.shape and image.dtype == torch.float32
    assert metrics.psnr(image, PHOTO) > 30


@each_kind
def test_the_best_file_fits_and_no_quality_does_better(kind):
    files = [rivals.encode(PHOTO, kind, quality, options) for quality in range(96) for options in rivals.KINDS[kind]]
    limit = sorted(map(len, files))[len(files) // 2]
    best = rivals.best_within(PHOTO, kind, limit)
    assert len(best) <= limit
    psnrs = [metrics.psnr(rivals.decode(file), PHOTO) for file in files if len(file) <= limit]
    assert (
        metrics.psnr(rivals.decode(best), PHOTO) > max(psnrs) - 0.4
    )  # of so small a photo sizes often fall where quality rises


@each_kind
def test_where_nothing_is_so_small_the_smallest_file_comes(kind):
    smallest = min((rivals.encode(PHOTO, kind, 0, options) for options in rivals.KINDS[kind]), key=len)
    assert rivals.best_within(PHOTO, kind, 10) == smallest


def test_points_rise_in_size_and_in_quality():
    points = rivals.points(PHOTO, "JPEG", range(0, 90, 7))
    rates, psnrs = zip(*points, strict=True)
    assert list(rates) == sorted(set(rates)) and list(psnrs) == sorted(set(psnrs)) and len(points) > 5
    file = rivals.encode(PHOTO, "JPEG", 84, rivals.JPEG[0])
    size = 8 * len(file) / PHOTO[0].numel()
    assert max(psnr for rate, psnr in points if rate <= size) >= metrics.psnr(rivals.decode(file), PHOTO)


def test_the_number_of_bytes_is_checked():
    with pytest.raises(ValueError, match="max_bytes must be a whole number ≥ 1, got 0"):
        rivals.best_within(PHOTO, "JPEG", 0)
