# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What a corpus is: items with labels, speakers and where they come from.

A corpus plug-in is one module in `hri_emo_ros.data.corpora` with one subclass of `Corpus`; it
is found by its presence (see `available`), so adding one touches nothing else.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hri_emo_ros.data.labels import one_hot
from hri_emo_ros.data.manifest import Row, read_manifest
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import FloatArray

AUDIO_SUFFIXES = (".wav", ".flac")
MOST_CONTEXT = 8
"""Earlier turns that an item keeps."""


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
    start: float = 0.0
    """Seconds into the file."""
    end: float | None = None
    """Seconds into the file; None is its end."""
    max_duration: float | None = None
    """At most so many seconds are read from `start` on; None reads all."""
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
    conversation: str = ""
    """Unique over all corpora; empty where the item stands alone."""
    turn: float = 0.0
    """Place in the conversation; only the order counts."""
    context: tuple[str, ...] = ()
    """What was said before in the conversation, the most recent first."""
    heard: str | None = None
    """What a recogniser made of the clip, where that was written down; `text` is what was said."""
    confidence: float = 1.0
    """Of the recogniser."""

    @property
    def class_index(self) -> int:
        """Index of the strongest label in types.LABELS."""
        return int(np.argmax(self.target))


@dataclass
class CorpusData:
    """What was read from a corpus's folder."""

    items: list[Item]
    left_out: Counter[str] = field(default_factory=Counter)
    """Why items are not in `items`, with counts: label without a counterpart, missing file, ..."""
    said: dict[tuple[str, float], str] = field(default_factory=dict)
    """Conversation and turn -> words, of every turn, also of those left out."""

    def with_context(self) -> list[Item]:
        """The items with what was said before them."""
        turns: dict[str, list[tuple[float, str]]] = defaultdict(list)
        for (conversation, turn), text in sorted(self.said.items()):
            turns[conversation].append((turn, text))
        items = []
        for item in self.items:
            before = [text for turn, text in turns[item.conversation] if turn < item.turn]
            items.append(replace(item, context=tuple(before[: -MOST_CONTEXT - 1 : -1])))
        return items


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

    def target(self, word: str, where: str, data: CorpusData) -> tuple[float, ...] | None:
        """The target of a label word, or None (counted in `data`) where the table leaves it out.

        Raises:
            HriEmoError: the word is not in the table.
        """
        if word not in self.labels:
            raise HriEmoError(
                f"corpus '{self.name}': {where} has the label {word!r}, must be one of: "
                + ", ".join(self.labels)
            )
        label = self.labels[word]
        if label is None:
            data.left_out[f"label '{word}' has no counterpart"] += 1
            return None
        return one_hot(label)

    def refuse(self, root: Path, reason: str) -> HriEmoError:
        """The error for a folder that is not this corpus."""
        return HriEmoError(
            f"corpus '{self.name}': {reason} in '{root}'; expected this tree there (set the "
            "corpus's 'path' or the data root):",
            self.tree.strip("\n"),
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


class ActedSpeech(Corpus):
    """Clips whose file names tell everything."""

    patterns: ClassVar[tuple[str, ...]]
    """Globs of the clips, without the suffix."""
    file_name: ClassVar[re.Pattern[str]]
    """What the stem of a clip's name is made of."""

    @abstractmethod
    def describe(self, match: re.Match[str], root: Path) -> dict[str, Any] | str:
        """The fields of `Item` that a file name tells, ``label`` and ``speaker`` among them; or why the clip
        is left out."""

    def read(self, root: Path) -> CorpusData:
        data = CorpusData([])
        listed = beside(root)
        for path in self.audio_files(root, self.patterns):
            match = self.file_name.fullmatch(path.stem)
            fields = (
                "file name is not this corpus's" if match is None else self.describe(match, root)
            )
            if isinstance(fields, str):
                data.left_out[fields] += 1
                continue
            target = self.target(fields["label"], path.name, data)
            if target is not None:
                name = str(path.relative_to(root))
                fields = {"fold": listed[name].fold if name in listed else None, **fields}
                data.items.append(
                    Item(
                        id=f"{self.name}/{name}", corpus=self.name, target=target, audio=path, **fields
                    )
                )  # fmt: skip
        if not data.items:
            raise self.refuse(root, "no file is named as this corpus names its speech")
        return data


def beside(root: Path) -> Mapping[str, Row]:
    """The lines of the manifest.csv in `root` by path as written there; empty where there is none.

    It tells folds of corpora that publish none."""
    path = root / "manifest.csv"
    if not path.is_file():
        return {}
    rows = read_manifest(path).rows
    return {str(row.path.relative_to(root)): row for row in rows if row.path is not None}


@cache
def available() -> Mapping[str, type[Corpus]]:
    """Every corpus plug-in by name."""
    from hri_emo_ros.data import corpora

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
