"""Augmentation: what its names say, the same for the same seed, never on the validation side."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.augment import WaveformAugment
from hri_emo_ros.training.augment_config import TextSection, WaveformSection
from hri_emo_ros.training.mel_augment import MelAugment, MelAugmentConfig, loud_level
from hri_emo_ros.training.noises import coloured_noise
from hri_emo_ros.training.text_augment import TextAugment, WordErrors, confidence_after, plain
from hri_emo_ros.types import SAMPLE_RATE

BINS = 16


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    return (0.2 * np.sin(2 * np.pi * 220 * t) * np.hanning(len(t))).astype(np.float32)


EVERYTHING = WaveformSection.model_validate(
    {
        "crop": {"p": 1}, "pitch": {"p": 1}, "time_stretch": {"p": 1}, "shift": {"p": 1},
        "gaussian_noise": {"p": 1}, "band_limit": {"p": 1}, "time_mask": {"p": 1},
        "frequency_mask": {"p": 1}, "silence": {"p": 1}, "gain": {"p": 1},
        "noise": {"p": 1, "folder": "musan"}, "room": {"p": 1, "folder": "rooms"},
    }
)  # fmt: skip


@pytest.fixture
def sounds(tmp_path):
    for folder in ("musan/noise", "musan/music", "rooms"):
        (tmp_path / folder).mkdir(parents=True)
        noise = 0.1 * coloured_noise(1, 2.0, np.random.default_rng(0))
        soundfile.write(tmp_path / folder / "a.wav", noise, SAMPLE_RATE)
    return tmp_path


def test_every_waveform_augmentation_runs_and_repeats_with_its_seed(speech, sounds):
    augment = WaveformAugment(EVERYTHING, sounds)
    first, again, other = augment(speech, 7), augment(speech, 7), augment(speech, 8)
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()


def test_nothing_happens_with_probability_zero(speech, tmp_path):
    augment = WaveformAugment(WaveformSection(), tmp_path)
    assert not augment.active
    np.testing.assert_array_equal(augment(speech, 1), speech)


def test_a_missing_noise_folder_is_named(tmp_path):
    section = WaveformSection.model_validate({"noise": {"p": 0.5, "folder": "musan"}})
    with pytest.raises(HriEmoError, match=r"'augment.waveform.noise.folder' is 'musan'"):
        WaveformAugment(section, tmp_path)


def mel(config: MelAugmentConfig, seed: int = 0) -> MelAugment:
    noise = torch.rand(50, BINS, generator=torch.Generator().manual_seed(1)) + 0.1
    augment = MelAugment(
        torch.linspace(100, 7000, BINS), 50.0, {"noise": [noise]}, torch.Generator(), config
    )
    augment.seed(seed)
    return augment


def powers() -> tuple[torch.Tensor, torch.Tensor]:
    power = torch.rand(3, 60, BINS, generator=torch.Generator().manual_seed(0)) + 0.01
    lengths = torch.tensor([60, 40, 25])
    return power * (torch.arange(60)[None] < lengths[:, None])[..., None], lengths


def test_mel_augmentation_repeats_with_its_seed_and_keeps_padding_silent():
    for config in (MelAugmentConfig(), MelAugmentConfig(warp_p=1, crop_p=1, reverb_p=1, noise_p=1)):
        power, lengths = powers()
        first, kept = mel(config)(power, lengths)
        again, _ = mel(config)(power, lengths)
        torch.testing.assert_close(first, again, rtol=0, atol=0)
        beyond = torch.arange(first.shape[1])[None] >= kept[:, None]
        assert bool((first[beyond] == 0).all())
        assert bool((first >= 0).all())


def test_mel_noise_has_the_wanted_ratio():
    power, lengths = powers()
    noisy = mel(MelAugmentConfig(noise_p=1.0, snr_db=(10.0, 10.0))).add_noise(power, lengths)
    added = (noisy - power).sum(-1).mean(1)
    ratio = 10 * torch.log10(loud_level(power, lengths) / added)
    assert ratio.tolist() == pytest.approx([10.0] * 3, abs=0.1)
    spared = mel(MelAugmentConfig(noise_p=0.0)).add_noise(power, lengths)
    assert torch.equal(spared, power)


def test_masks_hide_values_inside_the_item_only():
    log_mel = torch.rand(2, 50, BINS)
    lengths = torch.tensor([50, 30])
    config = MelAugmentConfig(freq_masks=1, time_masks=1)
    masked = mel(config).spec_augment(log_mel, lengths)
    assert not torch.equal(masked[0], log_mel[0])
    assert torch.equal(masked[1, 30:], log_mel[1, 30:])


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


def test_text_augmentation_repeats_with_its_generator(errors):
    augment = TextAugment(TextSection(lower_p=1.0, errors_p=1.0), errors)
    texts = [augment("The Cat, sat!", np.random.default_rng(5)) for _ in range(2)]
    assert texts[0] == texts[1]
    assert plain("Don't STOP, now!") == "don't stop now"
    assert plain("...") == "..."
