"""Augmentation of mel-power spectrograms: what a voice, a room and a channel may change without
changing the emotion.

Everything works on a padded batch ``power`` [B, T, M] (linear mel power, any scale) with ``lengths``
[B] (valid frames) and draws from one ``torch.Generator``, so a seed reproduces a run. Working on mel
power instead of waveforms costs about one percent of a training step: noise adds in power
(uncorrelated signals), equalisers and telephone bands multiply, speed and vocal-tract length are
interpolations along time and mel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hri_emo_ros.data.clips import SPEECH_RANGE_DB

_EPS = 1e-12


@dataclass(frozen=True)
class MelAugmentConfig:
    """Probabilities (per item) and ranges. Band edges in Hz, levels in dB, factors are ratios."""

    warp_p: float = 0.8
    time_factor: tuple[float, float] = (0.85, 1.18)  # new length / old length, pitch unchanged
    freq_factor: tuple[float, float] = (0.90, 1.12)  # frequency axis scaled: formants and pitch
    reverb_p: float = 0.2
    rt60_s: tuple[float, float] = (0.15, 0.6)
    reverb_mix: tuple[float, float] = (0.02, 0.3)  # power of the tail over the direct sound's
    eq_p: float = 0.7
    eq_tilt_db: float = 8.0  # +- over the whole band
    eq_ripple_db: float = 4.0  # +- per cosine component (three components)
    noise_p: float = 0.5
    snr_db: tuple[float, float] = (0.0, 30.0)
    band_p: float = 0.15
    band_low_hz: tuple[float, float] = (60.0, 400.0)
    band_high_hz: tuple[float, float] = (3000.0, 7600.0)
    band_stop_db: float = 45.0
    drift_p: float = 0.3
    drift_db: float = 3.0  # slow gain contour, +-
    crop_p: float = 0.3
    crop_min: float = 0.65  # shortest crop relative to the clip
    freq_masks: int = 2
    freq_mask_bins: int = 8
    time_masks: int = 2
    time_mask_frames: int = 10
    mixup_p: float = 0.5
    mixup_alpha: float = 0.3


def loud_level(power: Tensor, lengths: Tensor) -> Tensor:
    """Power of the loud frames, sum(e^2)/sum(e) with e the frame's power: silence does not lower it. [B]"""
    valid = torch.arange(power.shape[1])[None] < lengths[:, None]
    energy = power.sum(-1) * valid
    return energy.square().sum(1) / energy.sum(1).clamp_min(_EPS)


def speech_power(power: Tensor, lengths: Tensor) -> Tensor:
    """Mean power of the frames that hold speech, those within 35 dB of the loudest: the square of
    `evaluation.clips.speech_level`. [B]

    Args:
        power: [B, T] mean square of each frame.
        lengths: [B] valid frames.
    """
    valid = torch.arange(power.shape[1])[None] < lengths[:, None]
    power = power * valid
    speech = valid & (power >= power.amax(1, keepdim=True) * 10 ** (-SPEECH_RANGE_DB / 10))
    return (power * speech).sum(1) / speech.sum(1).clamp_min(1)


