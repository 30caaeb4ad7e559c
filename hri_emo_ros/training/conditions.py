# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""How fusion and its gate stand up when a modality is made bad, on the validation pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hri_emo_ros.data import metrics
from hri_emo_ros.model.answer import log_softmax
from hri_emo_ros.model.calibration import Calibration
from hri_emo_ros.training.augment import Condition, Conditions
from hri_emo_ros.training.pairs import Example
from hri_emo_ros.training.predictions import Predictions, Scorer

_SNRS = (10.0, 0.0, -5.0)
_MOST = 300
"""Pairs scored in each of some twenty conditions."""
_ERROR_RATES = (0.2, 0.4, 0.6)
_ALONE: dict[str, dict[str, Any]] = {"voice": {"error_rate": None}, "words": {"voice": False}}


def stated(conditions: Conditions, examples: Sequence[Example], **plan: Any) -> list[Condition]:
    """The examples in one condition (see `Conditions.state`); by default as they are, and the network is told
    what it is told on the robot."""
    plan = {"voice": True, "error_rate": 0.0, **plan}
    keep = plan.pop("voice")
    return [
        conditions.state(
            e, keep and e.voice is not None, rng=np.random.default_rng([0, k]), **plan
        )
        for k, e in enumerate(examples)
    ]  # fmt: skip


def alone(
    scorer: Scorer, conditions: Conditions, examples: Sequence[Example]
) -> dict[str, Predictions]:
    """Examples of two modalities with one only, for the temperatures of those conditions."""
    both = [e for e in examples if e.voice is not None and e.words is not None]
    plans = _ALONE if both else {}
    return {name: scorer(both, stated(conditions, both, **plan)) for name, plan in plans.items()}


def condition_report(
    scorer: Scorer, conditions: Conditions, examples: Sequence[Example], calibration: Calibration
) -> dict[str, Any]:
    """Macro F1 and mean weights in each condition, and whether weights tell what removal does.

    Matched and recorded pairs only, whose label is beyond doubt; constructed ones are counted.
    """
    examples = [
        e for e in examples
        if e.voice is not None and e.words is not None and e.pairing in ("", "matched")
        and e.voice.audio_features is None
    ][:_MOST]  # fmt: skip
    if not examples:
        return {}
    plans: dict[str, dict[str, Any]] = {"both": {}, "mismatched_transcript": {"mismatched": True}}
    plans |= {f"{name}_only": plan for name, plan in _ALONE.items()}
    plans |= {
        f"{kind}_{snr:g}_db": {"noise_snr_db": snr, "noise": kind}
        for kind in conditions.noises
        for snr in _SNRS
    }
    plans |= {f"word_errors_{rate:g}": {"error_rate": rate} for rate in _ERROR_RATES}
    runs = {
        name: scorer(examples, stated(conditions, examples, **plan)) for name, plan in plans.items()
    }
    true = np.array([int(np.argmax(e.voice_target)) for e in examples])
    report: dict[str, Any] = {
        "constructed": sum(e.constructed for e in examples),
        "n": len(examples),
    }
    for name, p in runs.items():
        answer = p.logits.argmax(1)
        report[name] = {
            "macro_f1": metrics.macro_f1(true, answer),
            "ua": metrics.ua(true, answer),
            "audio_weight": float(p.audio_weight.mean()),
            "gate": float(p.gate.mean()),
        }
    report["rank_correlation"] = _rank_correlation(runs, calibration)
    return report


def _rank_correlation(runs: dict[str, Predictions], calibration: Calibration) -> dict[str, float]:
    """Spearman's rho between the voice's published weight and what removing the voice costs, over
    all conditions: the drop of the predicted emotion's log-probability."""
    words = _log_probabilities(runs["words_only"], calibration)
    weights, losses = [], []
    for name, p in runs.items():
        if name == "both" or name.endswith("_db"):
            whole = _log_probabilities(p, calibration)
            chosen = whole.argmax(1)[:, None]
            drop = np.take_along_axis(whole, chosen, 1) - np.take_along_axis(words, chosen, 1)
            weights.append(p.audio_weight)
            losses.append(drop[:, 0])
    return {
        "clean": metrics.rank_correlation(weights[0], losses[0])
        if len(weights[0]) > 2
        else math.nan,
        "over_snr": metrics.rank_correlation(np.concatenate(weights), np.concatenate(losses)),
    }


def _log_probabilities(p: Predictions, calibration: Calibration) -> np.ndarray:
    return log_softmax(calibration.scale(p.logits, p.audio_present, p.text_present, p.shares))
