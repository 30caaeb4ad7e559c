# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Examples -> tensors: augmented for training, as they are or in stated conditions for validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hri_emo_ros.data.clip_facts import ClipFacts, samples_of
from hri_emo_ros.model.batch import ModelBatch, collate
from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.model.items import ModelItem
from hri_emo_ros.model.tokenizer import TextTokenizer
from hri_emo_ros.training.augment import Condition, Conditions, Listener, Seeds
from hri_emo_ros.training.known import Known
from hri_emo_ros.training.pairs import Example
from hri_emo_ros.training.unheard import UnheardVoices
from hri_emo_ros.training.voices import HalfArray, VoiceStates
from hri_emo_ros.types import SAMPLE_RATE, FloatArray
from hri_emo_ros.voices.baseline import Baseline

_BATCH_STREAM = 4
_CLEAN = 0.6
"""Chance of a clip as it is where versions of it are kept."""


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
    audio_logits: Tensor | None = None
    """[B, L] of the voice, in place of the head's own; rows of NaN take that."""
    allowed: Tensor | None = None
    """[B, L] bool, labels that the example's corpus has."""
    states: Tensor | None = None
    """[B, F, H] of the frozen voice encoder in place of the waveform; zeros in absent rows."""
    states_mask: Tensor | None = None
    """[B, F] bool."""
    statistics: Tensor | None = None
    """[B, 2 H] of the states, where a head reads nothing else of them."""

    def to(self, device: torch.device) -> TrainBatch:
        moved: dict[str, Any] = {k: v if v is None else v.to(device) for k, v in vars(self).items()}
        return TrainBatch(**moved)


@dataclass
class Sources:
    """Where a batch's contents come from."""

    listener: Listener
    tokenizer: TextTokenizer | None
    facts: Mapping[str, ClipFacts] = field(default_factory=dict)
    """By item id."""
    states: VoiceStates | None = None
    known: Known | None = None
    """Of the training side; None for networks without baseline."""
    known_validation: Known | None = None
    heard: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    """What a recogniser made of a clip and its confidence, by item id."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of the loss, by item id; 1 where none is given."""
    unheard: UnheardVoices | None = None
    labels: Mapping[str, Sequence[bool]] = field(default_factory=dict)
    """Of types.LABELS, those that a corpus has."""


