"""What took longer to measure than a notebook may run: results that ship, each with how it came about.

`make measurements` makes them anew; beside this file lies one of JSON for each.
"""

import json
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from rvq_tutorial.language import said

FOLDER = Path(__file__).parent


class Measurement(NamedTuple):
    results: dict[str, Any]  # tables in tables of numbers
    settings: dict[str, Any]  # seeds, steps and the like
    origin: str  # in a line: what was measured, when, on what, by which command

    def __str__(self) -> str:
        return self.origin


def read(name: str) -> Measurement:
    """The measurement of this name.

    Raises:
        ValueError: there is none of this name.
    """
    path = FOLDER / f"{name}.json"
    if not path.exists():
        there_are = said(", ").join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise ValueError(
            said(
                "name must be a measurement that ships with the course ({there_are}), got {name!r}",
                there_are=there_are,
                name=name,
            )
        )
    record = json.loads(path.read_text(encoding="utf-8"))
    day = date.fromisoformat(record["date"])
    origin = said(
        "{what} Measured in {time} on {day.day} {day:%B %Y} ({machine}): {command}",
        what=said(record["what"]),
        time=_duration(record["seconds"]),
        day=day,
        machine=record["machine"],
        command=record["command"],
    )
    return Measurement(record["results"], record["settings"], origin)


def _duration(seconds: int) -> str:
    if seconds < 90:
        return said("{number} seconds", number=seconds)
    return said("{number} minutes", number=round(seconds / 60))
