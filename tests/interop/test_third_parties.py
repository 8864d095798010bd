"""Parts that are not ours talk to ours: Triton's client, MLServer and KServe (`make interop`)."""

from __future__ import annotations

import importlib
import importlib.util
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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

from onnxopt.cli.main import run
from onnxopt.splitting.chain import Chain
from onnxopt.splitting.client import SplitClient
from onnxopt.splitting.edge import EdgeRefused
from onnxopt.splitting.endpoint import Endpoint
from onnxopt.splitting.folder import read_manifest
from onnxopt.splitting.server import EdgeServer, serving

pytestmark = pytest.mark.filterwarnings("ignore")  # what others warn of is theirs

HERE = Path(__file__).parent


def needs(package: str) -> None:
    """A package of someone else; the test is skipped where it is missing. Nothing is imported: the
    messages of two of them in one process are too many for protobuf."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; `make interop` does that")


def imported(module: str) -> Any:
    needs(module.partition(".")[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def other_server(command: list[str], place: Path, is_up: Any) -> Iterator[None]:
    """A server of someone else, in a process of its own."""
    log = place / "server.log"
    with log.open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, cwd=place)
    try:
        end = time.monotonic() + 120
        while not is_up():
            assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


@pytest.fixture(params=["none", "fp16"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    write_split(tmp_path / "out", two_branches(), CUTS_OF_TWO_BRANCHES, codec=request.param)
    return tmp_path / "out"


def assert_right(outputs: Any, seed: int, tolerance: float) -> None:
    expected = whole(two_branches(), feeds_of_two_branches(seed))
    assert {*outputs} <= {*expected} and "y" in outputs
    for name in outputs:
        np.testing.assert_allclose(outputs[name], expected[name], tolerance, tolerance)


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_http_client_talks_to_our_server(folder: Path, binary: bool) -> None:
    http = imported("tritonclient.http")
    to_kind = imported("tritonclient.utils").np_to_triton_dtype
    manifest = read_manifest(folder)
    chain = Chain(folder, manifest)
    coded = manifest.cuts[1].codec != "none"
    with serving(EdgeServer(Endpoint(folder), port=0)) as url:
        client = http.InferenceServerClient(url.removeprefix("http://"))
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("tiny.cut01") and client.is_model_ready("tiny.cut01", "1")
        assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
        described = client.get_model_metadata("tiny.cut01")
        with pytest.raises(Exception, match="there is no model"):
            client.get_model_metadata("tiny.cut09")
        for cut in (0, 1, 2, 3):
            feeds = feeds_of_two_branches(cut)
            wire = chain.encode(cut, chain.run(0, cut, feeds))
            inputs = []
            for name, array in wire.items():
                kind = to_kind(array.dtype)
                inputs.append(http.InferInput(name, array.shape, kind))
                as_binary = binary or kind == "FP16"  # which has no JSON
                inputs[-1].set_data_from_numpy(array, binary_data=as_binary)
            wanted = [http.InferRequestedOutput("y", binary_data=binary)]
            found = client.infer(f"tiny.cut0{cut}", inputs, outputs=wanted, request_id="7")
            assert_right({"y": found.as_numpy("y")}, cut, 1e-2 if coded else 1e-6)
            assert found.get_response()["id"] == "7"
            everything = client.infer(f"tiny.cut0{cut}", inputs)
            assert_right({"y": everything.as_numpy("y")}, cut, 1e-2 if coded else 1e-6)
        assert [p["name"] for p in described["outputs"]] == ["early", "y", "positive"]
        client.close()


def test_our_client_talks_to_kserve_over_binary_rest(folder: Path, tmp_path: Path) -> None:
    needs("kserve")
    port, coded = free_port(), read_manifest(folder).cuts[1].codec != "none"
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, str(HERE / "kserve_edge.py"), str(folder), "1", str(port)]
    with other_server(command, tmp_path, lambda: answers(f"{url}/v2/models/tiny.cut01/ready")):
        with SplitClient(folder, url, cut=1, fallback="off") as client:
            for seed in range(5):
                answer = client.request(feeds_of_two_branches(seed))
                assert_right(answer.outputs, seed, 1e-2 if coded else 1e-6)
                assert answer.timings.sent_bytes > 0
        with SplitClient(folder, url, cut=2, fallback="off") as client:
            feeds = feeds_of_two_branches(0)
            with pytest.raises(EdgeRefused):  # KServe has only the half of the first cut
                client.run(feeds)


def exported(tmp_path: Path, servers: str) -> Path:
    """As a user gets it, with the settings of a third-party server."""
    (tmp_path / "tiny.onnx").write_bytes(two_branches().SerializeToString())
    out = tmp_path / "parts"
    options = ["--at", "b", "-o", str(out), "--serve", servers, "--quiet"]
    assert run(["split", "export", str(tmp_path / "tiny.onnx"), *options]) == 0
    return out


def test_our_client_talks_to_mlserver_over_grpc(tmp_path: Path) -> None:
    needs("mlserver")
    needs("tritonclient")
    out = exported(tmp_path, "mlserver")
    ports = {name: free_port() for name in ("http_port", "grpc_port", "metrics_port")}
    settings = ", ".join(f'"{name}": {port}' for name, port in ports.items())
    (out / "mlserver" / "settings.json").write_text(
        f'{{{settings}, "host": "127.0.0.1", "parallel_workers": 0}}'
    )
    url = f"grpc://127.0.0.1:{ports['grpc_port']}"
    ready = f"http://127.0.0.1:{ports['http_port']}/v2/health/ready"
    command = [str(Path(sys.executable).parent / "mlserver"), "start", "."]
    server = other_server(command, out / "mlserver", lambda: answers(ready))
    with server, SplitClient(out, url, cut=1, fallback="off") as client:
        for seed in range(5):
            assert_right(client.run(feeds_of_two_branches(seed)), seed, 1e-6)
    with SplitClient(out, url, cut=1, deadline_s=5) as client:
        answer = client.request(feeds_of_two_branches(9))
        assert_right(answer.outputs, 9, 1e-6)
        assert "does not answer" in answer.timings.failure or "within" in answer.timings.failure


def test_the_settings_for_triton_parse_as_its_protobuf(tmp_path: Path) -> None:
    pb = imported("tritonclient.grpc.model_config_pb2")
    text_format = imported("google.protobuf.text_format")
    out = exported(tmp_path, "triton")
    configs = sorted(out.glob("triton/*/config.pbtxt"))
    assert configs
    for file in configs:
        config = text_format.Parse(file.read_text(), pb.ModelConfig())
        assert config.name == file.parent.name and config.platform == "onnxruntime_onnx"
        assert (file.parent / "1" / "model.onnx").is_file()
        assert config.output[0].data_type in (pb.TYPE_FP32, pb.TYPE_BOOL)
        assert all(dim == -1 or dim > 0 for port in config.input for dim in port.dims)
