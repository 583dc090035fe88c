"""What every picture is: a matplotlib figure that carries its words, in the course's colours and letters."""

import base64
import functools
import html
import io
import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.font_manager import FontProperties, fontManager
from PIL import Image

from rvq_tutorial.language import said

# One meaning a colour, through the whole course: the hues of Okabe and Ito's palette, dark enough to stand out from
# white (3 : 1), and as far apart for colour-blind readers as that allows.
COLORS = {
    "data": "#4899C7",
    "codeword": "#D55E00",
    "residual": "#00825E",
    "reconstruction": "#9C5B7F",
    "train": "#0072B2",
    "held_out": "#C98500",
    "bound": "#000000",
    "unused": "#949494",
}
MARKERS = {"codeword": "X", "reconstruction": "s", "held_out": "D"}  # all others: a dot
# For curves and bars without a meaning of their own: hues of Tol's muted palette that are not in COLORS.
SERIES_COLORS = ("#332288", "#882255", "#999933", "#117733", "#CC6677")
SERIES_MARKERS = "^v<>P"

CSS_DPI = 100  # one inch of a figure is 100 CSS pixels, so that 10 points are as large as a notebook's text
PIXELS_PER_INCH = 2 * CSS_DPI  # drawn at twice the size, to be crisp on dense screens

_STYLE = {
    "font.family": ["DejaVu Sans"],  # ships with matplotlib: the same letters everywhere
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
in_house_style = mpl.rc_context(_STYLE)


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that shows itself in a notebook with an alternative text and a caption.

    width and height are in inches of 100 CSS pixels. No pyplot state knows it; Agg alone draws it.
    """

    def __init__(self, width: float, height: float, *, alt: str, caption: str):
        super().__init__((width, height), PIXELS_PER_INCH, facecolor="white", layout="constrained")
        _Canvas(self)
        self._alt = _spelled(alt)
        self.caption = _spelled(caption)

    @property
    def alt(self) -> str:
        """What there is to see, after the title, if there is one: nothing else reads it out."""
        titles = [text.get_text() for text in self.texts] or [axes.get_title(loc="left") for axes in self.axes]
        title = " ".join(titles[0].split()) if len(titles) == 1 else ""
        if not title or title in self._alt:
            return self._alt
        if title[-1] in ".:?!。：？！":
            return f"{_spelled(title)} {self._alt}"
        return said("{title}. {alt}", title=_spelled(title), alt=self._alt)

    def png(self) -> bytes:
        """The picture as PNG, encoded for speed rather than size."""
        return _encode(self._pixels(), "PNG", compress_level=1)

    def html(self) -> str:
        """The picture, as by `png`, and its words."""
        return self._with_words("png", self.png())

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        pixels = self._pixels()
        if not any(axes.images for axes in self.axes):  # a chart loses nothing in 256 colours; a photo would
            pixels = pixels.quantize(256, dither=Image.Dither.NONE).convert("RGB")
        # HTML, for it is what JupyterLab, VS Code, nbviewer and GitHub take first, and JupyterLab gives an image/png no
        # alternative text; both would be twice the bytes. WebP without loss: JPEG would blur the edges of a photo's
        # pixels, PNG takes half as many bytes again: 01 and 06 above 2 MB. GitHub passes even SVG in a data URI.
        return {"text/html": self._with_words("webp", _encode(pixels, "WEBP", lossless=True)), "text/plain": self.alt}

    def _with_words(self, kind: str, encoded: bytes) -> str:
        width, height = (round(inches * CSS_DPI) for inches in self.get_size_inches())
        caption = (
            f'<figcaption style="line-height: 1.4">{html.escape(self.caption)}</figcaption>' if self.caption else ""
        )
        return (
            f'<figure style="margin: 0; max-width: {max(width, 560)}px">'
            f'<img alt="{html.escape(self.alt)}" width="{width}" height="{height}" '
            'style="max-width: 100%; height: auto" '  # on narrow pages, and in widgets, which have no such rule
            f'src="data:image/{kind};base64,{base64.b64encode(encoded).decode()}">{caption}</figure>'
        )

    def _pixels(self) -> Image.Image:
        with mpl.rc_context({"font.family": _STYLE["font.family"]}):  # some labels are only made while drawing
            self.canvas.draw()
        return Image.fromarray(np.asarray(self.canvas.buffer_rgba())).convert("RGB")


class _Canvas(FigureCanvasAgg):
    """Draws figures of one size into the same memory.

    A figure is a circle of references, and its texts keep what they were drawn in: some megabytes for each picture of a
    slider or of a training under way, until Python looks for circles.
    """

    def get_renderer(self) -> RendererAgg:
        return _renderer(*self.get_width_height(physical=True), self.figure.dpi)


@functools.lru_cache(maxsize=1)
def _renderer(width: int, height: int, dpi: float) -> RendererAgg:
    return RendererAgg(width, height, dpi)


def _encode(pixels: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    pixels.save(buffer, format=kind, **options)
    return buffer.getvalue()


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches: they stay there whatever a slider changes, where a layout would move them."""
    figure.set_layout_engine("none")
    return figure.add_axes(np.array([left, bottom, width, height]) / np.tile(figure.get_size_inches(), 2))


def _spelled(words: str) -> str:
    """The words with a minus before each negative number: a hyphen is not read out."""
    return re.sub(r"(?<!\w)-(?=\d)", "−", words)


def add_letters(font: str | Path) -> None:
    """Take letters that the pictures' own font has not from the font in this file, from here on."""
    name = FontProperties(fname=font).get_name()
    if name not in _STYLE["font.family"]:
        fontManager.addfont(font)
        _STYLE["font.family"].append(name)


def ink(color: str) -> tuple[float, ...]:
    """The colour, dark enough to read as text on white."""
    return tuple(0.62 * channel for channel in mpl.colors.to_rgb(color))


def named(name: str) -> str:
    """A name that a notebook gives, as a reader sees it."""
    return said(name.replace("_", " "))


def titled(title: str) -> str:
    """A title that a notebook gives, as a reader sees it: all of it a name, or names and facts side by side."""
    flat = " ".join(title.split())
    found = said(flat)
    if found != flat:  # the line breaks where it does in English
        return re.sub("([:：]) ?", r"\1\n", found, count=1) if "\n" in title else found
    pieces = re.split("(, |，|\n)", title)
    return "".join(piece if number % 2 else said(piece) for number, piece in enumerate(pieces))