class MelAugment:
    """Random augmentation of a batch of mel-power spectrograms.

    Args:
        mel_hz: centre frequency of every mel bin [M].
        frame_rate: frames per second.
        noises: by kind, mel-power spectrograms [T_i, M] on the same grid of noises whose waveforms
            have RMS 1; empty for no noise.
        generator: source of all randomness.
        mean_square: [M], what a frame's mel powers are multiplied with and added up to give the mean
            square of its samples; only `add_noise_at` needs it.
    """

    def __init__(
        self,
        mel_hz: Tensor,
        frame_rate: float,
        noises: Mapping[str, Sequence[Tensor]],
        generator: torch.Generator,
        config: MelAugmentConfig | None = None,
        mean_square: Tensor | None = None,
    ) -> None:
        self.config = config or MelAugmentConfig()
        self.mel_hz, self.frame_rate, self.generator = mel_hz, frame_rate, generator
        self.noises = noises
        # As often of one kind as of another, however many recordings there are.
        most = max(map(len, noises.values()), default=0)
        self._every = [kind[i % len(kind)] for kind in noises.values() for i in range(most)]
        self._mean_square = mean_square

    def __call__(self, power: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Warp, crop and corrupt; the lengths change."""
        power, lengths = self.crop(*self.warp(power, lengths))
        return self.corrupt(power, lengths), lengths

    def corrupt(self, power: Tensor, lengths: Tensor) -> Tensor:
        """Reverberate, equalise, add noise, limit the band: in the order in which the world does it."""
        power = self.equalise(self.drift(self.reverb(power)))
        power = self.band_limit(self.add_noise(power, lengths))
        valid = torch.arange(power.shape[1])[None] < lengths[:, None]
        return power * valid[..., None]

    def seed(self, seed: int) -> None:
        """Start the random draws anew: a batch's augmentation depends on its number alone."""
        self.generator.manual_seed(seed)

    def _uniform(self, size: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(size, generator=self.generator) * (high - low) + low

    def _log_uniform(self, size: int, low: float, high: float) -> Tensor:
        return self._uniform(size, math.log(low), math.log(high)).exp()

    def _chance(self, size: int, p: float) -> Tensor:
        return self._uniform(size) < p

    def _bin_of(self, hz: Tensor) -> Tensor:
        """Fractional number of the mel bin whose centre lies at `hz`."""
        above = torch.searchsorted(self.mel_hz, hz).clamp(1, len(self.mel_hz) - 1)
        low, high = self.mel_hz[above - 1], self.mel_hz[above]
        return above - 1 + (hz - low) / (high - low)

    def warp(self, power: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Stretch time and scale frequency by interpolating log power."""
        c, (batch, _, bins) = self.config, power.shape
        on = self._chance(batch, c.warp_p)
        time = torch.where(on, self._log_uniform(batch, *c.time_factor), 1.0)
        freq = torch.where(on, self._log_uniform(batch, *c.freq_factor), 1.0)
        new_lengths = (lengths * time).round().long().clamp_min(1)
        x = (power + _EPS).log()
        # along time
        src = torch.arange(int(new_lengths.max()))[None] / time[:, None]
        src = torch.minimum(src, (lengths - 1)[:, None].float())
        low = src.floor().long()
        high = torch.minimum(low + 1, (lengths - 1)[:, None])
        frac = (src - low)[..., None]
        x = torch.lerp(_frames(x, low), _frames(x, high), frac)
        # along frequency: output bin at f shows what was at f / factor
        src = self._bin_of(self.mel_hz[None] / freq[:, None]).clamp(0, bins - 1)
        low = src.floor().long()
        high = (low + 1).clamp_max(bins - 1)
        frac = (src - low)[:, None]
        x = torch.lerp(_bins(x, low), _bins(x, high), frac)
        return x.exp(), new_lengths

    def crop(self, power: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Keep a random stretch of some clips."""
        c, batch = self.config, power.shape[0]
        keep = torch.where(
            self._chance(batch, c.crop_p), self._uniform(batch, c.crop_min, 1.0), 1.0
        )
        new_lengths = (lengths * keep).round().long().clamp_min(1)
        start = (self._uniform(batch) * (lengths - new_lengths + 1)).long()
        index = start[:, None] + torch.arange(int(new_lengths.max()))[None]
        index = index.clamp_max(power.shape[1] - 1)
        return power.gather(1, index[..., None].expand(-1, -1, power.shape[2])), new_lengths

    def reverb(self, power: Tensor) -> Tensor:
        """Exponential decay of every bin's power, as a diffuse room adds it."""
        c, batch = self.config, power.shape[0]
        on = self._chance(batch, c.reverb_p)
        rt60 = self._uniform(batch, *c.rt60_s)
        mix = self._uniform(batch, *c.reverb_mix)
        if not bool(on.any()):
            return power
        taps = int(0.4 * self.frame_rate)
        decay = 10 ** (
            -6.0 / (rt60[:, None] * self.frame_rate) * torch.arange(taps)[None]
        )  # [B, taps]
        tail = decay / decay.sum(1, keepdim=True) * mix[:, None]
        kernel = torch.where(on[:, None], tail, 0.0)
        kernel[:, 0] += 1.0
        x = power.transpose(1, 2).reshape(1, -1, power.shape[1])  # channels = batch * bins
        weight = kernel.flip(1).repeat_interleave(power.shape[2], 0)[:, None]
        y = torch.nn.functional.conv1d(
            torch.nn.functional.pad(x, (taps - 1, 0)), weight, groups=x.shape[1]
        )
        return y.reshape(batch, power.shape[2], -1).transpose(1, 2)

    def drift(self, power: Tensor) -> Tensor:
        """Slow gain contour: a speaker who moves, an automatic gain."""
        c, (batch, frames, _) = self.config, power.shape
        amount = torch.where(
            self._chance(batch, c.drift_p), self._uniform(batch, -c.drift_db, c.drift_db), 0.0
        )
        phase, cycles = self._uniform(batch, 0, 2 * math.pi), self._uniform(batch, 0.3, 1.0)
        t = torch.arange(frames)[None] / (2.0 * self.frame_rate)  # one cycle = 2 s
        gain = amount[:, None] * torch.sin(2 * math.pi * cycles[:, None] * t + phase[:, None])
        return power * (10 ** (gain / 10))[..., None]

    def equalise(self, power: Tensor) -> Tensor:
        """Random tilt and ripple over mel: microphones, rooms, recording chains."""
        c, (batch, _, bins) = self.config, power.shape
        u = torch.linspace(0, 1, bins)[None]
        gain = self._uniform(batch, -c.eq_tilt_db, c.eq_tilt_db)[:, None] * (u - 0.5)
        for k in (1, 2, 3):
            ripple, phase = (
                self._uniform(batch, 0, c.eq_ripple_db),
                self._uniform(batch, 0, 2 * math.pi),
            )
            gain = gain + ripple[:, None] / k * torch.cos(2 * math.pi * k * u + phase[:, None])
        gain = torch.where(self._chance(batch, c.eq_p)[:, None], gain, torch.zeros(()))
        return power * (10 ** (gain / 10))[:, None]

    def add_noise(self, power: Tensor, lengths: Tensor) -> Tensor:
        """Add a random stretch of a random noise at a random level below the loud parts of the speech."""
        batch = power.shape[0]
        on = self._chance(batch, self.config.noise_p)
        snr = self._uniform(batch, *self.config.snr_db)
        if not self._every:
            return power
        which = torch.randint(len(self._every), (batch,), generator=self.generator)
        chosen = [self._every[k] if o else None for k, o in zip(which.tolist(), on, strict=True)]
        noise = self._stretches(power, chosen)
        mean_noise = noise.sum(-1).mean(1).clamp_min(_EPS)
        gain = loud_level(power, lengths) / mean_noise * 10 ** (-snr / 10)
        return power + noise * gain[:, None, None]

    def add_noise_at(
        self, power: Tensor, lengths: Tensor, snr_db: Tensor, kinds: Sequence[str]
    ) -> Tensor:
        """Add a random stretch of noise of the kinds [B] (empty for none) `snr_db` [B] below the level of
        the speech, as ``hri-emo evaluate`` mixes waveforms."""
        assert self._mean_square is not None
        chosen: list[Tensor | None] = []
        for kind in kinds:
            of_kind = self.noises[kind] if kind else ()
            pick = int(torch.randint(len(of_kind), (), generator=self.generator)) if kind else 0
            chosen.append(of_kind[pick] if kind else None)
        level = speech_power(power @ self._mean_square, lengths)
        gain = level * 10 ** (-snr_db.nan_to_num() / 10)
        return power + self._stretches(power, chosen) * gain[:, None, None]

    def _stretches(self, power: Tensor, noises: Sequence[Tensor | None]) -> Tensor:
        """[B, T, M] a random stretch of each noise, repeated where it is too short; zeros for none."""
        offset = self._uniform(len(noises))
        stretches = torch.zeros_like(power)
        for i, noise in enumerate(noises):
            if noise is not None:
                start = int(offset[i] * len(noise))
                stretches[i] = noise[(start + torch.arange(power.shape[1])) % len(noise)]
        return stretches

    def band_limit(self, power: Tensor) -> Tensor:
        """Telephone and other narrow channels: bins outside the band fall by ``band_stop_db``."""
        c, batch = self.config, power.shape[0]
        on = self._chance(batch, c.band_p)
        low, high = self._uniform(batch, *c.band_low_hz), self._uniform(batch, *c.band_high_hz)
        octaves_below = torch.log2(low[:, None] / self.mel_hz[None]).clamp_min(0)
        octaves_above = torch.log2(self.mel_hz[None] / high[:, None]).clamp_min(0)
        loss = (96 * octaves_below + 96 * octaves_above).clamp_max(c.band_stop_db)
        loss = torch.where(on[:, None], loss, torch.zeros(()))
        return power * (10 ** (-loss / 10))[:, None]

    def spec_augment(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """Blank random bands and stretches of a *normalised* log-mel [B, T, ..., M] with the item's mean."""
        c, batch = self.config, log_mel.shape[0]
        bins, frames = log_mel.shape[-1], log_mel.shape[1]
        m, t = torch.arange(bins)[None], torch.arange(frames)[None]
        hide_f = torch.zeros(batch, bins, dtype=torch.bool)
        hide_t = torch.zeros(batch, frames, dtype=torch.bool)
        for _ in range(c.freq_masks):
            width = self._uniform(batch, 0, c.freq_mask_bins)
            start = self._uniform(batch) * (bins - width)
            hide_f |= (m >= start[:, None]) & (m < (start + width)[:, None])
        for _ in range(c.time_masks):
            width = torch.minimum(self._uniform(batch, 0, c.time_mask_frames), 0.2 * lengths)
            start = self._uniform(batch) * (lengths - width)
            hide_t |= (t >= start[:, None]) & (t < (start + width)[:, None])
        hidden = hide_t[:, :, None] | hide_f[:, None, :]
        valid = (t < lengths[:, None])[..., None]
        mean = (log_mel * valid).sum((1, 2), keepdim=True) / (lengths * bins)[:, None, None]
        return torch.where(hidden & valid, mean, log_mel)

    def mixup(self, size: int) -> tuple[Tensor, Tensor]:
        """Partner index [B] and weight of the item itself [B] (0.5 to 1; 1 = not mixed)."""
        c = self.config
        # torch draws no Beta from a given generator; a power of a uniform draw has the same look,
        # dense near 1 for a small alpha.
        lam = 1.0 - 0.5 * self._uniform(size) ** (1.0 / c.mixup_alpha)
        lam = torch.where(self._chance(size, c.mixup_p), lam, 1.0)
        return torch.randperm(size, generator=self.generator), lam


def _frames(x: Tensor, index: Tensor) -> Tensor:
    """Frames `index` [B, T'] of [B, T, M]."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))


def _bins(x: Tensor, index: Tensor) -> Tensor:
    """Bins `index` [B, M] of [B, T, M]."""
    return x.gather(2, index[:, None].expand(-1, x.shape[1], -1))
