# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""TensorBoard: losses, figures, confusion matrices, gate and weight histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from hri_emo_ros.data import metrics
from hri_emo_ros.training.predictions import Predictions

_SHOWN = ("ua", "wa", "macro_f1", "weighted_f1", "ece", "loss")


class TensorBoard:
    """Writes one run's events into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._writer = SummaryWriter(str(folder))

    def write(
        self,
        step: int,
        losses: Mapping[str, float],
        scores: Mapping[str, Mapping[str, float]],
        predictions: Predictions | None,
        learning_rate: float,
        labels: Sequence[str],
    ) -> None:
        """What one validation has shown."""
        writer = self._writer
        writer.add_scalar("train/learning_rate", learning_rate, step)
        for name, value in losses.items():
            writer.add_scalar(f"train/loss_{name}", value, step)
        for corpus, figures in scores.items():
            for name in _SHOWN:
                if name in figures:
                    writer.add_scalar(f"validation_{name}/{corpus}", figures[name], step)
        if predictions is None:
            return
        table = metrics.confusion(predictions.classes, predictions.logits.argmax(1), len(labels))
        writer.add_image("validation/confusion", _picture(table), step, dataformats="HW")
        both = predictions.audio_present & predictions.text_present
        if both.any():
            writer.add_histogram("validation/gate", predictions.gate[both], step)
            writer.add_histogram("validation/audio_weight", predictions.audio_weight[both], step)
        writer.flush()

    def close(self) -> None:
        self._writer.close()


def _picture(table: np.ndarray, scale: int = 24) -> np.ndarray:
    """Row-normalised confusion matrix as a grey image, dark where full."""
    rows = table / np.maximum(1, table.sum(1, keepdims=True))
    return np.kron(1.0 - rows, np.ones((scale, scale))).astype(np.float32)
