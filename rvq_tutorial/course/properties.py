"""Properties of a patch that a person would name, and how much of them an index tells."""

from torch import Tensor

from rvq_tutorial.language import said
from rvq_tutorial.metrics import mse


def patch_properties(patches: Tensor) -> dict[str, Tensor]:
    """Five numbers that describe each patch (N, 3, h, w), by name: (N, 1) each."""
    if patches.ndim != 4 or patches.shape[1] != 3:
        raise ValueError(said("patches must be (N, 3, h, w), got shape {shape}", shape=tuple(patches.shape)))
    grey = patches.mean(1)
    left, right = grey.tensor_split(2, dim=2)
    top, bottom = grey.tensor_split(2, dim=1)
    properties = {
        "brightness": grey.mean((1, 2)),
        "warmth: red − blue": (patches[:, 0] - patches[:, 2]).mean((1, 2)),
        "slope: right − left": right.mean((1, 2)) - left.mean((1, 2)),
        "slope: bottom − top": bottom.mean((1, 2)) - top.mean((1, 2)),
        "texture: pixel to pixel": grey.diff(dim=1).abs().mean((1, 2)) + grey.diff(dim=2).abs().mean((1, 2)),
    }
    return {name: values[:, None] for name, values in properties.items()}


def explained_variance(values: Tensor, guess: Tensor) -> float:
    """Share of the variance of values (N, ...) that a guess of them explains: 1 if it is exact, 0 for their mean."""
    spread = mse(values, values.mean(0).expand_as(values))
    if not spread:
        raise ValueError(said("values must differ, got the same N times"))
    return 1 - mse(values, guess) / spread
