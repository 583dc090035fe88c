"""Codebooks of 4 to 256 codewords, trained by gradient alone and with the package's defaults, from several seeds.

The networks, the training and the patches are those of notebook 03; the results stand by the length of training, the
way of training, measure, seed and number of codewords.
"""

import itertools
from typing import Any

from measure import notebook

FULL = {"seeds": [0, 1, 2, 3, 4], "sizes": [4, 16, 64, 256], "steps": [600, 2400]}
SHORT = {"seeds": [0], "sizes": [4, 16], "steps": [600]}
TOLERANCE = 0.1


def measure(seeds: list[int], sizes: list[int], steps: list[int]) -> dict[str, Any]:
    """Train a network of every size, either way, from every seed."""
    names = notebook("03_codebook_collapse")
    ways = {"by gradient": names["PLAIN"], "defaults": {}}
    results: dict[str, Any] = {}
    for way, seed, size in itertools.product(ways, seeds, sizes):
        path = names["learn"](names["network"](8, size, seed, **ways[way]), keep=steps, steps=max(steps))
        for step in steps:
            report = names["report"](path[step])
            for measure in ("perplexity", "held-out MSE"):
                row = results.setdefault(f"after {step:,} steps", {}).setdefault(way, {}).setdefault(measure, {})
                row.setdefault(str(seed), {})[str(size)] = report[measure]
    return results
