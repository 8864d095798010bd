"""The words of a rule file: Rule, Example, op, Skip, attr, and the types that constrain a match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from onnxopt.changes import Numerics
from onnxopt.graph import Array, Graph, Node, Value

__all__ = [
    "Array",
    "Example",
    "Graph",
    "Node",
    "Op",
    "Operand",
    "Result",
    "Rule",
    "Skip",
    "Value",
    "attr",
    "op",
]


@dataclass(frozen=True)
class Skip:
    """This match must be left alone, and why (`onnxopt explain` shows it)."""

    why: str


@dataclass(frozen=True)
class Op:
    """A node to make. Build it with `op`."""

    op_type: str
    inputs: tuple[Operand, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    domain: str = ""


Operand: TypeAlias = Value | Array | Op | None
Result: TypeAlias = Value | Array | Op | Skip


def op(op_type: str, *inputs: Operand, domain: str = "", **attrs: Any) -> Op:
    """Make this node: operator, inputs (None: omitted), attributes (None: left at the default).

    Arrays become initializers, nested `op`s nodes of their own.
    """
    # numpy makes scalars of arithmetic with arrays of rank 0
    kept = [np.asarray(i) if isinstance(i, np.generic) else i for i in inputs]
    while kept and kept[-1] is None:
        kept.pop()
    given = {name: value for name, value in attrs.items() if value is not None}
    return Op(op_type, tuple(kept), given, domain)


def attr(node: Node, name: str) -> Any:
    """Value of an attribute, the default of the operator's schema included; None without one."""
    return node.attr(name)


@dataclass(frozen=True)
class Example:
    """Two models in ONNX text: the rule makes `after` of `before`; None: it must leave it alone."""

    before: str
    after: str | None


@dataclass(frozen=True)
class Rule:
    """A rewrite of one small pattern, exact up to its numerics.

    Attributes:
        pattern: one or more functions in ONNX text, without types, with one output. Attributes
            that it gives must be equal; those that it leaves out may be anything.
        rewrite: called with the values that the pattern names; the annotation of each parameter
            is a constraint. `Value`: any. `Array`: constant, arrives as numpy. `Node`: the node
            that makes it. `Graph`: the graph of the match, whatever its name. `| None`: may be
            absent (then so is the input).
        numerics: what it does to the numbers.
        examples: the rule's tests and documentation.
        reuse: "sole": values inside the match may not be read from outside, as the work that makes
            them would be done twice. "any": they may, as the result does not depend on that work.
    """

    pattern: str | tuple[str, ...]
    rewrite: Callable[..., Result]
    numerics: Numerics
    examples: tuple[Example, ...]
    reuse: Literal["sole", "any"] = "sole"
