"""What took longer to measure than a notebook may run: results that ship, each with how it came about.

`make measurements` makes them anew; beside this file lies one of JSON for each.
"""

import json
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

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
        there_are = ", ".join(sorted(file.stem for file in FOLDER.glob("*.json")))
        raise ValueError(f"name must be a measurement that ships with the course ({there_are}), got {name!r}")
    record = json.loads(path.read_text(encoding="utf-8"))
    day = date.fromisoformat(record["date"])
    origin = (
        f"{record['what']} Measured in {_duration(record['seconds'])} on {day.day} {day:%B %Y} "
        f"({record['machine']}): {record['command']}"
    )
    return Measurement(record["results"], record["settings"], origin)


def _duration(seconds: int) -> str:
    return f"{seconds} seconds" if seconds < 90 else f"{round(seconds / 60)} minutes"
