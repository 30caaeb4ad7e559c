# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Sounds of people and things that are no speech, made out of speech, noise and tones.

Recorded laughter, coughs and breaths with a licence to train on are rare. What tells them from speech can be
made: a syllable over and over (laughing, sobbing), a vowel held and bent (crying, screaming, yawning), noise
through the shape of a mouth (breath, sighing, coughing), clicks (teeth, lips), notes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import soxr
from scipy.linalg import solve_toeplitz
from scipy.signal import butter, lfilter, sosfilt

from hri_emo_ros.types import SAMPLE_RATE, FloatArray

Generator = np.random.Generator
_PEAK = 0.3
_SMALLEST = 1e-6


def other_sound(voice: FloatArray, rng: Generator) -> FloatArray:
    """A sound of a random kind, [n] float32 at 16 kHz with a peak of 0.3, from a clip of speech."""
    kinds = list(_KINDS)
    sound = kinds[int(rng.choice(len(kinds), p=list(_KINDS.values())))](voice, rng)
    return np.asarray(_PEAK * _to_peak_1(sound), dtype=np.float32)


def _samples(rng: Generator, low: float, high: float) -> int:
    return int(rng.uniform(low, high) * SAMPLE_RATE)


def _to_peak_1(x: np.ndarray) -> np.ndarray:
    return x / max(float(np.abs(x).max(initial=0.0)), _SMALLEST)


def _to_rms_1(x: np.ndarray) -> np.ndarray:
    return x / max(float(np.sqrt(np.mean(np.square(x)))), _SMALLEST)


def _loud(voice: np.ndarray, count: int, rng: Generator) -> np.ndarray:
    """A stretch of the clip that is nearly as loud as its loudest."""
    count = min(count, len(voice))
    energy = np.convolve(voice.astype(np.float64) ** 2, np.ones(count), "valid")
    start = int(rng.choice(np.flatnonzero(energy >= 0.4 * energy.max())))
    return voice[start : start + count].astype(np.float64)


def _contour(rng: Generator, count: int, points: int, low: float, high: float) -> np.ndarray:
    """A line through random points, [count]."""
    at = np.linspace(0, count, points)
    return np.interp(np.arange(count), at, rng.uniform(low, high, points))


def _mouth(voice: np.ndarray, order: int, count: int, rng: Generator) -> np.ndarray:
    """Noise through the spectral envelope of a loud moment of the clip (linear prediction), RMS 1."""
    frame = _loud(voice, 600, rng)
    frame = frame * np.hanning(len(frame))
    r = np.correlate(frame, frame, "full")[len(frame) - 1 : len(frame) + order]
    r[0] = r[0] * 1.0001 + 1e-9
    noise = rng.standard_normal(count)
    shaped = lfilter([1.0], np.r_[1.0, -solve_toeplitz(r[:order], r[1 : order + 1])], noise)
    return _to_rms_1(shaped if np.isfinite(shaped).all() else noise)


