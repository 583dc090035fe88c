"""Sliders bound to a picture, a curve that follows training, a button for a photo. Core ipywidgets alone, 7.7 or 8."""

import html
import io
import itertools
import math
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ipywidgets
from IPython.display import display
from torch import Tensor
from tqdm import tqdm

from rvq_tutorial.autoencoder.interrupts import held
from rvq_tutorial.codec import pictures
from rvq_tutorial.course import plots
from rvq_tutorial.language import later, said

LABELS = {
    "num_quantizers": later("quantizers M"),
    "codebook_size": later("codebook size K"),
    "commitment_weight": later("commitment weight β"),
}
UPLOADS = ("jpeg", "png", "webp", "gif", "bmp", "tiff")
UPLOAD_MEGABYTES = 10  # what fits into one message to the notebook's server
LIMIT = later("{kinds}; up to {megabytes} MB: Jupyter drops what is larger.")
SECONDS_BETWEEN_PICTURES = 2.0  # while training: a picture takes about a tenth of a second
SPEAK = Path(__file__).with_name("speak.js").read_text(encoding="utf-8")


def explore(picture: Callable[..., plots.Figure], /, **choices: Sequence[Any]) -> "Explorer | None":
    """Sliders for the arguments of a pure function that draws, each with its fixed list of values.

    All pictures are drawn here and now, so that a slider only has to show one; an error in any of them is raised
    here. `explore(draw, num_quantizers=[1, 2, 4, 8])` calls draw(num_quantizers=1), draw(num_quantizers=2), ...
    Interrupt it, and there are no sliders but a sentence.
    """
    if not choices or not all(choices.values()):
        raise ValueError(said("choices must give every argument at least one value, got {choices}", choices=choices))
    frames: dict[tuple[Any, ...], str] = {}
    combinations = list(itertools.product(*choices.values()))
    bar = tqdm(combinations, desc=said("Drawing"), unit=said("picture"), delay=2, leave=False, file=sys.stdout)
    with held() as interrupted, bar:
        for values in bar:
            if interrupted():
                break
            frames[values] = picture(**dict(zip(choices, values, strict=True))).html()
    if len(frames) < len(combinations):
        sentence = later("Stopped after {drawn} of {all} pictures: run this cell again to see its sliders.")
        print(said(sentence, drawn=len(frames), all=len(combinations)))
        return None
    return Explorer(picture, choices, frames)


class Explorer:
    """A picture with its sliders; all start in the middle of their values. Where no kernel runs, a still shows.

    `frames` has the picture, HTML, for each combination of values.
    """

    def __init__(
        self,
        picture: Callable[..., plots.Figure],
        choices: Mapping[str, Sequence[Any]],
        frames: Mapping[tuple[Any, ...], str],  # HTML
    ):
        self._picture = picture
        self._choices = choices
        self.frames = frames
        self.sliders = _sliders(choices)
        self._shown = ipywidgets.HTML()
        self.box = ipywidgets.VBox([*self.sliders.values(), self._shown, _voice()])
        for slider in self.sliders.values():
            slider.tooltip = ""  # or ipywidgets 8 describe it as "null"
            slider.observe(self._show, "value")
        self._show()

    @property
    def values(self) -> dict[str, Any]:
        """What the sliders stand at, by name."""
        return {name: slider.value for name, slider in self.sliders.items()}

    @property
    def figure(self) -> plots.Figure:
        """The picture for the present values."""
        return self._picture(**self.values)

    def sweep(self) -> Iterator[dict[str, Any]]:
        """Move the sliders through every combination of their values, and give each in turn."""
        for combination in itertools.product(*self._choices.values()):
            for slider, value in zip(self.sliders.values(), combination, strict=True):
                slider.value = value
            yield self.values

    def _show(self, _change: Any = None) -> None:
        self._shown.value = self.frames[tuple(self.values.values())]

    def _ipython_display_(self) -> None:
        with held():  # its still is drawn once more
            display(_view(self.box, self.figure), raw=True)


