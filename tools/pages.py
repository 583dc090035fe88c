"""The site's pages: a notebook where nothing has to run, and the project's own texts with their links led to pages."""

import base64
import hashlib
import html
import io
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import frames
import nbformat
from editions import page_edition, repository, tagged
from languages import ENGLISH, ROOT, folder, spoken
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_output
from PIL import Image

from rvq_tutorial.language import said

PICTURE = re.compile(r'<img alt="([^"]*)" width="(\d+)" height="(\d+)"[^>]*? src="data:image/\w+;base64,([^"]+)"[^>]*>')
CAPTION = re.compile(r"<figcaption[^>]*>(.*?)</figcaption>", re.DOTALL)
HEADING = re.compile(r"^(?=#{2,3} )", re.MULTILINE)
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
IMAGE_IN_LINK = re.compile(r"\[!\[([^\]]*)\]\([^)]*\)\]\(")  # a badge comes from elsewhere
BADGE = re.compile(r"^\[!\[[^\n]*\n+", re.MULTILINE)


class Pictures:
    """The site's picture files. Each lies there once, under a name made from its content; nothing is lost in it."""

    def __init__(self, at: Path) -> None:
        self.at = at
        self._names: dict[str, str] = {}

    def place(self, encoded: str) -> str:
        """Where the picture, base64, lies, from a page of the language that is spoken."""
        if encoded not in self._names:
            content = base64.b64decode(encoded)
            name = f"{hashlib.sha256(content).hexdigest()[:16]}.webp"
            if not (self.at / name).exists():
                self.at.mkdir(parents=True, exist_ok=True)
                Image.open(io.BytesIO(content)).convert("RGB").save(self.at / name, lossless=True)
            self._names[encoded] = name
        return f"{up()}pictures/{self._names[encoded]}"


def up() -> str:
    """The way from a page to the site's root."""
    return "" if spoken() == ENGLISH else "../"


def notebook_page(topic: str, pictures: Pictures) -> NotebookNode:
    """A notebook as a page: what was printed and drawn, with sliders that a script moves, and its answers folded."""
    notebook = page_edition(topic)
    built = {cell.id: cell for cell in nbformat.read(folder() / f"{topic}.ipynb", as_version=4).cells}
    title, _, opening = BADGE.sub("", notebook.cells[0].source).partition("\n")
    notebook.cells[0].source = f"{title}\n\n{_doors(topic)}\n\n{opening.strip()}"
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            if frames.has_sliders(cell):
                found = frames.frames_of(spoken(), topic, cell)
                cell.outputs = [_html(explorer(found, f"{topic[:2]}-{number}", pictures))]
            else:
                cell.outputs = [_output(output, pictures) for output in built[cell.id].outputs]
        else:
            cell.source = _asking(cell.source)
    notebook.cells = list(_questions_first(notebook.cells))
    return notebook


def _html(text: str) -> NotebookNode:
    return new_output("display_data", {"text/html": text})


def _output(output: NotebookNode, pictures: Pictures) -> NotebookNode:
    if "text/html" not in output.get("data", {}):
        return output

    def placed(found: re.Match[str]) -> str:
        alt, width, height, encoded = found.groups()
        return _image(pictures.place(encoded), alt, width, height)

    return _html(PICTURE.sub(placed, output.data["text/html"]))


def _image(source: str, alt: str, width: str, height: str) -> str:
    """A picture that a browser fetches when it comes near; the alt text is HTML."""
    return f'<img alt="{alt}" width="{width}" height="{height}" loading="lazy" src="{source}">'


