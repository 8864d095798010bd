"""LSTM, GRU and RNN: their gates as layers, whose results stay inside of the operator.

A gate is f(W x_t + R h_(t-1) + b), with f and what else it is made of as the operator has it. Its
rows are [x_t, h_(t-1)] of all steps, its targets what the original's weights make of the original's
rows. Three things are left as they are: peepholes, which multiply cell states that no run shows;
initial states; and activations. Padded steps (`sequence_lens`) do not count.

A GRU's hidden gate is not of that form. With `linear_before_reset` it is W x + b and, multiplied
by the reset gate r, R h + c: two layers. Else it reads [x, r * h], with r computed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxopt.graph import Array, Constant, Node
from onnxopt.pruning.layer import Kept, Layer, Values, Weights
from onnxopt.pruning.operator import Operator

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
"""In the order of ONNX: input, output, forget, cell; update, reset, hidden; the only one."""

NONE = Operator("", (), 1)

X, W, R, B, LENGTHS, INITIAL = range(6)
"""Places of inputs that all three have."""


@dataclass(frozen=True)
class Gates(Layer):
    """Some gates of one direction: W [D, G H, I], R [D, G H, H], b [D, 2 G H], all together.

    Attributes:
        operator: the node.
        inputs: the names of its inputs, "" where one is omitted.
        constants: those of them that are initializers.
        direction: place of its direction in the weights.
        backwards: it starts at the last step.
        chosen: which gates, by their places.
        sides: "xh", or of two layers that share the gates the one of x or the one of h.
        reset: it reads what the reset gate leaves of h.
        sizes: how many channels it reads, for each side.
    """

    operator: Operator = NONE
    inputs: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    direction: int = 0
    backwards: bool = False
    chosen: tuple[int, ...] = ()
    sides: str = "xh"
    reset: bool = False
    sizes: tuple[int, ...] = ()

    @property
    def weights(self) -> tuple[str, ...]:
        places = {"x": W, "h": R}
        return tuple(self.inputs[places[side]] for side in self.sides)

    @property
    def parameters(self) -> tuple[str, ...]:
        return self.constants

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(n for n in self.inputs if n and n not in self.constants)

    def states(self, values: Values, weights: Weights) -> Array:
        """Y [S, D, B, H]: what the whole operator makes."""
        arrays = [self._array(place, values, weights) for place in range(len(self.inputs))]
        return self.operator.run(arrays, hidden_size=weights[self.inputs[R]].shape[2])

    @property
    def states_name(self) -> str:
        """What `completed` calls Y, which the node may not give a name."""
        return f"states of {self.node}"

    def completed(self, values: Values, weights: Weights) -> Values:
        if "h" not in self.sides or self.states_name in values:
            return values
        return {**values, self.states_name: self.states(values, weights)}

    def _array(self, place: int, values: Values, weights: Weights) -> Array | None:
        name = self.inputs[place] if place < len(self.inputs) else ""
        if not name:
            return None
        return weights[name] if name in self.constants else values[name]

    def gathered(self, values: Values, weights: Weights) -> Array:
        """What it multiplies in all steps, [B, S, k]."""
        x = self._array(X, values, weights)
        assert x is not None
        parts = [x]
        if "h" in self.sides:
            made = self.completed(values, weights)[self.states_name]
            h = self._before(made[:, self.direction], values, weights)
            if self.reset:
                h = h * self._reset_gate(x, h, weights)
            parts = [x, h] if "x" in self.sides else [h]
        return self.steps(np.concatenate(parts, axis=2), values, weights)

    def _before(self, states: Array, values: Values, weights: Weights) -> Array:
        """h before each step [S, B, H]."""
        initial = self._array(INITIAL, values, weights)
        first = np.zeros_like(states[:1])
        if initial is not None:
            first = initial[self.direction : self.direction + 1].astype(states.dtype)
        if not self.backwards:
            return np.concatenate([first, states[:-1]])
        before = np.concatenate([states[1:], first])
        lengths = self._array(LENGTHS, values, weights)
        if lengths is not None:
            samples = np.flatnonzero(lengths > 0)
            before[lengths[samples] - 1, samples] = first[0, samples]
        return before

    def _reset_gate(self, x: Array, h: Array, weights: Weights) -> Array:
        gate = replace(self, chosen=(1,), sides="xh", reset=False)
        matrix = gate.matrix(weights)[0].astype(x.dtype)
        sums = np.concatenate([x, h], axis=2) @ matrix[:-1] + matrix[-1]
        if clip := self.operator.attribute("clip"):
            sums = np.clip(sums, -clip, clip)
        return np.asarray(0.5 + 0.5 * np.tanh(0.5 * sums))  # the logistic function

    def steps(self, array: Array, values: Values, weights: Weights) -> Array:
        """[S, B, k] as [B, S, k]; in place of padded steps a sequence's own ones, once more."""
        turned: Array = array.swapaxes(0, 1)
        lengths = self._array(LENGTHS, values, weights)
        if lengths is None:
            return turned
        some = lengths > 0
        index = np.arange(turned.shape[1])[None] % lengths[some, None]
        places = index[:, :, None].astype(np.int64)
        return np.asarray(np.take_along_axis(turned[some], places, axis=1))

    def matrix(self, weights: Weights) -> Array:
        parts = [
            weights[name][self.direction][self._mine(weights)].T.astype(np.float64)
            for name in self.weights
        ]
        made = np.concatenate(parts)[None]
        bias = np.zeros((1, 1, made.shape[2]))
        if self.bias:
            bias[0, 0] = sum(self._biases(weights).values())
        return np.concatenate([made, bias], axis=1)

    def stored(self, W: Array, weights: Weights) -> dict[str, Array]:
        """Of two biases that are added the first one changes."""
        mine, found, start = self._mine(weights), {}, 0
        for name in self.weights:
            array = weights[name].copy()
            stop = start + array.shape[2]
            array[self.direction, mine] = W[0, start:stop].T
            found[name], start = array, stop
        if self.bias:
            first, *others = self._biases(weights).items()
            array = weights[self.bias].copy()
            places = first[0] * (array.shape[1] // 2) + mine
            array[self.direction, places] = W[0, -1] - sum(other for _, other in others)
            found[self.bias] = array
        return found

    def _mine(self, weights: Weights) -> Array:
        """The rows of its gates."""
        size = weights[self.inputs[R]].shape[2]
        return np.concatenate([np.arange(gate * size, (gate + 1) * size) for gate in self.chosen])

    def _biases(self, weights: Weights) -> dict[int, Array]:
        """Those of its gates that belong to x (0) and to h (1)."""
        halves = weights[self.bias][self.direction].astype(np.float64).reshape(2, -1)
        return {
            "xh".index(side): halves["xh".index(side), self._mine(weights)] for side in self.sides
        }

    def _kept_outputs(self, kept: Kept) -> Array | None:
        mask = kept.get((self.inputs[R], 1))
        if mask is None:
            return None
        gates = mask.reshape(GATES[self.operator.op], -1)
        return gates[list(self.chosen)].reshape(-1)

    def kept_states(self, states: Array, kept: Kept) -> Array:
        """The original's Y with the units that are still there."""
        mask = kept.get((self.inputs[R], 2))
        return states if mask is None else np.compress(mask, states, 3)

    def spread(self, roots: Array, weight: str, axis: int) -> Array:
        parts = [
            roots if name == weight else np.full(size, -1)
            for name, size in zip(self.weights, self.sizes, strict=True)
        ]
        return np.concatenate(parts)


def gates(node: Node) -> Iterator[Gates]:
    """The layers of a recurrent node whose weights nothing else reads."""
    names = tuple("" if v.omitted else v.name for v in node.inputs)
    made = next(v.name for v in node.outputs if not v.omitted)
    constants = tuple(v.name for v in node.inputs if isinstance(v, Constant))
    directions = ["forward", "reverse"]
    if (which := node.attr("direction") or "forward") != "bidirectional":
        directions = [which]
    parts = list(_parts(node))
    base = Gates(
        name=node.name or made,
        kind="linear",
        node=made,
        input=names[X],
        output=made,
        weight=names[W],
        bias=names[B] if len(names) > B else "",
        inner=True,
        share=1 / (len(parts) * len(directions)),
        operator=Operator.of(node, without=["hidden_size", "layout"]),
        inputs=names,
        constants=constants,
    )
    widths = {"x": node.inputs[W].static_shape, "h": node.inputs[R].static_shape}
    for place, direction in enumerate(directions):
        for chosen, sides, reset in parts:
            sizes = tuple((widths[side] or (0, 0, 0))[2] for side in sides)
            yield replace(
                base,
                direction=place,
                backwards=direction == "reverse",
                chosen=chosen,
                sides=sides,
                reset=reset,
                sizes=sizes,
            )


def _parts(node: Node) -> Iterator[tuple[tuple[int, ...], str, bool]]:
    """Gates that are one layer, of which sides, and whether a reset gate comes before."""
    if node.op != "GRU":
        yield tuple(range(GATES[node.op])), "xh", False
        return
    yield (0, 1), "xh", False
    if node.attr("linear_before_reset"):
        yield (2,), "x", False
        yield (2,), "h", False
    elif _is_logistic(node.attrs.get("activations")):
        yield (2,), "xh", True


def _is_logistic(activations: Sequence[str] | None) -> bool:
    """The gates have the activation that `_reset_gate` knows."""
    return not activations or all(name.lower() == "sigmoid" for name in activations[::2])
