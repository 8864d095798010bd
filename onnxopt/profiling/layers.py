"""From what the profiler saw in the small models: each layer's times at its widths, and the fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from onnxopt.profiling.document import KernelTime, LayerTimes, Sample, WidthTime
from onnxopt.profiling.events import Kernel, Traced
from onnxopt.profiling.fitting import fit
from onnxopt.profiling.kit import KitLayer, KitWidth
from onnxopt.profiling.spread import quartiles, undisturbed
from onnxopt.profiling.tensors import bytes_of

_BRANCH = re.compile(r"(?:^|[^A-Za-z0-9])b(\d+)_")

Correct = Callable[[float], float]
"""Takes off what reading the clock adds to a time in microseconds."""


def layer_times(
    layer: KitLayer, seen: Sequence[Traced], kernels: Sequence[KernelTime], correct: Correct
) -> LayerTimes:
    """What was measured of one layer.

    Args:
        seen: the kernels of its small model; none if that does not run here.
        kernels: those of the whole model, which name their nodes.
    """
    branches: dict[int, list[Traced]] = {}
    for entry in seen:
        number = _branch(entry.kernel)
        if number is not None and number < len(layer.widths):
            branches.setdefault(number, []).append(entry)
    widths = tuple(
        _width_time(width, branches[number], correct)
        for number, width in enumerate(layer.widths)
        if number in branches
    )
    found = fit(
        [width.macs for width in widths],
        [width.bytes for width in widths],
        [width.us for width in widths],
    )
    whole = widths[0].us if widths and 0 in branches else 0.0
    inside = [kernel.us for kernel in kernels if not set(layer.nodes).isdisjoint(kernel.nodes)]
    return LayerTimes(
        op=layer.op,
        text=layer.text,
        nodes=layer.nodes,
        count=len(layer.nodes),
        in_model_us=sum(inside) / len(inside) if inside else None,
        widths=widths,
        fit=found,
        startup_share=min(1.0, found.t0_us / whole) if found is not None and whole else None,
    )


def _branch(kernel: Kernel) -> int | None:
    """The branch of the small model that it belongs to; None for what surrounds the branches."""
    match = _BRANCH.search(kernel.name)
    return int(match[1]) if match else None


def _width_time(width: KitWidth, entries: Sequence[Traced], correct: Correct) -> WidthTime:
    """Its kernels together: the layer, and an activation where that was not fused."""
    main = max(entries, key=lambda entry: undisturbed(entry.times_us))
    runs = min(len(entry.times_us) for entry in entries)
    times = [sum(correct(e.times_us[i]) for e in entries) for i in range(runs)]
    low, high = quartiles(times)
    return WidthTime(
        width.inputs,
        width.outputs,
        width.macs,
        width.bytes,
        undisturbed(times),
        low,
        high,
        main.kernel.op,
        main.kernel.inputs,
        main.kernel.outputs,
    )


def samples(seen: Sequence[Sequence[Traced]], correct: Correct) -> tuple[Sample, ...]:
    """Every kernel beside the branches once, by its sizes: conversions of layouts above all."""
    times: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[float]] = {}
    for entry in (entry for model in seen for entry in model):
        if _branch(entry.kernel) is None:
            kernel = entry.kernel
            key = (kernel.op, kernel.inputs, kernel.outputs)
            times.setdefault(key, []).extend(map(correct, entry.times_us))
    return tuple(
        sorted(
            (Sample(*key, us=undisturbed(found)) for key, found in times.items()),
            key=lambda sample: (sample.op, *map(bytes_of, sample.inputs), sample.outputs),
        )
    )


def unmeasured(layers: Sequence[LayerTimes]) -> Iterator[str]:
    """What must be said of layers whose small model gave nothing."""
    for layer in layers:
        if not layer.widths:
            yield f"the small model of {layer.op} {layer.text} does not run here"
