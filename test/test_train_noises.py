"""Noise in training: what it is and at which level it is mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.data.clips import speech_level
from hri_emo_ros.model.compact_audio import CompactAudioConfig, CompactAudioEncoder
from hri_emo_ros.training.audio_store import AudioStore
from hri_emo_ros.data.corpus import Item
from hri_emo_ros.training.mel_augment import MelAugment, speech_power
from hri_emo_ros.training.mel_store import MelStore, mean_square_weights, mel_centres
from hri_emo_ros.training.noises import add_noise, coloured_noise, noise_bank, read_noises
from hri_emo_ros.types import SAMPLE_RATE

DATA = Path(__file__).parent / "data"
CLIPS = ("emodb_10a07Ta", "lj_LJ001-0008", "ravdess_03-01-06-02-02-01-08")


@pytest.fixture(scope="module")
def speech() -> list[np.ndarray]:
    return [read_audio(DATA / f"{name}.flac") for name in CLIPS]


@pytest.fixture(scope="module")
def store() -> MelStore:
    return MelStore(CompactAudioEncoder(CompactAudioConfig(num_hidden_layers=1)), AudioStore())


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> dict[str, list[np.ndarray]]:
    folder = tmp_path_factory.mktemp("noise")
    knocks = np.zeros(2 * SAMPLE_RATE)
    knocks[:1600] = np.random.default_rng(0).normal(0, 0.1, 1600)
    soundfile.write(folder / "knocks.wav", knocks, SAMPLE_RATE)
    files = [DATA / f"{name}.flac" for name in CLIPS]
    voices = [Item(f"{k}", "c", "sad", (1.0,), audio=file) for k, file in enumerate(files * 2)]
    audio = AudioStore()
    audio.load(voices)
    return noise_bank(audio, voices, folder, 0)


def test_noises_have_their_colour_above_20_hz():
    rng = np.random.default_rng(0)
    slopes = []
    for exponent in (0, 1, 2):
        power = np.abs(np.fft.rfft(coloured_noise(exponent, 4.0, rng))) ** 2
        low, high = power[400:800].mean(), power[12800:25600].mean()
        slopes.append(10 * np.log10(low / high) / 5)  # five octaves apart
        assert power[:80].max() < 1e-6 * low
    assert slopes == pytest.approx([0.0, 3.0, 6.0], abs=0.4)


def test_every_kind_of_noise_has_rms_1_and_babble_is_made_of_the_voices(bank):
    assert list(bank) == ["white", "pink", "brown", "babble", "recorded"]
    for noises in bank.values():
        for noise in noises:
            assert np.sqrt(np.mean(noise**2)) == pytest.approx(1.0, abs=1e-3)
    voices = np.concatenate(bank["babble"])
    power = np.abs(np.fft.rfft(voices)) ** 2
    hertz = np.fft.rfftfreq(len(voices), 1 / SAMPLE_RATE)
    assert power[(hertz > 80) & (hertz < 4000)].sum() > 0.9 * power.sum()


def test_without_enough_voices_there_is_no_babble():
    assert "babble" not in noise_bank(AudioStore(), [], None, 0)


def test_short_noises_are_repeated_and_neither_silence_nor_room_responses_are_noise(tmp_path):
    (tmp_path / "rir").mkdir()
    soundfile.write(tmp_path / "tap.wav", np.ones(1600) * 0.1, SAMPLE_RATE)
    soundfile.write(tmp_path / "still.wav", np.zeros(1600), SAMPLE_RATE)
    soundfile.write(tmp_path / "rir" / "hall.wav", np.ones(1600) * 0.1, SAMPLE_RATE)
    noises = read_noises(tmp_path)
    assert len(noises) == 1
    assert len(noises[0]) >= 3 * SAMPLE_RATE
    with pytest.raises(HriEmoError, match="no sound"):
        read_noises(tmp_path / "rir" / "nothing")


def test_noise_lies_below_the_level_of_speech_as_evaluate_mixes(speech):
    noise = coloured_noise(1, 10.0, np.random.default_rng(0))
    for clip in speech:
        noisy = add_noise(clip, noise, 10.0, np.random.default_rng(0))
        level = 20 * np.log10(speech_level(clip) / np.std(noisy - clip))
        assert level == pytest.approx(10.0, abs=0.3)


def test_mel_powers_add_up_to_the_mean_square_of_the_samples(store, speech):
    weights = mean_square_weights(store.encoder)
    white = coloured_noise(0, 2.0, np.random.default_rng(0))
    assert float((store.power_of(white) @ weights).mean()) == pytest.approx(1.0, rel=0.03)
    for clip in speech:
        power = store.power_of(clip) @ weights
        level = speech_power(power[None], torch.tensor([len(power)])).sqrt().item()
        assert 20 * np.log10(level / speech_level(clip)) == pytest.approx(0.0, abs=0.7)


def test_noise_on_mel_powers_is_as_loud_as_noise_on_waveforms(store, speech, bank):
    noises = {kind: [store.power_of(n) for n in every] for kind, every in bank.items()}
    augment = MelAugment(
        mel_centres(store.encoder), store.frame_rate, noises, torch.Generator().manual_seed(0),
        mean_square=mean_square_weights(store.encoder),
    )  # fmt: skip
    power = store.power_of(speech[1])[None]
    lengths = torch.tensor([power.shape[1]])
    for kind, recordings in bank.items():
        noisy = augment.add_noise_at(power, lengths, torch.tensor([0.0]), [kind])
        waves = [add_noise(speech[1], n, 0.0, np.random.default_rng(0)) for n in recordings]
        mixed = np.mean([float(store.power_of(wave).sum(-1).mean()) for wave in waves])
        # The stretches differ, and with them the level of what is in the bands' reach.
        assert 10 * np.log10(float(noisy.sum(-1).mean()) / mixed) == pytest.approx(0.0, abs=1.5)
    silent = augment.add_noise_at(power, lengths, torch.tensor([float("nan")]), [""])
    assert torch.equal(silent, power)
