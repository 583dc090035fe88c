"""A photo of any size to bytes, and back: `python -m rvq_tutorial.codec compress|decompress|truncate|info`.

A file is a header, then one layer for each stage of the residual quantizer. The first m layers alone decode to the
picture of the first m stages, so a file that was cut short still holds one:

    header    "RVQ", version (1 byte), fingerprint of the model (4), height (2), width (2), number of layers (1)
    layer     how many bytes (4), CRC-32 of the file up to this layer and of these bytes (4), these bytes

The bytes of a layer are the indices of a stage, from a range coder that knows their probabilities from `prior`.

A patch may stop before the last stage: sky needs fewer than fur. Asked for a file of at most so many bytes, the codec
lets each patch stop where going on would take less off its error than the price of a stage, and looks for the price at
which the file just fits (Shoham & Gersho 1988: no stage of another patch would then have been the better buy).
"""

import argparse
import hashlib
import itertools
import math
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
import torch
from constriction import stream
from torch import Tensor, nn

from rvq_tutorial import metrics, pictures, pretrained
from rvq_tutorial.arguments import check_vectors, check_whole
from rvq_tutorial.files import write_whole
from rvq_tutorial.models import VQVAE
from rvq_tutorial.prior import IndexPrior, StagePrior
from rvq_tutorial.quantizers import ResidualVectorQuantizer

MAGIC, VERSION = b"RVQ", 2
HEADER, LAYER = struct.Struct("<3sB4sHHB"), struct.Struct("<II")
MAX_SIDE = 2**16 - 1
LAST_BITS = 64  # more than the range coder can still owe when it ends
TILE = 1024  # pixels: a larger photo goes through the model in squares of this size, so that memory stays small
CLOSE, AIM, TRIES = 0.99, 0.995, 12  # of the bytes allowed: the share that will do, that aimed at, and how often
WEIGHTS = stream.model.Categorical(perfect=False)  # an index by its weight's share of the sum of all weights


class CodecError(ValueError):
    """A file can't be read; one sentence says why."""


class Info(NamedTuple):
    """What a file tells about itself."""

    version: int
    fingerprint: str  # of the model that wrote it
    height: int
    width: int
    num_quantizers: int
    layer_bytes: tuple[int, ...]  # the sizes of its whole layers; fewer than num_quantizers if there is a fault
    num_bytes: int  # all that is there
    fault: str  # "cut short" or "damaged", else empty

    @property
    def bits_per_pixel(self) -> float:
        return 8 * self.num_bytes / (self.height * self.width)


def info(file: bytes) -> Info:
    """What a file tells about itself; raises CodecError if it does not begin with at least one whole layer."""
    return _open(file)[0]


def truncate(file: bytes, num_quantizers: int) -> bytes:
    """The shorter file with the first `num_quantizers` layers; raises CodecError if they are not there, whole."""
    about, layers = _first_layers(file, num_quantizers)
    return _pack(about.fingerprint, about.height, about.width, layers)


