"""The passes, one file each, and the one ordered list of them."""

from __future__ import annotations

from onnxopt.passes.apply_rules import ApplyRules
from onnxopt.passes.deduplicate import Deduplicate
from onnxopt.passes.fold_constants import FoldConstants
from onnxopt.passes.fold_shapes import FoldShapes
from onnxopt.passes.inline_if import InlineIf
from onnxopt.passes.protocol import Pass
from onnxopt.passes.remove_dead import RemoveDead
from onnxopt.passes.scalar_range import ScalarRange
from onnxopt.passes.transposes import CancelTransposes
from onnxopt.rewriting.rulebook import LoadedRule
from onnxopt.shapes import infer

__all__ = ["Pass", "lossless_passes", "pass_names"]


def lossless_passes(rules: tuple[LoadedRule, ...], growth_bytes: int) -> tuple[Pass, ...]:
    """In the order in which a round runs them; rounds repeat until none changes anything."""
    return (
        FoldConstants(growth_bytes),
        FoldShapes(infer),
        InlineIf(),
        ScalarRange(),
        Deduplicate(),
        CancelTransposes(),
        ApplyRules(rules, infer),
        RemoveDead(),
    )


def pass_names(passes: tuple[Pass, ...]) -> list[str]:
    return [item.name for item in passes]
