"""Models like a given one: what a rule meets in the wild, made from its examples.

Each generator yields (what was changed, the model). Not all of them are valid or run anywhere;
those that ONNX Runtime runs must give the same outputs before and after a rule.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import onnx
import onnx.defs
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference
import onnx.version_converter

from onnxopt.graph import Array
from onnxopt.rewriting.other_values import other_numbers, other_values

Variant: TypeAlias = tuple[str, onnx.ModelProto]

TYPES = {
    onnx.defs.OpSchema.AttrType.INT: onnx.AttributeProto.INT,
    onnx.defs.OpSchema.AttrType.FLOAT: onnx.AttributeProto.FLOAT,
    onnx.defs.OpSchema.AttrType.STRING: onnx.AttributeProto.STRING,
    onnx.defs.OpSchema.AttrType.INTS: onnx.AttributeProto.INTS,
    onnx.defs.OpSchema.AttrType.FLOATS: onnx.AttributeProto.FLOATS,
}

OPSETS = range(7, 26)


def copy_of(proto: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    return made


def retyped(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Without what it declares of its outputs, but for the element types that inference finds."""
    declared = {info.name: info.type.tensor_type.elem_type for info in proto.graph.output}
    for info in proto.graph.output:
        info.ClearField("type")
    del proto.graph.value_info[:]
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        found = {i.name: i.type.tensor_type.elem_type for i in inferred.graph.output}
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        found = {}
    for info in proto.graph.output:
        info.type.tensor_type.elem_type = found.get(info.name) or declared[info.name]
    return proto


def attributes(proto: onnx.ModelProto) -> Iterator[Variant]:
    """Each attribute of each operator set to other values, and omitted."""
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
    for index, node in enumerate(proto.graph.node):
        try:
            schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
        except onnx.defs.SchemaError:
            continue
        present = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for name in sorted(schema.attributes):
            kind = schema.attributes[name].type
            for value in other_values(name, kind, present.get(name)):
                made = copy_of(proto)
                kept = [a for a in made.graph.node[index].attribute if a.name != name]
                del made.graph.node[index].attribute[:]
                made.graph.node[index].attribute.extend(kept)
                if value is not None:
                    made.graph.node[index].attribute.append(
                        onnx.helper.make_attribute(name, value, attr_type=TYPES[kind])
                    )
                yield f"{node.op_type} with {name} = {value}", retyped(made)


def constants(proto: onnx.ModelProto) -> Iterator[Variant]:
    """Each constant with other numbers of the same shape and type."""
    for index, tensor in enumerate(proto.graph.initializer):
        array = onnx.numpy_helper.to_array(tensor)
        rng = np.random.default_rng(zlib.crc32(tensor.name.encode()))
        for title, other in other_numbers(array, rng):
            yield f"{tensor.name} {title}", with_constant(proto, index, other)


def constant_shapes(proto: onnx.ModelProto) -> Iterator[Variant]:
    """Each constant in other shapes: other ranks, broadcast along other axes."""
    for index, tensor in enumerate(proto.graph.initializer):
        array = onnx.numpy_helper.to_array(tensor)
        first = array.reshape(-1)[:1]
        shapes = [(1, *array.shape), (1, 1, *array.shape), (*array.shape, 1), (array.size,)]
        shapes += [(1, *array.shape, 1), (*array.shape, 1, 1), array.shape[::-1]]
        for shape in dict.fromkeys(shapes):
            if shape != array.shape:
                made = with_constant(proto, index, array.reshape(shape))
                yield f"{tensor.name} of shape {list(shape)}", made
        for shape in ((), (1,), (1, 1), (1, 1, 1), (1, 1, 1, 1)):
            if array.size and shape != array.shape:
                made = with_constant(proto, index, first.reshape(shape))
                yield f"{tensor.name} one number of shape {list(shape)}", made
        for axis, size in enumerate(array.shape):
            if size > 1:
                made = with_constant(proto, index, array.take([0], axis))
                yield f"{tensor.name} of size 1 along axis {axis}", made
            else:
                made = with_constant(proto, index, np.repeat(array, 3, axis))
                yield f"{tensor.name} of size 3 along axis {axis}", made


