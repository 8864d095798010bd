"""Carry out what the options of pruning ask for: prune or preview, write, print."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from onnxopt.cli.options import ExternalDataChoice
from onnxopt.cli.progress import Bar
from onnxopt.errors import Interrupted, UsageError

if TYPE_CHECKING:
    import onnx

    from onnxopt.pruning.asked import Job
    from onnxopt.pruning.job import Done


@dataclass(frozen=True)
class Place:
    """Where things are read from and written to."""

    source: Path
    output: Path | None
    external_data: ExternalDataChoice
    reports: tuple[Path, ...]
    save_plan: Path | None


def prune_file(
    proto: onnx.ModelProto, job: Job, place: Place, *, json: bool, quiet: bool, verbose: bool
) -> None:
    """Prune, write the model, its plan and its reports, and print."""
    from onnxopt.pruning.job import run
    from onnxopt.report.pruning_json import pruning_json
    from onnxopt.report.pruning_table import declined_lines, pruning_table
    from onnxopt.report.table import console

    with _interruptible(job), Bar(quiet=quiet) as bar:
        done = run(proto, job, source=str(place.source), tell=bar)
    done = _written(proto, done, place)
    if json:
        typer.echo(pruning_json(done.report))
    elif not quiet:
        screen = console()
        screen.print(pruning_table(done.report))
        if verbose:
            screen.print(declined_lines(done.report))


@contextmanager
def _interruptible(job: Job) -> Iterator[None]:
    """An interrupt ends the command in one line that says how to go on.

    Raises:
        Interrupted: that happened.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise interrupted(job) from None


def interrupted(job: Job) -> Interrupted:
    """What is said of an interrupt before anything was written."""
    how = "with --cache DIR an interrupted run goes on where it was"
    if job.cache is not None:
        how = "the same command goes on where it was"
    return Interrupted("interrupted: no model was written", how)


def _written(proto: onnx.ModelProto, done: Done, place: Place) -> Done:
    """Write what was asked for; the model first."""
    from onnxopt.files import write_atomically
    from onnxopt.inspection import has_external_data
    from onnxopt.model import save
    from onnxopt.pruning.plan import plan_json
    from onnxopt.report.files import write_text
    from onnxopt.report.pruning_json import pruning_json
    from onnxopt.report.pruning_markdown import pruning_markdown

    assert place.output is not None
    save(
        done.pruned.model,
        place.output,
        external_data=place.external_data.value,
        was_external=has_external_data(place.source, proto),
    )
    told = replace(done.report, output=str(place.output))
    if place.save_plan is not None:
        origin = told.calibration.origin if told.calibration else ""
        write_atomically(place.save_plan, [plan_json(done.plan, done.pruned, origin).encode()])
    for file in place.reports:
        is_json = file.suffix.lower() == ".json"
        write_text(file, pruning_json(told) if is_json else pruning_markdown(told))
    return replace(done, report=told)


def show_preview(
    proto: onnx.ModelProto, job: Job, place: Place, *, json: bool, quiet: bool
) -> None:
    """Print the groups of channels and what was declined."""
    from onnxopt.pruning.job import preview
    from onnxopt.report.pruning_json import preview_json
    from onnxopt.report.pruning_table import preview_table
    from onnxopt.report.table import console

    if place.reports:
        raise UsageError("a dry run prunes nothing, so there is no report", "use --json")
    with _interruptible(job), Bar(quiet=quiet) as bar:
        found = preview(proto, job, bar)
    if json:
        typer.echo(preview_json(str(place.source), found))
    elif not quiet:
        console().print(preview_table(str(place.source), found))
