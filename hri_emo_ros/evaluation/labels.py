# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What a person says about a recording: who spoke when, with which emotion and which words."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from hri_emo_ros.data.labels import WORDS
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import LABELS

TOLERANCE = 0.05
"""Seconds by which labels may overlap or pass the recording's ends: hand-set marks are no finer."""


@dataclass(frozen=True)
class Label:
    """One labelled stretch of speech."""

    start: float
    """Seconds from the bag's start."""
    end: float
    emotion: str
    """One of the model's labels; empty where the emotion is not known (words and boundaries are)."""
    speaker: str = ""
    text: str = ""

    @property
    def duration(self) -> float:
        return self.end - self.start

    def overlap(self, start: float, end: float) -> float:
        """Seconds shared with [start, end]."""
        return max(0.0, min(self.end, end) - max(self.start, start))


@dataclass(frozen=True)
class Recording:
    """A bag and its labels (None: its annotation topic)."""

    bag: Path
    labels: Path | None = None


def recordings(bags: Sequence[Path], labels: Sequence[Path]) -> list[Recording]:
    """Bags with their labels, in order.

    Raises:
        HriEmoError: there are labels, but not for each.
    """
    if labels and len(labels) != len(bags):
        raise HriEmoError(
            f"--labels names {len(labels)} files for {len(bags)} bags: give one for each"
        )
    return [Recording(bag, labels[k] if labels else None) for k, bag in enumerate(bags)]


def read_labels(path: Path, known: Sequence[str] = LABELS) -> list[Label]:
    """Read ``start,end,emotion[,speaker,text]``, with a header line, in order of time.

    Args:
        path: CSV file; times are seconds from the bag's start.
        known: emotions that the model knows; `data.labels.WORDS` are mapped to them.

    Raises:
        HriEmoError: unreadable, a column is missing, or a value is refused (with its line).
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            missing = {"start", "end", "emotion"} - set(reader.fieldnames or ())
            if missing:
                raise HriEmoError(
                    f"labels '{path}' lack the column(s) {', '.join(sorted(missing))}: the first "
                    "line must be start,end,emotion[,speaker,text]"
                )
            labels = [
                parse_label(row, f"labels '{path}' line {number}", known)
                for number, row in enumerate(reader, start=2)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HriEmoError(f"cannot read labels '{path}': {error}") from error
    return ordered(labels, f"labels '{path}'")


def parse_annotation(text: str, where: str, known: Sequence[str] = LABELS) -> Label:
    """A label from a std_msgs/String that holds a JSON object with the CSV's columns as keys."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise HriEmoError(
            f"{where}: '{text[:60]}' is not a JSON object with start, end and emotion"
        ) from error
    if not isinstance(value, dict):
        raise HriEmoError(f"{where}: '{text[:60]}' is not a JSON object")
    return parse_label(value, where, known)


def parse_label(row: Mapping[str, Any], where: str, known: Sequence[str]) -> Label:
    """One label from its fields; `where` names the place in messages."""
    try:
        start, end = float(row["start"]), float(row["end"])
    except (KeyError, TypeError, ValueError) as error:
        raise HriEmoError(f"{where}: start and end must be numbers of seconds") from error
    if not start < end:
        raise HriEmoError(f"{where}: start {start:g} s must be smaller than end {end:g} s")
    word = str(row.get("emotion") or "").strip().lower()
    emotion = word if word in known else WORDS.get(word) or word
    if emotion and emotion not in known:
        raise HriEmoError(
            f"{where}: emotion '{word}' is none of the model's: {', '.join(known)} (leave it empty "
            "where the emotion is not one of them)"
        )
    return Label(
        start, end, emotion, str(row.get("speaker") or "").strip(),
        str(row.get("text") or "").strip(),
    )  # fmt: skip


def ordered(labels: Iterable[Label], where: str) -> list[Label]:
    """Sort by time.

    Raises:
        HriEmoError: two labels overlap by more than `TOLERANCE`.
    """
    result = sorted(labels, key=lambda label: (label.start, label.end))
    for before, after in pairwise(result):
        if before.end > after.start + TOLERANCE:
            raise HriEmoError(
                f"{where}: the labels {before.start:g}-{before.end:g} s and {after.start:g}-"
                f"{after.end:g} s overlap; one voice at a time can be scored, so separate or drop one"
            )
    return result


def check_within(labels: Sequence[Label], duration: float, where: str) -> list[Label]:
    """Labels clipped to the recording.

    Raises:
        HriEmoError: one lies outside [0, duration] by more than `TOLERANCE`.
    """
    for label in labels:
        if label.start < -TOLERANCE or label.end > duration + TOLERANCE:
            raise HriEmoError(
                f"{where}: the label {label.start:g}-{label.end:g} s lies outside the recording, "
                f"which is {duration:.2f} s long (times are seconds from the bag's start)"
            )
    return [
        replace(label, start=max(0.0, label.start), end=min(label.end, duration))
        for label in labels
    ]


def write_labels(path: Path, labels: Iterable[Label]) -> None:
    """Write the CSV that `read_labels` reads."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["start", "end", "emotion", "speaker", "text"])
        for label in labels:
            writer.writerow(
                [f"{label.start:.3f}", f"{label.end:.3f}", label.emotion, label.speaker, label.text]
            )
