"""The server of edge halves: what it answers, and that nothing a client does stops it."""

from __future__ import annotations

import gc
import json
import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edges import Slow, connected, exchanged, malformed, oversized, post, until
from splits import (
    CUTS_OF_TWO_BRANCHES,
    feeds_of_two_branches,
    two_branches,
    whole,
    write_split,
)

from onnxopt.errors import UsageError
from onnxopt.splitting.chain import Chain
from onnxopt.splitting.connection import Connection
from onnxopt.splitting.endpoint import Endpoint
from onnxopt.splitting.folder import read_manifest, split_digest
from onnxopt.splitting.http_head import Head
from onnxopt.splitting.limits import Limits
from onnxopt.splitting.protocol import JSON_LENGTH, decode_response, encode_request
from onnxopt.splitting.server import EdgeServer, serving

INFER = "/v2/models/tiny.cut01/infer"
QUICK = Limits(head_s=0.3, body_s=0.3, body_bytes_per_s=10**9, leaving_s=0.3, grace_s=0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    write_split(folder, two_branches(), CUTS_OF_TWO_BRANCHES)
    return folder


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with serving(EdgeServer(Endpoint(folder), port=0)) as url:
        yield url


def hung_up(sock: socket.socket) -> bool:
    try:
        return sock.recv(1000) == b""
    except ConnectionError:
        return True


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.loads(answer.read())


def good_request(folder: Path, cut: int = 1, seed: int = 0) -> bytes:
    """A request as the device sends it."""
    manifest = read_manifest(folder)
    chain = Chain(folder, manifest)
    wire = chain.encode(cut, chain.run(0, cut, feeds_of_two_branches(seed)))
    message = encode_request(wire, [], id="1", split=split_digest(manifest))
    body = message.header + b"".join(message.data)
    lines = [
        f"{name}: {value}" for name, value in message.headers.items() if name != "Content-Length"
    ]
    return post(f"/v2/models/tiny.cut{cut:02d}/infer", body, *lines)


def answer_of(said: bytes, folder: Path, cut: int = 1) -> dict[str, Any]:
    """The outputs in the bytes of an answer."""
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), said[:300]
    lengths = [line for line in head.split(b"\r\n") if line.startswith(JSON_LENGTH.encode())]
    length = int(lengths[0].split()[1]) if lengths else None
    outputs = Endpoint(folder).halves[f"tiny.cut{cut:02d}"].outputs
    return decode_response(memoryview(body), length, outputs, "1")


def assert_answers(url: str, folder: Path) -> None:
    """The server is well: it takes a good request, and makes of it what the model does."""
    found = answer_of(exchanged(url, good_request(folder)), folder)
    expected = whole(two_branches(), feeds_of_two_branches(0))
    for name, array in found.items():
        assert np.array_equal(array, expected[name])


