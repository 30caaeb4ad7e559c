# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Bundles that are damaged or made to harm: through the real commands."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hri_emo_ros.cli.main import main
from hri_emo_ros.model import bundle as bundles
from hri_emo_ros.model.bundle_files import LARGEST

CLIP = Path(__file__).parent / "data" / "emodb_10a07Ta.flac"


class Bomb:
    """What runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """Without graphs, so that the weights are read."""
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder, ignore=shutil.ignore_patterns("*.onnx"))
    settings = json.loads((folder / "config.json").read_text())
    del settings["graphs"]
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def signed(folder: Path, change: Callable[[dict[str, Any]], None] = lambda settings: None) -> None:
    """Change config.json, and make the identity right again, as whoever means harm would."""
    settings = json.loads((folder / "config.json").read_text())
    change(settings)
    settings["model_id"] = bundles._identity(folder, settings, "tiny")
    (folder / "config.json").write_text(json.dumps(settings))


def refusal(capsys: pytest.CaptureFixture[str], folder: Path) -> str:
    """The one line that `hri-emo file` says before it ends with status 2."""
    assert main(["file", str(CLIP), "--bundle", str(folder), "--asr", "none"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in line
    return line


def one_bit(folder: Path) -> None:
    data = bytearray((folder / "voice.safetensors").read_bytes())
    data[-100] ^= 1
    (folder / "voice.safetensors").write_bytes(data)


def a_pickle(folder: Path) -> None:
    (folder / "voice.safetensors").write_bytes(pickle.dumps(Bomb()))
    signed(folder)


def longer_than_the_file(folder: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}})
    content = len(header).to_bytes(8, "little") + header.encode()
    (folder / "model.safetensors").write_bytes(content)
    signed(folder)


def a_header_of_exabytes(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + bytes(64))
    signed(folder)


def another_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name, value in weights.items() if value.ndim == 2)
    save_file({**weights, name: torch.zeros(3, 5)}, folder / "model.safetensors")
    signed(folder)


def a_huge_file(folder: Path) -> None:
    with (folder / "words.safetensors").open("ab") as stream:
        stream.truncate(LARGEST[".safetensors"] + 1)  # A hole: it takes no place here.


def a_device(folder: Path) -> None:
    (folder / "words.safetensors").unlink()
    (folder / "words.safetensors").symlink_to("/dev/zero")


def a_pipe(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def wide(settings: dict[str, Any]) -> None:
    settings["model"]["d_model"] = 1 << 20
    settings["model"]["feedforward"] = 1 << 20


def wider(settings: dict[str, Any]) -> None:
    settings["model"]["d_model"] = 1 << 40


def deep(settings: dict[str, Any]) -> None:
    settings["model"]["audio"]["config"]["num_hidden_layers"] = 1_000_000


def elsewhere(settings: dict[str, Any]) -> None:
    settings["model"]["text"] = {
        "kind": "transformers", "name": "somebody/a-model", "allow_download": True,
    }  # fmt: skip


def nested(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 200_000)


def config(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    return lambda folder: signed(folder, change)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        pytest.param(one_bit, "damaged or changed", marks=pytest.mark.fault(
            "trust", "a bundle of whose weights one bit was changed",
            does="refuse it by its hash (`model_id`)", shows="one sentence with both identities; status 2",
        )),
        pytest.param(a_pickle, "cannot read '.*voice.safetensors'", marks=pytest.mark.fault(
            "trust", "a pickle that runs a command, named model.safetensors",
            does="unpickle nothing", shows="one sentence; status 2",
        )),
        (longer_than_the_file, "cannot read '.*model.safetensors'"),
        pytest.param(a_header_of_exabytes, "cannot read '.*model.safetensors'", marks=pytest.mark.fault(
            "trust", "weights whose header claims more than the file holds (4 TB; a header of exabytes)",
            does="allocate nothing", shows="one sentence; status 2",
        )),
        pytest.param(another_shape, r"has the shape \[3, 5\], must have", marks=pytest.mark.fault(
            "trust", "weights of other shapes than the configuration declares",
            does="compare them by the header, before anything is allocated",
            shows="one sentence with the weight and both shapes; status 2",
        )),
        pytest.param(config(wide), r"has the shape .*, must have \[.*1048576", marks=pytest.mark.fault(
            "trust", "a configuration that declares a network of terabytes",
            does="allocate nothing", shows="one sentence; status 2",
        )),
        (config(wider), "model.d_model is 1099511627776, must be at most"),
        pytest.param(config(deep), "num_hidden_layers is 1000000, must be at most 256", marks=pytest.mark.fault(
            "trust", "a configuration that declares a million layers, or sizes beyond any network",
            does="refuse it by its bounds", shows="one sentence with the field and the bound; status 2",
        )),
        pytest.param(config(elsewhere), "names an encoder elsewhere", marks=pytest.mark.fault(
            "trust", "a configuration that fetches an encoder from a hub or another folder",
            does="fetch and open nothing", shows="one sentence; status 2",
        )),
        pytest.param(a_huge_file, r"has \d+ bytes, must have at most", marks=pytest.mark.fault(
            "trust", "a file of the bundle that is larger than any model's",
            does="read none of it", shows="one sentence with both sizes; status 2",
        )),
        (a_device, "'.*words.safetensors' is no file"),
        pytest.param(a_pipe, "no bundle", marks=pytest.mark.fault(
            "trust", "a device or a pipe in place of a file of the bundle",
            does="read none of it", shows="one sentence; status 2",
        )),
        (nested, "cannot read '.*config.json'"),
    ],
)  # fmt: skip
def test_a_bundle_made_to_harm_is_one_sentence(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, harm: Callable[[Path], None], says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    harm(copy)
    line = refusal(capsys, copy)
    assert re.search(says, line), line
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("place", ["../model.safetensors", "/etc/hostname", "secret.bin", ""])
@pytest.mark.fault(
    "trust", "a graph (.onnx) that takes weights from a file out of the bundle's folder",
    does="open no session", shows="one sentence with that file's name; status 2",
)  # fmt: skip
def test_a_graph_takes_its_weights_from_the_bundle_alone(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    onnx = pytest.importorskip("onnx")
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    assert main(["file", str(CLIP), "--bundle", str(folder), "--asr", "none"]) == 0
    capsys.readouterr()
    model = onnx.load(folder / "voice.onnx", load_external_data=False)
    tensor = next(t for t in model.graph.initializer if t.external_data)
    next(e for e in tensor.external_data if e.key == "location").value = place
    if place == "secret.bin":
        # In the branch of an If, where a look at the main graph alone would not find it.
        inner = onnx.helper.make_graph([], "inner", [], [], [tensor])
        model.graph.initializer.remove(tensor)
        model.graph.node.append(
            onnx.helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner)
        )
    write_graph(folder, model.SerializeToString())
    line = refusal(capsys, folder)
    assert f"takes weights from {place!r}" in line
    write_graph(folder, b"\x3a\xff\xff\xff\xff\x0f")
    assert "no ONNX graph" in refusal(capsys, folder)


def write_graph(folder: Path, content: bytes) -> None:
    """Put `content` in the place of voice.onnx, its hash with it."""
    (folder / "voice.onnx").write_bytes(content)
    settings = json.loads((folder / "config.json").read_text())
    settings["graphs"]["sha256"]["voice.onnx"] = hashlib.sha256(content).hexdigest()
    (folder / "config.json").write_text(json.dumps(settings))
