"""The network with what exists only while it learns: auxiliary questions and the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from hri_emo_ros.model.encoders import AudioEncoder
from hri_emo_ros.model.losses import compute_losses
from hri_emo_ros.model.network import EmotionModel
from hri_emo_ros.model.output import EncodedBatch, ModelOutput
from hri_emo_ros.training.batches import TrainBatch
from hri_emo_ros.training.config import TrainConfig
from hri_emo_ros.training.unheard_heads import CrossFittedHeads


@dataclass
class TrainOutput:
    """What one pass gives."""

    losses: dict[str, Tensor]
    """Scalars; ``total`` is the one to minimise."""
    output: ModelOutput
    word_logits: Tensor | None = None
    """[B, W] of the auxiliary question about a corpus's own words."""


class TrainingModule(nn.Module):
    """`EmotionModel` and its loss in one forward pass, so that data-parallel wrappers see it all.

    Args:
        model: the network.
        config: of the run.
        words: how many own words the auxiliary question has.
    """

    def __init__(self, model: EmotionModel, config: TrainConfig, words: int) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.word_head: nn.Linear | None = None
        self.intensity_head: nn.Linear | None = None
        self._hidden: Tensor | None = None
        auxiliary = config.auxiliary
        if auxiliary.words_weight or auxiliary.intensity_weight:
            last = _last_linear(model.audio_head.classifier)
            last.register_forward_pre_hook(self._remember)
            if auxiliary.words_weight and words:
                self.word_head = nn.Linear(last.in_features, words)
            if auxiliary.intensity_weight:
                self.intensity_head = nn.Linear(last.in_features, 1)
        self.frozen_heads: list[nn.Module] = []
        if config.pretrained.freeze_heads:
            for name in ("audio_head", "text_head"):
                head = getattr(model, name, None)
                if head is not None:
                    head.requires_grad_(False)
                    self.frozen_heads.append(head)
        self.cross_fitted: CrossFittedHeads | None = None
        if config.pretrained.cross_fit is not None:
            self.cross_fitted = CrossFittedHeads(
                model.audio_head, config.pretrained.cross_fit.folds
            ).requires_grad_(False)
            self.frozen_heads.append(self.cross_fitted)

    def _remember(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._hidden = inputs[0]

    def train(self, mode: bool = True) -> TrainingModule:
        """As usual; what is frozen has no dropout."""
        super().train(mode)
        for head in self.frozen_heads:
            head.eval()
        return self

    def forward(self, batch: TrainBatch) -> TrainOutput:
        """Score and judge one batch."""
        output = self.output(batch)
        return self._judge(output, batch)

    def output(self, batch: TrainBatch) -> ModelOutput:
        """Score one batch."""
        model = self.model
        audio, audio_mask = self.encode_audio(batch)
        text, text_mask = model.encode_text(batch.model)
        encoded = EncodedBatch(audio, audio_mask, text, text_mask)
        if self.training and self.cross_fitted is not None:
            strangers = self.cross_fitted(audio, audio_mask, batch.folds)
            return model.fuse(encoded, batch.model, audio_logits=strangers)
        return model.fuse(encoded, batch.model)

    def encode_audio(self, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        """States [B, F, D] and mask [B, F] of the voices, from mel powers where the batch has them."""
        if batch.log_mel is None:
            return self.model.encode_audio(batch.model)
        return self._encode_mel(batch)

    def _encode_mel(self, batch: TrainBatch) -> tuple[Tensor, Tensor]:
        assert batch.log_mel is not None
        assert batch.mel_mask is not None
        encoder = self.model.audio_encoder
        assert isinstance(encoder, AudioEncoder)
        present = batch.model.audio_present
        with torch.set_grad_enabled(torch.is_grad_enabled() and not encoder.frozen):
            output = encoder.model.encode(batch.log_mel[present], batch.mel_mask[present])
        states, mask = output.last_hidden_state, output.frame_mask
        if encoder.mix is not None:
            states = encoder.mix(output.hidden_states)
        if bool(present.all()):
            return states, mask
        all_states = states.new_zeros(len(present), *states.shape[1:])
        all_mask = mask.new_zeros(len(present), *mask.shape[1:])
        all_states[present], all_mask[present] = states, mask
        return all_states, all_mask

    def _judge(self, output: ModelOutput, batch: TrainBatch) -> TrainOutput:
        config = self.config
        objective = self.model.config.objective
        if self.model.config.head in ("audio_only", "text_only"):
            losses = {"main": self._weighted(output.logits, batch)}
            losses["total"] = losses["main"]
        else:
            losses = compute_losses(
                output, batch.targets, objective, config.loss,
                audio_targets=batch.voice_targets, text_targets=batch.words_targets,
            )  # fmt: skip
        if batch.teacher is not None and config.distill.weight:
            taught = distillation(output.logits, batch.teacher, config.distill.temperature)
            weight = config.distill.weight
            losses["teacher"] = (taught * batch.weights).mean()
            losses["total"] = (1 - weight) * losses["total"] + weight * losses["teacher"]
        word_logits = self._auxiliary(losses, batch) if self._hidden is not None else None
        return TrainOutput(losses, output, word_logits)

    def _weighted(self, logits: Tensor, batch: TrainBatch) -> Tensor:
        """Mean over the batch of each item's weight times its loss."""
        smoothing = self.config.loss.label_smoothing
        if self.model.config.objective == "multi_label":
            soft = batch.targets * (1 - smoothing) + 0.5 * smoothing
            each = functional.binary_cross_entropy_with_logits(logits, soft, reduction="none")
            return (each.mean(1) * batch.weights).mean()
        each = functional.cross_entropy(
            logits, batch.targets, reduction="none", label_smoothing=smoothing
        )
        return (each * batch.weights).mean()

    def _auxiliary(self, losses: dict[str, Tensor], batch: TrainBatch) -> Tensor | None:
        hidden, config = self._hidden, self.config.auxiliary
        assert hidden is not None
        self._hidden = None
        word_logits = None
        if self.word_head is not None:
            word_logits = self.word_head(hidden)
            asked = batch.word_targets.sum(1)
            smoothing = self.config.loss.label_smoothing
            spread = smoothing * asked[:, None] / batch.word_targets.shape[1]
            soft = batch.word_targets * (1 - smoothing) + spread
            losses["words"] = -(soft * word_logits.log_softmax(1)).sum(1).mean()
            losses["total"] = losses["total"] + config.words_weight * losses["words"]
        if self.intensity_head is not None:
            told = torch.isfinite(batch.intensity)
            each = functional.binary_cross_entropy_with_logits(
                self.intensity_head(hidden)[:, 0], batch.intensity.nan_to_num(), reduction="none"
            )
            losses["intensity"] = (each * told).mean()
            losses["total"] = losses["total"] + config.intensity_weight * losses["intensity"]
        return word_logits


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """[B] cross-entropy with the teacher's softened probabilities, times temperature squared so that
    the gradient's size does not depend on it (Hinton et al. 2015)."""
    log_p = torch.log_softmax(logits / temperature, dim=-1)
    return -(teacher * log_p).sum(1) * temperature**2


def _last_linear(classifier: nn.Module) -> nn.Linear:
    linears = [m for m in classifier.modules() if isinstance(m, nn.Linear)]
    return linears[-1]
