# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The 40-band mel spectrogram that the speaker encoder was trained on, in numpy."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hri_emo_ros.types import SAMPLE_RATE, FloatArray

BANDS = 40
WINDOW = 400
"""Samples of a frame, 25 ms."""
HOP = 160
"""Samples from one frame to the next, 10 ms."""
_LINEAR_HZ, _LINEAR_STEP = 1000.0, 200.0 / 3.0
_LOG_STEP = np.log(6.4) / 27.0


def mel_spectrogram(samples: FloatArray) -> FloatArray:
    """Mel power spectrogram (no logarithm: the encoder reads power), as librosa's ``melspectrogram``
    with ``n_fft=400, hop_length=160, n_mels=40`` makes it.

    Args:
        samples: [n] float32 in [-1, 1], 16 kHz mono.

    Returns:
        [1 + n // 160, 40] float32, frame t centred on sample 160 t; beyond the ends is silence.
    """
    padded = np.pad(np.asarray(samples, np.float32), WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    spectrum = np.fft.rfft(frames * _window(), axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    return np.asarray(power @ _filters(), np.float32)


@lru_cache(maxsize=1)
def _window() -> FloatArray:
    """Periodic Hann window, [400]."""
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


@lru_cache(maxsize=1)
def _filters() -> FloatArray:
    """Triangles of equal area on Slaney's mel scale, [201, 40]: linear below 1 kHz, logarithmic above
    (M. Slaney, "Auditory Toolbox", Interval Research technical report 1998-010)."""
    top = _LINEAR_HZ / _LINEAR_STEP + np.log(SAMPLE_RATE / 2 / _LINEAR_HZ) / _LOG_STEP
    mels = np.linspace(0.0, top, BANDS + 2)
    knee = _LINEAR_HZ / _LINEAR_STEP
    edges = np.where(
        mels < knee, mels * _LINEAR_STEP, _LINEAR_HZ * np.exp((mels - knee) * _LOG_STEP)
    )
    bins = np.linspace(0.0, SAMPLE_RATE / 2, WINDOW // 2 + 1)[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * 2.0 / (high - low)).astype(np.float32)
