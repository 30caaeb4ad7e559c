# Copyright 2026 hri_emo_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A compact voice encoder, trained from scratch: waveform -> log-mel -> hidden states at 25 Hz.

It stands where a pre-trained WavLM or wav2vec 2.0 would stand, with a hundredth of the parameters,
and keeps their interface: ``input_values`` and a sample ``attention_mask`` in,
``last_hidden_state`` out. Three properties hold by construction rather than by training:

* level: powers are divided by the level of the utterance's loud frames, and the floor is relative
  to it;
* silence: frames before the first and after the last active frame take no part in what follows;
* padding: an item in a padded batch gives what it gives alone, because invalid frames are zero
  before every convolution.

Attentive statistics pooling follows Okabe et al. 2018 (arXiv:1803.10963).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import BoolTensor, FloatTensor, LongTensor, Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.audio_utils import mel_filter_bank
from transformers.modeling_outputs import BaseModelOutput

_TINY = 1e-12  # keeps divisions and logarithms finite on digital silence


class CompactAudioConfig(PreTrainedConfig):
    """Configuration of `CompactAudioEncoder`.

    Args:
        sampling_rate: of the waveform, in Hz.
        n_fft, win_length, hop_length: of the short-time Fourier transform, in samples. The 40 ms
            window resolves the harmonics of most voices, so that the network sees the pitch.
        num_mel_bins, f_min, f_max: mel filter bank (HTK scale; Hz).
        floor_db: soft floor below the utterance's level; hides the recording chain's own noise.
        active_db: frames further than this below the level of the utterance are silence.
        active_margin: silent frames kept before the first and after the last active one. Above 0
            a clip that starts with speech differs from the same clip after a second of silence.
        stem_channels: channels of the 2-D convolutions. The first has a kernel of 5 frames by 7
            bins and strides of 2 and 4, which is most of what makes this encoder fast; each later
            one, 3 by 3, halves the mel axis.
        hidden_size: width of the hidden states.
        num_hidden_layers: residual 1-D convolution blocks over time.
        conv_kernel_size: their kernel, in frames of the output rate.
        hidden_dropout: share of the channels hidden per utterance in training.
    """

    model_type = "hri_emo_compact_audio"

    def __init__(
        self,
        sampling_rate: int = 16000,
        n_fft: int = 1024,
        win_length: int = 640,
        hop_length: int = 320,
        num_mel_bins: int = 64,
        f_min: float = 60.0,
        f_max: float = 7600.0,
        floor_db: float = 60.0,
        active_db: float = 40.0,
        active_margin: int = 0,
        stem_channels: tuple[int, ...] = (32, 48, 64),
        hidden_size: int = 144,
        num_hidden_layers: int = 3,
        conv_kernel_size: int = 5,
        hidden_dropout: float = 0.1,
        **kwargs: object,
    ) -> None:
        self.sampling_rate = sampling_rate
        self.n_fft, self.win_length, self.hop_length = n_fft, win_length, hop_length
        self.num_mel_bins, self.f_min, self.f_max = num_mel_bins, f_min, f_max
        self.floor_db, self.active_db, self.active_margin = floor_db, active_db, active_margin
        self.stem_channels = list(stem_channels)
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        self.conv_kernel_size, self.hidden_dropout = conv_kernel_size, hidden_dropout
        super().__init__(**kwargs)


@dataclass
class CompactAudioOutput(BaseModelOutput):
    """`BaseModelOutput` and the frames [B, F] from the first active one to the last: hidden states
    elsewhere are zero."""

    frame_mask: BoolTensor | None = None


