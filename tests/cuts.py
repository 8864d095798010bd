"""What tests of channel groups share: models in text with drawn weights, random cuts, proofs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import judge
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from onnxopt.pruning.channels import ChannelGroup, Channels
from onnxopt.pruning.moments import Array, Floats, Indices
from onnxopt.pruning.proof import prove
from onnxopt.runtime import Session


def weighted(
    inputs: str,
    body: str,
    outputs: str = "float[...] y",
    *,
    constants: str = "",
    opset: int = 18,
    ir: int = 9,
    seed: int = 0,
) -> onnx.ModelProto:
    """A model whose inputs named w... are not inputs but weights, drawn at random.

    Args:
        constants: initializers with their numbers.
    """
    contrib = ', "com.microsoft": 1' if "com.microsoft" in body else ""
    head = f'<ir_version: {ir}, opset_import: ["": {opset}{contrib}]>'
    listed = f"<{constants}>" if constants else ""
    proto = judge.model(
        f"{head} g ({inputs}) => ({outputs.replace('[...]', '')}) {listed} {{ {body} }}"
    )
    for info in proto.graph.output:
        info.type.tensor_type.ClearField("shape")
    rng = np.random.default_rng(seed)
    for info in list(proto.graph.input):
        if info.name.startswith("w"):
            kind = info.type.tensor_type
            shape = [d.dim_value for d in kind.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            drawn: judge.Array = rng.standard_normal(shape)
            if np.dtype(dtype).kind in "iu":
                drawn = rng.integers(1, 100, shape)
            if info.name.startswith("wvar"):
                drawn = np.abs(drawn) + 0.5
            array = np.asarray(drawn).astype(dtype)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, info.name))
            proto.graph.input.remove(info)
    return proto


def channels_of(proto: onnx.ModelProto, size: int = 3, *, selects: int | None = None) -> Channels:
    return Channels(proto, judge.drawn(proto, 0, size), selects=selects)


def random_cut(channels: Channels, seed: int, groups: Iterable[ChannelGroup]) -> set[int]:
    """Some units of each group, but no axis without any."""
    rng = np.random.default_rng(seed)
    dead: set[int] = set()
    for group in groups:
        count = int(rng.integers(1, len(group.units)))
        dead.update(rng.choice(group.units, count, replace=False).tolist())
    return revived(channels, dead)


def revived(channels: Channels, dead: Iterable[int]) -> set[int]:
    """Less of a cut, so that no axis loses all that it has."""
    return set(channels.possible(dead))


def assert_cuts_hold(
    proto: onnx.ModelProto, channels: Channels | None = None, seeds: int = 4
) -> None:
    """Exact groups alone prove exact, all together run; on inputs of another size too."""
    channels = channels or channels_of(proto)
    feeds = [judge.drawn(proto, seed, size) for seed, size in ((1, 3), (2, 5), (3, 1))]
    exact = [group for group in channels.groups if group.exact]
    for seed in range(seeds):
        if exact:
            dead = random_cut(channels, seed, exact)
            proof = prove(channels, dead, feeds)
            assert proof.exact
            assert proof.error <= 1e-5, f"seed {seed}: {proof.error}"
        if channels.groups:
            dead = random_cut(channels, seed, channels.groups)
            assert prove(channels, dead, feeds).holds, f"seed {seed}"
            _assert_shapes(proto, channels.cut(dead))


def _assert_shapes(proto: onnx.ModelProto, small: onnx.ModelProto) -> None:
    """The cut model is valid and gives outputs of the same shapes."""
    feed = judge.drawn(proto, 0, 3)
    before, after = Session(proto).run(feed), Session(small).run(feed)
    assert {k: v.shape for k, v in before.items()} == {k: v.shape for k, v in after.items()}


def units(channels: Channels) -> list[int]:
    return [len(group.units) for group in channels.groups]


def reasons(channels: Channels) -> str:
    return "; ".join(declined.reason for declined in channels.declined)


def cut_to_one(channels: Channels) -> dict[str, tuple[int, ...]]:
    """Shapes of the initializers where of each group one unit is left (the first)."""
    dead = revived(channels, (unit for group in channels.groups for unit in group.units[1:]))
    small = channels.cut(dead)
    return {tensor.name: tuple(tensor.dims) for tensor in small.graph.initializer}


def channel_rows(units: int | Sequence[Array], taps: int = 1) -> list[Indices]:
    """The rows of each unit in x ordered channel * taps + tap.

    Args:
        units: how many channels there are, each a unit; or for each unit the channels that it is.
    """
    sets = [np.array([u]) for u in range(units)] if isinstance(units, int) else units
    return [
        (np.asarray(s, np.int64)[:, None] * taps + np.arange(taps)).reshape(-1).astype(np.int64)
        for s in sets
    ]


def errors(H: Floats, C: Floats, T: Floats, W: Floats) -> Floats:
    """E (w'x - t)^2 of each output, [m], in the square of the outputs' unit."""
    W = np.asarray(W, np.float64)
    return np.asarray(np.maximum(np.sum(W * (H @ W - 2 * C), axis=0) + T, 0))
