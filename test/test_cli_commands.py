# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The commands that need no ROS, as they are typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hri_emo_ros.audio.sources import FileSource
from hri_emo_ros.cli.main import COMMANDS, main
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import LABELS
from hri_emo_ros.view.picture import draw
from hri_emo_ros.view.shown import Shown
from hri_emo_ros.view.terminal import bar

DATA = Path(__file__).parent / "data"
ANGRY = DATA / "emodb_11a02Wc.flac"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(command in printed for command in COMMANDS)


@pytest.mark.parametrize("command", ["file", "listen", "demo", "monitor", "parameters"])
def test_help_of_a_command_needs_neither_ros_nor_a_model(command: str) -> None:
    blocked = "import sys; sys.modules['rclpy'] = None\n"
    code = f"{blocked}from hri_emo_ros.cli.main import main; main(['{command}', '--help'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "usage: hri-emo" in done.stdout


def test_file_prints_one_utterance_as_json(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["file", str(ANGRY), "--bundle", str(tiny_bundle), "--asr", "none", "--json"]
    assert main(arguments) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["file"] == str(ANGRY)
    (utterance,) = found["utterances"]
    assert [score["label"] for score in utterance["scores"]] == list(LABELS)
    assert sum(s["probability"] for s in utterance["scores"]) == pytest.approx(1.0, abs=1e-3)
    assert utterance["audio_weight"] == pytest.approx(1.0)
    assert utterance["dominant"] in LABELS


def test_file_takes_the_words_that_are_given(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["file", str(ANGRY), "--bundle", str(tiny_bundle), "--text", "I am happy", "--json"]
    assert main(arguments) == 0
    (utterance,) = json.loads(capsys.readouterr().out)[0]["utterances"]
    assert utterance["transcript"] == "I am happy"
    assert utterance["text_weight"] > 0.0


def test_words_of_another_language_are_shown_and_not_used(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    arguments = ["file", str(DATA / "emodb_13a01Ea.flac"), "--bundle", str(tiny_bundle)]
    assert main([*arguments, "--json"]) == 0
    (utterance,) = json.loads(capsys.readouterr().out)[0]["utterances"]
    assert utterance["transcript_status"] == "rejected"
    assert utterance["transcript"] == ""
    assert utterance["rejected_transcript"]
    assert utterance["text_weight"] == 0.0
    assert main(arguments) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"(refused: {utterance['rejected_transcript'].split()[0]}" in printed


def test_file_says_when_nobody_speaks(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = tmp_path / "quiet.wav"
    soundfile.write(quiet, np.zeros(16000, np.float32), 16000)
    assert main(["file", str(quiet), "--bundle", str(tiny_bundle), "--asr", "none"]) == 0
    assert "no speech found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["file", "absent.wav"], "absent.wav"),
        (["file", str(ANGRY), "--bundle", "absent"], "absent"),
        (["file", str(ANGRY), "--params", "absent.yaml"], "absent.yaml"),
        (["demo", "--recording", "absent"], "absent"),
    ],
)
def test_mistakes_end_in_one_line_and_status_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if arguments[0] == "demo":
        pytest.importorskip("rclpy")
    assert main(arguments) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"hri-emo {arguments[0]}: ")
    assert says in complaint
    assert len(complaint.splitlines()) == 1


def test_listening_without_a_microphone_says_what_to_install_or_choose(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Neither where PortAudio is missing nor where it is there is a device of this name.
    status = main(["listen", "--device", "no such microphone", "--bundle", str(tiny_bundle)])
    assert status == 2
    complaint = capsys.readouterr().err
    assert "libportaudio2" in complaint or "no such microphone" in complaint


def test_files_are_played_in_full_chunks_at_any_rate(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    tone = np.sin(np.arange(24000) * 0.05).astype(np.float32) * 0.5
    soundfile.write(path, np.stack([tone, tone], axis=1), 24000)
    source = FileSource([str(path)], 48000, 1, chunk_ms=20, gap=0.105, loop=False)
    blocks = list(source.blocks())
    assert {block.shape for block in blocks} == {(960, 1)}
    assert len(blocks) == -(-round(1.105 * 48000) // 960)
    assert np.abs(np.concatenate(blocks)).max() == pytest.approx(16384, rel=0.02)


def test_a_missing_file_is_named_before_anything_is_played() -> None:
    with pytest.raises(HriEmoError, match=r"player\.files.*absent\.wav"):
        FileSource([str(ANGRY), "absent.wav"], 0, 0, 20, 0.0, False)
    with pytest.raises(HriEmoError, match="nothing to play"):
        FileSource([""], 0, 0, 20, 0.0, False)


def test_bars_are_exact_to_an_eighth() -> None:
    assert bar(1.0, 4) == "████"
    assert bar(0.5, 4) == "██"
    assert bar(0.03125, 4) == "▏"
    assert bar(0.0, 4) == ""


def test_a_picture_is_drawn_also_of_abstained_states(tmp_path: Path) -> None:
    said = Shown(1, 0.5, 1.0, True, "oh", LABELS, (1 / 7,) * 7, "sad", "", 0.7, 0.3, 0.4, 0.1)
    silent = Shown(2, 2.0, 0.5, True, "", LABELS, (), "", "no voice", 0.5, 0.5, 0.4, 0.0)
    path = tmp_path / "picture.png"
    draw(path, np.zeros(48000, np.float32), 16000, [said, silent], "title", [(0.5, 1.5, "sad")])
    assert path.read_bytes().startswith(b"\x89PNG")
