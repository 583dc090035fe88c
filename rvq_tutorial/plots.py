"""The course's pictures: pure functions from arrays and numbers to a `Figure` that says what it shows."""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.figure
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.collections import LineCollection
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from PIL import Image
from scipy.spatial import Voronoi
from torch import Tensor

from rvq_tutorial.arguments import check_vectors
from rvq_tutorial.metrics import psnr
from rvq_tutorial.search import nearest

# One meaning a colour, through the whole course: Okabe and Ito's palette, safe for colour-blind readers.
COLORS = {
    "data": "#56B4E9",
    "codeword": "#D55E00",
    "residual": "#009E73",
    "reconstruction": "#CC79A7",
    "train": "#0072B2",
    "held_out": "#E69F00",
    "bound": "#000000",
    "unused": "#A0A0A0",
}
MARKERS = {"codeword": "X", "reconstruction": "s", "held_out": "D"}  # all others: a dot
# For curves and bars without a meaning of their own: hues of Tol's muted palette that are not in COLORS.
SERIES_COLORS = ("#332288", "#882255", "#999933", "#117733")

CSS_DPI = 100  # one inch of a figure is 100 CSS pixels, so that 10 points are as large as a notebook's text
PIXELS_PER_INCH = 2 * CSS_DPI  # drawn at twice the size, to be crisp on dense screens

