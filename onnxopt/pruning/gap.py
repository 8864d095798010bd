"""Take chosen residual blocks out of a model, and prove that what is left is what was meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from onnxopt.errors import CheckError
from onnxopt.graph import Array
from onnxopt.pruning.blocks import Block
from onnxopt.pruning.proof import TOLERANCE, Proof, is_noise, relative_error
from onnxopt.pruning.removal import Gone, Removed, Replaced, StandIn, without
from onnxopt.pruning.replacement import fits_of
from onnxopt.pruning.samples import Batch
from onnxopt.pruning.stepper import Stepper
from onnxopt.runtime import Session


def standins(
    proto: onnx.ModelProto, chosen: Mapping[Block, Gone], batches: Sequence[Batch]
) -> dict[Block, StandIn]:
    """What stands for each block, by all samples; the same whenever the same blocks are chosen.

    Raises:
        CheckError: that cannot stand for it.
    """
    fits = fits_of(proto, chosen, batches)
    found: dict[Block, StandIn] = {}
    for block, becomes in chosen.items():
        fit = fits[block].of[becomes]
        if fit is None:
            raise CheckError(
                f"the residual block '{block.name}' cannot be {becomes}: nothing says where its "
                "channels are, or there are too many of them",
                "the plan is not as it was written, or by another version: prune again",
            )
        found[block] = fit.standin
    return found


def prove_gap(proto: onnx.ModelProto, chosen: Mapping[Block, StandIn], batch: Batch) -> Proof:
    """Compare the model without these blocks with the whole one, their sums given other values.

    The whole model is run part by part; what each block makes is put in place of its sum.
    """
    small = without(proto, chosen)
    stepper = Stepper(proto, [batch])
    for block in sorted(chosen, key=lambda block: stepper.made[block.exit]):
        stepper.keep = frozenset((block.entry, block.exit))
        stepper.advance(stepper.made[block.exit] + 1)
        (values,) = stepper.frontier
        values[block.exit] = _made(block, chosen[block], values[block.entry])
    (expected,) = stepper.finish()
    found = Session(small).run(batch)
    error = max((relative_error(v, found[name]) for name, v in expected.items()), default=0.0)
    noise = error > TOLERANCE and is_noise(small, [batch], [expected])
    return Proof(error, True, noise)


def _made(block: Block, standin: StandIn, entry: Array) -> Array:
    """What the sum of a block is now."""
    if isinstance(standin, Removed):
        if standin.offset is None:
            return entry
        shape = [1] * entry.ndim
        shape[block.axis or -1] = -1
        return np.asarray(entry + standin.offset.reshape(shape), entry.dtype)
    assert isinstance(standin, Replaced)
    last = np.moveaxis(entry, block.axis or -1, -1)
    made = last @ standin.matrix + standin.offset
    return np.ascontiguousarray(np.moveaxis(made, -1, block.axis or -1).astype(entry.dtype))
