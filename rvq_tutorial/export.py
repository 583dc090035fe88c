"""The nearest codewords in operators that every runtime knows, for graphs that leave PyTorch.

What torch.export and torch.onnx.export make of a model is to run elsewhere, where nobody knows `search`, its operators
and its tricks. These formulas take their place there. They need more memory, a score for every vector and codeword at
once, and search in float32 even where `search` would find it too coarse: where codewords crowd together far from all
the others.
"""

import torch
from torch import Tensor


def is_wanted() -> bool:
    """Is a graph being exported right now? Before torch 2.7 nobody can tell, nor with torch.export's strict=True."""
    is_exporting = getattr(torch.compiler, "is_exporting", bool)
    return is_exporting() and not torch.compiler.is_dynamo_compiling()  # some versions say so in torch.compile, too


def nearest(x: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest codeword: (N, dim), (K, dim) → (N,)."""
    return _scores(x, codebook)[1].argmin(-1)


def nearest_ways(residuals: Tensor, codebook: Tensor, beam_size: int) -> Tensor:
    """The best pairs of residual and codeword, as residual · K + codeword: (N, B, dim), (K, dim) → (N, beam)."""
    x, scores = _scores(residuals, codebook)
    distances = (scores + x.square().sum(-1, keepdim=True) / 2).flatten(1)
    return distances.topk(min(beam_size, distances.shape[1]), largest=False).indices


def _scores(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """(..., dim), (K, dim) → x with a centre taken off, and ½‖c‖² − x·c there, (..., K)."""
    dtype = torch.promote_types(torch.promote_types(x.dtype, codebook.dtype), torch.float32)
    x, codebook = x.to(dtype), codebook.to(dtype)
    # The median of three codewords, each of which might be a stray one. Of many, ONNX has no median.
    a, b, c = codebook[0], codebook[len(codebook) // 2], codebook[-1]
    centre = torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))
    x, codebook = x - centre, codebook - centre
    return x, codebook.square().sum(-1) / 2 - x @ codebook.t()
