"""Small models with residual blocks, and with sums that are none; and branches that give zero."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import judge
import numpy as np
import onnx
from cuts import weighted

from onnxopt.graph import Constant, Node, Value
from onnxopt.model import Model
from onnxopt.pruning.blocks import Block, Blocks, blocks_of
from onnxopt.shapes import infer


@dataclass(frozen=True)
class Case:
    """A model and what is true of its sums.

    Attributes:
        blocks: of each block entry, exit, kind and the values that the nodes of its branch make.
        reasons: parts of the reasons of the sums that are declined, in their order.
    """

    name: str
    inputs: str
    body: str
    blocks: tuple[tuple[str, str, str, str], ...] = ()
    reasons: tuple[str, ...] = ()
    outputs: str = "float y"
    constants: str = ""
    opset: int = 18

    def model(self) -> onnx.ModelProto:
        return weighted(
            self.inputs, self.body, self.outputs, constants=self.constants, opset=self.opset
        )

    def found(self) -> Blocks:
        proto = self.model()
        return blocks_of(proto, judge.drawn(proto, 0, 3))


IMAGE = "float[N,4,8,8] x"
W = "float[4,4,3,3] w1, float[4,4,3,3] w2"
ROWS = "float[N,S,8] x"
ATTENTION = """
    q = MatMul({0}, {1}q) k = MatMul({0}, {1}k) v = MatMul({0}, {1}v)
    kt = Transpose<perm = [0, 2, 1]>(k) scores = MatMul(q, kt){2}
    p = Softmax<axis = -1>({3}) mixed = MatMul(p, v) o = MatMul(mixed, {1}o)
