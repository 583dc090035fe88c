"""Ours and its peers in turn in one process: a table and a plot.

python -m benchmarks          everything, about ten minutes; writes benchmarks/results
python -m benchmarks --short  fewer rounds and no file written, under two minutes
"""

import argparse
import os
import platform
import warnings
from datetime import date
from importlib.metadata import version

import faiss
import matplotlib
import torch

from benchmarks import works
from benchmarks.fingerprint import fingerprint
from benchmarks.report import RESULTS, plot, processor, table

warnings.filterwarnings("ignore", message=".*has random codewords")  # the clock doesn't ask where they lie

THREADS = 2
PACKAGES = "torch", "numpy", "faiss-cpu", "scikit-learn", "vector-quantize-pytorch"


def heading() -> str:
    """How the figures came about: machine, versions, date."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"`python -m benchmarks`, {date.today()}, on {processor()}, {THREADS} threads of {os.cpu_count()} cores; "
        f"Python {platform.python_version()}, {versions}. Fingerprint of the code: {fingerprint()}.\n\n"
        "Medians; in brackets, times ours; below, the range of the middle half. All contenders of a row run in turn.\n"
    )


def main() -> None:
    """Measure, print, and in the long mode write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer rounds, smaller sizes; under two minutes")
    short = parser.parse_args().short

    matplotlib.use("Agg")
    torch.set_num_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    print(heading())

    sections = []
    for measure in works.SECTIONS:
        section = measure(short)
        print(table(section), flush=True)
        sections.append(section)
    if not short:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "results.md").write_text("\n".join([heading(), *(table(section) for section in sections)]))
        plot(sections, RESULTS / "results.png")


if __name__ == "__main__":
    main()
