"""What a corpus is to the trainer: items with labels, speakers and where they come from.

A corpus plug-in is one module in `hri_emo_ros.training.corpora` with one subclass of `Corpus`; it
is found by its presence (see `available`), so adding one touches nothing else.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import LABELS, FloatArray

AUDIO_SUFFIXES = (".wav", ".flac")


@dataclass(frozen=True, slots=True)
class Item:
    """One utterance of a corpus."""

    id: str
    """Unique over all corpora: ``corpus/path`` or ``corpus/split/row``."""
    corpus: str
    label: str
    """The corpus's own word, as written there."""
    target: tuple[float, ...]
    """Over types.LABELS: one-hot, a soft label that sums to 1, or intensities in [0, 1] each."""
    speaker: str = ""
    """Unique over all corpora; empty when the corpus does not tell."""
    audio: Path | None = None
    text: str | None = None
    max_duration: float | None = None
    """Seconds read from the file; None reads all of it."""
    fold: int | None = None
    """The corpus's published speaker-disjoint fold, counted from 1."""
    split: str = ""
    """The corpus's published split: train, dev or test."""
    sex: str = ""
    language: str = ""
    """ISO 639-1."""
    intensity: str = ""
    audio_features: FloatArray | None = None
    """[frames, width] precomputed features instead of audio."""
    text_features: FloatArray | None = None
    constructed: bool = False
    """Audio and text were put together by us: nobody said this text in this voice."""
    pairing: str = ""
    """Of a constructed pair: matched, neutral_voice, neutral_words or conflicting."""

    @property
    def class_index(self) -> int:
        """Index of the strongest label in types.LABELS."""
        return int(np.argmax(self.target))


def one_hot(label: str) -> tuple[float, ...]:
    """Target of a single label of types.LABELS."""
    return tuple(1.0 if name == label else 0.0 for name in LABELS)


@dataclass
class CorpusData:
    """What was read from a corpus's folder."""

    items: list[Item]
    left_out: Counter[str] = field(default_factory=Counter)
    """Why items are not in `items`, with counts: label without a counterpart, missing file, ..."""


class Corpus(ABC):
    """Reads a corpus in its official layout.

    Options are the keyword arguments of ``__init__``; an unknown one is refused with the list.
    """

    name: ClassVar[str]
    """Name in a training configuration."""
    tree: ClassVar[str]
    """The expected files, shown when the folder is not this corpus."""
    labels: ClassVar[Mapping[str, str | None]]
    """The corpus's words -> types.LABELS; None leaves the item out (and counts it)."""
    folder: ClassVar[str] = ""
    """Where it lies under the data root unless the configuration says otherwise."""

    @abstractmethod
    def read(self, root: Path) -> CorpusData:
        """Read the corpus under `root`.

        Raises:
            HriEmoError: the folder is missing or is not this corpus.
        """

    def refuse(self, root: Path, reason: str) -> HriEmoError:
        """The error for a folder that is not this corpus."""
        return HriEmoError(
            f"corpus '{self.name}': {reason} in '{root}'; expected this tree there (set the "
            f"corpus's 'path' or the data root):\n{self.tree.rstrip()}"
        )

    def audio_files(self, root: Path, patterns: Iterable[str]) -> list[Path]:
        """Sound files under `root`; `patterns` are globs without the suffix.

        Raises:
            HriEmoError: there is none.
        """
        files = sorted(
            {path for p in patterns for suffix in AUDIO_SUFFIXES for path in root.glob(p + suffix)}
        )
        if not files:
            raise self.refuse(root, "no sound file was found" if root.is_dir() else "no folder")
        return files


class _Tally:
    """Collects items, leaving out those whose label has no counterpart."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.data = CorpusData([])

    def target(self, word: str, where: str) -> tuple[float, ...] | None:
        """The target of a label word, or None (counted) where the table leaves it out.

        Raises:
            HriEmoError: the word is not in the table.
        """
        table = self.corpus.labels
        if word not in table:
            raise HriEmoError(
                f"corpus '{self.corpus.name}': {where} has the label {word!r}, must be one of: "
                + ", ".join(table)
            )
        label = table[word]
        if label is None:
            self.data.left_out[f"label '{word}' has no counterpart"] += 1
            return None
        return one_hot(label)


def tally(corpus: Corpus) -> _Tally:
    """A collector for `Corpus.read`."""
    return _Tally(corpus)


@cache
def available() -> Mapping[str, type[Corpus]]:
    """Every corpus plug-in by name."""
    from hri_emo_ros.training import corpora

    found: dict[str, type[Corpus]] = {}
    for info in pkgutil.iter_modules(corpora.__path__):
        module = importlib.import_module(f"{corpora.__name__}.{info.name}")
        for _, value in inspect.getmembers(module, inspect.isclass):
            if issubclass(value, Corpus) and value.__module__ == module.__name__:
                found[value.name] = value
    return found


def make_corpus(name: str, options: Mapping[str, Any] | None = None) -> Corpus:
    """Build a corpus reader.

    Raises:
        HriEmoError: no such corpus, or it has no such option.
    """
    plugins = available()
    if name not in plugins:
        raise HriEmoError(
            f"corpus '{name}' is not known, must be one of: {', '.join(sorted(plugins))}"
        )
    kind = plugins[name]
    allowed = list(inspect.signature(kind).parameters)
    for option in options or {}:
        if option not in allowed:
            raise HriEmoError(
                f"corpus '{name}' has no option '{option}', "
                + (f"must be one of: {', '.join(allowed)}" if allowed else "it has none")
            )
    return kind(**(options or {}))


@cache
def emotion_words() -> Mapping[str, str | None]:
    """Every corpus's words and the project's labels -> the project's label (None: left out).

    Lower case. A word that two corpora map differently would be a mistake in their tables.
    """
    words: dict[str, str | None] = {label: label for label in LABELS}
    for kind in available().values():
        for word, label in kind.labels.items():
            if words.setdefault(word.lower(), label) != label:
                raise ValueError(f"'{word}' is {label} in {kind.name}, elsewhere {words[word]}")
    return words


# Windows-1252 punctuation that MELD and GoEmotions carry as C1 control characters, and GoEmotions'
# placeholders for names, which nobody says.
_REPAIRS = {
    "\x85": "...", "\x91": "'", "\x92": "'", "\x93": '"', "\x94": '"', "\x96": "-", "\x97": "-",
    "\u2019": "'", "[NAME]": "someone", "[RELIGION]": "religion",
}  # fmt: skip


def clean_text(text: str) -> str:
    """Undo mojibake and placeholders; collapse white space."""
    for wrong, right in _REPAIRS.items():
        text = text.replace(wrong, right)
    return " ".join(text.split())


def find_folders(root: Path, names: Iterable[str]) -> Iterator[Path]:
    """Those of `root`/name that are folders; an empty name stands for `root`."""
    return (path for path in (root / name for name in names) if path.is_dir())
