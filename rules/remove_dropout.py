"""Remove Dropout: at inference it passes its input on.

Only where nothing reads its mask, and its training mode is known to be off.
"""

from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip, Value
from onnxopt.rewriting.words import all_equal


def rewrite(x: Value, ratio: Value | None, training: Array | None, y: Node) -> Result:
    if y.opset < 7:
        return Skip("this version of Dropout has a training mode of its own")
    if training is not None and not all_equal(training, 0):
        return Skip("Dropout is in training mode")
    return x


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,3] y)
"""

rule = Rule(
    pattern="p (x) => (y) { y = Dropout(x, ratio, training) }",
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"{MODEL} {{ a = Neg(x) b = Dropout(a) y = Exp(b) }}",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before=f"""{MODEL} <float ratio = {{0.3}}, bool training = {{0}}>
            {{ a = Neg(x) y, mask = Dropout(a, ratio, training) }}""",
            after=f"{MODEL} {{ y = Neg(x) }}",
        ),
        Example(
            before=f"""{MODEL} <float ratio = {{0.0}}, bool training = {{1}}>
            {{ y = Dropout(x, ratio, training) }}""",
            after=None,
        ),
        Example(
            before="""
            <ir_version: 8, opset_import: ["" : 17]>
            g (float[N,3] x) => (float[N,3] y, bool[N,3] mask)
            { a = Neg(x) y, mask = Dropout(a) }""",
            after=None,
        ),
    ),
)
