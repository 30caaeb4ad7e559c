# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Augmentation: what its names say, the same for the same seed, noise as loud as `hri-emo evaluate`'s."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.data.clips import speech_level
from hri_emo_ros.data.noise import NoiseBank, NoiseSource
from hri_emo_ros.data.words import WordErrors, plain
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.augment import (
    Condition,
    Listener,
    Seeds,
    WaveformAugment,
    confidence_after,
)
from hri_emo_ros.training.recipe import WaveformSection
from hri_emo_ros.types import SAMPLE_RATE

DATA = Path(__file__).parent / "data"
CLIPS = [
    DATA / f"{n}.flac" for n in ("emodb_10a07Ta", "lj_LJ001-0008", "ravdess_03-01-06-02-02-01-08")
]
EVERYTHING = WaveformSection.model_validate(dict.fromkeys(WaveformSection.model_fields, 1.0))
NOTHING = WaveformAugment(WaveformSection(), None)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return read_audio(CLIPS[0])


@pytest.fixture
def rooms(tmp_path) -> Path:
    response = np.zeros(4000, np.float32)
    response[0], response[1000::500] = 1.0, 0.1
    (tmp_path / "rooms").mkdir()
    soundfile.write(tmp_path / "rooms" / "a.wav", response, SAMPLE_RATE)
    return tmp_path / "rooms"


def test_every_change_of_the_waveform_runs_and_repeats_with_its_seed(speech, rooms):
    augment = WaveformAugment(EVERYTHING, rooms)
    first, again, other = (augment(speech, Seeds(k, k, k)) for k in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()


def test_nothing_happens_with_probability_zero(speech):
    np.testing.assert_array_equal(NOTHING(speech, Seeds(1, 1, 1)), speech)


def test_clips_of_one_room_share_its_channel_and_clips_of_one_voice_its_speed(speech):
    channel = WaveformAugment(WaveformSection(equaliser=1.0), None)
    a, b, c = (channel(speech, Seeds(k, k, room)) for k, room in ((1, 5), (2, 5), (3, 6)))
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert not np.allclose(a, c, atol=1e-3)
    speed = WaveformAugment(WaveformSection(speed=1.0), None)
    assert len(speed(speech, Seeds(1, 9, 1))) == len(speed(speech, Seeds(2, 9, 2)))
    assert len(speed(speech, Seeds(1, 9, 1))) != len(speed(speech, Seeds(1, 8, 1)))


def test_a_missing_folder_of_rooms_is_named(tmp_path):
    with pytest.raises(HriEmoError, match=r"'augment.rooms' is '.*halls', must be a folder"):
        WaveformAugment(WaveformSection(room=0.5), tmp_path / "halls")


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> NoiseBank:
    folder = tmp_path_factory.mktemp("noise")
    (folder / "rir").mkdir()
    soundfile.write(folder / "tap.wav", np.random.default_rng(0).normal(0, 0.1, 1600), SAMPLE_RATE)
    soundfile.write(folder / "still.wav", np.zeros(1600), SAMPLE_RATE)
    soundfile.write(folder / "rir" / "hall.wav", np.ones(1600) * 0.1, SAMPLE_RATE)
    return NoiseBank(CLIPS * 2, folder)


def test_every_kind_of_noise_has_rms_one_and_neither_silence_nor_room_responses_are_noise(bank):
    assert bank.kinds == ("white", "pink", "babble", "recorded")
    assert len(bank.noises["recorded"]) == 1
    for noises in bank.noises.values():
        for noise in noises:
            assert np.sqrt(np.mean(noise**2)) == pytest.approx(1.0, abs=0.03)
    assert "babble" not in NoiseBank(CLIPS, None).kinds
    assert len(bank.stretch("recorded", 5000, np.random.default_rng(0))) == 5000


@pytest.mark.parametrize("kind", ["white", "pink", "babble", "recorded"])
def test_noise_lies_below_the_level_of_speech_as_evaluate_mixes(bank, kind):
    listen = Listener(NOTHING, bank, 20 * SAMPLE_RATE)
    for path in CLIPS:
        clip = read_audio(path)
        condition = Condition((), (), True, False, None, kind, 10.0)
        noisy = listen(clip, condition, None, "clip")
        level = 20 * np.log10(speech_level(clip) / np.sqrt(np.mean((noisy - clip) ** 2)))
        assert level == pytest.approx(10.0, abs=2.0 if kind == "babble" else 0.5)


def test_long_clips_are_cut_anywhere_in_training_and_to_their_end_elsewhere():
    clip = NoiseSource("white", SAMPLE_RATE).take(4000)
    condition = Condition((), (), True, False, None, "", math.nan)
    listen = Listener(NOTHING, None, 1000)
    np.testing.assert_array_equal(listen(clip, condition, None), clip[-1000:])
    starts = {float(listen(clip, condition, Seeds(k, 0, 0))[0]) for k in range(9)}
    assert len(starts) > 3


@pytest.fixture(scope="module")
def errors() -> WordErrors:
    return WordErrors(["the cat sat on the mat", "a dog ran over the hill", "cats and dogs run"])


def test_word_errors_hit_about_the_wanted_share(errors):
    rng = np.random.default_rng(0)
    text = " ".join(["cat"] * 400)
    kept = errors(text, 0.4, rng).split().count("cat") / 400
    # A hit word may come back as itself among so few words, or stay beside an insertion.
    assert 0.55 < kept < 0.75
    assert errors("the cat", 0.0, rng) == "the cat"
    assert errors("cat", 1.0, rng)


def test_confidence_falls_with_the_error_rate():
    rng = np.random.default_rng(0)
    means = [np.mean([confidence_after(r, rng) for _ in range(200)]) for r in (0.0, 0.3, 0.6)]
    assert means[0] > means[1] + 0.15 > means[2] + 0.3


def test_plain_words_are_lower_case_without_punctuation_and_never_empty():
    assert plain("Don't STOP, now!") == "don't stop now"
    assert plain("...") == "..."
