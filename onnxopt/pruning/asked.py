"""What is asked for when a model is pruned, and the samples that are for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from onnxopt.calibration import Calibration, Preprocess, flipped, load_calibration
from onnxopt.errors import UsageError
from onnxopt.fixed_shapes import fix_shapes
from onnxopt.optimizer import Options
from onnxopt.profiling.document import Profile
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.costs import Mode
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.outcome import Samples
from onnxopt.pruning.plan import Augment, Plan
from onnxopt.pruning.workers import DEFAULT_WORKERS
from onnxopt.signature import Port, batch_of, model_inputs

HELD_OUT = 8
"""For so many samples that are used one more is drawn, which only judges the result."""


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes:
        budget: None with a plan, with `max_drop` alone, and for a preview.
        mode: the cost that shares are of.
        samples: calibration samples to use.
        augment: what is made of these: "flip" adds their mirror images.
        evaluation: file of labelled samples.
        max_drop: how much the metric may fall; in points for those that are fractions.
        profile: how long layers take on the machine that a budget of time is about.
        workers, cache: how the work is done; the result does not depend on them.
    """

    budget: Budget | None = None
    mode: Mode = "flops"
    options: PruneOptions = PruneOptions()
    rewriting: Options = field(default_factory=Options)
    calibration: Path | None = None
    preprocess: str | None = None
    samples: int = 1024
    augment: Augment = "none"
    evaluation: Path | None = None
    metric: str = "top1"
    max_drop: float | None = None
    plan: Plan | None = None
    workers: int = DEFAULT_WORKERS
    cache: Path | None = None
    profile: Profile | None = None


@dataclass(frozen=True)
class Data:
    """The samples that are used, those that only judge, and the labelled ones.

    Attributes:
        held_out, evaluation: as many as fill batches, if the model takes only one size of them.
        batch: that size; None if it takes any.
    """

    used: Calibration | None
    held_out: Calibration | None
    evaluation: Calibration | None
    notes: tuple[str, ...]
    batch: int | None

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
        is_sampled = job.calibration is not None or job.evaluation is not None
        batch = batch_of(inputs) if is_sampled else None
        used = held_out = labelled = None
        if job.calibration is not None:
            used, held_out = _calibration(job.calibration, job, inputs, batch or 1)
        elif job.preprocess is not None:
            raise UsageError("--preprocess says how images become samples, and there are none")
        if job.evaluation is not None:
            labelled = load_calibration(job.evaluation, inputs)
            if labelled.labels is None:
                raise UsageError(
                    f"'{job.evaluation}' holds no labels, so nothing can be evaluated on it",
                    "add an array 'labels' with one label for each sample",
                )
            labelled = _whole(labelled, batch or 1)
        found = [c for c in (used, labelled) if c is not None]
        notes = tuple(note for c in found for note in c.notes if "were asked for" not in note)
        return cls(used, held_out, labelled, notes, batch)


def _calibration(
    path: Path, job: Job, inputs: tuple[Port, ...], batch: int
) -> tuple[Calibration, Calibration]:
    """The samples to use, and some more that only judge: whole batches of these."""
    fewest = job.options.fewest_samples
    if job.samples < fewest:
        raise UsageError(
            f"{job.samples} samples are too few: at least {fewest} are needed",
            "ask for more (--samples)",
        )
    if job.samples < batch:
        raise UsageError(
            f"{job.samples} samples are too few: the model takes {batch} at once",
            f"ask for at least {batch} (--samples)",
        )
    preprocess = None if job.preprocess is None else Preprocess.parse(job.preprocess)
    asked = job.samples + _batches(job.samples // HELD_OUT, batch)
    loaded = load_calibration(
        path,
        inputs,
        samples=asked,
        seed=job.options.seed,
        preprocess=preprocess,
        minimum=max(fewest, 2 * batch),
    )
    used, held_out = loaded.split(_batches(loaded.count / (HELD_OUT + 1), batch) / loaded.count)
    return (flipped(used) if job.augment == "flip" else used), held_out


def _batches(samples: float, batch: int) -> int:
    """About so many samples, as whole batches: one at least."""
    return max(round(samples / batch), 1) * batch


def _whole(samples: Calibration, batch: int) -> Calibration:
    """As many as fill batches.

    Raises:
        UsageError: not even one.
    """
    if samples.count < batch:
        raise UsageError(
            f"'{samples.name}' holds {samples.count} samples, but the model takes {batch} at once",
            "give more samples",
        )
    return samples.take(np.arange(samples.count // batch * batch))
