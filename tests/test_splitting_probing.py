"""Probes tell a client that computes all itself how the link is, and are never in its way."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from edges import until
from shaped import ShapedLink
from splits import CUTS_OF_TWO_BRANCHES, feeds_of_two_branches, two_branches, write_split

from onnxopt.splitting import probing
from onnxopt.splitting.client import SplitClient
from onnxopt.splitting.context import Box, Context, Point
from onnxopt.splitting.edge import EdgeFailed
from onnxopt.splitting.edge_http import HttpEdge
from onnxopt.splitting.endpoint import Endpoint
from onnxopt.splitting.probing import EVERY, LONGEST_S, SIZE_BYTES, TIMES_THE_COST, Prober
from onnxopt.splitting.server import EdgeServer, serving
from onnxopt.splitting.switching import Adapter


class Clocked:
    """An edge that answers when it is let, after as long as it is told, by a clock of its own."""

    def __init__(self) -> None:
        self.now, self.takes = 0.0, 0.5
        self.sent, self.is_gone, self.is_closed = 0, False, False
        self.let = threading.Event()
        self.let.set()

    def probe(self, size_bytes: int, *, within_s: float) -> float:
        assert size_bytes == SIZE_BYTES and within_s == LONGEST_S
        self.sent += 1
        assert self.let.wait(60)
        self.now += self.takes
        if self.is_gone:
            raise EdgeFailed("gone")
        return self.takes

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    write_split(folder, two_branches(), CUTS_OF_TWO_BRANCHES)
    return folder


def _settle(prober: Prober) -> None:
    thread = prober._thread
    if thread is not None:
        thread.join()


def test_each_tenth_request_has_a_probe_beside_it_and_the_link_is_free_most_of_the_time() -> None:
    edge = Clocked()
    prober = Prober(edge, lambda: edge.now)
    sent: list[int] = []
    for request in range(1, 1001):
        edge.now += 0.1
        prober.beside()
        _settle(prober)
        if edge.sent > len(sent):
            sent.append(request)
    assert sent[0] == EVERY
    assert len(prober.results()) == edge.sent and prober.results() == []
    assert edge.sent * edge.takes * TIMES_THE_COST <= edge.now + TIMES_THE_COST * edge.takes
    edge = Clocked()
    edge.takes = 0.001
    prober = Prober(edge, lambda: edge.now)
    for _ in range(100):
        edge.now += 0.1
        prober.beside()
        _settle(prober)
    assert edge.sent == 10


def test_a_probe_that_is_under_way_holds_nothing_up_and_has_no_second_beside_it() -> None:
    edge = Clocked()
    edge.let.clear()
    prober = Prober(edge, lambda: edge.now)
    for _ in range(100):
        prober.beside()
    until(lambda: edge.sent == 1)
    assert prober.results() == []
    edge.let.set()
    prober.close()
    assert edge.is_closed and prober.results() == [(SIZE_BYTES, edge.takes)]


def test_an_edge_that_is_gone_is_probed_less_and_less() -> None:
    edge = Clocked()
    edge.is_gone = True
    prober = Prober(edge, lambda: edge.now)
    for _ in range(1000):
        edge.now += 0.1
        prober.beside()
        _settle(prober)
    assert 3 <= edge.sent <= edge.now / (TIMES_THE_COST * edge.takes) + 1
    assert prober.results() == []


def test_a_probe_of_a_server_takes_what_the_link_takes_for_its_bytes(folder: Path) -> None:
    server = EdgeServer(Endpoint(folder))
    with serving(server) as url:
        host, _, port = url.removeprefix("http://").rpartition(":")
        link = ShapedLink(host, int(port), bits=640e3, rtt_s=0.02)
        edge = HttpEdge(link.url)
        try:
            assert edge.probe(SIZE_BYTES, within_s=30) >= 0.02 + 8 * SIZE_BYTES / 640e3
            assert edge.probe(0, within_s=30) >= 0.02
        finally:
            edge.close()
            link.close()
    with pytest.raises(EdgeFailed):
        HttpEdge(url).probe(SIZE_BYTES, within_s=5)


def test_a_client_that_computes_all_itself_hears_of_a_link_that_is_good_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "EVERY", 1)
    monkeypatch.setattr(probing, "TIMES_THE_COST", 0.0)
    points = (Point(0.0, 0.001, 1e6, 0.0, True),) * 4 + (Point(0.1, 0.0, 0.0, 0.0, False),)
    slow = Context(1e6, 0.01)
    box = Box(Context(1e6, 0.0001), Context(1e9, 0.02))
    chooser = Adapter(points, slow, box=box, trials=0.0)
    with (
        serving(EdgeServer(Endpoint(folder))) as url,
        SplitClient(folder, url, chooser=chooser) as client,
    ):
        assert client._prober is not None

        def remote() -> bool:
            return client.request(feeds_of_two_branches(0)).timings.sent_bytes > 0

        assert not remote()
        until(remote)
    assert chooser.switches == 1


def test_nothing_is_probed_where_nobody_chooses_or_that_is_not_wanted(folder: Path) -> None:
    url = "http://127.0.0.1:9"
    chooser = Adapter((Point(0.1, 0.0, 0.0, 0.0, False),) * 5, Context(1e6, 0.01))
    with SplitClient(folder, url, cut=1) as client:
        assert client._prober is None
    with SplitClient(folder, url, chooser=chooser, probes=False) as client:
        assert client._prober is None
