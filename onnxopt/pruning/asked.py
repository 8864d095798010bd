"""What is asked for when a model is pruned, and the samples that are for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from onnxopt.calibration import Calibration, Preprocess, load_calibration
from onnxopt.errors import UsageError
from onnxopt.fixed_shapes import fix_shapes
from onnxopt.optimizer import Options
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.costs import Mode
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.outcome import Samples
from onnxopt.pruning.plan import Plan
from onnxopt.pruning.workers import DEFAULT_WORKERS
from onnxopt.signature import Port, model_inputs

HELD_OUT = 8
"""For so many samples that are used one more is drawn, which only judges the result."""

BATCH = 32


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes:
        budget: None with a plan, with `max_drop` alone, and for a preview.
        mode: the cost that shares are of.
        samples: calibration samples to use.
        evaluation: file of labelled samples.
        max_drop: how much the metric may fall; in points for those that are fractions.
        workers, cache: how the work is done; the result does not depend on them.
    """

    budget: Budget | None = None
    mode: Mode = "flops"
    options: PruneOptions = PruneOptions()
    rewriting: Options = field(default_factory=Options)
    calibration: Path | None = None
    preprocess: str | None = None
    samples: int = 1024
    evaluation: Path | None = None
    metric: str = "top1"
    max_drop: float | None = None
    plan: Plan | None = None
    workers: int = DEFAULT_WORKERS
    cache: Path | None = None


@dataclass(frozen=True)
class Data:
    """The samples that are used, those that only judge, and the labelled ones."""

    used: Calibration | None
    held_out: Calibration | None
    evaluation: Calibration | None
    notes: tuple[str, ...]
    batch: int

    @property
    def samples(self) -> Samples | None:
        if self.used is None or self.held_out is None:
            return None
        return Samples(self.used.origin, self.used.digest, self.used.count, self.held_out.count)

    @classmethod
    def load(cls, proto: onnx.ModelProto, job: Job) -> Data:
        """Read what the job names.

        Raises:
            UsageError: it does not fit the model, or there is too little of it.
        """
        shapes = job.rewriting.set_shapes
        inputs = model_inputs(fix_shapes(proto, shapes) if shapes else proto)
        fixed = {p.dims[0] for p in inputs if p.dims and isinstance(p.dims[0], int)}
        batch = fixed.pop() if len(fixed) == 1 else BATCH
        used = held_out = labelled = None
        if job.calibration is not None:
            used, held_out = _calibration(job.calibration, job, inputs)
        elif job.preprocess is not None:
            raise UsageError("--preprocess says how images become samples, and there are none")
        if job.evaluation is not None:
            labelled = load_calibration(job.evaluation, inputs)
            if labelled.labels is None:
                raise UsageError(
                    f"'{job.evaluation}' holds no labels, so nothing can be evaluated on it",
                    "add an array 'labels' with one label for each sample",
                )
        found = [c for c in (used, labelled) if c is not None]
        notes = tuple(note for c in found for note in c.notes if "were asked for" not in note)
        return cls(used, held_out, labelled, notes, batch)


def _calibration(path: Path, job: Job, inputs: tuple[Port, ...]) -> tuple[Calibration, Calibration]:
    """The samples to use, and some more that only judge."""
    fewest = job.options.fewest_samples
    if job.samples < fewest:
        raise UsageError(f"{job.samples} samples are too few: at least {fewest} are needed")
    preprocess = None if job.preprocess is None else Preprocess.parse(job.preprocess)
    asked = job.samples + max(job.samples // HELD_OUT, 1)
    loaded = load_calibration(
        path,
        inputs,
        samples=asked,
        seed=job.options.seed,
        preprocess=preprocess,
        minimum=max(fewest, 2),
    )
    return loaded.split(1 / (HELD_OUT + 1))


def whole(samples: Calibration, batch: int) -> Calibration:
    """As many as fill batches; all where the model takes any number."""
    if batch == BATCH or samples.count < batch:
        return samples
    return samples.take(np.arange(samples.count // batch * batch))