in_house_style = mpl.rc_context(
    {
        "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters everywhere
        "font.size": 10,
        "figure.titlesize": 11,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.labelsize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "axes.edgecolor": "#444444",
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.minor.width": 0.4,
        "ytick.minor.width": 0.4,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "legend.handlelength": 1.0,
        "legend.handletextpad": 0.4,
        "legend.markerscale": 1.3,
        "lines.linewidth": 1.8,
    }
)


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that shows itself in a notebook with an alternative text and a caption.

    width and height are in inches of 100 CSS pixels. No pyplot state knows it; Agg alone draws it.
    """

    def __init__(self, width: float, height: float, *, alt: str, caption: str):
        super().__init__((width, height), PIXELS_PER_INCH, facecolor="white", layout="constrained")
        FigureCanvasAgg(self)
        self.alt = alt
        self.caption = caption

    def png(self) -> bytes:
        """The picture as PNG, encoded for speed rather than size."""
        return _encode(self._pixels(), "PNG", compress_level=1)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        pixels = self._pixels()
        if not any(axes.images for axes in self.axes):  # a chart loses nothing in 256 colours; a photo would
            pixels = pixels.quantize(256, dither=Image.Dither.NONE).convert("RGB")
        # Lossless: JPEG would blur the edges of a photo's pixels, and PNG takes half as many bytes again.
        source = base64.b64encode(_encode(pixels, "WEBP", lossless=True)).decode()
        width, height = (round(inches * CSS_DPI) for inches in self.get_size_inches())
        picture = (
            f'<figure style="margin: 0; max-width: {max(width, 560)}px">'
            f'<img alt="{html.escape(self.alt)}" width="{width}" height="{height}" '
            f'src="data:image/webp;base64,{source}">'
            f"<figcaption>{html.escape(self.caption)}</figcaption></figure>"
        )
        return {"text/html": picture, "text/plain": self.alt}

    def _pixels(self) -> Image.Image:
        self.canvas.draw()
        return Image.fromarray(np.asarray(self.canvas.buffer_rgba())).convert("RGB")


def _encode(pixels: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    pixels.save(buffer, format=kind, **options)
    return buffer.getvalue()


# --- Points in the plane ---------------------------------------------------------------------------


@in_house_style
def voronoi(points: Tensor, codebook: Tensor, *, arrows: Tensor | None = None, title: str = "") -> Figure:
    """Points in the plane, codewords, and the cell of all that is nearest to each codeword.

    points: (N, 2). codebook: (K, 2). arrows: (N, 2), drawn from each point, in the units of the points.
    """
    points, codebook = _in_plane(points, "points"), _in_plane(codebook, "codebook")
    size, indices = len(codebook), nearest(points, codebook)
    used = _used(indices, size)
    error = (points - codebook[indices]).square().mean()
    figure = Figure(
        5.6,
        5.9,
        alt=f"{len(points)} points in the plane, {size} codewords and the borders of their cells.",
        caption=f"A point belongs to the codeword in whose cell it lies. {used.sum()} of the {size} codewords are "
        f"used; the mean squared error per dimension is {error:.3g}.",
    )
    axes = _place(figure, 0.6, 0.65, 4.9, 4.9)
    axes.set_title(title or f"K = {size}, log₂ K = {math.log2(size):.3g} bits a point")
    _draw_cells(axes, points, codebook)
    _draw_points(axes, points, "data", label="data")
    if arrows is not None:
        _draw_arrows(axes, points, _in_plane(arrows, "arrows"), "data")
    _draw_codewords(axes, codebook, used)
    figure.legend(loc="lower left", ncols=3)
    return figure


@in_house_style
def gradient_field(points: Tensor, codebook: Tensor, commitment_weight: float) -> Figure:
    """Where the two losses of a codebook (van den Oord et al., 2017, eq. 3) pull codewords and encoder outputs.

    points: the encoder's outputs z, (N, 2). codebook: (K, 2). The arrow of an output is commitment_weight *
    (codeword - z): its negative gradient, up to one constant. That of a codeword is the mean of (z - codeword)
    over its cell: its negative gradient divided by the number of outputs, up to the same constant.
    """
    points, codebook = _in_plane(points, "points"), _in_plane(codebook, "codebook")
    size, indices = len(codebook), nearest(points, codebook)
    used = _used(indices, size)
    pull = codebook[indices] - points
    counts = torch.bincount(indices, minlength=size).clamp(min=1)
    means = torch.zeros_like(codebook).index_add_(0, indices, -pull) / counts.unsqueeze(1)
    figure = Figure(
        5.6,
        6.3,
        alt=f"{len(points)} encoder outputs with arrows towards their codewords, and {size} codewords with "
        f"arrows to the mean of their cells, for a commitment weight of {commitment_weight:g}.",
        caption=f"The codebook loss pulls a codeword to the mean of its cell: {_mean_length(means[used]):.2g} away "
        f"on average; {(~used).sum()} of the {size} are unused and feel no pull. The commitment loss pulls an "
        f"output towards its codeword: by {commitment_weight * _mean_length(pull):.2g} on average, which is "
        f"β = {commitment_weight:g} times the distance.",
    )
    axes = _place(figure, 0.6, 1.05, 4.9, 4.9)
    axes.set_title(f"K = {size}, β = {commitment_weight:g}")
    _draw_cells(axes, points, codebook)
    _draw_points(axes, points, "data", label="encoder output, pulled by the commitment loss")
    _draw_arrows(axes, points, commitment_weight * pull, "data")
    _draw_codewords(axes, codebook, used, label="codeword, pulled by the codebook loss")
    _draw_arrows(axes, codebook[used], means[used], "codeword", width=0.006)
    figure.legend(loc="lower left")
    return figure


@in_house_style
def codeword_paths(points: Tensor, path: Tensor) -> Figure:
    """The way each codeword went through the plane, and the cells where they ended.

    points: (N, 2), on which the errors in the caption are measured. path: (T, K, 2), the codebook at T moments.
    """
    points = _in_plane(points, "points")
    path = torch.stack([_in_plane(codebook, "path") for codebook in path])
    start, end = path[0], path[-1]
    errors = [(points - codebook[nearest(points, codebook)]).square().mean() for codebook in (start, end)]
    indices, lengths = nearest(points, end), path.diff(dim=0).norm(dim=2).sum(0)
    used = _used(indices, len(end))
    still = (lengths < 1e-3 * (start.amax() - start.amin())).sum()
    figure = Figure(
        5.6,
        5.9,
        alt=f"{len(points)} points in the plane and the paths of {len(end)} codewords, from a random start to where "
        "the points are.",
        caption=f"From the small circles to the crosses: the mean squared error per dimension falls from "
        f"{errors[0]:.2g} to {errors[1]:.2g}. {still} of the {len(end)} codewords hardly moved; {(~used).sum()} are "
        "not used at the end.",
    )
    axes = _place(figure, 0.6, 0.65, 4.9, 4.9)
    axes.set_title(f"{len(end)} codewords on their way")
    _draw_cells(axes, torch.cat([points, start]), end)
    _draw_points(axes, points, "data", label="data")
    ways = path.transpose(0, 1).numpy()
    axes.add_collection(LineCollection(ways, colors=COLORS["codeword"], linewidths=1.2, zorder=3), autolim=False)
    axes.scatter(*start.numpy().T, s=16, facecolors="white", edgecolors=COLORS["codeword"], label="start", zorder=4)
    _draw_codewords(axes, end, used)
    figure.legend(loc="lower left", ncols=4)
    return figure


@in_house_style
def residual_stages(points: Tensor, codebooks: Tensor, num_quantizers: int) -> Figure:
    """What each stage of a residual quantizer receives, with its codewords, and what all of them rebuild.

    points: (N, 2). codebooks: (M, K, 2). The first num_quantizers of the M stages are used; the others stay
    empty, so that the picture keeps its size. Every stage is drawn at its own scale.
    """
    points = _in_plane(points, "points")
    codebooks = torch.stack([_in_plane(codebook, "codebooks") for codebook in codebooks])
    stages, size, _ = codebooks.shape
    if not 1 <= num_quantizers <= stages:
        raise ValueError(f"num_quantizers must be 1 to {stages}, as there are codebooks, got {num_quantizers}")
    residuals = _residuals(points, codebooks[:num_quantizers])
    errors = [residual.square().mean().item() for residual in residuals]
    rows, columns, title_height = math.ceil(stages / 4), min(stages, 4), 0.5
    side = (8.45 - (rows - 1) * title_height) / (rows + columns)  # a stage's share of the width, in inches
    whole = rows * (side + title_height) - title_height - 0.15
    figure = Figure(
        9.0,
        whole + 1.45,
        alt=f"{len(points)} points and their reconstruction from {num_quantizers} of {stages} stages with {size} "
        "codewords each; beside them, stage by stage, the residuals that come in and the stage's codewords.",
        caption="A stage quantizes what the stages before it left over, drawn at its own scale; rms is the root "
        f"of the mean square per dimension. That mean falls from {errors[0]:.2g} to {errors[1]:.2g} in one stage"
        + (f" and to {errors[-1]:.2g} in {num_quantizers}." if num_quantizers > 1 else "."),
    )
    bits = f"M log₂ K = {num_quantizers * math.log2(size):.3g} bits a point"
    figure.text(0.01, 0.98, f"stages M = {num_quantizers}, codewords K = {size}: {bits}", va="top", fontsize=11)
    _draw_rebuilt(_place(figure, 0.6, 0.65, whole, whole), points, residuals[-1])
    for stage in range(stages):
        left = 0.75 + whole + stage % columns * side
        bottom = 0.65 + (rows - 1 - stage // columns) * (side + title_height)
        _draw_stage(_place(figure, left, bottom, side - 0.15, side - 0.15), stage, residuals, codebooks[stage])
    handles = {label: h for a in figure.axes for h, label in zip(*a.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="lower left", ncols=5)
    return figure


def _residuals(points: Tensor, codebooks: Tensor) -> list[Tensor]:
    """What every stage receives and, last, what the last stage leaves."""
    residuals = [points]
    for codebook in codebooks:
        residuals.append(residuals[-1] - codebook[nearest(residuals[-1], codebook)])
    return residuals


def _draw_rebuilt(axes: Axes, points: Tensor, error: Tensor) -> None:
    axes.set_title(f"Rebuilt\nrms error {error.square().mean().sqrt():.2g}", fontsize=10)
    _frame(axes, points)
    _draw_points(axes, points, "data", label="data", area=14)
    _draw_points(axes, points - error, "reconstruction", label="reconstruction", area=10)


def _draw_stage(axes: Axes, stage: int, residuals: Sequence[Tensor], codebook: Tensor) -> None:
    if stage >= len(residuals) - 1:
        axes.set_title(f"Stage {stage + 1}\nnot used", fontsize=10, color=_ink(COLORS["unused"]))
        axes.spines[:].set_visible(False)
    else:
        residual, role = residuals[stage], "residual" if stage else "data"
        axes.set_title(f"Stage {stage + 1}\nrms {residual.square().mean().sqrt():.2g}", fontsize=10)
        _frame(axes, torch.cat([residual, codebook]))
        _draw_points(axes, residual, role, label=role, area=4)
        _draw_codewords(axes, codebook, _used(nearest(residual, codebook), len(codebook)), scale=0.3)
    axes.set(xticks=[], yticks=[])


def _place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches: they stay there whatever a slider changes, where a layout would move them."""
    figure.set_layout_engine("none")
    return figure.add_axes(np.array([left, bottom, width, height]) / np.tile(figure.get_size_inches(), 2))


