"""Read samples from what a user names: a file of arrays, or a folder of arrays or of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onnxopt.arrays import quoted, read_arrays
from onnxopt.calibration import images
from onnxopt.calibration.fitting import check_inputs
from onnxopt.calibration.preprocess import Preprocess
from onnxopt.calibration.samples import Calibration
from onnxopt.calibration.sources import Files
from onnxopt.errors import UsageError
from onnxopt.signature import Array, Port

ARRAYS = (".npz", ".npy")
KINDS = (
    "give FILE.npz with one array for each input, FILE.npy, a folder of .npy files, or a folder of "
    f"images ({' '.join(sorted(images.SUFFIXES))})"
)


def load_calibration(
    path: str | Path,
    inputs: tuple[Port, ...],
    *,
    samples: int | None = None,
    seed: int = 0,
    preprocess: Preprocess | Callable[[Array], Array] | None = None,
    minimum: int = 1,
) -> Calibration:
    """Read samples for the inputs of a model.

    Args:
        path: FILE.npz with one array for each input under its name, the samples along the first
            axis (of a scalar input the number that all samples share), and maybe "labels"; a single
            array goes to the single input, whatever its name.
            For models with one input also FILE.npy, or a folder of .npy files or of images, one
            sample in each, in the order of their names. Arrays are already preprocessed.
        samples: how many to draw, without replacement; None: all.
        preprocess: for images. A function gets uint8 [height, width, 3] in RGB and returns one
            sample. None: pixels / 255, in the size and layout of the input.
        minimum: how many samples are needed.

    Raises:
        UsageError: nothing there, not readable, not what the inputs take, too few, or worthless:
            NaN, infinity, or the same sample always.
    """
    path = Path(path)
    check_inputs(inputs)
    if path.is_dir():
        port = _single(inputs, path)
        source, notes = _folder(path, port, preprocess)
        return Calibration.choose(
            str(path),
            {port.name: source},
            samples=samples,
            seed=seed,
            minimum=minimum,
            notes=notes,
        )
    if not path.exists():
        raise UsageError(f"there is no file or folder '{path}'", "check the path")
    if path.suffix.lower() not in ARRAYS:
        raise UsageError(f"'{path}' is no file of samples", KINDS)
    if path.suffix.lower() == ".npy":
        _single(inputs, path)
    _refuse(preprocess, path)
    arrays = read_arrays(path, mapped=True)
    return Calibration.from_arrays(
        arrays, inputs, samples=samples, seed=seed, minimum=minimum, name=str(path)
    )


def _folder(
    folder: Path, port: Port, preprocess: Preprocess | Callable[[Array], Array] | None
) -> tuple[Files, tuple[str, ...]]:
    """The samples in a folder, and what is suspicious about how they are read."""
    visible = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    arrays = tuple(file for file in visible if file.suffix.lower() == ".npy")
    pictures = tuple(file for file in visible if file.suffix.lower() in images.SUFFIXES)
    if bool(arrays) == bool(pictures):
        both = "both .npy files and images" if arrays else "neither .npy files nor images"
        raise UsageError(f"the folder '{folder}' holds {both}", KINDS)
    if arrays:
        _refuse(preprocess, folder)
        return Files(arrays, port, _read_array), ()
    if preprocess is not None and not isinstance(preprocess, Preprocess):
        return Files(pictures, port, images.reader(preprocess)), ()
    pipeline = (preprocess or Preprocess()).for_input(port)
    notes = pipeline.notes
    if preprocess is None and port.is_floating:
        notes += ("no preprocessing was given, so pixels are divided by 255, nothing else",)
    return Files(pictures, port, images.reader(pipeline)), notes


def _read_array(file: Path) -> Array:
    arrays = read_arrays(file)
    if "" not in arrays:
        raise UsageError(f"'{file}' is an archive of arrays and no .npy file", "rename it to .npz")
    return arrays[""]


def _single(inputs: tuple[Port, ...], path: Path) -> Port:
    """The one input for which unnamed samples can be."""
    if len(inputs) != 1:
        raise UsageError(
            f"'{path}' holds samples without names, but the model has the inputs "
            f"{quoted(port.name for port in inputs)}",
            "save FILE.npz with one array for each input",
        )
    return inputs[0]


def _refuse(preprocess: object, path: Path) -> None:
    if preprocess is not None:
        raise UsageError(
            f"'{path}' holds arrays, which are taken as already preprocessed",
            "leave the preprocessing out, or give a folder of images",
        )
