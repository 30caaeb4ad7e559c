# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What the network says of the validation side, and how good that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from hri_emo_ros.data import metrics
from hri_emo_ros.model.weights import modality_weights
from hri_emo_ros.training.augment import Condition
from hri_emo_ros.training.batches import BatchMaker
from hri_emo_ros.training.module import TrainingModule
from hri_emo_ros.training.pairs import Example
from hri_emo_ros.types import FloatArray

_BATCH = 48
_SMALLEST_GROUP = 20
"""Utterances of a group; below that its recall is chance."""


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
    shares: FloatArray
    """[N, 2] of the voice and its room in the baseline; zeros for networks without."""
    loss: float

    @property
    def classes(self) -> np.ndarray:
        """[N] strongest label of the target."""
        return self.targets.argmax(1)

    @property
    def clear(self) -> np.ndarray:
        """[N] bool: the target names a single winner."""
        return self.targets.max(1) > 0.5

    def subset(self, rows: Sequence[int]) -> Predictions:
        """Those of some rows; the loss is that of all."""
        index = np.asarray(rows, dtype=np.int64)
        chosen: dict[str, Any] = {
            k: v[index] for k, v in vars(self).items() if isinstance(v, np.ndarray)
        }
        return replace(self, examples=[self.examples[i] for i in index], **chosen)

    def by_corpus(self) -> dict[str, Predictions]:
        """All together under ``all``, then each corpus; constructed pairs as one."""
        rows: dict[str, list[int]] = {}
        for index, example in enumerate(self.examples):
            name = "constructed" if example.constructed else example.item.corpus
            rows.setdefault(name, []).append(index)
        return {"all": self, **{name: self.subset(index) for name, index in rows.items()}}

    def arrays(self) -> dict[str, np.ndarray]:
        """What a calibration is fitted to."""
        return {
            "logits": self.logits, "targets": self.targets, "audio": self.audio_present,
            "text": self.text_present, "shares": self.shares,
        }  # fmt: skip

    def save(self, path: Path) -> None:
        """`arrays`, weights, ids, speakers and corpora; no audio, no text."""
        items = [e.item for e in self.examples]
        np.savez_compressed(
            path, allow_pickle=False, **self.arrays(), gate=self.gate, audio_weight=self.audio_weight,
            **{
                f"{name}s": np.array([getattr(i, name) for i in items], dtype=np.str_)
                for name in ("id", "speaker", "corpus")
            },
        )  # fmt: skip


@dataclass
class Scorer:
    """Scores examples with the weights as they are.

    Attributes:
        lengths: an item's cost by id; examples of like length share a batch.
    """

    module: TrainingModule
    maker: BatchMaker
    device: torch.device
    lengths: Mapping[str, float]

    @torch.no_grad()
    def __call__(
        self,
        examples: Sequence[Example],
        conditions: Sequence[Condition],
        known: tuple[int, int] = (0, 0),
    ) -> Predictions:
        """Score examples in conditions; `known` as for `BatchMaker.stated`."""
        was_training = self.module.training
        self.module.eval()
        order = np.argsort([self.lengths.get(e.item.id, 0.0) for e in examples], kind="stable")
        objective = self.module.model.config.objective
        parts, total = [], 0.0
        for start in range(0, len(examples), _BATCH):
            rows = order[start : start + _BATCH]
            chosen = [examples[i] for i in rows], [conditions[i] for i in rows]
            batch = self.maker.stated(*chosen, known).to(self.device)
            result = self.module(batch)
            output = result.output
            weight = torch.from_numpy(modality_weights(output.numpy(), objective).audio)
            nothing = output.logits.new_zeros(len(rows), 2)
            shares = nothing if output.shares is None else output.shares
            values = (output.logits, batch.targets, output.audio_present, output.text_present,
                      output.gate, weight, shares)  # fmt: skip
            parts.append(
                [(v.float() if v.is_floating_point() else v).cpu().numpy() for v in values]
            )
            total += float(result.losses["main"]) * len(rows)
        self.module.train(was_training)
        back = np.argsort(order)
        logits, targets, audio, text, gate, weights, known_shares = (
            np.concatenate(column)[back] for column in zip(*parts, strict=True)
        )
        return Predictions(
            list(examples), logits, targets, audio, text, gate, weights, known_shares,
            total / len(examples),
        )  # fmt: skip


def scores_by_corpus(predictions: Predictions, multi_label: bool) -> dict[str, dict[str, float]]:
    """Figures of each corpus, and of all together under ``all``."""
    score = _score_multi if multi_label else _score_single
    return {name: score(part) for name, part in predictions.by_corpus().items() if part.examples}


def _score_single(predictions: Predictions) -> dict[str, float]:
    """UA, WA, F1s, calibration error and loss, without examples whose target names no single winner."""
    clear = predictions.clear
    true = predictions.classes[clear]
    p = softmax(predictions.logits[clear].astype(np.float64), axis=1)
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
    p = 1.0 / (1.0 + np.exp(-predictions.logits.astype(np.float64)))
    return {**metrics.multilabel(predictions.targets >= 0.5, p), "loss": predictions.loss}


def mean_over_corpora(scores: Mapping[str, Mapping[str, float]], key: str) -> float:
    """The figure that training watches: corpora count alike whatever their size."""
    values = [v[key] for name, v in scores.items() if name != "all" and key in v]
    return float(np.mean(values)) if values else float("nan")


def intervals(predictions: Predictions) -> dict[str, dict[str, list[float]]]:
    """95 % bootstrap intervals of the main figures by corpus, over speakers where they are told.

    As in the figures, utterances whose target names no single winner are left out.
    """
    result: dict[str, dict[str, list[float]]] = {}
    functions = {"ua": metrics.ua, "macro_f1": metrics.macro_f1, "weighted_f1": metrics.weighted_f1}
    for name, every in predictions.by_corpus().items():
        part = every.subset(np.flatnonzero(every.clear).tolist())
        if name == "all" or not part.examples:
            continue
        answer, true = part.logits.argmax(1), part.classes
        speakers = np.array([e.item.speaker for e in part.examples])
        groups = speakers if all(speakers) else None
        for figure, function in functions.items():
            interval = metrics.figure_interval(function, true, answer, groups)
            result.setdefault(name, {})[figure] = [interval.low, interval.high]
    return result


def ua_by_group(predictions: Predictions) -> dict[str, dict[str, float]]:
    """UA by speaker's sex, by language and by speaker, of groups large enough to say anything."""
    answer, true = predictions.logits.argmax(1), predictions.classes
    result: dict[str, dict[str, float]] = {}
    for kind in ("sex", "language", "speaker"):
        names = np.array([getattr(e.item, kind) for e in predictions.examples])
        result[kind] = {
            str(name): metrics.ua(true[names == name], answer[names == name])
            for name in sorted(set(names.tolist()))
            if name and np.count_nonzero(names == name) >= _SMALLEST_GROUP
        }
    return result
