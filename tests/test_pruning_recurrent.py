"""Gates of LSTM, GRU and RNN as layers: what they multiply, and what refits of them restore."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx.numpy_helper
import pytest
from cuts import weighted

from onnxopt.graph import Array
from onnxopt.pruning.biases import with_biases
from onnxopt.pruning.channels import Channels
from onnxopt.pruning.compensate import compensate, following
from onnxopt.pruning.layers import find_layers
from onnxopt.pruning.readers import readers
from onnxopt.pruning.recurrent import Gates
from onnxopt.pruning.refit import Refit
from onnxopt.pruning.sensitivity import output_change
from onnxopt.pruning.statistics import rank
from onnxopt.pruning.stepper import set_weights, weights_of
from onnxopt.runtime import Session

STEPS, INPUTS, UNITS = 7, 4, 6
COUNT = {"LSTM": 4, "GRU": 3, "RNN": 1}
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "Sigmoid": lambda x: np.asarray(1 / (1 + np.exp(-x))),
    "Tanh": np.tanh,
    "Relu": lambda x: np.asarray(np.maximum(x, 0)),
    "Softsign": lambda x: np.asarray(x / (1 + np.abs(x))),
}
DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}

CASES = {
    "LSTM": ("LSTM", "", "b"),
    "LSTM with peepholes": ("LSTM", "", "bp"),
    "LSTM without biases": ("LSTM", "", ""),
    "LSTM backwards": ("LSTM", 'direction="reverse"', "b"),
    "LSTM both ways": ("LSTM", 'direction="bidirectional"', "bp"),
    "LSTM both ways with lengths and states": ("LSTM", 'direction="bidirectional"', "blhc"),
    "LSTM with other activations": ("LSTM", 'activations=["Sigmoid","Relu","Softsign"]', "b"),
    "LSTM that clips": ("LSTM", "clip=0.3", "b"),
    "GRU": ("GRU", "", "b"),
    "GRU with lengths and states": ("GRU", "", "blh"),
    "GRU both ways with lengths": ("GRU", 'direction="bidirectional"', "blh"),
    "GRU that clips": ("GRU", "clip=0.3", "b"),
    "GRU linear before reset": ("GRU", "linear_before_reset=1", "b"),
    "GRU linear before reset without biases": ("GRU", "linear_before_reset=1", ""),
    "GRU linear before reset both ways": (
        "GRU",
        'linear_before_reset=1,direction="bidirectional"',
        "blh",
    ),
    "GRU of another hidden activation": ("GRU", 'activations=["Sigmoid","Softsign"]', "b"),
    "RNN": ("RNN", "", "b"),
    "RNN both ways with lengths": (
        "RNN",
        'direction="bidirectional",activations=["Relu","Tanh"]',
        "blh",
    ),
}


def recurrent(
    op: str, attributes: str, given: str, seed: int = 0, shown: str = "o", units: int = UNITS
) -> onnx.ModelProto:
    """A recurrent node between two products; biases, lengths, states and peepholes as given."""
    ways = 2 if "bidirectional" in attributes else 1
    gates = COUNT[op]
    inputs = (
        f"float[{STEPS},N,{INPUTS}] x, float[{INPUTS},5] win, float[{ways},{gates * units},5] ww,"
        f" float[{ways},{gates * units},{units}] wr, float[{units},3] wo"
    )
    parts = {
        "b": f"float[{ways},{2 * gates * units}] wb",
        "l": "int32[N] l",
        "h": f"float[{ways},N,{units}] h",
        "c": f"float[{ways},N,{units}] c",
        "p": f"float[{ways},{3 * units}] wp",
    }
    inputs += "".join(f", {parts[key]}" for key in given)
    names = ["u", "ww", "wr"]
    names += [n if n.strip("w") in given else "" for n in ("wb", "l", "h", "c", "wp")]
    listed = ", ".join(names[: 6 if op != "LSTM" else 8])
    made = {"o": "o", "oh": ", oh"}[shown]
    text = f"<hidden_size={units}{',' if attributes else ''}{attributes}>"
    body = f"u = MatMul(x, win) {made} = {op}{text}({listed}) y = MatMul({shown}, wo)"
    proto = weighted(inputs, body, seed=seed)
    scale = {n: weights_of(proto, [n])[n] * np.float32(0.7) for n in ("ww", "wr")}
    set_weights(proto, scale)
    return proto


def batch(proto: onnx.ModelProto, seed: int, size: int = 5) -> dict[str, Array]:
    """Inputs with two dimensions less than they have numbers, and lengths of 0 to all steps."""
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for info in proto.graph.input:
        shape = [d.dim_value or size for d in info.type.tensor_type.shape.dim]
        made[info.name] = rng.standard_normal(shape).astype(np.float32)
        if info.name == "l":
            made["l"] = rng.integers(0, STEPS + 1, size).astype(np.int32)
    return made


def found_in(proto: onnx.ModelProto) -> list[Gates]:
    channels = Channels(proto, batch(proto, 0))
    layers = find_layers(channels.model.graph, channels.instance.shape)
    return [layer for layer in layers if isinstance(layer, Gates)]


def values_of(proto: onnx.ModelProto, given: Mapping[str, Array]) -> dict[str, Array]:
    """All that the node reads, and Y."""
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    shown.graph.output.append(onnx.ValueInfoProto(name="u"))
    return {**given, **Session(shown).run(given)}


def simulated(
    layers: list[Gates], sums: list[Array], proto: onnx.ModelProto, h: Array, c: Array
) -> Array:
    """States [B, S, H] of one direction, from the sums of its gates [B, S, m] and h before."""
    (node,) = (n for n in proto.graph.node if n.op_type in COUNT)
    first = layers[0]
    named = first.operator.attribute("activations") or DEFAULTS[node.op_type] * 2
    per_way = len(DEFAULTS[node.op_type])
    f, *others = (FUNCTIONS[n] for n in named[first.direction * per_way :][:per_way])
    clip = first.operator.attribute("clip") or np.inf

    def cut(x: Array) -> Array:
        return np.asarray(np.clip(x, -clip, clip))

    if node.op_type == "RNN":
        return f(cut(sums[0]))
    if node.op_type == "GRU":
        z, r = np.split(f(cut(sums[0])), 2, axis=2)
        hidden = sums[1] if len(sums) == 2 else sums[1] + r * sums[2]
        return np.asarray((1 - z) * others[0](cut(hidden)) + z * h)
    i, o, forget, g = np.split(sums[0], 4, axis=2)
    weights = weights_of(proto, ["wp"])
    peep = np.zeros((3, h.shape[2])) if "wp" not in weights else weights["wp"][first.direction]
    pi, po, pf = np.reshape(peep, (3, -1))
    made = np.zeros_like(h)
    steps = range(h.shape[1])
    for t in reversed(steps) if first.backwards else steps:
        inner = others[0](cut(g[:, t]))
        c = f(cut(forget[:, t] + pf * c)) * c + f(cut(i[:, t] + pi * c)) * inner
        made[:, t] = f(cut(o[:, t] + po * c)) * others[1](c)
    return made


@pytest.mark.parametrize("case", CASES)
def test_a_cell_computed_from_rows_and_matrices_is_the_cell_of_onnx_runtime(case: str) -> None:
    """Lengths are all the same here, so that all rows are in the order of the steps."""
    op, attributes, given = CASES[case]
    proto = recurrent(op, attributes, given)
    feeds = batch(proto, 1)
    feeds["l"] = np.full(5, STEPS, np.int32)
    values = values_of(proto, {n: v for n, v in feeds.items() if n != "l" or "l" in given})
    layers = found_in(proto)
    weights = weights_of(proto, [t.name for t in proto.graph.initializer])
    ways = 2 if "bidirectional" in attributes else 1
    assert {layer.direction for layer in layers} == set(range(ways))
    assert sum(layer.share for layer in layers) == pytest.approx(1)
    y = layers[0].states(values, weights)
    for way in range(ways):
        mine = [layer for layer in layers if layer.direction == way]
        sums = []
        for layer in mine:
            x = layer.gathered(values, weights)
            positions = np.arange(x.shape[1])[None].repeat(len(x), axis=0)
            rows = layer.rows(x, positions).astype(np.float64)
            W = layer.matrix(weights)[0]
            assert layer.positions(x.shape) == STEPS
            sums.append((rows @ W[:-1] + W[-1]).reshape(len(x), STEPS, -1))
        before = mine[0].gathered(values, weights)[:, :, 5:]
        c = feeds["c"][way] if "c" in given else np.zeros((5, UNITS))
        found = simulated(mine, sums, proto, before, c)
        np.testing.assert_allclose(found.swapaxes(0, 1), y[:, way], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_matrices_that_are_stored_are_read_again(case: str) -> None:
    """Of each gate alone; the others stay what they were."""
    proto = recurrent(*CASES[case])
    weights = weights_of(proto, [t.name for t in proto.graph.initializer])
    layers = found_in(proto)
    rng = np.random.default_rng(0)
    for layer in layers:
        same = layer.stored(layer.matrix(weights), weights)
        for name, array in same.items():
            np.testing.assert_allclose(array, weights[name], atol=1e-6)
            assert array.dtype == weights[name].dtype
        other: Array = np.asarray(rng.standard_normal(layer.matrix(weights).shape))
        if not layer.bias:
            other[:, -1] = 0
        changed = {**weights, **layer.stored(other, weights)}
        np.testing.assert_allclose(layer.matrix(changed), other, atol=1e-5)
        for one in layers:
            if one is not layer:
                assert np.array_equal(one.matrix(changed), one.matrix(weights))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_padded_steps_are_no_rows_and_sequences_without_steps_neither(direction: str) -> None:
    proto = recurrent("RNN", f'direction="{direction}"', "blh")
    feeds = batch(proto, 0)
    feeds["l"] = np.array([3, 0, 7, 1, 2], np.int32)
    feeds["x"][3:, 0] = feeds["x"][1:, 3] = feeds["x"][2:, 4] = 1000
    feeds["x"][:, 1] = 1000
    values = values_of(proto, feeds)
    weights = weights_of(proto, ["ww", "wr", "wb", "win"])
    (layer,) = found_in(proto)
    rows = layer.gathered(values, weights)
    assert rows.shape == (4, STEPS, 5 + UNITS)
    u, y = values["u"], layer.states(values, weights)
    for place, (sample, length) in enumerate([(0, 3), (2, 7), (3, 1), (4, 2)]):
        for step in range(STEPS):
            at = step % length
            before = at - 1 if direction == "forward" else at + 1
            h = y[before, 0, sample] if 0 <= before < length else feeds["h"][0, sample]
            np.testing.assert_allclose(rows[place, step], np.concatenate([u[at, sample], h]))


def test_what_a_node_reads_as_input_and_as_its_own_state_is_one_unit() -> None:
    """A shortcut around the node ties its inputs to its hidden units."""
    proto = weighted(
        "float[7,N,4] x, float[4,6] w1, float[1,6,6] wx, float[1,6,6] wr, float[6,3] wo",
        "u = MatMul(x, w1) o, oh = RNN<hidden_size=6>(u, wx, wr) s = Squeeze(o, one)"
        " t = Add(u, s) y = MatMul(t, wo)",
        constants="int64[1] one = {1}",
    )
    channels = Channels(proto, batch(proto, 0))
    (group,) = channels.groups
    layers = list(find_layers(channels.model.graph, channels.instance.shape))
    found = {reader.layer.node: reader for reader in readers(group, layers, channels)}
    assert [rows.tolist() for rows in found["o"].rows[0]] == [[i, 6 + i] for i in range(6)]


def test_a_node_whose_states_callers_may_override_is_no_layer() -> None:
    proto = recurrent("RNN", "", "bh")
    assert found_in(proto)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 5, 6), "f"), "h"))
    assert not found_in(proto)


def refitted(
    original: onnx.ModelProto, channels: Channels, dead: set[int], batches: list[dict[str, Array]]
) -> tuple[onnx.ModelProto, onnx.ModelProto, list[Refit]]:
    """The cut model before and after its refit, and what was done."""
    cut = channels.cut(dead)
    made = onnx.ModelProto()
    made.CopyFrom(cut)
    after = Channels(made, batches[0])
    layers = list(find_layers(after.model.graph, after.instance.shape))
    done = compensate(
        original,
        made,
        layers,
        following(after.model.graph, layers, after.instance.shape),
        channels.kept(dead),
        batches,
    )
    return cut, made, done


def change(
    original: onnx.ModelProto, found: onnx.ModelProto, batches: list[dict[str, Array]]
) -> float:
    first, second = Session(original), Session(found)
    lost = output_change([first.run(b) for b in batches], [second.run(b) for b in batches])
    assert lost is not None
    return lost


def doubled(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The last unit becomes a copy of the first, in all that makes it."""
    arrays = weights_of(proto, ["ww", "wr", "wb", "wp"])
    size = arrays["wr"].shape[2]
    made = {name: array.copy() for name, array in arrays.items()}
    for array in made.values():
        blocks = array.reshape(len(array), -1, size, *array.shape[2:])
        blocks[:, :, size - 1] = blocks[:, :, 0]
    set_weights(proto, made)
    return proto


