"""How far rounding alone may move a model's outputs: run it again with noise at every operator.

A fixed tolerance is wrong both ways: a deep detector moves by 1e-3 of its output under another
order of sums, and a fault of 1 % in one channel may move another model by 1e-5. So the tolerance
is taken from the model. In a noisy copy each operator that rounds does so a little worse, at
random; how far the outputs of a few such runs stray tells how far a right rewrite may stray:

- each element is allowed CEILING_FACTOR times the worst it showed plus LEVEL_FACTOR times what is
  usual around it (an element may keep still by chance in all runs);
- results that flip (argmax, steps of a quantizer, thresholds) stray rarely and far, so some
  elements may be off by more, COUNT_FACTOR times as many as in a noisy run judged by the others,
  as far as REACH_FACTOR times the farthest seen. Louder noise finds flips that quiet noise
  missed; it is measured only before a candidate is turned down.

Measured on 27 real models (`python benchmarks/noise.py MODELS --peer PYTHON`): 130 right rewrites
(other optimizers; ONNX Runtime's levels up to the one that changes the layout of convolutions):
77 equal bit for bit, all 130 passed, the farthest (a quantized network) off by 46 % of its output.
Typically the worst element takes a tenth to a half of what it is allowed. 270 faults in one channel
of one layer: weights x 1.001, 56 of 59 caught; x 1.01, 57 of 59; two channels swapped, 70 of 70;
bias dropped, 57 of 57; quantization scale x 1.01, 12 of 12; epsilon x 100, 13 of 13. The five
missed moved the output by 1e-6 to 4e-5 of its size and took 18 to 86 % of what was allowed. The
constants were chosen while looking at about half of these models, so these are not figures for
models never seen.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.inliner

from onnxopt.errors import OnnxoptError
from onnxopt.graph_protos import bodies
from onnxopt.runtime import Session
from onnxopt.signature import FLOAT_TYPES, Array
from onnxopt.verification.comparison import distance, leaves
from onnxopt.verification.element_types import Types, element_types, ulp
from onnxopt.verification.reach import reached

EXACT_OPERATORS = frozenset(
    ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Split")
    + ("Slice", "Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "Scatter")
    + ("Expand", "Tile", "Pad", "Where", "Compress", "DepthToSpace", "SpaceToDepth", "Dropout")
    + ("Relu", "Max", "Min", "Clip", "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "Neg")
    + ("Abs", "Sign", "Floor", "Ceil", "Round", "TopK", "Unique", "NonZero", "ArgMax", "ArgMin")
    + ("If", "Loop", "Scan", "ReverseSequence", "Trilu", "Crop", "OneHot", "IsNaN", "MaxUnpool")
    + ("SequenceAt", "OptionalGetElement", "ConcatFromSequence", "CastLike", "Constant", "EyeLike")
    + ("ConstantOfShape", "Range", "NonMaxSuppression", "LabelEncoder", "Col2Im", "Upsample")
)
"""Operators that move or choose numbers and round nothing."""

WEIGHTED_OPERATORS = frozenset(
    ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "FusedConv", "FusedGemm")
    + ("FusedMatMul", "Attention", "Einsum", "BatchNormalization", "DeformConv")
)
"""Operators that sum products with weights; noise on the weights stands for the order of sums."""

PREFIX = "onnxopt.verification.noise/"


def noisy_model(proto: onnx.ModelProto, ulps: float) -> onnx.ModelProto:
    """A copy of a model in which every rounding operator rounds worse, by random amounts.

    The result of each operator that rounds, and each weight that enters a sum of products, is
    multiplied by 1 + r, r uniform within `ulps` units in the last place of its type, drawn anew for
    each element and each run. Only values that depend on the inputs' values get noise: arithmetic
    on shapes stays exact.
    """
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    opsets = {entry.domain: entry.version for entry in copy.opset_import}
    if "ai.onnx" in opsets:
        opsets.setdefault("", opsets["ai.onnx"])
    if "" not in opsets:
        copy.opset_import.add(domain="", version=13)
    constants = {tensor.name for tensor in copy.graph.initializer}
    fed = {value.name for value in copy.graph.input}
    moving = reached(copy.graph, fed or constants)
    _Noise(ulps, moving, opsets).add_to(copy.graph, {})
    return copy


@dataclass
class _Noise:
    ulps: float
    moving: set[str]
    opsets: Mapping[str, int]
    count: int = 0

    def add_to(self, graph: onnx.GraphProto, outer: Types) -> None:
        types = element_types(graph, self.opsets, outer)
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            for body in bodies(node):
                self.add_to(body, types)
            nodes += self._around(node, types)
        del graph.node[:]
        graph.node.extend(nodes)

    def _around(self, node: onnx.NodeProto, types: Types) -> Iterator[onnx.NodeProto]:
        standard = node.domain in ("", "ai.onnx")
        after: list[onnx.NodeProto] = []
        if node.op_type in WEIGHTED_OPERATORS:
            for index, name in enumerate(node.input):
                if name and name not in self.moving and types.get(name) in FLOAT_TYPES:
                    node.input[index] = fresh = f"{PREFIX}{self.count}"
                    yield from self._multiply(name, fresh, types[name])
        exact = standard and (node.op_type in EXACT_OPERATORS or _is_exact_cast(node, types))
        for index, name in enumerate(node.output):
            if name in self.moving and types.get(name) in FLOAT_TYPES and not exact:
                node.output[index] = fresh = f"{PREFIX}{self.count}"
                after += self._multiply(fresh, name, types[name])
        yield node
        yield from after

    def _multiply(self, source: str, target: str, elem_type: int) -> list[onnx.NodeProto]:
        """Nodes that make `target` from `source`; float16 takes the way through float32."""
        make, base = onnx.helper.make_node, f"{PREFIX}{self.count}/"
        self.count += 1
        width = self.ulps * ulp(elem_type)
        limits: dict[str, Any] = {"low": 1.0 - width, "high": 1.0 + width}
        limits["seed"] = float(self.count)
        if elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
            noise = make("RandomUniformLike", [source], [base + "r"], **limits)
            return [noise, make("Mul", [source, base + "r"], [target])]
        return [
            make("Cast", [source], [base + "x"], to=onnx.TensorProto.FLOAT),
            make("RandomUniformLike", [base + "x"], [base + "r"], **limits),
            make("Mul", [base + "x", base + "r"], [base + "y"]),
            make("Cast", [base + "y"], [target], to=elem_type),
        ]


def _is_exact_cast(node: onnx.NodeProto, types: Types) -> bool:
    if node.op_type != "Cast":
        return False
    source = types.get(node.input[0], 0)
    return ulp(source) == 0.0 or ulp(source) >= ulp(types.get(node.output[0], 0))


QUIET_ULPS = 1.0
QUIET_RUNS = 3
LOUD_ULPS = 4.0
LOUD_RUNS = 9
CEILING_FACTOR = 5.0
LEVEL_FACTOR = 5.0
COUNT_FACTOR = 3.0
REACH_FACTOR = 4.0
FEWEST_IN_MEDIAN = 30
MOST_IN_MEDIAN = 2048


@dataclass(frozen=True)
class Spread:
    """What noise did to one tensor.

    Attributes:
        allowed: how far each element may be off.
        outliers: how many elements of it may be off by more (discrete results that flip).
        reach: how far those may be off.
    """

    allowed: Array
    outliers: int
    reach: float


@dataclass
class NoiseMeter:
    """Measures, and remembers, how noise moves the outputs of one model.

    Attributes:
        proto: the model.
        budget_s: no further run is begun for an input once measuring it took that long.
    """

    proto: onnx.ModelProto
    budget_s: float = 20.0
    _sessions: dict[float, Session | None] = field(default_factory=dict)

    def spreads(
        self, feed: Mapping[str, Any], reference: Mapping[str, Any], *, loud: bool
    ) -> dict[str, list[Spread]] | None:
        """The spread of each tensor in each output (in the order of `leaves`).

        Returns:
            None where it cannot be measured; without an output whose shape or nesting the noise
            changed.
        """
        ulps, count = (LOUD_ULPS, LOUD_RUNS) if loud else (QUIET_ULPS, QUIET_RUNS)
        session = self._session(ulps)
        if session is None:
            return None
        start = time.monotonic()
        runs: list[dict[str, Any]] = []
        try:
            while len(runs) < count and (not runs or time.monotonic() - start < self.budget_s):
                runs.append(session.run(feed))
        except OnnxoptError:
            return None
        found = {}
        for name, value in reference.items():
            if (spread := _spread(value, [run[name] for run in runs], ulps)) is not None:
                found[name] = spread
        return found

    def _session(self, ulps: float) -> Session | None:
        if ulps not in self._sessions:
            try:
                self._sessions[ulps] = Session(noisy_model(self.proto, ulps))
            except (OnnxoptError, ValueError):
                self._sessions[ulps] = None
        return self._sessions[ulps]


def _spread(reference: Any, runs: list[Any], ulps: float) -> list[Spread] | None:
    columns = [list(leaves(run)) for run in runs]
    found = []
    for index, (path, base) in enumerate(leaves(reference)):
        errors = []
        for column in columns:
            if index >= len(column) or column[index][0] != path:
                return None
            other = column[index][1]
            if (base is None) != (other is None):
                return None
            if base is None or other is None:
                continue
            if base.shape != other.shape:
                return None
            if path.endswith(("[]", "{}")) and (base != other).any():
                return None
            errors.append(distance(base, other))
        found.append(tensor_spread(errors, ulps) if errors else Spread(np.zeros(()), 0, 0.0))
    return found


def tensor_spread(errors: list[Array], ulps: float) -> Spread:
    """The spread of one tensor.

    Args:
        errors: absolute error of each element in each noisy run.
        ulps: how loud the noise was. Loud noise finds the results that flip; what it allows of
            numbers that move smoothly is scaled down to that of rounding.
    """
    return Spread(
        allowed=_allowed(errors) / ulps,
        outliers=_outliers(errors),
        reach=REACH_FACTOR * max(float(e.max(initial=0.0)) for e in errors),
    )


def _allowed(errors: list[Array]) -> Array:
    """A multiple of the worst seen for the element, plus a multiple of what is usual around it."""
    stack = np.stack(errors)
    return np.asarray(CEILING_FACTOR * stack.max(axis=0) + LEVEL_FACTOR * _level(stack))


def _level(stack: Array) -> Array:
    """The usual error around each element: a median, along the axis where that is smallest.

    Outputs often hold several quantities side by side (boxes and scores in one tensor), each with
    noise of its own size. A median, so that a few flips of a discrete result do not raise it.

    Args:
        stack: errors, [run, *shape].
    """
    whole = float(np.median(_sampled(stack.reshape(1, -1)))) if stack.size else 0.0
    level = np.full(stack.shape[1:], np.inf)
    for axis in range(1, stack.ndim):
        rows = np.moveaxis(stack, axis, 0).reshape(stack.shape[axis], -1)
        if rows.shape[1] >= FEWEST_IN_MEDIAN:
            medians = np.median(_sampled(rows), axis=1)
            level = np.minimum(level, medians.reshape((-1,) + (1,) * (stack.ndim - 1 - axis)))
    return np.where(np.isinf(level), whole, level)


def _sampled(rows: Array) -> Array:
    """Some columns, the same in every call, where there are more than a median needs."""
    count = rows.shape[1]
    if count <= MOST_IN_MEDIAN:
        return rows
    return rows[:, np.random.default_rng(count).integers(0, count, size=MOST_IN_MEDIAN)]


def _outliers(errors: list[Array]) -> int:
    """How many elements stand out in a candidate that is only noisy.

    Each run is judged by the others as a candidate is judged by all of them.
    """
    if len(errors) < 2:
        return 0
    worst = 0
    for index, error in enumerate(errors):
        rest = errors[:index] + errors[index + 1 :]
        worst = max(worst, int(np.count_nonzero(error > _allowed(rest))))
    return int(COUNT_FACTOR * worst) + 2 if worst else 0
