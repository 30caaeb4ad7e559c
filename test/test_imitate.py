"""Teaching a thinned voice encoder what the whole network hears in clean speech."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import corpus_trees
import numpy as np
import pytest
import soundfile
import torch

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.bundle import load_bundle
from hri_emo_ros.model.compact_audio import CompactAudioEncoder
from hri_emo_ros.training.audio_store import AudioStore
from hri_emo_ros.training.config import ImitateSection, parse_config
from hri_emo_ros.data.corpus import Item
from hri_emo_ros.training.imitate import imitate
from hri_emo_ros.training.mel_augment import MelAugment, MelAugmentConfig
from hri_emo_ros.training.mel_store import MelStore, mel_centres
from hri_emo_ros.training.prune_audio_encoder import (
    prune_audio_encoder,
    whole_encoder,
    whole_states,
)
from hri_emo_ros.training.trainer import Trainer

RATE = 16_000


@torch.no_grad()
def error_in_noise(encoder, whole, store, voices, augment) -> float:
    """Mean squared error of the states in noise, where the whole network's clean ones have variance 1."""
    augment.seed(1)
    found, wanted = [], []
    for item in voices:
        power = torch.from_numpy(10.0 ** (store.full(item).astype(np.float32) / 10.0))[None]
        everything = torch.ones(1, power.shape[1], dtype=torch.bool)
        clean, _ = whole.normalise(power, everything)
        wanted.append(whole_states(whole, clean[0])[-1])
        noisy = augment.corrupt(power, torch.tensor([power.shape[1]]))
        states = encoder.encode(whole.normalise(noisy, everything)[0], everything)
        found.append(states.last_hidden_state[0])
    target = torch.cat(wanted)
    target = torch.nn.functional.layer_norm(target, target.shape[1:])
    target = (target - target.mean(0)) / target.std(0)
    return float((torch.cat(found) - target).square().mean())


def test_imitation_brings_states_in_noise_closer_to_the_clean_ones(
    tiny_whisper: Path, tmp_path: Path
) -> None:
    whole = whole_encoder(str(tiny_whisper), 2)
    rng = np.random.default_rng(0)
    t = np.arange(int(1.2 * RATE)) / RATE
    voices = []
    for number in range(24):
        pitch = 120 * 1.5 ** rng.uniform(0, 4)
        tone = np.sin(2 * np.pi * pitch * t) * (1.2 + np.sin(2 * np.pi * rng.uniform(1, 5) * t))
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, 0.1 * tone, RATE)
        voices.append(Item(str(number), "tones", "-", (1.0,), audio=path))
    audio = AudioStore()
    audio.load(voices)
    store = MelStore(whole, audio)
    store.load(voices, all_speeds=False)
    clean = [torch.from_numpy(10.0 ** (store.full(v).astype(np.float32) / 10.0)) for v in voices]
    mels = [whole.normalise(p[None], torch.ones(1, len(p)).bool())[0][0] for p in clean]
    thin = prune_audio_encoder(whole, mels, query_size=4, value_size=4, intermediate_size=8)
    thin.requires_grad_(False)
    noise = store.power_of(rng.standard_normal(3 * RATE).astype(np.float32))
    settings = MelAugmentConfig(
        noise_p=1.0, snr_db=(0.0, 10.0), reverb_p=0.0, eq_p=0.0, band_p=0.0, drift_p=0.0
    )
    noises = {"white": [noise]}
    augment = MelAugment(mel_centres(whole), store.frame_rate, noises, torch.Generator(), settings)
    before = error_in_noise(thin, whole, store, voices, augment)
    section = ImitateSection(epochs=20.0, batch_size=8, lr=2e-3)
    left = imitate(thin, whole, voices, store, augment, section, 0, lambda *_: lambda: None)
    after = error_in_noise(thin, whole, store, voices, augment)
    assert after < 0.7 * before
    assert abs(left - after) < 0.3 * before
    assert not any(parameter.requires_grad for parameter in thin.parameters())


@pytest.fixture(scope="module")
def cut_and_taught(tiny_whisper: Path) -> dict[str, Any]:
    return {
        "name": "voice",
        "data": {"corpora": [{"name": "ravdess", "path": "ravdess"}], "fold": 5},
        "prune_audio": {
            "source": str(tiny_whisper),
            "layers": 2,
            "query_size": 4,
            "intermediate_size": 8,
            "imitate": {"epochs": 1.0, "batch_size": 8},
        },
        "model": {
            "head": "audio_only",
            "audio": {"kind": "compact", "unfreeze_last_n_layers": 0},
            "head_hidden": 16,
            "head_norm": "batch",
        },
        "augment": {"mel": {"enabled": True}},
        "optim": {"epochs": 2, "batch_size": 8, "ema": 0.9},
    }


def test_a_run_ships_the_taught_encoder_which_the_head_left_alone(
    cut_and_taught: dict[str, Any], tmp_path: Path
) -> None:
    corpus_trees.ravdess(tmp_path / "ravdess", actors=(1, 4, 8, 2), takes=2)
    trainer = Trainer(parse_config(cut_and_taught), tmp_path, tmp_path / "run")
    assert trainer.run(stop_after=3) == {}
    taught = {k: v.clone() for k, v in trainer.network.model.audio_encoder.state_dict().items()}
    solved = CompactAudioEncoder.from_pretrained(tmp_path / "run" / "pruned_audio_encoder")
    for name, value in solved.state_dict().items():
        moved = not torch.equal(taught[f"model.{name}"], value)
        assert moved == (name not in ("mel_bank", "window")), name

    again = Trainer(parse_config(cut_and_taught), tmp_path, tmp_path / "run")
    again.run(resume=True)
    shipped = load_bundle(tmp_path / "run" / "bundle").model.audio_encoder.state_dict()
    for name, value in taught.items():
        torch.testing.assert_close(shipped[name], value, atol=2e-3, rtol=2e-3)  # 16-bit weights


def test_imitation_without_spectrograms_to_corrupt_is_refused(
    cut_and_taught: dict[str, Any], tmp_path: Path
) -> None:
    corpus_trees.ravdess(tmp_path / "ravdess", actors=(1, 4, 8, 2), takes=1)
    config = parse_config({**cut_and_taught, "augment": {}})
    with pytest.raises(HriEmoError, match=r"prune_audio\.imitate.*augment\.mel\.enabled"):
        Trainer(config, tmp_path, tmp_path / "run").run()
