import base64
import gc
import io
import itertools
import re

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.text import Text
from PIL import Image

from rvq_tutorial import nearest
from rvq_tutorial.course import plots
from rvq_tutorial.course.plots import curves, diagrams
from rvq_tutorial.course.plots.diagrams import Arrow, Box

generator = torch.Generator().manual_seed(0)
POINTS = torch.randn(200, 2, generator=generator)
CODEBOOK = torch.randn(16, 2, generator=generator)
CODEBOOKS = torch.stack([torch.randn(16, 2, generator=generator) / 3**stage for stage in range(8)])
PHOTOS = torch.rand(5, 3, 40, 64, generator=generator)
RATES = np.array([1.0, 2.0, 4.0, 8.0])
PATCHES = torch.rand(16, 3, 8, 8, generator=generator)
GRID = torch.arange(40).view(5, 8) % 4  # indices of the patches of a photo
LOSSES = {"train": [1 / (step + 1) for step in range(300)], "held_out": [1.1 / (step + 1) for step in range(300)]}

REPAIRS = {
    title: {name: np.outer([1, 1.5], scale * np.array([30, 20, 9, 6, 4, 2, 1])) for name in ("neither", "EMA")}
    for title, scale in (("without restarts", 0.01), ("with restarts", 0.006))
}
SCORES = {
    "one 1 × 256": {"held-out MSE": [0.1, 0.104, 0.107], "numbers stored": 1024, "multiply–adds": 1024},
    "residual 2 × 16, beam 4": {"held-out MSE": [0.112, 0.115, 0.114], "numbers stored": 128, "multiply–adds": 320},
    "scalar 4 × 4": {"held-out MSE": [0.119, 0.117, 0.121], "numbers stored": 16, "multiply–adds": 16},
}
VARIANCES = torch.tensor([0.23, 0.0022, 0.0018, 0.0003])
MEASURED = {(size, beam): [1.5**m * size ** (-m / 2) for m in (1, 2, 3)] for size in (4, 64) for beam in (1, 16)}