def _in_plane(points: Tensor, name: str) -> Tensor:
    check_vectors(points, name)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"{name} must be in the plane, (N, 2), got shape {tuple(points.shape)}")
    return points.detach().cpu().float()


def _used(indices: Tensor, size: int) -> Tensor:
    return torch.bincount(indices, minlength=size) > 0


def _mean_length(vectors: Tensor) -> float:
    return vectors.norm(dim=1).mean().item()


def _frame(axes: Axes, points: Tensor) -> None:
    """Square limits around the points, the same unit on both axes."""
    low, high = (corner.numpy() for corner in points.aminmax(dim=0))
    (x, y), half = (low + high) / 2, max(0.55 * np.max(high - low), 1e-6)
    axes.set(aspect="equal", xlim=(x - half, x + half), ylim=(y - half, y + half))
    axes.locator_params(nbins=5)


def _draw_cells(axes: Axes, points: Tensor, codebook: Tensor) -> None:
    _frame(axes, torch.cat([points, codebook]))
    corners = codebook.double().numpy()
    # Four more, far outside, close every cell that can be seen.
    far = 1e3 * np.ptp(axes.get_xlim()) * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    diagram = Voronoi(np.concatenate([corners, corners.mean(0) + far]))
    borders = [diagram.vertices[ridge] for ridge in diagram.ridge_vertices if -1 not in ridge]
    axes.add_collection(LineCollection(borders, colors="#B0B0B0", linewidths=0.8, zorder=1), autolim=False)


def _draw_points(axes: Axes, points: Tensor, role: str, *, label: str, area: float = 9) -> None:
    style = {"color": COLORS[role], "marker": MARKERS.get(role, "o"), "alpha": 0.7, "linewidths": 0, "zorder": 2}
    axes.scatter(*points.numpy().T, s=area, label=label, **style)


def _draw_codewords(axes: Axes, codebook: Tensor, used: Tensor, *, label: str = "codeword", scale: float = 1.0) -> None:
    style = {"marker": MARKERS["codeword"], "edgecolors": "white", "linewidths": 0.6, "zorder": 4}
    area = scale * 320 / max(len(codebook), 16) ** 0.5
    axes.scatter(*codebook[used].numpy().T, s=area, color=COLORS["codeword"], label=label, **style)
    if not used.all():
        axes.scatter(*codebook[~used].numpy().T, s=area, color=COLORS["unused"], label="unused codeword", **style)


def _draw_arrows(axes: Axes, starts: Tensor, arrows: Tensor, role: str, *, width: float = 0.0025) -> None:
    in_data_units = {"angles": "xy", "scale_units": "xy", "scale": 1}
    ends = (*starts.numpy().T, *arrows.numpy().T)
    axes.quiver(*ends, width=width, color=_ink(COLORS[role]), zorder=3, **in_data_units)


# --- Curves and bars -------------------------------------------------------------------------------


@in_house_style
def curve(
    history: Mapping[str, Sequence[float]], *, ylabel: str = "loss", log: bool = False, smooth: int = 1, title: str = ""
) -> Figure:
    """Training curves: each of history's lists of numbers against the step, labelled at its end.

    smooth: draw the mean over so many steps, and behind it, faint, the numbers themselves.
    """
    raw = {name: np.asarray(values, float) for name, values in history.items() if len(values)}
    if not raw:
        raise ValueError("history must hold at least one value, got none")
    steps = max(map(len, raw.values()))
    smooth = min(smooth, steps)
    history = {name: np.convolve(y, np.full(smooth, 1 / smooth), "valid") for name, y in raw.items()}
    changes = [f"{_plain(name)} goes from {y[0]:.3g} to {y[-1]:.3g}" for name, y in history.items()]
    means = f" The line is the mean over {smooth} steps." if smooth > 1 else ""
    figure = Figure(
        8.0,
        3.4,
        alt=f"Curves of {', '.join(map(_plain, history))} over {steps} steps.",
        caption=f"From step 1 to {steps}, {'; '.join(changes)}.{means}",
    )
    axes = figure.subplots()
    axes.set(title=title, xlabel="step", ylabel=ylabel, yscale="log" if log else "linear")
    lines = {}
    for rank, (name, y) in enumerate(history.items()):
        style = _series_style(name, rank)
        if smooth > 1:
            axes.plot(np.arange(1, len(raw[name]) + 1), raw[name], color=style["color"], linewidth=0.5, alpha=0.35)
        lines[name] = axes.plot(np.arange(smooth, smooth + len(y)), y, **style, markevery=[-1])[0]
    axes.xaxis.get_major_locator().set_params(integer=True)
    _label_ends(axes, lines)
    return figure


@in_house_style
def rate_distortion(
    curves: Mapping[str, tuple[Sequence[float], Sequence]],
    *,
    bound: tuple[Sequence[float], Sequence[float]] | None = None,
    title: str = "",
) -> Figure:
    """Mean squared error against bits, both per dimension, with error bars where there are several seeds.

    curves: name -> (rates (R,), errors (R,) or (seeds, R)). bound: (rates, errors) of Shannon's bound.
    """
    curves = {name: (np.asarray(rates), np.atleast_2d(errors)) for name, (rates, errors) in curves.items()}
    ends = [
        f"{_plain(name)} reaches {errors[:, -1].mean():.2g} at {rates[-1]:.3g} bits"
        for name, (rates, errors) in curves.items()
    ]
    if bound:
        ends.append(f"Shannon's bound reaches {bound[1][-1]:.2g} at {bound[0][-1]:.3g} bits")
    figure = Figure(
        8.0,
        4.4,
        alt=f"Mean squared error against bits per dimension for {', '.join(map(_plain, curves))}.",
        caption=f"Lower is better, and the error's scale is logarithmic: {'; '.join(ends)}.",
    )
    axes = figure.subplots()
    axes.set(title=title, xlabel="bits per dimension", ylabel="mean squared error per dimension")
    axes.set_yscale("log")
    lines = {}
    for rank, (name, (rates, errors)) in enumerate(curves.items()):
        deviation = errors.std(0) if len(errors) > 1 else None
        style = _series_style(name, rank) | {"capsize": 3, "elinewidth": 1.2}
        lines[name] = axes.errorbar(rates, errors.mean(0), deviation, **style).lines[0]
    if bound:
        lines["Shannon's bound"] = axes.plot(*bound, "--", color=COLORS["bound"], linewidth=1.2)[0]
    _label_ends(axes, lines)
    return figure


