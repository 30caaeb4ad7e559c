"""Any collection of clips and texts, listed in a CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.corpus import Corpus, CorpusData, Item, clean_text, emotion_words, one_hot


class Manifest(Corpus):
    """Rows of a CSV; emotions may be the project's labels or any known corpus's words.

    Args:
        file: name of the CSV in the corpus's folder; the folder may also be the CSV itself.
        corpus: what the items' corpus is called in reports.
        strict: an unknown emotion is an error; False leaves the row out and counts it.
    """

    name = "manifest"
    tree = """
folder/
    manifest.csv                    path,emotion[,text][,speaker][,fold][,split][,sex][,language]
    clips/one.wav                   path is relative to the CSV; empty for text only
"""
    labels: ClassVar[Mapping[str, str | None]] = MappingProxyType({})

    def __init__(
        self, *, file: str = "manifest.csv", corpus: str = "manifest", strict: bool = True
    ) -> None:
        self.file, self.corpus, self.strict = file, corpus, strict

    def read(self, root: Path) -> CorpusData:
        path = root if root.is_file() else root / self.file
        if not path.is_file():
            raise self.refuse(root, f"no {self.file}")
        data = CorpusData([])
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if not {"path", "emotion"} <= set(reader.fieldnames or ()):
                raise self.refuse(root, f"{path.name} lacks the columns path and emotion")
            for number, row in enumerate(reader, start=2):
                self._add(data, path, number, row)
        if not data.items:
            raise self.refuse(root, f"no usable row in {path.name}")
        return data

    def _add(self, data: CorpusData, path: Path, number: int, row: dict[str, str]) -> None:
        words, word = emotion_words(), row["emotion"].strip().lower()
        if word not in words and self.strict:
            raise HriEmoError(
                f"'{path}', line {number}: emotion {row['emotion']!r} is not known, must be one "
                f"of: {', '.join(w for w, label in words.items() if label)}"
            )
        label = words.get(word)
        if label is None:
            data.left_out[f"label '{word}' has no counterpart"] += 1
            return
        audio = path.parent / row["path"] if row["path"] else None
        text = (row.get("text") or "").strip()
        if audio is not None and not audio.is_file():
            data.left_out["file is missing"] += 1
            return
        if audio is None and not text:
            data.left_out["neither path nor text"] += 1
            return
        speaker, fold = row.get("speaker") or "", (row.get("fold") or "").strip()
        if fold and not fold.isdecimal():
            raise HriEmoError(f"'{path}', line {number}: fold {fold!r} must be a whole number")
        data.items.append(
            Item(
                id=f"{self.corpus}/{row['path'] or number}",
                corpus=self.corpus,
                label=row["emotion"].strip(),
                target=one_hot(label),
                speaker=f"{self.corpus}_{speaker}" if speaker else "",
                audio=audio,
                text=clean_text(text) or None,
                fold=int(fold) if fold else None,
                split=row.get("split") or "",
                sex=row.get("sex") or "",
                language=row.get("language") or "",
                intensity=row.get("intensity") or "",
            )
        )