def test_health_and_metadata_are_those_of_the_protocol(url: str) -> None:
    assert get(f"{url}/v2/health/live") == {"live": True}
    assert get(f"{url}/v2/health/ready") == {"ready": True}
    server = get(f"{url}/v2")
    assert server["extensions"] == ["binary_tensor_data"]
    assert server["models"] == [f"tiny.cut0{cut}" for cut in range(4)]
    model = get(f"{url}/v2/models/tiny.cut02")
    assert model == get(f"{url}/v2/models/tiny.cut02/versions/1")
    assert model["inputs"] == [
        {"name": "b", "datatype": "FP32", "shape": [-1, 4]},
        {"name": "x", "datatype": "FP32", "shape": [-1, 4]},
    ]
    assert [port["name"] for port in model["outputs"]] == ["y", "positive"]
    assert get(f"{url}/v2/models/tiny.cut02/ready") == {"name": "tiny.cut02", "ready": True}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/v2/models/tiny.cut04", 404),
        ("/v2/models/tiny.cut01/versions/2", 404),
        ("/v2/models/../../etc/passwd", 404),
        (INFER, 404),
    ],
)
def test_what_is_not_there_is_not_found(url: str, path: str, status: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as raised:
        get(url + path)
    assert raised.value.code == status
    assert "error" in json.loads(raised.value.read())
    raised.value.close()


@pytest.mark.parametrize("cut", range(4))
def test_each_cut_is_a_model_that_makes_what_the_whole_makes(
    url: str, folder: Path, cut: int
) -> None:
    for seed in range(3):
        found = answer_of(exchanged(url, good_request(folder, cut, seed)), folder, cut)
        expected = whole(two_branches(), feeds_of_two_branches(seed))
        assert found and all(np.array_equal(found[name], expected[name]) for name in found)


def test_a_client_without_binary_data_is_served_in_json(url: str, folder: Path) -> None:
    feeds = feeds_of_two_branches(0)
    names = {"x": "FP32", "order": "INT64"}
    inputs = [
        {"name": n, "shape": [*feeds[n].shape], "datatype": kind, "data": feeds[n].tolist()}
        for n, kind in names.items()
    ]
    body = json.dumps({"inputs": inputs, "outputs": [{"name": "positive"}]}).encode()
    said = exchanged(url, post("/v2/models/tiny.cut00/infer", body))
    (output,) = json.loads(said.partition(b"\r\n\r\n")[2])["outputs"]
    assert output["datatype"] == "BOOL" and output["shape"] == [3, 4]
    assert output["data"] == whole(two_branches(), feeds)["positive"].reshape(-1).tolist()


def test_requests_in_a_row_on_one_connection_are_answered_in_order(url: str, folder: Path) -> None:
    last = good_request(folder).replace(b"Host: x", b"Connection: close")
    said = exchanged(url, good_request(folder) * 3 + b"GET /v2 HTTP/1.1\r\n\r\n" * 2 + last)
    assert said.count(b"HTTP/1.1 200 OK") == 6


def test_a_client_that_asks_before_it_sends_is_told_to(url: str, folder: Path) -> None:
    head, _, body = good_request(folder).partition(b"\r\n\r\n")
    with connected(url) as sock:
        sock.sendall(head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_the_half_of_another_split_is_refused(folder: Path, url: str) -> None:
    digest = split_digest(read_manifest(folder)).encode()
    said = exchanged(url, good_request(folder).replace(digest, b"0" * len(digest)))
    assert said.startswith(b"HTTP/1.1 409 ") and b"another model, or of another split" in said


def test_inputs_that_the_model_cannot_run_on_end_in_an_error_not_in_the_server(
    url: str, folder: Path
) -> None:
    bad = [
        {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]},
        {"name": "order", "shape": [4], "datatype": "INT64", "data": [9, 9, 9, 9]},
    ]
    said = exchanged(url, post("/v2/models/tiny.cut00/infer", json.dumps({"inputs": bad}).encode()))
    assert said.startswith(b"HTTP/1.1 400 ") and b"does not run on these inputs" in said
    assert_answers(url, folder)


def test_a_bug_of_ours_ends_in_500_not_in_the_server(
    url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Chain, "edge", lambda *_: 1 / 0)
        said = exchanged(url, good_request(folder))
    assert said.startswith(b"HTTP/1.1 500 ") and b"ZeroDivisionError" in said
    assert_answers(url, folder)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST %s HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
        (b"POST %s HTTP/1.1\r\nContent-Length: 5000000\r\n\r\n", b"413"),
        (
            b"POST %s HTTP/1.1\r\nContent-Length: 99999999\r\n"
            b"Inference-Header-Content-Length: 99999998\r\n\r\n",
            b"413",
        ),
        (b"PUT %s HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"405"),
        (b"POST %s/x HTTP/1.1\r\nContent-Length: 1\r\n\r\n", b"404"),
        (b"GET %s HTTP/1.1\r\nContent-Length: 5\r\n\r\n", b"400"),
    ],
)
def test_a_request_is_refused_before_its_body_is_read(url: str, head: bytes, status: bytes) -> None:
    with connected(url) as sock:
        sock.sendall(head.replace(b"%s", INFER.encode()))
        assert sock.recv(1000).startswith(b"HTTP/1.1 " + status)


