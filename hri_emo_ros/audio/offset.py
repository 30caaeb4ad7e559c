# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Removes a constant offset (DC), which cheap microphones and sound cards add to everything.

Level, signal-to-noise ratio and voice detector would take it for sound: under speech of -20 dBFS an
offset of -23 dBFS leaves an SNR of -3 dB in a silent room.
"""

from __future__ import annotations

import math

import numpy as np

from hri_emo_ros.types import SAMPLE_RATE, FloatArray

CUTOFF = 20.0
"""Hz; the deepest voices begin at 70 Hz, where this takes 0.3 dB."""
_POLE = math.exp(-2.0 * math.pi * CUTOFF / SAMPLE_RATE)
_BLOCK = 1024
_DECAY = _POLE ** np.arange(1, _BLOCK + 1)
"""Small at the end, but far from what double precision can hold."""
_RISE = (1.0 - _POLE) / _DECAY
_NOTHING = 1e-9
"""Offset (-180 dBFS) that counts as none, so that the filter falls silent with its input."""


class OffsetFilter:
    """High-pass of first order at 16 kHz: x less its exponential mean, y[n] = x[n] - m[n],
    m[n] = p m[n-1] + (1 - p) x[n], p = exp(-2 pi CUTOFF / 16000), m[-1] = x[0].

    The same samples give the same result, bit for bit, however they are cut into calls; nothing is
    delayed. An offset that is there from the first sample on makes no step.
    """

    def __init__(self) -> None:
        self._mean: float | None = None
        """At the beginning of the block."""
        self._place = 0
        """Samples of the block that have been."""
        self._sum = 0.0

    def process(self, samples: FloatArray) -> FloatArray:
        """[n] in [-1, 1] -> [n] in [-1, 1], n >= 0."""
        result = samples.astype(np.float64)
        if self._mean is None and len(result):
            self._mean = float(result[0])
        done = 0
        while done < len(result):
            piece = result[done : done + _BLOCK - self._place]
            places = slice(self._place, self._place + len(piece))
            # m[n] = p^(n+1) (m[-1] + sum of (1-p) x[i] / p^(i+1), i <= n), over one block.
            sums = np.cumsum(np.concatenate([[self._sum], piece * _RISE[places]]))[1:]
            means = (sums + self._mean) * _DECAY[places]
            piece -= means
            done += len(piece)
            self._place, self._sum = places.stop, float(sums[-1])
            if self._place == _BLOCK:
                self._mean = float(means[-1]) if abs(means[-1]) > _NOTHING else 0.0
                self._place, self._sum = 0, 0.0
        return np.clip(result, -1.0, 1.0).astype(np.float32)
