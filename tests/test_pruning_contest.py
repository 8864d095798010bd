"""Ways to prune that compete: of those within the budget the one with the least error wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from digits import digits, digits_samples
from test_pruning_depth import FLOPS, QUICK, pruner

from onnxopt.errors import UsageError
from onnxopt.pruning import contest
from onnxopt.pruning.analysis import Tell
from onnxopt.pruning.budget import Budget
from onnxopt.pruning.cache import NOWHERE, Cache, Pieces
from onnxopt.pruning.contest import (
    JUDGING,
    MOST_TRIED,
    Contest,
    Entry,
    Result,
    _next,
    apart,
    least_error,
)
from onnxopt.pruning.depth import LIKELY, choose_blocks
from onnxopt.pruning.dropping import chosen
from onnxopt.pruning.prune import Pruner
from onnxopt.pruning.remarks import of_contest
from onnxopt.pruning.rounds import Rounds
from onnxopt.pruning.samples import Batch


def to(share: float, *, is_met: bool = True) -> Entry:
    """Cuts channels to this share of the FLOPs."""

    def carry_out(rounds: Rounds) -> bool:
        rounds.choose_and_cut(FLOPS, share * FLOPS.of(rounds.base))
        return is_met

    return carry_out


def impossible(rounds: Rounds) -> bool:
    raise UsageError("it cannot be met", "ask for less")


def begin(batches: Sequence[Batch], tell: Tell) -> Rounds:
    found = pruner()
    return Rounds(found.base, found.options, batches, True, tell, found.analysis("latency"))


def winner(entries: dict[str, Entry], saved: Pieces = NOWHERE) -> str:
    given = begin, pruner().batches, saved, lambda stage, done: None
    return least_error(entries, next(iter(entries)), *given).winner


def test_the_entry_that_leaves_the_least_error_wins_wherever_it_stands() -> None:
    assert winner({"much": to(0.5), "little": to(0.9)}) == "little"
    assert winner({"little": to(0.9), "much": to(0.5)}) == "little"


def test_an_entry_that_misses_its_budget_loses_to_one_that_meets_it() -> None:
    assert winner({"missed": to(0.9, is_met=False), "met": to(0.5)}) == "met"
    assert winner({"refused": impossible, "met": to(0.5)}) == "met"
    assert winner({"refused": impossible, "missed": to(0.9, is_met=False)}) == "missed"


def test_of_entries_that_cannot_be_told_apart_the_last_wins_if_that_is_the_simplest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contest, "JUDGING", 2)  # more batches
    alike = {"one": to(0.9), "other": to(0.9), "worse": to(0.5)}
    given = next(iter(alike)), begin, pruner().batches, NOWHERE, lambda stage, done: None
    found = least_error(alike, *given, simplest_last=True)
    assert found.winner == "other"
    errors = {name: result.error or 0.0 for name, result in found.results.items()}
    assert 0 < errors["one"] == errors["other"] < errors["worse"]
    assert least_error(alike, *given).winner == "one"
    monkeypatch.setattr(contest, "FEWEST_PARTS", 99)
    assert least_error(alike, *given, simplest_last=True).winner == "one"


def test_a_difference_counts_if_it_is_larger_than_its_standard_error() -> None:
    even = [2.0] * 8
    best = Result(False, 2.0, even)

    def other(error: float, apart: float) -> Result:
        return Result(False, error, [error + apart * (-1) ** part for part in range(8)])

    assert other(2.02, 0.01).is_as_good_as(best)  # standard error 0.026
    assert not other(2.03, 0.01).is_as_good_as(best)
    assert not Result(True, 2.0, even).is_as_good_as(best)
    assert not Result(False).is_as_good_as(best) and not Result(False).is_as_good_as(Result(False))
    assert not Result(False, 2.0).is_as_good_as(Result(False, 2.0))


def test_the_standard_error_is_that_of_the_mean_of_all_samples() -> None:
    """For means the jackknife is the usual formula."""
    rng = np.random.default_rng(0)
    worse = rng.normal(1, 3, 8)
    usual = float(np.std(worse, ddof=1) / np.sqrt(8))
    best = Result(False, 5.0, [5.0] * 8)
    for share, is_alike in ((0.99, True), (1.01, False)):
        moved = worse - worse.mean() + share * usual
        without = [5.0 + (moved.sum() - each) / 7 for each in moved]
        assert Result(False, 5.0 + share * usual, without).is_as_good_as(best) == is_alike


def test_errors_are_shares_of_what_all_samples_vary_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part whose outputs are all but even would otherwise decide alone."""
    values = (0.01, 0.01, 0.01, 0.01, 100, 0.01, 0.01, 0.01)
    reference = [{"y": np.array([[0], [value]], np.float32)} for value in values]

    class Outputs:
        def __init__(self, off: Sequence[float], *given: object, **named: object) -> None:
            self.off = off

        def finish(self) -> list[Batch]:
            return [{"y": b["y"] + o} for b, o in zip(reference, self.off, strict=True)]

    def error_of(off: Sequence[float]) -> float:
        done = begin(pruner().batches, lambda stage, done: None)
        done.base, done.pruned = [0.0] * 8, off  # type: ignore[assignment]
        found = contest._carried_out(lambda rounds: True, done, pruner().batches)
        assert found.error is not None and len(found.without) == 8
        return found.error

    monkeypatch.setattr(contest, "Stepper", Outputs)
    assert error_of([1.0] * 8) < error_of([0.5] * 4 + [9.0] + [0.5] * 3)


