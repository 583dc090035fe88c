"""Measure what takes longer than a notebook may run. The results ship with the package, and the notebooks draw them.

python tools/measure.py                       every measurement
python tools/measure.py ablation              one of them

Each is a module of tools/measurements: `measure(**FULL)` gives nested tables of numbers, and `measure(**SHORT)`, which
a test runs, some of the same numbers again, equal up to the share TOLERANCE.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import time
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import jupytext
import numpy
import torch
from editions import ROOT, SOURCES, tagged

from rvq_tutorial.autoencoder.files import write_whole

MEASUREMENTS = Path(__file__).parent / "measurements"
RESULTS = ROOT / "rvq_tutorial" / "course" / "measured"
DIGITS = 5  # significant ones; the rest is noise


def names() -> list[str]:
    """Every measurement there is."""
    return sorted(path.stem for path in MEASUREMENTS.glob("*.py"))


def measurement(name: str) -> ModuleType:
    """The module of one measurement."""
    return importlib.import_module(f"measurements.{name}")


def notebook(topic: str) -> dict[str, Any]:
    """The names that a source's cells tagged `measured` define: what is measured is what the learner sees."""
    found: dict[str, Any] = {}
    for cell in jupytext.read(SOURCES / f"{topic}.py").cells:
        if tagged(cell, "measured"):
            exec(compile(cell.source, topic, "exec"), found)
    return found


def rounded(results: Any) -> Any:
    """The same tables, with what a file needs of each number, and every key a string."""
    if isinstance(results, dict):
        return {str(key): rounded(value) for key, value in results.items()}
    if isinstance(results, list | tuple):
        return [rounded(value) for value in results]
    return float(f"{results:.{DIGITS}g}") if isinstance(results, float) else results


def run(name: str) -> None:
    """Measure in full, and write the results with how they came about."""
    module = measurement(name)
    start = time.monotonic()
    results = module.measure(**module.FULL)
    record = {
        "what": module.__doc__.splitlines()[0],
        "command": f"python tools/measure.py {name}",
        "settings": module.FULL,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {_threads()}",
        "date": date.today().isoformat(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__},
        "seconds": round(time.monotonic() - start),
        "results": rounded(results),
    }
    write_whole(RESULTS / f"{name}.json", (json.dumps(record, indent=1) + "\n").encode())
    print(f"{name}: measured in {record['seconds']} s")


def _threads() -> str:
    number = torch.get_num_threads()
    return "1 thread" if number == 1 else f"{number} threads"


def main() -> None:
    """Run the measurements that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which; all if none is named: {', '.join(names())}")
    wanted = parser.parse_args().names or names()
    if unknown := set(wanted) - set(names()):
        sys.exit(f"There is no measurement {', '.join(sorted(unknown))}; there are {', '.join(names())}.")
    for name in wanted:
        run(name)


if __name__ == "__main__":
    main()
