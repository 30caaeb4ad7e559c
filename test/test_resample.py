# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Streaming conversion to 16 kHz."""

from __future__ import annotations

import numpy as np
import pytest

from hri_emo_ros.audio.resample import StreamingResampler

RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000)


def resample(samples: np.ndarray, rate: int, sizes: list[int]) -> np.ndarray:
    resampler = StreamingResampler(rate)
    pieces, at, i = [], 0, 0
    while at < len(samples):
        pieces.append(resampler.process(samples[at : at + sizes[i % len(sizes)]]))
        at += sizes[i % len(sizes)]
        i += 1
    return np.concatenate([*pieces, resampler.flush()])


@pytest.mark.parametrize("rate", RATES)
def test_output_does_not_depend_on_how_the_input_is_cut(rate: int) -> None:
    noise = np.random.default_rng(0).standard_normal(rate).astype(np.float32)
    whole = resample(noise, rate, [rate])
    for sizes in ([rate // 100], [1, 7, 331], [rate // 10, 1]):
        np.testing.assert_array_equal(resample(noise, rate, sizes), whole)


@pytest.mark.parametrize("rate", RATES)
def test_a_click_stays_where_it_was(rate: int) -> None:
    signal = np.zeros(rate, np.float32)
    signal[rate // 2] = 1.0
    out = resample(signal, rate, [rate // 50])
    assert len(out) == 16000
    assert abs(int(np.argmax(np.abs(out))) - 8000) <= 1


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_keeps_its_frequency_and_phase(rate: int) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    out = resample(tone, rate, [rate // 50])
    np.testing.assert_allclose(out[1000:-1000], expected[1000:-1000], atol=2e-3)


def test_what_16_khz_cannot_hold_is_filtered_out() -> None:
    tone = np.sin(2 * np.pi * 12000 * np.arange(48000) / 48000).astype(np.float32)
    assert np.abs(resample(tone, 48000, [960])[1000:-1000]).max() < 1e-3


def test_after_flush_a_new_stream_begins() -> None:
    noise = np.random.default_rng(1).standard_normal(8000).astype(np.float32)
    resampler = StreamingResampler(8000)
    first = np.concatenate([resampler.process(noise), resampler.flush()])
    second = np.concatenate([resampler.process(noise), resampler.flush()])
    np.testing.assert_array_equal(first, second)


def test_flushing_an_unused_resampler_gives_nothing() -> None:
    assert len(StreamingResampler(44100).flush()) == 0
