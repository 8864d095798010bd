"""Folders of split models for tests, made without `split export`: where to cut is told."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.parser
import onnx.shape_inference

from onnxopt.runtime import Session
from onnxopt.signature import Array, port_of
from onnxopt.splitting.folder import file_digest, write_manifest
from onnxopt.splitting.manifest import SCHEMA, Codec, Cut, Manifest, Port, Segment
from onnxopt.submodel import submodel

TWO_BRANCHES = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4] x, int64[4] order) => (float[N,4] early, float[N,4] y, bool[N,4] positive) {
        a = Relu(x)
        early = Neg(a)
        b = Gather<axis = 1>(a, order)
        c = Sin(b)
        d = Add(c, x)
        y = Exp(d)
        zero = Constant<value = float {0.0}>()
        positive = Greater(c, zero)
    }
"""
"""Two inputs, one of which both sides need; an output that the device makes; three dtypes."""

CUTS_OF_TWO_BRANCHES = (("a", "x", "order"), ("b", "x"), ("d",))


def two_branches() -> onnx.ModelProto:
    return onnx.parser.parse_model(TWO_BRANCHES)


def feeds_of_two_branches(seed: int, batch: int = 3) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, 4), dtype=np.float32)
    return {"x": x, "order": rng.permutation(4)}


def whole(proto: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    """What the model itself makes of it."""
    return Session(proto, optimized=True).run(feeds)


def write_split(
    folder: Path,
    proto: onnx.ModelProto,
    cuts: Sequence[Sequence[str]],
    *,
    codec: Codec = "none",
    name: str = "tiny",
    chosen: int = 1,
) -> Manifest:
    """Cut a model into segments.

    Args:
        cuts: for each inner cut the tensors that cross, in topological order.
        codec: of every inner cut; outputs of the model and integers cross as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    infos = _types(proto)
    inputs = [info.name for info in proto.graph.input]
    outputs = [info.name for info in proto.graph.output]
    borders = [inputs, *map(list, cuts), []]
    segments, made = [], set(inputs)
    for number, (before, after) in enumerate(itertools.pairwise(borders)):
        last = number == len(borders) - 2
        new = [n for n in after if n not in made]
        new += [
            n
            for n in outputs
            if n not in made and n not in new and (last or _needs_only(proto, n, before, after))
        ]
        part = submodel(proto, new, {n: infos[n].type for n in before})
        for info in part.graph.output:
            info.CopyFrom(infos[info.name])
        segments.append(_write_segment(folder, number, part))
        made.update(new)
    ports = {n: _port(info) for n, info in infos.items()}
    ends = [*map(list, borders[:-1]), []]
    written = [
        _cut(folder, n, [ports[t] for t in end], codec if 0 < n < len(borders) - 1 else "none")
        for n, end in enumerate(ends)
    ]
    manifest = Manifest(
        SCHEMA,
        name,
        hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest(),
        tuple(ports[n] for n in inputs),
        tuple(ports[n] for n in outputs),
        tuple(segments),
        tuple(written),
        chosen,
        None,
        (),
    )
    write_manifest(manifest, folder)
    return manifest


def _types(proto: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    graph = onnx.shape_inference.infer_shapes(proto).graph
    return {info.name: info for info in (*graph.input, *graph.value_info, *graph.output)}


def _needs_only(
    proto: onnx.ModelProto, output: str, before: Sequence[str], after: Sequence[str]
) -> bool:
    """An output that lies before the next cut: no tensor of that cut is on the way to it."""
    infos = _types(proto)
    stop = {n: infos[n].type for n in after if n not in before}
    part = submodel(proto, [output], stop)
    return not any(info.name in stop for info in part.graph.input)


def _write_segment(folder: Path, number: int, part: onnx.ModelProto) -> Segment:
    file = f"segment{number:02d}.onnx"
    (folder / file).write_bytes(part.SerializeToString(deterministic=True))
    reads = tuple(info.name for info in part.graph.input)
    makes = tuple(info.name for info in part.graph.output)
    return Segment(file, {file: file_digest(folder / file)}, reads, makes, 0, 0, None)


def _port(info: onnx.ValueInfoProto) -> Port:
    port = port_of(info)
    count = int(np.prod([d if isinstance(d, int) else 1 for d in port.dims or ()]))
    return Port(info.name, str(port.dtype), port.dims, count * port.dtype.itemsize)


def _cut(folder: Path, number: int, tensors: list[Port], codec: Codec) -> Cut:
    name = f"cut{number:02d}"
    if codec == "none":
        return Cut(name, tuple(tensors), codec, tuple(tensors), None, None, {}, None)
    assert codec == "fp16"
    wire, nodes, back = [], [], []
    for port in tensors:
        if port.dtype != "float32":
            wire.append(port)
            continue
        wire.append(Port(f"{port.name}_fp16", "float16", port.shape, port.size_bytes // 2))
        nodes.append(onnx.helper.make_node("Cast", [port.name], [wire[-1].name], to=10))
        back.append(onnx.helper.make_node("Cast", [wire[-1].name], [port.name], to=1))
    coded = [(t, w) for t, w in zip(tensors, wire, strict=True) if t is not w]
    sides = ([t for t, _ in coded], [w for _, w in coded])
    files = (f"{name}_encoder.onnx", f"{name}_decoder.onnx")
    for file, work, (reads, makes) in zip(files, (nodes, back), (sides, sides[::-1]), strict=True):
        graph = onnx.helper.make_graph(work, name, _infos(reads), _infos(makes))
        opset = [onnx.helper.make_opsetid("", 17)]
        proto = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
        (folder / file).write_bytes(proto.SerializeToString(deterministic=True))
    hashes = {file: file_digest(folder / file) for file in files}
    return Cut(name, tuple(tensors), codec, tuple(wire), files[0], files[1], hashes, None)


def _infos(ports: Sequence[Port]) -> list[onnx.ValueInfoProto]:
    kinds = {"float32": onnx.TensorProto.FLOAT, "float16": onnx.TensorProto.FLOAT16}
    return [onnx.helper.make_tensor_value_info(p.name, kinds[p.dtype], p.shape) for p in ports]
