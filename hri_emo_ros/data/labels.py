# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The words that corpora and people use for emotions, and the project's label for each."""

from __future__ import annotations

from collections.abc import Mapping

from hri_emo_ros.types import LABELS

_OF_LABEL = {
    "neutral": "neutral calm neu",
    "happy": "happy happiness joy joyful hap exc excitement amusement approval gratitude love optimism "
    "relief pride admiration desire caring",
    "sad": "sad sadness disappointment embarrassment grief remorse",
    "angry": "angry anger annoyance disapproval mad ang",
    "fear": "fear fearful afraid anxiety nervousness scared fea",
    "disgust": "disgust disgusted dis",
    "surprise": "surprise surprised realization confusion curiosity sur",
}
"""GoEmotions' words are grouped as its authors group them under Ekman's six; RAVDESS's calm is neutral."""
_WITHOUT_COUNTERPART = "boredom peaceful powerful fru oth xxx"

WORDS: Mapping[str, str | None] = {
    **{word: label for label, words in _OF_LABEL.items() for word in words.split()},
    **dict.fromkeys(_WITHOUT_COUNTERPART.split()),
}
"""Word in lower case -> one of types.LABELS, or None where it has no counterpart among them."""

assert tuple(_OF_LABEL) == LABELS


def table(words: str) -> Mapping[str, str | None]:
    """A corpus's own words (as written there, between spaces) -> labels; see `WORDS`."""
    return {word: WORDS[word.lower()] for word in words.split()}


def one_hot(label: str) -> tuple[float, ...]:
    """Target of a single label of types.LABELS."""
    return tuple(1.0 if name == label else 0.0 for name in LABELS)
