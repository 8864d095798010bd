"""Merge two of Reshape, Flatten, Squeeze and Unsqueeze into one Reshape.

Neither touches the order of the elements, so only the last shape counts. A 0 in the target of the
second one means a dimension of the shape between the two, and is replaced by what it stands for.
"""

from onnxopt.rewriting.rule import Example, Node, Result, Rule, Value
from onnxopt.rewriting.words import reshaped


def rewrite(x: Value, s: Value | None, t: Value | None, y: Node) -> Result:
    return reshaped(x, y)


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,6,4] x) => (float[M,K] y)
"""

rule = Rule(
    pattern="p (x) => (y) { a = AnyReshape(x, s) y = AnyReshape(a, t) }",
    rewrite=rewrite,
    numerics="exact",
    examples=(
        Example(
            before=f"""{MODEL} <int64[4] s = {{0, 2, 3, 4}}, int64[2] t = {{-1, 12}}>
            {{ a = Reshape(x, s) y = Reshape(a, t) }}""",
            after=f"{MODEL} <int64[2] t = {{-1, 12}}> {{ y = Reshape(x, t) }}",
        ),
        Example(
            before=f"""{MODEL} <int64[3] s = {{-1, 8, 3}}, int64[2] t = {{-1, 0}}>
            {{ a = Reshape(x, s) y = Reshape(a, t) }}""",
            after=f"{MODEL} <int64[2] t = {{-1, 8}}> {{ y = Reshape(x, t) }}",
        ),
        Example(
            before=f"""{MODEL} <int64[1] s = {{1}}> {{ a = Unsqueeze(x, s) y = Flatten(a) }}""",
            after=f"{MODEL} <int64[2] t = {{-1, 24}}> {{ y = Reshape(x, t) }}",
        ),
        Example(  # the 0 means a dimension that is not known
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,M] x, int64[2] s) => (float[A,B,C] y) <int64[3] t = {0, -1, 1}>
            { a = Reshape(x, s) y = Reshape(a, t) }""",
            after=None,
        ),
    ),
)
