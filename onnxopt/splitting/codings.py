"""What codecs make of each tensor of a model, and what they take on two machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxopt.splitting.candidates import Coding
from onnxopt.splitting.codecs import applies, encoded_bytes
from onnxopt.splitting.dag import Dag
from onnxopt.splitting.manifest import Codec
from onnxopt.splitting.speeds import US, Speeds


@dataclass(frozen=True)
class Machines:
    """Both sides."""

    device: Speeds
    edge: Speeds


def codings_of(
    dag: Dag, codecs: Sequence[Codec], raw_bytes: Mapping[str, int], machines: Machines
) -> tuple[Coding, ...]:
    """The codecs, each with what it makes of every tensor and how long it takes for that.

    Args:
        raw_bytes: sizes of inputs, by name, that the application has in a smaller form.

    Returns:
        first how tensors are as they are.
    """
    order: list[Codec] = ["none", *(codec for codec in codecs if codec != "none")]
    return tuple(_coding(dag, codec, raw_bytes, machines) for codec in order)


def _coding(dag: Dag, codec: Codec, raw_bytes: Mapping[str, int], machines: Machines) -> Coding:
    sent = [float(encoded_bytes(tensor, codec)) for tensor in dag.tensors]
    if codec == "none":
        sent = [
            float(raw_bytes.get(tensor.name, size))
            for tensor, size in zip(dag.tensors, sent, strict=True)
        ]
    return Coding(
        codec,
        sent,
        _seconds(dag, codec, machines.device, decoding=False),
        _seconds(dag, codec, machines.edge, decoding=True),
    )


def _seconds(dag: Dag, codec: Codec, speeds: Speeds, *, decoding: bool) -> list[float]:
    times = next((entry for entry in speeds.profile.codecs if entry.codec == codec), None)
    if times is None:
        return [0.0] * len(dag.tensors)
    each = times.decode_us if decoding else times.encode_us
    per_mb = times.decode_us_per_mb if decoding else times.encode_us_per_mb
    return [
        (each + per_mb * tensor.size_bytes / 1e6) * US * speeds.factor
        if applies(tensor, codec)
        else 0.0
        for tensor in dag.tensors
    ]
