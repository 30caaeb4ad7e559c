# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""IEMOCAP: English, dyadic, sound and words (Busso et al. 2008, doi:10.1007/s10579-008-9076-6)."""

from __future__ import annotations

import re
from pathlib import Path

from hri_emo_ros.data.corpus import Corpus, CorpusData, Item, clean_text
from hri_emo_ros.data.labels import table

_EVALUATION = re.compile(r"^\[([\d.]+) - [\d.]+\]\t(\S+)\t(\w{3})\t\[")
_TRANSCRIPT = re.compile(r"^(\S+) \[[\d.]+-[\d.]+\]: (.*)$")
_TURN = re.compile(r"(Ses0(\d))[FM]_.*_([FM])\d+$")


class Iemocap(Corpus):
    """Ten actors in five sessions; the fold is the session, as the literature leaves one out. Excitement
    counts as happiness, as the literature merges them for its four classes."""

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
    labels = table("neu hap exc sad ang fea dis sur fru oth xxx")

    def read(self, root: Path) -> CorpusData:
        data = CorpusData([])
        evaluations = sorted(root.glob("Session[1-5]/dialog/EmoEvaluation/Ses*.txt"))
        if not evaluations:
            raise self.refuse(root, "no Session*/dialog/EmoEvaluation/Ses*.txt")
        for path in evaluations:
            session, dialogue = path.parents[2], path.stem
            words = self._words(session / "dialog" / "transcriptions" / path.name)
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                match = _EVALUATION.match(line)
                turn = _TURN.match(match[2]) if match else None
                if match is None or turn is None:
                    continue
                start, name, word = float(match[1]), match[2], match[3]
                conversation = f"{self.name}/{dialogue}"
                if words.get(name):
                    data.said[conversation, start] = words[name]
                target = self.target(word, f"{path.name}, {name}", data)
                if target is None:
                    continue
                audio = session / "sentences" / "wav" / dialogue / f"{name}.wav"
                audio = audio if audio.is_file() else audio.with_suffix(".flac")
                if not audio.is_file():
                    data.left_out["turn without a sound file"] += 1
                    continue
                data.items.append(
                    Item(
                        id=f"{self.name}/{name}",
                        corpus=self.name,
                        label=word,
                        target=target,
                        speaker=f"iemocap_{turn[1]}{turn[3]}",
                        audio=audio,
                        text=words.get(name),
                        fold=int(turn[2]),
                        sex="female" if turn[3] == "F" else "male",
                        language="en",
                        conversation=conversation,
                        turn=start,
                    )
                )
        if not data.items:
            raise self.refuse(root, "no turn with a sound file")
        return data

    @staticmethod
    def _words(path: Path) -> dict[str, str]:
        if not path.is_file():
            return {}
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return {m[1]: clean_text(m[2]) for m in map(_TRANSCRIPT.match, lines) if m}
