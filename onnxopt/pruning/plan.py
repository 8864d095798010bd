"""Plans: what was cut and how, as a file that is replayed to the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

import onnx

from onnxopt.errors import UsageError
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.results import GroupView, Pruned

VERSION = "onnxopt-plan/1"

Recorded: TypeAlias = tuple[GroupView, tuple[int, ...], tuple[int, ...]]
"""A group, the widths that it might have had, and the numbers of the units that are gone."""


@dataclass(frozen=True)
class Plan:
    """What a plan file says, as far as it is needed to replay it.

    Attributes:
        model: digest of the model that was pruned.
        calibration: digest of the samples it was pruned with; "" without any.
        samples, held_out: how many samples were drawn, and how many of them only judged.
        set_shapes, freeze_inputs: how the model was changed before.
        rounds: for each round its groups, and the grid of their widths.
    """

    model: str
    budget: Budget
    options: PruneOptions
    calibration: str = ""
    samples: int = 0
    set_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    freeze_inputs: bool = False
    rounds: tuple[tuple[tuple[Recorded, ...], int], ...] = ()


def model_digest(proto: onnx.ModelProto) -> str:
    """SHA-256 of the model with its weights, in hex."""
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()


def plan_json(plan: Plan, pruned: Pruned, origin: str) -> str:
    """The plan file of a pruned model.

    Args:
        plan: its rounds are taken from `pruned`.
        origin: where the calibration samples are from, for a person.
    """
    data = {
        "schema": VERSION,
        "model_sha256": plan.model,
        "calibration": {
            "sha256": plan.calibration,
            "origin": origin,
            "samples": plan.samples,
        },
        "budget": asdict(plan.budget),
        "options": asdict(plan.options),
        "set_shapes": {name: list(dims) for name, dims in plan.set_shapes.items()},
        "freeze_inputs": plan.freeze_inputs,
        "rounds": [
            {
                "groups": [_group(choice) for choice in done.groups],
                "declined": [asdict(item) for item in done.declined],
                "proof": asdict(done.proof),
                "multiple_of": done.multiple_of,
            }
            for done in pruned.rounds
        ],
    }
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def _group(choice: Any) -> dict[str, Any]:
    gone = set(choice.removed)
    return {
        **asdict(choice.group),
        "widths": list(choice.widths),
        "width": choice.width,
        "kept": [unit for unit in range(choice.units) if unit not in gone],
        "damage": choice.damage,
        "proof": None if choice.proof is None else asdict(choice.proof),
    }


def read_plan(file: Path) -> Plan:
    """Read a plan file.

    Raises:
        UsageError: it is none.
    """
    try:
        data = json.loads(file.read_text())
        if data["schema"] != VERSION:
            raise UsageError(
                f"the plan '{file}' is of the kind {data['schema']}", f"this reads {VERSION}"
            )
        return _plan(data)
    except OSError as error:
        raise UsageError(f"cannot read the plan '{file}': {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(
            f"'{file}' is not a plan: {type(error).__name__} {error}",
            "give a file that --save-plan wrote",
        ) from None


def _plan(data: Mapping[str, Any]) -> Plan:
    options = dict(data["options"])
    options["ignore"] = tuple(options["ignore"])
    calibration = data["calibration"]
    return Plan(
        model=data["model_sha256"],
        budget=Budget(**data["budget"]),
        options=PruneOptions(**options),
        calibration=calibration["sha256"],
        samples=int(calibration["samples"]),
        set_shapes={name: tuple(dims) for name, dims in data["set_shapes"].items()},
        freeze_inputs=bool(data["freeze_inputs"]),
        rounds=tuple(
            (tuple(map(_recorded, one["groups"])), int(one["multiple_of"]))
            for one in data["rounds"]
        ),
    )


def _recorded(group: Mapping[str, Any]) -> Recorded:
    named = {f.name: group[f.name] for f in fields(GroupView)}
    named["members"], named["lost"] = tuple(named["members"]), tuple(named["lost"])
    view = GroupView(**named)
    kept = set(group["kept"])
    if len(view.lost) != view.units + 1 or not kept <= set(range(view.units)):
        raise ValueError(f"the group {view.name} does not hang together")
    removed = tuple(unit for unit in range(view.units) if unit not in kept)
    return view, tuple(group["widths"]), removed
