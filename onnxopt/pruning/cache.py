"""A folder that keeps finished pieces of work, so that an interrupted run goes on where it was.

A piece is a file FOLDER/KIND-KEY/NAME.npz, where the key is a digest of all that determines it. It
is read only if the digest of its content, which is in it, says that it was written whole, and for
this key and name. What is not like that is computed again.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxopt.errors import OnnxoptError, UsageError
from onnxopt.files import write_atomically
from onnxopt.graph import Array
from onnxopt.runtime import DEFAULT_THREADS

FORMAT = 5
"""Changes when what is kept changes its form or its meaning within one version."""


@dataclass(eq=False)
class Cache:
    """The folder, and how much came from it; without a folder nothing is kept.

    Args:
        basis: what all that is kept depends on, as plain data: the samples, the versions.

    Raises:
        UsageError: the folder cannot be written to.
    """

    folder: Path | None = None
    basis: Any = None
    asked: int = 0
    found: int = 0
    damaged: list[str] = field(default_factory=list)
    failure: str = ""
    """Why nothing can be written any more."""

    def __post_init__(self) -> None:
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise UsageError(
                f"the cache '{self.folder}' cannot be written to: {error.strerror}",
                "name a folder that can be written to, or leave --cache out",
            ) from None

    def pieces(self, kind: str, *key: Any) -> Pieces:
        """The pieces that a key determines, together with the basis.

        Args:
            key: plain data, models and arrays.
        """
        if self.folder is None:
            return NOWHERE
        known = [FORMAT, DEFAULT_THREADS, self.basis, kind, key]
        text = json.dumps(known, sort_keys=True, default=_in_short)
        return Pieces(self, f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}")

    def notes(self) -> Iterator[str]:
        """What a person should know, in sentences."""
        if self.found:
            yield f"{self.found} of {self.asked} pieces of work came from the cache '{self.folder}'"
        if self.damaged:
            more = f" and {len(self.damaged) - 1} more" if len(self.damaged) > 1 else ""
            yield (
                f"'{self.damaged[0]}'{more} in the cache is damaged or none of ours: it was not "
                "used, but computed again"
            )
        if self.failure:
            yield f"the cache could not keep everything: {self.failure}"


@dataclass(frozen=True)
class Pieces:
    """Pieces of one key, by name. They are plain data: what JSON can say, and arrays."""

    cache: Cache
    key: str

    def get(self, name: str) -> Any:
        """The piece, lists in it as tuples; None if there is none that can be trusted."""
        if self.cache.folder is None:
            return None
        self.cache.asked += 1
        file = self.cache.folder / self.key / f"{name}.npz"
        try:
            if not file.exists():
                return None
            found = _read(file, [self.key, name])
        except Exception:  # whatever a file may hold that is none of ours
            self.cache.damaged.append(str(file))
            return None
        self.cache.found += 1
        return found

    def put(self, name: str, piece: Any) -> None:
        """Keep a piece, if that is possible."""
        if self.cache.folder is None or self.cache.failure:
            return
        file = self.cache.folder / self.key / f"{name}.npz"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, [_written(piece, [self.key, name])])
        except (OSError, OnnxoptError) as error:
            self.cache.failure = str(error)


NO_CACHE = Cache()
NOWHERE = Pieces(NO_CACHE, "")


def _in_short(value: onnx.ModelProto | Array) -> str:
    """A digest of what JSON cannot say."""
    if isinstance(value, np.ndarray):
        content = f"{value.dtype} {value.shape} ".encode() + value.tobytes()
    else:
        content = value.SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest()


def _written(piece: Any, place: Sequence[str]) -> bytes:
    arrays: list[Array] = []
    about = json.dumps([place, _without_arrays(piece, arrays)]).encode()
    named: dict[str, Any] = {str(number): array for number, array in enumerate(arrays)}
    named["about"] = np.frombuffer(about, np.uint8)
    named["digest"] = np.frombuffer(_digest(about, arrays), np.uint8)
    stream = io.BytesIO()
    np.savez(stream, **named)
    return stream.getvalue()


def _read(file: Path, place: Sequence[str]) -> Any:
    """The piece; an error of any kind if it is not what was written for this place."""
    if not file.is_file():
        raise ValueError("no file")
    with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
        about, digest = stored["about"].tobytes(), stored["digest"].tobytes()
        arrays = [stored[str(number)] for number in range(len(stored.files) - 2)]
    if digest != _digest(about, arrays):
        raise ValueError("damaged")
    written_for, piece = json.loads(about)
    if written_for != list(place):
        raise ValueError("of another place")
    return _with_arrays(piece, arrays)


def _digest(about: bytes, arrays: Sequence[Array]) -> bytes:
    total = hashlib.sha256(about)
    for array in arrays:
        total.update(f"{array.dtype.str} {array.shape}".encode())
        total.update(array.tobytes())
    return total.digest()


def _without_arrays(value: Any, arrays: list[Array]) -> Any:
    """The same with {"array": number} in place of arrays, which are appended to a list."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, dict):
        return {"items": [[k, _without_arrays(v, arrays)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_without_arrays(v, arrays) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _with_arrays(value: Any, arrays: Sequence[Array]) -> Any:
    if isinstance(value, list):
        return tuple(_with_arrays(v, arrays) for v in value)
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    return {k: _with_arrays(v, arrays) for k, v in value["items"]}
