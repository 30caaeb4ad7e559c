# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""BanglaSER: Bengali, acted on phones at home (Das et al. 2022, doi:10.1016/j.dib.2022.108091)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hri_emo_ros.data.corpus import ActedSpeech
from hri_emo_ros.data.labels import table

_EMOTIONS = {"01": "happy", "02": "sad", "03": "angry", "04": "surprised", "05": "neutral"}
_INTENSITIES = {"01": "normal", "02": "strong"}
_SENTENCES = {
    "01": "Barota beje geche",
    "02": "Ami agei jantam amonta hobe",
    "03": "e kemon upohar?",
}


class BanglaSer(ActedSpeech):
    """Three sentences, five emotions. Has no published folds: a manifest.csv beside the clips may tell them."""

    name = "banglaser"
    folder = "speech/banglaser"
    tree = """
banglaser/                          (clips may also lie in one folder per speaker)
    03-01-01-01-01-01-03.wav        modality-channel-emotion-intensity-sentence-repetition-speaker
    ...
"""
    labels = table(" ".join(_EMOTIONS.values()))
    patterns = ("*", "*/*")
    file_name = re.compile(r"03-01-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")

    def describe(self, match: re.Match[str], root: Path) -> dict[str, Any] | str:
        emotion, intensity, sentence, _, speaker = match.groups()
        return {
            "label": _EMOTIONS.get(emotion, emotion),
            "speaker": f"banglaser_{speaker}",
            "text": _SENTENCES.get(sentence),
            "sex": "male" if int(speaker) % 2 else "female",
            "language": "bn",
            "intensity": _INTENSITIES.get(intensity, ""),
        }
