"""Temperatures and thresholds from the validation side, and an honest figure of what they do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hri_emo_ros.data import metrics
from hri_emo_ros.errors import HriEmoError
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
    calibration = _fit(stacked, objective)
    report: dict[str, Any] = {
        "temperature": {
            "both": calibration.temperature_both, "audio": calibration.temperature_audio,
            "text": calibration.temperature_text,
        },
        "thresholds": calibration.thresholds,
        "abstain_confidence": calibration.abstain_confidence,
    }  # fmt: skip
    voices = [_rows(run, run["audio"] & ~run["text"]) for run in runs]
    voices = [voice for voice in voices if len(voice["logits"])]
    if objective == "single_label" and len(voices) > 1:
        report["held_out_voice"] = _held_out(voices, objective)
    if objective == "single_label" and not runs:
        examples = [e.item for p in parts for e in p.examples]
        halves = speaker_halves(examples, config.seed)
        if all(halves):
            report["held_out"] = _cross_fitted(stacked, halves, objective)
    return calibration, report


def _fit(stacked: Stacked, objective: Objective) -> Calibration:
    names = ("logits", "targets", "audio", "text")
    logits, targets, audio, text = (torch.from_numpy(stacked[name]) for name in names)
    return fit_calibration(logits, targets, audio, text, objective)


def _cross_fitted(
    stacked: Stacked, halves: tuple[list[int], list[int]], objective: Objective
) -> dict[str, float]:
    """Calibration error and what abstaining gains, every item judged by the other half's fit."""
    p = np.zeros(stacked["logits"].shape, np.float64)
    for fit_on, report_on in (halves, halves[::-1]):
        fitted = _fit(_rows(stacked, np.asarray(fit_on)), objective)
        p[report_on] = _scaled(fitted, _rows(stacked, np.asarray(report_on)), objective)
    return _figures(stacked, p, objective)


def _held_out(runs: Sequence[Stacked], objective: Objective) -> dict[str, float]:
    """The same of several runs, each judged by the others' fit. All together: of a few hundred clips even
    a perfectly calibrated answer has an error of 0.05."""
    p = []
    for index, run in enumerate(runs):
        others = _stack([other for k, other in enumerate(runs) if k != index])
        p.append(_scaled(_fit(others, objective), run, objective))
    return _figures(_stack(runs), np.concatenate(p), objective)


def _scaled(calibration: Calibration, stacked: Stacked, objective: Objective) -> np.ndarray:
    """Calibrated probabilities [N, L]."""
    logits, audio, text = (torch.from_numpy(stacked[n]) for n in ("logits", "audio", "text"))
    return np.asarray(probabilities(calibration.scale(logits, audio, text), objective).numpy())


def _figures(stacked: Stacked, p: np.ndarray, objective: Objective) -> dict[str, float]:
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


def _rows(stacked: Stacked, rows: np.ndarray) -> Stacked:
    """Those of an index or a mask."""
    return {name: values[rows] for name, values in stacked.items()}
