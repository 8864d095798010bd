"""All rules that are in force: one Python file each, ours in the wheel and a user's in a folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from onnxopt.changes import Numerics
from onnxopt.errors import UsageError
from onnxopt.graph import Graph
from onnxopt.rewriting.match import Parameter, Pattern, compile_pattern, expand_root, parameters
from onnxopt.rewriting.rule import Rule

OWN_RULES = Path(__file__).parent.parent / "rules"
"""Where the wheel has them; a checkout has them beside the package."""


@dataclass(frozen=True)
class LoadedRule:
    """A rule with its name (the file's) and its page (the file's docstring)."""

    name: str
    rule: Rule
    doc: str
    path: Path

    @property
    def numerics(self) -> Numerics:
        return self.rule.numerics

    @property
    def source(self) -> str:
        return self.path.read_text()

    @property
    def summary(self) -> str:
        return self.doc.strip().splitlines()[0] if self.doc.strip() else ""

    @cached_property
    def patterns(self) -> tuple[Pattern, ...]:
        texts = self.rule.pattern
        texts = (texts,) if isinstance(texts, str) else texts
        return tuple(p for text in texts for p in expand_root(compile_pattern(text, self.name)))

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        return parameters(self.rule, self.name)


def own_rules_folder() -> Path:
    return OWN_RULES if OWN_RULES.is_dir() else OWN_RULES.parent.parent / "rules"


def load_rules(extra: Iterable[Path] = ()) -> tuple[LoadedRule, ...]:
    """Our rules, then those of the given folders, each sorted by name.

    Raises:
        UsageError: a folder or file that holds no rules, or two rules of one name.
    """
    found = list(_own_rules())
    for folder in extra:
        found += load_folder(folder)
    names: set[str] = set()
    for rule in found:
        if rule.name in names:
            raise UsageError(f"there are two rules named '{rule.name}'", "rename your file")
        names.add(rule.name)
    return tuple(found)


@cache
def _own_rules() -> tuple[LoadedRule, ...]:
    return tuple(load_folder(own_rules_folder()))


def load_folder(folder: Path) -> list[LoadedRule]:
    """The rules of one folder. The files are code: they are run.

    Raises:
        UsageError: no such folder, no rule in it, or a file that is not a rule.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder of rules '{folder}'")
    files = sorted(f for f in folder.glob("*.py") if not f.name.startswith("_"))
    if not files:
        raise UsageError(f"the folder '{folder}' holds no rules", "a rule is a .py file")
    return [load_file(file) for file in files]


def load_file(file: Path) -> LoadedRule:
    """One rule; its name is the file's, with dashes.

    Raises:
        UsageError: the file does not run, or defines no `rule`.
    """
    spec = importlib.util.spec_from_file_location(f"onnxopt_rule_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"the rule file '{file}' fails: {type(error).__name__}: {error}") from None
    rule = getattr(module, "rule", None)
    if not isinstance(rule, Rule):
        raise UsageError(f"the file '{file}' defines no `rule = Rule(...)`")
    loaded = LoadedRule(file.stem.replace("_", "-"), rule, module.__doc__ or "", file)
    _check_parameters(loaded)
    return loaded


def _check_parameters(rule: LoadedRule) -> None:
    names = {name for pattern in rule.patterns for name in pattern.names}
    for name, parameter in rule.parameters.items():
        if name not in names and parameter.kind is not Graph:
            raise UsageError(
                f"rule '{rule.name}': its rewrite asks for '{name}', which is not in the pattern",
                f"names in the pattern: {', '.join(sorted(names))}",
            )