@in_house_style
def quality(curves: Mapping[str, tuple[Sequence[float], Sequence]], *, title: str = "") -> Figure:
    """PSNR against bits per pixel, with error bars where there are several seeds.

    curves: name -> (bits per pixel (R,), PSNRs in dB, (R,) or (seeds, R)).
    """
    curves = {name: (np.asarray(bits), np.atleast_2d(levels)) for name, (bits, levels) in curves.items()}
    ends = [f"{_plain(name)} {y[:, -1].mean():.1f} dB at {bits[-1]:.3g}" for name, (bits, y) in curves.items()]
    figure = Figure(
        8.0,
        3.8,
        alt=f"PSNR against bits per pixel for {', '.join(map(_plain, curves))}.",
        caption=f"Higher is better. At the most bits per pixel: {'; '.join(ends)}.",
    )
    axes = figure.subplots()
    axes.set(title=title, xlabel="bits per pixel", ylabel="PSNR (dB)")
    lines = {}
    for rank, (name, (bits, levels)) in enumerate(curves.items()):
        deviation = levels.std(0) if len(levels) > 1 else None
        style = _series_style(name, rank) | {"capsize": 3, "elinewidth": 1.2}
        lines[name] = axes.errorbar(bits, levels.mean(0), deviation, **style).lines[0]
    _label_ends(axes, lines)
    return figure


@in_house_style
def bars(values: Mapping[str, float | Sequence[float]], *, label: str, title: str = "") -> Figure:
    """One bar a name; where a name has several values, one a seed, their mean and standard deviation."""
    values = {name: np.atleast_1d(v).astype(float) for name, v in values.items()}
    texts = {n: f"{v.mean():.3g}" + (f" ± {v.std():.2g}" if len(v) > 1 else "") for n, v in values.items()}
    spoken = f"{label}: {'; '.join(f'{_plain(name)} {text}' for name, text in texts.items())}."
    spread = " After ± and as a whisker, the standard deviation." if any(len(v) > 1 for v in values.values()) else ""
    caption = spoken[0].upper() + spoken[1:] + spread
    figure = Figure(8.0, 0.9 + 0.38 * len(values), alt=f"Bars of {spoken}", caption=caption)
    axes = figure.subplots()
    axes.set(title=title, xlabel=label)
    for rank, (name, v) in enumerate(values.items()):
        axes.barh(_plain(name), v.mean(), color=COLORS.get(name, SERIES_COLORS[0]), height=0.62)
        if len(v) > 1:
            axes.errorbar(v.mean(), rank, xerr=v.std(), color="#222222", elinewidth=1.2, capsize=3)
        end = (max(v.mean() + v.std(), 0), rank)
        axes.annotate(texts[name], end, (6, 0), textcoords="offset points", va="center_baseline")
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0, labelsize=10)
    return figure


@in_house_style
def code_usage(counts: Tensor, *, title: str = "") -> Figure:
    """How often each codeword was chosen, most used first, beside uniform use.

    counts: (K,). The perplexity is 2 to the entropy, in bits, of how often each is chosen.
    """
    if counts.ndim != 1 or not counts.sum() > 0:
        raise ValueError(f"counts must be (K,) and not all zero, got shape {tuple(counts.shape)}")
    share = counts.detach().cpu().double().sort(descending=True).values / counts.sum().item()
    size, unused = len(share), int((share == 0).sum())
    perplexity = torch.special.entr(share).sum().exp().item()
    figure = Figure(
        8.0,
        3.2,
        alt=f"Bars of how often each of {size} codewords is chosen, most used first.",
        caption=f"Perplexity {perplexity:.3g} of at most {size}; {unused} codewords are never chosen. The most "
        f"used takes {share[0]:.2%} of the vectors; at uniform use it would be {1 / size:.2%}.",
    )
    axes = figure.subplots()
    axes.set(title=title or f"Perplexity {perplexity:.3g} of {size}", xlabel="codeword, most used first")
    axes.set_ylabel("share of the vectors")
    axes.stairs(share.numpy(), np.arange(size + 1) + 0.5, fill=True, color=COLORS["codeword"])
    uniform = axes.plot([0.5, size + 0.5], [1 / size] * 2, "--", color=COLORS["bound"], linewidth=1.0)[0]
    axes.xaxis.get_major_locator().set_params(integer=True)
    _label_ends(axes, {"uniform use": uniform})
    return figure


@in_house_style
def staircase(codebook: Tensor, target: float, x: float | None = None) -> Figure:
    """A lookup among numbers, and the loss (x̂ − target)² behind it; with x also what straight-through takes them for.

    codebook: (K,). Straight-through takes x̂ for x + a constant, the one that is right at the given x.
    """
    codebook = codebook.detach().cpu().double().flatten()
    low, high = codebook.min().item() - 0.75, codebook.max().item() + 0.75
    grid = torch.linspace(low, high, 2001).double()
    steps = codebook[nearest(grid[:, None], codebook[:, None])]
    jumps = steps.diff().nonzero().flatten() + 1
    steps[jumps] = torch.nan  # there is nothing between the steps
    alt = f"Left, the lookup among {len(codebook)} numbers: a staircase. Right, the squared error behind it, in steps."
    caption = "Left, what the lookup gives for x; right, the loss behind it. Both are flat, slope 0, except at "
    caption += f"{len(jumps)} jumps."
    if x is not None:
        chosen = codebook[(codebook - x).abs().argmin()].item()
        alt += f" Dashed, through x = {x:g}: a line of slope 1 and a parabola."
        caption = (
            f"At x = {x:g} the lookup gives {chosen:g}, and so does everything near by: both slopes are 0. What is "
            f"pretended is x̂ = x + ({chosen - x:.2g}), the dashed line, of slope 1. So the loss (x̂ − {target:g})² "
            f"seems to have slope 2 ({chosen:g} − {target:g}) = {2 * (chosen - target):.2g}."
        )
    figure = Figure(8.0, 4.0, alt=alt, caption=caption.replace("-", "−"))
    for i, (name, of) in enumerate({"x̂": lambda y: y, "loss": lambda y: (y - target) ** 2}.items()):
        axes = _place(figure, 0.65 + 4.05 * i, 0.95, 3.2, 2.8)
        axes.set(title=name, xlabel="x", xlim=(low, high), ylim=((low, high), (-0.15, (high - low) ** 2 / 3))[i])
        axes.plot(grid, of(steps), color=COLORS["codeword"], solid_capstyle="butt", label="the lookup")
        if x is not None:
            style = {"color": COLORS["codeword"], "markeredgecolor": "white", "markersize": 11, "zorder": 4}
            axes.plot(x, of(chosen), MARKERS["codeword"], **style)
            pretended = of(grid + chosen - x)
            axes.plot(grid, pretended, "--", color=SERIES_COLORS[0], linewidth=1.4, label="what is pretended")
    figure.legend(*axes.get_legend_handles_labels(), loc="lower left", ncols=2)
    return figure


