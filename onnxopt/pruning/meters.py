"""Meters: what a budget is about, as it is read off a model and as a cost of its widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import onnx

from onnxopt.cost import cost_of
from onnxopt.kernels import named
from onnxopt.latency import LayerLatency, predict
from onnxopt.optimizer import Options, optimize
from onnxopt.profiling.document import Profile
from onnxopt.pruning.by_widths import CostByWidths
from onnxopt.pruning.channels import ChannelGroup, Channels
from onnxopt.pruning.costs import StaticMode, measured, width_cost
from onnxopt.pruning.latency_cost import (
    Layers,
    NoLayers,
    check_profile,
    has_timed_widths,
    latency_cost,
)
from onnxopt.pruning.results import TIME_TOLERATED, TOLERATED
from onnxopt.pruning.samples import Batch

UNVERIFIED = Options(verify=False)


class Meter(Protocol):
    """What a budget is about.

    Attributes:
        unit: of `of` and `by_widths`, for a person: "FLOPs", "time".
        close_enough: how far from the budget, as a share of it, the chosen widths may end.
        tolerated: how far a result may be without a word, and before a finer grid is tried.
    """

    @property
    def unit(self) -> str: ...
    @property
    def close_enough(self) -> float: ...
    @property
    def tolerated(self) -> float: ...

    def of(self, proto: onnx.ModelProto) -> float:
        """What this model costs, rewritten without loss."""

    def by_widths(self, channels: Channels, groups: Sequence[ChannelGroup]) -> CostByWidths:
        """What it costs by the widths of these groups, up to a constant."""


@dataclass(frozen=True)
class Static:
    """FLOPs, parameters or memory."""

    mode: StaticMode
    close_enough: float = 0.003
    tolerated: float = TOLERATED

    @property
    def unit(self) -> str:
        return {"flops": "FLOPs", "params": "parameters", "memory": "bytes"}[self.mode]

    def of(self, proto: onnx.ModelProto) -> float:
        return measured(cost_of(optimize(proto, UNVERIFIED).model), self.mode)

    def by_widths(self, channels: Channels, groups: Sequence[ChannelGroup]) -> CostByWidths:
        return width_cost(channels, groups, self.mode)


@dataclass(frozen=True)
class Predicted:
    """Milliseconds of one run, by a profile.

    Attributes:
        base: the model that is pruned, whose nodes the profile knows.
        feeds: what it runs with, if its machine is this one; else the profile tells the shapes.
    """

    profile: Profile
    base: onnx.ModelProto
    feeds: Batch | None = None
    close_enough: float = 0.005
    tolerated: float = TIME_TOLERATED
    unit: str = "time"

    def of(self, proto: onnx.ModelProto) -> float:
        return predict(optimize(proto, UNVERIFIED).model, self.profile, feeds=self.feeds).ms

    def by_widths(self, channels: Channels, groups: Sequence[ChannelGroup]) -> CostByWidths:
        return latency_cost(channels, groups, self._layers, self._names, self.whole_ms)

    def check(self, channels: Channels) -> None:
        """Check that the profile is of this model; see `check_profile`."""
        kernels = frozenset(name for kernel in self.profile.kernels for name in kernel.nodes)
        check_profile(channels, self._layers, self._names, kernels)

    @cached_property
    def whole_ms(self) -> float:
        """What it predicts for the model that is pruned."""
        return self.of(self.base)

    @cached_property
    def knows_widths(self) -> bool:
        """Whether any layer can be known at other widths; of quantized models none is."""
        return bool(self.profile.layers) or has_timed_widths(self.base)

    @cached_property
    def _layers(self) -> Layers:
        return LayerLatency(self.profile) if self.knows_widths else NoLayers()

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """Names of nodes by their first outputs, which cuts keep."""
        return {node.output[0]: node.name for node in named(self.base).graph.node if node.output}