PICTURES = {
    "voronoi": lambda: plots.voronoi(POINTS, CODEBOOK),
    "voronoi, one codeword": lambda: plots.voronoi(POINTS, CODEBOOK[:1]),
    "voronoi, all codewords equal": lambda: plots.voronoi(POINTS, CODEBOOK[:1].expand(4, 2)),
    "voronoi, arrows": lambda: plots.voronoi(POINTS, 4 * CODEBOOK, arrows=0.1 * POINTS, title="Gradients"),
    "cells side by side": lambda: plots.cells_side_by_side(
        POINTS, {"box cells": torch.cartesian_prod(*2 * [torch.tensor([-1.0, 0.0, 1.0])]), "free cells": CODEBOOK[:8]}
    ),
    "gradient field": lambda: plots.gradient_field(POINTS, 4 * CODEBOOK, 0.25),
    "residual stages, 1 of 1": lambda: plots.residual_stages(POINTS, CODEBOOKS[:1], 1),
    "residual stages, 3 of 4": lambda: plots.residual_stages(POINTS, CODEBOOKS[:4], 3),
    "residual stages, 8 of 8": lambda: plots.residual_stages(1e-3 * POINTS, 1e-3 * CODEBOOKS, 8),
    "codebook moments": lambda: plots.codebook_moments(
        POINTS, {"before": 3 * CODEBOOK, "in between": CODEBOOK, "after": 3 * CODEBOOK}, 3, caption="It comes back."
    ),
    "codeword paths": lambda: plots.codeword_paths(POINTS, torch.stack([4 * CODEBOOK, 2 * CODEBOOK, CODEBOOK])),
    "codeword paths, none moved": lambda: plots.codeword_paths(POINTS, CODEBOOK.expand(3, 16, 2)),
    "staircase": lambda: plots.staircase(torch.tensor([-1.0, 0.0, 1.0]), target=0.9),
    "staircase, straight-through": lambda: plots.staircase(torch.tensor([-1.0, 0.0, 1.0]), target=0.9, x=-0.7),
    "lookup graph": lambda: plots.lookup_graph(straight_through=False),
    "lookup graph, straight-through": lambda: plots.lookup_graph(straight_through=True),
    "loss graph": plots.loss_graph,
    "residual loop graph, silent": lambda: plots.residual_loop_graph("silent"),
    "residual loop graph, loud": lambda: plots.residual_loop_graph("loud"),
    "residual loop graph, right": lambda: plots.residual_loop_graph("right"),
    "sliding cells, where they lie": lambda: plots.sliding_cells(POINTS, CODEBOOK, 0.0),
    "sliding cells, on their way": lambda: plots.sliding_cells(POINTS, CODEBOOK, 0.6),
    "sliding cells, all at the origin": lambda: plots.sliding_cells(POINTS, CODEBOOK, 1.0),
    "sliding cells, one": lambda: plots.sliding_cells(POINTS, CODEBOOK[:1], 0.5),
    "graph, every kind of arrow": lambda: graph(),
    "moved crowd": lambda: plots.moved_crowd(torch.tensor([-1.0, 0.0, 1.0]), 0.6),
    "moved crowd, within a cell": lambda: plots.moved_crowd(torch.tensor([0.0, 1.0]), 0.2),
    "gradient check": lambda: plots.gradient_check(POINTS[:4], {"frozen": POINTS[:4], "as it is": 0 * POINTS[:4]}),
    "curve": lambda: plots.curve(LOSSES),
    "curve, log": lambda: plots.curve(LOSSES, log=True, title="Training", ylabel="mean squared error"),
    "curve, smooth": lambda: plots.curve(LOSSES, smooth=20),
    "curve, one step": lambda: plots.curve({"loss": [1.0], "psnr": []}),
    "rate–distortion": lambda: plots.rate_distortion(
        {"greedy": (RATES, [4.0**-RATES, 5.0**-RATES]), "beam 16": (RATES, 4.1**-RATES)},
        bound=(RATES, 4.0**-RATES),
        title="How close to the limit?",
    ),
    "rate–distortion, one curve shorter": lambda: plots.rate_distortion(
        {"one codebook": (RATES[:2], 4.0 ** -RATES[:2]), "residual": (RATES, 3.0**-RATES)}
    ),
    "bars": lambda: plots.bars({"residual": 0.05, "one big codebook": [0.02, 0.03]}, label="squared error"),
    "bars below zero": lambda: plots.bars({"a": -1.0, "b": [-2.0, -4.0]}, label="change in dB"),
    "lines": lambda: plots.lines([1, 2, 4], {"a": [3, 2, 1], "b": [3, 2.1, 1]}, xlabel="step", ylabel="usage"),
    "lines, powers of two": lambda: plots.lines(
        2 ** np.arange(3, 11), {"perfect": np.arange(8), "ours": np.ones(8)}, xlabel="size", ylabel="mean", log_x=True
    ),
    "over steps, 5 panels": lambda: plots.over_steps(
        [0, 50, 600],
        {f"slope {n}:\nright − left": {"pixels": [[0.1, 0.3, 0.2], [0.1, 0.4, 0.5]]} for n in range(5)},
        ylabel="share explained",
        limits=(0, 1),
    ),
    "over steps, 2 panels": lambda: plots.over_steps(
        [20, 50], {"PSNR": {"a": [[20, 21]], "b": [[20, 24]]}, "lost": {"a": [[0.1, 0.3]], "b": [[0.1, 0.12]]}}
    ),
    "over steps, logarithmic": lambda: plots.over_steps(
        [25, 50, 100, 200, 400, 2400, 4800], REPAIRS, ylabel="MSE", log=True
    ),
    "over sizes, logarithmic": lambda: plots.over_steps(
        [4, 64, 256], {"": {"by gradient": [[0.03, 0.012, 0.008]]}}, xlabel="codewords", ylabel="MSE", log=True
    ),
    "codebook memory": lambda: plots.codebook_memory(48, [16, 256, 1024]),
    "codebook memory, a binary one": lambda: plots.codebook_memory(1, [2], max_bits=12),
    "scoreboard": lambda: plots.scoreboard(SCORES, title="8 bits for 4 components"),
    "bit shares": lambda: plots.bit_shares(
        VARIANCES, {"alike": torch.full((4,), 2), "shared": torch.tensor([5, 2, 1, 0])}
    ),
    "bit shares, pieces of bits": lambda: plots.bit_shares(VARIANCES, {"shared": torch.tensor([4.9, 1.6, 1.5, 0])}),
    "operating point, 1 stage": lambda: plots.operating_point(MEASURED, 4, 1, 4, 1),
    "operating point, 3 stages": lambda: plots.operating_point(MEASURED, 4, 3, 64, 16),
    "code usage": lambda: plots.code_usage(torch.arange(512)),
    "code usage, one code": lambda: plots.code_usage(torch.tensor([3])),
    "quality": lambda: plots.quality(
        {"train": (RATES, [20 + 3 * RATES, 21 + 3 * RATES]), "held_out": (RATES, 19 + 2 * RATES)},
        title="Held-out pixels",
    ),
    "colour cube": lambda: plots.color_cube(PHOTOS[0]),
    "colour cube, 16 colours": lambda: plots.color_cube(PHOTOS[0], PHOTOS[1].flatten(1).T[:16]),
    "colour cube, tall photo, 256 colours": lambda: plots.color_cube(PHOTOS[0].mT, PHOTOS[1].flatten(1).T[:256]),
    "colour cube, one colour": lambda: plots.color_cube(PHOTOS[0, :, :1, :1], torch.tensor([[2.0, 0.5, -1.0]])),
    "photos": lambda: plots.photo_row(PHOTOS, ["original", *(f"{m} stages\n2{m}.5 dB" for m in (1, 2, 4, 8))]),
    "patches, 2 rows": lambda: plots.patch_rows({"alone": PATCHES[:12], "among": PATCHES[4:8]}, caption="Patches."),
    "patches, 16 rows": lambda: plots.patch_rows({f"{n}": PATCHES for n in range(16)}, caption="Patches."),
    "a codeword's places": lambda: plots.codeword_places(PHOTOS[0], GRID, 2, PATCHES[2]),
    "a codeword's places, a large photo": lambda: plots.codeword_places(
        torch.rand(3, 300, 450), torch.arange(2166).view(38, 57) % 5, 9, PATCHES[0]
    ),
    "photos, long titles": lambda: plots.photo_row(PHOTOS, [40 * "long "] + 4 * ["short"]),
}


