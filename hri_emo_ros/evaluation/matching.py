"""Which heard utterance answers which label, and how well the speech was cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hri_emo_ros.evaluation.labels import Label
from hri_emo_ros.evaluation.utterances import HeardUtterance

LEAST_OVERLAP = 0.2
"""Share of the shorter of the two that must overlap for a label and an utterance to belong together."""


@dataclass(frozen=True)
class Match:
    """A label and the utterances that hold some of it."""

    label: Label
    heard: tuple[HeardUtterance, ...]
    """In order of time; empty where nothing was heard."""

    @property
    def best(self) -> HeardUtterance | None:
        """The utterance with the largest overlap, whose state is the answer to the label."""
        return max(self.heard, key=lambda u: self.label.overlap(u.start, u.end), default=None)

    @property
    def transcript(self) -> str:
        """What was recognised of the label in all, so that a split costs no words."""
        return " ".join(u.transcript for u in self.heard if u.transcript)


def belongs(label: Label, start: float, end: float) -> bool:
    """Whether a stretch of sound holds enough of the label, or the label of it."""
    shared = label.overlap(start, end)
    return shared > 0 and shared >= LEAST_OVERLAP * min(label.duration, end - start)


def match_labels(labels: Sequence[Label], utterances: Sequence[HeardUtterance]) -> list[Match]:
    """For each label, in order, the utterances that belong to it. Both are in order of time."""
    matches = []
    first = 0
    for label in labels:
        while first < len(utterances) and utterances[first].end <= label.start:
            first += 1
        heard = []
        for utterance in utterances[first:]:
            if utterance.start >= label.end:
                break
            if belongs(label, utterance.start, utterance.end):
                heard.append(utterance)
        matches.append(Match(label, tuple(heard)))
    return matches


def segmentation(
    matches: Sequence[Match], utterances: Sequence[HeardUtterance], pre_roll: float
) -> dict[str, Any]:
    """How the found utterances fit the labelled ones.

    Boundary errors are of one-to-one pairs: where speech was found to begin (the utterance's first
    sample plus the pre-roll) and to end, minus where the label says; seconds, positive is late.

    Args:
        matches: from `match_labels`.
        utterances: all that were found.
        pre_roll: the parameter segment.pre_roll, s.
    """
    owners: dict[int, int] = {}
    for match in matches:
        for utterance in match.heard:
            owners[id(utterance)] = owners.get(id(utterance), 0) + 1
    starts, ends = [], []
    for match in matches:
        if len(match.heard) == 1 and owners[id(match.heard[0])] == 1:
            heard = match.heard[0]
            starts.append(heard.start + pre_roll - match.label.start)
            if np.isfinite(heard.speech_end):
                ends.append(heard.speech_end - match.label.end)
    return {
        "labels": len(matches),
        "utterances": len(utterances),
        "one_to_one": len(starts),
        "missed": sum(not match.heard for match in matches),
        "split": sum(len(match.heard) > 1 for match in matches),
        "merged": sum(count > 1 for count in owners.values()),
        "unlabelled": sum(id(utterance) not in owners for utterance in utterances),
        "truncated": sum(utterance.truncated for utterance in utterances),
        "start_error": _spread(starts),
        "end_error": _spread(ends),
    }


def _spread(errors: Sequence[float]) -> dict[str, float | None]:
    """Mean, mean of the magnitudes and 90th percentile of the magnitudes, s."""
    if not errors:
        return {"mean": None, "mean_absolute": None, "p90_absolute": None}
    values = np.asarray(errors)
    return {
        "mean": round(float(values.mean()), 4),
        "mean_absolute": round(float(np.abs(values).mean()), 4),
        "p90_absolute": round(float(np.percentile(np.abs(values), 90)), 4),
    }
