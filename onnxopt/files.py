"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from onnxopt.errors import OnnxoptError, UsageError


def check_target(file: Path) -> None:
    """Whether a file can be put there, in place of one that may be there.

    Raises:
        UsageError: a directory, a device or a pipe, something that is write-protected, or a folder
            that is missing.
    """
    if file.is_dir():
        raise UsageError(f"'{file}' is a directory", "give a file name")
    if file.exists() and not file.is_file():
        raise UsageError(f"'{file}' is a device or a pipe", "give the name of a file")
    if not file.parent.is_dir():
        raise UsageError(f"there is no folder '{file.parent}'", "create it first")
    for path in (file.resolve().parent, file):
        if path.exists() and not os.access(path, os.W_OK):
            raise UsageError(f"'{path}' is write-protected", "give another place to write to")


def write_atomically(file: Path, pieces: list[bytes]) -> None:
    """Put a whole file in place of an old one, or fail and leave the old one.

    Raises:
        OnnxoptError: the file cannot be written; UsageError if nothing can be put there.
    """
    check_target(file)
    target = file.resolve()
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise UsageError(f"cannot write '{file}': {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            for piece in pieces:
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, target.stat().st_mode & 0o777 if target.exists() else _default_mode())
        os.replace(temporary, target)
    except OSError as error:
        raise OnnxoptError(f"cannot write '{file}': {error.strerror}") from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _default_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
