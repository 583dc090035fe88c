import html
import io
import itertools
import re
import signal

import ipywidgets
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from PIL import Image

from rvq_tutorial.course import plots, widgets

CHOICES = {"num_quantizers": [1, 2, 4, 8], "commitment_weight": [0.25, 1.0]}
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500)
VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(autouse=True)
def shell():
    """What is displayed goes through IPython, as in a notebook."""
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def picture(num_quantizers, commitment_weight):
    title = f"Bars for {num_quantizers} and {commitment_weight}."
    return plots.bars({"bits": float(num_quantizers), "weight": commitment_weight}, label="a < b", title=title)


def shown(explorer):
    return explorer.box.children[-2].value


def test_every_reachable_combination_shows_its_own_picture_and_words():
    explorer = widgets.explore(picture, **CHOICES)
    seen = {}
    for values in explorer.sweep():
        expected = picture(**values)
        assert shown(explorer) == expected.html()
        assert f'alt="{html.escape(expected.alt)}"' in shown(explorer)
        assert expected.caption.replace("<", "&lt;") in shown(explorer)
        seen[tuple(values.values())] = expected.png()
    assert list(seen) == list(itertools.product(*CHOICES.values()))
    assert len(set(seen.values())) == 8


def test_moving_a_slider_draws_nothing_anew():
    calls = []

    def counted(**values):
        calls.append(values)
        return picture(**values)

    explorer = widgets.explore(counted, **CHOICES)
    assert len(calls) == 8
    for _ in explorer.sweep():
        pass
    assert len(calls) == 8


def test_sliders_start_in_the_middle_with_readable_names_and_values():
    explorer = widgets.explore(picture, **CHOICES)
    assert explorer.values == {"num_quantizers": 4, "commitment_weight": 1.0}
    sliders = list(explorer.sliders.values())
    assert list(explorer.box.children[:2]) == sliders
    assert [slider.description for slider in sliders] == ["quantizers M", "commitment weight β"]
    assert [label for label, _ in sliders[1].options] == ["0.25", "1"]
    assert explorer.figure.alt.startswith("Bars for 4 and 1.0.")


def test_the_picture_is_shown_at_its_own_width():
    explorer = widgets.explore(picture, **CHOICES)
    assert 'width="800"' in shown(explorer)


def test_shows_live_sliders_and_a_still_where_no_kernel_runs(shell):
    explorer = widgets.explore(picture, **CHOICES)
    explorer.sliders["num_quantizers"].value = 8
    with capture_output() as captured:
        shell.display_formatter.format(explorer)
    (output,) = captured.outputs
    assert output.data[VIEW]["model_id"] == explorer.box.model_id
    assert output.data["text/html"] == picture(8, 1.0)._repr_mimebundle_()["text/html"]
    assert output.data["text/plain"].startswith("Bars for 8 and 1.0.")


def test_an_error_in_any_picture_is_raised():
    def broken(size):
        if size == 3:
            raise RuntimeError("no picture of 3")
        return picture(size, 1.0)

    with pytest.raises(RuntimeError, match="no picture of 3"):
        widgets.explore(broken, size=[1, 2, 3])


@pytest.mark.usefixtures("python_is_interrupted")
def test_an_interrupt_while_the_pictures_are_drawn_is_a_sentence(capsys):
    def stopped_at_2(num_quantizers, commitment_weight):
        if num_quantizers == 2:
            signal.raise_signal(signal.SIGINT)
        return picture(num_quantizers, commitment_weight)

    assert widgets.explore(stopped_at_2, **CHOICES) is None
    assert capsys.readouterr().out == "Stopped after 3 of 8 pictures: run this cell again to see its sliders.\n"


@pytest.mark.usefixtures("python_is_interrupted")
def test_an_interrupt_while_the_still_is_drawn_waits(shell):
    drawn = []

    def interrupted_at_the_end(size):
        drawn.append(size)
        if len(drawn) > 2:
            signal.raise_signal(signal.SIGINT)
        return picture(size, 1.0)

    explorer = widgets.explore(interrupted_at_the_end, size=[1, 2])
    with capture_output() as captured:
        shell.display_formatter.format(explorer)
    assert len(drawn) == 3 and VIEW in captured.outputs[0].data


@pytest.mark.parametrize("choices", [{}, {"size": []}])
def test_choices_must_hold_values(choices):
    with pytest.raises(ValueError, match="choices must give every argument at least one value"):
        widgets.explore(picture, **choices)


def train(steps, draw):
    history = {"loss": [], "psnr": []}
    for step in range(steps):
        history["loss"].append(1 / (step + 1))
        history["psnr"].append(20.0 + step)
        draw(history)


@pytest.fixture
def drawn(monkeypatch):
    """The pictures that live curves show, one after the other."""
    drawn = []

    class Shown(ipywidgets.HTML):
        def __init__(self):
            super().__init__()
            self.observe(lambda change: drawn.append(change.new), "value")

    monkeypatch.setattr(widgets.ipywidgets, "HTML", Shown)
    return drawn


def test_a_live_curve_moves_in_place_and_leaves_the_whole_history_as_a_still(monkeypatch, drawn):
    monkeypatch.setattr(widgets, "SECONDS_BETWEEN_PICTURES", 0.0)
    with capture_output() as captured, widgets.live_curve("loss", log=True) as draw:
        train(3, draw)
    assert len(set(drawn)) == 3
    assert all('alt="Over' in shown for shown in drawn)
    live, still = captured.outputs
    assert VIEW in live.data
    assert VIEW not in still.data
    assert "From step 1 to 3, loss goes from 1 to 0.333." in still.data["text/html"]


