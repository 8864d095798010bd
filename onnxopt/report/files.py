"""Reports on disk: the kind by the name's ending, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from onnxopt.errors import UsageError
from onnxopt.model import write_atomically as write_atomically
from onnxopt.report.as_json import report_json
from onnxopt.report.as_markdown import report_markdown
from onnxopt.report.report import Report

RENDERINGS = {".json": report_json, ".md": report_markdown}


def check_report_path(file: Path) -> None:
    """Whether a report can be written there.

    Raises:
        UsageError: an ending of no known kind, a directory, or a folder that does not exist.
    """
    if file.suffix.lower() not in RENDERINGS:
        raise UsageError(f"the report '{file}' is of no known kind", "name it .json or .md")
    check_folder(file)


def check_folder(file: Path) -> None:
    """Whether a file can be written there.

    Raises:
        UsageError: a directory, or a folder that does not exist.
    """
    if file.is_dir():
        raise UsageError(f"'{file}' is a directory", "give a file name")
    if not file.parent.is_dir():
        raise UsageError(f"there is no folder '{file.parent}'", "create it first")


def write_report(report: Report, file: Path) -> None:
    """Write a report, replacing what was there only by the whole new one."""
    check_report_path(file)
    write_text(file, RENDERINGS[file.suffix.lower()](report))


def write_text(file: Path, text: str) -> None:
    """Write a text with one line feed at its end, whole or not at all."""
    write_atomically(file, [text.rstrip("\n").encode() + b"\n"])
