"""`onnxopt split cuts`, `export`, `verify` and `join`, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import split_cases as cases

from onnxopt.cli.main import run
from onnxopt.model import load, save


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(cases.model(cases.RESIDUAL).SerializeToString())
    return path


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", ["cuts", "export", "verify", "join"])
def test_the_help_of_each_command_teaches_with_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["split", command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Examples:" in text and f"  onnxopt split {command}" in text


def test_cuts_are_listed_in_topological_order(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["split", "cuts", str(model), "--json"]) == 0
    found = printed(capsys)
    assert [[t["name"] for t in cut["tensors"]] for cut in found["cuts"]] == [
        ["stem"],
        ["stem", "a"],
        ["stem", "b"],
        ["stem", "c"],
        ["s"],
    ]
    assert [cut["id"] for cut in found["cuts"]] == [1, 2, 3, 4, 5]
    assert found["cuts"][1]["tensors"][1] == {
        "name": "a",
        "dtype": "float32",
        "shape": ["N", 4],
        "bytes": 16,
    }
    assert found["sizes"] == ["N = 1"]
    assert [tensor["name"] for tensor in found["inputs"]] == ["x"]


def test_the_table_of_cuts_says_what_it_leaves_out(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["split", "cuts", str(model)]) == 0
    text = capsys.readouterr().out
    assert "5 cuts with operators on both sides" in text
    assert "--all shows them" in text
    assert "all at the edge sends x float32[N,4] (16 B)" in text
    assert run(["split", "cuts", str(model), "--all", "--set-shape", "x=8,4"]) == 0
    text = capsys.readouterr().out
    assert "--all shows them" not in text and "128 B" in text


def test_export_verify_and_join_go_round(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, back = tmp_path / "out", tmp_path / "back.onnx"
    assert run(["split", "export", str(model), "--at", "b", "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert "added to the boundary, for the edge needs it too: 'stem'" in text
    assert "bit for bit" in text
    assert run(["split", "verify", str(out)]) == 0
    assert "the halves equal the whole" in capsys.readouterr().out
    assert run(["split", "join", str(out), "-o", str(back)]) == 0
    assert run(["compare", str(model), str(back), "--exact", "--quiet"]) == 0


def test_a_set_that_needs_something_back_is_refused_and_nothing_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["split", "export", str(model), "--at", "a,c", "-o", str(out)]) == 2
    said = capsys.readouterr().err
    assert "would have to come back to the device" in said
    assert "'a' -> Tanh 'b' -> 'b' -> MatMul 'c' -> 'c'" in said
    assert not out.exists()


def test_verify_exits_with_1_and_names_the_first_tensor_that_differs(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["split", "export", str(model), "--at", "b", "-o", str(out), "-q"]) == 0
    half = load(out / "edge.onnx")
    (node,) = [node for node in half.graph.node if node.op_type == "Sigmoid"]
    node.op_type = "Tanh"
    save(half, out / "edge.onnx")
    assert run(["split", "verify", str(out), "--model", str(model)]) == 1
    text = capsys.readouterr().out
    assert "'y' is off by" in text
    assert "changed since the split: 'edge.onnx'" in text
    assert run(["split", "verify", str(out), "--json"]) == 1
    found = printed(capsys)
    assert not found["passed"] and found["changed"] == ["edge.onnx"]
    assert found["first_difference"].startswith("'y'")


def test_an_adaptive_chain_has_nested_cuts_and_its_codec(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["split", "export", str(model), "--adaptive", "2", "--codec", "fp16"]
    assert run([*arguments, "-o", str(out), "--json"]) == 0
    manifest = printed(capsys)
    assert len(manifest["segments"]) >= 2
    assert len(manifest["cuts"]) == len(manifest["segments"]) + 1
    assert run(["split", "verify", str(out), "-q"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing says where to cut"),
        (["--at", "b", "--adaptive", "2"], "or several things do"),
        (["--at", "nothing"], "no node or tensor 'nothing'"),
        (["--at", "b", "--serve", "tomcat"], "knows no server 'tomcat'"),
        (["--plan", "plan.json", "--codec", "fp16"], "the plan says how"),
        (["--plan", "no_such_plan.json"], "no_such_plan.json"),
    ],
)
def test_wrong_options_are_explained(
    arguments: list[str],
    said: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["split", "export", str(model), *arguments, "-o", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err


def test_names_with_commas_and_slashes_are_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proto = cases.model(cases.RESIDUAL)
    for node in proto.graph.node:
        node.input[:] = ["/layer/b,0" if name == "b" else name for name in node.input]
        node.output[:] = ["/layer/b,0" if name == "b" else name for name in node.output]
    path, out = tmp_path / "m.onnx", tmp_path / "out"
    path.write_bytes(proto.SerializeToString())
    arguments = ["split", "export", str(path), "--at", "/layer/b,0", "--codec", "uint8"]
    assert run([*arguments, "-o", str(out), "-q"]) == 0
    assert run(["split", "verify", str(out), "-q"]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["device.onnx", "edge.onnx", "split.json"]


def test_join_and_verify_refuse_what_is_no_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["split", "verify", str(tmp_path)]) == 2
    assert run(["split", "join", str(tmp_path), "-o", str(tmp_path / "m.onnx")]) == 2
    assert "no folder of a split model" in capsys.readouterr().err


def test_outputs_that_cannot_be_sent_back_are_told_where_cuts_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.onnx"
    proto = cases.model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1,4] x) => (seq(float[1,4]) all) { a = Relu(x) all = SequenceConstruct(a) }
    """)
    path.write_bytes(proto.SerializeToString())
    assert run(["split", "cuts", str(path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "0 cuts with operators on both sides" in text
    assert "could not send back, so all at the edge is not possible: 'all': it is a seq" in text
    assert run(["split", "cuts", str(path), "--json"]) == 0
    assert len(printed(capsys)["unsendable_outputs"]) == 1


def test_a_model_that_does_not_load_is_listed_and_told_of_before_names_that_it_has_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "m.onnx", tmp_path / "out"
    proto = cases.model("""
        <ir_version: 8, opset_import: ["" : 17, "nobody" : 1]>
        g (float[1,4] x) => (float[1,4] y) { a = Relu(x) b = nobody.Knows(a) y = Neg(b) }
    """)
    path.write_bytes(proto.SerializeToString())
    assert run(["split", "cuts", str(path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "ONNX Runtime does not load this model here" in text and "nobody" in text
    assert run(["split", "cuts", str(path), "--json"]) == 0
    assert "nobody" in printed(capsys)["unloadable"]
    for name in ("a", "typo"):
        code = run(["split", "export", str(path), "--at", name, "-o", str(out)])
        said = capsys.readouterr().err
        assert code in (3, 4) and "nobody" in said and "typo" not in said
        assert not out.exists()
    arguments = ["split", "export", str(path), "--no-verify", "-o", str(out)]
    assert run([*arguments, "--at", "typo"]) == 2
    assert "typo" in capsys.readouterr().err
    assert run([*arguments, "--at", "a"]) == 0
