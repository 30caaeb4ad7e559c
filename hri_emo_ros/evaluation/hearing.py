# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo vad``: which clips the front end finds as one utterance, which it never hears, and how often
it takes noise for speech, at several levels and thresholds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from hri_emo_ros.audio.frontend import AudioFrontEnd
from hri_emo_ros.audio.pcm import PcmFormat
from hri_emo_ros.audio.vad import SileroVad
from hri_emo_ros.data.clips import read_clip, speech_bounds
from hri_emo_ros.data.manifest import read_lines
from hri_emo_ros.data.noise import noise_files
from hri_emo_ros.evaluation.labels import Label
from hri_emo_ros.evaluation.matching import cuts, match_labels
from hri_emo_ros.evaluation.scores import rounded
from hri_emo_ros.evaluation.utterances import HeardUtterance, UtteranceLog
from hri_emo_ros.parameters import Value
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

GAP = (1.0, 2.0)
"""Shortest and longest silence before each clip, s; drawn evenly."""
COLUMNS = ("corpus", "speaker", "sex", "emotion", "intensity")
"""Of a manifest, by which figures are given; where it names no corpus, its folder does."""
_BATCH = 32


@dataclass(frozen=True)
class Heard:
    """What became of one clip of speech."""

    values: Mapping[str, str]
    """Its `COLUMNS` and path."""
    utterances: int
    """That hold some of it: none, it is lost; more than one, it is split."""
    alone: bool
    """One utterance, which holds nothing of another clip."""
    start_error: float | None


@dataclass
class Hearing:
    """Clips and noises at one level with one set of parameters."""

    level: float | None
    """Peak to which each was brought, dBFS; None: as recorded."""
    parameters: Mapping[str, Value]
    """Of the speech node."""
    clips: list[Heard] = field(default_factory=list)
    noises: dict[str, int] = field(default_factory=dict)
    """File -> utterances that were found in it."""
    noise_seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Figures in all, by each column, by emotion, sex and intensity together, and what was lost."""
        cells = ("corpus", "emotion", "sex", "intensity")
        noises = sum(self.noises.values())
        return {
            "peak_dbfs": self.level,
            "parameters": dict(self.parameters),
            **figures(self.clips),
            "by": {
                column: by(self.clips, (column,))
                for column in COLUMNS
                if any(clip.values[column] for clip in self.clips)
            },
            "cells": by(self.clips, cells),
            "lost_clips": [c.values["path"] for c in self.clips if c.utterances == 0],
            "split_clips": [c.values["path"] for c in self.clips if c.utterances > 1],
            "noise": {
                "seconds": round(self.noise_seconds, 1),
                "utterances": noises,
                "per_minute": rounded(60.0 * noises / self.noise_seconds)
                if self.noise_seconds
                else None,
                "files": {name: count for name, count in self.noises.items() if count},
            },
        }


def figures(clips: Sequence[Heard]) -> dict[str, Any]:
    """Shares of lost and of one-to-one clips, and the mean magnitude of the start's error, s."""
    if not clips:
        return {"clips": 0, "lost": None, "one_to_one": None, "start_error": None}
    errors = [abs(c.start_error) for c in clips if c.start_error is not None]
    return {
        "clips": len(clips),
        "lost": rounded(float(np.mean([c.utterances == 0 for c in clips]))),
        "one_to_one": rounded(float(np.mean([c.alone for c in clips]))),
        "start_error": rounded(float(np.mean(errors))) if errors else None,
    }


