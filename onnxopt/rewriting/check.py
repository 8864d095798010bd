"""Check rules by their examples and by hundreds of models made from these."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx
import onnx.helper
import onnx.parser

from onnxopt.changes import Change, Ledger
from onnxopt.errors import BadModelError, CheckError, OnnxoptError
from onnxopt.model import Model
from onnxopt.passes.apply_rules import ApplyRules
from onnxopt.rewriting.agreement import feeds, shapes, worst
from onnxopt.rewriting.isomorphism import difference
from onnxopt.rewriting.match import Match, find_match
from onnxopt.rewriting.rule import Example
from onnxopt.rewriting.rulebook import LoadedRule, load_folder
from onnxopt.rewriting.variants import KINDS
from onnxopt.runtime import Session
from onnxopt.shapes import infer
from onnxopt.signature import model_inputs

FAILED = "the rule failed"
"""How ApplyRules begins to say that the code of a rule raised an exception."""

SIZES = (None, 1, 3, 0)
"""Of symbolic dimensions: 2, 3, 4 ... in order of appearance, all 1, all 3, all empty."""


@dataclass(frozen=True)
class CheckResult:
    """One test of one rule.

    Attributes:
        test: what was tested, as a sentence.
        message: what went wrong; empty if it passed.
    """

    rule: str
    test: str
    passed: bool
    message: str


def check_rules(folder: Path) -> list[CheckResult]:
    """Every test of every rule in a folder. The files are code: they are run.

    Raises:
        UsageError: no such folder, or a file in it is no rule.
    """
    return [run_check(rule, name) for rule in load_folder(folder) for name in checks_of(rule)]


def run_check(rule: LoadedRule, test: str) -> CheckResult:
    try:
        message = checks_of(rule)[test]()
    except OnnxoptError as error:
        message = str(error)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
    return CheckResult(rule.name, test, not message, message)


def checks_of(rule: LoadedRule) -> dict[str, Callable[[], str]]:
    """The tests of a rule by name; each returns what went wrong, or nothing."""
    tests: dict[str, Callable[[], str]] = {
        "it has a page": partial(_has_page, rule),
        "an example fires": partial(_some_example_fires, rule),
        "optional inputs are seen present and absent": partial(_optional_inputs, rule),
    }
    for number, example in enumerate(rule.rule.examples, 1):
        name = f"example {number}"
        tests[f"{name} is rewritten as it says"] = partial(_as_it_says, rule, example)
        tests[f"{name} keeps its outputs"] = partial(_keeps_outputs, rule, example)
        for kind in KINDS:
            tests[f"{name} keeps its outputs with other {kind}"] = partial(
                _variants_keep_outputs, rule, example, kind
            )
    return tests


def _has_page(rule: LoadedRule) -> str:
    return "" if rule.summary.endswith(".") else "the file has no docstring, or no first sentence"


def _some_example_fires(rule: LoadedRule) -> str:
    fires = any(example.after is not None for example in rule.rule.examples)
    return "" if fires else "no example has an 'after'"


def parse(text: str) -> onnx.ModelProto:
    """The model of an example.

    Raises:
        BadModelError: it is not ONNX text.
    """
    try:
        return onnx.parser.parse_model(text)
    except onnx.parser.ParseError as error:
        raise BadModelError(f"an example is not ONNX text: {error}") from None


def rewritten(rule: LoadedRule, proto: onnx.ModelProto) -> tuple[Model, list[Change]]:
    """The model after the rule, and what it did.

    Raises:
        CheckError: the code of the rule raised an exception.
    """
    model = Model.from_proto(proto)
    infer(model)
    ledger = Ledger()
    ApplyRules((rule,), infer)(model, ledger)
    for declined in ledger.declined:
        if declined.what.startswith(FAILED):
            raise CheckError(f"at the {declined.site} {declined.what}")
    return model, ledger.changes


def _as_it_says(rule: LoadedRule, example: Example) -> str:
    result, changes = rewritten(rule, parse(example.before))
    if example.after is None:
        return f"it fires: {changes[0].what}" if changes else ""
    if not changes:
        return "it does not fire"
    after = parse(example.after)
    if found := difference(result.graph, Model.from_proto(after).graph):
        return f"the result is not 'after': {found}"
    again = rewritten(rule, after)[1]
    return f"it fires again on its result: {again[0].what}" if again else ""


def _keeps_outputs(rule: LoadedRule, example: Example) -> str:
    proto = parse(example.before)
    Session(proto, threads=1)  # an example must run
    return _judge(rule, proto, proto)


def _variants_keep_outputs(rule: LoadedRule, example: Example, kind: str) -> str:
    base = parse(example.before)
    for what, proto in KINDS[kind](base):
        if message := _judge(rule, proto, base):
            return f"{what}: {message}"
    return ""


def _judge(rule: LoadedRule, proto: onnx.ModelProto, base: onnx.ModelProto) -> str:
    """What the rule does wrong to a model; empty if nothing, or if it is not a model that runs.

    Args:
        base: the example it was made from: sizes that it does not declare are those of the example.
    """
    try:
        result, changes = rewritten(rule, proto)
    except BadModelError:
        return ""
    except CheckError as error:
        return str(error) if _loads(proto) else ""
    if not changes:
        return ""
    made = result.to_proto()
    if _signature(made) != _signature(proto):
        return "it changes the inputs or outputs"
    if len(made.graph.node) > len(proto.graph.node):
        return "it adds nodes"
    try:
        session = Session(proto, threads=1)
    except OnnxoptError:
        return ""
    candidate: Session | None = None
    known = {port.name: port.dims for port in model_inputs(base)}
    for draw, size in enumerate(SIZES):
        special = rule.numerics == "exact" and draw > 0
        inputs = feeds(session, shapes(session, known, size), draw, special=special)
        try:
            before = session.run(inputs)
        except OnnxoptError:
            continue
        candidate = candidate or Session(made, threads=1)
        after = candidate.run(inputs)
        if found := worst(before, after, rule.numerics):
            return f"{found} ({changes[0].what})"
    return ""


def _loads(proto: onnx.ModelProto) -> bool:
    try:
        Session(proto, threads=1)
    except OnnxoptError:
        return False
    return True


def _signature(proto: onnx.ModelProto) -> tuple[list[bytes], list[bytes]]:
    inputs, outputs = proto.graph.input, proto.graph.output
    return [i.SerializeToString() for i in inputs], [o.SerializeToString() for o in outputs]


def _optional_inputs(rule: LoadedRule) -> str:
    """Over the examples and what is made of them, the rewrite sees each of them both ways."""
    wanted = {n for n, p in rule.parameters.items() if p.optional}
    missing = {(name, given) for name in wanted for given in (True, False)}
    for proto in _all_models(rule):
        if not missing:
            break
        try:
            missing -= _seen(rule, proto)
        except BadModelError:
            continue
    gaps = sorted(f"'{name}' {'present' if given else 'absent'}" for name, given in missing)
    return f"no example has {', '.join(gaps)}" if gaps else ""


def _all_models(rule: LoadedRule) -> Iterator[onnx.ModelProto]:
    examples = [parse(example.before) for example in rule.rule.examples]
    yield from examples
    for proto in examples:
        for kind in ("operands", "more operands", "opsets"):
            yield from (made for _, made in KINDS[kind](proto))


def _seen(rule: LoadedRule, proto: onnx.ModelProto) -> set[tuple[str, bool]]:
    """Which inputs of a pattern that fits somewhere are there, and which are not."""
    model = Model.from_proto(proto)
    infer(model)
    seen: set[tuple[str, bool]] = set()
    for pattern in rule.patterns:
        for node in model.graph.nodes:
            if node.op == pattern.root.op_type:
                match = find_match(pattern, rule.parameters, node, sole=False)
                if isinstance(match, Match):
                    seen |= {
                        (n, v is not None) for n, v in match.values.items() if n in pattern.names
                    }
    return seen
