"""Learners who share a machine: how long one waits alone, how long beside three others, and what memory each takes.

python -m benchmarks.busy          every setting, some minutes on a quiet machine; writes benchmarks/results/busy.md
python -m benchmarks.busy --short  one round of the waiting alone; writes no file
"""

import argparse
import contextlib
import io
import itertools
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbclient import NotebookClient
from tqdm import tqdm

from benchmarks.report import RESULTS, processor

LEARNERS = 4
ROUNDS = 5
ROOT = Path(__file__).parent.parent
NOTHING, LAB, HUB = "nothing set", "`make lab`", "one thread, as on a hub"
KERNELS = re.search(r"^KERNELS := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1]
# What a kernel finds in its environment before torch is loaded.
SETTINGS: dict[str, dict[str, str]] = {
    NOTHING: {},
    LAB: dict(variable.split("=") for variable in KERNELS.split()),
    HUB: {"OMP_NUM_THREADS": "1"},
}
STEPS, VECTORS = 12, 25_000  # few: where nothing is set, four learners take forty times as long
WORKS = f"{STEPS} training steps of 07", f"k-means, {VECTORS:,} × 16, K = 256"
NOTEBOOKS = "04_residual_vq", "07_rvq_vae"


class Taken(NamedTuple):
    """What a work took of one learner, in seconds."""

    wall: float
    cpu: float  # of all threads, waiting in a loop included


def environment(setting: str) -> dict[str, str]:
    """That of this process, with what the setting says, and with nothing that another one says."""
    named = {name for each in SETTINGS.values() for name in each}
    return {name: value for name, value in os.environ.items() if name not in named} | SETTINGS[setting]


class Learner:
    """A process of its own that does a work when told to."""

    def __init__(self, setting: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.busy", "--learner"],
            env=environment(setting),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, work: str) -> None:
        """Tell it to begin."""
        assert self._process.stdin
        print(work, file=self._process.stdin, flush=True)

    def taken(self) -> Taken:
        """Wait until it is done."""
        assert self._process.stdout
        return Taken(*map(float, self._process.stdout.readline().split()))

    def leave(self) -> None:
        """End the process."""
        self._process.communicate()


def works() -> dict[str, Callable[[], object]]:
    """By name, what a learner may be told to do."""
    import torch

    from rvq_tutorial import ResidualVectorQuantizer, kmeans
    from rvq_tutorial.autoencoder import VQVAE, Decoder, Encoder
    from rvq_tutorial.autoencoder.training import fit
    from rvq_tutorial.course import data

    crops = data.photo_crops(64, 256)
    vectors = torch.randn(VECTORS, 16, generator=torch.Generator().manual_seed(0))

    def training() -> None:
        torch.manual_seed(0)
        quantizer = ResidualVectorQuantizer(20, 256, num_quantizers=8, channel_dim=1, quantize_dropout=1.0)
        fit(VQVAE(Encoder(dim=20), quantizer, Decoder(dim=20)), crops, steps=STEPS)

    def clustering() -> None:
        kmeans(vectors, 256, generator=torch.Generator().manual_seed(0))

    return dict(zip(WORKS, (training, clustering), strict=True))


def learn() -> None:
    """Be a learner: for each line that comes in, do the work of that name and say what it took."""
    by_name = works()
    for line in sys.stdin:
        work = by_name[line.rstrip("\n")]
        wall, cpu = time.perf_counter(), time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            work()
        print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)


class Round(NamedTuple):
    """One learner alone, then all at once."""

    alone: Taken
    slowest: float  # of all at once, in seconds; NaN where that was left out


def measure(work: str, teams: Mapping[str, list[Learner]], rounds: int) -> dict[str, list[Round]]:
    """Every round of each setting. They take turns, so that a slow minute of the machine is slow for all."""
    found: dict[str, list[Round]] = {setting: [] for setting in teams}
    for number in tqdm(range(1 + rounds), desc=work, unit="round", leave=False):
        for setting, team in teams.items():
            team[0].start(work)
            alone = team[0].taken()
            slowest = math.nan
            if setting != NOTHING or number == 1:  # once must do: it takes minutes
                for learner in team:
                    learner.start(work)
                slowest = max(learner.taken().wall for learner in team)
            if number > 0:  # the first is to warm up
                found[setting].append(Round(alone, slowest))
    return found