def _syllables(voice: np.ndarray, rng: Generator) -> np.ndarray:
    """One syllable again and again, ever higher or lower."""
    segment = _loud(voice, _samples(rng, 0.07, 0.3), rng)
    edge = max(1, min(300, len(segment) // 3))
    segment[:edge] *= np.linspace(0, 1, edge)
    segment[-edge:] *= np.linspace(1, 0, edge)
    speed, drift = rng.uniform(0.8, 1.5), rng.uniform(0.97, 1.03)
    gain, gap = rng.uniform(0.85, 1.02), rng.uniform(0, 0.12)
    parts = []
    for k in range(int(rng.integers(4, 15))):
        factor = speed * drift**k * rng.uniform(0.97, 1.03)
        parts.append(soxr.resample(segment, SAMPLE_RATE * factor, SAMPLE_RATE) * gain**k)
        parts.append(np.zeros(int(gap * rng.uniform(0.5, 1.5) * SAMPLE_RATE)))
    return np.concatenate(parts)


def _held(voice: np.ndarray, rng: Generator) -> np.ndarray:
    """A vowel held, its pitch and loudness wandering."""
    segment = _loud(voice, _samples(rng, 0.03, 0.07), rng)
    size, count = len(segment), _samples(rng, 0.5, 2.5)
    held = np.zeros(count + size)
    for k in range(0, count, max(1, size // 2)):
        held[k : k + size] += segment * np.hanning(size)
    steps = rng.uniform(0.7, 2.0) * np.exp(_contour(rng, count, 5, -0.25, 0.35))
    at = np.cumsum(steps)
    bent = np.interp(at[at < count - 1], np.arange(count), held[:count])
    return bent * _contour(rng, len(bent), 6, 0.1, 1.0)


def _breaths(voice: np.ndarray, rng: Generator) -> np.ndarray:
    parts = []
    for _ in range(int(rng.integers(1, 6))):
        count = _samples(rng, 0.15, 1.0)
        breath = _mouth(voice, int(rng.choice([6, 10, 18])), count, rng)
        rise = [0, count * rng.uniform(0.1, 0.6), count]
        envelope = np.interp(np.arange(count), rise, [0, 1, 0]) ** rng.uniform(0.7, 2)
        parts += [breath * envelope * rng.uniform(0.5, 1), np.zeros(_samples(rng, 0, 0.3))]
    return np.concatenate(parts)


def _coughs(voice: np.ndarray, rng: Generator) -> np.ndarray:
    parts = []
    for _ in range(int(rng.integers(1, 4))):
        count = _samples(rng, 0.12, 0.45)
        t = np.arange(count)
        rise = np.minimum(1, t / _samples(rng, 0.005, 0.05))
        cough = _mouth(voice, 10, count, rng)
        if rng.random() < 0.6:
            vowel = _to_peak_1(_held(voice, rng)[:count])
            cough[: len(vowel)] += vowel * rng.uniform(0.3, 2)
        cough *= rise * np.exp(-t / (count * rng.uniform(0.2, 0.6)))
        parts += [cough, np.zeros(_samples(rng, 0.05, 0.5))]
    return np.concatenate(parts)


def _clicks(voice: np.ndarray, rng: Generator) -> np.ndarray:
    sound, rate = np.zeros(_samples(rng, 0.8, 3.0)), rng.uniform(0.08, 0.6)
    at = rng.uniform(0, 0.2)
    while at * SAMPLE_RATE < len(sound) - 1000:
        count, hertz = _samples(rng, 0.004, 0.05), rng.uniform(400, 5000)
        band = (0.7 * hertz, min(7900.0, 1.4 * hertz))
        sections = butter(2, band, "bandpass", fs=SAMPLE_RATE, output="sos")
        noise = rng.standard_normal(count) * np.exp(-np.arange(count) / (count / 4))
        start = int(at * SAMPLE_RATE)
        click = _to_peak_1(sosfilt(sections, noise)) * rng.uniform(0.4, 1)
        sound[start : start + count] += click[: len(sound) - start]
        at += rate * rng.uniform(0.5, 1.5)
    return sound


def _notes(voice: np.ndarray, rng: Generator) -> np.ndarray:
    sound, start = np.zeros(_samples(rng, 1.0, 4.0)), 0
    while start < len(sound):
        count = _samples(rng, 0.15, 0.9)
        t = np.arange(min(count, len(sound) - start)) / SAMPLE_RATE
        for step in rng.choice(36, int(rng.integers(1, 4))):
            hertz = 110 * 2 ** (step / 12)
            tone = sum(
                np.sin(2 * np.pi * hertz * k * t) * rng.uniform(0, 1) / k for k in range(1, 8)
            )
            sound[start : start + len(t)] += tone * np.exp(-t * rng.uniform(0, 6))
        start += int(count * rng.uniform(0.5, 1))
    return sound


_KINDS: dict[Callable[[np.ndarray, Generator], np.ndarray], float] = {
    _syllables: 0.27, _held: 0.22, _breaths: 0.19, _clicks: 0.12, _coughs: 0.15, _notes: 0.05,
}  # fmt: skip
"""With how frequent each is."""
