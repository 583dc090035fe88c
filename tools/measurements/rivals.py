"""PSNR of JPEG, WebP and AVIF on the held-out photos, each at its most thorough, against the size of the file.

Between two files PSNR is read off the straight line; below the smallest file there is nothing.
"""

import numpy as np

from rvq_tutorial.course import data, rivals

RATES = [0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0]  # bits per pixel
QUALITIES = {
    "JPEG": [*range(31), *range(32, 95, 3)],
    "WebP": [*range(0, 80, 2)],
    "AVIF": [0, 4, 9, 15, 22, 30, 38, 46, 54],
}
FULL = {"photos": ["chelsea", "coffee", "china"], "kinds": ["JPEG", "WebP", "AVIF"]}
SHORT = {"photos": ["chelsea"], "kinds": ["JPEG"]}
TOLERANCE = 0.02


def measure(photos: list[str], kinds: list[str]) -> dict:
    """photo → kind → bits per pixel → dB; the first is the smallest file."""
    held_out = data.photos().held_out

    def measured(photo: str, kind: str) -> dict[float, float]:
        rates, psnrs = zip(*rivals.points(held_out[photo], kind, QUALITIES[kind]), strict=True)
        within = [rate for rate in RATES if rates[0] < rate <= rates[-1]]
        return {round(rate, 5): float(np.interp(rate, rates, psnrs)) for rate in (rates[0], *within)}

    return {photo: {kind: measured(photo, kind) for kind in kinds} for photo in photos}
