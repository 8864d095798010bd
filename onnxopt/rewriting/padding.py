"""Read a Pad that surrounds the spatial axes with zeros, and move it into what it precedes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnxopt.graph import Array, Node
from onnxopt.rewriting.rule import Skip, attr
from onnxopt.rewriting.words import all_equal, ints


@dataclass(frozen=True)
class Padding:
    """Zeros added before and after each spatial axis."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    def __add__(self, other: Padding) -> Padding:
        return Padding(
            tuple(a + b for a, b in zip(self.before, other.before, strict=True)),
            tuple(a + b for a, b in zip(self.after, other.after, strict=True)),
        )

    @property
    def pads(self) -> list[int]:
        """As the attribute of Conv and pooling."""
        return [*self.before, *self.after]


def zeros_around(
    pad: Node, pads: Array | None, fill: Array | None, axes: Array | None, rank: int
) -> Padding | Skip:
    """What a Pad adds to a tensor of this rank, if it is zeros around its spatial axes."""
    if attr(pad, "mode") != "constant" or attr(pad, "value"):
        return Skip("the Pad adds something else than zeros")
    if fill is not None and not all_equal(fill, 0):
        return Skip("the Pad adds something else than zeros")
    widths = ints(pad, "pads", pads)
    along = list(range(rank)) if axes is None else [int(a) % rank for a in axes.ravel()]
    if widths is None or len(widths) != 2 * len(along):
        return Skip("the Pad is of another rank")
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(along):
        before[axis], after[axis] = widths[place], widths[place + len(along)]
    if any(before[:2]) or any(after[:2]) or min(before + after) < 0:
        return Skip("the Pad changes batch or channels, or cuts off something")
    return Padding(tuple(before[2:]), tuple(after[2:]))


def own_padding(node: Node, spatial: int) -> Padding | Skip:
    """What a Conv or a pooling operator adds by itself."""
    if attr(node, "auto_pad") == "VALID":
        return Padding((0,) * spatial, (0,) * spatial)
    if attr(node, "auto_pad") != "NOTSET":
        return Skip("the padding depends on the size of the input")
    pads = node.attrs.get("pads") or [0] * (2 * spatial)
    if len(pads) != 2 * spatial:
        return Skip("the paddings are of different ranks")
    return Padding(tuple(pads[:spatial]), tuple(pads[spatial:]))


def padded(node: Node, padding: Padding) -> dict[str, Any]:
    """The attributes of `node` with this padding instead of its own."""
    kept = {name: v for name, v in node.attrs.items() if name not in ("auto_pad", "pads")}
    return {**kept, "pads": padding.pads}
