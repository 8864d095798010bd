"""The options that several commands have, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from onnxopt.errors import UsageError

T = TypeVar("T")

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="The model file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more; on a bug, show the traceback.")
]
RulesFolders = Annotated[
    list[Path] | None,
    typer.Option(
        "--rules", metavar="DIR", help="Use the rules in this folder too (they are run as code)."
    ),
]
Skip = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Leave out this rule or pass. Repeatable."),
]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Use no other rule or pass than this. Repeatable."),
]
SetShape = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=1,3,224,224", help="Fix the shape of an input. Repeatable."),
]
FreezeInputs = Annotated[
    bool,
    typer.Option("--freeze-inputs", help="Count initializers that are also inputs as constants."),
]
Reports = Annotated[
    list[Path] | None,
    typer.Option(
        "--report", metavar="FILE.json|FILE.md", help="Write the report there. Repeatable."
    ),
]


class ExternalDataChoice(str, Enum):
    """Where weights go."""

    auto = "auto"
    always = "always"
    never = "never"


ExternalData = Annotated[
    ExternalDataChoice,
    typer.Option(help="Weights in a second file: as the input has it, always or never."),
]


def by_name(option: str, entries: Iterable[str] | None, read: Callable[[str], T]) -> dict[str, T]:
    """The values of a repeatable NAME=VALUE option. Names may hold `=`; values do not.

    Raises:
        UsageError: an entry without `=` or with a value that cannot be read.
    """
    found: dict[str, T] = {}
    for entry in entries or ():
        name, equals, value = entry.rpartition("=")
        try:
            if not equals or not name:
                raise ValueError("there is no NAME= in it")
            found[name] = read(value)
        except ValueError as error:
            raise UsageError(
                f"{option} '{entry}' makes no sense: {error}",
                f"--help shows how {option} is written",
            ) from None
    return found


def shape(text: str) -> tuple[int, ...]:
    """1,3,224,224 or 1x3x224x224; nothing for a scalar."""
    pieces = [piece for piece in text.replace("x", ",").split(",") if piece.strip()]
    dims = tuple(int(piece) for piece in pieces)
    if any(dim < 0 for dim in dims):
        raise ValueError("a dimension is negative")
    return dims


class Claims:
    """What is read, and what is written: nothing is written over any of it.

    Args:
        data: what is read beside the model.
    """

    def __init__(self, source: Path, data: Iterable[Path | None]) -> None:
        self._taken = {file.resolve(): f"'{file}'" for file in data if file is not None}
        self._taken[source.resolve()] = "a model"

    def claim(self, file: Path, what: str, known_as: str = "") -> None:
        """Raise UsageError where this file, which is to be written, is another already.

        Args:
            known_as: what a later one would overwrite.
        """
        if (there := self._taken.get(file.resolve())) is not None:
            raise UsageError(f"{what} '{file}' would overwrite {there}", "give another name")
        self._taken[file.resolve()] = known_as or what


def check_paths(
    source: Path,
    output: Path | None,
    reports: list[Path],
    dry_run: bool,
    *,
    plan: Path | None = None,
    data: Iterable[Path | None] = (),
) -> None:
    """What can be said before the work begins.

    Args:
        plan: where the plan of a cut is written.
        data: what else is read, and must not be written over.
    """
    from onnxopt.files import check_target
    from onnxopt.model import check_output
    from onnxopt.report.files import check_report_path

    if output is None and not dry_run:
        raise UsageError("there is no OUT to write to", "give one, or use --dry-run")
    claims = Claims(source, data)
    if output is not None:
        check_output(output)
        if output.resolve() != source.resolve():
            claims.claim(output, "the model", "a model")
    for file in reports:
        check_report_path(file)
        claims.claim(file, "the report")
    if plan is not None:
        check_target(plan)
        claims.claim(plan, "the plan")


Tolerance = Annotated[
    str | None,
    typer.Option(
        metavar="0.1%",
        help="What the halves may differ from the whole, as a share of the largest element of an "
        "output, beside what codecs change.  [default: 1e-5 with ONNX Runtime's optimizations on, "
        "nothing with them off]",
    ),
]


def tolerance_of(text: str | None) -> float | None:
    """The share that `--tolerance` names."""
    from onnxopt.quantities import parse_percent

    return None if text is None else parse_percent(text)
