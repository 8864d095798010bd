"""`onnxopt split serve` and `onnxopt split run`, as a user types them."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from edges import Process
from splits import (
    CUTS_OF_TWO_BRANCHES,
    feeds_of_two_branches,
    two_branches,
    whole,
    write_split,
)

from onnxopt.cli.main import run
from onnxopt.splitting.endpoint import Endpoint
from onnxopt.splitting.server import EdgeServer, serving

FEEDS = feeds_of_two_branches(0, 6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_split(tmp_path / "out", two_branches(), CUTS_OF_TWO_BRANCHES)
    return tmp_path / "out"


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", allow_pickle=False, **FEEDS)
    return tmp_path / "x.npz"


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with serving(EdgeServer(Endpoint(folder), port=0)) as url:
        yield url


@pytest.mark.parametrize("command", ["serve", "run"])
def test_the_help_teaches_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["split", command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"  onnxopt split {command} OUT/" in text and "Exit codes" in text


def test_a_run_tells_where_the_time_went_and_writes_what_came_out(
    folder: Path, samples: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, trace = tmp_path / "y.npz", tmp_path / "t.jsonl"
    options = ("--repeat", "3", "-o", str(output), "--trace", str(trace))
    assert run(["split", "run", str(folder), "--edge", url, "-i", str(samples), *options]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for said in ("median", "device: computing here", "wire: there and back", "18 requests"):
        assert said in text
    assert "cut01 18 times" in text and "finished on this machine" not in text
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    assert len(lines) == 18 and all(line["edge_ms"] > 0 for line in lines)
    expected = whole(two_branches(), FEEDS)
    with np.load(output) as found:
        assert {name: found[name].shape for name in found} == dict.fromkeys(expected, (6, 4))
        np.testing.assert_array_equal(found["y"], expected["y"])


def test_a_run_that_never_asks_the_edge_says_so(
    folder: Path, samples: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    last = f"cut{len(CUTS_OF_TWO_BRANCHES) + 1:02d}"
    command = ["split", "run", str(folder), "--edge", url, "-i", str(samples)]
    assert run([*command, "--cut", last]) == 0
    assert "nothing was sent: all of it ran on this machine" in capsys.readouterr().out
    assert run(command) == 0
    assert "nothing was sent" not in capsys.readouterr().out


def test_json_is_all_that_is_printed(
    folder: Path, samples: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["split", "run", str(folder), "--edge", url, "-i", str(samples)]
    assert run([*command, "--cut", "cut02", "--batch", "2", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["schema"] == "onnxopt-split-run/1" and data["cuts"] == {"cut02": 3}
    assert {*data["latency"]} == {"total", "device", "wire", "edge"}
    assert run([*command, "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_all_can_run_here_and_must_where_nobody_answers(
    folder: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["split", "run", str(folder), "-i", str(samples)]
    assert run([*command, "--local"]) == 0
    assert "all on this machine" in capsys.readouterr().out
    with serving(EdgeServer(Endpoint(folder), port=0)) as gone:
        pass
    assert run([*command, "--edge", gone]) == 0
    text = capsys.readouterr().out
    assert "6 requests were finished on this machine" in text and "refused" in text
    assert run([*command, "--edge", gone, "--fallback", "off"]) == 1
    assert "error: the edge does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give either --edge URL or --local"),
        (["--local", "--edge", "http://x"], "give either --edge URL or --local"),
        (["--local", "--cut", "cut01"], "--local runs all here"),
        (["--local", "--adaptive"], "--adaptive chooses the cut"),
        (["--local", "--fallback", "off"], "--fallback is for when the edge fails"),
        (["--edge", "x"], "no URL of an edge"),
        (["--edge", "http://x", "--cut", "cut7"], "no cut 'cut7'"),
        (["--edge", "http://x", "--adaptive"], "split without a plan"),
        (["--local", "-o", "nowhere/y.npz"], "no folder"),
        (["--local", "--trace", "nowhere/t"], "no folder"),
    ],
)
def test_mistakes_end_in_one_line(
    options: list[str],
    said: str,
    folder: Path,
    samples: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["split", "run", str(folder), "-i", str(samples), *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and said in err


def test_a_folder_that_is_none_is_said_by_both(
    tmp_path: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["split", "run", str(tmp_path), "--local", "-i", str(samples)]) == 2
    assert run(["split", "serve", str(tmp_path)]) == 2
    assert run(["split", "serve", str(tmp_path / "none")]) == 2
    assert run(["split", "run", str(tmp_path), "--local"]) == 2
    assert "there is nothing to run" in capsys.readouterr().err


def test_a_cut_or_a_port_that_cannot_be_served_is_said(
    folder: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["split", "serve", str(folder), "--cut", "cut04"]) == 2
    assert run(["split", "serve", str(folder), "--port", url.rpartition(":")[2]]) == 2
    err = capsys.readouterr().err
    assert "the edge has nothing to do at cut 4" in err and "cannot listen" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_stops_at_a_signal_and_says_what_it_did(
    folder: Path, samples: Path, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    edge = Process(folder, "--log", "--cut", "cut01")
    assert run(["split", "run", str(folder), "--edge", edge.url, "-i", str(samples), "-q"]) == 0
    code, said = edge.end(number)
    assert code == 0
    log = [json.loads(line) for line in said.splitlines()]
    assert [entry["event"] for entry in log] == ["ready", *["request"] * 6, "stopped"]
    assert log[0]["models"] == ["tiny.cut01"] and log[1]["status"] == 200
