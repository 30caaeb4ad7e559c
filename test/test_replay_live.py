# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The same recording offline and through the real nodes over DDS: nothing may differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import Reader

pytest.importorskip("rclpy")

from hri_emo_ros.evaluation.bag_make import BagRecipe, make_bag
from hri_emo_ros.evaluation.live import replay_live
from hri_emo_ros.evaluation.replay import Replayer
from hri_emo_ros.parameters import load_parameters

pytestmark = pytest.mark.ros

DATA = Path(__file__).parent / "data"
VAD_FRAME = 512 / 16000


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
    offline = Replayer(parameters).run(tmp_path / "bag")
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
    with Reader(tmp_path / "out" / "bag") as reader:
        assert reader.topics["/speech"].msgcount == live.counters["speech"] > 0
        assert reader.topics["/emotion_state"].msgcount == live.counters["emotion_state"]
        assert reader.topics["/conversation_emotion"].msgcount == len(live.utterances)
