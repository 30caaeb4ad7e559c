# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Temperatures and thresholds that fit a split: see `model.calibration`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hri_emo_ros.model.calibration import Calibration, probabilities
from hri_emo_ros.model.config import Objective

_LEAST_ITEMS = 20
"""Fewer utterances of one kind do not determine a temperature; the joint one is used instead."""


def fit_calibration(
    logits: Tensor,
    targets: Tensor,
    audio_present: Tensor,
    text_present: Tensor,
    objective: Objective,
    abstain_share: float = 0.1,
    shares: Tensor | None = None,
) -> Calibration:
    """Fit temperatures, thresholds and the abstention level on one split.

    Args:
        logits: [N, L] of utterances that training has not seen.
        targets: [N] class indices, or [N, L] in [0, 1] (>= 0.5 counts as present for thresholds).
        audio_present, text_present: [N] bool. Give the utterances in every condition of use (voice
            alone, words alone, both): a condition with fewer than 20 takes the joint temperature.
        abstain_share: the abstention level is the quantile of the top probability at this share.
        shares: [N, 2] as for `Calibration.scale`, spread over what is met in use; None fits none of the
            factors for known voices and rooms.
    """
    logits = logits.detach().double().cpu()
    labels = logits.shape[-1]
    soft = (
        targets.double().cpu()
        if targets.ndim == 2
        else torch.nn.functional.one_hot(targets.cpu(), labels).double()
    )
    audio, text = audio_present.cpu(), text_present.cpu()
    if shares is None:
        shares = torch.zeros(len(logits), 2)
    shares = shares.detach().double().cpu()
    joint = _temperature(logits, soft, shares, objective)
    fitted = {}
    for name, rows in (("both", audio & text), ("audio", audio & ~text), ("text", text & ~audio)):
        enough = int(rows.sum()) >= _LEAST_ITEMS
        fitted[name] = (
            _temperature(logits[rows], soft[rows], shares[rows], objective) if enough else joint
        )
    result = Calibration(
        temperature_both=fitted["both"][0],
        temperature_audio=fitted["audio"][0],
        temperature_text=fitted["text"][0],
        known_both=fitted["both"][1],
        known_audio=fitted["audio"][1],
        thresholds=[0.5] * labels,
    )
    p = probabilities(result.scale(*(x.numpy() for x in (logits, audio, text, shares))), objective)
    return result.model_copy(
        update={
            "thresholds": fit_thresholds(p, soft.numpy() >= 0.5),
            "abstain_confidence": float(np.quantile(p.max(1), abstain_share)),
        }
    )


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


def _temperature(
    logits: Tensor, soft: Tensor, shares: Tensor, objective: Objective
) -> tuple[list[float], tuple[float, float]]:
    """The temperature(s) and the two factors on them of least negative log-likelihood, by L-BFGS on their
    logarithm."""
    count = logits.shape[-1] if objective == "multi_label" else 1
    log_t = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    log_known = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_t, log_known], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        scaled = logits / (log_t + (shares @ log_known)[:, None]).exp()
        if objective == "multi_label":
            loss = torch.nn.functional.binary_cross_entropy_with_logits(scaled, soft)
        else:
            loss = torch.nn.functional.cross_entropy(scaled, soft)
        # A perfectly separable split would send the temperature to 0.
        loss = loss + 1e-3 * (log_t.square().mean() + log_known.square().mean())
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    temperatures, known = (x.detach().exp().clamp(0.05, 20.0) for x in (log_t, log_known))
    return temperatures.tolist(), (float(known[0]), float(known[1]))