def test_a_body_larger_than_fixed_shapes_take_is_refused_before_it_is_read(tmp_path: Path) -> None:
    proto = two_branches()
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_value = dim.dim_value or 3
    write_split(tmp_path, proto, CUTS_OF_TWO_BRANCHES)
    endpoint = Endpoint(tmp_path, limits=Limits(json_bytes=1000))
    assert endpoint.halves["tiny.cut00"].wire_bytes == 3 * 4 * 4 + 4 * 8
    fits = Head("POST", "/v2/models/tiny.cut00/infer", 1080, 100, True, False)
    assert endpoint.half_for(fits).cut == 0
    with pytest.raises(Exception, match="larger than 1080 bytes"):
        endpoint.half_for(replace(fits, length=1081))


def test_only_the_cuts_that_are_asked_for_are_served_and_loaded(folder: Path) -> None:
    endpoint = Endpoint(folder, cuts=[2])
    assert [*endpoint.halves] == ["tiny.cut02"]
    for cut in (-1, 4):
        with pytest.raises(UsageError, match="nothing to do"):
            Endpoint(folder, cuts=[cut])


def test_malformed_requests_leave_the_server_answering(url: str, folder: Path) -> None:
    for raw in malformed(good_request(folder), 300):
        said = exchanged(url, raw)
        assert not said or said.startswith(b"HTTP/1.1 "), said
        assert not said.startswith(b"HTTP/1.1 500"), said
    assert_answers(url, folder)


def test_oversized_requests_leave_the_server_answering(url: str, folder: Path) -> None:
    for raw in oversized(INFER, 50):
        assert exchanged(url, raw)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 413", b"HTTP/1.1 431")
    assert_answers(url, folder)


def test_slow_clients_are_hung_up_on_and_the_others_served_meanwhile(folder: Path) -> None:
    with serving(EdgeServer(Endpoint(folder, limits=QUICK), port=0)) as url:
        slow = Slow(
            url, [good_request(folder)] * 30 + [b"GET /v2 HTTP/1.1\r\nA: " + b"b" * 9999] * 30
        )
        slow.step()
        assert_answers(url, folder)

        def all_gone() -> bool:
            slow.step()
            return not slow.left

        until(all_gone)
        assert slow.hung_up == 60
        assert_answers(url, folder)
        slow.close()


def test_a_slow_client_is_told_why(folder: Path) -> None:
    server = EdgeServer(Endpoint(folder, limits=QUICK), port=0)
    with serving(server) as url, connected(url) as sock:
        sock.sendall(good_request(folder)[:-1])
        assert sock.recv(1000).startswith(b"HTTP/1.1 408 Request Timeout")


