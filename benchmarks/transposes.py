"""Transposes left in the real models: by onnxopt, by ONNX Runtime's basic level, by the peers."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx

REPOSITORY = Path(__file__).resolve().parent.parent
CORPUS = Path(os.environ.get("ONNXOPT_CORPUS", REPOSITORY.parent / "shared" / "models"))
PEERS_PYTHON = Path(os.environ.get("ONNXOPT_PEERS_PYTHON", "/work/peers/bin/python"))
TIMEOUT_S = 300

ORT = """
import sys, onnxruntime as ort
source, target, level = sys.argv[1:]
ort.set_default_logger_severity(4)
options = ort.SessionOptions()
options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
options.optimized_model_filepath = target
ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
"""
ONNXSLIM = "import sys, onnx, onnxslim; onnx.save(onnxslim.slim(sys.argv[1]), sys.argv[2])"
ONNXSIM = """
import sys, onnx, onnxsim
onnx.save(onnxsim.simplify(onnx.load(sys.argv[1]))[0], sys.argv[2])
"""
PASS = """
import sys, onnx
from onnxopt.changes import Ledger
from onnxopt.model import Model, load
from onnxopt.passes.transposes import CancelTransposes
from onnxopt.shapes import infer
model = Model.from_proto(load(sys.argv[1]))
infer(model)
CancelTransposes()(model, Ledger())
onnx.save(model.to_proto(), sys.argv[2])
"""
WHOLE = """
import sys, onnx
from onnxopt.model import load
from onnxopt.optimizer import Options, optimize
options = Options(verify=sys.argv[3] == "verify", allow_unverified=True)
onnx.save(optimize(load(sys.argv[1]), options).model, sys.argv[2])
"""


def programs(verify: bool) -> dict[str, list[str]]:
    """What to run for each column; the model's path and that of the result follow the script."""
    peers = str(PEERS_PYTHON)
    return {
        "the pass": [sys.executable, "-c", PASS],
        "onnxopt": [sys.executable, "-c", WHOLE, "verify" if verify else "plain"],
        "ORT basic": [sys.executable, "-c", ORT, "ORT_ENABLE_BASIC"],
        "ORT extended": [sys.executable, "-c", ORT, "ORT_ENABLE_EXTENDED"],
        "onnxslim": [peers, "-c", ONNXSLIM],
        "onnxsim": [peers, "-c", ONNXSIM],
    }


def operators(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from operators(attribute.g)


def transposes(file: Path) -> int:
    proto = onnx.load(file, load_external_data=False)
    return list(operators(proto.graph)).count("Transpose")


def left_by(program: list[str], model: Path) -> str:
    """How many Transposes a program leaves, in its own process; a word if it fails."""
    if not Path(program[0]).exists():
        return "-"
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.onnx"
        command = [*program[:3], str(model), str(target), *program[3:]]
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=TIMEOUT_S, cwd=REPOSITORY, check=False
            )
        except subprocess.TimeoutExpired:
            return "slow"
        return str(transposes(target)) if done.returncode == 0 and target.exists() else "fails"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help="files; by default all of real/ that have some")
    parser.add_argument("--without", action="append", default=[], help="a column to leave out")
    parser.add_argument("--verify", action="store_true", help="let onnxopt verify its results")
    options = parser.parse_args()
    files = [Path(name) for name in options.models] or sorted((CORPUS / "real").glob("*.onnx"))
    columns = {k: v for k, v in programs(options.verify).items() if k not in options.without}
    print("| model | before | " + " | ".join(columns) + " |")
    print("|---|--:|" + "--:|" * len(columns))
    worse = []
    for file in files:
        before = transposes(file)
        if not before:
            continue
        left = {name: left_by(program, file) for name, program in columns.items()}
        print(f"| {file.stem} | {before} | " + " | ".join(left.values()) + " |", flush=True)
        ours, theirs = left.get("onnxopt", "-"), left.get("ORT basic", "-")
        if not ours.isdigit() or (theirs.isdigit() and int(ours) > int(theirs)):
            worse.append(file.stem)
    if "onnxopt" not in columns:
        return 0
    print("more than ORT basic leaves, or failed: " + (", ".join(worse) if worse else "none"))
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
