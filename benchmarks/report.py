"""Measurements as a table for reading and a plot for looking."""

import platform
import statistics
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"


@dataclass
class Section:
    """What one measurement gave: for each work the values of each contender, ours among them."""

    title: str
    unit: str  # "ms", "MB", or "" for numbers that are no cost
    values: dict[str, dict[str, list[float]]]  # work → contender → what was measured, once or several times
    digits: int = 1


def table(section: Section) -> str:
    """A markdown table of medians; behind a peer's cost how many times ours it is, below it the middle half."""
    contenders = list(dict.fromkeys(name for row in section.values.values() for name in row))
    unit = f" ({section.unit})" if section.unit else ""
    lines = [
        f"\n### {section.title}{unit}\n",
        "| | " + " | ".join(contenders) + " |",
        "|---|" + "---|" * len(contenders),
    ]
    for work, row in section.values.items():
        cells = [_cell(section, row, name) for name in contenders]
        lines.append(f"| {work} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(section: Section, row: dict[str, list[float]], name: str) -> str:
    if name not in row:
        return ""

    def told(value: float) -> str:
        return f"{value:.{section.digits}f}" if section.unit else f"{value:.3g}"

    text = told(_median(row, name))
    if section.unit and name != "ours":
        text += f" ({_median(row, name) / _median(row, 'ours'):.2f} ×)"
    if len(row[name]) > 1:
        low, _, high = statistics.quantiles(row[name], n=4, method="inclusive")
        text += f"<br>{told(low)} to {told(high)}"
    return text


def _median(row: dict[str, list[float]], name: str) -> float:
    return statistics.median(row[name])


def plot(sections: list[Section], path: Path) -> None:
    """Horizontal bars, one panel a section with costs: how many times ours each peer takes."""
    sections = [section for section in sections if section.unit]
    heights = [sum(len(row) for row in section.values.values()) for section in sections]
    figure = Figure(figsize=(8, 0.2 * sum(heights) + 0.55 * len(sections)), layout="constrained")
    axes = figure.subplots(len(sections), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axis, section in zip(axes, sections, strict=True):
        bars = [
            (f"{work}: {name}", _median(row, name) / _median(row, "ours"), "#0072B2" if name == "ours" else "#999999")
            for work, row in section.values.items()
            for name in row
        ]
        labels, ratios, colours = zip(*bars, strict=True)
        places = axis.barh(range(len(labels)), ratios, color=colours)
        axis.bar_label(
            places,
            [f"{ratio:.2g} ×" for ratio in ratios],
            padding=3,
            fontsize=8,
            bbox={"fc": "white", "ec": "none", "pad": 0.5},
        )
        axis.set_yticks(range(len(labels)), labels, fontsize=8)
        axis.invert_yaxis()
        axis.axvline(1, color="black", linewidth=0.8, zorder=0)
        axis.set_title(f"{section.title}: times ours", fontsize=9, loc="left")
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    axes[-1].set(xscale="log", xlim=(0.1, 130), xticks=[])
    axes[-1].minorticks_off()
    figure.savefig(path, dpi=120)


def processor() -> str:
    """The name of the one that runs this, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({platform.machine()})" if names else platform.machine()
