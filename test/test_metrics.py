# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The figures of merit, against sklearn and against cases worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from hri_emo_ros.data import metrics


@pytest.fixture
def outcome() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 200)
    return true, np.where(rng.random(200) < 0.6, true, rng.integers(0, 7, 200))


def test_recall_and_f1_agree_with_sklearn_over_the_classes_that_occur(outcome):
    true, predicted = outcome
    present = np.unique(true)
    with pytest.warns(UserWarning):
        expected = balanced_accuracy_score(true, predicted)
    assert metrics.ua(true, predicted) == pytest.approx(expected)
    assert metrics.wa(true, predicted) == pytest.approx(np.mean(true == predicted))
    for ours, average in ((metrics.macro_f1, "macro"), (metrics.weighted_f1, "weighted")):
        expected = f1_score(true, predicted, labels=present, average=average)
        assert ours(true, predicted) == pytest.approx(expected)


def test_a_label_that_never_occurs_has_no_recall_and_is_left_out_of_the_average():
    scores = metrics.per_class([0, 0, 1], [0, 2, 1], ("a", "b", "c"))
    assert scores["a"].recall == 0.5
    assert np.isnan(scores["c"].recall) and scores["c"].support == 0
    assert metrics.ua([0, 0, 1], [0, 2, 1]) == pytest.approx(0.75)


def test_confusion_has_true_classes_in_rows():
    assert metrics.confusion([0, 0, 1], [0, 2, 1], 3).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_ece_is_zero_for_a_calibrated_model_and_the_gap_for_an_overconfident_one():
    probabilities = np.tile([0.75, 0.25], (100, 1))
    assert metrics.ece([0] * 75 + [1] * 25, probabilities) == pytest.approx(0.0)
    assert metrics.ece([0] * 50 + [1] * 50, probabilities) == pytest.approx(0.25)
    assert metrics.multilabel_ece(np.ones((10, 2)), np.full((10, 2), 0.6)) == pytest.approx(0.4)


def test_bootstrap_draws_whole_speakers():
    # Two speakers, one always right and one always wrong: only 0, 0.5 and 1 can be drawn.
    correct = np.repeat([1.0, 0.0], 50)
    speakers = np.repeat(["a", "b"], 50)
    seen: set[float] = set()

    def mean(index):
        seen.add(float(correct[index].mean()))
        return float(correct[index].mean())

    interval = metrics.bootstrap_interval(mean, 100, speakers, draws=200)
    assert seen == {0.0, 0.5, 1.0}
    assert (interval.value, interval.low, interval.high) == (0.5, 0.0, 1.0)


def test_bootstrap_by_item_covers_the_standard_error_and_repeats_with_its_seed():
    correct = np.random.default_rng(1).random(400) < 0.7
    first = metrics.bootstrap_interval(lambda i: float(correct[i].mean()), 400)
    again = metrics.bootstrap_interval(lambda i: float(correct[i].mean()), 400)
    assert first == again
    half = 1.96 * np.sqrt(0.7 * 0.3 / 400)
    assert first.high - first.low == pytest.approx(2 * half, rel=0.15)


def test_abstaining_on_the_uncertain_raises_accuracy():
    correct = np.array([1, 1, 1, 1, 0])
    uncertainty = np.array([0.1, 0.2, 0.3, 0.4, 0.9])
    coverage, accuracy = metrics.coverage_accuracy(correct, uncertainty, points=5)
    assert coverage.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert accuracy.tolist() == pytest.approx([1, 1, 1, 1, 0.8])
    assert metrics.accuracy_gain(correct, uncertainty) == pytest.approx(0.2)


def test_rank_correlation_sees_order_only():
    assert metrics.rank_correlation([1, 2, 3], [1, 20, 300]) == pytest.approx(1.0)
    assert np.isnan(metrics.rank_correlation([1, 1, 1], [1, 2, 3]))


def test_baselines_of_guessing_and_of_the_majority():
    assert metrics.chance_ua([0, 0, 3]) == 0.5
    assert metrics.majority([0, 0, 3])["wa"] == pytest.approx(2 / 3)
    assert metrics.majority([0, 0, 3])["ua"] == 0.5


def test_nothing_scored_gives_nan_not_a_crash():
    assert np.isnan(metrics.ua([], [])) and np.isnan(metrics.ece([], np.zeros((0, 7))))
