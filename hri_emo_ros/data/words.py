# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What recognisers do to words."""

from __future__ import annotations

import re
import string
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np


def normal_words(text: str) -> str:
    """Lower case, letters, digits and apostrophes only, single blanks."""
    return " ".join(re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower().replace("\u2019", "'")))


def plain(text: str) -> str:
    """Words alone, as recognisers write; never empty for a text that is not."""
    return normal_words(text) or text


class WordErrors:
    """Recognition errors with a vocabulary's words.

    Args:
        texts: give the vocabulary and its frequencies.
    """

    _DELETED, _INSERTED = 0.3, 0.15
    """Shares of deletions and insertions among the errors; the rest are substitutions."""
    _ALIKE = 0.6
    """Share of substitutions by a word that begins alike and is about as long."""
    _VOCABULARY = 8000

    def __init__(self, texts: Iterable[str]) -> None:
        counts = Counter(word for text in texts for word in plain(text).split())
        self.words = [word for word, _ in counts.most_common(self._VOCABULARY)] or ["uh"]
        # Flattened so that rare words are heard too (exponent as in word2vec's sampling).
        weights = np.array([max(counts[word], 1) for word in self.words], dtype=np.float64) ** 0.75
        self._cumulative = np.cumsum(weights / weights.sum())
        self._alike: dict[tuple[str, int], list[str]] = defaultdict(list)
        for word in self.words:
            self._alike[word[0], min(len(word), 8)].append(word)

    def __call__(self, text: str, rate: float, rng: np.random.Generator) -> str:
        """`text` with about `rate` of its words deleted, replaced or followed by another one."""
        heard: list[str] = []
        for word in text.split():
            if rng.random() >= rate:
                heard.append(word)
                continue
            kind = rng.random()
            if kind < self._DELETED:
                continue
            if kind < self._DELETED + self._INSERTED:
                heard += [word, self.any(rng)]
                continue
            heard.append(self._substitute(word, rng))
        return " ".join(heard) or self.any(rng)

    def any(self, rng: np.random.Generator) -> str:
        """A random word of the vocabulary."""
        index = int(np.searchsorted(self._cumulative, rng.random()))
        return self.words[min(index, len(self.words) - 1)]

    def _substitute(self, word: str, rng: np.random.Generator) -> str:
        core = word.lower().strip(string.punctuation)
        tail = word[len(word.rstrip(string.punctuation)) :]
        length = min(len(core) + int(rng.integers(-1, 2)), 8)
        alike = self._alike.get((core[:1], length)) if rng.random() < self._ALIKE else None
        return (alike[int(rng.integers(len(alike)))] if alike else self.any(rng)) + tail
