"""Both halves of a model, or a chain of segments: written, proved, verified, joined."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import judge
import numpy as np
import onnx
import onnx.checker
import onnx.numpy_helper
import pytest
import split_cases as cases

from onnxopt.cli.main import run
from onnxopt.errors import CheckError, OnnxoptError, UnverifiableError, UsageError
from onnxopt.model import load, save
from onnxopt.quantities import parse_percent
from onnxopt.runtime import Session
from onnxopt.signature import model_inputs, model_outputs
from onnxopt.splitting import comparing, rows
from onnxopt.splitting import export as exporting
from onnxopt.splitting.describing import read_source
from onnxopt.splitting.folder import read_manifest
from onnxopt.splitting.halves import take_apart
from onnxopt.splitting.operators import read_subject
from onnxopt.splitting.verify import join_folder, verify_folder
from onnxopt.splitting.wishes import named

ALL = {**cases.SEVEN, **cases.MORE}


@pytest.mark.parametrize("name", ALL)
def test_halves_equal_the_whole_and_join_to_it(name: str, tmp_path: Path) -> None:
    text, at = ALL[name]
    proto = cases.model(text)
    done = cases.export_to(tmp_path / "out", proto, [at])
    assert done.proof is not None and done.proof.passed
    sizes = (1, 1) if name == "side head" else (3, 1)
    cases.assert_same_outputs(proto, cases.written(tmp_path / "out", done), sizes=sizes)
    cases.assert_same_outputs(proto, [join_folder(tmp_path / "out")], sizes=sizes)
    assert verify_folder(tmp_path / "out").passed


@pytest.mark.parametrize("name", ALL)
def test_every_cut_of_a_hard_model_gives_equal_halves(name: str) -> None:
    proto = cases.model(ALL[name][0])
    subject = read_subject(proto)
    for device in cases.down_sets(subject.dag):
        parts = take_apart(subject, [device], ["none", "none", "none"])
        halves = [piece.proto for piece in parts.pieces]
        cases.assert_same_outputs(proto, halves, sizes=(1,) if name == "side head" else (2,))
        crossing = [subject.dag.tensors[t].name for t in subject.dag.crossing(device)]
        assert [port.name for port in parts.borders[1].tensors] == crossing


@pytest.mark.parametrize("name", ALL)
def test_halves_are_valid_onnx(name: str) -> None:
    text, at = ALL[name]
    for piece in cases.halves_at(cases.model(text), at).pieces:
        onnx.checker.check_model(piece.proto, full_check=name != "contrib")


def test_a_weight_that_only_a_branch_reads_is_in_the_half_with_the_branch() -> None:
    device, edge = cases.halves_at(cases.model(cases.CAPTURES), "h").pieces
    assert "only_in_branch" in {t.name for t in edge.proto.graph.initializer}
    assert "only_in_branch" not in {t.name for t in device.proto.graph.initializer}


def test_functions_are_in_the_halves_that_call_them_and_only_there() -> None:
    device, edge = cases.halves_at(cases.model(cases.FUNCTION), "b").pieces
    assert {f.name for f in device.proto.functions} == {"outer", "inner"}
    assert {f.name for f in edge.proto.functions} == {"inner"}


def test_symbolic_dimensions_are_kept_and_never_become_numbers() -> None:
    for text, at, dims in (
        (cases.CONTRIB, "f", ("N", 3, 5)),
        (cases.RESIDUAL, "b", ("N", 4)),
        (cases.FUNCTION, "b", ("N", 4)),
    ):
        _, edge = cases.halves_at(cases.model(text), at).pieces
        ports = {port.name: port.dims for port in model_inputs(edge.proto)}
        assert ports[at] == dims


def test_a_cut_tensor_that_is_an_output_keeps_its_name_and_crosses_once() -> None:
    parts = cases.halves_at(cases.model(cases.CUT_OUTPUT), "a")
    device, edge = parts.pieces
    assert device.makes == ("a",)
    assert edge.reads == ("a",)
    assert {*device.makes, *edge.makes} == {"a", "early", "y"}


def test_an_output_that_is_an_input_and_an_unread_input_stay_in_the_signature(
    tmp_path: Path,
) -> None:
    proto = cases.model(cases.PASS_THROUGH)
    cases.export_to(tmp_path / "out", proto, ["a"])
    joined = join_folder(tmp_path / "out")
    assert model_inputs(joined) == model_inputs(proto)
    assert [p.name for p in model_outputs(joined)] == [p.name for p in model_outputs(proto)]


def test_what_a_model_says_beside_its_graph_is_kept(tmp_path: Path) -> None:
    proto = cases.model(cases.RESIDUAL)
    proto.producer_name, proto.doc_string, proto.graph.doc_string = "maker", "whole", "graph"
    proto.metadata_props.add(key="classes", value="cat,dog")
    proto.graph.node[1].doc_string = "a product"
    done = cases.export_to(tmp_path / "out", proto, ["b"])
    for half in (*cases.written(tmp_path / "out", done), join_folder(tmp_path / "out")):
        assert (half.producer_name, half.doc_string) == ("maker", "whole")
        assert half.metadata_props[0].value == "cat,dog"
        assert half.graph.doc_string == "graph"
        assert half.ir_version == proto.ir_version
    assert join_folder(tmp_path / "out").graph.node[1].doc_string == "a product"


def test_external_data_is_written_anew_for_each_half(tmp_path: Path) -> None:
    proto = cases.model(cases.RESIDUAL)
    for tensor in proto.graph.initializer:
        big = np.random.default_rng(len(tensor.name)).normal(size=(64, 64)).astype(np.float32)
        tensor.CopyFrom(onnx.numpy_helper.from_array(big, tensor.name))
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 64
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 64
    file = tmp_path / "model.onnx"
    save(proto, file, external_data="always")
    loaded = load(file)
    subject, source = read_subject(loaded), read_source(file, loaded)
    assert source.was_external
    wish = cases.chain_wish(subject, ["b"])
    done = exporting.export(subject, wish, source, tmp_path / "out")
    for segment in done.manifest.segments:
        assert len(segment.files) == 2
        assert (tmp_path / "out" / segment.file).stat().st_size < 2000
    for data in tmp_path.glob("model.onnx.*"):
        data.unlink()
    cases.assert_same_outputs(proto, cases.written(tmp_path / "out", done), sizes=(2,))
    assert verify_folder(tmp_path / "out").passed


def test_chains_of_segments_run_in_a_row_and_hold_no_operator_twice(tmp_path: Path) -> None:
    proto = judge.tiny("residual")
    subject = read_subject(proto)
    chain = [frozenset(range(n)) for n in (4, 9, 15)]
    parts = take_apart(subject, chain, ["none"] * 5)
    cases.assert_same_outputs(proto, [piece.proto for piece in parts.pieces])
    for one, other in pairwise(parts.pieces):
        assert not one.operators & other.operators
    assert sum(len(piece.operators) for piece in parts.pieces) == len(subject.dag.operators)
    needed = [{p.name for p in border.tensors} for border in parts.borders]
    for number, piece in enumerate(parts.pieces):
        later = {name for p in parts.pieces[number + 1 :] for name in p.reads}
        assert set(piece.makes) & later <= needed[number + 1]


@pytest.mark.parametrize("codec", ["fp16", "uint8"])
@pytest.mark.parametrize("names", [["b"], ["stem", "b"]])
def test_codecs_make_the_wire_smaller_and_their_error_is_told(
    codec: str, names: list[str], tmp_path: Path
) -> None:
    proto = cases.model(cases.RESIDUAL)
    done = cases.export_to(tmp_path / "out", proto, names, codec)  # type: ignore[arg-type]
    chain = len(names) > 1
    for cut in done.manifest.cuts[1:-1]:
        assert {port.dtype for port in cut.wire} <= {"float16", "uint8", "float32"}
        assert (cut.encoder is not None) == chain
        assert cut.error is not None and 0 < cut.error < 0.03
    if not chain:
        device, edge = done.manifest.segments
        assert {port.name for port in done.manifest.cuts[1].wire} == set(edge.reads)
        feed = cases.feeds(proto, 0)
        found = cases.run_row(cases.written(tmp_path / "out", done), feed)
        np.testing.assert_allclose(found["y"], Session(proto).run(feed)["y"], atol=0.05)
        assert set(device.makes).isdisjoint(("b", "stem"))
    cases.assert_same_outputs(proto, [join_folder(tmp_path / "out")])
    assert verify_folder(tmp_path / "out").passed


@pytest.mark.parametrize("codec", ["fp16", "uint8"])
def test_only_float32_is_ever_encoded(codec: str) -> None:
    parts = cases.halves_at(cases.model(cases.CAPTURES), "c", codec=codec)  # type: ignore[arg-type]
    wire = {port.name: port.dtype for port in parts.borders[1].coding.wire}
    assert wire["c"] == "bool"
    assert {port.name for port in parts.borders[1].coding.encoded} == {"x", "early"}
    shapes = cases.halves_at(cases.model(cases.SHAPES), "b", codec=codec)  # type: ignore[arg-type]
    wire = {port.name: port.dtype for port in shapes.borders[1].coding.wire}
    assert wire["target"] == "int64"
    quantized = cases.halves_at(cases.model(cases.QUANTIZED), "q", codec=codec)  # type: ignore[arg-type]
    assert quantized.borders[1].codec == "none"
    assert quantized.pieces == quantized.plain


def test_an_input_that_only_crosses_is_encoded_on_the_device() -> None:
    proto = cases.model(cases.SHARED)
    device, edge = cases.halves_at(proto, "b", codec="fp16").pieces
    assert set(edge.reads) == {"x_fp16", "b_fp16"}
    assert set(device.makes) == {"x_fp16", "b_fp16"}


def test_an_output_that_crosses_encoded_is_given_to_the_user_as_it_is() -> None:
    proto = cases.model(cases.CUT_OUTPUT)
    device, edge = cases.halves_at(proto, "a", codec="uint8").pieces
    feed = cases.feeds(proto, 0)
    found = cases.run_row([device.proto, edge.proto], feed)
    assert np.array_equal(found["a"], Session(proto).run(feed)["a"])
    assert "a" not in edge.reads


def test_old_operator_sets_get_an_encoder_and_a_decoder_of_their_own(tmp_path: Path) -> None:
    proto = judge.tiny("opset7")
    subject = read_subject(proto)
    name = next(t.name for t in subject.dag.tensors if t.producer == 3)
    done = cases.export_to(tmp_path / "out", proto, [name], "uint8")
    assert done.manifest.cuts[1].encoder == "cut01.encoder.onnx"
    assert verify_folder(tmp_path / "out").passed
    with pytest.raises(UsageError, match="needs newer operators"):
        cases.export_to(tmp_path / "other", proto, [name], "uint8", serve=["triton"])
    assert not (tmp_path / "other").exists()


def test_names_that_codecs_need_and_the_model_has_are_not_taken() -> None:
    proto = cases.model(cases.RESIDUAL.replace("Sigmoid(s)", "Sigmoid(s) b_fp16 = Neg(x)"))
    parts = cases.halves_at(proto, "b", codec="fp16")
    assert "b_fp16_0" in {port.name for port in parts.borders[1].coding.wire}


def test_the_same_split_gives_the_same_bytes(tmp_path: Path) -> None:
    proto = judge.tiny("if")
    for name in ("one", "two"):
        subject = read_subject(proto)
        tensor = next(t.name for t in subject.dag.tensors if t.producer == 2)
        cases.export_to(tmp_path / name, proto, [tensor], "uint8", serve=["triton", "mlserver"])
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*"))
    assert files == sorted(p.relative_to(tmp_path / "two") for p in (tmp_path / "two").rglob("*"))
    for file in files:
        if (tmp_path / "one" / file).is_file():
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_manifest_is_read_back_as_it_was(tmp_path: Path) -> None:
    done = cases.export_to(tmp_path / "out", cases.model(cases.RESIDUAL), ["b"])
    assert read_manifest(tmp_path / "out") == done.manifest
    assert done.manifest.source == "../model.onnx"
    assert any("bit for bit" in line for line in done.manifest.verified)
    assert not any("accepted" in line or "report" in line for line in done.manifest.verified)


def test_an_earlier_split_is_replaced_as_a_whole(tmp_path: Path) -> None:
    proto = cases.model(cases.RESIDUAL)
    cases.export_to(tmp_path / "out", proto, ["stem", "b"], serve=["triton"])
    cases.export_to(tmp_path / "out", proto, ["b"])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *("device.onnx", "edge.onnx", "split.json")
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "out"]


def test_a_folder_with_anything_else_in_it_is_left_alone(tmp_path: Path) -> None:
    proto = cases.model(cases.RESIDUAL)
    cases.export_to(tmp_path / "out", proto, ["b"])
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt"):
        cases.export_to(tmp_path / "out", proto, ["b"])
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is no folder"):
        cases.export_to(tmp_path / "file", proto, ["b"])


def test_nothing_is_written_where_the_halves_do_not_equal_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> object:
        parts = take_apart(*arguments)  # type: ignore[arg-type]
        for piece in parts.plain[1:]:
            for node in piece.proto.graph.node:
                if node.op_type == "Sigmoid":
                    node.op_type = "Tanh"
        return parts

    monkeypatch.setattr(exporting, "take_apart", broken)
    with pytest.raises(CheckError, match="do not equal the whole: 'y'"):
        cases.export_to(tmp_path / "out", cases.model(cases.RESIDUAL), ["b"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx"]


ROUNDED = [
    ("qdq", ["relu1_q", "skip_dq"], "change the whole model by"),
    ("half", ["conv"], "float32"),
]
"""Cuts whose halves round otherwise than the whole, and why."""


def export_at(
    folder: Path, proto: onnx.ModelProto, names: list[str], **options: float
) -> exporting.Exported:
    """Write the model beside the folder, and its halves at this boundary into it."""
    file = folder.parent / "model.onnx"
    file.write_bytes(proto.SerializeToString())
    subject = read_subject(proto)
    wish, source = named(subject, names, "none"), read_source(file, proto)
    return exporting.export(subject, wish, source, folder, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "at", "why"), ROUNDED)
def test_halves_that_differ_by_rounding_are_refused_with_cause_tolerance_and_a_cut_that_passes(
    name: str, at: list[str], why: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckError, match=why) as raised:
        export_at(tmp_path / "out", judge.tiny(name), at)
    assert "optimizations on (allowed: 1e-05)" in raised.value.what
    assert ("optimizations off (allowed: 0)" in raised.value.what) == (name == "half")
    assert not (tmp_path / "out").exists()
    found = re.search(r"--at (\S+) passes.*--tolerance (\S+)$", raised.value.fix)
    assert found is not None
    done = export_at(tmp_path / "near", judge.tiny(name), found[1].split(","))
    assert done.manifest.tolerance is None and done.proof is not None and not done.proof.plain
    assert not any("accepted" in line for line in done.manifest.verified)
    enough = parse_percent(found[2])
    done = export_at(tmp_path / "out", judge.tiny(name), at, tolerance=enough)
    assert done.manifest.tolerance == enough
    assert any(f"accepted up to {enough:.2g}" in line for line in done.manifest.verified)
    with pytest.raises(CheckError, match="allowed"):
        export_at(tmp_path / "other", judge.tiny(name), at, tolerance=enough / 10)


@pytest.mark.parametrize(("name", "at", "why"), ROUNDED)
def test_verify_accepts_what_the_manifest_says_or_what_it_is_told(
    name: str, at: list[str], why: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export_at(out, judge.tiny(name), at, tolerance=0.01)
    assert verify_folder(out).passed
    found = verify_folder(out, tolerance=1e-6)
    assert not found.passed and "(allowed: 1e-06)" in found.reason and why in found.reason
    data = json.loads((out / "split.json").read_text())
    (out / "split.json").write_text(json.dumps({**data, "tolerance": None}))
    found = verify_folder(out)
    assert not found.passed and "--tolerance" in found.reason
    assert verify_folder(out, tolerance=0.01).passed


@pytest.mark.parametrize("error", [1.3e-7, 1.4e-5, 9.05e-4, 9.99e-4, 0.04, 0.98, 1.5])
def test_the_tolerance_that_a_refusal_names_is_enough_with_room_and_can_be_written(
    error: float,
) -> None:
    parts = cases.halves_at(cases.model(cases.RESIDUAL), "b")
    proof = exporting.prove(parts, comparing.Judge(parts.subject.proto))
    refused = replace(proof, optimized=error, itself=0.0, tolerance=1e-8)
    assert not refused.passed and "neither the optimizations nor rounding" in refused.reason
    enough = parse_percent(refused.acceptance.split()[1])
    assert 1.09 * error <= enough <= 2.3 * error
    accepted = replace(proof, optimized=1.05 * error, tolerance=enough)
    assert accepted.passed and accepted.is_accepted == (1.05 * error > 1e-5)


def test_no_tolerance_lets_32_bit_floats_differ_without_optimizations(tmp_path: Path) -> None:
    out = tmp_path / "out"
    cases.export_to(out, cases.model(cases.RESIDUAL), ["b"], tolerance=1.0)
    damage(out / "edge.onnx")
    found = verify_folder(out, tolerance=1.0)
    assert not found.passed and "do not equal the whole" in found.reason


def test_halves_that_do_not_run_with_optimizations_where_the_whole_does_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proto = cases.model(cases.RESIDUAL)
    real = rows.Row

    def failing(segments: object, *, optimized: bool) -> object:
        if optimized:
            raise UnverifiableError("no kernel for it")
        return real(segments, optimized=optimized)  # type: ignore[arg-type]

    monkeypatch.setattr(comparing, "Row", failing)
    halves = [piece.proto for piece in cases.halves_at(proto, "b").plain]
    found = comparing.Judge(proto).judge(halves, tolerance=1.0)
    assert not found.passed and "do not run" in found.reason and "no kernel" in found.reason


def test_a_model_that_crashes_onnx_runtime_is_told_of_and_does_not_take_us_along(
    tmp_path: Path,
) -> None:
    proto = judge.model("""
        <ir_version: 8, opset_import: ["" : 13]>
        g (float[1,8] a, int8[8,1] b, float[8] scale, float[1] bias) => (float[1,8] y) {
            quantized, s, z = DynamicQuantizeLinear(a)
            product = MatMulInteger(quantized, b, z)
            both = Mul(s, scale)
            numbers = Cast<to = 1>(product)
            scaled = Mul(numbers, both)
            y = Add(scaled, bias)
        }
    """)
    with pytest.raises(OnnxoptError, match="ONNX Runtime crashes") as raised:
        cases.export_to(tmp_path / "out", proto, ["numbers"])
    assert raised.value.exit_code == 4 and not (tmp_path / "out").exists()
    file = tmp_path / "model.onnx"
    assert run(["split", "profile", str(file), "-o", str(tmp_path / "profile.json")]) == 4
    assert run(["profile", str(file)]) == 4


def damage(file: Path) -> None:
    proto = load(file)
    tensor = proto.graph.initializer[-1]
    array = onnx.numpy_helper.to_array(tensor) * np.float32(1.5)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), tensor.name))
    save(proto, file)


def test_verify_names_the_first_tensor_that_differs(tmp_path: Path) -> None:
    cases.export_to(tmp_path / "out", cases.model(cases.RESIDUAL), ["b"])
    damage(tmp_path / "out" / "edge.onnx")
    found = verify_folder(tmp_path / "out")
    assert not found.passed
    assert found.changed == ("edge.onnx",)
    assert found.proof is not None and found.proof.first.startswith("'c'")


def test_verify_without_the_original_still_sees_a_changed_file(tmp_path: Path) -> None:
    cases.export_to(tmp_path / "out", cases.model(cases.RESIDUAL), ["b"])
    (tmp_path / "model.onnx").unlink()
    found = verify_folder(tmp_path / "out")
    assert found.passed and "joined" in found.against
    damage(tmp_path / "out" / "edge.onnx")
    found = verify_folder(tmp_path / "out")
    assert not found.passed and "edge.onnx" in found.reason


def test_verify_refuses_another_model_as_the_whole(tmp_path: Path) -> None:
    cases.export_to(tmp_path / "out", cases.model(cases.RESIDUAL), ["b"])
    other = tmp_path / "other.onnx"
    other.write_bytes(cases.model(cases.RESIDUAL, seed=1).SerializeToString())
    with pytest.raises(UsageError, match="not the model that was split"):
        verify_folder(tmp_path / "out", model=other)


def test_the_error_of_a_codec_is_judged_on_samples_of_a_user_alone(tmp_path: Path) -> None:
    samples, out = tmp_path / "samples.npz", tmp_path / "out"
    rng = np.random.default_rng(0)
    np.savez(samples, x=0.01 * rng.standard_normal((5, 4), dtype=np.float32))
    cases.export_to(out, cases.model(cases.RESIDUAL), ["b"], "uint8", samples=samples)
    assert verify_folder(out).passed
    found = verify_folder(out, samples=samples)
    assert found.passed and found.proof is not None and found.proof.errors
    data = json.loads((out / "split.json").read_text())
    data["cuts"][1]["error"] = found.proof.errors[1] / 3
    (out / "split.json").write_text(json.dumps(data))
    assert verify_folder(out).passed
    found = verify_folder(out, samples=samples)
    assert not found.passed and "codec of cut01" in found.reason and "your samples" in found.reason


@pytest.mark.parametrize("number", [0, 1])
def test_halves_that_encode_or_decode_otherwise_than_their_codec_fail(
    tmp_path: Path, number: int
) -> None:
    out = tmp_path / "out"
    cases.export_to(out, cases.model(cases.RESIDUAL), ["b"], "uint8")
    file = out / ("device.onnx", "edge.onnx")[number]
    half = onnx.load(file)
    op = ("DynamicQuantizeLinear", "DequantizeLinear")[number]
    first, second = [node for node in half.graph.node if node.op_type == op]
    names = [*first.input]
    first.input[:] = second.input
    second.input[:] = names
    onnx.save(half, file)
    found = verify_folder(out)
    assert found.proof is not None and found.proof.exact.passed
    assert found.unlike == ("cut01",) and "is not what uint8 makes of it" in found.reason


def test_samples_of_a_user_measure_the_codec(tmp_path: Path) -> None:
    proto = cases.model(cases.RESIDUAL)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "samples.npz", x=rng.standard_normal((5, 4), dtype=np.float32))
    done = cases.export_to(
        tmp_path / "out", proto, ["b"], "uint8", samples=tmp_path / "samples.npz"
    )
    assert any("on samples: user data" in line for line in done.manifest.verified)


def test_a_codec_that_changes_the_shape_of_an_output_is_said_to(tmp_path: Path) -> None:
    proto = judge.model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[16] x) => (int64[1,M] where) {
            a = Sin(x)
            large = Constant<value = float[1] {10000.0}>()
            b = Concat<axis = 0>(a, large)
            where = NonZero(b)
        }
    """)
    done = cases.export_to(tmp_path / "out", proto, ["b"], "uint8")
    assert done.manifest.cuts[1].error is None
    assert any("changes the shape of an output" in line for line in done.manifest.verified)
    assert verify_folder(tmp_path / "out").passed