def with_constant(proto: onnx.ModelProto, index: int, array: Array) -> onnx.ModelProto:
    made = copy_of(proto)
    name = made.graph.initializer[index].name
    made.graph.initializer[index].CopyFrom(onnx.numpy_helper.from_array(array, name))
    return retyped(made)


def constant_kinds(proto: onnx.ModelProto) -> Iterator[Variant]:
    """Each constant as an input, as a default that callers may override, and as a Constant node."""
    for index, tensor in enumerate(proto.graph.initializer):
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        made = copy_of(proto)
        made.graph.input.append(info)
        yield f"{tensor.name} overridable", made
        if tensor.dims:
            any_size = copy_of(made)
            for axis, dim in enumerate(any_size.graph.input[-1].type.tensor_type.shape.dim):
                dim.dim_param = f"{tensor.name}_{axis}"
            yield f"{tensor.name} overridable in any size", retyped(any_size)
        made = copy_of(made)
        del made.graph.initializer[index]
        yield f"{tensor.name} an input", made
        made = copy_of(proto)
        del made.graph.initializer[index]
        node = onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        nodes = [node, *made.graph.node]
        del made.graph.node[:]
        made.graph.node.extend(nodes)
        yield f"{tensor.name} a Constant node", made


def shared_values(proto: onnx.ModelProto) -> Iterator[Variant]:
    """Each inner value and each constant needed elsewhere too, and outputs made inner values."""
    outputs = {info.name for info in proto.graph.output}
    values = [name for node in proto.graph.node for name in node.output if name]
    for name in values:
        if name not in outputs:
            made = copy_of(proto)
            made.graph.output.add(name=name)
            yield f"{name} an output too", retyped(made)
        made = copy_of(proto)
        made.graph.node.add(op_type="Identity", input=[name], output=[f"{name}_read"])
        made.graph.node.add(op_type="Shape", input=[f"{name}_read"], output=[f"{name}_shape"])
        made.graph.output.add(name=f"{name}_shape")
        yield f"{name} read elsewhere too", retyped(made)
    for tensor in proto.graph.initializer:
        made = copy_of(proto)
        made.graph.node.add(op_type="Identity", input=[tensor.name], output=["constant_read"])
        made.graph.output.add(name="constant_read")
        yield f"{tensor.name} read elsewhere too", retyped(made)
    for info in proto.graph.output:
        made = copy_of(proto)
        made.graph.node.add(op_type="Identity", input=[info.name], output=["follower"])
        place = [o.name for o in made.graph.output].index(info.name)
        made.graph.output[place].name = "follower"
        yield f"{info.name} not an output", made


def operands(proto: onnx.ModelProto) -> Iterator[Variant]:
    """The operands of each operator swapped, repeated, and optional ones left out."""
    for index, node in enumerate(proto.graph.node):
        for place in range(1, len(node.input)):
            made = copy_of(proto)
            inputs = made.graph.node[index].input
            inputs[0], inputs[place] = inputs[place], inputs[0]
            yield f"operands 0 and {place} of {node.op_type} swapped", retyped(made)
            made = copy_of(proto)
            made.graph.node[index].input[place] = node.input[0]
            yield f"operand {place} of {node.op_type} the same as its first", retyped(made)
            made = copy_of(proto)
            made.graph.node[index].input[place] = ""
            while not made.graph.node[index].input[-1]:
                made.graph.node[index].input.pop()
            yield f"{node.op_type} without input {place}", retyped(made)


def extra_operands(proto: onnx.ModelProto) -> Iterator[Variant]:
    """The next optional input of each operator given, where there is one more."""
    rng = np.random.default_rng(1)
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 1)
    for index, node in enumerate(proto.graph.node):
        try:
            schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
        except onnx.defs.SchemaError:
            continue
        if len(node.input) >= len(schema.inputs):
            continue
        for shape in ((), (1,), (2,), (3,), (4,)):
            numbers = rng.integers(1, 4, shape)
            for dtype in (np.float32, np.int64, np.bool_):
                made = copy_of(proto)
                array = np.asarray(numbers).astype(dtype)
                made.graph.initializer.append(onnx.numpy_helper.from_array(array, "extra"))
                made.graph.node[index].input.append("extra")
                yield f"{node.op_type} with one more {dtype.__name__}{list(shape)}", retyped(made)


