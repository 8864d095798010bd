"""External data: read only from the model's own folder, write as one file beside the model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import google.protobuf.message
import onnx

from onnxopt.errors import BadModelError
from onnxopt.graph_protos import bodies

SMALLEST_EXTERNAL_BYTES = 1024
ALIGNMENT_BYTES = 64


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a model that may hold external data, bodies and functions included."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)
    for training in proto.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for body in bodies(node):
            yield from _graph_tensors(body)


def size_bytes(proto: onnx.ModelProto) -> int:
    """Size of a model as one message; of one that does not fit a message, that of its tensors."""
    try:
        size: int = proto.ByteSize()
    except google.protobuf.message.EncodeError:
        size = sum(len(tensor.raw_data) for tensor in tensors(proto))
    return size


def is_external(tensor: onnx.TensorProto) -> bool:
    return tensor.HasField("data_location") and tensor.data_location == onnx.TensorProto.EXTERNAL


def uses_external_data(proto: onnx.ModelProto) -> bool:
    return any(is_external(tensor) for tensor in tensors(proto))


def load_external_data(proto: onnx.ModelProto, folder: Path) -> None:
    """Move external data into the message, in place.

    Raises:
        BadModelError: a location outside `folder` (absolute, `..` or through a symbolic link), a
            missing file, or one too short.
    """
    for tensor in tensors(proto):
        if is_external(tensor):
            tensor.raw_data = _read(tensor, folder)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")


def _read(tensor: onnx.TensorProto, folder: Path) -> bytes:
    entry = {e.key: e.value for e in tensor.external_data}
    location = entry.get("location", "")
    file = _safe_path(tensor.name, location, folder)
    try:
        offset = int(entry.get("offset") or 0)
        length = int(entry["length"]) if entry.get("length") else file.stat().st_size - offset
    except ValueError:
        raise BadModelError(
            f"the initializer '{tensor.name}' has external data whose offset or length is no number"
        ) from None
    if offset < 0 or length < 0 or offset + length > file.stat().st_size:
        raise BadModelError(
            f"the initializer '{tensor.name}' needs bytes {offset} to {offset + length} of "
            f"'{location}', which has {file.stat().st_size}",
            "the data file is truncated or belongs to another model",
        )
    with file.open("rb") as stream:
        stream.seek(offset)
        return stream.read(length)


def _safe_path(name: str, location: str, folder: Path) -> Path:
    path = Path(location)
    refused = f"the initializer '{name}' keeps its data in '{location}'"
    if not location or path.is_absolute() or ".." in path.parts or "\\" in location:
        raise BadModelError(
            f"{refused}, which is not a plain path inside the model's folder",
            "refused for safety: move the data file next to the model and export again",
        )
    file = folder / path
    try:
        resolved = file.resolve()
        inside = resolved.is_relative_to(folder.resolve())
    except (OSError, ValueError):
        inside = False
    if not inside:
        raise BadModelError(
            f"{refused}, which a symbolic link leads out of the model's folder",
            "refused for safety: replace the link by the file",
        )
    if not file.is_file():
        raise BadModelError(f"{refused}, which does not exist", "put that file next to the model")
    return file


def external_name(model_name: str, data: list[bytes]) -> str:
    """File name for external data: made from the content, so that it never overwrites another."""
    digest = hashlib.sha256()
    for piece in data:
        digest.update(piece)
    return f"{model_name}.{digest.hexdigest()[:12]}.data"


def move_to_external_data(
    proto: onnx.ModelProto, model_name: str
) -> tuple[onnx.ModelProto, list[bytes]]:
    """A copy of the model whose large initializers point into one file, and that file's content."""
    moved = onnx.ModelProto()
    moved.CopyFrom(proto)
    data: list[bytes] = []
    pending: list[tuple[onnx.TensorProto, int, int]] = []
    position = 0
    for tensor in tensors(moved):
        if len(tensor.raw_data) < SMALLEST_EXTERNAL_BYTES:
            continue
        padding = -position % ALIGNMENT_BYTES
        data += [b"\0" * padding, tensor.raw_data]
        pending.append((tensor, position + padding, len(tensor.raw_data)))
        position += padding + len(tensor.raw_data)
    name = external_name(model_name, data) if data else ""
    for tensor, offset, length in pending:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", name), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
    return moved, data
