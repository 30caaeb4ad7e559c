# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Calibration: fitted on one split, better on another."""

from __future__ import annotations

import numpy as np
import pytest

from hri_emo_ros.model.answer import log_softmax
from hri_emo_ros.model.calibration import Calibration, probabilities
from hri_emo_ros.training.calibration import fit_calibration, fit_thresholds


def overconfident(rng, count, temperature, labels=4, audio=True, text=False, shares=(0.0, 0.0)):
    """Logits that are `temperature` times too large, and targets drawn from the true ones."""
    true = rng.normal(size=(count, labels)) * 1.5
    p = np.exp(log_softmax(true))
    targets = np.eye(labels)[[int(rng.choice(labels, p=row)) for row in p]]
    return {"logits": true * temperature, "targets": targets, "audio": np.full(count, audio),
            "text": np.full(count, text), "shares": np.tile(shares, (count, 1))}  # fmt: skip


def joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_the_temperature_is_recovered_for_each_condition():
    rng = np.random.default_rng(0)
    fitted = fit_calibration(
        joined(
            [
                overconfident(rng, 1500, 3.0),
                overconfident(rng, 1500, 0.5, audio=False, text=True),
                overconfident(rng, 1500, 1.5, text=True),
            ]
        ),
        "single_label",
    )
    assert fitted.temperature_audio[0] == pytest.approx(3.0, rel=0.2)
    assert fitted.temperature_text[0] == pytest.approx(0.5, rel=0.2)
    assert fitted.temperature_both[0] == pytest.approx(1.5, rel=0.2)


def test_a_condition_with_few_utterances_takes_the_joint_temperature():
    fitted = fit_calibration(overconfident(np.random.default_rng(0), 500, 2.0), "single_label")
    assert fitted.temperature_both == fitted.temperature_text == fitted.temperature_audio


def test_what_is_known_of_a_voice_and_its_room_has_factors_of_its_own():
    rng = np.random.default_rng(3)
    unknown, room, voice = (
        overconfident(rng, 3000, t, shares=shares)
        for t, shares in ((4.0, (0.0, 0.0)), (2.0, (0.0, 1.0)), (1.0, (1.0, 0.0)))
    )
    fitted = fit_calibration(joined([unknown, room, voice]), "single_label")
    assert fitted.temperature_audio[0] == pytest.approx(4.0, rel=0.2)
    assert fitted.known_audio == pytest.approx((0.25, 0.5), rel=0.2)
    one, yes = unknown["logits"][:1], np.ones(1, bool)
    halfway = fitted.scale(one, yes, ~yes, np.array([[0.5, 0.0]]))
    np.testing.assert_allclose(halfway, one / 2.0, rtol=0.2)


def test_calibration_lowers_the_loss_on_another_split():
    rng = np.random.default_rng(1)
    fitted = fit_calibration(overconfident(rng, 800, 4.0, text=True), "single_label")
    fresh = overconfident(rng, 800, 4.0, text=True)

    def loss(logits: np.ndarray) -> float:
        return float(-(log_softmax(logits) * fresh["targets"]).sum(1).mean())

    scaled = fitted.scale(fresh["logits"], fresh["audio"], fresh["text"])
    assert loss(scaled) < loss(fresh["logits"]) - 0.1


def test_multi_label_models_have_a_temperature_per_label():
    rng = np.random.default_rng(2)
    true = rng.normal(size=(4000, 2)) * 2
    both = overconfident(rng, 4000, 1.0, text=True) | {
        "targets": (rng.random((4000, 2)) < 1 / (1 + np.exp(-true))) * 1.0,
        "logits": true * [4.0, 0.5],
    }
    fitted = fit_calibration(both, "multi_label")
    assert fitted.temperature_both == pytest.approx([4.0, 0.5], rel=0.2)


def test_thresholds_have_the_greatest_f1():
    p = np.array([[0.9], [0.8], [0.3], [0.3], [0.1]])
    present = np.array([[True], [True], [True], [False], [False]])
    (threshold,) = fit_thresholds(p, present)
    # Above 0.8: F1 = 0.8; down to 0.3: 3 hits among 4, F1 = 6 / 7.
    assert 0.1 < threshold < 0.3
    assert fit_thresholds(p, np.zeros_like(present)) == [0.5]


def test_the_abstention_level_leaves_out_one_answer_in_ten():
    voices = overconfident(np.random.default_rng(3), 1000, 1.0)
    fitted = fit_calibration(voices, "single_label")
    p = probabilities(
        fitted.scale(voices["logits"], voices["audio"], voices["text"]), "single_label"
    )
    share = (p.max(-1) < fitted.abstain_confidence).mean()
    assert share == pytest.approx(0.1, abs=0.01)


def test_impossible_temperatures_are_refused():
    good = Calibration.identity(3).model_dump()
    for wrong in ([0.0], [1.0, 1.0], []):
        with pytest.raises(ValueError):
            Calibration.model_validate(good | {"temperature_both": wrong})
