"""Plans: what was cut and how, as a file that is replayed to the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

import onnx

from onnxopt.errors import UsageError
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.results import BlockChoice, GroupView, Pruned
from onnxopt.typed_json import typed

VERSION = "onnxopt-plan/2"

Augment: TypeAlias = Literal["none", "flip"]

Recorded: TypeAlias = tuple[GroupView, tuple[int, ...], tuple[int, ...]]
"""A group, the widths that it might have had, and the numbers of the units that are gone."""


@dataclass(frozen=True)
class RecordedRound:
    """What one round did.

    Attributes:
        blocks: residual blocks that could go; empty where none were looked at.
        multiple_of: the grid of the widths.
    """

    groups: tuple[Recorded, ...]
    multiple_of: int
    blocks: tuple[BlockChoice, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What a plan file says, as far as it is needed to replay it.

    Attributes:
        model: digest of the model that was pruned.
        calibration: digest of the samples it was pruned with; "" without any.
        samples: how many samples were asked for.
        augment: what was made of these.
        set_shapes, freeze_inputs: how the model was changed before.
        rounds: in order.
    """

    model: str
    budget: Budget
    options: PruneOptions
    calibration: str = ""
    samples: int = 0
    augment: Augment = "none"
    set_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    freeze_inputs: bool = False
    rounds: tuple[RecordedRound, ...] = ()

    @property
    def fits_samples(self) -> bool:
        """Weights are fitted to samples: refits, or what stands for residual blocks."""
        if self.options.compensation != "none":
            return True
        choices = (choice for done in self.rounds for choice in done.blocks)
        return any(choice.becomes in ("shifted", "replaced") for choice in choices)


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
            "augment": plan.augment,
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
                "blocks": [asdict(choice) for choice in done.depth.blocks] if done.depth else [],
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
        UsageError: it is none, or of another version.
    """
    try:
        data = json.loads(file.read_text())
        schema = data.get("schema") if isinstance(data, dict) else None
        plan = _plan(data) if schema == VERSION else None
    except OSError as error:
        raise UsageError(
            f"cannot read the plan '{file}': {error.strerror}",
            "give a file that --save-plan wrote",
        ) from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, UsageError) as error:
        why = f"there is no {error}" if isinstance(error, KeyError) else error
        raise UsageError(
            f"'{file}' is not a plan: {why}", "give a file that --save-plan wrote, unchanged"
        ) from None
    if plan is None:
        kind = f"of the kind {schema}" if isinstance(schema, str) else "of no known kind"
        raise UsageError(f"the plan '{file}' is {kind}", f"this reads {VERSION}")
    return plan


def _plan(data: Mapping[str, Any]) -> Plan:
    calibration = data["calibration"]
    rounds = tuple(map(_round, data["rounds"]))
    if not rounds:
        raise ValueError("there are no rounds")
    return Plan(
        model=typed(str, data["model_sha256"], "model_sha256"),
        budget=typed(Budget, data["budget"], "budget"),
        options=typed(PruneOptions, {"reads": "all", **data["options"]}, "options"),
        calibration=typed(str, calibration["sha256"], "calibration.sha256"),
        samples=typed(int, calibration["samples"], "calibration.samples"),
        augment=typed(Augment, calibration.get("augment", "none"), "calibration.augment"),
        set_shapes=typed(Mapping[str, tuple[int, ...]], data["set_shapes"], "set_shapes"),
        freeze_inputs=typed(bool, data["freeze_inputs"], "freeze_inputs"),
        rounds=rounds,
    )


def _round(data: Mapping[str, Any]) -> RecordedRound:
    multiple_of = typed(int, data["multiple_of"], "multiple_of")
    if multiple_of < 1:
        raise ValueError(f"multiple_of is {multiple_of}")
    blocks = typed(tuple[BlockChoice, ...], data.get("blocks", []), "blocks")
    return RecordedRound(tuple(map(_recorded, data["groups"])), multiple_of, blocks)


def _recorded(group: Mapping[str, Any]) -> Recorded:
    where = f"the group {group['name']}"
    known = {f.name: group[f.name] for f in fields(GroupView) if f.name in group}
    named = {"is_read": False, **known}  # those before there were such groups do not say it
    view = typed(GroupView, named, where)
    kept = set(typed(tuple[int, ...], group["kept"], f"{where}.kept"))
    if len(view.lost) != view.units + 1 or not kept or not kept <= set(range(view.units)):
        raise ValueError(f"{where} does not hang together")
    removed = tuple(unit for unit in range(view.units) if unit not in kept)
    return view, typed(tuple[int, ...], group["widths"], f"{where}.widths"), removed
