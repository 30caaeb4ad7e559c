# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""EmoryNLP: words of the series Friends, seven emotions (Zahiri & Choi 2018, arXiv:1708.04299)."""

from __future__ import annotations

import csv
from pathlib import Path

from hri_emo_ros.data.corpus import Corpus, CorpusData, Item, clean_text
from hri_emo_ros.data.labels import table


class EmoryNlp(Corpus):
    """Utterances in the order of their scenes. Peaceful and powerful have no counterpart: such a turn is left
    out, but what was said in it stays the context of the next.

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
    labels = table("Joyful Mad Neutral Peaceful Powerful Sad Scared")

    def read(self, root: Path) -> CorpusData:
        data = CorpusData([])
        if not (root / "emorynlp_train_final.csv").is_file():
            raise self.refuse(root, "no emorynlp_train_final.csv")
        for split in ("train", "dev", "test"):
            path = root / f"emorynlp_{split}_final.csv"
            if not path.is_file():
                continue
            with path.open(encoding="utf-8", newline="") as stream:
                for number, row in enumerate(csv.DictReader(stream)):
                    where = f"{path.name}, row {number + 2}"
                    scene = f"s{row['Season']}e{row['Episode']}_{row['Scene_ID']}"
                    conversation = f"{self.name}/{split}/{scene}"
                    turn, text = float(row["Utterance_ID"]), clean_text(row["Utterance"])
                    data.said[conversation, turn] = text
                    target = self.target(row["Emotion"], where, data)
                    if target is None:
                        continue
                    speaker = row["Speaker"].strip("[]'\"")
                    data.items.append(
                        Item(
                            id=f"{self.name}/{split}/{number}",
                            corpus=self.name,
                            label=row["Emotion"],
                            target=target,
                            speaker=f"friends_{speaker.split()[0].lower()}" if speaker else "",
                            text=text,
                            split=split,
                            language="en",
                            conversation=conversation,
                            turn=turn,
                        )
                    )
        return data
