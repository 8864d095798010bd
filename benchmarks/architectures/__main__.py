"""Export a zoo of tiny architectures with random weights to ONNX, one file for each.

    python benchmarks/architectures OUT [--only NAME]

Needs torch, transformers and onnxscript, which onnxopt itself never needs. Nothing is downloaded:
every model is made from a configuration, seeded by its name, and its weights are drawn anew, so
that no weight is neutral or equal to another: no zero bias, no gain of 1, no running mean of 0.

Models go through torch's exporter (`dynamo=True`), and through the older one, TorchScript's, where
that fails. Names end in what is particular to a file:

    _dynamic  the batch axis is dynamic, in text models also the sequence
    _script   written by the TorchScript exporter, although the newer one could
    _raw      not optimized by the exporter: each BatchNormalization is still there

Each file is run by ONNX Runtime and must agree with torch to 1e-3; if not, it is removed and told.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import time
import warnings
import zlib
from pathlib import Path

import convnets
import dense
import huggingface
import numpy as np
import onnx
import onnxruntime as ort
import sequences
import torch
from torch.utils._pytree import tree_leaves

TOLERANCE = 1e-3
LARGEST = 5_000_000
ARCHITECTURES = {
    **convnets.ARCHITECTURES,
    **dense.ARCHITECTURES,
    **sequences.ARCHITECTURES,
    **huggingface.ARCHITECTURES,
}
VARIANTS = {
    "dynamic": (
        "bert distilbert vit resnet_bottleneck mobilenet_v3 shufflenet_v2 unet yolo lstm llama"
    ),
    "script": (
        "bert gpt2 llama vit swin resnet_basic resnext se_resnet yolo shufflenet_v2 densenet unet "
        "mobilenet_v2 convnext lstm bilstm gru attention transformer_encoder segformer"
    ),
    "raw": "resnet_bottleneck densenet mobilenet_v2 bert gpt2 vgg shufflenet_v1 unet",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="a name, or a name of a variant")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)
    quieten()
    names = [name for name in all_names() if options.only in ("", name)]
    failed = 0
    for name in names:
        start = time.monotonic()
        try:
            told = export(name, options.folder / f"{name}.onnx")
        except Exception as error:
            failed += 1
            told = f"FAILED  {type(error).__name__}: {shorten(error)}"
        print(f"{name:28} {told}  ({time.monotonic() - start:.1f} s)", flush=True)
    print(f"{len(names) - failed} of {len(names)} exported")
    return 1 if failed or not names else 0


def all_names() -> list[str]:
    variants = [f"{name}_{kind}" for kind, names in VARIANTS.items() for name in names.split()]
    return [*ARCHITECTURES, *variants]


def quieten() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    ort.set_default_logger_severity(3)


def shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def export(name: str, path: Path) -> str:
    """Write one file and judge it; what is told of it in one line."""
    base, _, variant = name.rpartition("_")
    if name in ARCHITECTURES or variant not in VARIANTS:
        base, variant = name, ""
    torch.manual_seed(zlib.crc32(base.encode()))
    module, inputs = ARCHITECTURES[base]()
    randomize(module.eval())
    exporter, why = "dynamo", ""
    with torch.no_grad():
        if variant != "script":
            try:
                write(module, inputs, path, variant)
                error = judge(module, inputs, path)
                if variant == "dynamic":
                    judge(module, resize(inputs), path)
            except Exception as refusal:
                if variant:
                    raise
                why = f"  (dynamo: {type(refusal).__name__}: {shorten(refusal)[:100]})"
        if variant == "script" or why:
            exporter = "script"
            write(module, inputs, path, "script")
            error = judge(module, inputs, path)
    size = path.stat().st_size
    return f"{exporter:6} {size / 1e6:5.2f} MB  error {error:.0e}{why}"


def randomize(module: torch.nn.Module) -> None:
    """Draw all weights so that activations keep their size, and nothing is neutral."""
    with torch.no_grad():
        for part in module.modules():
            for name, weight in part.named_parameters(recurse=False):
                if isinstance(part, torch.nn.Embedding) or (
                    weight.shape[:1] == (1,) and name != "weight"
                ):
                    weight.normal_(0, 0.5)
                elif weight.dim() >= 2:
                    weight.normal_(0, weight[0].numel() ** -0.5)
                elif isinstance(part, torch.nn.PReLU):
                    weight.uniform_(0.1, 0.4)
                elif name == "weight" or any(x in name for x in ("scale", "gamma", "lambda")):
                    weight.normal_(1, 0.2).abs_().clamp_(0.2)
                else:
                    weight.normal_(0, 0.2)
        for name, buffer in module.named_buffers():
            last = name.rpartition(".")[2]
            if last == "running_var":
                buffer.uniform_(0.5, 2)
            elif last == "running_mean" or (last.endswith("bias") and buffer.is_floating_point()):
                buffer.normal_(0, 0.3)
            elif last == "weight":
                buffer.normal_(1, 0.2).clamp_(0.2)


def resize(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Another batch, and shorter texts."""
    longer = {name: torch.cat([value, value[:1]]) for name, value in inputs.items()}
    return {
        name: value[:, :-2] if value.dtype == torch.int64 else value
        for name, value in longer.items()
    }


