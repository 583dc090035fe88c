"""Curves and bars: what was measured, over steps, rates and sizes."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator
from torch import Tensor

from rvq_tutorial.course.plots.figure import (
    COLORS,
    MARKERS,
    SERIES_COLORS,
    SERIES_MARKERS,
    Figure,
    in_house_style,
    ink,
    named,
    place,
    titled,
)
from rvq_tutorial.language import later, said
from rvq_tutorial.search import nearest


@in_house_style
def curve(
    history: Mapping[str, Sequence[float]], *, ylabel: str = "", log: bool = False, smooth: int = 1, title: str = ""
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
    xlabel = said("step")
    shapes = [_shape(name, np.arange(smooth, steps + 1), y, xlabel) for name, y in history.items()]
    told = later("Over {steps} steps: {shapes}.") if steps > 1 else later("Over 1 step: {shapes}.")
    means = f" {said('The line is the mean over {smooth} steps.', smooth=smooth)}" if smooth > 1 else ""
    figure = Figure(
        8.0,
        3.4,
        alt=said(told, steps=steps, shapes=said("; ").join(shapes)),
        caption=said("From step 1 to {steps}, {changes}.", steps=steps, changes=_changes(history)) + means,
    )
    axes = figure.subplots()
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel or said("loss"), yscale="log" if log else "linear")
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
    reached = {named(name): (errors[:, -1].mean(), rates[-1]) for name, (rates, errors) in curves.items()}
    if bound:
        reached[said("Shannon's bound")] = bound[1][-1], bound[0][-1]
    ends = [
        said("{name} reaches {error} at {rate:.3g} bits", name=name, error=_short(error), rate=rate)
        for name, (error, rate) in reached.items()
    ]
    figure = Figure(
        8.0,
        4.4,
        alt=said(
            "Falling curves of the mean squared error. {halfway}.",
            halfway=_halfway(curves, bound, said("bits per dimension")),
        ),
        caption=said("Lower is better, and the error's scale is logarithmic: {ends}.", ends=said("; ").join(ends)),
    )
    axes = figure.subplots()
    axes.set(title=title, xlabel=said("bits per dimension"), ylabel=said("mean squared error per dimension"))
    axes.set_yscale("log")
    lines, most = {}, max(rates[-1] for rates, _ in curves.values())
    for rank, (name, (rates, errors)) in enumerate(curves.items()):
        label = name if rates[-1] == most else said("{name}, to {rate:.3g} bits", name=named(name), rate=rates[-1])
        lines[label] = _mean_over_seeds(axes, rates, errors, name, rank)
    if bound:
        lines[said("Shannon's bound")] = axes.plot(*bound, "--", color=COLORS["bound"], linewidth=1.2)[0]
    _label_ends(axes, lines)
    return figure


@in_house_style
def quality(curves: Mapping[str, tuple[Sequence[float], Sequence]], *, title: str = "") -> Figure:
    """PSNR against bits per pixel, with error bars where there are several seeds.

    curves: name -> (bits per pixel (R,), PSNRs in dB, (R,) or (seeds, R)).
    """
    curves = {name: (np.asarray(bits), np.atleast_2d(levels)) for name, (bits, levels) in curves.items()}
    ends = [
        said("{name} {level:.1f} dB at {bits:.3g}", name=named(name), level=levels[:, -1].mean(), bits=bits[-1])
        for name, (bits, levels) in curves.items()
    ]
    figure = Figure(
        8.0,
        3.8,
        alt=said("Rising curves of the PSNR. {halfway}.", halfway=_halfway(curves, None, said("bits per pixel"))),
        caption=said("Higher is better. At the most bits per pixel: {ends}.", ends=said("; ").join(ends)),
    )
    axes = figure.subplots()
    axes.set(title=title, xlabel=said("bits per pixel"), ylabel="PSNR (dB)")
    lines = {}
    for rank, (name, (bits, levels)) in enumerate(curves.items()):
        lines[name] = _mean_over_seeds(axes, bits, levels, name, rank)
    _label_ends(axes, lines)
    return figure


@in_house_style
def bars(values: Mapping[str, float | Sequence[float]], *, label: str, title: str = "") -> Figure:
    """One bar a name; where a name has several values, one a seed, their mean and standard deviation."""
    values = {name: np.atleast_1d(v).astype(float) for name, v in values.items()}
    spreads = {n: f" ± {_two_digits(v.std())}" for n, v in values.items() if len(v) > 1}
    texts = {n: f"{v.mean():.3g}{spreads.get(n, '')}" for n, v in values.items()}
    least, most = (end(values, key=lambda name: values[name].mean()) for end in (min, max))
    reach = texts[most]
    if least != most:
        ends = {"low": texts[least], "lowest": named(least), "high": texts[most], "highest": named(most)}
        reach = said("from {low} ({lowest}) to {high} ({highest})", **ends)
    spread = f" {said('After ± and as a whisker, the standard deviation.')}" if spreads else ""
    figure = Figure(
        8.0,
        0.9 + 0.38 * len(values),
        alt=said(
            "{name}: {values}.",
            name=_capital(label),
            values=said("; ").join(f"{named(name)} {text}" for name, text in texts.items()),
        ),
        caption=said("{name}: {values}.", name=_capital(label), values=reach) + spread,
    )
    axes = figure.subplots()
    axes.set(title=title, xlabel=label)
    for rank, (name, v) in enumerate(values.items()):
        axes.barh(named(name), v.mean(), color=COLORS.get(name, SERIES_COLORS[0]), height=0.62)
        if len(v) > 1:
            axes.errorbar(v.mean(), rank, xerr=v.std(), color="#222222", elinewidth=1.2, capsize=3)
        end = (max(v.mean() + v.std(), 0), rank)
        axes.annotate(texts[name], end, (6, 0), textcoords="offset points", va="center_baseline")
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0, labelsize=10)
    return figure


def _two_digits(value: float) -> str:
    return np.format_float_positional(value, 2, fractional=False, trim="-")


@in_house_style
def code_usage(counts: Tensor, *, title: str = "") -> Figure:
    """How often each codeword was chosen, most used first, and the same bits as so many codewords, all used alike.

    counts: (K,). The perplexity is 2 to the entropy, in bits, of how often each is chosen.
    """
    if counts.ndim != 1 or not counts.sum() > 0:
        shape = tuple(counts.shape)
        raise ValueError(said("counts must be (K,) and not all zero, got shape {shape}", shape=shape))
    share = counts.detach().cpu().double().sort(descending=True).values / counts.sum().item()
    size, unused = len(share), int((share == 0).sum())
    bits = torch.special.entr(share).sum().item() / math.log(2)
    perplexity = 2**bits
    half, most = (int((share.cumsum(0) < part - 1e-9).sum()) + 1 for part in (0.5, 0.9))
    figure = Figure(
        8.0,
        3.2,
        alt=said(
            "Of {size} codewords, most used first, the first {half} take half of the vectors, the first {most} nine "
            "tenths.",
            size=size,
            half=half,
            most=most,
        ),
        caption=said(
            "The most used takes {share:.2%} of the vectors, and {unused} are never chosen. An index tells {bits:.3g} "
            "bits, as much as {perplexity:.3g} codewords would that are all used alike: the dashed box, which has the "
            "bars' area.",
            share=share[0].item(),
            unused=unused,
            bits=bits,
            perplexity=perplexity,
        ),
    )
    axes = figure.subplots()
    title = title or said("Perplexity {perplexity:.3g} of {size}", perplexity=perplexity, size=size)
    axes.set(title=title, xlabel=said("codeword, most used first"), ylabel=said("share of the vectors"))
    axes.stairs(
        share.numpy(), np.arange(size + 1) + 0.5, fill=True, color=COLORS["codeword"], label=said("each codeword")
    )
    corners = [0.5, 0.5 + perplexity], [1 / perplexity] * 2
    label = said("{perplexity:.3g} codewords, all used alike", perplexity=perplexity)
    axes.fill_between(*corners, facecolor="none", edgecolor=COLORS["bound"], linestyle="--", label=label)
    axes.set_xlim(0.5 - size / 60, size + 0.5 + size / 60)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="upper right")
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
    levels = codebook.unique()
    alt = said(
        "Left, a staircase: x̂ is {levels}, with jumps at x = {places}. Right, the squared error on these steps: "
        "{errors}.",
        levels=_then(levels),
        places=_then((levels[1:] + levels[:-1]) / 2),
        errors=_then((levels - target) ** 2),
    )
    caption = said(
        "Left, what the lookup gives for x; right, the loss behind it. Both are flat, slope 0, except at {jumps} "
        "jumps.",
        jumps=len(jumps),
    )
    if x is not None:
        chosen = codebook[(codebook - x).abs().argmin()].item()
        dashed = said(
            "Dashed, through x = {x:g}: left, a line of slope 1; right, a parabola, lowest at x̂ = {target:g}.",
            x=x,
            target=target,
        )
        alt = f"{alt} {dashed}"
        caption = said(
            "At x = {x:g} the lookup gives {chosen:g}, and so does everything near by: both slopes are 0. What is "
            "pretended is x̂ = x + ({constant:.2g}), the dashed line, of slope 1. So the loss (x̂ − {target:g})² seems "
            "to have slope 2 ({chosen:g} − {target:g}) = {slope:.2g}.",
            x=x,
            chosen=chosen,
            constant=chosen - x,
            target=target,
            slope=2 * (chosen - target),
        )
    figure = Figure(8.0, 4.0, alt=alt, caption=caption.replace("-", "−"))
    for i, (name, of) in enumerate({"x̂": lambda y: y, said("loss"): lambda y: (y - target) ** 2}.items()):
        axes = place(figure, 0.65 + 4.05 * i, 0.95, 3.2, 2.8)
        axes.set(title=name, xlabel="x", xlim=(low, high), ylim=((low, high), (-0.15, (high - low) ** 2 / 3))[i])
        axes.plot(grid, of(steps), color=COLORS["codeword"], solid_capstyle="butt", label=said("the lookup"))
        if x is not None:
            style = {"color": COLORS["codeword"], "markeredgecolor": "white", "markersize": 11, "zorder": 4}
            axes.plot(x, of(chosen), MARKERS["codeword"], **style)
            pretended = of(grid + chosen - x)
            axes.plot(grid, pretended, "--", color=SERIES_COLORS[0], linewidth=1.4, label=said("what is pretended"))
    figure.legend(*axes.get_legend_handles_labels(), loc="lower left", ncols=2)
    return figure


@in_house_style
def moved_crowd(codebook: Tensor, half_width: float) -> Figure:
    """What a lookup among numbers gives on average over a crowd, spread evenly, that moves; and how steeply it rises.

    codebook: (K,). half_width: how far the crowd reaches to both sides of its middle, above 0.
    """
    if not half_width > 0:
        raise ValueError(said("half_width must be above 0, got {half_width}", half_width=half_width))
    codebook = np.sort(codebook.detach().cpu().double().flatten().numpy())
    borders, jumps = (codebook[1:] + codebook[:-1]) / 2, np.diff(codebook)

    def mean(middle: np.ndarray) -> np.ndarray:
        return codebook[0] + np.clip((middle[:, None] + half_width - borders) / (2 * half_width), 0, 1) @ jumps

    def slope(half_width: np.ndarray) -> np.ndarray:
        return (np.abs(borders) < half_width[:, None]) @ jumps / (2 * half_width)

    steepness = slope(np.array([half_width])).item()
    reached = np.abs(borders).min()  # by so wide a crowd
    first, last = slope(np.array([reached + 1e-9, 2.5]))
    figure = Figure(
        8.0,
        4.1,
        alt=said(
            "Left, the steps of a single number and, sloped where those jump, the mean over a crowd of half-width "
            "{half_width:g}. Right, the slope of that mean at 0: none until the crowd is {reached:g} wide to each "
            "side, then suddenly {first:.2g}, and {last:.2g} at 2.5.",
            half_width=half_width,
            reached=reached,
            first=first,
            last=last,
        ),
        caption=said(
            "A crowd from −{half_width:g} to {half_width:g}: move it a little, and its x̂ move {steepness:.2f} times as "
            "far on average. Straight-through says 1. Right, in theory: the sum of the jumps within the crowd, divided "
            "by its width.",
            half_width=half_width,
            steepness=steepness,
        ),
    )
    reach = codebook[-1] + 0.75
    x = np.linspace(-reach, reach, 801)
    axes = place(figure, 0.65, 1.0, 3.4, 2.8)
    axes.set(title=said("mean of x̂"), xlabel=said("the crowd's middle"), xlim=(-reach, reach), ylim=(-reach, reach))
    stairs = codebook[np.searchsorted(borders, x)]
    stairs[1:][np.diff(stairs) != 0] = np.nan  # there is nothing between the steps
    axes.plot(x, stairs, color=COLORS["codeword"], linewidth=1.0, label=said("a single number"))
    axes.plot(x, mean(x), color=SERIES_COLORS[1], linewidth=2.4, label=said("the crowd"))
    middle = mean(np.zeros(1)).item()
    axes.plot(x, x + middle, "--", color=SERIES_COLORS[0], linewidth=1.4, label=said("what is pretended"))
    extent = [-half_width, half_width], [0.12 - reach] * 2
    axes.plot(*extent, color=COLORS["data"], linewidth=6, solid_capstyle="butt", label=said("the crowd's range"))
    handles = axes.get_legend_handles_labels()
    axes = place(figure, 4.75, 1.0, 3.0, 2.8)
    axes.set(title=said("slope at 0"), xlabel=said("half-width of the crowd"), xlim=(0, 2.5), ylim=(-0.1, 2.2))
    widths = np.linspace(0.005, 2.5, 500)
    slopes = slope(widths)
    slopes[1:][np.diff(slopes) > 0.1] = np.nan  # here a border comes within the crowd
    axes.plot(widths, slopes, color=SERIES_COLORS[1], linewidth=2.4)
    axes.axhline(1, linestyle="--", color=SERIES_COLORS[0], linewidth=1.4)
    axes.plot(half_width, steepness, "o", color=SERIES_COLORS[1], markersize=11, markeredgecolor="white", zorder=4)
    figure.legend(*handles, loc="lower left", ncols=4)
    return figure


@in_house_style
def gradient_check(autograd: Tensor, differences: Mapping[str, Tensor]) -> Figure:
    """Slopes measured by finite differences against those that autograd gives: where both agree, on the diagonal.

    autograd: a gradient, of any shape. differences: name -> slopes of the same shape.
    """
    autograd = autograd.detach().cpu().double().flatten().numpy()
    differences = {name: d.detach().cpu().double().flatten().numpy() for name, d in differences.items()}
    far = {name: np.abs(slopes - autograd).max() for name, slopes in differences.items()}
    ranges = [
        said("of {name}, from {low} to {high}", name=named(name), low=_short(y.min()), high=_short(y.max()))
        for name, y in differences.items()
    ]
    distances = said("; ").join(f"{named(name)} {distance:.2g}" for name, distance in far.items())
    figure = Figure(
        8.0,
        4.0,
        alt=said(
            "Autograd's slopes go from {low} to {high}; finite differences {ranges}.",
            low=_short(autograd.min()),
            high=_short(autograd.max()),
            ranges=said("; ").join(ranges),
        ),
        caption=said("On the diagonal both agree. Largest distance from it: {distances}.", distances=distances),
    )
    axes = figure.subplots()
    axes.set(xlabel="autograd", ylabel=said("finite differences"))
    axes.axline((0, 0), slope=1, color=COLORS["bound"], linewidth=0.8, linestyle=":")
    for rank, (name, slopes) in enumerate(differences.items()):
        style = _series_style(name, rank) | {"markersize": 7, "linestyle": "none"}
        axes.plot(autograd, slopes, label=named(name), **style)
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
    shapes = [_shape(name, x, y, xlabel) for name, y in curves.items()]
    figure = Figure(
        8.0,
        3.4,
        alt=said("{name}: {values}.", name=_capital(ylabel), values=said("; ").join(shapes)),
        caption=said(
            "{x}, from {first:g} to {last:g}: {changes}.",
            x=_capital(xlabel),
            first=x[0],
            last=x[-1],
            changes=_changes(curves),
        ),
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
def over_steps(
    steps: Sequence[int],
    panels: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    *,
    xlabel: str = "",
    ylabel: str = "",
    limits: tuple[float, float] | None = None,
    log: bool = False,
) -> Figure:
    """What was measured while training, a panel for each measure: the mean over seeds, in a band from least to most.

    steps: (R,), rising. panels: title -> name -> (seeds, R); every panel has the same names. limits: the range of all
    panels, where they share a scale. log: logarithmic scales, which all panels share.
    """
    xlabel = xlabel or said("step")
    values = {
        titled(title): {name: np.asarray(y, float) for name, y in panel.items()} for title, panel in panels.items()
    }
    names = list(next(iter(values.values())))
    seeds = len(values[next(iter(values))][names[0]])
    told = []
    for title, panel in values.items():
        ends = [_from_to(name, y[:, 0].mean(), y[:, -1].mean()) for name, y in panel.items()]
        told.append(_with_name(" ".join(title.split()), said(", ").join(ends)))
    facts = {"x": xlabel, "first": steps[0], "last": steps[-1], "ends": said("; ").join(told)}
    if ylabel:
        alt = said("{y} from {x} {first} to {last}. {ends}.", y=_capital(ylabel), **facts)
    else:
        alt = said("From {x} {first} to {last}. {ends}.", **facts)
    if seeds > 1:
        caption = said("Lines are means over {seeds} seeds, bands reach from the least to the most.", seeds=seeds)
    else:
        caption = said("Lines are means over 1 seed, bands reach from the least to the most.")
    figure = Figure(
        9.0,
        4.2 if log else 3.2,
        alt=alt,
        caption=caption,
    )
    row = figure.subplots(1, len(values), squeeze=False, sharey=log)[0]
    for axes, (title, panel) in zip(row, values.items(), strict=True):
        axes.set_title(title, fontsize=10)
        axes.set(xlabel=xlabel, xticks=[steps[0], steps[-1]])
        if log:
            _log_scales(axes, steps)
        for rank, (name, y) in enumerate(panel.items()):
            style = _series_style(name, rank)
            axes.fill_between(steps, y.min(0), y.max(0), color=style["color"], alpha=0.2, linewidth=0)
            axes.plot(steps, y.mean(0), **style, label=named(name))
        if limits:
            axes.set_ylim(limits)
    figure.axes[0].set_ylabel(ylabel)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names))
    return figure


def _log_scales(axes: Axes, x: Sequence[float]) -> None:
    """Both scales logarithmic, with plain numbers: at every x where there are few, else at powers of ten."""
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_locator(FixedLocator(x) if len(x) <= 6 else LogLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.3g}" if axis is axes.yaxis else "{x:,g}")
        axis.set_minor_formatter("")
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.6)


@in_house_style
def codebook_memory(dim: int, codebook_sizes: Sequence[int], *, max_bits: int = 64) -> Figure:
    """Bytes that one codebook takes for so many bits a vector, in float32, and those of stages of K codewords.

    codebook_sizes: the sizes K, one curve each, with a mark for every stage.
    """
    rates = np.arange(1, max_bits + 1)
    curves = {said("one codebook"): (rates, 4.0 * dim * 2.0**rates)}
    for size in codebook_sizes:
        stages = np.arange(1, int(max_bits / math.log2(size)) + 1)
        curves[said("stages of {size}", size=size)] = (stages * math.log2(size), 4.0 * dim * size * stages)
    ends = [f"{name} {_bytes(memory[-1])}" for name, (_, memory) in curves.items()]
    figure = Figure(
        8.0,
        3.8,
        alt=said(
            "The memory of one codebook doubles with every bit; that of stages grows as their number does. {halfway}.",
            halfway=_halfway(curves, None, said("bits a vector"), _bytes),
        ),
        caption=said(
            "Vectors of {dim} components; a mark is a stage. At the right end: {ends}.",
            dim=dim,
            ends=said("; ").join(ends),
        ),
    )
    axes = figure.subplots()
    axes.set(xlabel=said("bits a vector"), ylabel=said("memory"), yscale="log")
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
def scoreboard(rows: Mapping[str, Mapping[str, float | Sequence[float]]], *, title: str = "") -> Figure:
    """One row for each quantizer, one column of dots for each measure, on logarithmic scales: left is better.

    rows: quantizer -> measure -> a positive number, or one for each seed; every row has the same measures. A dot is
    the mean over the seeds, its whisker the standard deviation.
    """
    measures = list(next(iter(rows.values())))
    best = {m: min(rows, key=lambda name: np.mean(rows[name][m])) for m in measures}
    spoken = [
        _with_name(named(name), said(", ").join(f"{named(m)} {_short(np.mean(v))}" for m, v in measured.items()))
        for name, measured in rows.items()
    ]
    winners = [
        said("{measure}, {name} ({value})", measure=named(m), name=named(name), value=_short(np.mean(rows[name][m])))
        for m, name in best.items()
    ]
    figure = Figure(
        9.0,
        1.15 + 0.38 * len(rows),
        alt=said("{values}.", values=said("; ").join(spoken)),
        caption=said(
            "Left is better, all scales are logarithmic. The best: {winners}.", winners=said("; ").join(winners)
        ),
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
        axes.set(xscale="log", xlim=(low / room**0.3, high * room), xlabel=named(measure), xticks=[])
        axes.minorticks_off()
        axes.hlines(ranks, low / room**0.3, mean, color="#D0D0D0", linewidth=1.0)
        style = {"color": SERIES_COLORS[column % len(SERIES_COLORS)], "elinewidth": 1.2, "capsize": 3, "markersize": 6}
        axes.errorbar(mean, ranks, xerr=deviation, fmt="o", **style)
        for rank, (m, d) in enumerate(zip(mean, deviation, strict=True)):
            axes.annotate(_short(m), (m + d, rank), (7, 0), textcoords="offset points", va="center_baseline")
        axes.tick_params(axis="y", length=0, labelsize=10)
    axes.set_yticks(ranks, list(map(named, rows)))
    axes.invert_yaxis()
    return figure


@in_house_style
def bit_shares(variances: Tensor, ways: Mapping[str, Tensor], *, title: str = "") -> Figure:
    """Ways to share bits among components, one beside the other: every bit cuts a component's error to a quarter.

    variances: (dim,), positive. ways: name -> the bits of each component, (dim,), none negative.
    """
    variances = variances.detach().cpu().double().numpy()
    ways = {name: bits.detach().cpu().double().numpy() for name, bits in ways.items()}
    left = {name: variances * 4.0**-bits for name, bits in ways.items()}
    spoken = said("; ").join(
        said(
            "{name}, {bits} bits: mean error {error:.2g}",
            name=named(name),
            bits=" + ".join(f"{b:.3g}" for b in bits),
            error=left[name].mean(),
        )
        for name, bits in ways.items()
    )
    rests = said("; ").join(said("{name}, {values}", name=named(name), values=_then(left[name])) for name in ways)
    figure = Figure(
        8.0,
        3.9,
        alt=said(
            "{dim} components of variance {variances}. What the bits leave of them: {rests}.",
            dim=len(variances),
            variances=_then(variances),
            rests=rests,
        ),
        caption=said(
            "A bar reaches up to its component's variance. Each dark block is one bit, and what is below it is a "
            "quarter; the grey rest is the error that stays. {ways}.",
            ways=spoken,
        ),
    )
    figure.suptitle(title, x=0.01, ha="left")
    floor = min(error.min() for error in left.values()) / 4
    ranks = 1 + np.arange(len(variances))
    for axes, (name, bits) in zip(
        figure.subplots(1, len(ways), sharey=True, squeeze=False)[0], ways.items(), strict=True
    ):
        axes.set(
            title=named(name), xlabel=said("component"), yscale="log", ylim=(floor, 6 * variances.max()), xticks=ranks
        )
        axes.bar(ranks, left[name] - floor, bottom=floor, width=0.62, color=COLORS["unused"])
        for rank, variance, share in zip(ranks, variances, bits, strict=True):
            tops = variance * 4.0 ** -np.arange(math.ceil(share - 1e-9))
            bottoms = np.maximum(tops / 4, variance * 4.0**-share)
            axes.bar(rank, tops - bottoms, bottom=bottoms, width=0.62, color=SERIES_COLORS[0], edgecolor="white")
            text = said("1 bit") if share == 1 else said("{share:.2g} bits", share=share)
            axes.annotate(text, (rank, variance), (0, 4), textcoords="offset points", ha="center")
    figure.axes[0].set_ylabel(said("variance, and what is left of it"))
    return figure


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
    path = measured[codebook_size, beam_size][:num_quantizers]
    figure = Figure(
        8.0,
        4.4,
        alt=said(
            "Stage by stage the error of the choice falls to {errors}. On Shannon's bound it would be {least} at the "
            "end.",
            errors=_then(path),
            least=_short(4.0**-rate),
        ),
        caption=said(
            "{rate:.3g} bits per dimension, mean squared error {error:.3g}: {above:.1f} dB above Shannon's bound, "
            "which asks for {wasted:.2f} bits less. Stored: {numbers:,} numbers; a vector takes {steps:,} "
            "multiply–adds. Grey: all other choices.",
            rate=rate,
            error=error,
            above=above,
            wasted=wasted,
            numbers=numbers,
            steps=codebook_size * dim * sum(widths),
        ),
    )
    axes = figure.subplots()
    sizes = {"num_quantizers": num_quantizers, "codebook_size": codebook_size, "beam_size": beam_size}
    axes.set(title=said("M = {num_quantizers}, K = {codebook_size}, beam {beam_size}", **sizes), yscale="log")
    axes.set(xlabel=said("bits per dimension"), ylabel=said("mean squared error per dimension"))
    rates = np.linspace(0, stages[-1] * math.log2(max(size for size, _ in measured)) / dim, 2)
    bound = axes.plot(rates, 4.0**-rates, "--", color=COLORS["bound"], linewidth=1.2)[0]
    for (size, _), errors in measured.items():
        axes.plot(stages * math.log2(size) / dim, errors, ".", color=COLORS["unused"], markersize=5)
    color = SERIES_COLORS[0]
    chosen = axes.plot(stages[:num_quantizers] * math.log2(codebook_size) / dim, path, "o-", color=color)[0]
    axes.plot([rate, rate], [4.0**-rate, error], ":", color=color, linewidth=1.4)
    axes.plot(rate, error, "o", color=color, markersize=11, markeredgecolor="white")
    axes.legend([chosen, bound], [said("the choice, stage by stage"), said("Shannon's bound")], loc="lower left")
    return figure


def _changes(curves: Mapping[str, Sequence[float]]) -> str:
    return said("; ").join(
        said("{name} goes from {first} to {last}", name=named(name), first=_short(y[0]), last=_short(y[-1]))
        for name, y in curves.items()
    )


def _from_to(name: str, first: float, last: float) -> str:
    return said("{name} {first} to {last}", name=named(name), first=_short(first), last=_short(last))


def _with_name(name: str, values: str) -> str:
    return said("{name}: {values}", name=name, values=values) if name else values


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def _short(value: float) -> str:
    """A number as it is said: 16,384 or 0.0285."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if 0 < abs(value) < 1e-6 else np.format_float_positional(float(f"{value:.3g}") + 0, trim="-")


