"""What one training step sees: an utterance with voice, words or both, and pairs made of the two.

Constructed pairs put the voice of one corpus beside the words of another. Nobody ever said these
words in this voice, so they carry ``constructed`` into every report.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hri_emo_ros.data.corpus import Item
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.augment_config import PairsSection
from hri_emo_ros.types import LABELS

Target = tuple[float, ...]
_NEUTRAL = LABELS.index("neutral")
KINDS = ("matched", "neutral_voice", "neutral_words", "conflicting")

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

    @property
    def target(self) -> Target:
        """The label of the intact utterance."""
        return blend(self, 1.0, 1.0)


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
        constructed=item.constructed,
        pairing=item.pairing,
    )


class PairMaker:
    """Draws constructed pairs from voice-only and text-only items.

    Args:
        voices: items with audio.
        words: items with text.
        config: relative frequencies of the kinds.

    Raises:
        HriEmoError: one side is empty or lacks a label of the other.
    """

    def __init__(self, voices: Sequence[Item], words: Sequence[Item], config: PairsSection) -> None:
        # A text with several labels cannot be called matched or conflicting.
        words = [item for item in words if max(item.target) == 1.0]
        if not voices or not words:
            raise HriEmoError(
                f"'pairs.enabled' needs both voices and words, got {len(voices)} clips and "
                f"{len(words)} texts; add corpora of the missing kind"
            )
        self.voices = list(voices)
        self.by_label: dict[int, list[Item]] = defaultdict(list)
        for item in words:
            self.by_label[item.class_index].append(item)
        frequency = np.array([getattr(config, kind) for kind in KINDS], dtype=np.float64)
        if frequency.sum() <= 0.0:
            raise HriEmoError("'pairs': at least one of " + ", ".join(KINDS) + " must be above 0")
        self.frequency = frequency / frequency.sum()

    def draw(self, count: int, rng: np.random.Generator) -> list[Example]:
        """`count` pairs; every voice is used before any is used again."""
        order: list[int] = []
        while len(order) < count:
            order += rng.permutation(len(self.voices)).tolist()
        return [self._pair(self.voices[i], rng) for i in order[:count]]

    def _pair(self, voice: Item, rng: np.random.Generator) -> Example:
        label = voice.class_index
        kind = KINDS[int(rng.choice(len(KINDS), p=self.frequency))]
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
        wanted = {
            "matched": label,
            "neutral_words": _NEUTRAL,
        }.get(kind, others[int(rng.integers(len(others)))] if others else label)
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
