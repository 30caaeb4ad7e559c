# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Endless background noise, from files or made up, the same for the same seed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.signal import lfilter

from hri_emo_ros.data.clips import read_clip, speech_level
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

SYNTHETIC = ("white", "pink")
_BABBLE_VOICES = 6
"""At once; with more, babble nears noise of the shape of speech."""
_BANK_SECONDS, _BABBLES = 10, 8
_SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".aif")

# -3 dB per octave between 10 Hz and Nyquist; J. O. Smith, "Spectral Audio Signal Processing",
# https://ccrma.stanford.edu/~jos/sasp/Example_Synthesis_1_F_Noise.html
_PINK_B = np.array([0.049922035, -0.095993537, 0.050612699, -0.004408786])
_PINK_A = np.array([1.0, -2.494956002, 2.017265875, -0.522189400])


class NoiseSource:
    """Noise of RMS 1 times `gain`, block by block.

    Args:
        source: a folder (searched deeply) or file of noises, ``white`` or ``pink``; or files.
        rate: Hz.
        seed: decides the order of the files and where in each it starts, or the made-up noise.

    Raises:
        HriEmoError: nothing to read there.
    """

    def __init__(self, source: str | Sequence[Path], rate: int, seed: int = 0) -> None:
        self.gain = 1.0
        self._rate = rate
        self._random = np.random.default_rng([seed, 0x6E6F6973])
        self._kind, self._files = "", list[Path]()
        if not isinstance(source, str):
            self._files = list(source)
        elif source in SYNTHETIC:
            self._kind = source
        else:
            self._files = noise_files(Path(source))
        self._state = np.zeros(len(_PINK_A) - 1)
        self._rest: FloatArray = np.zeros(0, np.float32)
        self._queue: list[Path] = []
        # The filter's own gain on white noise, so that pink noise has RMS 1 too.
        impulse = lfilter(_PINK_B, _PINK_A, np.eye(1, 1 << 16)[0])
        self._pink_scale = 1.0 / float(np.sqrt(np.sum(impulse**2)))

    def take(self, count: int) -> FloatArray:
        """The next `count` samples, [count] float32."""
        if self._kind:
            samples = self._random.standard_normal(count)
            if self._kind == "pink" and count:
                samples, self._state = lfilter(_PINK_B, _PINK_A, samples, zi=self._state)
                samples = samples * self._pink_scale
            return (samples * self.gain).astype(np.float32)
        while len(self._rest) < count:
            self._rest = np.concatenate([self._rest, self._next_file()])
        taken, self._rest = self._rest[:count], self._rest[count:]
        return (taken * self.gain).astype(np.float32)

    def _next_file(self) -> FloatArray:
        if not self._queue:
            self._queue = [self._files[i] for i in self._random.permutation(len(self._files))]
        samples = read_clip(self._queue.pop(), self._rate)
        level = float(np.sqrt(np.mean(samples.astype(np.float64) ** 2)))
        return (np.roll(samples, self._random.integers(len(samples))) / max(level, 1e-6)).astype(
            np.float32
        )


class Babble:
    """Six voices at once, each at the same level, RMS 1 together.

    Args:
        files: recordings of voices, drawn from again and again.
        rate, seed: as for `NoiseSource`.
    """

    def __init__(self, files: Sequence[Path], rate: int, seed: int = 0) -> None:
        self._voices = [
            NoiseSource(files, rate, seed * _BABBLE_VOICES + k) for k in range(_BABBLE_VOICES)
        ]

    def take(self, count: int) -> FloatArray:
        """The next `count` samples, [count] float32."""
        total = np.sum([voice.take(count) for voice in self._voices], axis=0)
        return np.asarray(total / np.sqrt(_BABBLE_VOICES), dtype=np.float32)


class NoiseBank:
    """Noises of RMS 1 by kind, held in memory, for drawing stretches by a seed: white, pink, babble of given
    voices (six or more are needed), recorded.

    Args:
        voices: recordings of voices for the babble.
        folder: recordings for ``recorded``; None for none.
        seed: of what is made up.
        babbles: recordings by the name of one more kind each, which is made when it is first asked for and
            not among `kinds`.

    Raises:
        HriEmoError: the folder holds no sound.
    """

    def __init__(
        self, voices: Sequence[Path], folder: Path | None, seed: int = 0,
        babbles: Mapping[str, Sequence[Path]] | None = None,
    ) -> None:  # fmt: skip
        self._seed, self._babbles = seed, dict(babbles or {})
        self._made: dict[str, list[FloatArray]] = {}
        self._digests: dict[str, str] = {}
        self.noises = {
            kind: [NoiseSource(kind, SAMPLE_RATE, seed).take(_BANK_SECONDS * SAMPLE_RATE)]
            for kind in SYNTHETIC
        }
        if len(voices) >= _BABBLE_VOICES:
            self.noises["babble"] = self._babble(voices)
        if folder is not None:
            sounds = [read_clip(path, SAMPLE_RATE) for path in noise_files(folder)]
            self.noises["recorded"] = [_of_rms_1(s) for s in sounds if np.any(s)]

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.noises)

    def digest(self, kind: str) -> str:
        """What noises of that kind depend on."""
        if kind not in self._digests:
            digest = hashlib.sha256()
            for path in self._babbles.get(kind, ()):
                digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            for noise in self.noises.get(kind, ()):
                digest.update(noise.tobytes())
            self._digests[kind] = f"{kind} {digest.hexdigest()[:16]}"
        return self._digests[kind]

    def _babble(self, voices: Sequence[Path]) -> list[FloatArray]:
        babble = Babble(voices, SAMPLE_RATE, self._seed)
        return [_of_rms_1(babble.take(_BANK_SECONDS * SAMPLE_RATE)) for _ in range(_BABBLES)]

    def stretch(self, kind: str, count: int, rng: np.random.Generator) -> FloatArray:
        """`count` samples from anywhere in one of the noises of that kind, repeated where it is short."""
        if kind in self._babbles and kind not in self._made:
            self._made[kind] = self._babble(self._babbles[kind])
        every = self._made[kind] if kind in self._made else self.noises[kind]
        noise = every[int(rng.integers(len(every)))]
        start = int(rng.integers(len(noise)))
        return np.take(noise, np.arange(start, start + count), mode="wrap")


def _of_rms_1(samples: FloatArray) -> FloatArray:
    level = np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    return np.asarray(samples / level, dtype=np.float32)


def mix(samples: FloatArray, noise: FloatArray, snr_db: float) -> FloatArray:
    """`samples` with `noise` (RMS 1, both [n] at 16 kHz) `snr_db` below the level of their speech: what a
    signal-to-noise ratio means in training and evaluation."""
    gain = speech_level(samples) * 10 ** (-snr_db / 20)
    return np.asarray(samples + gain * noise, dtype=np.float32)


def noise_files(source: Path) -> list[Path]:
    """The recordings in a folder (searched deeply; impulse responses, in a folder named rir, are left
    alone) or the one file.

    Raises:
        HriEmoError: there is none.
    """
    files = (
        [source]
        if source.is_file()
        else sorted(
            path
            for path in source.rglob("*")
            if path.suffix.lower() in _SUFFIXES and "rir" not in path.relative_to(source).parts
        )
    )
    if not files:
        raise HriEmoError(
            f"no noise in '{source}': give a folder or file of {', '.join(_SUFFIXES)}, or one of "
            f"{', '.join(SYNTHETIC)}"
        )
    return files