BOXES = {"a": Box("a", 1, 2), "b": Box("b", 5, 2, "residual"), "c": Box("c\nd", 2, 0.5, "data", height=0.6)}
ARROWS = [
    Arrow("a", "b", "gradient", times="M"),
    Arrow("b", "a", label="backwards"),
    Arrow("c", "a", "gradient", cut=True),
    Arrow("b", "c", "gradient", bend=0.2),
]


def graph():
    figure = plots.Figure(6, 3, alt="Two arrows leave a, one of them cut.", caption="Arrows.")
    diagrams.draw_graph(diagrams.graph_axes(figure, 0, 0.4, 6, 2.4), BOXES, ARROWS)
    diagrams.legend(figure, ARROWS)
    return figure


@pytest.fixture(params=PICTURES)
def figure(request):
    return PICTURES[request.param]()


def drawn_texts(figure, monkeypatch):
    """The texts that reach the canvas, after layout: tick labels outside the axes, for one, never do."""
    drawn = []
    draw = Text.draw
    with monkeypatch.context() as patch:
        patch.setattr(Text, "draw", lambda text, *a, **k: (drawn.append(text), draw(text, *a, **k)))
        figure.canvas.draw()
    return [text for text in dict.fromkeys(drawn) if text.get_visible() and text.get_text().strip()]


def test_says_what_it_shows(figure):
    """The alternative text has numbers or names; a caption is read right after it, and repeats none of it."""
    assert len(figure.alt) > 20
    assert "nan" not in f"{figure.alt} {figure.caption}".lower()
    assert not re.search(r"(?<!\w)-\d|e[+-]\d\d", figure.alt), "a hyphen and an exponent aren't read out as numbers"
    sentences = {sentence.strip(" .") for sentence in re.split(r"[.;] ", figure.alt)}
    assert not sentences & {sentence.strip(" .") for sentence in re.split(r"[.;] ", figure.caption)}
    how = r"^(bars|curves|dots|lines|photos|a graph) of | against .* for |side by side"
    assert not re.search(how, figure.alt, re.IGNORECASE), "it says how the picture was drawn"


