"""Metrics on labelled samples: by name, of the user's own, and over whole data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from judge import CORPUS, REPOSITORY, corpus_file

from onnxopt.calibration import Calibration, load_calibration
from onnxopt.errors import UsageError
from onnxopt.evaluation import evaluate, load_metric
from onnxopt.model import load
from onnxopt.runtime import Session
from onnxopt.signature import Array, Port

X = (Port("x", "tensor", onnx.TensorProto.FLOAT, ("N", "C")),)


def top(count: int, scores: Any, labels: Any) -> float:
    scores = np.asarray(scores, np.float32)
    return load_metric(f"top{count}")({"y": scores}, np.asarray(labels))


def labelled(count: int = 10) -> Calibration:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(count, 7)).astype(np.float32)
    return Calibration.from_arrays({"x": data, "labels": data.argmax(axis=1)}, X)


def test_top1_counts_labels_with_the_highest_score() -> None:
    assert top(1, [[0, 1, 2], [3, 1, 2], [0, 4, 2]], [2, 1, 1]) == pytest.approx(2 / 3)
    assert top(1, [[[[0]], [[1]]], [[[1]], [[0]]]], np.array([1, 1], np.uint8)) == 0.5
    assert top(1, [[[0, 1], [1, 0]], [[0, 1], [0, 1]]], [[1, 0], [1, 0]]) == 0.75


def test_top5_counts_labels_among_the_five_highest() -> None:
    scores = np.tile(np.arange(8), (3, 1))
    assert top(5, scores, [7, 3, 2]) == pytest.approx(2 / 3)


def test_a_model_that_says_the_same_of_everything_or_nothing_at_all_is_not_right() -> None:
    labels = np.arange(10)
    assert top(1, np.zeros((10, 10)), labels) == 0.1
    assert top(5, np.zeros((10, 10)), labels) == 0.5
    assert top(1, np.full((10, 10), np.nan), labels) == 0.0


def test_mse_is_negative_so_that_higher_is_better() -> None:
    metric = load_metric("mse")
    assert metric({"y": np.array([[1], [3]], np.float32)}, np.array([1.0, 1.0])) == -2.0
    assert metric({"y": np.array([1, 3], np.float32)}, np.array([1, 3], np.uint8)) == 0.0


@pytest.mark.parametrize(
    ("spec", "shape", "labels", "said"),
    [
        ("top1", (4, 3), np.arange(4), "labels from 0 to 3, but 'y' has 3 classes"),
        ("top1", (4, 3), np.arange(4) - 1, "labels from -1 to 2"),
        ("top1", (4, 3), np.zeros(4), "cannot judge the output 'y', 4x3, by labels float64 4"),
        ("top1", (4, 3, 2), np.zeros(4, int), "4x3x2"),
        ("top1", (4, 1), np.zeros(4, int), "says nothing about the 1 classes"),
        ("top5", (4, 5), np.zeros(4, int), "top5 says nothing about the 5 classes"),
        ("mse", (4, 3), np.zeros(4), "mse cannot compare the output 'y', 4x3, with labels 4"),
        ("mse", (4, 3, 2), np.zeros((4, 2, 3)), "4x3x2, with labels 4x2x3"),
    ],
)
def test_what_a_metric_cannot_judge_is_refused(
    spec: str, shape: tuple[int, ...], labels: Array, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        load_metric(spec)({"y": np.zeros(shape, np.float32)}, labels)


def test_a_metric_gets_the_outputs_of_all_samples_in_order() -> None:
    found = labelled()
    whole = np.concatenate([feeds["x"] for feeds in found.batches(10)])

    def run(feeds: dict[str, Array]) -> dict[str, Any]:
        x = feeds["x"]
        return {"y": x * 2, "total": x.sum(), "parts": list(x), "pairs": x[:, None, : len(x)]}

    def metric(outputs: dict[str, Array], labels: Array) -> float:
        assert [*outputs] == ["y"]
        np.testing.assert_array_equal(outputs["y"], whole * 2)
        np.testing.assert_array_equal(labels, whole.argmax(axis=1))
        return 0.25

    assert evaluate(run, found, metric, 4) == 0.25
    assert evaluate(run, found, load_metric("top1"), 3) == 1.0


def test_evaluation_needs_labels_and_outputs_for_each_sample() -> None:
    bare = Calibration.from_arrays({"x": np.eye(4, dtype=np.float32)}, X)
    with pytest.raises(UsageError, match="'arrays' holds no labels"):
        evaluate(dict, bare, load_metric("top1"), 2)
    with pytest.raises(UsageError, match="no output of the model has one row for each sample"):
        evaluate(lambda feeds: {"y": np.zeros(99)}, labelled(), load_metric("top1"), 2)


def test_our_own_models_are_as_good_as_their_page_says() -> None:
    models = REPOSITORY / "models"
    for name, accuracy in (("digits_resnet", 0.9978), ("digits_transformer", 0.9867)):
        session = Session(load(models / f"{name}.onnx"))
        samples = load_calibration(models / f"{name}_test.npz", session.inputs)
        for size in (64, 75):
            found = evaluate(session.run, samples, load_metric("top1"), size)
            assert found == pytest.approx(accuracy, abs=1e-4)


def test_resnet20_is_as_good_as_published() -> None:
    session = Session(load(corpus_file("cifar10/resnet20.onnx")))
    file = CORPUS.parent / "data" / "cifar10_test.npz"
    if not file.is_file():
        pytest.skip(f"there is no {file}")
    with np.load(file) as data:
        pixels, labels = data["x"][:200], data["y"][:200]
    normalised = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    arrays = {"input": normalised.transpose(0, 3, 1, 2), "labels": labels}
    samples = Calibration.from_arrays(arrays, session.inputs)
    assert evaluate(session.run, samples, load_metric("top1"), 50) > 0.87
    assert evaluate(session.run, samples, load_metric("top5"), 50) > 0.98


class TestOwnMetrics:
    @pytest.fixture(autouse=True)
    def _module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "my_metrics_of_test.py").write_text(
            "def good(outputs, labels): return (outputs['y'].argmax(1) == labels).mean()\n"
            "def bad(outputs, labels): return outputs['z']\n"
            "def text(outputs, labels): return 'good'\n"
            "def quits(outputs, labels): raise SystemExit(0)\n"
            "number = 3\n"
        )
        (tmp_path / "broken_metric_of_test.py").write_text("1 / 0")
        (tmp_path / "leaving_metric_of_test.py").write_text("raise SystemExit(0)")
        monkeypatch.syspath_prepend(tmp_path)

    def test_a_function_of_the_user_is_a_metric(self) -> None:
        metric = load_metric("my_metrics_of_test:good")
        assert evaluate(lambda feeds: {"y": feeds["x"]}, labelled(), metric, 4) == 1.0

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            ("top3", "no metric 'top3' .use top1, top5, mse, or MODULE:FUNCTION"),
            ("", "no metric ''"),
            ("a/b.py:f", "no metric"),
            ("os.path:join:x", "no metric"),
            ("no_such_module_of_test:f", "ModuleNotFoundError.*PYTHONPATH"),
            ("my_metrics_of_test:missing", "is not in .*my_metrics_of_test.py"),
            ("my_metrics_of_test:number", "not a function"),
            ("broken_metric_of_test:f", "ZeroDivisionError"),
            ("leaving_metric_of_test:f", "cannot be loaded: SystemExit: 0"),
        ],
    )
    def test_what_is_no_metric_is_refused(self, spec: str, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            load_metric(spec)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("bad", "fails: KeyError"),
            ("text", "fails: ValueError"),
            ("quits", "fails: SystemExit: 0"),
        ],
    )
    def test_a_metric_that_gives_no_number_is_told_by_name(self, name: str, said: str) -> None:
        metric = load_metric(f"my_metrics_of_test:{name}")
        with pytest.raises(UsageError, match=f"my_metrics_of_test:{name}.*{said}"):
            evaluate(lambda feeds: {"y": feeds["x"]}, labelled(), metric, 4)
