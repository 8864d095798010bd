"""Find where a pattern fits: compile it once, then match it backwards from a node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import onnx
import onnx.parser

from onnxopt.errors import UsageError
from onnxopt.graph import Constant, Graph, Node, Value, decode_attribute
from onnxopt.rewriting.rule import Rule, Skip

COMMUTATIVE = frozenset(
    ("Add", "Mul", "And", "Or", "Xor", "Equal", "Min", "Max", "Sum", "Mean")
    + ("BitwiseAnd", "BitwiseOr", "BitwiseXor")
)
"""Operators whose two inputs a pattern matches in either order."""


OLDEST_OPSET = 7
"""Before it operators broadcast by attributes, and Dropout and BatchNormalization trained."""

FAMILIES: dict[str, frozenset[str]] = {
    "AnyReshape": frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze")),
    "AnyLinear": frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul")),
    "AnyUnary": frozenset(
        ("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil")
        + ("Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish")
        + ("IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu")
        + ("Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign")
        + ("Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu")
    ),
    "AnyBinary": frozenset(("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min")),
}
"""Names that stand for any of several operators in a pattern. AnyReshape: the same elements in
another shape. AnyUnary: one element of one input makes one element of the output."""


@dataclass(frozen=True)
class PatternNode:
    op_type: str  # or the name of a family
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: dict[str, Any]


@dataclass(frozen=True)
class Pattern:
    """A pattern function, by the value that each node makes; `root` makes the output."""

    inputs: tuple[str, ...]
    root: PatternNode
    makers: dict[str, PatternNode]

    @property
    def names(self) -> frozenset[str]:
        """Of all values in it."""
        read = {name for node in self.makers.values() for name in node.inputs}
        return frozenset(read | set(self.makers) | set(self.inputs))


@dataclass(frozen=True)
class Parameter:
    """What an annotation of `rewrite` asks of the value of that name."""

    kind: type
    optional: bool


@dataclass
class Match:
    """Where a pattern fits: nodes from the output inwards, and the value of each name."""

    nodes: list[Node]
    values: dict[str, Value | None]

    @property
    def root(self) -> Node:
        return self.nodes[0]


def compile_pattern(text: str, rule: str) -> Pattern:
    """Read a pattern function.

    Raises:
        UsageError: it is not ONNX text, or not one connected pattern with one output.
    """
    try:
        graph = onnx.parser.parse_graph(text.strip())
    except onnx.parser.ParseError as error:
        raise UsageError(f"rule '{rule}': the pattern is not ONNX text: {error}") from None
    makers: dict[str, PatternNode] = {}
    for node in graph.node:
        found = PatternNode(
            node.op_type,
            node.domain,
            tuple(node.input),
            tuple(node.output),
            {a.name: decode_attribute(a) for a in node.attribute},
        )
        makers.update(dict.fromkeys(node.output, found))
    if len(graph.output) != 1 or graph.output[0].name not in makers:
        raise UsageError(f"rule '{rule}': a pattern has one output, made by one of its nodes")
    return Pattern(tuple(i.name for i in graph.input), makers[graph.output[0].name], makers)


def expand_root(pattern: Pattern) -> list[Pattern]:
    """One pattern for each operator that the root may be, as roots are looked up by operator."""
    family = FAMILIES.get(pattern.root.op_type)
    if family is None:
        return [pattern]
    found: list[Pattern] = []
    for op_type in sorted(family):
        root = replace(pattern.root, op_type=op_type)
        makers = {n: root if m is pattern.root else m for n, m in pattern.makers.items()}
        found.append(Pattern(pattern.inputs, root, makers))
    return found


def parameters(rule: Rule, name: str) -> dict[str, Parameter]:
    """The constraints in the annotations of a rule's rewrite.

    Raises:
        UsageError: a parameter without an annotation that means something.
    """
    hints = get_type_hints(rule.rewrite)
    hints.pop("return", None)
    found: dict[str, Parameter] = {}
    for parameter, hint in hints.items():
        kinds = [hint]
        if get_origin(hint) in (Union, UnionType):
            kinds = [k for k in get_args(hint) if k is not type(None)]
        kind = get_origin(kinds[0]) or kinds[0]
        if len(kinds) != 1 or kind not in (Value, np.ndarray, Node, Graph):
            raise UsageError(
                f"rule '{name}': parameter '{parameter}' must be a Value, Array, Node or Graph"
            )
        found[parameter] = Parameter(kind, optional=hint is not kinds[0])
    return found


def find_match(
    pattern: Pattern, wanted: dict[str, Parameter], root: Node, *, sole: bool
) -> Match | Skip | None:
    """The pattern with its output made by `root`; Skip if it fits but cannot be used.

    Args:
        sole: values inside may not be read from outside the match.
    """
    if root.domain == "" and root.opset < OLDEST_OPSET:
        return None
    reason: Skip | None = None
    for match in _matches(pattern, root):
        _bind_absent(match, wanted)
        if not _has_what_is_wanted(pattern, wanted, match):
            continue
        reason = _overridable(wanted, match) or (_shared(match) if sole else None)
        if reason is None:
            return match
    return reason


def _matches(pattern: Pattern, root: Node) -> Iterator[Match]:
    for nodes, values in _fit(pattern, pattern.root, root, (), {}):
        yield Match(list(nodes), dict(values))


Bindings = dict[str, Value | None]
Fit = tuple[tuple[Node, ...], Bindings]


def _fit(
    pattern: Pattern, wanted: PatternNode, node: Node, nodes: tuple[Node, ...], values: Bindings
) -> Iterator[Fit]:
    """Every way in which `node` can be `wanted`, given what is bound already."""
    if not _is_kind(node, wanted) or node.graph is None:
        return
    if nodes and node.graph is not nodes[0].graph:
        return
    if any(node.attr(name) != value for name, value in wanted.attrs.items()):
        return
    if not _outputs_fit(wanted, node):
        return
    if any(not value.omitted for value in node.inputs[len(wanted.inputs) :]):
        return
    bound = dict(values)
    for index, name in enumerate(wanted.outputs):
        bound[name] = node.output(index)
    given = [node.input(index) for index in range(len(wanted.inputs))]
    orders = [given]
    if node.op in COMMUTATIVE and len(given) == 2 and node.domain == "":
        orders.append(given[::-1])
    for order in orders:
        pairs = list(zip(wanted.inputs, order, strict=True))
        yield from _fit_inputs(pattern, pairs, (*nodes, node), bound)


def _is_kind(node: Node, wanted: PatternNode) -> bool:
    if node.domain != wanted.domain:
        return False
    return node.op == wanted.op_type or node.op in FAMILIES.get(wanted.op_type, ())


def _outputs_fit(wanted: PatternNode, node: Node) -> bool:
    """Outputs that the pattern does not name are not used."""
    return all(not value.is_used for value in node.outputs[len(wanted.outputs) :])


def _fit_inputs(
    pattern: Pattern,
    pairs: list[tuple[str, Value | None]],
    nodes: tuple[Node, ...],
    values: Bindings,
) -> Iterator[Fit]:
    if not pairs:
        yield nodes, values
        return
    (name, value), rest = pairs[0], pairs[1:]
    if name in values:
        if values[name] is value:
            yield from _fit_inputs(pattern, rest, nodes, values)
        return
    maker = pattern.makers.get(name)
    if maker is None:
        yield from _fit_inputs(pattern, rest, nodes, {**values, name: value})
    elif value is not None and value.producer is not None:
        for found, bound in _fit(pattern, maker, value.producer, nodes, values):
            if bound.get(name) is value:
                yield from _fit_inputs(pattern, rest, found, bound)


def _bind_absent(match: Match, wanted: dict[str, Parameter]) -> None:
    for name in wanted:
        match.values.setdefault(name, None)


def _has_what_is_wanted(pattern: Pattern, wanted: dict[str, Parameter], match: Match) -> bool:
    """Inputs are there, and constant where the rewrite asks for arrays."""
    for name, value in match.values.items():
        parameter = wanted.get(name)
        if value is None:
            optional = parameter is not None and (parameter.optional or parameter.kind is Graph)
            if not optional and name not in pattern.makers:
                return False
        elif parameter is not None and parameter.kind is np.ndarray:
            if value.array is None and not isinstance(value, Constant):
                return False
    return True


def _overridable(wanted: dict[str, Parameter], match: Match) -> Skip | None:
    """An initializer that only is not constant because a caller may give another one."""
    for name, parameter in wanted.items():
        value = match.values.get(name)
        if value is not None and parameter.kind is np.ndarray and value.array is None:
            return Skip(f"the initializer '{value.name}' may be overridden by callers")
    return None


def _shared(match: Match) -> Skip | None:
    """A value inside the match that is also read outside of it."""
    inside = set(match.nodes)
    for node in match.nodes[1:]:
        for value in node.outputs:
            if value.is_graph_output or any(c not in inside for c in value.consumers):
                return Skip(f"'{value.name}' is also needed elsewhere")
    return None


def arguments(match: Match, wanted: dict[str, Parameter]) -> dict[str, Any]:
    """What to call the rewrite with."""
    made: dict[str, Any] = {}
    for name, parameter in wanted.items():
        value = match.values.get(name)
        if parameter.kind is Graph:
            made[name] = match.root.graph
        elif value is None:
            made[name] = None
        elif parameter.kind is Node:
            made[name] = value.producer
        elif parameter.kind is np.ndarray:
            made[name] = value.array
        else:
            made[name] = value
    return made