def test_a_codec_before_what_is_random_alone_has_no_error(tmp_path: Path) -> None:
    proto = judge.model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[4] x) => (float[4] y) { a = Relu(x) n = RandomNormalLike(a) y = Add(a, n) }
    """)
    done = cases.export_to(tmp_path / "out", proto, ["a"], "fp16")
    assert done.manifest.cuts[1].error == 0


def test_what_random_operators_make_is_said_not_to_be_compared(tmp_path: Path) -> None:
    proto = judge.model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[2] x) => (float[2] y, float[2] z) {
            a = Relu(x)
            n = RandomNormalLike(a)
            b = Add(a, n)
            y = Neg(b)
            z = Sin(a)
        }
    """)
    done = cases.export_to(tmp_path / "out", proto, ["a"])
    assert any("random" in line for line in done.manifest.verified)
    assert verify_folder(tmp_path / "out").passed


def test_all_at_the_edge_is_one_segment_that_gets_the_inputs(tmp_path: Path) -> None:
    proto = cases.model(cases.RESIDUAL)
    file = tmp_path / "model.onnx"
    file.write_bytes(proto.SerializeToString())
    subject = read_subject(proto)
    wish = named(subject, ["x"], "uint8")
    source = read_source(file, proto)
    done = exporting.export(subject, wish, source, tmp_path / "out", serve=["triton"])
    assert [s.file for s in done.manifest.segments] == ["segment00.onnx"]
    assert done.manifest.chosen == 0
    assert done.manifest.cuts[0].encoder == "cut00.encoder.onnx"
    assert (tmp_path / "out" / "triton" / "model.cut00" / "1" / "model.onnx").is_file()
    assert verify_folder(tmp_path / "out").passed