class ChannelDropout(nn.Module):
    """Hides whole channels of an item [B, F, d]: cheaper than nn.Dropout, a draw per value."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        return x * nn.functional.dropout(x.new_ones(x.shape[0], 1, x.shape[2]), self.p)


class StemBlock(nn.Module):
    """Strided 2-D convolution over time and mel, batch normalisation, ReLU. [B, C, F, M]"""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: tuple[int, int], stride: tuple[int, int]
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.norm(self.conv(x)).mul_(mask[:, None, :, None]).relu_()


class TemporalBlock(nn.Module):
    """Residual 1-D convolution over time, its channels gated by the whole utterance. [B, F, d]

    The gate (squeeze and excitation, Hu et al. 2018) is the only place where distant frames meet
    before the pooling.
    """

    def __init__(self, size: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(size, size, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm1d(size)
        self.gate = nn.Sequential(
            nn.Linear(size, size // 4), nn.ReLU(), nn.Linear(size // 4, size), nn.Sigmoid()
        )
        self.project = nn.Linear(size, size)
        self.dropout = ChannelDropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = nn.functional.gelu(self.norm(self.conv(x.transpose(1, 2)))).transpose(1, 2)
        mean = (y * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        y = self.project(y * self.gate(mean)[:, None])
        return (x + self.dropout(y)) * mask[..., None]


class AttentiveStatisticsPooling(nn.Module):
    """Weighted mean and deviation over valid frames, weights per head: [B, F, d] -> [B, 2 d]."""

    def __init__(self, hidden_size: int, num_heads: int = 4, bottleneck: int = 64) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.score = nn.Sequential(
            nn.Linear(hidden_size, bottleneck), nn.Tanh(), nn.Linear(bottleneck, num_heads)
        )

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        score = self.score(hidden).masked_fill(~mask[..., None], torch.finfo(hidden.dtype).min)
        weight = score.softmax(dim=1)[..., None]
        x = hidden.unflatten(-1, (self.num_heads, -1))
        mean = (weight * x).sum(1)
        # Two passes: E[x^2] - E[x]^2 would lose four digits.
        variance = (weight * (x - mean[:, None]).square()).sum(1)
        return torch.cat([mean.flatten(1), variance.clamp_min(1e-5).sqrt().flatten(1)], dim=1)


class CompactAudioEncoder(PreTrainedModel):
    """Waveform -> hidden states at `frame_rate`. See the module's docstring."""

    config_class = CompactAudioConfig
    main_input_name = "input_values"

    def __init__(self, config: CompactAudioConfig) -> None:
        super().__init__(config)
        c = config
        bank = mel_filter_bank(
            c.n_fft // 2 + 1, c.num_mel_bins, c.f_min, c.f_max, c.sampling_rate, mel_scale="htk"
        )
        # Persistent, although they follow from the configuration: `from_pretrained` builds on the
        # meta device, where they would be lost.
        self.register_buffer("mel_bank", torch.tensor(bank, dtype=torch.float32))
        self.register_buffer("window", torch.hann_window(c.win_length))
        sizes = [2, *c.stem_channels]
        self.stem = nn.ModuleList(
            StemBlock(a, b, *(((5, 7), (2, 4)) if i == 0 else ((3, 3), (1, 2))))
            for i, (a, b) in enumerate(pairwise(sizes))
        )
        bins = c.num_mel_bins
        for block in self.stem:
            bins = math.ceil(bins / block.conv.stride[1])
        self.project = nn.Linear(sizes[-1] * bins, c.hidden_size)
        self.norm_in = nn.LayerNorm(c.hidden_size)
        self.dropout = ChannelDropout(c.hidden_dropout)
        self.layers = nn.ModuleList(
            TemporalBlock(c.hidden_size, c.conv_kernel_size, c.hidden_dropout)
            for _ in range(c.num_hidden_layers)
        )
        self.norm_out = nn.LayerNorm(c.hidden_size)
        self.post_init()

    @property
    def frame_rate(self) -> float:
        """Hidden states per second."""
        return self.config.sampling_rate / (2 * self.config.hop_length)

    def frame_mask(self, sample_mask: Tensor) -> BoolTensor:
        """Hidden states [B, F] that have samples behind them, from the mask of samples [B, T].

        Silence around the speech counts as valid here, not in `CompactAudioOutput.frame_mask`.
        """
        return self._mel_mask(sample_mask)[:, ::2]

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
        """Power per mel bin [B, T', M] at twice the frame rate, and its valid frames [B, T']."""
        if sample_mask is None:
            sample_mask = torch.ones_like(waveform, dtype=torch.long)
        c = self.config
        spectrum = torch.stft(
            waveform * sample_mask, c.n_fft, c.hop_length, c.win_length, self.window,
            center=True, pad_mode="constant", return_complex=True,
        )  # fmt: skip
        power = (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2) @ self.mel_bank
        mask = self._mel_mask(sample_mask)
        return power * mask[..., None], mask

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
        begun = near.long().cummax(1).values.bool()
        to_come = near.long().flip(1).cummax(1).values.flip(1).bool()
        active = begun & to_come & mask
        # An utterance without any sound keeps all its frames: attention over none is undefined.
        active = torch.where(active.any(1, keepdim=True), active, mask.bool())
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
        """Hidden states of a normalised (and perhaps augmented) log-mel.

        The second input channel is the log-mel less its mean over time: what remains when the
        channel's equaliser and the speaker's average spectrum are taken out.
        """
        weight = mask[..., None].to(log_mel.dtype)
        mean = (log_mel * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1)
        x = torch.stack([log_mel * weight, (log_mel - mean) * weight], dim=1)
        x = x.contiguous(memory_format=torch.channels_last)  # a tenth faster on a CPU
        mask = mask[:, ::2].bool()
        weight = mask.to(log_mel.dtype)
        for block in self.stem:
            x = block(x, weight)
        x = self.dropout(self.norm_in(self.project(x.permute(0, 2, 1, 3).flatten(2))))
        x = x * weight[..., None]
        states = [x]
        for layer in self.layers:
            x = layer(x, weight)
            states.append(x)
        x = self.norm_out(x) * weight[..., None]
        return CompactAudioOutput(last_hidden_state=x, hidden_states=tuple(states), frame_mask=mask)

    def forward(
        self, input_values: FloatTensor, attention_mask: LongTensor | None = None, **_: object
    ) -> CompactAudioOutput:
        """Encode waveforms [B, T] of any level; the mask [B, T] is 0 for padding at the end."""
        return self.encode(*self.log_mel(input_values, attention_mask))


AutoConfig.register(CompactAudioConfig.model_type, CompactAudioConfig, exist_ok=True)
AutoModel.register(CompactAudioConfig, CompactAudioEncoder, exist_ok=True)
