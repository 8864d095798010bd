"""Where inside do two models begin to differ? Show inner values as outputs, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import onnx

from onnxopt.changes import Numerics
from onnxopt.errors import OnnxoptError
from onnxopt.parts import parts
from onnxopt.runtime import Session
from onnxopt.signature import port_of
from onnxopt.verification.feeds import Feed, draws
from onnxopt.verification.reference import Reference
from onnxopt.verification.skeleton import infer, skeleton
from onnxopt.verification.userdata import UserData
from onnxopt.verification.verdict import OutputError, Tally

LARGEST_SHOWN_BYTES = 128 * 2**20
"""Inner values are shown in groups of about this size."""

MOST_FEEDS = 4
MOST_SUSPECTS = 4
"""Values that a quick look finds different are looked at closely in groups of so many."""

UNKNOWN_BYTES = 2**20


def first_difference(
    reference: onnx.ModelProto,
    candidate: onnx.ModelProto,
    numerics: Numerics = "rounding",
    user_data: UserData | None = None,
    *,
    on: str = "",
) -> OutputError | None:
    """The first value of the main graph that both models have and that differs.

    Values are matched by name and taken in the order in which the reference runs. One whose shape
    differs counts only if no other does: names may survive a change of layout.

    Args:
        on: description of the draw on which the outputs are known to differ; it is tried first.

    Raises:
        BadModelError, UnverifiableError, UsageError: as for `Verifier`.
    """
    feeds = draws(reference, Session(reference), user_data).feeds
    feeds.sort(key=lambda feed: feed.description != on)
    made = {name for node in candidate.graph.node for name in node.output if name}
    groups = list(_groups(reference, made))
    shape: OutputError | None = None
    for some in (feeds[:1], feeds[1:MOST_FEEDS]):
        for names in groups if some else ():
            errors = _differing(reference, candidate, names, some, numerics, quick=True)
            shape = shape or next((e for e in errors if not e.differs.startswith("value")), None)
            suspects = [e.name for e in errors if e.differs.startswith("value")]
            for start in range(0, len(suspects), MOST_SUSPECTS):
                batch = suspects[start : start + MOST_SUSPECTS]
                sure = _differing(reference, candidate, batch, some, numerics, quick=False)
                if sure:
                    return sure[0]
    return shape


def producer(proto: onnx.ModelProto, name: str) -> str:
    """The node of the main graph that makes a value, as a person would name it."""
    for node in proto.graph.node:
        if name in node.output:
            return f"{node.op_type} '{node.name}'" if node.name else node.op_type
    return "an input or a constant"


def _groups(proto: onnx.ModelProto, made: set[str]) -> Iterator[list[str]]:
    """Names of values that nodes of both models make, in groups of bounded size."""
    inferred = infer(skeleton(proto), {})
    infos = (*inferred.graph.value_info, *inferred.graph.output)
    ports = {info.name: port_of(info) for info in infos}

    def size(name: str) -> int:
        port = ports.get(name)
        if port is None or port.dims is None:
            return UNKNOWN_BYTES
        dims = (dim if isinstance(dim, int) else 16 for dim in port.dims)
        return prod(dims) * port.dtype.itemsize

    names = [name for node in proto.graph.node for name in node.output if name in made]
    return parts(names, size, LARGEST_SHOWN_BYTES)


def _differing(
    reference: onnx.ModelProto,
    candidate: onnx.ModelProto,
    names: Sequence[str],
    feeds: Sequence[Feed],
    numerics: Numerics,
    *,
    quick: bool,
) -> list[OutputError]:
    """Those of the named values that differ on some feed, in order."""
    shown = _showing(reference, names)
    try:
        ours, theirs = Session(shown), Session(_showing(candidate, names))
    except OnnxoptError:
        # One of them is of a kind that cannot be an output: look at the halves.
        if len(names) == 1:
            return []
        half = len(names) // 2
        parts = (names[:half], names[half:])
        return [
            error
            for part in parts
            for error in _differing(reference, candidate, part, feeds, numerics, quick=quick)
        ]
    tally = Tally(numerics, list(names))
    expected = Reference(shown, ours, feeds)
    for index, feed in enumerate(feeds):
        try:
            found = theirs.run(feed.arrays)
            for name in names:
                difference = expected.difference(
                    index, name, found[name], numerics, tally.notes, quick=quick
                )
                tally.add(name, difference, feed.description)
        except OnnxoptError:
            continue
    return [output for output in tally.verdict((), ()).outputs if not output.ok]


def _showing(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The model with these values, and no others, as outputs."""
    declared = {info.name: info for info in (*proto.graph.value_info, *proto.graph.output)}
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    for name in names:
        copy.graph.output.append(declared.get(name, onnx.ValueInfoProto(name=name)))
    return copy
