# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Disturbances do to the sound what they say, and a sweep tables what that costs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from hri_emo_ros.cli.main import main
from hri_emo_ros.cli.sweep import numbers
from hri_emo_ros.data.words import normal_words
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.bag_make import BagRecipe, make_bag
from hri_emo_ros.evaluation.disturb import AddNoise, Gain, Resample, SpokenWords, Telephone
from hri_emo_ros.evaluation.labels import Label

DATA = Path(__file__).parent / "data"
RATE = 16_000


def tone(hertz: float, seconds: float = 2.0, level: float = 0.3) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)[:, None]


def rms_db(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.asarray(samples, np.float64) ** 2)))


def in_messages(disturb: object, samples: np.ndarray) -> np.ndarray:
    parts = [disturb(samples[k : k + 320], RATE) for k in range(0, len(samples), 320)]  # type: ignore[operator]
    return np.concatenate(parts)


@pytest.mark.parametrize("source", ["white", "pink"])
def test_noise_lies_below_the_speech_by_the_ratio(source: str) -> None:
    sound = tone(200.0, 8.0)
    noisy = in_messages(AddNoise(source, 10.0, rms_db(sound)), sound)
    assert rms_db(sound) - rms_db(noisy - sound) == pytest.approx(10.0, abs=1.0)


def test_noise_comes_from_files_too_and_is_the_same_for_a_seed() -> None:
    sound = tone(200.0)
    source = str(DATA / "lj_LJ001-0008.flac")
    one, two = (in_messages(AddNoise(source, 5.0, -20.0, seed=3), sound) for _ in range(2))
    other = in_messages(AddNoise(source, 5.0, -20.0, seed=4), sound)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_gain_is_in_decibels_and_clips_at_full_scale() -> None:
    sound = tone(200.0)
    assert rms_db(Gain(-12.0)(sound, RATE)) == pytest.approx(rms_db(sound) - 12.0, abs=0.01)
    assert np.abs(Gain(40.0)(sound, RATE)).max() == 1.0


def test_a_telephone_line_passes_its_band_only() -> None:
    for hertz, passes in ((100.0, False), (1000.0, True), (6000.0, False)):
        sound = tone(hertz)
        lost = rms_db(sound) - rms_db(in_messages(Telephone(), sound)[RATE:])
        assert (lost < 1.5) if passes else (lost > 20.0), hertz


def test_another_rate_keeps_the_pitch() -> None:
    heard = in_messages(Resample(8000), tone(440.0, 3.0))[:, 0]
    spectrum = np.abs(np.fft.rfft(heard))
    assert np.argmax(spectrum) * 8000 / len(heard) == pytest.approx(440.0, abs=2.0)


def test_as_many_words_are_wrong_as_asked_for() -> None:
    text = " ".join(f"word{k}" for k in range(400))
    labels = [Label(0.0, 100.0, "", text=text)]
    for rate in (0.0, 0.3, 1.0):
        words = SpokenWords(labels, rate)
        words.utterance(1.0, 99.0)
        heard = words.transcribe(np.zeros(0, np.float32)).text.split()
        said = normal_words(text).split()
        kept = len([word for word in said if word in set(heard)]) if rate == 0 else None
        assert rate or kept == 400
        same = sum(a == b for a, b in zip(said, heard, strict=False))
        assert rate or same == 400
        assert rate < 1.0 or same < 20


@pytest.mark.parametrize(
    ("text", "values"),
    [("-5:30:5", [-5, 0, 5, 10, 15, 20, 25, 30]), ("0:1:0.25", [0, 0.25, 0.5, 0.75, 1]),
     ("8000,44100", [8000, 44100]), (None, [])],
)  # fmt: skip
def test_values_of_a_sweep(text: str | None, values: list[float]) -> None:
    assert numbers(text, "--snr") == pytest.approx(values)


@pytest.mark.parametrize("text", ["5:1:1", "a:b:c", "1:2", "0:1:0", "x"])
def test_values_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(HriEmoError, match=r"--snr"):
        numbers(text, "--snr")


def test_a_sweep_leaves_a_table_and_a_plot(tiny_bundle: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        "path,emotion,speaker,text\n"
        f"{DATA / 'lj_LJ001-0008.flac'},neutral,lj,has never been surpassed.\n"
        f"{DATA / 'emodb_11a02Wc.flac'},angry,emodb_11,\n"
    )
    make_bag(BagRecipe(manifest, gap=(0.8, 0.9), noise="pink", snr_db=35.0), tmp_path / "bag")
    arguments = ["sweep", str(tmp_path / "bag"), "--bundle", str(tiny_bundle), "--asr", "none",
                 "--workers", "1"]  # fmt: skip
    assert main([*arguments, "--snr", "-5:5:5", "--out", str(tmp_path / "x")]) == 2  # no noise
    arguments += ["--noise", "white", "--snr", "-5:25:30", "--rate", "8000", "--wer", "0"]
    assert main([*arguments, "--codec", "telephone", "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["disturbance"], r["value"]) for r in rows] == [
        ("none", ""), ("snr", "-5.0"), ("snr", "25.0"), ("rate", "8000.0"), ("wer", "0.0"),
        ("codec", "telephone"),
    ]  # fmt: skip
    for row in rows:
        if row["audio_weight"]:
            assert float(row["audio_weight"]) + float(row["text_weight"]) == pytest.approx(
                1, abs=1e-3
            )
    by_name = {(r["disturbance"], r["value"]): r for r in rows}
    assert by_name["rate", "8000.0"]["missed"] == "0"
    assert by_name["wer", "0.0"]["wer"] == "0.0"
    assert float(by_name["wer", "0.0"]["text_weight"]) > 0  # with words, words weigh
    assert float(by_name["snr", "25.0"]["snr_db"]) > float(by_name["snr", "-5.0"]["snr_db"] or -20)
    assert (tmp_path / "out" / "sweep.png").read_bytes().startswith(b"\x89PNG")
