# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The tone of a conversation over recordings of known course, through the whole pipeline and the shipped model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rosbags.rosbag2 import Reader

from hri_emo_ros.evaluation.bag_make import BagRecipe, make_bag
from hri_emo_ros.evaluation.labels import Label
from hri_emo_ros.evaluation.replay import Replayer
from hri_emo_ros.evaluation.replay_outputs import record_bag
from hri_emo_ros.evaluation.rosbag_types import CONVERSATION, emotion_typestore
from hri_emo_ros.parameters import load_parameters

DATA = Path(__file__).parent / "data"
ANGRY = ("emodb_11a02Wc", "ravdess_03-01-05-02-01-02-02")
SAD = ("emodb_10a07Ta", "ravdess_03-01-04-02-01-02-11")


@pytest.fixture(scope="module")
def replayer() -> Replayer:
    return Replayer(load_parameters(None, ["asr.backend:=none", "model.threads:=1"]))


def tones(
    replayer: Replayer, folder: Path, *course: tuple[str, str]
) -> tuple[list[Any], list[Label]]:
    """The tone after each utterance of a bag of these (clip, emotion), and where the clips are."""
    manifest = folder / "manifest.csv"
    rows = [f"{DATA / clip}.flac,{emotion}" for clip, emotion in course]
    manifest.write_text("path,emotion\n" + "\n".join(rows) + "\n")
    recipe = BagRecipe(manifest, gap=(0.8, 0.9), noise="pink", snr_db=35.0, level_dbfs=-26.0)
    labels = make_bag(recipe, folder / "bag")
    with record_bag(folder / "out", replayer) as record:
        replayer.run(folder / "bag", record=record)
    store = emotion_typestore()
    with Reader(folder / "out" / "bag") as reader:
        found = [
            store.deserialize_cdr(raw, CONVERSATION)
            for connection, _, raw in reader.messages()
            if connection.msgtype == CONVERSATION
        ]
    assert len(found) == len(course)
    return found, labels


def test_a_change_from_angry_to_sad_is_reported_with_the_second_sad_utterance(
    replayer: Replayer, tmp_path: Path
) -> None:
    course = [(ANGRY[k % 2], "angry") for k in range(4)] + [(SAD[k % 2], "sad") for k in range(3)]
    found, labels = tones(replayer, tmp_path, *course)
    assert [m.overall.changed for m in found] == [False] * 5 + [True] * 2
    assert found[3].overall.dominant == "angry"
    assert found[-1].overall.dominant == "sad"
    assert found[-1].overall.changed_from == "angry"
    start_ns = found[-1].overall.change_time.sec * 10**9 + found[-1].overall.change_time.nanosec
    begin = (start_ns - BagRecipe(Path()).start_ns) * 1e-9
    assert begin == pytest.approx(labels[4].start, abs=0.5)


@pytest.mark.parametrize(("clips", "emotion"), [(ANGRY, "angry"), (SAD, "sad")])
def test_steady_talk_is_one_tone_and_no_change(
    replayer: Replayer, tmp_path: Path, clips: tuple[str, str], emotion: str
) -> None:
    found, _ = tones(replayer, tmp_path, *[(clips[k % 2], emotion) for k in range(7)])
    assert not any(m.overall.changed for m in found)
    assert {m.overall.dominant for m in found[2:]} == {emotion}
