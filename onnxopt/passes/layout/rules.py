"""The one table of operators that can work on another layout."""

from __future__ import annotations

from onnxopt.graph import Node
from onnxopt.passes.layout import (
    absorbing,
    along_axes,
    elementwise,
    network_operators,
    rank_changing,
    reshaping,
)
from onnxopt.passes.layout.permutation import Perm
from onnxopt.passes.layout.switch import Rule, Switch

FORWARD: dict[str, Rule] = {
    **elementwise.FORWARD,
    **along_axes.RULES,
    **network_operators.RULES,
    **rank_changing.FORWARD,
    **reshaping.FORWARD,
    **absorbing.FORWARD,
}
BACKWARD: dict[str, Rule] = {
    **elementwise.BACKWARD,
    **along_axes.RULES,
    **network_operators.RULES,
    **rank_changing.BACKWARD,
    **reshaping.BACKWARD,
}


def with_input(node: Node, index: int, layout: Perm) -> Switch | None:
    """What it takes for a node to read its input number `index` in this layout."""
    return _switch(FORWARD, node, index, layout)


def with_output(node: Node, index: int, layout: Perm) -> Switch | None:
    """What it takes for a node to make its output number `index` in this layout."""
    return _switch(BACKWARD, node, index, layout)


def _switch(rules: dict[str, Rule], node: Node, index: int, layout: Perm) -> Switch | None:
    rule = rules.get(node.op)
    if rule is None or not node.is_standard:
        return None
    found = rule(node, index, layout)
    return found if found is not None and found.changes_layout else None
