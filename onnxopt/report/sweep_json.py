"""A sweep as JSON, and read again from it. sweep_schema.json documents it."""

from __future__ import annotations

import json
from pathlib import Path

from onnxopt.errors import UsageError
from onnxopt.pruning.points import Sweep
from onnxopt.report.as_json import dumps
from onnxopt.typed_json import typed

SWEEP_SCHEMA = "onnxopt-sweep/1"


def sweep_json(sweep: Sweep) -> str:
    """The sweep, by the schema `onnxopt-sweep/1`."""
    return dumps({"schema": SWEEP_SCHEMA, **vars(sweep)})


def read_sweep(file: Path) -> Sweep:
    """Read what `sweep_json` wrote.

    Raises:
        UsageError: it is none, or of another version.
    """
    try:
        data = json.loads(file.read_text())
        schema = data.pop("schema", None) if isinstance(data, dict) else None
        if schema != SWEEP_SCHEMA:
            raise ValueError(f"it is not of the kind {SWEEP_SCHEMA}")
        found: Sweep = typed(Sweep, data, "it")
    except OSError as error:
        raise UsageError(f"cannot read '{file}': {error.strerror}") from None
    except (ValueError, TypeError, OverflowError, RecursionError, UsageError) as error:
        raise UsageError(
            f"'{file}' is not what a sweep has written: {error}", "name another folder"
        ) from None
    return found
