"""All that a point of a sweep depends on but its budget: a sweep goes on where it is the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import onnx

from onnxopt.calibration import Calibration
from onnxopt.profiling.machine import machine
from onnxopt.pruning.asked import Data, Job
from onnxopt.pruning.costs import Mode
from onnxopt.pruning.plan import model_digest


def basis_of(proto: onnx.ModelProto, job: Job, data: Data, mode: Mode) -> dict[str, str]:
    """By what a person calls it, mostly as digests; the processor is for the times."""
    labelled, here = data.evaluation, machine()
    labels = "" if labelled is None or labelled.labels is None else _hex(labelled.labels.tobytes())
    profile = {} if job.profile is None else {"the profile": _hex_of(asdict(job.profile))}
    return {
        "the model": model_digest(proto),
        "the cost": mode,
        "the calibration samples": _digest(data.used),
        "the samples held out": _digest(data.held_out),
        "the labelled samples": _digest(labelled) + labels,
        "the metric": job.metric if labelled else "",
        "the processor": f"{here.system}, {here.processor}",
        "the options of pruning": _hex_of(asdict(job.options)),
        "the options of rewriting": _hex_of(asdict(job.rewriting)),
        **profile,
    }


def _digest(samples: Calibration | None) -> str:
    return "" if samples is None else samples.digest


def _hex_of(options: object) -> str:
    return _hex(json.dumps(options, sort_keys=True, default=str).encode())


def _hex(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
