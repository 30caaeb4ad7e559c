# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What one training step sees: an utterance with voice, words or both, pairs made of the two, and the order
in which an epoch shows them.

Constructed pairs put the voice of one corpus beside the words of another. Nobody ever said these
words in this voice, so they carry ``constructed`` into every report.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hri_emo_ros.data.corpus import Item
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.items import voices_and_words
from hri_emo_ros.training.recipe import Recipe
from hri_emo_ros.types import LABELS

Target = tuple[float, ...]
_NEUTRAL = LABELS.index("neutral")
_BUCKETS = 8
"""Batches sorted by length together: enough to save padding, few enough to stay random."""
_PAIR_STREAM, _DRAW_STREAM, _ORDER_STREAM = 1, 2, 3
KINDS = {"matched": 0.6, "neutral_voice": 0.15, "neutral_words": 0.15, "conflicting": 0.1}
"""Kinds of constructed pairs and how frequent they are: the same label, a neutral voice with emotional words,
the reverse, two different emotions (the target is shared between them)."""

# How much the voice's label counts before anything is made bad. Neutral beside an emotion leaves
# the emotion standing, but not to the last bit: where the emotional modality is ruined the neutral
# one is all that remains.
_VOICE_SHARE = {"matched": 0.5, "neutral_voice": 0.1, "neutral_words": 0.9, "conflicting": 0.5}


@dataclass(frozen=True, slots=True)
class Example:
    """One utterance to learn from."""

    voice: Item | None
    words: Item | None
    voice_target: Target
    """What the voice alone says, over LABELS; where there is none, what the words say."""
    words_target: Target
    voice_share: float = 0.5
    """How much the voice's label counts when both are intact, [0, 1]."""
    constructed: bool = False
    pairing: str = ""

    @property
    def item(self) -> Item:
        """The item that names the example in reports."""
        item = self.voice if self.voice is not None else self.words
        assert item is not None
        return item


def blend(example: Example, voice_reliability: float, words_reliability: float) -> Target:
    """The target when each modality can be trusted so much, both in [0, 1]."""
    if example.voice_target == example.words_target:
        return example.voice_target
    voice = example.voice_share * voice_reliability
    words = (1.0 - example.voice_share) * words_reliability
    share = voice / (voice + words) if voice + words > 0.0 else example.voice_share
    if example.pairing in ("neutral_voice", "neutral_words"):
        # An emotion that can be made out stands beside a neutral other modality.
        share = float(np.clip((share - 0.5) * 1.6 + 0.5, 0.0, 1.0))
    return tuple(
        share * v + (1.0 - share) * w
        for v, w in zip(example.voice_target, example.words_target, strict=True)
    )


def from_item(item: Item) -> Example:
    """An item as it is: voice, words or both."""
    has_voice = item.audio is not None or item.audio_features is not None
    has_words = bool(item.text) or item.text_features is not None
    return Example(
        voice=item if has_voice else None,
        words=item if has_words else None,
        voice_target=item.target,
        words_target=item.target,
    )


class PairMaker:
    """Draws constructed pairs from voice-only and text-only items.

    Args:
        voices: items with audio.
        words: items with text.

    Raises:
        HriEmoError: one side is empty or lacks a label of the other.
    """

    def __init__(self, voices: Sequence[Item], words: Sequence[Item]) -> None:
        # A text with several labels cannot be called matched or conflicting.
        words = [item for item in words if max(item.target) == 1.0]
        if not voices or not words:
            raise HriEmoError(
                f"'pairs' needs both voices and words, got {len(voices)} clips and "
                f"{len(words)} texts; add corpora of the missing kind"
            )
        self.voices = list(voices)
        self.by_label: dict[int, list[Item]] = defaultdict(list)
        for item in words:
            self.by_label[item.class_index].append(item)

    def draw(self, count: int, rng: np.random.Generator) -> list[Example]:
        """`count` pairs; every voice is used before any is used again."""
        order: list[int] = []
        while len(order) < count:
            order += rng.permutation(len(self.voices)).tolist()
        return [self._pair(self.voices[i], rng) for i in order[:count]]

    def _pair(self, voice: Item, rng: np.random.Generator) -> Example:
        label = voice.class_index
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        others = [c for c in self.by_label if c not in (label, _NEUTRAL)]
        # A neutral voice cannot take neutral words in an emotional pair, nor the reverse.
        if kind == "neutral_voice" and label != _NEUTRAL:
            kind = "neutral_words" if self.by_label.get(_NEUTRAL) else "matched"
        elif kind in ("neutral_words", "conflicting") and label == _NEUTRAL:
            kind = "neutral_voice"
        if kind in ("neutral_voice", "conflicting") and not others:
            kind = "matched"
        if kind == "matched" and label not in self.by_label:
            kind = "conflicting" if others and label != _NEUTRAL else "neutral_voice"
        wanted = others[int(rng.integers(len(others)))] if others else label
        wanted = {"matched": label, "neutral_words": _NEUTRAL}.get(kind, wanted)
        pool = self.by_label[wanted]
        words = pool[int(rng.integers(len(pool)))]
        return Example(
            voice=voice,
            words=words,
            voice_target=voice.target,
            words_target=words.target,
            voice_share=_VOICE_SHARE[kind],
            constructed=True,
            pairing=kind,
        )


