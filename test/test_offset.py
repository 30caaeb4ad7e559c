# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The high-pass that takes off a constant offset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.audio.offset import CUTOFF, OffsetFilter
from hri_emo_ros.audio.quality import measure_quality
from hri_emo_ros.audio.vad import FRAME, SileroVad

DATA = Path(__file__).parent / "data"
OFFSET = np.float32(10 ** (-23 / 20))


def tone(frequency: float, seconds: float = 1.0) -> np.ndarray:
    time = np.arange(round(seconds * 16000)) / 16000
    return (0.1 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


@pytest.mark.parametrize("sizes", [(1,), (160,), (1024,), (7, 3000, 0, 1), (100_000,)], ids=str)
def test_any_cutting_gives_the_same_samples(sizes: tuple[int, ...]) -> None:
    samples = read_audio(DATA / "emodb_11a02Wc.flac")[:20_000] * np.float32(0.9) + OFFSET
    whole = OffsetFilter().process(samples)
    cut, parts, at, i = OffsetFilter(), [], 0, 0
    while at < len(samples):
        parts.append(cut.process(samples[at : at + sizes[i % len(sizes)]]))
        at, i = at + sizes[i % len(sizes)], i + 1
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_it_is_the_filter_that_it_says() -> None:
    samples = np.random.default_rng(1).standard_normal(5000).astype(np.float32) * np.float32(0.1)
    pole, mean, expected = np.exp(-2 * np.pi * CUTOFF / 16000), float(samples[0]), []
    for sample in samples.astype(np.float64):
        mean = pole * mean + (1 - pole) * sample
        expected.append(sample - mean)
    np.testing.assert_allclose(OffsetFilter().process(samples), expected, atol=1e-7)


def test_an_offset_is_gone_from_the_first_sample_on() -> None:
    assert not np.abs(OffsetFilter().process(np.full(40_000, OFFSET))).max() > 1e-7


@pytest.mark.parametrize(("frequency", "loss_db"), [(2.0, 20.0), (70.0, 0.34), (300.0, 0.02)])
def test_voices_pass_and_what_is_too_low_to_hear_does_not(frequency: float, loss_db: float) -> None:
    samples = tone(frequency, 2.0)
    passed = OffsetFilter().process(samples)[8000:]
    loss = 10 * np.log10(np.mean(samples[8000:] ** 2) / np.mean(passed**2))
    assert loss == pytest.approx(loss_db, abs=0.1)


def test_behind_the_sound_comes_digital_silence_again() -> None:
    samples = np.concatenate([tone(200.0) + OFFSET, np.zeros(16_000, np.float32)])
    assert not OffsetFilter().process(samples)[-8000:].any()


def test_samples_stay_within_full_scale() -> None:
    samples = np.concatenate([np.full(4000, -1.0), np.full(4000, 1.0)]).astype(np.float32)
    assert np.abs(OffsetFilter().process(samples)).max() <= 1.0


@pytest.mark.parametrize("clip", ["emodb_10a07Ta", "lj_LJ001-0008", "ravdess_03-01-06-02-02-01-08"])
def test_an_offset_changes_neither_quality_nor_detection(clip: str) -> None:
    clean = read_audio(DATA / f"{clip}.flac")
    clean = clean * np.float32(0.9 / np.abs(clean).max())
    shifted = clean + OFFSET
    before, after = measure_quality(clean), measure_quality(shifted)
    assert after.snr_db == pytest.approx(before.snr_db, abs=1.0)
    assert after.level_dbfs == pytest.approx(before.level_dbfs, abs=0.1)
    assert after.speech_fraction == pytest.approx(before.speech_fraction, abs=0.03)
    first, second = (
        SileroVad().probabilities(
            OffsetFilter().process(s)[: len(s) // FRAME * FRAME].reshape(-1, FRAME)
        )
        for s in (clean, shifted)
    )
    assert np.abs(first - second).max() < 0.02
