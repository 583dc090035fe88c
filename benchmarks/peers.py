"""What ours is measured against: the version that tutorials teach, and the known libraries."""

from typing import NamedTuple

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vector_quantize_pytorch import ResidualVQ


class OneHotQuantizer(nn.Module):
    """The vector quantizer of most tutorials: all distances, a one-hot matrix, and matrix products with it."""

    def __init__(self, dim: int, codebook_size: int, decay: float = 0.99, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.decay, self.epsilon = decay, epsilon
        self.register_buffer("codebook", torch.randn(codebook_size, dim))
        self.register_buffer("counts", torch.zeros(codebook_size))
        self.register_buffer("sums", self.codebook.clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        codebook = self.codebook.clone()
        distances = x.square().sum(1, keepdim=True) + codebook.square().sum(1) - 2 * x @ codebook.t()
        indices = distances.argmin(1)
        one_hot = F.one_hot(indices, len(codebook)).to(x.dtype)
        quantized = one_hot @ codebook
        if self.training:
            with torch.no_grad():
                self.counts.lerp_(one_hot.sum(0), 1 - self.decay)
                self.sums.lerp_(one_hot.t() @ x, 1 - self.decay)
                total = self.counts.sum()
                smoothed = (self.counts + self.epsilon) / (total + len(codebook) * self.epsilon) * total
                self.codebook.copy_(self.sums / smoothed[:, None])
        loss = F.mse_loss(x, quantized.detach())
        return x + (quantized - x).detach(), loss


class OneHotResidual(nn.Module):
    """Stage after stage of it."""

    def __init__(self, dim: int, codebook_size: int, num_quantizers: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(OneHotQuantizer(dim, codebook_size) for _ in range(num_quantizers))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        residual, quantized, loss = x, torch.zeros_like(x), x.new_zeros(())
        for stage in self.stages:
            chosen, stage_loss = stage(residual)
            residual = residual - chosen.detach()
            quantized = quantized + chosen
            loss = loss + stage_loss
        return quantized, loss


class LucidrainsResidual(nn.Module):
    """vector-quantize-pytorch's ResidualVQ; by default it has its rotation trick on."""

    def __init__(self, dim: int, codebook_size: int, num_quantizers: int, rotation_trick: bool = True) -> None:
        super().__init__()
        self.quantizer = ResidualVQ(
            dim=dim, codebook_size=codebook_size, num_quantizers=num_quantizers, rotation_trick=rotation_trick
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        quantized, _, losses = self.quantizer(x[None])
        return quantized[0], losses.sum()


class Quantized(NamedTuple):
    """What an autoencoder looks for in the output of its quantizer."""

    quantized: Tensor
    indices: Tensor | None
    loss: Tensor


class LucidrainsLatents(nn.Module):
    """The same for an autoencoder's latents, (B, dim, h, w)."""

    channel_dim = 1

    def __init__(self, dim: int, codebook_size: int, num_quantizers: int, quantize_dropout: float) -> None:
        super().__init__()
        self.quantizer = ResidualVQ(
            dim=dim,
            codebook_size=codebook_size,
            num_quantizers=num_quantizers,
            quantize_dropout=quantize_dropout > 0,
        )

    def forward(self, latents: Tensor) -> Quantized:
        quantized, indices, losses = self.quantizer(latents.flatten(2).mT)
        return Quantized(quantized.mT.view_as(latents), indices, losses.sum())


class PlainLoop:
    """What anyone would write who has codebooks, (M, K, dim), and no library."""

    def __init__(self, codebooks: Tensor) -> None:
        self.codebooks = codebooks

    def encode(self, x: Tensor) -> Tensor:
        indices = []
        for codebook in self.codebooks:
            index = torch.cdist(x, codebook).argmin(1)
            x = x - codebook[index]
            indices.append(index)
        return torch.stack(indices, -1)

    def decode(self, indices: Tensor) -> Tensor:
        chosen = (F.embedding(index, c) for index, c in zip(indices.unbind(-1), self.codebooks, strict=True))
        return torch.stack(list(chosen)).sum(0)


class Bypass(nn.Module):
    """No quantizer at all."""

    channel_dim = 1

    def forward(self, latents: Tensor) -> Quantized:
        return Quantized(latents, None, latents.new_zeros(()))


def faiss_flat(codebook: Tensor) -> faiss.IndexFlatL2:
    """faiss's exhaustive search over the codebook."""
    index = faiss.IndexFlatL2(codebook.shape[1])
    index.add(codebook.numpy())
    return index


def faiss_residual(codebooks: Tensor) -> faiss.ResidualQuantizer:
    """faiss's residual quantizer with the given codebooks, (M, K, dim)."""
    num_quantizers, codebook_size, dim = codebooks.shape
    quantizer = faiss.ResidualQuantizer(dim, num_quantizers, int(np.log2(codebook_size)))
    faiss.copy_array_to_vector(codebooks.numpy().ravel(), quantizer.codebooks)
    quantizer.is_trained = True
    return quantizer
