"""Measuring: what is computed from measurements is tested on numbers, real runs by structure."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import profiles
import pytest
from profiles import FakeTime, residual, written

import onnxopt
from onnxopt.errors import UsageError
from onnxopt.profiling.bench import Asked
from onnxopt.profiling.document import Profile, read_profile
from onnxopt.profiling.events import Kernel, read_trace, traced
from onnxopt.profiling.feeds import drawn, input_shapes, read_feeds
from onnxopt.profiling.files import as_json, write_json
from onnxopt.profiling.fitting import fit, fitted, non_negative
from onnxopt.profiling.kit import LIST, read_kit
from onnxopt.profiling.measure import measure
from onnxopt.profiling.memory import peak_memory
from onnxopt.profiling.naming import NodeName, nodes_of
from onnxopt.profiling.rows import plain_text
from onnxopt.profiling.sessions import CPU, Input, Measured, MeasureError
from onnxopt.profiling.smallest import chain
from onnxopt.profiling.spread import Run, calmest, judge, spread, undisturbed
from onnxopt.profiling.tensors import bytes_of, dims_of
from onnxopt.profiling.turns import LEAST_ROUNDS, Turn, take_turns

SHORT = Asked(seconds=0.01)

BLOCKED = ("onnx", "onnx_graphsurgeon", "typer", "rich", "ml_dtypes", "google", "threadpoolctl")


def test_measuring_needs_only_numpy_and_onnxruntime(tmp_path: Path) -> None:
    written(residual(), tmp_path / "m.onnx")
    code = (
        f"import sys\n"
        f"for name in {BLOCKED}: sys.modules[name] = None\n"
        f"from onnxopt.profiling.__main__ import main\n"
        f"sys.exit(main(['m.onnx', '-o', 'p.json', '--seconds', '0.01']))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(onnxopt.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "steady state" in run.stdout
    assert read_profile(tmp_path / "p.json").kernels


# What is computed


def test_the_fit_finds_the_numbers_that_times_were_made_of() -> None:
    macs, sizes = [1e6, 4e6, 9e6, 16e6, 25e6], [2e5, 9e5, 1e6, 3e6, 2e6]
    times = [7 + 3e-6 * m + 5e-6 * b for m, b in zip(macs, sizes, strict=True)]
    found = fit(macs, sizes, times)
    assert found is not None
    assert (found.t0_us, found.us_per_mmac, found.us_per_mb) == pytest.approx((7, 3, 5))
    assert found.error == pytest.approx(0, abs=1e-9) and found.worst == pytest.approx(0, abs=1e-9)
    assert fitted(found, 2e6, 1e6) == pytest.approx(7 + 6 + 5)


def test_the_fit_takes_nothing_below_zero_and_tells_what_it_misses() -> None:
    macs = [1e6, 2e6, 3e6, 4e6]
    found = fit(macs, [1.0] * 4, [1.0, 2.0, 3.0, 8.0])
    assert found is not None
    assert min(found.t0_us, found.us_per_mmac, found.us_per_mb) >= 0
    assert 0 < found.error <= found.worst


def test_fewer_than_four_widths_are_not_fitted() -> None:
    assert fit([1.0, 2.0, 3.0, 3.0], [1.0, 2.0, 3.0, 3.0], [1.0, 2.0, 3.0, 3.1]) is None
    assert fit([], [], []) is None


def test_no_other_choice_without_negative_numbers_is_better() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        columns, target = rng.normal(size=(6, 3)), rng.normal(size=6)
        best = non_negative(columns, target)
        error = np.sum((columns @ best - target) ** 2)
        assert (best >= 0).all()
        for step in product((-0.01, 0.0, 0.01), repeat=3):
            other = np.maximum(best + np.array(step), 0)
            assert np.sum((columns @ other - target) ** 2) >= error - 1e-12


def test_what_others_take_makes_a_kernel_no_slower() -> None:
    assert undisturbed([10.0, 500.0, 11.0, 900.0, 9.0]) == pytest.approx(10)
    assert undisturbed([3.0]) == 3
    assert spread([1.0, 2.0, 3.0, 4.0, 100.0]).median == 3


def pairs(*times: tuple[float, float], worked: float = 1.0) -> list[tuple[Run, Run]]:
    return [(Run(a, a * worked), Run(b, b * worked)) for a, b in times]


def test_a_calm_machine_is_trusted() -> None:
    judged = judge(pairs(*[(1.0, 1.01)] * 8), threads=1)
    assert judged.noise.trusted and judged.noise.why == ""
    assert judged.noise.taken_share == 0 and len(judged.seconds) == 16


@pytest.mark.parametrize(
    ("measured", "why"),
    [
        (pairs(*[(1.0, 0.8), (1.0, 1.25)] * 5), "the same model against itself"),
        (pairs(*[(1.0, 1.3)] * 8), "the same model against itself"),
        (pairs(*[(1.0, 1.0)] * 2), "only 2 rounds"),
        (pairs(*[(1.0, 1.0)] * 8, worked=0.5), "other work took 50%"),
        (pairs(*[(1.0, 1.0)] * 8, *[(1.5, 1.5)] * 8), "the second half of the runs took 1.50"),
    ],
    ids=("unsteady", "never warm", "short", "busy", "drifting"),
)
def test_a_noisy_machine_is_not_trusted_and_the_reason_is_told(
    measured: list[tuple[Run, Run]], why: str
) -> None:
    noise = judge(measured, threads=1).noise
    assert not noise.trusted and why in noise.why


def test_runs_that_others_disturbed_do_not_count() -> None:
    disturbed = [(Run(5.0, 1.0), Run(1.0, 1.0))] * 3
    judged = judge([*disturbed, *pairs(*[(1.0, 1.0)] * 30)], threads=1)
    assert judged.noise.disturbed == 3 and set(judged.seconds) == {1.0}
    assert judged.noise.trusted


def test_with_several_threads_all_runs_count() -> None:
    judged = judge([(Run(1.0, 3.0), Run(1.0, 0.1))] * 8, threads=4)
    assert judged.noise.taken_share is None and len(judged.seconds) == 16


def test_where_all_runs_are_disturbed_the_calmest_five_stay() -> None:
    runs = [Run(1.0 + i, 0.5) for i in range(9)]
    assert calmest(runs) == runs[:5]


def test_turns_are_taken_one_after_the_other_until_the_time_is_over() -> None:
    time = FakeTime()
    order: list[str] = []
    first, second = time.step(0.25), time.step(0.5, others_s=0.25)

    def named(name: str, run: Callable[[], None]) -> Callable[[], None]:
        def noted() -> None:
            order.append(name)
            run()

        return noted

    turns = [Turn(named("a", first)), Turn(named("b", second), rounds=8)]
    told: list[float] = []
    assert take_turns(turns, 10.0, time.clock, told.append) == 8 + 8
    assert order[:8] == ["a", "a", "b", "b", "a", "b", "a", "b"]  # each twice, then in turns
    assert [run.wall for run in turns[0].runs] == [0.25] * 16
    assert turns[1].runs == [Run(0.75, 0.5)] * 8
    assert told == sorted(told) and 0 < told[0] < told[-1] == 1


def test_fast_turns_run_often_enough_for_the_clock_and_slow_ones_get_their_rounds() -> None:
    time = FakeTime()
    turns = [Turn(time.step(0.00001), repeats=0), Turn(time.step(0.02))]
    assert take_turns(turns, 0.1, time.clock, lambda done: None) == LEAST_ROUNDS
    assert turns[0].repeats == 100 and turns[1].repeats == 1
    assert turns[0].runs[0].wall == pytest.approx(0.00001)


def test_what_would_take_much_too_long_runs_three_times() -> None:
    time = FakeTime()
    turn = Turn(time.step(100.0))
    assert take_turns([turn], 1.0, time.clock, lambda done: None) == len(turn.runs) == 3


def event(name: str, start: int, duration: int, op: str = "Relu", shape: int = 4) -> dict[str, Any]:
    shapes = [{"float": [1, shape]}]
    arguments = {"op_name": op, "input_type_shape": shapes, "output_type_shape": shapes}
    named = f"{name}_kernel_time"
    return {"cat": "Node", "name": named, "ts": start, "dur": duration, "args": arguments}


def test_kernels_inside_of_a_loop_are_not_counted_twice() -> None:
    events = [event("inner", 12, 3), event("loop", 10, 9, "Loop"), event("after", 20, 2)]
    assert [entry.kernel.name for entry in traced(events)] == ["loop", "after"]


def test_runs_of_one_kernel_are_put_together_and_blocked_ones_told_apart() -> None:
    events = [event("y_nchwc", 1, 5, "Conv"), event("z", 7, 1), event("y_nchwc", 9, 7, "Conv")]
    found = traced(events)
    assert [entry.times_us for entry in found] == [(5, 7), (1,)]
    assert found[0].kernel == Kernel("y_nchwc", "Conv.nchwc", ("float[1,4]",), ("float[1,4]",))


def test_a_trace_that_cannot_be_read_is_an_error_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("[{")
    with pytest.raises(MeasureError, match="nothing to be understood"):
        read_trace(tmp_path / "t.json")


def test_texts_of_tensors_tell_shapes_and_bytes() -> None:
    assert dims_of("float[2,3]") == (2, 3) and dims_of("int64[]") == () == dims_of("rubbish")
    sizes = {"float[2,3]": 24, "int64[2]": 16, "float16[3]": 6, "uint8[5]": 5, "bool[2]": 2}
    assert {text: bytes_of(text) for text in sizes} == sizes


NODES = (
    NodeName("conv", "Conv", ("x", "w"), ("c",)),
    NodeName("norm", "BatchNormalization", ("c", "s"), ("n",)),
    NodeName("relu", "Relu", ("n",), ("r",)),
    NodeName("conv2", "Conv", ("r", "w2"), ("c2",)),
    NodeName("sum", "Add", ("c2", "x"), ("t",)),
    NodeName("last", "Relu", ("t",), ("z",)),
    NodeName("shape", "Shape", ("z",), ("sz",)),
)


def names(*kernels: tuple[str, str]) -> list[tuple[str, ...]]:
    return nodes_of([Kernel(name, op, (), ()) for name, op in kernels], NODES)


def test_a_kernel_is_mapped_to_the_nodes_that_were_fused_into_it() -> None:
    found = names(
        ("r_nchwc", "Conv.nchwc"), ("ReorderOutput", "ReorderOutput"), ("c2_nchwc", "Conv.nchwc")
    )
    assert found == [("conv", "norm", "relu"), (), ("conv2", "sum", "last")]


@pytest.mark.parametrize("name", ["conv", "fused conv", "conv_token_12", "c_nchwc"])
def test_names_that_fusions_give_lead_back_to_the_node(name: str) -> None:
    assert names((name, "FusedConv"), ("last", "Relu"))[0][0] == "conv"


def test_names_that_tell_nothing_stay_unmapped_and_no_node_is_given_twice() -> None:
    found = names(("elsewhere", "Gelu"), ("conv", "Conv"), ("relu", "Relu"), ("last", "Relu"))
    assert found == [(), ("conv", "norm"), ("relu",), ("last",)]


# Inputs and files

INPUTS = (Input("x", "tensor(float)", ("N", 3)), Input("ids", "tensor(int64)", (1, None)))


def test_open_dimensions_are_one_unless_a_batch_or_a_shape_is_given() -> None:
    assert input_shapes(INPUTS, {}, None) == {"x": (1, 3), "ids": (1, 1)}
    assert input_shapes(INPUTS[:1], {}, 7) == {"x": (7, 3)}
    assert input_shapes(INPUTS, {"ids": (1, 9)}, None)["ids"] == (1, 9)
    feeds = drawn(INPUTS, input_shapes(INPUTS, {}, None))
    assert feeds["x"].dtype == np.float32 and feeds["ids"].tolist() == [[1]]


@pytest.mark.parametrize(
    ("given", "batch", "said"),
    [
        ({"y": (1,)}, None, "no input 'y'"),
        ({"x": (1, 4)}, None, "cannot have the shape [1, 4]"),
        ({"x": (1, 3, 1)}, None, "cannot have the shape"),
        ({}, 2, "'ids' cannot have the shape [2, 1]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    given: dict[str, tuple[int, ...]], batch: int | None, said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        input_shapes(INPUTS, given, batch)
    assert said in str(caught.value)


def test_inputs_that_cannot_be_drawn_or_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be drawn"):
        drawn([Input("s", "tensor(string)", ())], {"s": ()})
    np.savez(tmp_path / "a.npz", x=np.ones(3))
    with pytest.raises(UsageError, match="no array 'ids'"):
        read_feeds(tmp_path / "a.npz", INPUTS)
    (tmp_path / "b.npz").write_text("rubbish")
    with pytest.raises(UsageError, match="cannot read"):
        read_feeds(tmp_path / "b.npz", INPUTS)


def test_a_profile_is_the_same_when_it_is_read_again(tmp_path: Path) -> None:
    made = profiles.profile()
    write_json(made, tmp_path / "p.json")
    assert read_profile(tmp_path / "p.json") == made
    assert as_json(made) == (tmp_path / "p.json").read_text()


def test_every_field_of_a_profile_is_in_the_schema_and_the_schema_holds(tmp_path: Path) -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    path = Path(onnxopt.__file__).parent / "report" / "profile_schema.json"
    schema = json.loads(path.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    measured = measure(written(residual(), tmp_path / "m.onnx"), SHORT)
    for made in (profiles.profile(), measured):
        data = json.loads(as_json(made))
        jsonschema.validate(data, schema)
        assert set(data) == set(schema["properties"]) == set(schema["required"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**data, "extra": 1}, schema)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(schema="onnxopt-profile/9"), "of the kind onnxopt-profile/9"),
        (lambda d: d.pop("schema"), "of no known kind"),
        (lambda d: d.pop("kernels"), "no 'kernels'"),
        (lambda d: d["settings"].update(threads="two"), "settings.threads is no whole number"),
        (lambda d: d["kernels"][0].update(us=-1), "negative or endless"),
    ],
)
def test_files_that_are_no_profile_are_refused_with_the_place(
    change: Any, said: str, tmp_path: Path
) -> None:
    data = json.loads(as_json(profiles.profile()))
    change(data)
    (tmp_path / "p.json").write_text(json.dumps(data))
    with pytest.raises(UsageError) as caught:
        read_profile(tmp_path / "p.json")
    assert said in str(caught.value)


def test_a_missing_and_a_broken_profile_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        read_profile(tmp_path / "p.json")
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(UsageError, match="it is no JSON"):
        read_profile(tmp_path / "p.json")


def test_a_kit_may_not_name_files_outside_of_its_folder(tmp_path: Path) -> None:
    written(residual(), tmp_path / "m.onnx")
    kit: dict[str, Any] = {
        "schema": "onnxopt-kit/2",
        "source": "",
        "shapes": {},
        "nodes": None,
        "layers": [],
        "blocks": [],
    }
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / LIST).write_text(json.dumps({**kit, "model": "../m.onnx"}))
    with pytest.raises(UsageError, match="which is not in it"):
        read_kit(tmp_path / "kit")


# Real runs, by structure


def test_the_chain_of_smallest_kernels_is_a_model_that_runs(tmp_path: Path) -> None:
    proto = onnx.load_from_string(chain(40))
    onnx.checker.check_model(proto, full_check=True)
    assert len(proto.graph.node) == 40
    session = Measured(written(proto, tmp_path / "c.onnx"), threads=1)
    session.run({"v0": np.ones(1, np.float32)})


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    folder = tmp_path_factory.mktemp("measured")
    return measure(written(residual(), folder / "m.onnx"), replace(SHORT, batch=2))


def test_kernels_and_the_call_add_up_to_the_steady_state(measured: Profile) -> None:
    total = sum(kernel.us for kernel in measured.kernels) + measured.overhead.run_us
    assert sum(kernel.share for kernel in measured.kernels) < 1 + 1e-9
    assert math.isclose(
        sum(k.share for k in measured.kernels) + measured.overhead.run_us / total, 1, rel_tol=1e-6
    )
    assert all(kernel.us > 0 for kernel in measured.kernels)


def test_a_profile_says_where_and_how_it_was_measured(measured: Profile) -> None:
    assert measured.settings.shapes == {"x": (2, 16, 8, 8)}
    assert measured.settings.rounds >= 3 and measured.settings.provider == CPU
    for times in (measured.load_ms, measured.first_ms, measured.steady_ms):
        assert 0 < times.low <= times.median <= times.high and times.count >= 2
    assert measured.mapped_share is None  # nobody gave it names of nodes
    text = plain_text(measured)
    assert "steady state" in text and "against itself" in text


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_is_that_of_a_process_of_its_own(tmp_path: Path) -> None:
    model = written(residual(), tmp_path / "m.onnx")
    np.savez(tmp_path / "f.npz", x=np.ones((1, 16, 8, 8), np.float32))
    found = peak_memory(model, tmp_path / "f.npz", threads=1, provider=CPU)
    assert found.peak_bytes is not None and found.peak_bytes > 0
    assert "VmHWM" in found.how
    broken = peak_memory(tmp_path / "none", tmp_path / "f.npz", threads=1, provider=CPU)
    assert broken.peak_bytes is None and "not measured" in broken.how


def test_models_that_do_not_load_or_run_end_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"rubbish")
    with pytest.raises(MeasureError, match="cannot load"):
        measure(tmp_path / "bad.onnx", SHORT)
    with pytest.raises(UsageError, match="no provider 'Nonsense'"):
        measure(written(residual(), tmp_path / "m.onnx"), replace(SHORT, provider="Nonsense"))
    np.savez(tmp_path / "f.npz", x=np.ones((1, 3, 8, 8), np.float32))
    with pytest.raises(MeasureError, match="does not run on these inputs"):
        measure(tmp_path / "m.onnx", replace(SHORT, inputs=tmp_path / "f.npz"))


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"batch": 0}, {"seconds": 0.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Asked(**wrong)
