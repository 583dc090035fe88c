"""Points in the plane: cells, codewords, residuals, and what pulls at them."""

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from torch import Tensor

from rvq_tutorial.arguments import check_range, check_vectors
from rvq_tutorial.course.plots.figure import COLORS, MARKERS, Figure, in_house_style, ink, named, place
from rvq_tutorial.language import later, said
from rvq_tutorial.search import nearest


@in_house_style
def voronoi(points: Tensor, codebook: Tensor, *, arrows: Tensor | None = None, title: str = "") -> Figure:
    """Points in the plane, codewords, and the cell of all that is nearest to each codeword.

    points: (N, 2). codebook: (K, 2). arrows: (N, 2), drawn from each point, in the units of the points.
    """
    points, codebook = _in_plane(points, "points"), _in_plane(codebook, "codebook")
    size, indices = len(codebook), nearest(points, codebook)
    used = used_codewords(indices, size)
    error = (points - codebook[indices]).square().mean()
    figure = Figure(
        5.6,
        5.9,
        alt=said("{points} points in the plane, {fullness}.", points=len(points), fullness=_fullness(indices, size)),
        caption=said(
            "A point belongs to the codeword in whose cell it lies. {used} of the {size} codewords are used; the mean "
            "squared error per dimension is {error:.3g}.",
            used=used.sum(),
            size=size,
            error=error,
        ),
    )
    axes = place(figure, 0.6, 0.65, 4.9, 4.9)
    axes.set_title(title or said("K = {size}, log₂ K = {bits:.3g} bits a point", size=size, bits=math.log2(size)))
    _draw_cells(axes, points, codebook)
    _draw_points(axes, points, "data", label=said("data"))
    if arrows is not None:
        _draw_arrows(axes, points, _in_plane(arrows, "arrows"), "data")
    _draw_codewords(axes, codebook, used)
    figure.legend(loc="lower left", ncols=3)
    return figure


@in_house_style
def cells_side_by_side(points: Tensor, codebooks: Mapping[str, Tensor]) -> Figure:
    """The same points in the cells of several codebooks, one beside the other, each under its name.

    points: (N, 2). codebooks: (K, 2) each; K may differ.
    """
    points = _in_plane(points, "points")
    errors = {name: (points - book[nearest(points, book)]).square().mean() for name, book in codebooks.items()}
    told = said(", ").join(f"{named(name)} {error:.3g}" for name, error in errors.items())
    fullnesses = said("; ").join(
        said("{name}: {values}", name=named(name), values=_fullness(nearest(points, book), len(book)))
        for name, book in codebooks.items()
    )
    side = 7.8 / len(codebooks)
    figure = Figure(
        7.8,
        side + 0.35,
        alt=said(
            "The same {points} points in the cells of {number} codebooks. {fullnesses}.",
            points=len(points),
            number=len(codebooks),
            fullnesses=fullnesses,
        ),
        caption=said("Mean squared error per dimension: {errors}.", errors=told),
    )
    for i, (name, codebook) in enumerate(codebooks.items()):
        axes = place(figure, i * side + 0.45, 0.6, side - 0.55, side - 0.55)
        axes.set_title(named(name))
        _draw_cells(axes, points, codebook)
        _frame(axes, torch.cat([points, *codebooks.values()]))
        _draw_points(axes, points, "data", label=said("data"))
        _draw_codewords(axes, codebook, used_codewords(nearest(points, codebook), len(codebook)))
    known = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(known.values(), known.keys(), loc="lower left", ncols=3)
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
    used = used_codewords(indices, size)
    pull = codebook[indices] - points
    counts = torch.bincount(indices, minlength=size).clamp(min=1)
    means = torch.zeros_like(codebook).index_add_(0, indices, -pull) / counts.unsqueeze(1)
    longest = [arrows.norm(dim=1).max() for arrows in (commitment_weight * pull, means[used])]
    figure = Figure(
        5.6,
        6.3,
        alt=said(
            "Each of {points} encoder outputs has an arrow towards its codeword, at most {pull:.2g} long, and each of "
            "{used} codewords has one to the mean of its cell, at most {away:.2g} long.",
            points=len(points),
            pull=longest[0],
            used=used.sum(),
            away=longest[1],
        ),
        caption=said(
            "The codebook loss pulls a codeword to the mean of its cell: {away:.2g} away on average; {unused} of the "
            "{size} are unused and feel no pull. The commitment loss pulls an output towards its codeword: by "
            "{pull:.2g} on average, which is β = {commitment_weight:g} times the distance.",
            away=_mean_length(means[used]),
            unused=(~used).sum(),
            size=size,
            pull=commitment_weight * _mean_length(pull),
            commitment_weight=commitment_weight,
        ),
    )
    axes = place(figure, 0.6, 1.05, 4.9, 4.9)
    axes.set_title(f"K = {size}, β = {commitment_weight:g}")
    _draw_cells(axes, points, codebook)
    _draw_points(axes, points, "data", label=said("encoder output, pulled by the commitment loss"))
    _draw_arrows(axes, points, commitment_weight * pull, "data")
    _draw_codewords(axes, codebook, used, label=said("codeword, pulled by the codebook loss"))
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
    used = used_codewords(indices, len(end))
    still = (lengths < 1e-3 * (start.amax() - start.amin())).sum()
    figure = Figure(
        5.6,
        5.9,
        alt=said(
            "The ways of {size} codewords among {points} points, from a random start. The longest way is "
            "{longest:.2g} long, the middle one {middle:.2g}.",
            size=len(end),
            points=len(points),
            longest=lengths.max(),
            middle=lengths.median(),
        ),
        caption=said(
            "From the small circles to the crosses: the mean squared error per dimension falls from {first:.2g} to "
            "{last:.2g}. {still} of the {size} codewords hardly moved; {unused} are not used at the end.",
            first=errors[0],
            last=errors[1],
            still=still,
            size=len(end),
            unused=(~used).sum(),
        ),
    )
    axes = place(figure, 0.6, 0.65, 4.9, 4.9)
    axes.set_title(said("{size} codewords on their way", size=len(end)))
    _draw_cells(axes, torch.cat([points, start]), end)
    _draw_points(axes, points, "data", label=said("data"))
    ways = path.transpose(0, 1).numpy()
    axes.add_collection(LineCollection(ways, colors=COLORS["codeword"], linewidths=1.2, zorder=3), autolim=False)
    axes.scatter(
        *start.numpy().T, s=16, facecolors="white", edgecolors=COLORS["codeword"], label=said("start"), zorder=4
    )
    _draw_codewords(axes, end, used)
    figure.legend(loc="lower left", ncols=4)
    return figure


