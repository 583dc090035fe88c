"""Files that are written whole or not at all."""

import os
import secrets
import shutil
from pathlib import Path


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file whole: if that fails, what stood there before stays as it was, and nothing else is left.

    A link stays, and what it points to is replaced; an existing file keeps its mode; a device or a pipe takes the
    bytes as they come.

    Raises:
        OSError: it can't be written; its `filename` is `path`.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{secrets.token_hex(16)}.part")  # a name that nobody else has, or could foresee
    try:
        stands_there = _exists(path)
        if stands_there and not path.is_file():
            path.write_bytes(content)
            return
        with beside.open("xb") as file:
            if stands_there:
                target.open("ab").close()  # may it be written at all?
                shutil.copymode(target, beside)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or a machine that loses its power might keep the new name and neither content
        os.replace(beside, target)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        beside.unlink(missing_ok=True)


def _exists(path: Path) -> bool:
    """As `path.exists()`, but a link that leads round in a circle is an error."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True
