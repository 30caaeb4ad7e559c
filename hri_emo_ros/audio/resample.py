# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Streaming conversion of any sample rate to 16 kHz."""

from __future__ import annotations

import numpy as np
import soxr

from hri_emo_ros.types import SAMPLE_RATE, FloatArray


class StreamingResampler:
    """Mono float32 at `rate_in` -> 16 kHz.

    Output sample k lies at time k / 16000 s from the first input sample: the filter is of linear
    phase and its delay is taken out. What is put out depends on the input alone, not on how it is
    cut into calls; it only lags behind (about 40 ms at 44.1 kHz, 100 ms at 8 kHz) until `flush`.
    """

    def __init__(self, rate_in: int) -> None:
        self.rate_in = rate_in
        self._stream = (
            None
            if rate_in == SAMPLE_RATE
            else soxr.ResampleStream(rate_in, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        )

    def process(self, samples: FloatArray) -> FloatArray:
        """[n] in -> [m] out, m >= 0."""
        if self._stream is None:
            return samples
        if len(samples) == 0:
            return np.zeros(0, np.float32)
        return np.asarray(self._stream.resample_chunk(np.ascontiguousarray(samples)))

    def flush(self) -> FloatArray:
        """What was still held back. The next `process` starts a new stream."""
        if self._stream is None:
            return np.zeros(0, np.float32)
        tail = np.asarray(self._stream.resample_chunk(np.zeros(0, np.float32), last=True))
        self._stream.clear()
        return tail
