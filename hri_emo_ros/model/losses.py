# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What training minimises: the answer, each modality's own answer, and the gate's judgement."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from hri_emo_ros.model.config import Objective
from hri_emo_ros.model.output import ModelOutput

_NEVER = -1e4
"""Logit of a label that cannot be."""


class LossConfig(BaseModel):
    """Weights of the terms."""

    model_config = ConfigDict(extra="forbid")

    label_smoothing: float = Field(0.05, ge=0.0, lt=1.0)
    auxiliary: float = Field(0.5, ge=0.0)
    """Weight of each modality's own loss."""
    gate: float = Field(0.2, ge=0.0)
    """Weight of the gate's supervision."""
    gate_temperature: float = Field(1.0, gt=0.0)
    """nat; differences in log-likelihood much above it call for a gate of 0 or 1."""
    own_labels: bool = False
    """Judge an utterance among the labels that its corpus has: that a corpus lacks one says nothing about
    how such a voice sounds. Only for single-label heads over one modality."""


def compute_losses(
    output: ModelOutput,
    targets: Tensor,
    objective: Objective,
    config: LossConfig,
    audio_targets: Tensor | None = None,
    text_targets: Tensor | None = None,
    weights: Tensor | None = None,
    allowed: Tensor | None = None,
) -> dict[str, Tensor]:
    """Scalar losses by name; ``total`` is the one to minimise.

    Args:
        targets: [B] int64 class indices, or [B, L] probabilities (soft labels).
        audio_targets, text_targets: of the modalities' own losses, where they differ from `targets`
            (constructed pairs whose voice and words disagree).
        weights: [B] factor on each utterance; None is 1.
        allowed: [B, L] bool, labels to choose from for `LossConfig.own_labels`.

    Returns:
        total and main, and for a head that fuses audio, text and gate. A term without any utterance to judge
        is 0.
    """
    labels = output.logits.shape[-1]
    soft = _soft(targets, labels)
    weights = torch.ones_like(output.logits[:, 0]) if weights is None else weights
    unimodal = output.audio_logits is output.logits or output.text_logits is output.logits
    logits = output.logits
    if config.own_labels and unimodal and allowed is not None and objective == "single_label":
        logits = logits.masked_fill(~allowed, _NEVER)
        smooth = config.label_smoothing
        spread = smooth * allowed / allowed.sum(1, keepdim=True).clamp(min=1)
        each = -((soft * (1 - smooth) + spread) * torch.log_softmax(logits, 1)).sum(1)
    else:
        each = _loss(logits, soft, objective, config)
    losses = {"main": (each * weights).mean()}
    if unimodal:
        return {"total": losses["main"], **losses}
    for name, logits, present, own in (
        ("audio", output.audio_logits, output.audio_present, audio_targets),
        ("text", output.text_logits, output.text_present, text_targets),
    ):
        target = soft if own is None else _soft(own, labels)
        each = _loss(logits, target, objective, config) * weights * present
        losses[name] = each.sum() / present.sum().clamp(min=1)
    losses["gate"] = gate_loss(output, soft, objective, config.gate_temperature)
    losses["total"] = (
        losses["main"]
        + config.auxiliary * (losses["audio"] + losses["text"])
        + config.gate * losses["gate"]
    )
    return losses


def gate_loss(
    output: ModelOutput, targets: Tensor, objective: Objective, temperature: float = 1.0
) -> Tensor:
    """Pull the mean of beta toward the modality that knows the answer.

    Binary cross-entropy between mean(beta) and sigmoid((ll_audio - ll_text) / temperature),
    where ll is the log-likelihood of the true label under each modality's own (detached) logits; over
    utterances that have both. 0 where there are none or the head has no gate.
    """
    both = output.audio_present & output.text_present
    if output.beta.shape[-1] == 1 or not bool(both.any()):
        return output.logits.sum() * 0.0
    soft = _soft(targets, output.logits.shape[-1])[both]
    audio, text = (
        _log_likelihood(logits[both].detach(), soft, objective)
        for logits in (output.audio_logits, output.text_logits)
    )
    wanted = torch.sigmoid((audio - text) / temperature)
    gate = output.gate[both].float().clamp(1e-6, 1 - 1e-6)
    return functional.binary_cross_entropy(gate, wanted)


def _soft(targets: Tensor, labels: int) -> Tensor:
    if targets.ndim == 2:
        return targets.float()
    return functional.one_hot(targets, labels).float()


def _loss(logits: Tensor, soft: Tensor, objective: Objective, config: LossConfig) -> Tensor:
    """[B]"""
    smoothing = config.label_smoothing
    if objective == "multi_label":
        smooth = soft * (1 - smoothing) + 0.5 * smoothing
        return functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none").mean(1)
    return functional.cross_entropy(logits, soft, reduction="none", label_smoothing=smoothing)


def _log_likelihood(logits: Tensor, soft: Tensor, objective: Objective) -> Tensor:
    if objective == "multi_label":
        return -functional.binary_cross_entropy_with_logits(logits, soft, reduction="none").mean(-1)
    return (torch.log_softmax(logits, dim=-1) * soft).sum(-1)
