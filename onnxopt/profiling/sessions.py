"""Sessions of ONNX Runtime as an application has them: all optimizations on, timed or watched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxopt.errors import OnnxoptError, UnverifiableError, UsageError
from onnxopt.messages import clean_message

CPU = "CPUExecutionProvider"


def runtime_version() -> str:
    """Of ONNX Runtime, which is in memory from then on."""
    import onnxruntime as ort

    return str(ort.__version__)


class MeasureError(OnnxoptError):
    """ONNX Runtime does not load or run here what should be measured. Exit code 4."""

    exit_code = UnverifiableError.exit_code


@dataclass(frozen=True)
class Input:
    """One input as ONNX Runtime names it: type like `tensor(float)`, open dimensions as text."""

    name: str
    type: str
    dims: tuple[int | str | None, ...]


class Measured:
    """A model that is ready to run.

    Args:
        model: the file.
        threads: inside one operator; operators run one after the other.
        provider: execution provider; the CPU's takes what it cannot.
        trace: where ONNX Runtime shall write what each kernel took; None: it shall not watch.
        optimized: where it shall write the model that it made of this one.
        rewritten: False: it shall run the file as it is.

    Raises:
        UsageError: this ONNX Runtime has no such provider.
        MeasureError: it does not load the model.
    """

    def __init__(
        self,
        model: Path,
        *,
        threads: int,
        provider: str = CPU,
        trace: Path | None = None,
        optimized: Path | None = None,
        rewritten: bool = True,
    ) -> None:
        import onnxruntime as ort

        ort.set_default_logger_severity(4)
        available = ort.get_available_providers()
        if provider not in available:
            raise UsageError(
                f"this ONNX Runtime has no provider '{provider}'",
                f"it has {', '.join(available)}",
            )
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        if not rewritten:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if trace is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(trace)
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        providers = list(dict.fromkeys((provider, CPU)))
        try:
            self._session = ort.InferenceSession(str(model), options, providers=providers)
        except Exception as error:
            raise MeasureError(
                f"ONNX Runtime cannot load '{model}': {clean_message(error)}"
            ) from None
        self.inputs = tuple(
            Input(entry.name, entry.type, tuple(entry.shape or ()))
            for entry in self._session.get_inputs()
        )

    def run(self, feeds: Mapping[str, np.ndarray[Any, np.dtype[Any]]]) -> None:
        """Run once; the outputs are dropped.

        Raises:
            MeasureError: with the reason in one line.
        """
        try:
            self._session.run(None, feeds)
        except Exception as error:
            raise MeasureError(
                f"the model does not run on these inputs: {clean_message(error)}",
                "give shapes with --set-shape NAME=1,3,224,224, or samples with --inputs FILE.npz",
            ) from None

    def end_trace(self) -> Path:
        """Stop watching; the file with what was seen."""
        return Path(self._session.end_profiling())
