"""A sweep on disk: the kind by the name's ending, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from onnxopt.files import write_atomically
from onnxopt.pruning.points import Sweep
from onnxopt.report.files import write_text
from onnxopt.report.sweep_json import sweep_json
from onnxopt.report.sweep_markdown import sweep_markdown
from onnxopt.report.sweep_picture import sweep_picture


def write_sweep(sweep: Sweep, file: Path) -> None:
    """Write it as .json, .md, .svg or .png.

    Raises:
        UsageError: a picture is wanted, and Matplotlib is not installed.
    """
    suffix = file.suffix.lower()
    if suffix == ".json":
        write_text(file, sweep_json(sweep))
    elif suffix == ".md":
        write_text(file, sweep_markdown(sweep))
    else:
        write_atomically(file, [sweep_picture(sweep, suffix)])