@in_house_style
def gradient_check(autograd: Tensor, differences: Mapping[str, Tensor]) -> Figure:
    """Slopes measured by finite differences against those that autograd gives: where both agree, on the diagonal.

    autograd: a gradient, of any shape. differences: name -> slopes of the same shape.
    """
    autograd = autograd.detach().cpu().double().flatten().numpy()
    differences = {name: d.detach().cpu().double().flatten().numpy() for name, d in differences.items()}
    far = {name: np.abs(slopes - autograd).max() for name, slopes in differences.items()}
    figure = Figure(
        8.0,
        4.0,
        alt=f"Finite differences of {', '.join(map(_plain, differences))} against autograd's gradient.",
        caption="On the diagonal both agree. Largest distance from it: "
        + "; ".join(f"{_plain(name)} {distance:.2g}" for name, distance in far.items())
        + ".",
    )
    axes = figure.subplots()
    axes.set(xlabel="autograd", ylabel="finite differences")
    axes.axline((0, 0), slope=1, color=COLORS["bound"], linewidth=0.8, linestyle=":")
    for rank, (name, slopes) in enumerate(differences.items()):
        style = _series_style(name, rank) | {"markersize": 7, "alpha": 0.8, "linestyle": "none"}
        axes.plot(autograd, slopes, label=_plain(name), **style)
    axes.legend()
    return figure


@in_house_style
def lines(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
    log_x: bool = False,
    title: str = "",
) -> Figure:
    """Named curves over the same values of x, marked where they were measured.

    x: (R,), rising. curves: name -> (R,). log_x: a scale of powers of two.
    """
    changes = [f"{_plain(name)} goes from {y[0]:.3g} to {y[-1]:.3g}" for name, y in curves.items()]
    figure = Figure(
        8.0,
        3.4,
        alt=f"{ylabel} against {xlabel} for {', '.join(map(_plain, curves))}.",
        caption=f"{xlabel[0].upper()}{xlabel[1:]}, from {x[0]:g} to {x[-1]:g}: {'; '.join(changes)}.",
    )
    axes = figure.subplots()
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if log_x:
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [f"{value:g}" for value in x])
    drawn = {name: axes.plot(x, y, **_series_style(name, rank))[0] for rank, (name, y) in enumerate(curves.items())}
    axes.set_ylim(bottom=0)
    _label_ends(axes, drawn)
    return figure


@in_house_style
def codebook_memory(dim: int, codebook_sizes: Sequence[int], *, max_bits: int = 64) -> Figure:
    """Bytes that one codebook takes for so many bits a vector, in float32, and those of stages of K codewords.

    codebook_sizes: the sizes K, one curve each, with a mark for every stage.
    """
    rates = np.arange(1, max_bits + 1)
    curves = {"one codebook": (rates, 4.0 * dim * 2.0**rates)}
    for size in codebook_sizes:
        stages = np.arange(1, int(max_bits / math.log2(size)) + 1)
        curves[f"stages of {size}"] = (stages * math.log2(size), 4.0 * dim * size * stages)
    ends = [f"{_plain(name)} {_bytes(memory[-1])}" for name, (_, memory) in curves.items()]
    figure = Figure(
        8.0,
        3.8,
        alt=f"Memory against bits a vector for one codebook and for stages of {', '.join(map(str, codebook_sizes))}.",
        caption=f"Vectors of {dim} components; a mark is a stage. At the right end: {'; '.join(ends)}.",
    )
    axes = figure.subplots()
    axes.set(xlabel="bits a vector", ylabel="memory", yscale="log")
    powers = range(3, 22, 3)
    axes.set_yticks([10.0**power for power in powers], [_bytes(10.0**power) for power in powers])
    axes.minorticks_off()
    drawn = {}
    for rank, (name, (bits, memory)) in enumerate(curves.items()):
        style = _series_style(name, rank) | ({"marker": ""} if rank == 0 else {})
        drawn[name] = axes.plot(bits, memory, **style)[0]
    _label_ends(axes, drawn)
    return figure


