"""Instant feedback on the exercises: each check tries a learner's answer and prints one line.

"✓ " it is right, "○ " it is not solved yet, "✗ " it is wrong, and what is wrong on which input. Nothing here raises but
`check.<name>.grade(answer)`, for teachers: an AssertionError with the mistake's name unless the answer is right.
A check is a function marked `@exercise`: it raises `Wrong` or `Unsolved`, or returns what to say of a right answer.
What it says stands by name in the `.ini` beside its module.
"""

from rvq_tutorial.course.check import (
    codebook_collapse,
    codebooks,
    judging,
    rate_distortion,
    residual_vq,
    rvq_vae,
    vector_quantizer,
    vqvae,
)
from rvq_tutorial.course.check.codebook_collapse import (
    ema_step,
    perplexity,
    restarting_step,
    seen_in_batch,
    steps_until_restart,
)
from rvq_tutorial.course.check.codebooks import (
    colours_needed,
    file_bits,
    move_codewords,
    nearest_colours,
    rescue_codewords,
)
from rvq_tutorial.course.check.rate_distortion import (
    beam_encode,
    best_ways,
    product_quantize,
    rate_and_bound,
    share_bits,
)
from rvq_tutorial.course.check.residual_vq import best_split, cost, predicted_stages, residual_encode, residual_layer
from rvq_tutorial.course.check.rvq_vae import (
    bits_given_left,
    decode_prefix,
    drop_stages,
    jpeg_wins_from,
    stages_at_price,
)
from rvq_tutorial.course.check.solved import Map
from rvq_tutorial.course.check.vector_quantizer import (
    beta_for,
    nearest_code,
    predicted_slopes,
    quantize_features,
    vq_losses,
)
from rvq_tutorial.course.check.vqvae import alone, balanced_loss, reach, surprise
from rvq_tutorial.language import later, said

__all__ = [
    "alone",
    "balanced_loss",
    "beam_encode",
    "best_split",
    "best_ways",
    "beta_for",
    "bits_given_left",
    "colours_needed",
    "cost",
    "decode_prefix",
    "drop_stages",
    "ema_step",
    "file_bits",
    "jpeg_wins_from",
    "move_codewords",
    "nearest_code",
    "nearest_colours",
    "perplexity",
    "predicted_slopes",
    "predicted_stages",
    "product_quantize",
    "progress",
    "quantize_features",
    "rate_and_bound",
    "reach",
    "rescue_codewords",
    "residual_encode",
    "residual_layer",
    "restarting_step",
    "seen_in_batch",
    "share_bits",
    "stages_at_price",
    "steps_until_restart",
    "surprise",
    "vq_losses",
]

COURSE = {
    later("01 · How few colours does a photo need?"): codebooks,
    later("02 · How does a lookup learn?"): vector_quantizer,
    later("03 · Why do most codewords die?"): codebook_collapse,
    later("04 · Why many small codebooks, not one big one?"): residual_vq,
    later("05 · How close to the limit are we?"): rate_distortion,
    later("06 · What do codes of an image mean?"): vqvae,
    later("07 · One model, every bitrate?"): rvq_vae,
}


def progress() -> Map:
    """The map of the course: which exercises a check has accepted, in this folder."""
    return Map({said(title): judging.exercises[module.__name__] for title, module in COURSE.items()})
