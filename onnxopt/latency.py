"""Predict how long a model takes on a machine of which there is a profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from onnxopt.errors import UsageError
from onnxopt.kernel_times import KernelTimes, Source
from onnxopt.kernels import fused_kernels, named
from onnxopt.profiling.document import LayerTimes, Profile
from onnxopt.profiling.events import Kernel
from onnxopt.profiling.feeds import Array
from onnxopt.profiling.tensors import dims_of, kind_of, tensor_text


@dataclass(frozen=True)
class Prediction:
    """The time of one run of a model, and what it was put together from.

    Attributes:
        ms: one run in the steady state.
        kernels: how many it has.
        shares: of the time of the kernels, by where their times come from.
    """

    ms: float
    kernels: int
    shares: Mapping[Source, float]


def predict(
    proto: onnx.ModelProto,
    profile: Profile,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    feeds: Mapping[str, Array] | None = None,
    in_model: bool = True,
) -> Prediction:
    """Add up the times of the kernels that ONNX Runtime makes of a model, and what a run costs.

    The time is that of a run which nobody disturbs: what the faster half of runs take on average.
    The model is optimized by the ONNX Runtime of this machine and run once, for its kernels and
    their shapes; their times are those of the profile's machine.

    Args:
        shapes: of the inputs where they are open; those that the profile was measured with if
            not given.
        feeds: inputs that the model runs with; drawn if not given.
        in_model: use times that were measured inside of the profile's own model; without, layers
            are known only from their small models, as those of another model would be.

    Raises:
        UsageError: the shapes do not fit the inputs.
        MeasureError: ONNX Runtime does not load or run the model.
    """
    table = KernelTimes(profile, in_model=in_model)
    given = profile.settings.shapes if shapes is None else shapes
    names = {entry.name for entry in proto.graph.input}
    known = {name: dims for name, dims in given.items() if name in names}
    total, shares = 0.0, dict.fromkeys(Source, 0.0)
    kernels = fused_kernels(named(proto), shapes=known, feeds=feeds)
    for fused in kernels:
        us, source = table.time_us(fused.kernel)
        total += us
        shares[source] += us
    factor = table.smaller([fused.kernel for fused in kernels])
    return Prediction(
        (factor * total + profile.overhead.run_us) / 1000,
        len(kernels),
        {source: us / total if total else 0.0 for source, us in shares.items()},
    )


class LayerLatency:
    """Times of the layers of a profiled model at any width: the cost axis of a choice of widths.

    Raises:
        UsageError: the profile was written without `--widths`.
    """

    def __init__(self, profile: Profile) -> None:
        if not profile.layers:
            raise UsageError(
                f"the profile of '{profile.source}' has no layers at several widths",
                "write it with `onnxopt profile MODEL --widths -o profile.json`",
            )
        self._times = KernelTimes(profile)
        self._block = profile.machine.channel_block
        self._layers = {node: layer for layer in profile.layers for node in layer.nodes}
        self._between = {
            kernel.nodes[0]: kernel
            for kernel in profile.kernels
            if kernel.nodes and kernel.outputs and not self._layers.keys() & set(kernel.nodes)
        }

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of all nodes that are layers here."""
        return tuple(node for node, layer in self._layers.items() if layer.widths)

    def whole(self, node: str) -> tuple[int, int]:
        """The channels in and out with which the layer of a node is in the model."""
        first = self._layers[node].widths[0]
        return first.inputs, first.outputs

    def first(self, node: str) -> str:
        """The first node with the same layer: all of them take the same times."""
        return self._layers[node].nodes[0]

    def us(self, node: str, inputs: int, outputs: int) -> float:
        """Microseconds of the layer of a node with so many channels (features) in and out.

        Raises:
            KeyError: it is none of the profile's layers.
        """
        layer = self._layers[node]
        if min(inputs, outputs) < 1 or not layer.widths:
            return 0.0
        return self._times.time_us(self._kernel(layer, inputs, outputs))[0]

    @property
    def between(self) -> tuple[str, ...]:
        """The first nodes of the kernels that are no layers: what lies between them."""
        return tuple(self._between)

    def between_us(self, node: str, axis: int, share: float) -> float:
        """Microseconds of such a kernel, with this axis of all that it reads and makes cut.

        Args:
            share: what is left of the axis.
        """
        kernel = self._between[node]
        rank = len(dims_of(kernel.outputs[0]))
        inputs = tuple(_cut(text, axis, rank, share) for text in kernel.inputs)
        outputs = tuple(_cut(text, axis, rank, share) for text in kernel.outputs)
        return self._times.time_us(Kernel("", kernel.op, inputs, outputs))[0]

    def startup_us(self, node: str) -> float:
        """What only its removal saves; 0 where that is not known."""
        found = self._layers[node].fit
        return 0.0 if found is None else found.t0_us

    def _kernel(self, layer: LayerTimes, inputs: int, outputs: int) -> Kernel:
        """The kernel at this width: that of the measured width if there is one."""
        for width in layer.widths:
            if (width.inputs, width.outputs) == (inputs, outputs):
                return Kernel("", width.kernel_op, width.kernel_inputs, width.kernel_outputs)
        whole = layer.widths[0]
        op, depthwise = whole.kernel_op, " depthwise" in f" {layer.text}"
        apart = inputs % 4 and (depthwise or inputs >= self._block)
        if op.endswith(".nchwc") and apart:  # such widths are not run in blocks
            others_ops = (w.kernel_op for w in layer.widths if not w.kernel_op.endswith(".nchwc"))
            op = next(others_ops, op)
        if op.endswith(".nchwc"):
            outputs = -(-outputs // self._block) * self._block
            if depthwise or inputs >= self._block:  # fewer are read as they lie
                inputs = -(-inputs // self._block) * self._block
        data, *others = whole.kernel_inputs
        made = whole.kernel_outputs[0]
        axis = 1 if layer.op.startswith("Conv") else -1
        texts = [_with(data, axis, inputs)]
        for number, other in enumerate(others):
            dims = dims_of(other)
            rank = len(dims_of(data)) if layer.op.startswith("Conv") else 2
            if number == 0 and len(dims) == rank:  # else it was packed, and is not shown
                texts.append(_weight(other, layer, whole.outputs, inputs, outputs))
            else:
                own = axis if len(dims) > 1 else 0
                texts.append(_with(other, own, outputs) if dims else other)
        return Kernel("", op, tuple(texts), (_with(made, axis, outputs),))


def _cut(text: str, axis: int, rank: int, share: float) -> str:
    """A tensor with an axis cut to a share of it; one of another rank as it is."""
    dims = dims_of(text)
    if len(dims) != rank or axis >= rank or dims[axis] == 1:
        return text
    return _with(text, axis, max(1, round(share * dims[axis])))


def _with(text: str, axis: int, size: int) -> str:
    dims = list(dims_of(text))
    dims[axis] = size
    return tensor_text(kind_of(text), dims)


def _weight(text: str, layer: LayerTimes, whole: int, inputs: int, outputs: int) -> str:
    """The weight for so many channels; groups stay as many, depthwise ones follow."""
    dims = list(dims_of(text))
    before = layer.widths[0].inputs
    if layer.op == "ConvTranspose":
        dims[0], dims[1] = inputs, max(1, round(dims[1] * outputs / whole))
    elif layer.op == "Conv":
        depthwise = dims[1] == 1 and before > 1  # a group for each input
        dims[0], dims[1] = outputs, 1 if depthwise else max(1, round(dims[1] * inputs / before))
    else:
        turned = dims[0] == whole and dims[0] != before
        dims[:2] = [outputs, inputs] if turned else [inputs, outputs]
    return tensor_text(kind_of(text), dims)
