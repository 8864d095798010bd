"""The report of one run of `optimize`: everything that its renderings show."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import onnxopt

if TYPE_CHECKING:
    from onnxopt.changes import Change
    from onnxopt.cost import Cost
    from onnxopt.verification.verify import Verdict

Verification = Literal["verified", "skipped", "impossible"]


@dataclass(frozen=True)
class Report:
    """What one run of `optimize` did. It holds no times and no dates: same input, same report.

    Attributes:
        source: path of the model.
        output: path it was written to; None if nothing was written.
        before, after: what the model costs.
        changes: rewrites that were made, in order.
        declined: rewrites that matched and were not made, each with the reason.
        withdrawn: rewrites that were taken back because the outputs differed.
        verdict: None unless both models ran.
        verification: whether it was done; "impossible" where ONNX Runtime cannot run the model.
        notes: what else the user should know, in sentences.
        versions: of onnxopt and of the packages that its result depends on.
    """

    source: str
    output: str | None
    before: Cost
    after: Cost
    changes: tuple[Change, ...] = ()
    declined: tuple[Change, ...] = ()
    withdrawn: tuple[Change, ...] = ()
    verdict: Verdict | None = None
    verification: Verification = "skipped"
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def rewrites(self) -> dict[str, int]:
        """How many rewrites each rule or pass made, the busiest first."""
        counts = Counter(change.by for change in self.changes)
        return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))

    def verdict_line(self) -> str:
        """The verdict in one line."""
        if self.verdict is not None:
            return self.verdict.summary()
        if self.verification == "skipped":
            return "not verified, as asked"
        return "NOT VERIFIED: ONNX Runtime cannot run this model here"


def versions() -> dict[str, str]:
    """Of onnxopt and of what its result depends on."""
    packages = ("numpy", "onnx", "onnxruntime")
    return {"onnxopt": onnxopt.__version__} | {p: _version(p) for p in packages}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # installed under another name, as with -gpu
        module = __import__(package)
        return str(getattr(module, "__version__", "unknown"))
