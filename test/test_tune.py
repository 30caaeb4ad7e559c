# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Tuning keeps speakers apart and writes a file that the nodes take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hri_emo_ros.cli.main import main
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.bag_make import BagRecipe, make_bag
from hri_emo_ros.evaluation.tune import RememberingRecogniser
from hri_emo_ros.evaluation.tune_choices import parse_choices
from hri_emo_ros.parameters import load_parameters
from hri_emo_ros.types import FloatArray, SignalQuality, Transcript

DATA = Path(__file__).parent / "data"


def test_ranges_default_to_the_declared_bounds() -> None:
    threshold, hold = parse_choices("vad.threshold, final.hold=0.2:3")
    assert (threshold.node, threshold.low, threshold.high) == ("speech_node", 0.01, 0.99)
    assert (hold.node, hold.low, hold.high) == ("emotion_node", 0.2, 3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--parameters is empty"),
        ("vad.treshold", "there is no parameter 'vad.treshold'.*vad.threshold"),
        ("model.bundle", "'model.bundle' is read-only"),
        ("vad.threshold=0.5", "the range of 'vad.threshold' is '0.5', must be LOW:HIGH"),
        ("vad.threshold=0.1:7", "must be 0.01 to 0.99"),
        ("vad.threshold=0.7:0.6", "LOW must be below HIGH"),
        ("whisper.language", "has no range"),
    ],
)
def test_what_cannot_be_searched_is_refused(text: str, message: str) -> None:
    with pytest.raises(HriEmoError, match=message):
        parse_choices(text)


class Slow:
    """Needs two seconds by its own account."""

    name = "slow"
    calls = 0

    def warm_up(self) -> None: ...

    def transcribe(self, samples: FloatArray, quality: SignalQuality | None = None) -> Transcript:
        self.calls += 1
        return Transcript("late words", latency=2.0)


def test_words_that_come_later_than_the_hold_are_lost_and_sound_is_recognised_once() -> None:
    slow = Slow()
    remembering = RememberingRecogniser(slow)
    sound = np.zeros(100, np.float32)
    assert remembering.transcribe(sound).text == "late words"
    remembering.hold = 1.5
    assert remembering.transcribe(sound).text == ""
    assert remembering.wait(2.0) == 1.5
    assert slow.calls == 1


def test_words_are_waited_for_only_as_far_as_they_outlast_the_pause() -> None:
    remembering = RememberingRecogniser(Slow())
    remembering.head_start, remembering.hold = 1.2, 1.5
    assert remembering.transcribe(np.zeros(100, np.float32)).text == "late words"
    assert remembering.wait(2.0) == pytest.approx(0.8)
    assert remembering.wait(1.0) == 0.0


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        "path,emotion,speaker\n"
        f"{DATA / 'lj_LJ001-0008.flac'},neutral,lj\n{DATA / 'emodb_11a02Wc.flac'},angry,emodb_11\n"
    )
    make_bag(BagRecipe(manifest, gap=(0.8, 0.9), noise="pink", snr_db=35.0), tmp_path / "bag")
    return tmp_path / "bag"


def test_the_result_loads_as_parameters_and_names_the_speakers_it_was_tested_on(
    bag: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tuned.yaml"
    arguments = ["tune", str(bag), "--bundle", str(tiny_bundle), "--asr", "none", "--trials", "2"]
    parameters = "vad.threshold=0.3:0.7,segment.pause=0.3:0.6"
    assert main([*arguments, "--parameters", parameters, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    tuned, tested = printed.splitlines()[0].removeprefix("tuning on ").split("; testing on ")
    assert {tuned, tested} == {"lj", "emodb_11"}
    assert f"# Tested on: {tested}" in out.read_text()
    values = load_parameters(out)["speech_node"]
    assert 0.3 <= float(values["vad.threshold"]) <= 0.7  # type: ignore[arg-type]
    assert 0.3 <= float(values["segment.pause"]) <= 0.6  # type: ignore[arg-type]


def test_one_speaker_is_not_enough(
    bag: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = bag.parent / "one.csv"
    labels.write_text("start,end,emotion,speaker\n1,2,sad,anna\n3,4,angry,anna\n")
    arguments = ["tune", str(bag), "--labels", str(labels), "--bundle", str(tiny_bundle)]
    assert main([*arguments, "--asr", "none", "--parameters", "vad.threshold"]) == 2
    assert "at least two speakers, there is 1" in capsys.readouterr().err


def test_a_search_goes_on_where_others_with_the_same_storage_are(
    bag: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tune", str(bag), "--bundle", str(tiny_bundle), "--asr", "none",
                 "--parameters", "segment.pause=0.3:0.6", "--out", str(tmp_path / "tuned.yaml"),
                 "--storage", str(tmp_path / "search.log")]  # fmt: skip
    tried = []
    for more in (["--trials", "2"], ["--trials", "3"], ["--trials", "2", "--metric", "wa"]):
        assert main([*arguments, *more]) == 0
        lines = capsys.readouterr().out.splitlines()
        tried.append([int(line.split()[0]) for line in lines if line[:4].strip().isdigit()])
    assert tried == [[1, 2], [3], [1, 2]]  # What is to be found is another thing: another search.
    assert main([*arguments[:-1], str(tmp_path / "none" / "search.log")]) == 2
    assert "--storage" in capsys.readouterr().err
