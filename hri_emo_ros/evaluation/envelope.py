# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The outline of a waveform, in memory that does not grow with the recording."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
_MOST_POINTS = 1 << 16


class Envelope:
    """Largest magnitude in equal steps of time; the step doubles whenever there are too many.

    Args:
        step: seconds per point at the beginning.
    """

    def __init__(self, step: float = 0.02) -> None:
        self.step = step
        self._peaks = np.zeros(1024, np.float32)
        self._count = 0

    @property
    def peaks(self) -> FloatArray:
        """[points] in [0, 1], from the bag's start, one every `step` seconds."""
        return self._peaks[: self._count]

    def add(self, samples: FloatArray, start: float, rate: int) -> None:
        """Take samples [frames] or [frames, channels] that begin `start` seconds into the bag."""
        if len(samples) == 0:
            return
        if len(samples) <= 1.01 * self.step * rate:
            # The usual message of 10 or 20 ms is one point; where exactly in it cannot be seen.
            self._raise(int(max(0.0, start) / self.step), float(np.abs(samples).max()))
            return
        magnitude = np.abs(samples)
        if magnitude.ndim == 2:
            magnitude = magnitude.max(axis=1)
        places = ((start + np.arange(len(magnitude)) / rate) / self.step).astype(np.int64)
        places = np.maximum(places, 0)
        while places[-1] >= _MOST_POINTS:
            self._halve()
            places //= 2
        last = int(places.max())
        self._reserve(last)
        # Places do not fall within a message, so each point's samples lie next to one another.
        firsts = np.flatnonzero(np.diff(places, prepend=-1))
        peaks = np.maximum.reduceat(magnitude, firsts)
        at = places[firsts]
        self._peaks[at] = np.maximum(self._peaks[at], peaks)
        self._count = max(self._count, last + 1)

    def _raise(self, place: int, peak: float) -> None:
        while place >= _MOST_POINTS:
            self._halve()
            place //= 2
        self._reserve(place)
        self._peaks[place] = max(self._peaks[place], peak)
        self._count = max(self._count, place + 1)

    def _reserve(self, last: int) -> None:
        if last >= len(self._peaks):
            grown = np.zeros(min(_MOST_POINTS, max(last + 1, 2 * len(self._peaks))), np.float32)
            grown[: len(self._peaks)] = self._peaks
            self._peaks = grown

    def _halve(self) -> None:
        points = self._peaks[: len(self._peaks) // 2 * 2].reshape(-1, 2).max(axis=1)
        self._peaks[: len(points)] = points
        self._peaks[len(points) :] = 0.0
        self._count = (self._count + 1) // 2
        self.step *= 2
