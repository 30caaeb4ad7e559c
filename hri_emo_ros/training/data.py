"""From a configuration to the two sides of the data and the order in which they are seen."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hri_emo_ros.data.corpus import Item, make_corpus
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.training.config import CorpusSection, TrainConfig
from hri_emo_ros.training.pairs import Example, PairMaker, from_item
from hri_emo_ros.training.splits import split_then_merge
from hri_emo_ros.training.text_augment import plain

DATA_ROOT_VARIABLE = "HRI_EMO_DATA"
_BUCKETS = 8
"""Batches sorted by length together: enough to save padding, few enough to stay random."""
_TELLING_WORDS = 3
_PAIR_STREAM, _DRAW_STREAM, _ORDER_STREAM = 1, 2, 3


@dataclass
class Data:
    """What a run learns from and is validated on."""

    train: list[Item]
    validation: list[Item]
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)
    """Corpus -> reason -> count."""
    shared_speakers: list[str] = field(default_factory=list)
    """Corpora whose two sides share speakers by declaration."""


def data_root(option: str | None) -> Path:
    """The folder that corpora's paths are relative to: the option, else the environment, else here."""
    return Path(option or os.environ.get(DATA_ROOT_VARIABLE) or ".")


def load_data(config: TrainConfig, root: Path) -> Data:
    """Read every corpus, split each, put the sides together.

    Raises:
        HriEmoError: a corpus is missing, cannot be split as asked, or nothing is left to train on.
    """
    if not config.data.corpora:
        raise HriEmoError("'data.corpora' is empty: name at least one corpus")
    corpora: dict[str, list[Item]] = {}
    rules = {}
    left_out: dict[str, dict[str, int]] = {}
    for section in config.data.corpora:
        corpus = make_corpus(section.name, section.options)
        read = corpus.read(corpus_folder(section, root, corpus.folder))
        usable = [item for item in read.items if _usable(item, config)]
        unusable = len(read.items) - len(usable)
        if unusable:
            read.left_out["lacks what the model reads"] = unusable
        key = section.name if section.name not in corpora else f"{section.name}:{section.path}"
        corpora[key] = usable
        rules[key] = section.split
        left_out[key] = dict(read.left_out)
    split = split_then_merge(corpora, rules, config.data.fold, config.data.leave_corpus_out)
    train, validation = split.train, split.validation
    if config.data.limit:
        train = _limited(train, config.data.limit, config.seed)
        validation = _limited(validation, config.data.limit, config.seed)
    train = _without_seen_texts(train, validation, left_out)
    if not train:
        raise HriEmoError("'data' leaves nothing to train on: " + _summary(left_out))
    return Data(train, validation, left_out, split.shared_speakers)


def _without_seen_texts(
    train: Sequence[Item], validation: Sequence[Item], left_out: dict[str, dict[str, int]]
) -> list[Item]:
    """Drop training texts that also stand on the validation side, counted in `left_out`.

    Corpora overlap (MELD and EmoryNLP are the same series). Up to two words ("Okay.") are everybody's;
    the sentences of acted voices are the same for every speaker and emotion, and stay.
    """
    seen = {plain(i.text) for i in validation if i.text and i.audio is None}
    kept = []
    for item in train:
        words = plain(item.text) if item.text and item.audio is None else ""
        if words in seen and len(words.split()) >= _TELLING_WORDS:
            reasons = left_out.setdefault(item.corpus, {})
            reason = "text is also in validation"
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            kept.append(item)
    return kept


def corpus_folder(section: CorpusSection, root: Path, usual: str) -> Path:
    """Where a corpus lies."""
    return root / (section.path or usual)


def _usable(item: Item, config: TrainConfig) -> bool:
    """Whether the model can read the item at all."""
    model = config.model
    voice = model.uses_audio and _has(item, model, "audio")
    words = model.uses_text and _has(item, model, "text")
    return voice or words


def _has(item: Item, model: ModelConfig, modality: str) -> bool:
    features = getattr(model, modality).kind == "features"
    plain = item.audio if modality == "audio" else item.text
    ready = item.audio_features if modality == "audio" else item.text_features
    return ready is not None if features else bool(plain)


