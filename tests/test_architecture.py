"""Each third-party package has one door, and lower layers do not know the higher ones."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import onnxopt

PACKAGE = Path(onnxopt.__file__).parent
MODULES = sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py"))

DOORS = {
    "onnx_graphsurgeon": ("graph.py",),
    "onnxruntime": ("runtime.py", "profiling/sessions.py"),
    "PIL": ("calibration/images.py", "calibration/preprocess.py"),
    "matplotlib": ("report/sweep_picture.py",),
    "typer": ("cli/",),
    "mlserver": ("splitting/mlserver_edge.py",),
    "tritonclient": ("splitting/edge_grpc.py",),
    "rich": ("cli/", "report/"),
}

LAYERS: dict[str, tuple[str, ...]] = {
    "cli": ("cli/", "__main__.py"),
    "report": ("report/",),
    "splitting": ("splitting/",),
    "prune": (
        ("pruning/prune.py", "pruning/job.py", "pruning/asked.py", "pruning/judging.py")
        + ("pruning/rounds.py", "pruning/choosing.py", "pruning/analysis.py", "pruning/plan.py")
        + ("pruning/results.py", "pruning/outcome.py", "pruning/search.py", "pruning/budget.py")
        + ("pruning/remarks.py", "pruning/points.py", "pruning/sweep.py", "pruning/basis.py")
        + ("pruning/savings.py", "pruning/depth.py", "pruning/two_stages.py", "pruning/dropping.py")
        + ("pruning/reach.py",)
        + ("pruning/remarks.py", "pruning/meters.py", "pruning/confirming.py", "pruning/timed.py")
        + ("pruning/stopwatch.py", "pruning/batches.py", "pruning/rewritings.py")
        + ("pruning/contest.py", "pruning/approach.py")
    ),
    "optimizer": ("optimizer.py", "budgets.py", "catalogue.py"),
    "rewrites": ("passes/", "rewriting/", "rules/"),
    "pruning": ("pruning/", "profiler.py"),
    "verification": ("verification/",),
}
"""Higher before lower. Whatever is in no layer is below them all."""


def imports(module: str) -> Iterator[str]:
    """What a module imports when it runs; imports for type checkers do not count."""
    tree = ast.parse((PACKAGE / module).read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and id(node) not in hidden:
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and id(node) not in hidden:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name: str) -> int:
    """The number of the layer of a module's path; the lowest for what is in none."""
    for number, places in enumerate(LAYERS.values()):
        if name.startswith(places):
            return number
    return len(LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_third_party_packages_are_imported_at_their_door_only(module: str) -> None:
    for name in imports(module):
        places = DOORS.get(name.partition(".")[0])
        assert places is None or module.startswith(places), f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_no_module_imports_from_a_higher_layer(module: str) -> None:
    for name in imports(module):
        if name.startswith("onnxopt."):
            path = name.removeprefix("onnxopt.").replace(".", "/")
            target = next((p for p in (path, path.rpartition("/")[0]) if _exists(p)), None)
            if target is not None and not _is_view_of_a_result(module, target):
                assert layer(_file(target)) >= layer(module), f"{module} imports {name}"


def _exists(path: str) -> bool:
    return bool(path) and ((PACKAGE / f"{path}.py").is_file() or (PACKAGE / path).is_dir())


def _file(path: str) -> str:
    return f"{path}.py" if (PACKAGE / f"{path}.py").is_file() else f"{path}/__init__.py"


def _is_view_of_a_result(module: str, target: str) -> bool:
    """The optimizer returns a Report, which is plain data; report/ knows how it looks."""
    return module == "optimizer.py" and target == "report"


def test_importing_the_command_line_imports_neither_onnx_nor_its_runtime() -> None:
    heavy = {"onnx", "onnxruntime", "numpy", "rich", "matplotlib"}
    code = f"import sys, onnxopt.cli; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_public_names_exist_and_stay_what_they_are() -> None:
    code = (
        "import onnxopt\n"
        "for _ in range(2):\n"
        "    for name in onnxopt.__all__: assert callable(getattr(onnxopt, name)), name"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert run.returncode == 0, run.stderr.decode()


@pytest.mark.skipif("ONNXOPT_INSTALLED" not in os.environ, reason="only make test needs the wheel")
def test_the_installed_wheel_is_what_is_tested() -> None:
    repository = Path(__file__).parent.parent
    assert repository not in PACKAGE.parents or ".venv" in PACKAGE.parts
    assert (PACKAGE / "rules").is_dir()
    assert (PACKAGE / "report" / "schema.json").is_file()
