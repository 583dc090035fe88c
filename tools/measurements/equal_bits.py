"""Twelve bits spent in five ways on Gaussian vectors, and 512 numbers in two: the error of each on held-out vectors.

For each seed, split and number of vectors to fit on: the held-out mean squared error per component. The data and the
random starts follow from the seed; what fits and measures is notebook 04's own code.
"""

import torch
from measure import notebook

FULL = {"seeds": [0, 1, 2, 3, 4], "vectors": [24_576, 196_608]}
SHORT = {"seeds": [0], "vectors": [24_576]}
TOLERANCE = 0.05

HELD_OUT = 50_000


def measure(seeds: list[int], vectors: list[int]) -> dict[str, dict[str, dict[str, float]]]:
    """Vectors to fit on → M × K → seed → the held-out mean squared error per component."""
    names = notebook("04_residual_vq")
    splits, fit_stages, residual_error = names["splits"], names["fit_stages"], names["residual_error"]
    errors = {str(n): {f"{m} × {size}": {} for m, size in [*splits, names["same_memory"]]} for n in vectors}
    for n in vectors:
        for seed in seeds:
            torch.manual_seed(seed)
            x, held_out = torch.randn(n, 4), torch.randn(HELD_OUT, 4)
            for m, size in [*splits, names["same_memory"]]:
                codebooks = fit_stages(x, codebook_size=size, num_quantizers=m)
                errors[str(n)][f"{m} × {size}"][str(seed)] = residual_error(held_out, codebooks)
    return errors
