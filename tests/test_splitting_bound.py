"""A codec that changes the outputs by more than it may is not planned with."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import split_cases as cases
from PIL import Image
from split_machines import both_machines

from onnxopt.errors import CheckError, UsageError
from onnxopt.model import load
from onnxopt.profiling.files import as_json
from onnxopt.runtime import Session
from onnxopt.splitting import bound
from onnxopt.splitting.candidates import candidates
from onnxopt.splitting.choosing import Budgets, Task
from onnxopt.splitting.codec_errors import CodecErrors, coded_cut
from onnxopt.splitting.coded import codec_error
from onnxopt.splitting.codings import codings_of
from onnxopt.splitting.context import Box, Context
from onnxopt.splitting.enumeration import enumerate_cuts
from onnxopt.splitting.manifest import Codec
from onnxopt.splitting.operators import Subject, read_subject
from onnxopt.splitting.plan_file import Plan, PlannedCut
from onnxopt.splitting.planning import Wish, plan_split

MODELS = Path(__file__).parent.parent / "models"
MOST = 0.01


@pytest.fixture(scope="module")
def subject() -> Subject:
    return read_subject(load(MODELS / "digits_resnet.onnx"))


def _error(device: frozenset[int], codec: Codec) -> float:
    """Made up: about half of all cuts are within the bound, in no order."""
    return zlib.crc32(repr((sorted(device), codec)).encode()) % 1000 / 1000 * 2 * MOST


def _wish(rate: float, **more: Any) -> Wish:
    return replace(Wish(Task(Context(rate, 0.001))), **({"max_error": MOST} | more))


def _least(subject: Subject, wish: Wish) -> float:
    """The latency of the best within the bound, all errors looked at."""
    machines = both_machines(subject)
    cuts = enumerate_cuts(subject.dag)
    codings = codings_of(subject.dag, wish.codecs, {}, machines)
    device, edge = machines.device.before(cuts)[0], machines.edge.behind(cuts)[0]
    found = candidates(cuts, codings, device, edge)
    good = [
        not found.coding[n]
        or _error(frozenset(cuts.operators(int(found.cut[n]))), found.codec(n)) <= MOST
        for n in range(len(found))
    ]
    return float(found.latency_s(wish.task.context)[good].min())


def _shown(plan: Plan) -> tuple[PlannedCut, ...]:
    return (*plan.cuts, *plan.best, *plan.pareto)


@pytest.mark.parametrize("rate", [1e4, 1e5, 1e6, 1e7, 1e8])
def test_the_plan_is_the_best_within_the_bound_and_few_errors_are_asked_for(
    subject: Subject, rate: float
) -> None:
    asked: list[object] = []

    def errors(device: frozenset[int], codec: Codec) -> float:
        asked.append((device, codec))
        return _error(device, codec)

    wish = _wish(rate)
    plan = plan_split(subject, both_machines(subject), wish, errors=errors)
    assert plan.cuts[plan.chosen].latency_s == pytest.approx(_least(subject, wish), rel=1e-12)
    assert all(cut.error is not None and cut.error <= MOST for cut in _shown(plan))
    assert len(asked) == len(set(asked)) <= 25


def test_the_cuts_to_adapt_with_are_within_the_bound_throughout(subject: Subject) -> None:
    box = Box(Context(1e4, 0.001), Context(1e8, 0.001))
    wish = _wish(1e6, box=box, most=3, pareto=True)
    plan = plan_split(subject, both_machines(subject), wish, errors=_error)
    assert all(cut.error is not None and cut.error <= MOST for cut in _shown(plan))
    assert any("were left out" in note for note in plan.notes)


def test_where_too_many_would_have_to_be_measured_the_rest_goes_without_codecs(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bound, "MOST_MEASURED", 4)
    plan = plan_split(
        subject, both_machines(subject), _wish(1e5), errors=lambda device, codec: float("inf")
    )
    assert all(cut.codec == "none" for cut in _shown(plan))
    assert any("after 4 of these" in note for note in plan.notes)


def test_without_a_bound_errors_are_told_and_nothing_is_left_out(subject: Subject) -> None:
    machines = both_machines(subject)
    told = plan_split(subject, machines, _wish(1e6, max_error=None), errors=_error)
    plain = plan_split(subject, machines, _wish(1e6, max_error=None))
    assert [c.latency_s for c in told.cuts] == [c.latency_s for c in plain.cuts]
    assert all(cut.error is not None for cut in told.cuts)
    assert all(cut.error is None for cut in plain.cuts)
    endless = plan_split(
        subject, machines, _wish(1e6, max_error=None), errors=lambda device, codec: float("inf")
    )
    assert "has another shape" in " ".join(endless.notes) and as_json(endless)


def test_a_budget_that_only_a_codec_keeps_says_what_was_left_out(subject: Subject) -> None:
    machines = both_machines(subject)
    free = plan_split(subject, machines, _wish(1e6, max_error=None))
    chosen = free.cuts[free.chosen]
    assert chosen.codec != "none"
    budgets = Budgets(latency_s=1.001 * chosen.latency_s)
    wish = _wish(1e6)
    wish = replace(wish, task=replace(wish.task, budgets=budgets))
    with pytest.raises(CheckError, match="were left out"):
        plan_split(subject, machines, wish, errors=lambda device, codec: 1.0)


def test_a_bound_needs_something_to_measure_with(subject: Subject) -> None:
    with pytest.raises(UsageError, match="nothing is there to measure it on"):
        plan_split(subject, both_machines(subject), _wish(1e6))


def test_errors_are_what_both_halves_make_of_the_samples(tmp_path: Path) -> None:
    proto = cases.model(cases.RESIDUAL)
    subject = read_subject(proto)
    samples = np.random.default_rng(0).standard_normal((5, 4), dtype=np.float32)
    np.savez(tmp_path / "samples.npz", x=samples)
    errors = CodecErrors(subject, tmp_path / "samples.npz")
    whole = Session(proto)
    pairs = [({"x": row[None]}, whole.run({"x": row[None]})) for row in samples]
    codecs: tuple[Codec, ...] = ("fp16", "uint8")
    for device in (frozenset[int](), frozenset({0}), frozenset({0, 1, 2})):
        fp16, uint8 = (errors.of(device, codec) for codec in codecs)
        assert 0 < fp16 < 1e-3 < uint8 < 0.1
        item = coded_cut(subject, device, "uint8")
        assert item is not None and codec_error(item, pairs) == uint8
    assert errors.of(frozenset({0}), "none") == 0
    assert len(errors.known) == 7


def test_what_overflows_or_changes_a_shape_has_an_endless_error(tmp_path: Path) -> None:
    proto = cases.model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[4] x) => (float[4] y) { a = Exp(x) y = Log(a) }
    """)
    subject = read_subject(proto)
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "folder" / "one.npz", x=np.full(4, 20.0, np.float32))
    errors = CodecErrors(subject, tmp_path / "folder")
    assert errors.of(frozenset({0}), "fp16") == float("inf")


@pytest.mark.parametrize("batch", [2, "N"])
def test_images_are_samples_too(tmp_path: Path, batch: int | str) -> None:
    proto = cases.model(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[{batch},3,4,4] x) => (float[{batch},3,4,4] y) {{ a = Sin(x) y = Cos(a) }}
    """)
    draw = np.random.default_rng(0)
    for number in range(5):
        pixels = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    errors = CodecErrors(read_subject(proto), tmp_path)
    assert len(errors._pairs) == (2 if batch == 2 else 5)
    assert 0 < errors.of(frozenset({0}), "uint8") < 0.01