@contextmanager
def live_curve(*names: str, **style: Any) -> Iterator[Callable[[Mapping[str, Sequence[float]]], None]]:
    """Curves of a history's names, drawn while it grows; at the end they stay as a still picture.

    `with live_curve("loss", log=True) as draw: fit(model, images, steps=600, on_step=draw)`. The style is that of
    `plots.curve`.
    """
    picture, shown, latest, drawn_at = ipywidgets.HTML(), None, None, -math.inf

    def draw(history: Mapping[str, Sequence[float]]) -> None:
        nonlocal shown, latest, drawn_at
        latest = history
        if time.monotonic() - drawn_at < SECONDS_BETWEEN_PICTURES:
            return
        figure = _curve()
        picture.value = figure.html()
        shown = shown or display(_view(picture, figure), raw=True, display_id=True)
        drawn_at = time.monotonic()

    def _curve() -> plots.Figure:
        return plots.curve({name: latest[name] for name in names}, **style)

    try:
        yield draw
    finally:
        if shown:
            with held():  # whoever stopped the training may press twice
                shown.update(_curve()._repr_mimebundle_(), raw=True)


class Upload:
    """A button that takes a picture file of the reader's. Where no kernel runs, a sentence stands in its place."""

    def __init__(self) -> None:
        # A list of kinds, not image/*: asked for these, a phone hands its HEIC photos over as JPEG.
        accept = ",".join(f"image/{kind}" for kind in UPLOADS)
        self.button = ipywidgets.FileUpload(accept=accept, multiple=False, description=said("Your photo"))
        kinds = ", ".join(map(str.upper, UPLOADS))
        limit = ipywidgets.HTML(f"<small>{said(LIMIT, kinds=kinds, megabytes=UPLOAD_MEGABYTES)}</small>")
        self.button.tooltip = ""  # or ipywidgets 8 describe it as "null"
        self.box = ipywidgets.VBox([self.button, limit])

    def photo(self, otherwise: Tensor) -> Tensor:
        """The photo that was uploaded, (3, H, W) with values in [0, 1], or `otherwise` if none was.

        What became of the upload is printed where it isn't plain: none arrived, it can't be read, or transparent parts
        were put on white.
        """
        name, content = _uploaded(self.button.value)
        if content is None:
            print(
                said(
                    "No photo of yours has arrived (up to {megabytes} MB can): another one stands in for it.",
                    megabytes=UPLOAD_MEGABYTES,
                )
            )
            return otherwise
        try:
            photo, remarks = pictures.read_picture(io.BytesIO(content), Path(name).name)
        except ValueError as error:
            print(said("{error}. Another photo stands in for it.", error=error))
            return otherwise
        for remark in remarks:
            print(remark)
        return photo

    def _ipython_display_(self) -> None:
        words = f"<p>{said('Here stands a button for a photo of your own while the notebook runs.')}</p>"
        display(_live(self.box) | {"text/html": words, "text/plain": said("A button for a photo.")}, raw=True)


def _uploaded(value: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[str, bytes | None]:
    """Name and content of the file in a FileUpload's value: by name in ipywidgets 7, a tuple of files in 8."""
    files = value.items() if isinstance(value, Mapping) else [(file["name"], file) for file in value]
    for name, file in files:
        return name, bytes(file["content"])
    return "", None


def _sliders(choices: Mapping[str, Sequence[Any]]) -> dict[str, ipywidgets.SelectionSlider]:
    labels = {name: said(LABELS.get(name, name.replace("_", " "))) for name in choices}
    width = f"{max(map(_ems, labels.values())) + 1:.1f}em"  # room for the longest label
    return {
        name: ipywidgets.SelectionSlider(
            options=[(f"{value:g}" if isinstance(value, float) else str(value), value) for value in values],
            value=values[len(values) // 2],
            description=labels[name],
            style={"description_width": width},
            # Where there is little room, the label stands above its slider.
            layout={"width": "32em", "max_width": "100%", "height": "auto", "flex_flow": "row wrap"},
        )
        for name, values in choices.items()
    }


def _ems(text: str) -> float:
    """About how wide a text is: a Chinese character is as wide as it is high."""
    return sum(1.0 if unicodedata.east_asian_width(character) in "FW" else 0.6 for character in text)


def _voice() -> ipywidgets.HTML:
    """What makes the box around it speak to screen readers: a widget runs no script, but what a loaded image says.

    Where a page forbids even that, sliders have no name; the pictures keep their words.
    """
    dot = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
    return ipywidgets.HTML(f'<img alt="" src="{dot}" onload="{html.escape(SPEAK)}">', layout={"display": "none"})


def _view(widget: ipywidgets.Widget, figure: plots.Figure) -> dict[str, Any]:
    """What the notebook stores: the live widget and, where no kernel runs, the picture as it is now."""
    return {**_live(widget), **figure._repr_mimebundle_()}


def _live(widget: ipywidgets.Widget) -> dict[str, Any]:
    model = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return {"application/vnd.jupyter.widget-view+json": model}
