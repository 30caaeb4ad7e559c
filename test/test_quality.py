# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Signal-to-noise ratio and its companions, on real speech in noise of known level."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.audio.frontend import AudioFrontEnd
from hri_emo_ros.audio.quality import (
    Frame,
    NoiseFloor,
    QualityMeter,
    mean_square,
    measure_quality,
)
from hri_emo_ros.audio.vad import FRAME, SileroVad

DATA = Path(__file__).parent / "data"
CLIPS = ("emodb_10a07Ta", "lj_LJ001-0008", "ravdess_03-01-06-02-02-01-08")


def speech_power(samples: np.ndarray) -> float:
    """Mean square of the frames with speech."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return float(np.mean(frames[SileroVad().probabilities(frames) >= 0.5] ** 2))


def noise_of(kind: str, count: int) -> np.ndarray:
    """White or pink noise of mean square 1."""
    noise = np.random.default_rng(7).standard_normal(count)
    if kind == "pink":
        spectrum = np.fft.rfft(noise)
        noise = np.fft.irfft(
            spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), count / 400)), count
        )
    return (noise / np.sqrt(np.mean(noise**2))).astype(np.float32)


def mixture(clip: str, kind: str, snr_db: float, lead: float = 1.0) -> np.ndarray:
    """A clip with noise before, under and after it."""
    speech = read_audio(DATA / f"{clip}.flac")
    power = speech_power(speech)
    padded = np.pad(speech, (int(lead * 16000), 16000))
    scale = np.float32(np.sqrt(power * 10 ** (-snr_db / 10)))
    mixed = padded + noise_of(kind, len(padded)) * scale
    return (mixed * min(1.0, 0.9 / np.abs(mixed).max())).astype(np.float32)


@pytest.mark.parametrize("snr_db", [0, 10, 20, 30])
@pytest.mark.parametrize("kind", ["white", "pink"])
@pytest.mark.parametrize("clip", CLIPS)
def test_the_snr_of_a_mixture_is_found_to_3_db(clip: str, kind: str, snr_db: int) -> None:
    front_end = AudioFrontEnd({}, batch=64)
    chunks = front_end.push_samples(mixture(clip, kind, snr_db), 0) + front_end.flush()
    assert chunks[-1].quality.snr_db == pytest.approx(snr_db, abs=3)


@pytest.mark.parametrize("snr_db", [0, 10, 20, 30])
def test_the_snr_of_a_file_is_found_to_3_db(snr_db: int) -> None:
    measured = measure_quality(mixture(CLIPS[0], "white", snr_db)).snr_db
    assert measured == pytest.approx(snr_db, abs=3)


@pytest.mark.parametrize("snr_db", [0, 10])
def test_without_any_pause_the_quietest_frames_stand_in_for_the_noise(snr_db: int) -> None:
    speech = read_audio(DATA / "lj_LJ001-0008.flac")[1600:24000]
    scale = np.sqrt(np.mean(speech**2) * 10 ** (-snr_db / 10))
    mixed = speech + noise_of("white", len(speech)) * np.float32(scale)
    all_speech = np.ones(-(-len(mixed) // FRAME), np.float32)
    assert measure_quality(mixed, all_speech).snr_db == pytest.approx(snr_db, abs=3)


def test_the_noise_floor_is_that_of_the_pauses_before() -> None:
    noise = NoiseFloor()
    assert noise.power is None
    for _ in range(40):
        noise.observe(1e-4, speech=False)
    meter = QualityMeter(noise, [Frame(FRAME * (i + 1), 1e-2, True) for i in range(10)])
    assert meter.quality().snr_db == pytest.approx(10 * math.log10(99), abs=0.01)


def test_one_slamming_door_is_not_the_noise_floor() -> None:
    noise = NoiseFloor()
    for i in range(60):
        noise.observe(1e-1 if i == 30 else 1e-5, speech=False)
    assert noise.power == pytest.approx(1e-5)


def test_digital_silence_is_not_taken_for_the_noise_under_speech() -> None:
    noise = NoiseFloor()
    for _ in range(100):
        noise.observe(0.0, speech=False)
    assert noise.power is None


def test_the_old_noise_is_forgotten() -> None:
    noise = NoiseFloor()
    for _ in range(1000):
        noise.observe(1e-2, speech=False)
    for _ in range(400):
        noise.observe(1e-6, speech=False)
    assert noise.power == pytest.approx(1e-6)


def test_snr_stays_in_its_range() -> None:
    for power, expected in ((1e-9, -20.0), (1.0, 60.0)):
        noise = NoiseFloor()
        for _ in range(20):
            noise.observe(1e-8, speech=False)
        assert QualityMeter(noise, [Frame(FRAME, power, True)]).quality().snr_db == expected


def test_without_speech_there_is_no_snr_but_a_level() -> None:
    hum = (0.1 * np.sin(np.arange(16000) * 0.1)).astype(np.float32)
    quality = measure_quality(hum, np.zeros(32, np.float32))
    assert math.isnan(quality.snr_db)
    assert quality.level_dbfs == pytest.approx(10 * math.log10(0.005), abs=0.1)
    assert quality.speech_fraction == 0.0


@pytest.mark.parametrize("clip", ["emodb_11a02Wc", "lj_LJ001-0002"])
def test_a_quiet_recording_holds_as_much_speech_as_a_loud_one(clip: str) -> None:
    loud = read_audio(DATA / f"{clip}.flac")
    loud = np.pad(loud * np.float32(0.9 / np.abs(loud).max()), (8000, 0))
    quiet = (np.round(loud / 100 * 32768) / 32768).astype(np.float32)  # peaks at -41 dBFS
    expected = measure_quality(loud).speech_fraction
    assert measure_quality(quiet).speech_fraction == pytest.approx(expected, abs=0.05)
    assert measure_quality(quiet).level_dbfs < measure_quality(loud).level_dbfs - 35


def test_nothing_and_silence_have_a_quality_too() -> None:
    for samples in (np.zeros(0, np.float32), np.zeros(5000, np.float32)):
        quality = measure_quality(samples)
        assert math.isnan(quality.snr_db)
        assert quality.level_dbfs == -120.0
        assert quality.clipped_fraction == 0.0


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_clipping_is_counted_in_the_source_encoding(rate: int) -> None:
    speech = read_audio(DATA / f"{CLIPS[1]}.flac")
    loud = np.clip(np.interp(np.arange(0, len(speech), 16000 / rate), np.arange(len(speech)), speech)
                   * 20, -1, 1)  # fmt: skip
    truth = np.mean(np.abs(loud) >= 0.999)
    front_end = AudioFrontEnd({"audio.sample_rate": rate}, batch=64)
    data = np.round(loud * 32767).astype("<i2").tobytes()
    chunks = front_end.push(data, 0) + front_end.flush()
    assert truth > 0.05
    assert chunks[-1].quality.clipped_fraction == pytest.approx(truth, rel=0.15)
    assert np.abs(np.concatenate([c.samples for c in chunks])).max() <= 1.0


def test_mean_square_of_nothing_is_zero() -> None:
    assert mean_square(np.zeros(0, np.float32)) == 0.0
