"""Run a model on named arrays. The only module that knows ONNX Runtime."""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.checker

from onnxopt.errors import BadModelError, OnnxoptError, UnverifiableError
from onnxopt.external import external_name, move_to_external_data, size_bytes
from onnxopt.messages import clean_message
from onnxopt.signature import Port, model_inputs, model_outputs, overridable_inputs

LARGEST_IN_MEMORY_BYTES = 1_900_000_000
"""Above this a model does not fit one protobuf message and is loaded from a temporary folder."""

DEFAULT_THREADS = min(4, os.cpu_count() or 1)


class RunError(OnnxoptError):
    """ONNX Runtime loaded the model and failed to run it on these inputs. Exit code 4."""

    exit_code = 4


class Session:
    """A model that is ready to run on the CPU.

    Args:
        proto: the model. It must not be changed while the session is being made.
        optimized: let ONNX Runtime rewrite the model as it does by default. Off, the operators run
            as the file has them, and weights are not packed: constant and computed weights take
            the same kernels, so that folding one into the other cannot change a bit.
        threads: threads inside one operator. Results depend on nothing but the model, the inputs
            and this number.
        file: where the model lies: it is loaded from there as an application does it, with an
            arena for its memory, which all such sessions share; `proto` needs no weights then.

    Raises:
        BadModelError: it does not load because it is not valid ONNX.
        UnverifiableError: ONNX Runtime does not load it on this machine.
    """

    inputs: tuple[Port, ...]
    overridable: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def __init__(
        self,
        proto: onnx.ModelProto,
        *,
        optimized: bool = False,
        threads: int = DEFAULT_THREADS,
        file: Path | None = None,
    ) -> None:
        self.inputs = model_inputs(proto)
        self.overridable = overridable_inputs(proto)
        self.outputs = model_outputs(proto)
        self._types = {port.name: port for port in (*self.inputs, *self.overridable)}
        exotic = (p for p in (*self._types.values(), *self.outputs) if p.kind == "tensor")
        self._by_pointer = any(_is_exotic(port) for port in exotic)
        try:
            if file is None:
                self._session = _load(proto, optimized, threads)
            else:
                self._session = _load_file(file, optimized, threads)
        except OnnxoptError:
            raise
        except Exception as error:
            raise load_error(proto, error) from None

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run once.

        Args:
            feeds: for each input an array, a list of arrays (sequence), or None (absent optional).

        Returns:
            for each output, in order: an array, a list, a dict (map) or None. Types that numpy
            lacks come as those of ml_dtypes, 4-bit ones as packed bytes.

        Raises:
            RunError: with the reason in one line.
        """
        names = [port.name for port in self.outputs]
        try:
            if self._by_pointer:
                values = self._run_by_pointer(names, feeds)
            else:
                values = self._session.run(names, dict(feeds))
        except Exception as error:
            raise RunError(clean_message(error)) from None
        return dict(zip(names, values, strict=True))

    def _run_by_pointer(self, names: Sequence[str], feeds: Mapping[str, Any]) -> list[Any]:
        import onnxruntime as ort

        values = {}
        for name, array in feeds.items():
            port = self._types[name]
            values[name] = (
                ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, port.elem_type)
                if _is_exotic(port)
                else ort.OrtValue.ortvalue_from_numpy(array)
            )
        results = self._session.run_with_ort_values(list(names), values)
        return [_to_numpy(value) for value in results]


def _options(optimized: bool, threads: int) -> Any:
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


_sharing = threading.Lock()
_is_shared = False


def _share_arena() -> None:
    """One arena for all sessions from files, for segments of a model never need theirs at once."""
    global _is_shared
    import onnxruntime as ort

    with _sharing:
        if not _is_shared:
            kind, place = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, ort.OrtMemType.DEFAULT
            memory = ort.OrtMemoryInfo("Cpu", kind, 0, place)
            ort.create_and_register_allocator(memory, ort.OrtArenaCfg(0, -1, -1, -1))
            _is_shared = True


def _load_file(file: Path, optimized: bool, threads: int) -> Any:
    import onnxruntime as ort

    _share_arena()
    options = _options(optimized, threads)
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Else the threads of one session spin while the next one runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _load(proto: onnx.ModelProto, optimized: bool, threads: int) -> Any:
    import onnxruntime as ort

    options = _options(optimized, threads)
    options.use_deterministic_compute = True
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = ["CPUExecutionProvider"]
    if size_bytes(proto) <= LARGEST_IN_MEMORY_BYTES:
        return ort.InferenceSession(proto.SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory(prefix="onnxopt-") as folder:
        moved, data = move_to_external_data(proto, "model.onnx")
        with (Path(folder) / external_name("model.onnx", data)).open("wb") as stream:
            for piece in data:
                stream.write(piece)
        file = Path(folder) / "model.onnx"
        file.write_bytes(moved.SerializeToString())
        return ort.InferenceSession(str(file), options, providers=providers)


def value_types(proto: onnx.ModelProto, names: Sequence[str]) -> dict[str, onnx.TypeProto]:
    """Types that ONNX Runtime infers for inner values, those of contrib operators included.

    Declared shapes of inner values and outputs, which files get wrong, are not believed.

    Raises:
        BadModelError, UnverifiableError: it does not load the model.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    del shown.graph.value_info[:], shown.graph.output[:]
    for name in names:
        shown.graph.output.append(onnx.ValueInfoProto(name=name))
    try:
        session = _load(shown, False, 1)
    except Exception as error:
        raise load_error(proto, error) from None
    return {out.name: _type_proto(out.type, out.shape) for out in session.get_outputs()}


