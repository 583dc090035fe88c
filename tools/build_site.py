"""Build the site: the course as pages that need no kernel and no server, in every language, into build/site.

python tools/build_site.py

The notebooks are taken as they are built, the pictures of their sliders from build/frames (see tools/frames.py): what
is missing there is run first, which takes some minutes for each language.
"""

import base64
import csv
import html
import re
import shutil
import sys

import frames
import icons
import nbformat
import torch
import torchvision
from editions import topics
from languages import ENGLISH, LANGUAGES, ROOT, SOURCES, folder, speaking, spoken
from pages import Pictures, explorer, notebook_page, other_languages, relinked, sections
from sphinx.cmd.build import build_main

from rvq_tutorial.autoencoder import pretrained
from rvq_tutorial.course import data
from rvq_tutorial.language import said

SITE = ROOT / "build" / "site"
PAGES = ROOT / "build" / "pages"
SETTINGS = ROOT / "site"
SPHINX = {"zh": "zh_CN"}  # what Sphinx calls a language, where it isn't what we do
TERMS = SOURCES / "zh" / "terms.csv"

# The repository's texts that are pages as they stand, in English: where they lie, and the page.
TEXTS = {
    "docs/package.md": "package.md",
    "docs/coming-from-vector-quantize-pytorch.md": "coming-from-vector-quantize-pytorch.md",
    "benchmarks/results/results.md": "benchmarks.md",
    "rvq_tutorial/autoencoder/weights/MODEL_CARD.md": "model-card.md",
    "docs/for-teachers.md": "for-teachers.md",
    "CONTRIBUTING.md": "for-authors.md",
    "CHANGELOG.md": "changelog.md",
}
LOOK_UP = ["start.md", "terms.md"]


def lay_down() -> None:
    """Write the pages of the language that is spoken, for Sphinx to read."""
    home = PAGES / spoken()
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    pictures = Pictures(SITE / "pictures")
    tests = []  # how many self-tests each notebook has
    for topic in topics():
        page = notebook_page(topic, pictures)
        nbformat.write(page, home / f"{topic}.ipynb")
        tests.append(sum(cell.source.count('class="self-test"') for cell in page.cells))
    readme = _readme()
    start, course, symbols = list(sections(readme).items())[:3]
    places = _places()
    (home / "start.md").write_text(f"# {start[0]}\n\n{relinked(start[1], 'README.md', places)}\n", encoding="utf-8")
    (home / "terms.md").write_text(_terms(*symbols), encoding="utf-8")
    (home / "index.md").write_text(_front(readme, *course, tests, pictures), encoding="utf-8")
    if spoken() == ENGLISH:
        for path, page in TEXTS.items():
            text = (ROOT / path).read_text(encoding="utf-8")
            if not text.startswith("# "):
                text = f"# {page.removesuffix('.md').capitalize()}\n\n" + text.replace("### ", "## ")
            (home / page).write_text(relinked(text, path, places), encoding="utf-8")
        (home / "api.md").write_text(_api(), encoding="utf-8")


def _readme() -> str:
    return (ROOT / ("README.md" if spoken() == ENGLISH else "README.zh-CN.md")).read_text(encoding="utf-8")


def _places() -> dict[str, str]:
    """For paths in the repository, the pages of this language."""
    notebooks = {(folder() / f"{topic}.ipynb").relative_to(ROOT).as_posix(): f"{topic}.ipynb" for topic in topics()}
    readmes = {"README.md": "index.md" if spoken() == ENGLISH else "../index.html"}
    texts = TEXTS if spoken() == ENGLISH else {}
    return notebooks | readmes | texts


def _front(readme: str, heading: str, course: str, tests: list[int], pictures: Pictures) -> str:
    """The first page: the photo under its slider, one sentence, two buttons; then the course's map."""
    title = re.search(r"^# (.*)$", readme, re.MULTILINE)[1]
    sentence = said("How few numbers does a photo need? Move the slider: every stage adds one byte for each patch.")
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in course.splitlines() if line.startswith("| [")]
    entries = []
    for (number, question, built, minutes, _), topic, self_tests in zip(rows, topics(), tests, strict=True):
        number = re.search(r"\d+", number)[0]
        entries.append(
            f'<li data-page="{topic}" data-tests="{self_tests}">'
            f'<a href="{topic}.html"><b>{number}</b> {html.escape(question)}</a>'
            f"<p>{html.escape(built)} · {minutes} {said('minutes')}</p></li>"
        )
    return "\n\n".join(
        [
            f"---\nhtml_theme.sidebar_secondary.remove: true\n---\n\n# {title}",
            explorer(front_frames(), "front", pictures),
            f'<p class="lead">{sentence}</p>',
            f'<p class="buttons"><a class="button" href="{topics()[0]}.html">{said("Begin to read")}</a> '
            f'<a class="button plain" href="start.html">{said("Run it yourself")}</a></p>',
            f"<p>{other_languages('index')}</p>",
            f"## {heading}",
            f'<ol class="course" data-done="{said("{done} of {all} self-tests answered")}">{"".join(entries)}</ol>',
            _contents(),
        ]
    )


