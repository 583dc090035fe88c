"""The course's pictures: pure functions from arrays and numbers to a `Figure` that says what it shows."""

from rvq_tutorial.plots.curves import (
    ablation,
    bars,
    code_usage,
    codebook_memory,
    curve,
    gradient_check,
    lines,
    moved_crowd,
    operating_point,
    over_steps,
    quality,
    rate_distortion,
    scoreboard,
    staircase,
)
from rvq_tutorial.plots.diagrams import lookup_graph, loss_graph, residual_loop_graph
from rvq_tutorial.plots.figure import COLORS, CSS_DPI, MARKERS, PIXELS_PER_INCH, SERIES_COLORS, Figure, in_house_style
from rvq_tutorial.plots.photos import codeword_places, color_cube, patch_rows, photo_row
from rvq_tutorial.plots.plane import codeword_paths, gradient_field, residual_stages, sliding_cells, voronoi

__all__ = [
    "COLORS",
    "CSS_DPI",
    "MARKERS",
    "PIXELS_PER_INCH",
    "SERIES_COLORS",
    "Figure",
    "ablation",
    "bars",
    "code_usage",
    "codebook_memory",
    "codeword_paths",
    "codeword_places",
    "color_cube",
    "curve",
    "gradient_check",
    "gradient_field",
    "in_house_style",
    "lines",
    "lookup_graph",
    "loss_graph",
    "moved_crowd",
    "operating_point",
    "over_steps",
    "patch_rows",
    "photo_row",
    "quality",
    "rate_distortion",
    "residual_loop_graph",
    "residual_stages",
    "scoreboard",
    "sliding_cells",
    "staircase",
    "voronoi",
]
