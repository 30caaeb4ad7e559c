"""Clips of a manifest, and where in each somebody speaks."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.labels import ALIASES
from hri_emo_ros.types import LABELS

FloatArray = npt.NDArray[np.float32]
_FRAME = 0.01
"""Seconds over which levels are taken."""
SPEECH_RANGE_DB = 35.0
"""Frames this far below the loudest still count as speech: consonants lie about 30 dB below vowels."""


@dataclass(frozen=True)
class Clip:
    """A stretch of an audio file and what is known of it."""

    path: Path
    emotion: str = ""
    speaker: str = ""
    text: str = ""
    start: float = 0.0
    end: float | None = None
    """Seconds into the file; None is its end."""


def read_manifest(path: Path) -> list[Clip]:
    """Read ``path,emotion[,speaker,text,start,end]``; other columns are left alone.

    Raises:
        HriEmoError: unreadable, no `path` or `emotion` column, no line, or a value is refused.
    """
    rows = read_lines(path, ("path", "emotion"))
    return [_clip(row, path, number) for number, row in enumerate(rows, start=2)]


def read_lines(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """Lines of a manifest as they are.

    Raises:
        HriEmoError: unreadable, one of the `needed` columns is missing, or there is no line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HriEmoError(f"cannot read the manifest '{path}': {error}") from error
    if not rows:
        raise HriEmoError(f"the manifest '{path}' lists no clips")
    missing = set(needed) - set(rows[0])
    if missing:
        raise HriEmoError(f"the manifest '{path}' lacks the column(s) {', '.join(sorted(missing))}")
    return rows


def _clip(row: dict[str, str], manifest: Path, line: int) -> Clip:
    word = (row["emotion"] or "").strip().lower()
    emotion = ALIASES.get(word, word)
    if emotion and emotion not in LABELS:
        raise HriEmoError(
            f"the manifest '{manifest}' line {line}: emotion '{word}' is none of "
            f"{', '.join(LABELS)} (leave it empty where it is not one of them)"
        )
    try:
        start = float(row.get("start") or 0.0)
        end = float(row["end"]) if row.get("end") else None
    except ValueError as error:
        raise HriEmoError(
            f"the manifest '{manifest}' line {line}: start and end must be numbers of seconds"
        ) from error
    return Clip(
        manifest.parent / row["path"].strip(), emotion, (row.get("speaker") or "").strip(),
        (row.get("text") or "").strip(), start, end,
    )  # fmt: skip


def read_clip(clip: Clip, rate: int) -> FloatArray:
    """The clip's samples as mono at `rate` Hz, [n] float32.

    Raises:
        HriEmoError: the file cannot be read, or the stretch lies outside it.
    """
    try:
        with soundfile.SoundFile(clip.path) as file:
            first = round(clip.start * file.samplerate)
            last = file.frames if clip.end is None else round(clip.end * file.samplerate)
            if not 0 <= first < last <= file.frames:
                raise HriEmoError(
                    f"'{clip.path}' is {file.frames / file.samplerate:.2f} s long: the stretch from "
                    f"{clip.start:g} s to {clip.end} s lies outside it"
                )
            file.seek(first)
            samples = file.read(last - first, dtype="float32", always_2d=True).mean(axis=1)
            source_rate = file.samplerate
    except (soundfile.LibsndfileError, OSError) as error:
        raise HriEmoError(f"cannot read the clip '{clip.path}': {error}") from error
    if source_rate != rate:
        samples = soxr.resample(samples, source_rate, rate, quality="HQ")
    return np.asarray(samples, dtype=np.float32)


def _frame_levels(samples: FloatArray, rate: int) -> FloatArray:
    """RMS of each 10 ms, [frames]."""
    length = max(1, round(_FRAME * rate))
    count = max(1, len(samples) // length)
    frames = np.resize(samples, count * length) if len(samples) < length else samples
    frames = frames[: count * length].reshape(count, length).astype(np.float64)
    return np.sqrt(np.mean(frames**2, axis=1)).astype(np.float32)


def speech_level(samples: FloatArray, rate: int = 16_000) -> float:
    """RMS of the frames that hold speech, on the samples' scale."""
    levels = _frame_levels(samples, rate)
    speech = levels[levels >= levels.max() * 10 ** (-SPEECH_RANGE_DB / 20)]
    return float(np.sqrt(np.mean(speech.astype(np.float64) ** 2)))


def speech_bounds(samples: FloatArray, rate: int) -> tuple[float, float]:
    """Where a clean clip's speech begins and ends by its level, seconds.

    By level and not by a voice detector: labels must not come from what they are to judge.
    """
    levels = _frame_levels(samples, rate)
    speech = np.flatnonzero(levels >= levels.max() * 10 ** (-SPEECH_RANGE_DB / 20))
    return float(speech[0] * _FRAME), min(float((speech[-1] + 1) * _FRAME), len(samples) / rate)
