# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Temperatures and thresholds from people who were not trained on, and an honest figure of what they do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hri_emo_ros.data import metrics
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.calibration import Calibration, probabilities
from hri_emo_ros.model.config import Objective
from hri_emo_ros.training.predictions import Predictions
from hri_emo_ros.training.splits import speaker_halves
from hri_emo_ros.training.temperatures import fit_calibration

PREDICTIONS = "validation*.npz"
"""A run's predictions: as the examples are, and with one modality only where the head fuses two."""

_NAMES = ("logits", "targets", "audio", "text", "shares")
Stacked = dict[str, np.ndarray]
"""logits and targets [N, L], audio and text (present) [N] bool, shares [N, 2]."""


def calibrate(
    parts: Sequence[Predictions], runs: Sequence[str], objective: Objective, seed: int
) -> tuple[Calibration, dict[str, Any]] | None:
    """Fit on one half of the validation speakers and report on the other, both ways; the bundle gets
    the fit to both halves. With `runs`, fit on all but one and report on that one, each in turn; the bundle
    gets the fit to all.

    Args:
        parts: predictions in every condition of use.
        runs: folders of runs of the same recipe, which replace `parts`.
        seed: of the halves.

    Returns:
        The calibration and its report; None where there is nothing to fit on.

    Raises:
        HriEmoError: one of the runs holds no predictions.
    """
    groups = [_load_run(Path(folder)) for folder in runs]
    if not runs:
        if not parts:
            return None
        items = [example.item for part in parts for example in part.examples]
        whole = _stack([part.arrays() for part in parts])
        halves = [np.asarray(half, dtype=np.int64) for half in speaker_halves(items, seed)]
        groups = [_rows(whole, half) for half in halves if len(half)]
    together = _stack(groups)
    calibration = _fit(together, objective)
    report: dict[str, Any] = {
        "temperature": {
            "both": calibration.temperature_both, "audio": calibration.temperature_audio,
            "text": calibration.temperature_text,
        },
        "known": {"both": calibration.known_both, "audio": calibration.known_audio},
        "thresholds": calibration.thresholds,
        "abstain_confidence": calibration.abstain_confidence,
    }  # fmt: skip
    if objective == "single_label" and len(groups) > 1:
        report["held_out"] = _held_out(groups, objective)
        voices = [_rows(group, group["audio"] & ~group["text"]) for group in groups]
        voices = [voice for voice in voices if len(voice["logits"])]
        if len(voices) > 1:
            report["held_out_voice"] = _held_out(voices, objective)
    return calibration, report


def _fit(stacked: Stacked, objective: Objective) -> Calibration:
    logits, targets, audio, text, shares = (torch.from_numpy(stacked[name]) for name in _NAMES)
    return fit_calibration(logits, targets, audio, text, objective, shares=shares)


def _held_out(groups: Sequence[Stacked], objective: Objective) -> dict[str, float]:
    """Calibration error and what abstaining gains, each group judged by the others' fit. All together: of a
    few hundred clips even a perfectly calibrated answer has an error of 0.05."""
    p = []
    for index, group in enumerate(groups):
        others = _stack([other for k, other in enumerate(groups) if k != index])
        p.append(_scaled(_fit(others, objective), group, objective))
    whole, judged = _stack(groups), np.concatenate(p)
    true = whole["targets"].argmax(1)
    raw = probabilities(whole["logits"], objective)
    right = judged.argmax(1) == true
    return {
        "n": float(len(true)),
        "groups": float(len(groups)),
        "ece_before": metrics.ece(true, raw),
        "ece_after": metrics.ece(true, judged),
        "accuracy": float(right.mean()),
        "gain_from_abstaining_on_20_percent": metrics.accuracy_gain(right, -judged.max(1), 0.2),
    }


def _scaled(calibration: Calibration, stacked: Stacked, objective: Objective) -> np.ndarray:
    """Calibrated probabilities [N, L]."""
    names = ("logits", "audio", "text", "shares")
    return probabilities(calibration.scale(*(stacked[name] for name in names)), objective)


def _load_run(folder: Path) -> Stacked:
    """A run's predictions in every condition that it has."""
    parts = []
    for path in sorted(folder.glob(PREDICTIONS)):
        with np.load(path, allow_pickle=False) as archive:
            parts.append({name: archive[name] for name in _NAMES})
    if not parts:
        raise HriEmoError(f"'calibrate_on': '{folder}' holds no predictions ({PREDICTIONS})")
    return _stack(parts)


def _stack(parts: Sequence[Stacked]) -> Stacked:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _rows(stacked: Stacked, rows: np.ndarray) -> Stacked:
    """Those of an index or a mask."""
    return {name: values[rows] for name, values in stacked.items()}