class Positional(torch.nn.Module):
    """What the TorchScript exporter needs: of arguments by name it makes inputs of all defaults."""

    def __init__(self, inner: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.inner, self.names = inner, names

    def forward(self, *values: torch.Tensor) -> object:
        return self.inner(**dict(zip(self.names, values, strict=True)))


def write(
    module: torch.nn.Module, inputs: dict[str, torch.Tensor], path: Path, variant: str
) -> None:
    shapes = {
        name: {0: "batch", 1: "sequence"} if value.dtype == torch.int64 else {0: "batch"}
        for name, value in inputs.items()
    }
    newer = variant != "script"
    if not newer:
        module = Positional(module, list(inputs)).eval()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        torch.onnx.export(
            module,
            () if newer else tuple(inputs.values()),
            path,
            kwargs=dict(inputs) if newer else None,
            input_names=list(inputs),
            dynamo=newer,
            external_data=False,
            dynamic_shapes=shapes if variant == "dynamic" else None,
            optimize=variant != "raw",
            verbose=False,
            opset_version=18 if newer else 17,
        )


def judge(module: torch.nn.Module, inputs: dict[str, torch.Tensor], path: Path) -> float:
    """The largest difference to torch; a file that is wrong, too large or trivial is removed."""
    problem, worst = "", 0.0
    try:
        onnx.checker.check_model(path, full_check=True)
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        read = {port.name for port in session.get_inputs()}
        feed = {name: value.numpy() for name, value in inputs.items() if name in read}
        given = session.run(None, feed)
        wanted = [leaf.numpy() for leaf in tree_leaves(module(**inputs)) if leaf is not None]
        if [x.shape for x in given] != [x.shape for x in wanted]:
            problem = f"shapes {[x.shape for x in given]}, {[x.shape for x in wanted]} in torch"
        elif path.stat().st_size >= LARGEST:
            problem = f"{path.stat().st_size} bytes"
        elif read != set(inputs):
            problem = f"inputs lost: {set(inputs) - read}"
        elif not all(np.isfinite(x).all() and x.std() > 1e-3 for x in wanted):
            problem = f"spread of outputs {[float(x.std()) for x in wanted]}"
        else:
            worst = max(
                float(np.abs(x - y).max() / max(1, np.abs(y).max()))
                for x, y in zip(given, wanted, strict=True)
            )
            problem = f"differs by {worst:.1e}" if worst > TOLERANCE else ""
        if problem:
            raise ValueError(problem)
    except Exception:
        path.unlink(missing_ok=True)
        raise
    return worst


if __name__ == "__main__":
    sys.exit(main())
