# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""`EmotionModel`: encoders and one of the four heads behind one forward pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from hri_emo_ros.model.baseline import RelativeStates, shares
from hri_emo_ros.model.batch import ModelBatch
from hri_emo_ros.model.config import EncoderSpec, ModelConfig, VoiceSpec, WordsSpec
from hri_emo_ros.model.encoders import AudioEncoder, FeatureEncoder, TextEncoder
from hri_emo_ros.model.hri_emo import HriEmoFusion, UnimodalEvidence
from hri_emo_ros.model.items import MIN_AUDIO_SAMPLES
from hri_emo_ros.model.late_fusion import LateFusion
from hri_emo_ros.model.output import EncodedBatch, ModelOutput
from hri_emo_ros.model.unimodal import AudioHead, TextHead, VoiceHead, unimodal_output


class EmotionModel(nn.Module):
    """A network as its `ModelConfig` describes it.

    `forward` is `encode_voice`, `relate`, `encode_text` and `fuse` in a row; they are public so that a
    caller can time them or keep the encoders' states.

    Args:
        config: see `ModelConfig`.
        seed: of the random weights; None uses torch's global generator as it is.

    Raises:
        HriEmoError: an encoder cannot be made or loaded.
    """

    def __init__(self, config: ModelConfig, seed: int | None = None) -> None:
        super().__init__()
        if seed is not None:
            torch.manual_seed(seed)
        audio_size = text_size = 1
        if config.uses_audio:
            self.audio_encoder: AudioEncoder | FeatureEncoder = (
                FeatureEncoder(config.audio, config.d_model)
                if config.audio.kind == "features"
                else AudioEncoder(config.audio)
            )
            audio_size = self.audio_encoder.hidden_size
        if config.uses_text:
            self.text_encoder: TextEncoder | FeatureEncoder = (
                FeatureEncoder(config.text, config.d_model)
                if config.text.kind == "features"
                else TextEncoder(config.text)
            )
            text_size = self.text_encoder.hidden_size
            if isinstance(self.text_encoder, TextEncoder):
                limit = min(config.max_text_tokens, self.text_encoder.max_tokens)
                config = config.model_copy(update={"max_text_tokens": limit})
        self.config = config
        if config.uses_audio and config.baseline is not None:
            self.baseline = RelativeStates(audio_size, max(config.voice_components))
            self.speech = nn.Linear(max(config.voice_components), 1)
            """Logit of speech, as against other sounds."""
            nn.init.zeros_(self.speech.weight)
            nn.init.zeros_(self.speech.bias)
        if config.head in ("hri_emo", "audio_only"):
            self.audio_head: AudioHead | VoiceHead = (
                AudioHead(audio_size, config) if config.baseline is None else VoiceHead(config)
            )
        if config.head in ("hri_emo", "text_only"):
            self.text_head = TextHead(text_size, config)
        if config.head == "hri_emo":
            self.fusion = HriEmoFusion(audio_size, text_size, config)
        elif config.head == "late_fusion":
            self.late_fusion = LateFusion(audio_size, text_size, config)

    def portable_config(self) -> ModelConfig:
        """The configuration with the encoders' own inside, and no path: what a bundle stores."""
        updates: dict[str, EncoderSpec] = {"audio": VoiceSpec(), "text": WordsSpec()}
        for name in ("audio", "text"):
            encoder = getattr(self, f"{name}_encoder", None)
            if isinstance(encoder, (AudioEncoder, TextEncoder)):
                change: dict[str, object] = {
                    "config": encoder.model.config.to_diff_dict(),
                    "name": "",
                    "allow_download": False,
                }
                if isinstance(encoder, AudioEncoder):
                    change["normalize"] = encoder.normalize
                updates[name] = encoder.spec.model_copy(update=change)
            elif encoder is not None:
                updates[name] = encoder.spec
        return self.config.model_copy(update=updates)

    @property
    def frame_period(self) -> float:
        """Seconds from one audio state to the next; NaN where frames are precomputed or absent."""
        encoder = getattr(self, "audio_encoder", None)
        return encoder.frame_period if isinstance(encoder, AudioEncoder) else float("nan")

    def forward(self, batch: ModelBatch, need_alignment: bool = False) -> ModelOutput:
        """Score B utterances; see `ModelOutput`. Absent modalities are masked everywhere."""
        audio, audio_mask = self.encode_audio(batch)
        text, text_mask = self.encode_text(batch)
        encoded = EncodedBatch(audio, audio_mask, text, text_mask)
        return self.fuse(encoded, batch, need_alignment)

    def encode_audio(self, batch: ModelBatch) -> tuple[Tensor, Tensor]:
        """`encode_voice` and `relate` in a row."""
        audio, mask = self.encode_voice(batch)
        return self.relate(audio, mask, batch), mask

    def relate(self, audio: Tensor, audio_mask: Tensor, batch: ModelBatch) -> Tensor:
        """What the head reads of the encoder's states [B, F, D]: how they differ from the voice's baseline,
        or, in a network without baselines, themselves."""
        if self.config.baseline is None or not bool(audio_mask.any()):
            return audio
        return self.baseline(audio, audio_mask, batch.baseline)

    def encode_voice(self, batch: ModelBatch) -> tuple[Tensor, Tensor]:
        """States [B, F, D] and mask [B, F] as the encoder gives them; absent rows are not computed."""
        if not self.config.uses_audio:
            return self._nothing(batch)
        lengths = batch.audio_lengths * batch.audio_present
        encodes = isinstance(self.audio_encoder, AudioEncoder)
        present = lengths >= (MIN_AUDIO_SAMPLES if encodes else 1)
        if not bool(present.any()):
            return self._nothing(batch, self.audio_encoder.hidden_size)
        lengths = lengths[present]
        waveform = batch.waveform[present, : int(lengths.max())]
        mask = torch.arange(waveform.shape[1], device=lengths.device)[None] < lengths[:, None]
        states, frame_mask = self.audio_encoder(waveform, mask)
        return _spread(states, frame_mask, present)

    def encode_text(self, batch: ModelBatch) -> tuple[Tensor, Tensor]:
        """States [B, N, D] and mask [B, N] of the words; absent rows are not computed."""
        if not self.config.uses_text:
            return self._nothing(batch)
        mask = batch.text_mask & batch.text_present[:, None]
        present = mask.any(1)
        if not bool(present.any()):
            return self._nothing(batch, self.text_encoder.hidden_size)
        mask, context = mask[present], batch.context_mask[present]
        longest = int((mask | context).sum(1).max())
        states, _ = self.text_encoder(
            batch.input_ids[present, :longest], mask[:, :longest], context[:, :longest]
        )
        own = int(mask.sum(1).max())  # what was said before has told the encoder what it had to
        return _spread(states[:, :own], mask[:, :own], present)

    def fuse(
        self,
        encoded: EncodedBatch,
        batch: ModelBatch,
        need_alignment: bool = False,
        audio_logits: Tensor | None = None,
    ) -> ModelOutput:
        """The head over the encoders' states.

        Args:
            need_alignment: fill `ModelOutput.text_to_audio`.
            audio_logits: [B, L], the voice's own answer for the head ``hri_emo``; None asks the audio
                head.
        """
        if self.config.baseline is None or not self.config.uses_audio:
            return self._fuse(encoded, batch, need_alignment, audio_logits)
        relative, absolute = self.baseline.statistics(
            encoded.audio, encoded.audio_mask, batch.baseline
        )
        if audio_logits is None and isinstance(getattr(self, "audio_head", None), VoiceHead):
            present = encoded.audio_mask.any(1)
            own = 1.0 if self.training else self.config.own_view
            audio_logits = self.audio_head.views(relative, absolute, present, own)
        return replace(
            self._fuse(encoded, batch, need_alignment, audio_logits),
            shares=shares(batch.heard, self.config.baseline),
            speech=self.speech(absolute).squeeze(-1),
        )

    def _fuse(
        self,
        encoded: EncodedBatch,
        batch: ModelBatch,
        need_alignment: bool,
        audio_logits: Tensor | None,
    ) -> ModelOutput:
        if self.config.head == "audio_only":
            if audio_logits is None:
                audio_logits = self.audio_head(encoded.audio, encoded.audio_mask)
            return unimodal_output(audio_logits, encoded, audio=True)
        if self.config.head == "text_only":
            logits = self.text_head(encoded.text, encoded.text_mask)
            return unimodal_output(logits, encoded, audio=False)
        if self.config.head == "late_fusion":
            return self._late_fusion(encoded)
        if audio_logits is None:
            audio_logits = self.audio_head(encoded.audio, encoded.audio_mask)
        return self._hri_emo(encoded, batch, need_alignment, audio_logits)

    def _hri_emo(
        self,
        encoded: EncodedBatch,
        batch: ModelBatch,
        need_alignment: bool,
        audio_logits: Tensor,
    ) -> ModelOutput:
        text_logits = self.text_head(encoded.text, encoded.text_mask)
        evidence = UnimodalEvidence(audio_logits, text_logits)
        logits, beta, looked = self.fusion(encoded, evidence, batch, need_alignment)
        output = ModelOutput(
            logits,
            audio_logits,
            text_logits,
            beta,
            encoded.audio_mask.any(1),
            encoded.text_mask.any(1),
            looked,
        )
        if not self.config.unimodal_path and not self.training:
            # The heads alone are then not what the network says when a modality is removed.
            output.audio_logits = self._without("text", encoded, evidence, batch)
            output.text_logits = self._without("audio", encoded, evidence, batch)
        return output

    def _without(
        self,
        modality: Literal["audio", "text"],
        encoded: EncodedBatch,
        evidence: UnimodalEvidence,
        batch: ModelBatch,
    ) -> Tensor:
        absent = torch.zeros_like(getattr(encoded, f"{modality}_mask"))
        nothing = torch.zeros_like(evidence.audio_logits)
        return self.fusion(
            replace(encoded, **{f"{modality}_mask": absent}),
            replace(evidence, **{f"{modality}_logits": nothing}),
            batch.without(modality),
        )[0]

    def _late_fusion(self, encoded: EncodedBatch) -> ModelOutput:
        logits, audio_logits, text_logits = self.late_fusion(encoded)
        audio_present, text_present = encoded.audio_mask.any(1), encoded.text_mask.any(1)
        # No gate: where neither modality changes the answer they share evenly.
        share = torch.where(
            audio_present == text_present, torch.full_like(logits[:, 0], 0.5), audio_present.float()
        ).unsqueeze(-1)
        return ModelOutput(logits, audio_logits, text_logits, share, audio_present, text_present)

    def _nothing(self, batch: ModelBatch, width: int = 1) -> tuple[Tensor, Tensor]:
        device = batch.audio_present.device
        return (
            torch.zeros(len(batch), 1, width, device=device),
            torch.zeros(len(batch), 1, dtype=torch.bool, device=device),
        )


def _spread(states: Tensor, mask: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Put the rows of present utterances back into their places; masked positions become zero."""
    states = states * mask.unsqueeze(-1)
    if bool(present.all()):
        return states, mask
    rows = present.shape[0]
    all_states = states.new_zeros(rows, *states.shape[1:])
    all_mask = mask.new_zeros(rows, *mask.shape[1:])
    all_states[present] = states
    all_mask[present] = mask
    return all_states, all_mask
