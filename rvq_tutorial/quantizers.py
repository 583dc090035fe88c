"""Vector quantization (VQ) and residual vector quantization (RVQ) as layers of a network.

A codebook is K vectors, its codewords. A vector quantizer puts the nearest codeword in the place of each vector x, so
that only the codeword's index has to be stored: log2 K bits. A residual quantizer then does the same, with another
codebook, to what is left: x minus its codeword. And again, M times in all.
"""

import math
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rvq_tutorial.arguments import (
    check_finite,
    check_first_pass,
    check_floating,
    check_indices,
    check_range,
    check_vectors,
    check_whole,
)
from rvq_tutorial.codebook import Codebook, CodebookUpdate
from rvq_tutorial.search import nearest, nearest_ways

FROZEN = {"codebook_update": "none"}


class QuantizerOutput(NamedTuple):
    """What a quantizer returns. Both losses are means over all that was quantized, so no batch size changes them.

    The losses have the codebook's dtype, float32 at least. Without any vectors they are zero.
    """

    quantized: Tensor  # shape and dtype of x; straight-through gradient
    indices: Tensor  # int64; x's shape without the channel dim (residual: one more axis, last, of size M)
    codebook_loss: Tensor  # scalar: pulls the codewords to the vectors; zero where an EMA moves them
    commitment_loss: Tensor  # scalar: pulls the vectors to their codewords
    loss: Tensor  # codebook_loss + commitment_weight · commitment_loss


def straight_through(x: Tensor, quantized: Tensor) -> Tensor:
    """The value of `quantized`, exactly, with the gradient of `x` (Bengio et al. 2013; VQ-VAE, sec. 3.2)."""
    return quantized.detach() + (x - x.detach())


def _mean_squared_error(x: Tensor, y: Tensor) -> Tensor:
    """As F.mse_loss, but in float32 at least, and zero where there is nothing."""
    wide = _wide(x.dtype)
    return F.mse_loss(x.to(wide), y.to(wide), reduction="sum") / max(x.numel(), 1)


def _squared_norm(x: Tensor) -> Tensor:
    """The sum of all squares, in float32 at least, without a table of them."""
    x = x.to(_wide(x.dtype)).flatten()
    return x.dot(x)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _of_each_row(x: Tensor, columns: Tensor) -> Tensor:
    """(N, B, dim), (N, beam) → (N, beam, dim). As torch.take_along_dim, which would fix an exported graph's N."""
    return x[torch.arange(x.shape[0], device=x.device).unsqueeze(-1), columns]


