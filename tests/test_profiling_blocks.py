"""What residual blocks take: on made-up times, and by structure where a real one is measured."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from judge import REPOSITORY, model
from profiles import profile, residual, written
from rich.console import Console

import onnxopt
from onnxopt.errors import UsageError
from onnxopt.profiler import kit_blocks, make_kit, profile_model
from onnxopt.profiling.bench import Asked
from onnxopt.profiling.block_times import block_times
from onnxopt.profiling.document import BlockTimes, Fit, KernelTime, LayerTimes, Profile, WidthTime
from onnxopt.profiling.files import as_json
from onnxopt.profiling.kit import KitBlock, read_kit
from onnxopt.profiling.measure import measure
from onnxopt.profiling.rows import block_rows, closing_lines, plain_text
from onnxopt.report.profile_table import profile_table

SHORT = Asked(seconds=0.01)
SCHEMA = json.loads((Path(onnxopt.__file__).parent / "report" / "profile_schema.json").read_text())


def kernel(us: float, *nodes: str) -> KernelTime:
    return KernelTime(nodes[0] if nodes else "k", "Conv", (), (), us, us / 100, nodes)


def layer(text: str, us: float, t0: float | None, *nodes: str) -> LayerTimes:
    """A layer that takes so long alone; without a fit where no start-up is given."""
    width = WidthTime(8, 8, 1, 1, us, us, us, "Conv", (), ())
    share = None if t0 is None else t0 / us
    found = None if t0 is None else Fit(t0, 1.0, 1.0, 0.0, 0.0)
    return LayerTimes("Conv", text, nodes, len(nodes), us, (width,), found, share)


KERNELS = (
    kernel(3.0, "stem"),
    kernel(10.0, "c1", "r1"),
    kernel(12.0, "c2", "add", "relu"),
    kernel(7.0, "c3"),
    kernel(1.0, "add3", "relu3"),
    kernel(5.0),
)
LAYERS = (layer("3x3", 9.0, 3.0, "c1", "c2"), layer("1x1", 6.0, 1.0, "stem", "c3"))
BLOCKS = (
    KitBlock("add", "convolution", ("c1", "r1", "c2", "add")),
    KitBlock("add3", "convolution", ("c3", "add3")),
)


def times(*blocks: KitBlock, layers: tuple[LayerTimes, ...] = LAYERS) -> tuple[BlockTimes, ...]:
    return block_times(blocks, KERNELS, layers)


def test_a_block_takes_the_time_of_its_kernels_and_the_start_ups_of_its_layers() -> None:
    first, second = times(*BLOCKS)
    assert (first.in_model_us, first.layers, first.fitted) == (22.0, 2, 2)
    assert (first.alone_us, first.startup_us) == pytest.approx((18.0, 6.0))
    assert first.startup_share == pytest.approx(1 / 3)
    assert (second.in_model_us, second.layers) == (8.0, 1)  # its sum is a kernel of its own
    assert second.startup_share == pytest.approx(1 / 6)


def test_a_sum_that_is_fused_behind_a_layer_outside_takes_that_layer_into_no_block() -> None:
    (found,) = times(KitBlock("relu3", "other", ("relu3",)))
    assert found.in_model_us is None
    (found,) = block_times(BLOCKS[1:], (kernel(9.0, "shortcut", "add3"), kernel(7.0, "c3")), ())
    assert found.in_model_us == 7.0


def test_layers_without_a_fit_are_counted_and_take_no_part_in_the_share() -> None:
    layers = (layer("3x3", 9.0, 3.0, "c1"), layer("3", 100.0, None, "c2"))
    first, second = times(*BLOCKS, layers=layers)
    assert (first.layers, first.fitted, first.alone_us) == (2, 1, 9.0)
    assert first.startup_share == pytest.approx(1 / 3)
    assert (second.layers, second.fitted, second.startup_share) == (0, 0, None)
    made = with_blocks((first, second), layers)
    rows = block_rows(made)
    assert [row[3] for row in rows] == ["2, 1 of them fitted", "0"]
    assert rows[1][5:] == ("?", "?", "?")


def with_blocks(blocks: tuple[BlockTimes, ...], layers: tuple[LayerTimes, ...] = LAYERS) -> Profile:
    return replace(profile(), kernels=KERNELS, layers=layers, blocks=blocks)


def test_blocks_of_one_kind_with_the_same_layers_are_one_row_and_the_longest_come_first() -> None:
    again = [KitBlock(f"more{i}", "convolution", ("c2", "c1", f"more{i}")) for i in range(3)]
    other = KitBlock("attended", "attention", ("c1", "c2", "attended"))
    rows = block_rows(with_blocks(times(*reversed(BLOCKS), *again, other)))
    assert [(row[0], row[1], row[2]) for row in rows] == [
        ("add and 3 more", "convolution", "4"),
        ("attended", "attention", "1"),
        ("add3", "convolution", "1"),
    ]
    assert rows[0][3:] == ("2", "22 us", "18 us", "6 us", "33%")


def test_all_blocks_together_count_one_inside_of_another_once() -> None:
    outer = KitBlock("outer", "convolution", ("c1", "r1", "c2", "add", "c3", "outer"))
    (line,) = (
        line
        for line in closing_lines(with_blocks(times(*BLOCKS, outer)))
        if line.startswith("residual blocks")
    )
    assert "30% of the steady state" in line  # 22 and 8 of 100
    assert "29% of the time of their layers is start-up" in line  # 3 + 3 + 1 of 9 + 9 + 6


def shown(made: Profile) -> tuple[str, str]:
    """For the desk and for the device, without line breaks."""
    stream = io.StringIO()
    Console(file=stream, width=200).print(profile_table(made))
    return " ".join(stream.getvalue().split()), " ".join(plain_text(made).split())


def test_a_model_without_blocks_shows_nothing_of_them() -> None:
    for text in shown(with_blocks(())):
        assert "residual" not in text


def test_desk_and_device_show_the_blocks_and_json_follows_the_schema() -> None:
    made = with_blocks(times(*BLOCKS))
    for text in shown(made):
        assert "residual blocks kind times layers in the model layers alone start-up share" in text
        assert "add convolution 1 2 22 us 18 us 6 us 33%" in text
        assert "that goes only where whole blocks go" in text
    jsonschema.validate(json.loads(as_json(made)), SCHEMA)


def test_blocks_are_found_whatever_the_order_of_nodes_and_named_as_in_the_kit(
    tmp_path: Path,
) -> None:
    proto = residual()
    nodes = [*proto.graph.node][::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    expected = (KitBlock("sum", "convolution", ("first", "relu", "second", "sum")),)
    assert kit_blocks(proto, {"x": (2, 16, 8, 8)}) == expected
    for node in proto.graph.node:
        node.name = ""
    kit = make_kit(residual(), tmp_path / "kit", SHORT)
    assert kit.blocks == expected and read_kit(tmp_path / "kit")[0] == kit
    (found,) = kit_blocks(proto, {})
    assert found.name == "Add_s" and found.nodes[-1] == "Add_s"


def test_with_fed_and_with_drawn_inputs_the_same_blocks_are_found() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4] x, int64[1] i) => (float[N,4] y)
        { t = Gather<axis = 1>(x, i)  a = MatMul(x, w)  y = Add(a, x) }"""
    proto = model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    feeds: dict[str, Any] = {"x": np.ones((2, 4), np.float32), "i": np.zeros(1, np.int64)}
    assert kit_blocks(proto, {}, feeds) == kit_blocks(proto, {})
    assert [block.kind for block in kit_blocks(proto, {})] == ["mlp"]


