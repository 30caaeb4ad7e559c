# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""`hri-emo vad` with the real detector, clips and command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hri_emo_ros.cli.main import main

DATA = Path(__file__).parent / "data"
CLIPS = (
    ("emodb_11a02Wc", "female", "angry", ""),
    ("lj_LJ001-0008", "female", "neutral", ""),
    ("ravdess_03-01-05-02-01-02-02", "female", "angry", "strong"),
    ("ravdess_03-01-06-02-02-01-08", "female", "fear", "strong"),
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips and one without a voice."""
    folder = tmp_path_factory.mktemp("speech")
    hiss = np.random.default_rng(0).standard_normal(48_000).astype(np.float32)
    soundfile.write(folder / "hiss.wav", hiss * 0.03, 16_000)
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "sex", "emotion", "intensity"])
        writer.writerows([DATA / f"{name}.flac", *values] for name, *values in CLIPS)
        writer.writerow(["hiss.wav", "male", "sad", "strong"])
    return folder / "clips.csv"


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two files of noise and one in which somebody speaks."""
    folder = tmp_path_factory.mktemp("noise")
    (folder / "deep").mkdir()
    for seed, name in enumerate(("a.wav", "deep/b.wav")):
        hiss = np.random.default_rng(seed).standard_normal(80_000).astype(np.float32)
        soundfile.write(folder / name, hiss * 0.05, 16_000)
    voice, rate = soundfile.read(DATA / "lj_LJ001-0002.flac")
    soundfile.write(folder / "voice.wav", voice, rate)
    return folder


def test_it_tells_what_is_lost_and_what_noise_is_taken_for_speech(
    manifest: Path, noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hearing.json"
    arguments = ["vad", "--manifest", str(manifest), "--noise", str(noise), "--json", str(out)]
    assert main([*arguments, "--peak", "recorded,-40,0", "--thresholds", "0.4:0.25,0.99:0.99"]) == 0
    settings = json.loads(out.read_text())["settings"]
    assert [s["peak_dbfs"] for s in settings] == [None, None, -40, -40, 0, 0]
    assert [s["parameters"]["vad.threshold"] for s in settings] == [0.4, 0.99] * 3
    for usual in settings[::2]:
        assert usual["clips"] == 5
        assert usual["lost"] == pytest.approx(0.2)
        assert usual["one_to_one"] == pytest.approx(0.8)
        assert usual["start_error"] < 0.3
        assert [Path(path).name for path in usual["lost_clips"]] == ["hiss.wav"]
        assert usual["by"]["sex"]["male"]["lost"] == 1.0
        assert usual["by"]["emotion"]["angry"] == {
            "clips": 2, "lost": 0.0, "one_to_one": 1.0,
            "start_error": usual["by"]["emotion"]["angry"]["start_error"],
        }  # fmt: skip
        assert "speaker" not in usual["by"]
        corpus = manifest.parent.name
        assert usual["cells"][f"{corpus} fear female strong"]["clips"] == 1
        assert [Path(path).name for path in usual["noise"]["files"]] == ["voice.wav"]
        assert usual["noise"]["per_minute"] == pytest.approx(
            60 / usual["noise"]["seconds"], rel=0.01
        )
    printed = capsys.readouterr().out
    assert "0.4 / 0.25" in printed
    assert f"{corpus} sad male strong" in printed


def test_a_remembered_sound_gives_what_a_sound_heard_anew_gives(
    manifest: Path, tmp_path: Path
) -> None:
    found = []
    for thresholds in ("0.6:0.4,0.3:0.2", "0.3:0.2"):
        out = tmp_path / "hearing.json"
        arguments = ["vad", "--manifest", str(manifest), "--json", str(out)]
        assert main([*arguments, "--thresholds", thresholds]) == 0
        found.append(json.loads(out.read_text())["settings"][-1])
    assert found[0] == found[1]


def test_the_parameters_are_the_front_ends(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "hearing.json"
    arguments = ["vad", "--manifest", str(manifest), "--json", str(out)]
    assert main([*arguments, "--set", "segment.min_speech:=5.0"]) == 0
    assert json.loads(out.read_text())["settings"][0]["lost"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to hear: give --manifest, --noise or both"),
        (["--noise", "{}", "--peak", "loud"], "--peak has 'loud', must be 'recorded' or -90 to 0 dBFS"),
        (["--noise", "{}", "--peak", "3"], "--peak has '3'"),
        (["--noise", "{}", "--thresholds", "0.5"], "--thresholds has '0.5', must be THRESHOLD:RELEASE"),
        (["--noise", "{}", "--thresholds", "2:1"], "vad.threshold"),
        (["--noise", "{}/none"], "no noise in"),
        (["--manifest", "{}/none.csv"], "cannot read the manifest"),
    ],
)  # fmt: skip
def test_what_cannot_be_heard_is_said_in_one_sentence(
    arguments: list[str], message: str, noise: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vad", *(a.replace("{}", str(noise)) for a in arguments)]) == 2
    complaint = capsys.readouterr().err
    assert message in complaint
    assert len(complaint.strip().splitlines()) == 1
