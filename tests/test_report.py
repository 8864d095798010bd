"""One report, three renderings: complete, valid, and the same every time."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import onnxopt
from onnxopt.changes import Change
from onnxopt.cost import Cost
from onnxopt.errors import UsageError
from onnxopt.report import Report, versions
from onnxopt.report.as_json import SCHEMA, report_json
from onnxopt.report.as_markdown import report_markdown
from onnxopt.report.files import check_report_path, write_report
from onnxopt.report.table import change_lines, console, report_table
from onnxopt.verification.verify import OutputError, Verdict

BEFORE = Cost(
    nodes=4,
    operators={"Conv": 2, "Identity": 2},
    initializers=5,
    parameters=1000,
    weight_bytes=4000,
    size_bytes=4500,
    macs=2_000_000,
    activation_bytes=900,
    peak_memory_bytes=500,
    assumed=("x[0]",),
    inputs={"x": "float32[N,3]"},
    outputs={"y": "float32[N,2]"},
)
AFTER = replace(BEFORE, nodes=2, operators={"Conv": 2}, initializers=4, size_bytes=4400)
VERDICT = Verdict(
    passed=True,
    numerics="rounding",
    outputs=(OutputError("y", 1e-6, 1e-7, tolerance=1e-5, feed="normal, N=2"),),
    draws=("normal, N=2", "0/1, N=1"),
    unverified=("'y' is constant",),
)
REPORT = Report(
    source="in.onnx",
    output="out.onnx",
    before=BEFORE,
    after=AFTER,
    changes=(
        Change("remove-identity", "Identity 'a|b'", "replaced by 'x'"),
        Change("remove-identity", "Identity '_b_'", "replaced by 'x'"),
    ),
    declined=(Change("fold-pad", "Pad 'p'", "the value is not 0", done=False),),
    withdrawn=(Change("fold-bn", "Conv 'c'", "the outputs differed", done=False),),
    verdict=VERDICT,
    verification="verified",
    notes=("something to know",),
    versions=versions(),
)


def as_text(report: Report) -> str:
    stream = io.StringIO()
    console(stream).print(report_table(report))
    return stream.getvalue()


def test_table_shows_operators_that_changed_and_no_others() -> None:
    text = as_text(REPORT)
    assert "Identity" in text and "Conv " not in text.split("rewrites:")[0]
    assert "float32[N,3]" in text and "-50.0%" in text


def test_table_ends_with_verdict_rewrites_and_reasons() -> None:
    text = " ".join(as_text(REPORT).split())
    assert "verdict: equal within rounding on 2 draws" in text and "normal, N=2" in text
    assert "remove-identity 2" in text
    assert "taken back: fold-bn" in text
    assert "costs are for x[0] = 1" in text and "not shown: 'y' is constant" in text


def test_table_says_loudly_that_nothing_was_verified() -> None:
    text = as_text(replace(REPORT, verdict=None, verification="impossible"))
    assert "NOT VERIFIED" in text


def test_a_file_gets_no_colours_and_a_steady_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    text = as_text(REPORT)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, as_text(REPORT).splitlines())) <= 60


def test_names_are_not_read_as_markup() -> None:
    report = replace(REPORT, source="[red]in[/red].onnx", notes=("[bold]x",))
    assert "[red]in[/red].onnx" in as_text(report) and "[bold]x" in as_text(report)


def test_a_count_that_is_a_lower_bound_is_marked() -> None:
    report = replace(REPORT, after=replace(AFTER, unknown=("MatMul 'm'",), macs=5))
    line = next(line for line in as_text(report).splitlines() if "MACs" in line)
    assert ">= 5" in line and "%" not in line


def test_rewrites_are_listed_one_by_one_when_asked() -> None:
    stream = io.StringIO()
    console(stream).print(change_lines((*REPORT.changes, *REPORT.declined)))
    assert "remove-identity: Identity 'a|b': replaced by 'x'" in stream.getvalue()
    assert "fold-pad: Pad 'p' not made: the value is not 0" in stream.getvalue()


def test_markdown_escapes_what_would_break_its_tables() -> None:
    text = report_markdown(REPORT)
    assert "Identity 'a\\|b'" in text and "'\\_b\\_'" in text
    assert text.startswith("# onnxopt: in.onnx → out.onnx")
    for word in ("Rewrites made", "taken back", "not made", "worst error", onnxopt.__version__):
        assert word in text


def test_json_report_is_valid_by_its_schema() -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    path = Path(onnxopt.__file__).parent / "report" / "schema.json"
    schema = json.loads(path.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for report in (REPORT, replace(REPORT, verdict=None, output=None)):
        jsonschema.validate(json.loads(report_json(report)), schema)


def test_json_schema_documents_every_field() -> None:
    path = Path(onnxopt.__file__).parent / "report" / "schema.json"
    schema = json.loads(path.read_text())
    data = json.loads(report_json(REPORT))
    assert schema["$id"] == data["schema"] == SCHEMA
    assert set(data) == set(schema["properties"]) == set(schema["required"])
    assert set(data["before"]) == set(schema["$defs"]["cost"]["required"])
    verification = schema["$defs"]["verification"]["properties"]
    assert set(data["verification"]) == set(verification)
    documented = verification["outputs"]["items"]["properties"]
    assert set(data["verification"]["outputs"][0]) == set(documented)


def test_json_has_null_where_an_error_is_infinite() -> None:
    output = replace(VERDICT.outputs[0], worst_absolute=math.inf)
    report = replace(REPORT, verdict=replace(VERDICT, outputs=(output,)))
    data = json.loads(report_json(report))
    assert data["verification"]["outputs"][0]["worst_absolute"] is None


def test_versions_name_everything_that_the_result_depends_on() -> None:
    assert list(versions()) == ["onnxopt", "numpy", "onnx", "onnxruntime"]
    assert all(versions().values())


def test_the_same_report_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a.json", "b.json", "a.md", "b.md"):
        write_report(REPORT, tmp_path / name)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.md").read_bytes() == (tmp_path / "b.md").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.md", "b.json", "b.md"]


@pytest.mark.parametrize("name", ["report.html", "report", "none/report.md", "folder.md"])
def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(UsageError):
        check_report_path(tmp_path / name)