class _Quantizer(nn.Module):
    """What both quantizers share: their settings, and the door where tensors of any layout become rows of vectors."""

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        num_quantizers: int,
        channel_dim: int,
        commitment_weight: float,
        codebook_update: CodebookUpdate,
        decay: float,
        dead_code_threshold: float,
    ) -> None:
        super().__init__()
        check_whole(dim, "dim")
        check_whole(codebook_size, "codebook_size")
        check_whole(num_quantizers, "num_quantizers")
        check_range(commitment_weight, "commitment_weight", 0, math.inf)
        check_range(decay, "decay", 0, 1)
        check_range(dead_code_threshold, "dead_code_threshold", 0, 1)
        if codebook_update not in ("ema", "gradient", "none"):
            raise ValueError(f'codebook_update must be "ema", "gradient" or "none", got {codebook_update!r}')
        self.dim = dim
        self.codebook_size = codebook_size
        self.channel_dim = channel_dim
        self.commitment_weight = commitment_weight
        self.stages = nn.ModuleList(
            Codebook(dim, codebook_size, codebook_update, decay, dead_code_threshold) for _ in range(num_quantizers)
        )

    @property
    def bits(self) -> float:
        """Bits that the indices of one vector take: M · log2 K."""
        return len(self.stages) * math.log2(self.codebook_size)

    @property
    def codebook_update(self) -> CodebookUpdate:
        return self.stages[0].codebook_update

    @property
    def decay(self) -> float:
        return self.stages[0].decay

    @property
    def dead_code_threshold(self) -> float:
        return self.stages[0].dead_code_threshold

    @property
    def is_started(self) -> bool:
        """Are its codewords more than random: fitted, given or learned?"""
        return any(stage.is_started for stage in self.stages)

    def extra_repr(self) -> str:
        channel_dim = f", channel_dim={self.channel_dim}" if self.channel_dim != -1 else ""
        return f"dim={self.dim}, codebook_size={self.codebook_size}{channel_dim}"

    def _start(self, codebooks: Tensor) -> None:
        """Begin with these codewords, (M, K, dim), each of them used like any other."""
        self.to(codebooks.device, _wide(codebooks.dtype))
        for stage, vectors in zip(self.stages, codebooks, strict=True):
            stage.start(vectors, 1 / len(vectors))

    def _to_rows(self, x: Tensor, *, learning: bool = False) -> tuple[Tensor, torch.Size]:
        """Check x and lay its vectors out as rows: → (N, dim), and the shape of x without its channel dim."""
        if learning and self.codebook_update != "none":
            check_first_pass()
        check_floating(x, "x")
        if not -x.ndim <= self.channel_dim < x.ndim:
            raise ValueError(f"x must have the axis channel_dim = {self.channel_dim}, got shape {tuple(x.shape)}")
        if x.shape[self.channel_dim] != self.dim:
            raise ValueError(
                f"x must have size dim = {self.dim} along channel_dim = {self.channel_dim}, got shape {tuple(x.shape)}"
            )
        if not learning:
            check_finite(x, "x")
        x = x.movedim(self.channel_dim, -1)
        return x.reshape(-1, self.dim).to(self.stages[0].vectors.dtype), x.shape[:-1]

    def _from_rows(self, rows: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        return self._from_vectors(rows.view(*shape, self.dim)).to(dtype)

    def _from_vectors(self, vectors: Tensor) -> Tensor:
        """(..., dim), as looked up for some indices → the layout of x."""
        if not -vectors.ndim <= self.channel_dim < vectors.ndim:
            raise ValueError(f"indices must have more axes, for x with the axis channel_dim = {self.channel_dim}")
        return vectors.movedim(-1, self.channel_dim)

    def _output(
        self, quantized: Tensor, indices: Tensor, codebook_loss: Tensor, commitment_loss: Tensor
    ) -> QuantizerOutput:
        if self.codebook_update != "gradient":
            codebook_loss = torch.zeros_like(codebook_loss)
        loss = codebook_loss + self.commitment_weight * commitment_loss
        return QuantizerOutput(quantized, indices, codebook_loss, commitment_loss, loss)


class VectorQuantizer(_Quantizer):
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
    ) -> None:
        super().__init__(
            dim, codebook_size, 1, channel_dim, commitment_weight, codebook_update, decay, dead_code_threshold
        )

    @classmethod
    def from_pretrained(cls, codebook: Tensor, freeze: bool = False, **settings: Any) -> "VectorQuantizer":
        """A quantizer with codewords of one's own, a copy of `codebook`, (K, dim).

        Args:
            freeze: keep them as they are, also in training: short for `codebook_update="none"`.
            settings: the constructor's.
        """
        check_vectors(codebook, "codebook")
        if codebook.ndim != 2:
            raise ValueError(f"codebook must have shape (K, dim), got {tuple(codebook.shape)}")
        codebook_size, dim = codebook.shape
        quantizer = cls(dim, codebook_size, **settings | FROZEN if freeze else settings)
        quantizer._start(codebook.unsqueeze(0))
        return quantizer

    @property
    def codebook(self) -> Tensor:
        """The codewords, (K, dim). To bring one's own, see `from_pretrained`: written here, they restart unused."""
        return self.stages[0].vectors

    def forward(self, x: Tensor) -> QuantizerOutput:
        """Quantize x, of any shape with size dim along channel_dim; raises TypeError or ValueError for bad input.

        NaN and infinity are bad input, too, but not in training: there they come out again, in the loss and where they
        came in, so that a GradScaler skips the step, and the codebook learns nothing from the whole batch.

        Activation checkpointing would compute a step twice, with a codebook that has moved in between: RuntimeError.
        """
        rows, shape = self._to_rows(x, learning=self.training)
        indices = nearest(rows, self.codebook)
        chosen = self.stages[0].lookup(indices)

        codebook_loss = _mean_squared_error(chosen, rows.detach())
        commitment_loss = _mean_squared_error(rows, chosen.detach())
        if self.training:
            self.stages[0].update(rows, rows - chosen, indices)

        quantized = self._from_rows(straight_through(rows, chosen), shape, x.dtype)
        return self._output(quantized, indices.view(shape), codebook_loss, commitment_loss)

    def encode(self, x: Tensor) -> Tensor:
        """Index of the codeword nearest to each vector: x → int64, x's shape without the channel dim."""
        rows, shape = self._to_rows(x)
        return nearest(rows, self.codebook).view(shape)

    def decode(self, indices: Tensor) -> Tensor:
        """The codewords with these indices, laid out like x: the inverse of `encode`, up to the error made there."""
        check_indices(indices, 0, self.codebook_size - 1)
        return self._from_vectors(self.stages[0].lookup(indices))

    def fit(self, x: Tensor) -> "VectorQuantizer":
        """Start the codebook at the k-means of the vectors in x, at least K of them."""
        rows, _ = self._to_rows(x)
        self.stages[0].fit(rows.detach())
        return self


