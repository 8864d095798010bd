"""Fold the factors alpha and beta of a Gemm into its constants.

alpha * A @ B + beta * C = A @ (alpha * B) + (beta * C)
"""

import numpy as np

from onnxopt.rewriting.rule import (
    Array,
    Example,
    Node,
    Operand,
    Result,
    Rule,
    Skip,
    Value,
    attr,
    op,
)
from onnxopt.rewriting.words import copy_needed, is_float, narrowed


def rewrite(A: Value, B: Array, C: Array | None, y: Node) -> Result:
    alpha, beta = attr(y, "alpha"), attr(y, "beta")
    if alpha == 1 and (beta == 1 or C is None):
        return Skip("there is no factor")
    if not is_float(B.dtype) or not np.isfinite([alpha, beta]).all():
        return Skip("the factors are not floating-point numbers")
    reason = (alpha != 1 and copy_needed(y, 1)) or (
        beta != 1 and C is not None and copy_needed(y, 2)
    )
    if reason:
        return reason
    axis = 0 if attr(y, "transB") else 1
    weight: Operand = y.inputs[1]
    if alpha != 1:
        weight = narrowed(B.astype(np.float64) * alpha, B.dtype, axis)
    bias: Operand = y.input(2)
    if C is not None and beta != 1:
        bias = narrowed(C.astype(np.float64) * beta, C.dtype)
    if weight is None or (bias is None and C is not None):
        return Skip(f"the new weights are too large or too small for {B.dtype}")
    attrs = {name: v for name, v in y.attrs.items() if name not in ("alpha", "beta")}
    return op("Gemm", A, weight, bias, **attrs)


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,2] y)
"""

WEIGHTS = "float[2,3] B = {1, 2, 3, 4, -1, 0.5}, float[1,2] C = {3, 5}"

rule = Rule(
    pattern="p (A, B, C) => (y) { y = Gemm(A, B, C) }",
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=f"""{MODEL} <{WEIGHTS}>
            {{ y = Gemm<transB = 1, alpha = 0.5, beta = -3.0>(x, B, C) }}""",
            after=f"""{MODEL} <float[2,3] B = {{0.5, 1, 1.5, 2, -0.5, 0.25}},
                float[1,2] C = {{-9, -15}}> {{ y = Gemm<transB = 1>(x, B, C) }}""",
        ),
        Example(
            before=f"""{MODEL} <{WEIGHTS}> {{ y = Gemm<transB = 1, beta = -3.0>(x, B, C) }}""",
            after=f"""{MODEL} <float[2,3] B = {{1, 2, 3, 4, -1, 0.5}}, float[1,2] C = {{-9, -15}}>
            {{ y = Gemm<transB = 1>(x, B, C) }}""",
        ),
        Example(before=f"{MODEL} <{WEIGHTS}> {{ y = Gemm<transB = 1>(x, B, C) }}", after=None),
    ),
)
