"""Merge two Transposes into one, or none if the second one undoes the first.

axis i of the result is axis second[i] of the value between, so axis first[second[i]] of x
"""

from onnxopt.rewriting.rule import Example, Node, Result, Rule, Skip, Value, op
from onnxopt.rewriting.words import permutation


def rewrite(x: Value, a: Node, y: Node) -> Result:
    first, second = permutation(a), permutation(y)
    if first is None or second is None or len(first) != len(second):
        return Skip("the rank is unknown")
    perm = [first[axis] for axis in second]
    return x if perm == sorted(perm) else op("Transpose", x, perm=perm)


MODEL = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2,3,4] x) => (float[A,B,C] y)
"""

rule = Rule(
    pattern="p (x) => (y) { a = Transpose(x) y = Transpose(a) }",
    rewrite=rewrite,
    numerics="exact",
    reuse="any",
    examples=(
        Example(
            before=f"""{MODEL} {{
                a = Transpose<perm = [0, 2, 1]>(x)
                y = Transpose<perm = [1, 0, 2]>(a)
            }}""",
            after=f"{MODEL} {{ y = Transpose<perm = [2, 0, 1]>(x) }}",
        ),
        Example(
            before=f"""{MODEL} {{
                n = Neg(x)
                a = Transpose<perm = [2, 0, 1]>(n)
                b = Transpose<perm = [1, 2, 0]>(a)
                y = Exp(b)
            }}""",
            after=f"{MODEL} {{ n = Neg(x) y = Exp(n) }}",
        ),
        Example(
            before=f"""{MODEL} {{ n = Neg(x) a = Transpose(n) b = Transpose(a) y = Exp(b) }}""",
            after=f"{MODEL} {{ n = Neg(x) y = Exp(n) }}",
        ),
    ),
)
