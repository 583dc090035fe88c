"""Paths through the stages of a residual quantizer: which codeword to take at each.

The nearest at every stage is the greedy path. A beam keeps several paths in play, because a codeword that isn't the
nearest can leave a residual that the next stages quantize better (Babenko & Lempitsky 2014, sec. 3.2, for such sums).
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial.arguments import check_whole
from rvq_tutorial.search import nearest, nearest_ways

Path = tuple[Tensor, Tensor]  # the indices so far, (N, m), and the residual that they leave, (N, dim)


def best_path(x: Tensor, codebooks: Sequence[Tensor], beam_size: int) -> Tensor:
    """(N, dim) → (N, M): the greedy path through all stages, or the best of `beam_size` where that ends nearer."""
    check_whole(beam_size, "beam_size")
    *_, (indices, _) = best_paths(x, codebooks, beam_size)
    return indices


def best_paths(x: Tensor, codebooks: Sequence[Tensor], beam_size: int) -> Iterator[Path]:
    """After each stage, for each row of x, (N, dim), the best path found: the greedy one, or one of a beam if nearer.

    What it yields is overwritten by the next stage.
    """
    greedy = greedy_paths(x, codebooks)
    if beam_size == 1:
        yield from greedy
        return
    # The greedy path can drop out of the beam half way, and yet end nearer.
    for path, other in zip(greedy, beam_paths(x, codebooks, beam_size), strict=True):
        nearer = (other[1].square().sum(-1) < path[1].square().sum(-1)).unsqueeze(-1)
        yield torch.where(nearer, other[0], path[0]), torch.where(nearer, other[1], path[1])


def greedy_paths(x: Tensor, codebooks: Sequence[Tensor]) -> Iterator[Path]:
    """Take the nearest codeword at each stage."""
    indices, residual = x.new_empty(x.shape[0], len(codebooks), dtype=torch.int64), x.clone()
    for m, codebook in enumerate(codebooks):
        indices[:, m] = index = nearest(residual, codebook)
        residual -= F.embedding(index, codebook)
        yield indices[:, : m + 1], residual


def beam_paths(x: Tensor, codebooks: Sequence[Tensor], beam_size: int) -> Iterator[Path]:
    """Keep the `beam_size` paths with the smallest residual so far; yield the best of them."""
    residuals = x.unsqueeze(1)  # (N, beam, dim)
    indices = torch.empty(x.shape[0], 1, 0, dtype=torch.int64, device=x.device)  # (N, beam, stages so far)
    for codebook in codebooks:
        residuals, parent, index = continue_paths(residuals, codebook, beam_size)
        indices = torch.cat([_of_each_row(indices, parent), index.unsqueeze(-1)], -1)
        yield indices[:, 0], residuals[:, 0]


def continue_paths(residuals: Tensor, codebook: Tensor, beam_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """One stage of the beam: (N, B, dim) → residuals (N, beam, dim), the path each continues, and its codeword."""
    parent, index = nearest_ways(residuals, codebook, beam_size)
    return _of_each_row(residuals, parent) - F.embedding(index, codebook), parent, index


def shorten(indices: Tensor, share: float, num_samples: int) -> Tensor:
    """(N, M) → −1 after the m-th stage, with m = M for most samples, and drawn from 1 to M for a `share` of them."""
    num_samples, num_quantizers = max(num_samples, 1), indices.shape[-1]
    kept = torch.randint(1, num_quantizers + 1, (num_samples,), device=indices.device)
    drops = torch.rand(num_samples, device=indices.device) < share
    kept = torch.where(drops, kept, num_quantizers).repeat_interleave(len(indices) // num_samples)
    stage = torch.arange(num_quantizers, device=indices.device)
    return indices.masked_fill(stage >= kept.unsqueeze(-1), -1)


def hide(indices: Tensor, mask: Tensor | None) -> Tensor:
    """(N, ...) → −1 in the rows where `mask`, which has N entries in any shape, is False."""
    return indices if mask is None else indices.masked_fill(~mask.reshape(-1, *[1] * (indices.ndim - 1)), -1)


def _of_each_row(x: Tensor, columns: Tensor) -> Tensor:
    """(N, B, dim), (N, beam) → (N, beam, dim). As torch.take_along_dim, which would fix an exported graph's N."""
    return x[torch.arange(x.shape[0], device=x.device).unsqueeze(-1), columns]
