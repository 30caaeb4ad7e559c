# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Figures of merit for emotion recognition, as the field reports them.

Targets and predictions are integer class indices [n] into one label order; probabilities are
[n, classes]. Averages run over the classes that occur in the targets: a corpus that lacks some of
the model's labels is not charged for recalls that do not exist, while a prediction of a lacking
label still counts as the error that it is (the arg max is taken over all of the model's labels).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr
from sklearn.metrics import (
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    recall_score,
)

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

ECE_BINS = 15
"""Guo et al. 2017, "On Calibration of Modern Neural Networks"."""


@dataclass(frozen=True)
class ClassScores:
    """How well one class is told from the others."""

    recall: float
    precision: float
    f1: float
    support: int


@dataclass(frozen=True)
class Interval:
    """A figure with its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions of similar confidence: a calibrated model has accuracy == confidence."""

    confidence: float
    accuracy: float
    count: int


def _indices(values: npt.ArrayLike) -> IntArray:
    return np.asarray(values, dtype=np.int64).reshape(-1)


def confusion(targets: npt.ArrayLike, predictions: npt.ArrayLike, classes: int) -> IntArray:
    """Counts [classes, classes]; rows are true classes, columns predicted ones."""
    return np.asarray(
        confusion_matrix(_indices(targets), _indices(predictions), labels=np.arange(classes)),
        dtype=np.int64,
    )


def ua(targets: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Unweighted average recall over the classes that occur in `targets`, [0, 1]; NaN if empty."""
    true, predicted = _indices(targets), _indices(predictions)
    if true.size == 0:
        return float("nan")
    size = int(max(true.max(), predicted.max())) + 1
    support = np.bincount(true, minlength=size)
    hits = np.bincount(true[true == predicted], minlength=size)
    present = support > 0
    return float(np.mean(hits[present] / support[present]))


def wa(targets: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Weighted accuracy of the speech-emotion literature: the share of items that are right."""
    true, predicted = _indices(targets), _indices(predictions)
    return float(np.mean(true == predicted)) if true.size else float("nan")


def _f1(targets: npt.ArrayLike, predictions: npt.ArrayLike, weighted: bool) -> float:
    true, predicted = _indices(targets), _indices(predictions)
    if true.size == 0:
        return float("nan")
    size = int(max(true.max(), predicted.max())) + 1
    support = np.bincount(true, minlength=size)
    hits = np.bincount(true[true == predicted], minlength=size)
    both = support + np.bincount(predicted, minlength=size)
    present = support > 0
    f1 = 2.0 * hits[present] / both[present]
    return float(np.average(f1, weights=support[present] if weighted else None))


def macro_f1(targets: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Mean F1 over the classes that occur in `targets`."""
    return _f1(targets, predictions, weighted=False)


def weighted_f1(targets: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """F1 averaged with the classes' frequencies in `targets`."""
    return _f1(targets, predictions, weighted=True)


def per_class(
    targets: npt.ArrayLike, predictions: npt.ArrayLike, labels: Sequence[str]
) -> dict[str, ClassScores]:
    """Scores of every label; recall and F1 are NaN where the label does not occur."""
    precision, recall, f1, support = precision_recall_fscore_support(
        _indices(targets),
        _indices(predictions),
        labels=np.arange(len(labels)),
        zero_division=0.0,
    )
    absent = np.asarray(support) == 0
    recall, f1 = np.where(absent, np.nan, recall), np.where(absent, np.nan, f1)
    return {
        label: ClassScores(float(recall[i]), float(precision[i]), float(f1[i]), int(support[i]))
        for i, label in enumerate(labels)
    }


def reliability(
    targets: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = ECE_BINS
) -> list[ReliabilityBin]:
    """The filled bins of the reliability diagram over the predicted class's probability.

    Bins have equal width over [0, 1], as in Guo et al. 2017, so that figures compare with
    published ones.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if len(p) == 0:
        return []
    confidence = p.max(axis=1)
    right = p.argmax(axis=1) == _indices(targets)
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return [
        ReliabilityBin(
            float(confidence[which == b].mean()), float(right[which == b].mean()), int(count)
        )
        for b, count in enumerate(np.bincount(which, minlength=bins))
        if count
    ]


def ece(targets: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = ECE_BINS) -> float:
    """Expected calibration error of the predicted class: mean |accuracy - confidence| over bins.

    `bins` of equal width, each weighted with its count (Guo et al. 2017, eq. 3); NaN if empty.
    """
    filled = reliability(targets, probabilities, bins)
    total = sum(b.count for b in filled)
    if total == 0:
        return float("nan")
    return sum(b.count * abs(b.accuracy - b.confidence) for b in filled) / total


def multilabel_ece(
    targets: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = ECE_BINS
) -> float:
    """Expected calibration error over every (item, label) pair.

    Args:
        targets: [n, labels] in {0, 1}.
        probabilities: [n, labels] in [0, 1].
    """
    p = np.asarray(probabilities, dtype=np.float64).reshape(-1)
    y = np.asarray(targets, dtype=np.float64).reshape(-1)
    if p.size == 0:
        return float("nan")
    which = np.clip(np.ceil(p * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    gap = np.bincount(which, weights=y - p, minlength=bins)
    return float(np.sum(np.abs(gap)) / np.sum(count))


def bootstrap_interval(
    statistic: Callable[[IntArray], float],
    size: int,
    groups: Sequence[str] | npt.NDArray[np.str_] | None = None,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a figure.

    Args:
        statistic: takes the indices [m] of the drawn items (with repeats) and returns the figure.
        size: number of items.
        groups: one name per item (a speaker). Whole groups are drawn where there are at least two
            of them, because clips of one speaker are not independent; else items are drawn.
        level: coverage, (0, 1).
        draws: number of resamples.
        seed: the same seed gives the same interval.
    """
    everything = np.arange(size, dtype=np.int64)
    if size == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    names = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    members: list[IntArray] = []
    if names is not None and len(np.unique(names)) >= 2:
        members = [np.flatnonzero(names == k).astype(np.int64) for k in np.unique(names)]
    values = np.empty(draws)
    for d in range(draws):
        if members:
            picked = np.concatenate(
                [members[k] for k in rng.integers(len(members), size=len(members))]
            )
        else:
            picked = rng.integers(size, size=size)
        values[d] = statistic(picked)
    tail = 100.0 * (1.0 - level) / 2.0
    low, high = np.nanpercentile(values, [tail, 100.0 - tail])
    return Interval(float(statistic(everything)), float(low), float(high))


def figure_interval(
    function: Callable[[npt.ArrayLike, npt.ArrayLike], float],
    targets: npt.ArrayLike,
    predictions: npt.ArrayLike,
    groups: Sequence[str] | npt.NDArray[np.str_] | None = None,
) -> Interval:
    """`bootstrap_interval` of a figure of targets and predictions."""
    true, answer = np.asarray(targets), np.asarray(predictions)
    return bootstrap_interval(lambda rows: function(true[rows], answer[rows]), len(true), groups)


def multilabel(present: npt.NDArray[np.bool_], probabilities: FloatArray) -> dict[str, float]:
    """Figures of multi-label answers [n, labels] at 0.5: macro and weighted F1 over the labels that occur, the
    mean balanced accuracy of these as ``ua`` (always "yes" gets 0.5), accuracy as ``wa``, and calibration."""
    answer, occurs = probabilities >= 0.5, present.any(0)
    true, said = present[:, occurs], answer[:, occurs]
    balanced = [
        (recall_score(t, a, zero_division=0.0) + recall_score(~t, ~a, zero_division=0.0)) / 2
        for t, a in zip(true.T, said.T, strict=True)
    ]
    f1 = partial(f1_score, true, zero_division=0.0)
    return {
        "n": float(len(present)),
        "ua": float(np.mean(balanced)),
        "wa": float((present == answer).mean()),
        "macro_f1": float(f1(said, average="macro")),
        "weighted_f1": float(f1(said, average="weighted")),
        "always_yes_macro_f1": float(f1(np.ones_like(true), average="macro")),
        "ece": multilabel_ece(present, probabilities),
    }


def coverage_accuracy(
    correct: npt.ArrayLike, uncertainty: npt.ArrayLike, points: int = 101
) -> tuple[FloatArray, FloatArray]:
    """Accuracy on the most certain share of the items, for shares from 0 (exclusive) to 1.

    Args:
        correct: [n] bool.
        uncertainty: [n]; larger is less certain.

    Returns:
        coverage [points] ascending to 1 and accuracy [points].
    """
    right = np.asarray(correct, dtype=np.float64).reshape(-1)
    order = np.argsort(np.asarray(uncertainty, dtype=np.float64).reshape(-1), kind="stable")
    running = np.cumsum(right[order]) / np.arange(1, len(right) + 1)
    coverage = np.linspace(0.0, 1.0, points + 1, dtype=np.float64)[1:]
    index = np.clip(np.round(coverage * len(right)).astype(np.int64), 1, len(right)) - 1
    return coverage, np.asarray(running[index], dtype=np.float64)


def accuracy_gain(
    correct: npt.ArrayLike, uncertainty: npt.ArrayLike, abstain: float = 0.2
) -> float:
    """By how much accuracy rises when the least certain share `abstain` is not answered."""
    right = np.asarray(correct, dtype=np.float64).reshape(-1)
    order = np.argsort(np.asarray(uncertainty, dtype=np.float64).reshape(-1), kind="stable")
    kept = order[: max(1, round((1.0 - abstain) * len(right)))]
    return float(right[kept].mean() - right.mean())


def rank_correlation(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Spearman's rho; NaN where either side is constant."""
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(first) < 2 or np.ptp(first) == 0.0 or np.ptp(second) == 0.0:
        return float("nan")
    return float(spearmanr(first, second).statistic)


def chance_ua(targets: npt.ArrayLike) -> float:
    """Unweighted average recall of guessing among the classes that occur."""
    present = len(np.unique(_indices(targets)))
    return 1.0 / present if present else float("nan")


def majority(targets: npt.ArrayLike) -> dict[str, float]:
    """UA, WA and F1s of always answering the most frequent class."""
    true = _indices(targets)
    if true.size == 0:
        return {name: float("nan") for name in ("ua", "wa", "macro_f1", "weighted_f1")}
    always = np.full(len(true), np.bincount(true).argmax(), dtype=np.int64)
    return {
        "ua": ua(true, always),
        "wa": wa(true, always),
        "macro_f1": macro_f1(true, always),
        "weighted_f1": weighted_f1(true, always),
    }
