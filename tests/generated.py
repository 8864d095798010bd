"""Random models from operators that rewrites are about, with what exporters leave in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.helper as make
import onnx.numpy_helper
from onnx import TensorProto

Shape = tuple[int, ...]
UNARY = ("Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Exp", "Identity", "Erf", "Softplus")
BINARY = ("Add", "Sub", "Mul", "Div", "Min", "Max")
OPSETS = (11, 12, 13, 15, 17, 18, 20)
LARGEST = 4000


@dataclass
class Builder:
    """A graph in the making. Values are kept within a size so that chains stay finite."""

    rng: np.random.Generator
    opset: int
    dynamic: bool
    shapes: dict[str, Shape] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    count: int = 0

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def pick(self, *ranks: int) -> str | None:
        fit = [n for n, s in self.shapes.items() if not ranks or len(s) in ranks]
        return str(self.rng.choice(fit[-6:])) if fit else None

    def constant(self, array: Any) -> str:
        """An initializer, or now and then a Constant node or something that must be folded."""
        array = np.asarray(array)
        name = self.name("c")
        kind = self.rng.integers(0, 5)
        if kind == 0:
            value = onnx.numpy_helper.from_array(array)
            self.nodes.append(make.make_node("Constant", [], [name], value=value))
        elif kind == 1:
            inner = self.constant(array)
            self.nodes.append(make.make_node("Identity", [inner], [name]))
        else:
            self.initializers.append(onnx.numpy_helper.from_array(array, name))
        return name

    def floats(self, *shape: int) -> str:
        drawn = self.rng.uniform(0.5, 1.5, shape) * self.rng.choice([-1.0, 1.0], shape)
        return self.constant(drawn.astype(np.float32))

    def ints(self, values: Any) -> str:
        return self.constant(np.asarray(values, np.int64))

    def add(self, op: str, inputs: list[str], shape: Shape, **attrs: Any) -> str:
        output = self.name("v")
        self.nodes.append(make.make_node(op, inputs, [output], name=f"n_{output}", **attrs))
        self.shapes[output] = shape
        return output


def unary(b: Builder) -> None:
    if x := b.pick():
        op = str(b.rng.choice(UNARY))
        if op == "Exp":
            x = b.add("Tanh", [x], b.shapes[x])
        b.add(op, [x], b.shapes[x])


def binary_constant(b: Builder) -> None:
    if x := b.pick():
        shape = b.shapes[x]
        dims = [d if b.rng.random() < 0.5 else 1 for d in shape]
        dims = dims[int(b.rng.integers(0, len(dims) + 1)) :]
        op = str(b.rng.choice(BINARY))
        neutral = b.rng.random() < 0.3
        value = 1.0 if op in ("Mul", "Div") else 0.0
        c = b.constant(np.full(dims, value, np.float32)) if neutral else b.floats(*dims)
        inputs = [x, c] if b.rng.random() < 0.7 or op == "Div" else [c, x]
        b.add(op, inputs, shape)


def residual(b: Builder) -> None:
    if x := b.pick():
        same = [n for n, s in b.shapes.items() if s == b.shapes[x]]
        b.add("Add", [x, str(b.rng.choice(same))], b.shapes[x])


def convolution(b: Builder) -> None:
    if x := b.pick(4):
        n, c, h, w = b.shapes[x]
        k = int(b.rng.integers(1, 4))
        group = c if b.rng.random() < 0.3 else 1
        o = c if group > 1 else int(b.rng.integers(1, 6))
        pads = [int(p) for p in b.rng.integers(0, 2, 4)]
        out = (n, o, h + pads[0] + pads[2] - k + 1, w + pads[1] + pads[3] - k + 1)
        if min(out) < 1:
            return
        inputs = [x, b.floats(o, c // group, k, k)]
        if b.rng.random() < 0.5:
            inputs.append(b.floats(o))
        elif b.opset >= 15 and b.rng.random() < 0.5:
            inputs.append(exported_zeros(b, x, inputs[1]))
        y = b.add("Conv", inputs, out, pads=pads, group=group)
        b.add("Tanh", [y], out) if b.rng.random() < 0.2 else normalize(b, y)


def exported_zeros(b: Builder, x: str, weight: str) -> str:
    """A bias of zeros as torch's exporter writes it, before anything is folded."""
    size, zero, bias = b.name("v"), b.name("v"), b.name("v")
    node = make.make_node("Shape", [weight], [size], start=0, end=1)
    like = make.make_node("CastLike", [b.constant(np.float32(0)), x], [zero])
    b.nodes += [node, like, make.make_node("Expand", [zero, size], [bias])]
    return bias


def normalize(b: Builder, x: str | None = None) -> None:
    if x := x or b.pick(4, 3):
        c = b.shapes[x][1]
        var = b.constant(b.rng.uniform(0.5, 2, c).astype(np.float32))
        b.add("BatchNormalization", [x, b.floats(c), b.floats(c), b.floats(c), var], b.shapes[x])


def pad(b: Builder) -> None:
    if x := b.pick(4):
        amounts = [0, 0, *(int(p) for p in b.rng.integers(0, 2, 2))] * 2
        n, c, h, w = b.shapes[x]
        out = (n, c, h + 2 * amounts[2], w + 2 * amounts[3])
        b.add("Pad", [x, b.ints(amounts)], out)
        convolution(b)


def linear(b: Builder) -> None:
    if x := b.pick(2, 3):
        shape = b.shapes[x]
        o = int(b.rng.integers(1, 7))
        y = b.add("MatMul", [x, b.floats(shape[-1], o)], (*shape[:-1], o))
        if b.rng.random() < 0.7:
            b.add("Add", [y, b.floats(o)], (*shape[:-1], o))


