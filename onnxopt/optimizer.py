"""Run the passes on a model, verify the result, and take back what verification finds guilty."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxopt.changes import Change, Ledger, Numerics
from onnxopt.cost import cost_of
from onnxopt.errors import CheckError, UnverifiableError, UsageError
from onnxopt.external import size_bytes
from onnxopt.fixed_shapes import fix_shapes
from onnxopt.model import Model
from onnxopt.passes import Pass, lossless_passes, pass_names
from onnxopt.passes.apply_rules import ApplyRules
from onnxopt.passes.input_layout import InputLayout
from onnxopt.passes.remove_dead import RemoveDead
from onnxopt.report import Report, Verification, versions
from onnxopt.rewriting.rulebook import LoadedRule, load_rules
from onnxopt.shapes import infer
from onnxopt.validity import complaint
from onnxopt.verification.userdata import load_user_data
from onnxopt.verification.verify import Verdict, Verifier

Progress = Callable[[str, float], None]
"""Called with what is being done and how much of it is done, 0 to 1."""

SMALLEST_GROWTH_BYTES = 64 * 1024
MOST_ROUNDS = 50
MOST_WITHDRAWN = 20
"""Guilty rewrites that are searched for one by one before giving up."""

MOST_OF_ONE_RULE = 3
"""After so many guilty rewrites of one rule, all of its rewrites are taken back."""


@dataclass(frozen=True)
class Options:
    """How to optimize; the defaults are what the command does without options.

    Attributes:
        rules_dirs: folders with more rules (they are run as code).
        skip, only: names of rules and passes.
        set_shapes: fixed dimensions by input name.
        input_layouts: the layout that an input shall have from now on, such as "nchw".
        freeze_inputs: initializers that are also inputs count as constants.
        verify_data: samples to verify with besides the drawn ones (.npz or a folder).
        allow_unverified: return a model that ONNX Runtime cannot run here.
        allow_growth: fraction by which the file may grow (64 KB are always allowed).
    """

    rules_dirs: tuple[Path, ...] = ()
    skip: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    set_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    input_layouts: Mapping[str, str] = field(default_factory=dict)
    freeze_inputs: bool = False
    verify: bool = True
    verify_data: Path | None = None
    allow_unverified: bool = False
    allow_growth: float = 0.01


@dataclass(frozen=True)
class Optimized:
    """The optimized model and the report on it."""

    model: onnx.ModelProto
    report: Report


@dataclass(frozen=True)
class Attempt:
    """What one run of the passes made, and its books."""

    proto: onnx.ModelProto
    ledger: Ledger
    model: Model


def optimize(
    proto: onnx.ModelProto,
    options: Options = Options(),
    *,
    source: str = "",
    progress: Progress | None = None,
) -> Optimized:
    """Make the model smaller and faster, and prove that it still does the same.

    Args:
        proto: the model; it is not changed.
        source: its file name, for the report.

    Raises:
        UsageError: unknown rule, pass, input or layout.
        BadModelError: the model is not valid.
        UnverifiableError: ONNX Runtime cannot run it here, and options do not allow that.
        CheckError: verification fails and no rewrite can be found guilty.
    """
    tell = progress or (lambda stage, done: None)
    reference = _reference(proto, options)
    runner = _Runner(reference, options, _chosen_passes(options, size_bytes(reference)))
    tell("reading", 0.0)
    before = cost_of(proto)
    verifier, notes = _verifier(runner, options, tell)
    tell("rewriting", 0.0)
    attempt, verdict, withdrawn = runner.run(verifier, tell)
    notes = (*notes, *_about_overridable(attempt.model))
    if withdrawn:
        notes = (*notes, f"{len(withdrawn)} rewrites were taken back after verification")
    report = Report(
        source=source,
        output=None,
        before=before,
        after=cost_of(attempt.proto),
        changes=tuple(attempt.ledger.changes),
        declined=tuple(attempt.ledger.declined),
        withdrawn=withdrawn,
        verdict=verdict,
        verification=_verification(options, verdict),
        notes=(*notes, *attempt.model.notes),
        versions=versions(),
    )
    return Optimized(attempt.proto, report)


def explain(proto: onnx.ModelProto, options: Options = Options()) -> tuple[Change, ...]:
    """Rewrites that matched and were not made, each with the reason."""
    reference = _reference(proto, options)
    runner = _Runner(reference, options, _chosen_passes(options, size_bytes(reference)))
    return tuple(runner.attempt({}).ledger.declined)


def _reference(proto: onnx.ModelProto, options: Options) -> onnx.ModelProto:
    """The model under the signature that the options ask for; all else is as it was."""
    made = fix_shapes(proto, options.set_shapes) if options.set_shapes else proto
    if options.freeze_inputs:
        made = Model.from_proto(made, freeze_inputs=True).to_proto()
    return made


def _about_overridable(model: Model) -> Iterator[str]:
    """What keeps weights from being folded, where a caller might give other ones."""
    count = sum(constant.overridable for constant in model.graph.initializers)
    if count:
        yield (
            f"{count} initializers are also inputs, which callers may override, so they do not "
            "count as constants; --freeze-inputs says that nobody does"
        )


def _verification(options: Options, verdict: Verdict | None) -> Verification:
    if verdict is not None:
        return "verified"
    return "impossible" if options.verify else "skipped"


def _verifier(
    runner: _Runner, options: Options, tell: Progress
) -> tuple[Verifier | None, tuple[str, ...]]:
    if not options.verify:
        return None, ("not verified: --no-verify",)
    try:
        data = None
        if options.verify_data is not None:
            data = load_user_data(options.verify_data)
        return Verifier(runner.proto, user_data=data, progress=lambda line: tell(line, 0.0)), ()
    except UnverifiableError as error:
        if not options.allow_unverified:
            raise
        return None, (f"NOT VERIFIED: {error.what}",)


def _chosen_passes(options: Options, size_bytes: int) -> tuple[Pass, ...]:
    """The passes that run, `--skip` and `--only` applied.

    Raises:
        UsageError: a name that no rule or pass has.
    """
    rules = load_rules(options.rules_dirs)
    growth = max(SMALLEST_GROWTH_BYTES, int(options.allow_growth * size_bytes)) // 2
    passes = lossless_passes(rules, growth)
    known = [*pass_names(passes), *(rule.name for rule in rules)]
    for name in (*options.skip, *options.only):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "see `onnxopt rules`"
            raise UsageError(f"there is no rule or pass named '{name}'", hint)
    chosen = tuple(p for p in (_narrowed(p, options, rules) for p in passes) if p is not None)
    if options.input_layouts:
        return (InputLayout(dict(options.input_layouts)), *chosen)
    return chosen


def _narrowed(item: Pass, options: Options, rules: tuple[LoadedRule, ...]) -> Pass | None:
    """The pass as far as the options want it, or None."""
    if item.name in options.skip:
        return None
    if not isinstance(item, ApplyRules):
        # Whatever else is asked for, what it leaves unread goes.
        wanted = not options.only or item.name in options.only or isinstance(item, RemoveDead)
        return item if wanted else None
    kept = tuple(
        rule
        for rule in rules
        if rule.name not in options.skip
        and (not options.only or rule.name in options.only or item.name in options.only)
    )
    return replace(item, rules=kept) if kept else None


@dataclass
class _Runner:
    """Runs the passes on copies of one model, under ledgers that grant more or less."""

    proto: onnx.ModelProto
    options: Options
    passes: tuple[Pass, ...]
    broken: dict[str, str] = field(default_factory=dict)

    @cached_property
    def is_valid(self) -> bool:
        return complaint(self.proto) is None

    def attempt(self, withdrawn: Mapping[tuple[str, str], str], fuel: int | None = None) -> Attempt:
        """One run of all passes, again and again until none changes anything.

        A pass that fails is a bug of ours: it is left out, which the notes say, and the run starts
        again from the file.
        """
        while True:
            model = Model.from_proto(self.proto)
            ledger = Ledger(fuel=fuel, withdrawn=dict(withdrawn))
            failed = self._run_passes(model, ledger)
            if failed is None:
                break
        model.notes += [
            f"the pass {name} failed and was left out; please report this: {why}"
            for name, why in self.broken.items()
        ]
        return Attempt(model.to_proto() if ledger.changes else self.proto, ledger, model)

    def _run_passes(self, model: Model, ledger: Ledger) -> str | None:
        """The name of the pass that failed, or None."""
        for _ in range(MOST_ROUNDS):
            before = len(ledger.changes)
            infer(model)
            for item in self.passes:
                if item.name in self.broken:
                    continue
                count = len(ledger.changes)
                try:
                    item(model, ledger)
                    if len(ledger.changes) > count:
                        infer(model)
                except (UsageError, MemoryError):
                    raise
                except Exception as error:
                    self.broken[item.name] = f"{type(error).__name__}: {error}"
                    return item.name
            if len(ledger.changes) == before:
                return None
        model.notes.append(f"passes did not come to rest within {MOST_ROUNDS} rounds")
        return None

    def run(
        self, verifier: Verifier | None, tell: Progress
    ) -> tuple[Attempt, Verdict | None, tuple[Change, ...]]:
        """The run whose result is right, its verdict, and the rewrites that were taken back."""
        withdrawn: dict[tuple[str, str], str] = {}
        guilty: list[Change] = []
        while True:
            attempt = self._within_size(self.attempt(withdrawn), withdrawn)
            if verifier is None:
                return attempt, None, tuple(guilty)
            tell("verifying", 0.0)
            verdict = self._judge(attempt, attempt.ledger.numerics, verifier)
            if verdict.passed:
                return attempt, verdict, tuple(guilty)
            if not attempt.ledger.changes or len(guilty) >= MOST_WITHDRAWN:
                raise CheckError(
                    f"verification failed: {verdict.summary()}",
                    "nothing was written; please report this model, and try --skip or --only",
                )
            found = self._find_guilty(attempt, verifier, withdrawn, tell)
            reason = f"taken back, the outputs differed: {verdict.summary()}"
            guilty.append(replace(found, what=reason, done=False))
            withdrawn[found.by, found.site] = reason
            if sum(change.by == found.by for change in guilty) >= MOST_OF_ONE_RULE:
                withdrawn[found.by, "*"] = f"taken back after {MOST_OF_ONE_RULE} wrong results"

    def _judge(self, attempt: Attempt, numerics: Numerics, verifier: Verifier) -> Verdict:
        """Right: outputs as before, and a file that onnx.checker likes as well as the original."""
        if self.is_valid and (why := complaint(attempt.proto)) is not None:
            return Verdict(False, numerics, reason=f"the result is not valid: {why}")
        permutations = attempt.model.input_permutations
        return verifier.check(attempt.proto, numerics, adapt=_transposer(permutations))

    def _find_guilty(
        self,
        failed: Attempt,
        verifier: Verifier,
        withdrawn: Mapping[tuple[str, str], str],
        tell: Progress,
    ) -> Change:
        """The first rewrite with which the outputs differ, by bisection over how many are made."""
        numerics = failed.ledger.numerics
        right, wrong = 0, len(failed.ledger.changes)
        steps = max(wrong.bit_length(), 1)
        last = failed
        while wrong - right > 1:
            tell("finding the wrong rewrite", 1 - (wrong - right).bit_length() / steps)
            middle = (right + wrong) // 2
            part = self.attempt(withdrawn, fuel=middle)
            if self._judge(part, numerics, verifier).passed:
                right = middle
            else:
                wrong, last = middle, part
        return last.ledger.changes[wrong - 1]

    def _within_size(self, attempt: Attempt, withdrawn: dict[tuple[str, str], str]) -> Attempt:
        """The promise on the size of the file; growing rewrites are given up to keep it."""
        before, after = size_bytes(self.proto), size_bytes(attempt.proto)
        limit = before + max(int(self.options.allow_growth * before), SMALLEST_GROWTH_BYTES)
        if after <= limit:
            return attempt
        everything = {change.by for change in attempt.ledger.changes}
        for names in ({"fold-constants"}, {"fold-shapes", "cancel-transposes"}, everything):
            for name in sorted(names):
                withdrawn[name, "*"] = f"the file would grow from {before:,} to {after:,} bytes"
            attempt = self.attempt(withdrawn)
            if size_bytes(attempt.proto) <= limit:
                break
        return attempt


def _transposer(
    permutations: Mapping[str, tuple[int, ...]],
) -> Callable[[Mapping[str, Any]], Mapping[str, Any]] | None:
    """Makes the inputs of a model whose inputs were transposed from those of the original."""
    if not permutations:
        return None
    return lambda feeds: {
        name: np.transpose(value, permutations[name]) if name in permutations else value
        for name, value in feeds.items()
    }
