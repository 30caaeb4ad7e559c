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
    the fit to both halves. With ``calibration.runs``, fit on all runs but one and report on that one, each
    in turn; the bundle gets the fit to all.

    Args:
        config: of the run; its ``calibration.runs`` replace `parts`.
        parts: predictions in every condition of use.

    Returns:
        The calibration and its report; None where there is nothing to fit on.

    Raises:
        HriEmoError: one of ``calibration.runs`` holds no predictions.
    """
    runs: list[Stacked] = []
    if config.calibration.runs:
        runs = [_load_run(Path(folder)) for folder in config.calibration.runs]
        stacked = _stack(runs)
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
    if objective == "single_label" and len(runs) > 1:
        report["held_out_voice"] = _held_out_voice(runs, objective)
    if objective == "single_label" and not runs:
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
        p[report_on] = _scaled(fitted, stacked, np.asarray(report_on), objective)
    return _honest(stacked, p, objective)


def _held_out_voice(runs: Sequence[Stacked], objective: Objective) -> dict[str, float]:
    """The same of the voice alone, every run judged by the other runs' fit. All runs together: of a few
    hundred clips even a perfectly calibrated answer has an error of 0.05."""
    voices = [
        {name: values[run["audio"] & ~run["text"]] for name, values in run.items()} for run in runs
    ]
    p = []
    for index, voice in enumerate(voices):
        others = _stack([v for k, v in enumerate(voices) if k != index])
        fitted = _fit(others, np.arange(len(others["logits"])), objective)
        p.append(_scaled(fitted, voice, np.arange(len(voice["logits"])), objective))
    return _honest(_stack(voices), np.concatenate(p), objective)


def _scaled(
    calibration: Calibration, stacked: Stacked, rows: np.ndarray, objective: Objective
) -> np.ndarray:
    """Calibrated probabilities [rows, L]."""
    logits, audio, text = (torch.from_numpy(stacked[n][rows]) for n in ("logits", "audio", "text"))
    return np.asarray(probabilities(calibration.scale(logits, audio, text), objective).numpy())


def _honest(stacked: Stacked, p: np.ndarray, objective: Objective) -> dict[str, float]:
    """Figures of probabilities [N, L] that were calibrated on other speakers."""
    true = stacked["targets"].argmax(1)
    raw = probabilities(torch.from_numpy(stacked["logits"]), objective).numpy()
    right = p.argmax(1) == true
    return {
        "n": float(len(true)),
        "ece_before": metrics.ece(true, raw),
        "ece_after": metrics.ece(true, p),
        "accuracy": float(right.mean()),
        "gain_from_abstaining_on_20_percent": metrics.accuracy_gain(right, -p.max(1), 0.2),
    }


def _load_run(folder: Path) -> Stacked:
    """A run's predictions in every condition that it has."""
    if not (folder / PREDICTIONS_FILE).is_file():
        raise HriEmoError(f"'calibration.runs': '{folder}' has no {PREDICTIONS_FILE}")
    parts = []
    for path in (folder / name for name in (PREDICTIONS_FILE, *ALONE_FILES)):
        if not path.is_file():
            continue
        with np.load(path, allow_pickle=False) as archive:
            parts.append(
                {
                    "logits": archive["logits"],
                    "targets": archive["targets"],
                    "audio": archive["audio_present"],
                    "text": archive["text_present"],
                }
            )
    return _stack(parts)


def _stack(parts: Sequence[Stacked]) -> Stacked:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