"""
PROJECTIONS = "float[8,8] wq, float[8,8] wk, float[8,8] wv, float[8,8] wo"
NORMS = "float[8] ws1, float[8] wb1, float[8] ws2, float[8] wb2"
MLP = "float[8,16] w1, float[16] w1b, float[16,8] w2, float[8] w2b"
QUANTIZED = "float s = {0.05}, int8 z = {0}"
BASIC = "c1 = Conv<pads = [1,1,1,1]>({0}, w1) r = Relu(c1) c2 = Conv<pads = [1,1,1,1]>(r, w2) "

CASES = (
    Case(
        "basic",
        f"{IMAGE}, {W}",
        f"a = Relu(x) {BASIC.format('a')} s = Add(c2, a) y = Relu(s)",
        (("a", "s", "convolution", "c1 r c2"),),
    ),
    Case(
        "preactivation chain",
        f"{IMAGE}, {W}, float[4,4,1,1] w3",
        f"{BASIC.format('x')} s = Add(x, c2) r2 = Relu(s) c3 = Conv(r2, w3) y = Add(s, c3)",
        (("x", "s", "convolution", "c1 r c2"), ("s", "y", "convolution", "r2 c3")),
    ),
    Case(
        "bottleneck",
        "float[N,8,6,6] x, float[2,8,1,1] w1, float[2] b1, float[2,2,3,3] w2, float[8,2,1,1] w3",
        """a = Relu(x) c1 = Conv(a, w1, b1) r1 = Relu(c1) c2 = Conv<pads = [1,1,1,1]>(r1, w2)
        r2 = Relu(c2) c3 = Conv(r2, w3) s = Add(c3, a) y = Relu(s)""",
        (("a", "s", "convolution", "c1 r1 c2 r2 c3"),),
    ),
    Case(
        "inverted",
        "float[N,4,6,6] x, float[12,4,1,1] w1, float[12,1,3,3] w2, float[4,12,1,1] w3",
        """a = Conv(x, w4) c1 = Conv(a, w1) r1 = Clip(c1, low, high)
        c2 = Conv<pads = [1,1,1,1], group = 12>(r1, w2) r2 = Clip(c2, low, high)
        c3 = Conv(r2, w3) s = Add(a, c3) y = Conv(s, w4)""".replace("w4", "w5"),
        (("a", "s", "convolution", "c1 r1 c2 r2 c3"),),
        constants="float low = {0}, float high = {6}, float[4,4,1,1] w5 = {"
        + ", ".join(str(i % 5 - 2) for i in range(16))
        + "}",
    ),
    Case(
        "squeeze and excitation",
        f"{IMAGE}, {W}, float[2,4,1,1] w3, float[4,2,1,1] w4",
        """c1 = Conv<pads = [1,1,1,1]>(x, w1) m = GlobalAveragePool(c1) f = Conv(m, w3)
        r = Relu(f) g = Conv(r, w4) h = Sigmoid(g) t = Mul(c1, h)
        c2 = Conv<pads = [1,1,1,1]>(t, w2) s = Add(c2, x) y = Neg(s)""",
        (("x", "s", "convolution", "c1 m f r g h t c2"),),
    ),
    Case(
        "gate last",
        f"{IMAGE}, float[2,4,1,1] w3, float[4,2,1,1] w4",
        """m = GlobalAveragePool(x) f = Conv(m, w3) r = Relu(f) g = Conv(r, w4) h = Sigmoid(g)
        t = Mul(x, h) y = Add(x, t)""",
        (("x", "y", "convolution", "m f r g h t"),),
    ),
    Case(
        "projection shortcut",
        f"{IMAGE}, {W}, float[4,4,1,1] w3",
        f"{BASIC.format('x')} p = Conv(x, w3) s = Add(c2, p) y = Relu(s)",
        reasons=("neither 'c2' (Conv) nor 'p' (Conv) is computed from the other",),
    ),
    Case(
        "pooled shortcut",
        f"{IMAGE}, float[4,4,3,3] w1",
        """c = Conv<pads = [1,1,1,1], strides = [2,2]>(x, w1)
        p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(x) y = Add(p, c)""",
        reasons=("neither 'p' (MaxPool) nor 'c' (Conv) is",),
    ),
    Case(
        "option A",
        f"{IMAGE}, float[8,4,3,3] w1",
        """c = Conv<pads = [1,1,1,1], strides = [2,2]>(x, w1)
        p = Slice(x, starts, ends, axes, steps) q = Pad(p, pads) s = Add(c, q) y = Relu(s)""",
        reasons=("neither 'c' (Conv) nor 'q' (Pad) is",),
        constants="int64[2] starts = {0, 0}, int64[2] ends = {8, 8}, int64[2] axes = {2, 3}, "
        "int64[2] steps = {2, 2}, int64[8] pads = {0, 2, 0, 0, 0, 2, 0, 0}",
    ),
    Case(
        "pre-norm transformer",
        f"{ROWS}, float[N,1,S] mask, {PROJECTIONS}, {NORMS}, {MLP}",
        f"""n1 = LayerNormalization(x, ws1, wb1)
        {ATTENTION.format("n1", "w", " masked = Add(scores, mask)", "masked")}
        s1 = Add(x, o) n2 = LayerNormalization(s1, ws2, wb2) u = MatMul(n2, w1)
        ub = Add(u, w1b) g = Relu(ub) d = MatMul(g, w2) db = Add(w2b, d) s2 = Add(s1, db)
        y = Neg(s2)""",
        (
            ("x", "s1", "attention", "n1 q k v kt scores masked p mixed o"),
            ("s1", "s2", "mlp", "n2 u ub g d db"),
        ),
        ("neither 'scores' (MatMul) nor 'mask' (an input) is",),
    ),
    Case(
        "post-norm transformer",
        f"{ROWS}, {PROJECTIONS}, {NORMS}, {MLP}",
        f"""{ATTENTION.format("x", "w", "", "scores")}
        s1 = Add(o, x) n1 = LayerNormalization(s1, ws1, wb1) u = MatMul(n1, w1)
        ub = Add(u, w1b) g = Relu(ub) d = MatMul(g, w2) db = Add(w2b, d) s2 = Add(db, n1)
        y = LayerNormalization(s2, ws2, wb2)""",
        (
            ("x", "s1", "attention", "q k v kt scores p mixed o"),
            ("n1", "s2", "mlp", "u ub g d db"),
        ),
    ),
    Case(
        "blocks in a block",
        f"{IMAGE}, {W}, float[4,4,1,1] w3, float[4,4,1,1] w4, float[4,4,1,1] w5",
        """c1 = Conv(x, w3) c2 = Conv<pads = [1,1,1,1]>(c1, w1) s1 = Add(c1, c2)
        c3 = Conv<pads = [1,1,1,1]>(s1, w2) c4 = Conv(c3, w4) t = Add(c3, c4)
        s2 = Add(s1, t) c5 = Conv(s2, w5) s3 = Add(x, c5) y = Neg(s3)""",
        (
            ("c1", "s1", "convolution", "c2"),
            ("c3", "t", "convolution", "c4"),
            ("s1", "s2", "convolution", "c3 c4 t"),
            ("x", "s3", "convolution", "c1 c2 s1 c3 c4 t s2 c5"),
        ),
    ),
    Case(
        "entry and exit are read elsewhere too",
        f"float[N,8,8,8] z, {W}",
        f"x, x2 = Split<axis = 1, num_outputs = 2>(z) {BASIC.format('x')} s = Add(x, c2)"
        " t = Concat<axis = 1>(x, x2, s) y = Neg(t)",
        (("x", "s", "convolution", "c1 r c2"),),
    ),
    Case(
        "input to output",
        f"{IMAGE}, float[4,4,1,1] w1",
        "c = Conv(x, w1) y = Add(c, x)",
        (("x", "y", "convolution", "c"),),
    ),
    Case(
        "recurrent",
        "float[S,N,4] x, float[1,16,4] wx, float[1,16,4] wr, float[1,32] wb",
        "a = Neg(x) h = LSTM<hidden_size = 4>(a, wx, wr, wb) g = Squeeze(h, one) y = Add(a, g)",
        (("a", "y", "recurrent", "h g"),),
        constants="int64[1] one = {1}",
    ),
    Case(
        "Gemm",
        "float[N,6] x, float[6,6] w1, float[6] w1b, float[6,6] w2",
        "a = Relu(x) g = Gemm(a, w1, w1b) r = Relu(g) h = Gemm(r, w2) s = Sum(a, h) y = Relu(s)",
        (("a", "s", "mlp", "g r h"),),
    ),
    Case(
        "quantized",
        f"{IMAGE}, float[4,4,1,1] w1",
        """q = QuantizeLinear(x, s, z) e = DequantizeLinear(q, s, z)
        f = DequantizeLinear(q, s2, z) c = Conv(f, w1) cq = QuantizeLinear(c, s, z)
        cd = DequantizeLinear(cq, s, z) t = Add(cd, e) y = QuantizeLinear(t, s, z)""",
        (("e", "t", "convolution", "f c cq cd"),),
        constants=f"{QUANTIZED}, float s2 = {{0.05}}",
        outputs="int8 y",
    ),
    Case(
        "quantized in other units",
        f"{IMAGE}, float[4,4,1,1] w1",
        """q = QuantizeLinear(x, s, z) e = DequantizeLinear(q, s, z)
        f = DequantizeLinear(q, s2, z) c = Conv(f, w1) y = Add(c, e)""",
        reasons=("neither 'c' (Conv) nor 'e' (DequantizeLinear) is",),
        constants=f"{QUANTIZED}, float s2 = {{0.06}}",
    ),
    Case(
        "targets of shapes are shared",
        f"{ROWS}, float[8,8] w1, float[8,8] w2",
        """h = Shape(x) a = MatMul(x, w1) f = Reshape(a, flat) r = Relu(f) b = Reshape(r, h)
        s = Add(x, b) c = MatMul(s, w2) d = Reshape(c, h) y = Add(s, d)""",
        (("x", "s", "mlp", "a f r b"), ("s", "y", "mlp", "c d")),
        constants="int64[2] flat = {-1, 8}",
    ),
    Case(
        "inner value is an output",
        f"{IMAGE}, {W}",
        f"{BASIC.format('x')} y = Add(x, c2)",
        reasons=("'r' inside of the branch is an output of the model",),
        outputs="float y, float r",
    ),
    Case(
        "branch is an output",
        f"{IMAGE}, {W}",
        f"{BASIC.format('x')} y = Add(x, c2)",
        reasons=("'c2' inside of the branch is an output of the model",),
        outputs="float y, float c2",
    ),
    Case(
        "inner value is read elsewhere",
        f"{IMAGE}, {W}",
        f"{BASIC.format('x')} s = Add(x, c2) y = Concat<axis = 1>(s, c1)",
        reasons=("'c1' inside of the branch is also read by Concat",),
    ),
    Case(
        "branch is read twice",
        f"{IMAGE}, {W}",
        f"{BASIC.format('x')} s = Add(x, c2) y = Concat<axis = 1>(s, c2)",
        reasons=("'c2' inside of the branch is also read by Concat",),
    ),
    Case(
        "half of a split is read elsewhere",
        f"{IMAGE}, float[8,4,1,1] w1, float[4,4,1,1] w2",
        """c = Conv(x, w1) a, b = Split<axis = 1, num_outputs = 2>(c) d = Conv(a, w2) s = Add(x, d)
        t = Add(x, b) y = Concat<axis = 1>(s, t)""",
        reasons=(
            "'b' inside of the branch is also read by Add",
            "'a' inside of the branch is also read by Conv",
        ),
    ),
    Case(
        "inner value is read in a body",
        f"{IMAGE}, bool flag, {W}",
        f"""{BASIC.format("x")} s = Add(x, c2) y = If(flag) <
            then_branch = t () => (float[N,4,8,8] u) {{ u = Add(s, c1) }},
            else_branch = e () => (float[N,4,8,8] v) {{ v = Neg(s) }} >""",
        reasons=(
            "'c1' inside of the branch is also read by If",
            "it stands in a body of If",
        ),
    ),
    Case(
        "inner value is what a body gives",
        f"{IMAGE}, bool flag, {W}",
        f"""{BASIC.format("x")} s = Add(x, c2) y = If(flag) <
            then_branch = t () => (float[N,4,8,8] u) {{ u = Neg(s) }},
            else_branch = e () => (float[N,4,8,8] v) {{ v = Identity(c1) }} >""",
        reasons=("'c1' inside of the branch is also read by If",),
    ),
    Case(
        "control flow that reads from the branch",
        f"{IMAGE}, bool flag, float[4,4,1,1] w1",
        """c = Conv(x, w1) d = If(flag) <
            then_branch = t () => (float[N,4,8,8] u) { u = Mul(c, x) },
            else_branch = e () => (float[N,4,8,8] v) { v = Neg(c) } > y = Add(x, d)""",
        (("x", "y", "convolution", "c d"),),
    ),
    Case(
        "control flow that reads from outside",
        f"{IMAGE}, bool flag, float[4,4,1,1] w1",
        """z = Exp(x) a = Neg(z) c = Conv(a, w1) d = If(flag) <
            then_branch = t () => (float[N,4,8,8] u) { u = Mul(c, z) },
            else_branch = e () => (float[N,4,8,8] v) { v = Neg(c) } > y = Add(a, d)""",
        reasons=("a body of If making 'd' in the branch reads 'z' from outside",),
    ),
    Case(
        "random",
        f"{IMAGE}, float[4,4,1,1] w1",
        "c = Conv(x, w1) n = RandomNormalLike(c) d = Mul(c, n) y = Add(x, d)",
        reasons=("RandomNormalLike making 'n' in the branch is random",),
    ),
    Case(
        "random in a body",
        f"{IMAGE}, bool flag, float[4,4,1,1] w1",
        """c = Conv(x, w1) d = If(flag) <
            then_branch = t () => (float[N,4,8,8] u) { u = RandomNormalLike(c) },
            else_branch = e () => (float[N,4,8,8] v) { v = Neg(c) } > y = Add(x, d)""",
        reasons=("RandomNormalLike making 'u' in the branch is random",),
    ),
    Case(
        "broadcast branch",
        f"{IMAGE}, float[4,4,1,1] w1",
        "m = GlobalAveragePool(x) c = Conv(m, w1) y = Add(x, c)",
        reasons=("the shapes differ: (3, 4, 8, 8) of 'x', (3, 4, 1, 1) of 'c'",),
    ),
    Case(
        "only the shape of the entry",
        f"{IMAGE}, float[N,4,1,1] z, float[4,4,1,1] w1",
        "a = Neg(x) h = Shape(a) c = Conv(z, w1) d = Expand(c, h) y = Add(a, d)",
        reasons=("neither 'a' (Neg) nor 'd' (Expand) is",),
    ),
    Case(
        "arithmetic of an activation",
        "float[N,8] x, float[8,8] w1, float[8] w1b",
        """a = MatMul(x, w1) ab = Add(a, w1b) p = Mul(ab, ab) q = Mul(p, ab) r = Mul(q, k)
        s = Add(ab, r) y = Tanh(s)""",
        reasons=("there is no layer in the branch, only arithmetic",),
        constants="float k = {0.044715}",
    ),
    Case(
        "sum of three",
        f"{IMAGE}, {W}",
        f"{BASIC.format('x')} s = Sum(x, c2, r) y = Relu(s)",
        reasons=("it adds 3 values, not two",),
    ),
    Case("doubled", IMAGE, "y = Add(x, x)", reasons=("it adds a value to itself",)),
    Case(
        "no residuals",
        "int64[N,3] ids, float[9,8] wt, float[3,8] wp, float[8,8] w1, float[8] w1b",
        """e = Gather(wt, ids) p = Add(e, wp) m = MatMul(p, w1) s = Add(w1b, m) h = Shape(s)
        n = Add(h, h) y = Expand(s, h)""",
    ),
    Case(
        "top-down pyramid",
        f"{IMAGE}, float[4,4,1,1] w1, float[4,4,1,1] w2, float[4,4,1,1] w3",
        """p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(x) c = Conv(p, w1)
        u = Resize<mode = "nearest">(c, , scales) l = Conv(x, w2) y = Add(u, l)""",
        reasons=("neither 'u' (Resize) nor 'l' (Conv) is",),
        constants="float[4] scales = {1, 1, 2, 2}",
    ),
    Case(
        "hourglass",
        f"{IMAGE}, float[4,4,1,1] w1, float[4,4,1,1] w2",
        """p = MaxPool<kernel_shape = [2,2], strides = [2,2]>(x) c = Conv(p, w1) d = Conv(c, w2)
        s = Add(c, d) u = Resize<mode = "nearest">(s, , scales) y = Add(u, x)""",
        (("c", "s", "convolution", "d"), ("x", "y", "convolution", "p c d s u")),
        constants="float[4] scales = {1, 1, 2, 2}",
    ),
    Case(
        "a convolution between poolings",
        f"{IMAGE}, float[4,4,1,1] w1",
        """p = MaxPool<kernel_shape = [3,3], pads = [1,1,1,1]>(x) c = Conv(p, w1) s = Add(p, c)
        u = AveragePool<kernel_shape = [3,3], pads = [1,1,1,1]>(s) y = Add(x, u)""",
        (("p", "s", "convolution", "c"), ("x", "y", "pooling", "p c s u")),
    ),
    Case(
        "mixed by a matrix that is given",
        f"{ROWS}, float[N,S,S] z, float[8,8] w1",
        "m = MatMul(z, x) b = MatMul(m, w1) y = Add(x, b)",
        (("x", "y", "other", "m b"),),
    ),
    Case(
        "sums of integers",
        "int64[N,3] ids, int64[N,3] more, float[9,8] wt",
        "t = Add(ids, more) u = Add(t, ids) y = Gather(wt, u)",
    ),
    Case(
        "channels are cut in two",
        "float[N,6,4] x, float[8,8] w1",
        "a = Reshape(x, wide) m = MatMul(a, w1) b = Reshape(m, narrow) y = Add(x, b)",
        (("x", "y", "mlp", "a m b"),),
        constants="int64[3] wide = {0, 3, 8}, int64[3] narrow = {0, 6, 4}",
    ),
    Case(
        "the sum is fused",
        f"{ROWS}, float[8,8] w1, float[8] ws1, float[8] wb1",
        "m = MatMul(x, w1) y = com.microsoft.SkipLayerNormalization(m, x, ws1, wb1)",
        reasons=("the sum is inside of SkipLayerNormalization",),
    ),
)

WITH_BLOCKS = [case for case in CASES if case.blocks]

NEVER_SILENT = (
    "gate last",
    "control flow that reads from the branch",
    "a convolution between poolings",
)
"""Their branches do not end in weights."""


def silenced(proto: onnx.ModelProto, block: Block) -> onnx.ModelProto | None:
    """A copy whose branch gives zero: the last weights in it are zero, and what comes after too.

    None where that cannot be told from the operators.
    """
    model = Model.from_proto(proto)
    infer(model)
    made = {v.name: v for node in model.graph.nodes for v in node.outputs}
    inside = {made[name].producer for name in block.nodes}
    return model.to_proto() if _silence(made[block.branch], inside) else None


def _silence(value: Value, inside: Collection[Node | None]) -> bool:
    node = value.producer
    if node is None or node not in inside:
        return False
    if node.op in ("Conv", "Gemm", "MatMul", "FusedConv", "ConvTranspose"):
        return all(_zero(node, place) for place in range(1, len(node.inputs)))
    if node.op in ("LSTM", "BatchNormalization"):
        return all(_zero(node, place) for place in range(1, 4 if node.op == "LSTM" else 3))
    if node.op in ("Add", "Sub", "Sum"):
        return all(_zero(node, n) or _silence(v, inside) for n, v in enumerate(node.inputs))
    if node.op == "Mul":
        return any(_silence(v, inside) for v in node.inputs)
    return node.op in _KEEP_ZERO and _silence(node.inputs[0], inside)


_KEEP_ZERO = (
    "Relu",
    "Identity",
    "Transpose",
    "Reshape",
    "Squeeze",
    "Cast",
    "Resize",
    "Dropout",
) + ("QuantizeLinear", "DequantizeLinear", "Clip", "HardSwish", "LeakyRelu")


def _zero(node: Node, place: int) -> bool:
    """Let a node read zero in a place, if what it reads there is a weight, quantized perhaps."""
    value = node.inputs[place]
    if value.omitted:
        return True
    maker = value.producer
    if maker is not None and maker.op in ("DequantizeLinear", "Cast", "Transpose", "Identity"):
        offset = maker.input(2)
        is_offset = offset is not None and (offset.array is None or bool(offset.array.any()))
        return not (is_offset and maker.op == "DequantizeLinear") and _zero(maker, 0)
    fixed = maker is None or all(v.array is not None for v in maker.inputs)
    shape = value.static_shape
    if shape is None or value.dtype is None or (maker is None and not isinstance(value, Constant)):
        return False
    if not fixed:
        return False
    assert node.graph is not None
    node.inputs[place] = node.graph.add_initializer(np.zeros(shape, value.dtype), "zero")
    return True
