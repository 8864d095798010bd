"""`python -m onnxopt.profiling`: measure a model or a kit where only numpy and onnxruntime are."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from onnxopt.errors import Interrupted, OnnxoptError, UsageError
from onnxopt.files import check_target
from onnxopt.profiling.bench import Asked
from onnxopt.profiling.files import as_json, write_json
from onnxopt.profiling.measure import measure
from onnxopt.profiling.rows import plain_text
from onnxopt.profiling.sessions import CPU

EXAMPLES = """examples:
  python -m onnxopt.profiling model.onnx -o device.json
  python -m onnxopt.profiling kit -o device.json --threads 4
                           kit: the folder that `onnxopt profile MODEL --widths --kit kit` wrote

exit codes: 0 fine; 2 usage; 4 ONNX Runtime does not load or run the model here
"""


def main(arguments: list[str] | None = None) -> int:
    """Measure, print or write, and return the exit code."""
    given = _parser().parse_args(arguments)
    try:
        if given.output is not None:
            check_target(given.output)
        asked = Asked(
            threads=given.threads,
            provider=given.provider,
            batch=given.batch,
            shapes=dict(map(_shape, given.set_shape)),
            inputs=given.inputs,
            seconds=given.seconds,
        )
        profile = measure(given.place, asked, progress=_say if sys.stderr.isatty() else _nothing)
        if given.output is not None:
            write_json(profile, given.output)
        if not given.quiet:
            sys.stdout.write(as_json(profile) if given.json else plain_text(profile) + "\n")
    except OnnxoptError as error:
        fix = f"\n  fix: {error.fix}" if error.fix else ""
        sys.stderr.write(f"error: {error.what}{fix}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        return Interrupted.exit_code
    except MemoryError:
        sys.stderr.write("error: there is not enough memory for this model\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m onnxopt.profiling",
        description="Measure a model, or a kit of one, in ONNX Runtime on this machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("place", metavar="MODEL|KIT", type=Path, help="a model, or a kit's folder")
    parser.add_argument("-o", "--output", metavar="FILE.json", type=Path, help="write the profile")
    parser.add_argument("--threads", type=int, default=1, help="inside one operator (1)")
    parser.add_argument("--batch", type=int, help="first dimension of every input that is open")
    parser.add_argument(
        "--set-shape", metavar="NAME=1,3,224,224", action="append", default=[], help="repeatable"
    )
    parser.add_argument("--inputs", metavar="FILE.npz", type=Path, help="feed these arrays")
    parser.add_argument("--provider", default=CPU, help=f"execution provider ({CPU})")
    parser.add_argument("--seconds", type=float, default=10.0, help="to run in turns for (10)")
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else")
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    return parser


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, sizes = text.rpartition("=")
    try:
        dims = tuple(int(size) for size in sizes.replace("x", ",").split(",") if size.strip())
        if not name or min(dims, default=0) < 0:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"--set-shape '{text}' makes no sense", "write it like input=1,3,224,224"
        ) from None
    return name, dims


def _say(stage: str, done: float) -> None:
    sys.stderr.write(f"\r{stage} {done:4.0%} ")
    if done >= 1:
        sys.stderr.write("\r" + " " * 40 + "\r")
    sys.stderr.flush()


def _nothing(stage: str, done: float) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
