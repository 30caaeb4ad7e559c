# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A compact voice encoder in the shape of Whisper's first layers: waveform -> log-mel -> states at 25 Hz.

Two convolutions and a few Transformer layers over mel frames (Radford et al. 2022, arXiv:2212.04356),
small enough for a robot's CPU, so that weights can be cut out of a pretrained Whisper
(`model.whisper_weights`). It keeps the interface of transformers' speech encoders:
``input_values`` and a sample ``attention_mask`` in, ``last_hidden_state`` out. Three properties hold
by construction rather than by training:

* level: powers are divided by the level of the utterance's loud frames, the floor is relative to
  it, and the noise that 16-bit rounding adds, which is not, is subtracted;
* silence: frames before the first and after the last active frame take no part in what follows,
  and positions count from the first active frame;
* padding: an item in a padded batch gives what it gives alone, because invalid frames are zero
  before every convolution and hidden from attention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import BoolTensor, FloatTensor, LongTensor, Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.audio_utils import mel_filter_bank
from transformers.modeling_outputs import BaseModelOutput

_TINY = 1e-12  # keeps divisions and logarithms finite on digital silence
_WAVELENGTH = 10_000.0  # of the slowest position code, in frames, as in Whisper
_ROUNDING_POWER = (1.0 / 32768) ** 2 / 12
"""Variance of the white noise that rounding to 16 bits adds (Bennett 1948, doi:10.1002/j.1538-7305.1948.tb01340.x).
It raises the log-mel of speech whose peaks are at -40 dBFS by 0.4 to 1.1 dB on average (13 clips)."""


class CompactAudioConfig(PreTrainedConfig):
    """Configuration of `CompactAudioEncoder`. Defaults of the spectrogram are Whisper's.

    Args:
        sampling_rate: of the waveform, in Hz.
        n_fft, hop_length: of the short-time Fourier transform, in samples.
        num_mel_bins, f_min, f_max: mel filter bank (Slaney's scale and normalisation; Hz).
        floor_db: soft floor below the utterance's level; hides the recording chain's own noise.
        active_db: frames further than this below the level of the utterance are silence.
        active_margin: silent frames kept before the first and after the last active one. Above 0
            a clip that starts with speech differs from the same clip after a second of silence.
        hidden_size: width of the hidden states.
        num_hidden_layers: Transformer layers.
        conv_channels: between the two convolutions.
        num_attention_heads: of each layer.
        query_size, value_size: of each head.
        intermediate_size: units of each feed-forward block.
        state_layers: layers (1 is the first) whose states, side by side, are the output; empty gives the
            normalised states of the last.
        pool_first: average neighbouring states before the layers instead of behind them: half the work,
            for layers that have learnt it.
    """

    model_type = "hri_emo_compact_audio"

    def __init__(
        self,
        sampling_rate: int = 16000,
        n_fft: int = 400,
        hop_length: int = 160,
        num_mel_bins: int = 80,
        f_min: float = 0.0,
        f_max: float = 8000.0,
        floor_db: float = 60.0,
        active_db: float = 40.0,
        active_margin: int = 0,
        hidden_size: int = 512,
        conv_channels: int = 320,
        num_hidden_layers: int = 3,
        num_attention_heads: int = 8,
        query_size: int = 32,
        value_size: int = 32,
        intermediate_size: int = 512,
        state_layers: Sequence[int] = (),
        pool_first: bool = True,
        **kwargs: object,
    ) -> None:
        self.sampling_rate = sampling_rate
        self.n_fft, self.hop_length = n_fft, hop_length
        self.num_mel_bins, self.f_min, self.f_max = num_mel_bins, f_min, f_max
        self.floor_db, self.active_db, self.active_margin = floor_db, active_db, active_margin
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        self.conv_channels, self.num_attention_heads = conv_channels, num_attention_heads
        self.query_size, self.value_size = query_size, value_size
        self.intermediate_size = intermediate_size
        self.state_layers, self.pool_first = list(state_layers), pool_first
        super().__init__(**kwargs)


