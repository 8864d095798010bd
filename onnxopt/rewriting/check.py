"""Check rules by their examples and by hundreds of models made from these."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.helper
import onnx.parser

from onnxopt.changes import Change, Ledger, Numerics
from onnxopt.comparison import distance, is_floating, wide
from onnxopt.element_types import ulp
from onnxopt.errors import BadModelError, CheckError, OnnxoptError
from onnxopt.graph import Array
from onnxopt.model import Model
from onnxopt.passes.apply_rules import ApplyRules
from onnxopt.rewriting.isomorphism import difference
from onnxopt.rewriting.match import Match, find_match
from onnxopt.rewriting.rule import Example
from onnxopt.rewriting.rulebook import LoadedRule, load_folder
from onnxopt.rewriting.variants import KINDS
from onnxopt.runtime import Session
from onnxopt.shapes import infer
from onnxopt.signature import Port, model_inputs

FAILED = "the rule failed"
"""How ApplyRules begins to say that the code of a rule raised an exception."""

ROUNDINGS = 32
"""What a rule that declares 'rounding' may be off by, in units of the largest output."""

SIZES = (None, 1, 3, 0)
"""Of symbolic dimensions: 2, 3, 4 ... in order of appearance, all 1, all 3, all empty."""

Dims: TypeAlias = tuple[int | str | None, ...]


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
    return [run_test(rule, name) for rule in load_folder(folder) for name in tests_of(rule)]


def run_test(rule: LoadedRule, test: str) -> CheckResult:
    try:
        message = tests_of(rule)[test]()
    except OnnxoptError as error:
        message = str(error)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
    return CheckResult(rule.name, test, not message, message)


def tests_of(rule: LoadedRule) -> dict[str, Callable[[], str]]:
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
        shapes = _shapes(session, known, size)
        feeds = _feeds(session, shapes, draw, special=rule.numerics == "exact" and draw > 0)
        try:
            before = session.run(feeds)
        except OnnxoptError:
            continue
        candidate = candidate or Session(made, threads=1)
        after = candidate.run(feeds)
        if found := _worst(before, after, rule.numerics):
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


def _shapes(
    session: Session, known: dict[str, Dims | None], size: int | None
) -> dict[str, list[int]]:
    """A shape for each input: what it declares, else what the example declares."""
    symbols: dict[str, int] = {}
    shapes: dict[str, list[int]] = {}
    for port in (*session.inputs, *session.overridable):
        base = known.get(port.name) or ()
        dims = port.dims if port.dims is not None else base
        shapes[port.name] = []
        for axis, dim in enumerate(dims):
            if not isinstance(dim, int) and len(base) == len(dims):
                dim = base[axis]
            if not isinstance(dim, int):
                symbol = dim or f"{port.name}#{axis}"
                dim = size or symbols.setdefault(symbol, 2 + len(symbols))
            shapes[port.name].append(dim)
    return shapes


def _feeds(
    session: Session, shapes: dict[str, list[int]], draw: int, *, special: bool
) -> dict[str, Array]:
    """Random inputs; those that may be left out, overriding an initializer, are given as well."""
    feeds: dict[str, Array] = {}
    for port in (*session.inputs, *session.overridable):
        rng = np.random.default_rng(zlib.crc32(f"{port.name} {draw}".encode()))
        feeds[port.name] = _numbers(port, shapes[port.name], rng, special=special)
    return feeds


def _numbers(port: Port, shape: list[int], rng: np.random.Generator, *, special: bool) -> Array:
    dtype = port.dtype
    if dtype.kind == "O":
        words = np.array(["", "a", "B c", "é"], dtype=object)
        return np.asarray(rng.choice(words, shape), dtype=object).reshape(shape)
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    if dtype.kind in "iu":
        return np.asarray(rng.integers(0 if dtype.kind == "u" else -5, 6, shape)).astype(dtype)
    numbers = np.asarray(rng.standard_normal(shape) * 3)
    if special:
        odd = rng.choice(np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 0.5, -2.5, 1e30]), shape)
        numbers = np.where(rng.random(shape) < 0.4, odd, numbers)
    with np.errstate(over="ignore"):
        return np.asarray(numbers).astype(dtype)


def _worst(before: dict[str, Any], after: dict[str, Any], numerics: Numerics) -> str:
    for name, ours in before.items():
        theirs = after[name]
        if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
            shapes = f"{ours.dtype}{list(ours.shape)} became {theirs.dtype}{list(theirs.shape)}"
            return f"'{name}' {shapes}"
        if numerics == "exact":
            if not _same_bits(ours, theirs):
                return f"'{name}' is not the same bit for bit"
        elif (error := _error(ours, theirs)) > _allowed(ours):
            return f"'{name}' is off by {error:.3g}"
    return ""


def _error(before: Array, after: Array) -> float:
    """The largest error; not where the model overflows, which another order may well avoid."""
    error = distance(before, after)
    if is_floating(before):
        error = error[np.isfinite(wide(before))]
    return float(error.max(initial=0.0))


def _allowed(array: Array) -> float:
    if not is_floating(array):
        return 0.0
    numbers = np.abs(wide(array))
    largest = float(numbers[np.isfinite(numbers)].max(initial=1.0))
    return ROUNDINGS * ulp(int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))) * largest


def _same_bits(a: Array, b: Array) -> bool:
    """Equal, zeros of the same sign, NaN wherever the other is."""
    if not is_floating(a):
        return bool((a == b).all())
    x, y = wide(a), wide(b)
    return bool(
        np.array_equal(x, y, equal_nan=True) and (np.signbit(x) == np.signbit(y))[x == 0].all()
    )


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
