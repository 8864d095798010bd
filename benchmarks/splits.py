"""Split models at every cut, and judge the halves independently of `onnxopt split`.

    python benchmarks/splits.py FOLDER|FILE... [--only PART] [--most 200] [--output FILE.md]

For each model every frontier cut, or 200 of them drawn with a seed, is written as two halves. The
judge is onnxruntime alone: device.onnx and then edge.onnx are run on drawn inputs and their outputs
compared with those of the original, bit for bit without optimizations and relative to the largest
element with them. The model that the halves are joined to must compute the same bits. What is not
bit for bit equal, or beyond 1e-5 with optimizations, must be refused by what `split export` proves
with, and taken at the tolerance that the refusal names. One cut of each model goes through the
command line as well: export, verify, join. Prints Markdown.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort

from onnxopt.errors import OnnxoptError
from onnxopt.model import load
from onnxopt.runtime import Session
from onnxopt.splitting.comparing import Judge
from onnxopt.splitting.enumeration import Cuts, enumerate_cuts
from onnxopt.splitting.export import joined
from onnxopt.splitting.halves import take_apart
from onnxopt.splitting.operators import Subject, read_subject
from onnxopt.verification.feeds import draws

Feed = dict[str, Any]
TOLERANCE = 1e-5
SMALLEST_SCALE = 1e-4
MOST_FEEDS = 2
SLOW_S = 0.1
"""Models whose runs take longer are run on one feed only."""
HEAD = """\
| model | operators | cuts | tried | bit for bit | 16 bit | within 1e-5 | beyond | itself \
| refused | unsendable | wrong | cli | s |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"""


@dataclass
class Row:
    """What came of one model.

    Attributes:
        half: not bit for bit, but the model computes in float16: ONNX Runtime computes neighbours
            in float32 without rounding between, and no longer does so across a cut.
        close: within the tolerance with optimizations.
        beyond: errors beyond it.
        itself: by how much the optimizations change the outputs of the whole model.
        refused: cuts, of those in `half` or `beyond`, that a proof refuses; it must refuse all.
        unsendable: reasons why something cannot cross, with their numbers.
        wrong: what else differs, or does not run.
    """

    name: str
    operators: int = 0
    cuts: int = 0
    tried: int = 0
    exact: int = 0
    half: int = 0
    close: int = 0
    beyond: list[float] = field(default_factory=list)
    itself: float = 0.0
    refused: int = 0
    unsendable: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    command: str = ""
    seconds: float = 0.0
    joins: int = 0

    def line(self) -> str:
        far = f"{len(self.beyond)}, {max(self.beyond):.1g}" if self.beyond else "-"
        cells = (
            *(self.name, self.operators, self.cuts, self.tried, self.exact, self.half, self.close),
            *(
                far,
                f"{self.itself:.1g}",
                self.refused,
                sum(self.unsendable.values()),
                len(self.wrong),
                self.command,
                round(self.seconds),
            ),
        )
        return f"| {' | '.join(map(str, cells))} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("places", type=Path, nargs="+")
    parser.add_argument("--only", default="")
    parser.add_argument("--most", type=int, default=200)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    files = [f for place in options.places for f in _models(place) if options.only in f.name]
    rows = []
    print(HEAD, flush=True)
    for file in files:
        rows.append(measure(file, options.most))
        print(rows[-1].line(), flush=True)
        for text in rows[-1].wrong[:3]:
            print(f"    WRONG {text}", flush=True)
    text = "\n".join([HEAD, *(row.line() for row in rows), "", *_summary(rows)]) + "\n"
    print("\n".join(_summary(rows)))
    if options.output is not None:
        options.output.write_text(text)
    return 1 if any(row.wrong for row in rows) else 0


def _models(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    return sorted([*place.glob("*.onnx"), *place.glob("*.onnxtxt")])


def measure(file: Path, most: int) -> Row:
    row, started = Row(file.name), time.perf_counter()
    try:
        proto = load(file)
        subject = read_subject(proto)
        session = Session(proto, threads=1)
        feeds = [feed.arrays for feed in draws(proto, session).feeds[:MOST_FEEDS]]
        begun = time.perf_counter()
        session.run(feeds[0])
        feeds = feeds[: 1 if time.perf_counter() - begun > SLOW_S else MOST_FEEDS]
    except OnnxoptError as error:
        row.unsendable[f"the model does not run: {error.what[:80]}"] += 1
        return row
    judge = _Judge(proto, feeds)
    row.itself = judge.itself
    cuts = enumerate_cuts(subject.dag)
    whole = (1 << len(subject.dag.operators)) - 1
    inner = [c for c in _distinct(cuts) if cuts.device[c] not in (0, whole)]
    row.operators, row.cuts = len(subject.dag.operators), len(inner)
    drawn = sorted(random.Random(0).sample(inner, most)) if len(inner) > most else inner
    for cut in drawn:
        row.tried += 1
        try:
            _try(subject, cuts, cut, judge, row)
        except Exception as error:
            row.wrong.append(f"cut {cut}: {type(error).__name__}: {str(error)[:300]}")
    row.joins = len(judge.joins)
    legal = [c for c in drawn if cuts.is_legal(c)]
    if legal:
        row.command = _through_commands(file, subject, cuts, legal[len(legal) // 2])
    if row.command.startswith("split "):
        row.wrong.append(row.command)
    row.seconds = time.perf_counter() - started
    return row


def _distinct(cuts: Cuts) -> list[int]:
    """One cut for each set of tensors that crosses, those that cannot be sent too."""
    first: dict[tuple[int, ...], int] = {}
    for cut in sorted(range(len(cuts)), key=lambda c: cuts.device[c].bit_count()):
        first.setdefault(cuts.crossing[cut], cut)
    return list(first.values())


def _try(subject: Subject, cuts: Cuts, cut: int, judge: _Judge, row: Row) -> None:
    dag = subject.dag
    for tensor in cuts.crossing[cut]:
        if dag.tensors[tensor].why_not:
            row.unsendable[dag.tensors[tensor].why_not] += 1
            return
    parts = take_apart(subject, [frozenset(cuts.operators(cut))], ("none", "none", "none"))
    halves = [piece.proto for piece in parts.pieces]
    exact = judge.error(halves, optimized=False)
    if exact == 0:
        row.exact += 1
    elif judge.is_half and exact < 0.01:
        row.half += 1
    else:
        row.wrong.append(f"cut {cut} is off by {exact:.3g}")
    optimized = judge.error(halves, optimized=True)
    if optimized <= TOLERANCE:
        row.close += 1
    else:
        row.beyond.append(optimized)
    if exact or optimized > TOLERANCE:
        _must_refuse(cut, halves, judge, row)
    if not judge.joins_right(joined(parts)):
        row.wrong.append(f"cut {cut}: what the halves are joined to computes something else")


def _must_refuse(cut: int, halves: list[onnx.ModelProto], judge: _Judge, row: Row) -> None:
    """Whether `split export` refuses it, and takes it at the tolerance that it names."""
    proof = judge.product.judge(halves)
    if proof.passed:
        row.wrong.append(f"cut {cut} is not refused, though beyond what is allowed")
        return
    row.refused += 1
    if proof.needed is None or not judge.product.judge(halves, tolerance=proof.needed).passed:
        row.wrong.append(f"cut {cut} is refused with no tolerance that is enough: {proof.reason}")


class _Judge:
    """The original's outputs, by onnxruntime alone."""

    def __init__(self, proto: onnx.ModelProto, feeds: list[Feed]) -> None:
        self.feeds = feeds
        self.joins: dict[str, bool] = {}
        self.is_half = _is_half(proto)
        self._proto = proto
        self._random = _random_outputs(proto)
        self._wanted = {
            optimized: [_run(_session(proto, optimized), feed) for feed in feeds]
            for optimized in (False, True)
        }

    @cached_property
    def product(self) -> Judge:
        """What `split export` proves with, for cuts that it must refuse."""
        return Judge(self._proto)

    @property
    def itself(self) -> float:
        """By how much the optimizations alone change the outputs."""
        pairs = zip(self._wanted[False], self._wanted[True], strict=True)
        return max(
            (_error(a[name], b[name]) for a, b in pairs for name in a if name not in self._random),
            default=0.0,
        )

    def error(self, halves: list[onnx.ModelProto], *, optimized: bool) -> float:
        sessions = [_session(half, optimized) for half in halves]
        worst = 0.0
        for feed, wanted in zip(self.feeds, self._wanted[optimized], strict=True):
            there = dict(feed)
            for session in sessions:
                there.update(_run(session, there))
            for name, value in wanted.items():
                error = _error(value, there[name])
                if name not in self._random or error == float("inf"):
                    worst = max(worst, error)
        return worst

    def joins_right(self, proto: onnx.ModelProto) -> bool:
        """Models that differ in the order of their parts alone are run once."""
        parts = [*proto.graph.node, *proto.graph.initializer, *proto.graph.sparse_initializer]
        parts += [*proto.functions]
        digest = hashlib.sha256()
        for text in sorted(part.SerializeToString(deterministic=True) for part in parts):
            digest.update(hashlib.sha256(text).digest())
        for info in (*proto.graph.input, *proto.graph.output):
            digest.update(info.SerializeToString(deterministic=True))
        key = digest.hexdigest()
        if key not in self.joins:
            session = _session(proto, False)
            self.joins[key] = all(
                _error(value, found) == 0 or name in self._random
                for feed, wanted in zip(self.feeds, self._wanted[False], strict=True)
                for (name, value), found in zip(
                    wanted.items(), _run(session, feed).values(), strict=True
                )
            )
        return self.joins[key]


