"""A photo of any size to bytes, and back: `python -m rvq_tutorial.codec compress|decompress|truncate|info`."""

from rvq_tutorial.extras import need

need(__name__, "codec", "PIL")

from rvq_tutorial.codec.budget import stop_early
from rvq_tutorial.codec.coder import Codec
from rvq_tutorial.codec.container import CodecError, Info, info, truncate
from rvq_tutorial.codec.terminal import main

__all__ = ["Codec", "CodecError", "Info", "info", "main", "stop_early", "truncate"]
