"""What sliders show, as the kernel that runs a notebook hands it over: where no kernel runs, the site moves them by it.

python tools/frames.py    run every notebook whose frames are missing or of another state of the course

build/frames/zh/01_codebooks/CELL.json has the sliders of that cell, with their names and values, and the picture for
each combination of these. `make test-all`, which runs every notebook, leaves the frames of all of them behind.
"""

import functools
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from editions import learner_edition, topics
from languages import LANGUAGES, ROOT, speaking, spoken
from nbclient import NotebookClient
from nbformat import NotebookNode
from tqdm import tqdm

FRAMES = ROOT / "build" / "frames"
PACKAGE = ROOT / "rvq_tutorial"
EXPLORES = re.compile(r"^widgets\.explore\(", re.MULTILINE)  # the last expression of its cell
HAND_OVER = """
def _hand_over(explorer):
    import json
    from pathlib import Path

    from rvq_tutorial.autoencoder.files import write_whole

    sliders = [
        {{"label": slider.description, "values": [label for label, _ in slider.options], "start": slider.index}}
        for slider in explorer.sliders.values()
    ]
    found = {{"state": {state!r}, "sliders": sliders, "frames": list(explorer.frames.values())}}
    path = Path({path!r})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(found).encode())

_hand_over(Out[max(Out)])
del _hand_over
"""


def has_sliders(cell: NotebookNode) -> bool:
    """Whether a cell ends in sliders."""
    return cell.cell_type == "code" and EXPLORES.search(cell.source) is not None


def hand_over(language: str, topic: str, cell: NotebookNode) -> str:
    """What a kernel runs, right after that cell of a learner's notebook, to write its frames."""
    path = _path(language, topic, cell)
    return HAND_OVER.format(state=_state(language, topic), path=str(path))


def frames_of(language: str, topic: str, cell: NotebookNode) -> dict:
    """The sliders of a cell, and the pictures, HTML, for the combinations of their values; the last slider turns first.

    Raises:
        FileNotFoundError: nobody has run this state of the notebook.
    """
    found = json.loads(_path(language, topic, cell).read_bytes())
    if found["state"] != _state(language, topic):
        raise FileNotFoundError(f"The frames of {language}/{topic} are of another state of the course.")
    return found


def are_there(topic: str) -> bool:
    """Whether the frames of all cells of a notebook are there, and of this state."""
    try:
        return all(frames_of(spoken(), topic, cell) for cell in learner_edition(topic).cells if has_sliders(cell))
    except FileNotFoundError:
        return False


def execute(topic: str) -> None:
    """Run a notebook as a learner gets it, for its frames."""
    notebook = learner_edition(topic)
    with tempfile.TemporaryDirectory() as empty:
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": empty}})
        with client.setup_kernel():
            client.nb.metadata.setdefault("language_info", {"name": "python"})
            for index, cell in enumerate(tqdm(notebook.cells, desc=f"{spoken()}/{topic}", unit="cell", delay=2)):
                client.execute_cell(cell, index)
                if has_sliders(cell):
                    code = nbformat.v4.new_code_cell(hand_over(spoken(), topic, cell))
                    client.nb.cells.append(code)
                    client.execute_cell(code, len(client.nb.cells) - 1)
                    client.nb.cells.pop()


def _path(language: str, topic: str, cell: NotebookNode) -> Path:
    return FRAMES / language / topic / f"{cell.id}.json"


@functools.cache
def _state(language: str, topic: str) -> str:
    """A digest of all that a notebook's pictures depend on."""
    with speaking(language):
        code = [cell.source for cell in learner_edition(topic).cells if cell.cell_type == "code"]
    digest = hashlib.sha256("\n".join(code).encode())
    for path in _files():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _files() -> Iterator[Path]:
    for path in sorted(PACKAGE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def main() -> None:
    """Run what has to be run."""
    for language in LANGUAGES:
        with speaking(language):
            for topic in topics():
                if not are_there(topic):
                    execute(topic)


if __name__ == "__main__":
    sys.exit(main())
