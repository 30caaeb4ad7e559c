"""CREMA-D: English, acted speech of 91 actors (Cao et al. 2014, doi:10.1109/TAFFC.2014.2336244)."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from hri_emo_ros.training.corpus import Corpus, CorpusData, Item, tally

_NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{2})$")
_WORDS = {
    "ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad",
}  # fmt: skip
_INTENSITIES = {"LO": "low", "MD": "medium", "HI": "high", "XX": ""}
_SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}


class CremaD(Corpus):
    """Twelve sentences, six emotions. Has no published folds: split it by speaker."""

    name = "crema_d"
    folder = "speech/crema_d"
    tree = """
crema_d/
    AudioWAV/
        1001_DFA_ANG_XX.wav         actor_sentence_emotion_intensity
        ...
    VideoDemographics.csv           ActorID,Age,Sex,Race,Ethnicity (optional: gives the sex)
"""
    labels: ClassVar[Mapping[str, str | None]] = {
        "anger": "angry",
        "disgust": "disgust",
        "fear": "fear",
        "happy": "happy",
        "neutral": "neutral",
        "sad": "sad",
    }

    def read(self, root: Path) -> CorpusData:
        collected = tally(self)
        sexes = self._sexes(root)
        for path in self.audio_files(root, ("AudioWAV/*",)):
            match = _NAME.match(path.stem)
            if match is None:
                collected.data.left_out["file name is not CREMA-D's"] += 1
                continue
            actor, sentence, emotion, intensity = match.groups()
            word = _WORDS.get(emotion, emotion)
            target = collected.target(word, path.name)
            if target is None:
                continue
            collected.data.items.append(
                Item(
                    id=f"crema_d/{path.relative_to(root)}",
                    corpus=self.name,
                    label=word,
                    target=target,
                    speaker=f"crema_d_{actor}",
                    audio=path,
                    text=_SENTENCES.get(sentence),
                    sex=sexes.get(actor, ""),
                    language="en",
                    intensity=_INTENSITIES.get(intensity, ""),
                )
            )
        if not collected.data.items:
            raise self.refuse(root, "no file is named as CREMA-D names its clips")
        return collected.data

    @staticmethod
    def _sexes(root: Path) -> dict[str, str]:
        table = root / "VideoDemographics.csv"
        if not table.is_file():
            return {}
        with table.open(encoding="utf-8-sig", newline="") as stream:
            return {row["ActorID"]: row["Sex"].lower() for row in csv.DictReader(stream)}
