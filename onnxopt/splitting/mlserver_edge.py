"""An edge half in MLServer: the runtime that `split export --serve mlserver` names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri

from onnxopt.errors import UsageError
from onnxopt.model import load
from onnxopt.runtime import Session


class EdgeModel(MLModel):  # type: ignore[misc]
    """An ONNX model that MLServer runs with ONNX Runtime, over gRPC or its JSON."""

    async def load(self) -> bool:
        uri = await get_model_uri(self.settings)
        self._session = Session(load(Path(uri)), optimized=True)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given: dict[str, Any] = {}
        types = {port.name: port.dtype for port in self._session.inputs}
        for entry in payload.inputs:
            if entry.name not in types:
                raise UsageError(f"the model '{self.name}' has no input '{entry.name}'")
            array = np.asarray(NumpyCodec.decode_input(entry), types[entry.name])
            given[entry.name] = array.reshape(entry.shape)
        found = self._session.run(given)
        outputs = [NumpyCodec.encode_output(name, value) for name, value in found.items()]
        return InferenceResponse(
            model_name=self.name, model_version=self.version, id=payload.id, outputs=outputs
        )
