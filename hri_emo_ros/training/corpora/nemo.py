"""nEMO: Polish, acted speech of 9 actors (Christop 2024, arXiv:2404.06292)."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from hri_emo_ros.training.corpus import Corpus, CorpusData, Item, tally

_NAME = re.compile(r"([A-Z]{2}\d)_([a-z]+)_(\d+)$")
# One speaker per fold, as in EmoBox; folds 3 and 9 belong to speakers not listed here, who get
# none: split by speaker where they matter.
_FOLDS = {"EB0": 1, "IC0": 2, "KS0": 4, "MK0": 5, "MP0": 6, "SM0": 7, "TP0": 8}
_SEXES = {
    "EB0": "female", "IC0": "female", "KS0": "male", "MK0": "female",
    "MP0": "male", "SM0": "male", "TP0": "male",
}  # fmt: skip


class Nemo(Corpus):
    """90 sentences, six emotions."""

    name = "nemo"
    folder = "speech/nemo"
    tree = """
nemo/
    samples/                        (or one folder per speaker: EB0/, IC0/, ...)
        EB0_anger_1.wav             speaker_emotion_sentence
        ...
    data.tsv                        file_id, raw_text, gender, ... (optional: words and sex)
"""
    labels: ClassVar[Mapping[str, str | None]] = {
        "anger": "angry",
        "fear": "fear",
        "happiness": "happy",
        "neutral": "neutral",
        "sadness": "sad",
        "surprised": "surprise",
    }

    def read(self, root: Path) -> CorpusData:
        collected = tally(self)
        table = self._table(root)
        for path in self.audio_files(root, ("samples/*", "[A-Z][A-Z][0-9]/*")):
            match = _NAME.match(path.stem)
            if match is None:
                collected.data.left_out["file name is not nEMO's"] += 1
                continue
            speaker, word, _ = match.groups()
            target = collected.target(word, path.name)
            if target is None:
                continue
            row = table.get(path.stem, {})
            collected.data.items.append(
                Item(
                    id=f"nemo/{path.relative_to(root)}",
                    corpus=self.name,
                    label=word,
                    target=target,
                    speaker=f"nemo_{speaker}",
                    audio=path,
                    text=row.get("raw_text") or None,
                    fold=_FOLDS.get(speaker),
                    sex=row.get("gender") or _SEXES.get(speaker, ""),
                    language="pl",
                )
            )
        if not collected.data.items:
            raise self.refuse(root, "no file is named as nEMO names its clips")
        return collected.data

    @staticmethod
    def _table(root: Path) -> dict[str, dict[str, str]]:
        path = root / "data.tsv"
        if not path.is_file():
            return {}
        with path.open(encoding="utf-8", newline="") as stream:
            return {
                Path(row["file_id"]).stem: row for row in csv.DictReader(stream, delimiter="\t")
            }
