"""What `split.json` says: the segments of a split model, and the cuts between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from onnxopt.signature import Dim

SCHEMA: Final = "onnxopt-split/1"

Codec: TypeAlias = Literal["none", "fp16", "uint8"]


@dataclass(frozen=True)
class Port:
    """A tensor that crosses, goes in or comes out.

    Attributes:
        dtype: as numpy names it.
        shape: number, symbol or None for each dimension; None where the rank is not known.
        size_bytes: at the sizes that the cost was told for.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None
    size_bytes: int


@dataclass(frozen=True)
class Segment:
    """A consecutive part of the model, as a model of its own.

    Attributes:
        file: in the folder of the manifest.
        files: all files that belong to it (external data) with their SHA-256, itself among them.
        reads: inputs of the model and results of segments before it, in the order of its inputs.
        makes: what later segments read and what is an output of the model, likewise.
    """

    file: str
    files: Mapping[str, str]
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    macs: int
    weight_bytes: int
    peak_bytes: int | None


@dataclass(frozen=True)
class Cut:
    """The place between two segments; the first is before all of them, the last behind.

    Attributes:
        name: `cut00`, `cut01`, ...: the number of segments on the device. On the wire the edge
            half of it is the model `NAME.cut01`.
        tensors: what must cross, as the segments name it.
        codec: how it does. Where encoder is None the segments themselves give and take `wire`.
        wire: what does cross.
        encoder, decoder: files of models that make `wire` of `tensors`, and these of it.
        files: both of them with their SHA-256; empty where there are none.
        error: largest relative error that the codec causes in the outputs, on samples; None if it
            was not measured.
    """

    name: str
    tensors: tuple[Port, ...]
    codec: Codec
    wire: tuple[Port, ...]
    encoder: str | None
    decoder: str | None
    files: Mapping[str, str]
    error: float | None


@dataclass(frozen=True)
class Manifest:
    """A model split into segments: which run on the device may change from run to run.

    Attributes:
        name: of the model, for servers: letters, digits, '_', '-' and '.'.
        model: SHA-256 of the model that was split.
        inputs, outputs: of the whole model, in its order.
        cuts: one more than segments: cut i has segments 0 .. i-1 on the device.
        chosen: number of the cut to use where nothing else is said.
        planned: what `split plan` decided by, as it writes it; None if the user chose the cut.
        verified: how the halves were compared with the whole, in sentences.
        source: where the model lay, as seen from the folder; empty if nobody said.
        tolerance: relative error in the outputs that the user accepts beside that of codecs; None
            if nothing was said, which leaves 1e-5 with ONNX Runtime's optimizations and none
            without.
    """

    schema: Literal["onnxopt-split/1"]
    name: str
    model: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    segments: tuple[Segment, ...]
    cuts: tuple[Cut, ...]
    chosen: int
    planned: str | None
    verified: tuple[str, ...]
    source: str = ""
    tolerance: float | None = None
