"""A codebook: K codewords that follow the vectors which choose them."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rvq_tutorial import processes
from rvq_tutorial.clustering import kmeans

CodebookUpdate = Literal["ema", "gradient", "none"]
Similarity = Literal["euclidean", "cosine"]


class Codebook(nn.Module):
    """K codewords, how much each is used, and how both follow the data.

    A codeword is the moving average (EMA) of the vectors that choose it (van den Oord et al. 2017, appendix A.1). Kept
    as sum / count, the two can come apart; here the average itself is kept and moves by the mean error of its vectors,
    which is the same number. A codeword that hardly any vector chooses is dead: it restarts at a vector of the batch.
    Before `fit` no codeword has been used, so the first batch in training restarts nearly all of them. That is the
    rescue of codewords drawn at random; those of one's own have to come with a usage: `from_pretrained`.

    A batch with NaN or infinity in it teaches nothing: under mixed precision that happens, and the next one is better.

    The averages need float32's digits: use autocast rather than a module in half precision.
    """

    vectors: Tensor  # (K, dim); of length 1 where cosines decide
    usage: Tensor  # (K,), moving average of the share of all vectors that choose each codeword; zeros: nothing known
    steps: Tensor  # how many batches it has learned from
    last_counts: Tensor  # (K,), how many vectors of the last batch chose each codeword
    last_restarts: Tensor  # how many codewords restarted then

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        update: CodebookUpdate,
        decay: float,
        dead_code_threshold: float,
        similarity: Similarity,
    ) -> None:
        super().__init__()
        self.codebook_update = update
        self.decay = decay
        self.dead_code_threshold = dead_code_threshold
        self.similarity = similarity
        self.members = processes.Members(None)
        start = torch.randn(codebook_size, dim)
        if update == "gradient":
            self.vectors = nn.Parameter(start)
        else:
            self.register_buffer("vectors", start)
        self.register_buffer("usage", torch.zeros(codebook_size))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last_counts", torch.zeros(codebook_size), persistent=False)
        self.register_buffer("last_restarts", torch.zeros((), dtype=torch.int64), persistent=False)
        self._settle(torch.tensor(True))

    def lookup(self, indices: Tensor, skips: bool = True) -> Tensor:
        """The chosen codewords: (...) → (..., dim). Where `skips`, index −1, for no codeword, gives zeros."""
        if skips:
            return F.embedding(indices + 1, F.pad(self.vectors, (0, 0, 1, 0)))
        return F.embedding(indices, self.vectors)

    @property
    def last_perplexity(self) -> Tensor:
        """So many codewords, used alike, would be as varied as the last batch's choice: 2 to the entropy in bits."""
        entropy: Tensor = torch.special.entr(self.last_counts / self.last_counts.sum()).sum()
        return entropy.exp()

    @property
    def is_started(self) -> bool:
        """Has it been fitted, given codewords or learned from a batch?"""
        return bool(self.usage.any())

    @torch.no_grad()
    def start(self, vectors: Tensor, usage: Tensor | float) -> None:
        """Begin with these codewords, (K, dim), each of which is used so much."""
        self.vectors.copy_(vectors)
        self.usage.copy_(torch.as_tensor(usage))
        self._settle(torch.tensor(True))

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Start at the k-means of `x`, (N, dim)."""
        group, size = self.members.group, len(self.vectors)
        x = processes.all_rows(x, group)
        if len(x) < size:
            raise ValueError(f"x must hold at least codebook_size = {size} vectors, got {len(x)}")
        centroids, counts, _ = kmeans(x, size)
        self.start(processes.first(centroids, group), processes.first(counts / counts.sum(), group))

    @torch.no_grad()
    def update(self, x: Tensor, error: Tensor, indices: Tensor) -> None:
        """Follow a batch: vectors (N, dim), the `error` x − codeword of each, and the index (N,) each chose."""
        if self.codebook_update == "none":
            return
        size = len(self.vectors)
        row = indices + 1  # row 0 is for what was dropped
        count = error.new_zeros(size + 1).index_add_(0, row, error.new_ones(len(row)))
        error_sum = error.new_zeros(size + 1, error.shape[1]).index_add_(0, row, error)
        count = processes.total(count, self.members.group)[1:]
        error_sum = processes.total(error_sum, self.members.group)
        self.last_counts.copy_(count)
        learns = (count.sum() > 0) & error_sum.isfinite().all()  # no branch, which would stop a compiled graph

        num_vectors = count.sum().clamp_min(1)
        self.usage.lerp_(torch.where(learns, count / num_vectors, self.usage), 1 - self.decay)
        if self.codebook_update == "ema":
            step = (1 - self.decay) / (self.usage * num_vectors).clamp_min(1e-30)
            self.vectors.addcmul_(torch.where(learns, error_sum[1:], 0), step.unsqueeze(-1))
        self._restart_dead(x, indices >= 0, learns)
        self._settle(learns)
        self.steps += learns

    @torch.no_grad()
    def _settle(self, moved: Tensor) -> None:
        """Where cosines decide, every codeword belongs on the sphere: then the nearest one has the largest cosine."""
        if self.similarity == "cosine":
            self.vectors.copy_(torch.where(moved, F.normalize(self.vectors, dim=-1), self.vectors))

    def _restart_dead(self, x: Tensor, active: Tensor, learns: Tensor) -> None:
        """Put every codeword used less than `dead_code_threshold` × the uniform share 1/K at a vector of `x`."""
        size = len(self.vectors)
        dead = learns & (self.usage * size < self.dead_code_threshold)
        # A vector that skipped this stage is no residual of it, so it may not stand in for a codeword.
        candidates = processes.spread_rows(size, self.steps, x, active, self.members.group)
        self.vectors.copy_(torch.where(dead.unsqueeze(-1), candidates, self.vectors))
        self.usage.masked_fill_(dead, 1 / size)
        self.last_restarts.copy_(dead.sum())
