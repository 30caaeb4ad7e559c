# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""HRI-EMO: cross-modal states, a reliability gate, and one query per emotion.

Per utterance, with voice states A [F, d] and word states T [N, d] (projected to one width):

1. A and T attend to themselves, then to each other; residual and LayerNorm after each. Every voice
   frame is kept.
2. beta = sigmoid(MLP(evidence)) in [0, 1]^d. The evidence is all from *before* step 1, where audio
   still holds no text: what each modality alone would answer and how sure it is, signal-to-noise
   ratio, recogniser confidence, amounts of speech and words. Not the encoders' states: from them the
   gate learnt whose voice and which sentences it had seen, and hardly moved for anybody else. beta is
   exactly 1 where words are absent and 0 where the voice is.
3. h = beta * h_a + (1 - beta) * h_t, with h_a, h_t the means of the states.
4. The memory is [beta * A ; (1 - beta) * T ; h]. Emotion queries attend to each other and to it.
   With g = mean(beta), log(g / F) and log((1 - g) / N) are added to the scores of the voice's and the
   words' entries: at equal scores the modalities share the attention as g : 1 - g, however many frames
   or words there are. One logit per emotion comes from its query.
5. With ``unimodal_path``: logits = c(g) z_a + c(1 - g) z_t + c(g) c(1 - g) q z_queries, where z_a, z_t
   are the unimodal logits and c(x) = s (x - 1/2) + 1, held in [0, 1], with s = ``gate_slope``. At g = 1/2
   both answers count in full (a product of experts, Hinton 2002), which is right for two that are each as
   sure as they should be; the gate takes away from the one that is surer than it should be, all of it from
   g = 1/2 + 1/s (or 1/2 - 1/s) on. So a modality that is absent or judged worthless cannot hurt. The
   queries correct the sum of two: in full in training (q = 1) and by ``queries_count`` after it. In full they
   would speak for the voice in noise, where its answer fades and their correction does not; a bound that is
   there in training as well only makes them grow until they have made up for it.
   The answer's loss teaches beta only how it differs between channels; its mean learns from which
   modality knew the answer (`losses.gate_loss`) and nothing else. The answer's loss would hold it in
   the middle, where both count in full, and let babble answer for a voice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hri_emo_ros.model.batch import ModelBatch
from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.model.layers import AttentionBlock, masked_mean
from hri_emo_ros.model.output import EncodedBatch

_SNR_UNIT = 10.0
"""dB"""
_SHARE_UNIT = 0.25
"""Of shares in [0, 1]. With these units all evidence varies by about as much, so that in few steps the
gate learns from the telling parts of it as readily as from the many."""


@dataclass
class UnimodalEvidence:
    """What each modality says before fusion."""

    audio_logits: Tensor
    """[B, L]"""
    text_logits: Tensor
    """[B, L]"""

    def detached(self) -> UnimodalEvidence:
        """The same without gradient: the fused answer's loss does not train the unimodal answers."""
        return UnimodalEvidence(self.audio_logits.detach(), self.text_logits.detach())