def test_the_edge_half_for_triton_and_mlserver_is_the_edge_half(tmp_path: Path) -> None:
    proto = cases.model(cases.SHARED)
    cases.export_to(tmp_path / "out", proto, ["a", "b"], "fp16", serve=["triton", "mlserver"])
    config = (tmp_path / "out" / "triton" / "model.cut02" / "config.pbtxt").read_text()
    assert 'name: "x_fp16"\n  data_type: TYPE_FP16\n  dims: [ -1, 4 ]' in config
    settings = tmp_path / "out" / "mlserver" / "model.cut02" / "model-settings.json"
    expected = {"name": "x_fp16", "datatype": "FP16", "shape": [-1, 4]}
    assert json.loads(settings.read_text())["inputs"][0] == expected
    edge = load(tmp_path / "out" / "triton" / "model.cut02" / "1" / "model.onnx")
    subject = read_subject(proto)
    device, _ = take_apart(
        subject, [cases.device_of(subject, "b")], ["none", "fp16", "none"]
    ).pieces
    feed = cases.feeds(proto, 0)
    found = cases.run_row([device.proto, edge], feed)
    np.testing.assert_allclose(found["y"], Session(proto).run(feed)["y"], atol=0.01)


def test_scalars_are_reshaped_for_triton(tmp_path: Path) -> None:
    proto = cases.model(cases.CAPTURES)
    cases.export_to(tmp_path / "out", proto, ["c"], serve=["triton"])
    config = (tmp_path / "out" / "triton" / "model.cut01" / "config.pbtxt").read_text()
    assert "data_type: TYPE_BOOL\n  dims: [ 1 ]\n  reshape { shape: [ ] }" in config
