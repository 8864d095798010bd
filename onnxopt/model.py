"""Model files: read with suspicion, write atomically; and the Model that passes work on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import google.protobuf.message
import onnx
import onnx.helper
import onnx.parser

from onnxopt.convert import graph_from_proto, model_to_proto
from onnxopt.errors import BadModelError, UsageError
from onnxopt.external import (
    external_name,
    load_external_data,
    move_to_external_data,
    size_bytes,
)
from onnxopt.files import check_target, write_atomically
from onnxopt.graph import Graph
from onnxopt.graph_protos import graph_protos
from onnxopt.signature import port_of

ExternalData = Literal["auto", "always", "never"]

PROTOBUF_LIMIT_BYTES = 2**31 - 2**20
"""What one protobuf message can hold, with a little room."""


@dataclass
class Model:
    """A graph that passes edit, under the header of the file it came from.

    Attributes:
        graph: the main graph; its nodes' attributes hold the bodies.
        header: the message it was read from, never written into.
        input_permutations: axes by which a pass transposed an input of the signature.
        notes: what a pass wants said about the signature (a changed layout, a fixed shape).
    """

    graph: Graph
    header: onnx.ModelProto
    input_permutations: dict[str, tuple[int, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def from_proto(cls, proto: onnx.ModelProto, *, freeze_inputs: bool = False) -> Model:
        """Link a model. The message must not be changed as long as the Model lives.

        Raises:
            BadModelError: the graph does not hang together.
        """
        check_structure(proto)
        return cls(graph_from_proto(proto, freeze_inputs=freeze_inputs), proto)

    def to_proto(self) -> onnx.ModelProto:
        for graph in self.graph.walk():
            graph.sort()
        return model_to_proto(self.graph, self.header)

    def graphs(self) -> Iterator[Graph]:
        """The graphs that may be rewritten, outer before inner.

        A body that redefines a name from outside is left alone, with all in it: a new capture could
        mean the wrong value there.
        """
        yield from _rewritable(self.graph, frozenset())


def _rewritable(graph: Graph, outer: frozenset[str]) -> Iterator[Graph]:
    inner = {value.name for value in graph.inputs} | {c.name for c in graph.initializers}
    inner |= {v.name for node in graph.nodes for v in node.outputs if v.name}
    if graph.parent is not None and not inner.isdisjoint(outer):
        return
    yield graph
    bodies = [body for node in graph.nodes for body in node.bodies]
    if bodies:
        names = outer | inner
        for body in bodies:
            yield from _rewritable(body, names)


def load(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Read a model file, its external data included. `.onnxtxt` files are read as ONNX text.

    Raises:
        BadModelError: missing, unreadable, truncated, not a model, or external data that is
            missing, too short or outside the model's folder.
    """
    file = Path(path)
    raw = _read_bytes(file)
    if file.suffix == ".onnxtxt":
        proto = _parse_text(file, raw)
    else:
        proto = onnx.ModelProto()
        try:
            proto.ParseFromString(raw)
        except google.protobuf.message.DecodeError:
            raise BadModelError(
                f"'{file}' is not an ONNX model: its {len(raw):,} bytes cannot be parsed",
                "the file is truncated, or of another kind",
            ) from None
    del raw
    if not proto.HasField("graph") or not proto.ir_version:
        raise BadModelError(f"'{file}' is not an ONNX model: it holds no graph")
    load_external_data(proto, file.parent)
    return proto


def _read_bytes(file: Path) -> bytes:
    try:
        if file.is_dir():
            raise BadModelError(f"'{file}' is a directory", "give the .onnx file in it")
        raw = file.read_bytes()
    except FileNotFoundError:
        raise BadModelError(f"there is no file '{file}'", "check the path") from None
    except OSError as error:
        raise BadModelError(f"cannot read '{file}': {error.strerror or error}") from None
    if not raw:
        raise BadModelError(f"'{file}' is empty (0 bytes)")
    return raw


