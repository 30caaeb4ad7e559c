"""Cutting a compact voice encoder out of a Whisper, on the tiny random one made in the session."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperModel

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.compact_audio import CompactAudioEncoder
from hri_emo_ros.training.prune_audio_encoder import prune_audio_encoder

RATE = 16_000


@pytest.fixture(scope="module")
def source(tiny_whisper: Path) -> Path:
    return tiny_whisper.parent / "source"


@pytest.fixture(scope="module")
def clips() -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    t = np.arange(RATE) / RATE
    tones = [np.sin(2 * np.pi * f * t) * (1 + np.sin(2 * np.pi * 3 * t)) for f in (200, 700, 1900)]
    noisy = [0.1 * tone + 0.01 * rng.standard_normal(RATE) for tone in tones]
    return [torch.tensor(x, dtype=torch.float32) for x in noisy]


def stream(seed: int, width: int) -> torch.Tensor:
    return torch.randn(1, 9, width, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_a_layer_that_is_kept_whole_computes_what_whispers_does(source, clips):
    cut = prune_audio_encoder(str(source), clips, layers=2)
    whisper = WhisperModel.from_pretrained(source).encoder.eval()
    for ours, theirs in zip(cut.layers, whisper.layers, strict=True):
        x = stream(0, cut.config.hidden_size)
        result = theirs(x, attention_mask=None)
        expected = result[0] if isinstance(result, tuple) else result
        everything = torch.ones(1, x.shape[1], dtype=torch.bool)
        torch.testing.assert_close(ours(x, everything), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_first_convolution_reads_relative_levels_as_whisper_reads_its_own(source, clips):
    cut = prune_audio_encoder(str(source), clips, layers=1)
    whisper = WhisperModel.from_pretrained(source).encoder
    power, mask = cut.mel_power(clips[0][None])
    relative, _ = cut.normalise(power, mask)
    energy = power.sum(-1)
    level = energy.square().sum() / energy.sum()
    floor = 10 ** (-cut.config.floor_db / 10) / cut.config.num_mel_bins
    # An utterance at the level that is assumed of all: mel power 13.5 in its loud frames.
    theirs = (torch.log10((power / level + floor) * 13.5) + 4) / 4
    inner = slice(2, -2)  # at the ends Whisper's zeros are no silence
    expected = whisper.conv1(theirs.transpose(1, 2))[..., inner]
    actual = cut.conv1(relative.transpose(1, 2))[..., inner]
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_what_adds_nothing_is_what_is_cut(source, clips, tmp_path):
    folder = tmp_path / "one_head_idle"
    shutil.copytree(source, folder)
    weights = load_file(str(folder / "model.safetensors"))
    name = next(k for k in weights if k.endswith("encoder.layers.0.fc2.weight"))
    prefix = name.removesuffix("fc2.weight")
    weights[f"{prefix}self_attn.out_proj.weight"][:, :8] = 0.0  # the first of two heads
    idle = torch.arange(0, 32, 2)
    weights[f"{prefix}fc2.weight"][:, idle] = 0.0
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    whole = prune_audio_encoder(str(folder), clips, layers=1)
    cut = prune_audio_encoder(str(folder), clips, layers=1, heads=1, intermediate_size=16)
    assert cut.num_parameters() < whole.num_parameters()
    for clip in clips:
        torch.testing.assert_close(
            cut(clip[None]).last_hidden_state, whole(clip[None]).last_hidden_state,
            atol=1e-3, rtol=0,
        )  # fmt: skip


@torch.no_grad()
def test_states_come_out_standardised(source, clips):
    cut = prune_audio_encoder(str(source), clips, layers=2, heads=1, intermediate_size=8)
    outputs = [cut(clip[None]) for clip in clips]
    states = torch.cat([output.last_hidden_state[output.frame_mask] for output in outputs])
    torch.testing.assert_close(states.mean(0), torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(states.std(0), torch.ones(16), atol=1e-3, rtol=0)


@torch.no_grad()
def test_faster_whispers_format_gives_the_same_encoder(tiny_whisper, source, clips):
    ours = prune_audio_encoder(str(source), clips, layers=2, heads=1, intermediate_size=8)
    theirs = prune_audio_encoder(str(tiny_whisper), clips, layers=2, heads=1, intermediate_size=8)
    for clip in clips:
        torch.testing.assert_close(
            ours(clip[None]).last_hidden_state, theirs(clip[None]).last_hidden_state,
            atol=1e-4, rtol=0,
        )  # fmt: skip


def test_the_encoder_survives_being_saved(source, clips, tmp_path):
    cut = prune_audio_encoder(str(source), clips, layers=1)
    cut.save_pretrained(tmp_path)
    again = CompactAudioEncoder.from_pretrained(tmp_path)
    assert again.state_dict().keys() == cut.state_dict().keys()
    for name, value in cut.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("name", "value", "most"),
    [("layers", 3, 2), ("heads", 4, 2), ("heads", 0, 2), ("intermediate_size", 99, 32)],
)
def test_more_than_there_is_cannot_be_kept(source, clips, name, value, most):
    kept = {"layers": 1, name: value}
    with pytest.raises(HriEmoError, match=rf"prune_audio\.{name}' is {value}, must be 1 to {most}"):
        prune_audio_encoder(str(source), clips, **kept)


def test_a_folder_without_a_whisper_is_named(tmp_path, clips):
    with pytest.raises(HriEmoError, match=r"prune_audio\.source.*whisper-base"):
        prune_audio_encoder(str(tmp_path), clips, layers=1)
    (tmp_path / "model.bin").write_bytes(b"\x06\x00\x00\x00\x03\x00abc")
    with pytest.raises(HriEmoError, match=r"model\.bin"):
        prune_audio_encoder(str(tmp_path), clips, layers=1)