class CrossModalBlock(nn.Module):
    """Intra-modal self-attention, then each modality attends to the other."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size = (config.d_model, config.attention_heads, config.feedforward, config.dropout)
        self.audio_self, self.text_self = AttentionBlock(*size), AttentionBlock(*size)
        self.audio_cross, self.text_cross = AttentionBlock(*size), AttentionBlock(*size)

    def forward(
        self, audio: Tensor, audio_mask: Tensor, text: Tensor, text_mask: Tensor, need_weights: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """States in, states out, and where each token looked in the audio [B, N, F] on request."""
        audio, _ = self.audio_self(audio, audio, audio_mask)
        text, _ = self.text_self(text, text, text_mask)
        heard, _ = self.audio_cross(audio, text, text_mask)
        read, looked = self.text_cross(text, audio, audio_mask, need_weights=need_weights)
        return heard, read, looked


class ReliabilityGate(nn.Module):
    """beta from the evidence that stands before fusion."""

    # Posteriors' entropy and maximum for both; SNR and whether it is known; recogniser confidence;
    # two presence flags; speech and words.
    SCALARS = 11

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.multi_label = config.objective == "multi_label"
        self.mlp = nn.Sequential(
            nn.Linear(2 * len(config.labels) + self.SCALARS, config.gate_hidden),
            nn.GELU(),
            nn.Linear(config.gate_hidden, config.d_model),
        )

    def forward(
        self, evidence: UnimodalEvidence, batch: ModelBatch, audio: Tensor, text: Tensor
    ) -> Tensor:
        """[B, d] in [0, 1]; `audio` and `text` are the presence flags [B, 1]."""
        known = torch.isfinite(batch.snr_db) & audio.squeeze(1)
        snr = (
            torch.where(known, batch.snr_db, torch.zeros_like(batch.snr_db)).clamp(-20.0, 40.0)
            / _SNR_UNIT
        )
        scalars = torch.stack(
            [
                snr,
                known.float(),
                batch.asr_confidence * text.squeeze(1) / _SHARE_UNIT,
                audio.squeeze(1).float(),
                text.squeeze(1).float(),
                torch.log1p(batch.speech_seconds.clamp(min=0.0)) * audio.squeeze(1),
                torch.log1p(batch.word_count.clamp(min=0.0)) * text.squeeze(1),
            ],
            dim=-1,
        )
        answers = [
            self._answer(logits) * present
            for logits, present in ((evidence.audio_logits, audio), (evidence.text_logits, text))
        ]
        beta = torch.sigmoid(self.mlp(torch.cat([*answers, scalars], dim=-1)))
        beta = torch.where(text, beta, torch.ones_like(beta))
        beta = torch.where(audio, beta, torch.zeros_like(beta))
        return torch.where(audio | text, beta, torch.full_like(beta, 0.5))

    def _answer(self, logits: Tensor) -> Tensor:
        """Posterior, and its normalised entropy and maximum in units of their own: [B, L + 2]."""
        p = torch.sigmoid(logits) if self.multi_label else torch.softmax(logits, dim=-1)
        entropy = normalised_entropy(logits, self.multi_label)
        sure = torch.cat([entropy, p.amax(-1, keepdim=True)], dim=-1)
        return torch.cat([p, sure / _SHARE_UNIT], dim=-1)


class EmotionDecoder(nn.Module):
    """One learned query per emotion, decoded against the gated memory; one logit from each."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size = (config.d_model, config.attention_heads, config.feedforward, config.dropout)
        labels = len(config.labels)
        self.queries = nn.Parameter(torch.randn(labels, config.d_model))
        self.self_blocks = nn.ModuleList(
            AttentionBlock(*size) for _ in range(config.decoder_layers)
        )
        self.memory_blocks = nn.ModuleList(
            AttentionBlock(*size) for _ in range(config.decoder_layers)
        )
        self.readout = nn.Parameter(torch.randn(labels, config.d_model) / math.sqrt(config.d_model))
        self.bias = nn.Parameter(torch.zeros(labels))

    def forward(self, memory: Tensor, mask: Tensor, bias: Tensor) -> Tensor:
        """Memory [B, M, d] with its mask and score bias [B, M] -> logits [B, L]."""
        states = self.queries.expand(memory.shape[0], -1, -1)
        everyone = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        for self_block, memory_block in zip(self.self_blocks, self.memory_blocks, strict=True):
            states, _ = self_block(states, states, everyone)
            states, _ = memory_block(states, memory, mask, bias)
        return (states * self.readout).sum(-1) + self.bias


