# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Background noise for bags and sweeps: its level, its spectrum, and that a seed repeats it."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from hri_emo_ros.data.noise import Babble, NoiseSource
from hri_emo_ros.errors import HriEmoError

RATE = 16_000


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voices")
    files = []
    for number, pitch in enumerate((110.0, 150.0, 190.0, 230.0)):
        files.append(folder / f"{number}.wav")
        seconds = np.arange(RATE) / RATE
        voice = sum(np.sin(2 * np.pi * pitch * k * seconds) / k for k in (1, 2, 3))
        soundfile.write(files[-1], 0.05 * (number + 1) * voice, RATE)
    return files


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))


@pytest.mark.parametrize("kind", ["white", "pink", "folder", "babble"])
def test_noise_of_every_kind_has_rms_one_and_repeats_with_its_seed(kind, voices):
    def make(seed: int):
        if kind == "babble":
            return Babble(voices, RATE, seed)
        return NoiseSource(str(voices[0].parent) if kind == "folder" else kind, RATE, seed)

    samples = make(0).take(10 * RATE)
    assert samples.dtype == np.float32
    assert rms(samples) == pytest.approx(1.0, rel=0.3)
    first, second = make(0), make(0)
    assert np.array_equal(np.concatenate([first.take(100), first.take(900)]), second.take(1000))
    assert not np.array_equal(make(1).take(1000), samples[:1000])


def test_pink_noise_falls_by_three_decibels_an_octave():
    power = np.abs(np.fft.rfft(NoiseSource("pink", RATE).take(60 * RATE))) ** 2
    hertz = np.fft.rfftfreq(60 * RATE, 1 / RATE)
    octaves = [power[(hertz >= f) & (hertz < 2 * f)].mean() for f in (125, 250, 500, 1000, 2000)]
    falls = 10 * np.log10(np.divide(octaves[:-1], octaves[1:]))
    assert np.all(np.abs(falls - 3.0) < 0.6)


def test_babble_holds_several_voices_at_once(voices):
    spectrum = np.abs(np.fft.rfft(Babble(voices, RATE).take(RATE)))
    heard = [spectrum[round(pitch) - 2 : round(pitch) + 3].max() for pitch in (110, 150, 190, 230)]
    assert sum(peak > 0.1 * max(heard) for peak in heard) >= 2


def test_a_folder_without_sound_is_named(tmp_path):
    with pytest.raises(HriEmoError, match=f"no noise in '{tmp_path}'.*white, pink"):
        NoiseSource(str(tmp_path), RATE)
