"""Messages of the Open Inference Protocol v2 over REST, with the binary tensor data extension.

A message is a JSON object and, where tensors are binary, their bytes after it in the order of the
object; the HTTP header `Inference-Header-Content-Length` then says how long the object is.
See https://github.com/kserve/open-inference-protocol and, for the extension,
https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from onnxopt.signature import Array
from onnxopt.splitting.manifest import Port
from onnxopt.splitting.tensors import (
    ProtocolError,
    check_port,
    described,
    from_bytes,
    from_json,
    to_bytes,
    to_json,
    type_name,
)

JSON_LENGTH = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"
JSON = "application/json"
SPLIT = "onnxopt_split"
"""Parameter of a request that says of which split model the sender has the other half."""

MOST_TENSORS = 4096


@dataclass(frozen=True)
class Message:
    """What is sent: a JSON object, then the bytes of tensors. JSON only where `data` is empty."""

    header: bytes
    data: tuple[memoryview, ...] = ()

    @property
    def size_bytes(self) -> int:
        return len(self.header) + sum(len(part) for part in self.data)

    @property
    def headers(self) -> dict[str, str]:
        """The lines of HTTP that say what it is."""
        kind = {"Content-Type": BINARY if self.data else JSON}
        length = {"Content-Length": str(self.size_bytes)}
        return kind | length | ({JSON_LENGTH: str(len(self.header))} if self.data else {})


@dataclass(frozen=True)
class Request:
    """A request for inference, checked against the model.

    Attributes:
        outputs: what is asked for, with whether as binary data.
        split: what the sender says with the parameter SPLIT; empty if nothing.
    """

    id: str | None
    inputs: Mapping[str, Array]
    outputs: Mapping[str, bool]
    split: str


def encode_request(
    inputs: Mapping[str, Array], outputs: Sequence[str], *, id: str, split: str
) -> Message:
    """A request for these outputs, all tensors binary.

    Raises:
        ProtocolError: an input is of a type that cannot cross.
    """
    header = {
        "id": id,
        "parameters": {"binary_data_output": True, SPLIT: split},
        "inputs": [_binary_entry(name, array) for name, array in inputs.items()],
        "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs],
    }
    return Message(_json(header), tuple(map(to_bytes, inputs.values())))


def decode_request(
    body: memoryview, json_length: int | None, inputs: Sequence[Port], outputs: Sequence[Port]
) -> Request:
    """Read a request with suspicion.

    Args:
        body: all of it.
        json_length: what JSON_LENGTH says; None: there is no such header.
        inputs, outputs: of the model.

    Raises:
        ProtocolError: it is not what the protocol or the model says.
    """
    header, data = _parts(body, json_length)
    arrays = _tensors(header.get("inputs"), data, "input", {port.name: port for port in inputs})
    for port in inputs:
        if port.name not in arrays:
            raise ProtocolError(f"there is no input '{port.name}'")
    id = header.get("id")
    if id is not None and not isinstance(id, str):
        raise ProtocolError("the id of the request is no text")
    parameters = _parameters(header)
    split = parameters.get(SPLIT, "")
    wanted = _wanted(header.get("outputs"), parameters, [port.name for port in outputs])
    return Request(id, arrays, wanted, split if isinstance(split, str) else "")


def encode_response(
    model: str, outputs: Mapping[str, Array], wanted: Mapping[str, bool], id: str | None
) -> Message:
    """The answer.

    Raises:
        ProtocolError: JSON is asked for where it cannot say the numbers.
    """
    entries, data = [], []
    for name, is_binary in wanted.items():
        array = outputs[name]
        if is_binary:
            entries.append(_binary_entry(name, array))
            data.append(to_bytes(array))
        else:
            entry = _entry(name, array)
            entries.append(entry | {"data": to_json(name, array)})
    named = {"model_name": model, "model_version": "1"}
    return Message(
        _json(named | ({"id": id} if id is not None else {}) | {"outputs": entries}), tuple(data)
    )


def decode_response(
    body: memoryview, json_length: int | None, outputs: Sequence[Port], id: str
) -> dict[str, Array]:
    """The outputs of an answer to the request with this id, which servers may leave out.

    Raises:
        ProtocolError: it is none, it is an answer to another request, or an output is missing or of
            another type or shape than the model has.
    """
    header, data = _parts(body, json_length)
    if header.get("id") not in (None, "", id):
        raise ProtocolError("the answer is for another request")
    known = {port.name: port for port in outputs}
    arrays = _tensors(header.get("outputs"), data, "output", known)
    for port in outputs:
        if port.name not in arrays:
            raise ProtocolError(f"the answer has no output '{port.name}'")
    return arrays


def parse_json(raw: bytes | memoryview) -> Any:
    """JSON as the standard has it.

    Raises:
        ProtocolError: it is none.
    """
    try:
        return json.loads(bytes(raw), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ProtocolError("the message holds no JSON") from None


def error_message(reason: str) -> Message:
    return Message(_json({"error": reason}))


def json_message(content: Mapping[str, object]) -> Message:
    return Message(_json(content))


def tensor_metadata(port: Port) -> dict[str, object]:
    """How metadata of a model describes an input or output; a rank that is not known is [-1]."""
    import numpy as np

    dims = port.shape if port.shape is not None else (None,)
    shape = [dim if isinstance(dim, int) else -1 for dim in dims]
    return {"name": port.name, "datatype": type_name(np.dtype(port.dtype)), "shape": shape}


def _parts(body: memoryview, json_length: int | None) -> tuple[Mapping[str, Any], memoryview]:
    length = len(body) if json_length is None else json_length
    if not 0 < length <= len(body):
        raise ProtocolError(f"{JSON_LENGTH} is {length}, but the body has {len(body)} bytes")
    header = parse_json(body[:length])
    if not isinstance(header, dict):
        raise ProtocolError("the message is no JSON object")
    return header, body[length:]


def _tensors(
    entries: object, data: memoryview, what: str, ports: Mapping[str, Port]
) -> dict[str, Array]:
    if not isinstance(entries, list) or len(entries) > MOST_TENSORS:
        raise ProtocolError(f"the message has no list of {what}s")
    found: dict[str, Array] = {}
    for entry in entries:
        name, dtype, shape = described(entry, what)
        if name not in ports or name in found:
            twice = "twice" if name in found else "but the model has none"
            raise ProtocolError(f"there is an {what} '{name}', {twice}")
        check_port(name, dtype, shape, ports[name].dtype, ports[name].shape)
        size = _parameters(entry).get("binary_data_size")
        if size is None:
            found[name] = from_json(name, dtype, shape, entry.get("data"))
            continue
        if type(size) is not int or not 0 <= size <= len(data):
            raise ProtocolError(f"'{name}' has {size} bytes, but {len(data)} are there")
        found[name] = from_bytes(name, dtype, shape, data[:size])
        data = data[size:]
    if len(data):
        raise ProtocolError(f"{len(data)} bytes belong to no {what}")
    return found


def _wanted(
    entries: object, parameters: Mapping[str, Any], outputs: Sequence[str]
) -> dict[str, bool]:
    default = parameters.get("binary_data_output", False)
    if entries is None or entries == []:
        return dict.fromkeys(outputs, default is True)
    if not isinstance(entries, list):
        raise ProtocolError("the outputs of the request are no list")
    wanted: dict[str, bool] = {}
    for entry in entries:
        name = entry.get("name") if isinstance(entry, Mapping) else None
        if not isinstance(name, str) or name not in outputs or name in wanted:
            raise ProtocolError(f"an output '{name}' cannot be asked for", f"there are {outputs}")
        wanted[name] = _parameters(entry).get("binary_data", default) is True
    return wanted


def _parameters(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = entry.get("parameters")
    if parameters is None:  # left out or, as KServe does, null
        return {}
    if not isinstance(parameters, Mapping):
        raise ProtocolError("parameters are no JSON object")
    return parameters


def _entry(name: str, array: Array) -> dict[str, Any]:
    return {"name": name, "shape": list(array.shape), "datatype": type_name(array.dtype)}


def _binary_entry(name: str, array: Array) -> dict[str, Any]:
    return {**_entry(name, array), "parameters": {"binary_data_size": array.nbytes}}


def _json(content: Mapping[str, object]) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
