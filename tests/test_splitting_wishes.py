"""What a plan says, or nothing but a number of cuts, becomes nested cuts to export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import judge
import pytest
import split_cases as cases

from onnxopt.errors import UsageError
from onnxopt.profiling.files import as_json
from onnxopt.splitting.context import Context, Point
from onnxopt.splitting.describing import read_source
from onnxopt.splitting.export import export
from onnxopt.splitting.manifest import Codec
from onnxopt.splitting.operators import read_subject
from onnxopt.splitting.plan_file import SCHEMA, Plan, PlannedCut
from onnxopt.splitting.verify import verify_folder
from onnxopt.splitting.wishes import planned, spread


def cut(*tensors: str, outputs: Sequence[str] = (), codec: Codec = "none") -> PlannedCut:
    point = Point(0.0, 0.0, 0.0, 0.0, bool(tensors))
    return PlannedCut(tensors, tuple(outputs), codec, 0, point, 0, 0, 0.0, None, 0.0, True, ())


def plan(model: str, *cuts: PlannedCut, chosen: int = 1) -> Plan:
    return Plan(
        SCHEMA,
        *("model.onnx", model, "latency", Context(1e6, 0.0), None, cuts, chosen),
        *(None, True, (), (), (), ()),
    )


def test_the_cuts_of_a_plan_become_those_of_the_manifest(tmp_path: Path) -> None:
    proto = cases.model(cases.SIDE_HEAD)
    file = tmp_path / "model.onnx"
    file.write_bytes(proto.SerializeToString())
    subject, source = read_subject(proto), read_source(file, proto)
    asked = plan(
        source.digest,
        cut("x", codec="fp16"),
        cut("early"),
        cut("early", outputs=["head"]),
        cut("b", outputs=["head"], codec="uint8"),
        cut(outputs=["head", "y"]),
        chosen=3,
    )
    wish = planned(subject, asked, as_json(asked), source.digest)
    done = export(subject, wish, source, tmp_path / "out")
    crossing = [[port.name for port in c.tensors] for c in done.manifest.cuts]
    assert crossing == [["x"], ["early"], ["early"], ["b"], []]
    assert [c.codec for c in done.manifest.cuts] == ["fp16", "none", "none", "uint8", "none"]
    assert [s.makes for s in done.manifest.segments] == [
        *(("early",), ("head",), ("b",), ("y",)),
    ]
    assert (done.manifest.chosen, done.manifest.planned) == (3, as_json(asked))
    assert verify_folder(tmp_path / "out").passed


@pytest.mark.parametrize(
    ("cuts", "said"),
    [
        ([cut("x"), cut("nothing"), cut()], "names 'nothing', which the model has not"),
        ([cut("x"), cut("b"), cut()], "is no boundary"),
        ([cut("x"), cut("s"), cut("stem"), cut()], "does not have all"),
        ([cut("x"), cut("stem"), cut("stem"), cut()], "does not have all"),
    ],
)
def test_a_plan_that_does_not_fit_the_model_is_refused(cuts: list[PlannedCut], said: str) -> None:
    subject = read_subject(cases.model(cases.RESIDUAL))
    with pytest.raises(UsageError, match=said):
        planned(subject, plan("m", *cuts), "", "m")


def test_a_plan_for_another_model_is_refused() -> None:
    subject = read_subject(cases.model(cases.RESIDUAL))
    with pytest.raises(UsageError, match="for another model"):
        planned(subject, plan("m", cut("x"), cut("stem"), cut()), "", "other")


@pytest.mark.parametrize("name", ["residual", "unet", "attention", "if"])
@pytest.mark.parametrize("count", [1, 3, 6])
def test_cuts_that_are_spread_are_nested_and_no_more_than_asked_for(name: str, count: int) -> None:
    subject = read_subject(judge.tiny(name))
    wish = spread(subject, count, "none")
    assert 1 <= len(wish.chain) <= count
    assert all(a < b for a, b in zip(wish.chain, wish.chain[1:], strict=False))
    assert len(wish.codecs) == len(wish.chain) + 2
    sent = [
        sum(subject.dag.tensors[t].size_bytes for t in subject.dag.crossing(device))
        for device in wish.chain
    ]
    assert sent[wish.chosen - 1] == min(sent)


def test_a_model_of_one_operator_cannot_be_spread() -> None:
    proto = judge.model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y) { y = Relu(x) }
    """)
    with pytest.raises(UsageError, match="no place to cut at"):
        spread(read_subject(proto), 2, "none")
