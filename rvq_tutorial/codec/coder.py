"""The codec: photos to files of layers, and back, tile by tile."""

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

from rvq_tutorial.arguments import check_vectors, check_whole
from rvq_tutorial.autoencoder.models import VQVAE
from rvq_tutorial.autoencoder.prior import IndexPrior
from rvq_tutorial.codec import container, layers
from rvq_tutorial.codec.budget import fitted
from rvq_tutorial.codec.container import CodecError, Info
from rvq_tutorial.codec.tiles import reach, tiles
from rvq_tutorial.language import said
from rvq_tutorial.quantizers import ResidualVectorQuantizer


class Codec:
    """Photos to bytes and back, with a model and the prior of its indices. Without one all are equally likely."""

    max_pixels = 2**27  # larger photos and files are refused; set another limit on a codec of yours

    def __init__(self, model: VQVAE, prior: IndexPrior | None = None) -> None:
        quantizer = model.quantizer
        if not isinstance(quantizer, ResidualVectorQuantizer):
            kind = type(quantizer).__name__
            raise TypeError(said("model must have a ResidualVectorQuantizer, got {kind}", kind=kind))
        size, stages = quantizer.codebook_size, quantizer.num_quantizers
        check_whole(stages, "num_quantizers", high=255)
        prior = prior or IndexPrior(size, stages)
        if (prior.codebook_size, len(prior.stages)) != (size, stages):
            raise ValueError(
                said(
                    "prior must be for {stages} stages of {size} codewords, as the model, "
                    "got one for {got} of {got_size}",
                    stages=stages,
                    size=size,
                    got=len(prior.stages),
                    got_size=prior.codebook_size,
                )
            )
        self.model = model
        self.prior = prior

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change with anything that decoding depends on."""
        tensors = {"codebooks": self.model.quantizer.codebooks, **self.model.decoder.state_dict()}
        tensors |= {f"prior {name}": tensor for name, tensor in self.prior.state_dict().items()}
        digest = hashlib.sha256(f"stride {self.model.encoder.stride}".encode())
        for name, tensor in tensors.items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()[:8]

    def compress(self, image: Tensor, num_quantizers: int | None = None, max_bytes: int | None = None) -> bytes:
        """Write an image (C, H, W) with values in [0, 1], with the first `num_quantizers` stages (or all).

        With `max_bytes` the file has at most that many bytes, and each patch as many of the stages as are worth theirs.

        Raises:
            TypeError, ValueError: an argument is out of range, or not even one stage fits into `max_bytes`.
        """
        paths, left = self._paths(image, num_quantizers)
        fingerprint, size = self.fingerprint, image.shape[1:]

        def file(indices: Tensor) -> bytes:
            written = [layers.write(stage, indices.numpy()) for stage in self.prior.stages[: indices.shape[-1]]]
            return container.pack(fingerprint, *size, written)

        if max_bytes is None:
            return file(paths[..., -1, :])
        return fitted(paths, left, max_bytes, self.prior.codebook_size, file)

    def decompress(self, file: bytes, num_quantizers: int | None = None) -> Tensor:
        """Read the image (C, H, W), values in [0, 1], from the first `num_quantizers` layers of a file (or all).

        Raises:
            CodecError: the file is foreign, too new, of another model, damaged or cut short before the layers' end.
        """
        about, found = container.first_layers(file, num_quantizers)
        return self.decode(self._indices(about, found), about.height, about.width)

    def indices(self, file: bytes, num_quantizers: int | None = None) -> Tensor:
        """The indices (h, w, M) in the first layers of a file, −1 where a patch stopped; errors as for `decompress`."""
        return self._indices(*container.first_layers(file, num_quantizers))

    def _indices(self, about: Info, found: list[bytes]) -> Tensor:
        """What the layers hold; whatever the file promises, no memory is taken that its bytes could not fill."""
        if about.fingerprint != self.fingerprint:
            raise CodecError(
                said(
                    "The file was written with another model: its fingerprint is {file}, this model's {model}.",
                    file=about.fingerprint,
                    model=self.fingerprint,
                )
            )
        if about.num_quantizers > len(self.prior.stages) or about.height * about.width > self.max_pixels:
            raise CodecError(
                said(
                    "The file promises {height} × {width} pixels in {layers} layers; "
                    "this model reads up to {max_pixels} pixels in up to {stages} layers.",
                    height=about.height,
                    width=about.width,
                    layers=about.num_quantizers,
                    max_pixels=self.max_pixels,
                    stages=len(self.prior.stages),
                )
            )
        grid = self._grid(about.height, about.width)
        least_bits = math.prod(grid) * self.prior.least_bits  # every patch has an index of the first stage
        if least_bits > 8 * len(found[0]) + layers.LAST_BITS:
            raise CodecError(
                said(
                    "The file is damaged: {height} × {width} pixels do not fit into the {bytes} bytes of its "
                    "first layer.",
                    height=about.height,
                    width=about.width,
                    bytes=len(found[0]),
                )
            )
        indices = np.full((*grid, len(found)), -1)
        for stage, layer in zip(self.prior.stages, found, strict=False):
            layers.read(layer, stage, indices)
        return torch.from_numpy(indices)

    def encode(self, image: Tensor, num_quantizers: int | None = None) -> Tensor:
        """The indices (h, w, M) of an image (C, H, W): `model.encode`, tile by tile."""
        return self._paths(image, num_quantizers)[0][..., -1, :]

    @torch.no_grad()
    def _paths(self, image: Tensor, num_quantizers: int | None) -> tuple[Tensor, Tensor]:
        """What `quantizer.encode_each` gives for the latents of an image (C, H, W), with its first stages or all."""
        check_vectors(image, "image")
        encoder, quantizer = self.model.encoder, self.model.quantizer
        if image.ndim != 3 or len(image) != encoder.in_channels:
            channels, shape = encoder.in_channels, tuple(image.shape)
            raise ValueError(
                said("image must have shape ({channels}, H, W), got {shape}", channels=channels, shape=shape)
            )
        low, high = (value.item() for value in image.aminmax())
        if low < 0 or high > 1:
            raise ValueError(said("image must have values in [0, 1], got {low:g} to {high:g}", low=low, high=high))
        height, width = image.shape[1:]
        if max(height, width) > container.MAX_SIDE or height * width > self.max_pixels:
            raise ValueError(
                said(
                    "image must have up to {max_pixels} pixels and sides of up to {side}, got {height} × {width}",
                    max_pixels=self.max_pixels,
                    side=container.MAX_SIDE,
                    height=height,
                    width=width,
                )
            )
        stages = quantizer.num_quantizers if num_quantizers is None else num_quantizers
        check_whole(stages, "num_quantizers", high=quantizer.num_quantizers)

        grid = self._grid(height, width)
        paths, left = torch.empty(*grid, stages, stages, dtype=torch.int64), torch.empty(*grid, stages)
        for down, across in tiles(grid, encoder.stride, reach(encoder)):
            pixels = image[None, :, self._pixels(down.seen), self._pixels(across.seen)].to(self._device).float()
            found, rest = quantizer.encode_each(self.model.latents(pixels), stages)
            paths[down.part, across.part] = found[0, down.kept, across.kept].cpu()
            left[down.part, across.part] = rest[0, down.kept, across.kept].cpu()
        return paths, left

    @torch.no_grad()
    def decode(self, indices: Tensor, height: int, width: int) -> Tensor:
        """The image (C, height, width) of indices (h, w, M): `model.decode`, tile by tile, cut to size and range."""
        image = torch.empty(self.model.encoder.in_channels, height, width)
        for down, across in tiles(indices.shape[:2], self.model.encoder.stride, reach(self.model.decoder)):
            found = self.model.decode(indices[None, down.seen, across.seen].to(self._device))[0]
            part = image[:, self._pixels(down.part), self._pixels(across.part)]
            found = found[:, self._pixels(down.kept), self._pixels(across.kept)]
            part.copy_(found[:, : part.shape[1], : part.shape[2]].clamp(0, 1))
        return image

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        stride = self.model.encoder.stride
        return -(-height // stride), -(-width // stride)

    def _pixels(self, cells: slice) -> slice:
        stride = self.model.encoder.stride
        return slice(cells.start * stride, cells.stop * stride)
