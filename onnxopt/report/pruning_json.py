"""What `prune` tells, as JSON. pruning_schema.json documents it."""

from __future__ import annotations

from typing import Any

from onnxopt.pruning.outcome import PruneReport
from onnxopt.pruning.results import BlockChoice, Depth, GroupChoice, GroupView, Preview, Round
from onnxopt.report.as_json import dumps
from onnxopt.report.pruning_lines import QUARTERS

PRUNING_SCHEMA = "onnxopt-pruning/1"
PREVIEW_SCHEMA = "onnxopt-pruning-preview/1"


def pruning_json(report: PruneReport) -> str:
    """The report, by the schema `onnxopt-pruning/1`."""
    return dumps(
        {
            "schema": PRUNING_SCHEMA,
            "source": report.source,
            "output": report.output,
            "versions": report.versions,
            "budget": {
                "text": report.budget,
                "mode": report.mode,
                "target": report.target,
                "reached": report.reached,
            },
            "options": report.options,
            "replayed": report.replayed,
            "before": report.before,
            "after": report.after,
            "calibration": report.calibration,
            "agreement": report.agreement,
            "accuracy": report.accuracy,
            "timing": report.timing,
            "latency": report.latency,
            "rounds": [_round(done) for done in report.rounds],
            "rewriting": report.lossless,
            "notes": report.notes,
        }
    )


def _round(done: Round) -> dict[str, Any]:
    return {
        "proof": done.proof,
        "multiple_of": done.multiple_of,
        "groups": [_choice(choice) for choice in done.groups],
        "declined": done.declined,
        "refits": done.refits,
        "depth": done.depth and _depth(done.depth),
    }


def _depth(depth: Depth) -> dict[str, Any]:
    return {
        "proof": depth.proof,
        "blocks": [_block(choice) for choice in depth.blocks],
        "refits": depth.refits,
    }


def _block(choice: BlockChoice) -> dict[str, Any]:
    return {**vars(choice.block), "becomes": choice.becomes}


def _choice(choice: GroupChoice) -> dict[str, Any]:
    return {
        **_view(choice.group),
        "left": choice.width,
        "damage": choice.damage,
        "proof": choice.proof,
    }


def _view(group: GroupView) -> dict[str, Any]:
    return {
        "name": group.name,
        "units": group.units,
        "members": group.members,
        "share": group.share,
        "exact": group.exact,
        "approximate_because": group.changed,
        "measured": group.measured,
        "is_read": group.is_read,
        "lost": [group.lost[round(share * group.units)] - group.lost[0] for share in QUARTERS],
    }


def preview_json(source: str, found: Preview) -> str:
    """What could be cut, by the schema `onnxopt-pruning-preview/1`."""
    chosen = found.widths or (None,) * len(found.groups)
    return dumps(
        {
            "schema": PREVIEW_SCHEMA,
            "source": source,
            "before": found.original,
            "groups": [
                {**_view(group), "would_keep": width}
                for group, width in zip(found.groups, chosen, strict=True)
            ],
            "declined": found.declined,
            "blocks": [_block(choice) for choice in found.blocks],
            "notes": found.notes,
        }
    )
