# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The compact voice encoder: what must hold whatever its weights are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from hri_emo_ros.data.clips import decode
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.compact_audio import (
    CompactAudioConfig,
    CompactAudioEncoder,
)
from hri_emo_ros.model.config import VoiceSpec
from hri_emo_ros.model.layers import AttentiveStatistics
from hri_emo_ros.model.packaged import packaged_encoder

RATE = 16000
CLIPS = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def encoder() -> CompactAudioEncoder:
    torch.manual_seed(0)
    encoder = CompactAudioEncoder(CompactAudioConfig(hidden_size=96, intermediate_size=96))
    # Biases of zero would hide a mask that is missing after them.
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return encoder.eval()


def voice(seconds: float, seed: int = 0) -> torch.Tensor:
    """A gliding, amplitude-modulated harmonic tone with a little noise: active throughout."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * (140 * t + 15 * np.sin(2 * np.pi * 0.7 * t + seed))
    x = sum(np.sin(k * phase) / k for k in range(1, 12)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))
    return torch.tensor(0.1 * x + 0.003 * rng.standard_normal(t.size), dtype=torch.float32)


@torch.no_grad()
def test_an_item_in_a_padded_batch_equals_the_item_alone(encoder):
    clips = [voice(s, i) for i, s in enumerate((1.0, 2.317, 0.3001))]
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(c)).long() for c in clips], True)
    # What stands in the padding must not matter.
    batch = torch.nn.utils.rnn.pad_sequence(clips, True, padding_value=0.5)
    together = encoder(batch, mask)
    assert together.last_hidden_state.shape[:2] == together.frame_mask.shape
    pooling = AttentiveStatistics(encoder.state_size).eval()
    pooled = pooling(together.last_hidden_state, together.frame_mask)
    for i, clip in enumerate(clips):
        alone = encoder(clip[None])
        frames = alone.last_hidden_state.shape[1]
        assert together.frame_mask[i].sum() == alone.frame_mask.sum()
        torch.testing.assert_close(
            together.last_hidden_state[i, :frames], alone.last_hidden_state[0], atol=1e-5, rtol=0
        )
        assert not together.last_hidden_state[i, frames:].any()
        expected = pooling(alone.last_hidden_state, alone.frame_mask)[0]
        torch.testing.assert_close(pooled[i], expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("gain_db", [-20, 10])
def test_level_does_not_matter(encoder, gain_db):
    clip = voice(1.5)[None]
    expected = encoder(clip).last_hidden_state
    actual = encoder(clip * 10 ** (gain_db / 20)).last_hidden_state
    torch.testing.assert_close(actual, expected, atol=1e-3, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["emodb_08b10Nc", "jfk_1961"])
def test_rounding_a_quiet_voice_to_16_bits_does_not_raise_its_spectrogram(encoder, name):
    clip = torch.from_numpy(decode(CLIPS / f"{name}.flac"))[None]
    clip = clip / clip.abs().max()
    quiet = torch.round(0.01 * clip * 32768) / 32768  # peaks at -40 dBFS
    shift = encoder.log_mel(quiet)[0] - encoder.log_mel(clip)[0]
    assert abs(float(shift.mean())) < 0.01  # 1 is 20 dB; 0.04 to 0.06 where nothing is subtracted


@torch.no_grad()
@pytest.mark.parametrize("room_db", [None, -55])
def test_a_second_of_silence_changes_nothing(encoder, room_db):
    clip = voice(1.5)
    silence = torch.zeros(RATE)
    if room_db is not None:
        generator = torch.Generator().manual_seed(1)
        silence = clip.std() * 10 ** (room_db / 20) * torch.randn(RATE, generator=generator)
    expected = encoder(torch.cat([torch.zeros(3200), clip, torch.zeros(3200)])[None])
    actual = encoder(torch.cat([silence, clip, silence])[None])
    assert actual.frame_mask.sum() == expected.frame_mask.sum()
    kept = (
        actual.last_hidden_state[actual.frame_mask]
        - expected.last_hidden_state[expected.frame_mask]
    )
    inner = kept[4:-4]  # the margin's frames hear the room, and reach a few frames into the speech
    assert inner.abs().mean() < (1e-4 if room_db is None else 0.1)


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 200, 320, 5000])
def test_silence_and_very_short_input_give_finite_states(encoder, samples):
    for clip in (torch.zeros(1, samples), 1e-4 * torch.ones(1, samples)):
        output = encoder(clip)
        assert output.last_hidden_state.isfinite().all()
        assert output.frame_mask.any()


def test_a_saved_encoder_loads_as_itself(encoder, tmp_path):
    encoder.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), CompactAudioConfig)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert isinstance(loaded, CompactAudioEncoder)
    assert loaded.frame_rate == 25.0
    clip = voice(1.0)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.eval()(clip).last_hidden_state, encoder(clip).last_hidden_state, atol=0, rtol=0
        )


def test_every_weight_learns(encoder):
    encoder.train()
    encoder.zero_grad()
    encoder(
        torch.stack([voice(1.0, 1), voice(1.0, 2)])
    ).last_hidden_state.square().mean().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    encoder.zero_grad()
    encoder.eval()


def test_layers_and_heads_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(HriEmoError, match=r"'state_layers' is \[1, 4\], must be layers 1 to 3"):
        CompactAudioConfig(state_layers=(1, 4))
    with pytest.raises(HriEmoError, match="'hidden_size' is 100, must be a multiple"):
        CompactAudioConfig(hidden_size=100)
    spec = VoiceSpec(name="whisper-base", config={"num_hidden_layers": 3, "floor_db": 50.0})
    with pytest.raises(HriEmoError, match=r"has num_hidden_layers, floor_db, must have"):
        packaged_encoder(spec, tmp_path)