class ResidualVectorQuantizer(_Quantizer):
    """M codebooks, each for what those before it left over (Juang & Gray 1982; SoundStream: Zeghidour et al. 2021).

    Call `fit` before the first training step, as with VectorQuantizer.

    Args:
        num_quantizers: M, the number of stages.
        quantize_dropout: in training, the share of samples (entries of x's first axis) that go through only the first
            m stages, m drawn from 1 to M: one model for every bitrate (SoundStream, sec. III-C).
        beam_size: how many candidate paths the search through the stages keeps; 1: the nearest at each stage.
        others: as for VectorQuantizer, for every stage.
    """

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        num_quantizers: int,
        *,
        quantize_dropout: float = 0.0,
        beam_size: int = 1,
        channel_dim: int = -1,
        commitment_weight: float = 0.25,
        codebook_update: CodebookUpdate = "ema",
        decay: float = 0.99,
        dead_code_threshold: float = 0.1,
    ) -> None:
        super().__init__(
            dim,
            codebook_size,
            num_quantizers,
            channel_dim,
            commitment_weight,
            codebook_update,
            decay,
            dead_code_threshold,
        )
        check_range(quantize_dropout, "quantize_dropout", 0, 1)
        check_whole(beam_size, "beam_size")
        self.num_quantizers = num_quantizers
        self.quantize_dropout = quantize_dropout
        self.beam_size = beam_size

    @classmethod
    def from_pretrained(cls, codebooks: Tensor, freeze: bool = False, **settings: Any) -> "ResidualVectorQuantizer":
        """As VectorQuantizer.from_pretrained, with the codewords of M stages, (M, K, dim)."""
        check_vectors(codebooks, "codebooks")
        if codebooks.ndim != 3:
            raise ValueError(f"codebooks must have shape (M, K, dim), got {tuple(codebooks.shape)}")
        num_quantizers, codebook_size, dim = codebooks.shape
        quantizer = cls(dim, codebook_size, num_quantizers, **settings | FROZEN if freeze else settings)
        quantizer._start(codebooks)
        return quantizer

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_quantizers={self.num_quantizers}"

    @property
    def codebooks(self) -> Tensor:
        """A copy of all codewords, (M, K, dim)."""
        return torch.stack([stage.vectors for stage in self.stages])

    def forward(self, x: Tensor, num_quantizers: int | None = None) -> QuantizerOutput:
        """Quantize x, of any shape with size dim along channel_dim, with the first `num_quantizers` stages (or all).

        Raises TypeError or ValueError for bad input; NaN and infinity are treated as in VectorQuantizer.
        """
        rows, shape = self._to_rows(x, learning=self.training)
        indices = self._search(rows.detach(), num_quantizers, self.beam_size)
        if self.training and self.quantize_dropout > 0:
            indices = self._drop(indices, num_samples=max(shape[0], 1) if shape else 1)

        quantized, residual_sum, squared_error = self._follow(rows.detach(), indices)
        used = (indices >= 0).sum(-1, keepdim=True).to(rows.dtype)
        scale = 1 / (self.dim * used.sum(dtype=squared_error.dtype)).clamp_min(1)
        codebook_loss = scale * squared_error
        # Stage m's commitment term is ‖rₘ₊₁‖², rₘ₊₁ = x − (a constant). But for a constant, the sum of all M is M ‖r̄‖²,
        # r̄ their mean, which has the same derivatives, the second too.
        mean = straight_through(rows, residual_sum / used)
        commitment_loss = straight_through(scale * _squared_norm(used.sqrt() * mean), codebook_loss)

        # Each stage saw a residual without gradient. One straight-through, here, goes around them all.
        quantized = self._from_rows(straight_through(rows, quantized), shape, x.dtype)
        return self._output(quantized, indices.view(*shape, indices.shape[-1]), codebook_loss, commitment_loss)

    def _follow(self, residual: Tensor, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take a path, (N, M), from rows of x: → the sums of its codewords, of its residuals rₘ₊₁, and of ‖rₘ₊₁‖².

        In training, each stage learns from what it sees.
        """
        quantized, residual_sum = torch.zeros_like(residual), torch.zeros_like(residual)
        squared_error = residual.new_zeros((), dtype=_wide(residual.dtype))
        for stage, index in zip(self.stages, indices.unbind(-1), strict=False):
            chosen = stage.lookup(index)
            quantized += chosen.detach()
            error = (residual - chosen).mul_((index >= 0).unsqueeze(-1))
            if self.training:
                stage.update(residual, error.detach(), index)
            residual = error.detach()
            residual_sum += residual
            squared_error = squared_error + _squared_norm(error)
        return quantized, residual_sum, squared_error

    def encode(self, x: Tensor, num_quantizers: int | None = None, beam_size: int | None = None) -> Tensor:
        """Indices of the codewords whose sum is close to each vector: x → int64, (*x's shape without channels, M)."""
        rows, shape = self._to_rows(x)
        beam_size = self.beam_size if beam_size is None else beam_size
        indices = self._search(rows.detach(), num_quantizers, beam_size)
        return indices.view(*shape, indices.shape[-1])

    def encode_each(self, x: Tensor, num_quantizers: int | None = None) -> tuple[Tensor, Tensor]:
        """What `encode` gives for 1, 2, … M stages, from a single search: for vectors that may stop early.

        → indices (*x's shape without channels, M, M), where [..., m − 1, :] holds m of them, then −1; and what those
        leave of x, its squared distance from their codewords' sum (*x's shape without channels, M).
        """
        rows, shape = self._to_rows(x)
        stages = self._first_stages(num_quantizers)
        paths, left = [], []
        for candidates in self._paths(rows.detach(), stages, self.beam_size):
            indices, residual = self._nearest_path(*candidates)
            paths.append(F.pad(indices, (0, len(stages) - indices.shape[-1]), value=-1))
            left.append(residual.square().sum(-1))
        indices, distances = torch.stack(paths, -2), torch.stack(left, -1)
        return indices.view(*shape, *indices.shape[1:]), distances.view(*shape, len(stages))

    def decode(self, indices: Tensor) -> Tensor:
        """The sum of the codewords with these indices, laid out like x.

        The last axis holds the stages, 1 to M of them: any prefix of what `encode` gave. Index −1 skips a stage.
        """
        check_indices(indices, -1, self.codebook_size - 1)
        if indices.ndim == 0 or not 1 <= indices.shape[-1] <= self.num_quantizers:
            raise ValueError(
                f"indices must have 1 to {self.num_quantizers} stages along the last axis, "
                f"got shape {tuple(indices.shape)}"
            )
        quantized = sum(stage.lookup(index) for stage, index in zip(self.stages, indices.unbind(-1), strict=False))
        return self._from_vectors(quantized)

    @torch.no_grad()
    def fit(self, x: Tensor) -> "ResidualVectorQuantizer":
        """Start each codebook at the k-means of the residuals that the stages before it leave of x, ≥ K vectors."""
        rows, _ = self._to_rows(x)
        residuals = rows.unsqueeze(1)  # (N, beam, dim)
        for stage in self.stages:
            # Not all paths of a wide beam: had every codeword a path to every vector, all would fit the same mean.
            stage.fit(residuals[:, : max(1, self.codebook_size // 4)].flatten(0, 1))
            residuals, _, _ = self._continue(residuals, stage, self.beam_size)
        return self

    def _search(self, rows: Tensor, num_quantizers: int | None, beam_size: int) -> Tensor:
        """(N, dim) → (N, M): at each stage the codeword nearest to the residual, or the best of `beam_size` paths."""
        check_whole(beam_size, "beam_size")
        last = deque(self._paths(rows, self._first_stages(num_quantizers), beam_size), maxlen=1).pop()
        return self._nearest_path(*last)[0]

    def _first_stages(self, num_quantizers: int | None) -> nn.ModuleList:
        num_quantizers = self.num_quantizers if num_quantizers is None else num_quantizers
        check_whole(num_quantizers, "num_quantizers", high=self.num_quantizers)
        return self.stages[:num_quantizers]

    def _paths(
        self, rows: Tensor, stages: nn.ModuleList, beam_size: int
    ) -> Iterator[tuple[tuple[Tensor, Tensor], ...]]:
        """After each stage the greedy paths so far, and the best of a beam: indices (N, m), residuals (N, dim).

        They are good only until the next stage.
        """
        greedy = self._greedy_paths(rows, stages)
        # The greedy path can drop out of the beam half way, and yet end nearer.
        return zip(greedy) if beam_size == 1 else zip(greedy, self._beam_paths(rows, stages, beam_size), strict=True)

    @staticmethod
    def _nearest_path(path: tuple[Tensor, Tensor], *others: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """For every row the one of the paths that leaves the shortest residual: its indices, and that residual."""
        indices, residual = path
        for other_indices, other_residual in others:
            nearer = (other_residual.square().sum(-1) < residual.square().sum(-1)).unsqueeze(-1)
            indices = torch.where(nearer, other_indices, indices)
            residual = torch.where(nearer, other_residual, residual)
        return indices, residual

    @staticmethod
    def _greedy_paths(rows: Tensor, stages: nn.ModuleList) -> Iterator[tuple[Tensor, Tensor]]:
        """Take the nearest codeword at each stage."""
        indices, residual = rows.new_empty(rows.shape[0], len(stages), dtype=torch.int64), rows.clone()
        for m, stage in enumerate(stages):
            indices[:, m] = index = nearest(residual, stage.vectors)
            residual -= stage.lookup(index)
            yield indices[:, : m + 1], residual

    def _beam_paths(self, rows: Tensor, stages: nn.ModuleList, beam_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Keep the `beam_size` paths with the smallest residual so far."""
        residuals = rows.unsqueeze(1)  # (N, beam, dim)
        paths = torch.empty(rows.shape[0], 1, 0, dtype=torch.int64, device=rows.device)  # (N, beam, stages so far)
        for stage in stages:
            residuals, parent, index = self._continue(residuals, stage, beam_size)
            paths = torch.cat([_of_each_row(paths, parent), index.unsqueeze(-1)], -1)
            yield paths[:, 0], residuals[:, 0]

    @staticmethod
    def _continue(residuals: Tensor, stage: Codebook, beam_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """One stage of the beam: (N, B, dim) → residuals (N, beam, dim), the path each continues, its codeword."""
        parent, index = nearest_ways(residuals, stage.vectors, beam_size)
        return _of_each_row(residuals, parent) - stage.lookup(index), parent, index

    def _drop(self, indices: Tensor, num_samples: int) -> Tensor:
        """−1 for the stages after the m-th, with m = M for most samples and random for a share `quantize_dropout`."""
        num_quantizers = indices.shape[-1]
        kept = torch.randint(1, num_quantizers + 1, (num_samples,), device=indices.device)
        drops = torch.rand(num_samples, device=indices.device) < self.quantize_dropout
        kept = torch.where(drops, kept, num_quantizers).repeat_interleave(len(indices) // num_samples)
        stage = torch.arange(num_quantizers, device=indices.device)
        return indices.masked_fill(stage >= kept.unsqueeze(-1), -1)