def _limited(items: Sequence[Item], limit: int, seed: int) -> list[Item]:
    rng = np.random.default_rng(seed)
    by_corpus: dict[str, list[Item]] = {}
    for item in items:
        by_corpus.setdefault(item.corpus, []).append(item)
    return [
        part[i] for part in by_corpus.values() for i in sorted(rng.permutation(len(part))[:limit])
    ]


def _summary(left_out: Mapping[str, Mapping[str, int]]) -> str:
    return "; ".join(
        f"{corpus}: " + (", ".join(f"{n} x {why}" for why, n in reasons.items()) or "nothing read")
        for corpus, reasons in left_out.items()
    )


class Sampler:
    """Which examples an epoch holds and in which batches they come; a function of seed and epoch.

    Args:
        config: batch size, corpora's weights, pairs.
        items: the training side.
        lengths: an item's cost, for bucketing, by id.
    """

    def __init__(
        self, config: TrainConfig, items: Sequence[Item], lengths: Mapping[str, float]
    ) -> None:
        self.config, self.lengths = config, lengths
        weights = {section.name: section.weight for section in config.data.corpora}
        self.pairs: PairMaker | None = None
        if config.pairs.enabled:
            voices, words = voices_and_words(items)
            self.pairs = PairMaker(voices, words, config.pairs)
            self.count = config.pairs.per_epoch or len(voices)
        else:
            self.examples = [from_item(item) for item in items]
            self.weights = np.array([weights.get(item.corpus, 1.0) for item in items])
            self.count = int(self.weights.sum())
        self.batches = max(1, self.count // config.optim.batch_size)

    def epoch(self, number: int) -> list[list[Example]]:
        """The batches of epoch `number`, all of the configured size (but for a tiny corpus)."""
        seed, size = self.config.seed, self.config.optim.batch_size
        wanted = self.batches * size
        if self.pairs is not None:
            rng = np.random.default_rng([seed, _PAIR_STREAM, number])
            drawn = self.pairs.draw(wanted, rng)
        else:
            drawn = self._draw(wanted, np.random.default_rng([seed, _DRAW_STREAM, number]))
        rng = np.random.default_rng([seed, _ORDER_STREAM, number])
        batches = []
        for start in range(0, len(drawn), size * _BUCKETS):
            chunk = drawn[start : start + size * _BUCKETS]
            jitter = rng.normal(1.0, 0.05, len(chunk))
            order = np.argsort([self._length(e) * j for e, j in zip(chunk, jitter, strict=True)])
            batches += [[chunk[i] for i in order[k : k + size]] for k in range(0, len(chunk), size)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def _draw(self, wanted: int, rng: np.random.Generator) -> list[Example]:
        drawn: list[int] = []
        while len(drawn) < wanted:
            copies = np.floor(self.weights + rng.random(len(self.weights))).astype(np.int64)
            drawn += rng.permutation(np.repeat(np.arange(len(copies)), copies)).tolist()
        return [self.examples[i] for i in drawn[:wanted]]

    def _length(self, example: Example) -> float:
        return self.lengths.get(example.item.id, 1.0)


def voices_and_words(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Items whose voice, and items whose words, go into constructed pairs.

    The sentences of acted corpora are the same for every emotion, so the words of an item with
    audio are not used.
    """
    return (
        [item for item in items if item.audio is not None],
        [item for item in items if item.audio is None and item.text],
    )


def validation_examples(config: TrainConfig, items: Sequence[Item]) -> list[Example]:
    """What the validation side is scored on; constructed pairs are drawn once, by the seed."""
    if not config.pairs.enabled:
        return [from_item(item) for item in items]
    voices, words = voices_and_words(items)
    if not voices or not words:
        return []
    rng = np.random.default_rng([config.seed, _PAIR_STREAM])
    return PairMaker(voices, words, config.pairs).draw(config.pairs.validation, rng)


def balance_weights(items: Sequence[Item], exponent: float) -> dict[str, float]:
    """Loss weight by item id: (count of its corpus and class) ** -exponent, mean 1."""
    counts = Counter((item.corpus, item.class_index) for item in items)
    raw = {item.id: counts[item.corpus, item.class_index] ** -exponent for item in items}
    mean = float(np.mean(list(raw.values()))) if raw else 1.0
    return {name: value / mean for name, value in raw.items()}
