"""RAVDESS: English, acted speech (Livingstone & Russo 2018, doi:10.1371/journal.pone.0196391)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from hri_emo_ros.training.corpus import Corpus, CorpusData, Item, tally

_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)$")
_EMOTIONS = {
    "01": "neutral", "02": "calm", "03": "happy", "04": "sad",
    "05": "angry", "06": "fearful", "07": "disgust", "08": "surprised",
}  # fmt: skip
_INTENSITIES = {"01": "normal", "02": "strong"}
_SENTENCES = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}

# EmoBox (Ma et al. 2024, arXiv:2406.07162): six folds of four actors, two of each sex in most.
_FOLDS = {
    1: (1, 11, 20, 21), 2: (4, 10, 12, 14), 3: (8, 9, 19, 23),
    4: (3, 5, 7, 24), 5: (2, 15, 16, 18), 6: (6, 13, 17, 22),
}  # fmt: skip
FOLD_OF_ACTOR = {actor: fold for fold, actors in _FOLDS.items() for actor in actors}


class Ravdess(Corpus):
    """Speech of 24 actors, two sentences, eight emotions; songs and video are left out.

    Args:
        calm: count calm as neutral (the project's rule); False leaves it out.
    """

    name = "ravdess"
    folder = "speech/ravdess"
    tree = """
ravdess/
    Actor_01/
        03-01-01-01-01-01-01.wav    modality-channel-emotion-intensity-sentence-repetition-actor
    ...
    Actor_24/
"""
    labels: ClassVar[Mapping[str, str | None]] = {
        "neutral": "neutral",
        "calm": "neutral",
        "happy": "happy",
        "sad": "sad",
        "angry": "angry",
        "fearful": "fear",
        "disgust": "disgust",
        "surprised": "surprise",
    }

    def __init__(self, *, calm: bool = True) -> None:
        self.calm = calm

    def read(self, root: Path) -> CorpusData:
        collected = tally(self)
        left_out = collected.data.left_out
        for path in self.audio_files(root, ("Actor_*/*", "audio_speech_actors_01-24/Actor_*/*")):
            match = _NAME.match(path.stem)
            if match is None:
                left_out["file name is not RAVDESS's"] += 1
                continue
            _, channel, emotion, intensity, sentence, _, actor = match.groups()
            if channel != "01":
                left_out["song"] += 1
                continue
            word = _EMOTIONS.get(emotion, emotion)
            if word == "calm" and not self.calm:
                left_out["label 'calm' left out by option"] += 1
                continue
            target = collected.target(word, path.name)
            if target is None:
                continue
            collected.data.items.append(
                Item(
                    id=f"ravdess/{path.relative_to(root)}",
                    corpus=self.name,
                    label=word,
                    target=target,
                    speaker=f"ravdess_{actor}",
                    audio=path,
                    text=_SENTENCES.get(sentence),
                    fold=FOLD_OF_ACTOR.get(int(actor)),
                    sex="male" if int(actor) % 2 else "female",
                    language="en",
                    intensity=_INTENSITIES.get(intensity, ""),
                )
            )
        if not collected.data.items:
            raise self.refuse(root, "no file is named as RAVDESS names its speech")
        return collected.data
