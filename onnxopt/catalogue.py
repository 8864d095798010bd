"""All rules and passes by name, with what each is for: what `onnxopt rules` shows."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onnxopt.changes import Numerics
from onnxopt.errors import UsageError
from onnxopt.passes import Pass, lossless_passes
from onnxopt.rewriting.rulebook import load_rules


@dataclass(frozen=True)
class Entry:
    """One rule or pass.

    Attributes:
        summary: the first line of its page.
        doc: its page.
        source: the rule file; empty for a pass.
    """

    name: str
    kind: Literal["rule", "pass"]
    numerics: Numerics
    summary: str
    doc: str
    source: str = ""


def catalogue(rules_dirs: Sequence[Path] = ()) -> tuple[Entry, ...]:
    """Passes in the order in which they run, then rules by name.

    Raises:
        UsageError: a folder or file that holds no rules.
    """
    rules = load_rules(rules_dirs)
    passes = lossless_passes(rules, 0)
    return (
        *(_entry(item.name, "pass", item.numerics, _page(item)) for item in passes),
        *(_entry(r.name, "rule", r.numerics, r.doc, r.source) for r in rules),
    )


def _page(item: Pass) -> str | None:
    """A pass is explained at the top of its file."""
    module = inspect.getmodule(type(item))
    return None if module is None else inspect.getdoc(module)


def _entry(
    name: str,
    kind: Literal["rule", "pass"],
    numerics: Numerics,
    doc: str | None,
    source: str = "",
) -> Entry:
    page = (doc or "").strip()
    return Entry(name, kind, numerics, page.partition("\n")[0], page, source)


def find(entries: Sequence[Entry], name: str) -> Entry:
    """The entry of that name.

    Raises:
        UsageError: there is none.
    """
    for entry in entries:
        if entry.name == name:
            return entry
    close = difflib.get_close_matches(name, [entry.name for entry in entries], n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "see `onnxopt rules`"
    raise UsageError(f"there is no rule or pass named '{name}'", hint)
