# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A voice as a vector: the GE2E speaker encoder (L. Wan et al., "Generalized end-to-end loss for speaker
verification", ICASSP 2018) with Resemblyzer's weights; see README.md beside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hri_emo_ros.audio.vad import FRAME, SileroVad
from hri_emo_ros.hardware import open_session
from hri_emo_ros.types import SAMPLE_RATE, FloatArray
from hri_emo_ros.voices.mel import BANDS, mel_spectrogram

if TYPE_CHECKING:
    import onnxruntime

MODEL = Path(__file__).parent / "ge2e.onnx"
SIZE = 256
"""Length of an embedding."""
WINDOW = 160
"""Frames that the encoder was trained on, 1.6 s."""
STEP = 77
"""Frames from one window to the next at most, as Resemblyzer's 1.3 windows a second."""
MOST_SECONDS = 6.0
"""Of speech are read; more makes the vector little better and costs 5 ms a second."""
_LONGEST = 9.0
"""Seconds of audio in which they are looked for."""
_LEVEL = 10 ** (-23 / 20)
"""RMS to which the speech is brought (-23 dBFS): the encoder reads power, not its logarithm. Equal error
rates on acted speech are flat from -25 to -20 dBFS and 1 to 2 points higher at Resemblyzer's -30."""
_SPEECH = 0.5
"""Probability from which on a frame of the voice detector is speech."""
_AROUND = 2
"""Frames of 32 ms around speech that are read too: onsets and last consonants."""
_DETECTOR_PEAK, _MOST_GAIN = 0.1, 10.0
"""The voice detector hears a quieter recording raised to this peak, by at most this factor."""


@dataclass(frozen=True)
class Embedding:
    """What an utterance tells of its speaker."""

    vector: FloatArray
    """[256] of length 1, none negative; zeros where there is no speech."""
    seconds: float
    """Speech that it was made of, s."""


class VoiceEncoder(Protocol):
    """What the memory of voices asks of a speaker encoder."""

    def embed(self, samples: FloatArray) -> Embedding: ...

    def warm_up(self) -> None: ...


NOTHING = Embedding(np.zeros(SIZE, np.float32), 0.0)


class SpeakerEncoder:
    """Turns an utterance into a vector; the nearer two are, the more alike are the voices.

    One thread, so that the result does not depend on the number of cores.
    """

    def __init__(self) -> None:
        self._session = _session()

    def warm_up(self) -> None:
        """Load what the first utterance would otherwise wait for."""
        _speech_of(np.zeros(SAMPLE_RATE, np.float32))
        self._session.run(None, {"mels": np.zeros((1, WINDOW, BANDS), np.float32)})

    def embed(self, samples: FloatArray) -> Embedding:
        """Mean of the vectors of overlapping windows of 1.6 s over what the voice detector takes for
        speech; less than a window is read as it is.

        Args:
            samples: [n] float32 in [-1, 1], 16 kHz mono, of one voice.
        """
        speech, seconds = _speech_of(samples)
        level = float(np.sqrt(np.mean(np.square(speech, dtype=np.float64)))) if len(speech) else 0.0
        if level < 1e-5:
            return NOTHING
        mels = mel_spectrogram(speech * np.float32(_LEVEL / level))
        after = max(0, len(mels) - WINDOW)
        starts = np.linspace(0, after, 1 + math.ceil(after / STEP)).round().astype(int)
        windows = np.stack([mels[start : start + WINDOW] for start in starts])
        (vectors,) = self._session.run(None, {"mels": windows})
        mean = np.asarray(vectors, np.float32).mean(axis=0)
        return Embedding(np.asarray(mean / np.linalg.norm(mean), np.float32), seconds)


def _speech_of(samples: FloatArray) -> tuple[FloatArray, float]:
    """The first seconds of speech, [n], and how many seconds of it the detector heard."""
    samples = samples[: round(_LONGEST * SAMPLE_RATE)]
    gain = max(
        1.0,
        _DETECTOR_PEAK / max(float(np.abs(samples).max(initial=0.0)), _DETECTOR_PEAK / _MOST_GAIN),
    )
    frames = np.pad(samples, (0, -len(samples) % FRAME)).reshape(-1, FRAME)
    if not len(frames):
        return samples, 0.0
    speech = SileroVad().probabilities(frames * np.float32(gain)) >= _SPEECH
    near = np.convolve(speech, np.ones(2 * _AROUND + 1))[_AROUND : _AROUND + len(frames)] > 0
    most = round(MOST_SECONDS * SAMPLE_RATE)
    kept = frames[near].reshape(-1)[:most]
    return kept, min(float(speech.sum()) * FRAME / SAMPLE_RATE, len(kept) / SAMPLE_RATE)


@lru_cache(maxsize=1)
def _session() -> onnxruntime.InferenceSession:
    """Loaded once in a process: it holds no state between calls."""
    return open_session(str(MODEL))