def front_frames() -> dict:
    """A photo that the model has never seen, rebuilt from one stage to all, as `frames.frames_of` gives frames."""
    model, _ = pretrained.load()
    photo = data.photos().held_out["coffee"]
    stages = range(1, 9)
    with torch.no_grad():
        indices = model.encode(photo[None])
        rebuilt = [model.decode(indices[..., :number])[0].clamp(0, 1) for number in stages]
    drawn = []
    for number, picture in zip(stages, rebuilt, strict=True):
        kilobytes = indices[..., :number].numel() / 1000
        size = said("{kilobytes:.1f} kB in place of {all:.0f} kB", kilobytes=kilobytes, all=photo.numel() / 1000)
        alt = said("A cup of coffee, rebuilt from {number} of 8 stages.", number=number)
        drawn.append(
            f'<img alt="{alt}" width="600" height="400" src="data:image/png;base64,{_png(picture)}">'
            f"<figcaption>{size}</figcaption>"
        )
    slider = {"label": said("stages"), "values": [str(number) for number in stages], "start": 1}
    return {"sliders": [slider], "frames": drawn}


def _png(picture: torch.Tensor) -> str:
    return base64.b64encode(torchvision.io.encode_png((255 * picture).round().byte()).numpy().tobytes()).decode()


def _contents() -> str:
    """What stands at the side of every page."""
    parts = {said("The course"): [f"{topic}.ipynb" for topic in topics()], said("To look up"): LOOK_UP}
    if spoken() == ENGLISH:
        package = ["package.md", "api.md", "coming-from-vector-quantize-pytorch.md", "benchmarks.md", "model-card.md"]
        parts |= {
            "The package": package,
            "To teach and to write": ["for-teachers.md", "for-authors.md", "changelog.md"],
        }
    fence = "```"
    return "\n\n".join(
        f"{fence}{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + f"\n{fence}"
        for caption, pages in parts.items()
    )


def _terms(heading: str, symbols: str) -> str:
    """The list of terms, each with the notebook that introduces it, and the symbols."""
    with TERMS.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = [f"| {said('English')} | 中文 | {said('where it is introduced')} |", "|---|---|---|"]
    for row in rows:
        term = row["english"].split("|")[0]
        lines.append(f"| {term} | {row['chinese'].split('|')[0]} | {_introduced(row['english'].split('|'))} |")
    return f"# {said('Terms and symbols')}\n\n" + "\n".join(lines) + f"\n\n## {heading}\n\n{symbols}\n"


def _introduced(names: list[str]) -> str:
    """A link to the first notebook that says one of the names."""
    for topic in topics():
        text = (SOURCES / f"{topic}.py").read_text(encoding="utf-8").lower()
        if any(re.search(rf"\b{re.escape(name.lower())}s?\b", text) for name in names):
            return f"[{topic[:2]}]({topic}.ipynb)"
    return ""


def _api() -> str:
    fence = "```"
    return f"# The package's names\n\n{fence}{{eval-rst}}\n.. automodule:: rvq_tutorial\n   :members:\n{fence}\n"


def make_html() -> None:
    """Have Sphinx make the pages of the language that is spoken; a warning is an error."""
    out = SITE if spoken() == ENGLISH else SITE / spoken()
    where = ["-c", str(SETTINGS), "-d", str(PAGES / f"{spoken()}.doctrees"), str(PAGES / spoken()), str(out)]
    language = SPHINX.get(spoken(), spoken())
    title = re.search(r"^# (.*)$", _readme(), re.MULTILINE)[1]
    if build_main(
        ["-q", "-W", "--keep-going", "-b", "html", "-D", f"language={language}", "-D", f"html_title={title}", *where]
    ):
        sys.exit("Sphinx found fault with the pages; see above.")
    script = (icons.STATIC / icons.SCRIPT).read_text(encoding="utf-8")
    for page in out.glob("*.html"):
        page.write_text(icons.drawn(page.read_text(encoding="utf-8"), script), encoding="utf-8")
    data = out / "_static" / "language_data.js"  # Sphinx 9 names a stemmer that it doesn't bring
    data.write_text(data.read_text(encoding="utf-8").replace("= ChineseStemmer", "= EnglishStemmer"), encoding="utf-8")
    for left_over in ("_sources", "_static/scripts/fontawesome.js", ".buildinfo", "objects.inv"):
        shutil.rmtree(out / left_over, ignore_errors=True)
        (out / left_over).unlink(missing_ok=True)
    for unused in out.glob("_static/**/*.map"):
        unused.unlink()


def main() -> None:
    """Build the whole site anew."""
    frames.main()
    shutil.rmtree(SITE, ignore_errors=True)
    for language in LANGUAGES:
        with speaking(language):
            lay_down()
            make_html()
            downloads = SITE / folder().relative_to(ROOT)
            downloads.mkdir(parents=True)
            for topic in topics():
                shutil.copy(folder() / f"{topic}.ipynb", downloads)
    size = sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file())
    print(f"{SITE.relative_to(ROOT)}: {size / 1e6:.0f} MB; open index.html, or say `make site-open`")


if __name__ == "__main__":
    main()
