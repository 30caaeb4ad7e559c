# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Samples of a stream by their index in it."""

from __future__ import annotations

import numpy as np

from hri_emo_ros.types import FloatArray


class SampleBuffer:
    """Holds the samples [start, end) of a stream; grows at the end, is dropped at the front."""

    def __init__(self, start: int) -> None:
        self._data = np.zeros(1 << 14, np.float32)
        self._origin = start
        """Stream index of `_data[0]`."""
        self.start = start
        self.end = start

    def append(self, samples: FloatArray) -> None:
        """Add [n] float32 behind what is there."""
        if self.end + len(samples) - self._origin > len(self._data):
            held = self.end - self.start
            size = len(self._data)
            while held + len(samples) > size // 2:  # Half empty, so that moving stays rare.
                size *= 2
            data = np.zeros(size, np.float32)
            data[:held] = self._data[self.start - self._origin : self.end - self._origin]
            self._data, self._origin = data, self.start
        at = self.end - self._origin
        self._data[at : at + len(samples)] = samples
        self.end += len(samples)

    def copy(self, start: int, end: int) -> FloatArray:
        """The samples [start, end), which must be held."""
        if not self.start <= start <= end <= self.end:
            raise IndexError(f"[{start}, {end}) is not within [{self.start}, {self.end})")
        return self._data[start - self._origin : end - self._origin].copy()

    def drop_before(self, index: int) -> None:
        """Let go of everything before `index`."""
        self.start = min(max(self.start, index), self.end)
