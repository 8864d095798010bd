"""Make the tiny models in `tiny/` from `templates/`, by filling in their weights.

A template is a model in ONNX's own text whose weights may be written `uniform(low, high)`:

    float[4,3,3,3] w = uniform(-0.5, 0.5)

The draw depends only on the template's name, so that a new model leaves the others as they are.

    python models/make_tiny.py           # write the files
    python models/make_tiny.py --check   # exit with 1 if a file is not up to date
"""

import argparse
import re
import sys
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
TEMPLATES = FOLDER / "templates"
TINY = FOLDER / "tiny"
DECIMALS = 3
WEIGHT = re.compile(
    r"(?P<type>\w+)\[(?P<shape>[\d,]+)\] (?P<name>\"[^\"]+\"|\w+)"
    r" = uniform\((?P<low>[-\d.]+), (?P<high>[-\d.]+)\)"
)


def tiny_models() -> dict[Path, str]:
    """The text of each tiny model by the path that it belongs at."""
    return {TINY / path.name: fill(path) for path in sorted(TEMPLATES.glob("*.onnxtxt"))}


def fill(template: Path) -> str:
    """The template's text with numbers for its weights."""
    rng = np.random.default_rng(zlib.crc32(template.stem.encode()))

    def draw(match: re.Match[str]) -> str:
        size = int(np.prod([int(dim) for dim in match["shape"].split(",")]))
        numbers = ", ".join(values(rng, match["type"], size, match["low"], match["high"]))
        return f"{match['type']}[{match['shape']}] {match['name']} = {{{numbers}}}"

    notice = (
        f"# Made by models/make_tiny.py from models/templates/{template.name}; edit that one.\n"
    )
    return notice + WEIGHT.sub(draw, template.read_text(encoding="utf-8"))


def values(rng: np.random.Generator, kind: str, size: int, low: str, high: str) -> list[str]:
    """Numbers of this ONNX type as its text wants them; float16 is written as its bits."""
    if kind.startswith(("int", "uint")):
        return [str(value) for value in rng.integers(int(low), int(high), size, endpoint=True)]
    drawn = rng.uniform(float(low), float(high), size).round(DECIMALS)
    if kind == "float16":
        return [str(bits) for bits in drawn.astype(np.float16).view(np.uint16)]
    return [f"{value:.{DECIMALS}f}" for value in drawn]


def outdated(models: dict[Path, str]) -> list[Path]:
    """The files that are missing, differ from their template, or have none."""
    changed = [path for path, text in models.items() if not holds(path, text)]
    return changed + sorted(set(TINY.glob("*.onnxtxt")) - set(models))


def holds(path: Path, text: str) -> bool:
    """Whether the file is there with exactly these bytes."""
    return path.exists() and path.read_bytes() == text.encode()


def write(models: dict[Path, str]) -> None:
    """Write every file, and remove those that no template makes any more."""
    TINY.mkdir(exist_ok=True)
    for path in outdated(models):
        if path in models:
            path.write_bytes(models[path].encode())
        else:
            path.unlink()


def main() -> int:
    """Write or check the files, as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if out of date")
    models = tiny_models()
    if not parser.parse_args().check:
        write(models)
        return 0
    stale = outdated(models)
    for path in stale:
        print(f"not up to date: {path}; run python models/make_tiny.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