def test_one_entry_wins_without_being_carried_out() -> None:
    assert winner({"alone": impossible}) == "alone"


def test_errors_that_are_kept_are_not_found_again(tmp_path: Path) -> None:
    saved = Cache(tmp_path).pieces("contest", 1)
    assert winner({"much": to(0.5), "little": to(0.9)}, saved) == "little"
    assert winner({"much": impossible, "little": impossible}, saved) == "little"


@pytest.mark.parametrize("sizes", [[32], [32, 32], [32] * 5, [8] * 3, [2000, 2000], [32] * 200])
def test_what_judges_takes_no_part_in_the_pruning(sizes: list[int]) -> None:
    batches = [{"x": np.zeros((size, 1), np.float32)} for size in sizes]
    fitted, judging = apart(batches)
    shared = {id(b) for b in fitted} & {id(b) for b in judging}
    assert bool(shared) == (len(sizes) == 1)
    assert fitted and sum(len(b["x"]) for b in judging) >= min(1024, sum(sizes) // JUDGING)
    assert sum(len(b["x"]) for b in fitted) <= max(512, sizes[0])
    assert sum(len(b["x"]) for b in judging) <= max(1024, sizes[0])


@pytest.mark.parametrize("count", [1, 2, 3, 7, 15])
@pytest.mark.parametrize("seed", range(5))
def test_of_many_entries_in_a_row_those_around_the_best_are_tried(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    best, first = rng.integers(count, size=2).tolist()
    found: dict[int, Result] = {}
    while (place := _next(found, count, first)) is not None:
        assert place not in found
        found[place] = Result(False, abs(place - best))
    assert len(found) <= MOST_TRIED and {first, 0, count - 1} <= set(found)
    assert min(result.order[1] for result in found.values()) <= (0 if count <= 7 else 1)


def test_what_was_tried_is_told_with_its_errors_and_which_one_is_taken() -> None:
    results = {"a": Result(True, 0.1), "b": Result(False, 0.0123456), "c": Result(False)}
    results["d"] = Result(True)
    (note,) = of_contest(Contest("b", results))
    assert note.startswith("tried with some of the samples")
    assert note.endswith(
        "a 0.1 misses the budget, b 0.0123 (taken), c nothing tells, d misses the budget"
    )
    assert not [*of_contest(Contest("alone", {}))] and not [*of_contest(None)]


def test_the_notes_of_a_pruned_model_tell_of_the_sets_of_blocks_that_were_tried() -> None:
    found = doubtful(0.1).at(Budget("flops", 0.3))
    (note,) = [note for note in found.notes if note.startswith("tried with")]
    (depth,) = [done.depth for done in found.rounds if done.depth is not None]
    taken = note.partition(" (taken)")[0].rpartition("without ")[2]
    assert int(taken.split()[0]) == len(depth.gone)


def doubtful(scale: float) -> Pruner:
    """Blocks of which too little harm is expected, so that several sets are as likely."""
    found = Pruner(digits(), digits_samples(64), QUICK, workers=1)
    found.approach("flops").ways = {
        block: tuple(replace(way, damage=scale * way.damage) for way in ways)
        for block, ways in found.approach("flops").ways.items()
    }
    return found


def test_rivals_are_as_likely_as_they_must_be_and_differ_in_their_number_of_blocks() -> None:
    found = doubtful(0.1)
    for share in (0.5, 0.3):
        target = share * FLOPS.of(found.base)
        sets = choose_blocks(
            found.analysis("flops"), found.approach("flops").ways, FLOPS, target, QUICK
        )
        counts = [len(each.ways) for each in sets]
        assert len(set(counts)) == len(counts) > 1
        assert all(each.value.damage <= LIKELY * sets[0].value.damage for each in sets)
        assert all(each.value.order >= sets[0].value.order for each in sets)


def test_which_set_wins_does_not_depend_on_which_was_expected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = doubtful(0.1)
    meter = found.meter("flops")
    target = 0.3 * meter.of(found.base)
    first, _ = found.approach("flops").blocks(meter, target)
    sets = chosen(
        found.analysis("flops"), found.approach("flops").ways, meter, target, QUICK, found.tell
    )
    assert len(sets) > 1 and set(first.ways) != set(sets[0].ways)
    monkeypatch.setattr("onnxopt.pruning.approach.chosen", lambda *given: chosen(*given)[::-1])
    assert found.approach("flops").blocks(meter, target)[0].ways == first.ways