def _bytes(count: float) -> str:
    """A number of bytes with the unit that keeps it below a thousand: 98304 is 98.3 kB."""
    power = min(int(math.log10(count) // 3), 7)
    return f"{count / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB', 'ZB')[power]}"


@in_house_style
def ablation(results: Mapping[tuple[str, ...], Mapping[str, Sequence[float]]], *, title: str = "") -> Figure:
    """One row for each set of parts that were switched on, one column of bars for each measure.

    results: parts -> measure -> one value a seed; every row has the same measures. A bar is the mean, its whisker the
    standard deviation over the seeds, a dot one seed.
    """
    parts = list(dict.fromkeys(part for row in results for part in row))
    measures = list(next(iter(results.values())))
    seeds = len(next(iter(results.values()))[measures[0]])
    spoken = [
        f"{' and '.join(row) or 'none'}: " + ", ".join(f"{m} {np.mean(v):.2g}" for m, v in measured.items())
        for row, measured in results.items()
    ]
    figure = Figure(
        9.0,
        1.35 + 0.36 * len(results),
        alt=f"Bars of {', '.join(measures)} for each combination of {', '.join(parts)}. {'; '.join(spoken)}.",
        caption=f"Each row is a combination: a filled circle is a repair that is switched on. Bars are means over "
        f"{seeds} seeds, whiskers standard deviations, dots single seeds.",
    )
    figure.suptitle(title, x=0.01, ha="left")
    matrix, *panels = figure.subplots(1, 1 + len(measures), sharey=True, width_ratios=[1.1, *[1.5] * len(measures)])
    ranks = np.arange(len(results))
    for column, part in enumerate(parts):
        on = np.array([part in row for row in results])
        matrix.scatter(np.full(on.sum(), column), ranks[on], s=70, color=COLORS["bound"])
        matrix.scatter(np.full((~on).sum(), column), ranks[~on], s=70, color="white", edgecolors="#B0B0B0")
    matrix.set(xlim=(-0.6, len(parts) - 0.4), ylim=(len(results) - 0.5, -0.5), yticks=[])
    matrix.set_xticks(range(len(parts)), [part.replace(" ", "\n") for part in parts])
    matrix.tick_params(length=0)
    matrix.spines[:].set_visible(False)
    for panel, measure in zip(panels, measures, strict=True):
        values = np.array([measured[measure] for measured in results.values()], float)
        mean, deviation = values.mean(1), values.std(1)
        panel.barh(ranks, mean, height=0.62, color=SERIES_COLORS[0], alpha=0.35)
        panel.errorbar(mean, ranks, xerr=deviation, fmt="none", ecolor="#222222", elinewidth=1.2, capsize=3)
        panel.scatter(values, np.broadcast_to(ranks[:, None], values.shape), s=7, color=SERIES_COLORS[0], zorder=3)
        panel.set_xlim(left=0)
        panel.set(xlabel=measure)
        panel.tick_params(axis="y", length=0)
    return figure


@in_house_style
def scoreboard(rows: Mapping[str, Mapping[str, float | Sequence[float]]], *, title: str = "") -> Figure:
    """One row for each quantizer, one column of dots for each measure, on logarithmic scales: left is better.

    rows: quantizer -> measure -> a positive number, or one for each seed; every row has the same measures. A dot is
    the mean over the seeds, its whisker the standard deviation.
    """
    measures = list(next(iter(rows.values())))
    best = {m: min(rows, key=lambda name: np.mean(rows[name][m])) for m in measures}
    spoken = [
        f"{name}: " + ", ".join(f"{m} {_short(np.mean(v))}" for m, v in measured.items())
        for name, measured in rows.items()
    ]
    figure = Figure(
        9.0,
        1.15 + 0.38 * len(rows),
        alt=f"Dots of {', '.join(measures)} for each quantizer. {'; '.join(spoken)}.",
        caption="Left is better, all scales are logarithmic. The best: "
        + "; ".join(f"{m}, {name} ({_short(np.mean(rows[name][m]))})" for m, name in best.items())
        + ".",
    )
    figure.suptitle(title, x=0.01, ha="left")
    ranks = np.arange(len(rows))
    for column, (axes, measure) in enumerate(
        zip(figure.subplots(1, len(measures), sharey=True), measures, strict=True)
    ):
        values = [np.atleast_1d(measured[measure]).astype(float) for measured in rows.values()]
        mean, deviation = np.array([v.mean() for v in values]), np.array([v.std() for v in values])
        low, high = mean.min(), mean.max()
        room = (high / low) ** 0.5 * 1.2
        axes.set(xscale="log", xlim=(low / room**0.3, high * room), xlabel=measure, xticks=[])
        axes.minorticks_off()
        axes.hlines(ranks, low / room**0.3, mean, color="#D0D0D0", linewidth=1.0)
        style = {"color": SERIES_COLORS[column % 4], "elinewidth": 1.2, "capsize": 3, "markersize": 6}
        axes.errorbar(mean, ranks, xerr=deviation, fmt="o", **style)
        for rank, (m, d) in enumerate(zip(mean, deviation, strict=True)):
            axes.annotate(_short(m), (m + d, rank), (7, 0), textcoords="offset points", va="center_baseline")
        axes.tick_params(axis="y", length=0, labelsize=10)
    axes.set_yticks(ranks, [_plain(name) for name in rows])
    axes.invert_yaxis()
    return figure


def _short(value: float) -> str:
    """A number as it is said: 16,384 or 0.0285."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@in_house_style
def operating_point(
    measured: Mapping[tuple[int, int], Sequence[float]],
    dim: int,
    num_quantizers: int,
    codebook_size: int,
    beam_size: int,
) -> Figure:
    """One choice of quantizers, codebook size and beam among all that were measured, against Shannon's bound.

    measured: (codebook size, beam size) -> mean squared errors per dimension after 1, 2, … stages, at variance 1.
    """
    stages = 1 + np.arange(max(map(len, measured.values())))
    error = measured[codebook_size, beam_size][num_quantizers - 1]
    rate = num_quantizers * math.log2(codebook_size) / dim
    above, wasted = 10 * math.log10(error * 4**rate), rate + math.log2(error) / 2
    numbers = num_quantizers * codebook_size * dim
    widths = [min(beam_size, codebook_size**m) for m in range(num_quantizers)]
    figure = Figure(
        8.0,
        4.4,
        alt="Mean squared error against bits, both per dimension: the chosen quantizer, all others, Shannon's bound.",
        caption=f"{rate:.3g} bits per dimension, mean squared error {error:.3g}: {above:.1f} dB above Shannon's bound, "
        f"which asks for {wasted:.2f} bits less. Stored: {numbers:,} numbers; a vector takes "
        f"{codebook_size * dim * sum(widths):,} multiply–adds. Pale: all other choices.",
    )
    axes = figure.subplots()
    axes.set(title=f"M = {num_quantizers}, K = {codebook_size}, beam {beam_size}", yscale="log")
    axes.set(xlabel="bits per dimension", ylabel="mean squared error per dimension")
    rates = np.linspace(0, stages[-1] * math.log2(max(size for size, _ in measured)) / dim, 2)
    bound = axes.plot(rates, 4.0**-rates, "--", color=COLORS["bound"], linewidth=1.2)[0]
    for (size, _), errors in measured.items():
        axes.plot(stages * math.log2(size) / dim, errors, ".", color=COLORS["unused"], alpha=0.6, markersize=5)
    path = measured[codebook_size, beam_size][:num_quantizers]
    color = SERIES_COLORS[0]
    chosen = axes.plot(stages[:num_quantizers] * math.log2(codebook_size) / dim, path, "o-", color=color)[0]
    axes.plot([rate, rate], [4.0**-rate, error], ":", color=color, linewidth=1.4)
    axes.plot(rate, error, "o", color=color, markersize=11, markeredgecolor="white")
    axes.legend([chosen, bound], ["the choice, stage by stage", "Shannon's bound"], loc="lower left")
    return figure


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _ink(color: str) -> tuple[float, ...]:
    """The colour, dark enough to read as text on white."""
    return tuple(0.62 * channel for channel in mpl.colors.to_rgb(color))


def _series_style(name: str, rank: int) -> dict[str, object]:
    if name in COLORS:
        return {"color": COLORS[name], "marker": MARKERS.get(name, "o"), "markersize": 5}
    return {"color": SERIES_COLORS[rank % 4], "marker": "^v<>"[rank % 4], "markersize": 5}


def _label_ends(axes: Axes, lines: Mapping[str, Line2D]) -> None:
    """Write each line's name to the right of the axes, at the height of its end, never over another name."""
    axes.margins(x=0.01)
    axes.autoscale_view()  # or the limits would be settled later, by drawing
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = {name: to_axes.transform(line.get_xydata()[-1])[1] for name, line in lines.items()}
    order = sorted(heights, key=heights.get)
    line_height = 0.22 / (axes.figure.get_size_inches()[1] - 0.9)
    for name, height in zip(order, _spread([heights[n] for n in order], line_height), strict=True):
        color = _ink(lines[name].get_color())
        axes.text(1.015, height, _plain(name), transform=axes.transAxes, va="center_baseline", color=color)


def _spread(heights: Sequence[float], gap: float) -> np.ndarray:
    """Rising heights, moved to be at least a gap apart and, where there is room, to stay within [0, 1]."""
    steps = gap * np.arange(len(heights))
    lifted = np.maximum.accumulate(np.asarray(heights) - steps)
    return np.clip(lifted, 0, max(1 - steps[-1], 0)) + steps


# --- Photos ----------------------------------------------------------------------------------------


@in_house_style
def color_cube(photo: Tensor, codebook: Tensor | None = None) -> Figure:
    """A photo beside its pixels as points in the cube of all colours; with a codebook, the photo rebuilt from it.

    photo: (3, H, W) in [0, 1]. codebook: (K, 3), drawn as a palette under the photo, from dark to light, and as
    crosses in the cube. The cube shows at most 1,200 pixels, spread evenly over the photo.
    """
    if photo.ndim != 3 or len(photo) != 3:
        raise ValueError(f"photo must be (3, H, W), got shape {tuple(photo.shape)}")
    shown = photo = photo.detach().cpu().float()
    height, width = photo.shape[1:]
    pixels = photo.flatten(1).T
    kind, words = "A photo", f"{height} × {width} pixels, {len(pixels.unique(dim=0)):,} different colours"
    more = "Each dot is a pixel in its own colour; all greys lie on the line from black to white."
    if codebook is not None:
        codebook = codebook.detach().cpu().float()
        size, indices = len(codebook), nearest(pixels, codebook)
        used, shown = _used(indices, size).numpy(), codebook[indices].T.unflatten(1, (height, width))
        bits = f"{math.log2(size):.3g} bit" + "s" * (size != 2)
        kind, words = "A rebuilt photo, its palette", f"K = {size}: {bits} per pixel, PSNR {psnr(photo, shown):.1f} dB"
        more = f"Crosses are codewords in their own colours, hollow if no pixel uses them: {(~used).sum()} of {size}."
    # In inches, and so that a pixel of the photo is a square of whole screen pixels.
    wide, high = np.array([width, height]) * max(1, min(960 // width, 720 // height)) / PIXELS_PER_INCH
    top = max(high + 0.85, 3.9)
    alt = f"{kind} and its pixels in the cube of all colours. {words}."
    figure = Figure(wide + 4.0, top, alt=alt, caption=f"{words}. {more}")
    axes = _place(figure, 0, top - high - 0.3, wide, high)
    axes.set_title(words, fontsize=10, pad=4)
    _draw_pixels(axes, shown)
    cube = _place(figure, wide + 0.2, top - 3.85, 3.8, 3.8)
    _draw_cube(cube, pixels[:: math.ceil(len(pixels) / 1200)])
    if codebook is not None:
        darkest_first = codebook[codebook.sum(1).argsort()]
        _draw_pixels(_place(figure, 0, top - high - 0.75, wide, 0.38), darkest_first.T[:, None])
        _draw_own_colors(cube, codebook.numpy(), used)
    return figure


# Where one who looks down on the magenta corner sees red, green and blue: to the right, up, and towards the eye.
VIEW = np.array([[0.848, 0.530, 0.0], [-0.216, 0.345, 0.914], [0.484, -0.775, 0.407]])


def _draw_cube(axes: Axes, pixels: Tensor) -> None:
    outline = {"black": (0, 0, 0), "red": (1, 0, 0), "yellow": (1, 1, 0), "white": (1, 1, 1), "cyan": (0, 1, 1)}
    outline["blue"] = (0, 0, 1)
    corners = np.array(list(outline.values())) @ VIEW[:2].T
    near, far = VIEW[:2] @ [1, 0, 1], VIEW[:2] @ [0, 1, 0]
    axes.fill(*corners.T, facecolor="#E8E8E8", edgecolor="#B0B0B0", linewidth=0.8, zorder=1)
    inner = [(near, corners[i]) for i in (1, 3, 5)] + [(far, corners[i]) for i in (0, 2, 4)]
    axes.add_collection(LineCollection(inner, colors="#B0B0B0", linewidths=0.8, linestyles=["-"] * 3 + [":"] * 3))
    for name, corner, way in zip(outline, corners, corners - corners.mean(0), strict=True):
        place = {"ha": "left" if way[0] > 0 else "right", "va": "bottom" if way[1] > 0 else "top"}
        axes.text(*(corner + 0.04 * way), name, fontsize=9, color="#444444", **place)
    right, up, near = VIEW @ pixels.T.numpy()
    order = near.argsort()  # what is near covers what is behind
    axes.scatter(right[order], up[order], s=7, c=pixels.clamp(0, 1).numpy()[order], linewidths=0, zorder=2)
    axes.set(aspect="equal", xlim=(-0.25, 1.65), ylim=(-0.42, 1.48))
    axes.set_axis_off()


def _draw_own_colors(axes: Axes, codebook: np.ndarray, used: np.ndarray) -> None:
    style = {"s": 360 / max(len(codebook), 8) ** 0.4, "marker": MARKERS["codeword"], "linewidths": 0.9, "zorder": 4}
    places = codebook @ VIEW[:2].T
    axes.scatter(*places[used].T, c=codebook[used].clip(0, 1), edgecolors="white", **style)
    axes.scatter(*places[~used].T, c="none", edgecolors="black", **style)


def _draw_pixels(axes: Axes, pixels: Tensor) -> None:
    axes.imshow(pixels.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest", aspect="auto")
    axes.set_axis_off()


@in_house_style
def photo_row(images: Tensor, titles: Sequence[str], *, caption: str = "") -> Figure:
    """Photos beside each other, each pixel a square of whole screen pixels, with a title above each.

    images: (n, 3, H, W) in [0, 1]. titles: n strings of one or more lines. What does not fit gets a new row.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not len(images) == len(titles) > 0:
        raise ValueError(f"images must be (n, 3, H, W) with n titles, got {tuple(images.shape)} and {len(titles)}")
    spoken = "; ".join(" ".join(title.split()) for title in titles)
    # In screen pixels: a photo is at least 350 wide, a row at most 1800, rows are as long as each other.
    count, _, height, width = images.shape
    gap = 24
    scale = max((1800 // count - gap) // width, math.ceil(350 / width))
    cell_width = max(scale * width, *map(_text_width, titles)) + gap
    cell_height = scale * height + 10 + 36 * max(len(title.splitlines()) for title in titles) + gap
    rows = math.ceil(count / max(1800 // cell_width, 1))
    columns = math.ceil(count / rows)
    inches = np.array([columns * cell_width, rows * cell_height, width * scale, height * scale]) / PIXELS_PER_INCH
    figure = Figure(*inches[:2], alt=f"Photos side by side: {spoken}.", caption=caption or f"{spoken}.")
    pixels = images.detach().cpu().float().clamp(0, 1).permute(0, 2, 3, 1).numpy()
    for i, (photo, title) in enumerate(zip(pixels, titles, strict=True)):
        corner = np.array([i % columns * cell_width, (rows - 1 - i // columns) * cell_height + gap])
        axes = _place(figure, *corner / PIXELS_PER_INCH, *inches[2:])
        axes.imshow(photo, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        axes.set_title(title, fontsize=10, pad=4)
    return figure


def _text_width(text: str) -> int:
    """Width of the widest line, at 10 points, in screen pixels."""
    measure, font = RendererAgg(1, 1, PIXELS_PER_INCH).get_text_width_height_descent, FontProperties(size=10)
    return math.ceil(max(measure(line, font, ismath=False)[0] for line in text.splitlines()))


@in_house_style
def patch_rows(rows: Mapping[str, Tensor], *, caption: str) -> Figure:
    """Rows of small pictures, each row with a name, each pixel a square of whole screen pixels.

    rows: name -> (n, 3, h, w) in [0, 1]; all pictures have the same size, a row may be shorter than the first.
    """
    first = next(iter(rows.values()))
    if any(patches.shape[1:] != first.shape[1:] or len(patches) > len(first) for patches in rows.values()):
        raise ValueError(f"rows must hold at most {len(first)} pictures of shape {tuple(first.shape[1:])} each")
    count, _, height, width = first.shape
    gap, left = 8, max(map(_text_width, rows)) + 20  # in screen pixels, as all that follows
    scale = max(1, min((1780 - left) // count // width, 1150 // len(rows) // height, 14) - 1)
    cell_width, cell_height = scale * width + gap, max(scale * height + gap, 40)
    inches = np.array([left + count * cell_width, len(rows) * cell_height + gap]) / PIXELS_PER_INCH
    spoken = ", ".join(rows) if len(rows) <= 4 else f"{next(iter(rows))} to {list(rows)[-1]}"
    figure = Figure(
        *inches, alt=f"{len(rows)} rows of pictures of {height} × {width} pixels: {spoken}.", caption=caption
    )
    for row, (name, patches) in enumerate(rows.items()):
        bottom = (len(rows) - 1 - row) * cell_height + gap
        framed = F.pad(_enlarged(patches, scale), (0, gap), value=1.0)
        strip = torch.cat(list(framed), dim=2)
        place = np.array([left, bottom, strip.shape[2], strip.shape[1]]) / PIXELS_PER_INCH
        axes = _place(figure, *place)
        _draw_pixels(axes, strip)
        axes.text(-16, strip.shape[1] / 2, name, ha="right", va="center_baseline")
    return figure


@in_house_style
def codeword_places(photo: Tensor, indices: Tensor, index: int, patch: Tensor) -> Figure:
    """One codeword as the decoder draws it, and a photo that keeps its colours only where that codeword was chosen.

    photo: (3, H, W) in [0, 1]. indices: (h, w), one for each patch. patch: (3, s, s), the decoded codeword.
    """
    size = patch.shape[-1]
    height, width = photo.shape[1:]
    if indices.ndim != 2 or indices.shape[0] * size < height or indices.shape[1] * size < width:
        raise ValueError(f"indices must cover the photo, got {tuple(indices.shape)} for {height} × {width} pixels")
    chosen = indices == index
    here = _enlarged(chosen[None, None], size)[0, :, :height, :width]
    faded = 0.72 + 0.2 * photo.mean(0, keepdim=True)
    share = chosen.double().mean().item()
    scale = max(1, 1100 // width)
    side = 320 // size * size
    inches = np.array([side + width * scale + 60, max(height * scale, side) + 50]) / PIXELS_PER_INCH
    figure = Figure(
        *inches,
        alt=f"Left, codeword {index}, decoded alone. Right, a photo, faded but for the patches with that index.",
        caption=f"Codeword {index}, decoded alone, and where it stands in the photo: at {chosen.sum()} of "
        f"{chosen.numel():,} places, {share:.1%}.",
    )
    top = inches[1] - 50 / PIXELS_PER_INCH
    for left, shown, times, name in (
        (0, patch, side // size, f"codeword {index}"),
        (side + 60, torch.where(here, photo, faded), scale, f"{chosen.sum()} places"),
    ):
        wide, high = np.array([shown.shape[2], shown.shape[1]]) * times / PIXELS_PER_INCH
        axes = _place(figure, left / PIXELS_PER_INCH, top - high, wide, high)
        axes.set_title(name, fontsize=10, pad=4)
        _draw_pixels(axes, shown)
    border = size * _border(chosen.cpu().numpy()) - 0.5
    axes.add_collection(LineCollection(border, colors=COLORS["codeword"], linewidths=0.9), autolim=False)
    return figure


def _border(mask: np.ndarray) -> np.ndarray:
    """The edges between True and False in a grid, or around it: (n, 2 ends, 2), in cells to the right and down."""
    padded = np.pad(mask, 1)
    upright = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])[:, None, ::-1] + np.array([[0, 0], [0, 1]])
    level = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])[:, None, ::-1] + np.array([[0, 0], [1, 0]])
    return np.concatenate([upright, level])


def _enlarged(images: Tensor, scale: int) -> Tensor:
    """(n, C, H, W) → each pixel repeated scale × scale times."""
    return images.detach().cpu().repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
