# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""GoEmotions: Reddit comments with 27 emotions (Demszky et al. 2020, arXiv:2005.00547)."""

from __future__ import annotations

import csv
from pathlib import Path

from hri_emo_ros.data.corpus import Corpus, CorpusData, Item, clean_text
from hri_emo_ros.data.labels import table


class GoEmotions(Corpus):
    """Comments with one or more labels; several become a soft label with equal shares.

    Authors are not told, so nothing can be said of speaker-independence.

    Args:
        single_label_only: leave out rows with several of the project's labels.
    """

    name = "goemotions"
    folder = "text/goemotions/ekman"
    tree = """
goemotions/                         (the files may also lie in goemotions/data/)
    train.tsv                       text <tab> label numbers, comma-separated <tab> id
    dev.tsv
    test.tsv                        (optional)
    emotions.txt                    (or labels.txt) one label a line: the 28 or the Ekman seven
"""
    labels = table(
        "admiration amusement anger annoyance approval caring confusion curiosity desire disappointment "
        "disapproval disgust embarrassment excitement fear gratitude grief joy love nervousness neutral "
        "optimism pride realization relief remorse sadness surprise"
    )

    def __init__(self, *, single_label_only: bool = False) -> None:
        self.single_label_only = single_label_only

    def read(self, root: Path) -> CorpusData:
        data = CorpusData([])
        folder = root / "data" if (root / "data" / "train.tsv").is_file() else root
        names = next(
            (p for p in (folder / "emotions.txt", folder / "labels.txt") if p.is_file()), None
        )
        if names is None or not (folder / "train.tsv").is_file():
            raise self.refuse(root, "no train.tsv with emotions.txt")
        words = names.read_text(encoding="utf-8").split()
        for split in ("train", "dev", "test"):
            path = folder / f"{split}.tsv"
            if not path.is_file():
                continue
            with path.open(encoding="utf-8", newline="") as stream:
                rows = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
                for text, numbers, identifier in rows:
                    own = [words[int(number)] for number in numbers.split(",")]
                    where = f"{path.name}:{identifier}"
                    distinct = {t for word in own if (t := self.target(word, where, data))}
                    if self.single_label_only and len(distinct) > 1:
                        data.left_out["several labels"] += 1
                        continue
                    mean = [sum(column) / len(distinct) for column in zip(*distinct, strict=True)]
                    data.items.append(
                        Item(
                            id=f"goemotions/{split}/{identifier}",
                            corpus=self.name,
                            label=",".join(own),
                            target=tuple(mean),
                            text=clean_text(text),
                            split=split,
                            language="en",
                        )
                    )
        return data
