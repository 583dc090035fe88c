"""The door of every quantizer: tensors of any layout come in, rows of vectors lie behind it."""

import torch
from torch import Tensor, nn

from rvq_tutorial.arguments import check_finite, check_floating, check_mask
from rvq_tutorial.language import said


class VectorLayer(nn.Module):
    """A layer for vectors of size dim, which lie along x's axis channel_dim."""

    bits: float  # that the indices of one vector take: log2 K, summed over the stages
    index_shape: tuple[int, ...] = ()  # of those indices: () for a single one, (M,) for M stages

    def __init__(self, dim: int, channel_dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.channel_dim = channel_dim

    def _to_rows(
        self, x: Tensor, dtype: torch.dtype, mask: Tensor | None = None, *, finite: bool = True
    ) -> tuple[Tensor, torch.Size]:
        """Check x, lay its vectors out as rows: → (N, dim), zeros where not `mask`, and x's shape without channels."""
        vectors = self._to_vectors(x, mask)
        if finite:
            check_finite(vectors, "x")
        return vectors.reshape(-1, self.dim).to(dtype), vectors.shape[:-1]

    def _to_vectors(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Check x, but not its values: → (..., dim), zeros where not `mask`."""
        check_floating(x, "x")
        if not -x.ndim <= self.channel_dim < x.ndim:
            raise ValueError(
                said(
                    "x must have the axis channel_dim = {channel_dim}, got shape {shape}",
                    channel_dim=self.channel_dim,
                    shape=tuple(x.shape),
                )
            )
        if x.shape[self.channel_dim] != self.dim:
            raise ValueError(
                said(
                    "x must have size dim = {dim} along channel_dim = {channel_dim}, got shape {shape}",
                    dim=self.dim,
                    channel_dim=self.channel_dim,
                    shape=tuple(x.shape),
                )
            )
        vectors = x.movedim(self.channel_dim, -1)
        if mask is not None:
            check_mask(mask, vectors.shape[:-1])
            vectors = vectors.masked_fill(~mask.unsqueeze(-1), 0)
        return vectors

    def _from_rows(self, rows: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        return self._from_vectors(rows.view(*shape, self.dim)).to(dtype)

    def _from_vectors(self, vectors: Tensor) -> Tensor:
        """(..., dim), as looked up for some indices → the layout of x."""
        if not -vectors.ndim <= self.channel_dim < vectors.ndim:
            raise ValueError(f"indices must have more axes, for x with the axis channel_dim = {self.channel_dim}")
        return vectors.movedim(-1, self.channel_dim)
