# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The same recording offline and through the real nodes over DDS: nothing may differ."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import Reader

pytest.importorskip("rclpy")

from hri_emo_ros.evaluation.bag_make import BagRecipe, make_bag
from hri_emo_ros.evaluation.emotion_bag import TOPICS
from hri_emo_ros.evaluation.live import replay_live
from hri_emo_ros.evaluation.replay import Replayer
from hri_emo_ros.evaluation.replay_outputs import record_bag
from hri_emo_ros.evaluation.rosbag_types import emotion_typestore
from hri_emo_ros.parameters import load_parameters

pytestmark = pytest.mark.ros

DATA = Path(__file__).parent / "data"
VAD_FRAME = 512 / 16000


TIMES = ("stream_id", "latency", "queueing")
"""Fields that name the run, or are measured times."""


def published(out: Path) -> dict[str, list[Any]]:
    """The messages of each topic of OUT/bag."""
    store, found = emotion_typestore(), dict[str, list[Any]]()
    with Reader(out / "bag") as reader:
        for topic in reader.topics:
            found[topic] = []
        for connection, _, raw in reader.messages():
            found[connection.topic].append(store.deserialize_cdr(raw, connection.msgtype))
    return found


def same(ours: Any, theirs: Any, where: str) -> None:
    """Two messages are field for field the same."""
    if isinstance(ours, np.ndarray):
        assert ours.shape == theirs.shape, where
        np.testing.assert_allclose(ours, theirs, atol=1e-4, err_msg=where)
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), where
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            same(one, other, f"{where}[{number}]")
    elif isinstance(ours, float):
        assert ours == pytest.approx(theirs, abs=1e-4, nan_ok=True), where
    elif is_dataclass(ours):
        for field in fields(ours):
            if field.name not in TIMES:
                same(
                    getattr(ours, field.name),
                    getattr(theirs, field.name),
                    f"{where}.{field.name}",
                )
    else:
        assert ours == theirs, where


@pytest.mark.fault(
    "recording", "the output bag of `replay` beside what the nodes publish, abstained states among it",
    does="fill every message from one mapping",
    shows="field for field the same, but for measured times and the stream's name",
)  # fmt: skip
def test_the_output_bag_of_replay_is_what_the_nodes_publish(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "manifest.csv"
    names = ("lj_LJ001-0008", "emodb_11a02Wc", "ravdess_03-01-06-02-02-01-08")
    lines = [f"{DATA / name}.flac,neutral" for name in names]
    manifest.write_text("path,emotion\n" + "\n".join(lines) + "\n")
    recipe = BagRecipe(manifest, gap=(0.7, 0.8), noise="pink", snr_db=30.0, level_dbfs=-26.0)
    make_bag(recipe, tmp_path / "bag")
    # The first and the last utterance abstain, so that the tone begins with nobody to go by.
    parameters = load_parameters(
        None,
        [f"model.bundle:={tiny_bundle}", "audio.queue:=120.0", "model.threads:=1", "asr.threads:=1",
         "final.hold:=30.0", "explanation.enabled:=true", "abstain.min_speech:=1.8"],
    )  # fmt: skip
    replayer = Replayer(parameters)
    with record_bag(tmp_path / "offline", replayer) as record:
        replayer.run(tmp_path / "bag", record=record)
    replay_live(parameters, tmp_path / "bag", out=tmp_path / "live")
    offline, live = published(tmp_path / "offline"), published(tmp_path / "live")
    finals = offline["/emotion_final"]
    assert [state.abstained for state in finals] == [True, False, True]
    assert all(len(state.scores) == 7 and state.dominant == "" for state in (finals[0], finals[2]))
    assert finals[0].transcript and len(offline["/emotion_explanation"]) == 3
    assert offline["/conversation_emotion"][0].overall.abstained
    for topic in TOPICS:
        # What is provisional depends on how long the recogniser takes.
        ours, theirs = (
            [m for m in bag[topic] if getattr(m, "stage", 1) == 1 or m.status == 4]
            if topic == "/transcript"
            else [m for m in bag[topic] if getattr(m, "stage", 1) == 1]
            for bag in (live, offline)
        )
        assert len(ours) == len(theirs) > 0, topic
        same(ours, theirs, topic)


@pytest.mark.parametrize("speed", [1.0, 5.0])
def test_live_and_offline_hear_and_say_the_same(
    tiny_bundle: Path, tmp_path: Path, speed: float
) -> None:
    manifest = tmp_path / "manifest.csv"
    names = ("lj_LJ001-0008", "emodb_11a02Wc", "ravdess_03-01-06-02-02-01-08")
    lines = [f"{DATA / name}.flac,neutral" for name in names]
    manifest.write_text("path,emotion\n" + "\n".join(lines) + "\n")
    # The last utterance is still open when the recording ends.
    recipe = BagRecipe(manifest, gap=(0.7, 0.8), noise="pink", snr_db=30.0, level_dbfs=-26.0)
    make_bag(recipe, tmp_path / "bag")
    # Live, whole seconds may pass between two messages of a busy machine.
    parameters = load_parameters(
        None,
        ["asr.backend:=none", f"model.bundle:={tiny_bundle}", "audio.queue:=120.0",
         "model.threads:=1"],
    )  # fmt: skip
    replayer = Replayer(parameters)
    with record_bag(tmp_path / "offline", replayer) as record:
        offline = replayer.run(tmp_path / "bag", record=record)
    live = replay_live(parameters, tmp_path / "bag", speed=speed, out=tmp_path / "out")
    assert len(offline.utterances) == 3
    assert [u.utterance_id for u in live.utterances] == [u.utterance_id for u in offline.utterances]
    for ours, theirs in zip(live.utterances, offline.utterances, strict=True):
        assert ours.final
        assert abs(ours.start - theirs.start) <= VAD_FRAME
        assert abs(ours.end - theirs.end) <= VAD_FRAME
        assert np.allclose(ours.probabilities, theirs.probabilities, atol=1e-4)
        assert len(ours.provisional) == len(theirs.provisional)
    assert live.summary()["ua"] == offline.summary()["ua"]
    ours_out, theirs_out = published(tmp_path / "out"), published(tmp_path / "offline")
    assert set(ours_out) == set(theirs_out) == set(TOPICS)
    for topic, messages in ours_out.items():
        same(messages, theirs_out[topic], topic)
    assert len(ours_out["/emotion_state"]) > len(ours_out["/emotion_final"]) == 3
