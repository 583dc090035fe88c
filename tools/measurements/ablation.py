"""Eight combinations of three repairs of codebook collapse, each trained from several seeds, measured along the way.

The networks, the training and the patches are those of notebook 03; each combination's results stand under "with
restarts" or "without restarts", by the other repairs, measure, seed and step.
"""

import itertools
from typing import Any

import torch
from measure import notebook
from torch import nn

FULL = {"seeds": [0, 1, 2, 3, 4], "steps": [25, 50, 100, 150, 200, 250, 300, 400, 600, 800, 1200, 1600, 2400]}
SHORT = {"seeds": [0], "steps": [25, 50]}
TOLERANCE = 0.05

NAMES = {(): "neither", ("k-means",): "k-means start", ("EMA",): "EMA", ("k-means", "EMA"): "k-means start and EMA"}


def measure(seeds: list[int], steps: list[int]) -> dict[str, Any]:
    """Train every combination from every seed."""
    names = notebook("03_codebook_collapse")
    results: dict[str, Any] = {}
    for restarts, repairs, seed in itertools.product((False, True), NAMES, seeds):
        update, threshold = "ema" if "EMA" in repairs else "gradient", 0.1 if restarts else 0
        network = names["network"](8, seed=seed, codebook_update=update, dead_code_threshold=threshold)
        if "k-means" in repairs:
            names["start_where_the_data_is"](network)
        path = names["learn"](network, keep=steps, steps=max(steps))
        row = results.setdefault("with restarts" if restarts else "without restarts", {})
        measures = row.setdefault(NAMES[repairs], {})
        for step in steps:
            for measure, value in _measured(path[step], names).items():
                measures.setdefault(measure, {}).setdefault(str(seed), {})[str(step)] = value
    return results


@torch.no_grad()
def _measured(network: nn.ModuleList, names: dict[str, Any]) -> dict[str, float]:
    """The notebook's report, and what explains it.

    That is the error on training patches, the error on held-out patches no brighter than 98 % of those, and how bright
    the brightest codeword is: the mean of its decoded patch.
    """
    encoder, quantizer, decoder = network.eval()
    train, held_out = names["train"], names["held_out"]
    errors = [(decoder(quantizer.decode(quantizer.encode(encoder(x)))) - x).square().mean(1) for x in (train, held_out)]
    usual = held_out.mean(1) <= train.mean(1).quantile(0.98)
    report = names["report"](network)
    return {
        "perplexity": report["perplexity"],
        "held-out MSE": report["held-out MSE"],
        "held-out MSE without the brightest": errors[1][usual].mean().item(),
        "training MSE": errors[0].mean().item(),
        "brightest codeword": decoder(quantizer.codebook).mean(1).max().item(),
    }