def explorer(found: dict, name: str, pictures: Pictures) -> str:
    """Sliders over a picture. Without a script there is the picture for where they start, as on GitHub.

    Args:
        found: as `frames.frames_of` gives it.
        name: unlike any other on its page.
        pictures: where the pictures are laid down.
    """
    shown = []
    for frame in found["frames"]:
        alt, width, height, encoded = PICTURE.search(frame).groups()
        caption = CAPTION.search(frame)
        shown.append([pictures.place(encoded), html.unescape(alt), caption[1] if caption else "", width, height])
    place, sliders, rows = 0, found["sliders"], []
    for number, slider in enumerate(sliders):
        place = place * len(slider["values"]) + slider["start"]
        rows.append(
            f'<label for="{name}-{number}">{html.escape(slider["label"])}</label>'
            f'<input id="{name}-{number}" type="range" min="0" max="{len(slider["values"]) - 1}" '
            f'value="{slider["start"]}"><output for="{name}-{number}">{slider["values"][slider["start"]]}</output>'
        )
    source, alt, caption, width, height = shown[place]
    data = json.dumps({"values": [slider["values"] for slider in sliders], "frames": shown}, ensure_ascii=False)
    data = data.replace("</", r"<\/")  # or it would end the script
    return (
        f'<div class="explorer"><div class="sliders" hidden>{"".join(rows)}</div>'
        f"<figure>{_image(source, html.escape(alt), width, height)}"
        f"<figcaption>{caption}</figcaption></figure>"
        f'<p class="spoken" aria-live="polite"></p>'
        f'<script type="application/json">{data}</script></div>'
    )


def _asking(text: str) -> str:
    """The text with the answers of a self-test marked: the page asks for the reader's own before it shows one."""
    asks, presses = said("Your answer"), said("First write down what you think; a guess counts. Or press once more.")
    summary = f"<summary>{said('Answer')}</summary>"
    marked = f'<details class="self-test" data-asks="{asks}" data-presses="{presses}">{summary}'
    return text.replace(f"<details>{summary}", marked)


def _questions_first(cells: list[NotebookNode]) -> Iterator[NotebookNode]:
    """The cells, with what follows a question folded away: what its code shows, and the text up to the next heading."""
    folded = ""
    for cell in [*cells, new_markdown_cell("")]:
        if folded:
            answer, *rest = HEADING.split(cell.source, maxsplit=1) if cell.cell_type == "markdown" else [""]
            yield new_markdown_cell(f"{folded}{answer.strip()}\n\n</details>")
            folded, cell.source = "", "".join(rest) if cell.cell_type == "markdown" else cell.source
            if not cell.source.strip():
                continue
        if tagged(cell, "predict"):
            summary = said("Think first. Then look: what happens?")
            folded = f'<details class="predict"><summary>{summary}</summary>\n\n'
            folded += "".join(f"{_as_markdown(output)}\n\n" for output in cell.outputs)
            cell.outputs = []
        yield cell


def _as_markdown(output: NotebookNode) -> str:
    if "data" in output:
        return output.data["text/html"].replace("\n", " ")
    return f"```text\n{output.text.rstrip()}\n```"


def _doors(topic: str) -> str:
    """Where else the notebook is."""
    path = (folder() / f"{topic}.ipynb").relative_to(ROOT).as_posix()
    colab = f"https://colab.research.google.com/github/{repository()}/blob/main/{path}"
    source = f"https://github.com/{repository()}/edit/main/notebooks/sources/{topic}.py"
    doors = {
        said("Open in Colab"): f'href="{colab}"',
        said("Run it in JupyterLab"): 'href="start.html"',
        said("Download the notebook"): f'href="{up()}{path}" download',
        said("Edit this page"): f'href="{source}"',
    }
    links = [f"<a {to}>{words}</a>" for words, to in doors.items()]
    return f'<p class="doors">{" ".join([*links, other_languages(topic)])}</p>'


def other_languages(page: str) -> str:
    """Links to the same page in the other languages."""
    others = {ENGLISH: ("English", ""), "zh": ("简体中文", "zh/")}
    others.pop(spoken())
    return " ".join(
        f'<a lang="{language}" href="{up()}{way}{page}.html">{name}</a>' for language, (name, way) in others.items()
    )


def relinked(text: str, path: str, pages: dict[str, str]) -> str:
    """A markdown text of the repository with its links led to pages of the site, or else to the repository on GitHub.

    Args:
        text: the markdown.
        path: where in the repository it stands.
        pages: for paths in the repository, the site's files.
    """

    def led(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), found[1]))
        if target in pages:
            return f"{pages[target]}{found[2] or ''}"
        return f"https://github.com/{repository()}/blob/main/{target}{found[2] or ''}"

    return LINK.sub(led, IMAGE_IN_LINK.sub(r"[\1](", text))


def sections(text: str) -> dict[str, str]:
    """The parts of a text under its headings of the second level, each by its heading, in order."""
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))
