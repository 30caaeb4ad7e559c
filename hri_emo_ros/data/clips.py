# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Clips: their samples, the level of their speech, and where in each somebody speaks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from numpy.lib.stride_tricks import sliding_window_view

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

_FRAME = 0.01
"""Seconds over which levels are taken."""
SPEECH_RANGE_DB = 35.0
"""Frames this far below the loudest still count as speech: consonants lie about 30 dB below vowels."""
_STEADY = 7
"""Frames of which the median tells speech from a click."""
_BACKGROUND_SHARE, _OVER_BACKGROUND_DB = 0.1, 6.0
"""The quietest tenth is background; in 86 % of CREMA-D's clips it lies within the 35 dB above and a label
by those alone would begin with the file."""
_SURE_RANGE_DB = 15.0
"""What is not further below the loudest is speech whatever the background, which a clip that is all speech
does not have."""
_CONTAINERS = (".mp4", ".mkv", ".avi", ".m4a", ".mov", ".webm")


def decode(
    path: Path, start: float = 0.0, end: float | None = None, seconds: float = math.inf
) -> FloatArray:
    """A stretch of a file as float32 [n], 16 kHz mono; video files through PyAV.

    Args:
        start, end: seconds into the file; None is its end.
        seconds: at most so much from `start` on.

    Raises:
        HriEmoError: the file cannot be read, or the stretch lies outside it.
    """
    samples = _from_container(path) if path.suffix.lower() in _CONTAINERS else read_audio(path)
    _check_stretch(path, start, end, len(samples) / SAMPLE_RATE)
    last = len(samples) if end is None else round(end * SAMPLE_RATE)
    if math.isfinite(seconds):
        last = min(last, round((start + seconds) * SAMPLE_RATE))
    return samples[round(start * SAMPLE_RATE) : last]


def _check_stretch(path: Path, start: float, end: float | None, length: float) -> None:
    if start >= length or (end is not None and end > length + 1e-3):
        raise HriEmoError(
            f"'{path}' is {length:.2f} s long: the stretch from {start:g} s to {end} s lies outside it"
        )


def _from_container(path: Path) -> FloatArray:
    try:
        import av  # comes with faster-whisper
    except ImportError as error:
        raise HriEmoError(
            f"'{path}' is a video: install PyAV (pip install av) or extract its sound to .wav"
        ) from error
    try:
        with av.open(str(path)) as container:
            resampler = av.AudioResampler(format="fltp", layout="mono")
            stream = container.streams.audio[0]
            rate = stream.rate
            frames = [f for frame in container.decode(stream) for f in resampler.resample(frame)]
            pieces = [f.to_ndarray()[0] for f in frames + resampler.resample(None)]
    except (av.FFmpegError, IndexError) as error:
        raise HriEmoError(f"cannot decode the sound of '{path}': {error}") from error
    if not pieces:
        raise HriEmoError(f"'{path}' holds no sound")
    samples = np.concatenate(pieces).astype(np.float32)
    return np.asarray(soxr.resample(samples, rate, SAMPLE_RATE, "HQ"), dtype=np.float32)


def read_clip(path: Path, rate: int, start: float = 0.0, end: float | None = None) -> FloatArray:
    """A stretch of a file as mono at any `rate`, [n] float32.

    Raises:
        HriEmoError: the file cannot be read, or the stretch lies outside it.
    """
    try:
        with soundfile.SoundFile(path) as file:
            _check_stretch(path, start, end, file.frames / file.samplerate)
            first = round(start * file.samplerate)
            last = file.frames if end is None else round(end * file.samplerate)
            file.seek(first)
            samples = file.read(last - first, dtype="float32", always_2d=True).mean(axis=1)
            source_rate = file.samplerate
    except (soundfile.LibsndfileError, OSError) as error:
        raise HriEmoError(f"cannot read the clip '{path}': {error}") from error
    if source_rate != rate:
        samples = soxr.resample(samples, source_rate, rate, quality="HQ")
    return np.asarray(samples, dtype=np.float32)


def _frame_levels(samples: npt.NDArray[np.float32], rate: int) -> FloatArray:
    """RMS of each 10 ms, [frames]."""
    length = max(1, round(_FRAME * rate))
    count = max(1, len(samples) // length)
    frames = np.resize(samples, count * length) if len(samples) < length else samples
    frames = frames[: count * length].reshape(count, length).astype(np.float64)
    return np.sqrt(np.mean(frames**2, axis=1)).astype(np.float32)


def speech_level(samples: FloatArray, rate: int = SAMPLE_RATE) -> float:
    """RMS of the frames that hold speech, on the samples' scale."""
    levels = _frame_levels(samples, rate)
    speech = levels[levels >= levels.max() * 10 ** (-SPEECH_RANGE_DB / 20)]
    return float(np.sqrt(np.mean(speech.astype(np.float64) ** 2)))


def speech_bounds(samples: FloatArray, rate: int) -> tuple[float, float]:
    """Where a clip's speech begins and ends by its level, seconds.

    By level and not by a voice detector: labels must not come from what they are to judge. Speech is
    what is louder than the clip's own background, over 70 ms, so that a click is none.
    """
    levels = _frame_levels(samples, rate)
    steady = np.median(
        sliding_window_view(np.pad(levels, _STEADY // 2, mode="edge"), _STEADY), axis=1
    )
    loudest = levels.max()
    background = np.quantile(steady, _BACKGROUND_SHARE) * 10 ** (_OVER_BACKGROUND_DB / 20)
    least = max(loudest * 10 ** (-SPEECH_RANGE_DB / 20), background)
    speech = np.flatnonzero(steady >= min(least, loudest * 10 ** (-_SURE_RANGE_DB / 20)))
    if len(speech) == 0:  # All of it is a click.
        return 0.0, len(samples) / rate
    return float(speech[0] * _FRAME), min(float((speech[-1] + 1) * _FRAME), len(samples) / rate)
