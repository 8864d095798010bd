"""Messages of the Open Inference Protocol: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from edges import malformed
from hypothesis import given
from hypothesis import strategies as st

from onnxopt.signature import Array
from onnxopt.splitting.http_head import parse_head
from onnxopt.splitting.manifest import Port
from onnxopt.splitting.protocol import (
    JSON_LENGTH,
    Message,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from onnxopt.splitting.tensors import ProtocolError, from_bytes

DTYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
}
X = Port("x", "float32", ("N", 2), 8)
FLAG = Port("flag", "bool", (3,), 3)
INPUTS = (X, FLAG)
GOOD: dict[str, Any] = {
    "inputs": [
        {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.5, 2]},
        {"name": "flag", "shape": [3], "datatype": "BOOL", "parameters": {"binary_data_size": 3}},
    ]
}


def body_of(message: Message) -> memoryview:
    return memoryview(message.header + b"".join(message.data))


def random_array(dtype: str, shape: tuple[int, ...], seed: int) -> Array:
    """Any bits that the type can have, NaN among them."""
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    raw = rng.bytes(int(np.prod(shape)) * kind.itemsize)
    return np.frombuffer(raw, kind).reshape(shape)


arrays = st.builds(
    random_array,
    st.sampled_from(sorted(DTYPES)),
    st.lists(st.integers(0, 4), max_size=4).map(tuple),
    st.integers(0, 2**31),
)


@given(st.lists(arrays, max_size=4), st.booleans())
def test_binary_tensors_of_every_type_come_back_bit_for_bit(
    tensors: list[Array], as_response: bool
) -> None:
    named = {f"/t/{number}:0": array for number, array in enumerate(tensors)}
    ports = [Port(n, str(a.dtype), tuple(a.shape), a.nbytes) for n, a in named.items()]
    if as_response:
        message = encode_response("m", named, dict.fromkeys(named, True), "7")
    else:
        message = encode_request(named, ["y"], id="7", split="s")
    length = message.headers.get(JSON_LENGTH)
    arguments = body_of(message), None if length is None else int(length)
    if as_response:
        found: Any = decode_response(*arguments, ports, "7")
    else:
        request = decode_request(*arguments, ports, [Port("y", "float32", None, 4)])
        assert (request.id, request.split, request.outputs) == ("7", "s", {"y": True})
        found = request.inputs
    assert message.size_bytes == len(arguments[0])
    for name, array in named.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


@given(arrays)
def test_numbers_in_json_come_back_or_are_refused(array: Array) -> None:
    port = Port("t", str(array.dtype), tuple(array.shape), array.nbytes)
    says_all = array.dtype.kind != "f" or bool(np.isfinite(array).all())
    if str(array.dtype) in ("float16", "bfloat16") or not says_all:
        with pytest.raises(ProtocolError, match="binary_data"):
            encode_response("m", {"t": array}, {"t": False}, None)
        return
    message = encode_response("m", {"t": array}, {"t": False}, None)
    assert JSON_LENGTH not in message.headers and not message.data
    found = decode_response(body_of(message), None, [port], "any")["t"]
    assert found.dtype == array.dtype and np.array_equal(found, array)


def test_the_header_is_what_the_protocol_says() -> None:
    x = np.array([[1, 2]], np.float32)
    message = encode_request({"x": x}, ["y"], id="1", split="")
    header = json.loads(message.header)
    assert header["inputs"] == [
        {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    ]
    assert header["outputs"] == [{"name": "y", "parameters": {"binary_data": True}}]
    assert b"".join(message.data) == b"\x00\x00\x80\x3f\x00\x00\x00\x40"
    assert message.headers[JSON_LENGTH] == str(len(message.header))
    assert message.headers["Content-Length"] == str(len(message.header) + 8)


def changed(**changes: Any) -> dict[str, Any]:
    """The good request with another first input."""
    return {"inputs": [{**GOOD["inputs"][0], **changes}, GOOD["inputs"][1]]}


def decoded(content: object, data: bytes = b"\0\1\0", length: int | None = None) -> Any:
    header = content if isinstance(content, bytes) else json.dumps(content).encode()
    size = len(header) if length is None else length
    return decode_request(memoryview(header + data), size, INPUTS, [Port("y", "float32", None, 4)])


def test_the_good_request_is_taken() -> None:
    assert decoded(GOOD).inputs["x"].tolist() == [[1.5, 2.0]]
    assert decoded({**GOOD, "id": "a"}).id == "a"
    nested = changed(data=[[1, 2], [3, 4]], shape=[2, 2])
    assert decoded(nested).inputs["x"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("content", "data", "said"),
    [
        (b"", b"", "is 0"),
        (b"{", b"", "no JSON"),
        (b"[" * 100_000, b"", "no JSON"),
        (b"\xff", b"", "no JSON"),
        (b'{"inputs": NaN}', b"", "no JSON"),
        (b"1" * 5000, b"", "no JSON"),
        ([], b"", "no JSON object"),
        ({}, b"", "no list of inputs"),
        ({"inputs": [[]]}, b"", "is no JSON object"),
        ({"inputs": []}, b"", "no input 'x'"),
        ({"inputs": GOOD["inputs"][:1]}, b"", "no input 'flag'"),
        ({"inputs": [GOOD["inputs"][0]] * 2}, b"", "twice"),
        (changed(name="z"), b"\0\0\0", "the model has none"),
        (changed(name=None), b"\0\0\0", "no name"),
        (changed(datatype="BYTES"), b"\0\0\0", "no datatype among"),
        (changed(datatype="FP64"), b"\0\0\0", "float64, but the model takes float32"),
        (changed(shape=[2]), b"\0\0\0", "the model takes [-1, 2]"),
        (changed(shape=[1, 3]), b"\0\0\0", "the model takes [-1, 2]"),
        (changed(shape=[True, 2]), b"\0\0\0", "no shape of whole numbers"),
        (changed(shape=[-1, 2]), b"\0\0\0", "no shape of whole numbers"),
        (changed(shape=[0.5, 2]), b"\0\0\0", "no shape of whole numbers"),
        (changed(shape=[2**40, 2]), b"\0\0\0", "2 numbers"),
        (changed(data=[1]), b"\0\0\0", "1 numbers"),
        (changed(data=[[1], [2]]), b"\0\0\0", "2 numbers"),
        (changed(data=[[1], 2]), b"\0\0\0", "not of the type"),
        (changed(data=[True, 2]), b"\0\0\0", "not of the type"),
        (changed(data=[1e300, 2]), b"\0\0\0", "cannot hold"),
        (changed(data=[10**400, 2]), b"\0\0\0", "cannot hold"),
        (changed(data=["a", "b"]), b"\0\0\0", "not of the type"),
        (changed(data=[None, 1]), b"\0\0\0", "not of the type"),
        (changed(data="12345678"), b"\0\0\0", "neither a list"),
        (changed(data=None, parameters={"binary_data_size": 7}), b"\0" * 10, "7 bytes of data"),
        (changed(parameters={"binary_data_size": 9}), b"\0" * 8, "9 bytes, but 8"),
        (changed(parameters={"binary_data_size": -1}), b"\0" * 8, "-1 bytes"),
        (changed(parameters={"binary_data_size": True}), b"\0" * 8, "True bytes"),
        (changed(parameters=[]), b"\0\0\0", "parameters are no JSON object"),
        (GOOD, b"\0\1", "3 bytes, but 2"),
        (GOOD, b"\0\1\2", "neither 0 nor 1"),
        (GOOD, b"\0\1\1\1", "1 bytes belong to no input"),
        ({**GOOD, "id": 1}, b"\0\1\1", "id of the request"),
        ({**GOOD, "outputs": {}}, b"\0\1\1", "no list"),
        ({**GOOD, "outputs": [{"name": "z"}]}, b"\0\1\1", "cannot be asked for"),
        ({**GOOD, "outputs": [{"name": []}]}, b"\0\1\1", "cannot be asked for"),
        ({**GOOD, "outputs": [{"name": "y"}] * 2}, b"\0\1\1", "cannot be asked for"),
    ],
)
def test_whatever_is_wrong_with_a_request_is_said(content: Any, data: bytes, said: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        decoded(content, data)
    assert said in raised.value.what and raised.value.status == 400


@pytest.mark.parametrize("length", [-1, 0, 10**9])
def test_a_length_of_the_json_that_cannot_be_is_refused(length: int) -> None:
    with pytest.raises(ProtocolError, match=JSON_LENGTH):
        decoded(GOOD, length=length)


def test_whole_numbers_that_a_type_cannot_hold_are_refused() -> None:
    for dtype, number in (("uint8", 256), ("uint8", -1), ("int64", 2**63), ("uint64", 2**64)):
        entry = {"name": "i", "shape": [1], "datatype": dtype.upper(), "data": [number]}
        content = json.dumps({"inputs": [entry]}).encode()
        with pytest.raises(ProtocolError, match="'i'"):
            decode_request(memoryview(content), None, [Port("i", dtype, (1,), 1)], [])
    entry = {"name": "i", "shape": [1], "datatype": "INT8", "data": [1.5]}
    content = json.dumps({"inputs": [entry]}).encode()
    with pytest.raises(ProtocolError, match="not of the type"):
        decode_request(memoryview(content), None, [Port("i", "int8", (1,), 1)], [])


def test_an_answer_to_another_request_is_none() -> None:
    y = Port("y", "float32", (1,), 4)
    message = encode_response("m", {"y": np.ones(1, np.float32)}, {"y": True}, "1")
    body, length = body_of(message), len(message.header)
    assert decode_response(body, length, [y], "1")["y"] == 1
    with pytest.raises(ProtocolError, match="another request"):
        decode_response(body, length, [y], "2")
    with pytest.raises(ProtocolError, match="no output 'z'"):
        decode_response(body, length, [y, Port("z", "float32", (1,), 4)], "1")


def test_broken_messages_raise_nothing_but_the_error_for_them() -> None:
    x = {"x": np.ones((2, 2), np.float32), "flag": np.ones(3, bool)}
    message = encode_request(x, ["y"], id="1", split="s")
    for raw in malformed(bytes(body_of(message)), 3000):
        try:
            found = decode_request(
                memoryview(raw), len(message.header), INPUTS, [Port("y", "float32", None, 4)]
            )
        except ProtocolError:
            continue
        assert found.inputs["x"].shape == (2, 2) and found.inputs["x"].dtype == np.float32


def test_a_head_is_read() -> None:
    head = parse_head(b"POST /v2/models/m/infer?x=1 HTTP/1.1\r\nContent-Length: 12\r\nhost:\ta ")
    assert (head.method, head.path, head.length) == ("POST", "/v2/models/m/infer", 12)
    assert head.json_length is None and head.keep_alive and not head.expects_continue
    assert not parse_head(b"GET / HTTP/1.0").keep_alive
    assert not parse_head(b"GET / HTTP/1.1\r\nConnection: close").keep_alive


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"GET", 400),
        (b"GET / HTTP/2.0", 400),
        (b"get / HTTP/1.1", 400),
        (b"GET http://a/ HTTP/1.1", 400),
        (b"GET /\x00 HTTP/1.1", 400),
        (b"GET / HTTP/1.1\r\nno colon", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded", 400),
        (b"GET / HTTP/1.1\r\nA : b", 400),
        (b"GET / HTTP/1.1\nA: b", 400),
        (b"POST / HTTP/1.1", 411),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: +1", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 0x1", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1" + b"0" * 5000, 400),
        (b"POST / HTTP/1.1\r\nContent-Length: \xb2", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Encoding: gzip", 415),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nInference-Header-Content-Length: 2", 400),
    ],
)
def test_a_head_that_could_be_read_in_two_ways_is_refused(raw: bytes, status: int) -> None:
    with pytest.raises(ProtocolError) as raised:
        parse_head(raw)
    assert raised.value.status == status


@pytest.mark.parametrize("offset", range(9))
def test_arrays_are_aligned_wherever_their_bytes_lie(offset: int) -> None:
    array = np.arange(5, dtype=np.float64)
    memory = np.zeros(64, np.uint8)
    memory[offset : offset + 40] = array.view(np.uint8)
    raw = memoryview(memory.data)[offset : offset + 40]
    found = from_bytes("x", array.dtype, (5,), raw)
    assert found.flags["ALIGNED"] and np.array_equal(found, array)
