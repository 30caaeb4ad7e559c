# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""CREMA-D: English, acted speech of 91 actors (Cao et al. 2014, doi:10.1109/TAFFC.2014.2336244)."""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path
from typing import Any

from hri_emo_ros.data.corpus import ActedSpeech, beside
from hri_emo_ros.data.labels import table

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


class CremaD(ActedSpeech):
    """Twelve sentences, six emotions as intended. Has no published folds: a manifest.csv beside the clips
    may tell them, else split it by speaker."""

    name = "crema_d"
    folder = "speech/crema_d"
    tree = """
crema_d/
    AudioWAV/
        1001_DFA_ANG_XX.wav         actor_sentence_emotion_intensity
        ...
    VideoDemographics.csv           ActorID,Age,Sex,Race,Ethnicity (optional: gives the sex)
"""
    labels = table(" ".join(_WORDS.values()))
    patterns = ("AudioWAV/*",)
    file_name = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_([A-Z]{2})")

    def describe(self, match: re.Match[str], root: Path) -> dict[str, Any] | str:
        actor, sentence, emotion, intensity = match.groups()
        return {
            "label": _WORDS.get(emotion, emotion),
            "speaker": f"crema_d_{actor}",
            "text": _SENTENCES.get(sentence),
            "sex": _sexes(root).get(actor, ""),
            "language": "en",
            "intensity": _INTENSITIES.get(intensity, ""),
        }


@cache
def _sexes(root: Path) -> dict[str, str]:
    """By actor, from the demographics or the manifest.csv beside the clips."""
    path = root / "VideoDemographics.csv"
    if path.is_file():
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return {row["ActorID"]: row["Sex"].lower() for row in csv.DictReader(stream)}
    return {Path(name).name[:4]: row.sex for name, row in beside(root).items()}
