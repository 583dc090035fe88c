"""Graphs of who hands what to whom: boxes, arrows for values and gradients, and arrows that are cut or multiplied.

All places and sizes are in inches, counted from the lower left corner of the graph's axes.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from rvq_tutorial.course.plots.figure import COLORS, SERIES_COLORS, Figure, in_house_style, ink, place
from rvq_tutorial.language import later, said

_STYLES = {
    later("value"): {"color": "#707070", "linewidth": 1.2, "mutation_scale": 13},
    later("gradient"): {"color": SERIES_COLORS[0], "linewidth": 2.2, "mutation_scale": 17},
}
_CANCELLING = {"color": ink(COLORS["codeword"]), "linestyle": (0, (3, 1.2))}
_THICK = 3.0  # how much thicker an arrow is that arrives multiplied
_LANE = 0.09  # an arrow keeps so far to the left as it goes, so that a value and its gradient pass each other


class Box(NamedTuple):
    """A thing in a graph, at its middle: a tensor in the colour of its role, or a step, grey."""

    text: str
    x: float
    y: float
    role: str = ""  # a name in COLORS
    width: float = 1.0
    height: float = 0.42


class Arrow(NamedTuple):
    """From one box to another, by name: what goes forward (a value), or comes back (a gradient)."""

    start: str
    end: str
    carries: Literal["value", "gradient"] = "value"
    cut: bool = False  # nothing arrives: dotted, with a cross
    cancels: bool = False  # something arrives, and another arrow takes it away again: dashed
    times: str = ""  # what arrives is multiplied by this: thick, with "× M" for "M"
    label: str = ""
    bend: float = 0.0  # how far it swings out to the left, as a share of its length


def draw_graph(axes: Axes, boxes: Mapping[str, Box], arrows: Sequence[Arrow]) -> None:
    """Draw boxes, by name, and the arrows between them, into axes whose unit is an inch."""
    for box in boxes.values():
        color = COLORS[box.role] if box.role else "#E4E4E4"
        corner = (box.x - box.width / 2, box.y - box.height / 2)
        rounded = "round,pad=0,rounding_size=0.08"
        patch = FancyBboxPatch(corner, box.width, box.height, rounded, facecolor=color, alpha=0.45, edgecolor="none")
        axes.add_patch(patch)
        axes.text(box.x, box.y, said(box.text), ha="center", va="center_baseline", linespacing=1.1)
    for arrow in arrows:
        _draw_arrow(axes, arrow, _way(boxes[arrow.start], boxes[arrow.end], arrow.bend))


def legend(figure: Figure, arrows: Sequence[Arrow]) -> None:
    """Say below the graph what the kinds of arrow mean that occur in it."""
    lines = {
        said(kind): Line2D([], [], color=style["color"], linewidth=style["linewidth"])
        for kind, style in _STYLES.items()
        if any(arrow.carries == kind and not (arrow.cut or arrow.cancels or arrow.times) for arrow in arrows)
    }
    if any(arrow.cut for arrow in arrows):
        style = {"color": _STYLES["gradient"]["color"], "linestyle": ":", "marker": "x", "markersize": 7}
        lines[said("gradient, cut")] = Line2D(
            [], [], markeredgecolor=ink(COLORS["codeword"]), markeredgewidth=2.4, **style
        )
    if any(arrow.cancels for arrow in arrows):
        style = _STYLES["gradient"]
        lines[said("gradients that cancel")] = Line2D([], [], linewidth=style["linewidth"], **_CANCELLING)
    if any(arrow.times for arrow in arrows):
        style = _STYLES["gradient"]
        thick = {"linewidth": _THICK * style["linewidth"], "solid_capstyle": "butt"}
        lines[said("gradient, multiplied")] = Line2D([], [], color=style["color"], **thick)
    figure.legend(lines.values(), lines.keys(), loc="lower left", ncols=4, handlelength=2.2)


def graph_axes(figure: Figure, left: float, bottom: float, width: float, height: float, *, title: str = "") -> Axes:
    """Axes for a graph, at a place given in inches; its unit is an inch, and nothing of the axes shows."""
    axes = place(figure, left, bottom, width, height)
    axes.set(xlim=(0, width), ylim=(0, height), title=title)
    axes.axis("off")
    return axes


def _way(start: Box, end: Box, bend: float) -> np.ndarray:
    """Points from the border of one box to that of another, in the left lane: (n, 2)."""
    first, last = np.array([start.x, start.y]), np.array([end.x, end.y])
    along = last - first
    left = np.array([-along[1], along[0]])
    lane = _LANE * left / np.hypot(*left)
    middle = (first + last) / 2 + 2 * bend * left
    t = np.linspace(0, 1, 401)[:, None]
    points = lane + (1 - t) ** 2 * first + 2 * t * (1 - t) * middle + t**2 * last
    return points[~_inside(points, start) & ~_inside(points, end)]


def _inside(points: np.ndarray, box: Box, room: float = 0.04) -> np.ndarray:
    across, up = np.abs(points - (box.x, box.y)).T
    return (across < box.width / 2 + room) & (up < box.height / 2 + room)


def _draw_arrow(axes: Axes, arrow: Arrow, way: np.ndarray) -> None:
    style = _STYLES[arrow.carries]
    color, width, size = style["color"], style["linewidth"], style["mutation_scale"]
    if arrow.times:
        width, size = _THICK * width, 2 * size
    to_end = np.hypot(*(way - way[-1]).T)
    shaft = way[to_end > 0.3 * size / 72]  # or a thick line would show beside the head's tip
    line = _CANCELLING if arrow.cancels else {"color": color, "linestyle": ":" if arrow.cut else "-"}
    color = line["color"]
    axes.plot(*shaft.T, linewidth=width, solid_capstyle="butt", **line)
    head = Path(way[to_end < 1.5 * size / 72])
    axes.add_patch(FancyArrowPatch(path=head, arrowstyle="-|>", color=color, linewidth=0, mutation_scale=size))
    middle = way[len(way) // 2]
    if arrow.cut:
        axes.plot(*middle, "x", color=ink(COLORS["codeword"]), markersize=10, markeredgewidth=2.8, zorder=4)
    words = f"× {said(arrow.times)}" if arrow.times else said(arrow.label)
    if words:
        along = way[-1] - way[0]
        out = np.array([-along[1], along[0]]) / np.hypot(*along)
        side = "center" if abs(out[0]) < 0.5 else "left" if out[0] > 0 else "right"
        axes.text(*(middle + 0.17 * out), words, color=color, fontsize=9, ha=side, va="center")


_BOXES = {
    "encoder": Box(later("encoder"), 0.6, 1.3),
    "x": Box("x", 2.0, 1.3, "data", width=0.5),
    "index": Box(later("index"), 3.45, 1.3, width=0.7),
    "quantized": Box("x̂", 4.9, 1.3, "codeword", width=0.5),
    "decoder": Box(later("decoder"), 6.1, 1.3),
    "loss": Box(later("loss"), 7.35, 1.3, width=0.8),
    "codebook": Box(later("codebook"), 4.18, 0.3, "codeword"),
}
_FORWARD = [
    Arrow("encoder", "x"),
    Arrow("x", "index", label=later("nearest")),
    Arrow("codebook", "index"),
    Arrow("index", "quantized", label=later("look up")),
    Arrow("codebook", "quantized"),
    Arrow("quantized", "decoder"),
    Arrow("decoder", "loss"),
]
_TO_QUANTIZED = [Arrow("loss", "decoder", "gradient"), Arrow("decoder", "quantized", "gradient")]
_AROUND_THE_LOOKUP = [Arrow("quantized", "x", "gradient", bend=-0.32), Arrow("x", "encoder", "gradient")]


@in_house_style
def lookup_graph(*, straight_through: bool) -> Figure:
    """What a lookup in the middle of a network hands on, and how far the decoder's gradient comes back."""
    if straight_through:
        caption = said(
            "Follow the gradient from the right: from x̂ it goes straight through to x, as if there were no lookup "
            "between them, and none of it goes to the codebook."
        )
    else:
        caption = said(
            "Follow the gradient from the right: it comes as far as x̂ and the codeword there. Nothing flows back "
            "through the index, so the encoder gets no gradient."
        )
    return _graph(_BOXES, _lookup_arrows(straight_through), 2.3 if straight_through else 1.65, caption)


