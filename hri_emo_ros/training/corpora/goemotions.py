"""GoEmotions: Reddit comments with 27 emotions (Demszky et al. 2020, arXiv:2005.00547)."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from hri_emo_ros.training.corpus import Corpus, CorpusData, Item, clean_text, tally
from hri_emo_ros.types import LABELS

# The paper's Ekman grouping, then joy -> happy and so on.
_GROUPS = {
    "angry": ("anger", "annoyance", "disapproval"),
    "disgust": ("disgust",),
    "fear": ("fear", "nervousness"),
    "happy": (
        "joy", "amusement", "approval", "excitement", "gratitude", "love", "optimism", "relief",
        "pride", "admiration", "desire", "caring",
    ),
    "sad": ("sadness", "disappointment", "embarrassment", "grief", "remorse"),
    "surprise": ("surprise", "realization", "confusion", "curiosity"),
    "neutral": ("neutral",),
}  # fmt: skip


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
    labels: ClassVar[Mapping[str, str | None]] = {
        word: label for label, words in _GROUPS.items() for word in words
    }

    def __init__(self, *, single_label_only: bool = False) -> None:
        self.single_label_only = single_label_only

    def read(self, root: Path) -> CorpusData:
        collected = tally(self)
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
                    targets = [
                        t for w in own if (t := collected.target(w, f"{path.name}:{identifier}"))
                    ]
                    distinct = set(targets)
                    if self.single_label_only and len(distinct) > 1:
                        collected.data.left_out["several labels"] += 1
                        continue
                    mean = [sum(column) / len(distinct) for column in zip(*distinct, strict=True)]
                    collected.data.items.append(
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
        return collected.data


assert set(GoEmotions.labels.values()) == set(LABELS)