def gemm(b: Builder) -> None:
    if x := b.pick(2):
        rows, k = b.shapes[x]
        o = int(b.rng.integers(1, 7))
        turned = int(b.rng.integers(0, 2))
        weight = b.floats(o, k) if turned else b.floats(k, o)
        inputs = [x, weight] + ([b.floats(o)] if b.rng.random() < 0.5 else [])
        alpha = float(b.rng.choice([1.0, 0.5]))
        b.add("Gemm", inputs, (rows, o), transB=turned, alpha=alpha)


def transpose(b: Builder) -> None:
    if x := b.pick(2, 3, 4):
        shape = b.shapes[x]
        perm = [int(p) for p in b.rng.permutation(len(shape))]
        if b.dynamic and perm[0] != 0:
            perm = [0, *[p for p in perm if p != 0]]
        y = b.add("Transpose", [x], tuple(shape[p] for p in perm), perm=perm)
        if b.rng.random() < 0.5:
            middle = b.add(str(b.rng.choice(UNARY[:4])), [y], b.shapes[y])
            back = [int(p) for p in np.argsort(perm)]
            b.add("Transpose", [middle], shape, perm=back)


def reshape(b: Builder) -> None:
    if x := b.pick():
        shape = b.shapes[x]
        rest = int(np.prod(shape[1:]))
        targets = [(shape[0], rest), (shape[0], 1, rest), shape, (shape[0], rest, 1)]
        target = targets[int(b.rng.integers(0, len(targets)))]
        written = [0 if b.rng.random() < 0.3 and i == 0 else d for i, d in enumerate(target)]
        if b.dynamic:
            written[0] = -1 if b.rng.random() < 0.5 else 0
        b.add("Reshape", [x, b.ints(written)], target)


def exported_flatten(b: Builder) -> None:
    """What PyTorch writes for x.view(x.size(0), -1)."""
    if x := b.pick(2, 3, 4):
        shape = b.shapes[x]
        s, g, u, t = (b.name("s") for _ in range(4))
        axes = [b.ints([0])] if b.opset >= 13 else []
        attrs: dict[str, Any] = {} if b.opset >= 13 else {"axes": [0]}
        b.nodes.append(make.make_node("Shape", [x], [s]))
        b.nodes.append(make.make_node("Gather", [s, b.constant(np.int64(0))], [g], axis=0))
        b.nodes.append(make.make_node("Unsqueeze", [g, *axes], [u], **attrs))
        b.nodes.append(make.make_node("Concat", [u, b.ints([-1])], [t], axis=0))
        b.add("Reshape", [x, t], (shape[0], int(np.prod(shape[1:]))))


def concat_and_slice(b: Builder) -> None:
    if x := b.pick(2, 3, 4):
        shape = b.shapes[x]
        axis = int(b.rng.integers(1, len(shape)))
        other = b.add("Sigmoid", [x], shape)
        joined = list(shape)
        joined[axis] *= 2
        y = b.add("Concat", [x, other], tuple(joined), axis=axis)
        start = int(b.rng.integers(0, joined[axis]))
        cut = list(joined)
        cut[axis] = joined[axis] - start
        b.add("Slice", [y, b.ints([start]), b.ints([2**31]), b.ints([axis])], tuple(cut))


def reduce_or_pool(b: Builder) -> None:
    if x := b.pick(4):
        n, c, h, w = b.shapes[x]
        if b.rng.random() < 0.5:
            b.add("GlobalAveragePool", [x], (n, c, 1, 1))
        elif min(h, w) >= 2:
            out = (n, c, h - 1, w - 1)
            b.add(str(b.rng.choice(["MaxPool", "AveragePool"])), [x], out, kernel_shape=[2, 2])


def softmax(b: Builder) -> None:
    if x := b.pick(2, 3, 4):
        axis = int(b.rng.integers(-1, len(b.shapes[x])))
        if b.opset < 13 and b.dynamic and axis == 0:
            axis = 1
        b.add("Softmax", [x], b.shapes[x], axis=axis)


STEPS: tuple[Callable[[Builder], None], ...] = (
    (unary, binary_constant, binary_constant, residual, convolution, normalize, pad)
    + (linear, gemm, transpose, transpose, reshape, exported_flatten, concat_and_slice)
    + (reduce_or_pool, softmax)
)


def random_model(seed: int) -> onnx.ModelProto:
    """A model with one input [batch, ...], the batch dynamic or not, and one to three outputs."""
    rng = np.random.default_rng(seed)
    b = Builder(rng, int(rng.choice(OPSETS)), dynamic=bool(rng.integers(0, 2)))
    rank = int(rng.integers(2, 5))
    shape = (2, *(int(d) for d in rng.integers(1, 7, rank - 1)))
    b.shapes["x"] = shape
    for _ in range(int(rng.integers(2, 14))):
        step = STEPS[int(rng.integers(0, len(STEPS)))]
        step(b)
        b.shapes = {n: s for n, s in b.shapes.items() if np.prod(s) <= LARGEST}
    made = [n for n in b.shapes if n != "x"] or [b.add("Neg", ["x"], shape)]
    outputs = list(dict.fromkeys([made[-1], *rng.choice(made, int(rng.integers(0, 3)))]))
    declared: list[Any] = ["batch", *shape[1:]] if b.dynamic else list(shape)
    graph = make.make_graph(
        b.nodes,
        f"seed_{seed}",
        [make.make_tensor_value_info("x", TensorProto.FLOAT, declared)],
        [make.make_tensor_value_info(str(n), TensorProto.FLOAT, None) for n in outputs],
        b.initializers,
    )
    opsets = [make.make_opsetid("", b.opset)]
    return make.make_model(graph, opset_imports=opsets, ir_version=8)
