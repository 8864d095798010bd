"""The cache of pruning: what it gives back, what it never gives, and runs that are interrupted."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from cuts import weighted
from judge import REPOSITORY

import onnxopt
from onnxopt.calibration import Calibration
from onnxopt.cli.main import run
from onnxopt.errors import UsageError
from onnxopt.pruning import cache as cache_module
from onnxopt.pruning import job
from onnxopt.pruning.cache import Cache
from onnxopt.pruning.contest import Result
from onnxopt.pruning.options import PruneOptions
from onnxopt.pruning.prune import Budget, Pruned, Pruner, prune
from onnxopt.pruning.refit import Refit
from onnxopt.signature import model_inputs

MODELS = REPOSITORY / "models"
DIGITS = str(MODELS / "digits_resnet.onnx")
CALIBRATION = MODELS / "digits_resnet_calibration.npz"
HALF = Budget("flops", 0.5)
PIECE: dict[str, Any] = {
    "order": np.arange(5),
    "trials": ({"a/weight": np.array([[1, np.nan]], np.float32), "": np.zeros((0, 3))}, {}),
    "before": 0.1,
    "name": "ä",
    "known": np.bool_(True),
    "nothing": None,
}


def blocks(factor: float = 1.0) -> onnx.ModelProto:
    """Small: two layers with a Relu between, and a residual block."""
    proto = weighted(
        "float[N,3,6,6] x, float[16,3,3,3] w1, float[16,16,3,3] wa, float[16,16,3,3] wb, "
        "float[5,16,1,1] w2",
        "a = Conv<pads=[1,1,1,1]>(x, w1) r = Relu(a) c = Conv<pads=[1,1,1,1]>(r, wa) d = Relu(c)"
        " e = Conv<pads=[1,1,1,1]>(d, wb) f = Add(e, r) b = Relu(f) g = Conv(b, w2)"
        " y = GlobalAveragePool(g)",
    )
    weight = next(t for t in proto.graph.initializer if t.name == "wa")
    array = onnx.numpy_helper.to_array(weight) * np.float32(factor)
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    return proto


def samples_of(proto: onnx.ModelProto, count: int = 60, seed: int = 0) -> Calibration:
    images = np.random.default_rng(seed).standard_normal((count, 3, 6, 6)).astype(np.float32)
    return Calibration.from_arrays({"x": images}, model_inputs(proto))


def pruned(folder: Path | None, options: PruneOptions = PruneOptions(), **others: Any) -> Pruned:
    proto = others.pop("proto", None) or blocks()
    samples = others.pop("samples", None) or samples_of(proto)
    budget = others.pop("budget", HALF)
    return prune(proto, budget, samples, options, cache=folder, **others)


def files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def test_a_piece_comes_back_as_it_was_also_in_another_run(tmp_path: Path) -> None:
    Cache(tmp_path).pieces("some", 1).put("one", PIECE)
    cache = Cache(tmp_path)
    found = cache.pieces("some", 1).get("one")
    assert list(found) == list(PIECE)
    np.testing.assert_array_equal(found["order"], PIECE["order"])
    first, second = found["trials"]
    assert first["a/weight"].tobytes() == PIECE["trials"][0]["a/weight"].tobytes()
    assert first["a/weight"].dtype == np.float32 and first[""].shape == (0, 3) and second == {}
    assert [found[k] for k in ("before", "name", "known", "nothing")] == [0.1, "ä", True, None]
    assert (cache.asked, cache.found) == (1, 1)


def test_a_piece_is_for_its_name_its_key_its_samples_and_its_format_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, other = onnx.load(DIGITS), onnx.load(DIGITS)
    other.graph.name = "other"
    Cache(tmp_path, "samples").pieces("some", model, np.arange(3)).put("one", PIECE)

    def found(kind: str, *key: Any, name: str = "one", samples: str = "samples") -> bool:
        return Cache(tmp_path, samples).pieces(kind, *key).get(name) is not None

    assert found("some", model, np.arange(3))
    assert not found("some", model, np.arange(3), name="two")
    assert not found("others", model, np.arange(3))
    assert not found("some", other, np.arange(3))
    assert not found("some", model, np.arange(3.0))
    assert not found("some", model, np.arange(3), samples="others")
    monkeypatch.setattr(cache_module, "FORMAT", cache_module.FORMAT + 1)
    assert not found("some", model, np.arange(3))


def _cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def _turned(file: Path) -> None:
    """One bit of the data, with a checksum of the archive that fits."""
    with np.load(file) as stored:
        arrays = dict(stored)
    arrays["0"] = arrays["0"] + 1
    np.savez(file, **arrays)


def _pickled(file: Path) -> None:
    file.write_bytes(pickle.dumps({"a": 1}))


def _of_objects(file: Path) -> None:
    np.savez(file, about=np.array([{}], object), digest=np.zeros(32, np.uint8))


def _foreign(file: Path) -> None:
    np.savez(file, x=np.arange(3))


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _forbidden(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "damage",
    [_cut_short, _turned, _pickled, _of_objects, _foreign, _empty, _folder, _pipe, _forbidden],
)
def test_what_is_damaged_or_foreign_is_not_read_and_said(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    Cache(tmp_path).pieces("some").put("one", PIECE)
    (file,) = files(tmp_path)
    damage(file)
    cache = Cache(tmp_path)
    assert cache.pieces("some").get("one") is None
    (note,) = cache.notes()
    assert str(file) in note and "computed again" in note


def test_a_piece_of_another_name_is_not_taken_for_this_one(tmp_path: Path) -> None:
    pieces = Cache(tmp_path).pieces("some")
    pieces.put("one", PIECE)
    (file,) = files(tmp_path)
    file.rename(file.with_name("two.npz"))
    assert pieces.get("two") is None


def test_pieces_that_cannot_be_kept_are_a_note_and_no_error(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    pieces = cache.pieces("some")
    (tmp_path / pieces.key).write_text("a file where the folder should be")
    pieces.put("one", PIECE)
    pieces.put("two", PIECE)
    (note,) = cache.notes()
    assert "could not keep everything" in note


def test_the_folder_may_be_deleted_at_any_time(tmp_path: Path) -> None:
    pieces = Cache(tmp_path / "cache").pieces("some")
    pieces.put("one", PIECE)
    for file in files(tmp_path):
        file.unlink()
        file.parent.rmdir()
    (tmp_path / "cache").rmdir()
    assert pieces.get("one") is None
    pieces.put("one", PIECE)
    assert pieces.get("one") is not None


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UsageError, match="cannot be written to"):
        Cache(file / "below")
    # The model is not even there: the folder comes first.
    given = ["--flops", "0.5", "--cache", str(file)]
    for command in ("prune", "optimize"):
        assert run([command, DIGITS, str(tmp_path / "o.onnx"), *given]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: the cache '{file}' cannot be written to: ")
        assert err.count("\n") == 2


@pytest.mark.parametrize(
    "options",
    [
        PruneOptions(),
        PruneOptions(compensation="scale", strategy="uniform"),
        PruneOptions(criterion="l2", seed=3),
    ],
    ids=["ridge", "scale", "l2"],
)
def test_from_any_part_of_the_cache_comes_the_same_model(
    options: PruneOptions, tmp_path: Path
) -> None:
    expected = pruned(None, options, workers=1).model.SerializeToString()
    first = pruned(tmp_path, options, workers=2)
    assert first.model.SerializeToString() == expected
    assert not any("cache" in note for note in first.notes)
    kept = files(tmp_path)
    rng = np.random.default_rng(0)
    for share in (0.0, 0.3, 0.7):
        for file in kept:
            if rng.random() < share:
                file.unlink(missing_ok=True)
        again = pruned(tmp_path, options, workers=1 if share else 3)
        assert again.model.SerializeToString() == expected
        note = next(note for note in again.notes if "came from the cache" in note)
        if not share:
            assert note.startswith(f"{len(kept)} of {len(kept)} pieces")
        assert files(tmp_path) == kept


def test_another_version_never_takes_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned(tmp_path)
    assert any("came from the cache" in note for note in pruned(tmp_path).notes)
    monkeypatch.setattr(onnxopt, "__version__", "0.0.1")
    assert not any("came from the cache" in note for note in pruned(tmp_path).notes)


def test_what_is_known_of_groups_comes_back_to_the_bit_from_any_part_of_the_cache(
    tmp_path: Path,
) -> None:
    proto = blocks()

    def known(**given: Any) -> list[bytes]:
        some = PruneOptions(reads="some")
        pruner = Pruner(proto, samples_of(proto), some, cache=tmp_path, **given)
        analysis = pruner.analysis("flops")
        found = [array.tobytes() for array in analysis.lost]
        for ranking in analysis.rankings:
            found += [ranking.order.tobytes(), ranking.curve.tobytes()]
            found += [array.tobytes() for trial in ranking.trials for array in trial.values()]
        return found

    expected = known()
    kept = files(tmp_path)
    assert len(kept) == 8  # of two layers what they make and what they read: order, sensitivity
    for file in kept:
        file.unlink()
        assert known(workers=2) == expected
        assert files(tmp_path) == kept
    assert known() == expected


def test_refits_go_on_from_any_layer_to_the_same_weights(tmp_path: Path) -> None:
    """Also from between two layers that are refitted in turns."""
    expected = pruned(tmp_path).model.SerializeToString()
    refits = [file for file in files(tmp_path) if file.parent.name.startswith("refits-")]
    assert len(refits) == 4
    for first in range(len(refits)):
        for file in refits[first:]:
            file.unlink()
        assert pruned(tmp_path).model.SerializeToString() == expected, first


def test_other_options_samples_models_and_budgets_never_take_what_is_kept(tmp_path: Path) -> None:
    pruned(tmp_path)
    proto = blocks(1.5)
    usual = PruneOptions()
    others: Sequence[tuple[PruneOptions, dict[str, Any]]] = [
        (replace(usual, criterion="l1"), {}),
        (replace(usual, criterion="random"), {}),
        (replace(usual, criterion="random", seed=1), {}),
        (replace(usual, compensation="scale"), {}),
        (replace(usual, max_per_group=0.5), {}),
        (replace(usual, strategy="complexity"), {}),
        (usual, {"samples": samples_of(proto, 59)}),
        (usual, {"samples": samples_of(proto, 60, seed=1)}),
        (usual, {"budget": Budget("params", 0.5)}),
        (usual, {"proto": proto}),
    ]
    for options, given in others:
        with_cache = pruned(tmp_path, options, **given)
        without = pruned(None, options, **given)
        assert with_cache.model.SerializeToString() == without.model.SerializeToString(), given


def test_a_preview_is_kept_and_serves_the_run_after_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--calibration", str(CALIBRATION), "--samples", "60", "--cache", str(tmp_path / "c")]
    assert run(["prune", DIGITS, "--dry-run", *given]) == 0
    assert "came from the cache" not in capsys.readouterr().out
    assert run(["prune", DIGITS, "--dry-run", *given]) == 0
    assert "pieces of work came from the cache" in capsys.readouterr().out
    assert run(["prune", DIGITS, str(tmp_path / "o.onnx"), "--flops", "0.5", *given]) == 0
    assert "pieces of work came from the cache" in " ".join(capsys.readouterr().out.split())


def test_a_damaged_piece_is_said_in_the_report_and_the_model_is_the_same(tmp_path: Path) -> None:
    expected = pruned(tmp_path).model.SerializeToString()
    kinds = {file.parent.name: file for file in files(tmp_path)}
    assert {name.split("-")[0] for name in kinds} == {"rankings", "sensitivities", "refits"}
    for file in kinds.values():
        _turned(file) if "0" in np.load(file).files else _cut_short(file)
    again = pruned(tmp_path)
    assert again.model.SerializeToString() == expected
    assert any("is damaged or none of ours" in note for note in again.notes)
    assert not any("none of ours" in note for note in pruned(tmp_path).notes)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "onnxopt", *arguments]


def begun(*arguments: str) -> subprocess.Popen[str]:
    """A process that hears SIGINT, which those that a shell starts in the background ignore."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command(*arguments), stdout=pipe, stderr=pipe, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def until(folder: Path, pattern: str, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many pieces are there."""
    while len(list(folder.glob(pattern))) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def asked(output: Path) -> list[str]:
    given = ["--flops", "0.5", "--calibration", str(CALIBRATION), "--samples", "200"]
    return ["prune", DIGITS, str(output), *given]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model of a run that nothing interrupts."""
    output = tmp_path_factory.mktemp("straight") / "o.onnx"
    subprocess.run(command(*asked(output)), capture_output=True, check=True)
    return output.read_bytes()


@pytest.mark.parametrize(
    ("workers", "pattern", "count"), [("3", "rankings-*/*.npz", 1), ("1", "refits-*/*.npz", 2)]
)
def test_an_interrupt_ends_all_at_once_in_one_line_and_the_next_run_goes_on(
    workers: str, pattern: str, count: int, straight: bytes, tmp_path: Path
) -> None:
    cache, output = tmp_path / "cache", tmp_path / "o.onnx"
    given = [*asked(output), "--cache", str(cache), "--workers", workers]
    process = begun(*given)
    until(cache, pattern, count, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == "" and err == (
        "error: interrupted: no model was written\n  fix: the same command goes on where it was\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    process = begun(*given)
    until(cache, "refits-*/*.npz", 4, process)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL and not output.exists()
    resumed = subprocess.run(command(*given), capture_output=True, text=True, check=True)
    assert "pieces of work came from the cache" in " ".join(resumed.stdout.split())
    assert output.read_bytes() == straight


def test_an_interrupt_without_a_cache_says_what_would_have_helped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "run", interrupted)
    assert run(asked(tmp_path / "o.onnx")) == 130
    err = capsys.readouterr().err
    assert err.startswith("error: interrupted: no model was written\n") and "--cache DIR" in err


def test_the_form_of_what_is_kept_and_its_number_change_together() -> None:
    """Who changes these fields raises FORMAT: a piece of before would be read as one of now."""
    kept = [[field.name for field in fields(kind)] for kind in (Result, Refit)]
    assert kept == [["missed", "error", "without"], ["layer", "form", "before", "after", "kept"]]
    assert cache_module.FORMAT == 5
