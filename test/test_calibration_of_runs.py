# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Temperatures that a run takes from its folds, and the figure that says what they are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hri_emo_ros.training.calibration import calibrate


def report(*runs: Path) -> dict[str, Any]:
    fitted = calibrate([], [str(folder) for folder in runs], "single_label", 0)
    assert fitted is not None
    return fitted[1]


@pytest.fixture
def folds(tmp_path: Path) -> list[Path]:
    """Runs whose logits are three times too sharp, twice, and right: 300 voices and 100 texts each."""
    rng = np.random.default_rng(0)
    folders = []
    for fold, sharpness in enumerate((3.0, 3.0, 1.0)):
        logits = rng.normal(0.0, 1.5, (400, 7))
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        true = [rng.choice(7, p=row) for row in p]
        folders.append(tmp_path / f"fold{fold}")
        folders[-1].mkdir()
        voice = np.arange(400) < 300
        np.savez(
            folders[-1] / "validation.npz", logits=(sharpness * logits).astype(np.float32),
            targets=np.eye(7, dtype=np.float32)[true], audio=voice, text=~voice,
            shares=np.zeros((400, 2), np.float32),
        )  # fmt: skip
    return folders


def test_the_voice_is_calibrated_on_other_folds_than_it_is_reported_on(folds):
    alike = report(*folds[:2])["held_out_voice"]
    assert alike["n"] == 600
    assert alike["ece_before"] > 0.15 and alike["ece_after"] < 0.06
    # A fold is not helped by a temperature of its own: the third needs another than the rest.
    assert report(folds[0], folds[2])["held_out_voice"]["ece_after"] > 0.15
    assert "held_out_voice" not in report(folds[0])


def test_runs_without_a_voice_say_nothing_of_it(folds):
    for folder in folds:
        with np.load(folder / "validation.npz") as stored:
            values = dict(stored)
        values |= {"audio": ~np.ones(400, bool), "text": np.ones(400, bool)}
        np.savez(folder / "validation.npz", **values)
    assert "held_out_voice" not in report(*folds)
