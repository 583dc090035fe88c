"""torch.compile(fullgraph=True) and torch.export: one graph, the same result.

Compiled as far as PyTorch's own part goes ("aot_eager"): to make machine code of the graph would need a C++ compiler.
"""

import copy

import pytest
import torch

from rvq_tutorial import ResidualVectorQuantizer, VectorQuantizer, nearest


def quantizers():
    torch.manual_seed(0)
    for update in ("ema", "gradient"):
        yield f"one-{update}", VectorQuantizer(4, 8, codebook_update=update)
        yield f"residual-{update}", ResidualVectorQuantizer(4, 300, 3, codebook_update=update)
    yield "images", VectorQuantizer(4, 8, channel_dim=1)
    yield "beam", ResidualVectorQuantizer(4, 8, 3, beam_size=3)


CASES = [pytest.param(quantizer.fit(torch.randn(400, 4, 1, 1).movedim(1, quantizer.channel_dim)), id=name) for name, quantizer in quantizers()]
