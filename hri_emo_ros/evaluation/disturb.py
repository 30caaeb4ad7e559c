# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What a microphone, a room, a line or a recogniser may do to a recording."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import soxr
from scipy.signal import butter, sosfilt

from hri_emo_ros.data.noise import NoiseSource
from hri_emo_ros.data.words import WordErrors, plain
from hri_emo_ros.evaluation.labels import Label
from hri_emo_ros.types import FloatArray, SignalQuality, Transcript

_MU = 255.0
"""ITU-T G.711, mu-law."""


class AddNoise:
    """Noise below the recording's speech by `snr_db`.

    Args:
        source: as for `NoiseSource`.
        snr_db: level of the speech over that of the noise, dB.
        speech_dbfs: level of the recording's speech, dB relative to full scale.
        seed: of the noise.
    """

    def __init__(self, source: str, snr_db: float, speech_dbfs: float, seed: int = 0) -> None:
        self._source, self._seed = source, seed
        self._gain = 10 ** ((speech_dbfs - snr_db) / 20)
        self._noise: NoiseSource | None = None

    def __call__(self, samples: FloatArray, sample_rate: int) -> FloatArray:
        if self._noise is None:
            self._noise = NoiseSource(self._source, sample_rate, self._seed)
            self._noise.gain = self._gain
        noise = self._noise.take(len(samples))
        return np.clip(samples + noise[:, None], -1.0, 1.0)


class Gain:
    """Louder or softer; what exceeds full scale clips, as in a converter."""

    def __init__(self, gain_db: float) -> None:
        self._factor = np.float32(10 ** (gain_db / 20))

    def __call__(self, samples: FloatArray, sample_rate: int) -> FloatArray:
        return np.clip(samples * self._factor, -1.0, 1.0)


class Telephone:
    """A telephone line: 300 to 3400 Hz and 8-bit mu-law, at the recording's own rate."""

    def __init__(self) -> None:
        self._filter: npt.NDArray[np.float64] | None = None
        self._state: npt.NDArray[np.float64] | None = None

    def __call__(self, samples: FloatArray, sample_rate: int) -> FloatArray:
        if self._filter is None:
            edges = (300.0, min(3400.0, 0.45 * sample_rate))
            self._filter = butter(6, edges, "bandpass", fs=sample_rate, output="sos")
            self._state = np.zeros((len(self._filter), 2, samples.shape[1]))
        band, self._state = sosfilt(self._filter, samples, axis=0, zi=self._state)
        band = np.clip(band, -1.0, 1.0)
        code = np.sign(band) * np.log1p(_MU * np.abs(band)) / np.log1p(_MU)
        code = np.rint(code * 127.0) / 127.0
        line = np.sign(code) * np.expm1(np.abs(code) * np.log1p(_MU)) / _MU
        return np.asarray(line, dtype=np.float32)


class Resample:
    """The same recording from a microphone of another rate.

    Attributes:
        output_rate: Hz of what comes out.
    """

    def __init__(self, rate: int) -> None:
        self.output_rate = rate
        self._stream: soxr.ResampleStream | None = None

    def __call__(self, samples: FloatArray, sample_rate: int) -> FloatArray:
        if self._stream is None:
            channels = samples.shape[1]
            self._stream = soxr.ResampleStream(
                sample_rate, self.output_rate, channels, dtype="float32", quality="HQ"
            )
        out = self._stream.resample_chunk(np.ascontiguousarray(samples, np.float32))
        return np.clip(out.reshape(-1, samples.shape[1]), -1.0, 1.0)


class SpokenWords:
    """Stands in for the recogniser: the true words, with as many errors as asked for.

    Wrong words are drawn from the recording's own (see `WordErrors`). Confidence is one minus the error
    rate.

    Args:
        labels: of the recording, with texts.
        error_rate: words wrong, [0, 1].
        seed: decides which.
    """

    def __init__(self, labels: Sequence[Label], error_rate: float, seed: int = 0) -> None:
        self._labels, self._rate = labels, error_rate
        self._random = np.random.default_rng([seed, 0x776F7264])
        self._errors = WordErrors(label.text for label in labels)
        self._next = ""

    @property
    def name(self) -> str:
        return f"true words, {self._rate:.0%} wrong"

    def warm_up(self) -> None:
        """Nothing to warm up."""

    def utterance(self, start: float, end: float) -> None:
        """Say where the utterance lies whose words are asked for next, s from the bag's start."""
        best = max(self._labels, key=lambda label: label.overlap(start, end), default=None)
        self._next = best.text if best is not None and best.overlap(start, end) > 0 else ""

    def transcribe(self, samples: FloatArray, quality: SignalQuality | None = None) -> Transcript:
        """The words of the utterance named before."""
        text = self._next
        if text and self._rate:
            text = self._errors(plain(text), self._rate, self._random)
        return Transcript(text, confidence=1.0 - self._rate if text else 0.0)
