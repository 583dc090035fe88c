"""The file: a header, then one layer for each stage of the residual quantizer.

    header    "RVQ", version (1 byte), fingerprint of the model (4), height (2), width (2), number of layers (1)
    layer     how many bytes (4), CRC-32 of the file up to this layer and of these bytes (4), these bytes

The first m layers alone decode to the picture of the first m stages, so a file that was cut short still holds one.
"""

import struct
import zlib
from typing import NamedTuple

from rvq_tutorial.arguments import check_whole
from rvq_tutorial.language import later, said

MAGIC, VERSION = b"RVQ", 2
HEADER, LAYER = struct.Struct("<3sB4sHHB"), struct.Struct("<II")
MAX_SIDE = 2**16 - 1


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

    @property
    def complaint(self) -> str:
        """The fault in words, without a full stop."""
        facts = {"fault": said(self.fault), "all": self.num_quantizers, "whole": len(self.layer_bytes)}
        return said("The file is {fault}: of its {all} layers {whole} can be read", **facts)


def info(file: bytes) -> Info:
    """What a file tells about itself; raises CodecError if it does not begin with at least one whole layer."""
    return unpack(file)[0]


def truncate(file: bytes, num_quantizers: int) -> bytes:
    """The shorter file with the first `num_quantizers` layers; raises CodecError if they are not there, whole."""
    about, layers = first_layers(file, num_quantizers)
    return pack(about.fingerprint, about.height, about.width, layers)


def pack(fingerprint: str, height: int, width: int, layers: list[bytes]) -> bytes:
    """The file of an image of that size, written with the model of that fingerprint."""
    file = HEADER.pack(MAGIC, VERSION, bytes.fromhex(fingerprint), height, width, len(layers))
    for layer in layers:
        file += LAYER.pack(len(layer), zlib.crc32(layer, zlib.crc32(file))) + layer
    return file


def unpack(file: bytes) -> tuple[Info, list[bytes]]:
    """What the file tells about itself, and its whole layers: at least one, or not even the header can be trusted."""
    if not MAGIC.startswith(file[:3]):
        raise CodecError(said("This is not a file of rvq_tutorial.codec."))
    if file[3:4] not in (b"", bytes([VERSION])):
        newer = later("A newer rvq_tutorial wrote the file: it has version {found}, this one reads {reads}.")
        older = later("An older rvq_tutorial wrote the file: it has version {found}, this one reads {reads}.")
        raise CodecError(said(newer if file[3] > VERSION else older, found=file[3], reads=VERSION))
    if len(file) < HEADER.size:
        raise CodecError(said("The file is cut short within its header, so there is no picture in it."))
    _, version, fingerprint, height, width, total = HEADER.unpack_from(file)
    layers, fault = _whole_layers(file, total)
    if not layers:
        raise CodecError(
            said("The file is {fault}: its first layer is not whole, so there is no picture in it.", fault=said(fault))
        )
    if height * width == 0:
        raise CodecError(
            said("The file is damaged: it promises {height} × {width} pixels.", height=height, width=width)
        )
    sizes = tuple(len(layer) for layer in layers)
    return Info(version, fingerprint.hex(), height, width, total, sizes, len(file), fault), layers


def first_layers(file: bytes, num_quantizers: int | None) -> tuple[Info, list[bytes]]:
    """What the file tells about itself, and its first `num_quantizers` layers (or all)."""
    about, layers = unpack(file)
    wanted = about.num_quantizers if num_quantizers is None else num_quantizers
    check_whole(wanted, "num_quantizers", high=about.num_quantizers)
    if len(layers) < wanted:
        facts = {"complaint": about.complaint, "whole": len(layers)}
        raise CodecError(said("{complaint}, so num_quantizers = {whole} still gives a picture.", **facts))
    return about, layers[:wanted]


def _whole_layers(file: bytes, total: int) -> tuple[list[bytes], str]:
    """The layers up to the first that is not whole, and what is wrong with that one."""
    layers, start, checksum_before = [], HEADER.size, zlib.crc32(file[: HEADER.size])
    for _ in range(total):
        if len(file) < start + LAYER.size:
            return layers, later("cut short")
        length, checksum = LAYER.unpack_from(file, start)
        end = start + LAYER.size + length
        if len(file) < end:
            return layers, later("cut short")
        layer = file[start + LAYER.size : end]
        if zlib.crc32(layer, checksum_before) != checksum:
            return layers, later("damaged")
        layers.append(layer)
        start, checksum_before = end, zlib.crc32(file[start:end], checksum_before)
    return layers, "" if layers else "damaged"
