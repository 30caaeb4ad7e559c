# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A compact voice encoder in the shape of Whisper's first layers: waveform -> log-mel -> states at 25 Hz.

Two convolutions and a few Transformer layers over mel frames (Radford et al. 2022, arXiv:2212.04356), whose
weights are those of a pretrained Whisper (`model.whisper_weights`). It keeps the interface of transformers'
speech encoders: ``input_values`` and a sample ``attention_mask`` in, ``last_hidden_state`` out. Three
properties hold by construction rather than by training:

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

from hri_emo_ros.errors import HriEmoError

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
        hidden_size: width of the hidden states.
        num_hidden_layers: Transformer layers.
        num_attention_heads: of each layer.
        intermediate_size: units of each feed-forward block.
        state_layers: layers (1 is the first) whose states, side by side, are the output.

    Raises:
        HriEmoError: the heads do not divide the width, or a layer in `state_layers` is not there.
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
        hidden_size: int = 512,
        num_hidden_layers: int = 3,
        num_attention_heads: int = 8,
        intermediate_size: int = 2048,
        state_layers: Sequence[int] = (1, 3),
        **kwargs: object,
    ) -> None:
        self.sampling_rate = sampling_rate
        self.n_fft, self.hop_length = n_fft, hop_length
        self.num_mel_bins, self.f_min, self.f_max = num_mel_bins, f_min, f_max
        self.floor_db, self.active_db = floor_db, active_db
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        self.num_attention_heads, self.intermediate_size = num_attention_heads, intermediate_size
        self.state_layers = list(state_layers)
        if hidden_size % num_attention_heads:
            raise HriEmoError(
                f"'hidden_size' is {hidden_size}, must be a multiple of 'num_attention_heads' "
                f"({num_attention_heads})"
            )
        if not state_layers or not all(1 <= layer <= num_hidden_layers for layer in state_layers):
            raise HriEmoError(
                f"'state_layers' is {list(state_layers)}, must be layers 1 to {num_hidden_layers}"
            )
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
        self.heads = c.num_attention_heads
        self.sizes = [c.hidden_size // self.heads] * 3
        self.attention_norm = nn.LayerNorm(c.hidden_size)
        self.query_key_value = nn.Linear(c.hidden_size, 3 * c.hidden_size)
        self.attention_out = nn.Linear(c.hidden_size, c.hidden_size)
        self.feedforward_norm = nn.LayerNorm(c.hidden_size)
        self.feedforward_in = nn.Linear(c.hidden_size, c.intermediate_size)
        self.feedforward_out = nn.Linear(c.intermediate_size, c.hidden_size)

    def attend(self, x: Tensor, mask: Tensor) -> Tensor:
        """What the heads gather, [B, F, d]."""
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
        self.conv1 = nn.Conv1d(c.num_mel_bins, c.hidden_size, 3, padding=1)
        self.conv2 = nn.Conv1d(c.hidden_size, c.hidden_size, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(EncoderLayer(c) for _ in range(c.num_hidden_layers))
        self.post_init()

    @property
    def state_size(self) -> int:
        """Width of the output."""
        return self.config.hidden_size * len(self.config.state_layers)

    @property
    def frame_rate(self) -> float:
        """Hidden states per second."""
        return self.config.sampling_rate / (self.stride * self.config.hop_length)

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
        so_far = loud.long().cumsum(1)
        active = (so_far > 0) & (so_far < so_far[:, -1:] + loud.long()) & mask
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
        seen = mask | ~mask.any(1, keepdim=True)  # attention over nothing is undefined
        states = []
        for layer in self.layers:
            x = layer(x, seen)
            states.append(x)
        chosen = torch.cat([states[n - 1] for n in self.config.state_layers], dim=-1)
        x, mask = self.pool(chosen, mask)
        return CompactAudioOutput(last_hidden_state=x * mask[..., None], frame_mask=mask)

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
