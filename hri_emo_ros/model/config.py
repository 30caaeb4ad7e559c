# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What a network is made of, as validated data: one YAML section in training, JSON in a bundle."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hri_emo_ros.types import LABELS
from hri_emo_ros.voices.baseline import BaselineConfig

Head = Literal["hri_emo", "late_fusion", "audio_only", "text_only"]
Objective = Literal["single_label", "multi_label"]


class EncoderSpec(BaseModel):
    """Where one modality's states come from."""

    model_config = ConfigDict(extra="forbid")

    kind: str
    """``transformers``: any encoder that its Auto classes load; ``features``: precomputed vectors, nothing is
    encoded; for voices ``compact`` too, the first layers of a Whisper (`model.compact_audio`)."""
    name: str = ""
    """Folder or model name."""
    allow_download: bool = False
    """Let transformers fetch ``name`` from the model hub; otherwise only local files are read."""
    config: dict[str, Any] | None = None
    """The encoder's own configuration. In a bundle it is complete, so no other file is needed; without ``name``
    it makes an encoder with random weights; with the name of a Whisper it says which layers to take."""
    width: int = Field(default=0, ge=0)
    """Size of one precomputed vector; only for ``features``."""
    unfreeze_last_n_layers: int = Field(default=0, ge=-1)
    """Layers that training may change, counted from the top: 0 freezes the encoder, -1 trains all of it."""

    @model_validator(mode="after")
    def _wide(self) -> EncoderSpec:
        if self.kind == "features" and self.width < 1:
            raise ValueError("kind 'features' needs 'width' >= 1, the size of one feature vector")
        return self


class VoiceSpec(EncoderSpec):
    """Of the voice."""

    kind: Literal["transformers", "compact", "features"] = "compact"
    layer_weighted_sum: bool = False
    """Use a learned weighted sum of all layers instead of the last one (SUPERB, Yang et al. 2021); only for
    ``transformers``."""
    normalize: bool | None = None
    """Bring each waveform to zero mean and unit variance first (a wav2vec 2.0 feature extractor's
    ``do_normalize``); None follows the encoder's preprocessor_config.json, else true for
    ``transformers`` and false for ``compact``."""

    @model_validator(mode="after")
    def _summed(self) -> VoiceSpec:
        if self.layer_weighted_sum and self.kind != "transformers":
            raise ValueError(f"'layer_weighted_sum' is for kind 'transformers', not '{self.kind}'")
        return self


class WordsSpec(EncoderSpec):
    """Of the words."""

    kind: Literal["transformers", "features"] = "transformers"


class ContextConfig(BaseModel):
    """What the text encoder reads of the conversation before the utterance: behind it, latest turn first."""

    model_config = ConfigDict(extra="forbid")

    turns: int = Field(3, ge=1)
    """Earlier turns, at most."""
    turn_tokens: int = Field(40, ge=4)
    """Of each its beginning of so many tokens."""
    max_tokens: int = Field(128, ge=16)
    """Of utterance and context together; a turn that does not fit, and all before it, are left out."""


class ModelConfig(BaseModel):
    """One network: a head over at most two encoders."""

    model_config = ConfigDict(extra="forbid")

    head: Head = "hri_emo"
    labels: tuple[str, ...] = LABELS
    objective: Objective = "single_label"
    audio: VoiceSpec = VoiceSpec()
    text: WordsSpec = WordsSpec()
    d_model: int = Field(128, ge=8)
    """Width of the fusion."""
    attention_heads: int = Field(4, ge=1)
    fusion_layers: int = Field(1, ge=1)
    """Blocks of intra-modal self-attention followed by bidirectional cross-attention."""
    decoder_layers: int = Field(1, ge=1)
    """Blocks of query self-attention followed by attention to the fused memory."""
    feedforward: int = Field(256, ge=8)
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    head_hidden: int = Field(128, ge=1)
    """Hidden width of the unimodal and late-fusion classifiers."""
    text_pooling: Literal["mean", "first"] = "mean"
    """What stands for a text in the text and late-fusion heads: the mean over its tokens or the first
    token (RoBERTa's <s>, BERT's [CLS])."""
    unimodal_path: bool = True
    """Add the gated unimodal logits to those of the emotion queries (see `hri_emo`); false is the
    plain decoder of HRI-EMO."""
    gate_hidden: int = Field(64, ge=1)
    gate_slope: float = Field(9.0, ge=1.0)
    """Of c(x) in `hri_emo`, step 5: how fast a modality's answer is taken away as the gate turns from it."""
    queries_count: float = Field(0.5, ge=0.0, le=1.0)
    """q in `hri_emo`, step 5, after training."""
    max_audio_seconds: float = Field(15.0, gt=0.0)
    """The encoders see at most this much audio: in training a stretch from anywhere, else the end."""
    max_text_tokens: int = Field(96, ge=4)
    baseline: BaselineConfig | None = None
    """Judge a voice against how it usually sounds (see `model.baseline`); None takes its states as they are."""
    voice_components: tuple[int, ...] = (128, 128, 320)
    """In how many directions each of the networks in the voice's own answer sees an utterance differ from the
    baseline; their log-probabilities are averaged. With more directions a network knows the corpora of its
    training better and others worse. This and the next two only with ``baseline``."""
    voice_hidden: int = Field(128, ge=1)
    """Hidden width of those networks."""
    own_view: float = Field(0.6, ge=0.0, le=1.0)
    """How much of the voice's own answer is relative to its baseline; the rest is relative to the population, so
    that of somebody who is angry for long anger is still heard. Training sees the first alone."""
    context: ContextConfig | None = None
    """Let the text encoder read earlier turns; None shows it the utterance alone."""

    @field_validator("voice_components")
    @classmethod
    def _components(cls, components: tuple[int, ...]) -> tuple[int, ...]:
        if not components or min(components) < 1:
            raise ValueError("voice_components must be at least one number, each >= 1")
        return components

    @field_validator("labels")
    @classmethod
    def _labels(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(labels) < 2 or len(set(labels)) != len(labels) or not all(labels):
            raise ValueError("labels must be at least two different, non-empty words")
        return labels

    @model_validator(mode="after")
    def _divisible(self) -> ModelConfig:
        if self.d_model % self.attention_heads:
            raise ValueError(
                f"d_model ({self.d_model}) must be a multiple of attention_heads "
                f"({self.attention_heads})"
            )
        return self

    @property
    def uses_audio(self) -> bool:
        return self.head != "text_only"

    @property
    def uses_text(self) -> bool:
        return self.head != "audio_only"
