"""Protobuf to Graph and back, dropping nothing: what a rewrite did not touch comes out as it was.

GraphSurgeon's own importer and exporter are not used: they drop doc strings, metadata, quantization
annotations, sparse and type attributes and bytes that are not UTF-8, take overridable initializers
out of the signature and raise on Optional types.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import onnx
import onnx.defs
import onnx.helper

from onnxopt.errors import BadModelError
from onnxopt.graph import Constant, Graph, Node, Value, Variable, decode_attribute, sorted_nodes

Scope = dict[str, Value]


def graph_from_proto(proto: onnx.ModelProto, *, freeze_inputs: bool = False) -> Graph:
    """The linked graph of a model, bodies included, its nodes in a runnable order.

    Args:
        freeze_inputs: initializers that are also graph inputs count as constants and leave the
            signature (in IR versions before 4 they are constants anyway).

    Raises:
        BadModelError: a value that nothing makes, one made twice, or a cycle.
    """
    opsets = {_domain(o.domain): o.version for o in proto.opset_import}
    graph = Graph(name=proto.graph.name, opsets=opsets, source=proto.graph)
    graph.ir_version = proto.ir_version
    graph.functions_defined = frozenset((_domain(f.domain), f.name) for f in proto.functions)
    graph.protected = frozenset(_protected_names(proto))
    _fill(graph, proto.graph, {}, overridable=proto.ir_version >= 4 and not freeze_inputs)
    if freeze_inputs:
        graph.input_order = list(graph.inputs)
    for inner in reversed(list(graph.walk())):
        try:
            inner.nodes[:] = sorted_nodes(inner)
        except ValueError as error:
            raise BadModelError(f"the graph has a cycle: {error}") from None
    return graph


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _fill(graph: Graph, proto: onnx.GraphProto, outer: Scope, *, overridable: bool) -> None:
    """Read one GraphProto into `graph`. `outer` holds the values that it may capture."""
    inner: Scope = {}
    _read_initializers(graph, proto, inner)
    infos = {info.name: info for info in proto.value_info}
    for info in proto.input:
        known = inner.get(info.name)
        if isinstance(known, Constant):
            known.overridable = overridable
            known.info = info
            graph.input_order.append(known)
        else:
            value = _define(graph, Variable(info.name, info), inner, "a graph input")
            graph.inputs.append(value)
            graph.input_order.append(value)
    outputs = {info.name: info for info in proto.output}
    nodes = _without_overruled_constants(proto)
    for node in nodes:
        for name in filter(None, node.output):
            made = Variable(name, outputs.get(name) or infos.get(name))
            _define(graph, made, inner, f"the {node.op_type} node '{node.name}'")
    scope = {**outer, **inner} if outer else inner
    for node in nodes:
        graph.nodes.append(_read_node(graph, node, inner, scope))
    for info in proto.output:
        found = scope.get(info.name)
        if found is None:
            raise BadModelError(f"the graph output '{info.name}' is made by no node")
        found.is_graph_output = True
        graph.outputs.append(found)
        graph.output_infos.append(info)


def _without_overruled_constants(proto: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes, less each Constant whose output another Constant after it defines again.

    Some exporters write such files; ONNX Runtime runs them and takes the last.
    """
    last = {n.output[0]: n for n in proto.node if n.op_type == "Constant" and n.output}
    return [n for n in proto.node if n.op_type != "Constant" or last[n.output[0]] is n]


def _define(graph: Graph, value: Value, inner: Scope, by: str) -> Value:
    if value.name in inner:
        raise BadModelError(f"the value '{value.name}' is defined twice, the second time by {by}")
    inner[value.name] = value
    value.graph = graph
    graph.taken.add(value.name)
    return value


def _read_initializers(graph: Graph, proto: onnx.GraphProto, inner: Scope) -> None:
    for tensor in proto.initializer:
        constant = Constant(tensor.name, tensor)
        _define(graph, constant, inner, "an initializer")
        graph.initializers.append(constant)
    for sparse in proto.sparse_initializer:
        constant = Constant(sparse.values.name, sparse)
        _define(graph, constant, inner, "a sparse initializer")
        graph.initializers.append(constant)


