"""Examples -> tensors: augmented and ruined for training, as they are for validation."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hri_emo_ros.data.corpus import Item
from hri_emo_ros.model.batch import ModelBatch, ModelItem, collate
from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.model.tokenizer import TextTokenizer
from hri_emo_ros.training.audio_store import AudioStore
from hri_emo_ros.training.augment import WaveformAugment
from hri_emo_ros.training.config import TrainConfig
from hri_emo_ros.training.mel_augment import MelAugment
from hri_emo_ros.training.mel_store import HalfArray, MelStore, collate_power
from hri_emo_ros.training.noises import add_noise
from hri_emo_ros.training.pairs import Example
from hri_emo_ros.training.ruin import Ruin, Ruined, intact
from hri_emo_ros.training.text_augment import TextAugment
from hri_emo_ros.training.unheard_heads import NO_FOLD
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
    word_targets: Tensor
    """[B, W] a corpus's own words, one-hot (or mixed); zeros where not asked."""
    intensity: Tensor
    """[B] 1 strong, 0 normal, NaN where not told."""
    folds: Tensor
    """[B] int64, the cross-fitted head that has not heard the row's speaker; -1 where there is none."""
    log_mel: Tensor | None = None
    """[B, T, M] in place of the waveform, for the compact audio encoder; zeros in absent rows."""
    mel_mask: Tensor | None = None
    """[B, T] bool, active frames."""
    teacher: Tensor | None = None
    """[B, L] the teacher's probabilities."""

    def to(self, device: torch.device) -> TrainBatch:
        moved: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            moved[f.name] = value.to(device) if value is not None else None
        return TrainBatch(**moved)


@dataclass
class Sources:
    """Where a batch's contents come from."""

    audio: AudioStore
    tokenizer: TextTokenizer | None
    mel: MelStore | None = None
    quality: Mapping[str, tuple[float, float]] | None = None
    """Item id -> SNR in dB and seconds of speech, for the gate."""
    weights: Mapping[str, float] | None = None
    words: Sequence[str] = ()
    """The own words asked for by the auxiliary task."""
    teacher: Mapping[str, FloatArray] | None = None
    """Item id -> the teacher's probabilities."""
    folds: Mapping[str, int] = field(default_factory=dict)
    """Item id -> fold of the cross-fitted heads."""


@dataclass
class Augmenters:
    """Only the training side has them."""

    waveform: WaveformAugment | None = None
    mel: MelAugment | None = None
    text: TextAugment | None = None
    ruin: Ruin | None = None
    noises: Mapping[str, Sequence[FloatArray]] = field(default_factory=dict)
    """Waveforms of RMS 1 by kind, what `ruin` asks for."""


