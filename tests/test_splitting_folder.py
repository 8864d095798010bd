"""The manifest is read with suspicion: nothing in it is believed before it fits together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from splits import CUTS_OF_TWO_BRANCHES, two_branches, write_split

from onnxopt.errors import UsageError
from onnxopt.splitting.chain import Chain
from onnxopt.splitting.folder import (
    MANIFEST,
    check_files,
    cut_number,
    read_manifest,
    split_digest,
)
from onnxopt.splitting.verify import verify_folder

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_split(tmp_path, two_branches(), CUTS_OF_TWO_BRANCHES, codec="fp16")
    return tmp_path


def edited(folder: Path, edit: Edit) -> Path:
    data = json.loads((folder / MANIFEST).read_text())
    edit(data)
    (folder / MANIFEST).write_text(json.dumps(data))
    return folder


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written = write_split(tmp_path, two_branches(), CUTS_OF_TWO_BRANCHES)
    assert read_manifest(tmp_path) == written
    assert cut_number(written, "cut03") == 3
    with pytest.raises(UsageError, match="no cut 'cut09'"):
        cut_number(written, "cut09")


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda d: d.update(schema="onnxopt-split/2"), "of the kind onnxopt-split/2"),
        (lambda d: d.pop("cuts"), "no 'cuts'"),
        (lambda d: d.update(extra=1), "unknown 'extra'"),
        (lambda d: d.update(name="../m"), "no name for a model on a server"),
        (lambda d: d.update(chosen=9), "no cut 9"),
        (lambda d: d.update(chosen=True), "no whole number"),
        (lambda d: d["cuts"].pop(), "4 segments have not 4 cuts"),
        (lambda d: d.update(segments=[], cuts=d["cuts"][:1]), "no segments"),
        (lambda d: d["cuts"][1].update(name="cut07"), "cut 1 is called 'cut07'"),
        (lambda d: d["cuts"][1].update(decoder=None), "half of a codec"),
        (lambda d: d["cuts"][1].update(encoder="../../e.onnx"), "no file of its folder"),
        (lambda d: d["cuts"][1].update(files={}), "'cut01_encoder.onnx' is without its hash"),
        (lambda d: d["cuts"][1]["files"].update({"../e.onnx": "0"}), "no file of its folder"),
        (lambda d: d["segments"][0].update(file="/etc/passwd"), "no file of its folder"),
        (lambda d: d["segments"][0].update(files={}), "without its hash"),
        (lambda d: d["segments"][1]["reads"].append("z"), "nothing makes 'z'"),
        (lambda d: d["segments"][3].update(makes=[]), "nothing makes the output 'y'"),
        (lambda d: d["cuts"][2].update(tensors=[]), "does not cross at cut02"),
        (lambda d: d["inputs"][0].update(shape=["N", 4.0]), "none of"),
        (lambda d: d.update(tolerance=-1), "is no tolerance"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(folder: Path, edit: Edit, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_manifest(edited(folder, edit))
    assert said in raised.value.what


def test_what_is_no_folder_of_a_split_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        read_manifest(tmp_path / "none")
    with pytest.raises(UsageError, match=r"has no split\.json"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(UsageError, match="no JSON"):
        read_manifest(tmp_path)


def test_files_are_what_they_were(folder: Path) -> None:
    segment = read_manifest(folder).segments[0]
    check_files(folder, segment.files.items())
    (folder / segment.file).write_bytes(b"")
    with pytest.raises(UsageError, match="is not what"):
        check_files(folder, segment.files.items())
    (folder / segment.file).unlink()
    with pytest.raises(UsageError, match="cannot read"):
        check_files(folder, segment.files.items())


@pytest.mark.parametrize("which", ["encoder", "decoder"])
def test_a_codec_that_is_not_what_it_was_is_not_run(folder: Path, which: str) -> None:
    manifest = read_manifest(folder)
    file = getattr(manifest.cuts[1], which)
    cast = onnx.load(folder / file)
    cast.graph.doc_string = "does the same, and is another file"
    (folder / file).write_bytes(cast.SerializeToString())
    with pytest.raises(UsageError, match=f"{file}' is not what"):
        Chain(folder, manifest).load((), [file])
    assert verify_folder(folder).changed == (file,)
    chain, cut = Chain(folder, manifest), manifest.cuts[1]
    use, ports = (chain.encode, cut.tensors) if which == "encoder" else (chain.decode, cut.wire)
    with pytest.raises(UsageError, match=f"{file}' is not what"):
        use(1, {port.name: np.zeros(4, port.dtype) for port in ports})


def test_both_sides_agree_on_what_matters_to_both(folder: Path) -> None:
    digest = split_digest(read_manifest(folder))
    assert split_digest(read_manifest(edited(folder, lambda d: d.update(chosen=2)))) == digest
    changes: list[Edit] = [
        lambda d: d.update(model="0" * 64),
        lambda d: d["segments"][1]["files"].update({d["segments"][1]["file"]: "0" * 64}),
        lambda d: d["cuts"][1].update(codec="uint8"),
        lambda d: d["cuts"][1]["files"].update({d["cuts"][1]["decoder"]: "0" * 64}),
    ]
    for change in changes:
        before = (folder / MANIFEST).read_text()
        assert split_digest(read_manifest(edited(folder, change))) != digest
        (folder / MANIFEST).write_text(before)
