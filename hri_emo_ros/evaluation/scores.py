# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The figures of a run: how often the emotion was right, words, time, calibration, abstentions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import jiwer
import numpy as np
import numpy.typing as npt

from hri_emo_ros.data import metrics
from hri_emo_ros.data.words import normal_words
from hri_emo_ros.evaluation.matching import Match
from hri_emo_ros.evaluation.utterances import HeardUtterance
from hri_emo_ros.pipeline import LATENCY_STAGES

FIGURES: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], float]] = {
    "ua": metrics.ua,
    "wa": metrics.wa,
    "macro_f1": metrics.macro_f1,
    "weighted_f1": metrics.weighted_f1,
}


class Answers:
    """Truth and answer of every label that names an emotion, as class indices.

    A label that was missed, or whose state came without an estimate, is answered with the class
    `nothing` behind the last one: it counts as an error of every figure.
    """

    def __init__(self, matches: Sequence[Match], labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.nothing = len(self.labels)
        self.matches = [match for match in matches if match.label.emotion]
        index = {label: i for i, label in enumerate(self.labels)}
        self.targets = np.array([index[m.label.emotion] for m in self.matches], dtype=np.int64)
        self.heard = [match.best for match in self.matches]
        self.predictions = np.array(
            [index[u.dominant] if u and u.dominant else self.nothing for u in self.heard],
            dtype=np.int64,
        )
        self.estimated = self.predictions != self.nothing
        self.answered = self.estimated & np.array(
            [u is not None and not u.abstained for u in self.heard], dtype=np.bool_
        )
        self.probabilities = np.array(
            [u.probabilities for u, e in zip(self.heard, self.estimated, strict=True) if u and e],
            dtype=np.float64,
        ).reshape(-1, len(self.labels))
        """[estimated, labels]."""

    @property
    def groups(self) -> list[str] | None:
        """Speaker of each answer, or None where not every label names one."""
        names = [match.label.speaker for match in self.matches]
        return names if names and all(names) else None

    def figure(self, name: str) -> dict[str, Any]:
        """One of `FIGURES` with its 95 % bootstrap interval over speakers (or over labels)."""
        targets, predictions = self.targets, self.predictions
        if len(targets) == 0:
            return {"value": None, "low": None, "high": None}
        interval = metrics.bootstrap_interval(
            lambda drawn: FIGURES[name](targets[drawn], predictions[drawn]),
            len(targets),
            self.groups,
        )
        return rounded(asdict(interval))


def score(
    answers: Answers, utterances: Sequence[HeardUtterance], matches: Sequence[Match]
) -> dict[str, Any]:
    """All figures of a labelled run, ready for JSON; None where a figure does not exist.

    Args:
        answers: to the labels that name an emotion.
        utterances: all with a final state.
        matches: of the labels whose words are to be compared; empty without a recogniser.
    """
    right = answers.targets == answers.predictions
    intervals = {name: answers.figure(name) for name in FIGURES}
    estimated = answers.targets[answers.estimated]
    words, word_figures = word_error_rate(matches)
    reasons = Counter(u.abstained for u in answers.heard if u is not None and u.abstained)
    result: dict[str, Any] = {
        "utterances": len(answers.targets),
        "missed": sum(u is None for u in answers.heard),
        "abstained": sum(reasons.values()),
        "abstain_reasons": dict(reasons),
        **{name: interval["value"] for name, interval in intervals.items()},
        "intervals": intervals,
        "ece": rounded(metrics.ece(estimated, answers.probabilities)),
        "wer": words,
        "wer_used": word_error_rate(matches, used=True)[0],
        "words": word_figures,
        "answered": {
            "utterances": int(answers.answered.sum()),
            "coverage": rounded(float(answers.answered.mean())) if len(right) else None,
            **{
                name: rounded(
                    figure(answers.targets[answers.answered], answers.predictions[answers.answered])
                )
                for name, figure in FIGURES.items()
            },
        },
        "chance_ua": rounded(metrics.chance_ua(answers.targets)),
        "majority": rounded(metrics.majority(answers.targets)),
        "latency": latency(utterances),
    }
    if len(right):
        result["per_emotion"] = {
            label: rounded(asdict(scores))
            for label, scores in metrics.per_class(
                answers.targets, answers.predictions, answers.labels
            ).items()
        }
        result["confusion"] = {
            "labels": [*answers.labels, "nothing"],
            "counts": metrics.confusion(
                answers.targets, answers.predictions, len(answers.labels) + 1
            ).tolist()[: len(answers.labels)],
        }
        result["reliability"] = [
            rounded(asdict(b)) for b in metrics.reliability(estimated, answers.probabilities)
        ]
    return result


def latency(utterances: Sequence[HeardUtterance]) -> dict[str, dict[str, float]]:
    """Median, 95th and 99th percentile by stage over all final states, s."""
    times = [u.latency for u in utterances if u.latency]
    if not times:
        return {}
    return {
        stage: {
            f"p{q}": round(float(np.percentile([t[stage] for t in times], q)), 5)
            for q in (50, 95, 99)
        }
        for stage in LATENCY_STAGES
    }


def word_error_rate(
    matches: Sequence[Match], used: bool = False
) -> tuple[float | None, dict[str, int] | None]:
    """Word error rate over all labels with a text, and its counts; None where there is no text.

    Case and punctuation do not count. What was missed altogether counts as deleted; with `used`, so do
    words that were recognised and refused.
    """
    pairs = [
        (normal_words(m.label.text), normal_words(m.transcript if used else m.recognised))
        for m in matches
        if m.label.text
    ]
    pairs = [(said, heard) for said, heard in pairs if said]
    if not pairs:
        return None, None
    output = jiwer.process_words([said for said, _ in pairs], [heard for _, heard in pairs])
    counts = {
        "words": output.hits + output.substitutions + output.deletions,
        "substitutions": output.substitutions,
        "deletions": output.deletions,
        "insertions": output.insertions,
    }
    return round(float(output.wer), 4), counts


def rounded(value: Any) -> Any:
    """Six decimals at most; NaN becomes None, so that the JSON is valid."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value