def _session(proto: onnx.ModelProto, optimized: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.use_deterministic_compute = True
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _run(session: ort.InferenceSession, there: Feed) -> Feed:
    names = [output.name for output in session.get_outputs()]
    feed = {i.name: there[i.name] for i in session.get_inputs()}
    defaults = {i.name for i in session.get_overridable_initializers()}
    feed |= {name: there[name] for name in defaults if name in there}
    if any(_is_exotic(value) for value in feed.values()):
        values = {n: ort.OrtValue.ortvalue_from_numpy(v) for n, v in feed.items()}
        return dict(zip(names, session.run_with_ort_values(names, values), strict=True))
    return dict(zip(names, session.run(names, feed), strict=True))


def _is_exotic(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.dtype(ml_dtypes.bfloat16)


def _is_half(proto: onnx.ModelProto) -> bool:
    kinds = {t.data_type for t in proto.graph.initializer}
    kinds |= {i.type.tensor_type.elem_type for i in proto.graph.input}
    kinds |= {a.i for n in proto.graph.node for a in n.attribute if n.op_type == "Cast"}
    return bool(kinds & {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})


def _random_outputs(proto: onnx.ModelProto) -> set[str]:
    """Names of outputs if anything in the model is random: then all may be."""
    text = str(
        {n.op_type for n in proto.graph.node} | {n.op_type for f in proto.functions for n in f.node}
    )
    named = ("RandomNormal", "RandomUniform", "Multinomial", "Bernoulli")
    return {o.name for o in proto.graph.output} if any(n in text for n in named) else set()


def _error(a: Any, b: Any) -> float:
    """Largest error relative to the largest element; 0 only where all bits are the same."""
    if isinstance(a, list | tuple):
        if not isinstance(b, list | tuple) or len(a) != len(b):
            return float("inf")
        return max((_error(x, y) for x, y in zip(a, b, strict=True)), default=0.0)
    if isinstance(a, dict):
        if not isinstance(b, dict) or list(a) != list(b):
            return float("inf")
        return max((_error(a[k], b[k]) for k in a), default=0.0)
    x, y = np.asarray(a), np.asarray(b)
    if x.dtype != y.dtype or x.shape != y.shape:
        return float("inf")
    if x.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(x, y) else float("inf")
    if x.tobytes() == y.tobytes() or np.array_equal(x, y, equal_nan=x.dtype.kind == "f"):
        return 0.0
    p, q = x.astype(np.float64), y.astype(np.float64)
    good = np.isfinite(p)
    if not np.array_equal(good, np.isfinite(q)):
        return float("inf")
    scale = np.max(np.abs(p[good]), initial=SMALLEST_SCALE)
    return float(np.max(np.abs(p[good] - q[good]), initial=0.0) / scale)


def _through_commands(file: Path, subject: Subject, cuts: Cuts, cut: int) -> str:
    """One cut as a user makes it: `ok`, with the tolerance if it needs one, or what went wrong."""
    names = [subject.dag.tensors[tensor].name for tensor in cuts.crossing[cut]]
    with tempfile.TemporaryDirectory() as folder:
        out, joined_file = Path(folder) / "out", Path(folder) / "joined.onnx"
        at = [piece for name in names for piece in ("--at", name)]
        export = ["export", str(file), *at, "-o", str(out)]
        verify = ["verify", str(out), "--model", str(file)]
        code, said = _command(export)
        needed = re.search(r"--tolerance (\S+)", said)
        if code == 1 and needed is not None:
            code, said = _command([*export, "--tolerance", needed[1]])
        for arguments in (export, verify, ["join", str(out), "-o", str(joined_file)]):
            if arguments is not export:
                code, said = _command(arguments)
            if code:
                return f"split {arguments[0]}, exit {code}: {said[-200:].strip()}"
    return "ok" if needed is None else f"refused, ok with {needed[1]}"


def _command(arguments: list[str]) -> tuple[int, str]:
    """Exit code, and what it says of errors."""
    command = [sys.executable, "-m", "onnxopt", "split", *arguments]
    run = subprocess.run(command, capture_output=True, text=True)
    return run.returncode, run.stderr


def _summary(rows: list[Row]) -> list[str]:
    tried = sum(row.tried for row in rows)
    beyond = [error for row in rows for error in row.beyond]
    unsendable = sum((row.unsendable for row in rows), Counter[str]())
    lines = [
        f"{len(rows)} models, {tried} cuts tried of {sum(row.cuts for row in rows)}: "
        f"{sum(row.exact for row in rows)} bit for bit without optimizations, "
        f"{sum(row.half for row in rows)} within the rounding of 16-bit floats, "
        f"{sum(len(row.wrong) for row in rows)} wrong; "
        f"{sum(row.close for row in rows)} within 1e-5 with optimizations, {len(beyond)} beyond "
        f"(largest {max(beyond, default=0.0):.2g}); {sum(row.refused for row in rows)} refused "
        f"unless a tolerance is given; {sum(unsendable.values())} cannot be sent.",
        f"Joined to {sum(row.joins for row in rows)} distinct models, each compared with its "
        "original bit for bit.",
    ]
    return [*lines, *(f"Not sent {n}: {reason}." for reason, n in unsendable.most_common())]


if __name__ == "__main__":
    sys.exit(main())
