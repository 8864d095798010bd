"""Files of arrays become requests; runs become summaries, traces and arrays."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from splits import (
    CUTS_OF_TWO_BRANCHES,
    feeds_of_two_branches,
    two_branches,
    whole,
    write_split,
)

from onnxopt.errors import UsageError
from onnxopt.splitting.client import SplitClient
from onnxopt.splitting.manifest import Port
from onnxopt.splitting.requests import read_requests
from onnxopt.splitting.running import joined, run_all

X = Port("x", "float32", ("N", 2), 8)
FIXED = Port("x", "float32", (2, 2), 16)
SCALAR = Port("s", "int64", (), 8)
TABLE = Port("table", "int64", (3,), 24)


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "x.npz", **arrays)
    return folder / "x.npz"


def shapes(requests: Any) -> list[dict[str, tuple[int, ...]]]:
    return [{name: a.shape for name, a in feeds.items()} for feeds in requests]


def test_samples_along_the_first_axis_are_one_request_each(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(10, dtype=np.float32).reshape(5, 2))
    requests = read_requests(tmp_path / "x.npy", [X])
    assert len(requests) == 5 and shapes(requests) == [{"x": (1, 2)}] * 5
    assert [float(feeds["x"][0, 0]) for feeds in requests] == [0, 2, 4, 6, 8]
    assert [*requests][1]["x"].flags["C_CONTIGUOUS"]


def test_a_request_takes_as_many_samples_as_the_model_or_as_asked_for(tmp_path: Path) -> None:
    file = saved(tmp_path, x=np.zeros((6, 2), np.float32), labels=np.zeros(6))
    assert shapes(read_requests(file, [FIXED], batch=3)) == [{"x": (2, 2)}] * 3
    assert shapes(read_requests(file, [X], batch=3)) == [{"x": (3, 2)}] * 2
    assert shapes(read_requests(file, [X], batch=4)) == [{"x": (4, 2)}, {"x": (2, 2)}]
    with pytest.raises(UsageError, match="holds 6 samples, but a request takes 4"):
        read_requests(file, [Port("x", "float32", (4, 2), 32)])


def test_what_is_enough_for_one_request_goes_with_all(tmp_path: Path) -> None:
    file = saved(tmp_path, x=np.zeros((2, 2)), s=np.int32(7), table=np.arange(3))
    requests = read_requests(file, [X, SCALAR, TABLE])
    assert shapes(requests) == [{"x": (1, 2), "s": (), "table": (3,)}] * 2
    assert all(feeds["s"] == 7 and feeds["x"].dtype == np.float32 for feeds in requests)


def test_a_single_sample_needs_no_axis_for_it(tmp_path: Path) -> None:
    file = saved(tmp_path, x=np.zeros(2, np.float32))
    assert shapes(read_requests(file, [X])) == [{"x": (1, 2)}]


def test_the_files_of_a_folder_are_taken_in_order(tmp_path: Path) -> None:
    for number in (2, 10, 1):
        np.save(tmp_path / f"{number:02d}.npy", np.full((number, 2), number, np.float32))
    (tmp_path / "notes.txt").write_text("no array")
    requests = read_requests(tmp_path, [X])
    assert [float(feeds["x"][0, 0]) for feeds in requests] == [1] + [2] * 2 + [10] * 10


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.zeros((2, 3), np.float32)}, "a sample in"),
        ({"x": np.zeros((0, 2), np.float32)}, "holds 0 samples"),
        ({"x": np.array([["a", "b"]])}, "x"),
        ({"z": np.zeros((1, 2)), "y": np.zeros(1)}, "the model's inputs are 'x'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        list(read_requests(saved(tmp_path, **arrays), [X]))


def test_what_is_no_file_of_arrays_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("no array")
    (tmp_path / "bad.npy").write_text("no array")
    (tmp_path / "empty").mkdir()
    for name in ("none.npy", "x.txt", "bad.npy", "empty"):
        with pytest.raises(UsageError):
            read_requests(tmp_path / name, [X])


def test_inputs_for_another_number_of_requests_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, x=np.zeros((4, 2)), z=np.zeros((3, 2)))
    with pytest.raises(UsageError, match=r"'z' .* is enough for 3 requests, not 4"):
        read_requests(file, [X, Port("z", "float32", ("N", 2), 8)])


def test_a_run_adds_up(tmp_path: Path) -> None:
    write_split(tmp_path, two_branches(), CUTS_OF_TWO_BRANCHES)
    feeds = [feeds_of_two_branches(seed, 1) for seed in range(4)]
    trace = io.StringIO()
    with SplitClient(tmp_path, None) as client:
        ran = run_all(client, feeds, 4, edge=None, repeat=3, trace=trace)
    assert ran.summary.requests == len(ran.timings) == 12 and len(ran.outputs) == 4
    assert ran.summary.cuts == {"cut04": 12} and not ran.summary.failures
    total, device = (ran.summary.latency[part] for part in ("total", "device"))
    assert 0 < device.median_ms <= total.median_ms <= total.p99_ms <= total.max_ms
    lines = [json.loads(line) for line in trace.getvalue().splitlines()]
    assert [line["request"] for line in lines] == list(range(1, 13))
    assert [line["at_ms"] for line in lines] == sorted(line["at_ms"] for line in lines)
    assert lines[0]["cut"] == "cut04" and lines[0]["failure"] is None
    expected = [whole(two_branches(), feed) for feed in feeds]
    found = joined(ran.outputs)
    assert {name: array.shape for name, array in found.items()} == dict.fromkeys(found, (4, 4))
    assert np.array_equal(found["y"], np.concatenate([values["y"] for values in expected]))


def test_outputs_of_odd_shapes_are_joined_or_refused() -> None:
    scalars = [{"y": np.float32(1)}, {"y": np.float32(2)}]
    assert joined(scalars)["y"].tolist() == [1, 2]
    with pytest.raises(UsageError, match="cannot be one array"):
        joined([{"y": np.zeros((1, 2))}, {"y": np.zeros((1, 3))}])
    assert joined([]) == {}


def test_no_requests_are_refused(tmp_path: Path) -> None:
    write_split(tmp_path, two_branches(), CUTS_OF_TWO_BRANCHES)
    with SplitClient(tmp_path, None) as client, pytest.raises(UsageError, match="no requests"):
        run_all(client, [], 0, edge=None)
