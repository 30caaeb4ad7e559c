# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""From a recipe to the two sides of its data."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hri_emo_ros.data.corpus import Item, make_corpus
from hri_emo_ros.data.words import plain
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.training.recipe import Recipe
from hri_emo_ros.training.splits import split_then_merge

DATA_ROOT_VARIABLE = "HRI_EMO_DATA"
_TELLING_WORDS = 3


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


def load_data(recipe: Recipe, root: Path) -> Data:
    """Read every corpus, split each, put the sides together.

    Raises:
        HriEmoError: a corpus is missing, cannot be split as asked, or nothing is left to train on.
    """
    if not recipe.data.corpora:
        raise HriEmoError("'data.corpora' is empty: name at least one corpus")
    corpora: dict[str, list[Item]] = {}
    rules = {}
    left_out: dict[str, dict[str, int]] = {}
    for section in recipe.data.corpora:
        corpus = make_corpus(section.name, section.options)
        read = corpus.read(root / (section.path or corpus.folder))
        usable = [i for i in (_as_read(i, recipe.model) for i in read.with_context()) if i]
        unusable = len(read.items) - len(usable)
        if unusable:
            read.left_out["lacks what the model reads"] = unusable
        key = section.name if section.name not in corpora else f"{section.name}:{section.path}"
        corpora[key] = usable
        rules[key] = section.split
        left_out[key] = dict(read.left_out)
    split = split_then_merge(corpora, rules, recipe.data.fold, recipe.data.leave_corpus_out)
    train = _unseen(split.train, split.validation, left_out)
    if not train:
        raise HriEmoError("'data' leaves nothing to train on: " + _summary(left_out))
    return Data(train, split.validation, left_out, split.shared_speakers)


def _unseen(
    train: Sequence[Item], validation: Sequence[Item], left_out: dict[str, dict[str, int]]
) -> list[Item]:
    """Drop training items whose dialogue or words stand on the validation side, counted in `left_out`.

    Corpora overlap: MELD's clips and its texts are the same dialogues, EmoryNLP is the same series. Up to
    two words ("Okay.") are everybody's; the sentences of acted voices are the same for every speaker and
    emotion, and stay.
    """
    dialogues = {item.conversation for item in validation if item.conversation}
    seen = {plain(item.text) for item in validation if item.text and _own_words(item)}
    kept = []
    for item in train:
        words = plain(item.text) if item.text and _own_words(item) else ""
        reason = ""
        if item.conversation in dialogues:
            reason = "its dialogue is also in validation"
        elif words in seen and len(words.split()) >= _TELLING_WORDS:
            reason = "text is also in validation"
        if reason:
            reasons = left_out.setdefault(item.corpus, {})
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            kept.append(item)
    return kept


def _own_words(item: Item) -> bool:
    """The words were chosen by who said or wrote them, and not read from a list."""
    return item.audio is None or bool(item.conversation)


def _as_read(item: Item, model: ModelConfig) -> Item | None:
    """The item without what the model does not read; None where nothing is left of it."""
    heard = model.uses_audio and model.audio.kind != "features"
    written = model.uses_text and model.text.kind != "features"
    ready = model.audio.kind == "features", model.text.kind == "features"
    item = replace(
        item,
        audio=item.audio if heard else None,
        text=item.text if written else None,
        audio_features=item.audio_features if model.uses_audio and ready[0] else None,
        text_features=item.text_features if model.uses_text and ready[1] else None,
    )
    features = item.audio_features is not None or item.text_features is not None
    return item if features or item.audio or item.text else None


def _summary(left_out: Mapping[str, Mapping[str, int]]) -> str:
    return "; ".join(
        f"{corpus}: " + (", ".join(f"{n} x {why}" for why, n in reasons.items()) or "nothing read")
        for corpus, reasons in left_out.items()
    )


def voices_and_words(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Items whose voice, and items whose words, go into constructed pairs.

    The sentences of acted corpora are the same for every emotion, so the words of an item with
    audio are not used; an item with words of its own is a pair already.
    """
    return (
        [item for item in items if item.audio is not None and not item.conversation],
        [item for item in items if item.audio is None and item.text],
    )


def balance_weights(items: Sequence[Item], exponent: float) -> dict[str, float]:
    """Loss weight by item id: (count of its corpus and class) ** -exponent, mean 1."""
    counts = Counter((item.corpus, item.class_index) for item in items)
    raw = {item.id: counts[item.corpus, item.class_index] ** -exponent for item in items}
    mean = float(np.mean(list(raw.values()))) if raw else 1.0
    return {name: value / mean for name, value in raw.items()}


def labels_of_corpora(items: Sequence[Item]) -> dict[str, list[bool]]:
    """Of types.LABELS, those that occur in each corpus."""
    names = dict.fromkeys(item.corpus for item in items)
    targets = {name: [item.target for item in items if item.corpus == name] for name in names}
    return {name: (np.sum(rows, axis=0) > 0.0).tolist() for name, rows in targets.items()}
