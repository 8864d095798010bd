"""Which residual blocks models have, and which of their sums belong to none.

    python benchmarks/blocks.py FOLDER... [--only PART] [--verbose] [--output FILE]

Each model is optimized first. Counted are the sums of two computed values: biases, positions and
what else follows from constants and shapes are no residuals. With `--verbose` every block is
listed, and every sum that ends none. Prints Markdown, one line a model.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onnxopt.errors import OnnxoptError
from onnxopt.model import load
from onnxopt.optimizer import Options, optimize
from onnxopt.pruning.blocks import Block, Blocks, blocks_of
from onnxopt.runtime import Session
from onnxopt.verification.feeds import draws

HEAD = """\
| model | sums | blocks | inside of others | kinds | declined |
|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Row:
    """What was found in one model."""

    name: str
    blocks: Blocks
    trouble: str = ""

    def line(self) -> str:
        found = self.blocks.found
        cells = (
            self.name,
            len(found) + len(self.blocks.declined),
            len(found),
            len(found) - len(self.blocks.outermost),
            ", ".join(f"{kind} {n}" for kind, n in Counter(b.kind for b in found).items()),
            self.trouble or "; ".join(_reasons(self.blocks)),
        )
        return f"| {' | '.join(str(cell) for cell in cells)} |"


def measure(path: Path) -> Row:
    try:
        proto = optimize(load(path), Options(verify=False)).model
        feeds = draws(proto, Session(proto)).feeds[0].arrays
        blocks, trouble = blocks_of(proto, feeds), ""
    except OnnxoptError as error:
        blocks, trouble = Blocks((), ()), f"not run: {error.what[:60]}"
    return Row(path.stem, blocks, trouble)


def _reasons(blocks: Blocks) -> Iterator[str]:
    """Kinds of reasons, without the names of nodes and values and without shapes."""
    kinds = Counter(
        re.sub(r"(( making)? )?'[^']*'|(?<=differ): .*", "", item.reason).strip()
        for item in blocks.declined
    )
    yield from (f"{kind} ({count})" for kind, count in kinds.most_common())


def listed(block: Block) -> str:
    inner = f", holds {', '.join(b.name for b in block.inner)}" if block.inner else ""
    sides = f", reads {', '.join(block.sides)} too" if block.sides else ""
    size = f"axis {block.axis}, {len(block.nodes)} nodes"
    ends = f"{block.entry} -> {block.exit}"
    return f"    {block.name}: {block.kind}, {ends}, {size}{inner}{sides}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--only", default="", help="part of the names of models")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    lines = [
        "# Residual blocks",
        "",
        "Made by `make blocks`; see benchmarks/blocks.py for what is counted.",
        "",
    ]
    total = 0
    for folder in given.folders:
        paths = [path for path in sorted(folder.glob("*.onnx")) if given.only in path.stem]
        rows = []
        for path in paths:
            rows.append(measure(path))
            print(rows[-1].line(), flush=True)
            if given.verbose:
                print("\n".join(map(listed, rows[-1].blocks.found)))
                print("\n".join(f"    {d.node}: {d.reason}" for d in rows[-1].blocks.declined))
        total += sum(len(row.blocks.found) for row in rows)
        shown = [row for row in rows if row.blocks.found or row.blocks.declined or row.trouble]
        rest = [row.name for row in rows if row not in shown]
        lines += [f"## {folder.name}: {len(rows)} models", "", HEAD, *(r.line() for r in shown), ""]
        if rest:
            lines += [f"Without any such sum: {', '.join(rest)}.", ""]
    lines += [f"{total} blocks.", ""]
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
