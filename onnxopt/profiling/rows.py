"""What a profile says, as rows of text: for the table of the desk and for that of the device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from onnxopt.profiling.document import BlockTimes, KernelTime, LayerTimes, Profile, Spread
from onnxopt.quantities import bytes_text, count_text

MOST_KERNELS = 10
MOST_NODES = 2

KERNEL_COLUMNS = ("slowest kernels", "operator", "time", "share", "nodes")
OPERATOR_COLUMNS = ("operator", "kernels", "time", "share")
LAYER_COLUMNS = ("layer", "times", "in the model", "alone", "start-up", "share", "fit error")
BLOCK_COLUMNS = ("residual blocks", "kind", "times", "layers", "in the model", "layers alone") + (
    "start-up",
    "share",
)

Row = tuple[str, ...]


def facts(profile: Profile) -> list[Row]:
    """What was measured, where, and how."""
    where, how = profile.machine, profile.settings
    threads = f"{how.threads} thread{'s' if how.threads > 1 else ''}"
    shapes = ", ".join(f"{n} {list(dims)}" for n, dims in how.shapes.items()) or "none"
    peak = profile.memory.peak_bytes
    return [
        ("machine", f"{where.processor}, {where.cores} cores, {where.system}"),
        ("runtime", f"onnxruntime {where.onnxruntime}, {how.provider}, {threads}"),
        ("inputs", shapes),
        ("load", _spread(profile.load_ms)),
        ("first run", _spread(profile.first_ms)),
        ("steady state", _spread(profile.steady_ms)),
        ("of that no kernel", f"{_us(profile.overhead.run_us)} for the call itself"),
        ("peak memory", profile.memory.how if peak is None else bytes_text(peak)),
    ]


def operator_rows(profile: Profile) -> list[Row]:
    """The kernels by operator, those that take most first."""
    found: dict[str, list[KernelTime]] = defaultdict(list)
    for kernel in profile.kernels:
        found[kernel.op].append(kernel)
    totals = {op: sum(kernel.us for kernel in members) for op, members in found.items()}
    shares = {op: sum(kernel.share for kernel in members) for op, members in found.items()}
    ranked = sorted(found, key=lambda op: -totals[op])
    return [(op, str(len(found[op])), _us(totals[op]), f"{shares[op]:.1%}") for op in ranked]


def kernel_rows(profile: Profile) -> list[Row]:
    """The slowest kernels, and the nodes that they do the work of."""
    slowest = sorted(profile.kernels, key=lambda kernel: -kernel.us)[:MOST_KERNELS]
    return [(k.name, k.op, _us(k.us), f"{k.share:.1%}", _nodes(k.nodes)) for k in slowest]


def layer_rows(profile: Profile) -> list[Row]:
    """The layers, those that take most time together first."""

    def total(layer: LayerTimes) -> float:
        whole = layer.widths[0].us if layer.widths else 0.0
        return layer.count * (layer.in_model_us or whole)

    return [
        (
            f"{layer.op} {layer.text}",
            str(layer.count),
            "?" if layer.in_model_us is None else _us(layer.in_model_us),
            _us(layer.widths[0].us) if layer.widths else "?",
            "?" if layer.fit is None else _us(layer.fit.t0_us),
            "?" if layer.startup_share is None else f"{layer.startup_share:.0%}",
            "?" if layer.fit is None else f"{layer.fit.error:.0%}, at worst {layer.fit.worst:.0%}",
        )
        for layer in sorted(profile.layers, key=total, reverse=True)
    ]


def block_rows(profile: Profile) -> list[Row]:
    """The residual blocks, alike ones in one row, those that take most time together first.

    Alike are blocks of one kind with the same layers. Times are of one block, on average.
    """
    number_of = {node: i for i, layer in enumerate(profile.layers) for node in layer.nodes}
    alike: dict[object, list[BlockTimes]] = defaultdict(list)
    for block in profile.blocks:
        numbers = sorted(number_of[node] for node in block.nodes if node in number_of)
        alike[block.kind, tuple(numbers)].append(block)

    def total(members: list[BlockTimes]) -> float:
        return sum(block.in_model_us or block.alone_us or 0.0 for block in members)

    return [_block_row(members) for members in sorted(alike.values(), key=total, reverse=True)]


def _block_row(members: list[BlockTimes]) -> Row:
    first = members[0]
    part = "" if first.fitted == first.layers else f", {first.fitted} of them fitted"
    inside = [block.in_model_us for block in members if block.in_model_us is not None]
    return (
        _nodes(tuple(block.name for block in members), 1),
        first.kind,
        str(len(members)),
        f"{first.layers}{part}",
        _us(sum(inside) / len(inside)) if inside else "?",
        "?" if first.alone_us is None else _us(first.alone_us),
        "?" if first.startup_us is None else _us(first.startup_us),
        "?" if first.startup_share is None else f"{first.startup_share:.0%}",
    )


def closing_lines(profile: Profile) -> Iterator[str]:
    """What stands below the tables: what is mapped, and whether to trust any of it."""
    if profile.mapped_share is not None:
        yield f"{profile.mapped_share:.1%} of the kernels' time is mapped to nodes of the file"
    known = [layer for layer in profile.layers if layer.startup_share is not None]
    total = sum(layer.count * layer.widths[0].us for layer in known)
    if total:
        started = sum(
            layer.count * layer.widths[0].us * (layer.startup_share or 0.0) for layer in known
        )
        yield f"start-up: {started / total:.0%} of the time of these layers at their whole width"
    yield from _of_all_blocks(profile)
    for note in profile.notes:
        yield f"note: {note}"
    noise = profile.noise
    if noise.disturbed:
        yield f"{noise.disturbed} runs are left out, for other work took part of their time"
    spread = f"the model against itself: quartiles {noise.low:.2f} to {noise.high:.2f}"
    yield f"{spread}, of {profile.settings.rounds} rounds"
    if not noise.trusted:
        yield f"do not trust these figures: {noise.why}"
        yield "to measure again: stop other work, and give more --seconds"


def _of_all_blocks(profile: Profile) -> Iterator[str]:
    """What all residual blocks take; one inside of another counts once."""
    inside = {node for block in profile.blocks for node in block.nodes}
    alone = startup = 0.0
    for layer in profile.layers:
        count = len(inside.intersection(layer.nodes))
        if layer.startup_share is not None:
            alone += count * layer.widths[0].us
            startup += count * layer.widths[0].us * layer.startup_share
    if alone:
        share = sum(k.share for k in profile.kernels if k.nodes and k.nodes[0] in inside)
        yield (
            f"residual blocks: {share:.0%} of the steady state, and {startup / alone:.0%} of the "
            "time of their layers is start-up: that goes only where whole blocks go"
        )


def plain_text(profile: Profile) -> str:
    """All of it for a terminal without rich."""
    parts = [_columns(("profile", profile.source), facts(profile))]
    parts.append(_columns(OPERATOR_COLUMNS, operator_rows(profile)))
    parts.append(_columns(KERNEL_COLUMNS, kernel_rows(profile)))
    if profile.layers:
        parts.append(_columns(LAYER_COLUMNS, layer_rows(profile)))
    if profile.blocks:
        parts.append(_columns(BLOCK_COLUMNS, block_rows(profile)))
    return "\n\n".join([*parts, "\n".join(closing_lines(profile))])


def _columns(head: Row, rows: list[Row]) -> str:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    title = "  ".join(cell.ljust(w) for cell, w in zip(head, widths, strict=True))
    return "\n".join(line.rstrip() for line in (title, *lines))


def _spread(found: Spread) -> str:
    quartiles = f"quartiles {found.low:.3g} to {found.high:.3g} of {found.count}"
    return f"{found.median:.3g} ms ({quartiles})"


def _us(value: float) -> str:
    return f"{value / 1000:.3g} ms" if value >= 1000 else f"{value:.3g} us"


def _nodes(names: tuple[str, ...], most: int = MOST_NODES) -> str:
    more = len(names) - most
    shown = ", ".join(names[:most]) or "-"
    return f"{shown} and {count_text(more)} more" if more > 0 else shown