class Codec:
    """Photos to bytes and back, with a model and the prior of its indices. Without one all are equally likely."""

    max_pixels = 2**27  # larger photos and files are refused; set another limit on a codec of yours

    def __init__(self, model: VQVAE, prior: IndexPrior | None = None) -> None:
        quantizer = model.quantizer
        if not isinstance(quantizer, ResidualVectorQuantizer):
            raise TypeError(f"model must have a ResidualVectorQuantizer, got {type(quantizer).__name__}")
        size, stages = quantizer.codebook_size, quantizer.num_quantizers
        check_whole(stages, "num_quantizers", high=255)
        prior = prior or IndexPrior(size, stages)
        if (prior.codebook_size, len(prior.stages)) != (size, stages):
            raise ValueError(
                f"prior must be for {stages} stages of {size} codewords, as the model, "
                f"got one for {len(prior.stages)} of {prior.codebook_size}"
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
            layers = [_write(stage, indices.numpy()) for stage in self.prior.stages[: indices.shape[-1]]]
            return _pack(fingerprint, *size, layers)

        if max_bytes is None:
            return file(paths[..., -1, :])
        check_whole(max_bytes, "max_bytes")
        best, whole = file(paths[..., 0, :1]), file(paths[..., -1, :])
        if len(best) > max_bytes:
            raise ValueError(f"max_bytes must be at least {len(best)}, one stage for each patch, got {max_bytes}")
        if len(whole) <= max_bytes:
            return whole

        # As many further stages are bought as savings are above the price, about, and the size grows with them, about.
        savings = (left[..., :-1] - left[..., 1:]).flatten().clamp_min(0).sort(descending=True).values
        low, high, one_stage, aim = 0, len(savings), len(best), AIM * max_bytes
        further = 8 * (aim - one_stage) / math.log2(self.prior.codebook_size)
        for count in range(TRIES):
            if len(best) >= CLOSE * max_bytes:
                break
            if count % 3 == 2 or not low < further < high:  # halving never fails
                further = (low + high) / 2
            found = file(stop_early(paths, left, savings[int(further)].item()))
            if len(best) < len(found) <= max_bytes:
                best = found
            low, high = (further, high) if len(found) < aim else (low, further)
            further *= (aim - one_stage) / max(1, len(found) - one_stage)
        return best

    def decompress(self, file: bytes, num_quantizers: int | None = None) -> Tensor:
        """Read the image (C, H, W), values in [0, 1], from the first `num_quantizers` layers of a file (or all).

        Raises:
            CodecError: the file is foreign, too new, of another model, damaged or cut short before the layers' end.
        """
        about, layers = _first_layers(file, num_quantizers)
        return self.decode(self._indices(about, layers), about.height, about.width)

    def indices(self, file: bytes, num_quantizers: int | None = None) -> Tensor:
        """The indices (h, w, M) in the first layers of a file, −1 where a patch stopped; errors as for `decompress`."""
        return self._indices(*_first_layers(file, num_quantizers))

    def _indices(self, about: Info, layers: list[bytes]) -> Tensor:
        """What the layers hold; whatever the file promises, no memory is taken that its bytes could not fill."""
        if about.fingerprint != self.fingerprint:
            raise CodecError(
                f"The file was written with another model: its fingerprint is {about.fingerprint}, "
                f"this model's {self.fingerprint}."
            )
        if about.num_quantizers > len(self.prior.stages) or about.height * about.width > self.max_pixels:
            raise CodecError(
                f"The file promises {about.height} × {about.width} pixels in {about.num_quantizers} layers; "
                f"this model reads up to {self.max_pixels} pixels in up to {len(self.prior.stages)} layers."
            )
        grid = self._grid(about.height, about.width)
        if grid[0] * grid[1] * self.prior.least_bits > 8 * len(layers[0]) + LAST_BITS:  # every patch has a first index
            raise CodecError(
                f"The file is damaged: {about.height} × {about.width} pixels "
                f"do not fit into the {len(layers[0])} bytes of its first layer."
            )
        indices = np.full((*grid, len(layers)), -1)
        for stage, layer in zip(self.prior.stages, layers, strict=False):
            _read(layer, stage, indices)
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
            raise ValueError(f"image must have shape ({encoder.in_channels}, H, W), got {tuple(image.shape)}")
        low, high = (value.item() for value in image.aminmax())
        if low < 0 or high > 1:
            raise ValueError(f"image must have values in [0, 1], got {low:g} to {high:g}")
        height, width = image.shape[1:]
        if max(height, width) > MAX_SIDE or height * width > self.max_pixels:
            raise ValueError(
                f"image must have up to {self.max_pixels} pixels and sides of up to {MAX_SIDE}, got {height} × {width}"
            )
        stages = quantizer.num_quantizers if num_quantizers is None else num_quantizers
        check_whole(stages, "num_quantizers", high=quantizer.num_quantizers)

        grid = self._grid(height, width)
        paths, left = torch.empty(*grid, stages, stages, dtype=torch.int64), torch.empty(*grid, stages)
        for down, across in self._tiles(grid, _reach(encoder)):
            pixels = image[None, :, self._pixels(down.seen), self._pixels(across.seen)].to(self._device).float()
            found, rest = quantizer.encode_each(self.model.latents(pixels), stages)
            paths[down.part, across.part] = found[0, down.kept, across.kept].cpu()
            left[down.part, across.part] = rest[0, down.kept, across.kept].cpu()
        return paths, left

    @torch.no_grad()
    def decode(self, indices: Tensor, height: int, width: int) -> Tensor:
        """The image (C, height, width) of indices (h, w, M): `model.decode`, tile by tile, cut to size and range."""
        image = torch.empty(self.model.encoder.in_channels, height, width)
        for down, across in self._tiles(indices.shape[:2], _reach(self.model.decoder)):
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

    def _tiles(self, grid: tuple[int, int], margin: int) -> Iterator[tuple["Span", "Span"]]:
        size = max(1, TILE // self.model.encoder.stride)
        return itertools.product(*(list(_spans(length, size, margin)) for length in grid))


# Stopping early


def stop_early(paths: Tensor, left: Tensor, price: float) -> Tensor:
    """Give each vector the number of stages m that makes ‖error‖² + price · m least.

    Both tensors as from `encode_each`: indices (..., M, M), squared errors (..., M) → indices (..., m), −1 after the
    stop, where m is the largest number of stages that some vector has.
    """
    stages = torch.arange(1, left.shape[-1] + 1)
    last = (left + price * stages).argmin(-1)
    return torch.take_along_dim(paths, last[..., None, None], -2)[..., 0, : last.max() + 1]


# Tiles


class Span(NamedTuple):
    """One side of a tile, in cells of the grid of indices."""

    part: slice  # of the whole grid: what is wanted
    seen: slice  # of the whole grid: that, and the margin that it depends on
    kept: slice  # of what is seen: what is wanted


def _spans(length: int, size: int, margin: int) -> Iterator[Span]:
    for start in range(0, length, size):
        stop = min(start + size, length)
        seen = slice(max(0, start - margin), min(length, stop + margin))
        yield Span(slice(start, stop), seen, slice(start - seen.start, stop - seen.start))


def _reach(network: nn.Module) -> int:
    """How many cells away a cell can still make a difference, at most: the sum of what its convolutions reach."""
    convolutions = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d))
    return sum((max(layer.kernel_size) - min(layer.stride) + 1) // 2 for layer in convolutions)


# Layers


def _write(stage: StagePrior, indices: np.ndarray) -> bytes:
    """The layer of one stage of the indices (h, w, M)."""
    encoder = stream.queue.RangeEncoder()
    for rows, columns, ends, weights in stage.walk(indices):
        index = indices[rows, columns, stage.stage].astype(np.int32)
        goes_on = index >= 0
        encoder.encode(goes_on.astype(np.int32), WEIGHTS, ends)
        encoder.encode(index[goes_on], WEIGHTS, weights[goes_on])
    return encoder.get_compressed().astype("<u4").tobytes()


def _read(layer: bytes, stage: StagePrior, indices: np.ndarray) -> None:
    """Fill in one stage of the indices, −1 so far; those before it are there."""
    try:
        decoder = stream.queue.RangeDecoder(np.frombuffer(layer, "<u4").astype(np.uint32))
        for rows, columns, ends, weights in stage.walk(indices):
            goes_on = decoder.decode(WEIGHTS, ends) == 1
            indices[rows[goes_on], columns[goes_on], stage.stage] = decoder.decode(WEIGHTS, weights[goes_on])
    except (ValueError, AssertionError) as error:  # not whole words, or no encoder writes such words
        raise CodecError(f"The file is damaged: layer {stage.stage + 1} does not hold indices.") from error


def _pack(fingerprint: str, height: int, width: int, layers: list[bytes]) -> bytes:
    file = HEADER.pack(MAGIC, VERSION, bytes.fromhex(fingerprint), height, width, len(layers))
    for layer in layers:
        file += LAYER.pack(len(layer), zlib.crc32(layer, zlib.crc32(file))) + layer
    return file


def _open(file: bytes) -> tuple[Info, list[bytes]]:
    """What the file tells about itself, and its whole layers: at least one, or not even the header can be trusted."""
    if not MAGIC.startswith(file[:3]):
        raise CodecError("This is not a file of rvq_tutorial.codec.")
    if file[3:4] not in (b"", bytes([VERSION])):
        age = "A newer" if file[3] > VERSION else "An older"
        raise CodecError(f"{age} rvq_tutorial wrote the file: it has version {file[3]}, this one reads {VERSION}.")
    if len(file) < HEADER.size:
        raise CodecError("The file is cut short within its header, so there is no picture in it.")
    _, version, fingerprint, height, width, total = HEADER.unpack_from(file)
    layers, fault = _whole_layers(file, total)
    if not layers:
        raise CodecError(f"The file is {fault}: its first layer is not whole, so there is no picture in it.")
    if height * width == 0:
        raise CodecError(f"The file is damaged: it promises {height} × {width} pixels.")
    sizes = tuple(len(layer) for layer in layers)
    return Info(version, fingerprint.hex(), height, width, total, sizes, len(file), fault), layers


def _first_layers(file: bytes, num_quantizers: int | None) -> tuple[Info, list[bytes]]:
    """What the file tells about itself, and its first `num_quantizers` layers (or all)."""
    about, layers = _open(file)
    wanted = about.num_quantizers if num_quantizers is None else num_quantizers
    check_whole(wanted, "num_quantizers", high=about.num_quantizers)
    if len(layers) < wanted:
        raise CodecError(f"{_faulty(about)}, so num_quantizers = {len(layers)} still gives a picture.")
    return about, layers[:wanted]


def _faulty(about: Info) -> str:
    return f"The file is {about.fault}: of its {about.num_quantizers} layers {len(about.layer_bytes)} can be read"


def _whole_layers(file: bytes, total: int) -> tuple[list[bytes], str]:
    """The layers up to the first that is not whole, and what is wrong with that one."""
    layers, start, checksum_before = [], HEADER.size, zlib.crc32(file[: HEADER.size])
    for _ in range(total):
        if len(file) < start + LAYER.size:
            return layers, "cut short"
        length, checksum = LAYER.unpack_from(file, start)
        end = start + LAYER.size + length
        if len(file) < end:
            return layers, "cut short"
        layer = file[start + LAYER.size : end]
        if zlib.crc32(layer, checksum_before) != checksum:
            return layers, "damaged"
        layers.append(layer)
        start, checksum_before = end, zlib.crc32(file[start:end], checksum_before)
    return layers, "" if layers else "damaged"


# The command


def main(arguments: list[str] | None = None) -> int:
    """Carry out a command line; what goes wrong is one sentence on stderr, and exit code 1 (130 if interrupted)."""
    options = _parser().parse_args(arguments)
    try:
        _check_output(options)
        report_on_stderr = _is_stdout(options.output)
        report = options.command(options)
        _say(report, sys.stderr if report_on_stderr else sys.stdout)
    except KeyboardInterrupt:
        print(f"{options.name}: interrupted", file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        reason = f"{error.filename}: {error.strerror}" if getattr(error, "strerror", None) else error
        print(f"{options.name}: {reason}", file=sys.stderr)
        return 1
    return 0


def _compress(options: argparse.Namespace) -> str:
    image, remarks = pictures.read_picture(options.input)
    codec = Codec(*pretrained.load(options.model))
    file = codec.compress(image, options.num_quantizers, options.max_bytes)
    write_whole(options.output, file)
    quality = metrics.psnr(codec.decompress(file), image)
    return "\n".join([*remarks, f"{options.output}: {_size(file)}, PSNR {quality:.2f} dB"])


def _decompress(options: argparse.Namespace) -> str:
    codec = Codec(*pretrained.load(options.model))
    image = codec.decompress(_read_file(options.input), options.num_quantizers)
    write_whole(options.output, pictures.picture_file(image, options.output.suffix))
    return f"{options.output}: {image.shape[1]} × {image.shape[2]} pixels"


def _truncate(options: argparse.Namespace) -> str:
    file = truncate(_read_file(options.input), options.num_quantizers)
    write_whole(options.output, file)
    return f"{options.output}: {_size(file)}"


def _info(options: argparse.Namespace) -> str:
    about = info(_read_file(options.input))
    facts = about._asdict() | {"bits_per_pixel": f"{about.bits_per_pixel:.3f}"}
    del facts["fault"]
    lines = [f"{name}: {value}" for name, value in facts.items()]
    return "\n".join([*lines, f"{_faulty(about)}."] if about.fault else lines)


def _size(file: bytes) -> str:
    return f"{len(file):,} bytes, {info(file).bits_per_pixel:.3f} bits per pixel"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rvq_tutorial.codec", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, dest="name")

    def add(action: Callable[[argparse.Namespace], str], help_text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(action.__name__[1:], help=help_text)
        command.set_defaults(command=action, output=None)
        command.add_argument("input", type=Path)
        return command

    for action, help_text in (
        (_compress, "a picture to a file"),
        (_decompress, "such a file to a picture"),
        (_truncate, "such a file to a shorter one, its first layers"),
    ):
        command = add(action, help_text)
        command.add_argument("output", type=Path)
        command.add_argument(
            "--num-quantizers", type=int, metavar="M", help="only the first M stages", required=action is _truncate
        )
        if action is not _truncate:
            whose = "a file that pretrained.save wrote; by default the course's"
            command.add_argument("--model", type=Path, default=pretrained.PHOTOS, help=whose)
    commands.choices["compress"].add_argument("--max-bytes", type=int, metavar="N", help="the best file of that size")
    add(_info, "what such a file tells about itself")
    return parser


def _check_output(options: argparse.Namespace) -> None:
    """Refuse an output that is also what is read, by whatever name."""
    for name in ("input", "model"):
        path = getattr(options, name, None)
        if path and options.output and path.exists() and options.output.exists() and path.samefile(options.output):
            raise ValueError(f"output must be another file than {name}, got {options.output}, which is {path}")


def _read_file(path: Path) -> bytes:
    """The bytes of the file; of one that is not ours, the first few."""
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
        return start + file.read() if start == MAGIC else start


def _is_stdout(path: Path | None) -> bool:
    try:
        return path is not None and os.path.samestat(path.stat(), os.fstat(1))
    except OSError:  # one of them isn't there
        return False


def _say(report: str, stream: TextIO) -> None:
    try:
        print(report, file=stream, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or Python would try again when it ends
        error.filename = "The report can't be written"
        raise


if __name__ == "__main__":
    sys.exit(main())