@pytest.mark.parametrize("shown", ["o", "oh"])
@pytest.mark.parametrize("case", [case for case in CASES if "states" not in case])
def test_a_unit_that_is_a_copy_of_another_is_removed_without_loss(case: str, shown: str) -> None:
    op, attributes, given = CASES[case]
    if "l" in given:
        given = given.replace("h", "")
    proto = with_biases(doubled(recurrent(op, attributes, given, shown=shown)))
    batches = [batch(proto, seed, 16) for seed in range(10)]
    channels = Channels(proto, batches[0])
    layers = list(find_layers(channels.model.graph, channels.instance.shape))
    place = next(i for i, g in enumerate(channels.groups) if len(g.units) == UNITS)
    rankings = rank(proto, channels, channels.groups, layers, batches)
    assert all(ranking.measured for ranking in rankings)
    assert {0, UNITS - 1} & set(rankings[place].order[:2].tolist())
    assert rankings[place].curve[1] < 1e-3 < 1e-2 < rankings[place].curve[3]
    dead = {channels.groups[place].units[UNITS - 1]}
    cut, made, done = refitted(proto, channels, dead, batches)
    before, after = change(proto, cut, batches), change(proto, made, batches)
    assert all(refit.after < refit.before for refit in done if refit.kept)
    assert before > 1e-3
    assert after < 1e-3 * before
