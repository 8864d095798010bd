"""The device's side: whatever the edge does, each request gets the answer of the whole model."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import pytest
from edges import until
from splits import (
    CUTS_OF_TWO_BRANCHES,
    feeds_of_two_branches,
    two_branches,
    whole,
    write_split,
)

from onnxopt.errors import UsageError
from onnxopt.signature import Array
from onnxopt.splitting import availability
from onnxopt.splitting.availability import Availability
from onnxopt.splitting.chain import Chain
from onnxopt.splitting.client import Fallback, SplitClient
from onnxopt.splitting.edge import EdgeFailed, EdgeRefused, Reply
from onnxopt.splitting.edge_http import HttpEdge
from onnxopt.splitting.endpoint import Endpoint
from onnxopt.splitting.manifest import Port
from onnxopt.splitting.protocol import encode_response
from onnxopt.splitting.server import EdgeServer, serving

Y = Port("y", "float32", (2,), 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    write_split(folder, two_branches(), CUTS_OF_TWO_BRANCHES)
    return folder


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """An edge that failed is asked again at once."""
    monkeypatch.setattr(availability, "FIRST_S", 0.0)
    monkeypatch.setattr(availability, "TIMES_THE_COST", 0.0)


def served(folder: Path, port: int = 0) -> Any:
    return serving(EdgeServer(Endpoint(folder), port=port))


def assert_right(outputs: Mapping[str, Array], seed: int, tolerance: float = 0.0) -> None:
    expected = whole(two_branches(), feeds_of_two_branches(seed))
    assert [*outputs] == [*expected]
    for name, array in expected.items():
        np.testing.assert_allclose(outputs[name], array, tolerance, tolerance)


class Scripted:
    """An edge that does what it is told, one entry for each request."""

    def __init__(self, folder: Path, *script: str) -> None:
        self._endpoint = Endpoint(folder)
        self.script = [*script]
        self.asked: list[str] = []

    def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[Port], *, within_s: float
    ) -> Reply:
        self.asked.append(model)
        if (what := self.script.pop(0)) != "ok":
            raise EdgeRefused("no") if what == "refused" else EdgeFailed(what)
        half = self._endpoint.halves[model]
        found = self._endpoint._chain.edge(half.cut, inputs)
        return Reply(found, 0.001, None, 10, 20)

    def close(self) -> None:
        pass


class Noted:
    """Chooses as it is told, and notes what it hears."""

    def __init__(self, *cuts: int) -> None:
        self.cuts = [*cuts]
        self.allowed = tuple(dict.fromkeys(cuts))
        self.heard: list[object] = []

    def choose(self) -> int:
        return self.cuts.pop(0)

    def observe(self, **what: float) -> None:
        self.heard.append(what)

    def probed(self, size_bytes: float, wire_s: float) -> None:
        self.heard.append((size_bytes, wire_s))

    def failed(self) -> None:
        self.heard.append("failed")


@pytest.mark.parametrize("cut", range(5))
def test_every_cut_gives_what_the_whole_gives(folder: Path, cut: int) -> None:
    with served(folder) as url, SplitClient(folder, url, cut=cut) as client:
        for seed in range(3):
            answer = client.request(feeds_of_two_branches(seed))
            assert_right(answer.outputs, seed)
            t = answer.timings
            assert t.cut == cut and not t.failure
            assert t.total_s >= t.device_s + t.wire_s + t.edge_s > 0
            assert (t.sent_bytes > 0) == (cut < 4)


def test_a_codec_costs_what_it_costs_and_local_completion_costs_nothing(tmp_path: Path) -> None:
    write_split(tmp_path, two_branches(), CUTS_OF_TWO_BRANCHES, codec="fp16")
    edge = Scripted(tmp_path, "ok", "gone")
    with SplitClient(tmp_path, edge, cut=2) as client:
        coded = client.run(feeds_of_two_branches(0))
        assert_right(coded, 0, tolerance=2e-3)
        with pytest.raises(AssertionError):
            assert_right(coded, 0)
        assert_right(client.run(feeds_of_two_branches(0)), 0)


def test_without_an_edge_all_runs_here(folder: Path) -> None:
    with SplitClient(folder, None) as client:
        answer = client.request(feeds_of_two_branches(0))
    assert_right(answer.outputs, 0)
    assert answer.timings.cut == 4 and answer.timings.wire_s == 0


def test_what_an_edge_fails_at_is_finished_here_and_said(folder: Path, eager: None) -> None:
    edge = Scripted(folder, "ok", "it is late", "ok")
    with SplitClient(folder, edge, cut=1) as client:
        failures = []
        for seed in range(3):
            answer = client.request(feeds_of_two_branches(seed))
            assert_right(answer.outputs, seed)
            failures.append(answer.timings.failure)
    assert failures == ["", "it is late", ""]


def test_an_edge_that_failed_is_left_alone_for_a_while(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(availability, "TIMES_THE_COST", 0.0)
    edge = Scripted(folder, "gone", "ok", "gone", "ok")
    now = [100.0]
    with SplitClient(folder, edge, cut=1) as client:
        monkeypatch.setattr(client, "_availability", Availability(lambda: now[0]))
        for seed in range(4):
            assert_right(client.run(feeds_of_two_branches(seed)), seed)
        assert len(edge.asked) == 1
        for asked in (2, 3, 4):  # the answer in between makes the second pause a first one
            now[0] += 1.01 * availability.FIRST_S
            assert_right(client.run(feeds_of_two_branches(9)), 9)
            assert len(edge.asked) == asked


@pytest.mark.parametrize(
    ("took_s", "pauses"),
    [(0.0, [0.1, 0.2, 0.4, 0.8, 1, 1, 1]), (0.05, [0.5, 0.5, 0.5, 0.8, 1]), (9.0, [30, 30])],
)
def test_pauses_double_up_to_a_limit_but_waiting_in_vain_stays_rare(
    took_s: float, pauses: list[float]
) -> None:
    now = [0.0]
    edge = Availability(lambda: now[0])
    for pause in [*pauses, 0.0, *pauses]:  # an answer ends it
        if not pause:
            edge.answered()
            continue
        assert edge.worth_trying()
        edge.failed(took_s)
        now[0] += 0.99 * pause
        assert not edge.worth_trying()
        now[0] += 0.02 * pause


@pytest.mark.parametrize("fallback", ["ready", "lazy"])
def test_the_device_loads_what_it_needs_and_no_more(
    folder: Path, fallback: Fallback, eager: None
) -> None:
    with SplitClient(folder, Scripted(folder, "ok", "gone"), cut=2, fallback=fallback) as client:
        loaded = client.chain.loaded
        assert len(loaded) == (4 if fallback == "ready" else 2)
        client.run(feeds_of_two_branches(0))
        assert client.chain.loaded == loaded
        assert_right(client.run(feeds_of_two_branches(1)), 1)
        assert len(client.chain.loaded) == 4


def test_failures_are_raised_where_that_is_asked_for(folder: Path) -> None:
    edge = Scripted(folder, "it is late", "it is gone")
    with SplitClient(folder, edge, fallback="off") as client:
        for said in ("it is late", "it is gone"):
            with pytest.raises(EdgeFailed, match=said):
                client.run(feeds_of_two_branches(0))


def test_an_edge_that_serves_something_else_is_an_error_not_a_failure(
    folder: Path, tmp_path: Path
) -> None:
    with SplitClient(folder, Scripted(folder, "refused")) as client, pytest.raises(EdgeRefused):
        client.run(feeds_of_two_branches(0))
    proto = two_branches()
    proto.graph.node[4].op_type = "Mul"
    write_split(tmp_path, proto, CUTS_OF_TWO_BRANCHES)
    _assert_refused(folder, tmp_path, r"409: .*another split")
    write_split(tmp_path, two_branches(), CUTS_OF_TWO_BRANCHES, name="other")
    _assert_refused(folder, tmp_path, "404: there is no model")


def _assert_refused(device: Path, edge: Path, said: str) -> None:
    with served(edge) as url, SplitClient(device, url) as client:
        feeds = feeds_of_two_branches(0)
        with pytest.raises(EdgeRefused, match=said):
            client.run(feeds)


def test_a_device_that_alone_takes_longer_than_the_deadline_asks_nobody(folder: Path) -> None:
    edge = Scripted(folder)
    with SplitClient(folder, edge, cut=1, deadline_s=1e-9) as client:
        answer = client.request(feeds_of_two_branches(0))
    assert_right(answer.outputs, 0)
    assert "longer than the deadline" in answer.timings.failure and not edge.asked


def test_a_chooser_chooses_and_hears_what_came_of_it(folder: Path, eager: None) -> None:
    chooser = Noted(1, 3, 4, 0)
    with SplitClient(folder, Scripted(folder, "ok", "gone", "ok"), chooser=chooser) as client:
        for seed in range(4):
            assert_right(client.run(feeds_of_two_branches(seed)), seed)
    first, second, third, fourth = chooser.heard
    assert second == "failed"
    assert isinstance(first, dict) and isinstance(third, dict) and isinstance(fourth, dict)
    assert (first["cut"], first["bytes_sent"], first["bytes_received"]) == (1, 10, 20)
    assert first["wall_s"] >= first["edge_s"] > 0 and first["device_s"] > 0
    assert third["cut"] == 4 and third["bytes_sent"] == third["wall_s"] == 0
    assert fourth["cut"] == 0


def test_switching_the_cut_loads_nothing(folder: Path) -> None:
    cuts = [0, 3, 1, 4, 2] * 20
    with served(folder) as url, SplitClient(folder, url, chooser=Noted(*cuts)) as client:
        loaded = client.chain.loaded
        for seed, cut in enumerate(cuts):
            answer = client.request(feeds_of_two_branches(seed))
            assert_right(answer.outputs, seed)
            assert answer.timings.cut == cut and not answer.timings.failure
        assert client.chain.loaded == loaded


def test_an_edge_that_is_killed_and_comes_back_loses_nothing(folder: Path, eager: None) -> None:
    failed, port = 0, 0
    client: SplitClient | None = None
    for start in range(0, 60, 20):
        with served(folder, port) as url:
            port = int(url.rpartition(":")[2])
            client = client or SplitClient(folder, url, cut=1)
            for seed in range(start, start + 10):
                answer = client.request(feeds_of_two_branches(seed))
                assert_right(answer.outputs, seed)
                assert not answer.timings.failure
        for seed in range(start + 10, start + 20):
            answer = client.request(feeds_of_two_branches(seed))
            assert_right(answer.outputs, seed)
            failed += bool(answer.timings.failure)
    assert failed == 30
    assert client is not None
    client.close()


def test_wrong_feeds_are_refused_before_anything_runs(folder: Path) -> None:
    good = feeds_of_two_branches(0)
    with SplitClient(folder, None) as client:
        for feeds in (
            {"x": good["x"]},
            {**good, "z": good["x"]},
            {**good, "x": good["x"].astype(np.float64)},
            {**good, "x": good["x"][0]},
            {**good, "order": good["order"][:3]},
        ):
            with pytest.raises(UsageError):
                client.run(feeds)


def test_mistakes_in_making_a_client_are_said(folder: Path, tmp_path: Path) -> None:
    for url in ("edge:8000", "ftp://edge", "http://", "http://edge:x", "http://a/?b=c", "grpc://a"):
        with pytest.raises(UsageError):
            SplitClient(folder, url)
    with pytest.raises(UsageError, match="no cut 5"):
        SplitClient(folder, "http://edge", cut=5)
    with pytest.raises(UsageError, match="no folder"):
        SplitClient(tmp_path / "none", None)


def test_an_output_that_cannot_be_sent_back_is_refused_at_once(tmp_path: Path) -> None:
    proto = two_branches()
    text = onnx.helper.make_tensor_value_info("text", onnx.TensorProto.STRING, None)
    node = onnx.helper.make_node("Cast", ["y"], ["text"], to=onnx.TensorProto.STRING)
    proto.graph.node.append(node)
    proto.graph.output.append(text)
    write_split(tmp_path, proto, CUTS_OF_TWO_BRANCHES)
    making: list[Callable[[], object]] = [
        lambda: SplitClient(tmp_path, "http://edge"),
        lambda: SplitClient(tmp_path, "http://edge", chooser=Noted(4, 1)),
        lambda: Endpoint(tmp_path),
    ]
    for make in making:
        with pytest.raises(UsageError, match="'text', which is no tensor of numbers"):
            make()
    with SplitClient(tmp_path, None) as client:
        assert client.run(feeds_of_two_branches(0))["text"].dtype == object


def test_cuts_whose_outputs_can_be_sent_back_are_served_and_chosen_of_all(tmp_path: Path) -> None:
    proto = two_branches()
    text = onnx.helper.make_tensor_value_info("text", onnx.TensorProto.STRING, None)
    node = onnx.helper.make_node("Cast", ["early"], ["text"], to=onnx.TensorProto.STRING)
    proto.graph.node.append(node)
    proto.graph.output.append(text)
    write_split(tmp_path, proto, CUTS_OF_TWO_BRANCHES)
    assert [half.cut for half in Endpoint(tmp_path).halves.values()] == [2, 3]
    with pytest.raises(UsageError, match="'text', which is no tensor of numbers"):
        Endpoint(tmp_path, cuts=[0])
    chooser = Noted(2, 4, 3)
    with served(tmp_path) as url, SplitClient(tmp_path, url, chooser=chooser) as client:
        for _ in range(3):
            answer = client.request(feeds_of_two_branches(0))
            assert answer.outputs["text"].dtype == object and not answer.timings.failure


def test_a_segment_that_was_changed_is_not_run(tmp_path: Path) -> None:
    write_split(tmp_path, two_branches(), CUTS_OF_TWO_BRANCHES)
    (tmp_path / "segment01.onnx").write_bytes((tmp_path / "segment00.onnx").read_bytes())
    with pytest.raises(UsageError, match="is not what"):
        SplitClient(tmp_path, None)


# What an edge that is none of ours, or a broken one, may say.


@contextmanager
def saying(*answers: bytes | Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that takes one request for each answer, and hangs up where it is empty."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        sock: socket.socket | None = None
        for answer in answers:
            if sock is None:
                sock, _ = listening.accept()
            _take_request(sock)
            if callable(answer):
                answer(sock)
            elif answer:
                sock.sendall(answer)
            if not answer or b"close" in (b"" if callable(answer) else answer):
                sock.close()
                sock = None
        if sock is not None:
            sock.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    listening.close()
    thread.join(60)


def _take_request(sock: socket.socket) -> None:
    said = b""
    while b"\r\n\r\n" not in said:
        said += sock.recv(65536)
    head, _, body = said.partition(b"\r\n\r\n")
    (length,) = (int(x.split()[1]) for x in head.split(b"\r\n") if x.startswith(b"Content-Length"))
    while len(body) < length:
        body += sock.recv(65536)


def answer(id: str, *, extra: bytes = b"", status: bytes = b"200 OK", value: float = 1.0) -> bytes:
    message = encode_response("m", {"y": np.full(2, value, np.float32)}, {"y": True}, id)
    head = b"HTTP/1.1 " + status + b"\r\n"
    for name, text in message.headers.items():
        head += f"{name}: {text}\r\n".encode()
    return head + extra + b"\r\n" + message.header + b"".join(message.data)


def ask(edge: HttpEdge, within_s: float = 60.0) -> Reply:
    return edge.infer("m", {"x": np.ones(3, np.float32)}, [Y], within_s=within_s)


def test_an_answer_is_taken_with_what_it_says_of_its_time() -> None:
    timing = b"Server-Timing: edge;dur=2.5, compute;dur=1, receive;dur=0.5, cache;desc=x\r\n"
    with saying(answer("1", extra=timing), answer("2")) as url:
        edge = HttpEdge(url)
        reply = ask(edge)
        assert reply.outputs["y"].tolist() == [1, 1]
        assert (reply.edge_s, reply.receive_s) == (0.0025, 0.0005)
        assert ask(edge).edge_s is None
        edge.close()


def test_a_connection_that_was_closed_meanwhile_is_made_again() -> None:
    closing = answer("1", extra=b"Connection: close\r\n")
    with saying(closing, answer("2"), b"", answer("3")) as url:
        edge = HttpEdge(url)
        for _ in range(3):
            assert ask(edge).outputs["y"].tolist() == [1, 1]
        edge.close()


def test_chunks_are_put_together() -> None:
    message = encode_response("m", {"y": np.ones(2, np.float32)}, {"y": False}, "1")
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in message.header) + b"0\r\n\r\n"
    with saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body) as url:
        edge = HttpEdge(url)
        assert ask(edge).outputs["y"].tolist() == [1, 1]
        edge.close()


def _half(sock: socket.socket) -> None:
    sock.sendall(answer("1")[:-3])
    sock.close()


@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        (answer("2"), EdgeFailed, "another request"),
        (b"nonsense\r\n\r\n", EdgeFailed, "does not answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", EdgeFailed, "no list of outputs"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}", EdgeFailed, "too large"),
        (answer("1").replace(b'"FP32"', b'"INT8"'), EdgeFailed, "answers nonsense"),
        (answer("1").replace(b"[2]", b"[3]"), EdgeFailed, "answers nonsense"),
        (_half, EdgeFailed, "IncompleteRead"),
        (answer("1", status=b"503 Busy"), EdgeFailed, "503"),
        (answer("1", status=b"429 Slow"), EdgeFailed, "429"),
        (answer("1", status=b"500 Oh"), EdgeFailed, "500"),
        (answer("1", status=b"400 No"), EdgeRefused, "400"),
        (answer("1", status=b"404 No"), EdgeRefused, "404"),
        (answer("1", status=b"302 Elsewhere"), EdgeRefused, "302"),
        (b'HTTP/1.1 400 No\r\nContent-Length: 15\r\n\r\n{"error":"why"}', EdgeRefused, "400: why"),
    ],
)
def test_whatever_an_edge_says_wrong_is_told_apart(
    said: bytes | Callable[[socket.socket], None], kind: type[Exception], text: str
) -> None:
    with saying(said) as url:
        edge = HttpEdge(url)
        with pytest.raises(kind, match=text):
            ask(edge)
        edge.close()


def test_a_late_answer_never_becomes_that_of_the_next_request() -> None:
    released = threading.Event()

    def late(sock: socket.socket) -> None:
        assert released.wait(60)
        sock.sendall(answer("1", value=666.0))

    with saying(late) as url, saying(answer("2")) as other:
        edge = HttpEdge(url)
        with pytest.raises(EdgeFailed, match=r"within 0.05 s"):
            ask(edge, within_s=0.05)
        edge._port = int(other.rpartition(":")[2])
        released.set()
        assert ask(edge).outputs["y"].tolist() == [1, 1]
        edge.close()


def test_an_answer_that_comes_byte_by_byte_does_not_outlast_the_deadline() -> None:
    stop = threading.Event()

    def drip(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        try:
            while not stop.wait(0.005):
                sock.sendall(b"x")
        except ConnectionError:
            stop.set()

    with saying(drip) as url:
        edge = HttpEdge(url)
        with pytest.raises(EdgeFailed, match="within"):
            ask(edge, within_s=0.2)
        until(stop.is_set)


def test_chains_run_from_anywhere_to_anywhere(folder: Path) -> None:
    from onnxopt.splitting.folder import read_manifest

    chain = Chain(folder, read_manifest(folder))
    feeds = feeds_of_two_branches(3)
    expected = whole(two_branches(), feeds)
    for first in range(5):
        for second in range(first, 5):
            values = chain.run(second, 4, chain.run(first, second, chain.run(0, first, feeds)))
            assert all(np.array_equal(values[name], expected[name]) for name in expected)
    assert set(chain.run(0, 2, feeds)) == {"b", "x", "early"}
