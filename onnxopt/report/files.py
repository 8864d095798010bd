"""Reports on disk: the kind by the name's ending, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnxopt.errors import UsageError
from onnxopt.files import check_target, write_atomically
from onnxopt.report.as_json import report_json
from onnxopt.report.as_markdown import report_markdown
from onnxopt.report.report import Report

RENDERINGS = {".json": report_json, ".md": report_markdown}


def check_report_path(file: Path, kinds: Sequence[str] = tuple(RENDERINGS)) -> None:
    """Whether a report can be written there.

    Args:
        kinds: the endings that it may have.

    Raises:
        UsageError: an ending of no known kind, or nothing can be put there.
    """
    if file.suffix.lower() not in kinds:
        named = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
        raise UsageError(f"the report '{file}' is of no known kind", f"name it {named}")
    check_target(file)


def write_report(report: Report, file: Path) -> None:
    """Write a report, replacing what was there only by the whole new one."""
    check_report_path(file)
    write_text(file, RENDERINGS[file.suffix.lower()](report))


def write_text(file: Path, text: str) -> None:
    """Write a text with one line feed at its end, whole or not at all."""
    write_atomically(file, [text.rstrip("\n").encode() + b"\n"])
