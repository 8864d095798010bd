"""A kit: a folder with a model and small models of its layers, which another machine measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxopt.errors import UsageError
from onnxopt.profiling.files import read_json
from onnxopt.profiling.naming import NodeName

SCHEMA = "onnxopt-kit/2"
LIST = "kit.json"


@dataclass(frozen=True)
class KitWidth:
    """One branch of a small model: all its nodes and values are called `b<number>_...`."""

    inputs: int
    outputs: int
    macs: int
    bytes: int


@dataclass(frozen=True)
class KitLayer:
    """A distinct layer, and the small model that holds it at several widths side by side.

    Attributes:
        file: of the small model, in the kit's folder.
        op: the operator of the layer.
        text: kernel, stride and sizes, for a person.
        nodes: the nodes of the model that have this shape.
        widths: of the branches in order, the whole width first.
    """

    file: str
    op: str
    text: str
    nodes: tuple[str, ...]
    widths: tuple[KitWidth, ...]


@dataclass(frozen=True)
class KitBlock:
    """A residual block of the model; BlockTimes says more of these."""

    name: str
    kind: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Kit:
    """The list of what a kit's folder holds.

    Attributes:
        source: path of the model that it was made from.
        model: its file in the folder.
        shapes: of its inputs, where they were given; the layers have the sizes that follow.
        nodes: its nodes by name; None if they are not known.
        layers: in the order of the model.
        blocks: in the order of their sums.
    """

    schema: str
    source: str
    model: str
    shapes: Mapping[str, tuple[int, ...]]
    nodes: tuple[NodeName, ...] | None
    layers: tuple[KitLayer, ...]
    blocks: tuple[KitBlock, ...]


def read_kit(place: Path) -> tuple[Kit, Path]:
    """The kit of a folder, or one that holds just a model, for a model file; and the folder.

    Raises:
        UsageError: it is neither, or a file that the list names is missing or outside.
    """
    if not place.is_dir():
        if not place.is_file():
            raise UsageError(f"there is no file '{place}'", "give a model or the folder of a kit")
        return Kit(SCHEMA, str(place), place.name, {}, None, (), ()), place.parent
    fix = "write one with `onnxopt profile MODEL --kit FOLDER`"
    kit: Kit = read_json(Kit, place / LIST, SCHEMA, "the list of a kit", fix)
    for name in (kit.model, *(layer.file for layer in kit.layers)):
        file = (place / name).resolve()
        if place.resolve() not in file.parents or not file.is_file():
            raise UsageError(f"the kit '{place}' names '{name}', which is not in it", fix)
    if any(not layer.widths for layer in kit.layers):
        raise UsageError(f"the kit '{place}' has a layer without widths", fix)
    return kit, place