def _parse_text(file: Path, raw: bytes) -> onnx.ModelProto:
    try:
        return onnx.parser.parse_model(raw.decode())
    except (onnx.parser.ParseError, UnicodeDecodeError) as error:
        raise BadModelError(f"'{file}' is not a model in ONNX text: {error}") from None


def check_structure(proto: onnx.ModelProto) -> None:
    """What must hold before a graph is linked: opsets, operator names, sizes of initializers.

    onnx.checker is not the judge: it refuses models that ONNX Runtime runs.

    Raises:
        BadModelError: something that cannot be repaired.
    """
    if not proto.opset_import and not proto.functions:
        raise BadModelError("the model imports no operator set", "export it again")
    for graph in graph_protos(proto.graph):
        for node in graph.node:
            if any(isinstance(text, bytes) for text in _texts(node)):
                raise BadModelError(f"the node {node.name!r} holds a name that is not UTF-8")
            if not node.op_type:
                raise BadModelError(f"the node '{node.name}' has no operator type")
        for tensor in graph.initializer:
            _check_tensor(tensor)
    for info in (*proto.graph.input, *proto.graph.output):
        port = port_of(info)
        if any(isinstance(text, bytes) for text in (port.name, *(port.dims or ()))):
            raise BadModelError(f"the input or output {port.name!r} holds a name that is not UTF-8")
        kind = port.elem_type
        if kind not in onnx.TensorProto.DataType.values():
            raise BadModelError(f"'{info.name}' has the unknown data type {kind}")


def _texts(node: onnx.NodeProto) -> Iterator[str | bytes]:
    """What must be text; protobuf gives bytes where it is not."""
    yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
    yield from (attribute.name for attribute in node.attribute)


def _check_tensor(tensor: onnx.TensorProto) -> None:
    if not tensor.name:
        raise BadModelError("an initializer has no name")
    if any(d < 0 for d in tensor.dims):
        raise BadModelError(f"the initializer '{tensor.name}' has a negative dimension")
    try:
        array_type = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError):
        raise BadModelError(
            f"the initializer '{tensor.name}' has the unknown data type {tensor.data_type}"
        ) from None
    count = 1
    for dim in tensor.dims:
        count *= dim
    if tensor.HasField("raw_data") and array_type.kind in "fiubc":
        if len(tensor.raw_data) != count * array_type.itemsize:
            raise BadModelError(
                f"the initializer '{tensor.name}' holds {len(tensor.raw_data)} bytes, but its "
                f"shape {list(tensor.dims)} needs {count * array_type.itemsize}"
            )


def save(
    proto: onnx.ModelProto,
    path: str | os.PathLike[str],
    *,
    external_data: ExternalData = "auto",
    was_external: bool = False,
) -> list[Path]:
    """Write a model so that `path` is at every moment the old file or the whole new one.

    Args:
        external_data: "auto" writes a second file next to `path` where the model had one or does
            not fit one protobuf message; "always" and "never" say what they mean. The second
            file is written first, under a name made from its content.
        was_external: the model was read from external data.

    Returns:
        the files written, the model last.

    Raises:
        UsageError: the folder is missing or not writable, the name ends like ONNX text, or the
            model is too large for "never".
    """
    file = Path(path)
    size = size_bytes(proto)
    too_large = size > PROTOBUF_LIMIT_BYTES
    if external_data == "never" and too_large:
        raise UsageError(
            f"the model is {size:,} bytes, more than one file can hold",
            "use --external-data auto",
        )
    check_output(file)
    written: list[Path] = []
    if external_data == "always" or (external_data == "auto" and (was_external or too_large)):
        proto, data = move_to_external_data(proto, file.name)
        if data:
            location = file.with_name(external_name(file.name, data))
            write_atomically(location, data)
            written.append(location)
    write_atomically(file, [proto.SerializeToString(deterministic=True)])
    return [*written, file]


def check_output(file: Path) -> None:
    """Raise UsageError unless a model can be put there."""
    if file.suffix == ".onnxtxt":
        raise UsageError(f"'{file}' would be ONNX text, which is only read", "write to .onnx")
    check_target(file)
