"""Reading model files with suspicion and writing them atomically."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import judge
import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from onnxopt.errors import BadModelError, OnnxoptError, UsageError
from onnxopt.files import write_atomically
from onnxopt.model import Model, load, save
from onnxopt.optimizer import optimize


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "small.onnx"
    onnx.save(judge.tiny("residual"), file)
    return file


def test_a_missing_file_a_directory_and_an_empty_file_are_refused_in_one_line(
    tmp_path: Path,
) -> None:
    (tmp_path / "empty.onnx").touch()
    for path, reason in (
        (tmp_path / "none.onnx", "no file"),
        (tmp_path, "is a directory"),
        (tmp_path / "empty.onnx", "empty"),
    ):
        with pytest.raises(BadModelError, match=reason) as caught:
            load(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(small: Path, keep: float) -> None:
    raw = small.read_bytes()
    small.write_bytes(raw[: int(len(raw) * keep)])
    with pytest.raises(BadModelError):
        load(small)


@pytest.mark.parametrize("content", [b"hello, I am text\n" * 20, b"\x00" * 100, os.urandom(500)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "other.onnx"
    file.write_bytes(content)
    with pytest.raises(BadModelError):
        load(file)


def test_an_initializer_of_the_wrong_length_is_refused(small: Path) -> None:
    proto = onnx.load(small)
    tensor = onnx.numpy_helper.from_array(np.ones(4, np.float32), "extra")
    tensor.dims[0] = 5
    proto.graph.initializer.append(tensor)
    onnx.save(proto, small)
    read = load(small)
    with pytest.raises(BadModelError, match="'extra' holds 16 bytes"):
        Model.from_proto(read)


def external(folder: Path, location: str) -> Path:
    proto = judge.tiny("residual")
    weight = proto.graph.initializer[0]
    data = onnx.numpy_helper.to_array(weight).tobytes()
    del weight.float_data[:]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    weight.external_data.add(key="length", value=str(len(data)))
    file = folder / "external.onnx"
    file.write_bytes(proto.SerializeToString())
    (folder / "weights.bin").write_bytes(data)
    return file


def test_external_data_beside_the_model_is_read(tmp_path: Path) -> None:
    proto = load(external(tmp_path, "weights.bin"))
    judge.assert_same(judge.tiny("residual"), proto)


@pytest.mark.parametrize(
    "location",
    ["../weights.bin", "/etc/passwd", "a/../../weights.bin", "", "missing.bin", "..\\weights.bin"],
)
def test_external_data_outside_the_folder_or_missing_is_refused(
    tmp_path: Path, location: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    file = external(folder, location)
    (tmp_path / "weights.bin").write_bytes(b"\0" * 100000)
    with pytest.raises(BadModelError, match="keeps its data in"):
        load(file)


def test_external_data_behind_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    file = external(folder, "link.bin")
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(BadModelError, match="symbolic link"):
        load(file)


def test_external_data_that_is_too_short_is_refused(tmp_path: Path) -> None:
    file = external(tmp_path, "weights.bin")
    (tmp_path / "weights.bin").write_bytes(b"\0" * 3)
    with pytest.raises(BadModelError, match="truncated"):
        load(file)


@pytest.mark.parametrize("choice", ["auto", "always", "never"])
def test_a_saved_model_is_the_model(tmp_path: Path, choice: str) -> None:
    proto = load(judge.REPOSITORY / "models" / "digits_resnet.onnx")
    files = save(proto, tmp_path / "out.onnx", external_data=choice)  # type: ignore[arg-type]
    assert len(files) == (2 if choice == "always" else 1)
    judge.assert_same(proto, load(tmp_path / "out.onnx"))
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_a_model_that_had_external_data_keeps_it_and_names_it_by_content(tmp_path: Path) -> None:
    proto = load(judge.REPOSITORY / "models" / "digits_resnet.onnx")
    first = save(proto, tmp_path / "out.onnx", was_external=True)
    again = save(proto, tmp_path / "out.onnx", was_external=True)
    assert first == again and len(first) == 2
    onnx.checker.check_model(str(tmp_path / "out.onnx"))


def test_saving_into_a_missing_folder_or_onto_a_directory_is_a_usage_error(tmp_path: Path) -> None:
    proto = judge.tiny("residual")
    with pytest.raises(UsageError, match="no folder"):
        save(proto, tmp_path / "none" / "out.onnx")
    with pytest.raises(UsageError, match="is a directory"):
        save(proto, tmp_path)


def test_a_pipe_or_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "out.onnx"
    os.mkfifo(pipe)
    for target in (pipe, Path(os.devnull)):
        with pytest.raises(UsageError, match="is a device or a pipe"):
            write_atomically(target, [b"new"])
        with pytest.raises(UsageError, match="is a device or a pipe"):
            save(judge.tiny("residual"), target)
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere")
def test_what_is_write_protected_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"old")
    target.chmod(0o444)
    with pytest.raises(UsageError, match="is write-protected"):
        save(judge.tiny("residual"), target)
    assert target.read_bytes() == b"old"


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"old")

    def fail(source: str, destination: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OnnxoptError, match="No space left"):
        save(judge.tiny("residual"), target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_killed_while_writing_the_target_is_the_old_file_or_the_whole_new_one(
    tmp_path: Path,
) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"old")
    source = judge.REPOSITORY / "models" / "digits_resnet.onnx"
    code = textwrap.dedent(f"""
        from onnxopt.model import Model, load, save
        proto = load({str(source)!r})
        print("ready", flush=True)
        while True:
            save(proto, {str(target)!r})
        """)
    whole = save(load(source), tmp_path / "whole.onnx")[0].read_bytes()
    for delay in (0.0, 0.003, 0.011, 0.02):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert target.read_bytes() in (b"old", whole)


def test_a_link_is_written_through_and_permissions_are_kept(tmp_path: Path) -> None:
    real = tmp_path / "real.onnx"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link = tmp_path / "link.onnx"
    link.symlink_to(real)
    save(judge.tiny("residual"), link)
    assert link.is_symlink()
    assert load(real) == judge.tiny("residual")
    assert real.stat().st_mode & 0o777 == 0o640


def judge_damaged(file: Path) -> int:
    """The exit code that the command would have; what is no error of ours comes through."""
    try:
        verdict = optimize(load(file)).report.verdict
    except OnnxoptError as error:
        return error.exit_code
    return 0 if verdict is not None and verdict.passed else 1


@pytest.mark.parametrize("seed", range(60))
def test_damaged_bytes_are_refused_or_harmless_and_never_a_bug_of_ours(
    seed: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    raw = bytearray(judge.tiny("residual").SerializeToString())
    for _ in range(int(rng.integers(1, 6))):
        raw[int(rng.integers(len(raw)))] = int(rng.integers(256))
    file = tmp_path / "damaged.onnx"
    file.write_bytes(raw)
    assert judge_damaged(file) in (0, 3, 4)


def test_names_that_are_not_utf8_are_refused() -> None:
    raw = judge.tiny("residual").SerializeToString().replace(b"Conv", b"Con\xff")
    with pytest.raises(BadModelError, match="not UTF-8"):
        Model.from_proto(onnx.load_from_string(raw))
