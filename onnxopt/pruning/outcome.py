"""What pruning a model came to, as plain data: everything that its reports show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxopt.cost import Cost
from onnxopt.pruning.agreement import Agreement
from onnxopt.pruning.costs import Mode
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.results import Latency, Round
from onnxopt.timing import Timing


@dataclass(frozen=True)
class Accuracy:
    """A metric on labelled samples, before and after; higher is better."""

    metric: str
    before: float
    after: float
    samples: int
    origin: str


@dataclass(frozen=True)
class Samples:
    """The calibration samples.

    Attributes:
        origin: which, for a person.
        digest: SHA-256 of those that were used.
        used, held_out: how many took part, and how many only judged.
    """

    origin: str
    digest: str
    used: int
    held_out: int


@dataclass(frozen=True)
class PruneReport:
    """What one run of `prune` did.

    Attributes:
        source, output: paths; output is None if nothing was written.
        budget: what was asked for, in words.
        mode: the cost that the budget is about.
        target, reached: that cost as it was asked for and as it is; of time in milliseconds.
        before, after: what the model costs.
        replayed: it was done after a plan.
        agreement: with the original, on samples that took no part; None without samples.
        latency: a budget of time, and what became of it.
        lossless: verdicts on the rewriting before and after the cut.
        notes: what else the user should know, in sentences.
    """

    source: str
    output: str | None
    budget: str
    mode: Mode
    target: float
    reached: float
    before: Cost
    after: Cost
    options: PruneOptions
    rounds: tuple[Round, ...]
    replayed: bool = False
    calibration: Samples | None = None
    agreement: Agreement | None = None
    accuracy: Accuracy | None = None
    timing: Timing | None = None
    latency: Latency | None = None
    lossless: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
