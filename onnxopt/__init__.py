"""onnxopt: ONNX models made smaller and faster, and proved to do the same."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onnxopt.budgets import check_budgets
    from onnxopt.calibration import load_calibration
    from onnxopt.changes import Change
    from onnxopt.cost import Cost, cost_of
    from onnxopt.errors import OnnxoptError
    from onnxopt.inspection import Inspection, inspect
    from onnxopt.model import load, save
    from onnxopt.optimizer import Optimized, Options, explain, optimize
    from onnxopt.pruning.budget import Budget
    from onnxopt.pruning.options import PruneOptions
    from onnxopt.pruning.prune import prune
    from onnxopt.pruning.results import Pruned
    from onnxopt.report import Report
    from onnxopt.signature import model_inputs
    from onnxopt.verification.model_comparison import Comparison, compare
    from onnxopt.verification.verify import Verdict

_HOMES = {
    "Budget": "pruning.budget",
    "Change": "changes",
    "Comparison": "verification.model_comparison",
    "Cost": "cost",
    "Inspection": "inspection",
    "OnnxoptError": "errors",
    "Optimized": "optimizer",
    "Options": "optimizer",
    "PruneOptions": "pruning.options",
    "Pruned": "pruning.results",
    "Report": "report",
    "Verdict": "verification.verify",
    "check_budgets": "budgets",
    "compare": "verification.model_comparison",
    "cost_of": "cost",
    "explain": "optimizer",
    "inspect": "inspection",
    "load": "model",
    "load_calibration": "calibration",
    "model_inputs": "signature",
    "optimize": "optimizer",
    "prune": "pruning.prune",
    "save": "model",
}

__all__ = [
    "Budget",
    "Change",
    "Comparison",
    "Cost",
    "Inspection",
    "OnnxoptError",
    "Optimized",
    "Options",
    "PruneOptions",
    "Pruned",
    "Report",
    "Verdict",
    "check_budgets",
    "compare",
    "cost_of",
    "explain",
    "inspect",
    "load",
    "load_calibration",
    "model_inputs",
    "optimize",
    "prune",
    "save",
]


def __getattr__(name: str) -> object:
    """Load a public name on first use, so that `onnxopt --help` needs neither onnx nor numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'onnxopt' has no attribute '{name}'")
    return getattr(importlib.import_module(f"onnxopt.{_HOMES[name]}"), name)