def input_shapes(proto: onnx.ModelProto) -> Iterator[Variant]:
    """Inputs declared otherwise: no rank, no sizes, other sizes."""
    made = copy_of(proto)
    for info in made.graph.input:
        info.type.tensor_type.ClearField("shape")
    yield "inputs without shapes", retyped(made)
    made = copy_of(proto)
    for info in made.graph.input:
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            dim.dim_param = f"{info.name}_{axis}"
    yield "inputs without sizes", retyped(made)
    for size in (0, 1, 2, 3):
        for place, info in enumerate(proto.graph.input):
            for axis in range(len(info.type.tensor_type.shape.dim)):
                made = copy_of(proto)
                made.graph.input[place].type.tensor_type.shape.dim[axis].dim_value = size
                yield f"axis {axis} of {info.name} of size {size}", retyped(made)


def element_types(proto: onnx.ModelProto) -> Iterator[Variant]:
    """All floating-point numbers of another type, and integers instead."""
    for elem_type in (11, 10, 6, 7):
        made = copy_of(proto)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(elem_type)
        for info in made.graph.input:
            if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
                info.type.tensor_type.elem_type = elem_type
        for tensor in made.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                with np.errstate(over="ignore", invalid="ignore"):
                    array = onnx.numpy_helper.to_array(tensor).astype(dtype)
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        yield f"in {dtype}", retyped(made)


def versions_that_differ(proto: onnx.ModelProto) -> list[int]:
    """One version of the operator set for each combination of versions of the operators in use."""
    found: dict[tuple[int, ...], int] = {}
    kinds = sorted({node.op_type for node in proto.graph.node if not node.domain})
    for version in OPSETS:
        since = []
        for kind in kinds:
            try:
                since.append(onnx.defs.get_schema(kind, version).since_version)
            except onnx.defs.SchemaError:
                since.append(0)
        found[tuple(since)] = version
    return sorted(found.values())


def opsets(proto: onnx.ModelProto) -> Iterator[Variant]:
    """In other versions of the operator set, as it is and converted."""
    for version in versions_that_differ(proto):
        made = copy_of(proto)
        for entry in made.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = version
        made.ir_version = max(made.ir_version, 10)
        yield f"opset {version}", made
        try:
            converted = onnx.version_converter.convert_version(proto, version)
        except (RuntimeError, ValueError, onnx.version_converter.ConvertError):
            continue
        converted.ir_version = max(converted.ir_version, 10)
        yield f"converted to opset {version}", converted


def in_body(proto: onnx.ModelProto) -> Iterator[Variant]:
    """The whole graph in both branches of an If, reading inputs and constants from outside."""
    made = copy_of(proto)
    del made.graph.node[:], made.graph.output[:]
    branches = []
    for name in ("then_branch", "else_branch"):
        branch = onnx.GraphProto(name=name)
        rename = {v: f"{name}_{v}" for n in proto.graph.node for v in n.output if v}
        for node in proto.graph.node:
            copy = branch.node.add()
            copy.CopyFrom(node)
            for names in (copy.input, copy.output):
                names[:] = [rename.get(v, v) for v in names]
        for info in proto.graph.output:
            output = branch.output.add()
            output.CopyFrom(info)
            output.name = rename.get(info.name, info.name)
        branches.append(onnx.helper.make_attribute(name, branch))
    made.graph.input.append(onnx.helper.make_tensor_value_info("condition", 9, []))
    node = made.graph.node.add(op_type="If", input=["condition"], attribute=branches)
    node.output.extend(info.name for info in proto.graph.output)
    made.graph.output.extend(proto.graph.output)
    yield "in the branches of an If", made


KINDS: dict[str, Callable[[onnx.ModelProto], Iterator[Variant]]] = {
    "attributes": attributes,
    "constants": constants,
    "shapes of constants": constant_shapes,
    "kinds of constants": constant_kinds,
    "shared values": shared_values,
    "operands": operands,
    "more operands": extra_operands,
    "shapes of inputs": input_shapes,
    "element types": element_types,
    "opsets": opsets,
    "in a body": in_body,
}