def test_when_there_are_too_many_connections_the_oldest_one_that_waits_goes(folder: Path) -> None:
    limits = replace(QUICK, connections=5, grace_s=0.0, idle_s=60)
    with serving(EdgeServer(Endpoint(folder, limits=limits), port=0)) as url:
        idle = [connected(url) for _ in range(5)]
        for sock in idle:
            sock.sendall(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 200")
        assert_answers(url, folder)
        assert hung_up(idle[0])
        idle[-1].sendall(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
        assert idle[-1].recv(1000).startswith(b"HTTP/1.1 200")
        for sock in idle:
            sock.close()


def test_where_nobody_may_be_given_up_another_connection_is_refused(folder: Path) -> None:
    limits = replace(QUICK, connections=1, grace_s=60, idle_s=60)
    server = EdgeServer(Endpoint(folder, limits=limits), port=0)
    with serving(server) as url, connected(url) as first:
        first.sendall(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
        assert first.recv(1000).startswith(b"HTTP/1.1 200")
        with connected(url) as second:
            assert second.recv(1000).startswith(b"HTTP/1.1 503 ")


def test_bodies_in_flight_are_bounded_and_the_slowest_sender_makes_room(folder: Path) -> None:
    request = good_request(folder)
    size = len(request.partition(b"\r\n\r\n")[2])
    limits = replace(QUICK, received_bytes=2 * size, body_s=60, grace_s=0.0)
    server = EdgeServer(Endpoint(folder, limits=limits), port=0)
    with serving(server) as url, connected(url) as slow, connected(url) as slower:
        slow.sendall(request[:-1])
        slower.sendall(request[:-size])
        until(lambda: get(f"{url}/v2/health/live") == {"live": True})
        assert_answers(url, folder)
        assert hung_up(slower)
        slow.sendall(request[-1:])
        assert slow.recv(1000).startswith(b"HTTP/1.1 200")
    limits = replace(QUICK, received_bytes=size - 1)
    with serving(EdgeServer(Endpoint(folder, limits=limits), port=0)) as url:
        assert exchanged(url, request).startswith(b"HTTP/1.1 503 ")


class Gate:
    """Holds computing until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        edge = Chain.edge

        def held(chain: Chain, cut: int, wire: Mapping[str, Any]) -> dict[str, Any]:
            self.entered.release()
            assert self.open.wait(60)
            return edge(chain, cut, wire)

        monkeypatch.setattr(Chain, "edge", held)


def test_more_requests_than_may_wait_are_told_to_come_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    server = EdgeServer(Endpoint(folder, limits=Limits(waiting=2)), port=0)
    with serving(server) as url, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(exchanged, url, good_request(folder)) for _ in range(6)]
        until(lambda: sum(answer.done() for answer in answers) == 3)
        gate.open.set()
        said = sorted(answer.result()[:12] for answer in answers)
    assert said == [b"HTTP/1.1 200"] * 3 + [b"HTTP/1.1 503"] * 3


def test_a_request_whose_client_went_away_is_not_computed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    server = EdgeServer(Endpoint(folder), port=0)
    with serving(server) as url, ThreadPoolExecutor(1) as pool:
        first = pool.submit(exchanged, url, good_request(folder))
        assert gate.entered.acquire(timeout=60)
        with connected(url) as gone:
            gone.sendall(good_request(folder))
            until(lambda: server.held_requests == 2)
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        until(lambda: server.open_connections == 1)
        gate.open.set()
        assert first.result().startswith(b"HTTP/1.1 200")
        until(lambda: server.held_requests == 0)
    assert not gate.entered.acquire(blocking=False)


def test_when_it_stops_what_runs_is_finished_and_nothing_new_is_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    server = EdgeServer(Endpoint(folder), port=0)
    with ThreadPoolExecutor(1) as pool, serving(server) as url:
        running = pool.submit(exchanged, url, good_request(folder))
        assert gate.entered.acquire(timeout=60)
        idle = connected(url)
        until(lambda: server.open_connections == 2)
        server.stop()
        assert hung_up(idle)
        until(lambda: _refuses(url))
        gate.open.set()
        said = running.result(timeout=60)
    assert b"Connection: close" in said and answer_of(said, folder)
    idle.close()


def _refuses(url: str) -> bool:
    try:
        connected(url).close()
    except ConnectionError:
        return True
    return False


def test_the_log_says_what_was_asked_and_how_long_it_took(folder: Path) -> None:
    log: list[Mapping[str, object]] = []
    with serving(EdgeServer(Endpoint(folder), port=0, log=log.append)) as url:
        assert_answers(url, folder)
        exchanged(url, b"rubbish\r\n\r\n")
    assert [entry["event"] for entry in log] == ["ready", "request", "refused", "stopped"]
    request = log[1]
    assert request["model"] == "tiny.cut01" and request["status"] == 200
    times = [request[key] for key in ("compute_ms", "edge_ms")]
    assert all(isinstance(time, float) and time > 0 for time in times)
    json.dumps(log)


def test_the_server_says_how_long_it_took_in_the_answer(url: str, folder: Path) -> None:
    said = exchanged(url, good_request(folder))
    assert b"\r\nServer-Timing: edge;dur=" in said and b", compute;dur=" in said


def test_an_address_that_is_taken_is_said(url: str, folder: Path) -> None:
    taken = int(url.rpartition(":")[2])
    second = serving(EdgeServer(Endpoint(folder), port=taken))
    with pytest.raises(UsageError, match=f"cannot listen at 127.0.0.1:{taken}"):
        second.__enter__()


def test_connections_that_are_gone_leave_nothing_behind(url: str, folder: Path) -> None:
    def connections() -> int:
        gc.collect()
        return sum(isinstance(thing, Connection) for thing in gc.get_objects())

    before = connections()
    for _ in range(20):
        assert_answers(url, folder)
    until(lambda: connections() <= before)
