# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
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
        """The words of the label that estimates used, in all, so that a split costs no words."""
        return " ".join(u.transcript for u in self.heard if u.transcript)

    @property
    def recognised(self) -> str:
        """The same with the words that were refused."""
        return " ".join(filter(None, (u.transcript or u.rejected_transcript for u in self.heard)))


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


@dataclass(frozen=True)
class Cut:
    """How a label's speech was cut."""

    label: Label
    heard: int
    """Utterances that hold some of it: none, it was missed; more than one, it was split."""
    merged: bool
    """One of them holds some of another label too."""
    start_error: float | None = None
    """Of one-to-one pairs: where speech was found to begin (the utterance's first sample plus the
    pre-roll) minus where the label says, s; positive is late."""
    end_error: float | None = None

    @property
    def one_to_one(self) -> bool:
        """One utterance that is nobody else's."""
        return self.heard == 1 and not self.merged


def cuts(matches: Sequence[Match], pre_roll: float) -> list[Cut]:
    """How each label was cut, in order.

    Args:
        matches: from `match_labels`, of all labels.
        pre_roll: the parameter segment.pre_roll, s.
    """
    owners = _owners(matches)
    result = []
    for match in matches:
        merged = any(owners[id(utterance)] > 1 for utterance in match.heard)
        start = end = None
        if len(match.heard) == 1 and not merged:
            heard = match.heard[0]
            start = heard.start + pre_roll - match.label.start
            if np.isfinite(heard.speech_end):
                end = heard.speech_end - match.label.end
        result.append(Cut(match.label, len(match.heard), merged, start, end))
    return result


def segmentation(
    matches: Sequence[Match], utterances: Sequence[HeardUtterance], pre_roll: float
) -> dict[str, Any]:
    """How the found utterances fit the labelled ones, in all and by emotion.

    Args:
        matches: from `match_labels`.
        utterances: all that were found.
        pre_roll: the parameter segment.pre_roll, s.
    """
    owners = _owners(matches)
    found = cuts(matches, pre_roll)
    emotions = sorted({cut.label.emotion for cut in found})
    return {
        **_counts(found),
        "utterances": len(utterances),
        "merged": sum(count > 1 for count in owners.values()),
        "unlabelled": sum(id(utterance) not in owners for utterance in utterances),
        "truncated": sum(utterance.truncated for utterance in utterances),
        "start_error": _spread([c.start_error for c in found if c.start_error is not None]),
        "end_error": _spread([c.end_error for c in found if c.end_error is not None]),
        "by_emotion": {
            emotion: _counts([c for c in found if c.label.emotion == emotion])
            for emotion in emotions
        },
    }


def _owners(matches: Sequence[Match]) -> dict[int, int]:
    """How many labels each utterance belongs to, by its id()."""
    owners: dict[int, int] = {}
    for match in matches:
        for utterance in match.heard:
            owners[id(utterance)] = owners.get(id(utterance), 0) + 1
    return owners


def _counts(found: Sequence[Cut]) -> dict[str, int]:
    return {
        "labels": len(found),
        "one_to_one": sum(cut.one_to_one for cut in found),
        "missed": sum(cut.heard == 0 for cut in found),
        "split": sum(cut.heard > 1 for cut in found),
        "merged": sum(cut.merged for cut in found),
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
