"""Fold a Transpose of a factor of Gemm into its transA or transB."""

from onnxopt.rewriting.rule import Example, Node, Result, Rule, Skip, Value, attr, op
from onnxopt.rewriting.words import permutation


def rewrite(x: Value, other: Value, c: Value | None, t: Node, y: Node) -> Result:
    if permutation(t) != [1, 0]:
        return Skip("the Transpose does not swap two axes")
    is_first = y.inputs[0] is t.outputs[0]
    factors = (x, other) if is_first else (other, x)
    flag = "transA" if is_first else "transB"
    attrs = {name: value for name, value in y.attrs.items() if name != flag}
    if not attr(y, flag):
        attrs[flag] = 1
    return op("Gemm", *factors, c, **attrs)


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[3,N] x, float[2,3] w) => (float[N,2] y)
"""

rule = Rule(
    pattern=(
        "p (x, other, c) => (y) { t = Transpose(x) y = Gemm(t, other, c) }",
        "p (x, other, c) => (y) { t = Transpose(x) y = Gemm(other, t, c) }",
    ),
    rewrite=rewrite,
    numerics="rounding",
    reuse="any",
    examples=(
        Example(
            before=f"""{MODEL} <float[2] c = {{3, 5}}> {{
                t = Transpose<perm = [1, 0]>(x)
                y = Gemm<transB = 1, alpha = 0.5, beta = 2.0>(t, w, c)
            }}""",
            after=f"""{MODEL} <float[2] c = {{3, 5}}>
            {{ y = Gemm<transA = 1, transB = 1, alpha = 0.5, beta = 2.0>(x, w, c) }}""",
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,3] x, float[3,2] w) => (float[N,2] y)
            { t = Transpose(w) y = Gemm<transB = 1>(x, t) }""",
            after="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,3] x, float[3,2] w) => (float[N,2] y) { y = Gemm(x, w) }""",
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,3] x, float[3,2] w) => (float[N,2] y)
            { t = Transpose<perm = [0, 1]>(w) y = Gemm(x, t) }""",
            after=None,
        ),
    ),
)
