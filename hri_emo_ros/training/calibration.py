# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Temperatures and thresholds from people who were not trained on, and an honest figure of what they do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hri_emo_ros.data import metrics
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.calibration import Calibration, probabilities
from hri_emo_ros.model.config import Objective
from hri_emo_ros.training.predictions import Predictions
from hri_emo_ros.training.splits import speaker_halves

PREDICTIONS = "validation*.npz"
"""A run's predictions: as the examples are, and with one modality only where the head fuses two."""

_NAMES = ("logits", "targets", "audio", "text", "shares")
Stacked = dict[str, np.ndarray]
"""logits and targets [N, L], audio and text (present) [N] bool, shares [N, 2] (see `Calibration.scale`)."""
_LEAST_ITEMS = 20
"""Fewer utterances of one kind do not determine a temperature; the joint one is used instead."""
_ABSTAIN_SHARE = 0.1
"""Of the utterances, those whose top probability is least: below it the model abstains."""


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
    calibration = fit_calibration(_stack(groups), objective)
    report = calibration.model_dump()
    if objective == "single_label" and len(groups) > 1:
        report["held_out"] = _held_out(groups, objective)
        voices = [_rows(group, group["audio"] & ~group["text"]) for group in groups]
        voices = [voice for voice in voices if len(voice["logits"])]
        if len(voices) > 1:
            report["held_out_voice"] = _held_out(voices, objective)
    return calibration, report


def fit_calibration(stacked: Stacked, objective: Objective) -> Calibration:
    """Fit temperatures, thresholds and the abstention level.

    Args:
        stacked: utterances that training has not seen, in every condition of use (voice alone, words alone, both):
            a condition with fewer than 20 takes the joint temperature. Targets from 0.5 on count as present.
    """
    audio, text = stacked["audio"], stacked["text"]
    joint = _temperature(stacked, objective)
    both, voice, words = (
        _temperature(_rows(stacked, rows), objective) if rows.sum() >= _LEAST_ITEMS else joint
        for rows in (audio & text, audio & ~text, text & ~audio)
    )
    result = Calibration(
        temperature_both=both[0], temperature_audio=voice[0], temperature_text=words[0],
        known_both=both[1], known_audio=voice[1], thresholds=[0.5] * stacked["logits"].shape[1],
    )  # fmt: skip
    p = _scaled(result, stacked, objective)
    return result.model_copy(
        update={
            "thresholds": fit_thresholds(p, stacked["targets"] >= 0.5),
            "abstain_confidence": float(np.quantile(p.max(1), _ABSTAIN_SHARE)),
        }
    )


def _held_out(groups: Sequence[Stacked], objective: Objective) -> dict[str, float]:
    """Calibration error and what abstaining gains, each group judged by the others' fit. All together: of a
    few hundred clips even a perfectly calibrated answer has an error of 0.05."""
    p = []
    for index, group in enumerate(groups):
        others = _stack([other for k, other in enumerate(groups) if k != index])
        p.append(_scaled(fit_calibration(others, objective), group, objective))
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


def fit_thresholds(p: np.ndarray, present: np.ndarray) -> list[float]:
    """For each label the probability threshold of greatest F1 (the midpoint between neighbours).

    Args:
        p: [N, L] calibrated probabilities.
        present: [N, L] bool. A label that never occurs keeps 0.5.
    """
    thresholds = []
    for column, truth in zip(p.T, present.T, strict=True):
        if not truth.any():
            thresholds.append(0.5)
            continue
        order = np.argsort(-column, kind="stable")
        ranked = column[order]
        hits = np.cumsum(truth[order])
        f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + truth.sum())
        # A threshold cannot separate equal probabilities: only ends of ties are candidates.
        f1[:-1][ranked[:-1] == ranked[1:]] = -1.0
        best = int(np.argmax(f1))
        below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
        thresholds.append(float((ranked[best] + below) / 2))
    return thresholds


def _temperature(stacked: Stacked, objective: Objective) -> tuple[list[float], tuple[float, float]]:
    """The temperature(s) and the two factors on them of least negative log-likelihood, by L-BFGS on their
    logarithm."""
    logits, targets, shares = (
        torch.from_numpy(stacked[name]).double() for name in ("logits", "targets", "shares")
    )
    count = logits.shape[-1] if objective == "multi_label" else 1
    log_t = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    log_known = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_t, log_known], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        scaled = logits / (log_t + (shares @ log_known)[:, None]).exp()
        if objective == "multi_label":
            loss = torch.nn.functional.binary_cross_entropy_with_logits(scaled, targets)
        else:
            loss = torch.nn.functional.cross_entropy(scaled, targets)
        # A perfectly separable split would send the temperature to 0.
        loss = loss + 1e-3 * (log_t.square().mean() + log_known.square().mean())
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    temperatures, known = (x.detach().exp().clamp(0.05, 20.0) for x in (log_t, log_known))
    return temperatures.tolist(), (float(known[0]), float(known[1]))
