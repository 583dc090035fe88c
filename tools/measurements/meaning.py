"""What a codeword's index tells of a held-out patch, while a VQ-VAE is trained for two different losses.

For each loss of notebook 06, each property of a patch and each seed: the share of the property's variance that the
index explains, before training (step 0) and at checkpoints. The k-means start and the batches follow from the seed.
"""

import torch
from measure import notebook

FULL = {"seeds": [0, 1, 2, 3, 4], "checkpoints": [0, 20, 100, 200, 300, 450, 600]}
SHORT = {"seeds": [0], "checkpoints": [0, 20]}
TOLERANCE = 0.05


def measure(seeds: list[int], checkpoints: list[int]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Loss → property → seed → the share explained at each checkpoint."""
    names = notebook("06_vqvae")
    losses = {"pixels": names["pixel_loss"], "detail": names["detail_loss"]}
    shares: dict[str, dict[str, dict[str, list[float]]]] = {loss: {} for loss in losses}
    for loss, reconstruction_loss in losses.items():
        for seed in seeds:
            torch.manual_seed(seed)
            model = names["new_model"]()

            def note(step: int, loss: str = loss, seed: int = seed, model: torch.nn.Module = model) -> None:
                if step in checkpoints:
                    for name, share in names["told"](model.eval()).items():
                        shares[loss].setdefault(name, {}).setdefault(str(seed), []).append(share)

            note(0)
            names["learn"](model, reconstruction_loss, checkpoints[-1], seed, note)
    return shares
