"""Carry out a sweep: check what is asked for, prune to each budget, write, print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from onnxopt.cli.options import Claims
from onnxopt.cli.progress import Bar
from onnxopt.cli.pruning import Place, interrupted
from onnxopt.cli.pruning_job import spelled
from onnxopt.cli.pruning_options import PruningArguments
from onnxopt.errors import CheckError, Interrupted, UsageError

if TYPE_CHECKING:
    import onnx

    from onnxopt.pruning.asked import Job
    from onnxopt.pruning.budget import Budget
    from onnxopt.pruning.points import Sweep
    from onnxopt.report.sweep_folder import SweepFolder

BUDGETS = ("flops", "params", "memory", "latency")
NOT_IN_A_SWEEP = ("max_drop", "plan", "save_plan")


def check_sweep(
    text: str, place: Place, pruning: PruningArguments, *, dry_run: bool
) -> tuple[Budget, ...]:
    """The budgets, after all that can be said before the work begins."""
    from onnxopt.pruning.points import point_name
    from onnxopt.pruning.sweep import parse_sweep
    from onnxopt.report.files import RENDERINGS, check_report_path
    from onnxopt.report.sweep_folder import check_folder
    from onnxopt.report.sweep_picture import SUFFIXES, require_drawing

    _check_alone(text, pruning, dry_run=dry_run)
    budgets = parse_sweep(text)
    if pruning.profile is not None and budgets[0].mode != "latency":
        raise UsageError(
            f"--profile says how long layers take, and --sweep {text} is not about time",
            "write --sweep latency=0.9,0.8,.., or leave out --profile",
        )
    claims = Claims(place.source, pruning.data)
    if place.output is not None:
        for file in check_folder(place.output, [point_name(budget) for budget in budgets]):
            claims.claim(file, "the file of the sweep")
    for file in place.reports:
        check_report_path(file, (*RENDERINGS, *SUFFIXES))
        claims.claim(file, "the report")
        if file.suffix.lower() in SUFFIXES:
            require_drawing()
    return budgets


def _check_alone(text: str, pruning: PruningArguments, *, dry_run: bool) -> None:
    """Raise UsageError where an option makes no sense beside --sweep."""
    for name in BUDGETS:
        if getattr(pruning, name) is not None:
            raise UsageError(
                f"--sweep has budgets of its own, so there is no place for --{name}",
                f"write --sweep {name}={text.rpartition('=')[2]}, or leave out one of the two",
            )
    for name in NOT_IN_A_SWEEP:
        if getattr(pruning, name) is not None:
            raise UsageError(
                f"--sweep makes one model for each budget, so there is no place for "
                f"{spelled(name)}",
                "leave out one of the two",
            )
    if dry_run:
        raise UsageError(
            "a dry run cuts nothing, so --sweep has nothing to do",
            "leave out one of the two; without OUT a sweep writes no models",
        )


def sweep_file(
    proto: onnx.ModelProto,
    job: Job,
    budgets: Sequence[Budget],
    place: Place,
    *,
    json: bool,
    quiet: bool,
) -> None:
    """Prune to each budget, write models and reports, and print.

    Raises:
        CheckError: a model failed a check; the others are written.
    """
    from onnxopt.inspection import has_external_data
    from onnxopt.pruning.sweep import NOWHERE, run_sweep
    from onnxopt.report.sweep_folder import SweepFolder
    from onnxopt.report.sweep_json import sweep_json
    from onnxopt.report.sweep_table import sweep_table
    from onnxopt.report.table import console

    folder = None
    if place.output is not None:
        was_external = has_external_data(place.source, proto)
        folder = SweepFolder(place.output, place.external_data.value, was_external=was_external)
    with _interruptible(job, folder), Bar(quiet=quiet) as bar:
        source, store = str(place.source), folder or NOWHERE
        sweep = run_sweep(proto, job, budgets, source=source, store=store, tell=bar)
    written = _written(sweep, place, folder)
    if json:
        typer.echo(sweep_json(sweep))
    elif not quiet:
        console().print(sweep_table(sweep, written))
    if failed := [point for point in sweep.points if point.status == "failed"]:
        raise CheckError(
            f"{len(failed)} of {len(sweep.points)} points failed a check: {failed[0].budget}: "
            f"{failed[0].why}",
            "there is no model of these; please report this one",
        )


def _written(sweep: Sweep, place: Place, folder: SweepFolder | None) -> list[str]:
    """Write the reports; what was written, in sentences."""
    from onnxopt.report.sweep_files import write_sweep

    for file in place.reports:
        write_sweep(sweep, file)
    return [] if folder is None else [folder.finish(sweep)]


@contextmanager
def _interruptible(job: Job, folder: SweepFolder | None) -> Iterator[None]:
    """An interrupt ends the command in one line that says how to go on.

    Raises:
        Interrupted: that happened.
    """
    try:
        yield
    except KeyboardInterrupt:
        finished = 0 if folder is None else folder.count
        if not finished or folder is None:
            raise interrupted(job) from None
        points = "point is" if finished == 1 else "points are"
        raise Interrupted(
            f"interrupted: {finished} {points} finished, in '{folder.path}'",
            "the same command goes on " + ("where it was" if job.cache else "after these"),
        ) from None