def test_an_alternative_text_begins_with_the_title():
    """A title is drawn, and nothing else of the picture is read out."""
    assert PICTURES["rate–distortion"]().alt.startswith("How close to the limit? Falling")
    assert PICTURES["scoreboard"]().alt.startswith("8 bits for 4 components. one 1 × 256:")
    assert PICTURES["residual stages, 3 of 4"]().alt.startswith("stages M = 3, codewords K = 16: M log₂ K = 12 bits")
    assert PICTURES["photos"]().alt.startswith("5 pictures in 2 rows: original;")
    assert plots.bars({"a": 1.0}, label="error").alt == "Error: a 1."


def test_no_text_is_cut_off_or_covers_another(figure, monkeypatch):
    boxes = [(text.get_text(), text.get_window_extent()) for text in drawn_texts(figure, monkeypatch)]
    assert boxes
    for text, box in boxes:
        assert box.x0 >= -1, f"{text!r} is cut off on the left"
        assert box.y0 >= -1, f"{text!r} is cut off at the bottom"
        assert box.x1 <= figure.bbox.x1 + 1, f"{text!r} is cut off on the right"
        assert box.y1 <= figure.bbox.y1 + 1, f"{text!r} is cut off at the top"
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        apart = a.x1 <= b.x0 + 1 or b.x1 <= a.x0 + 1 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
        assert apart, f"{one!r} and {other!r} overlap"


def test_text_is_large_enough_to_read(figure, monkeypatch):
    assert all(text.get_fontsize() >= 9 for text in drawn_texts(figure, monkeypatch))


def test_a_curve_that_ends_early_says_so():
    names = [text.get_text() for text in PICTURES["rate–distortion, one curve shorter"]().axes[0].texts]
    assert sorted(names) == ["one codebook, to 2 bits", "residual"]


def test_fits_a_notebook(figure, request):
    widest = np.inf if "long titles" in request.node.name else 900
    assert figure.get_size_inches()[0] * plots.CSS_DPI <= widest


def test_png_is_the_picture_at_twice_its_size():
    figure = plots.curve(LOSSES)
    picture = Image.open(io.BytesIO(figure.png()))
    assert picture.format == "PNG"
    assert picture.size == (1600, 680)
    assert np.asarray(picture).std() > 5


def test_figures_of_one_size_are_drawn_in_the_same_memory():
    """Else each picture of a slider or of a training under way leaves some megabytes behind for a while."""
    gc.collect()
    gc.disable()
    try:
        before = renderers()
        pictures = [plots.curve({"a": [1.0, 2.0, last]}).png() for last in (3.0, 4.0, 5.0)]
        assert len(set(pictures)) == 3
        assert renderers() <= before + 1
    finally:
        gc.enable()


def renderers():
    """How many drawings lie in memory."""
    return sum(type(each) is RendererAgg for each in gc.get_objects())


def test_shows_itself_with_alternative_text_and_caption():
    figure = plots.Figure(2.0, 1.0, alt='A "small" <picture>', caption="a < b & c")
    bundle = figure._repr_mimebundle_()
    assert bundle["text/plain"] == 'A "small" <picture>'
    assert 'alt="A &quot;small&quot; &lt;picture&gt;" width="200" height="100"' in bundle["text/html"]
    assert ">a &lt; b &amp; c</figcaption>" in bundle["text/html"]
    assert still(figure).size == (400, 200)


def encoded_still(figure):
    source = re.search(r'src="data:image/webp;base64,([^"]+)"', figure._repr_mimebundle_()["text/html"])
    return base64.b64decode(source[1])


def still(figure):
    return Image.open(io.BytesIO(encoded_still(figure)))


@pytest.mark.parametrize(("name", "off"), [("gradient field", 0.5), ("colour cube, 16 colours", 0)])
def test_a_still_is_small_and_looks_as_the_live_picture(name, off):
    figure = PICTURES[name]()
    live = Image.open(io.BytesIO(figure.png()))
    smallest_png = io.BytesIO()
    live.save(smallest_png, format="PNG", optimize=True)
    assert np.abs(np.asarray(still(figure), float) - np.asarray(live)).mean() <= off
    assert len(encoded_still(figure)) < 0.8 * len(smallest_png.getvalue())


