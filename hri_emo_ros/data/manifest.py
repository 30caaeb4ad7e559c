# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The CSV in which clips and texts are listed: the same for evaluation, training and recordings made of clips."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hri_emo_ros.data.labels import WORDS
from hri_emo_ros.errors import HriEmoError

COLUMNS = (
    "path", "emotion", "text", "speaker", "sex", "language", "intensity", "fold", "split",
    "conversation", "turn", "start", "end", "seconds", "heard", "confidence",
)  # fmt: skip
"""What is read; `path` and `emotion` must be there, other columns are left alone."""

Fault = Literal["unknown_label", "left_out", "unreadable"]
"""Emotion that no corpus knows; emotion without a counterpart; line without usable values."""


def demo_manifest() -> Path | None:
    """The clips of the demo recording, where the source tree is at hand."""
    path = Path(__file__).resolve().parents[2] / "demo" / "manifest.csv"
    return path if path.exists() else None


@dataclass(frozen=True)
class Row:
    """One line; its file need not exist."""

    line: int
    path: Path | None
    emotion: str
    """As written."""
    label: str
    """One of types.LABELS; empty where no emotion is given."""
    text: str = ""
    speaker: str = ""
    sex: str = ""
    language: str = ""
    intensity: str = ""
    fold: int | None = None
    split: str = ""
    conversation: str = ""
    turn: float | None = None
    """Place in the conversation; only the order counts."""
    start: float = 0.0
    """Seconds into the file."""
    end: float | None = None
    """Seconds into the file; None is its end."""
    seconds: float = math.inf
    """At most so much is heard from `start` on, however long the file is."""
    heard: str = ""
    """What a recogniser made of the clip, where that was written down."""
    confidence: float = 1.0
    """Of the recogniser, [0, 1]."""


@dataclass(frozen=True)
class Refused:
    """A line that cannot be used."""

    line: int
    path: str
    emotion: str
    fault: Fault
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Line, path, emotion and, for an unreadable line, why."""
        entry = {"line": self.line, "path": self.path, "emotion": self.emotion}
        return entry | ({"reason": self.reason} if self.fault == "unreadable" else {})


@dataclass
class Manifest:
    """A manifest, with what could not be used of it."""

    path: Path
    rows: list[Row] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    def strictly(self) -> list[Row]:
        """The rows.

        Raises:
            HriEmoError: a line was refused, or there is none; the first reason is told.
        """
        if self.refused:
            first = self.refused[0]
            raise HriEmoError(f"the manifest '{self.path}' line {first.line}: {first.reason}")
        if not self.rows:
            raise HriEmoError(f"the manifest '{self.path}' lists no clips")
        return self.rows


def read_manifest(path: Path) -> Manifest:
    """Read the columns `COLUMNS`; paths are relative to the CSV.

    Raises:
        HriEmoError: the file cannot be read or lacks a column.
    """
    manifest = Manifest(path)
    for number, value in enumerate(read_lines(path, ("path", "emotion")), start=2):
        found = _row(path.parent, number, value)
        if isinstance(found, Row):
            manifest.rows.append(found)
        else:
            manifest.refused.append(found)
    return manifest


def read_lines(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """The lines as they are, without blanks around the values.

    Raises:
        HriEmoError: the file cannot be read or lacks one of the `needed` columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            columns = reader.fieldnames or []
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HriEmoError(f"cannot read the manifest '{path}': {error}") from error
    for column in needed:
        if column not in columns:
            more = [name for name in COLUMNS if name not in needed]
            raise HriEmoError(
                f"the manifest '{path}' lacks the column '{column}', needs {' and '.join(needed)} (and "
                f"may have {', '.join(more)})"
            )
    return [{k: (v or "").strip() for k, v in line.items() if isinstance(k, str)} for line in lines]


def _row(folder: Path, line: int, value: Mapping[str, str]) -> Row | Refused:
    def refused(fault: Fault, reason: str) -> Refused:
        return Refused(line, value["path"], value["emotion"], fault, reason)

    word = value["emotion"].lower()
    if word and word not in WORDS:
        known = ", ".join(w for w, label in WORDS.items() if label)
        return refused(
            "unknown_label", f"emotion '{value['emotion']}' is not known, must be one of: {known}"
        )
    if word and WORDS[word] is None:
        return refused("left_out", f"label '{word}' has no counterpart")
    if not value["path"] and not value.get("text"):
        return refused("unreadable", "path and text empty")
    numbers: dict[str, float | None] = {}
    for column, least, allowed in (
        ("fold", 1.0, "a whole number from 1"),
        ("turn", -math.inf, "a number"),
        ("start", 0.0, "seconds >= 0"),
        ("end", 0.0, "seconds > start"),
        ("seconds", 1e-9, "a number above 0, or empty for all"),
        ("confidence", 0.0, "a number from 0 to 1"),
    ):
        text = value.get(column, "")
        try:
            number = float(text) if text else None
        except ValueError:
            number = math.nan
        wrong = number is not None and not (number >= least and math.isfinite(number))
        if wrong or (column == "fold" and number is not None and number != round(number)):
            return refused("unreadable", f"{column} is '{text}', must be {allowed}")
        numbers[column] = number
    start, end = numbers["start"] or 0.0, numbers["end"]
    if end is not None and end <= start:
        return refused("unreadable", f"end is {end:g}, must be seconds > start ({start:g})")
    fold, seconds, confidence = numbers["fold"], numbers["seconds"], numbers["confidence"]
    return Row(
        line=line,
        path=folder / value["path"] if value["path"] else None,
        emotion=value["emotion"],
        label=WORDS[word] or "" if word else "",
        fold=None if fold is None else round(fold),
        turn=numbers["turn"],
        start=start,
        end=end,
        seconds=math.inf if seconds is None else seconds,
        confidence=1.0 if confidence is None else min(confidence, 1.0),
        **{
            k: value.get(k, "")
            for k in ("text", "speaker", "sex", "language", "intensity", "split", "conversation",
                      "heard")
        },
    )  # fmt: skip
