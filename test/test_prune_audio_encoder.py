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
from hri_emo_ros.training.prune_audio_encoder import (
    prune_audio_encoder,
    whole_states,
)
from hri_emo_ros.training.whisper_weights import whole_encoder

RATE = 16_000


@pytest.fixture(scope="module")
def source(tiny_whisper: Path) -> Path:
    return tiny_whisper.parent / "source"


@pytest.fixture(scope="module")
def whole(source: Path) -> CompactAudioEncoder:
    return whole_encoder(str(source), 2)


@pytest.fixture(scope="module")
def waveforms() -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    t = np.arange(RATE) / RATE
    tones = [np.sin(2 * np.pi * f * t) * (1 + np.sin(2 * np.pi * 3 * t)) for f in (200, 700, 1900)]
    noisy = [0.1 * tone + 0.01 * rng.standard_normal(RATE) for tone in tones]
    return [torch.tensor(x, dtype=torch.float32) for x in noisy]


@pytest.fixture(scope="module")
def clips(whole: CompactAudioEncoder, waveforms: list[torch.Tensor]) -> list[torch.Tensor]:
    return [whole.log_mel(waveform[None])[0][0] for waveform in waveforms]


@torch.no_grad()
def states_of(encoder: CompactAudioEncoder, clips: list[torch.Tensor]) -> torch.Tensor:
    outputs = [encoder.encode(x[None], torch.ones(1, len(x)).bool()) for x in clips]
    return torch.cat([output.last_hidden_state[0] for output in outputs])


@torch.no_grad()
def unexplained(encoder: CompactAudioEncoder, whole: CompactAudioEncoder, clips) -> float:
    """Mean squared error where the whole network's states have variance 1."""
    wanted = torch.cat([whole_states(whole, clip)[-1] for clip in clips])
    wanted = torch.nn.functional.layer_norm(wanted, wanted.shape[1:])
    wanted = (wanted - wanted.mean(0)) / wanted.std(0)
    return float((states_of(encoder, clips) - wanted).square().mean())


@torch.no_grad()
def test_a_layer_that_is_kept_whole_computes_what_whispers_does(source, whole, clips):
    whisper = WhisperModel.from_pretrained(source).encoder.eval()
    cut = prune_audio_encoder(whole, clips)
    for ours, theirs in zip(cut.layers, whisper.layers, strict=True):
        x = torch.randn(1, 9, cut.config.hidden_size, generator=torch.Generator().manual_seed(0))
        result = theirs(x, attention_mask=None)
        expected = result[0] if isinstance(result, tuple) else result
        everything = torch.ones(1, x.shape[1], dtype=torch.bool)
        torch.testing.assert_close(ours(x, everything), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_first_convolution_reads_relative_levels_as_whisper_reads_its_own(
    source, whole, waveforms
):
    whisper = WhisperModel.from_pretrained(source).encoder
    power, mask = whole.mel_power(waveforms[0][None])
    relative, _ = whole.normalise(power, mask)
    energy = power.sum(-1)
    level = energy.square().sum() / energy.sum()
    floor = 10 ** (-whole.config.floor_db / 10) / whole.config.num_mel_bins
    # An utterance at the level that is assumed of all: mel power 13.5 in its loud frames.
    theirs = (torch.log10((power / level + floor) * 13.5) + 4) / 4
    inner = slice(2, -2)  # at the ends Whisper's zeros are no silence
    expected = whisper.conv1(theirs.transpose(1, 2))[..., inner]
    actual = whole.conv1(relative.transpose(1, 2))[..., inner]
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_what_adds_nothing_is_what_is_cut(source, clips, tmp_path):
    """Idle units and channels are left out, and directions that no output depends on."""
    folder = tmp_path / "partly_idle"
    shutil.copytree(source, folder)
    weights = load_file(str(folder / "model.safetensors"))
    prefix = next(k for k in weights if k.endswith("encoder.layers.0.fc2.weight"))
    prefix = prefix.removesuffix("layers.0.fc2.weight")
    for layer in (0, 1):
        place = f"{prefix}layers.{layer}."
        weights[f"{place}fc2.weight"][:, 0:32:2] = 0.0
        for head in (0, 8):
            weights[f"{place}self_attn.out_proj.weight"][:, head : head + 4] = 0.0
            weights[f"{place}self_attn.q_proj.weight"][head + 2 : head + 8] = 0.0
            weights[f"{place}self_attn.q_proj.bias"][head + 2 : head + 8] = 0.0
    weights[f"{prefix}conv2.weight"][:, 0:16:4] = 0.0
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    whole = whole_encoder(str(folder), 2)
    same = prune_audio_encoder(whole, clips)
    sizes = {"conv_channels": 12, "query_size": 4, "value_size": 4, "intermediate_size": 16}
    cut = prune_audio_encoder(whole, clips, **sizes)
    for name, size in sizes.items():
        assert getattr(cut.config, name) == size
    assert cut.num_parameters() < same.num_parameters()
    # Solving also repairs what pooling early has lost, so the thin one may only be better.
    assert unexplained(cut, whole, clips) < unexplained(same, whole, clips) + 0.01


@torch.no_grad()
def test_solving_makes_up_for_what_is_cut(whole, clips):
    sizes = {"conv_channels": 8, "query_size": 4, "value_size": 4, "intermediate_size": 12}
    cut = prune_audio_encoder(whole, clips, **sizes)
    assert unexplained(cut, whole, clips) < 0.1


def test_states_come_out_standardised(whole, clips):
    cut = prune_audio_encoder(whole, clips, value_size=4, intermediate_size=8)
    states = states_of(cut, clips)
    torch.testing.assert_close(states.mean(0), torch.zeros(16), atol=1e-3, rtol=0)
    torch.testing.assert_close(states.std(0), torch.ones(16), atol=1e-3, rtol=0)


def test_faster_whispers_format_gives_the_same_encoder(tiny_whisper, whole, clips):
    other = whole_encoder(str(tiny_whisper), 2)
    for clip in clips:
        for ours, theirs in zip(whole_states(whole, clip), whole_states(other, clip), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_the_encoder_survives_being_saved(whole, clips, tmp_path):
    cut = prune_audio_encoder(whole, clips, query_size=4)
    cut.save_pretrained(tmp_path)
    again = CompactAudioEncoder.from_pretrained(tmp_path)
    assert again.state_dict().keys() == cut.state_dict().keys()
    for name, value in cut.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("name", "value", "most"),
    [("conv_channels", 99, 16), ("query_size", 9, 8), ("value_size", 0, 8),
     ("intermediate_size", 99, 32)],
)  # fmt: skip
def test_more_than_there_is_cannot_be_kept(whole, clips, name, value, most):
    with pytest.raises(HriEmoError, match=rf"prune_audio\.{name}' is {value}, must be 1 to {most}"):
        prune_audio_encoder(whole, clips, **{name: value})


@pytest.mark.parametrize("layers", [0, 3])
def test_layers_that_are_not_there_are_named(source, layers):
    with pytest.raises(HriEmoError, match=rf"prune_audio\.layers' is {layers}, must be 1 to 2"):
        whole_encoder(str(source), layers)


def test_a_folder_without_a_whisper_is_named(tmp_path):
    with pytest.raises(HriEmoError, match=r"prune_audio\.source.*whisper-base"):
        whole_encoder(str(tmp_path), 1)
    (tmp_path / "model.bin").write_bytes(b"\x06\x00\x00\x00\x03\x00abc")
    with pytest.raises(HriEmoError, match=r"model\.bin"):
        whole_encoder(str(tmp_path), 1)
