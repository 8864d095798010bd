"""Add what is added to a Gemm without a summand inside it.

    Gemm(a, b) + c = Gemm(a, b, c)

c must broadcast to the product without enlarging it.
"""

from onnxopt.rewriting.rule import Example, Node, Result, Rule, Skip, Value, op
from onnxopt.rewriting.words import broadcasts_to


def rewrite(a: Value, b: Value, old: Value | None, c: Value, g: Node) -> Result:
    if old is not None:
        return Skip("the Gemm adds something already")
    if not broadcasts_to(c, g.outputs[0]):
        return Skip("the summand is not known to fit the product")
    return op("Gemm", a, b, c, **{name: v for name, v in g.attrs.items() if name != "beta"})


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x, float[3,2] w, float[N,2] z) => (float[N,2] y)
"""

rule = Rule(
    pattern="p (a, b, c) => (y) { g = Gemm(a, b, old) y = Add(g, c) }",
    rewrite=rewrite,
    numerics="rounding",
    examples=(
        Example(
            before=f"""{MODEL} <float[2] c = {{3, 5}}>
            {{ g = Gemm<alpha = 0.5, beta = 7.0>(x, w) y = Add(c, g) }}""",
            after=f"""{MODEL} <float[2] c = {{3, 5}}> {{ y = Gemm<alpha = 0.5>(x, w, c) }}""",
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[4,3] x, float[3,2] w, float[4,1] z) => (float[4,2] y)
            { g = Gemm(x, w) y = Add(g, z) }""",
            after="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[4,3] x, float[3,2] w, float[4,1] z) => (float[4,2] y) { y = Gemm(x, w, z) }""",
        ),
        Example(
            before=f"""{MODEL} <float[2] c = {{3, 5}}> {{ g = Gemm(x, w, z) y = Add(g, c) }}""",
            after=None,
        ),
        Example(  # the sum has another rank
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[4,3] x, float[3,2] w, float[1,4,2] z) => (float[1,4,2] y)
            { g = Gemm(x, w) y = Add(g, z) }""",
            after=None,
        ),
    ),
)
