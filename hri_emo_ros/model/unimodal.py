# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Evidence from one modality alone: the audio-only and text-only heads, and the gate's witnesses."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.model.layers import AttentiveStatistics, masked_mean
from hri_emo_ros.model.output import EncodedBatch, ModelOutput

INPUT_DROPOUT = 0.2
"""Of the statistics that go into a `VoiceHead`."""


class AudioHead(nn.Module):
    """Attentive statistics over the real frames, then an MLP."""

    def __init__(self, hidden_size: int, config: ModelConfig) -> None:
        super().__init__()
        self.pool = AttentiveStatistics(hidden_size)
        self.classifier = _classifier(2 * hidden_size, config)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """[B, F, D], [B, F] -> logits [B, L]; zeros where there is no frame."""
        pooled, present = self.pool(states, mask), mask.any(1)
        return self.classifier(pooled) * present.unsqueeze(-1)


class VoiceHead(nn.Module):
    """Networks of one hidden layer over what an utterance's statistics are relative to the voice's baseline; the
    mean of their log-probabilities.

    They are not told on how much the baseline rests: it made no difference to what they answer, and how sure the
    answer is is the calibration's.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.members = nn.ModuleList(
            nn.Sequential(
                _First(components),
                nn.Dropout(INPUT_DROPOUT),
                nn.Linear(components, config.voice_hidden),
                nn.GELU(),
                nn.Dropout(config.dropout),
                nn.Linear(config.voice_hidden, len(config.labels)),
            )
            for components in config.voice_components
        )

    def forward(self, statistics: Tensor, present: Tensor) -> Tensor:
        """Relative statistics [B, C] and presence [B] -> logits [B, L]; zeros where the voice is absent."""
        answers = torch.stack([member(statistics) for member in self.members])
        if len(self.members) > 1:
            answers = torch.log_softmax(answers, dim=-1)
        return answers.mean(0) * present.unsqueeze(-1)

    def views(self, relative: Tensor, absolute: Tensor, present: Tensor, own: float) -> Tensor:
        """The answer outside training: `own` of that relative to the baseline, the rest of that relative to the
        population."""
        return own * self(relative, present) + (1 - own) * self(absolute, present)


class _First(nn.Module):
    """The first of the components: those in which utterances of one voice differ most."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, components: Tensor) -> Tensor:
        return components[..., : self.count]


class TextHead(nn.Module):
    """Mean over the real tokens (or the first), then an MLP."""

    def __init__(self, hidden_size: int, config: ModelConfig) -> None:
        super().__init__()
        self.pooling = config.text_pooling
        self.classifier = _classifier(hidden_size, config)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """[B, N, D], [B, N] -> logits [B, L]; zeros where there is no token."""
        pooled, present = pool_text(states, mask, self.pooling), mask.any(1)
        return self.classifier(pooled) * present.unsqueeze(-1)


def pool_text(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """[B, N, D], [B, N] -> [B, D]; zeros where there is no token."""
    if pooling == "first":
        return states[:, 0] * mask.any(1, keepdim=True)
    return masked_mean(states, mask)


def _classifier(width: int, config: ModelConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Dropout(config.dropout),
        nn.Linear(width, config.head_hidden),
        nn.GELU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.head_hidden, len(config.labels)),
    )


def unimodal_output(logits: Tensor, encoded: EncodedBatch, audio: bool) -> ModelOutput:
    """The output of a head that hears only (`audio`) or reads only."""
    nothing = torch.zeros_like(logits)
    share = torch.full_like(logits[:, :1], 1.0 if audio else 0.0)
    present = (encoded.audio_mask if audio else encoded.text_mask).any(1)
    absent = torch.zeros_like(present)
    return ModelOutput(
        logits=logits,
        audio_logits=logits if audio else nothing,
        text_logits=nothing if audio else logits,
        beta=share,
        audio_present=present if audio else absent,
        text_present=absent if audio else present,
    )
