# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Calibration: fitted on one split, better on another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hri_emo_ros.model.calibration import Calibration, probabilities
from hri_emo_ros.training.temperatures import fit_calibration, fit_thresholds


def overconfident(rng, count, temperature, labels=4):
    """Logits that are `temperature` times too large, and targets drawn from the true ones."""
    true = torch.from_numpy(rng.normal(size=(count, labels)) * 1.5)
    p = torch.softmax(true, -1).numpy()
    targets = torch.tensor([int(rng.choice(labels, p=row)) for row in p])
    return true * temperature, targets


def flags(count, value):
    return torch.full((count,), value)


def test_the_temperature_is_recovered_for_each_condition():
    rng = np.random.default_rng(0)
    parts = [overconfident(rng, 1500, t) for t in (3.0, 0.5, 1.5)]
    audio = torch.cat([flags(1500, True), flags(1500, False), flags(1500, True)])
    text = torch.cat([flags(1500, False), flags(1500, True), flags(1500, True)])
    fitted = fit_calibration(
        torch.cat([logits for logits, _ in parts]), torch.cat([t for _, t in parts]),
        audio, text, "single_label",
    )  # fmt: skip
    assert fitted.temperature_audio[0] == pytest.approx(3.0, rel=0.2)
    assert fitted.temperature_text[0] == pytest.approx(0.5, rel=0.2)
    assert fitted.temperature_both[0] == pytest.approx(1.5, rel=0.2)


def test_a_condition_with_few_utterances_takes_the_joint_temperature():
    logits, targets = overconfident(np.random.default_rng(0), 500, 2.0)
    fitted = fit_calibration(logits, targets, flags(500, True), flags(500, False), "single_label")
    assert fitted.temperature_both == fitted.temperature_text == fitted.temperature_audio


def test_what_is_known_of_a_voice_and_its_room_has_factors_of_its_own():
    rng = np.random.default_rng(3)
    parts = [
        overconfident(rng, 3000, t) for t in (4.0, 2.0, 1.0)
    ]  # an unknown voice, a known room, a known voice
    shares = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).repeat_interleave(3000, dim=0)
    logits, targets = (torch.cat(x) for x in zip(*parts, strict=True))
    audio, text = flags(9000, True), flags(9000, False)
    fitted = fit_calibration(logits, targets, audio, text, "single_label", shares=shares)
    assert fitted.temperature_audio[0] == pytest.approx(4.0, rel=0.2)
    assert fitted.known_audio == pytest.approx((0.25, 0.5), rel=0.2)
    one = logits[:1].numpy()
    halfway = fitted.scale(one, audio[:1].numpy(), text[:1].numpy(), np.array([[0.5, 0.0]]))
    np.testing.assert_allclose(halfway, one / 2.0, rtol=0.2)


def test_calibration_lowers_the_loss_on_another_split():
    rng = np.random.default_rng(1)
    logits, targets = overconfident(rng, 800, 4.0)
    fitted = fit_calibration(logits, targets, flags(800, True), flags(800, True), "single_label")
    fresh, answers = overconfident(rng, 800, 4.0)
    yes = flags(800, True).numpy()
    scaled = torch.from_numpy(fitted.scale(fresh.numpy(), yes, yes))
    loss = torch.nn.functional.cross_entropy
    assert loss(scaled, answers) < loss(fresh, answers) - 0.1


def test_multi_label_models_have_a_temperature_per_label():
    rng = np.random.default_rng(2)
    true = torch.from_numpy(rng.normal(size=(4000, 2)) * 2)
    targets = torch.from_numpy((rng.random((4000, 2)) < torch.sigmoid(true).numpy()) * 1.0)
    logits = true * torch.tensor([4.0, 0.5])
    yes = flags(4000, True)
    fitted = fit_calibration(logits, targets, yes, yes, "multi_label")
    assert fitted.temperature_both == pytest.approx([4.0, 0.5], rel=0.2)


def test_thresholds_have_the_greatest_f1():
    p = np.array([[0.9], [0.8], [0.3], [0.3], [0.1]])
    present = np.array([[True], [True], [True], [False], [False]])
    (threshold,) = fit_thresholds(p, present)
    # Above 0.8: F1 = 0.8; down to 0.3: 3 hits among 4, F1 = 6 / 7.
    assert 0.1 < threshold < 0.3
    assert fit_thresholds(p, np.zeros_like(present)) == [0.5]


def test_the_abstention_level_leaves_out_the_wanted_share():
    logits, targets = overconfident(np.random.default_rng(3), 1000, 1.0)
    yes = flags(1000, True)
    fitted = fit_calibration(logits, targets, yes, yes, "single_label", abstain_share=0.2)
    p = probabilities(fitted.scale(logits.numpy(), yes.numpy(), yes.numpy()), "single_label")
    share = (p.max(-1) < fitted.abstain_confidence).mean()
    assert share == pytest.approx(0.2, abs=0.01)


def test_impossible_temperatures_are_refused():
    good = Calibration.identity(3).model_dump()
    for wrong in ([0.0], [1.0, 1.0], []):
        with pytest.raises(ValueError):
            Calibration.model_validate(good | {"temperature_both": wrong})
