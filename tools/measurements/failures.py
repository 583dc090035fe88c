"""A VQ-VAE trained in five ways, three of which fail: what one would log, on held-out photos.

For each way that notebook 06 trains, each measure and each seed: the value at checkpoints. The codebook's start and the
batches follow from the seed.
"""

import torch
from measure import notebook

FULL = {"seeds": [0, 1, 2, 3, 4], "checkpoints": [20, 50, 100, 200, 300, 400]}
SHORT = {"seeds": [0], "checkpoints": [20]}
TOLERANCE = 0.05


def measure(seeds: list[int], checkpoints: list[int]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Way of training → measure → seed → its value at each checkpoint."""
    names = notebook("06_vqvae")
    found: dict[str, dict[str, dict[str, list[float]]]] = {way: {} for way in names["WAYS"]}
    for way, (settings, reconstruction_loss) in names["WAYS"].items():
        for seed in seeds:
            torch.manual_seed(seed)
            model = names["new_model"](**settings)

            def note(step: int, way: str = way, seed: int = seed, model: torch.nn.Module = model) -> None:
                if step in checkpoints:
                    for name, value in names["report"](model.eval()).items():
                        found[way].setdefault(name, {}).setdefault(str(seed), []).append(value)

            names["learn"](model, reconstruction_loss, checkpoints[-1], seed, note)
    return found