def test_a_live_curve_draws_seldom_but_ends_complete(monkeypatch, drawn):
    monkeypatch.setattr(widgets, "SECONDS_BETWEEN_PICTURES", 3600.0)
    with capture_output() as captured, widgets.live_curve("psnr", ylabel="PSNR (dB)") as draw:
        train(50, draw)
    live, still = captured.outputs
    assert len(drawn) == 1
    assert "From step 1 to 1," in live.data["text/html"]
    assert "From step 1 to 50, psnr goes from 20 to 69." in still.data["text/html"]


def test_a_live_curve_that_is_interrupted_keeps_its_picture():
    with capture_output() as captured, pytest.raises(KeyboardInterrupt), widgets.live_curve("loss") as draw:
        train(5, draw)
        raise KeyboardInterrupt
    assert "From step 1 to 5," in captured.outputs[-1].data["text/html"]


@pytest.mark.usefixtures("python_is_interrupted")
def test_a_second_press_while_the_last_picture_is_drawn_does_not_take_it_away(monkeypatch):
    draw_curve = plots.curve

    def interrupted(*arguments, **style):
        if trained:
            signal.raise_signal(signal.SIGINT)
        return draw_curve(*arguments, **style)

    monkeypatch.setattr(plots, "curve", interrupted)
    trained = False
    with capture_output() as captured, widgets.live_curve("loss") as draw:
        train(5, draw)
        trained = True
    assert "From step 1 to 5," in captured.outputs[-1].data["text/html"]


def test_a_live_curve_without_a_step_shows_nothing():
    with capture_output() as captured, widgets.live_curve("loss"):
        pass
    assert captured.outputs == []


def picture_file():
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (255, 0, 51)).save(buffer, "PNG")
    return buffer.getvalue()


def upload_of(name, content):
    """An upload with this file in it, by the message that the browser would send."""
    upload, content = widgets.Upload(), memoryview(content)
    about = {"name": name, "type": "", "size": len(content)}
    if ipywidgets.__version__.startswith("7"):
        upload.button.set_state({"metadata": [about], "data": [content], "_counter": 1})
    else:
        upload.button.set_state({"value": [{**about, "last_modified": 0, "content": content}]})
    return upload


def test_an_uploaded_photo_is_read():
    photo = upload_of("red.png", picture_file()).photo(torch.zeros(3, 1, 1))
    assert photo.shape == (3, 4, 6)
    assert photo[:, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.2])


def test_without_an_upload_there_is_another_photo_and_that_is_said(capsys):
    """A photo that is too large for the notebook's server leaves no other trace."""
    assert widgets.Upload().photo("another") == "another"
    said = capsys.readouterr().out
    assert said == "No photo of yours has arrived (up to 10 MB can): another one stands in for it.\n"


def jpeg_cut_short():
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "JPEG")
    return buffer.getvalue()[:1000]


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("notes.jpg", b"hello", "is no picture that Pillow can read: save it as JPEG or PNG"),
        ("empty.jpg", b"", "is no picture that Pillow can read: save it as JPEG or PNG"),
        ("IMG_0001.HEIC", HEIC, "is no picture that Pillow can read: save it as JPEG or PNG"),
        ("broken.jpg", jpeg_cut_short(), "is no whole picture: .*"),
    ],
)
def test_an_upload_that_is_no_picture_is_called_by_the_readers_own_name_for_it(name, content, fault, capsys):
    """And Run All goes on."""
    assert upload_of(f"../{name}", content).photo("another") == "another"
    assert re.fullmatch(rf"{name} {fault}\. Another photo stands in for it\.\n", capsys.readouterr().out)


def test_of_a_transparent_upload_it_is_said_what_became_of_it(capsys):
    buffer = io.BytesIO()
    Image.new("RGBA", (6, 4)).save(buffer, "PNG")
    assert (upload_of("ghost.png", buffer.getvalue()).photo(torch.zeros(3, 1, 1)) == 1).all()
    assert capsys.readouterr().out == "ghost.png is partly transparent: it was put on white.\n"


def test_the_button_says_what_it_takes_and_how_much():
    """A phone that is asked for JPEG hands its HEIC photos over as such; asked for image/* it would not."""
    upload = widgets.Upload()
    button, words = upload.box.children
    assert button is upload.button
    kinds = [kind.removeprefix("image/").upper() for kind in button.accept.split(",")]
    assert "HEIC" not in kinds and {"JPEG", "PNG"} <= set(kinds)
    assert f"{', '.join(kinds)}; up to 10 MB" in words.value
    assert set(kinds) <= set(Image.registered_extensions().values())  # Pillow reads them all


@pytest.mark.parametrize(
    "value",
    [{"a.png": {"metadata": {}, "content": b"PNG"}}, ({"name": "a.png", "content": memoryview(b"PNG")},)],
    ids=["ipywidgets 7", "ipywidgets 8"],
)
def test_both_forms_of_an_uploads_value_are_understood(value):
    assert widgets._uploaded(value) == ("a.png", b"PNG")
    assert widgets._uploaded(type(value)()) == ("", None)


def test_an_upload_shows_its_button_and_words_where_no_kernel_runs(shell):
    upload = widgets.Upload()
    with capture_output() as captured:
        shell.display_formatter.format(upload)
    (output,) = captured.outputs
    assert output.data[VIEW]["model_id"] == upload.box.model_id
    assert "photo of your own" in output.data["text/html"]


def test_needs_only_core_widgets():
    explorer = widgets.explore(picture, **CHOICES)
    parts = {type(part) for part in [explorer.box, *explorer.box.children]}
    assert parts == {ipywidgets.VBox, ipywidgets.SelectionSlider, ipywidgets.HTML}
