# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What every network returns, as arrays or tensors, and the scales that it is read on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic

import numpy as np

from hri_emo_ros.model.items import A


@dataclass
class Answer(Generic[A]):
    """Logits and what led to them, for B utterances and L labels."""

    logits: A
    """[B, L]; uncalibrated."""
    audio_logits: A
    """[B, L]: what the network says when the words are removed; zeros where audio is absent. The
    auxiliary loss and the modality weights both use it."""
    text_logits: A
    """[B, L]: what the network says when the voice is removed; zeros where text is absent."""
    beta: A
    """[B, d] in [0, 1]: the gate; h = beta * h_audio + (1 - beta) * h_text. Exactly 1 without text, 0
    without audio. Heads without a gate give [B, 1]: 1/2 where both are there."""
    audio_present: A
    """[B] bool."""
    text_present: A
    """[B] bool."""
    text_to_audio: A | None = None
    """[B, N, F]: where in the audio each token looked; only on request, only with cross-attention."""
    shares: A | None = None
    """[B, 2] of the voice and of its room in the baseline (`model.baseline.shares`); None without baselines."""
    speech: A | None = None
    """[B] logit that the sound is speech and not another one; means nothing where the voice is absent."""

    @property
    def gate(self) -> A:
        """[B]: mean of beta, the share of the voice in the gate."""
        beta: Any = self.beta
        return beta.mean(-1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities over the last dimension."""
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def log_sigmoid(logits: np.ndarray) -> np.ndarray:
    """log(1 / (1 + exp(-x))), exact for large |x|."""
    return np.asarray(np.minimum(logits, 0.0) - np.log1p(np.exp(-np.abs(logits))))
