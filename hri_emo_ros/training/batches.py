"""Examples -> tensors: augmented for training, as they are or in stated conditions for validation."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hri_emo_ros.data.corpus import Item
from hri_emo_ros.model.batch import ModelBatch, ModelItem, collate
from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.model.tokenizer import TextTokenizer
from hri_emo_ros.training.augment import Condition, Conditions, Listener, intact
from hri_emo_ros.training.pairs import Example
from hri_emo_ros.training.voices import ClipFacts, HalfArray, VoiceStates, samples_of
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

_BATCH_STREAM = 4


@dataclass
class TrainBatch:
    """B examples; the rest of their tensors is in `model`."""

    model: ModelBatch
    targets: Tensor
    """[B, L] soft labels."""
    voice_targets: Tensor
    """[B, L] what the voice alone says."""
    words_targets: Tensor
    """[B, L] what the words alone say."""
    weights: Tensor
    """[B] of the loss."""
    states: Tensor | None = None
    """[B, F, H] of the frozen voice encoder in place of the waveform; zeros in absent rows."""
    states_mask: Tensor | None = None
    """[B, F] bool."""

    def to(self, device: torch.device) -> TrainBatch:
        moved: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            moved[f.name] = value.to(device) if value is not None else None
        return TrainBatch(**moved)


@dataclass
class Sources:
    """Where a batch's contents come from."""

    listener: Listener
    tokenizer: TextTokenizer | None
    facts: Mapping[str, ClipFacts] = field(default_factory=dict)
    """By item id."""
    states: VoiceStates | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of the loss, by item id; 1 where none is given."""


class BatchMaker:
    """Builds batches.

    Args:
        model: of the network, after its encoders have had their say (token limit).
        sources: clips, tokenizer, weights.
        conditions: draws what happens to training examples.
        seed: of the draws.
    """

    def __init__(
        self, model: ModelConfig, sources: Sources, conditions: Conditions, seed: int
    ) -> None:
        self.model, self.sources, self.conditions, self.seed = model, sources, conditions, seed

    def train(self, examples: Sequence[Example], epoch: int, number: int) -> TrainBatch:
        """Augmented batch `number` of `epoch`; the same numbers give the same batch."""
        rng = np.random.default_rng([self.seed, _BATCH_STREAM, epoch, number])
        states = self.sources.states
        if states is None:
            drawn = [self.conditions(example, rng) for example in examples]
            heard = [
                self._samples(example, condition, zlib.crc32(f"{self.seed}/{epoch}".encode()))
                for example, condition in zip(examples, drawn, strict=True)
            ]
            return self._assemble(examples, drawn, heard, None)
        drawn, kept = [], []
        for example in examples:
            version = int(rng.integers(states.versions + 1)) if example.voice is not None else 0
            noise = self.version_noise(example.voice, version) if example.voice else None
            condition = self.conditions(example, rng, noise)
            drawn.append(condition)
            kept.append(
                states.states(example.voice, version)
                if example.voice is not None and condition.voice
                else None
            )
        return self._assemble(examples, drawn, None, kept)

    def version_noise(self, item: Item, version: int) -> tuple[str, float]:
        """Kind and level of the noise in a version of a clip."""
        if version == 0:
            return "", float("nan")
        seed = zlib.crc32(f"{self.seed}/{item.id}/{version}".encode())
        return self.conditions.noise(np.random.default_rng(seed))

    def version_condition(self, item: Item, version: int) -> Condition:
        """For `VoiceStates.load`."""
        kind, snr = self.version_noise(item, version)
        return Condition(item.target, item.target, True, False, None, kind, snr)

    def clean(
        self, examples: Sequence[Example], conditions: Sequence[Condition] | None = None
    ) -> TrainBatch:
        """The examples as they are, or in given conditions with noise drawn by the examples' names."""
        given = [intact(e) for e in examples] if conditions is None else conditions
        states = self.sources.states
        if states is None:
            heard = [self._samples(e, c, None) for e, c in zip(examples, given, strict=True)]
            return self._assemble(examples, given, heard, None)
        kept: list[HalfArray | None] = []
        for example, condition in zip(examples, given, strict=True):
            voice = example.voice
            if voice is None or not condition.voice:
                kept.append(None)
            elif condition.noise:
                kept.append(states.compute(voice, condition))
            else:
                kept.append(states.states(voice, 0))
        return self._assemble(examples, given, None, kept)

    def _samples(
        self, example: Example, condition: Condition, seed: int | None
    ) -> FloatArray | None:
        item = example.voice
        if item is None or item.audio is None or not condition.voice or not self.model.uses_audio:
            return None
        return self.sources.listener(item.id, samples_of(item), condition, seed)

    def _assemble(
        self,
        examples: Sequence[Example],
        conditions: Sequence[Condition],
        samples: Sequence[FloatArray | None] | None,
        states: Sequence[HalfArray | None] | None,
    ) -> TrainBatch:
        items = []
        for row, (example, condition) in enumerate(zip(examples, conditions, strict=True)):
            voice, words = example.voice, example.words
            facts = self.sources.facts.get(voice.id) if voice is not None else None
            items.append(
                ModelItem(
                    samples=samples[row] if samples is not None else None,
                    text=condition.text,
                    snr_db=condition.told_snr_db,
                    asr_confidence=condition.confidence,
                    speech_seconds=facts.speech_seconds if facts else float("nan"),
                    audio_features=voice.audio_features if voice and condition.voice else None,
                    text_features=words.text_features if words and condition.words else None,
                )
            )
        weights = self.sources.weights
        batch = TrainBatch(
            model=collate(items, self.model, self.sources.tokenizer),
            targets=torch.tensor([c.target for c in conditions]),
            voice_targets=torch.tensor([e.voice_target for e in examples]),
            words_targets=torch.tensor([c.words_target for c in conditions]),
            weights=torch.tensor([weights.get(e.item.id, 1.0) for e in examples]),
        )
        if states is not None:
            self._add_states(batch, items, states)
        return batch

    def _add_states(
        self, batch: TrainBatch, items: Sequence[ModelItem], states: Sequence[HalfArray | None]
    ) -> None:
        lengths = torch.tensor([0 if s is None else len(s) for s in states])
        assert self.sources.states is not None
        width = self.sources.states.encoder.hidden_size
        padded = np.zeros((len(states), max(1, int(lengths.max())), width), np.float32)
        for row, each in enumerate(states):
            if each is not None:
                padded[row, : len(each)] = each
        batch.states = torch.from_numpy(padded)
        batch.states_mask = torch.arange(padded.shape[1])[None] < lengths[:, None]
        # As if the waveform had come along.
        batch.model.audio_present = lengths > 0
        seconds = torch.tensor([item.speech_seconds for item in items], dtype=torch.float32)
        seconds = torch.where(lengths > 0, seconds.nan_to_num(), torch.zeros(()))
        batch.model.speech_seconds = seconds
        batch.model.audio_lengths = (seconds * SAMPLE_RATE).long()
