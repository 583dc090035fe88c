"""Build the notebooks people open from their sources, and tell where the two disagree.

python tools/build_notebooks.py                  execute every source, write notebooks/NN_topic.ipynb
python tools/build_notebooks.py 04_residual_vq   the same for one of them
python tools/build_notebooks.py --language zh    the same for the Chinese ones, in notebooks/zh
python tools/build_notebooks.py --check          execute nothing; fail where a notebook isn't its source's
python tools/build_notebooks.py --solved DIR     write the solved edition into DIR, not executed
python tools/build_notebooks.py --assignments DIR  write nbgrader's assignments, and its settings, into DIR
python tools/build_notebooks.py --rehearsals DIR write what the tests run into DIR/unsolved, DIR/solved, DIR/repeated
"""

import argparse
import base64
import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import zip_longest
from pathlib import Path

import nbformat
import reading
from editions import (
    NOTEBOOKS,
    READING_TIME,
    ROOT,
    RUN_TIME,
    SourceError,
    assignment_edition,
    learner_edition,
    repeated_rehearsal,
    solved_edition,
    solved_rehearsal,
    tagged,
    topics,
    unsolved_rehearsal,
)
from languages import ENGLISH, LANGUAGES, folder, speaking, spoken
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image

from rvq_tutorial.language import said

WIDGET = "application/vnd.jupyter.widget-view+json"
SECONDS_PER_CELL = 300
NBGRADER_CONFIG = Path(__file__).with_name("nbgrader_config.py")
MEGABYTES = 2  # at most: what is larger opens slowly, and in some viewers not at all
README_PICTURE = "rebuilt.png"  # it lies beside the notebooks of its language
RUN_TIME_KEY = "run_time_seconds"  # of a notebook's metadata: what was measured when it was executed
REMEDY = "run `make notebooks`."


class Disagreement(ValueError):
    """A notebook that may not be committed; the message names it and its first wrong cell."""


def build(topic: str) -> None:
    """Execute the learner's edition; write it with its outputs, its reading time and the run time that was measured."""
    notebook = learner_edition(topic)
    metadata = deepcopy(notebook.metadata)  # the kernel adds its own
    with tempfile.TemporaryDirectory() as empty:  # the author's own progress doesn't show
        client = NotebookClient(
            notebook,
            timeout=SECONDS_PER_CELL,
            kernel_name="python3",
            resources={"metadata": {"path": empty}},
            record_timing=False,
            store_widget_state=False,
            extra_arguments=["--log-level=ERROR"],
        )
        start = time.monotonic()
        client.execute()
        seconds = round(time.monotonic() - start, 1)
    notebook.metadata = metadata | {RUN_TIME_KEY: seconds}
    for cell in _code_cells(notebook):
        cell.outputs = [_still(output) for output in _joined(cell.outputs)]
    _state_times(notebook.cells[0], seconds, notebook)
    _refuse_faults(topic, notebook)
    _write(notebook, folder() / f"{topic}.ipynb")
    _write_readme_picture(notebook)
    print(f"{_named(topic)}: executed in {seconds:.0f} s, read in {reading.minutes(notebook):.0f} min")


def check(topic: str) -> None:
    """Raise `Disagreement` unless the committed notebook is its source's, with outputs fit to be seen."""
    expected, path = learner_edition(topic), folder() / f"{topic}.ipynb"
    if not path.exists():
        raise Disagreement(f"{_named(topic)}: {path.relative_to(ROOT)} is missing; {REMEDY}")
    notebook = nbformat.read(path, as_version=4)
    measured = notebook.metadata.pop(RUN_TIME_KEY, None)
    if measured is None:
        raise Disagreement(f"{_named(topic)}: the notebook's run time was never measured; {REMEDY}")
    _state_times(expected.cells[0], measured, notebook)
    for number, (cell, wanted) in enumerate(zip_longest(notebook.cells, expected.cells), 1):
        if cell is None or wanted is None or not _agree(cell, wanted):
            start = (wanted or cell).source.partition("\n")[0]
            raise Disagreement(f"{_named(topic)}: cell {number} ({start!r}) differs from its source; {REMEDY}")
    if notebook.metadata != expected.metadata:
        raise Disagreement(f"{_named(topic)}: the notebook's metadata is not what the build writes; {REMEDY}")
    _refuse_faults(topic, notebook)


