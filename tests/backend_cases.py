"""The node tests of the ONNX backend test suite, as models with inputs, in three variants."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import onnx.numpy_helper

Variant = Literal["as they are", "all inputs but the first constant", "all inputs constant"]
VARIANTS: tuple[Variant, ...] = (
    "as they are",
    "all inputs but the first constant",
    "all inputs constant",
)


@dataclass(frozen=True)
class Case:
    name: str
    model: onnx.ModelProto
    feeds: dict[str, Any]


@functools.cache
def collected() -> tuple[Any, ...]:
    """The cases of the installed onnx package (building them takes seconds)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return tuple(collect_testcases(None))


def cases(variant: Variant) -> Iterator[Case]:
    """Every node test in one variant; those without an input to make constant are left out."""
    for case in collected():
        if case.model is None or not case.data_sets:
            continue
        names = [info.name for info in case.model.graph.input]
        feeds = {n: _plain(v) for n, v in zip(names, case.data_sets[0][0], strict=False)}
        first = 1 if variant == "all inputs but the first constant" else 0
        fixed = [] if variant == "as they are" else names[first:]
        fixed = [name for name in fixed if _is_tensor(case.model, name, feeds.get(name))]
        if variant != "as they are" and not fixed:
            continue
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        for name in fixed:
            _fix(model, name, feeds.pop(name))
        yield Case(case.name, model, feeds)


def _plain(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return value


def _is_tensor(model: onnx.ModelProto, name: str, value: Any) -> bool:
    """Sequences and optionals cannot be initializers."""
    info = next(i for i in model.graph.input if i.name == name)
    return isinstance(value, np.ndarray) and info.type.tensor_type.elem_type != 0


def _fix(model: onnx.ModelProto, name: str, value: Any) -> None:
    info = next(i for i in model.graph.input if i.name == name)
    tensor = onnx.numpy_helper.from_array(np.asarray(value), name)
    if tensor.data_type != info.type.tensor_type.elem_type:
        tensor = onnx.helper.make_tensor(
            name,
            info.type.tensor_type.elem_type,
            np.asarray(value).shape,
            np.asarray(value).tobytes(),
            raw=True,
        )
    model.graph.input.remove(info)
    model.graph.initializer.append(tensor)
