"""Random models that mix Transposes with all operators that a Transpose can move past."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from hypothesis import strategies as st

Shape = tuple[int, ...]
Draw = Callable[..., Any]
OPSETS = (9, 11, 13, 18)


@dataclass
class Drawn:
    """A model under construction; each value has a known shape, whatever the model declares."""

    draw: Draw
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)

    def constant(self, values: Any, dtype: str = "int64") -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def weights(self, shape: Shape) -> str:
        seed = self.draw(st.integers(0, 99))
        return self.constant(np.random.default_rng(seed).uniform(0.5, 2, shape), "float32")

    def node(self, op: str, inputs: list[str], *shapes: Shape, **attrs: Any) -> str:
        outputs = [f"v{len(self.shapes) + i}" for i in range(len(shapes))]
        self.shapes.update(zip(outputs, shapes, strict=True))
        self.nodes.append(onnx.helper.make_node(op, inputs, outputs, **attrs))
        return outputs[0]

    def hidden(self, *args: Any, **attrs: Any) -> str:
        """A node whose output only the next one reads (it is not a float)."""
        name = self.node(*args, **attrs)
        self.shapes[name] = (-1,)
        return name

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def axis(self, rank: int) -> int:
        return int(self.draw(st.integers(-rank, rank - 1)))

    def axes(self, rank: int) -> list[int]:
        front = self.draw(st.lists(st.integers(0, rank - 1), min_size=1, unique=True))
        return [axis - rank if self.draw(st.booleans()) else axis for axis in front]

    def with_axes(self, op: str, x: str, first: int, axes: list[int], made: Shape, **a: Any) -> str:
        """A node that names axes: an attribute before that opset, an input from it on."""
        if self.opset < first:
            return self.node(op, [x], made, axes=axes, **a)
        return self.node(op, [x, self.constant(axes)], made, **a)


def transpose(g: Drawn, x: str) -> str:
    perm = g.draw(st.permutations(range(len(g.shapes[x]))))
    return g.node("Transpose", [x], tuple(g.shapes[x][i] for i in perm), perm=list(perm))


def unary(g: Drawn, x: str) -> str:
    return g.node(g.one_of("Relu", "Neg", "Abs", "Tanh", "Identity", "Ceil"), [x], g.shapes[x])


def arithmetic(g: Drawn, x: str) -> str:
    """With a constant of lower rank or with sizes 1, or with another value of the same shape."""
    shape = g.shapes[x]
    op = g.one_of("Add", "Sub", "Mul", "Max", "PRelu")
    others = [y for y, other in g.shapes.items() if other == shape]
    if op != "PRelu" and g.draw(st.booleans()):
        return g.node(op, g.one_of([x, g.one_of(*others)], [g.one_of(*others), x]), shape)
    small = tuple(size if g.draw(st.booleans()) else 1 for size in shape)
    other = g.weights(small[g.draw(st.integers(0, len(shape))) :])
    if op != "PRelu" and g.draw(st.booleans()):
        return g.node(op, [other, x], shape)
    return g.node(op, [x, other], shape)


def broadcast(g: Drawn, x: str) -> str:
    """With a value that is computed and has a lower rank, or sizes 1."""
    shape = g.shapes[x]
    first = g.draw(st.integers(0, len(shape)))
    others = [y for y, s in g.shapes.items() if len(s) <= len(shape) and _fits(s, shape)]
    other = g.one_of(*others) if others else g.weights(shape[first:])
    return g.node(g.one_of("Add", "Mul", "Min"), [x, other], shape)


def _fits(small: Shape, large: Shape) -> bool:
    if len(small) > len(large):
        return False
    last = large[len(large) - len(small) :]
    return all(a in (1, b) for a, b in zip(small, last, strict=True))


def where(g: Drawn, x: str) -> str:
    shape = g.shapes[x]
    bits = np.random.default_rng(g.draw(st.integers(0, 9))).integers(0, 2, shape[1:])
    return g.node("Where", [g.constant(bits, "bool"), x, g.weights((1,))], shape)


def concat(g: Drawn, x: str) -> str:
    shape, axis = list(g.shapes[x]), g.axis(len(g.shapes[x]))
    others = [y for y, other in g.shapes.items() if other == tuple(shape)]
    other = g.one_of(*others) if g.draw(st.booleans()) else g.weights(tuple(shape))
    shape[axis] *= 2
    return g.node("Concat", [x, other], tuple(shape), axis=axis)


def split(g: Drawn, x: str) -> str:
    shape, axis = list(g.shapes[x]), g.axis(len(g.shapes[x]))
    if shape[axis] < 2:
        return unary(g, x)
    sizes = [1, shape[axis] - 1]
    place = axis % len(shape)
    parts: list[Shape] = [(*shape[:place], n, *shape[place + 1 :]) for n in sizes]
    if g.opset < 13:
        return g.node("Split", [x], *parts, axis=axis, split=sizes)
    return g.node("Split", [x, g.constant(sizes)], *parts, axis=axis)


def slice_(g: Drawn, x: str) -> str:
    shape = list(g.shapes[x])
    axes = g.axes(len(shape))
    starts = [0 if shape[a] < 2 else g.one_of(0, 1) for a in axes]
    for axis, start in zip(axes, starts, strict=True):
        shape[axis] -= start
    ends = [1 << 31] * len(axes)
    if g.opset < 10:
        return g.node("Slice", [x], tuple(shape), axes=axes, starts=starts, ends=ends)
    return g.node("Slice", [x, *map(g.constant, (starts, ends, axes))], tuple(shape))


def pad(g: Drawn, x: str) -> str:
    shape = g.shapes[x]
    rank = len(shape)
    pads = g.draw(st.lists(st.integers(0, 1), min_size=2 * rank, max_size=2 * rank))
    if max(shape) > 6:
        pads = [0] * (2 * rank)
    made = tuple(n + pads[i] + pads[rank + i] for i, n in enumerate(shape))
    mode = g.one_of("constant", "edge")
    if g.opset < 11:
        return g.node("Pad", [x], made, pads=pads, mode=mode)
    return g.node("Pad", [x, g.constant(pads)], made, mode=mode)


def softmax(g: Drawn, x: str) -> str:
    op = g.one_of("Softmax", "LogSoftmax", "Hardmax")
    shape = g.shapes[x]
    return g.node(op, [x], shape, axis=g.axis(len(shape)) if g.opset > 10 else len(shape) - 1)


def reduce(g: Drawn, x: str) -> str:
    op, keep, axes = (
        g.one_of("Sum", "Max", "Mean", "L2"),
        g.one_of(0, 1),
        g.axes(len(g.shapes[x])),
    )
    first = 13 if op == "Sum" else 18
    made = without(g.shapes[x], axes, bool(keep))
    return g.with_axes(
        f"Reduce{op}",
        x,
        first,
        axes if g.opset > 10 else front(g, x, axes),
        made,
        keepdims=keep,
    )


def front(g: Drawn, x: str, axes: list[int]) -> list[int]:
    return [axis % len(g.shapes[x]) for axis in axes]


def without(shape: Shape, axes: list[int], keep: bool) -> Shape:
    gone = {axis % len(shape) for axis in axes}
    sizes = [1 if i in gone else n for i, n in enumerate(shape)]
    return tuple(n for i, n in enumerate(sizes) if keep or i not in gone)


def argmax(g: Drawn, x: str) -> str:
    keep, axis = g.one_of(0, 1), g.axis(len(g.shapes[x]))
    axis = axis if g.opset > 10 else axis % len(g.shapes[x])
    made = without(g.shapes[x], [axis], bool(keep))
    found = g.hidden("ArgMax", [x], made, axis=axis, keepdims=keep)
    return g.node("Cast", [found], made, to=onnx.TensorProto.FLOAT)


def squeeze(g: Drawn, x: str) -> str:
    shape = g.shapes[x]
    axes = [i for i, n in enumerate(shape) if n == 1 and g.draw(st.booleans())]
    return g.with_axes("Squeeze", x, 13, axes, without(shape, axes, False)) if axes else x


def unsqueeze(g: Drawn, x: str) -> str:
    rank = len(g.shapes[x]) + 1
    axis = g.draw(st.integers(0, rank - 1))
    made = (*g.shapes[x][:axis], 1, *g.shapes[x][axis:])
    return g.with_axes("Unsqueeze", x, 13, [axis], made) if rank < 6 else x


def reshape(g: Drawn, x: str) -> str:
    """Merge two neighbouring axes, split one, or make a matrix of it all."""
    shape = g.shapes[x]
    place = g.draw(st.integers(0, max(len(shape) - 2, 0)))
    kind = g.one_of("merge", "split", "flat", "rest")
    if kind == "merge" and len(shape) > 1:
        made = (*shape[:place], shape[place] * shape[place + 1], *shape[place + 2 :])
    elif kind == "split" and shape and shape[place] % 2 == 0 and len(shape) < 5:
        made = (*shape[:place], 2, shape[place] // 2, *shape[place + 1 :])
    elif kind == "flat":
        made = (shape[0] if shape else 1, int(np.prod(shape[1:])))
    else:
        made = shape
    target = list(made)
    if g.draw(st.booleans()) and target:
        target[g.draw(st.integers(0, len(target) - 1))] = -1
    return g.node("Reshape", [x, g.constant(target)], made)


def gather(g: Drawn, x: str) -> str:
    shape, axis = list(g.shapes[x]), g.axis(len(g.shapes[x]))
    place = axis % len(shape)
    if g.draw(st.booleans()):
        return g.node(
            "Gather",
            [x, g.constant(0)],
            without(tuple(shape), [axis], False),
            axis=axis,
        )
    index = [shape[place] - 1, 0]
    made = (*shape[:place], 2, *shape[place + 1 :])
    return g.node("Gather", [x, g.constant(index)], made, axis=axis)


def expand(g: Drawn, x: str) -> str:
    shape = g.shapes[x]
    made = tuple(2 if n == 1 and g.draw(st.booleans()) else n for n in shape)
    return g.node("Expand", [x, g.constant(made)], made)


def tile(g: Drawn, x: str) -> str:
    shape = g.shapes[x]
    counts = [2 if n < 3 and g.draw(st.booleans()) else 1 for n in shape]
    made = tuple(n * c for n, c in zip(shape, counts, strict=True))
    return g.node("Tile", [x, g.constant(counts)], made)


def resize(g: Drawn, x: str) -> str:
    shape = g.shapes[x]
    factors = [2 if n < 3 and g.draw(st.booleans()) else 1 for n in shape]
    made = tuple(n * f for n, f in zip(shape, factors, strict=True))
    scales = g.constant(factors, "float32")
    if g.opset < 10:
        return g.node("Upsample", [x, scales], made, mode="nearest")
    empty = g.constant([], "float32")
    return g.node("Resize", [x, empty, scales], made, mode="nearest")


def matmul(g: Drawn, x: str) -> str:
    shape = g.shapes[x]
    if len(shape) < 2:
        return x
    return g.node("MatMul", [x, g.weights((shape[-1], 3))], (*shape[:-1], 3))


def sizes(g: Drawn, x: str) -> str:
    """Shape of a value, an entry of it, and that times the value."""
    rank = len(g.shapes[x])
    whole = g.hidden("Shape", [x], (rank,))
    one = g.hidden("Gather", [whole, g.constant(g.draw(st.integers(0, rank - 1)))], ())
    size = g.node("Cast", [one], (), to=onnx.TensorProto.FLOAT)
    return g.node("Mul", [x, size], g.shapes[x])


def quantize(g: Drawn, x: str) -> str:
    if g.opset < 13:
        return unary(g, x)
    shape, axis = g.shapes[x], g.axis(len(g.shapes[x]))
    per_axis = g.draw(st.booleans())
    scale = g.weights((shape[axis],) if per_axis else ())
    zero = g.constant(np.zeros((shape[axis],) if per_axis else ()), "uint8")
    codes = g.hidden("QuantizeLinear", [x, scale, zero], shape, axis=axis)
    return g.node("DequantizeLinear", [codes, scale, zero], shape, axis=axis)


STEPS = (
    [
        unary,
        arithmetic,
        broadcast,
        where,
        concat,
        split,
        slice_,
        pad,
        softmax,
        reduce,
        argmax,
    ]
    + [
        squeeze,
        unsqueeze,
        reshape,
        gather,
        expand,
        tile,
        resize,
        matmul,
        sizes,
        quantize,
    ]
    + [transpose] * 12
)


@st.composite
def models(draw: Draw) -> tuple[onnx.ModelProto, dict[str, np.ndarray[Any, Any]]]:
    """A model and inputs for it."""
    g = Drawn(draw, draw(st.sampled_from(OPSETS)))
    size = st.integers(1, 4)
    inputs = {}
    for name in ("x", "y")[: draw(st.integers(1, 2))]:
        inputs[name] = g.shapes[name] = tuple(draw(st.lists(size, min_size=3, max_size=5)))
    last = "x"
    for _ in range(draw(st.integers(2, 12))):
        usable = [n for n, s in g.shapes.items() if 0 < len(s) <= 5 and 0 < np.prod(s) < 2000]
        start = last if last in usable and draw(st.booleans()) else draw(st.sampled_from(usable))
        last = draw(st.sampled_from(STEPS))(g, start)
    outputs = _outputs(g, last)
    symbolic = draw(st.booleans())
    proto = _model(g, inputs, outputs, symbolic)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    feeds = {n: rng.standard_normal(s).astype(np.float32) for n, s in inputs.items()}
    return proto, feeds


def _outputs(g: Drawn, last: str) -> list[str]:
    made = [n for node in g.nodes for n in node.output if g.shapes[n] != (-1,)]
    chosen = [n for n in made if n == last or g.draw(st.integers(0, 3)) == 0]
    return chosen or made[-1:] or [last]


def _model(
    g: Drawn, inputs: dict[str, Shape], outputs: list[str], symbolic: bool
) -> onnx.ModelProto:
    def info(name: str, shape: Shape | None) -> onnx.ValueInfoProto:
        dims: Any = shape
        if shape and symbolic and name in inputs:
            dims = ["N", *shape[1:]]
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)

    if not g.nodes:
        g.node("Identity", [outputs[0]], inputs[outputs[0]])
        outputs = [g.nodes[0].output[0]]
    graph = onnx.helper.make_graph(
        g.nodes,
        "drawn",
        [info(name, shape) for name, shape in inputs.items()],
        [info(name, None) for name in outputs],
        g.constants,
    )
    opset = onnx.helper.make_opsetid("", g.opset)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
