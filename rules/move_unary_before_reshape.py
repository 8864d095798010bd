"""Take out two reshapes around an elementwise operator, or merge them behind it.

    Reshape(f(Reshape(x, s)), t) = f(x)                if t restores the shape of x
                                 = Reshape(f(x), t)    otherwise

f sees the same elements in the same order.
"""

from onnxopt.rewriting.rule import Example, Node, Op, Result, Rule, Skip, Value, op
from onnxopt.rewriting.words import reshaped


def rewrite(x: Value, s: Value | None, t: Value | None, b: Node, y: Node) -> Result:
    after = reshaped(x, y)
    if isinstance(after, Skip):
        return after
    mapped = op(b.op, x, **b.attrs)
    return (
        op("Reshape", mapped, *after.inputs[1:], **after.attrs) if isinstance(after, Op) else mapped
    )


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,6,4] x) => (float[N,6,4] y)
"""

rule = Rule(
    pattern="p (x) => (y) { a = AnyReshape(x, s) b = AnyUnary(a) y = AnyReshape(b, t) }",
    rewrite=rewrite,
    numerics="exact",
    examples=(
        Example(
            before=f"""{MODEL} <int64[2] s = {{-1, 4}}, int64[3] t = {{-1, 6, 4}}>
            {{ a = Reshape(x, s) b = LeakyRelu<alpha = 0.3>(a) y = Reshape(b, t) }}""",
            after=f"{MODEL} {{ y = LeakyRelu<alpha = 0.3>(x) }}",
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,6,4] x) => (float[N,8,3] y) <int64[1] s = {1}, int64[3] t = {-1, 8, 3}>
            { a = Unsqueeze(x, s) b = Exp(a) y = Reshape(b, t) }""",
            after="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,6,4] x) => (float[N,8,3] y) <int64[3] t = {-1, 8, 3}>
            { b = Exp(x) y = Reshape(b, t) }""",
        ),
        Example(  # Softmax is not elementwise
            before=f"""{MODEL} <int64[2] s = {{-1, 4}}, int64[3] t = {{-1, 6, 4}}>
            {{ a = Reshape(x, s) b = Softmax(a) y = Reshape(b, t) }}""",
            after=None,
        ),
    ),
)