class BatchMaker:
    """Builds batches.

    Args:
        config: of the run.
        model: of the network, after its encoders have had their say (token limit).
        sources: clips, mel powers, tokenizer, weights.
        augmenters: for `train`.
    """

    def __init__(
        self, config: TrainConfig, model: ModelConfig, sources: Sources, augmenters: Augmenters
    ) -> None:
        self.config, self.model, self.sources, self.augment = config, model, sources, augmenters

    def train(self, examples: Sequence[Example], epoch: int, number: int) -> TrainBatch:
        """Augmented batch `number` of `epoch`; the same numbers give the same batch."""
        rng = np.random.default_rng([self.config.seed, _BATCH_STREAM, epoch, number])
        ruin = self.augment.ruin
        states = [ruin(e, rng) if ruin is not None else intact(e) for e in examples]
        if self.augment.text is not None:
            states = [
                replace(s, text=self.augment.text(s.text, rng)) if s.text else s for s in states
            ]
        if self.sources.mel is not None:
            return self._with_mel(examples, states, rng, epoch)
        return self._assemble(examples, states, self._waveforms(examples, states, rng, epoch))

    def clean(
        self, examples: Sequence[Example], states: Sequence[Ruined] | None = None
    ) -> TrainBatch:
        """The examples as they are, or in given states with noise drawn by the examples' names."""
        states = [intact(e) for e in examples] if states is None else states
        if self.sources.mel is not None:
            return self._with_mel(examples, states, None, 0)
        rng = _rng_of(examples) if any(s.noise for s in states) else None
        return self._assemble(examples, states, self._waveforms(examples, states, rng, None))

    # Waveforms

    def _waveforms(
        self,
        examples: Sequence[Example],
        states: Sequence[Ruined],
        rng: np.random.Generator | None,
        epoch: int | None,
    ) -> list[FloatArray | None]:
        rows: list[FloatArray | None] = []
        limit = int(self.config.data.max_seconds * SAMPLE_RATE)
        for example, state in zip(examples, states, strict=True):
            item = example.voice
            if item is None or item.audio is None or not state.voice:
                rows.append(None)
                continue
            samples = self.sources.audio.samples(item)
            if self.augment.waveform is not None and epoch is not None:
                seed = zlib.crc32(f"{self.config.seed}/{epoch}/{item.id}".encode())
                samples = self.augment.waveform(samples, seed)
            if len(samples) > limit:
                spare = len(samples) - limit
                start = int(rng.integers(spare + 1)) if rng is not None else spare
                samples = samples[start : start + limit]
            if rng is not None and state.noise:
                noises = self.augment.noises[state.noise]
                noise = noises[int(rng.integers(len(noises)))]
                samples = add_noise(samples, noise, state.noise_snr_db, rng)
            rows.append(samples)
        return rows

    # Mel powers

    def _with_mel(
        self,
        examples: Sequence[Example],
        states: Sequence[Ruined],
        rng: np.random.Generator | None,
        epoch: int,
    ) -> TrainBatch:
        batch = self._assemble(examples, states, [None] * len(examples))
        store = self.sources.mel
        assert store is not None
        rows = [
            k
            for k, (e, s) in enumerate(zip(examples, states, strict=True))
            if e.voice is not None and e.voice.audio is not None and s.voice
        ]
        if not rows or not self.model.uses_audio:
            return batch
        voices = [examples[k].voice for k in rows]
        clips = [self._clip(item, rng, epoch) for item in voices if item is not None]
        power, lengths = collate_power(clips)
        augment = self.augment.mel
        augmented = augment is not None and rng is not None and self.config.augment.mel.enabled
        if augment is not None and rng is not None:
            augment.seed(int(rng.integers(2**31)))
        if augment is not None and augmented:
            power, lengths = augment(power, lengths)
        snr = torch.tensor([states[k].noise_snr_db for k in rows], dtype=torch.float32)
        kinds = [states[k].noise for k in rows]
        if any(kinds) and augment is not None:
            if rng is None:
                augment.seed(int(_rng_of([examples[k] for k in rows]).integers(2**31)))
            power = augment.add_noise_at(power, lengths, snr, kinds)
        valid = torch.arange(power.shape[1])[None] < lengths[:, None]
        with torch.no_grad():
            log_mel, mask = store.encoder.normalise(power * valid[..., None], valid)
        if augment is not None and augmented:
            log_mel = augment.spec_augment(log_mel, lengths)
        index = torch.tensor(rows)
        batch.log_mel = torch.zeros(len(examples), *log_mel.shape[1:]).index_copy_(
            0, index, log_mel
        )
        batch.mel_mask = torch.zeros(len(examples), log_mel.shape[1], dtype=torch.bool)
        batch.mel_mask[index] = mask
        seconds = mask.sum(1) / store.frame_rate
        batch.model.audio_present[index] = True
        batch.model.audio_lengths[index] = (lengths / store.frame_rate * SAMPLE_RATE).long()
        batch.model.speech_seconds[index] = seconds.float()
        unimodal = self.model.head == "audio_only"
        if augment is not None and augmented and unimodal and augment.config.mixup_p > 0:
            self._mix(batch, augment)
        return batch

    def _clip(self, item: Item, rng: np.random.Generator | None, epoch: int) -> HalfArray:
        store, config = self.sources.mel, self.config.augment.mel
        assert store is not None
        limit = int(self.config.data.max_seconds * store.frame_rate)
        if rng is None:
            start, end = store.span(item)
            # The end, as the engine does with long clips.
            return store.full(item)[max(start, end - limit) : end]
        variant = 0
        if len(store.speeds) > 1 and rng.random() < config.speed_p:
            variant = int(rng.integers(1, len(store.speeds)))
        clip = store.full(item, variant)
        start, end = store.span(item, variant)
        if rng.random() < config.silence_p:
            most = int(config.silence_s * store.frame_rate) + 1
            start = max(0, start - int(rng.integers(most)))
            end = min(len(clip), end + int(rng.integers(most)))
        done = epoch / self.config.optim.epochs
        limit = min([limit, *[frames for until, frames in config.crops if done < until][:1]])
        if end - start > limit:
            start += int(rng.integers(end - start - limit + 1))
            end = start + limit
        return clip[start:end]

    @staticmethod
    def _mix(batch: TrainBatch, augment: MelAugment) -> None:
        """Mix log-mels and, in proportion, everything that is asked about them (mixup)."""
        assert batch.log_mel is not None
        assert batch.mel_mask is not None
        partner, share = augment.mixup(len(batch.targets))
        own, other = share[:, None], 1.0 - share[:, None]
        batch.log_mel = batch.log_mel * own[..., None] + batch.log_mel[partner] * other[..., None]
        batch.mel_mask = batch.mel_mask | (batch.mel_mask[partner] & (share < 0.999)[:, None])
        # The loss is linear in the target: weights go in so that each part keeps its own.
        mine, theirs = own[:, 0] * batch.weights, other[:, 0] * batch.weights[partner]
        batch.weights = mine + theirs
        a, b = (mine / batch.weights)[:, None], (theirs / batch.weights)[:, None]
        for name in ("targets", "voice_targets", "words_targets"):
            value = getattr(batch, name)
            setattr(batch, name, value * a + value[partner] * b)
        batch.word_targets = batch.word_targets * own + batch.word_targets[partner] * other
        if batch.teacher is not None:
            batch.teacher = batch.teacher * own + batch.teacher[partner] * other

    # Everything else

    def _assemble(
        self,
        examples: Sequence[Example],
        states: Sequence[Ruined],
        waveforms: Sequence[FloatArray | None],
    ) -> TrainBatch:
        items = []
        for example, state, samples in zip(examples, states, waveforms, strict=True):
            voice, words = example.voice, example.words
            seconds = float("nan")
            if voice is not None and self.sources.quality is not None:
                seconds = self.sources.quality.get(voice.id, (0.0, float("nan")))[1]
            items.append(
                ModelItem(
                    samples=samples,
                    text=state.text,
                    snr_db=state.told_snr_db,
                    asr_confidence=state.confidence,
                    speech_seconds=seconds,
                    audio_features=voice.audio_features if voice and state.voice else None,
                    text_features=words.text_features if words and state.words else None,
                )
            )
        sources = self.sources
        weights = sources.weights or {}
        batch = TrainBatch(
            model=collate(items, self.model, sources.tokenizer),
            targets=torch.tensor([s.target for s in states]),
            voice_targets=torch.tensor([e.voice_target for e in examples]),
            words_targets=torch.tensor([s.words_target for s in states]),
            weights=torch.tensor([weights.get(e.item.id, 1.0) for e in examples]),
            word_targets=self._word_targets(examples),
            intensity=torch.tensor([_intensity(e.voice) for e in examples]),
            folds=torch.tensor(
                [sources.folds.get(e.voice.id, NO_FOLD) if e.voice else NO_FOLD for e in examples]
            ),
        )
        if sources.teacher is not None:
            batch.teacher = torch.from_numpy(
                np.stack([sources.teacher[e.item.id] for e in examples])
            )
        return batch

    def _word_targets(self, examples: Sequence[Example]) -> Tensor:
        words = list(self.sources.words)
        targets = torch.zeros(len(examples), len(words))
        wanted = self.config.auxiliary.words_of
        for row, example in enumerate(examples):
            if example.voice is not None and example.voice.corpus == wanted and words:
                targets[row, words.index(example.voice.label)] = 1.0
        return targets


def _intensity(item: Item | None) -> float:
    if item is None or item.intensity not in ("normal", "strong"):
        return float("nan")
    return 1.0 if item.intensity == "strong" else 0.0


def _rng_of(examples: Sequence[Example]) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(e.item.id.encode()) for e in examples])
