# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Audio files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from hri_emo_ros.audio.input import mix_whole
from hri_emo_ros.audio.pcm import PcmDecoder, PcmFormat
from hri_emo_ros.audio.resample import StreamingResampler
from hri_emo_ros.audio.wav import looks_like_wav
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import SAMPLE_RATE, FloatArray


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
        samples, rate = _of_unknown_length(Path(path))
    if len(samples) == 0:
        raise HriEmoError(f"audio file '{path}' holds no samples")
    return samples, int(rate)


def read_audio(path: str | Path, channel: int = -1) -> FloatArray:
    """A file as float32 [n], 16 kHz, its channels mixed as the front end does.

    Args:
        channel: `audio.channel`; -1 chooses.

    Raises:
        HriEmoError: as `read_samples`, or there is no such channel.
    """
    samples, rate = read_samples(path)
    mono = mix_whole(samples, float_format(rate, samples.shape[1]), channel)
    resampler = StreamingResampler(rate)
    return np.concatenate([resampler.process(mono), resampler.flush()])


def float_format(rate: int, channels: int) -> PcmFormat:
    """Of samples as `read_samples` gives them.

    Raises:
        HriEmoError: the pipeline takes no such rate or number of channels.
    """
    return PcmFormat(rate, channels, "F32LE")


def _of_unknown_length(path: Path) -> tuple[FloatArray, int]:
    """The samples of a WAV whose header states a length of 0: its writer was killed, or wrote to a pipe."""
    decoder = PcmDecoder(PcmFormat(SAMPLE_RATE))
    data = path.read_bytes()
    samples = decoder.decode(data if looks_like_wav(data) else b"")
    return samples, decoder.format.sample_rate
