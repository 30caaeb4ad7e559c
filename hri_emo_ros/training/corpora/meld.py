"""MELD: the series Friends, sound and words, seven emotions (Poria et al. 2019, arXiv:1810.02508)."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from hri_emo_ros.training.corpus import Corpus, CorpusData, Item, clean_text, tally

_LABELS = {
    "anger": "angry",
    "disgust": "disgust",
    "fear": "fear",
    "joy": "happy",
    "neutral": "neutral",
    "sadness": "sad",
    "surprise": "surprise",
}
_CLIPS = {
    "train": ("train_splits", "train"),
    "dev": ("dev_splits_complete", "dev"),
    "test": ("output_repeated_splits_test", "test"),
}
_SUFFIXES = (".wav", ".flac", ".mp4")


class MeldText(Corpus):
    """The words alone, single utterances without their dialogue.

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
    labels: ClassVar[Mapping[str, str | None]] = _LABELS

    def read(self, root: Path) -> CorpusData:
        collected = tally(self)
        folder = root / "data" / "MELD" if (root / "data" / "MELD").is_dir() else root
        if not (folder / "train_sent_emo.csv").is_file():
            raise self.refuse(root, "no train_sent_emo.csv")
        for split in ("train", "dev", "test"):
            path = folder / f"{split}_sent_emo.csv"
            if not path.is_file():
                continue
            with path.open(encoding="utf-8", newline="") as stream:
                for row in csv.DictReader(stream):
                    clip = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
                    target = collected.target(row["Emotion"], f"{path.name}, {clip}")
                    audio, wanted = self._audio(root, split, clip)
                    if wanted and audio is None:
                        collected.data.left_out["clip without a sound file"] += 1
                        continue
                    if target is None:
                        continue
                    collected.data.items.append(
                        Item(
                            id=f"{self.name}/{split}/{clip}",
                            corpus=self.name,
                            label=row["Emotion"],
                            target=target,
                            speaker=f"friends_{row['Speaker'].lower()}",
                            audio=audio,
                            text=clean_text(row["Utterance"]),
                            split=split,
                            language="en",
                        )
                    )
        if not collected.data.items:
            raise self.refuse(root, "no clip of the tables has a sound file")
        return collected.data

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
    dev_sent_emo.csv
    test_sent_emo.csv               (optional)
    train_splits/                   (or train/)
        dia0_utt0.mp4               (or .wav, .flac: the extracted sound)
        ...
    dev_splits_complete/            (or dev/)
    output_repeated_splits_test/    (or test/; optional)
"""

    def _audio(self, root: Path, split: str, clip: str) -> tuple[Path | None, bool]:
        for folder in _CLIPS[split]:
            for suffix in _SUFFIXES:
                path = root / folder / f"{clip}{suffix}"
                if path.is_file():
                    return path, True
        return None, True
