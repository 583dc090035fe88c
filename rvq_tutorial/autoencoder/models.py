"""A convolutional autoencoder with a quantizer in its middle: images to a grid of indices, and back.

Images are (B, C, H, W) with values in [0, 1]; one latent vector stands for a patch of stride × stride pixels.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rvq_tutorial.arguments import check_vectors, check_whole
from rvq_tutorial.language import said
from rvq_tutorial.quantizers import ResidualVectorQuantizer, VectorQuantizer


class ResidualBlock(nn.Module):
    """x plus what two convolutions make of it (He et al. 2016): (B, width, h, w) → the same. It starts as x alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Encoder(nn.Module):
    """Images (B, in_channels, H, W) → latents (B, dim, H / stride, W / stride).

    It starts as the cosine transform of JPEG, cut to its `dim` coarsest patterns, and learns from there.
    """

    def __init__(
        self, in_channels: int = 3, dim: int = 64, *, width: int = 64, stride: int = 8, num_blocks: int = 3
    ) -> None:
        super().__init__()
        check_whole(in_channels, "in_channels")
        _check_sizes(dim, width, stride, num_blocks)
        self.in_channels = in_channels
        self.dim = dim
        self.width = width
        self.stride = stride
        self.num_blocks = num_blocks
        self.from_patches = nn.Conv2d(in_channels, width, kernel_size=stride, stride=stride, bias=False)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(num_blocks)))
        self.to_latents = nn.Conv2d(width, dim, kernel_size=1, bias=False)

        patterns = cosine_patterns(in_channels, stride)[:width]
        self.from_patches.weight.data[: len(patterns)] = patterns
        nn.init.dirac_(self.to_latents.weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.to_latents(self.blocks(self.from_patches(2 * images - 1)))


class Decoder(nn.Module):
    """Latents (B, dim, h, w) → images (B, out_channels, h · stride, w · stride).

    The encoder's mirror image: it starts as the inverse of the cosine transform.
    """

    def __init__(
        self, out_channels: int = 3, dim: int = 64, *, width: int = 64, stride: int = 8, num_blocks: int = 3
    ) -> None:
        super().__init__()
        check_whole(out_channels, "out_channels")
        _check_sizes(dim, width, stride, num_blocks)
        self.out_channels = out_channels
        self.dim = dim
        self.width = width
        self.stride = stride
        self.num_blocks = num_blocks
        self.from_latents = nn.Conv2d(dim, width, kernel_size=3, padding=1, bias=False)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(num_blocks)))
        self.to_patches = nn.ConvTranspose2d(width, out_channels, kernel_size=stride, stride=stride, bias=False)

        patterns = cosine_patterns(out_channels, stride)[:width]
        nn.init.dirac_(self.from_latents.weight)
        nn.init.zeros_(self.to_patches.weight)
        self.to_patches.weight.data[: len(patterns)] = patterns

    def forward(self, latents: Tensor) -> Tensor:
        return (self.to_patches(self.blocks(self.from_latents(latents))) + 1) / 2


def cosine_patterns(channels: int, size: int) -> Tensor:
    """The cosine transform's orthonormal basis, coarse to fine: (channels · size², channels, size, size).

    Each pattern is a product of three cosines (Ahmed et al. 1974): down, across, and over the colour channels, where
    the first is brightness. Photographs hold little fine detail in colour, so it counts as a high frequency.
    """
    across, over_channels = _cosines(size), _cosines(channels)
    patterns = torch.einsum("ac,uy,vx->auvcyx", over_channels, across, across)
    frequency = torch.arange(size)
    frequency = size / 2 * torch.arange(channels)[:, None, None] + frequency[:, None] + frequency
    return patterns.flatten(0, 2)[frequency.flatten().argsort(stable=True)]


def _cosines(n: int) -> Tensor:
    """The n orthonormal cosines on n points, one a row (DCT-II)."""
    frequency, point = torch.arange(n)[:, None], torch.arange(n) + 0.5
    cosines = torch.cos(math.pi / n * frequency * point)
    return F.normalize(cosines, dim=1)


class VQVAEOutput(NamedTuple):
    reconstruction: Tensor  # shape of the images; values may leave [0, 1] a little
    indices: Tensor  # int64, (B, ⌈H / stride⌉, ⌈W / stride⌉); residual: one more axis, last, of size M
    loss: Tensor  # scalar, the quantizer's; the reconstruction's error is for the training loop to add


class VQVAE(nn.Module):
    """Encoder, quantizer and decoder in a row (van den Oord et al. 2017). The quantizer has `channel_dim=1`.

    Images of any size: a last patch that is not whole is filled up by repeating the edge.
    """

    def __init__(
        self, encoder: nn.Module, quantizer: VectorQuantizer | ResidualVectorQuantizer, decoder: nn.Module
    ) -> None:
        super().__init__()
        if quantizer.channel_dim != 1:
            raise ValueError(said("quantizer must have channel_dim = 1, got {got}", got=quantizer.channel_dim))
        self.encoder = encoder
        self.quantizer = quantizer
        self.decoder = decoder

    def forward(self, images: Tensor, **options: int) -> VQVAEOutput:
        """Rebuild images (B, C, H, W) from their indices; `num_quantizers=3`, say, is handed on to the quantizer."""
        output = self.quantizer(self.latents(images), **options)
        height, width = images.shape[-2:]
        return VQVAEOutput(self._decode(output.quantized)[..., :height, :width], output.indices, output.loss)

    def encode(self, images: Tensor, **options: int) -> Tensor:
        """Images → indices (B, ⌈H / stride⌉, ⌈W / stride⌉); residual: one more axis, last, one entry a stage."""
        return self.quantizer.encode(self.latents(images), **options)

    def decode(self, indices: Tensor) -> Tensor:
        """Indices → images, whole patches: cut them to the original's size, [..., :H, :W]."""
        return self._decode(self.quantizer.decode(indices))

    def bypass(self, images: Tensor) -> Tensor:
        """Images after encoder and decoder alone, as if the quantizer lost nothing."""
        height, width = images.shape[-2:]
        return self.decoder(self.latents(images))[..., :height, :width]

    def _decode(self, quantized: Tensor) -> Tensor:
        return self.decoder(quantized.contiguous())  # one memory layout, so that every way here rounds alike

    def latents(self, images: Tensor) -> Tensor:
        """What the encoder gives for images of any size: (B, dim, ⌈H / stride⌉, ⌈W / stride⌉)."""
        check_vectors(images, "images")
        channels, stride = self.encoder.in_channels, self.encoder.stride
        if images.ndim != 4 or images.shape[1] != channels:
            shape = tuple(images.shape)
            raise ValueError(
                said("images must have shape (B, {channels}, H, W), got {shape}", channels=channels, shape=shape)
            )
        below, right = (-side % stride for side in images.shape[-2:])
        return self.encoder(F.pad(images, (0, right, 0, below), mode="replicate"))


def _check_sizes(dim: int, width: int, stride: int, num_blocks: int) -> None:
    check_whole(dim, "dim")
    check_whole(width, "width")
    check_whole(num_blocks, "num_blocks")
    if not isinstance(stride, int) or stride < 1 or stride & (stride - 1):
        raise ValueError(said("stride must be a power of two, got {stride!r}", stride=stride))
