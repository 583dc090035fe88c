"""Scalar quantization: no codebook at all. Each channel of a vector is rounded to one of a few fixed levels.

Choosing one of L₁ levels for the first channel, L₂ for the second, … is choosing one of L₁·L₂·… vectors of a grid. A
vector's index is the number whose digits are its levels, the first channel's the lowest.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rvq_tutorial.arguments import check_floating, check_indices, check_levels, check_stages, check_whole
from rvq_tutorial.base import QuantizerOutput, squared_norm
from rvq_tutorial.gradients import straight_through
from rvq_tutorial.layout import VectorLayer
from rvq_tutorial.paths import hide


class FiniteScalarQuantizer(VectorLayer):
    """The nearest of a few levels in place of each channel, bounded by tanh (FSQ: Mentzer et al. 2023, sec. 3.1).

    Nothing here learns, and the losses are zero: the gradient passes the rounding straight through, and then tanh. The
    levels lie where they lie, and the network around them learns to use them.

    They are −1, …, 1 in equal steps if L is odd. If L is even they end at 1 − 2/L, so that 0 is a level, too; but two
    levels are −1 and 1. So levels=[2] * dim is LFQ (Yu et al. 2023, sec. 3.1), the signs; see `entropy_loss`.

    Args:
        levels: L, the number of levels of each channel: [8, 5, 5, 5] for vectors of size 4 and 1000 indices.
        symmetric: an even number of levels is −1, …, 1, too, without 0 (Parker et al. 2024, sec. 3.2).
        channel_dim: the axis of x that holds a vector, as for VectorQuantizer.
    """

    _levels: Tensor  # (dim,), whole numbers: they stay exact when a network moves to half precision
    _place: Tensor  # (dim,), what one level more adds to the index

    def __init__(self, levels: Sequence[int], *, symmetric: bool = False, channel_dim: int = -1) -> None:
        check_levels(levels)
        super().__init__(len(levels), channel_dim)
        self.levels = tuple(levels)
        self.symmetric = symmetric
        self.codebook_size = math.prod(levels)
        self.bits = math.log2(self.codebook_size)
        place = [math.prod(levels[:channel]) for channel in range(self.dim)]
        self.register_buffer("_levels", torch.tensor(self.levels), persistent=False)
        self.register_buffer("_place", torch.tensor(place), persistent=False)

    def extra_repr(self) -> str:
        return f"levels={list(self.levels)}, symmetric={self.symmetric}, channel_dim={self.channel_dim}"

    def forward(self, x: Tensor, mask: Tensor | None = None) -> QuantizerOutput:
        """Quantize x, of any shape with size dim along channel_dim; raises TypeError or ValueError for bad input.

        Padding and NaN are treated as in VectorQuantizer. Infinity, too, but in training it is bounded like any number.
        """
        return self._quantize(x, mask)

    def encode(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Index of the nearest levels of each bounded vector, −1 for padding: x → int64, x's shape without channels."""
        return self._encode(x, mask)

    def fit(self, x: Tensor, mask: Tensor | None = None) -> "FiniteScalarQuantizer":
        """Nothing, after a look at x: the levels lie where they lie."""
        self._to_rows(x, torch.float32, mask)
        return self

    def decode(self, indices: Tensor) -> Tensor:
        """The levels with these indices, laid out like x; zeros for index −1."""
        check_indices(indices, -1, self.codebook_size - 1)
        return self._from_vectors(self._sums(indices)[-1])

    def _quantize(self, x: Tensor, mask: Tensor | None, *stages: int | None) -> QuantizerOutput:
        rows, shape = self._to_rows(x, torch.float32, mask, finite=not self.training)
        bounded = self._bound(rows)
        indices = hide(self._nearest(bounded.detach(), *stages), mask)
        return self._output(bounded, indices, shape, x.dtype)

    def _encode(self, x: Tensor, mask: Tensor | None, *stages: int | None) -> Tensor:
        rows, shape = self._to_rows(x, torch.float32, mask)
        indices = hide(self._nearest(self._bound(rows), *stages), mask)
        return indices.view(shape + indices.shape[1:])

    @property
    def _zero(self) -> Tensor:
        """(dim,): where 0 lies when the levels are counted 0, …, L − 1."""
        middle = (self._levels - 1) / 2
        return middle if self.symmetric else torch.where(self._levels == 2, middle, self._levels // 2)

    def _bound(self, rows: Tensor) -> Tensor:
        """(N, dim) → between the lowest and the highest level; 0 stays 0."""
        middle = (self._levels - 1) / 2
        offset = self._zero - middle  # 0 or 1/2
        return (middle * (rows + (offset / middle).atanh()).tanh() - offset) / self._zero

    def _nearest(self, bounded: Tensor) -> Tensor:
        """(N, dim) → indices (N,)."""
        level = (bounded * self._zero + self._zero).round().long()  # NaN becomes any number
        return (level.clamp(min=0).minimum(self._levels - 1) * self._place).sum(-1)

    def _lookup(self, indices: Tensor) -> Tensor:
        """(...) → (..., dim)."""
        indices = indices.long().unsqueeze(-1)
        level = indices // self._place % self._levels
        return ((level - self._zero) / self._zero).masked_fill(indices < 0, 0)

    def _sums(self, indices: Tensor) -> list[Tensor]:
        """What the indices stand for, after each stage."""
        return [self._lookup(indices)]

    def _output(self, bounded: Tensor, indices: Tensor, shape: torch.Size, dtype: torch.dtype) -> QuantizerOutput:
        sums = self._sums(indices)
        quantized = self._from_rows(straight_through(bounded, sums[-1]), shape, dtype)
        errors = torch.stack([squared_norm(bounded - each) for each in sums]).detach()
        count = (self.dim * (indices >= 0).sum(0)).clamp_min(1)
        loss = bounded.new_zeros(())
        return QuantizerOutput(quantized, indices.view(shape + indices.shape[1:]), loss, loss, loss, errors / count)


class ResidualFiniteScalarQuantizer(FiniteScalarQuantizer):
    """M stages, each with levels L times as fine as those of the stage before, for what that left over.

    The first stage cuts −1 to 1, the range of tanh, into L equal cells and takes the middle of one, the next cuts that
    cell into L, and so on: all L^M choices differ, and m stages leave no more than L^−m of a channel, near ±1 as well.
    (Steps of (L − 1)^−m, seen elsewhere, make neighbours share a border; two levels then never get finer.)
    """

    def __init__(self, levels: Sequence[int], num_quantizers: int, *, channel_dim: int = -1) -> None:
        check_whole(num_quantizers, "num_quantizers")
        super().__init__(levels, symmetric=True, channel_dim=channel_dim)
        self.num_quantizers = num_quantizers
        self.index_shape = (num_quantizers,)
        self.bits *= num_quantizers

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_quantizers={self.num_quantizers}"

    def forward(self, x: Tensor, mask: Tensor | None = None, *, num_quantizers: int | None = None) -> QuantizerOutput:
        """As FiniteScalarQuantizer, with the first `num_quantizers` stages (or all); indices (..., M)."""
        return self._quantize(x, mask, num_quantizers)

    def encode(self, x: Tensor, mask: Tensor | None = None, *, num_quantizers: int | None = None) -> Tensor:
        """Index of the nearest levels at each stage: x → int64, (*x's shape without channels, M)."""
        return self._encode(x, mask, num_quantizers)

    def decode(self, indices: Tensor) -> Tensor:
        """The sum of what the stages chose, laid out like x: 1 to M of them, any prefix. Index −1 skips a stage."""
        check_stages(indices, [self.codebook_size] * self.num_quantizers)
        return self._from_vectors(self._sums(indices)[-1])

    def _scales(self, num_quantizers: int | None = None) -> Iterator[Tensor]:
        """(dim,) for each stage, (L − 1) L^−m, which takes the levels −1, …, 1 to the middles of cells."""
        num_quantizers = self.num_quantizers if num_quantizers is None else num_quantizers
        check_whole(num_quantizers, "num_quantizers", high=self.num_quantizers)
        scale = self._levels - 1
        for _ in range(num_quantizers):
            scale = scale / self._levels
            yield scale

    def _nearest(self, bounded: Tensor, num_quantizers: int | None = None) -> Tensor:
        """(N, dim) → indices (N, M)."""
        residual, indices = bounded, []
        for scale in self._scales(num_quantizers):
            indices.append(super()._nearest(residual / scale))
            residual = residual - scale * self._lookup(indices[-1])
        return torch.stack(indices, -1)

    def _sums(self, indices: Tensor) -> list[Tensor]:
        sums: list[Tensor] = []
        for scale, index in zip(self._scales(), indices.unbind(-1), strict=False):
            part = scale * self._lookup(index)
            sums.append(sums[-1] + part if sums else part)
        return sums


def entropy_loss(x: Tensor, temperature: float = 0.01) -> Tensor:
    """What LFQ adds to the loss (Yu et al. 2023, sec. 3.1): low if choices are sure, and all as frequent. In nats.

    For x, (..., dim), on its way to FiniteScalarQuantizer([2] * dim), where a softmax of −‖x − signs‖² / temperature
    chooses among all 2^dim signs: the mean entropy of a choice, minus the entropy of the mean choice. (That of each bit
    alone would need no list of them, but it is as high where all bits are copies of one.)
    """
    check_floating(x, "x")
    dim = x.shape[-1]
    signs = FiniteScalarQuantizer([2] * dim).to(x.device).decode(torch.arange(2**dim, device=x.device))
    choices = (2 / temperature * x.reshape(-1, dim).float() @ signs.T).log_softmax(-1)  # ‖x‖² and ‖signs‖² cancel
    num = max(len(choices), 1)
    mean = (choices.logsumexp(0) - math.log(num)).clamp_min(-100)  # no vectors: −∞
    return (mean.exp() * mean).sum() - (choices.exp() * choices).sum() / num
