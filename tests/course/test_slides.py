"""The slides: every picture of a notebook, nothing from the network, nothing cut off."""

import re
from html import unescape
from pathlib import Path

import nbformat
import pytest
import slides
from editions import topics
from languages import NOTEBOOKS
from nbformat import NotebookNode
from playwright.sync_api import Page

ALT = re.compile(r'<img alt="([^"]*)"')
TASK = re.compile(r"^### ((?:Exercise|What is wrong here).*)$", re.MULTILINE)
SHOWN = """() => {
    const slide = Reveal.getCurrentSlide(), room = slide.getBoundingClientRect();
    const cut = [...slide.querySelectorAll('*')].filter(part => {
        const box = part.getBoundingClientRect();
        const tooLong = part.clientWidth && part.scrollWidth > part.clientWidth + 1;
        return box.width && (box.bottom > room.bottom + 1 || box.right > room.right + 1 || tooLong);
    });
    const pictures = [...slide.querySelectorAll('img')];
    return {
        heading: slide.querySelector('h1').innerText,
        cut: cut.map(part => part.outerHTML.slice(0, 80)),
        pictures: pictures.map(image => [image.naturalWidth, image.getBoundingClientRect().height / room.height]),
        last: Reveal.isLastSlide(),
    };
}"""


def committed(topic: str) -> NotebookNode:
    """The notebook as it is built."""
    return nbformat.read(NOTEBOOKS / f"{topic}.ipynb", as_version=4)


def pictures(notebook: NotebookNode) -> set[str]:
    """What the pictures of a notebook show, by their alt texts."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return described("".join(output.get("data", {}).get("text/html", "") for output in outputs))


def described(html: str) -> set[str]:
    """The alt texts of the pictures in a page."""
    return {unescape(alt) for alt in ALT.findall(html)}


@pytest.mark.parametrize("topic", topics())
def test_the_slides_hold_every_picture_and_task_and_no_answer(topic: str) -> None:
    html, notebook = slides.page(topic), committed(topic)
    assert len(pictures(notebook)) >= 9 and described(html) == pictures(notebook)
    tasks = TASK.findall("\n".join(cell.source for cell in notebook.cells))
    assert len(tasks) >= 4 and not [task for task in tasks if task not in html]
    assert "your code here" not in html and "<details" not in html
    formulas = re.findall(r"<math.*?</math>", html, re.DOTALL)
    assert "$$" not in html and not [formula for formula in formulas if "\\" in formula]


@pytest.mark.parametrize("topic", topics())
def test_no_slide_is_cut_off_and_its_picture_is_large(topic: str, tmp_path: Path, page: Page) -> None:
    (tmp_path / "slides.html").write_text(slides.page(topic), encoding="utf-8")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size({"width": 1280, "height": 720})
    page.goto((tmp_path / "slides.html").as_uri())
    page.wait_for_function("window.Reveal?.isReady()")
    shown = page.evaluate(SHOWN)
    while True:
        assert not shown["cut"], shown["heading"]
        for width, share in shown["pictures"]:
            assert width > 300 and share > 0.4, shown["heading"]
        if shown["last"]:
            break
        page.evaluate("Reveal.right()")
        shown = page.evaluate(SHOWN)
    assert [url for url in asked if not url.startswith("data:")] == [page.url.partition("#")[0]]
