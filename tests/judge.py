"""What tests judge by: models in ONNX text, drawn inputs, ONNX Runtime without optimizations."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.parser
import pytest

from onnxopt.changes import Ledger, Numerics
from onnxopt.model import Model, load
from onnxopt.passes import Pass
from onnxopt.runtime import Session
from onnxopt.shapes import infer

Array = np.ndarray[Any, np.dtype[Any]]

REPOSITORY = Path(__file__).parent.parent
TINY_MODELS = sorted((REPOSITORY / "models" / "tiny").glob("*.onnxtxt"))
CORPUS = Path(os.environ.get("ONNXOPT_CORPUS", REPOSITORY.parent / "shared" / "models"))
TOLERANCE: dict[Numerics, tuple[float, float]] = {"exact": (0.0, 0.0), "rounding": (1e-5, 1e-5)}


def model(text: str) -> onnx.ModelProto:
    """A model from ONNX text."""
    return onnx.parser.parse_model(text)


def corpus_file(name: str) -> Path:
    """A file of the corpus; the test is skipped where there is none."""
    if not CORPUS.is_dir():
        pytest.skip(f"there is no corpus at {CORPUS} (set ONNXOPT_CORPUS)")
    return CORPUS / name


def apply(proto: onnx.ModelProto, *passes: Pass) -> tuple[onnx.ModelProto, Ledger]:
    """The passes one after the other, once, on a copy of the model."""
    working, ledger = Model.from_proto(proto), Ledger()
    for item in passes:
        infer(working)
        item(working, ledger)
    return working.to_proto(), ledger


def operators(proto: onnx.ModelProto) -> list[str]:
    """Operators in order, bodies after the node that holds them."""
    return list(_operators(proto.graph))


def _operators(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _operators(attribute.g)


def drawn(proto: onnx.ModelProto, seed: int = 0, size: int = 3) -> dict[str, Array]:
    """Random inputs; symbolic dimensions get `size`, integers 0 to 3, floats a normal draw."""
    rng = np.random.default_rng(seed)
    given = {t.name for t in proto.graph.initializer}
    feeds: dict[str, Array] = {}
    for info in proto.graph.input:
        if info.name in given:
            continue
        kind = info.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else size for d in kind.shape.dim)
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        if dtype.kind == "f":
            feeds[info.name] = rng.standard_normal(shape).astype(dtype)
        elif dtype.kind == "b":
            feeds[info.name] = rng.integers(0, 2, shape).astype(bool)
        else:
            feeds[info.name] = rng.integers(0, 4, shape).astype(dtype)
    return feeds


def assert_same(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    numerics: Numerics = "exact",
    feeds: Mapping[str, Any] | None = None,
) -> None:
    """Both models give the same outputs, names and types included, on drawn inputs."""
    draws = [feeds] if feeds is not None else [drawn(before, seed, seed + 1) for seed in range(3)]
    first, second = Session(before), Session(after)
    rtol, atol = TOLERANCE[numerics]
    for feed in draws:
        expected, found = first.run(feed), second.run(feed)
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert_close(value, found[name], rtol, atol, name)


def assert_close(a: Any, b: Any, rtol: float, atol: float, name: str) -> None:
    assert type(a) is type(b), name
    if isinstance(a, list):
        assert len(a) == len(b), name
        for x, y in zip(a, b, strict=True):
            assert_close(x, y, rtol, atol, name)
    elif isinstance(a, np.ndarray) and a.dtype.kind in "fc":
        assert (a.dtype, a.shape) == (b.dtype, b.shape), name
        np.testing.assert_allclose(
            b.astype(np.float64), a.astype(np.float64), rtol, atol, err_msg=name
        )
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), name
        same = a.tobytes() == b.tobytes() if a.dtype.kind == "V" else np.array_equal(a, b)
        assert same, name
    else:
        assert a == b, name


def tiny(name: str) -> onnx.ModelProto:
    """A model of models/tiny."""
    return load(REPOSITORY / "models" / "tiny" / f"{name}.onnxtxt")