@pytest.mark.parametrize("shape", [(5, 3, 40, 64), (2, 3, 33, 7), (1, 3, 1, 1), (3, 3, 600, 400)])
def test_photos_are_exact_to_the_pixel(shape):
    photos = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    figure = plots.photo_row(photos, [f"photo {i}" for i in range(len(photos))])
    canvas = np.asarray(still(figure).convert("RGB"))
    for axes, photo in zip(figure.axes, photos, strict=True):
        box = axes.get_window_extent()
        left, right, top, bottom = (round(x) for x in (box.x0, box.x1, len(canvas) - box.y1, len(canvas) - box.y0))
        scale = (right - left) // photo.shape[2]
        expected = (photo.permute(1, 2, 0).numpy() * 255).repeat(scale, 0).repeat(scale, 1)
        assert np.abs(canvas[top:bottom, left:right] - expected).max() <= 1


def test_the_colour_cube_shows_the_rebuilt_photo_and_its_palette_from_dark_to_light():
    photo = PHOTOS[0]
    codebook = torch.tensor([[0.8, 0.9, 0.7], [0.1, 0.2, 0.1], [0.6, 0.3, 0.4]])
    rebuilt, cube, palette = plots.color_cube(photo, codebook).axes
    chosen = codebook[torch.cdist(photo.flatten(1).T, codebook).argmin(1)].view(40, 64, 3)
    assert np.allclose(rebuilt.images[0].get_array(), chosen)
    assert np.allclose(palette.images[0].get_array()[0], codebook[[1, 2, 0]])
    used, unused = cube.collections[-2:]
    assert np.allclose(used.get_facecolors()[:, :3], codebook)
    assert len(used.get_offsets()) == 3 and len(unused.get_offsets()) == 0
    pixels = cube.collections[-3]
    assert len(pixels.get_offsets()) == 854  # every third one of 2,560


def test_patches_are_exact_to_the_pixel_and_stand_in_their_rows():
    figure = plots.patch_rows({"first": PATCHES[:3], "second": PATCHES[3:5]}, caption="Patches.")
    for axes, patches in zip(figure.axes, (PATCHES[:3], PATCHES[3:5]), strict=True):
        strip = axes.images[0].get_array()
        box = axes.get_window_extent()
        assert np.allclose([box.width, box.height], [strip.shape[1], strip.shape[0]])
        scale = len(strip) // 8
        for i, patch in enumerate(patches.permute(0, 2, 3, 1).numpy()):
            left = i * (8 * scale + 8)
            assert np.allclose(strip[:, left : left + 8 * scale], patch.repeat(scale, 0).repeat(scale, 1))
    assert figure.axes[0].get_window_extent().y0 > figure.axes[1].get_window_extent().y1


def test_a_codewords_places_keep_their_colours_within_a_border():
    grid = torch.zeros(5, 8, dtype=torch.int64)
    grid[0, 2] = grid[0, 3] = grid[4, 7] = 6
    figure = plots.codeword_places(PHOTOS[0], grid, 6, PATCHES[2])
    patch, places = figure.axes
    assert np.allclose(patch.images[0].get_array(), PATCHES[2].permute(1, 2, 0))
    shown, photo = places.images[0].get_array(), PHOTOS[0].permute(1, 2, 0).numpy()
    kept = np.isclose(shown, photo).all(2)
    assert kept[:8, 16:32].all() and kept[32:, 56:].all() and kept.sum() == 3 * 64
    border = places.collections[0].get_segments()
    assert {tuple(map(tuple, edge)) for edge in border} == {
        *(((x, -0.5), (x + 8, -0.5)) for x in (15.5, 23.5)),
        *(((x, 7.5), (x + 8, 7.5)) for x in (15.5, 23.5)),
        *(((x, -0.5), (x, 7.5)) for x in (15.5, 31.5)),
        *(((55.5, y), (63.5, y)) for y in (31.5, 39.5)),
        *(((x, 31.5), (x, 39.5)) for x in (55.5, 63.5)),
    }
    assert "at 3 of 40 places, 7.5%" in figure.caption


def test_residual_stages_keep_their_size_whatever_is_used():
    sizes = {len(plots.residual_stages(POINTS, CODEBOOKS, m).axes) for m in (1, 2, 4, 8)}
    assert sizes == {9}
    assert len({tuple(plots.residual_stages(POINTS, CODEBOOKS, m).get_size_inches()) for m in (1, 2, 4, 8)}) == 1


