"""Instant feedback on the exercises: each check tries a learner's answer and prints one line.

"✓ " it is right, "○ " it is not solved yet, "✗ " it is wrong, and what is wrong on which input. Nothing here raises.
A check is a function marked `@exercise`: it raises `Wrong` or `Unsolved`, or returns what to say of a right answer.
"""

from rvq_tutorial.check.codebook_collapse import (
    ema_step,
    perplexity,
    restarting_step,
    seen_in_batch,
    steps_until_restart,
)
from rvq_tutorial.check.codebooks import colours_needed, file_bits, move_codewords, nearest_colours, rescue_codewords
from rvq_tutorial.check.rate_distortion import beam_encode, best_ways, product_quantize, rate_and_bound, share_bits
from rvq_tutorial.check.residual_vq import best_split, cost, predicted_stages, residual_encode, residual_layer
from rvq_tutorial.check.rvq_vae import bits_per_pixel, decode_prefix, drop_stages, jpeg_wins_from, layers_within
from rvq_tutorial.check.vector_quantizer import beta_for, nearest_code, predicted_slopes, quantize_features, vq_losses
from rvq_tutorial.check.vqvae import alone, balanced_loss, reach, surprise

__all__ = [
    "alone",
    "balanced_loss",
    "beam_encode",
    "best_split",
    "best_ways",
    "beta_for",
    "bits_per_pixel",
    "colours_needed",
    "cost",
    "decode_prefix",
    "drop_stages",
    "ema_step",
    "file_bits",
    "jpeg_wins_from",
    "layers_within",
    "move_codewords",
    "nearest_code",
    "nearest_colours",
    "perplexity",
    "predicted_slopes",
    "predicted_stages",
    "product_quantize",
    "quantize_features",
    "rate_and_bound",
    "reach",
    "rescue_codewords",
    "residual_encode",
    "residual_layer",
    "restarting_step",
    "seen_in_batch",
    "share_bits",
    "steps_until_restart",
    "surprise",
    "vq_losses",
]