def test_a_measured_model_tells_each_of_its_blocks() -> None:
    digits = onnxopt.load(REPOSITORY / "models" / "digits_resnet.onnx")
    found = profile_model(digits, SHORT, widths=True)
    assert len(found.blocks) >= 4 and {b.kind for b in found.blocks} == {"convolution"}
    for block in found.blocks:
        assert block.layers == block.fitted == 2
        assert block.in_model_us is not None and block.alone_us is not None
        assert block.startup_share is not None and 0 <= block.startup_share <= 1
        assert block.startup_us == pytest.approx(block.startup_share * block.alone_us)
    assert all("residual blocks" in text for text in shown(found))


def test_without_widths_there_are_no_blocks(tmp_path: Path) -> None:
    assert measure(written(residual(), tmp_path / "m.onnx"), SHORT).blocks == ()
    assert make_kit(residual(), tmp_path / "kit", SHORT, widths=False).blocks == ()


def test_a_kit_of_an_earlier_version_is_refused_with_the_way_to_a_new_one(tmp_path: Path) -> None:
    make_kit(residual(), tmp_path / "kit", SHORT)
    file = tmp_path / "kit" / "kit.json"
    file.write_text(file.read_text().replace("onnxopt-kit/2", "onnxopt-kit/1"))
    with pytest.raises(UsageError, match="of the kind onnxopt-kit/1") as caught:
        read_kit(tmp_path / "kit")
    assert "--kit FOLDER" in caught.value.fix
