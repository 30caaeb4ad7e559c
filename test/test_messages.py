# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The interfaces as this package uses them; hri_emo_msgs/test has what holds of them alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

hri_emo_msgs = pytest.importorskip("hri_emo_msgs.msg")


def test_importable_with_nothing_sourced(tmp_path: Path) -> None:
    bare = {"HOME": str(tmp_path), "PATH": os.defpath}
    subprocess.run(
        [
            sys.executable,
            "-c",
            "from hri_emo_msgs.msg import EmotionExplanation, EmotionState, Speech, Transcript\n"
            "from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo\n"
            "EmotionState(), AudioInfo()",
        ],
        env=bare,
        cwd=tmp_path,
        check=True,
    )


@pytest.mark.parametrize(
    ("message", "prefix", "core"),
    [
        ("EmotionState", "ABSTAIN_", "AbstainReason"),
        ("EmotionState", "TRANSCRIPT_", "TranscriptStatus"),
        ("SignalQuality", "FAULT_", "Fault"),
    ],
)
def test_enumerations_are_those_of_the_core(message: str, prefix: str, core: str) -> None:
    from hri_emo_ros import types

    in_message = {
        name.removeprefix(prefix): getattr(getattr(hri_emo_msgs, message), name)
        for name in dir(getattr(hri_emo_msgs, message))
        if name.startswith(prefix)
    }
    assert in_message == {member.name: member.value for member in getattr(types, core)}


def test_audio_common_msgs_are_those_of_ros_drivers() -> None:
    from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo

    assert AudioData.get_fields_and_field_types() == {"data": "sequence<uint8>"}
    assert AudioDataStamped.get_fields_and_field_types() == {
        "header": "std_msgs/Header",
        "audio": "audio_common_msgs/AudioData",
    }
    assert AudioInfo.get_fields_and_field_types() == {
        "channels": "uint8",
        "sample_rate": "uint32",
        "sample_format": "string",
        "bitrate": "uint32",
        "coding_format": "string",
    }
