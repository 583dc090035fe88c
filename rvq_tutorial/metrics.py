"""How good a reconstruction is, what it costs in bits, and how well a codebook is used."""

import math

import torch
from torch import Tensor

from rvq_tutorial.arguments import check_indices, check_whole
from rvq_tutorial.language import said


def mse(x: Tensor, y: Tensor) -> float:
    """Mean squared error over all elements of two tensors of the same shape."""
    if x.shape != y.shape:
        raise ValueError(said("y must have x's shape {shape}, got {got}", shape=tuple(x.shape), got=tuple(y.shape)))
    return (x.float() - y.float()).square().mean().item()


def psnr(x: Tensor, y: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, for values in [0, 1] (peak 1): -10 log10(MSE)."""
    error = mse(x, y)
    return -10 * math.log10(error) if error else math.inf


def bits_per_vector(codebook_size: int, num_quantizers: int = 1) -> float:
    """Bits that name one codeword in each of the codebooks: M log2 K."""
    check_whole(codebook_size, "codebook_size")
    check_whole(num_quantizers, "num_quantizers")
    return num_quantizers * math.log2(codebook_size)


def bits_per_pixel(codebook_size: int, num_quantizers: int = 1, *, stride: int = 1) -> float:
    """Bits for each pixel where one vector stands for a patch of stride x stride pixels: M log2 K / stride²."""
    check_whole(stride, "stride")
    return bits_per_vector(codebook_size, num_quantizers) / stride**2


def usage(indices: Tensor, codebook_size: int) -> float:
    """Fraction of the codewords that occur among the indices (any shape; -1, a dropped stage, is left out)."""
    return (_counts(indices, codebook_size) > 0).double().mean().item()


def perplexity(indices: Tensor, codebook_size: int) -> float:
    """Number of codewords in effective use: 2 to the entropy, in bits, of how often each index occurs.

    It is codebook_size where all are used alike, and 1 where a single one is used. Indices may have any shape;
    -1, a dropped stage, is left out.
    """
    counts = _counts(indices, codebook_size).double()
    entropy: Tensor = torch.special.entr(counts / counts.sum()).sum()
    return entropy.exp().item()


def shannon_distortion(bits_per_dim: float, variance: float = 1.0) -> float:
    """Least mean squared error per dimension of any code for a Gaussian source: variance * 2^(-2 R).

    Shannon, "A mathematical theory of communication" (1948), part V; Cover & Thomas, "Elements of Information Theory",
    2nd ed., theorem 10.3.2.
    """
    if bits_per_dim < 0:
        raise ValueError(said("bits_per_dim must not be negative, got {bits_per_dim}", bits_per_dim=bits_per_dim))
    return variance * 2 ** (-2 * bits_per_dim)


def _counts(indices: Tensor, codebook_size: int) -> Tensor:
    check_whole(codebook_size, "codebook_size")
    check_indices(indices, -1, codebook_size - 1)
    kept = indices[indices >= 0]
    if kept.numel() == 0:
        raise ValueError(said("indices must hold at least one that is not -1, got only -1"))
    return torch.bincount(kept, minlength=codebook_size)
