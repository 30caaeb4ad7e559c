# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What every network returns, as tensors."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from torch import Tensor

from hri_emo_ros.model.answer import Answer


@dataclass
class EncodedBatch:
    """Both modalities after their encoders, before anything has been fused."""

    audio: Tensor
    """[B, F, audio hidden]; zeros in absent rows."""
    audio_mask: Tensor
    """[B, F] bool; no true in absent rows."""
    text: Tensor
    """[B, N, text hidden]."""
    text_mask: Tensor
    """[B, N] bool."""


@dataclass
class ModelOutput(Answer[Tensor]):
    """Logits and what led to them, for B utterances and L labels."""

    def numpy(self) -> Answer[np.ndarray]:
        """The same as arrays, float32 where they are no flags."""
        there = {f.name: getattr(self, f.name) for f in fields(self)}
        return Answer(**{k: _array(value) for k, value in there.items() if value is not None})


def _array(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    return np.asarray((value.float() if value.is_floating_point() else value).numpy())