class HriEmoFusion(nn.Module):
    """Steps 1 to 5 of the module's docstring."""

    def __init__(self, audio_size: int, text_size: int, config: ModelConfig) -> None:
        super().__init__()
        self.unimodal_path = config.unimodal_path
        self.slope, self.queries_count = config.gate_slope, config.queries_count
        self.project_audio = nn.Sequential(
            nn.LayerNorm(audio_size), nn.Linear(audio_size, config.d_model)
        )
        self.project_text = nn.Sequential(
            nn.LayerNorm(text_size), nn.Linear(text_size, config.d_model)
        )
        self.blocks = nn.ModuleList(CrossModalBlock(config) for _ in range(config.fusion_layers))
        self.gate = ReliabilityGate(config)
        self.decoder = EmotionDecoder(config)
        if config.unimodal_path:
            # A correction begins at none, and grows only where the sum of both answers is not enough.
            nn.init.zeros_(self.decoder.readout)

    def forward(
        self,
        encoded: EncodedBatch,
        evidence: UnimodalEvidence,
        batch: ModelBatch,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits [B, L], beta [B, d], and where each token looked in the audio [B, N, F] on request."""
        audio_mask, text_mask = encoded.audio_mask, encoded.text_mask
        audio_present, text_present = (
            audio_mask.any(1, keepdim=True),
            text_mask.any(1, keepdim=True),
        )
        if self.training:
            evidence = evidence.detached()
        beta = self.gate(evidence, batch, audio_present, text_present)

        g, judged = beta.mean(-1, keepdim=True), beta
        if self.unimodal_path and self.training:
            beta, g = beta - g + g.detach(), g.detach()
        if self.unimodal_path and not self.training and not (audio_present & text_present).any():
            # The queries' factor is exactly 0: provisional states, which have no words yet, need not pay
            # for the decoder.
            return self._experts(g, evidence) * (audio_present | text_present), beta, None

        audio, text = self.project_audio(encoded.audio), self.project_text(encoded.text)
        looked: list[Tensor] = []
        for block in self.blocks:
            audio, text, weights = block(audio, audio_mask, text, text_mask, need_weights)
            if weights is not None:
                looked.append(weights)

        toward_audio, toward_text = beta, 1 - beta
        h = toward_audio * masked_mean(audio, audio_mask) + toward_text * masked_mean(
            text, text_mask
        )
        memory = torch.cat(
            [audio * toward_audio.unsqueeze(1), text * toward_text.unsqueeze(1), h.unsqueeze(1)],
            dim=1,
        )
        mask = torch.cat([audio_mask, text_mask, audio_present | text_present], dim=1)
        bias = torch.cat(
            [_share(g, audio_mask), _share(1 - g, text_mask), torch.zeros_like(g)], dim=1
        )
        logits = self.decoder(memory, mask, bias)
        if self.unimodal_path:
            count = 1.0 if self.training else self.queries_count
            room = self._counted(g) * self._counted(1 - g) * count
            logits = self._experts(g, evidence) + room * logits
        # With nothing to judge by, the only honest answer is a uniform one.
        logits = logits * (audio_present | text_present)
        return logits, judged, torch.stack(looked).mean(0) if looked else None

    def _experts(self, g: Tensor, evidence: UnimodalEvidence) -> Tensor:
        """What the unimodal answers add up to under the gate [B, 1]: logits [B, L]."""
        voice, words = self._counted(g), self._counted(1 - g)
        return voice * evidence.audio_logits + words * evidence.text_logits

    def _counted(self, share: Tensor) -> Tensor:
        """c(x): how much of a modality's answer counts where the gate gives it `share` of the trust."""
        return (self.slope * (share - 0.5) + 1.0).clamp(0.0, 1.0)


def normalised_entropy(logits: Tensor, multi_label: bool) -> Tensor:
    """Entropy of the answer [B, L] in [0, 1], [B, 1]: of one distribution over the labels, or the mean of
    the labels' own."""
    if multi_label:
        p = torch.sigmoid(logits)
        # Without the clamp the gradient would be NaN where the sigmoid is exactly 0 or 1.
        both = torch.stack([p, 1 - p]).clamp(min=1e-7)
        each = -(both * both.log()).sum(0)
        return each.mean(-1, keepdim=True) / math.log(2)
    log_p = torch.log_softmax(logits, dim=-1)
    return -(log_p.exp() * log_p).sum(-1, keepdim=True) / math.log(logits.shape[-1])


def _share(gate: Tensor, mask: Tensor) -> Tensor:
    """log(gate / positions) for each position: [B, 1], [B, N] -> [B, N]."""
    count = mask.sum(1, keepdim=True).clamp(min=1).to(gate.dtype)
    return (gate.clamp(min=1e-6).log() - count.log()).expand(-1, mask.shape[1])
