"""Scoring the validation side while training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hri_emo_ros.data import metrics
from hri_emo_ros.training.batches import BatchMaker
from hri_emo_ros.training.module import TrainingModule
from hri_emo_ros.training.pairs import Example
from hri_emo_ros.training.ruin import Ruined
from hri_emo_ros.types import FloatArray

_BATCH = 48


@dataclass
class Predictions:
    """What the network says of N examples."""

    examples: list[Example]
    logits: FloatArray
    """[N, L]"""
    targets: FloatArray
    """[N, L] soft labels."""
    audio_present: np.ndarray
    """[N] bool."""
    text_present: np.ndarray
    gate: FloatArray
    """[N] mean of beta."""
    audio_weight: FloatArray
    """[N] published weight of the voice (before calibration)."""
    loss: float
    word_logits: FloatArray | None = None
    """[N, W]"""

    @property
    def classes(self) -> np.ndarray:
        """[N] strongest label of the target."""
        return self.targets.argmax(1)


@torch.no_grad()
def predict(
    module: TrainingModule,
    maker: BatchMaker,
    examples: Sequence[Example],
    device: torch.device,
    states: Sequence[Ruined] | None = None,
    lengths: dict[str, float] | None = None,
) -> Predictions:
    """Score examples without augmentation, in the given states if any.

    Args:
        lengths: an item's cost by id; examples of like length share a batch.
    """
    from hri_emo_ros.model.weights import modality_weights

    was_training = module.training
    module.eval()
    keys = [(lengths or {}).get(e.item.id, 0.0) for e in examples]
    order = np.argsort(keys, kind="stable")
    labels = len(module.model.config.labels)
    count = len(examples)
    logits, targets = np.zeros((count, labels), np.float32), np.zeros((count, labels), np.float32)
    audio, text = np.zeros(count, bool), np.zeros(count, bool)
    gate, weight = np.zeros(count, np.float32), np.zeros(count, np.float32)
    words: FloatArray | None = None
    total = 0.0
    for start in range(0, count, _BATCH):
        rows = order[start : start + _BATCH]
        batch = maker.clean(
            [examples[i] for i in rows], [states[i] for i in rows] if states is not None else None
        ).to(device)
        result = module(batch)
        output = result.output
        logits[rows] = output.logits.float().cpu().numpy()
        targets[rows] = batch.targets.cpu().numpy()
        audio[rows] = output.audio_present.cpu().numpy()
        text[rows] = output.text_present.cpu().numpy()
        gate[rows] = output.gate.float().cpu().numpy()
        shares = modality_weights(output, module.model.config.objective)
        weight[rows] = shares.audio.float().cpu().numpy()
        total += float(result.losses["main"]) * len(rows)
        if result.word_logits is not None:
            words = (
                np.zeros((count, result.word_logits.shape[1]), np.float32)
                if words is None
                else words
            )
            words[rows] = result.word_logits.float().cpu().numpy()
    module.train(was_training)
    return Predictions(
        list(examples), logits, targets, audio, text, gate, weight, total / max(1, count), words
    )


def softmax(logits: FloatArray) -> np.ndarray:
    """[N, L] probabilities in float64."""
    z = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return np.asarray(z / z.sum(1, keepdims=True))


def score(predictions: Predictions, multi_label: bool) -> dict[str, float]:
    """UA, WA, F1s, calibration error and loss; for multi-label models macro F1 over labels at 0.5.

    Single-label figures leave out examples whose target names no single winner.
    """
    if len(predictions.examples) == 0:
        return {}
    if multi_label:
        return _score_multi(predictions)
    clear = predictions.targets.max(1) > 0.5
    true, p = predictions.classes[clear], softmax(predictions.logits[clear])
    if len(true) == 0:
        return {"loss": predictions.loss}
    answer = p.argmax(1)
    return {
        "n": float(len(true)),
        "ua": metrics.ua(true, answer),
        "chance_ua": 1.0 / len(np.unique(true)),
        "wa": metrics.wa(true, answer),
        "macro_f1": metrics.macro_f1(true, answer),
        "weighted_f1": metrics.weighted_f1(true, answer),
        "ece": metrics.ece(true, p),
        "loss": predictions.loss,
    }


def _score_multi(predictions: Predictions) -> dict[str, float]:
    from sklearn.metrics import f1_score, recall_score

    true = predictions.targets >= 0.5
    p = 1.0 / (1.0 + np.exp(-predictions.logits.astype(np.float64)))
    answer = p >= 0.5
    occurs = true.any(0)
    common = {"y_true": true[:, occurs], "y_pred": answer[:, occurs], "zero_division": 0.0}
    return {
        "n": float(len(true)),
        # Mean over labels of the balanced accuracy of each: always "yes" gets 0.5.
        "ua": float(
            np.mean(
                [
                    (
                        recall_score(t, a, zero_division=0.0)
                        + recall_score(~t, ~a, zero_division=0.0)
                    )
                    / 2
                    for t, a in zip(true[:, occurs].T, answer[:, occurs].T, strict=True)
                ]
            )
        ),
        "wa": float((true == answer).mean()),
        "macro_f1": float(f1_score(average="macro", **common)),
        "weighted_f1": float(f1_score(average="weighted", **common)),
        "always_yes_macro_f1": float(
            f1_score(true[:, occurs], np.ones_like(true[:, occurs]), average="macro")
        ),
        "ece": metrics.multilabel_ece(true, p),
        "loss": predictions.loss,
    }


def score_by_corpus(
    predictions: Predictions, multi_label: bool, words: Sequence[str], words_of: str
) -> dict[str, dict[str, float]]:
    """Figures of each corpus, and of all together under ``all``; own-word recall where asked."""
    by_corpus: dict[str, list[int]] = {}
    for index, example in enumerate(predictions.examples):
        name = "constructed" if example.constructed else example.item.corpus
        by_corpus.setdefault(name, []).append(index)
    result = {"all": score(predictions, multi_label)}
    for name, rows in by_corpus.items():
        part = subset(predictions, rows)
        result[name] = score(part, multi_label)
        if predictions.word_logits is not None and name == words_of:
            true = [list(words).index(part.examples[i].item.label) for i in range(len(rows))]
            assert part.word_logits is not None
            result[name]["own_words_ua"] = metrics.ua(true, part.word_logits.argmax(1))
    return result


def subset(predictions: Predictions, rows: Sequence[int]) -> Predictions:
    """The predictions of some rows; the loss is that of all."""
    index = np.asarray(rows, dtype=np.int64)
    p = predictions
    return Predictions(
        [p.examples[i] for i in rows], p.logits[index], p.targets[index], p.audio_present[index],
        p.text_present[index], p.gate[index], p.audio_weight[index], p.loss,
        p.word_logits[index] if p.word_logits is not None else None,
    )  # fmt: skip


def mean_over_corpora(scores: dict[str, dict[str, float]], key: str) -> float:
    """The figure that training watches: corpora count alike whatever their size."""
    values = [v[key] for name, v in scores.items() if name != "all" and key in v]
    return float(np.mean(values)) if values else float("nan")


def save_predictions(path: Path, predictions: Predictions) -> None:
    """Logits and targets with ids, speakers and corpora; no audio, no text."""
    items = [e.item for e in predictions.examples]
    np.savez_compressed(
        path,
        logits=predictions.logits,
        targets=predictions.targets,
        audio_present=predictions.audio_present,
        text_present=predictions.text_present,
        gate=predictions.gate,
        audio_weight=predictions.audio_weight,
        ids=np.array([i.id for i in items], dtype=np.str_),
        speakers=np.array([i.speaker for i in items], dtype=np.str_),
        corpora=np.array([i.corpus for i in items], dtype=np.str_),
        sexes=np.array([i.sex for i in items], dtype=np.str_),
        languages=np.array([i.language for i in items], dtype=np.str_),
        pairings=np.array([e.pairing for e in predictions.examples], dtype=np.str_),
    )