@in_house_style
def sliding_cells(points: Tensor, codebook: Tensor, share: float) -> Figure:
    """The cells of a codebook, slid towards the origin by a share of their codewords' places: at 1 all lie there.

    points: (N, 2). codebook: (K, 2). Each point moves with its codeword and ends, at share 1, as its residual.
    """
    check_range(share, "share", 0, 1)
    points, codebook = _in_plane(points, "points"), _in_plane(codebook, "codebook")
    size, indices = len(codebook), nearest(points, codebook)
    moved, places = points - share * codebook[indices], (1 - share) * codebook
    spread = [around.square().mean().sqrt().item() for around in (points, moved)]
    if share == 0:
        sentence = later("{points} points around {size} codewords, each cell in its own tint and place.")
    elif share < 1:
        sentence = later("{size} cells of points, a tint each, that overlap more the nearer they come to the origin.")
    else:
        sentence = later("{size} cells of points lie on top of each other around the origin, their tints mixed.")
    if share < 1:
        caption = said(
            "The codewords have gone {share:.0%} of the way to the origin, and each took its cell along.", share=share
        )
    else:
        caption = said(
            "All {size} codewords lie at the origin, and around them the residuals. The root of their mean square per "
            "dimension is {residuals:.2g}; that of the points was {points:.2g}.",
            size=size,
            residuals=spread[1],
            points=spread[0],
        )
    figure = Figure(
        5.6,
        5.9,
        alt=said(sentence, points=len(points), size=size),
        caption=caption,
    )
    axes = place(figure, 0.6, 0.65, 4.9, 4.9)
    ends = {0: said("The cells as they lie"), 1: said("The residuals, x − c")}
    axes.set_title(ends.get(share, f"x − {share:.1f} c"))
    _frame(axes, torch.cat([points, codebook, torch.zeros(1, 2)]))
    for start, stop in zip(codebook.tolist(), places.tolist(), strict=True):
        axes.plot(*zip(start, stop, strict=True), color="#C8C8C8", linewidth=0.8, zorder=1)
    tints = mpl.colormaps["viridis"](np.linspace(0, 0.92, size))[_around_the_middle(codebook)]
    axes.scatter(*moved.numpy().T, s=9, c=tints[indices.numpy()], linewidths=0, zorder=2)
    _draw_codewords(axes, places, used_codewords(indices, size))
    figure.legend(loc="lower left")
    return figure