def _named(topic: str) -> str:
    """The notebook in this language: 04_residual_vq, zh/04_residual_vq."""
    return (folder() / topic).relative_to(NOTEBOOKS).as_posix()


def _state_times(opening: NotebookNode, seconds: float, notebook: NotebookNode) -> None:
    """Put into the opening how long the executed notebook takes to run and to read."""
    times = {RUN_TIME: _rounded(seconds), READING_TIME: reading.stated(notebook)}
    for marker, time_taken in times.items():
        opening.source = opening.source.replace(marker, time_taken)


def _agree(cell: NotebookNode, wanted: NotebookNode) -> bool:
    """Whether both cells are the same, outputs apart."""
    return all(cell[key] == wanted[key] for key in ("id", "cell_type", "metadata", "source"))


def _refuse_faults(topic: str, notebook: NotebookNode) -> None:
    """Raise `Disagreement` at the first cell whose outputs a reader should not be given."""
    for number, cell in enumerate(notebook.cells, 1):
        for fault in _faults(cell):
            start = cell.source.partition("\n")[0]
            raise Disagreement(f"{_named(topic)}: cell {number} ({start!r}) {fault}")
    if not any(cell.outputs for cell in _code_cells(notebook)):
        raise Disagreement(f"{_named(topic)}: the notebook has no outputs; {REMEDY}")
    if (size := len(_written(notebook)) / 1e6) > MEGABYTES:
        more = f"the notebook has {size:.1f} MB, and {MEGABYTES} are the most it may have."
        raise Disagreement(f"{_named(topic)}: {more}")


def _faults(cell: NotebookNode) -> Iterator[str]:
    if cell.cell_type == "code" and cell.execution_count is None:
        yield f"was never executed; {REMEDY}"
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        text = output.get("text") or data.get("text/plain", "")
        if output.output_type == "error":
            yield f"fails: {output.ename}: {output.evalue}"
        if output.get("name") == "stderr":
            yield f"writes to stderr, which is noise to a reader:\n{text}"
        if WIDGET in data:
            yield "shows a widget without a picture or HTML: nothing is seen where no kernel runs."
        markup = data.get("text/html", "")
        undescribed = any(kind.startswith("image/") for kind in data) and "<img" not in markup
        if undescribed or re.search(r"<img(?![^>]* alt=[\"'][^\"'])", markup):
            yield "shows a picture without an alt text: HTML gives it one, as that of a `plots.Figure` does."
        if re.search(r"<img[^>]* src=[\"'](?!data:image/)", markup):
            yield "shows a picture that isn't in the notebook itself: nothing is seen offline."
        if re.search(r" at 0x[0-9a-f]+>", text):
            yield f"shows an object's address, another one in every run: {text[:80]}"
        for path in (ROOT, Path.home(), Path(tempfile.gettempdir())):
            if re.search(rf"{re.escape(str(path))}\b", text):
                yield f"shows a path of this machine, {path}."


def _still(output: NotebookNode) -> NotebookNode:
    """The output without its widget where a picture or HTML remains to be seen."""
    data = output.get("data", {})
    if any(kind.startswith("image/") or kind == "text/html" for kind in data):
        data.pop(WIDGET, None)
    return output


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """The outputs with neighbouring pieces of one stream joined, as a terminal would finally show them."""
    joined = []
    for output in outputs:
        if joined and output.output_type == "stream" and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    for output in joined:
        if output.output_type == "stream":
            output.text = "\n".join(_overwritten(line) for line in output.text.split("\n"))
    return [output for output in joined if output.output_type != "stream" or output.text.strip()]


def _overwritten(line: str) -> str:
    """What is left of a line whose carriage returns each start it over."""
    shown = ""
    for text in line.split("\r"):
        shown = text + shown[len(text) :]
    return shown.rstrip() if "\r" in line else shown


