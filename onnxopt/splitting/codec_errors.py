"""What codecs change in the outputs of a planned split, on calibration data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from onnxopt.splitting.export import prove
from onnxopt.splitting.halves import take_apart
from onnxopt.splitting.operators import Subject
from onnxopt.splitting.plan_file import Plan
from onnxopt.splitting.proof import Progress
from onnxopt.splitting.wishes import planned


def with_errors(
    subject: Subject, plan: Plan, samples: Path, progress: Progress | None = None
) -> Plan:
    """The plan with the error of each of its cuts; 0 where nothing is encoded.

    Args:
        samples: as `--verify-data` reads them.

    Raises:
        UsageError: the samples do not fit.
        BadModelError, UnverifiableError: ONNX Runtime does not run the model.
    """
    wish = planned(subject, plan, "", plan.model)
    proof = prove(take_apart(subject, wish.chain, wish.codecs), samples=samples, progress=progress)
    errors = proof.errors or {}
    cuts = tuple(replace(cut, error=errors.get(n, 0.0)) for n, cut in enumerate(plan.cuts))
    chosen = cuts[plan.chosen]
    best = tuple(replace(c, error=chosen.error) if _same(c, chosen) else c for c in plan.best)
    return replace(plan, cuts=cuts, best=best)


def _same(left: object, right: object) -> bool:
    names = ("tensors", "outputs", "codec")
    return all(getattr(left, name) == getattr(right, name) for name in names)
