"""Temperatures and thresholds from the validation side, and an honest figure of what they do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation import metrics
from hri_emo_ros.model.calibration import Calibration, fit_calibration, probabilities
from hri_emo_ros.model.config import Objective
from hri_emo_ros.training.config import TrainConfig
from hri_emo_ros.training.splits import speaker_halves
from hri_emo_ros.training.validation import Predictions

PREDICTIONS_FILE = "validation.npz"
ALONE_FILES = ("validation_voice.npz", "validation_words.npz")
"""The same examples with one modality only, where the head fuses two."""

Stacked = dict[str, np.ndarray]
"""logits and targets [N, L], audio and text [N] bool."""


def calibrate(
    config: TrainConfig, parts: Sequence[Predictions]
) -> tuple[Calibration, dict[str, Any]] | None:
    """Fit on one half of the validation speakers and report on the other, both ways; the bundle gets
    the fit to both halves.

    Args:
        config: of the run; its ``calibration.runs`` replace `parts`.
        parts: predictions in every condition of use.

    Returns:
        The calibration and its report; None where there is nothing to fit on.

    Raises:
        HriEmoError: one of ``calibration.runs`` holds no predictions.
    """
    if config.calibration.runs:
        stacked = _load_runs(config.calibration.runs)
    elif parts:
        stacked = _stack(
            [
                {
                    "logits": p.logits,
                    "targets": p.targets,
                    "audio": p.audio_present,
                    "text": p.text_present,
                }
                for p in parts
            ]
        )
    else:
        return None
    objective = config.model.objective
    everything = np.arange(len(stacked["logits"]))
    calibration = _fit(stacked, everything, objective)
    report: dict[str, Any] = {
        "temperature": {
            "both": calibration.temperature_both, "audio": calibration.temperature_audio,
            "text": calibration.temperature_text,
        },
        "thresholds": calibration.thresholds,
        "abstain_confidence": calibration.abstain_confidence,
    }  # fmt: skip
    if not config.calibration.runs and objective == "single_label":
        examples = [e.item for p in parts for e in p.examples]
        halves = speaker_halves(examples, config.seed)
        if all(halves):
            report["held_out"] = _cross_fitted(stacked, halves, objective)
    return calibration, report


def _fit(stacked: Stacked, rows: np.ndarray, objective: Objective) -> Calibration:
    return fit_calibration(
        torch.from_numpy(stacked["logits"][rows]),
        torch.from_numpy(stacked["targets"][rows]),
        torch.from_numpy(stacked["audio"][rows]),
        torch.from_numpy(stacked["text"][rows]),
        objective,
    )


def _cross_fitted(
    stacked: Stacked, halves: tuple[list[int], list[int]], objective: Objective
) -> dict[str, float]:
    """Calibration error and what abstaining gains, every item judged by the other half's fit."""
    p = np.zeros(stacked["logits"].shape, np.float64)
    for fit_on, report_on in (halves, halves[::-1]):
        fitted = _fit(stacked, np.asarray(fit_on), objective)
        rows = torch.as_tensor(report_on)
        scaled = fitted.scale(
            torch.from_numpy(stacked["logits"])[rows],
            torch.from_numpy(stacked["audio"])[rows],
            torch.from_numpy(stacked["text"])[rows],
        )
        p[report_on] = probabilities(scaled, objective).numpy()
    true = stacked["targets"].argmax(1)
    raw = probabilities(torch.from_numpy(stacked["logits"]), objective).numpy()
    right = p.argmax(1) == true
    return {
        "ece_before": metrics.ece(true, raw),
        "ece_after": metrics.ece(true, p),
        "accuracy": float(right.mean()),
        "gain_from_abstaining_on_20_percent": metrics.accuracy_gain(right, -p.max(1), 0.2),
    }


def _load_runs(folders: Sequence[str]) -> Stacked:
    parts = []
    for folder in folders:
        if not (Path(folder) / PREDICTIONS_FILE).is_file():
            raise HriEmoError(f"'calibration.runs': '{folder}' has no {PREDICTIONS_FILE}")
        for path in (Path(folder) / name for name in (PREDICTIONS_FILE, *ALONE_FILES)):
            if path.is_file():
                parts.append(_load_run(path))
    return _stack(parts)


def _load_run(path: Path) -> Stacked:
    with np.load(path, allow_pickle=False) as archive:
        return {
            "logits": archive["logits"],
            "targets": archive["targets"],
            "audio": archive["audio_present"],
            "text": archive["text_present"],
        }


def _stack(parts: Sequence[Stacked]) -> Stacked:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
