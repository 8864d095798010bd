"""Merge a two-dimensional MatMul and the Add after it into one Gemm.

    x @ W + b = Gemm(x, W, b)

b must broadcast to the product without enlarging it.
"""

from onnxopt.rewriting.linear import GEMM_TYPES
from onnxopt.rewriting.rule import Example, Node, Result, Rule, Skip, Value, op
from onnxopt.rewriting.words import broadcasts_to, rank_of


def rewrite(x: Value, W: Value, b: Value, c: Node) -> Result:
    if rank_of(x) != 2 or rank_of(W) != 2:
        return Skip("the factors are not known to be two-dimensional")
    if W.dtype not in GEMM_TYPES:
        return Skip("Gemm is for floating-point numbers")
    if not broadcasts_to(b, c.outputs[0]):
        return Skip("the summand is not known to fit the product")
    return op("Gemm", x, W, b)


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,2] y)
"""

WEIGHTS = "float[3,2] W = {1, 2, 3, 4, -1, 0.5}"

rule = Rule(
    pattern="p (x) => (y) { c = MatMul(x, W) y = Add(c, b) }",
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=f"""{MODEL} <{WEIGHTS}, float[2] b = {{3, 5}}>
            {{ c = MatMul(x, W) y = Add(b, c) }}""",
            after=f"{MODEL} <{WEIGHTS}, float[2] b = {{3, 5}}> {{ y = Gemm(x, W, b) }}",
        ),
        Example(
            before=f"{MODEL} <{WEIGHTS}> {{ d = Gemm(x, W) c = MatMul(x, W) y = Add(c, d) }}",
            after=f"{MODEL} <{WEIGHTS}> {{ d = Gemm(x, W) y = Gemm(x, W, d) }}",
        ),
        Example(  # the sum has more rows than the product may have
            before=f"""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[1,3] x) => (float[2,2] y)
            <{WEIGHTS}, float[2,2] b = {{3, 5, 7, 9}}> {{ c = MatMul(x, W) y = Add(c, b) }}""",
            after=None,
        ),
        Example(
            before=f"""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,S,3] x) => (float[N,S,2] y)
            <{WEIGHTS}, float[2] b = {{3, 5}}> {{ c = MatMul(x, W) y = Add(c, b) }}""",
            after=None,
        ),
    ),
)
