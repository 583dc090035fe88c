"""Restarts after 22, 45 and 230 steps: three decays of the moving average, each trained from several seeds.

The networks, the training and the patches are those of notebook 03; the results stand by decay, measure, seed and step.
"""

import itertools
from typing import Any

from measure import notebook

FULL = {
    "decays": [0.9, 0.95, 0.99],
    "seeds": [0, 1, 2, 3, 4],
    "steps": [25, 50, 100, 150, 200, 250, 300, 400, 600, 800, 1200, 1600, 2400],
}
SHORT = {"decays": [0.9, 0.99], "seeds": [0], "steps": [25, 50]}
TOLERANCE = 0.05


def measure(decays: list[float], seeds: list[int], steps: list[int]) -> dict[str, Any]:
    """Train with every decay from every seed."""
    names = notebook("03_codebook_collapse")
    rows: dict[str, Any] = {}
    for decay, seed in itertools.product(decays, seeds):
        path = names["learn"](names["network"](8, seed=seed, decay=decay), keep=steps, steps=max(steps))
        for step in steps:
            report = names["report"](path[step])
            for measure in ("perplexity", "held-out MSE"):
                row = rows.setdefault(f"decay {decay}", {}).setdefault(measure, {})
                row.setdefault(str(seed), {})[str(step)] = report[measure]
    return {"EMA and restarts": rows}
