"""Change the layout of an input (`--input-layout NAME=nchw`), so that its Transposes go away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import onnx

from onnxopt.changes import Ledger, Numerics
from onnxopt.errors import UsageError
from onnxopt.graph import Node, Variable, link, replace_uses
from onnxopt.model import Model
from onnxopt.passes.layout.permutation import Perm, identity, invert, permuted
from onnxopt.passes.layout.rewrite import carry_out
from onnxopt.passes.layout.views import Views
from onnxopt.passes.transposes import CancelTransposes
from onnxopt.shapes import infer

OTHER_LAYOUT = {
    "nchw": "nhwc",
    "nhwc": "nchw",
    "ncw": "nwc",
    "nwc": "ncw",
    "ncdhw": "ndhwc",
    "ndhwc": "ncdhw",
}


@dataclass(frozen=True)
class InputLayout:
    """Let inputs be given in another layout than the file declares.

    The only pass that changes the signature, so it runs only when asked for. What it did stands in
    `Model.input_permutations` (the new input is `numpy.transpose(old input, permutation)`) and, in
    words, in `Model.notes`.

    Attributes:
        layouts: by name of the input, the layout that it shall have; it has the other one now.
    """

    layouts: Mapping[str, str] = field(default_factory=dict)
    name: ClassVar[str] = "input-layout"
    numerics: ClassVar[Numerics] = "exact"

    def __call__(self, model: Model, ledger: Ledger) -> None:
        for name, layout in self.layouts.items():
            if name in model.input_permutations:
                continue
            perm = self._permutation(model, name, layout)
            if not _saves(model, name, perm):
                raise UsageError(
                    f"no Transpose would be saved if the input '{name}' were {layout}",
                    _possible(model),
                )
            what = f"given as {layout} instead of {OTHER_LAYOUT[layout]} from now on"
            if ledger.grant(self.name, f"input '{name}'", what, self.numerics):
                model.notes.append(_turn(model, name, perm, layout))

    def _permutation(self, model: Model, name: str, layout: str) -> Perm:
        """What makes the new layout of the old one, once all is sure to be possible."""
        if layout not in OTHER_LAYOUT:
            raise UsageError(
                f"there is no input layout '{layout}'", f"layouts are {', '.join(OTHER_LAYOUT)}"
            )
        value = _inputs(model).get(name)
        if value is None:
            raise UsageError(
                f"the model has no input '{name}' whose layout could change", _possible(model)
            )
        dims = _dims(value)
        if dims is None or len(dims) != len(layout):
            shape = "no shape" if dims is None else f"the shape {_shown(dims)}"
            raise UsageError(
                f"the input '{name}' cannot become {layout}: it declares {shape}", _possible(model)
            )
        return _turning(layout)


def _turning(layout: str) -> Perm:
    old = OTHER_LAYOUT[layout]
    return tuple(old.index(axis) for axis in layout)


def _inputs(model: Model) -> dict[str, Variable]:
    """The inputs that must be given and are not passed on as outputs as they are."""
    return {
        value.name: value
        for value in model.graph.inputs
        if isinstance(value, Variable) and not value.is_graph_output
    }


def _dims(value: Variable) -> list[onnx.TensorShapeProto.Dimension] | None:
    kind = None if value.info is None else value.info.type
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    return list(kind.tensor_type.shape.dim)


def _shown(dims: list[onnx.TensorShapeProto.Dimension]) -> str:
    sizes = [
        dim.dim_param or (str(dim.dim_value) if dim.HasField("dim_value") else "?") for dim in dims
    ]
    return f"[{', '.join(sizes)}]"


def _possible(model: Model) -> str:
    """Which inputs could change their layout, for the user who named another."""
    found = [
        f"{name}={layout}"
        for name, value in _inputs(model).items()
        for layout in OTHER_LAYOUT
        if len(_dims(value) or []) == len(layout) and _saves(model, name, _turning(layout))
    ]
    return f"possible here: {', '.join(found)}" if found else "no input here can change its layout"


def _saves(model: Model, name: str, perm: Perm) -> bool:
    """Whether fewer Transposes are left with the input in this layout; tried on copies."""
    counts = []
    for turned in (False, True):
        copy = Model.from_proto(model.to_proto())
        infer(copy)
        if turned:
            _turn(copy, name, perm, "")
            infer(copy)
        CancelTransposes()(copy, Ledger())
        counts.append(sum(n.op == "Transpose" for g in copy.graph.walk() for n in g.nodes))
    return counts[1] < counts[0]


def _turn(model: Model, name: str, perm: Perm, layout: str) -> str:
    """Declare an input in the other layout and Transpose it back for all that read it.

    Returns:
        a sentence that says so.
    """
    graph = model.graph
    value = _inputs(model)[name]
    before = _dims(value)
    assert before is not None
    old = graph.new_value(f"{name}_{OTHER_LAYOUT.get(layout, '')}")
    old.dtype, old.shape = value.dtype, value.shape
    replace_uses(value, old)
    node = Node(
        "Transpose",
        [value],
        [old],
        {"perm": list(invert(perm))},
        opset=graph.opsets.get("", 1),
    )
    graph.nodes.insert(0, node)
    link(graph, [node])
    _declare(value, perm)
    carry_out(Views.of(graph), {value: identity(len(perm))}, {})
    graph.sort()
    model.input_permutations[name] = perm
    after = list(permuted(before, perm))
    return (
        f"the signature changed: the input '{name}' is {layout} now, {_shown(after)}; "
        f"it was {_shown(before)}"
    )


def _declare(value: Variable, perm: Perm) -> None:
    """Permute the declared dimensions, their names and denotations included."""
    assert value.info is not None
    info = onnx.ValueInfoProto()
    info.CopyFrom(value.info)
    dims = permuted(list(value.info.type.tensor_type.shape.dim), perm)
    del info.type.tensor_type.shape.dim[:]
    info.type.tensor_type.shape.dim.extend(dims)
    value.info = info
    if value.shape is not None:
        value.shape = permuted(value.shape, perm)
