"""Models that are hard to split, each for a reason of its own; and how halves are judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import judge
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from onnxopt.model import load
from onnxopt.runtime import Session
from onnxopt.splitting.boundary import complete
from onnxopt.splitting.dag import Dag
from onnxopt.splitting.describing import read_source
from onnxopt.splitting.export import Exported, export
from onnxopt.splitting.halves import Parts, take_apart
from onnxopt.splitting.manifest import Codec
from onnxopt.splitting.operators import Subject, read_subject
from onnxopt.splitting.wishes import Wish

CAPTURES = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4] x, bool flag) => (float[N,4] y)
    <float[4] only_in_branch = {0.5, -1.0, 2.0, 3.0}, float[4] bias = {1.0, 2.0, 3.0, 4.0}> {
        early = Sin(x)
        h = Add(early, bias)
        sum = ReduceSum<keepdims = 0>(h)
        zero = Constant<value = float {0.0}>()
        positive = Greater(sum, zero)
        c = Or(positive, flag)
        out = If(c) <
            then_branch = then_graph () => (t) { a = Mul(early, only_in_branch) t = Add(a, x) },
            else_branch = else_graph () => (e) { b = Sub(early, x) e = Mul(b, only_in_branch) }
        >
        y = Exp(out)
    }
"""
"""Branches capture an earlier tensor, a weight that nothing else reads, and the model's input."""

SHARED = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4] x, float[4,4] w) => (float[N,4] y) {
        a = MatMul(x, w)
        b = Tanh(a)
        c = MatMul(b, w)
        d = Add(c, x)
        y = Sigmoid(d)
    }
"""
"""Both halves need the weight and the input."""

CUT_OUTPUT = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4] x) => (float[N,4] a, float[N,4] y, float[N,4] early) {
        a = Relu(x)
        early = Neg(a)
        b = Sin(a)
        y = Exp(b)
    }
"""
"""The tensor that crosses is an output of the model too, and one output is made before the cut."""

CONTRIB = """
    <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    g (float[N,3,6] x, float[6,5] w, float[5] w1) => (float[N,3,5] y) {
        a = com.microsoft.QuickGelu<alpha = 1.5>(x)
        f = com.microsoft.FusedMatMul<alpha = 0.5>(a, w)
        g = com.microsoft.BiasGelu(f, w1)
        y = Tanh(g)
    }
"""

FUNCTION = """
    <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
    g (float[N,4] x, bool flag) => (float[N,4] y) {
        a = own.outer(x)
        b = Relu(a)
        c = If(flag) <
            then_branch = t () => (p) { p = own.inner(b) },
            else_branch = e () => (q) { q = Identity(b) }
        >
        y = Neg(c)
    }
    <domain: "own", opset_import: ["" : 17, "own" : 1]>
    outer (x) => (y) { h = own.inner(x) y = Add(h, x) }
    <domain: "own", opset_import: ["" : 17]>
    inner (x) => (y) { y = Sin(x) }
"""
"""A local function that calls another one, which is called in a body behind the cut as well."""

RESIDUAL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4] x, float[4,4] w, float[4,4] w1) => (float[N,4] y) {
        stem = Relu(x)
        a = MatMul(stem, w)
        b = Tanh(a)
        c = MatMul(b, w1)
        s = Add(c, stem)
        y = Sigmoid(s)
    }
"""

SIDE_HEAD = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1,8] x, float[8,2] w) => (float[1,8] head, float[1,2] y) {
        early = Relu(x)
        h1 = Sin(early)
        head = Exp(h1)
        a = MatMul(early, w)
        b = Tanh(a)
        y = Neg(b)
    }
"""

QUANTIZED = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4] x, int8[4,4] wq) => (float[N,4] y)
    <float s = {0.05}, uint8 z = {128}, float scale = {0.02}, int8 zero = {0}> {
        q = QuantizeLinear(x, s, z)
        d = DequantizeLinear(q, s, z)
        w = DequantizeLinear(wq, scale, zero)
        m = MatMul(d, w)
        q2 = QuantizeLinear(m, s, z)
        y = DequantizeLinear(q2, s, z)
    }
"""

PASS_THROUGH = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4] x, float[N,4] unread) => (float[N,4] x, float[4] k, float[2] folded, float[N,4] y)
    <float[4] k = {1.0, 2.0, 3.0, 4.0}, float[2] p = {1.0, 2.0}> {
        folded = Neg(p)
        a = Relu(x)
        b = Add(a, k)
        y = Sin(b)
    }
"""
"""Outputs that are an input, a weight and a constant; an input that nothing reads."""

