"""What serving the edge half costs, and what it survives: time, killed servers, hostile clients.

    python benchmarks/wire.py [--requests 500] [--hostile 1000] [--output FILE.md]

The server is `onnxopt split serve` in a process of its own, over loopback, with its default limits.

Overhead: a model whose cut is 1.6 MB and which computes next to nothing is run remotely and locally
in turns; what the median request takes longer remotely is the price of serving it. As a yardstick
the same bytes are sent through a bare socket to a process that sends a few back.
Killed: requests one after the other while the server is killed (SIGKILL) and started again, at
moments that are drawn. Each answer is compared, bit for bit, with that of the same segments here.
Hostile: malformed, oversized and slow requests; the memory of the server before and after, and how
a good client fares meanwhile.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from edges import Process, Slow, exchanged, malformed, oversized, post

from onnxopt.signature import Array
from onnxopt.splitting.client import SplitClient
from onnxopt.splitting.folder import read_manifest, split_digest
from onnxopt.splitting.protocol import encode_request

SHAPE = (1, 512, 28, 28)
"""1.6 MB of float32."""

MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    wire (float[1,512,28,28] x) => (float[1,512] y) {
        a = Relu(x)
        p = GlobalAveragePool(a)
        y = Flatten(p)
    }
"""
BARE = """
import socket, sys
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
sock, _ = listening.accept()
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
buffer = memoryview(bytearray(int(sys.argv[1])))
while True:
    got = 0
    while got < len(buffer):
        count = sock.recv_into(buffer[got:])
        if not count:
            sys.exit()
        got += count
    sock.sendall(b"x" * 2500)
"""


def exported(model: Path, at: str, folder: Path) -> Path:
    """The folder of a model that is split there, made by the command."""
    command = [sys.executable, "-m", "onnxopt", "split", "export", str(model), "--at", at]
    subprocess.run([*command, "-o", str(folder), "--quiet"], check=True)
    return folder


def wire_folder(place: Path) -> Path:
    file = place / "wire.onnx"
    file.write_bytes(onnx.parser.parse_model(MODEL).SerializeToString())
    return exported(file, "a", place / "wire")