@dataclass
class _Row:
    """One example on its way into a batch."""

    example: Example
    condition: Condition
    samples: FloatArray | None = None
    states: HalfArray | None = None
    statistics: FloatArray | None = None
    baseline: Baseline | None = None
    logits: FloatArray | None = None
    context: tuple[str, ...] = ()

    @property
    def hears(self) -> bool:
        return any(x is not None for x in (self.samples, self.states, self.statistics))


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
        # A head over the statistics of a voice alone needs no sequence of states.
        self.pooled = model.head == "audio_only" and model.baseline is not None

    def train(self, examples: Sequence[Example], epoch: int, number: int) -> TrainBatch:
        """Augmented batch `number` of `epoch`; the same numbers give the same batch."""
        rng = np.random.default_rng([self.seed, _BATCH_STREAM, epoch, number])
        return self._assemble([self._draw(example, epoch, rng) for example in examples])

    def _draw(self, example: Example, epoch: int, rng: np.random.Generator) -> _Row:
        voice, states = example.voice, self.sources.states
        version, seeds = 0, None
        if voice is not None and voice.audio is not None:
            if states is None:
                seeds = Seeds.of(f"{self.seed}/{epoch}", voice.id)
            elif rng.random() >= _CLEAN:
                version = 1 + int(rng.integers(states.versions))
                seeds = states.rooms.seeds(voice, version)
        noise = self.conditions.noise(seeds) if seeds is not None else ("", math.nan)
        heard = self.sources.heard.get(example.item.id) if voice is example.words else None
        condition = self.conditions(example, rng, noise, heard)
        turns, context = 0, self.model.context
        if example.words is not None and context is not None:
            turns = int(rng.integers(context.turns + 1))
        row = self._row(example, condition, turns, version, seeds)
        if voice is not None and row.hears and self.sources.known is not None:
            row.baseline = self.sources.known.draw(voice, version, rng)
            if self.sources.unheard is not None and states is not None:
                statistics = states.statistics(voice, version)
                row.logits = self.sources.unheard(voice, statistics, row.baseline)
        return row

    def _row(
        self, example: Example, condition: Condition, turns: int, version: int = 0,
        seeds: Seeds | None = None,
    ) -> _Row:  # fmt: skip
        """What the network gets of an example in a condition: of the version that is kept, or of the clip."""
        row, voice, states = _Row(example, condition), example.voice, self.sources.states
        if example.words is not None:
            row.context = example.words.context[:turns]
        if voice is None or voice.audio is None or not condition.voice:
            return row
        if states is None:
            row.samples = self.sources.listener(samples_of(voice), condition, seeds, voice.id)
        elif condition.noise and version == 0:
            row.states = states.compute(voice, condition)
        elif self.pooled:
            row.statistics = states.statistics(voice, version)
        else:
            row.states = states.states(voice, version)
        return row

    def stated(
        self,
        examples: Sequence[Example],
        conditions: Sequence[Condition],
        known: tuple[int, int] = (0, 0),
    ) -> TrainBatch:
        """The examples in given conditions, with noise drawn by their names.

        Args:
            known: utterances of the voice, and of others in its room, that its baseline rests on.
        """
        rows, context = [], self.model.context
        turns = 0 if context is None else context.turns
        for example, condition in zip(examples, conditions, strict=True):
            row = self._row(example, condition, turns)
            if (
                example.voice is not None
                and row.hears
                and self.sources.known_validation is not None
            ):
                row.baseline = self.sources.known_validation.stated(example.voice, *known)
            rows.append(row)
        return self._assemble(rows)

    def _assemble(self, rows: Sequence[_Row]) -> TrainBatch:
        items = []
        for row in rows:
            voice, words, condition = row.example.voice, row.example.words, row.condition
            facts = self.sources.facts.get(voice.id) if voice is not None else None
            items.append(
                ModelItem(
                    samples=row.samples,
                    text=condition.text,
                    snr_db=condition.told_snr_db,
                    asr_confidence=condition.confidence,
                    speech_seconds=facts.speech_seconds if facts else float("nan"),
                    audio_features=voice.audio_features if voice and condition.voice else None,
                    text_features=words.text_features if words and condition.words else None,
                    baseline=row.baseline,
                    context=row.context,
                )
            )
        weights = self.sources.weights
        batch = TrainBatch(
            model=collate(items, self.model, self.sources.tokenizer),
            targets=torch.tensor([row.condition.target for row in rows]),
            voice_targets=torch.tensor([row.example.voice_target for row in rows]),
            words_targets=torch.tensor([row.condition.words_target for row in rows]),
            weights=torch.tensor([weights.get(row.example.item.id, 1.0) for row in rows]),
            allowed=torch.tensor([self.sources.labels[row.example.item.corpus] for row in rows]),
        )
        if self.sources.states is not None:
            self._add_states(batch, items, rows)
        if any(row.logits is not None for row in rows):
            nobody = np.full(len(self.model.labels), np.nan, np.float32)
            answers = [nobody if row.logits is None else row.logits for row in rows]
            batch.audio_logits = torch.from_numpy(np.stack(answers))
        return batch

    def _add_states(
        self, batch: TrainBatch, items: Sequence[ModelItem], rows: Sequence[_Row]
    ) -> None:
        assert self.sources.states is not None
        size = self.sources.states.encoder.hidden_size
        lengths = torch.tensor([0 if row.states is None else len(row.states) for row in rows])
        padded = np.zeros((len(rows), max(1, int(lengths.max())), size), np.float32)
        for place, row in enumerate(rows):
            if row.states is not None:
                padded[place, : len(row.states)] = row.states
        batch.states = torch.from_numpy(padded)
        batch.states_mask = torch.arange(padded.shape[1])[None] < lengths[:, None]
        present = lengths > 0
        if any(row.statistics is not None for row in rows):
            nothing = np.zeros(2 * size, np.float32)
            every = [nothing if row.statistics is None else row.statistics for row in rows]
            batch.statistics = torch.from_numpy(np.stack(every))
            present = torch.tensor([row.statistics is not None for row in rows])
        # As if the waveform had come along.
        batch.model.audio_present = present
        seconds = torch.tensor([item.speech_seconds for item in items], dtype=torch.float32)
        seconds = torch.where(present, seconds.nan_to_num(), torch.zeros(()))
        batch.model.speech_seconds = seconds
        batch.model.audio_lengths = (seconds * SAMPLE_RATE).long()
