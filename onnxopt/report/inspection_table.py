"""What `inspect` tells, as a terminal shows it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from onnxopt.inspection import Inspection
from onnxopt.quantities import bytes_text, count_text
from onnxopt.report.lines import bound_text
from onnxopt.report.table import plain_table


def inspection_table(found: Inspection) -> RenderableType:
    """Header, signature, sizes, operators, largest nodes."""
    cost = found.cost
    opsets = ", ".join(f"{domain} {version}" for domain, version in found.opsets.items())
    facts = [
        ("producer", found.producer or "-"),
        ("graph", found.graph_name or "-"),
        ("opset", f"{opsets}; IR version {found.ir_version}"),
        *((f"in {name}", text) for name, text in cost.inputs.items()),
        *((f"out {name}", text) for name, text in cost.outputs.items()),
        ("nodes", f"{cost.nodes:,}"),
        ("initializers", f"{cost.initializers:,}"),
        ("parameters", f"{count_text(cost.parameters)} ({bytes_text(cost.weight_bytes)})"),
        ("size", bytes_text(cost.size_bytes)),
        ("MACs", bound_text(cost, count_text(cost.macs))),
        ("activations", bound_text(cost, bytes_text(cost.activation_bytes)) + " in all"),
        (
            "peak activations",
            bound_text(cost, bytes_text(cost.peak_memory_bytes)) + " alive at once",
        ),
        *(("function", name) for name in found.functions),
        *((f"metadata {key}", _short(value)) for key, value in found.metadata.items()),
    ]
    operators = [(name, str(count)) for name, count in cost.operators.items()]
    parts: list[RenderableType] = [
        plain_table((found.source or "model", ""), facts, left=2),
        plain_table(("operator", "nodes"), operators),
        Text("largest nodes"),
        plain_table(
            ("node", "operator", "output", "MACs", "parameters", "output bytes"),
            [
                (
                    node.name,
                    node.operator,
                    node.output_shape,
                    "?" if node.macs is None else count_text(node.macs),
                    count_text(node.parameters),
                    bytes_text(node.output_bytes),
                )
                for node in found.largest
            ],
            left=3,
        ),
    ]
    return Group(*parts, *(Text(f"note: {line}") for line in _notes(found)))


def _notes(found: Inspection) -> list[str]:
    notes = []
    if found.cost.assumed:
        notes.append("costs are for " + ", ".join(f"{name} = 1" for name in found.cost.assumed))
    if found.cost.unknown:
        count = len(found.cost.unknown)
        which = f"{count} nodes" if count > 1 else found.cost.unknown[0]
        notes.append(f"MACs are a lower bound: not all shapes at {which} are known")
    return notes


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."
