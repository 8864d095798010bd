"""Plan files: what is written is read back, and what is damaged or edited is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from judge import model

from onnxopt.errors import UsageError
from onnxopt.pruning.asked import Job
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.job import run
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.plan import Plan, plan_json, read_plan

Data = dict[str, Any]


def two_products() -> onnx.ModelProto:
    proto = model("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4] x) => (float[N,3] y)
    { h = MatMul(x, a)  r = Relu(h)  y = MatMul(r, b) }""")
    rng = np.random.default_rng(0)
    for name, shape in (("a", (4, 16)), ("b", (16, 3))):
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


@pytest.fixture(scope="module")
def made() -> tuple[Plan, str]:
    """A plan and the text of its file."""
    options = PruneOptions(ignore=(), multiple_of=4)
    job = Job(budget=Budget("params", 0.5), mode="params", options=options)
    done = run(two_products(), job, source="m.onnx", tell=lambda stage, part: None)
    return done.plan, plan_json(done.plan, done.pruned, "")


def read(tmp_path: Path, text: str) -> Plan:
    file = tmp_path / "plan.json"
    file.write_text(text)
    return read_plan(file)


def test_a_plan_that_is_read_back_says_what_was_written(
    made: tuple[Plan, str], tmp_path: Path
) -> None:
    plan, text = made
    found = read(tmp_path, text)
    assert (found.model, found.budget, found.options) == (plan.model, plan.budget, plan.options)
    (round_,) = found.rounds
    ((view, widths, removed),) = round_.groups
    assert (view.units, len(removed), round_.multiple_of) == (16, 8, 4) and 8 in widths
    assert round_.blocks == ()


def test_damage_that_is_not_finite_is_read_back(made: tuple[Plan, str], tmp_path: Path) -> None:
    data = json.loads(made[1])
    data["rounds"][0]["groups"][0]["lost"][-1] = float("inf")
    ((view, _, _),) = read(tmp_path, json.dumps(data)).rounds[0].groups
    assert view.lost[-1] == float("inf")


def at(*path: str | int, to: object) -> Callable[[Data], None]:
    """An edit of a plan: what lies there becomes something else."""

    def edit(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = to

    return edit


GROUP = ("rounds", 0, "groups", 0)
EDITS = {
    "no rounds": (at("rounds", to=[]), "there are no rounds"),
    "rounds are text": (at("rounds", to="abc"), "is not a plan"),
    "a unit out of range": (at(*GROUP, "kept", to=[0, 99]), "does not hang together"),
    "a negative unit": (at(*GROUP, "kept", to=[-1]), "does not hang together"),
    "all units gone": (at(*GROUP, "kept", to=[]), "does not hang together"),
    "a unit that is no number": (at(*GROUP, "kept", to=["a"]), "kept[0] is no whole number"),
    "half a unit": (at(*GROUP, "kept", to=[0.5]), "kept[0] is no whole number"),
    "very many units": (at(*GROUP, "units", to=10**12), "does not hang together"),
    "damage that is text": (at(*GROUP, "lost", to=["a"] * 17), "lost[0] is no number"),
    "damage beyond floats": (at(*GROUP, "lost", to=[10**400] * 17), "too large"),
    "widths that are text": (at(*GROUP, "widths", to=["a"]), "widths[0] is no whole number"),
    "a group without name": (at("rounds", 0, "groups", to=[{}]), "there is no 'name'"),
    "a grid of zero": (at("rounds", 0, "multiple_of", to=0), "multiple_of is 0"),
    "an infinite grid": (at("rounds", 0, "multiple_of", to=float("inf")), "no whole number"),
    "a budget of something else": (at("budget", "mode", to="time"), "none of flops, params"),
    "a budget that is text": (at("budget", "amount", to="x"), "budget.amount is no number"),
    "a budget of nothing": (at("budget", "amount", to=0), "leaves nothing"),
    "a budget that is no number": (at("budget", "amount", to=float("nan")), "leaves nothing"),
    "a field too many": (at("budget", "more", to=1), "budget has an unknown 'more'"),
    "an unknown criterion": (at("options", "criterion", to="best"), "none of obs"),
    "a seed that is a fraction": (at("options", "seed", to=0.5), "options.seed is no whole number"),
    "a flag that is a number": (at("options", "prove", to=1), "options.prove is no truth value"),
    "an impossible option": (at("options", "min_channels", to=0), "0 channels are too few"),
    "patterns that are one text": (at("options", "ignore", to="x"), "options.ignore is no list"),
    "infinitely many samples": (at("calibration", "samples", to=float("inf")), "no whole number"),
    "a shape that is text": (at("set_shapes", to={"x": ["a"]}), "set_shapes.x[0] is no whole"),
    "shapes without names": (at("set_shapes", to=[1]), "set_shapes is no object"),
    "a digest that is a number": (at("model_sha256", to=5), "model_sha256 is no text"),
    "another version": (at("schema", to="onnxopt-plan/9"), "is of the kind onnxopt-plan/9"),
    "a version that is no text": (at("schema", to={}), "is of no known kind"),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_plan_that_was_edited_into_nonsense_is_refused_in_one_line(
    name: str, made: tuple[Plan, str], tmp_path: Path
) -> None:
    edit, said = EDITS[name]
    data = json.loads(made[1])
    edit(data)
    with pytest.raises(UsageError) as caught:
        read(tmp_path, json.dumps(data))
    assert said in caught.value.what and "plan.json'" in caught.value.what and caught.value.fix


@pytest.mark.parametrize("section", ["budget", "options", "calibration", "rounds", "set_shapes"])
def test_a_plan_without_one_of_its_parts_is_refused(
    section: str, made: tuple[Plan, str], tmp_path: Path
) -> None:
    data = json.loads(made[1])
    del data[section]
    with pytest.raises(UsageError, match=f"is not a plan: there is no '{section}'"):
        read(tmp_path, json.dumps(data))


@pytest.mark.parametrize("text", ["", "[]", "null", '"x"', "{}", "[" * 100_000, "\ufeff{}"])
def test_what_is_no_plan_at_all_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="plan"):
        read(tmp_path, text)


def test_a_plan_that_was_cut_off_is_refused(made: tuple[Plan, str], tmp_path: Path) -> None:
    for share in (0.1, 0.5, 0.99):
        with pytest.raises(UsageError, match="is not a plan"):
            read(tmp_path, made[1][: int(share * len(made[1]))])
