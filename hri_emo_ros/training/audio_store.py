"""Decodes every clip once and keeps it in memory: 16-bit, 115 MB per hour of speech."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.data.corpus import Item
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

_CONTAINERS = (".mp4", ".mkv", ".avi", ".m4a", ".mov", ".webm")
_FULL_SCALE = 32767.0


def decode(path: Path, max_duration: float | None = None) -> FloatArray:
    """A clip as 16 kHz mono float32; video files through PyAV.

    Raises:
        HriEmoError: the file cannot be read.
    """
    samples = _from_container(path) if path.suffix.lower() in _CONTAINERS else read_audio(path)
    if max_duration is not None:
        samples = samples[: int(max_duration * SAMPLE_RATE)]
    return samples


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


class AudioStore:
    """Clips by item id.

    Args:
        cache: folder for decoded clips; None decodes anew in each run.
    """

    def __init__(self, cache: Path | None = None) -> None:
        self._clips: dict[str, npt.NDArray[np.int16]] = {}
        self._cache = cache

    def load(self, items: Iterable[Item], progress: Callable[[], None] = lambda: None) -> None:
        """Decode what is not here yet; `progress` is called after each clip.

        Raises:
            HriEmoError: a file cannot be read or holds no samples.
        """
        for item in items:
            if item.audio is None or item.id in self._clips:
                continue
            clip = self._decode(item.audio, item.max_duration)
            if len(clip) == 0:
                raise HriEmoError(f"'{item.audio}' is empty; remove it from the corpus")
            self._clips[item.id] = clip
            progress()

    def _decode(self, path: Path, limit: float | None) -> npt.NDArray[np.int16]:
        file = None
        if self._cache is not None:
            stat = path.stat()
            key = f"{path.resolve()}|{stat.st_mtime_ns}|{stat.st_size}|{limit}"
            file = self._cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
            if file.is_file():
                return np.asarray(np.load(file, allow_pickle=False), dtype=np.int16)
        clip = np.clip(np.round(decode(path, limit) * _FULL_SCALE), -32768, 32767).astype(np.int16)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, clip)
        return clip

    def samples(self, item: Item) -> FloatArray:
        """[n] float32 in [-1, 1]."""
        return self._clips[item.id].astype(np.float32) / np.float32(_FULL_SCALE)

    def seconds(self, item: Item) -> float:
        return len(self._clips[item.id]) / SAMPLE_RATE