def _type_proto(text: str, shape: Sequence[int | str | None]) -> onnx.TypeProto:
    """What ONNX Runtime writes as `seq(tensor(float))`, as a message."""
    kind = onnx.TypeProto()
    outer, _, inner = text.rstrip(")").rpartition("tensor(")
    if outer in ("", "seq("):
        tensor = kind.tensor_type if not outer else kind.sequence_type.elem_type.tensor_type
        tensor.elem_type = onnx.TensorProto.DataType.Value(inner.upper())
        if not outer and shape:  # it is empty for scalars, and where the rank is not known
            tensor.shape.SetInParent()
            for size in shape:
                dim = tensor.shape.dim.add()
                if isinstance(size, int) and size >= 0:
                    dim.dim_value = size
                elif isinstance(size, str):
                    dim.dim_param = size
    elif outer.startswith("optional"):
        kind.optional_type.SetInParent()
    elif outer.startswith("sparse"):
        kind.sparse_tensor_type.SetInParent()
    else:
        kind.map_type.SetInParent()
    return kind


def _is_exotic(port: Port) -> bool:
    """ONNX Runtime cannot exchange it with numpy directly."""
    return port.dtype.type.__module__ == "ml_dtypes"


_TYPES_OF_VALUES = {
    "tensor(bfloat16)": np.dtype(ml_dtypes.bfloat16),
    "tensor(float8e4m3fn)": np.dtype(ml_dtypes.float8_e4m3fn),
    "tensor(float8e4m3fnuz)": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "tensor(float8e5m2)": np.dtype(ml_dtypes.float8_e5m2),
    "tensor(float8e5m2fnuz)": np.dtype(ml_dtypes.float8_e5m2fnuz),
}


_PACKED = {"tensor(int4)": 2, "tensor(uint4)": 2, "tensor(int2)": 4, "tensor(uint2)": 4}
"""How many elements share a byte."""


def _to_numpy(value: Any) -> Any:
    kind = value.data_type()
    shape = tuple(value.shape()) if value.is_tensor() else ()
    if kind in _TYPES_OF_VALUES:
        dtype = _TYPES_OF_VALUES[kind]
        count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    elif kind in _PACKED:
        dtype, each = np.dtype(np.uint8), _PACKED[kind]
        shape = (-(-int(np.prod(shape, dtype=np.int64)) // each),)
        count = shape[0]
    else:
        return value.numpy()
    raw = ctypes.string_at(value.data_ptr(), count)
    return np.frombuffer(raw, dtype=dtype).reshape(shape)


_INVALID = re.compile(
    r"Unrecognized attribute|No Op registered for|ShapeInferenceError|TypeInferenceError"
    r"|Type Error|inconsistent type|input size|output size|Required attribute|Mismatched attribute"
    r"|INVALID_GRAPH|must be single assignment|Duplicate definition|not in topological|not a DAG"
    r"|Unrecognized (?:type|data)|is not output of any previous|Undefined|does not exist"
)

_EXPERIMENTAL = frozenset(
    ("ATen", "Affine", "ConstantFill", "Crop", "DynamicSlice", "GRUUnit", "GivenTensorFill")
    + ("ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh")
)
"""The checker prints a warning about these, and the library never prints."""


def load_error(proto: onnx.ModelProto, error: Exception) -> OnnxoptError:
    """The error to raise when ONNX Runtime refused a model: is it invalid, or foreign here?"""
    said = str(error)
    if (reason := _checker_says(proto)) and _INVALID.search(reason):
        return BadModelError(f"the model is not valid ONNX: {clean_message(Exception(reason))}")
    foreign = "is not a registered function/op" in said
    if _INVALID.search(said) and not foreign:
        return BadModelError(f"the model is not valid ONNX: {clean_message(error)}")
    return UnverifiableError(f"ONNX Runtime cannot load the model: {clean_message(error)}")


def _checker_says(proto: onnx.ModelProto) -> str:
    """Why onnx.checker refuses the model; empty if it does not."""
    if any(node.op_type in _EXPERIMENTAL for node in proto.graph.node):
        return ""
    if size_bytes(proto) > LARGEST_IN_MEMORY_BYTES:
        return ""
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        return str(error)
    return ""
