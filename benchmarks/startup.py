"""How long the command takes to start: side by side, interleaved, as ratios of medians.

    python benchmarks/startup.py

The unit is `python -c "import onnx, onnxruntime"` in the same environment.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx.parser

REPEATS = 9
TEN_NODES = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,1,8,8] x) => (float[N,3] y)
<float[2,1,3,3] W = {1,2,3,4,5,6,7,8,9,1,-2,3,-4,5,-6,7,-8,9}, float[2] s = {1,2},
 float[2] o = {0,1}, float[2] m = {0.5,1}, float[2] v = {1,2}, float[2,3] K = {1,2,3,4,5,6},
 float[3] b = {1,2,3}, int64[2] axes = {2,3}> {
    a = Conv(x, W)  c = BatchNormalization(a, s, o, m, v)  d = Relu(c)  e = Identity(d)
    f = GlobalAveragePool(e)  h = Squeeze(f, axes)  i = MatMul(h, K)  j = Add(i, b)
    k = Identity(j)  y = Softmax(k)
}"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file, target = Path(folder) / "ten.onnx", Path(folder) / "out.onnx"
        onnx.save(onnx.parser.parse_model(TEN_NODES), file)
        command = [sys.executable, "-m", "onnxopt"]
        cases = {
            "import onnx, onnxruntime": [sys.executable, "-c", "import onnx, onnxruntime"],
            "onnxopt --help": [*command, "--help"],
            "optimize and verify ten nodes": [*command, "optimize", str(file), str(target), "-q"],
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(REPEATS):
            for name, arguments in cases.items():
                started = time.perf_counter()
                subprocess.run(arguments, check=True, capture_output=True)
                times[name].append(time.perf_counter() - started)
    unit = statistics.median(times["import onnx, onnxruntime"])
    for name, measured in times.items():
        print(f"{statistics.median(measured) / unit:5.2f}  {name}")


if __name__ == "__main__":
    main()