@dataclass
class CompactAudioOutput(BaseModelOutput):
    """`BaseModelOutput` and the frames [B, F] from the first active one to the last: hidden states
    elsewhere are zero."""

    frame_mask: BoolTensor | None = None


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward block, each on the normalised stream and added to it.

    [B, F, d], mask [B, F] -> [B, F, d]. No dropout: a few of Whisper's channels are a hundred times as
    large as the rest, and hiding one of them for a moment ruins training.
    """

    def __init__(self, config: CompactAudioConfig) -> None:
        super().__init__()
        c = config
        self.sizes = [c.query_size, c.query_size, c.value_size]
        self.heads = c.num_attention_heads
        self.attention_norm = nn.LayerNorm(c.hidden_size)
        self.query_key_value = nn.Linear(c.hidden_size, self.heads * sum(self.sizes))
        self.attention_out = nn.Linear(self.heads * c.value_size, c.hidden_size)
        self.feedforward_norm = nn.LayerNorm(c.hidden_size)
        self.feedforward_in = nn.Linear(c.hidden_size, c.intermediate_size)
        self.feedforward_out = nn.Linear(c.intermediate_size, c.hidden_size)

    def attend(self, x: Tensor, mask: Tensor) -> Tensor:
        """What the heads gather, [B, F, heads * value size]."""
        # [B, heads, F, query, key and value of the head]
        inner = self.query_key_value(self.attention_norm(x)).unflatten(-1, (self.heads, -1))
        q, k, v = inner.transpose(1, 2).split(self.sizes, dim=-1)
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        return y.transpose(1, 2).flatten(2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention_out(self.attend(x, mask))
        y = nn.functional.gelu(self.feedforward_in(self.feedforward_norm(x)))
        return x + self.feedforward_out(y)


class CompactAudioEncoder(PreTrainedModel):
    """Waveform -> hidden states at `frame_rate`. See the module's docstring."""

    config_class = CompactAudioConfig
    main_input_name = "input_values"
    stride = 4
    """Mel frames per hidden state: the second convolution and the pooling behind it halve twice."""

    def __init__(self, config: CompactAudioConfig) -> None:
        super().__init__(config)
        c = config
        bank = mel_filter_bank(
            c.n_fft // 2 + 1, c.num_mel_bins, c.f_min, c.f_max, c.sampling_rate,
            norm="slaney", mel_scale="slaney",
        )  # fmt: skip
        # Persistent, although they follow from the configuration: `from_pretrained` builds on the
        # meta device, where they would be lost.
        self.register_buffer("mel_bank", torch.tensor(bank, dtype=torch.float32))
        self.register_buffer("window", torch.hann_window(c.n_fft))
        self.conv1 = nn.Conv1d(c.num_mel_bins, c.conv_channels, 3, padding=1)
        self.conv2 = nn.Conv1d(c.conv_channels, c.hidden_size, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(EncoderLayer(c) for _ in range(c.num_hidden_layers))
        if not c.state_layers:
            self.norm_out = nn.LayerNorm(c.hidden_size)
        self.post_init()

    @property
    def state_size(self) -> int:
        """Width of the output."""
        return self.config.hidden_size * max(1, len(self.config.state_layers))

    @property
    def frame_rate(self) -> float:
        """Hidden states per second."""
        return self.config.sampling_rate / (self.stride * self.config.hop_length)

    def frame_mask(self, sample_mask: Tensor) -> BoolTensor:
        """Hidden states [B, F] that have samples behind them, from the mask of samples [B, T].

        Silence around the speech counts as valid here, not in `CompactAudioOutput.frame_mask`.
        """
        return self._mel_mask(sample_mask)[:, :: self.stride]

    # The name under which transformers' audio models offer the same.
    def _get_feature_vector_attention_mask(
        self, feature_vector_length: int, attention_mask: LongTensor
    ) -> BoolTensor:
        return self.frame_mask(attention_mask)[:, :feature_vector_length]

    def _mel_mask(self, sample_mask: Tensor) -> BoolTensor:
        frames = sample_mask.shape[1] // self.config.hop_length + 1
        last = sample_mask.sum(1, keepdim=True) // self.config.hop_length
        return torch.arange(frames, device=sample_mask.device)[None] <= last

    def mel_power(
        self, waveform: Tensor, sample_mask: Tensor | None = None
    ) -> tuple[Tensor, BoolTensor]:
        """Power per mel bin [B, T', M] of every frame, less what 16-bit rounding adds to it on average,
        and the valid frames [B, T']."""
        if sample_mask is None:
            sample_mask = torch.ones_like(waveform, dtype=torch.long)
        power = self._spectrum(waveform * sample_mask).transpose(1, 2) @ self.mel_bank
        rounding = _ROUNDING_POWER * self.window.square().sum() * self.mel_bank.sum(0)
        mask = self._mel_mask(sample_mask)
        return (power - rounding).clamp_min(0.0) * mask[..., None], mask

    def _spectrum(self, waveform: Tensor) -> Tensor:
        """Power per frequency, [B, T] -> [B, n_fft / 2 + 1, T']."""
        c = self.config
        if torch.onnx.is_in_onnx_export():
            # ONNX's own transform is slow for lengths that are no power of two; a convolution is not.
            time = torch.arange(c.n_fft, dtype=torch.float64)
            angle = 2 * math.pi / c.n_fft * torch.outer(torch.arange(c.n_fft // 2 + 1), time)
            waves = torch.cat([angle.cos(), angle.sin()]).float() * self.window
            padded = nn.functional.pad(waveform[:, None], (c.n_fft // 2, c.n_fft // 2))
            parts = nn.functional.conv1d(padded, waves[:, None], stride=c.hop_length)
            return parts.square().unflatten(1, (2, -1)).sum(1)
        spectrum = torch.stft(
            waveform, c.n_fft, c.hop_length, window=self.window,
            center=True, pad_mode="constant", return_complex=True,
        )  # fmt: skip
        return spectrum.real.square() + spectrum.imag.square()

    def normalise(self, power: Tensor, mask: Tensor) -> tuple[Tensor, BoolTensor]:
        """Log-mel relative to the utterance's level (0 = the floor, 1 = 20 dB above it) and the
        active frames, from the power [B, T', M] and valid frames [B, T'].

        The level is sum(e^2) / sum(e) over the frames' powers e, the mean power of the loud frames:
        it needs no threshold and silence does not lower it.
        """
        c = self.config
        energy = power.sum(-1) * mask
        level = energy.square().sum(1, keepdim=True) / energy.sum(1, keepdim=True).clamp_min(_TINY)
        loud = energy > level * 10 ** (-c.active_db / 10)
        reach = 2 * c.active_margin + 1
        near = nn.functional.max_pool1d(loud[:, None].float(), reach, 1, c.active_margin)[:, 0] > 0
        so_far = near.long().cumsum(1)
        active = (so_far > 0) & (so_far < so_far[:, -1:] + near.long()) & mask
        # An utterance without any sound keeps all its frames: attention over none is undefined.
        active = active | (mask.bool() & ~active.any(1, keepdim=True))
        floor = 10 ** (-c.floor_db / 10) / c.num_mel_bins
        relative = power / level[..., None].clamp_min(_TINY)
        log_mel = (torch.log10(relative + floor) - math.log10(floor)) / 2
        return log_mel * active[..., None], active

    def log_mel(
        self, waveform: Tensor, sample_mask: Tensor | None = None
    ) -> tuple[Tensor, BoolTensor]:
        """Normalised log-mel [B, T', M] and its active frames [B, T']: what `encode` takes."""
        return self.normalise(*self.mel_power(waveform, sample_mask))

    def encode(self, log_mel: Tensor, mask: Tensor) -> CompactAudioOutput:
        """Hidden states of a normalised (and perhaps augmented) log-mel [B, T', M]."""
        x, mask = self.convolve(log_mel, mask)
        if self.config.pool_first:
            x, mask = self.pool(x, mask)
        seen = mask | ~mask.any(1, keepdim=True)  # attention over nothing is undefined
        states = [x]
        for layer in self.layers:
            x = layer(x, seen)
            states.append(x)
        chosen = self.config.state_layers
        x = torch.cat([states[n] for n in chosen], dim=-1) if chosen else self.norm_out(x)
        if not self.config.pool_first:
            x, mask = self.pool(x, mask)
        x = x * mask[..., None]
        return CompactAudioOutput(last_hidden_state=x, hidden_states=tuple(states), frame_mask=mask)

    def convolve(self, log_mel: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Both convolutions and the positions: [B, T', M], [B, T'] -> [B, ceil(T' / 2), d] and its mask."""
        weight = mask[:, None].to(log_mel.dtype)
        x = nn.functional.gelu(self.conv1(log_mel.transpose(1, 2) * weight)) * weight
        x = nn.functional.gelu(self.conv2(x)).transpose(1, 2)
        half = mask[:, ::2].bool()
        return (x + self._positions(half, x)) * half[..., None], half

    @staticmethod
    def pool(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of two neighbours, or the only one at an end: as good for this task as 50 states a
        second and half the work. [B, F, d], [B, F] -> [B, ceil(F / 2), d] and its mask."""
        count = _pairs(mask[..., None].to(x.dtype)).sum(2)
        return _pairs(x * mask[..., None]).sum(2) / count.clamp_min(1), count[..., 0] > 0

    def _positions(self, mask: Tensor, like: Tensor) -> Tensor:
        """Whisper's sinusoids [B, F, d], counted from each row's first valid frame."""
        step = math.log(_WAVELENGTH) / (like.shape[2] // 2 - 1)
        rate = torch.exp(-step * torch.arange(like.shape[2] // 2, device=like.device))
        first = mask.long().argmax(1, keepdim=True)
        place = torch.arange(like.shape[1], device=like.device)[None] - first
        angle = place[..., None] * rate
        return torch.cat([angle.sin(), angle.cos()], dim=2).to(like.dtype)

    def forward(
        self, input_values: FloatTensor, attention_mask: LongTensor | None = None, **_: object
    ) -> CompactAudioOutput:
        """Encode waveforms [B, T] of any level; the mask [B, T] is 0 for padding at the end."""
        return self.encode(*self.log_mel(input_values, attention_mask))


def _pairs(x: Tensor) -> Tensor:
    """Neighbouring frames side by side: [B, F, d] -> [B, ceil(F / 2), 2, d], zeros where one lacks."""
    return nn.functional.pad(x, (0, 0, 0, x.shape[1] % 2)).unflatten(1, (-1, 2))


AutoConfig.register(CompactAudioConfig.model_type, CompactAudioConfig, exist_ok=True)
AutoModel.register(CompactAudioConfig, CompactAudioEncoder, exist_ok=True)