def _rounded(seconds: float) -> str:
    if seconds > 90:
        return said("about {number} minutes", number=round(seconds / 60))
    if seconds > 10:
        return said("about {number} seconds", number=5 * round(seconds / 5))
    return said("about {number} seconds", number=max(1, round(seconds)))  # a kernel alone takes over half a second


def _code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _write(notebook: NotebookNode, path: Path) -> None:
    _replace(path, _written(notebook))


def _written(notebook: NotebookNode) -> bytes:
    return (nbformat.writes(notebook) + "\n").encode()


def _write_readme_picture(notebook: NotebookNode) -> None:
    """Write the picture of the cell tagged "readme-picture", if there is one, as the README's PNG."""
    for cell in _code_cells(notebook):
        if tagged(cell, "readme-picture"):
            (encoded,) = re.findall(r'src="data:image/\w+;base64,([^"]+)"', cell.outputs[0].data["text/html"])
            content = io.BytesIO()
            Image.open(io.BytesIO(base64.b64decode(encoded))).save(content, format="PNG", optimize=True)
            _replace(folder() / README_PICTURE, content.getvalue())


def _replace(path: Path, content: bytes) -> None:
    """Write beside the old file, then rename: whoever reads finds the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(content)
    os.replace(beside, path)


def _orphans() -> Iterator[str]:
    for path in sorted(folder().glob("*.ipynb")):
        if path.stem not in topics():
            yield f"{_named(path.stem)}: {path.relative_to(ROOT)} has no source in notebooks/sources."


def _complaint(action: Callable[[str], None], topic: str) -> str | None:
    try:
        action(topic)
    except (SourceError, Disagreement) as error:
        return str(error)
    except CellExecutionError as error:
        return f"{_named(topic)}: a cell failed.\n{error}"
    return None


def main() -> None:
    """Do to each topic what the command line says; print every complaint and exit with 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topics", nargs="*", metavar="NN_topic", help="which notebooks; all if none is named")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="execute nothing, only compare")
    mode.add_argument("--solved", type=Path, metavar="DIR", help="write the solved edition into DIR")
    mode.add_argument("--assignments", type=Path, metavar="DIR", help="write nbgrader's assignments into DIR")
    mode.add_argument("--rehearsals", type=Path, metavar="DIR", help="write the editions that the tests run into DIR")
    parser.add_argument("--language", choices=LANGUAGES, help="in which; all if none is named")
    arguments = parser.parse_args()

    def write_solved(topic: str) -> None:
        _write(solved_edition(topic), arguments.solved / f"{_named(topic)}.ipynb")

    def write_assignment(topic: str) -> None:
        course = arguments.assignments / _named("source")  # one of nbgrader's for each language
        _write(assignment_edition(topic), course / topic / f"{topic}.ipynb")
        _replace(course.with_name(NBGRADER_CONFIG.name), NBGRADER_CONFIG.read_bytes())

    def write_rehearsals(topic: str) -> None:
        if spoken() != ENGLISH:  # the code is the same: it is enough to run what a learner gets
            _write(learner_edition(topic), arguments.rehearsals / f"{_named(topic)}.ipynb")
            return
        _write(unsolved_rehearsal(topic), arguments.rehearsals / "unsolved" / f"{topic}.ipynb")
        _write(solved_rehearsal(topic), arguments.rehearsals / "solved" / f"{topic}.ipynb")
        _write(repeated_rehearsal(topic), arguments.rehearsals / "repeated" / f"{topic}.ipynb")

    action = build
    if arguments.check:
        action = check
    elif arguments.solved:
        action = write_solved
    elif arguments.assignments:
        action = write_assignment
    elif arguments.rehearsals:
        action = write_rehearsals
    complaints = []
    for language in [arguments.language] if arguments.language else LANGUAGES:
        with speaking(language):
            complaints += [_complaint(action, topic) for topic in arguments.topics or topics()]
            if arguments.check and not arguments.topics:
                complaints += _orphans()
    if complaints := [complaint for complaint in complaints if complaint]:
        sys.exit("\n".join(complaints))


if __name__ == "__main__":
    main()
