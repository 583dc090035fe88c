"""What the checks have accepted: kept in one small file beside the notebooks, and shown as a map of the course.

Where the folder can't be written to, nothing is kept and nothing is said.
"""

import contextlib
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rvq_tutorial.autoencoder.files import write_whole
from rvq_tutorial.course.check.sentences import say

FILE = "progress.json"  # in the folder where the notebook runs; to start over, delete it


def remembered() -> set[str]:
    """The exercises that a check has accepted."""
    try:
        record = json.loads(Path(FILE).read_text(encoding="utf-8"))
        return {name for name in record["solved"] if isinstance(name, str)}
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or no longer ours to read
        return set()


def remember(exercise: str) -> None:
    """Add an exercise to those that are solved."""
    names = remembered()
    if exercise in names:
        return
    with contextlib.suppress(OSError):
        write_whole(Path(FILE), json.dumps({"solved": sorted(names | {exercise})}, indent=1).encode())


class Map:
    """Every notebook of the course with its exercises, those solved marked ✓ and the others ○."""

    def __init__(self, notebooks: Mapping[str, Sequence[str]]) -> None:
        done = remembered()
        self.notebooks = {title: {name: name in done for name in names} for title, names in notebooks.items()}

    def __repr__(self) -> str:
        return "\n".join(
            [*(f"{title}\n    {'   '.join(_marked(row))}" for title, row in self.notebooks.items()), self._sum]
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row" style="text-align: left">{html.escape(title)}</th>'
            f'<td style="text-align: left">{" &emsp;".join(_marked(row))}</td></tr>'
            for title, row in self.notebooks.items()
        )
        return f"<table>{rows}</table><p>{self._sum}</p>"

    @property
    def _sum(self) -> str:
        marks = [mark for row in self.notebooks.values() for mark in row.values()]
        return say("solved", number=sum(marks), all=len(marks))


def _marked(row: Mapping[str, bool]) -> list[str]:
    return [f"{'✓' if done else '○'} {name}" for name, done in row.items()]
