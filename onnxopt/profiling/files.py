"""JSON files of typed objects: read with suspicion, written whole or not at all."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxopt.errors import UsageError
from onnxopt.files import write_atomically
from onnxopt.typed_json import typed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def as_json(data: DataclassInstance) -> str:
    """The text of a dataclass, its fields in their order."""
    return json.dumps(asdict(data), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def write_json(data: DataclassInstance, file: Path) -> None:
    """Put it there, in place of a file that may be there.

    Raises:
        OnnxoptError: it cannot be written.
    """
    write_atomically(file, [as_json(data).encode()])


def read_json(kind: type, file: Path, schema: str, what: str, fix: str) -> Any:
    """An object of this dataclass, which has a field `schema`.

    Args:
        what: what the file should be, for a person.
        fix: how one gets such a file.

    Raises:
        UsageError: there is no such file, or it is something else.
    """
    try:
        data = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"there is no file '{file}'", fix) from None
    except OSError as error:
        raise UsageError(f"cannot read '{file}': {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"'{file}' is not {what}: it is no JSON", fix) from None
    found = data.get("schema") if isinstance(data, dict) else None
    if found != schema:
        said = f"of the kind {found}" if isinstance(found, str) else "of no known kind"
        raise UsageError(f"'{file}' is not {what} that this version reads: it is {said}", fix)
    try:
        return typed(kind, data, what)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"'{file}' is not {what}: {error}", fix) from None
