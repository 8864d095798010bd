"""Small models for channel groups: for each the groups there are, and what is left of weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import onnx
from cuts import weighted

IMAGE = "float[N,3,8,8] x, float[8,3,3,3] w1, "
STEM = "a = Conv<pads=[1,1,1,1]>(x, w1) "
HEAD = " y = Conv(b, w2)"
W2 = "float[5,8,1,1] w2"


@dataclass(frozen=True)
class Case:
    """A model and what is true of its channels.

    Attributes:
        units: of each group, in order.
        left: shapes of initializers where one unit of each group is left.
        reasons: parts of reasons for what is declined.
        changed: places of the groups whose cut is only approximate.
    """

    name: str
    inputs: str
    body: str
    units: list[int]
    left: dict[str, tuple[int, ...]] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    changed: tuple[int, ...] = ()
    constants: str = ""
    opset: int = 18
    outputs: str = "float y"
    ir: int = 9

    def model(self, **others: Any) -> onnx.ModelProto:
        given = {"constants": self.constants, "opset": self.opset, "ir": self.ir, **others}
        return weighted(self.inputs, self.body, self.outputs, **given)


def _image(name: str, body: str, units: list[int], **others: Any) -> Case:
    """Something between a first convolution to 8 channels and a last one to 5."""
    inputs = others.pop("inputs", "")
    w2 = others.pop("w2", W2)
    return Case(
        name, IMAGE + (f"{inputs}, " if inputs else "") + w2, STEM + body + HEAD, units, **others
    )


CONVOLUTIONS = [
    _image("relu", "b = Relu(a)", [8], left={"w1": (1, 3, 3, 3), "w2": (5, 1, 1, 1)}),
    Case(
        "residual_add",
        IMAGE + "float[8,8,3,3] wa, float[8,8,3,3] wb, " + W2,
        STEM + "c = Conv<pads=[1,1,1,1]>(a, wa) d = Relu(c) e = Conv<pads=[1,1,1,1]>(d, wb)"
        " b = Add(e, a) y = Conv(b, w2)",
        [8, 8],
        left={"w1": (1, 3, 3, 3), "wa": (1, 1, 3, 3), "wb": (1, 1, 3, 3), "w2": (5, 1, 1, 1)},
    ),
    _image(
        "concat",
        "c = Conv(a, wa) d = MaxPool<kernel_shape=[1,1]>(a) b = Concat<axis=1>(c, d)",
        [8, 6],
        inputs="float[6,8,1,1] wa",
        w2="float[5,14,1,1] w2",
        left={"wa": (1, 1, 1, 1), "w2": (5, 2, 1, 1)},
    ),
    _image(
        "unet_skip",
        "c = MaxPool<kernel_shape=[2,2],strides=[2,2]>(a) d = Conv(c, wa)"
        ' e = Resize<mode="nearest">(d, , s) b = Concat<axis=1>(e, a)',
        [8, 6],
        inputs="float[6,8,1,1] wa",
        w2="float[5,14,1,1] w2",
        constants="float[4] s = {1.0, 1.0, 2.0, 2.0}",
        left={"wa": (1, 1, 1, 1), "w2": (5, 2, 1, 1), "s": (4,)},
    ),
    _image(
        "resize_to_sizes",
        'b = Resize<mode="nearest">(a, , , s)',
        [8],
        constants="int64[4] s = {3, 8, 9, 9}",
    ),
    _image(
        "depthwise",
        "b = Conv<group=8,pads=[1,1,1,1]>(a, wd, wb)",
        [8],
        inputs="float[8,1,3,3] wd, float[8] wb",
        left={"wd": (1, 1, 3, 3), "wb": (1,)},
    ),
    _image(
        "depthwise_times_two",
        "b = Conv<group=8>(a, wd)",
        [8],
        inputs="float[16,1,1,1] wd",
        w2="float[5,16,1,1] w2",
        left={"wd": (2, 1, 1, 1), "w2": (5, 2, 1, 1)},
    ),
    _image(
        "whole_groups",
        "b = Conv<group=4>(a, wd)",
        [4],
        inputs="float[8,2,1,1] wd",
        left={"w1": (2, 3, 3, 3), "wd": (2, 2, 1, 1)},
    ),
    _image(
        "equal_places_in_groups",
        "b = Conv<group=2>(a, wd)",
        [4, 3],
        inputs="float[6,4,1,1] wd",
        w2="float[5,6,1,1] w2",
        left={"w1": (2, 3, 3, 3), "wd": (2, 1, 1, 1), "w2": (5, 2, 1, 1)},
    ),
    _image(
        "squeeze_and_excite",
        "p = GlobalAveragePool(a) q = Conv(p, wa) r = Relu(q) s = Conv(r, wb, wc) t = Sigmoid(s)"
        " b = Mul(a, t)",
        [8, 4],
        inputs="float[4,8,1,1] wa, float[8,4,1,1] wb, float[8] wc",
        left={"wa": (1, 1, 1, 1), "wb": (1, 1, 1, 1), "wc": (1,)},
    ),
    Case(
        "option_a_shortcut",
        IMAGE + "float[16,8,1,1] wa, float[5,16,1,1] w2",
        STEM + "c = Conv<strides=[2,2]>(a, wa) d = Slice(a, st, en, ax, sp)"
        " e = Pad(d, pads) b = Add(c, e) y = Conv(b, w2)",
        [8, 8],
        constants="int64[2] st = {0, 0}, int64[2] en = {8, 8}, int64[2] ax = {2, 3},"
        " int64[2] sp = {2, 2}, int64[8] pads = {0, 4, 0, 0, 0, 4, 0, 0}",
    ),
    _image(
        "prelu_and_batchnorm",
        "c = BatchNormalization(a, ws, wb, wm, wvar) b = PRelu(c, wp)",
        [8],
        inputs="float[8] ws, float[8] wb, float[8] wm, float[8] wvar, float[8,1,1] wp",
        left={"ws": (1,), "wm": (1,), "wp": (1, 1, 1)},
    ),
    _image(
        "instancenorm",
        "b = InstanceNormalization(a, ws, wb)",
        [8],
        inputs="float[8] ws, float[8] wb",
        left={"ws": (1,)},
    ),
    _image(
        "groupnorm_decomposed",
        "c = Reshape(a, s1) d = InstanceNormalization(c, wones, wzeros) e = Reshape(d, s2)"
        " f = Mul(e, ws) b = Add(f, wb)",
        [4],
        inputs="float[4] wones, float[4] wzeros, float[8,1,1] ws, float[8,1,1] wb",
        constants="int64[3] s1 = {0, 4, -1}, int64[4] s2 = {-1, 8, 8, 8}",
        left={"w1": (2, 3, 3, 3), "wones": (1,), "ws": (2, 1, 1)},
    ),
    _image(
        "groupnorm",
        "b = GroupNormalization<num_groups=4>(a, ws, wb)",
        [4],
        inputs="float[8] ws, float[8] wb",
        opset=21,
        ir=10,
        left={"w1": (2, 3, 3, 3), "ws": (2,)},
    ),
    _image(
        "groupnorm_by_reductions",
        "c = Reshape(a, s1) m = ReduceMean<keepdims=1>(c, ax) d = Sub(c, m) q = Mul(d, d)"
        " v = ReduceMean<keepdims=1>(q, ax) w = Add(v, eps) r = Sqrt(w) e = Div(d, r)"
        " b = Reshape(e, s2)",
        [4],
        constants="int64[3] s1 = {0, 4, -1}, int64[4] s2 = {0, 8, 8, 8}, int64[1] ax = {2},"
        " float eps = {0.1}",
        left={"w1": (2, 3, 3, 3)},
    ),
    _image(
        "transposed_convolution",
        "b = ConvTranspose(a, wa, wb)",
        [8, 6],
        inputs="float[8,6,2,2] wa, float[6] wb",
        w2="float[5,6,1,1] w2",
        left={"wa": (1, 1, 2, 2), "wb": (1,)},
    ),
    _image(
        "transposed_depthwise",
        "b = ConvTranspose<group=8>(a, wa, wb)",
        [8],
        inputs="float[8,1,2,2] wa, float[8] wb",
        left={"wa": (1, 1, 2, 2), "wb": (1,), "w2": (5, 1, 1, 1)},
    ),
    _image(
        "transposed_in_groups",
        "b = ConvTranspose<group=2>(a, wa)",
        [2],
        inputs="float[8,3,1,1] wa",
        w2="float[5,6,1,1] w2",
        left={"w1": (4, 3, 3, 3), "wa": (4, 3, 1, 1), "w2": (5, 3, 1, 1)},
    ),
    _image(
        "pixel_shuffle_rows",
        'b = DepthToSpace<blocksize=2, mode="CRD">(a)',
        [2],
        w2="float[5,2,1,1] w2",
        left={"w1": (4, 3, 3, 3), "w2": (5, 1, 1, 1)},
    ),
    _image(
        "pixel_shuffle_columns",
        'b = DepthToSpace<blocksize=2, mode="DCR">(a)',
        [2],
        w2="float[5,2,1,1] w2",
    ),
    _image(
        "space_to_depth",
        "b = SpaceToDepth<blocksize=2>(a)",
        [8],
        w2="float[5,32,1,1] w2",
        left={"w1": (1, 3, 3, 3), "w2": (5, 4, 1, 1)},
    ),
    _image(
        "channel_shuffle",
        "c = Reshape(a, s1) d = Transpose<perm=[0,2,1,3,4]>(c) b = Reshape(d, s2)",
        [4],
        constants="int64[5] s1 = {0, 2, 4, 8, 8}, int64[4] s2 = {0, 8, 8, 8}",
        left={"w1": (2, 3, 3, 3), "s1": (5,)},
    ),
    _image(
        "split",
        "c, d = Split<axis=1>(a, s) e = Concat<axis=1>(d, c) b = Relu(e)",
        [8],
        constants="int64[2] s = {3, 5}",
    ),
    _image(
        "split_on_negative_axis_before_13",
        "c, d = Split<axis=-3>(a) b = Concat<axis=-3>(d, c)",
        [8],
        opset=11,
    ),
    _image(
        "split_by_number",
        "c, d = Split<axis=1,num_outputs=2>(a) b = Mul(c, d)",
        [4],
        w2="float[5,4,1,1] w2",
    ),
    _image(
        "slice",
        "c = Slice(a, st, en, ax) d = Slice(a, st2, en2, ax) b = Concat<axis=1>(d, c)",
        [8],
        constants="int64[1] st = {0}, int64[1] en = {3}, int64[1] ax = {-3}, int64[1] st2 = {-5},"
        " int64[1] en2 = {9223372036854775807}",
    ),
    _image(
        "slice_before_10",
        "c = Slice<starts=[0],ends=[3],axes=[1]>(a) d = Slice<starts=[3],ends=[100],axes=[1]>(a)"
        " b = Concat<axis=1>(d, c)",
        [8],
        opset=9,
    ),
    _image(
        "gather_channels",
        "b = Gather<axis=1>(a, i)",
        [4, 4],
        constants="int64[4] i = {6, -1, 1, 0}",
        w2="float[5,4,1,1] w2",
    ),
    _image(
        "pad_channels",
        "b = Pad(a, p)",
        [8],
        constants="int64[8] p = {0, 1, 0, 0, 0, 2, 0, 0}",
        w2="float[5,11,1,1] w2",
        left={"w1": (1, 3, 3, 3), "w2": (5, 4, 1, 1)},
    ),
    _image(
        "crop_channels",
        "b = Pad(a, p)",
        [3, 5],
        constants="int64[8] p = {0, -1, 0, 0, 0, -2, 0, 0}",
        w2="float[5,5,1,1] w2",
    ),
    _image(
        "pad_before_11",
        "b = Pad<pads=[0,1,0,0,0,2,0,0]>(a)",
        [8],
        opset=10,
        w2="float[5,11,1,1] w2",
    ),
    _image(
        "the_only_channel_on_an_axis",
        "c = Slice(a, st, one, ax) d = Slice(a, one, en, ax) b = Concat<axis=1>(d, c)",
        [7],
        constants="int64[1] st = {0}, int64[1] one = {1}, int64[1] ax = {1}, int64[1] en = {8}",
        reasons=("it is all there is on an axis of 'c'",),
    ),
    _image(
        "resize_to_sizes_that_are_read",
        "s = Shape(a) p = Slice(s, z, two) t = Concat<axis=0>(p, hw)"
        ' b = Resize<mode="nearest">(a, , , t)',
        [8],
        constants="int64[1] z = {0}, int64[1] two = {2}, int64[2] hw = {9, 9}",
    ),
    _image(
        "tiled_channels",
        "b = Tile(a, r)",
        [8],
        constants="int64[4] r = {1, 2, 1, 1}",
        w2="float[5,16,1,1] w2",
    ),
    _image(
        "choice_and_maximum",
        "c = Greater(a, wb) d = Where(c, a, wc) b = Max(d, wb)",
        [8],
        inputs="float[8,1,1] wb, float[8,1,1] wc",
        left={"wb": (1, 1, 1), "wc": (1, 1, 1)},
    ),
    _image("lrn", "b = LRN<size=3>(a)", [8], changed=(0,)),
    _image("clip", "b = Clip<min=0.0,max=6.0>(a)", [8], opset=9),
    _image("upsample", "b = Upsample<scales=[1.0,1.0,2.0,2.0]>(a)", [8], opset=7, ir=3),
    _image(
        "reshape_with_zero_elsewhere",
        "c = Reshape(a, s1) b = Reshape(c, s2)",
        [8],
        constants="int64[4] s1 = {-1, 8, 8, 0}, int64[4] s2 = {0, 0, 0, -1}",
    ),
]

LINEAR = [
    Case(
        "flatten_to_gemm",
        "float[N,3,4,4] x, float[6,3,3,3] w1, float[24,10] w2, float[10] wb, float[4,10] w3",
        "a = Conv(x, w1) f = Flatten(a) g = Gemm(f, w2, wb) h = Tanh(g) y = Gemm<transB=1>(h, w3)",
        [6, 10],
        left={"w1": (1, 3, 3, 3), "w2": (4, 1), "wb": (1,), "w3": (4, 1)},
    ),
    Case(
        "gemm_of_columns",
        "float[6,N] x, float[8,6] w1, float[8,3] w2",
        "a = MatMul(w1, x) b = Relu(a) y = Gemm<transA=1>(b, w2)",
        [8],
        left={"w1": (1, 6), "w2": (1, 3)},
    ),
    Case(
        "concat_of_tokens",
        "float[N,5,6] x, float[N,2,6] z, float[6,8] w1, float[6,8] w2, float[8,3] w3",
        "a = MatMul(x, w1) b = MatMul(z, w2) c = Concat<axis=1>(a, b) y = MatMul(c, w3)",
        [8],
        left={"w1": (6, 1), "w2": (6, 1), "w3": (1, 3)},
    ),
    Case(
        "target_that_copies_a_size_of_another_axis",
        "float[1,3,8] x, float[8,3,1] w1, float[5,8,1] w2",
        "a = Conv(x, w1) b = Reshape(a, s) c = Transpose<perm=[2,0,1]>(b) y = Conv(c, w2)",
        [8],
        constants="int64[3] s = {8, 0, 1}",
        left={"w1": (1, 3, 1), "w2": (5, 1, 1)},
    ),
    Case(
        "target_that_is_the_size_of_another_value",
        "float[N,6] x, float[6,8] w1, float[6,8] w2, float[8,3] w3, float[8,3] w4",
        "a = MatMul(x, w1) b = MatMul(x, w2) s = Shape(a) c = Reshape(b, s) d = MatMul(c, w3)"
        " e = MatMul(a, w4) y = Add(d, e)",
        [8],
        left={"w1": (6, 1), "w2": (6, 1), "w3": (1, 3), "w4": (1, 3)},
    ),
    Case(
        "matmul_on_both_sides",
        "float[N,6,7] x, float[7,12] w1, float[12,7] w2, float[9,6] w3, float[6,9] w4",
        "a = MatMul(x, w1) b = Relu(a) c = MatMul(b, w2) d = MatMul(w3, c) y = MatMul(w4, d)",
        [12, 9],
        left={"w1": (7, 1), "w2": (1, 7), "w3": (1, 6), "w4": (6, 1)},
    ),
    Case(
        "layernorm_mlp",
        "float[N,5,6] x, float[6,8] w1, float[8] ws, float[8] wb, float[8,3] w2",
        "a = MatMul(x, w1) b = LayerNormalization(a, ws, wb) y = MatMul(b, w2)",
        [8],
        changed=(0,),
        left={"w1": (6, 1), "ws": (1,), "w2": (1, 3)},
    ),
    Case(
        "shared_weights",
        "float[N,6] x, float[N,6] z, float[6,8] w1, float[8,3] w2",
        "a = MatMul(x, w1) b = Relu(a) c = MatMul(z, w1) d = Tanh(c) e = MatMul(b, w2)"
        " f = MatMul(d, w2) y = Sub(e, f)",
        [8],
        left={"w1": (6, 1), "w2": (1, 3)},
    ),
    Case(
        "embedding",
        "int64[N,5] x, float[9,6] wt, float[6,8] w1, float[8,3] w2",
        "a = Gather(wt, x) b = MatMul(a, w1) c = Relu(b) y = MatMul(c, w2)",
        [6, 8],
        reasons=("picks along this axis",) * 0,
        left={"wt": (9, 1), "w1": (1, 1)},
    ),
    Case(
        "tied_embedding",
        "int64[N,5] x, float[9,6] wt, float[6,6] w1",
        "a = Gather(wt, x) b = MatMul(a, w1) c = Add(a, b) t = Transpose(wt) y = MatMul(c, t)",
        [6],
        left={"wt": (9, 1), "w1": (1, 1)},
    ),
    Case(
        "gather_last_tokens",
        "float[2,5,6] x, float[6,8] w1, float[8,3] w2",
        "a = MatMul(x, w1) b = GatherND(a, i) y = MatMul(b, w2)",
        [8],
        constants="int64[2,2] i = {0, 4, 1, 3}",
        left={"w1": (6, 1)},
    ),
    Case(
        "gather_elements",
        "float[N,5,6] x, float[6,8] w1, float[8,3] w2, int64[N,2,1] i",
        "a = MatMul(x, w1) s = Shape(a) n = Slice(s, z, one) t = Concat<axis=0>(n, m2)"
        " e = Expand(i, t) b = GatherElements<axis=1>(a, e) y = MatMul(b, w2)",
        [8],
        constants="int64[1] z = {0}, int64[1] one = {1}, int64[2] m2 = {2, 8}",
        left={"w1": (6, 1)},
    ),
    Case(
        "gather_windows",
        "float[N,6] x, float[6,8] w1, float[4,3] w2",
        "a = MatMul(x, w1) b = Gather<axis=1>(a, i) y = MatMul(b, w2)",
        [4],
        constants="int64[2,4] i = {0, 1, 2, 3, 7, 6, 5, 4}",
        left={"w1": (6, 2), "w2": (1, 3)},
    ),
    Case(
        "gather_one_channel",
        "float[N,6] x, float[6,8] w1, float[8,3] w2",
        "a = MatMul(x, w1) b = Gather<axis=1>(a, i) c = Unsqueeze(b, m1) d = MatMul(a, w2)"
        " y = Add(c, d)",
        [7],
        constants="int64 i = {5}, int64[1] m1 = {1}",
        reasons=("picks along this axis",),
    ),
    Case(
        "einsum_with_heads",
        "float[N,5,6] x, float[6,3,4] wq, float[6,3,4] wk, float[3,4] wb, float[3,4,6] wo",
        'q = Einsum<equation="bsi,ihd->bshd">(x, wq) r = Add(q, wb)'
        ' k = Einsum<equation="bsi,ihd->bshd">(x, wk) z = Einsum<equation="bshd,bthd->bhst">(r, k)'
        ' p = Softmax(z) o = Einsum<equation="bhst,bthd->bshd">(p, k)'
        ' y = Einsum<equation="bshd,hdo">(o, wo)',
        [3, 4],
        left={"wq": (6, 1, 1), "wb": (1, 1), "wo": (1, 1, 6)},
    ),
    Case(
        "targets_that_two_share",
        "float[N,8] x, float[8,8] w1, float[8,3] w2",
        "a = MatMul(x, w1) b = Reshape(a, t) c = Reshape(x, t) d = MatMul(b, w2)"
        " e = ReduceSum(c, i1) y = Add(d, e)",
        [8],
        constants="int64[2] t = {-1, 8}, int64[1] i1 = {1}",
        left={"w1": (8, 1), "t": (2,)},
    ),
    Case(
        "einsum",
        "float[N,5,6] x, float[6,8] w1, float[8,3] w2",
        'a = Einsum<equation="bsi,ij->bsj">(x, w1) b = Relu(a)'
        ' y = Einsum<equation="bsj,jk">(b, w2)',
        [8],
        left={"w1": (6, 1), "w2": (1, 3)},
    ),
    Case(
        "products_of_activations_that_are_not_zero",
        "float[N,5,6] x, float[6,8] w1, float[6,8] w2",
        "a = MatMul(x, w1) b = MatMul(x, w2) c = Sigmoid(a) d = Sigmoid(b)"
        " t = Transpose<perm=[0,2,1]>(d) y = MatMul(c, t)",
        [8],
        changed=(0,),
    ),
    Case(
        "products_of_activations_one_of_which_is_zero",
        "float[N,5,6] x, float[6,8] w1, float[6,8] w2",
        "a = MatMul(x, w1) b = MatMul(x, w2) c = Sigmoid(a) d = Tanh(b)"
        " t = Transpose<perm=[0,2,1]>(d) y = MatMul(c, t)",
        [8],
    ),
    Case(
        "sum_of_what_is_zero",
        "float[N,6] x, float[6,8] w1, float[8,3] w2",
        "a = MatMul(x, w1) b = Mul(a, a) s = ReduceSum(b, ax) c = Div(a, s) y = MatMul(c, w2)",
        [8],
        constants="int64[1] ax = {-1}",
    ),
    Case(
        "sum_of_what_is_not_zero",
        "float[N,6] x, float[6,8] w1, float[8,3] w2",
        "a = MatMul(x, w1) b = Exp(a) s = ReduceSum(b, ax) c = Div(a, s) y = MatMul(c, w2)",
        [8],
        changed=(0,),
        constants="int64[1] ax = {-1}",
    ),
    Case(
        "softmax_over_channels",
        "float[N,6] x, float[6,8] w1, float[8,3] w2",
        "a = MatMul(x, w1) b = Softmax(a) y = MatMul(b, w2)",
        [8],
        changed=(0,),
    ),
    Case(
        "dynamic_targets",
        "float[N,S,6] x, float[6,8] w1, float[8,3] w2",
        "a = MatMul(x, w1) s = Shape(a) n = Gather(s, z) d = Gather(s, i2)"
        " nn = Unsqueeze(n, i0) dd = Unsqueeze(d, i0) t = Concat<axis=0>(nn, m1, dd)"
        " b = Reshape(a, t) t8 = Concat<axis=0>(nn, m1, eight) c = Reshape(b, t8)"
        " e = Relu(c) y = MatMul(e, w2)",
        [8],
        constants="int64[1] i0 = {0}, int64 z = {0}, int64 i2 = {2}, int64[1] m1 = {-1},"
        " int64[1] eight = {8}",
    ),
]

ATTENTION = (
    "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)"
    " q4 = Reshape(q, s) k4 = Reshape(k, ks) v4 = Reshape(v, ks)"
    " qt = Transpose<perm=[0,2,1,3]>(q4) kt = Transpose<perm=[0,2,3,1]>(k4)"
    " vt = Transpose<perm=[0,2,1,3]>(v4) "
)
SOFTMAX = " u = Div(z, c) p = Softmax(u) o = MatMul(p, vs) ot = Transpose<perm=[0,2,1,3]>(o) "
HEADS = [
    Case(
        "attention",
        "float[N,5,6] x, float[6,12] wq, float[6,12] wk, float[6,12] wv, float[12,6] wo",
        ATTENTION
        + "vs = Identity(vt) z = MatMul(qt, kt)"
        + SOFTMAX
        + "r = Reshape(ot, s2) y = MatMul(r, wo)",
        [3],
        constants="int64[4] s = {0, 0, 3, 4}, int64[4] ks = {0, -1, 3, 4},"
        " int64[3] s2 = {0, 0, 12}, float c = {2.0}",
        left={"wq": (6, 4), "wv": (6, 4), "wo": (4, 6)},
    ),
    Case(
        "attention_with_heads_behind",
        "float[N,5,6] x, float[6,12] wq, float[6,12] wk, float[6,12] wv, float[12,6] wo",
        "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv) q4 = Reshape(q, s)"
        " k4 = Reshape(k, s) v4 = Reshape(v, s) qt = Transpose<perm=[0,3,1,2]>(q4)"
        " kt = Transpose<perm=[0,3,2,1]>(k4) vt = Transpose<perm=[0,3,1,2]>(v4)"
        " z = MatMul(qt, kt) p = Softmax(z) o = MatMul(p, vt)"
        " ot = Transpose<perm=[0,2,3,1]>(o) r = Reshape(ot, s2) y = MatMul(r, wo)",
        [3],
        constants="int64[4] s = {0, 0, 4, 3}, int64[3] s2 = {0, 0, 12}",
        left={"wq": (6, 4), "wv": (6, 4), "wo": (4, 6)},
    ),
    Case(
        "grouped_query_attention",
        "float[N,5,6] x, float[6,16] wq, float[6,8] wk, float[6,8] wv, float[16,6] wo",
        ATTENTION + "ku = Unsqueeze(kt, i2) ke = Expand(ku, es) kr = Reshape(ke, s4)"
        " vu = Unsqueeze(vt, i2) ve = Expand(vu, es2) vs = Reshape(ve, s5) z = MatMul(qt, kr)"
        + SOFTMAX
        + "r = Reshape(ot, s2) y = MatMul(r, wo)",
        [2],
        constants="int64[4] s = {0, 0, 4, 4}, int64[4] ks = {0, 0, 2, 4}, int64[3] s2 = {0, 0, 16},"
        " int64[1] i2 = {2}, int64[5] es = {1, 2, 2, 4, 5}, int64[5] es2 = {1, 2, 2, 5, 4},"
        " int64[4] s4 = {-1, 4, 4, 5}, int64[4] s5 = {-1, 4, 5, 4}, float c = {2.0}",
        left={"wq": (6, 8), "wk": (6, 4), "wo": (8, 6)},
    ),
    Case(
        "fused_attention_in_heads",
        "float[N,5,6] x, float[6,12] wq, float[6,6] wk, float[6,6] wv, float[12,6] wo",
        "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)"
        " o = Attention<q_num_heads=4, kv_num_heads=2>(q, k, v) y = MatMul(o, wo)",
        [2],
        opset=23,
        ir=11,
        left={"wq": (6, 6), "wk": (6, 3), "wo": (6, 6)},
    ),
    Case(
        "multi_head_attention",
        "float[N,5,6] x, float[6,12] wq, float[6,12] wk, float[6,12] wv, float[12,6] wo",
        "q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)"
        " o = com.microsoft.MultiHeadAttention<num_heads=3>(q, k, v) y = MatMul(o, wo)",
        [3],
        left={"wq": (6, 4), "wv": (6, 4), "wo": (4, 6)},
    ),
    Case(
        "packed_attention",
        "float[N,5,6] x, float[6,8] w1, float[8,36] wa, float[36] wb, float[12,6] wo",
        "h = MatMul(x, w1) o = com.microsoft.Attention<num_heads=3>(h, wa, wb) y = MatMul(o, wo)",
        [8, 3],
        left={"w1": (6, 1), "wa": (1, 12), "wb": (12,), "wo": (4, 6)},
    ),
]

_STATES = "float[S,N,6] x, float[1,{g},6] wx, float[1,{g},5] wr, float[1,{b}] wb, float[5,3] wo"
_LAST = " t = Squeeze(o, i1) y = MatMul(t, wo)"
RECURRENT = [
    Case(
        "lstm",
        _STATES.format(g=20, b=40) + ", float[1,15] wp",
        "o, oh, oc = LSTM<hidden_size=5>(x, wx, wr, wb, , , , wp)" + _LAST,
        [5],
        constants="int64[1] i1 = {1}",
        left={"wx": (1, 4, 6), "wr": (1, 4, 1), "wb": (1, 8), "wp": (1, 3), "wo": (1, 3)},
    ),
    Case(
        "lstm_with_states_that_are_made",
        _STATES.format(g=20, b=40),
        "s = Shape(x) n = Slice(s, i1, i2) u = Concat<axis=0>(i1, n, five) h = ConstantOfShape(u)"
        " o, oh, oc = LSTM<hidden_size=5>(x, wx, wr, wb, , h, h)" + _LAST,
        [5],
        constants="int64[1] i1 = {1}, int64[1] i2 = {2}, int64[1] five = {5}",
        left={"wx": (1, 4, 6), "wr": (1, 4, 1)},
    ),
    Case(
        "gru",
        _STATES.format(g=15, b=30),
        "o, oh = GRU<hidden_size=5, linear_before_reset=1>(x, wx, wr, wb)" + _LAST,
        [5],
        constants="int64[1] i1 = {1}",
        left={"wx": (1, 3, 6), "wr": (1, 3, 1), "wb": (1, 6), "wo": (1, 3)},
    ),
    Case(
        "rnn",
        _STATES.format(g=5, b=10),
        "o, oh = RNN<hidden_size=5>(x, wx, wr, wb)" + _LAST,
        [5],
        constants="int64[1] i1 = {1}",
        left={"wx": (1, 1, 6), "wr": (1, 1, 1), "wb": (1, 2), "wo": (1, 3)},
    ),
    Case(
        "stacked_bidirectional_lstm",
        "float[S,N,6] x, float[2,16,6] wx, float[2,16,4] wr, float[2,32] wb, float[2,9,8] wx2,"
        " float[2,9,3] wr2, float[6,3] wo",
        'o, = LSTM<hidden_size=4, direction="bidirectional">(x, wx, wr, wb)'
        " t = Transpose<perm=[0,2,1,3]>(o) u = Reshape(t, s)"
        ' p, = GRU<hidden_size=3, direction="bidirectional">(u, wx2, wr2)'
        " q = Transpose<perm=[0,2,1,3]>(p) r = Reshape(q, s) y = MatMul(r, wo)",
        [4, 3],
        constants="int64[3] s = {0, 0, -1}",
        left={"wx": (2, 4, 6), "wx2": (2, 3, 2), "wr2": (2, 3, 1), "wo": (2, 3)},
    ),
]

QUANTIZED = [
    Case(
        "qdq",
        "float[N,3,8,8] x, int8[8,3,3,3] w1, int32[8] wb, int8[5,8,1,1] w2",
        "a = DequantizeLinear<axis=0>(w1, s8, z8) b = DequantizeLinear<axis=0>(wb, s8)"
        " c = Conv(x, a, b) d = QuantizeLinear(c, s, z) e = DequantizeLinear(d, s, z)"
        " f = DequantizeLinear(w2, s, z) y = Conv(e, f)",
        [8],
        constants="float[8] s8 = {0.01,0.02,0.01,0.02,0.01,0.02,0.01,0.02}, int8[8] z8 ="
        " {0,1,2,3,4,5,6,7}, float s = {0.5}, int8 z = {3}",
        left={"w1": (1, 3, 3, 3), "s8": (1,), "z8": (1,), "wb": (1,), "w2": (5, 1, 1, 1)},
    ),
    Case(
        "qlinearconv",
        "uint8[N,3,8,8] x, int8[8,3,3,3] w1, int32[8] wb, int8[5,8,1,1] w2",
        "a = QLinearConv(x, s, zu, w1, s8, z8, s, zu, wb)"
        " y = QLinearConv(a, s, zu, w2, s, z0, s, zu)",
        [8],
        constants="float[8] s8 = {0.01,0.02,0.01,0.02,0.01,0.02,0.01,0.02}, int8[8] z8 ="
        " {0,0,0,0,0,0,0,0}, float s = {0.5}, uint8 zu = {3}, int8 z0 = {0}",
        outputs="uint8 y",
        left={"w1": (1, 3, 3, 3), "s8": (1,), "z8": (1,), "wb": (1,), "w2": (5, 1, 1, 1)},
    ),
    Case(
        "quantized_residual",
        "uint8[N,3,8,8] x, int8[8,3,1,1] w1, int8[8,8,1,1] wa, int8[5,16,1,1] w2",
        "a = QLinearConv(x, s, zu, w1, s, z0, s, zu) b = QLinearConv(a, s, zu, wa, s, z0, s, zu)"
        " c = com.microsoft.QLinearAdd(a, s, zu, b, s, zu, s, zu)"
        " d = com.microsoft.QLinearSigmoid(c, s, zu, s, zu)"
        " e = com.microsoft.QLinearConcat<axis=1>(s, zu, c, s, zu, d, s, zu)"
        " y = QLinearConv(e, s, zu, w2, s, z0, s, zu)",
        [8],
        constants="float s = {0.1}, uint8 zu = {3}, int8 z0 = {0}",
        outputs="uint8 y",
        left={"w1": (1, 3, 1, 1), "wa": (1, 1, 1, 1), "w2": (5, 2, 1, 1)},
    ),
    Case(
        "matmulinteger",
        "uint8[N,6] x, int8[6,8] w1, int8[8,3] w2",
        "a = MatMulInteger(x, w1, zu, z8) f = Cast<to=1>(a) g = Relu(f)"
        " q = QuantizeLinear(g, s, zu) b = MatMulInteger(q, w2, zu, z0) y = Cast<to=1>(b)",
        [8],
        constants="int8[8] z8 = {0,1,2,3,4,5,6,7}, uint8 zu = {3}, float s = {99.0}, int8 z0 = {0}",
        left={"w1": (6, 1), "z8": (1,), "w2": (1, 3)},
    ),
]

BODIES = [
    Case(
        "if_captures",
        "float[N,6] x, bool c, float[6,8] w1, float[8,3] w2, float[8,8] w3",
        "a = MatMul(x, w1) b = If(c) <then_branch = t () => (float[N,8] r1) { r1 = Relu(a) },"
        " else_branch = e () => (float[N,8] r2) { m = MatMul(a, w3) r2 = Add(m, a) }>"
        " y = MatMul(b, w2)",
        [8],
        left={"w1": (6, 1), "w2": (1, 3), "w3": (1, 1)},
    ),
    Case(
        "if_of_two_weights",
        "float[N,6] x, bool c, float[6,8] w1, float[6,8] w2, float[8,3] w3",
        "b = If(c) <then_branch = t () => (float[N,8] r1) { r1 = MatMul(x, w1) },"
        " else_branch = e () => (float[N,8] r2) { r2 = MatMul(x, w2) }> y = MatMul(b, w3)",
        [8],
        left={"w1": (6, 1), "w2": (6, 1), "w3": (1, 3)},
    ),
    Case(
        "loop_captures",
        "float[N,6] x, float[6,8] w1, float[8,6] w2",
        "a = MatMul(x, w1) b = Tanh(a) y = Loop(n, c, x) <body = l (int64 i, bool c1, float[N,6] h)"
        " => (bool c2, float[N,6] h2) { m = MatMul(b, w2) h2 = Add(m, h) c2 = Identity(c1) }>",
        [8],
        constants="int64 n = {3}, bool c = {1}",
        left={"w1": (6, 1), "w2": (1, 6)},
    ),
]

CASES = [*CONVOLUTIONS, *LINEAR, *HEADS, *RECURRENT, *QUANTIZED, *BODIES]