def test_captions_tell_the_measured_numbers():
    corners = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    points = torch.tensor([[0.0, 1.0], [0.0, -1.0], [2.0, 1.0], [2.0, 1.0]])
    assert "2 of the 2 codewords are used; the mean squared error per dimension is 0.5." in (
        plots.voronoi(points, corners).caption
    )
    far = torch.tensor([[50.0, 50.0]])
    field = plots.gradient_field(points, torch.cat([corners, far]), 0.25).caption
    assert "mean of its cell: 0.5 away on average; 1 of the 3 are unused" in field
    assert "by 0.25 on average" in field
    assert "from 1.5 to 0.5 in one stage." in plots.residual_stages(points, corners.unsqueeze(0), 1).caption
    used = plots.code_usage(torch.tensor([5, 0, 5, 0])).caption
    assert "takes 50.00% of the vectors, and 2 are never chosen. An index tells 1 bits, as much as 2 codewords" in used
    assert "train goes from 1 to 0.00333" in plots.curve(LOSSES).caption
    memory = plots.codebook_memory(48, [256], max_bits=24).caption
    assert "one codebook 3.22 GB; stages of 256 147 kB." in memory
    assert "0.02 ± 0.01" in plots.bars({"a": [0.01, 0.03]}, label="error").caption
    assert "held out 30.0 dB at 2" in plots.quality({"held_out": ([1, 2], [[20, 29], [22, 31]])}).caption
    photo = torch.tensor([[0.0, 1.0]]).expand(3, 4, 2)
    greys = torch.tensor([[0.1] * 3, [0.9] * 3, *[[9.0] * 3] * 6])
    assert "4 × 2 pixels, 2 different colours." in plots.color_cube(photo).alt
    assert "K = 8: 3 bits per pixel, PSNR 20.0 dB." in plots.color_cube(photo, greys).alt
    assert "hollow if no pixel uses them: 6 of 8." in plots.color_cube(photo, greys).caption


def test_logarithmic_panels_share_their_scales_and_hold_every_seed():
    figure = plots.over_steps([25, 50, 100, 200, 400, 2400, 4800], REPAIRS, ylabel="MSE", log=True)
    without, restarts = figure.axes
    assert without.get_ylim() == restarts.get_ylim() and without.get_yscale() == restarts.get_xscale() == "log"
    for axes, panel in zip(figure.axes, REPAIRS.values(), strict=True):
        for line, band, seeds in zip(axes.lines, axes.collections, panel.values(), strict=True):
            assert np.allclose(line.get_ydata(), seeds.mean(0))
            heights = band.get_paths()[0].vertices[:, 1]
            assert np.allclose([heights.min(), heights.max()], [seeds.min(), seeds.max()])


def test_five_curves_of_a_picture_differ_in_colour_and_in_mark():
    ways = "collapsed", "from k-means", "all repairs", "no commitment", "a sum among means"
    drawn = plots.over_steps([20, 50, 100], {"share lost": {way: [[3, 2, 1]] for way in ways}}).axes[0].lines
    assert len({line.get_color() for line in drawn}) == len({line.get_marker() for line in drawn}) == 5


def test_a_codebooks_moments_follow_one_codeword():
    moved = CODEBOOK.clone()
    moved[3] = POINTS[5]
    figure = plots.codebook_moments(POINTS, {"before": CODEBOOK, "after": moved}, 3, caption="Moved.")
    rings = [axes.collections[-1].get_offsets()[0] for axes in figure.axes]
    assert np.allclose(rings, torch.stack([CODEBOOK[3], POINTS[5]]))
    (arrow,) = figure.axes[1].texts
    assert np.allclose([arrow.xyann, arrow.xy], torch.stack([CODEBOOK[3], POINTS[5]]))


def test_arrows_are_the_negative_gradients_of_the_two_losses():
    points, codebook = POINTS.clone().requires_grad_(), CODEBOOK.clone().requires_grad_()
    indices = torch.cdist(points, codebook).argmin(1)
    error = (points - codebook[indices]).square().sum() / 2
    by_point, by_codeword = torch.autograd.grad(error, [points, codebook])
    counts = torch.bincount(indices, minlength=len(codebook))
    of_points, of_codewords = arrows(plots.gradient_field(points, codebook, 0.7))
    used = counts > 0
    assert torch.allclose(of_points, -0.7 * by_point, atol=1e-5)
    assert torch.allclose(of_codewords, (-by_codeword / counts.unsqueeze(1))[used], atol=1e-5)


