# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Signal-to-noise ratio, level, clipping and speech share of an utterance, frame by frame.

SNR is the mean power of the frames that hold speech, less the noise's, over the mean power of the
noise. The noise is heard where the voice detector hears no speech, over the whole stream and not
only within the utterance: `NoiseFloor`. Where no pause was heard yet, the noise is estimated from the
quietest frames of the utterance itself, as minimum statistics does (R. Martin, "Noise power spectral
density estimation based on optimal smoothing and minimum statistics", IEEE Trans. Speech and Audio
Processing 9(5), 2001), with one broadband power in place of its spectrum.

On real speech in steady noise of known level the error is below 2 dB from 0 to 30 dB. Noise that comes
and goes cannot be heard under speech: there it is off by what the pauses differ from the rest. Without
any pause the figure is too low from 20 dB upwards, since the quietest frames still hold speech.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hri_emo_ros.audio.offset import OffsetFilter
from hri_emo_ros.audio.vad import FRAME
from hri_emo_ros.types import FloatArray, SignalQuality

SNR_RANGE = (-20.0, 60.0)
"""dB; beyond it the figure tells nothing more."""

_SILENT = 1e-11
"""Power (-110 dB, less than 16 bits can hold) below which a frame is digital silence: a muted
microphone or padding, which says nothing of the noise under speech."""
_GUARD_BEFORE = 3
"""Frames before speech that are not noise: onsets are detected late."""
_GUARD_AFTER = 6
"""Frames after speech that are not noise: last consonants and reverberation."""
_NOISE_FRAMES = 312
"""Frames of pause (10 s) that the noise floor remembers."""
_KEPT_NOISE = 0.9
"""Share of those, the quietest, that make the floor. All of them would let a door that slams in a pause,
or one breath, spoil 30 dB; the median is 3 to 8 dB too low in noise that comes and goes."""
_ENOUGH_NOISE = 6
"""Frames of pause (0.2 s) from which on the noise floor is trusted."""
_QUIET_SHARE = 0.02
"""Share of the utterance's quietest frames taken for noise where no pause was heard."""


@dataclass(frozen=True)
class Frame:
    """What is kept of a VAD frame."""

    end: int
    """Stream index one past its last sample."""
    power: float
    """Mean square."""
    speech: bool
    clipped: float = 0.0
    """Clipped samples at 16 kHz."""
    length: int = FRAME
    robot_speaking: bool = False


class NoiseFloor:
    """Power of the background, from the pauses of the stream's last seconds."""

    def __init__(self) -> None:
        self._powers: deque[float] = deque(maxlen=_NOISE_FRAMES)
        self._waiting: deque[float] = deque()
        self._guard = 0

    def observe(self, power: float, speech: bool) -> None:
        """Take the next frame of the stream."""
        if speech:
            self._waiting.clear()
            self._guard = _GUARD_AFTER
        elif self._guard:
            self._guard -= 1
        elif power > _SILENT:
            self._waiting.append(power)
            if len(self._waiting) > _GUARD_BEFORE:
                self._powers.append(self._waiting.popleft())

    @property
    def power(self) -> float | None:
        """Mean square of the pauses without their loudest tenth; None while too little was heard."""
        if len(self._powers) < _ENOUGH_NOISE:
            return None
        powers = np.sort(np.fromiter(self._powers, np.float64))
        return float(powers[: math.ceil(len(powers) * _KEPT_NOISE)].mean())


class QualityMeter:
    """Adds up the frames of one utterance; `noise` is shared by all utterances of the stream."""

    def __init__(self, noise: NoiseFloor, frames: Iterable[Frame] = ()) -> None:
        self._noise = noise
        self._powers: list[float] = []
        self._speech_power = 0.0
        self._speech_samples = 0
        self._power = 0.0
        self._samples = 0
        self._clipped = 0.0
        for frame in frames:
            self.add(frame)

    def add(self, frame: Frame) -> None:
        """Take the next frame of the utterance."""
        self._powers.append(frame.power)
        self._power += frame.power * frame.length
        self._samples += frame.length
        self._clipped += frame.clipped
        if frame.speech:
            self._speech_power += frame.power * frame.length
            self._speech_samples += frame.length

    def quality(self) -> SignalQuality:
        """Of all frames so far."""
        if self._samples == 0:
            return SignalQuality(math.nan, -120.0, 0.0, 0.0)
        power = self._power / self._samples
        if self._speech_samples:
            power = self._speech_power / self._speech_samples
        return SignalQuality(
            snr_db=self._snr(power) if self._speech_samples else math.nan,
            level_dbfs=10.0 * math.log10(max(power, 1e-12)),
            clipped_fraction=min(1.0, self._clipped / self._samples),
            speech_fraction=self._speech_samples / self._samples,
        )

    def _snr(self, power: float) -> float:
        noise = self._noise.power
        if noise is None:
            heard = np.array([p for p in self._powers if p > _SILENT])
            if len(heard) == 0:
                return math.nan
            noise = float(np.quantile(heard, _QUIET_SHARE))
        # Speech can only be told from noise down to -20 dB.
        speech = max(power - noise, noise * 10 ** (SNR_RANGE[0] / 10))
        return min(10.0 * math.log10(speech / noise), SNR_RANGE[1])


def mean_square(samples: FloatArray) -> float:
    """Power of a piece of audio."""
    return float(np.dot(samples, samples)) / max(1, len(samples))


def measure_quality(
    samples: FloatArray,
    speech_probabilities: FloatArray | None = None,
    threshold: float = 0.4,
    release_threshold: float = 0.25,
) -> SignalQuality:
    """Quality of a finished recording that holds one utterance.

    Args:
        samples: [n] float32, 16 kHz mono; a constant offset in it is taken off, as the front end does.
        speech_probabilities: [ceil(n / 512)] of each frame; None runs the voice detector.
        threshold: probability at which a frame becomes speech.
        release_threshold: probability below which it ceases to be.
    """
    heard = OffsetFilter().process(samples)
    if speech_probabilities is None:
        from hri_emo_ros.audio.vad import SileroVad  # Loads a network: only where it is used.

        padded = np.pad(heard, (0, -len(heard) % FRAME)).reshape(-1, FRAME)
        speech_probabilities = SileroVad().probabilities(padded) if len(padded) else padded[:, 0]
    noise = NoiseFloor()
    records = []
    speech = False
    for i, probability in enumerate(speech_probabilities):
        frame = heard[i * FRAME : (i + 1) * FRAME]
        speech = probability >= (release_threshold if speech else threshold)
        power = mean_square(frame)
        noise.observe(power, speech)
        clipped = np.count_nonzero(np.abs(samples[i * FRAME : (i + 1) * FRAME]) >= 0.999)
        records.append(
            Frame(i * FRAME + len(frame), power, bool(speech), float(clipped), len(frame))
        )
    return QualityMeter(noise, records).quality()
