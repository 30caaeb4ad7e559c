"""How fusion and its gate stand up when a modality is ruined, on the validation pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hri_emo_ros.data import metrics
from hri_emo_ros.model.calibration import Calibration
from hri_emo_ros.training.data import voices_and_words
from hri_emo_ros.training.pairs import Example
from hri_emo_ros.training.ruin import Ruin, Ruined
from hri_emo_ros.training.text_augment import WordErrors
from hri_emo_ros.training.validation import Predictions, predict

if TYPE_CHECKING:
    from hri_emo_ros.training.trainer import Trainer

_SNRS = (30.0, 20.0, 10.0, 5.0, 0.0, -5.0)
_SWEPT = ("pink", "babble", "recorded")
_MOST = 600
"""Pairs scored in each of some thirty conditions."""
_ERROR_RATES = (0.0, 0.1, 0.2, 0.4, 0.6)


def _ruin(trainer: Trainer) -> Ruin:
    """Conditions told truthfully: no jitter, nothing unknown."""
    data = trainer.data
    items = [*data.validation]
    texts = [item.text for item in [*data.train, *items] if item.text]
    section = trainer.config.augment.ruin.model_copy(
        update={"snr_jitter_db": 0.0, "snr_unknown_p": 0.0, "confidence_unknown_p": 0.0}
    )
    strangers = voices_and_words(items)[1] or [item for item in items if item.text]
    noises = tuple(trainer.maker.augment.noises)
    return Ruin(section, WordErrors(texts), strangers, trainer.sources.quality or {}, noises)


def _states(
    ruin: Ruin,
    examples: Sequence[Example],
    voice: bool = True,
    snr: float = math.nan,
    rate: float | None = 0.0,
    stranger: bool = False,
    kind: str = "",
) -> list[Ruined]:
    return [
        ruin.state(
            e, voice and e.voice is not None, snr, rate, stranger,
            np.random.default_rng([0, k]), kind,
        )
        for k, e in enumerate(examples)
    ]  # fmt: skip


def clean_states(trainer: Trainer, examples: Sequence[Example]) -> list[Ruined]:
    """The examples as they are, with the network told what it is told on the robot."""
    return _states(_ruin(trainer), examples)


def extra_predictions(trainer: Trainer) -> list[Predictions]:
    """The validation examples with one modality only, for the temperatures of those conditions."""
    both = [e for e in trainer.examples if e.voice is not None and e.words is not None]
    if not both:
        return []
    ruin = _ruin(trainer)
    return [
        _predict(trainer, both, _states(ruin, both, rate=None)),
        _predict(trainer, both, _states(ruin, both, voice=False)),
    ]


def _predict(trainer: Trainer, examples: Sequence[Example], states: list[Ruined]) -> Predictions:
    return predict(
        trainer.module, trainer.maker, examples, trainer.accelerator.device, states, trainer.lengths
    )


def condition_report(trainer: Trainer, calibration: Calibration) -> dict[str, Any]:
    """Macro F1 and mean weights in each condition, and whether weights tell what removal does.

    Matched pairs only, where both modalities carry the same evidence and the label is beyond doubt;
    constructed pairs are called so.
    """
    examples = [
        e for e in trainer.examples
        if e.voice is not None and e.words is not None and e.pairing in ("", "matched")
        and e.voice.audio_features is None
    ][:_MOST]  # fmt: skip
    if not examples:
        return {}
    ruin = _ruin(trainer)
    plans: dict[str, dict[str, Any]] = {
        "both": {},
        "voice_only": {"rate": None},
        "words_only": {"voice": False},
        "voice_at_-5_db": {"snr": -5.0},
        "words_random": {"stranger": True},
    }
    kinds = [k for k in _SWEPT if k in ruin.noises] or [""]
    plans |= {
        f"{kind}_{snr:g}_db".lstrip("_"): {"snr": snr, "kind": kind}
        for kind in kinds
        for snr in _SNRS
    }
    plans |= {f"word_errors_{rate:g}": {"rate": rate} for rate in _ERROR_RATES}
    runs = {
        name: _predict(trainer, examples, _states(ruin, examples, **plan))
        for name, plan in plans.items()
    }
    report: dict[str, Any] = {
        "constructed": any(e.constructed for e in examples),
        "n": len(examples),
    }
    true = np.array([int(np.argmax(e.voice_target)) for e in examples])
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
        "clean": metrics.rank_correlation(weights[0], losses[0]),
        "over_snr": metrics.rank_correlation(np.concatenate(weights), np.concatenate(losses)),
    }


def _log_probabilities(p: Predictions, calibration: Calibration) -> np.ndarray:
    scaled = calibration.scale(
        torch.from_numpy(p.logits), torch.from_numpy(p.audio_present),
        torch.from_numpy(p.text_present),
    )  # fmt: skip
    return np.asarray(torch.log_softmax(scaled, dim=-1).numpy())
