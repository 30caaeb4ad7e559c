# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Any collection of clips and texts, listed in a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from hri_emo_ros.data.corpus import Corpus, CorpusData, Item, clean_text
from hri_emo_ros.data.labels import one_hot
from hri_emo_ros.data.manifest import read_manifest
from hri_emo_ros.errors import HriEmoError


class ManifestCorpus(Corpus):
    """Rows of a manifest; emotions may be the project's labels or any known corpus's words.

    Args:
        corpus: what the items' corpus is called in reports.
    """

    name = "manifest"
    tree = """
folder/                             (or the CSV itself)
    manifest.csv                    path,emotion[,text][,speaker][,fold][,split][,conversation,turn]...
    clips/one.wav                   path is relative to the CSV; empty for text only
"""
    labels: ClassVar[Mapping[str, str | None]] = MappingProxyType({})

    def __init__(self, *, corpus: str = "manifest") -> None:
        self.corpus = corpus

    def read(self, root: Path) -> CorpusData:
        path = root if root.is_file() else root / "manifest.csv"
        if not path.is_file():
            raise self.refuse(root, "no manifest.csv")
        manifest, data = read_manifest(path), CorpusData([])
        for refused in manifest.refused:
            if refused.fault == "unknown_label":
                raise HriEmoError(f"'{path}', line {refused.line}: {refused.reason}")
            data.left_out[refused.reason] += 1
        for row in manifest.rows:
            if not row.label:
                data.left_out["no emotion"] += 1
                continue
            if row.path is not None and not row.path.is_file():
                data.left_out["file is missing"] += 1
                continue
            name = str(row.path.relative_to(path.parent)) if row.path else str(row.line)
            conversation = f"{self.corpus}/{row.conversation}" if row.conversation else ""
            text, turn = clean_text(row.text) or None, row.turn or 0.0
            if conversation and text:
                data.said[conversation, turn] = text
            data.items.append(
                Item(
                    id=f"{self.corpus}/{name}", corpus=self.corpus, label=row.emotion,
                    target=one_hot(row.label),
                    speaker=f"{self.corpus}_{row.speaker}" if row.speaker else "",
                    audio=row.path, text=text, start=row.start, end=row.end,
                    max_duration=row.seconds if row.seconds < float("inf") else None,
                    fold=row.fold, split=row.split, sex=row.sex, language=row.language,
                    intensity=row.intensity, conversation=conversation, turn=turn,
                    heard=row.heard or None, confidence=row.confidence,
                )
            )  # fmt: skip
        if not data.items:
            raise self.refuse(root, f"no usable row in {path.name}")
        return data
