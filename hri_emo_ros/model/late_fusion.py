# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Late fusion: one vector from each modality, concatenated, into an MLP."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.model.layers import masked_mean
from hri_emo_ros.model.output import EncodedBatch
from hri_emo_ros.model.unimodal import pool_text


class LateFusion(nn.Module):
    """Mean over the voice's frames and mean (or first token) of the words, concatenated, MLP.

    An absent modality is a learned vector. What the network would say with one modality removed is
    therefore one more pass of the small MLP, and every forward pass returns it.
    """

    def __init__(self, audio_size: int, text_size: int, config: ModelConfig) -> None:
        super().__init__()
        self.text_pooling = config.text_pooling
        self.norm_audio, self.norm_text = nn.LayerNorm(audio_size), nn.LayerNorm(text_size)
        self.missing_audio = nn.Parameter(torch.randn(audio_size) * 0.02)
        self.missing_text = nn.Parameter(torch.randn(text_size) * 0.02)
        self.mlp = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(audio_size + text_size, config.head_hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.head_hidden, len(config.labels)),
        )

    def forward(self, encoded: EncodedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [B, L] with both modalities, with the voice alone, with the words alone.

        Where a modality is absent, its logits alone are zeros; where both are, all are zeros.
        """
        audio_present = encoded.audio_mask.any(1, keepdim=True)
        text_present = encoded.text_mask.any(1, keepdim=True)
        audio = self.norm_audio(masked_mean(encoded.audio, encoded.audio_mask))
        text = self.norm_text(pool_text(encoded.text, encoded.text_mask, self.text_pooling))
        audio = torch.where(audio_present, audio, self.missing_audio)
        text = torch.where(text_present, text, self.missing_text)
        both = self.mlp(torch.cat([audio, text], dim=-1))
        alone_audio = self.mlp(torch.cat([audio, self.missing_text.expand_as(text)], dim=-1))
        alone_text = self.mlp(torch.cat([self.missing_audio.expand_as(audio), text], dim=-1))
        # In evaluation these are equal anyway; in training dropout must not make them differ.
        both = torch.where(text_present, torch.where(audio_present, both, alone_text), alone_audio)
        return (
            both * (audio_present | text_present),
            alone_audio * audio_present,
            alone_text * text_present,
        )
