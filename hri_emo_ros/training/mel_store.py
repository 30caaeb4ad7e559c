"""Mel powers of every clip, made once: what the compact audio encoder is trained on.

Augmenting mel powers instead of waveforms costs a hundredth (see `mel_augment`), and the short-time
Fourier transforms are done before the first epoch. Clips are kept as decibels in 16-bit floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import soxr
import torch
from torch import Tensor
from transformers.audio_utils import hertz_to_mel, mel_to_hertz

from hri_emo_ros.data.corpus import Item
from hri_emo_ros.model.compact_audio import CompactAudioEncoder
from hri_emo_ros.training.audio_store import AudioStore
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

HalfArray = npt.NDArray[np.float16]
_FLOOR = 1e-12


class MelStore:
    """Mel powers by item id and playback speed.

    Args:
        encoder: gives the filter bank and what counts as active.
        audio: decoded clips.
        speeds: playback speeds (pitch and tempo together); the first is what validation sees.
    """

    def __init__(
        self, encoder: CompactAudioEncoder, audio: AudioStore, speeds: Sequence[float] = (1.0,)
    ) -> None:
        self.encoder, self.audio, self.speeds = encoder, audio, tuple(speeds)
        self.frame_rate = encoder.config.sampling_rate / encoder.config.hop_length
        self._power: dict[tuple[str, int], HalfArray] = {}
        self._spans: dict[tuple[str, int], tuple[int, int]] = {}

    def load(
        self,
        items: Iterable[Item],
        all_speeds: bool,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Transform the clips of `items`, at the first speed or at all of them."""
        for item in items:
            if item.audio is None:
                continue
            for variant in range(len(self.speeds) if all_speeds else 1):
                if (item.id, variant) not in self._power:
                    self._add(item, variant)
            progress()

    def _add(self, item: Item, variant: int) -> None:
        samples, speed = self.audio.samples(item), self.speeds[variant]
        if speed != 1.0:
            samples = np.asarray(
                soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE, "MQ"), dtype=np.float32
            )
        power = self.power_of(samples)
        _, active = self.encoder.normalise(power[None], torch.ones(1, len(power), dtype=torch.bool))
        frames = active[0].nonzero()[:, 0]
        # Such a start keeps the encoder's stride in step with the uncut clip.
        start = int(frames[0]) // self.encoder.stride * self.encoder.stride
        self._spans[item.id, variant] = start, int(frames[-1]) + 1
        self._power[item.id, variant] = to_decibels(power)

    @torch.no_grad()
    def power_of(self, samples: FloatArray) -> Tensor:
        """Mel power [T, M] of a waveform."""
        return self.encoder.mel_power(torch.from_numpy(samples)[None])[0][0]

    def full(self, item: Item, variant: int = 0) -> HalfArray:
        """The whole clip, [T, M] decibels."""
        return self._power[item.id, variant]

    def span(self, item: Item, variant: int = 0) -> tuple[int, int]:
        """First and one past the last active frame."""
        return self._spans[item.id, variant]

    def active_frames(self, item: Item) -> int:
        """Frames with speech at the first speed."""
        start, end = self._spans[item.id, 0]
        return end - start


def to_decibels(power: Tensor) -> HalfArray:
    """Mel power -> decibels in 16 bits (0.03 dB fine, down to -120 dB)."""
    return (10.0 * torch.log10(power + _FLOOR)).half().numpy()


def collate_power(clips: Sequence[HalfArray]) -> tuple[Tensor, Tensor]:
    """Decibels of several clips -> power [B, T, M], padded with zeros, and lengths [B]."""
    longest = max(len(clip) for clip in clips)
    power = np.zeros((len(clips), longest, clips[0].shape[1]), dtype=np.float32)
    for row, clip in enumerate(clips):
        power[row, : len(clip)] = 10.0 ** (clip.astype(np.float32) / 10.0)
    return torch.from_numpy(power), torch.tensor([len(clip) for clip in clips])


def mel_centres(encoder: CompactAudioEncoder) -> Tensor:
    """[M] centre frequency of each mel bin, Hz (Slaney's scale, as the filter bank)."""
    c = encoder.config
    low, high = (hertz_to_mel(f, mel_scale="slaney") for f in (c.f_min, c.f_max))
    mel = np.linspace(low, high, c.num_mel_bins + 2)[1:-1]
    return torch.tensor(mel_to_hertz(mel, mel_scale="slaney"), dtype=torch.float32)


def mean_square_weights(encoder: CompactAudioEncoder) -> Tensor:
    """[M] weights with which the mel powers of a frame add up to the mean square of its samples.

    The weighted filters add up to 1 at every frequency (least squares); the rest is Parseval's theorem
    for one side of the spectrum of a windowed frame.
    """
    bank = encoder.mel_bank.double()
    flat = torch.linalg.pinv(bank).sum(1)
    scale = 2.0 / (encoder.config.n_fft * encoder.window.double().square().sum())
    return (flat * scale).float()
