"""Small models of layers at several widths, and the kit that holds them: what a device measures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx.helper as make

from onnxopt.errors import UsageError
from onnxopt.files import check_target
from onnxopt.fixed_shapes import fix_shapes
from onnxopt.kernels import fused_kernels, named, node_names
from onnxopt.layer_shapes import LayerShape, distinct_layers, widths
from onnxopt.model import save
from onnxopt.profiling.feeds import Array
from onnxopt.profiling.files import write_json
from onnxopt.profiling.kit import LIST, SCHEMA, Kit, KitBlock, KitLayer
from onnxopt.profiling.machine import channel_block

OPSET = 13
"""Old enough for every ONNX Runtime that is in use, new enough for all operators here."""


def write_kit(
    proto: onnx.ModelProto,
    folder: Path,
    *,
    source: str,
    shapes: Mapping[str, tuple[int, ...]],
    feeds: Mapping[str, Array] | None = None,
    layers: bool = True,
    blocks: Sequence[KitBlock] = (),
) -> Kit:
    """Put a model, small models of its layers and their list into a folder, the list last.

    Args:
        source: path of the model, for a person.
        shapes: of its inputs; the layers have the sizes that follow from them.
        feeds: arrays that it runs with; drawn if not given.
        layers: False: the model alone.
        blocks: of the model with a name for every node, see `named`.

    Raises:
        UsageError: the shapes do not fit, or the folder cannot be written to.
        MeasureError: ONNX Runtime does not load or run the model.
    """
    working = named(fix_shapes(proto, shapes))
    found: dict[LayerShape, list[str]] = {}
    if layers:
        found = distinct_layers(fused_kernels(working, shapes=shapes, feeds=feeds), working)
    _make_folder(folder)
    listed = []
    for number, (layer, nodes) in enumerate(found.items()):
        measured = widths(layer, channel_block())
        file = f"layer{number:03}.onnx"
        save(small_model(measured), folder / file)
        listed.append(
            KitLayer(file, layer.op, str(layer), tuple(nodes), tuple(w.cost() for w in measured))
        )
    save(working, folder / "model.onnx")
    names = node_names(working)
    kit = Kit(SCHEMA, source, "model.onnx", shapes, names, tuple(listed), tuple(blocks))
    write_json(kit, folder / LIST)
    return kit


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
        if os.listdir(folder) and not (folder / LIST).is_file():
            raise UsageError(f"the folder '{folder}' is not empty", "name a new one")
    except OSError as error:
        raise UsageError(f"cannot make the folder '{folder}': {error.strerror or error}") from None
    check_target(folder / LIST)


def small_model(layers: Sequence[LayerShape]) -> onnx.ModelProto:
    """One layer at several widths side by side, each a branch of its own.

    Weights are made by ConstantOfShape, which ONNX Runtime folds when it loads: so the file is
    small, and to its kernels they are stored weights.
    """
    nodes: list[onnx.NodeProto] = []
    inputs: dict[str, onnx.ValueInfoProto] = {}
    outputs = []
    for number, layer in enumerate(layers):
        source = f"x{layer.inputs}"
        shape = layer.input_shape
        inputs[source] = make.make_tensor_value_info(source, onnx.TensorProto.FLOAT, shape)
        nodes += _branch(layer, source, f"b{number}_")
        nodes.append(_end(layer, nodes[-1].output[0], f"e{number}_"))
        end = nodes[-1].output[0]
        outputs.append(make.make_tensor_value_info(end, onnx.TensorProto.FLOAT, _ended(layer)))
    graph = make.make_graph(nodes, "layer", list(inputs.values()), outputs)
    return make.make_model(
        graph, opset_imports=[make.make_opsetid("", OPSET)], ir_version=8, producer_name="onnxopt"
    )


def _end(layer: LayerShape, source: str, prefix: str) -> onnx.NodeProto:
    """What makes the result small.

    A result that leaves the model lies in new memory at each run, and the time to get that would
    be the layer's.
    """
    rank = len(layer.output_shape)
    axes = list(range(2, rank)) if layer.kernel else [rank - 1]
    return make.make_node("ReduceMean", [source], [f"{prefix}y"], name=f"{prefix}end", axes=axes)


def _ended(layer: LayerShape) -> list[int]:
    kept = 2 if layer.kernel else len(layer.output_shape) - 1
    return [size if i < kept else 1 for i, size in enumerate(layer.output_shape)]


def _branch(layer: LayerShape, source: str, prefix: str) -> list[onnx.NodeProto]:
    """The nodes of one width; the last one makes its result."""
    nodes = _layer(layer, source, prefix, 0.01)
    if layer.adds:  # a twin, not called like the branch, makes what is added in the same layout
        nodes += _layer(layer, source, f"t{prefix[1:]}", 0.02)
        ends = [n.output[0] for n in nodes if n.op_type == layer.op]
        nodes.append(make.make_node("Add", ends, [f"{prefix}sum"], name=f"{prefix}Add"))
    if layer.activation:
        nodes += _activation(layer, nodes[-1].output[0], prefix)
    return nodes


def _layer(layer: LayerShape, source: str, prefix: str, weight: float) -> list[onnx.NodeProto]:
    nodes = _constant(f"{prefix}w", layer.weight, weight)
    operands = [source, f"{prefix}w"]
    if layer.op != "MatMul":
        nodes += _constant(f"{prefix}b", (layer.outputs,), weight)
        operands.append(f"{prefix}b")
    attributes: dict[str, Any] = dict(layer.attributes)
    if layer.kernel:
        attributes["group"] = layer.inputs if layer.groups is None else layer.groups
        if attributes.get("auto_pad", "NOTSET") != "NOTSET":
            attributes.pop("pads", None)
    elif layer.transposed:
        attributes["transB"] = 1
    nodes.append(
        make.make_node(layer.op, operands, [f"{prefix}y"], name=f"{prefix}{layer.op}", **attributes)
    )
    return nodes


def _constant(name: str, shape: tuple[int, ...], value: float) -> list[onnx.NodeProto]:
    sizes = make.make_tensor("", onnx.TensorProto.INT64, [len(shape)], shape)
    filling = make.make_tensor("", onnx.TensorProto.FLOAT, [1], [value])
    return [
        make.make_node("Constant", [], [f"{name}_shape"], value=sizes),
        make.make_node("ConstantOfShape", [f"{name}_shape"], [name], value=filling),
    ]


_PARAMETERS = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}


def _activation(layer: LayerShape, source: str, prefix: str) -> list[onnx.NodeProto]:
    names = _PARAMETERS.get(layer.activation, ())
    attributes: dict[str, Any] = dict(zip(names, layer.parameters, strict=False))
    nodes: list[onnx.NodeProto] = []
    operands = [source]
    if layer.activation == "Clip":
        for value in layer.parameters:
            bound = f"{prefix}bound{len(operands)}"
            scalar = make.make_tensor("", onnx.TensorProto.FLOAT, [], [value])
            nodes.append(make.make_node("Constant", [], [bound], value=scalar))
            operands.append(bound)
    name = f"{prefix}{layer.activation}"
    nodes.append(
        make.make_node(layer.activation, operands, [f"{prefix}act"], name=name, **attributes)
    )
    return nodes
