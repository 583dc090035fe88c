"""What each weight of the loss does on the held-out photos: errors after a short training.

Autoencoders of 4 stages of 64 codewords are trained with a cell of notebook 07, one for each setting and seed.
"""

import torch
from measure import notebook

from rvq_tutorial import metrics
from rvq_tutorial.autoencoder import VQVAE

FULL = {"seeds": 5}
SHORT = {"seeds": 1}
TOLERANCE = 0.05

SETTINGS = {
    "all three, β = 0.25": {},
    "no commitment, β = 0": {"commitment_weight": 0.0},
    "much of it, β = 4": {"commitment_weight": 4.0},
    "no codebook loss": {"codebook": False},
    "no reconstruction": {"reconstruction_weight": 0.0},
}


def measure(seeds: int) -> dict:
    """setting → measure → one value a seed, each a mean over the held-out photos."""
    names = notebook("07_rvq_vae")
    photos = list(names["photos"].held_out.values())

    @torch.no_grad()
    def errors(model: VQVAE) -> dict[str, float]:
        found = {"error": 0.0, "from unrounded latents": 0.0, "lost by rounding": 0.0}
        for photo in photos:
            height, width = photo.shape[1:]
            latents = model.latents(photo[None])
            rounded = model.quantizer(latents).quantized
            for name, vectors in zip(found, (rounded, latents), strict=False):
                image = model.decoder(vectors)[0, :, :height, :width].clamp(0, 1)
                found[name] += metrics.mse(image, photo) / len(photos)
            found["lost by rounding"] += metrics.mse(rounded, latents) / len(photos)
        return found

    def measured(**setting: float) -> dict[str, list[float]]:
        rows = [errors(names["trained_with"](**setting, seed=seed)) for seed in range(seeds)]
        return {name: [row[name] for row in rows] for name in rows[0]}

    return {name: measured(**setting) for name, setting in SETTINGS.items()}