def _read_node(graph: Graph, proto: onnx.NodeProto, inner: Scope, scope: Scope) -> Node:
    inputs: list[Value] = []
    for name in proto.input:
        if name and name not in scope:
            raise BadModelError(
                f"the {proto.op_type} node '{proto.name}' reads '{name}', which nothing makes"
            )
        inputs.append(scope[name] if name else Variable(""))
    domain = _domain(proto.domain)
    node = Node(
        proto.op_type,
        inputs,
        [inner[name] if name else Variable("") for name in proto.output],
        _read_attributes(graph, proto, scope),
        name=proto.name,
        domain=domain,
        opset=graph.opsets.get(domain, 1),
        source=proto,
    )
    node.graph = graph
    if proto.name:
        graph.node_names.add(proto.name)
    return node


def _read_attributes(graph: Graph, proto: onnx.NodeProto, scope: Scope) -> dict[str, Any]:
    attrs: dict[str, Any] = {}
    for attribute in proto.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            attrs[attribute.name] = _read_body(graph, attribute.g, scope)
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            attrs[attribute.name] = [_read_body(graph, g, scope) for g in attribute.graphs]
        else:
            attrs[attribute.name] = decode_attribute(attribute)
    return attrs


def _read_body(graph: Graph, proto: onnx.GraphProto, scope: Scope) -> Graph:
    body = Graph(name=proto.name, opsets=graph.opsets, source=proto, parent=graph)
    _fill(body, proto, scope, overridable=False)
    return body


def graph_to_proto(graph: Graph) -> onnx.GraphProto:
    """The GraphProto of a graph or body."""
    proto = onnx.GraphProto()
    source = graph.source
    for field in ("name", "doc_string"):
        if source.HasField(field):
            setattr(proto, field, getattr(source, field))
    proto.metadata_props.extend(source.metadata_props)
    as_nodes = graph.parent is not None and 0 < graph.root.ir_version < 4
    for constant in graph.initializers:
        if as_nodes and not constant.is_sparse and not _was_initializer(constant, source):
            proto.node.append(_constant_node(constant))
        elif isinstance(constant.source, onnx.SparseTensorProto):
            proto.sparse_initializer.append(constant.source)
        else:
            proto.initializer.append(constant.to_proto())
    proto.input.extend(_input_infos(graph))
    proto.output.extend(graph.output_infos)
    proto.node.extend(node_to_proto(node) for node in graph.nodes)
    made = {value.name for node in graph.nodes for value in node.outputs}
    kept = {t.name for t in source.initializer}
    known = made | {i.name for i in proto.input} | {c.name for c in graph.initializers}
    described = made | (known & kept)
    proto.value_info.extend(i for i in source.value_info if i.name in described)
    proto.quantization_annotation.extend(
        a for a in source.quantization_annotation if a.tensor_name in known
    )
    return proto


def _was_initializer(constant: Constant, source: onnx.GraphProto) -> bool:
    return isinstance(constant.source, onnx.TensorProto) and constant.name in {
        t.name for t in source.initializer
    }


def _constant_node(constant: Constant) -> onnx.NodeProto:
    """Before IR version 4 an initializer must be a graph input, which a body cannot add."""
    tensor = onnx.TensorProto()
    tensor.CopyFrom(constant.to_proto())
    return onnx.helper.make_node("Constant", [], [constant.name], value=tensor)


def _input_infos(graph: Graph) -> Iterator[onnx.ValueInfoProto]:
    """The signature as it was, less the initializers that went.

    Before IR version 4 initializers must be inputs too, so the new ones are listed as well.
    """
    present = set(graph.initializers)
    listed = set(graph.input_order)
    for value in graph.input_order:
        if (isinstance(value, Variable) or value in present) and value.info is not None:
            yield value.info
    if graph.parent is None and 0 < graph.ir_version < 4 and _lists_all(graph.source):
        for constant in graph.initializers:
            if constant not in listed:
                yield onnx.helper.make_tensor_value_info(
                    constant.name, constant.elem_type, constant.dims
                )


