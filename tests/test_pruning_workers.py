"""Pieces of work over threads: the order, the bound, errors, and the same model for any number."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from judge import REPOSITORY

from onnxopt.calibration import Calibration, load_calibration
from onnxopt.errors import UsageError
from onnxopt.pruning.analysis import analyse
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.prune import Budget, Pruner, prune
from onnxopt.pruning.workers import in_order
from onnxopt.signature import model_inputs

MODELS = REPOSITORY / "models"


def digits(name: str, samples: int) -> tuple[onnx.ModelProto, Calibration]:
    proto = onnx.load(str(MODELS / f"{name}.onnx"))
    file = Path(MODELS / f"{name}_calibration.npz")
    return proto, load_calibration(file, model_inputs(proto), samples=samples)


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_results_come_in_the_order_of_the_pieces(workers: int) -> None:
    assert list(in_order(lambda n: n * n, range(20), workers)) == [n * n for n in range(20)]
    assert list(in_order(lambda n: n, [], workers)) == []


def test_so_many_pieces_are_under_way_at_once_and_no_more_are_drawn() -> None:
    together = threading.Barrier(3, timeout=60)
    drawn: list[int] = []

    def pieces() -> Iterator[int]:
        for number in range(9):
            drawn.append(number)
            yield number

    def piece(number: int) -> int:
        together.wait()  # breaks unless three are here at once
        return number

    for number in in_order(piece, pieces(), 3):
        assert len(drawn) <= number + 3


@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_piece_that_fails_tells_and_no_other_begins(workers: int) -> None:
    begun: list[int] = []

    def piece(number: int) -> int:
        begun.append(number)
        if number >= 2:
            raise ValueError(f"piece {number}")
        return number

    with pytest.raises(ValueError, match="piece 2"):
        list(in_order(piece, range(100), workers))
    assert len(begun) <= 2 + workers


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.filterwarnings("error")
def test_what_the_caller_does_not_want_to_hear_of_floats_workers_do_not_say(workers: int) -> None:
    with np.errstate(all="ignore"):
        found = list(in_order(lambda x: np.float32(x) / np.float32(0), range(1, 5), workers))
    assert np.isinf(found).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("digits_resnet", PruneOptions()),
        ("digits_resnet", PruneOptions(criterion="admm", compensation="scale")),
        ("digits_transformer", PruneOptions(compensation="none")),
    ],
    ids=["resnet", "admm", "transformer"],
)
def test_the_model_is_the_same_to_the_byte_for_any_number_of_workers(
    name: str, options: PruneOptions
) -> None:
    proto, samples = digits(name, 50)
    made = [
        prune(proto, Budget("flops", 0.6), samples, options, workers=n).model.SerializeToString()
        for n in (1, 2, 3)
    ]
    assert made[0] == made[1] == made[2]


def test_what_is_known_of_groups_is_the_same_to_the_bit_for_any_number_of_workers() -> None:
    proto, samples = digits("digits_resnet", 50)
    found = []
    for workers in (1, 2, 5):
        pruner = Pruner(proto, samples, workers=workers)
        analysis = pruner.analysis("flops")
        found.append([a.tobytes() for a in analysis.lost])
        found[-1] += [t.tobytes() for r in analysis.rankings for x in r.trials for t in x.values()]
    assert found[0] == found[1] == found[2]


def test_progress_never_goes_back_within_a_stage() -> None:
    proto, samples = digits("digits_resnet", 50)
    told: list[tuple[str, float]] = []
    pruner = Pruner(proto, samples)
    analyse(
        pruner.base,
        pruner.batches,
        pruner.options,
        has_samples=True,
        tell=lambda stage, done: told.append((stage, done)),
        workers=3,
    )
    for stage in ("looking at samples", "ordering channels", "measuring sensitivity"):
        shares = [done for said, done in told if said == stage]
        assert len(shares) > 3 and shares == sorted(shares) and shares[-1] == 1


def test_no_workers_are_refused() -> None:
    proto, samples = digits("digits_resnet", 40)
    with pytest.raises(UsageError, match="0 workers are too few"):
        prune(proto, Budget("flops", 0.5), samples, workers=0)