def _then(values: Iterable[float]) -> str:
    """Numbers one after the other: 1, 2 and 4."""
    *most, last = (_short(float(value)) for value in values)
    return said("{most} and {last}", most=said(", ").join(most), last=last) if most else last


def _shape(name: str, x: Sequence[float], y: Sequence[float], xlabel: str) -> str:
    """What a curve does between its ends: it stays level, turns, or rises or falls, sooner or later."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    name, span = named(name), np.ptp(y)
    if span <= 0.02 * np.abs(y).max():
        return said("{name} stays level", name=name)
    for extreme, sentence in (
        (y.argmax(), later("{name} peaks at {xlabel} {x:g} with {y}")),
        (y.argmin(), later("{name} is lowest at {xlabel} {x:g} with {y}")),
    ):
        if min(abs(y[extreme] - y[0]), abs(y[extreme] - y[-1])) > 0.1 * span:
            return said(sentence, name=name, xlabel=xlabel, x=x[extreme], y=_short(y[extreme]))
    middle = x[(np.abs(y - y[0]) >= abs(y[-1] - y[0]) / 2).argmax()]
    if y[-1] > y[0]:
        return said("{name} rises, half of the way by {xlabel} {x:g}", name=name, xlabel=xlabel, x=middle)
    return said("{name} falls, half of the way by {xlabel} {x:g}", name=name, xlabel=xlabel, x=middle)


def _halfway(
    curves: Mapping[str, tuple[Sequence[float], np.ndarray]],
    bound: tuple[Sequence[float], Sequence[float]] | None,
    xlabel: str,
    say: Callable[[float], str] = _short,
) -> str:
    """Where the curves stand, from the highest to the lowest, halfway along the shortest of them."""
    means = {named(name): (x, np.atleast_2d(y).mean(0)) for name, (x, y) in curves.items()}
    if bound:
        means[said("Shannon's bound")] = bound
    half = np.mean([max(x[0] for x, _ in means.values()), min(x[-1] for x, _ in means.values())])
    logarithmic = all(np.min(y) > 0 for _, y in means.values())
    scale, back = (np.log, np.exp) if logarithmic else (np.asarray, float)
    heights = {name: back(np.interp(half, x, scale(y))) for name, (x, y) in means.items()}
    ranked = sorted(heights, key=heights.get, reverse=True)
    values = said(", ").join(f"{name} {say(heights[name])}" for name in ranked)
    return said("At {half:.3g} {xlabel}: {values}", half=half, xlabel=xlabel, values=values)


def _mean_over_seeds(axes: Axes, x: np.ndarray, values: np.ndarray, name: str, rank: int) -> Line2D:
    """The mean of the values, (seeds, R), with their spread as error bars where there are several seeds."""
    deviation = values.std(0) if len(values) > 1 else None
    style = _series_style(name, rank) | {"capsize": 3, "elinewidth": 1.2}
    return axes.errorbar(x, values.mean(0), deviation, **style).lines[0]


def _series_style(name: str, rank: int) -> dict[str, object]:
    if name in COLORS:
        return {"color": COLORS[name], "marker": MARKERS.get(name, "o"), "markersize": 5}
    rank %= len(SERIES_COLORS)
    return {"color": SERIES_COLORS[rank], "marker": SERIES_MARKERS[rank], "markersize": 5}


def _label_ends(axes: Axes, lines: Mapping[str, Line2D]) -> None:
    """Write each line's name to the right of the axes, at the height of its end, never over another name."""
    axes.margins(x=0.01)
    axes.autoscale_view()  # or the limits would be settled later, by drawing
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = {name: to_axes.transform(line.get_xydata()[-1])[1] for name, line in lines.items()}
    order = sorted(heights, key=heights.get)
    line_height = 0.22 / (axes.figure.get_size_inches()[1] - 0.9)
    for name, height in zip(order, _spread([heights[n] for n in order], line_height), strict=True):
        color = ink(lines[name].get_color())
        axes.text(1.015, height, named(name), transform=axes.transAxes, va="center_baseline", color=color)


def _spread(heights: Sequence[float], gap: float) -> np.ndarray:
    """Rising heights, moved to be at least a gap apart and, where there is room, to stay within [0, 1]."""
    steps = gap * np.arange(len(heights))
    lifted = np.maximum.accumulate(np.asarray(heights) - steps)
    return np.clip(lifted, 0, max(1 - steps[-1], 0)) + steps
