# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What every network returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
class ModelOutput:
    """Logits and what led to them, for B utterances and L labels."""

    logits: Tensor
    """[B, L]; uncalibrated."""
    audio_logits: Tensor
    """[B, L]: what the network says when the words are removed; zeros where audio is absent. The
    auxiliary loss and the modality weights both use it."""
    text_logits: Tensor
    """[B, L]: what the network says when the voice is removed; zeros where text is absent."""
    beta: Tensor
    """[B, d] in [0, 1]: the gate; h = beta * h_audio + (1 - beta) * h_text. Exactly 1 without text, 0
    without audio. Heads without a gate give [B, 1], their overall audio share."""
    audio_present: Tensor
    """[B] bool."""
    text_present: Tensor
    """[B] bool."""
    text_to_audio: Tensor | None = None
    """[B, N, F]: where in the audio each token looked; only on request, only with cross-attention."""
    shares: Tensor | None = None
    """[B, 2] of the voice and of its room in the baseline (`model.baseline.shares`); None without baselines."""
    speech: Tensor | None = None
    """[B] logit that the sound is speech and not another one; means nothing where the voice is absent."""

    @property
    def gate(self) -> Tensor:
        """[B]: mean of beta, the share of the voice in the gate."""
        return self.beta.mean(-1)
