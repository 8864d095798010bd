"""Another cut, close to one that is refused, whose halves do equal the whole."""

from __future__ import annotations

from onnxopt.splitting.comparing import Judge
from onnxopt.splitting.enumeration import enumerate_cuts
from onnxopt.splitting.halves import take_apart
from onnxopt.splitting.operators import Subject

MOST_TRIED = 6
"""Cuts that are looked at: each has its halves loaded and run."""


def nearby(
    subject: Subject, device: frozenset[int], judge: Judge, tolerance: float | None
) -> tuple[str, ...]:
    """What crosses at the nearest cut that passes, by the operators that change sides.

    Args:
        device: operators on the device at the cut that does not.
        judge: of the whole model.
        tolerance: see `Proof`.

    Returns:
        names of tensors; none if the few cuts that are looked at do not pass either.
    """
    cuts = enumerate_cuts(subject.dag)
    refused = sum(1 << operator for operator in device)
    sent = cuts.sent([float(tensor.size_bytes) for tensor in subject.dag.tensors])
    others = [c for c in cuts.inner() if cuts.device[c] != refused]
    others.sort(key=lambda c: ((cuts.device[c] ^ refused).bit_count(), sent[c], c))
    for cut in others[:MOST_TRIED]:
        parts = take_apart(subject, [frozenset(cuts.operators(cut))], ("none", "none", "none"))
        if judge.judge([piece.proto for piece in parts.pieces], tolerance=tolerance).passed:
            return tuple(subject.dag.tensors[tensor].name for tensor in cuts.crossing[cut])
    return ()
