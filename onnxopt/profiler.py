"""What `onnxopt profile` does between its options and its table: make a kit, measure it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx

from onnxopt.fixed_shapes import fix_shapes
from onnxopt.kernels import named
from onnxopt.model import Model
from onnxopt.profiling.bench import Asked
from onnxopt.profiling.document import Profile
from onnxopt.profiling.feeds import Array, drawn, input_shapes, read_feeds
from onnxopt.profiling.kit import Kit, KitBlock
from onnxopt.profiling.measure import Progress, measure
from onnxopt.profiling.sessions import Input
from onnxopt.pruning.blocks import blocks_of
from onnxopt.signature import Port, model_inputs
from onnxopt.small_models import write_kit


def profile_model(
    proto: onnx.ModelProto,
    asked: Asked | None = None,
    *,
    source: str = "",
    widths: bool = False,
    progress: Progress = lambda stage, done: None,
) -> Profile:
    """Measure a model on this machine.

    Args:
        source: what the profile calls it.
        widths: measure each distinct layer at several widths, too.

    Raises:
        UsageError: shapes, inputs or a provider that do not fit.
        MeasureError: ONNX Runtime does not load or run the model.
    """
    asked = asked or Asked()
    with tempfile.TemporaryDirectory(prefix="onnxopt-kit-") as temporary:
        progress("making small models" if widths else "loading", 0.0)
        make_kit(proto, Path(temporary) / "kit", asked, source=source, widths=widths)
        return measure(
            Path(temporary) / "kit",
            replace(asked, shapes=_shapes(proto, asked), batch=None),
            source=source,
            progress=progress,
        )


def make_kit(
    proto: onnx.ModelProto, folder: Path, asked: Asked, *, source: str = "", widths: bool = True
) -> Kit:
    """Put what another machine needs to measure a model into a folder.

    Raises:
        UsageError: shapes or inputs that do not fit, or a folder that cannot be written to.
        MeasureError: ONNX Runtime does not load or run the model here, or it has no float32
            layers; only a kit with widths needs it to.
    """
    feeds = None
    if asked.inputs is not None:
        feeds = read_feeds(asked.inputs, _inputs(proto))
    shapes = _shapes(proto, asked)
    blocks = kit_blocks(proto, shapes, feeds) if widths else ()
    return write_kit(
        proto, folder, source=source, shapes=shapes, feeds=feeds, layers=widths, blocks=blocks
    )


def kit_blocks(
    proto: onnx.ModelProto,
    shapes: Mapping[str, tuple[int, ...]],
    feeds: Mapping[str, Array] | None = None,
) -> tuple[KitBlock, ...]:
    """The residual blocks of a model, with the names that nodes have in its kit.

    Args:
        shapes: of its inputs, where they are open.
        feeds: what it is run with once, for its shapes; drawn if not given.
    """
    model = Model.from_proto(named(fix_shapes(proto, shapes)))
    working = model.to_proto()  # nodes in order, which files need not have
    if feeds is None:
        inputs = _inputs(working)
        feeds = drawn(inputs, input_shapes(inputs, shapes, None))
    makers = {value: node.name for node in working.graph.node for value in node.output}
    return tuple(
        KitBlock(
            makers[block.exit], block.kind, tuple(makers[v] for v in (*block.nodes, block.exit))
        )
        for block in blocks_of(working, feeds).found
    )


def _inputs(proto: onnx.ModelProto) -> list[Input]:
    return [Input(port.name, _type(port), port.dims or ()) for port in model_inputs(proto)]


def _type(port: Port) -> str:
    """As ONNX Runtime writes it."""
    name = {"float32": "float", "float64": "double", "object": "string"}.get(str(port.dtype))
    return f"tensor({name or port.dtype})"


def _shapes(proto: onnx.ModelProto, asked: Asked) -> Mapping[str, tuple[int, ...]]:
    """The shapes that were asked for; with a batch those of all inputs."""
    if asked.batch is None:
        return asked.shapes
    return input_shapes(_inputs(proto), asked.shapes, asked.batch)
