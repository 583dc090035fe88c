"""Photos, their patches and their colours."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.collections import LineCollection
from matplotlib.font_manager import FontProperties
from torch import Tensor

from rvq_tutorial.course.plots.figure import (
    COLORS,
    MARKERS,
    PIXELS_PER_INCH,
    Figure,
    in_house_style,
    named,
    place,
    titled,
)
from rvq_tutorial.course.plots.plane import used_codewords
from rvq_tutorial.language import said
from rvq_tutorial.metrics import psnr
from rvq_tutorial.search import nearest


@in_house_style
def color_cube(photo: Tensor, codebook: Tensor | None = None) -> Figure:
    """A photo beside its pixels as points in the cube of all colours; with a codebook, the photo rebuilt from it.

    photo: (3, H, W) in [0, 1]. codebook: (K, 3), drawn as a palette under the photo, from dark to light, and as
    crosses in the cube. The cube shows at most 1,200 pixels, spread evenly over the photo.
    """
    if photo.ndim != 3 or len(photo) != 3:
        raise ValueError(said("photo must be (3, H, W), got shape {shape}", shape=tuple(photo.shape)))
    shown = photo = photo.detach().cpu().float()
    height, width = photo.shape[1:]
    pixels = photo.flatten(1).T
    colours = len(pixels.unique(dim=0))
    words = said(
        "{height} × {width} pixels, {colours:,} different colours", height=height, width=width, colours=colours
    )
    alt = said("A photo and its pixels in the cube of all colours. {words}.", words=words)
    more = said("Each dot is a pixel in its own colour; all greys lie on the line from black to white.")
    if codebook is not None:
        codebook = codebook.detach().cpu().float()
        size, indices = len(codebook), nearest(pixels, codebook)
        used, shown = used_codewords(indices, size).numpy(), codebook[indices].T.unflatten(1, (height, width))
        bits = said("1 bit") if size == 2 else said("{bits:.3g} bits", bits=math.log2(size))
        level = psnr(photo, shown)
        words = said("K = {size}: {bits} per pixel, PSNR {level:.1f} dB", size=size, bits=bits, level=level)
        alt = said("A rebuilt photo, its palette and its pixels in the cube of all colours. {words}.", words=words)
        more = said(
            "Crosses are codewords in their own colours, hollow if no pixel uses them: {unused} of {size}.",
            unused=(~used).sum(),
            size=size,
        )
    # In inches, and so that a pixel of the photo is a square of whole screen pixels.
    wide, high = np.array([width, height]) * max(1, min(960 // width, 720 // height)) / PIXELS_PER_INCH
    top = max(high + 0.85, 3.9)
    greyness = (pixels - pixels.mean(1, keepdim=True)).norm(dim=1)
    greys = said(
        "Half of the pixels lie within {half:.2g} of the line of greys, all within {all:.2g}.",
        half=greyness.median(),
        all=greyness.max(),
    )
    alt = f"{alt} {greys}"
    figure = Figure(wide + 4.0, top, alt=alt, caption=more)
    axes = place(figure, 0, top - high - 0.3, wide, high)
    axes.set_title(words, fontsize=10, pad=4)
    _draw_pixels(axes, shown)
    cube = place(figure, wide + 0.2, top - 3.85, 3.8, 3.8)
    _draw_cube(cube, pixels[:: math.ceil(len(pixels) / 1200)])
    if codebook is not None:
        darkest_first = codebook[codebook.sum(1).argsort()]
        _draw_pixels(place(figure, 0, top - high - 0.75, wide, 0.38), darkest_first.T[:, None])
        _draw_own_colors(cube, codebook.numpy(), used)
    return figure


# Where one who looks down on the magenta corner sees red, green and blue: to the right, up, and towards the eye.
VIEW = np.array([[0.848, 0.530, 0.0], [-0.216, 0.345, 0.914], [0.484, -0.775, 0.407]])


def _draw_cube(axes: Axes, pixels: Tensor) -> None:
    names = said("black"), said("red"), said("yellow"), said("white"), said("cyan"), said("blue")
    corners = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1), (0, 1, 1), (0, 0, 1)]) @ VIEW[:2].T
    near, far = VIEW[:2] @ [1, 0, 1], VIEW[:2] @ [0, 1, 0]
    axes.fill(*corners.T, facecolor="#E8E8E8", edgecolor="#B0B0B0", linewidth=0.8, zorder=1)
    inner = [(near, corners[i]) for i in (1, 3, 5)] + [(far, corners[i]) for i in (0, 2, 4)]
    axes.add_collection(LineCollection(inner, colors="#B0B0B0", linewidths=0.8, linestyles=["-"] * 3 + [":"] * 3))
    for name, corner, way in zip(names, corners, corners - corners.mean(0), strict=True):
        side = {"ha": "left" if way[0] > 0 else "right", "va": "bottom" if way[1] > 0 else "top"}
        axes.text(*(corner + 0.04 * way), name, fontsize=9, color="#444444", **side)
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
        shape = tuple(images.shape)
        raise ValueError(
            said("images must be (n, 3, H, W) with n titles, got {shape} and {titles}", shape=shape, titles=len(titles))
        )
    titles = [titled(title) for title in titles]
    spoken = said("; ").join(" ".join(title.split()) for title in titles)
    # In screen pixels: a photo is at least 350 wide, a row at most 1800, rows are as long as each other.
    count, _, height, width = images.shape
    gap = 24
    scale = max((1800 // count - gap) // width, math.ceil(350 / width))
    cell_width = max(scale * width, *map(_text_width, titles)) + gap
    cell_height = scale * height + 10 + 36 * max(len(title.splitlines()) for title in titles) + gap
    rows = math.ceil(count / max(1800 // cell_width, 1))
    columns = math.ceil(count / rows)
    inches = np.array([columns * cell_width, rows * cell_height, width * scale, height * scale]) / PIXELS_PER_INCH
    if rows > 1:
        alt = said("{count} pictures in {rows} rows: {titles}.", count=count, rows=rows, titles=spoken)
    else:
        alt = (
            said("From left to right: {titles}.", titles=spoken)
            if count > 1
            else said("One picture: {titles}.", titles=spoken)
        )
    figure = Figure(*inches[:2], alt=alt, caption=caption)
    pixels = images.detach().cpu().float().clamp(0, 1).permute(0, 2, 3, 1).numpy()
    for i, (photo, title) in enumerate(zip(pixels, titles, strict=True)):
        corner = np.array([i % columns * cell_width, (rows - 1 - i // columns) * cell_height + gap])
        axes = place(figure, *corner / PIXELS_PER_INCH, *inches[2:])
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
        sizes = {"number": len(first), "shape": tuple(first.shape[1:])}
        raise ValueError(said("rows must hold at most {number} pictures of shape {shape} each", **sizes))
    rows = {named(name): patches for name, patches in rows.items()}
    count, _, height, width = first.shape
    gap, left = 8, max(map(_text_width, rows)) + 20  # in screen pixels, as all that follows
    scale = max(1, min((1780 - left) // count // width, 1150 // len(rows) // height, 14) - 1)
    cell_width, cell_height = scale * width + gap, max(scale * height + gap, 40)
    inches = np.array([left + count * cell_width, len(rows) * cell_height + gap]) / PIXELS_PER_INCH
    tints = {name: patches.mean((1, 2, 3)) for name, patches in rows.items()}
    told = [
        said("{name}, from {low:.2f} to {high:.2f}", name=name, low=tint.min(), high=tint.max())
        for name, tint in tints.items()
    ]
    if len(told) > 4:
        told = [told[0], told[-1]]
    alt = said(
        "{rows} rows of {count} pictures of {height} × {width} pixels. Their brightness: {told}.",
        rows=len(rows),
        count=count,
        height=height,
        width=width,
        told=said("; ").join(told),
    )
    figure = Figure(*inches, alt=alt, caption=caption)
    for row, (name, patches) in enumerate(rows.items()):
        bottom = (len(rows) - 1 - row) * cell_height + gap
        framed = F.pad(_enlarged(patches, scale), (0, gap), value=1.0)
        strip = torch.cat(list(framed), dim=2)
        corner = np.array([left, bottom, strip.shape[2], strip.shape[1]]) / PIXELS_PER_INCH
        axes = place(figure, *corner)
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
        sizes = {"shape": tuple(indices.shape), "height": height, "width": width}
        raise ValueError(said("indices must cover the photo, got {shape} for {height} × {width} pixels", **sizes))
    chosen = indices == index
    here = _enlarged(chosen[None, None], size)[0, :, :height, :width]
    faded = 0.72 + 0.2 * photo.mean(0, keepdim=True)
    share = chosen.double().mean().item()
    upper, left_half = chosen.tensor_split(2, 0)[0], chosen.tensor_split(2, 1)[0]
    above, beside = (part.sum().item() / max(chosen.sum().item(), 1) for part in (upper, left_half))
    scale = max(1, 1100 // width)
    side = 320 // size * size
    inches = np.array([side + width * scale + 60, max(height * scale, side) + 50]) / PIXELS_PER_INCH
    figure = Figure(
        *inches,
        alt=said(
            "Left, a patch of brightness {brightness:.2f}. Right, a faded photo, in colour only where that patch "
            "stands: {above:.0%} of these places in the upper half, {beside:.0%} in the left half.",
            brightness=patch.mean(),
            above=above,
            beside=beside,
        ),
        caption=said(
            "Codeword {index}, decoded alone, and where it stands in the photo: at {places} of {all:,} places, "
            "{share:.1%}.",
            index=index,
            places=chosen.sum(),
            all=chosen.numel(),
            share=share,
        ),
    )
    top = inches[1] - 50 / PIXELS_PER_INCH
    for left, shown, times, name in (
        (0, patch, side // size, said("codeword {index}", index=index)),
        (side + 60, torch.where(here, photo, faded), scale, said("{places} places", places=chosen.sum())),
    ):
        wide, high = np.array([shown.shape[2], shown.shape[1]]) * times / PIXELS_PER_INCH
        axes = place(figure, left / PIXELS_PER_INCH, top - high, wide, high)
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
