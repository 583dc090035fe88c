"""Ours and its peers in turn in one process: a table and a plot.

python -m benchmarks          everything, about ten minutes; writes benchmarks/results
python -m benchmarks --short  fewer rounds and no file written, under two minutes
"""

import argparse
import os
import platform
from pathlib import Path

import faiss
import matplotlib
import torch

from benchmarks import works
from benchmarks.report import plot, table

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, print, and in the long mode write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="fewer rounds, smaller sizes; under two minutes")
    short = parser.parse_args().short

    matplotlib.use("Agg")
    torch.set_num_threads(2)
    faiss.omp_set_num_threads(2)
    print(f"torch {torch.__version__}, faiss {faiss.__version__}, {platform.machine()}, 2 of {os.cpu_count()} threads")

    sections = []
    for measure in works.SECTIONS:
        section = measure(short)
        print(table(section), flush=True)
        sections.append(section)
    if not short:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "results.md").write_text("\n".join(table(section) for section in sections))
        plot(sections, RESULTS / "results.png")


if __name__ == "__main__":
    main()
