"""Vector quantization (VQ) and residual vector quantization (RVQ) as layers of a network.

A codebook is K vectors, its codewords. A vector quantizer puts the nearest codeword in the place of each vector x, so
that only the codeword's index has to be stored: log2 K bits. A residual quantizer then does the same, with another
codebook, to what is left: x minus its codeword. And again, M times in all.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rvq_tutorial.arguments import check_codebooks, check_indices, check_range, check_stages, check_vectors, check_whole
from rvq_tutorial.base import FROZEN, Quantizer, QuantizerOutput, squared_norm
from rvq_tutorial.codebook import CodebookUpdate, Similarity
from rvq_tutorial.gradients import CARRY, Gradient, straight_through
from rvq_tutorial.paths import best_path, best_paths, continue_paths, hide, shorten
from rvq_tutorial.search import nearest


class VectorQuantizer(Quantizer):
    """The nearest of K learned codewords in place of each vector (VQ-VAE: van den Oord et al. 2017, eqs. 1–3).

    In training mode the codebook learns in every forward pass (`codebook_update="ema"`) or from the loss ("gradient").
    Call `fit` before the first step: codewords drawn at random lie anywhere, those of k-means where the vectors are.

    Args:
        dim: size of a vector.
        codebook_size: K, the number of codewords.
        channel_dim: the axis of x that holds a vector: −1 for (..., dim), 1 for (B, dim, H, W) or (B, dim, T).
        commitment_weight: β, the weight of the commitment loss.
        codebook_update: what moves the codewords: moving averages, the loss's gradient, or nothing ("none": frozen).
        decay: how much of its past a moving average keeps at each step, 0 to 1.
        dead_code_threshold: a codeword used less than this share of uniform use restarts; 0: never.
        gradient: how the output's gradient gets to x: "straight-through", or turned by the "rotation" from x to it.
        similarity: what is nearest: the least distance, or the largest "cosine", of vectors scaled to length 1.
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        *,
        channel_dim: int = -1,
        commitment_weight: float = 0.25,
        codebook_update: CodebookUpdate = "ema",
        decay: float = 0.99,
        dead_code_threshold: float = 0.1,
        gradient: Gradient = "straight-through",
        similarity: Similarity = "euclidean",
    ) -> None:
        learning = (commitment_weight, codebook_update, decay, dead_code_threshold, gradient)
        super().__init__(dim, (codebook_size,), channel_dim, *learning, similarity)
        self.codebook_size = codebook_size

    @classmethod
    def from_pretrained(cls, codebook: Tensor, freeze: bool = False, **settings: Any) -> "VectorQuantizer":
        """A quantizer with codewords of one's own, a copy of `codebook`, (K, dim).

        Args:
            freeze: keep them as they are, also in training: short for `codebook_update="none"`.
            settings: the constructor's.
        """
        check_vectors(codebook, "codebook", "(K, dim)")
        quantizer = cls(codebook.shape[1], len(codebook), **settings | FROZEN if freeze else settings)
        quantizer._start([codebook])
        return quantizer

    @property
    def codebook(self) -> Tensor:
        """The codewords, (K, dim). To bring one's own, see `from_pretrained`: written here, they restart unused."""
        return self.stages[0].vectors

    def forward(self, x: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """Quantize x, of any shape with size dim along channel_dim; raises TypeError or ValueError for bad input.

        Where `mask` (bool, x's shape without channels) is False, x is padding: it becomes zeros, with index −1 and no
        gradient, and neither the losses nor the codebook know of it.

        NaN and infinity are bad input, too, but not in training: there they come out again, in the loss and where they
        came in, so that a GradScaler skips the step, and the codebook learns nothing from the whole batch. Activation
        checkpointing would compute a step twice, with a codebook that has moved in between: RuntimeError.
        """
        rows, shape = self._vectors(x, mask, learning=self.training)
        indices = hide(nearest(rows, self.codebook), mask)
        chosen = self.stages[0].lookup(indices, skips=mask is not None)

        count = (self.dim * (indices >= 0).sum()).clamp_min(1)
        codebook_loss = squared_norm(chosen - rows.detach()) / count
        commitment_loss = squared_norm(rows - chosen.detach()) / count
        if self.training:
            self.stages[0].update(rows, rows - chosen, indices)

        quantized = self._from_rows(CARRY[self.gradient](rows, chosen), shape, x.dtype)
        return self._output(quantized, indices.view(shape), codebook_loss, commitment_loss, commitment_loss[None])

    def encode(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Index of the codeword nearest to each vector, −1 for padding: x → int64, x's shape without channels."""
        rows, shape = self._vectors(x, mask)
        return hide(nearest(rows, self.codebook), mask).view(shape)

    def decode(self, indices: Tensor) -> Tensor:
        """The codewords with these indices, laid out like x; zeros for index −1, padding."""
        skips = check_indices(indices, -1, self.codebook_size - 1)
        return self._from_vectors(self.stages[0].lookup(indices.long(), skips))

    def fit(self, x: Tensor, mask: Tensor | None = None) -> "VectorQuantizer":
        """Start the codebook at the k-means of the vectors in x, padding left out: at least K of them."""
        self.stages[0].fit(self._vectors_to_fit(x, mask))
        return self


class ResidualVectorQuantizer(Quantizer):
    """M codebooks, each for what those before it left over (Juang & Gray 1982; SoundStream: Zeghidour et al. 2021).

    Call `fit` before the first training step, as with VectorQuantizer.

    Args:
        codebook_size: K, or one K for each stage.
        num_quantizers: M, the number of stages.
        quantize_dropout: in training, the share of samples (entries of x's first axis) that go through only the first
            m stages, m drawn from 1 to M: one model for every bitrate (SoundStream, sec. III-C).
        beam_size: how many candidate paths the search through the stages keeps; 1: the nearest at each stage.
        commitment_weight: β, where the loss is the mean over the stages; M · β makes it β times their sum.
        others: as for VectorQuantizer, for every stage.
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int | Sequence[int],
        num_quantizers: int,
        *,
        quantize_dropout: float = 0.0,
        beam_size: int = 1,
        channel_dim: int = -1,
        commitment_weight: float = 0.25,
        codebook_update: CodebookUpdate = "ema",
        decay: float = 0.99,
        dead_code_threshold: float = 0.1,
        gradient: Gradient = "straight-through",
    ) -> None:
        check_whole(num_quantizers, "num_quantizers")
        check_range(quantize_dropout, "quantize_dropout", 0, 1)
        check_whole(beam_size, "beam_size")
        sizes = codebook_size if isinstance(codebook_size, Sequence) else [codebook_size] * num_quantizers
        if len(sizes) != num_quantizers:
            raise ValueError(f"codebook_size must hold num_quantizers = {num_quantizers} sizes, got {len(sizes)}")
        learning = (commitment_weight, codebook_update, decay, dead_code_threshold, gradient)
        super().__init__(dim, sizes, channel_dim, *learning, similarity="euclidean")
        self.codebook_size = sizes[0] if len(set(sizes)) == 1 else sizes
        self.num_quantizers = num_quantizers
        self.index_shape = (num_quantizers,)
        self.quantize_dropout = quantize_dropout
        self.beam_size = beam_size

    @classmethod
    def from_pretrained(
        cls, codebooks: Tensor | Sequence[Tensor], freeze: bool = False, **settings: Any
    ) -> "ResidualVectorQuantizer":
        """As VectorQuantizer.from_pretrained, with the codewords of M stages: (M, K, dim), or a (K, dim) for each."""
        check_codebooks(codebooks, "codebooks")
        sizes = [len(codebook) for codebook in codebooks]
        quantizer = cls(codebooks[0].shape[1], sizes, len(sizes), **settings | FROZEN if freeze else settings)
        quantizer._start(list(codebooks))
        return quantizer

    @property
    def codebooks(self) -> Tensor:
        """A copy of all codewords, (M, K, dim). Raises ValueError where the stages' sizes differ."""
        if isinstance(self.codebook_size, Sequence):
            raise ValueError(f"the stages have {self.codebook_size} codewords: see stages[m].vectors of each")
        return torch.stack([stage.vectors for stage in self.stages])

    def forward(self, x: Tensor, mask: Tensor | None = None, *, num_quantizers: int | None = None) -> QuantizerOutput:
        """Quantize x, of any shape with size dim along channel_dim, with the first `num_quantizers` stages (or all).

        Padding, bad input, NaN and infinity are treated as in VectorQuantizer.
        """
        rows, shape = self._vectors(x, mask, learning=self.training)
        indices = best_path(rows.detach(), self._first_codebooks(num_quantizers), self.beam_size)
        drops = self.training and self.quantize_dropout > 0
        if drops:
            indices = shorten(indices, self.quantize_dropout, num_samples=shape[0] if shape else 1)
        indices = hide(indices, mask)

        quantized, residual_sum, squared_errors = self._follow(rows.detach(), indices, drops or mask is not None)
        used = indices >= 0
        depth = used.sum(-1, keepdim=True).clamp_min(1).to(rows.dtype)
        count = self.dim * used.sum(0)
        codebook_loss = squared_errors.sum() / count.sum().clamp_min(1)
        # Stage m's commitment term is ‖rₘ₊₁‖², rₘ₊₁ = x − (a constant). But for a constant, the sum of all M is M ‖r̄‖²,
        # r̄ their mean, which has the same derivatives, the second too.
        mean = straight_through(rows, residual_sum / depth)
        total = squared_norm(depth.sqrt() * mean)  # padding adds nothing
        commitment_loss = straight_through(total / count.sum().clamp_min(1), codebook_loss)

        # Each stage saw a residual without gradient. One way for the gradient, here, goes around them all.
        quantized = self._from_rows(CARRY[self.gradient](rows, quantized), shape, x.dtype)
        indices = indices.view(*shape, indices.shape[-1])
        return self._output(quantized, indices, codebook_loss, commitment_loss, squared_errors / count.clamp_min(1))

    def _follow(self, residual: Tensor, indices: Tensor, skips: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Take a path, (N, M), from rows of x: → the sums of its codewords, of its residuals rₘ₊₁, and each Σ‖rₘ₊₁‖².

        In training, each stage learns from what it sees.
        """
        quantized, residual_sum = torch.zeros_like(residual), torch.zeros_like(residual)
        squared_errors = []
        for stage, index in zip(self.stages, indices.unbind(-1), strict=False):
            chosen = stage.lookup(index, skips)
            quantized += chosen.detach()
            error = (residual - chosen) * (index >= 0).unsqueeze(-1) if skips else residual - chosen
            if self.training:
                stage.update(residual, error.detach(), index)
            residual = error.detach()
            residual_sum += residual
            squared_errors.append(squared_norm(error))
        return quantized, residual_sum, torch.stack(squared_errors)

    def encode(
        self, x: Tensor, mask: Tensor | None = None, *, num_quantizers: int | None = None, beam_size: int | None = None
    ) -> Tensor:
        """Indices of the codewords whose sum is close to each vector: x → int64, (*x's shape without channels, M)."""
        rows, shape = self._vectors(x, mask)
        beam_size = self.beam_size if beam_size is None else beam_size
        indices = best_path(rows.detach(), self._first_codebooks(num_quantizers), beam_size)
        return hide(indices, mask).view(*shape, indices.shape[-1])

    def encode_each(self, x: Tensor, num_quantizers: int | None = None) -> tuple[Tensor, Tensor]:
        """What `encode` gives for 1, 2, … M stages, from a single search: for vectors that may stop early.

        → indices (*x's shape without channels, M, M), where [..., m − 1, :] holds m of them, then −1; and what those
        leave of x, its squared distance from their codewords' sum (*x's shape without channels, M).
        """
        rows, shape = self._vectors(x)
        codebooks = self._first_codebooks(num_quantizers)
        indices = torch.full((rows.shape[0], len(codebooks), len(codebooks)), -1, device=rows.device)
        distances = rows.new_empty(rows.shape[0], len(codebooks))
        for m, (path, residual) in enumerate(best_paths(rows.detach(), codebooks, self.beam_size)):
            indices[:, m, : m + 1] = path
            distances[:, m] = residual.square().sum(-1)
        return indices.view(*shape, *indices.shape[1:]), distances.view(*shape, len(codebooks))

    def decode(self, indices: Tensor) -> Tensor:
        """The sum of the codewords with these indices, laid out like x.

        The last axis holds the stages, 1 to M of them: any prefix of what `encode` gave. Index −1 skips a stage.
        """
        skips = check_stages(indices, self.codebook_sizes)
        stages = zip(self.stages, indices.long().unbind(-1), strict=False)
        first, *others = [stage.lookup(index, skips) for stage, index in stages]
        return self._from_vectors(sum(others, start=first))

    @torch.no_grad()
    def fit(self, x: Tensor, mask: Tensor | None = None) -> "ResidualVectorQuantizer":
        """Start each codebook at the k-means of the residuals that the stages before it leave of x, ≥ K vectors."""
        residuals = self._vectors_to_fit(x, mask).unsqueeze(1)  # (N, beam, dim)
        for stage in self.stages:
            # Not all paths of a wide beam: had every codeword a path to every vector, all would fit the same mean.
            stage.fit(residuals[:, : max(1, len(stage.vectors) // 4)].flatten(0, 1))
            residuals, _, _ = continue_paths(residuals, stage.vectors, self.beam_size)
        return self

    def _first_codebooks(self, num_quantizers: int | None) -> list[Tensor]:
        num_quantizers = self.num_quantizers if num_quantizers is None else num_quantizers
        check_whole(num_quantizers, "num_quantizers", high=self.num_quantizers)
        return [stage.vectors.detach() for stage in self.stages][:num_quantizers]
