# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""`hri-emo doctor` says whether the nodes would start, and is right."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hri_emo_ros.cli import doctor
from hri_emo_ros.cli.main import main
from hri_emo_ros.errors import HriEmoError

pytestmark = pytest.mark.ros


@pytest.fixture(autouse=True)
def needs_ros() -> None:
    pytest.importorskip("rclpy")


def write_parameters(folder: Path, **nodes: dict[str, Any]) -> Path:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump({f"/**/{n}": {"ros__parameters": v} for n, v in nodes.items()}))
    return path


def findings(path: Path | None) -> dict[str, doctor.Finding]:
    return {finding.part: finding for finding in doctor.examine(path)}


def test_where_the_nodes_start_it_says_with_what(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_parameters(tmp_path, emotion_node={"model.bundle": str(tiny_bundle)})
    assert main(["doctor", "--params", str(path)]) == 0
    printed = capsys.readouterr().out
    for part in (
        "moonshine:tiny-en on cpu",
        "Silero VAD",
        "tiny",
        "AudioDataStamped",
        "onnxruntime 1.",
    ):
        assert part in printed, part
    assert "The nodes would start." in printed


@pytest.mark.parametrize(
    ("part", "node", "values", "says"),
    [("model", "emotion_node", {"model.bundle": "/no/such"}, r"/no/such"),
     ("recogniser", "asr_node", {"moonshine.model": "/no/such"}, r"moonshine\.model '/no/such'"),
     ("recogniser", "asr_node", {"asr.backend": "whisper", "whisper.model": "/no/such"},
      r"whisper\.model '/no/such'"),
     ("audio messages", "speech_node", {"audio.message_type": "AudioStamped"},
      r"audio\.message_type is 'AudioStamped'")],
)  # fmt: skip
def test_what_would_stop_a_node_is_named_with_its_parameter(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    part: str, node: str, values: dict[str, Any], says: str,
) -> None:  # fmt: skip
    nodes = {"emotion_node": {"model.bundle": str(tiny_bundle)}}
    nodes.setdefault(node, {}).update(values)
    path = write_parameters(tmp_path, **nodes)
    found = findings(path)
    assert [f.part for f in found.values() if f.problem and f.needed] == [part]
    assert re.search(says, found[part].problem)
    assert main(["doctor", "--params", str(path)]) == 1
    assert f"The nodes would not start: {part}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "part", "remedy"),
    [("hri_emo_msgs.msg", "hri_emo_msgs", "colcon build"),
     ("audio_common_msgs.msg", "audio messages", "apt-get install"),
     ("rclpy", "ROS 2", "source")],
)  # fmt: skip
def test_what_is_not_installed_is_named_with_its_remedy(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    module: str, part: str, remedy: str,
) -> None:  # fmt: skip
    for name in [n for n in sys.modules if n.startswith("hri_emo_ros.nodes")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    path = write_parameters(tmp_path, emotion_node={"model.bundle": str(tiny_bundle)})
    assert remedy in findings(path)[part].problem


def test_no_microphone_does_not_stop_the_nodes(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    path = write_parameters(tmp_path, emotion_node={"model.bundle": str(tiny_bundle)})
    assert "PortAudio" in findings(path)["microphone"].problem
    assert main(["doctor", "--params", str(path)]) == 0


def test_a_parameter_file_that_launch_would_refuse_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_parameters(tmp_path, asr_node={"asr.backend": "pigeon"})
    assert main(["doctor", "--params", str(path)]) == 2
    assert "asr.backend" in capsys.readouterr().err


def test_the_nodes_refuse_what_it_says_they_would(
    tiny_bundle: Path, tmp_path: Path, ros_domain: int
) -> None:
    from hri_emo_ros.nodes.graph import Graph

    path = write_parameters(
        tmp_path,
        emotion_node={"model.bundle": str(tiny_bundle)},
        asr_node={"moonshine.model": "/no/such"},
    )
    with (
        pytest.raises(HriEmoError, match=r"moonshine\.model '/no/such'"),
        Graph(params_file=path, domain_id=ros_domain, single_process=True),
    ):
        pass
