"""A photo of any size to bytes, and back: `python -m rvq_tutorial.codec compress|decompress|truncate|info`."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from rvq_tutorial import metrics
from rvq_tutorial.autoencoder import pretrained
from rvq_tutorial.autoencoder.files import write_whole
from rvq_tutorial.codec import container, pictures
from rvq_tutorial.codec.coder import Codec


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
    file = container.truncate(_read_file(options.input), options.num_quantizers)
    write_whole(options.output, file)
    return f"{options.output}: {_size(file)}"


def _info(options: argparse.Namespace) -> str:
    about = container.info(_read_file(options.input))
    facts = about._asdict() | {"bits_per_pixel": f"{about.bits_per_pixel:.3f}"}
    del facts["fault"]
    lines = [f"{name}: {value}" for name, value in facts.items()]
    return "\n".join([*lines, f"{about.complaint}."] if about.fault else lines)


def _size(file: bytes) -> str:
    return f"{len(file):,} bytes, {container.info(file).bits_per_pixel:.3f} bits per pixel"


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
        start = file.read(len(container.MAGIC))
        return start + file.read() if start == container.MAGIC else start


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