def arrows(figure):
    quivers = [artist for artist in figure.axes[0].collections if hasattr(artist, "U")]
    return [torch.from_numpy(np.stack([q.U, q.V], 1)).float() for q in quivers]


@pytest.mark.parametrize(("half_width", "slope"), [(0.4, 0), (0.6, 1.67), (1.0, 1), (2.0, 0.5)])
def test_a_crowd_that_moves_takes_its_codewords_along(half_width, slope):
    levels = torch.tensor([[-1.0], [0.0], [1.0]])
    crowd = torch.linspace(-half_width, half_width, 200_001)[:, None]
    moved = levels[nearest(crowd + 0.05, levels)].mean() - levels[nearest(crowd - 0.05, levels)].mean()
    assert moved / 0.1 == pytest.approx(slope, abs=0.01)
    assert f"move {moved / 0.1:.2f} times as far" in plots.moved_crowd(levels.flatten(), half_width).caption


def test_an_arrow_runs_from_border_to_border_and_keeps_left():
    there = diagrams._way(BOXES["a"], BOXES["b"], bend=0)
    back = diagrams._way(BOXES["b"], BOXES["a"], bend=0)
    assert np.allclose(there[[0, -1], 0], [1.54, 4.46], atol=0.02)
    assert (there[:, 1] > 2).all()
    assert (back[:, 1] < 2).all()


def test_a_graph_marks_what_is_cut_and_what_is_multiplied():
    figure = graph()
    axes, words = figure.axes[0], [text.get_text() for text in figure.axes[0].texts]
    crosses = [line for line in axes.lines if line.get_marker() == "x"]
    widths = [line.get_linewidth() for line in axes.lines if line.get_marker() == "None"]
    assert len(crosses) == 1
    assert "× M" in words
    assert widths[0] == 3 * widths[3]
    kinds = [text.get_text() for text in figure.legends[0].get_texts()]
    assert kinds == ["value", "gradient", "gradient, cut", "gradient, multiplied"]


def test_a_gradient_comes_back_through_a_lookup_only_straight_through():
    def reached(arrows):
        found = {"loss"}
        for _ in arrows:
            found |= {a.end for a in arrows if a.carries == "gradient" and not a.cut and a.start in found}
        return found

    assert reached(diagrams._lookup_arrows(False)) == {"loss", "decoder", "quantized", "codebook"}
    assert reached(diagrams._lookup_arrows(True)) == {"loss", "decoder", "quantized", "x", "encoder"}


def test_cells_are_those_of_the_nearest_codeword():
    axes = plots.voronoi(POINTS, CODEBOOK).axes[0]
    borders = next(artist for artist in axes.collections if hasattr(artist, "get_segments")).get_segments()
    middles = torch.tensor(np.stack([border.mean(0) for border in borders])).float()
    distances = torch.cdist(middles, CODEBOOK).sort(dim=1).values
    inside = middles.abs().amax(1) < 100
    assert inside.sum() > 16
    assert torch.allclose(distances[inside, 0], distances[inside, 1], rtol=1e-3)


def test_line_names_are_spread_apart_and_stay_in_order():
    heights = curves._spread([0.1, 0.11, 0.12, 0.9, 1.0], 0.1)
    assert np.diff(heights).min() >= 0.1 - 1e-9
    assert 0 <= heights[0] < heights[-1] <= 1


