"""Split scikit-learn's handwritten digits, and write and measure samples of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped, unused-ignore]
from numpy.typing import NDArray
from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped, unused-ignore]

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

FOLDER = Path(__file__).parent
SPLIT_SEED = 0
BRIGHTEST = 16


@dataclass(frozen=True)
class Digits:
    """Images in 0..1 with the digit that each one shows."""

    images: Floats  # [samples, 8, 8]
    labels: Labels  # [samples]


def training_and_test() -> tuple[Digits, Digits]:
    """Set 450 of the 1797 digits aside for the test, evenly over the classes."""
    bunch = load_digits()
    images = (bunch.images / BRIGHTEST).astype(np.float32)
    return _split(Digits(images, bunch.target.astype(np.int64)), 450)


def training_and_validation() -> tuple[Digits, Digits]:
    """Split the training part again, to choose hyper-parameters without the test digits."""
    training, _ = training_and_test()
    return _split(training, 270)


def write_samples(name: str, **arrays: Floats | Labels) -> None:
    """Write arrays, named as the model's inputs, to a compressed file in this folder."""
    np.savez_compressed(FOLDER / f"{name}.npz", allow_pickle=False, **arrays)


def accuracy(model: Path, inputs: Floats, labels: Labels) -> float:
    """Share of the labels that ONNX Runtime gets right; the last axis of the output is classes."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    logits = np.asarray(session.run(None, {session.get_inputs()[0].name: inputs})[0])
    return float((logits.argmax(axis=-1) == labels).mean())


def _split(digits: Digits, held_out: int) -> tuple[Digits, Digits]:
    kept_images, out_images, kept_labels, out_labels = train_test_split(
        digits.images,
        digits.labels,
        test_size=held_out,
        stratify=digits.labels,
        random_state=SPLIT_SEED,
    )
    return Digits(kept_images, kept_labels), Digits(out_images, out_labels)
