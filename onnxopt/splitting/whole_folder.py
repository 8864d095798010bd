"""A folder that is written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxopt.errors import OnnxoptError, UsageError
from onnxopt.splitting.folder import MANIFEST
from onnxopt.splitting.manifest import SCHEMA


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` once all in it is written.

    One that a split wrote before goes, and an empty one; anything else is left alone.

    Raises:
        UsageError: there is something else, or the place cannot be written to.
        OnnxoptError: the folder could not be put there.
    """
    check_folder(folder)
    target = folder.resolve()
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UsageError(f"cannot write '{folder}': {error.strerror}") from None
    try:
        yield temporary
        temporary.chmod(0o777 & ~_mask())
        _put(temporary, target)
    except OSError as error:
        raise OnnxoptError(f"cannot write '{folder}': {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_folder(folder: Path) -> None:
    """Whether a split can be put there.

    Raises:
        UsageError: as `whole_folder` says.
    """
    if not folder.resolve().parent.is_dir():
        raise UsageError(f"there is no folder '{folder.parent}'", "create it first")
    if not os.access(folder.resolve().parent, os.W_OK):
        raise UsageError(f"'{folder.parent}' is write-protected", "give another place to write to")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"'{folder}' is no folder", "give the name of a folder")
    if folder.is_dir() and (foreign := _foreign(folder)):
        raise UsageError(
            f"the folder '{folder}' holds something else than a split model: '{foreign}'",
            "give an empty folder, or one that is not there yet",
        )


def _foreign(folder: Path) -> str:
    """A file in the folder that no split wrote; empty if there is none."""
    there = sorted(entry.name for entry in folder.iterdir())
    known: set[str] = set()
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["schema"] == SCHEMA:
            known = {MANIFEST, "triton", "mlserver"}
            known |= {file for segment in manifest["segments"] for file in segment["files"]}
            known |= {cut[part] for cut in manifest["cuts"] for part in ("encoder", "decoder")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        known = set()
    return next((name for name in there if name not in known), "")


def _put(new: Path, target: Path) -> None:
    if not target.exists():
        os.rename(new, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent)) / "folder"
    try:
        os.rename(target, old)
        try:
            os.rename(new, target)
        except OSError:
            os.rename(old, target)
            raise
    finally:
        shutil.rmtree(old.parent, ignore_errors=True)


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
