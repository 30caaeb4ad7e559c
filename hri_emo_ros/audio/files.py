"""Audio files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from hri_emo_ros.audio.resample import StreamingResampler
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import FloatArray


def read_samples(path: str | Path) -> tuple[FloatArray, int]:
    """A WAV, FLAC, Ogg or other file that libsndfile reads, as it is.

    Returns:
        float32 [n, channels] in [-1, 1], and the sample rate, Hz.

    Raises:
        HriEmoError: the file is missing, empty or no audio.
    """
    if not Path(path).is_file():
        raise HriEmoError(f"there is no audio file '{path}'")
    try:
        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise HriEmoError(
            f"cannot read '{path}' as audio ({error}): give WAV, FLAC or Ogg"
        ) from error
    if len(samples) == 0:
        raise HriEmoError(f"audio file '{path}' holds no samples")
    return samples, int(rate)


def read_audio(path: str | Path) -> FloatArray:
    """A file as float32 [n], 16 kHz, the mean of its channels.

    Raises:
        HriEmoError: as `read_samples`.
    """
    samples, rate = read_samples(path)
    mono = samples.mean(axis=1, dtype=np.float32)
    resampler = StreamingResampler(rate)
    return np.concatenate([resampler.process(mono), resampler.flush()])
