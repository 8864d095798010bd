"""`onnxopt split`: its commands, each in a file of its own."""

from __future__ import annotations

import typer

from onnxopt.cli.split_cuts import cuts
from onnxopt.cli.split_export import export
from onnxopt.cli.split_join import join
from onnxopt.cli.split_plan import plan
from onnxopt.cli.split_profile import profile
from onnxopt.cli.split_run import run
from onnxopt.cli.split_serve import serve
from onnxopt.cli.split_verify import verify

split = typer.Typer(
    help="Split a model between a device and an edge server.",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for command in (cuts, profile, plan, export, verify, join, serve, run):
    split.command()(command)
