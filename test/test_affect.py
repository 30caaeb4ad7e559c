# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Valence and arousal: positions of the emotions, from the bundle's configuration to the estimate."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_config, tiny_model

from hri_emo_ros.engine import EmotionEngine
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.affect import POSITIONS, SOURCE, expectation, known_positions
from hri_emo_ros.model.bundle import load_bundle, save_bundle
from hri_emo_ros.types import LABELS, Transcript


def test_certainty_of_one_emotion_is_its_position_and_a_mixture_lies_between() -> None:
    positions = np.array([POSITIONS[label] for label in LABELS])
    angry = np.eye(len(LABELS), dtype=np.float32)[LABELS.index("angry")]
    assert expectation(angry, positions) == pytest.approx(POSITIONS["angry"])
    neutral = np.eye(len(LABELS), dtype=np.float32)[LABELS.index("neutral")]
    halfway = expectation((angry + neutral) / 2, positions)
    assert halfway == pytest.approx([value / 2 for value in POSITIONS["angry"]])
    # Of a multi-label model: the probabilities need not sum to 1.
    assert expectation(angry + neutral, positions) == pytest.approx(halfway)


def test_the_shipped_bundle_has_positions_with_their_source() -> None:
    bundle = load_bundle()
    assert bundle.affect == known_positions(bundle.labels)
    assert bundle.affect_source == SOURCE


def test_a_new_bundle_gets_positions_and_its_estimates_have_both(tmp_path: Path) -> None:
    folder = save_bundle(tiny_model(tiny_config()), tmp_path / "new")
    estimate = EmotionEngine(folder, threads=1).estimate(None, Transcript("what a day"))
    expected = np.array([POSITIONS[label] for label in estimate.labels])
    mean = estimate.probabilities.astype(np.float64) @ expected
    assert (estimate.valence, estimate.arousal) == pytest.approx(tuple(mean), abs=1e-6)


def test_without_positions_both_are_unknown(tmp_path: Path) -> None:
    unknown = tiny_config(labels=("calm", "bored"))
    folder = save_bundle(tiny_model(unknown), tmp_path / "other")
    assert json.loads((folder / "config.json").read_text())["affect"] == {}
    estimate = EmotionEngine(folder, threads=1).estimate(None, Transcript("what a day"))
    assert math.isnan(estimate.valence)
    assert math.isnan(estimate.arousal)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"affect": {"happy": [0.8, 0.5]}}, "must have the labels: neutral, happy"),
        ({"affect": {label: [0.0, 1.5] for label in LABELS}}, r"each in \[-1, 1\]"),
        ({"affect_source": ""}, "affect_source must say"),
    ],
)
def test_positions_that_cannot_be_used_are_refused(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    folder = save_bundle(tiny_model(tiny_config()), tmp_path / "broken")
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(HriEmoError, match=says):
        load_bundle(folder)
