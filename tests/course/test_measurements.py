"""The measurements that ship: each file is of its module's settings, and a short run finds its numbers again."""

import json
import math
from typing import Any

import measure
import pytest

from rvq_tutorial.course import measured

each_measurement = pytest.mark.parametrize("name", measure.names())


def test_every_file_has_its_module_and_every_module_its_file() -> None:
    assert sorted(path.stem for path in measured.FOLDER.glob("*.json")) == measure.names()


@each_measurement
def test_a_file_is_of_the_modules_settings_and_says_how_it_came_about(name: str) -> None:
    record = json.loads((measured.FOLDER / f"{name}.json").read_text())
    module = measure.measurement(name)
    assert record["settings"] == json.loads(json.dumps(module.FULL)), f"run tools/measure.py {name}"
    assert record["what"] == module.__doc__.splitlines()[0]
    assert {"command", "machine", "date", "versions", "seconds"} <= set(record)
    origin = measured.read(name).origin
    assert record["what"] in origin and f"tools/measure.py {name}" in origin


@each_measurement
def test_a_short_run_finds_the_numbers_of_the_long_one(name: str) -> None:
    module = measure.measurement(name)
    short = measure.rounded(module.measure(**module.SHORT))
    differing = list(_differences(short, measured.read(name).results, module.TOLERANCE))
    assert not differing, differing


def _differences(short: Any, shipped: Any, tolerance: float, place: str = "results") -> list[str]:
    """Where the short run's tables and those that ship differ by more than the share `tolerance`."""
    if isinstance(short, dict):
        absent = [f"{place}[{key!r}] is missing" for key in short if key not in shipped]
        pairs = [(short[key], shipped[key], f"{place}[{key!r}]") for key in short if key in shipped]
    elif isinstance(short, list):
        absent = [] if len(short) <= len(shipped) else [f"{place} is too short"]
        pairs = [(a, b, f"{place}[{i}]") for i, (a, b) in enumerate(zip(short, shipped, strict=False))]
    else:
        equal = short == shipped or math.isclose(short, shipped, rel_tol=tolerance)
        return [] if equal else [f"{place}: {short} here, {shipped} in the file"]
    return absent + [fault for pair in pairs for fault in _differences(*pair[:2], tolerance, pair[2])]


def test_differences_are_seen() -> None:
    shipped = {"a": {"0": [1.0, 2.0, 3.0]}, "b": 1}
    assert _differences({"a": {"0": [1.04, 2.0]}}, shipped, 0.05) == []
    assert _differences({"a": {"0": [1.06, 2.0]}}, shipped, 0.05) == [
        "results['a']['0'][0]: 1.06 here, 1.0 in the file"
    ]
    assert _differences({"a": {"1": 3}}, shipped, 0.05) == ["results['a']['1'] is missing"]
    assert _differences({"a": {"0": [1.0, 2.0, 3.0, 4.0]}}, shipped, 0.05) == ["results['a']['0'] is too short"]
    assert _differences({"b": math.nan}, shipped, 0.05)


def test_a_measurement_that_does_not_ship_is_named() -> None:
    with pytest.raises(ValueError, match=r"ships with the course .* got 'nothing'"):
        measured.read("nothing")