SHAPES = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,2,6] x) => (float[M,K] y) {
        a = Relu(x)
        s = Shape(a)
        zero = Constant<value = int64 {0}>()
        n = Gather(s, zero)
        axes = Constant<value = int64[1] {0}>()
        n1 = Unsqueeze(n, axes)
        rest = Constant<value = int64[1] {-1}>()
        target = Concat<axis = 0>(n1, rest)
        b = Sin(a)
        c = Tanh(b)
        r = Reshape(c, target)
        y = Neg(r)
    }
"""

OVERRIDABLE = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,4] x, float[4] gain) => (float[N,4] y) <float[4] gain = {1.0, 2.0, 3.0, 4.0}> {
        a = Mul(x, gain)
        b = Tanh(a)
        y = Mul(b, gain)
    }
"""

SEVEN = {
    "captures": (CAPTURES, "h"),
    "captures completed": (CAPTURES, "c"),
    "shared": (SHARED, "b"),
    "forgotten": (RESIDUAL, "b"),
    "cut output": (CUT_OUTPUT, "a"),
    "contrib": (CONTRIB, "f"),
    "function": (FUNCTION, "b"),
}
"""Model and cut of the seven cases that other tools get wrong."""

MORE = {
    "side head": (SIDE_HEAD, "b"),
    "quantized": (QUANTIZED, "q"),
    "pass through": (PASS_THROUGH, "a"),
    "shapes": (SHAPES, "b"),
    "overridable": (OVERRIDABLE, "a"),
}


def model(text: str, seed: int = 0) -> onnx.ModelProto:
    """A model from ONNX text; inputs whose names start with `w` become random initializers."""
    proto = judge.model(text)
    rng = np.random.default_rng(seed)
    for info in [info for info in proto.graph.input if info.name.startswith("w")]:
        kind = info.type.tensor_type
        shape = [dim.dim_value for dim in kind.shape.dim]
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        drawn = rng.integers(-9, 9, shape) if dtype.kind == "i" else rng.normal(size=shape)
        tensor = onnx.numpy_helper.from_array(drawn.astype(dtype), info.name)
        proto.graph.initializer.append(tensor)
        proto.graph.input.remove(info)
    return proto


def feeds(proto: onnx.ModelProto, seed: int, size: int = 3) -> dict[str, Any]:
    return dict(judge.drawn(proto, seed, size))


def run_row(models: Iterable[onnx.ModelProto], values: Mapping[str, Any]) -> dict[str, Any]:
    """What is there once models ran one after the other."""
    there = dict(values)
    for proto in models:
        session = Session(proto)
        needed = {port.name: there[port.name] for port in session.inputs}
        given = {p.name: there[p.name] for p in session.overridable if p.name in there}
        there.update(session.run(needed | given))
    return there


def assert_same_outputs(
    whole: onnx.ModelProto, halves: Sequence[onnx.ModelProto], *, sizes: Sequence[int] = (3, 1)
) -> None:
    """The same bits, on drawn inputs."""
    for seed, size in enumerate(sizes):
        feed = feeds(whole, seed, size)
        expected, found = Session(whole).run(feed), run_row(halves, feed)
        for name, value in expected.items():
            judge.assert_close(value, found[name], 0.0, 0.0, name)


def halves_at(proto: onnx.ModelProto, *names: str, codec: Codec = "none") -> Parts:
    subject = read_subject(proto)
    device = complete(subject, names).device
    return take_apart(subject, [device], ["none", codec, "none"])


def device_of(subject: Subject, *names: str) -> frozenset[int]:
    return complete(subject, names).device


def chain_wish(subject: Subject, names: Sequence[str], codec: Codec = "none") -> Wish:
    """A chain cut at these tensors, one after the other."""
    chain = tuple(device_of(subject, name) for name in names)
    codecs: list[Codec] = ["none", *[codec] * len(chain), "none"]
    return Wish(chain, tuple(codecs), 1)


def export_to(
    folder: Path,
    proto: onnx.ModelProto,
    names: Sequence[str],
    codec: Codec = "none",
    **options: Any,
) -> Exported:
    """Write the model beside the folder, and its parts into it."""
    file = folder.parent / "model.onnx"
    file.write_bytes(proto.SerializeToString())
    subject = read_subject(proto)
    return export(
        subject, chain_wish(subject, names, codec), read_source(file, proto), folder, **options
    )


def written(folder: Path, exported: Exported) -> list[onnx.ModelProto]:
    return [load(folder / segment.file) for segment in exported.manifest.segments]


def down_sets(dag: Dag) -> list[frozenset[int]]:
    """All cuts with operators on both sides, by trying every set."""
    count = len(dag.operators)
    found = []
    for size in range(1, count):
        for chosen in combinations(range(count), size):
            device = frozenset(chosen)
            reads = (dag.tensors[t].producer for o in device for t in dag.operators[o].reads)
            if all(producer is None or producer in device for producer in reads):
                found.append(device)
    return found
