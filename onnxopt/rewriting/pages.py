"""Write rules/README.md from the rule files: `python -m onnxopt.rewriting.pages [--check]`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from onnxopt.rewriting.match import FAMILIES
from onnxopt.rewriting.rulebook import LoadedRule, load_folder, own_rules_folder

HEAD = """# Rules

One file a rule, each with its algebra, its pattern, its code and its examples, which are its tests.
This page is made from the files: `python -m onnxopt.rewriting.pages`.

`exact` rules do not change a bit of any result, `rounding` rules only the order of the arithmetic.
In floating-point numbers that may change the last digits, the sign of a zero, and what overflows.

To write your own, start from [remove_identity.py](remove_identity.py) (four lines of code) or
[fold_batchnorm_into_conv.py](fold_batchnorm_into_conv.py), put it into a folder, and run

    onnxopt rules check my_rules/
    onnxopt optimize model.onnx smaller.onnx --rules my_rules/

The check rewrites your examples and hundreds of models made from them: other attributes, constants,
shapes, element types, operator set versions, shared values, values captured by bodies. All that
ONNX Runtime runs must give the same outputs before and after.

What several rules need is in `onnxopt/rewriting/`: `words.py` (what is provable about shapes, types
and constants), `linear.py` (gains and offsets of Conv, ConvTranspose, Gemm and MatMul) and
`padding.py`.
"""


def readme(rules: Iterable[LoadedRule]) -> str:
    """The page about these rules."""
    lines = [HEAD, "| rule | numerics | what it does |", "|---|---|---|"]
    for rule in rules:
        lines.append(f"| [{rule.name}]({rule.path.name}) | {rule.numerics} | {rule.summary} |")
    lines += ["", "A pattern may name a family instead of an operator:", ""]
    for name, members in FAMILIES.items():
        lines.append(f"- `{name}`: {', '.join(sorted(members))}")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Write the page, or (`--check`) only say by the exit code whether it is up to date."""
    folder = own_rules_folder()
    page, text = folder / "README.md", readme(load_folder(folder))
    if "--check" in arguments:
        return int(not is_current(page, text))
    page.write_text(text)
    return 0


def is_current(page: Path, text: str) -> bool:
    return page.is_file() and page.read_text() == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