def _lookup_arrows(straight_through: bool) -> list[Arrow]:
    to_codebook = Arrow("quantized", "codebook", "gradient", cut=straight_through)
    if straight_through:
        return [*_FORWARD, *_TO_QUANTIZED, *_AROUND_THE_LOOKUP, to_codebook]
    cut = [Arrow(*ends, "gradient", cut=True) for ends in (("quantized", "index"), ("x", "encoder"))]
    return [*_FORWARD, *_TO_QUANTIZED, *cut, to_codebook]


@in_house_style
def loss_graph() -> Figure:
    """Which of encoder, codebook and decoder each of a VQ-VAE's losses moves (van den Oord et al. 2017, eq. 3)."""
    boxes = {name: box._replace(y=box.y + 0.45) for name, box in _BOXES.items() if name != "index"} | {
        "decoder": Box(later("decoder"), 5.95, 1.75, width=0.8),
        "loss": Box(later("reconstruction\nloss"), 7.3, 1.75, width=1.15, height=0.55),
        "codebook": Box(later("codebook"), 4.9, 0.4, "codeword"),
        "codebook loss": Box(later("codebook\nloss"), 6.6, 0.4, width=0.9, height=0.55),
        "commitment loss": Box(later("commitment\nloss"), 2.0, 0.4, width=1.1, height=0.55),
    }
    arrows = [
        *_TO_QUANTIZED,
        *_AROUND_THE_LOOKUP,
        Arrow("quantized", "codebook", "gradient", cut=True),
        Arrow("codebook loss", "codebook", "gradient"),
        Arrow("commitment loss", "x", "gradient", label=later("times β")),
        Arrow("commitment loss", "codebook", "gradient", cut=True),
    ]
    caption = said(
        "Only gradients are drawn. The encoder hears two losses, the codebook and the decoder one each; the codebook "
        "loss reaches no x, the commitment loss no codeword."
    )
    return _graph(boxes, arrows, 2.75, caption)


