# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What a microphone, a gain and a line may do to a clip, and how many answers change with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.signal import butter, sosfiltfilt

from hri_emo_ros.types import SAMPLE_RATE, FloatArray

_TELEPHONE_HZ = (300.0, 3400.0)
"""Pass band of a telephone line (ITU-T G.712)."""
_SILENCE_S = 1.0


def _peak(samples: FloatArray, dbfs: float) -> FloatArray:
    """The clip with its highest sample at `dbfs`, as 16-bit audio holds it."""
    top = float(np.abs(samples).max(initial=0.0))
    gain = 10 ** (dbfs / 20) / top if top > 0.0 else 1.0
    return np.asarray(np.round(samples * gain * 32767.0) / 32767.0, dtype=np.float32)


def telephone(samples: FloatArray) -> FloatArray:
    """Band-limited; a fourth-order Butterworth filter both ways."""
    sections = butter(4, _TELEPHONE_HZ, "bandpass", fs=SAMPLE_RATE, output="sos")
    padding = min(27, max(0, len(samples) - 1))
    return np.asarray(sosfiltfilt(sections, samples, padlen=padding), dtype=np.float32)


def _silence(samples: FloatArray, before: float, after: float) -> FloatArray:
    """Digital silence around the clip, in seconds."""
    return np.pad(samples, (round(before * SAMPLE_RATE), round(after * SAMPLE_RATE)))


CHANNELS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "peak at -40 dBFS": partial(_peak, dbfs=-40.0),
    "peak at -20 dBFS": partial(_peak, dbfs=-20.0),
    "peak at 0 dBFS": partial(_peak, dbfs=0.0),
    "telephone, 300 to 3400 Hz": telephone,
    "a second of silence before": partial(_silence, before=_SILENCE_S, after=0.0),
    "a second of silence after": partial(_silence, before=0.0, after=_SILENCE_S),
}
"""Changes that should not change the answer, by name."""
