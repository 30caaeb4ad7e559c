"""EmoryNLP: words of the series Friends, seven emotions (Zahiri & Choi 2018, arXiv:1708.04299)."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from hri_emo_ros.training.corpus import Corpus, CorpusData, Item, clean_text, tally


class EmoryNlp(Corpus):
    """Single utterances. Peaceful and powerful have no counterpart and are left out.

    The published split is by scene: the same characters speak on every side.
    """

    name = "emorynlp"
    folder = "text/emorynlp"
    tree = """
emorynlp/
    emorynlp_train_final.csv        Utterance,Speaker,Emotion,Scene_ID,Utterance_ID,Season,Episode,...
    emorynlp_dev_final.csv
    emorynlp_test_final.csv         (optional)
"""
    labels: ClassVar[Mapping[str, str | None]] = {
        "Joyful": "happy",
        "Mad": "angry",
        "Neutral": "neutral",
        "Peaceful": None,
        "Powerful": None,
        "Sad": "sad",
        "Scared": "fear",
    }

    def read(self, root: Path) -> CorpusData:
        collected = tally(self)
        if not (root / "emorynlp_train_final.csv").is_file():
            raise self.refuse(root, "no emorynlp_train_final.csv")
        for split in ("train", "dev", "test"):
            path = root / f"emorynlp_{split}_final.csv"
            if not path.is_file():
                continue
            with path.open(encoding="utf-8", newline="") as stream:
                for number, row in enumerate(csv.DictReader(stream)):
                    target = collected.target(row["Emotion"], f"{path.name}, row {number + 2}")
                    if target is None:
                        continue
                    speaker = row["Speaker"].strip("[]'\"")
                    collected.data.items.append(
                        Item(
                            id=f"emorynlp/{split}/{number}",
                            corpus=self.name,
                            label=row["Emotion"],
                            target=target,
                            speaker=f"friends_{speaker.split()[0].lower()}" if speaker else "",
                            text=clean_text(row["Utterance"]),
                            split=split,
                            language="en",
                        )
                    )
        return collected.data
