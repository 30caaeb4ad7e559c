# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The network and its loss in one forward pass, so that data-parallel wrappers see it all."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hri_emo_ros.model.baseline import shares
from hri_emo_ros.model.losses import LossConfig, compute_losses
from hri_emo_ros.model.network import EmotionModel
from hri_emo_ros.model.output import EncodedBatch, ModelOutput
from hri_emo_ros.model.unimodal import VoiceHead, unimodal_output
from hri_emo_ros.training.batches import TrainBatch


@dataclass
class TrainOutput:
    """What one pass gives."""

    losses: dict[str, Tensor]
    """Scalars; ``total`` is the one to minimise."""
    output: ModelOutput


class TrainingModule(nn.Module):
    """`EmotionModel` and its loss.

    Args:
        model: the network.
        loss: weights of the terms.
        freeze_heads: the single-modality heads stay as they are.
    """

    def __init__(self, model: EmotionModel, loss: LossConfig, freeze_heads: bool = False) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self.frozen: list[nn.Module] = []
        for name in ("audio_head", "text_head") if freeze_heads else ():
            head = getattr(model, name, None)
            if head is not None:
                self.frozen.append(head.requires_grad_(False))
        if hasattr(model, "speech"):
            model.speech.requires_grad_(False)  # fitted before the first step

    def train(self, mode: bool = True) -> TrainingModule:
        """As usual; what is frozen has no dropout."""
        super().train(mode)
        for head in self.frozen:
            head.eval()
        return self

    def forward(self, batch: TrainBatch) -> TrainOutput:
        """Score and judge one batch."""
        if batch.statistics is not None:
            return self._pooled(batch, batch.statistics)
        output = self.output(batch)
        return TrainOutput(self._judged(output, batch), output)

    def _judged(self, output: ModelOutput, batch: TrainBatch) -> dict[str, Tensor]:
        return compute_losses(
            output, batch.targets, self.model.config.objective, self.loss,
            audio_targets=batch.voice_targets, text_targets=batch.words_targets,
            weights=batch.weights, allowed=batch.allowed,
        )  # fmt: skip

    def output(self, batch: TrainBatch) -> ModelOutput:
        """Score one batch."""
        model = self.model
        if batch.states is None or batch.states_mask is None:
            audio, audio_mask = model.encode_voice(batch.model)
        else:
            audio, audio_mask = batch.states, batch.states_mask
        audio = model.relate(audio, audio_mask, batch.model)
        text, text_mask = model.encode_text(batch.model)
        encoded, logits = EncodedBatch(audio, audio_mask, text, text_mask), batch.audio_logits
        if (
            self.training
            and self.frozen
            and isinstance(getattr(model, "audio_head", None), VoiceHead)
        ):
            # Frozen, it answers in training as it will afterwards.
            views = model.baseline.statistics(audio, audio_mask, batch.model.baseline)
            own = model.audio_head.views(*views, audio_mask.any(1), model.config.own_view)
            logits = own if logits is None else torch.where(torch.isnan(logits), own, logits)
        return model.fuse(encoded, batch.model, audio_logits=logits)

    def _pooled(self, batch: TrainBatch, statistics: Tensor) -> TrainOutput:
        """The voice's answer from its statistics alone, as `EmotionModel.hear` gives it from the states. In
        training its networks are judged one by one: what they have in common they must not divide up."""
        model, config = self.model, self.model.config.baseline
        assert config is not None
        relative, absolute = model.baseline.compare(statistics, batch.model.baseline)
        present = batch.model.audio_present
        known = shares(batch.model.heard, config)
        nothing = statistics.new_zeros(len(statistics), 1, 1)
        absent = torch.zeros_like(present)[:, None]
        encoded = EncodedBatch(nothing, present[:, None], nothing, absent)

        def answer(logits: Tensor) -> ModelOutput:
            return replace(unimodal_output(logits, encoded, audio=True), shares=known)

        if not self.training:
            views = model.audio_head.views(relative, absolute, present, model.config.own_view)
            output = answer(views)
            return TrainOutput(self._judged(output, batch), output)
        outputs = [answer(member(relative)) for member in model.audio_head.members]
        judged = [self._judged(output, batch) for output in outputs]
        losses = {name: torch.stack([j[name] for j in judged]).mean() for name in judged[0]}
        return TrainOutput(losses, outputs[0])
