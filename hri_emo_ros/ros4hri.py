# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What the messages of ROS4HRI (hri_msgs 2.x, REP-155) hold for a voice; no ROS is imported here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hri_emo_ros.types import SAMPLE_RATE, FloatArray

ANONYMOUS = "anonymous_speaker"
"""Whoever speaks and is not known yet, or at all; the id that recognisers for ROS4HRI use."""
EXPRESSIONS: Mapping[str, str] = {
    "neutral": "neutral",
    "happy": "happy",
    "sad": "sad",
    "angry": "angry",
    "fear": "scared",
    "disgust": "disgusted",
    "surprise": "surprised",
}
"""Label -> constant of hri_msgs/Expression; a label that is not here is not published."""

FRAME = round(0.04 * SAMPLE_RATE)
"""Samples that features need at least."""
_LAGS = SAMPLE_RATE // 500, SAMPLE_RATE // 75
"""Of the pitch, samples: 500 to 75 Hz."""
_VOICED = 0.45
"""Normalised autocorrelation from which a frame counts as voiced (Boersma 1993's default)."""


def voice_id(voice: str, stream_id: str) -> str:
    """An id that begins with a letter, fits into a topic's name and is never another person's.

    Voices are numbered anew in each stream, so its first digits belong to the id.
    """
    if not voice:
        return ANONYMOUS
    name = re.sub(r"\W", "_", f"{voice}_{stream_id[:4]}", flags=re.ASCII)
    return name if name[0].isalpha() else f"v{name}"


def live_speech(
    text: str, confidence: float, language: str, final: bool, language_field: str
) -> dict[str, Any]:
    """LiveSpeech without its header.

    Args:
        confidence: of the text, [0, 1].
        language: ISO 639-1; the region that hri_msgs would also take is not known.
        language_field: "locale" (hri_msgs from 2.1 on) or "language" (2.0).
    """
    return {
        "incremental": "" if final else text,
        "final": text if final else "",
        "confidence": float(confidence) if final else 0.0,
        language_field: language,
    }


def expression(label: str, probability: float, valence: float, arousal: float) -> dict[str, Any]:
    """Expression without its header; `label` is one of `EXPRESSIONS`."""
    return {
        "expression": EXPRESSIONS[label],
        "valence": float(valence),
        "arousal": float(arousal),
        "confidence": float(np.clip(probability, 0.0, 1.0)),
    }


def audio_features(samples: FloatArray) -> dict[str, Any]:
    """AudioFeatures of a piece of speech; what is not computed is NaN or empty.

    Zero crossings are a share of the samples, energy is that of the whole piece (full scale is 1). Pitch (over
    500 Hz) and harmonics-to-noise ratio (dB) are medians over the voiced frames, by the normalised
    autocorrelation of Boersma (1993), IFA Proceedings 17, 97-110, without his search for the best path; NaN
    where nothing is voiced. The cepstral coefficients are left out.
    """
    x = np.asarray(samples, np.float64)
    found = {"zcr": math.nan, "rms": math.nan, "pitch": math.nan, "hnr": math.nan, "mfcc": []}
    if len(x) < FRAME:
        return found
    found["rms"] = float(np.sqrt(np.mean(x**2)))
    found["zcr"] = float(np.mean(np.signbit(x[1:]) != np.signbit(x[:-1])))
    pitches, strengths = [], []
    for start in range(0, len(x) - FRAME + 1, FRAME // 2):
        strength, lag = _periodicity(x[start : start + FRAME])
        if strength >= _VOICED:
            pitches.append(SAMPLE_RATE / lag / 500.0)
            strengths.append(min(strength, 0.9999))
    if pitches:
        found["pitch"] = float(np.median(pitches))
        typical = float(np.median(strengths))
        found["hnr"] = 10.0 * math.log10(typical / (1.0 - typical))
    return found


def _periodicity(frame: npt.NDArray[np.float64]) -> tuple[float, int]:
    """(highest normalised autocorrelation, its lag in samples)."""
    window = np.hanning(len(frame))

    def autocorrelation(x: Any) -> npt.NDArray[np.float64]:
        spectrum = np.abs(np.fft.rfft(x, 2 * len(x))) ** 2
        raw = np.fft.irfft(spectrum)[: _LAGS[1] + 1]
        return np.asarray(raw / max(raw[0], 1e-12))

    corrected = autocorrelation((frame - frame.mean()) * window) / autocorrelation(window)
    # Every multiple of the period fits as well: Boersma's cost of an octave prefers the shortest.
    cost = 0.01 * np.log2(np.arange(_LAGS[0], _LAGS[1] + 1))
    lag = _LAGS[0] + int(np.argmax(corrected[_LAGS[0] :] - cost))
    return float(corrected[lag]), lag
