# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""MELD: the series Friends, sound and words, seven emotions (Poria et al. 2019, arXiv:1810.02508)."""

from __future__ import annotations

import csv
from pathlib import Path

from hri_emo_ros.data.corpus import Corpus, CorpusData, Item, beside, clean_text
from hri_emo_ros.data.labels import table

_CLIPS = {
    "train": ("train_splits", "train"),
    "dev": ("dev_splits_complete", "dev"),
    "test": ("output_repeated_splits_test", "test"),
}
_SUFFIXES = (".wav", ".flac", ".mp4")


class MeldText(Corpus):
    """The words alone, in dialogues.

    The published split is by dialogue: the same characters speak on every side.
    """

    name = "meld_text"
    folder = "text/meld"
    tree = """
meld/                               (the tables may also lie in meld/data/MELD/)
    train_sent_emo.csv              Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,...
    dev_sent_emo.csv
    test_sent_emo.csv               (optional)
"""
    labels = table("anger disgust fear joy neutral sadness surprise")

    def read(self, root: Path) -> CorpusData:
        data = CorpusData([])
        folder = root / "data" / "MELD" if (root / "data" / "MELD").is_dir() else root
        if not (folder / "train_sent_emo.csv").is_file():
            raise self.refuse(root, "no train_sent_emo.csv")
        listed = beside(root)
        for split in ("train", "dev", "test"):
            path = folder / f"{split}_sent_emo.csv"
            if not path.is_file():
                continue
            with path.open(encoding="utf-8", newline="") as stream:
                for row in csv.DictReader(stream):
                    # Named alike in both classes, so that a dialogue is never on two sides.
                    conversation = f"meld/{split}_dia{row['Dialogue_ID']}"
                    clip = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
                    turn, text = float(row["Utterance_ID"]), clean_text(row["Utterance"])
                    data.said[conversation, turn] = text
                    target = self.target(row["Emotion"], f"{path.name}, {clip}", data)
                    audio, wanted = self._audio(root, split, clip)
                    if wanted and audio is None:
                        data.left_out["clip without a sound file"] += 1
                        continue
                    if target is None:
                        continue
                    known = listed.get(str(audio.relative_to(root))) if audio else None
                    data.items.append(
                        Item(
                            id=f"{self.name}/{split}/{clip}",
                            corpus=self.name,
                            label=row["Emotion"],
                            target=target,
                            speaker=f"friends_{row['Speaker'].lower()}",
                            audio=audio,
                            text=text,
                            fold=known.fold if known else None,
                            split=split,
                            sex=known.sex if known else "",
                            language="en",
                            conversation=conversation,
                            turn=turn,
                        )
                    )
        if not data.items:
            raise self.refuse(root, "no clip of the tables has a sound file")
        return data

    def _audio(self, root: Path, split: str, clip: str) -> tuple[Path | None, bool]:
        """The clip's file, and whether one is wanted."""
        return None, False


class Meld(MeldText):
    """Sound and words. Clips are read from the released .mp4 (through PyAV) or extracted .wav."""

    name = "meld"
    folder = "meld"
    tree = """
meld/
    train_sent_emo.csv              (the tables may also lie in meld/data/MELD/)
    dev_sent_emo.csv                (optional)
    test_sent_emo.csv               (optional)
    train_splits/                   (or train/)
        dia0_utt0.mp4               (or .wav, .flac: the extracted sound)
        ...
    dev_splits_complete/            (or dev/)
    output_repeated_splits_test/    (or test/; optional)
    manifest.csv                    path,emotion,fold,... (optional: folds by dialogue)
"""

    def _audio(self, root: Path, split: str, clip: str) -> tuple[Path | None, bool]:
        for folder in _CLIPS[split]:
            for suffix in _SUFFIXES:
                path = root / folder / f"{clip}{suffix}"
                if path.is_file():
                    return path, True
        return None, True
