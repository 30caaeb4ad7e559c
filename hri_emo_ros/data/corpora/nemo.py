# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""nEMO: Polish, acted speech of 9 actors (Christop 2024, arXiv:2404.06292)."""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path
from typing import Any

from hri_emo_ros.data.corpus import ActedSpeech, beside
from hri_emo_ros.data.labels import table

# One speaker per fold, as in EmoBox; folds 3 and 9 belong to speakers not listed here, who get
# none: split by speaker where they matter.
_FOLDS = {"EB0": 1, "IC0": 2, "KS0": 4, "MK0": 5, "MP0": 6, "SM0": 7, "TP0": 8}
_SEXES = {
    "EB0": "female", "IC0": "female", "KS0": "male", "MK0": "female",
    "MP0": "male", "SM0": "male", "TP0": "male",
}  # fmt: skip


class Nemo(ActedSpeech):
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
    labels = table("anger fear happiness neutral sadness surprised")
    patterns = ("samples/*", "[A-Z][A-Z][0-9]/*")
    file_name = re.compile(r"([A-Z]{2}\d)_([a-z]+)_(\d+)")

    def describe(self, match: re.Match[str], root: Path) -> dict[str, Any] | str:
        speaker, word, _ = match.groups()
        text, sex = _spoken(root).get(match[0], ("", ""))
        return {
            "label": word,
            "speaker": f"nemo_{speaker}",
            "text": text or None,
            "fold": _FOLDS.get(speaker),
            "sex": sex or _SEXES.get(speaker, ""),
            "language": "pl",
        }


@cache
def _spoken(root: Path) -> dict[str, tuple[str, str]]:
    """Words and sex by the clip's name, from data.tsv or the manifest.csv beside the clips."""
    path = root / "data.tsv"
    if not path.is_file():
        return {Path(name).stem: (row.text, row.sex) for name, row in beside(root).items()}
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return {
        Path(row["file_id"]).stem: (row.get("raw_text") or "", row.get("gender") or "")
        for row in rows
    }