def by(clips: Sequence[Heard], columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`figures` of the groups that these columns make."""
    groups: dict[str, list[Heard]] = {}
    for clip in clips:
        groups.setdefault(" ".join(clip.values[c] or "-" for c in columns), []).append(clip)
    return {name: figures(group) for name, group in sorted(groups.items())}


class _Remembering:
    """The detector, which hears a sound once: thresholds change nothing of its probabilities."""

    def __init__(self) -> None:
        self._vad = SileroVad()
        self._known: list[FloatArray] = []
        self._next = 0

    def rewind(self) -> None:
        """The same sound comes again."""
        self._next = 0

    def probabilities(self, frames: FloatArray) -> FloatArray:
        if self._next == len(self._known):
            self._known.append(self._vad.probabilities(frames))
        self._next += 1
        return self._known[self._next - 1]

    def reset(self) -> None:
        """Nothing: the sound is one stream, however often it is heard."""


class _Stream:
    """Sounds at one level with gaps between them, as often as wanted."""

    def __init__(self, paths: Sequence[Path], level: float | None, seed: int) -> None:
        self._paths, self._level, self._seed = paths, level, seed
        self._vad = _Remembering()

    def utterances(self, values: Mapping[str, Value]) -> tuple[list[Label], list[HeardUtterance]]:
        """Where each sound is, by its level, and what was found."""
        random = np.random.default_rng(self._seed)
        self._vad.rewind()
        front_end = AudioFrontEnd(values, self._vad, _BATCH)
        front_end.set_format(PcmFormat(SAMPLE_RATE))
        log, labels = UtteranceLog(0), []
        samples = 0
        for path in self._paths:
            gap = np.zeros(round(random.uniform(*GAP) * SAMPLE_RATE), np.float32)
            sound = self._at_level(read_clip(path, SAMPLE_RATE))
            begin = (samples + len(gap)) / SAMPLE_RATE
            start, end = speech_bounds(sound, SAMPLE_RATE)
            labels.append(Label(begin + start, begin + end, ""))
            samples += len(gap) + len(sound)
            for block in (gap, sound):
                for chunk in front_end.push_samples(block, None):
                    log.add(chunk)
        silence = np.zeros(round(GAP[1] * SAMPLE_RATE), np.float32)
        for chunk in front_end.push_samples(silence, None) + front_end.flush():
            log.add(chunk)
        return labels, log.utterances

    def _at_level(self, samples: FloatArray) -> FloatArray:
        """Brought to its peak and rounded to 16 bits."""
        if self._level is not None:
            peak = float(np.abs(samples).max(initial=0.0))
            samples = samples * np.float32(10 ** (self._level / 20) / max(peak, 1e-9))
        return (np.clip(np.rint(samples * 32768), -32768, 32767) / 32768).astype(np.float32)


def hear(
    manifests: Sequence[Path],
    noise: Path | None,
    levels: Sequence[float | None],
    parameters: Sequence[Mapping[str, Value]],
    seed: int = 0,
    progress: Callable[[str], None] = lambda name: None,
) -> list[Hearing]:
    """Send clips and noises through the front end, as one stream for each corpus and level.

    Before each comes digital silence of `GAP`, as in a bag that ``hri-emo bag make`` makes, and what
    comes is rounded to 16 bits.

    Args:
        manifests: CSV files with a column `path`, relative to the file, and any of `COLUMNS`.
        noise: folder (searched deeply) or file; None leaves noises out.
        levels: peaks to which each clip and each noise is brought, dBFS; None is as recorded.
        parameters: sets of the speech node's values.
        seed: of the gaps.
        progress: called with the name of each stream before it is heard.

    Returns:
        For each level, in order, one for each set of parameters.

    Raises:
        HriEmoError: a manifest or a file cannot be read, or a value is refused.
    """
    rows = [row for manifest in manifests for row in _rows(manifest)]
    files = noise_files(noise) if noise is not None else []
    results = []
    for level in levels:
        found = [Hearing(level, values) for values in parameters]
        for corpus in dict.fromkeys(row["corpus"] for row in rows):
            progress(f"{corpus}, {shown_level(level)}")
            own = [row for row in rows if row["corpus"] == corpus]
            stream = _Stream([Path(row["path"]) for row in own], level, seed)
            for hearing in found:
                labels, utterances = stream.utterances(hearing.parameters)
                pre_roll = float(hearing.parameters["segment.pre_roll"])
                hearing.clips += [
                    Heard(row, cut.heard, cut.one_to_one, cut.start_error)
                    for row, cut in zip(
                        own, cuts(match_labels(labels, utterances), pre_roll), strict=True
                    )
                ]
        if files:
            progress(f"noise, {shown_level(level)}")
            stream = _Stream(files, level, seed)
            for hearing in found:
                labels, utterances = stream.utterances(hearing.parameters)
                hearing.noises = _by_file(files, labels, utterances)
                hearing.noise_seconds = sum(soundfile.info(path).duration for path in files)
        results += found
    return results


def _by_file(
    files: Sequence[Path], labels: Sequence[Label], utterances: Sequence[HeardUtterance]
) -> dict[str, int]:
    """Utterances of each noise: those that end in it, or behind it before the next one."""
    ends = [label.start for label in labels[1:]] + [float("inf")]
    found = dict.fromkeys(map(str, files), 0)
    for utterance in utterances:
        found[str(files[int(np.searchsorted(ends, utterance.speech_end))])] += 1
    return found


def _rows(manifest: Path) -> list[dict[str, str]]:
    """`COLUMNS` and the path of each line."""
    rows = []
    for line in read_lines(manifest, ("path",)):
        row = {column: line.get(column, "") for column in COLUMNS}
        row["corpus"] = row["corpus"] or manifest.resolve().parent.name
        rows.append(row | {"path": str(manifest.parent / line["path"])})
    return rows


def shown_level(level: float | None) -> str:
    """For people."""
    return "as recorded" if level is None else f"peaks at {level:g} dBFS"