def bare_ms(size_bytes: int, rounds: int) -> list[float]:
    """The same bytes through a socket, without any protocol."""
    command = [sys.executable, "-c", BARE, str(size_bytes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        times = []
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = bytes(size_bytes)
            for _ in range(rounds):
                began = time.perf_counter()
                sock.sendall(data)
                got = 0
                while got < 2500:
                    got += len(sock.recv(65536))
                times.append(1000 * (time.perf_counter() - began))
    return times


def overhead(folder: Path, rounds: int) -> list[str]:
    """Remote against local, in turns."""
    x = {"x": np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)}
    edge = Process(folder)
    remote, local, parts = [], [], []
    with SplitClient(folder, edge.url) as there, SplitClient(folder, None) as here:
        for number in range(rounds + 20):
            answers = [client.request(x) for client in (there, here)]
            assert not answers[0].timings.failure
            assert np.array_equal(answers[0].outputs["y"], answers[1].outputs["y"])
            if number >= 20:
                remote.append(1000 * answers[0].timings.total_s)
                local.append(1000 * answers[1].timings.total_s)
                parts.append(answers[0].timings)
    edge.end(signal.SIGTERM)
    size = parts[0].sent_bytes
    bare = bare_ms(size, rounds)
    more = statistics.median(remote) - statistics.median(local)
    mid = {
        name: 1000 * statistics.median(getattr(t, f"{name}_s") for t in parts)
        for name in ("device", "wire", "edge")
    }
    return [
        f"A request with a cut of {size / 1e6:.2f} MB, {rounds} times: "
        f"{statistics.median(remote):.2f} ms (median; p99 {np.percentile(remote, 99):.2f}), "
        f"locally {statistics.median(local):.2f} ms: **{more:.2f} ms beyond compute**.",
        f"Its parts: device {mid['device']:.2f} ms, wire {mid['wire']:.2f} ms, "
        f"edge {mid['edge']:.2f} ms. "
        f"The same bytes through a bare socket: {statistics.median(bare):.2f} ms.",
    ]


def killed(model: Path, place: Path, count: int, kills: int = 8) -> list[str]:
    """Requests while the server is killed and started again."""
    manifest_cut = "/stages/stages.2/Add_output_0"
    folder = exported(model, manifest_cut, place / "killed")
    rng = np.random.default_rng(0)
    feeds = [{"image": rng.random((1, 1, 8, 8), dtype=np.float32)} for _ in range(50)]
    with SplitClient(folder, None) as client:
        expected = [client.run(feed) for feed in feeds]
    edge = Process(folder)
    port, done, over = edge.port, [0], threading.Event()
    down_s: list[float] = []

    def kill() -> None:
        nonlocal edge
        draw = random.Random(0)
        for number in range(kills):
            goal = (number + 1) * count / (kills + 1)
            while done[0] < goal and not over.is_set():
                time.sleep(0.0005)
            time.sleep(draw.random() * 0.01)
            edge.end(signal.SIGKILL)
            began = time.perf_counter()
            edge = Process(folder, port=port)
            down_s.append(time.perf_counter() - began)

    thread = threading.Thread(target=kill)
    thread.start()
    wrong = lost = failed = 0
    times = []
    with SplitClient(folder, edge.url, deadline_s=1.0) as client:
        for number in range(count):
            try:
                answer = client.request(feeds[number % 50])
            except Exception as error:
                print(error, file=sys.stderr)
                lost += 1
                continue
            want = expected[number % 50]
            wrong += not all(np.array_equal(answer.outputs[k], want[k]) for k in want)
            failed += bool(answer.timings.failure)
            times.append(1000 * answer.timings.total_s)
            done[0] += 1
            time.sleep(0.02)  # so that restarts, which take a second, fall among the requests
        over.set()
        thread.join()
        time.sleep(1.1)
        back = sum(not client.request(feeds[0]).timings.failure for _ in range(200))
    edge.end(signal.SIGTERM)
    return [
        f"{count} requests while the server was killed {len(down_s)} times and was away for "
        f"{statistics.mean(down_s):.1f} s each time: **{wrong} wrong, {lost} lost**; {failed} were "
        f"finished on the device. Median {statistics.median(times):.2f} ms, longest "
        f"{max(times):.1f} ms. Afterwards {back} of 200 requests ran at the edge."
    ]


def hostile(folder: Path, count: int) -> list[str]:
    """Rubbish of each kind; the memory of the server, and a good client meanwhile."""
    rng = np.random.default_rng(0)
    x = {"x": rng.standard_normal(SHAPE).astype(np.float32)}
    manifest = read_manifest(folder)
    name = f"/v2/models/{manifest.name}.cut01/infer"
    message = encode_request({"a": x["x"]}, ["y"], id="1", split=split_digest(manifest))
    body = message.header + b"".join(message.data)
    lines = [f"{k}: {v}" for k, v in message.headers.items() if k != "Content-Length"]
    good = post(name, body, *lines)
    small = good[:2000]  # what is broken lies in the head and the JSON
    edge = Process(folder, "--body-timeout", "5")
    found = []
    with SplitClient(folder, edge.url, fallback="off") as client:
        for _ in range(100):
            client.run(x)
        before = edge.memory_bytes()
        for kind in ("malformed", "oversized", "slow", "slow again"):
            began, good_ms = time.perf_counter(), []
            if kind.startswith("slow"):
                good_ms = slowly(edge, client, x, name, count)
            else:
                made = malformed(small, count) if kind == "malformed" else oversized(name, count)
                for number, raw in enumerate(made):
                    said = exchanged(edge.url, raw)
                    assert not said.startswith(b"HTTP/1.1 500"), said[:200]
                    if number % 10 == 0:
                        good_ms.append(1000 * client.request(x).timings.total_s)
            seconds = time.perf_counter() - began
            for _ in range(20):
                client.run(x)
            after = edge.memory_bytes()
            found.append(
                f"| {kind} | {count} | {seconds:.1f} | {len(good_ms)}, none failed | "
                f"{statistics.median(good_ms):.2f} | {max(good_ms):.1f} | {before / 1e6:.1f} | "
                f"{after / 1e6:.1f} |"
            )
    code, _ = edge.end(signal.SIGTERM)
    assert code == 0, code
    return [
        "| requests | number | s | good ones meanwhile | median ms | longest ms | server MB before "
        "| after |\n|---|---|---|---|---|---|---|---|\n" + "\n".join(found)
    ]


def slowly(
    edge: Process, client: SplitClient, x: dict[str, Array], path: str, count: int
) -> list[float]:
    """Clients that send a byte now and then, all at once: of heads, and of bodies of 20 kB."""
    head = b"GET /v2 HTTP/1.1\r\nA: " + b"b" * 9000
    body = post(path, b"", length=20_000) + b"[" * 5000
    slow = Slow(edge.url, [body if number % 2 else head for number in range(count)])
    times = []
    while slow.left:
        slow.step()
        times.append(1000 * client.request(x).timings.total_s)
        time.sleep(0.02)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--hostile", type=int, default=1000)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * asked.hostile)), hard))
    model = Path(__file__).parent.parent / "models" / "digits_resnet.onnx"
    with tempfile.TemporaryDirectory(prefix="onnxopt-wire-") as place:
        folder = wire_folder(Path(place))
        parts = overhead(folder, asked.requests)
        parts += killed(model, Path(place), asked.requests)
        parts += hostile(folder, asked.hostile)
    text = "# Serving the edge half\n\n" + "\n\n".join(parts) + "\n"
    print(text)
    if asked.output is not None:
        asked.output.write_text(text)


if __name__ == "__main__":
    main()
