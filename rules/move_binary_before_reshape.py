"""Take out two reshapes around an operator with a constant number, or merge them behind it.

    Reshape(Reshape(x, s) + k, t) = x + k                if t restores the shape of x
                                  = Reshape(x + k, t)    otherwise

and so for -, *, /, Pow, Max and Min, in either order. k is one number, of a rank that enlarges
neither shape.
"""

from onnxopt.rewriting.rule import Array, Example, Node, Op, Result, Rule, Skip, Value, op
from onnxopt.rewriting.words import rank_of, reshaped


def rewrite(
    x: Value, s: Value | None, t: Value | None, k: Array, a: Node, b: Node, y: Node
) -> Result:
    rank, inner = rank_of(x), rank_of(a.outputs[0])
    if k.size != 1 or (k.ndim and (rank is None or inner is None or k.ndim > min(rank, inner))):
        return Skip("the constant is not one number")
    after = reshaped(x, y)
    if isinstance(after, Skip):
        return after
    moved = op(b.op, *(x if v is a.outputs[0] else v for v in b.inputs), **b.attrs)
    return (
        op("Reshape", moved, *after.inputs[1:], **after.attrs) if isinstance(after, Op) else moved
    )


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,6,4] x) => (float[N,6,4] y)
"""

rule = Rule(
    pattern=(
        "p (x, k) => (y) { a = AnyReshape(x, s) b = AnyBinary(a, k) y = AnyReshape(b, t) }",
        "p (x, k) => (y) { a = AnyReshape(x, s) b = AnyBinary(k, a) y = AnyReshape(b, t) }",
    ),
    rewrite=rewrite,
    numerics="exact",
    examples=(
        Example(
            before=f"""{MODEL} <int64[2] s = {{-1, 4}}, int64[3] t = {{-1, 6, 4}}, float k = {{3}}>
            {{ a = Reshape(x, s) b = Sub(k, a) y = Reshape(b, t) }}""",
            after=f"{MODEL} <float k = {{3}}> {{ y = Sub(k, x) }}",
        ),
        Example(
            before=f"""{MODEL} <int64[2] s = {{-1, 4}}, int64[3] t = {{-1, 6, 4}},
                float[1] k = {{3}}>
            {{ a = Reshape(x, s) b = Div(a, k) y = Reshape(b, t) }}""",
            after=f"{MODEL} <float[1] k = {{3}}> {{ y = Div(x, k) }}",
        ),
        Example(
            before=f"""{MODEL} <int64[2] s = {{-1, 4}}, int64[3] t = {{-1, 6, 4}},
                float[4] k = {{3, 4, 5, 6}}>
            {{ a = Reshape(x, s) b = Mul(a, k) y = Reshape(b, t) }}""",
            after=None,
        ),
    ),
)
