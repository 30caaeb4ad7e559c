"""Mel powers of every clip, made once: what the compact audio encoder is trained on.

Augmenting mel powers instead of waveforms costs a hundredth (see `mel_augment`), and the short-time
Fourier transforms are done before the first epoch. Clips are kept as decibels in 16-bit floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr
import torch
from torch import Tensor

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.compact_audio import CompactAudioEncoder
from hri_emo_ros.training.audio_store import AudioStore, decode
from hri_emo_ros.training.corpus import Item
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

HalfArray = npt.NDArray[np.float16]
_FLOOR = 1e-12
_NOISE_SECONDS = 10.0
_BABBLE_VOICES = 6
_BABBLES = 8
_SHORTEST_NOISE = 3.0


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


def noise_bank(
    store: MelStore, babble_from: Sequence[Item], folder: Path | None, seed: int
) -> dict[str, list[Tensor]]:
    """Mel powers of noises by kind: white, pink, brown, babble of the corpora's voices, recorded.

    Args:
        babble_from: training clips; validation voices must not be heard in training.
        folder: recordings in MUSAN's layout or any; impulse responses (a folder named rir) are left
            alone; None for none.
        seed: of the draws.

    Raises:
        HriEmoError: the folder is missing or holds no sound.
    """
    rng = np.random.default_rng(seed)
    colours = {"white": 0.0, "pink": 1.0, "brown": 2.0}
    bank = {
        name: [store.power_of(coloured_noise(exponent, _NOISE_SECONDS, rng))]
        for name, exponent in colours.items()
    }
    voices = [item for item in babble_from if item.audio is not None]
    if len(voices) >= _BABBLE_VOICES:
        bank["babble"] = [
            _babble(
                store, [voices[i] for i in rng.choice(len(voices), _BABBLE_VOICES, replace=False)]
            )
            for _ in range(_BABBLES)
        ]
    if folder is not None:
        bank["recorded"] = [store.power_of(samples) for samples in read_noises(folder)]
    return bank


def coloured_noise(exponent: float, seconds: float, rng: np.random.Generator) -> FloatArray:
    """Gaussian noise whose power falls with frequency ** exponent: 0 white, 1 pink, 2 brown."""
    count = int(seconds * SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum /= np.maximum(1.0, np.arange(len(spectrum))) ** (exponent / 2.0)
    samples = np.fft.irfft(spectrum, count)
    return np.asarray(0.1 * samples / samples.std(), dtype=np.float32)


def _babble(store: MelStore, voices: Sequence[Item]) -> Tensor:
    """Several voices at equal level, repeated to the same length: uncorrelated, so powers add."""
    frames = int(_NOISE_SECONDS * store.frame_rate)
    total = torch.zeros(1)
    for item in voices:
        start, end = store.span(item)
        power, _ = collate_power([store.full(item)[start:end]])
        power = power[0] / power[0].sum(-1).mean().clamp_min(_FLOOR)
        total = total + power.repeat(-(-frames // len(power)), 1)[:frames]
    return total


def read_noises(folder: Path) -> list[FloatArray]:
    """Every recording under `folder` except impulse responses; short ones are repeated to 3 s.

    Raises:
        HriEmoError: there is none.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in (".wav", ".flac", ".ogg")
        and "rir" not in (part.lower() for part in path.relative_to(folder).parts)
    )
    if not files:
        raise HriEmoError(f"there is no sound under the noise folder '{folder}'")
    noises = []
    for path in files:
        samples = decode(path)
        repeats = max(1, int(np.ceil(_SHORTEST_NOISE * SAMPLE_RATE / max(1, len(samples)))))
        noises.append(np.tile(samples, repeats))
    return noises
