"""What may stand for the branch of a residual block, by calibration samples, and how well it does.

Nothing, the mean of what the branch gives for each channel, or a linear map of the entry, the same
at every position, that comes closest to the sum: a ridge regression on second moments, pulled
towards the identity (`onnxopt.pruning.refit`). Errors are those of the sum, behind a Relu if only
Relus read it, on samples that took no part, as a share of its variance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxopt.graph import Array
from onnxopt.pruning.blocks import Block
from onnxopt.pruning.layer import Layer
from onnxopt.pruning.moments import Moments
from onnxopt.pruning.refit import WIDEST_SOLVED, Looked, Task, error, refit, solved
from onnxopt.pruning.removal import Gone, Removed, Replaced, StandIn
from onnxopt.pruning.samples import Batch
from onnxopt.pruning.stepper import Stepper
from onnxopt.pruning.threads import one_thread

WEAKEST = 1e-9
"""Strength of the pull towards the identity where a branch is close to linear."""


@dataclass(frozen=True)
class Fit:
    """A stand-in, and the error that it leaves."""

    standin: StandIn
    error: float


@dataclass(frozen=True)
class Fits:
    """What may stand for one branch.

    Attributes:
        nothing: the identity.
        constant, map: None where the axis of the channels is not known; no map where there are too
            many channels.
    """

    nothing: Fit
    constant: Fit | None = None
    map: Fit | None = None

    @property
    def of(self) -> dict[Gone, Fit | None]:
        """By what becomes of the block."""
        return {"removed": self.nothing, "shifted": self.constant, "replaced": self.map}


def fits_of(
    proto: onnx.ModelProto, blocks: Iterable[Block], batches: Sequence[Batch], threads: int = 1
) -> dict[Block, Fits]:
    """What may stand for each block if it alone goes.

    Args:
        batches: inputs of the model.
        threads: of ONNX Runtime; the last bits depend on it.
    """
    stepper = Stepper(proto, batches, threads)
    rest = sorted(blocks, key=lambda block: stepper.made[block.exit])
    found: dict[Block, Fits] = {}
    for number, block in enumerate(rest):
        later = rest[number:]
        stepper.keep = frozenset(name for b in later for name in (b.entry, b.exit))
        stepper.advance(stepper.made[block.exit] + 1)
        inputs = [values[block.entry] for values in stepper.frontier]
        targets = [values[block.exit] for values in stepper.frontier]
        found[block] = fitted(block, inputs, targets, len(inputs) * stepper.size)
    return found


@one_thread
def fitted(block: Block, inputs: Sequence[Array], targets: Sequence[Array], samples: int) -> Fits:
    """What may stand for a block.

    Args:
        inputs: what its entry is for each batch, in the model as it is by then.
        targets: what its exit should be: the original's.
        samples: in all batches together.
    """
    if block.axis is None:  # all elements as one channel
        inputs = [x.reshape(-1, 1) for x in inputs]
        targets = [t.reshape(-1, 1) for t in targets]
    layer = _layer(block)
    none = [np.zeros((), t.dtype) for t in targets]
    looked = Looked(layer, inputs, [t.shape for t in targets], samples)
    task = Task(looked, targets, none, block.rectified, {})
    channels = inputs[0].shape[1 if block.axis == 1 else -1]
    identity = np.concatenate([np.eye(channels), np.zeros((1, channels))])[None]
    nothing = Fit(Removed(), error(task, identity))
    if block.axis is None:
        return Fits(nothing)
    kind = targets[0].dtype
    shifted = _shifted(task, identity, task.fold(held_out=False))
    offset = _shifted(task, identity, range(len(targets)))[0, -1].astype(kind)
    constant = Fit(Removed(offset), error(task, shifted))
    if channels > WIDEST_SOLVED:
        return Fits(nothing, constant)
    near = identity if nothing.error <= constant.error else shifted
    tried = [refit(task, start) for start in (near, _free(task, identity))]
    done, W, _ = min(tried, key=lambda each: each.done.after)
    standin = Replaced(W[0, :-1].astype(kind), W[0, -1].astype(kind))
    return Fits(nothing, constant, Fit(standin, done.after))


def _shifted(task: Task, identity: Array, batches: Iterable[int]) -> Array:
    """The identity [1, channels + 1, channels] with the mean difference as its bias."""
    sums, count = np.zeros(identity.shape[2]), 0
    for number in batches:
        x, t, _ = task.rows(number)
        sums += t.sum(axis=0, dtype=np.float64) - x.sum(axis=0, dtype=np.float64)
        count += len(x)
    made: Array = identity.copy()
    made[0, -1] = sums / max(count, 1)
    return made


def _free(task: Task, identity: Array) -> Array:
    """The solution that is hardly pulled towards the identity; that itself where there is none."""
    channels = identity.shape[2]
    moments = Moments(channels, channels)
    for number in task.fold(held_out=False):
        x, t, _ = task.rows(number)
        moments.add(x, t)
    W = solved(moments, identity, has_bias=True, strength=WEAKEST)
    return W if np.isfinite(W).all() else identity


def _layer(block: Block) -> Layer:
    """The map as a layer, for what refits need to know of it."""
    names = (block.exit, block.entry, block.exit, "map", "offset")
    if block.axis != 1:
        return Layer(block.name, "linear", *names)
    ones = (1,) * (len(block.shape) - 2)
    pads = (0,) * 2 * len(ones)
    return Layer(block.name, "conv", *names, kernel=ones, strides=ones, dilations=ones, pads=pads)
