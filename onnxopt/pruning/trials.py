"""A cut of one group alone, made up for by the layers around it in turns, as it will be in the end.

A refit of the reading layer alone leaves 1 to 4 times as much damage in the outputs as both layers
in turns, in some groups far more than in others: the budget would be shared by the wrong prices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxopt.graph import Array
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.compensate import After, following
from onnxopt.pruning.layer import Layer, Weights
from onnxopt.pruning.layers import find_layers
from onnxopt.pruning.pairs import find_pairs
from onnxopt.pruning.refit import Looked, Refit, Task, error, refit
from onnxopt.pruning.statistics import Ranking
from onnxopt.pruning.stepper import Stepper, weights_of
from onnxopt.pruning.turns import in_turns, moved

TURNS = 4
"""Turns of a trial; what more of them gain is about the same for all groups."""


@dataclass(frozen=True, eq=False)
class Couple:
    """Two layers with nothing but a Relu between them that are refitted when a group is cut.

    Attributes:
        first, second: what makes the channels, and the only layer that reads them. If the group is
            what a layer reads, that layer, and the one behind it.
        after: what follows the second.
        kept: for each of SENSITIVITY_CUTS which of the channels [channels] stay.
        is_read: they are those that the first layer reads; else those between the two.
    """

    first: Layer
    second: Layer
    after: After
    kept: tuple[Array, ...]
    is_read: bool = False


def couples(channels: Channels, rankings: Sequence[Ranking]) -> dict[int, Couple]:
    """For groups, by number, the layers around them, where these will be refitted in turns.

    Args:
        rankings: one for each group.
    """
    graph, shape = channels.model.graph, channels.instance.shape
    layers = list(find_layers(graph, shape))
    pairs, after = find_pairs(graph, layers), following(graph, layers, shape)
    seconds = {layer.weight: layer for layer in layers if layer.node in pairs}
    behind = {pairs[layer.node].weight: layer for layer in seconds.values()}
    found = {}
    for number, (group, ranking) in enumerate(zip(channels.groups, rankings, strict=True)):
        readers = {role.weight.name for role in group.consumers}
        followed = behind if group.is_read else seconds
        second = followed.get(min(readers, default="")) if len(readers) == 1 else None
        if second is None or not ranking.trials:
            continue
        first = pairs[second.node]
        ends = group.consumers if group.is_read else group.producers
        made = next((r for r in ends if r.weight.name == first.weight), None)
        if made is None:
            continue
        label = channels.tracker.axes(made.weight)[made.axis]
        assert not isinstance(label, str), "channels of a group have atoms"
        roots = channels.tracker.atoms.roots(label)
        kept = tuple(~np.isin(roots, [group.units[int(u)] for u in gone]) for gone in ranking.tried)
        found[number] = Couple(first, second, after[second.output][0], kept, group.is_read)
    return found


def _narrowed(values: Array, kept: Array, layer: Layer) -> Array:
    """The channels of what a layer reads that stay."""
    return np.compress(kept, values, 1 if layer.spatial else -1)


@dataclass(frozen=True, eq=False)
class Turned:
    """Trials of one group in which both layers around it are refitted.

    Args:
        stepper: the model, halted at or before the first layer.
    """

    couple: Couple
    stepper: Stepper

    def weights(self, number: int, trial: Weights) -> Mapping[str, Array]:
        """The weights of both layers when a share of the channels is gone.

        Args:
            number: of the share in SENSITIVITY_CUTS.
            trial: the weights of the layer that reads the channels, refitted alone.
        """
        first, second, kept = self.couple.first, self.couple.second, self.couple.kept[number]
        if not kept.any():  # of a single channel three quarters are all
            return trial
        stored = weights_of(self.stepper.proto, first.parameters + second.parameters)
        if self.couple.is_read:
            return self._read(kept, trial, stored)
        rows = np.append(np.repeat(kept, second.taps), True)
        one, two = first.matrix(stored), second.matrix({**stored, **trial})
        task = self._task(kept, stored)
        lost = error(task, two[:, rows])
        alone = Refit(second.name, "ridge", lost, lost, True)
        seen, kept_one = self._seen[0], one[:, :, kept]
        made = in_turns(task, first, seen, kept_one, two[:, rows], alone, TURNS, last=0)
        if made is None:
            return trial
        one[:, :, kept], two[:, rows] = made.first, made.second
        return {**trial, **first.stored(one, stored), **second.stored(two, {**stored, **trial})}

    def _read(self, kept: Array, trial: Weights, stored: Weights) -> Mapping[str, Array]:
        """The same where the first layer reads less: first the second layer makes up for it."""
        first, second = self.couple.first, self.couple.second
        rows = np.append(np.repeat(kept, first.taps), True)
        one, two = first.matrix({**stored, **trial}), second.matrix(stored)
        seen = [_narrowed(x, kept, first) for x in self._seen[0]]
        task = moved(self._task(np.ones(one.shape[2], bool), stored), first, seen, one[:, rows])
        alone, refitted, _ = refit(task, two)
        made = in_turns(task, first, seen, one[:, rows], refitted, alone, TURNS, last=0)
        if made is None:
            return {**trial, **second.stored(refitted, stored)} if alone.kept else trial
        one[:, rows] = made.first
        both = {**trial, **first.stored(one, {**stored, **trial})}
        return {**both, **second.stored(made.second, {**stored, **both})}

    def _task(self, kept: Array, stored: Weights) -> Task:
        _, between, targets, shortcuts = self._seen
        left = [_narrowed(z, kept, self.couple.second) for z in between]
        looked = Looked(
            self.couple.second, left, [t.shape for t in targets], len(left) * self.stepper.size
        )
        return Task(looked, targets, shortcuts, self.couple.after.rectified, stored)

    @cached_property
    def _seen(self) -> tuple[list[Array], ...]:
        """What the first layer gets, what lies between, targets and shortcuts: each by batch."""
        couple, walk = self.couple, self.stepper.halted()
        after = couple.after
        named = [couple.first.input, couple.second.input, after.output]
        walk.keep = frozenset((*named, after.shortcut))
        walk.advance(walk.made[couple.first.node])
        walk.advance(walk.made[after.output] + 1)
        found = [[values[name] for values in walk.frontier] for name in named]
        none = [np.zeros((), target.dtype) for target in found[-1]]
        shortcuts = [values[after.shortcut] for values in walk.frontier] if after.shortcut else none
        return *found, shortcuts
