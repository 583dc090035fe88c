"""An encoder trained before a lookup, with straight-through and with the gradient cut: its held-out error over steps.

Four ways, with commitment loss and without. The network, its data and its training are notebook 02's own code.
"""

from measure import notebook

FULL = {"seeds": [0, 1, 2, 3, 4, 5], "checkpoints": [50, 100, 200, 400, 800, 1600, 3200]}
SHORT = {"seeds": [0], "checkpoints": [50, 100]}
TOLERANCE = 0.05

WAYS = {
    "straight-through": {"cut": False, "beta": 0.25},
    "straight-through, β = 0": {"cut": False, "beta": 0.0},
    "gradient cut": {"cut": True, "beta": 0.25},
    "gradient cut, β = 0": {"cut": True, "beta": 0.0},
}


def measure(seeds: list[int], checkpoints: list[int]) -> dict[str, dict[str, list[float]]]:
    """Way → seed → the error at each of the checkpoints, as a share of what the mean input alone would leave."""
    held_out_errors = notebook("02_vector_quantizer")["held_out_errors"]
    return {
        way: {str(seed): held_out_errors(seed, checkpoints=checkpoints, **settings) for seed in seeds}
        for way, settings in WAYS.items()
    }
