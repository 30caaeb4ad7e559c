# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""`model.items.Batch` as tensors: what `EmotionModel` takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.model.items import Batch, ModelItem, pad
from hri_emo_ros.model.tokenizer import TextTokenizer


@dataclass
class ModelBatch(Batch[Tensor]):
    """B utterances, padded with zeros on the right."""

    @staticmethod
    def of(batch: Batch[np.ndarray]) -> ModelBatch:
        """The same memory as tensors."""
        return ModelBatch(
            **{f.name: torch.from_numpy(getattr(batch, f.name)) for f in fields(batch)}
        )

    def __len__(self) -> int:
        return int(self.audio_present.shape[0])

    def to(self, device: torch.device | str) -> ModelBatch:
        """The same batch on another device."""
        return ModelBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def select(self, rows: Tensor) -> ModelBatch:
        """The utterances of `rows` (indices or a boolean mask), padding kept."""
        return ModelBatch(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def without(self, modality: Literal["audio", "text"]) -> ModelBatch:
        """The same utterances with one modality removed."""
        if modality == "audio":
            return replace(
                self,
                audio_present=torch.zeros_like(self.audio_present),
                audio_lengths=torch.zeros_like(self.audio_lengths),
                snr_db=torch.full_like(self.snr_db, float("nan")),
                speech_seconds=torch.zeros_like(self.speech_seconds),
                heard=torch.zeros_like(self.heard),
            )
        return replace(
            self,
            text_present=torch.zeros_like(self.text_present),
            text_mask=torch.zeros_like(self.text_mask),
            context_mask=torch.zeros_like(self.context_mask),
            word_count=torch.zeros_like(self.word_count),
        )


def collate(
    items: Sequence[ModelItem], config: ModelConfig, tokenizer: TextTokenizer | None
) -> ModelBatch:
    """`model.items.pad` as tensors."""
    return ModelBatch.of(pad(items, config, tokenizer))
