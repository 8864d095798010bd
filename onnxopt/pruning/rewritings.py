"""How a model is rewritten for pruning, beside the one rewriting before it."""

from __future__ import annotations

from dataclasses import replace

import onnx

from onnxopt.optimizer import Options, optimize
from onnxopt.pruning.scales import BATCHNORM
from onnxopt.rewriting.rulebook import load_rules


def of_the_result(rewriting: Options) -> Options:
    """How the pruned model is rewritten: its inputs are already what they shall become."""
    moved = bool(rewriting.input_layouts)
    return replace(
        rewriting,
        set_shapes={},
        input_layouts={},
        freeze_inputs=False,
        verify_data=None if moved else rewriting.verify_data,
    )


def with_batchnorms(proto: onnx.ModelProto, rewriting: Options) -> onnx.ModelProto:
    """The model rewritten as for pruning, but by no rule that touches a BatchNormalization."""
    rules = [
        rule.name
        for rule in load_rules(rewriting.rules_dirs)
        if any(node.op_type == BATCHNORM for p in rule.patterns for node in p.makers.values())
    ]
    options = replace(rewriting, skip=(*rewriting.skip, *rules), verify=False)
    return optimize(proto, options).model