def test_uses_neither_pyplot_nor_the_readers_style():
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 30, "axes.spines.top": True}):
        figure = plots.curve(LOSSES)
        assert mpl.rcParams["font.size"] == 30
    assert not figure.axes[0].spines["top"].get_visible()
    assert figure.axes[0].xaxis.label.get_fontsize() == 10


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (
            lambda: plots.voronoi(POINTS[:, :1], CODEBOOK),
            r"points must be in the plane, \(N, 2\), got shape \(200, 1\)",
        ),
        (lambda: plots.voronoi(POINTS, CODEBOOK / 0), "codebook must be finite"),
        (lambda: plots.voronoi(POINTS, CODEBOOK, arrows=POINTS[:0]), "arrows must not be empty"),
        (lambda: plots.residual_stages(POINTS, CODEBOOKS, 9), "num_quantizers must be 1 to 8, .* got 9"),
        (lambda: plots.residual_stages(POINTS, CODEBOOKS, 0), "num_quantizers must be 1 to 8, .* got 0"),
        (lambda: plots.residual_loop_graph("M"), "loop must be one of 'silent', 'loud', 'right', got 'M'"),
        (lambda: plots.sliding_cells(POINTS, CODEBOOK, 1.5), "share must be .*0.* 1, got 1.5"),
        (lambda: plots.moved_crowd(CODEBOOK[:, 0], 0.0), "half_width must be above 0, got 0.0"),
        (lambda: plots.curve({"loss": []}), "history must hold at least one value"),
        (lambda: plots.code_usage(torch.zeros(4)), r"counts must be \(K,\) and not all zero"),
        (lambda: plots.color_cube(PHOTOS), r"photo must be \(3, H, W\), got shape \(5, 3, 40, 64\)"),
        (
            lambda: plots.patch_rows({"a": PATCHES[:2], "b": PATCHES[:3]}, caption=""),
            r"rows must hold at most 2 pictures of shape \(3, 8, 8\)",
        ),
        (
            lambda: plots.codeword_places(PHOTOS[0], GRID[:3], 2, PATCHES[2]),
            r"indices must cover the photo, got \(3, 8\) for 40 × 64 pixels",
        ),
        (lambda: plots.photo_row(PHOTOS[0], ["one"]), r"images must be \(n, 3, H, W\) with n titles"),
        (lambda: plots.photo_row(PHOTOS, ["one"]), "with n titles, got .* and 1"),
    ],
)
def test_bad_input_gets_one_clear_sentence(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_bars_write_a_small_spread_without_an_exponent():
    assert "0.0267 ± 0.000082" in plots.bars({"one": [0.026582, 0.026746]}, label="error").alt
    assert "20 ± 10." in plots.bars({"one": [10, 30]}, label="error").caption


def test_a_scoreboard_names_the_best_of_each_measure():
    caption = plots.scoreboard(SCORES).caption
    assert "held-out MSE, one 1 × 256 (0.104)" in caption
    assert "multiply–adds, scalar 4 × 4 (16)" in caption


def test_bit_shares_cuts_a_bar_into_bits_and_says_what_is_left():
    figure = plots.bit_shares(torch.tensor([16.0, 1.0]), {"shared": torch.tensor([2.5, 0.5])})
    assert "2.5 + 0.5 bits: mean error 0.5" in figure.caption
    rest, *blocks = figure.axes[0].containers
    assert np.allclose([bar.get_y() + bar.get_height() for bar in rest], [0.5, 0.5])
    ends = [[(bar.get_y() + bar.get_height(), bar.get_y()) for bar in column] for column in blocks]
    assert np.allclose(ends[0], [(16, 4), (4, 1), (1, 0.5)]) and np.allclose(ends[1], [(1, 0.5)])


def test_an_operating_point_tells_its_rate_its_distance_and_its_costs():
    on_the_line = {(16, 4): [0.25, 0.125]}
    caption = plots.operating_point(on_the_line, 4, 2, 16, 4).caption
    assert "2 bits per dimension, mean squared error 0.125: 3.0 dB above Shannon's bound" in caption
    assert "0.50 bits less" in caption
    assert (
        "128 numbers; a vector takes 320 multiply–adds" in caption
    )  # 16 · 4 at the first stage, four times at the next


def test_a_residual_loop_brings_each_gradient_to_x_as_often_as_autograd_does():
    def arrivals(loop, source):
        arrows, _ = diagrams._LOOPS[loop]
        if source == "x":
            return 1
        out = [a for a in arrows if a.start == source and not a.cut]
        return sum((-1 if a.label == "times −1" else 1) * arrivals(loop, a.end) for a in out)

    sources = "quantized", "first term", "second term"
    assert [arrivals("silent", source) for source in sources] == [1, 1, 0]
    assert [arrivals("loud", source) for source in sources] == [2, 1, 1]
    assert [arrivals("right", source) for source in sources] == [1, 1, 1]


def test_sliding_cells_end_as_residuals():
    moved, places = plots.sliding_cells(POINTS, CODEBOOK, 1.0).axes[0].collections[:2]
    residuals = POINTS - CODEBOOK[torch.cdist(POINTS, CODEBOOK).argmin(1)]
    assert np.allclose(moved.get_offsets(), residuals, atol=1e-6)
    assert np.allclose(places.get_offsets(), 0)