class Sampler:
    """Which examples an epoch holds and in which batches they come; a function of seed and epoch.

    Items are drawn by their corpora's weights. With `pairs`, voices and words that stand alone are put
    together, and only items that have both (recorded pairs) are drawn as they are.

    Args:
        recipe: batch size, corpora's weights, pairs.
        items: the training side.
        lengths: an item's cost, for bucketing, by id.
    """

    def __init__(self, recipe: Recipe, items: Sequence[Item], lengths: Mapping[str, float]) -> None:
        self.lengths, self.seed, self.size = lengths, recipe.seed, recipe.optim.batch_size
        weights = {section.name: section.weight for section in recipe.data.corpora}
        self.pairs: PairMaker | None = None
        self.constructed = 0
        if recipe.pairs is not None:
            self.pairs = PairMaker(*voices_and_words(items))
            self.constructed = recipe.pairs.per_epoch
            items = recorded_pairs(items)
        self.examples = [from_item(item) for item in items]
        self.weights = np.array([weights.get(item.corpus, 1.0) for item in items])
        self.count = int(self.weights.sum()) + self.constructed
        self.batches = max(1, self.count // self.size)

    def epoch(self, number: int) -> list[list[Example]]:
        """The batches of epoch `number`, all of the configured size (but for a tiny corpus)."""
        wanted = self.batches * self.size
        drawn: list[Example] = []
        if self.pairs is not None:
            share = self.constructed if len(self.examples) else wanted
            rng = np.random.default_rng([self.seed, _PAIR_STREAM, number])
            drawn = self.pairs.draw(min(share, wanted), rng)
        rng = np.random.default_rng([self.seed, _DRAW_STREAM, number])
        drawn += self._draw(wanted - len(drawn), rng)
        rng = np.random.default_rng([self.seed, _ORDER_STREAM, number])
        drawn = [drawn[i] for i in rng.permutation(len(drawn))]
        batches = []
        for start in range(0, len(drawn), self.size * _BUCKETS):
            chunk = drawn[start : start + self.size * _BUCKETS]
            jitter = rng.normal(1.0, 0.05, len(chunk))
            order = np.argsort([self._length(e) * j for e, j in zip(chunk, jitter, strict=True)])
            batches += [
                [chunk[i] for i in order[k : k + self.size]]
                for k in range(0, len(chunk), self.size)
            ]
        return [batches[i] for i in rng.permutation(len(batches))]

    def _draw(self, wanted: int, rng: np.random.Generator) -> list[Example]:
        drawn: list[int] = []
        while len(drawn) < wanted:
            copies = np.floor(self.weights + rng.random(len(self.weights))).astype(np.int64)
            drawn += rng.permutation(np.repeat(np.arange(len(copies)), copies)).tolist()
        return [self.examples[i] for i in drawn[:wanted]]

    def _length(self, example: Example) -> float:
        return self.lengths.get(example.item.id, 1.0)


def recorded_pairs(items: Sequence[Item]) -> list[Item]:
    """Items whose voice and words belong together; an acted sentence from a list says nothing."""
    return [item for item in items if item.audio is not None and item.text and item.conversation]


def validation_examples(recipe: Recipe, items: Sequence[Item]) -> list[Example]:
    """What the validation side is scored on; constructed pairs are drawn once, by the seed."""
    if recipe.pairs is None:
        return [from_item(item) for item in items]
    examples = [from_item(item) for item in recorded_pairs(items)]
    voices, words = voices_and_words(items)
    if voices and words:
        rng = np.random.default_rng([recipe.seed, _PAIR_STREAM])
        examples += PairMaker(voices, words).draw(recipe.pairs.validation, rng)
    return examples
