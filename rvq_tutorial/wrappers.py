"""Quantizers around quantizers: through a projection to fewer channels, or each group of channels by its own."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rvq_tutorial.arguments import check_whole
from rvq_tutorial.base import QuantizerOutput
from rvq_tutorial.layout import VectorLayer


class Projected(VectorLayer):
    """Any quantizer, for vectors of another size `dim`: a linear map takes them to its own, and another one back.

    In few channels, more of a large codebook is used (Yu et al. 2022, sec. 3.2). The losses compare what lies inside.
    The maps are layers that learn, so `fit` starts the codewords where the first map takes x as it is now.
    """

    def __init__(self, quantizer: VectorLayer, dim: int) -> None:
        check_whole(dim, "dim")
        super().__init__(dim, quantizer.channel_dim)
        self.project_in = nn.Linear(dim, quantizer.dim)
        self.quantizer: Any = quantizer
        self.project_out = nn.Linear(quantizer.dim, dim)
        self.index_shape, self.bits = quantizer.index_shape, quantizer.bits

    def forward(self, x: Tensor, mask: Tensor | None = None, **options: Any) -> QuantizerOutput:
        """As the quantizer inside, to which the options go."""
        output: QuantizerOutput = self.quantizer(self._inside(x, mask), mask, **options)
        quantized = self._outside(output.quantized, output.indices).to(x.dtype)
        losses = output.codebook_loss, output.commitment_loss, output.loss, output.stage_losses
        return QuantizerOutput(quantized, output.indices, *losses)

    def encode(self, x: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
        """x → the indices of the quantizer inside."""
        return torch.as_tensor(self.quantizer.encode(self._inside(x, mask), mask, **options))

    def decode(self, indices: Tensor) -> Tensor:
        """What these indices stand for, laid out like x; zeros for padding, whose indices are all −1."""
        return self._outside(self.quantizer.decode(indices), indices)

    def fit(self, x: Tensor, mask: Tensor | None = None) -> "Projected":
        """Fit the quantizer inside, padding left out."""
        self.quantizer.fit(self._inside(x, mask), mask)
        return self

    @property
    def process_group(self) -> "dist.ProcessGroup | None":
        """As the quantizer inside has it."""
        group: dist.ProcessGroup | None = self.quantizer.process_group
        return group

    @process_group.setter
    def process_group(self, group: "dist.ProcessGroup | None") -> None:
        self.quantizer.process_group = group

    def _inside(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        vectors = self._to_vectors(x, mask).to(self.project_in.weight.dtype)
        return self._from_vectors(self.project_in(vectors))

    def _outside(self, quantized: Tensor, indices: Tensor) -> Tensor:
        vectors = self.project_out(quantized.movedim(self.channel_dim, -1))
        padding = (indices.long() < 0).unsqueeze(-1).flatten(vectors.ndim - 1).all(-1)
        return self._from_vectors(vectors.masked_fill(padding.unsqueeze(-1), 0))


class Grouped(VectorLayer):
    """A quantizer for each group of channels, in their order (product quantization: Jégou et al. 2011).

    The losses are means over the groups. Indices have an axis for the groups before that of the stages: (..., G), or
    (..., G, M), whose prefix [..., :m] is one for every group. With quantize_dropout, each group draws its own m.
    """

    def __init__(self, quantizers: Sequence[VectorLayer]) -> None:
        alike = {(each.channel_dim, each.index_shape) for each in quantizers}
        if len(alike) != 1:
            raise ValueError(f"quantizers must share one channel_dim and one index_shape, got {sorted(alike)}")
        ((channel_dim, index_shape),) = alike
        super().__init__(sum(each.dim for each in quantizers), channel_dim)
        self.quantizers: Any = nn.ModuleList(quantizers)
        self.index_shape, self.bits = (len(quantizers), *index_shape), sum(each.bits for each in quantizers)

    def forward(self, x: Tensor, mask: Tensor | None = None, **options: Any) -> QuantizerOutput:
        """As the quantizers inside, to which the options go."""
        outputs = [each(part, mask, **options) for each, part in self._parts(x)]
        quantized, indices, *losses = zip(*outputs, strict=True)
        means = [torch.stack(loss).mean(0) for loss in losses]
        return QuantizerOutput(torch.cat(quantized, self.channel_dim), torch.stack(indices, x.ndim - 1), *means)

    def encode(self, x: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
        """x → the indices of every group."""
        return torch.stack([each.encode(part, mask, **options) for each, part in self._parts(x)], x.ndim - 1)

    def decode(self, indices: Tensor) -> Tensor:
        """What these indices stand for, the groups side by side."""
        axis = -len(self.index_shape)
        if indices.ndim < -axis or indices.shape[axis] != len(self.quantizers):
            raise ValueError(f"indices must end in index_shape = {self.index_shape}, got shape {tuple(indices.shape)}")
        parts = zip(self.quantizers, indices.unbind(axis), strict=True)
        return torch.cat([each.decode(part) for each, part in parts], self.channel_dim)

    def fit(self, x: Tensor, mask: Tensor | None = None) -> "Grouped":
        """Fit every quantizer to its channels, padding left out."""
        for each, part in self._parts(x):
            each.fit(part, mask)
        return self

    @property
    def process_group(self) -> "dist.ProcessGroup | None":
        """As the quantizers inside have it."""
        group: dist.ProcessGroup | None = self.quantizers[0].process_group
        return group

    @process_group.setter
    def process_group(self, group: "dist.ProcessGroup | None") -> None:
        for each in self.quantizers:
            each.process_group = group

    def _parts(self, x: Tensor) -> list[tuple[Any, Tensor]]:
        """Each quantizer and its channels of x."""
        parts = torch.split(self._to_vectors(x), [each.dim for each in self.quantizers], -1)
        return [(each, self._from_vectors(part)) for each, part in zip(self.quantizers, parts, strict=True)]