def _graph(boxes: Mapping[str, Box], arrows: Sequence[Arrow], height: float, caption: str) -> Figure:
    figure = Figure(8.0, height + 0.35, alt=_spoken(boxes, arrows), caption=caption)
    draw_graph(graph_axes(figure, 0.05, 0.35, 7.9, height), boxes, arrows)
    legend(figure, arrows)
    return figure


def _spoken(boxes: Mapping[str, Box], arrows: Sequence[Arrow]) -> str:
    """The arrows in words, one kind after the other."""
    kinds: dict[str, list[str]] = {}
    for arrow in arrows:
        start, end = (" ".join(said(boxes[name].text).split()) for name in (arrow.start, arrow.end))
        way = said("from {start} to {end}", start=start, end=end)
        more = f", × {said(arrow.times)}" if arrow.times else f" ({said(arrow.label)})" if arrow.label else ""
        kinds.setdefault(_KINDS[arrow.carries, arrow.cut, arrow.cancels], []).append(way + more)
    return " ".join(said(kind, ways=said(", ").join(ways)) for kind, ways in kinds.items())


# The sentence of each kind: what the arrow carries, whether it is cut, and whether it cancels.
_KINDS = {
    ("value", False, False): later("Values go {ways}."),
    ("gradient", False, False): later("Gradients go {ways}."),
    ("gradient", True, False): later("Cut gradients go {ways}."),
    ("gradient", False, True): later("Gradients that cancel go {ways}."),
}


_STAGES = {
    "encoder": Box(later("encoder"), 0.55, 1.3, width=0.9),
    "x": Box("x = r₁", 2.2, 1.3, "data", width=0.75),
    "first": Box(later("codeword\nof stage 1"), 3.5, 0.3, "codeword", height=0.55),
    "residual": Box("r₂", 4.85, 1.3, "residual", width=0.55),
    "second": Box(later("codeword\nof stage 2"), 6.15, 0.3, "codeword", height=0.55),
    "quantized": Box("x̂", 7.5, 1.3, "reconstruction", width=0.5),
    "first term": Box(later("commitment\nterm 1"), 2.2, 2.35, height=0.55),
    "second term": Box(later("commitment\nterm 2"), 4.85, 2.35, height=0.55),
}
_TERMS = [Arrow("first term", "x", "gradient"), Arrow("second term", "residual", "gradient")]
_THROUGH_BOTH = [
    Arrow("quantized", "second", "gradient"),
    Arrow("second", "residual", "gradient"),
    Arrow("quantized", "first", "gradient"),
    Arrow("first", "x", "gradient"),
]


@in_house_style
def residual_loop_graph(loop: Literal["silent", "loud", "right"]) -> Figure:
    """The gradients in a loop of two stages: where they cancel, where they double, and where each arrives once.

    loop: "silent" subtracts each stage's straight-through output from the residual; "loud" subtracts it detached; both
    add these outputs up. "right" subtracts and adds plain codewords, with one straight-through around them all.
    """
    if loop not in _LOOPS:
        names = said(", ").join(map(repr, _LOOPS))
        raise ValueError(said("{name} must be one of {names}, got {value!r}", name="loop", names=names, value=loop))
    arrows, caption = _LOOPS[loop]
    return _graph(_STAGES, arrows, 2.75, said(caption))


_LOOPS = {
    "silent": (
        [
            *_TERMS,
            *_THROUGH_BOTH,
            Arrow("residual", "x", "gradient", cancels=True, label=later("times 1")),
            Arrow("residual", "first", "gradient", cancels=True, label=later("times −1")),
            Arrow("x", "encoder", "gradient"),
        ],
        later(
            "Whatever reaches r₂ comes to x twice, once times 1 and once, by way of stage 1, times −1: together "
            "nothing. Term 2 is lost; x̂ is heard once, through stage 1."
        ),
    ),
    "loud": (
        [
            *_TERMS,
            *_THROUGH_BOTH,
            Arrow("residual", "x", "gradient"),
            Arrow("residual", "first", "gradient", cut=True),
            Arrow("x", "encoder", "gradient", times=later("2 from x̂")),
        ],
        later(
            "Nothing cancels any more, and term 2 reaches x. But so does the gradient of x̂, once through each stage."
        ),
    ),
    "right": (
        [
            *_TERMS,
            Arrow("quantized", "x", "gradient", bend=-0.1),
            Arrow("residual", "x", "gradient"),
            *[
                Arrow(start, codeword, "gradient", cut=True)
                for start, codeword in (("quantized", "first"), ("quantized", "second"), ("residual", "first"))
            ],
            Arrow("x", "encoder", "gradient"),
        ],
        later(
            "One straight-through around both stages brings the gradient of x̂ to x once; each term reaches x by way of "
            "its own residual, and none of them a codeword."
        ),
    ),
}
