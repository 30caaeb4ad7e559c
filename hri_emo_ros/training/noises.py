"""Noise to train with: made up, babble of the corpora's own voices, and recorded; all of RMS 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hri_emo_ros.data.clips import speech_level
from hri_emo_ros.data.corpus import Item
from hri_emo_ros.data.noise import mix
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.audio_store import AudioStore, decode
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

_COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0}
_LOWEST_HZ = 20.0
"""Nothing below: most of brown noise's power would lie where no microphone hears and no voice is hurt."""
_SECONDS = 10.0
_BABBLE_VOICES = 6
_BABBLES = 8
_SHORTEST = 3.0
_SILENT = 1e-9


def noise_bank(
    audio: AudioStore, babble_from: Sequence[Item], folder: Path | None, seed: int
) -> dict[str, list[FloatArray]]:
    """Noises by kind, each [n] of RMS 1: white, pink, brown, babble of the corpora's voices, recorded.

    Args:
        audio: decoded clips.
        babble_from: training items; validation voices must not be heard in training.
        folder: recordings in MUSAN's layout or any; impulse responses (a folder named rir) are left
            alone; None for none.
        seed: of the draws.

    Raises:
        HriEmoError: the folder is missing or holds no sound.
    """
    rng = np.random.default_rng(seed)
    bank = {name: [coloured_noise(e, _SECONDS, rng)] for name, e in _COLOURS.items()}
    voices = [item for item in babble_from if item.audio is not None]
    if len(voices) >= _BABBLE_VOICES:
        bank["babble"] = [
            _babble(
                [audio.samples(voices[i])
                 for i in rng.choice(len(voices), _BABBLE_VOICES, replace=False)],
                rng,
            )
            for _ in range(_BABBLES)
        ]  # fmt: skip
    if folder is not None:
        bank["recorded"] = read_noises(folder)
    return bank


def coloured_noise(exponent: float, seconds: float, rng: np.random.Generator) -> FloatArray:
    """Gaussian noise from 20 Hz up whose power falls with frequency ** exponent: 0 white, 1 pink,
    2 brown."""
    count = int(seconds * SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    hertz = np.fft.rfftfreq(count, 1.0 / SAMPLE_RATE)
    spectrum *= (hertz >= _LOWEST_HZ) / np.maximum(hertz, _LOWEST_HZ) ** (exponent / 2.0)
    return _of_rms_1(np.fft.irfft(spectrum, count))


def _babble(voices: Sequence[FloatArray], rng: np.random.Generator) -> FloatArray:
    """Voices at equal level, each repeated from anywhere."""
    count = int(_SECONDS * SAMPLE_RATE)
    total = np.zeros(count)
    for voice in voices:
        turned = np.roll(voice, int(rng.integers(len(voice))))
        total += np.resize(turned, count) / max(speech_level(voice), _SILENT)
    return _of_rms_1(total)


def read_noises(folder: Path) -> list[FloatArray]:
    """Every recording under `folder` except impulse responses and silence; short ones are repeated
    to 3 s.

    Raises:
        HriEmoError: there is none.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in (".wav", ".flac", ".ogg")
        and "rir" not in (part.lower() for part in path.relative_to(folder).parts)
    )
    sounds = [samples for samples in map(decode, files) if np.any(samples)]
    if not sounds:
        raise HriEmoError(f"there is no sound under the noise folder '{folder}'")
    shortest = _SHORTEST * SAMPLE_RATE
    return [_of_rms_1(np.tile(s, max(1, int(np.ceil(shortest / len(s)))))) for s in sounds]


def _of_rms_1(samples: np.ndarray) -> FloatArray:
    level = np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    return np.asarray(samples / max(level, _SILENT), dtype=np.float32)


def add_noise(
    samples: FloatArray, noise: FloatArray, snr_db: float, rng: np.random.Generator
) -> FloatArray:
    """`samples` [n] with a random stretch of `noise` (RMS 1), mixed as ``hri-emo evaluate`` mixes."""
    start = int(rng.integers(len(noise)))
    stretch = np.take(noise, np.arange(start, start + len(samples)), mode="wrap")
    return mix(samples, stretch, snr_db)
