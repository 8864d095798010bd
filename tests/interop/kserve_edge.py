"""The edge half of a cut, served by KServe's SDK and not by us: `kserve_edge.py OUT CUT PORT`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import kserve

from onnxopt.splitting.chain import Chain
from onnxopt.splitting.folder import read_manifest
from onnxopt.splitting.tensors import type_name


class Edge(kserve.Model):  # type: ignore[misc]
    """A model of KServe that runs a chain of segments from a cut on."""

    def __init__(self, folder: Path, cut: int) -> None:
        manifest = read_manifest(folder)
        super().__init__(f"{manifest.name}.{manifest.cuts[cut].name}")
        self._chain, self._cut = Chain(folder, manifest), cut
        self.ready = True

    def predict(
        self, payload: Any, headers: Any = None, response_headers: Any = None
    ) -> kserve.InferResponse:
        found = self._chain.edge(self._cut, {i.name: i.as_numpy() for i in payload.inputs})
        outputs = []
        for name, array in found.items():
            output = kserve.InferOutput(name, [*array.shape], type_name(array.dtype))
            output.set_data_from_numpy(array, binary_data=True)
            outputs.append(output)
        return kserve.InferResponse(payload.id, self.name, outputs)


if __name__ == "__main__":
    folder, cut, port = sys.argv[1:]
    server = kserve.ModelServer(http_port=int(port), enable_grpc=False)
    server.start([Edge(Path(folder), int(cut))])
