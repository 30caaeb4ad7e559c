# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""EmoDB: German, acted speech of 10 actors (Burkhardt et al. 2005, Interspeech)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hri_emo_ros.data.corpus import ActedSpeech
from hri_emo_ros.data.labels import table
from hri_emo_ros.errors import HriEmoError

_WORDS = {
    "W": "anger", "L": "boredom", "E": "disgust", "A": "fear",
    "F": "happiness", "T": "sadness", "N": "neutral",
}  # fmt: skip
_SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
_MALE = ("03", "10", "11", "12", "15")
# EmoBox's five folds: one pair of speakers each.
_FOLDS = {1: ("03", "08"), 2: ("09", "10"), 3: ("11", "13"), 4: ("12", "14"), 5: ("15", "16")}
FOLD_OF_SPEAKER = {speaker: fold for fold, pair in _FOLDS.items() for speaker in pair}


class EmoDb(ActedSpeech):
    """Ten sentences; boredom has no counterpart in the project's labels and is left out.

    Args:
        max_duration: seconds read of each clip; 0 reads all. Where some emotions' clips were cut at
            a length, cap every clip there or length gives the class away.
    """

    name = "emodb"
    folder = "speech/emodb"
    tree = """
emodb/
    wav/                            (the clips may also lie directly in emodb/)
        03a01Fa.wav                 speaker, sentence, emotion letter, version
        ...
"""
    labels = table(" ".join(_WORDS.values()))
    patterns = ("wav/*", "*")
    file_name = re.compile(r"(\d\d)([ab]\d\d)([A-Z])([a-z])")

    def __init__(self, *, max_duration: float = 0.0) -> None:
        if not max_duration >= 0.0:
            raise HriEmoError(f"emodb: 'max_duration' is {max_duration!r}, must be >= 0 seconds")
        self.max_duration = max_duration or None

    def describe(self, match: re.Match[str], root: Path) -> dict[str, Any] | str:
        speaker, sentence, letter, _ = match.groups()
        return {
            "label": _WORDS.get(letter, letter),
            "speaker": f"emodb_{speaker}",
            "text": _SENTENCES.get(sentence),
            "max_duration": self.max_duration,
            "fold": FOLD_OF_SPEAKER.get(speaker),
            "sex": "male" if speaker in _MALE else "female",
            "language": "de",
        }
