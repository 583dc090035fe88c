"""Mean PSNR on the held-out photos: one model with quantizer dropout, one without it, one of a single stage.

All three are trained with cells of notebook 07, the first two with 8 stages. Each is measured while it is trained, from
the first 1, 2, 4 and 8 of its stages.
"""

import torch
from measure import notebook
from torch import Tensor

from rvq_tutorial import metrics
from rvq_tutorial.autoencoder import VQVAE
from rvq_tutorial.autoencoder.training import History, fit

STEPS = 600
FULL = {"seeds": [0, 1, 2, 3, 4], "checkpoints": [20, 75, 150, 300, 450, STEPS]}
SHORT = {"seeds": [0], "checkpoints": [20]}
TOLERANCE = 0.01

MODELS = {"dropout": (8, 1.0), "no dropout": (8, 0.0), "1 alone": (1, 0.0)}  # stages, dropout


def measure(seeds: list[int], checkpoints: list[int]) -> dict:
    """seed → model → number of stages → steps done → PSNR in dB.

    The learning rate is always that of a training of 600 steps, which ends at the last checkpoint.
    """
    names = notebook("07_rvq_vae")
    photos = list(names["photos"].held_out.values())

    def trained(seed: int, num_quantizers: int, quantize_dropout: float) -> dict[int, dict[int, float]]:
        torch.manual_seed(seed)
        model = names["autoencoder"](num_quantizers, quantize_dropout)
        found = {m: {} for m in (1, 2, 4, 8) if m <= num_quantizers}

        def look(history: History) -> None:
            if history.steps in checkpoints:
                for m, psnr in prefixes(model.eval(), photos, list(found)).items():
                    found[m][history.steps] = psnr
                model.train()
            if history.steps == checkpoints[-1] < STEPS:
                raise KeyboardInterrupt

        fit(model, names["crops"], steps=STEPS, seed=seed, on_step=look)
        return found

    return {seed: {name: trained(seed, *settings) for name, settings in MODELS.items()} for seed in seeds}


@torch.no_grad()
def prefixes(model: VQVAE, photos: list[Tensor], stages: list[int]) -> dict[int, float]:
    """Mean PSNR of the photos, encoded once, from each number of their stages."""
    encoded = [(photo, model.encode(photo[None])) for photo in photos]

    def psnr(photo: Tensor, indices: Tensor) -> float:
        height, width = photo.shape[1:]
        return metrics.psnr(model.decode(indices)[0, :, :height, :width].clamp(0, 1), photo)

    return {m: sum(psnr(photo, indices[..., :m]) for photo, indices in encoded) / len(photos) for m in stages}
