"""Everything onnxopt tells, as JSON. schema.json documents the report of `optimize`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxopt.budgets import CheckResult
    from onnxopt.catalogue import Entry
    from onnxopt.changes import Change
    from onnxopt.inspection import Inspection
    from onnxopt.report.report import Report
    from onnxopt.verification.model_comparison import Comparison

SCHEMA = "onnxopt-report/1"


def report_json(report: Report) -> str:
    """The report, by the schema `onnxopt-report/1`."""
    verdict = report.verdict
    verification: dict[str, Any] = {
        "status": report.verification,
        "summary": report.verdict_line(),
        "passed": None if verdict is None else verdict.passed,
        "numerics": None if verdict is None else verdict.numerics,
        "outputs": [] if verdict is None else verdict.outputs,
        "draws": [] if verdict is None else verdict.draws,
        "unverified": [] if verdict is None else verdict.unverified,
    }
    return dumps(
        {
            "schema": SCHEMA,
            "source": report.source,
            "output": report.output,
            "versions": report.versions,
            "verification": verification,
            "before": report.before,
            "after": report.after,
            "rewrites": report.rewrites,
            "changes": [_made(change) for change in report.changes],
            "declined": [_reasoned(change) for change in report.declined],
            "withdrawn": [_reasoned(change) for change in report.withdrawn],
            "notes": report.notes,
        }
    )


def inspection_json(found: Inspection) -> str:
    return dumps({"schema": "onnxopt-inspection/1", **_plain(found)})


def explanation_json(source: str, declined: tuple[Change, ...]) -> str:
    return dumps(
        {
            "schema": "onnxopt-explanation/1",
            "source": source,
            "declined": [_reasoned(change) for change in declined],
        }
    )


def comparison_json(a: str, b: str, found: Comparison) -> str:
    return dumps({"schema": "onnxopt-comparison/1", "a": a, "b": b, **_plain(found)})


def check_json(source: str, result: CheckResult) -> str:
    budgets = [
        {**_plain(budget), "ok": budget.ok, "over": budget.over} for budget in result.budgets
    ]
    return dumps(
        {
            "schema": "onnxopt-check/1",
            "source": source,
            "passed": result.passed,
            "budgets": budgets,
            "left_to_do": result.left_to_do,
        }
    )


def catalogue_json(entries: tuple[Entry, ...]) -> str:
    return dumps({"schema": "onnxopt-rules/1", "entries": entries})


def _made(change: Change) -> dict[str, str]:
    return {
        "by": change.by,
        "site": change.site,
        "what": change.what,
        "numerics": change.numerics,
    }


def _reasoned(change: Change) -> dict[str, str]:
    return {"by": change.by, "site": change.site, "reason": change.what}


def dumps(data: object) -> str:
    """JSON text of plain data and dataclasses. Numbers that JSON lacks (inf, nan) become null."""
    return json.dumps(_plain(data), indent=2, allow_nan=False, ensure_ascii=False)


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
