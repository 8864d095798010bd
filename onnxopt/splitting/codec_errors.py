"""What codecs change in the outputs of a model, by cut, on calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from onnxopt.calibration import load_calibration
from onnxopt.runtime import Session
from onnxopt.signature import batch_of
from onnxopt.splitting.coded import Coded, codec_error, coded_cuts
from onnxopt.splitting.halves import take_apart
from onnxopt.splitting.manifest import Codec
from onnxopt.splitting.operators import Subject
from onnxopt.verification.traits import traits_of
from onnxopt.verification.userdata import load_user_data

MOST_BATCHES = 16
"""Of the samples that errors are measured on."""

DEFAULT_MOST = 0.01
"""What a codec that nobody asked for may change in the outputs, as a share of their size."""

Progress = Callable[[str, float], None]


def coded_cut(subject: Subject, device: frozenset[int], codec: Codec) -> Coded | None:
    """One cut with a codec; None where that changes nothing of what crosses.

    Args:
        device: operators there; none where all runs at the edge.
    """
    chain = (device,) if device else ()
    codecs: tuple[Codec, ...] = ("none", codec, "none") if device else (codec, "none")
    return next(iter(coded_cuts(take_apart(subject, chain, codecs))), None)


class CodecErrors:
    """The error of any codec at any cut of a model, measured when it is asked for, each once.

    Both halves and the whole run with ONNX Runtime's optimizations off, so that all of the error is
    of the codec.

    Args:
        samples: as `--verify-data` reads them, or a folder of images as pruning does; 16 at most.
        progress: is told of each measurement.

    Raises:
        UsageError: the samples do not fit.
        BadModelError, UnverifiableError, RunError: ONNX Runtime does not run the model.
    """

    def __init__(self, subject: Subject, samples: Path, progress: Progress | None = None) -> None:
        self._subject, self._progress = subject, progress
        session = Session(subject.proto)
        batches = islice(_batches(session, samples), MOST_BATCHES)
        self._pairs = [(feeds, session.run(feeds)) for feeds in batches]
        self._random = traits_of(subject.proto).random
        self.known: dict[tuple[frozenset[int], Codec], float] = {}

    def of(self, device: frozenset[int], codec: Codec) -> float:
        """Largest relative error in the outputs, as `coded.codec_error` tells it.

        Args:
            device: operators there.
        """
        key = device, codec
        if key not in self.known:
            if self._progress is not None:
                self._progress(f"measuring the error of codecs ({len(self.known) + 1})", 0.0)
            self.known[key] = self._measured(*key)
        return self.known[key]

    def _measured(self, device: frozenset[int], codec: Codec) -> float:
        item = coded_cut(self._subject, device, codec)
        return 0.0 if item is None else codec_error(item, self._pairs, self._random)


def _batches(session: Session, samples: Path) -> Iterator[dict[str, Any]]:
    """Inputs in the batch size of the model; one by one where that is open."""
    arrays = {".npy", ".npz"}
    if samples.is_dir() and not any(file.suffix in arrays for file in samples.iterdir()):
        size = batch_of(session.inputs) or 1
        drawn = load_calibration(samples, session.inputs, samples=MOST_BATCHES * size, minimum=size)
        yield from drawn.take(range(drawn.count // size * size)).batches(size)
    else:
        yield from load_user_data(samples).batches(session)
