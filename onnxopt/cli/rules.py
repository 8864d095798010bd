"""`onnxopt rules`: the rules and passes there are, and the tests of a folder of rules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxopt.cli.options import Json, RulesFolders, Verbose
from onnxopt.errors import UsageError

if TYPE_CHECKING:
    from onnxopt.catalogue import Entry


def rules(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME|check]", help="One rule or pass, or `check`.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="For `check`: the folder of rules.")
    ] = None,
    rules: RulesFolders = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the rules and passes, show one, or test a folder of your own rules.

    `rules check DIR` runs on your rules exactly what CI runs on ours. Rule files are code.

    \b
    Examples:
      onnxopt rules
      onnxopt rules fold-batchnorm-into-conv
      onnxopt rules check my_rules/
    """
    if name == "check":
        _check(folder, json)
        return
    if folder is not None:
        raise UsageError(f"'{folder}' is one argument too many", "see `onnxopt rules --help`")
    from onnxopt.catalogue import catalogue, find
    from onnxopt.report.as_json import catalogue_json
    from onnxopt.report.table import console, plain_table

    entries = catalogue(tuple(rules or ()))
    if name is not None:
        _show(find(entries, name), json)
    elif json:
        typer.echo(catalogue_json(entries))
    else:
        rows = [(entry.name, entry.kind, entry.numerics, entry.summary) for entry in entries]
        console().print(plain_table(("name", "kind", "numerics", "what it does"), rows, left=4))


def _show(entry: Entry, json: bool) -> None:
    from onnxopt.report.as_json import dumps

    if json:
        typer.echo(dumps(entry))
        return
    typer.echo(f"{entry.name} ({entry.kind}, {entry.numerics})\n\n{entry.doc}")
    if entry.source:
        typer.echo(f"\n{entry.source}")


def _check(folder: Path | None, json: bool) -> None:
    if folder is None:
        raise UsageError("there is no folder to check", "onnxopt rules check DIR")
    from onnxopt.report.as_json import dumps
    from onnxopt.rewriting.check import check_rules

    results = check_rules(folder)
    failed = [result for result in results if not result.passed]
    if json:
        typer.echo(dumps({"schema": "onnxopt-rule-tests/1", "tests": results}))
    else:
        for result in failed:
            typer.echo(f"FAILED {result.rule}: {result.test}: {result.message}")
        count = len({result.rule for result in results})
        typer.echo(f"{count} rules, {len(results)} tests, {len(failed)} failed")
    if failed:
        raise typer.Exit(1)
