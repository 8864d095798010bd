"""The `onnxopt` command: its commands, its exit codes, and one clear line for every error."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from onnxopt import __version__
from onnxopt.cli.check import check
from onnxopt.cli.compare import compare
from onnxopt.cli.explain import explain
from onnxopt.cli.inspect import inspect
from onnxopt.cli.optimize import optimize
from onnxopt.cli.profile import profile
from onnxopt.cli.prune import prune
from onnxopt.cli.rules import rules
from onnxopt.cli.split import split
from onnxopt.errors import Interrupted, OnnxoptError

HELP = """Make ONNX models smaller and faster, and prove that they still do the same.

\b
  onnxopt optimize model.onnx small.onnx      rewrite, verify, write, report
  onnxopt prune model.onnx small.onnx --flops 0.5 --calibration samples.npz
                                              cut channels to a budget, refit the rest
  onnxopt inspect model.onnx                  what is in it and what it costs
  onnxopt profile model.onnx --widths         what it takes on this machine, measured
  onnxopt compare model.onnx small.onnx       do the two compute the same?
  onnxopt check model.onnx --max-size 10MB    keep budgets, as a step of your CI
  onnxopt split cuts model.onnx               where to cut it between a device and an edge server

\b
Exit codes: 0 fine; 1 a check or verification failed, nothing was written;
2 usage; 3 bad model; 4 the model cannot be verified here.
"""

SMALLEST_LIMIT_BYTES = 8 * 2**30
SHARE_OF_MEMORY = 0.8
"""How much address space a command may take: this share of the machine's memory, but at least so
many bytes. A model that is too large then ends in an error, not in a machine without memory."""

app = typer.Typer(
    name="onnxopt",
    help=HELP,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for command in (optimize, prune, inspect, profile, compare, explain, rules, check):
    app.command()(command)
app.add_typer(split, name="split")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"onnxopt {__version__}")
        raise typer.Exit


@app.callback()
def _onnxopt(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


_onnxopt.__doc__ = HELP


def main() -> None:
    """Entry point of the script."""
    _limit_memory()
    code = run(sys.argv[1:])
    if code == Interrupted.exit_code:  # workers may be in the middle of a piece: nobody waits
        os._exit(code)
    sys.exit(code)


def _limit_memory() -> None:
    try:
        import resource

        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ImportError, OSError, ValueError):  # not a Unix that tells
        return
    limit = max(SMALLEST_LIMIT_BYTES, int(SHARE_OF_MEMORY * memory))
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY and hard == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; no traceback is shown unless asked for."""
    if not arguments:
        app(["--help"], prog_name="onnxopt", standalone_mode=False)
        return 2
    verbose = "-v" in arguments or "--verbose" in arguments
    try:
        code = app(arguments, prog_name="onnxopt", standalone_mode=False)
        sys.stdout.flush()
        if code == Interrupted.exit_code:  # what typer makes of a KeyboardInterrupt
            raise KeyboardInterrupt
    except OnnxoptError as error:
        _say(error.what, error.fix)
        return error.exit_code
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except KeyboardInterrupt:
        _say("interrupted", "")
        return Interrupted.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        _say("there is not enough memory for this model", "use a machine with more memory")
        return 1
    except Exception as error:
        if hasattr(error, "format_message"):
            return _usage(error)
        if verbose:
            traceback.print_exc()
        _say(
            f"a bug in onnxopt: {type(error).__name__}: {error}",
            "please report it with the output of the same command under -v" if not verbose else "",
        )
        return 1
    return code if isinstance(code, int) else 0


def _usage(error: Exception) -> int:
    """What typer says of a wrong command line, in our words."""
    context = getattr(error, "ctx", None)
    path = "onnxopt" if context is None else context.command_path
    message = str(error.format_message()) if hasattr(error, "format_message") else str(error)
    message = message.replace(": Value error, ", ": ")  # words of the library that typer asks
    _say(message[:1].lower() + message[1:].rstrip("."), f"see `{path} --help`")
    return 2


def _say(what: str, fix: str) -> None:
    what, fix = (" ".join(text.split()) for text in (what, fix))
    typer.echo(f"error: {what}" + (f"\n  fix: {fix}" if fix else ""), err=True)
