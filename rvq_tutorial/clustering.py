"""k-means: the codebook that fits a set of vectors."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rvq_tutorial.arguments import check_vectors, check_whole
from rvq_tutorial.search import nearest

START_SAMPLE = 16  # vectors a cluster that k-means++ looks at


class KMeansResult(NamedTuple):
    centroids: Tensor  # (K, dim)
    counts: Tensor  # (K,), int64: the vectors nearest to each centroid
    mse: float  # mean squared error per vector component


def kmeans(
    x: Tensor, num_clusters: int, *, num_iters: int = 25, generator: torch.Generator | None = None
) -> KMeansResult:
    """Lloyd's algorithm (Lloyd 1982) from a k-means++ start (Arthur & Vassilvitskii 2007).

    Args:
        x: vectors, (N, dim), floating point, N ≥ `num_clusters`.
        num_clusters: K.
        num_iters: how often every centroid moves to the mean of its vectors.
        generator: source of the random start; torch's default one if None.

    Raises:
        TypeError, ValueError: `x` is not a finite floating-point matrix, or has fewer rows than clusters.
    """
    check_vectors(x, "x")
    if x.ndim != 2:
        raise ValueError(f"x must have shape (N, dim), got {tuple(x.shape)}")
    check_whole(num_clusters, "num_clusters")
    check_whole(num_iters, "num_iters")
    if len(x) < num_clusters:
        raise ValueError(f"x must hold at least num_clusters = {num_clusters} vectors, got {len(x)}")

    x = x.detach()
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    centre = x.mean(0)  # far from the origin, sums of many vectors would lose the digits that tell them apart
    centroids = _lloyd(x - centre, num_clusters, num_iters, generator) + centre
    labels = nearest(x, centroids)
    counts = torch.bincount(labels, minlength=num_clusters)
    return KMeansResult(centroids, counts, F.mse_loss(centroids[labels], x).item())


def _lloyd(x: Tensor, num_clusters: int, num_iters: int, generator: torch.Generator | None) -> Tensor:
    """Assign every vector to the nearest centroid, move every centroid to the mean of its vectors; and again."""
    centroids = _spread_out(x, num_clusters, generator)
    for _ in range(num_iters):
        labels = nearest(x, centroids)
        counts = torch.bincount(labels, minlength=num_clusters)
        sums = torch.zeros_like(centroids).index_add_(0, labels, x)
        empty = counts == 0
        if empty.any():  # an empty cluster starts again at one of the vectors that are served worst
            errors = (x - centroids[labels]).square().sum(1)
            sums[empty] = x[errors.topk(int(empty.sum())).indices]
        centroids = sums / counts.clamp_min(1)[:, None]
    return centroids


def _spread_out(x: Tensor, num_clusters: int, generator: torch.Generator | None) -> Tensor:
    """k-means++: each start is drawn with a probability that grows with its squared distance to those before."""
    device = x.device if generator is None else generator.device
    sample = torch.randperm(len(x), generator=generator, device=device)[: START_SAMPLE * num_clusters]
    x = x[sample.to(x.device)]
    draws = torch.rand(num_clusters, generator=generator, device=device, dtype=x.dtype).cpu()

    chosen = torch.zeros(num_clusters, dtype=torch.int64)  # the first is sample 0, any one
    distances = torch.full_like(x[:, 0], torch.inf)
    for i in range(1, num_clusters):
        distances = torch.minimum(distances, (x - x[int(chosen[i - 1])]).square().sum(1))
        cumulative = distances.cpu().cumsum(0)  # deterministic algorithms have none of numbers like these on a GPU
        chosen[i] = torch.searchsorted(cumulative, draws[i] * cumulative[-1]).clamp_max(len(x) - 1)
    return x[chosen.to(x.device)]
