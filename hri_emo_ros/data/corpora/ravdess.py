# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""RAVDESS: English, acted speech (Livingstone & Russo 2018, doi:10.1371/journal.pone.0196391)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hri_emo_ros.data.corpus import ActedSpeech
from hri_emo_ros.data.labels import table

_EMOTIONS = dict(
    enumerate(["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"], 1)
)
_INTENSITIES = {"01": "normal", "02": "strong"}
_SENTENCES = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}

# EmoBox (Ma et al. 2024, arXiv:2406.07162): six folds of four actors, two of each sex in most.
_FOLDS = {
    1: (1, 11, 20, 21), 2: (4, 10, 12, 14), 3: (8, 9, 19, 23),
    4: (3, 5, 7, 24), 5: (2, 15, 16, 18), 6: (6, 13, 17, 22),
}  # fmt: skip
FOLD_OF_ACTOR = {actor: fold for fold, actors in _FOLDS.items() for actor in actors}


class Ravdess(ActedSpeech):
    """Speech of 24 actors, two sentences, eight emotions (calm counts as neutral); songs and video are
    left out."""

    name = "ravdess"
    folder = "speech/ravdess"
    tree = """
ravdess/
    Actor_01/
        03-01-01-01-01-01-01.wav    modality-channel-emotion-intensity-sentence-repetition-actor
    ...
    Actor_24/
"""
    labels = table(" ".join(_EMOTIONS.values()))
    patterns = ("Actor_*/*", "audio_speech_actors_01-24/Actor_*/*")
    file_name = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")

    def describe(self, match: re.Match[str], root: Path) -> dict[str, Any] | str:
        _, channel, emotion, intensity, sentence, _, actor = match.groups()
        if channel != "01":
            return "song"
        return {
            "label": _EMOTIONS.get(int(emotion), emotion),
            "speaker": f"ravdess_{actor}",
            "text": _SENTENCES.get(sentence),
            "fold": FOLD_OF_ACTOR.get(int(actor)),
            "sex": "male" if int(actor) % 2 else "female",
            "language": "en",
            "intensity": _INTENSITIES.get(intensity, ""),
        }