def table(work: str, found: Mapping[str, list[Round]]) -> str:
    """A markdown table of medians."""

    def median(setting: str, of: Callable[[Round], float]) -> float:
        return statistics.median(value for value in map(of, found[setting]) if not math.isnan(value))

    alone_today = median(NOTHING, lambda each: each.alone.wall)
    lines = [
        f"\n### {work}\n",
        "| | alone, s | times today's | CPU of one alone, s | four at once, s | times four in a row today |",
        "|---|---|---|---|---|---|",
    ]
    for setting in found:
        alone, slowest = median(setting, lambda each: each.alone.wall), median(setting, lambda each: each.slowest)
        cpu = median(setting, lambda each: each.alone.cpu)
        lines.append(
            f"| {setting} | {alone:.2f} | {alone / alone_today:.2f} × | {cpu:.2f} | {slowest:.1f} "
            f"| {slowest / (LEARNERS * alone_today):.2f} × |"
        )
    return "\n".join(lines) + "\n"


def memory(topic: str, setting: str) -> list[float]:
    """Megabytes of a kernel that runs a notebook: after its imports, at the end, and at most."""
    found: list[float] = []

    def weigh(cell: nbformat.NotebookNode, **_: object) -> None:
        nonlocal peak
        process = client.km.provisioner.pid
        if "from rvq_tutorial" in cell.source or found:
            found.append(_megabytes(process, "smaps_rollup", "Pss:"))
        peak = _megabytes(process, "status", "VmHWM:")

    peak = 0.0
    notebook = nbformat.read(ROOT / "notebooks" / f"{topic}.ipynb", as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, resources=place, timeout=600, on_cell_executed=weigh)
        client.execute(env=environment(setting))
    return [found[0], found[-1], peak]


def _megabytes(process: int, file: str, field: str) -> float:
    lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def memory_table(found: Mapping[str, list[float]]) -> str:
    """A markdown table of what `memory` found, by notebook and setting."""
    lines = [
        "\n### A learner's memory, Run All (MB, Linux; shared pages by shares, but for the peak)\n",
        "| | after the imports | at the end | above the imports | at most |",
        "|---|---|---|---|---|",
    ]
    for name, (start, end, peak) in found.items():
        lines.append(f"| {name} | {start:.0f} | {end:.0f} | {end - start:.0f} | {peak:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and in the long mode write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="one round of the waiting alone, no file")
    parser.add_argument("--learner", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.learner:
        learn()
        return

    about = (
        f"`python -m benchmarks.busy`, {date.today()}, on {processor()}, {os.cpu_count()} cores; "
        f"Python {platform.python_version()}, torch {version('torch')}. Medians of {ROUNDS} rounds; "
        "of four at once with nothing set, one round.\n\n"
        f"{LEARNERS} learners at once: what the slowest of them waits. In a row: {LEARNERS} times one alone, as today, "
        "with nothing set.\n"
    )
    print(about)
    teams = {setting: [Learner(setting) for _ in range(LEARNERS)] for setting in SETTINGS}
    tables = []
    for work in WORKS:
        tables.append(table(work, measure(work, teams, 1 if arguments.short else ROUNDS)))
        print(tables[-1], flush=True)
    for learner in itertools.chain(*teams.values()):
        learner.leave()
    if not arguments.short:
        cases = itertools.product(NOTEBOOKS, (NOTHING, LAB))
        tables.append(memory_table({f"{topic}, {setting}": memory(topic, setting) for topic, setting in cases}))
        print(tables[-1])
        (RESULTS / "busy.md").write_text("\n".join([about, *tables]), encoding="utf-8")


if __name__ == "__main__":
    main()