def _lists_all(source: onnx.GraphProto) -> bool:
    """Every initializer is also a graph input, as IR versions before 4 ask."""
    return {t.name for t in source.initializer} <= {info.name for info in source.input}


def node_to_proto(node: Node) -> onnx.NodeProto:
    """The NodeProto of a node; the very message it came from if nothing changed."""
    inputs = [value.name for value in node.inputs]
    outputs = [value.name for value in node.outputs]
    attributes, changed = _attributes(node)
    source = node.source
    if source is not None and not changed:
        if list(source.input) == inputs and list(source.output) == outputs:
            return source
    proto = onnx.NodeProto()
    for field, value in source.ListFields() if source is not None else ():
        if field.name in ("doc_string", "overload", "domain", "name"):
            setattr(proto, field.name, value)
        elif field.name in ("metadata_props", "device_configurations"):
            getattr(proto, field.name).extend(value)
    proto.op_type = node.op
    if node.name != proto.name:
        proto.name = node.name
    if node.domain != _domain(proto.domain):
        proto.domain = node.domain
    proto.input.extend(inputs)
    proto.output.extend(outputs)
    proto.attribute.extend(attributes)
    return proto


def _attributes(node: Node) -> tuple[list[onnx.AttributeProto], bool]:
    """Attribute messages, and whether any differs from the node's source."""
    before = {a.name: a for a in node.source.attribute} if node.source is not None else {}
    made: list[onnx.AttributeProto] = []
    changed = set(before) != set(node.attrs)
    for name, value in node.attrs.items():
        old = before.get(name)
        if old is not None and not _holds_graphs(value) and _same(decode_attribute(old), value):
            made.append(old)
            continue
        changed = True
        made.append(_attribute(node, name, value, old))
    return made, changed


def _holds_graphs(value: object) -> bool:
    return isinstance(value, Graph) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], Graph)
    )


def _same(a: Any, b: Any) -> bool:
    if hasattr(a, "SerializeToString"):
        return a is b or a == b
    return type(a) is type(b) and bool(a == b)


def _attribute(
    node: Node, name: str, value: Any, old: onnx.AttributeProto | None
) -> onnx.AttributeProto:
    if isinstance(value, Graph):
        attribute = onnx.AttributeProto(name=name, type=onnx.AttributeProto.GRAPH)
        attribute.g.CopyFrom(graph_to_proto(value))
        return attribute
    if _holds_graphs(value):
        attribute = onnx.AttributeProto(name=name, type=onnx.AttributeProto.GRAPHS)
        attribute.graphs.extend(graph_to_proto(g) for g in value)
        return attribute
    kind = old.type if old is not None else _schema_type(node, name)
    return onnx.helper.make_attribute(name, value, attr_type=kind)


def _schema_type(node: Node, name: str) -> int | None:
    try:
        schema = onnx.defs.get_schema(node.op, node.opset, node.domain)
    except onnx.defs.SchemaError:
        return None
    if name not in schema.attributes:
        return None
    kind: Any = schema.attributes[name].type
    return int(kind)


def model_to_proto(graph: Graph, header: onnx.ModelProto) -> onnx.ModelProto:
    """A whole model: `graph` under everything else that `header` holds."""
    model = onnx.ModelProto()
    for field, value in header.ListFields():
        if field.name == "graph":
            continue
        if field.is_repeated:
            getattr(model, field.name).extend(value)
        else:
            setattr(model, field.name, value)
    model.graph.CopyFrom(graph_to_proto(graph))
    return model


def _protected_names(header: onnx.ModelProto) -> Iterable[str]:
    """Names that messages outside the nodes refer to: these initializers are never dropped."""
    for info in header.training_info:
        for binding in [*info.initialization_binding, *info.update_binding]:
            yield binding.value
    for annotation in header.graph.quantization_annotation:
        for entry in annotation.quant_parameter_tensor_names:
            yield entry.value
