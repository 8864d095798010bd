"""The folder that a sweep is written into: its models, and sweep.json, which knows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from onnxopt.errors import OnnxoptError, UsageError
from onnxopt.files import check_target
from onnxopt.model import ExternalData, load, save
from onnxopt.pruning.costs import Mode
from onnxopt.pruning.plan import model_digest
from onnxopt.pruning.points import Point, Sweep
from onnxopt.report.files import write_text
from onnxopt.report.report import versions
from onnxopt.report.sweep_files import write_sweep
from onnxopt.report.sweep_json import read_sweep
from onnxopt.report.sweep_markdown import sweep_markdown
from onnxopt.report.sweep_picture import INSTALL, can_draw

JSON, MARKDOWN, PICTURE = "sweep.json", "sweep.md", "sweep.svg"


class SweepFolder:
    """Keeps each finished point, so that an interrupted sweep goes on where it was.

    Args:
        external_data, was_external: how models are written, as of `save`.
    """

    def __init__(self, path: Path, external_data: ExternalData, *, was_external: bool) -> None:
        self.path, self.external_data, self.was_external = path, external_data, was_external

    def known(self, source: str, mode: Mode, basis: dict[str, str]) -> Sweep | None:
        """The points that are here, without those whose models are not as they were written.

        Raises:
            UsageError: they are of another sweep.
        """
        if not (self.path / JSON).exists():
            return None
        found = read_sweep(self.path / JSON)
        names = dict.fromkeys((*found.basis, *basis))
        other = [name for name in names if found.basis.get(name) != basis.get(name)]
        if dict(found.versions) != versions():
            other.append("the versions of onnxopt or of what it depends on")
        if other:
            raise UsageError(
                f"'{self.path}' holds another sweep: {', '.join(other)} differ"
                + ("" if len(other) > 1 or other[0].endswith("s") else "s"),
                "name another folder, or delete this one",
            )
        kept = tuple(point for point in found.points if self._is_whole(point))
        notes = [
            f"'{self.path / str(point.model)}' is not as the sweep had written it: made again"
            for point in found.points
            if point not in kept
        ]
        return replace(found, source=source, points=kept, notes=tuple(notes))

    def _is_whole(self, point: Point) -> bool:
        if point.model is None:
            return True
        try:
            return model_digest(load(self.path / point.model)) == point.model_sha256
        except OnnxoptError:
            return False

    def keep(self, sweep: Sweep, point: Point, model: onnx.ModelProto | None) -> Sweep:
        """The sweep with this point, after its model and sweep.json are written.

        Where no point has a model, nothing is.
        """
        if model is not None:
            if not (self.path / JSON).exists():
                self._create()
                write_sweep(
                    sweep, self.path / JSON
                )  # so that a folder with models is known to be ours
            file = self.path / f"{point.name}.onnx"
            save(model, file, external_data=self.external_data, was_external=self.was_external)
            digest = model_digest(load(file))
            point = replace(point, model=file.name, model_sha256=digest)
        sweep = sweep.with_point(point)
        if sweep.done:
            write_sweep(sweep, self.path / JSON)
        return sweep

    def finish(self, sweep: Sweep) -> str:
        """Write the reports, with Matplotlib a picture too; what was written, in words."""
        picture = PICTURE if can_draw() else None
        write_sweep(sweep, self.path / JSON)
        write_text(self.path / MARKDOWN, sweep_markdown(sweep, picture))
        if picture is not None:
            write_sweep(sweep, self.path / PICTURE)
        else:  # an older one would show another curve
            (self.path / PICTURE).unlink(missing_ok=True)
        files = [JSON, MARKDOWN, *([PICTURE] if picture else [])]
        models = f"{len(sweep.done)} model{'s' if len(sweep.done) > 1 else ''}"
        line = f"written to '{self.path}': {models}, {', '.join(files)}"
        return line if picture else f"{line}; {INSTALL} draws the picture, {PICTURE}"

    @property
    def count(self) -> int:
        """How many models sweep.json knows."""
        file = self.path / JSON
        return len(read_sweep(file).done) if file.exists() else 0

    def _create(self) -> None:
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot create '{self.path}': {error.strerror}") from None


def check_folder(path: Path, names: Sequence[str]) -> list[Path]:
    """The files that a sweep with points of these names may write there.

    Raises:
        UsageError: it is no folder, cannot be written to, or holds such a file of another origin.
    """
    is_file, is_named_like_one = path.exists() and not path.is_dir(), path.suffix == ".onnx"
    if is_file or is_named_like_one:
        what = "a file" if is_file else "named like a model"
        raise UsageError(
            f"'{path}' is {what}, but a sweep writes a folder of models", "name a folder"
        )
    models = [path / f"{name}.onnx" for name in names]
    files = [*models, *(path / name for name in (JSON, MARKDOWN, PICTURE))]
    if not path.exists():
        check_target(path)
        return files
    for file in files:
        check_target(file)
    if not (path / JSON).exists():
        for file in models:
            if file.exists():
                raise UsageError(f"'{file}' is there and of no sweep", "name another folder")
    return files