def _around_the_middle(codebook: Tensor) -> np.ndarray:
    """The rank of each codeword by its direction from the middle: neighbours get neighbouring tints."""
    x, y = (codebook - codebook.mean(0)).numpy().T
    return np.arctan2(y, x).argsort().argsort()


@in_house_style
def codebook_moments(points: Tensor, moments: Mapping[str, Tensor], index: int, *, caption: str) -> Figure:
    """The same codebook at several moments, side by side, with one of its codewords marked.

    points: (N, 2). moments: title -> the codebook, (K, 2). index: the codeword that is followed; an arrow leads to it
    from where it stood a moment before.
    """
    points = _in_plane(points, "points")
    moments = {title: _in_plane(codebook, "moments") for title, codebook in moments.items()}
    everything = torch.cat([points, *moments.values()])
    places = said("; ").join(
        said("{title}, at {x:.2g}, {y:.2g}", title=said(title), x=x, y=y)
        for title, (x, y) in ((title, codebook[index].tolist()) for title, codebook in moments.items())
    )
    figure = Figure(
        8.9,
        3.7,
        alt=said(
            "Where the ringed codeword stands among {points} points: {places}.", points=len(points), places=places
        ),
        caption=caption,
    )
    before = None
    for axes, (title, codebook) in zip(figure.subplots(1, len(moments), sharey=True), moments.items(), strict=True):
        axes.set_title(said(title))
        _frame(axes, everything)
        _draw_points(axes, points, "data", label=said("vector of the batch"))
        _draw_codewords(axes, codebook, used_codewords(nearest(points, codebook), len(codebook)))
        ring = {"s": 200, "facecolors": "none", "edgecolors": COLORS["bound"], "linewidths": 1.4, "zorder": 5}
        axes.scatter(*codebook[index].numpy(), **ring)
        if before is not None:
            bow = {"arrowstyle": "-|>", "connectionstyle": "arc3,rad=0.25", "shrinkB": 8, "linewidth": 1.2}
            axes.annotate("", codebook[index].numpy(), before.numpy(), arrowprops=bow, zorder=5)
        before = codebook[index]
    handles = {label: handle for a in figure.axes for handle, label in zip(*a.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
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
        raise ValueError(
            said(
                "num_quantizers must be 1 to {stages}, as there are codebooks, got {num_quantizers}",
                stages=stages,
                num_quantizers=num_quantizers,
            )
        )
    residuals = _residuals(points, codebooks[:num_quantizers])
    errors = [residual.square().mean().item() for residual in residuals]
    roots = [f"{error**0.5:.2g}" for error in errors]
    rows, columns, title_height = math.ceil(stages / 4), min(stages, 4), 0.5
    side = (8.45 - (rows - 1) * title_height) / (rows + columns)  # a stage's share of the width, in inches
    caption = said(
        "A stage quantizes what the stages before it left over, drawn at its own scale; rms is the root of the mean "
        "square per dimension. That mean falls from {first:.2g} to {second:.2g} in one stage.",
        first=errors[0],
        second=errors[1],
    )
    if num_quantizers > 1:
        caption = said(
            "A stage quantizes what the stages before it left over, drawn at its own scale; rms is the root of the "
            "mean square per dimension. That mean falls from {first:.2g} to {second:.2g} in one stage and to "
            "{last:.2g} in {num_quantizers}.",
            first=errors[0],
            second=errors[1],
            last=errors[-1],
            num_quantizers=num_quantizers,
        )
    whole = rows * (side + title_height) - title_height - 0.15
    figure = Figure(
        9.0,
        whole + 1.45,
        alt=said(
            "{points} points, and upon them what {num_quantizers} of {stages} stages rebuild, off by an rms of {last}. "
            "What comes into the stages shrinks: rms {roots}.",
            points=len(points),
            num_quantizers=num_quantizers,
            stages=stages,
            last=roots[-1],
            roots=said(", ").join(roots[:-1]),
        ),
        caption=caption,
    )
    title = said(
        "stages M = {num_quantizers}, codewords K = {size}: M log₂ K = {bits:.3g} bits a point",
        num_quantizers=num_quantizers,
        size=size,
        bits=num_quantizers * math.log2(size),
    )
    figure.text(0.01, 0.98, title, va="top", fontsize=11)
    _draw_rebuilt(place(figure, 0.6, 0.65, whole, whole), points, residuals[-1])
    for stage in range(stages):
        left = 0.75 + whole + stage % columns * side
        bottom = 0.65 + (rows - 1 - stage // columns) * (side + title_height)
        _draw_stage(place(figure, left, bottom, side - 0.15, side - 0.15), stage, residuals, codebooks[stage])
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
    axes.set_title(said("Rebuilt\nrms error {rms:.2g}", rms=error.square().mean().sqrt()), fontsize=10)
    _frame(axes, points)
    _draw_points(axes, points, "data", label=said("data"), area=14)
    _draw_points(axes, points - error, "reconstruction", label=said("reconstruction"), area=10)


def _draw_stage(axes: Axes, stage: int, residuals: Sequence[Tensor], codebook: Tensor) -> None:
    if stage >= len(residuals) - 1:
        axes.set_title(said("Stage {stage}\nnot used", stage=stage + 1), fontsize=10, color=ink(COLORS["unused"]))
        axes.spines[:].set_visible(False)
    else:
        residual, role = residuals[stage], "residual" if stage else "data"
        rms = residual.square().mean().sqrt()
        axes.set_title(said("Stage {stage}\nrms {rms:.2g}", stage=stage + 1, rms=rms), fontsize=10)
        _frame(axes, torch.cat([residual, codebook]))
        _draw_points(axes, residual, role, label=named(role), area=4)
        _draw_codewords(axes, codebook, used_codewords(nearest(residual, codebook), len(codebook)), scale=0.3)
    axes.set(xticks=[], yticks=[])


def _in_plane(points: Tensor, name: str) -> Tensor:
    check_vectors(points, name)
    if points.ndim != 2 or points.shape[1] != 2:
        shape = tuple(points.shape)
        raise ValueError(said("{name} must be in the plane, (N, 2), got shape {shape}", name=name, shape=shape))
    return points.detach().cpu().float()


def used_codewords(indices: Tensor, size: int) -> Tensor:
    return torch.bincount(indices, minlength=size) > 0


def _fullness(indices: Tensor, size: int) -> str:
    """How the points share the cells, in words."""
    counts = torch.bincount(indices, minlength=size)
    least = counts.min() or said("none")
    return said(
        "{most} in the fullest of {size} cells, {least} in the emptiest", most=counts.max(), size=size, least=least
    )


def _mean_length(vectors: Tensor) -> float:
    return vectors.norm(dim=1).mean().item()


def _frame(axes: Axes, points: Tensor) -> None:
    """Square limits around the points, the same unit on both axes."""
    low, high = (corner.numpy() for corner in points.aminmax(dim=0))
    (x, y), half = (low + high) / 2, max(0.55 * np.max(high - low), 1e-6)
    axes.set(aspect="equal", xlim=(x - half, x + half), ylim=(y - half, y + half))
    axes.locator_params(nbins=5)


def _draw_cells(axes: Axes, points: Tensor, codebook: Tensor) -> None:
    from scipy.spatial import Voronoi  # slow to import: the first picture of most notebooks need not wait for it

    _frame(axes, torch.cat([points, codebook]))
    corners = codebook.double().numpy()
    # Four more, far outside, close every cell that can be seen.
    far = 1e3 * np.ptp(axes.get_xlim()) * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    diagram = Voronoi(np.concatenate([corners, corners.mean(0) + far]))
    borders = [diagram.vertices[ridge] for ridge in diagram.ridge_vertices if -1 not in ridge]
    axes.add_collection(LineCollection(borders, colors="#B0B0B0", linewidths=0.8, zorder=1), autolim=False)


def _draw_points(axes: Axes, points: Tensor, role: str, *, label: str, area: float = 9) -> None:
    style = {"color": COLORS[role], "marker": MARKERS.get(role, "o"), "linewidths": 0, "zorder": 2}
    axes.scatter(*points.numpy().T, s=area, label=label, **style)


def _draw_codewords(axes: Axes, codebook: Tensor, used: Tensor, *, label: str = "", scale: float = 1.0) -> None:
    style = {"marker": MARKERS["codeword"], "edgecolors": "white", "linewidths": 0.6, "zorder": 4}
    area = scale * 320 / max(len(codebook), 16) ** 0.5
    label = label or said("codeword")
    axes.scatter(*codebook[used].numpy().T, s=area, color=COLORS["codeword"], label=label, **style)
    if not used.all():
        label = said("unused codeword")
        axes.scatter(*codebook[~used].numpy().T, s=area, color=COLORS["unused"], label=label, **style)


def _draw_arrows(axes: Axes, starts: Tensor, arrows: Tensor, role: str, *, width: float = 0.0025) -> None:
    in_data_units = {"angles": "xy", "scale_units": "xy", "scale": 1}
    ends = (*starts.numpy().T, *arrows.numpy().T)
    axes.quiver(*ends, width=width, color=ink(COLORS[role]), zorder=3, **in_data_units)
