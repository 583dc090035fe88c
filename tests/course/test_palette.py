"""The course's colours, as readers see them who see fewer: contrast with white, and with each other."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb, to_rgba_array
from matplotlib.text import Text
from skimage.color import deltaE_ciede2000, rgb2lab
from test_plots import PICTURES

from rvq_tutorial.course.plots.figure import COLORS, SERIES_COLORS, ink

PALETTE = COLORS | {f"series {rank}": color for rank, color in enumerate(SERIES_COLORS)}
APART = 10  # in CIEDE2000, where 1 is hardly seen and black is 100 from white
# How linear RGB looks without one of the three kinds of cones (Machado, Oliveira and Fernandes 2009, "A
# physiologically-based model for simulation of color vision deficiency", severity 1).
VISION = {
    "all cones": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(color):
    """sRGB without its gamma."""
    channels = np.array(to_rgb(color))
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def seen(color, vision):
    """The colour in CIELAB, as it looks to these eyes."""
    light = np.clip(VISION[vision] @ linear(color), 0, 1)
    return rgb2lab(np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055))


def contrast(color, background="white"):
    """WCAG 2's contrast ratio."""
    luminances = [linear(c) @ [0.2126, 0.7152, 0.0722] + 0.05 for c in (color, background)]
    return max(luminances) / min(luminances)


@pytest.fixture(scope="module")
def figures():
    return [draw() for draw in PICTURES.values()]


@pytest.fixture(scope="module")
def shared(figures):
    """Pairs of the palette's colours that are in the same picture."""
    return {pair for figure in figures for pair in itertools.combinations(colors_of(figure), 2)}


def colors_of(figure):
    """The palette's colours that the picture uses, by name."""
    found = set()
    for artist in figure.findobj():
        for kind in ("color", "facecolor", "edgecolor", "markerfacecolor"):
            if callable(get := getattr(artist, f"get_{kind}", None)):
                found |= {to_hex(color) for color in to_rgba_array(get())}
    return [name for name, color in PALETTE.items() if color.lower() in found]


@pytest.mark.parametrize("vision", VISION)
def test_colours_that_share_a_picture_differ_for_all_eyes(vision, shared):
    assert ("data", "codeword") in shared and ("series 0", "series 1") in shared
    apart = {pair: deltaE_ciede2000(*(seen(PALETTE[name], vision) for name in pair)) for pair in shared}
    assert {pair: distance for pair, distance in apart.items() if distance < APART} == {}


def test_the_simulated_eyes_confuse_what_they_are_known_to():
    """Red and green at equal luminance are alike without one of two kinds of cones; blue and yellow never are."""

    def apart(vision, one, other):
        return deltaE_ciede2000(seen(one, vision), seen(other, vision))

    assert apart("all cones", "#B05020", "#6A7A20") > 30
    assert apart("deuteranopia", "#B05020", "#6A7A20") < 15
    assert apart("deuteranopia", "blue", "yellow") > 60


def test_colours_stand_out_from_white():
    """WCAG 2.1, 1.4.11: 3 to 1 for what must be seen. A dark page changes nothing: a picture brings its own white."""
    assert {name: contrast(color) for name, color in PALETTE.items() if contrast(color) < 3} == {}


def test_words_stand_out_from_what_is_behind_them(figures):
    """WCAG 2.1, 1.4.3: 4.5 to 1 for text, on white and on the tints of a graph's boxes."""
    words = {to_hex(text.get_color()): text.get_text() for figure in figures for text in figure.findobj(Text)}
    assert {color: text for color, text in words.items() if contrast(color) < 4.5} == {}
    assert min(contrast(ink(color)) for color in PALETTE.values()) >= 4.5
    tints = [0.45 * np.array(to_rgb(color)) + 0.55 for color in PALETTE.values()]
    assert min(contrast("black", tint) for tint in tints) >= 4.5
