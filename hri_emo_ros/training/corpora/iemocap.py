"""IEMOCAP: English, dyadic, sound and words (Busso et al. 2008, doi:10.1007/s10579-008-9076-6)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from hri_emo_ros.training.corpus import Corpus, CorpusData, Item, clean_text, tally

_EVALUATION = re.compile(r"^\[[\d.]+ - [\d.]+\]\t(\S+)\t(\w{3})\t\[")
_TRANSCRIPT = re.compile(r"^(\S+) \[[\d.]+-[\d.]+\]: (.*)$")
_TURN = re.compile(r"(Ses0(\d))[FM]_.*_([FM])\d+$")


class Iemocap(Corpus):
    """Ten actors in five sessions; the fold is the session, as the literature leaves one out.

    Args:
        excited_is_happy: merge excitement into happiness, as the literature does for its four
            classes; False leaves it out.
    """

    name = "iemocap"
    folder = "iemocap"
    tree = """
iemocap/                            (the released IEMOCAP_full_release)
    Session1/
        dialog/
            EmoEvaluation/Ses01F_impro01.txt
            transcriptions/Ses01F_impro01.txt
        sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav
    ...
    Session5/
"""
    labels: ClassVar[Mapping[str, str | None]] = {
        "neu": "neutral",
        "hap": "happy",
        "exc": "happy",
        "sad": "sad",
        "ang": "angry",
        "fea": "fear",
        "dis": "disgust",
        "sur": "surprise",
        "fru": None,
        "oth": None,
        "xxx": None,
    }

    def __init__(self, *, excited_is_happy: bool = True) -> None:
        self.excited_is_happy = excited_is_happy

    def read(self, root: Path) -> CorpusData:
        collected = tally(self)
        evaluations = sorted(root.glob("Session[1-5]/dialog/EmoEvaluation/Ses*.txt"))
        if not evaluations:
            raise self.refuse(root, "no Session*/dialog/EmoEvaluation/Ses*.txt")
        for path in evaluations:
            session, dialogue = path.parents[2], path.stem
            words = self._words(session / "dialog" / "transcriptions" / path.name)
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                match = _EVALUATION.match(line)
                turn = _TURN.match(match[1]) if match else None
                if match is None or turn is None:
                    continue
                word = match[2]
                if word == "exc" and not self.excited_is_happy:
                    collected.data.left_out["label 'exc' left out by option"] += 1
                    continue
                target = collected.target(word, f"{path.name}, {match[1]}")
                if target is None:
                    continue
                audio = session / "sentences" / "wav" / dialogue / f"{match[1]}.wav"
                audio = audio if audio.is_file() else audio.with_suffix(".flac")
                if not audio.is_file():
                    collected.data.left_out["turn without a sound file"] += 1
                    continue
                collected.data.items.append(
                    Item(
                        id=f"iemocap/{match[1]}",
                        corpus=self.name,
                        label=word,
                        target=target,
                        speaker=f"iemocap_{turn[1]}{turn[3]}",
                        audio=audio,
                        text=words.get(match[1]),
                        fold=int(turn[2]),
                        sex="female" if turn[3] == "F" else "male",
                        language="en",
                    )
                )
        if not collected.data.items:
            raise self.refuse(root, "no turn with a sound file")
        return collected.data

    @staticmethod
    def _words(path: Path) -> dict[str, str]:
        if not path.is_file():
            return {}
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return {m[1]: clean_text(m[2]) for m in map(_TRANSCRIPT.match, lines) if m}
