"""Remove a Where whose condition is the same constant everywhere.

Only where broadcasting with the condition and the other branch does not enlarge what is chosen.
"rounding", as ONNX Runtime makes 0.0 of a chosen -0.0.
"""

from onnxopt.rewriting.rule import Array, Example, Node, Result, Rule, Skip, Value
from onnxopt.rewriting.words import broadcasts_to, keeps_shape, same_shape


def rewrite(condition: Array, a: Value, b: Value, y: Node) -> Result:
    if not condition.size or (condition.any() and not condition.all()):
        return Skip("the condition is not the same everywhere")
    chosen, other = (a, b) if condition.all() else (b, a)
    fits = broadcasts_to(other, chosen) and keeps_shape(chosen, condition.shape)
    if not fits and not same_shape(chosen, y.outputs[0]):
        return Skip("the condition or the other branch may enlarge the shape")
    return chosen


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x, float[N,1] z) => (float[A,3] y)
"""

rule = Rule(
    pattern="p (condition, a, b) => (y) { y = Where(condition, a, b) }",
    rewrite=rewrite,
    numerics="rounding",
    reuse="any",
    examples=(
        Example(
            before=f"""{MODEL} <bool[3] c = {{1, 1, 1}}, float[1,1] k = {{7}}>
            {{ a = Neg(x) b = Where(c, a, k) y = Exp(b) }}""",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before=f"""{MODEL} <bool c = {{0}}> {{ a = Neg(x) b = Where(c, x, a) y = Exp(b) }}""",
            after=f"{MODEL} {{ a = Neg(x) y = Exp(a) }}",
        ),
        Example(
            before=f"""{MODEL} <bool[3] c = {{1, 0, 1}}> {{ a = Neg(x) y = Where(c, a, x) }}""",
            after=None,
        ),
        Example(  # the other branch is larger
            before=f"""{MODEL} <bool c = {{1}}> {{ a = Neg(z) y = Where(c, a, x) }}""",
            after=None,
        ),
    ),
)
