# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Fields of the messages of hri_msgs that are used here (https://github.com/ros4hri/hri_msgs, BSD)."""

from __future__ import annotations

HEADER = "std_msgs/Header header\n"
EXPRESSIONS = (
    "neutral", "angry", "sad", "happy", "surprised", "disgusted", "scared", "pleading", "vulnerable",
    "despaired", "guilty", "disappointed", "embarrassed", "horrified", "skeptical", "annoyed", "furious",
    "suspicious", "rejected", "bored", "tired", "asleep", "confused", "amazed", "excited",
)  # fmt: skip
HRI_MSGS = {
    "IdsList": HEADER + "string[] ids\n",
    # Until 2.0: string language.
    "LiveSpeech": HEADER + "string incremental\nstring final\nfloat64 confidence\nstring locale\n",
    "AudioFeatures": "float32 zcr\nfloat32 rms\nfloat32 pitch\nfloat32 hnr\nfloat32[] mfcc\n",
    "Expression": HEADER
    + "".join(f'string {name.upper()}="{name}"\n' for name in EXPRESSIONS)
    + "string expression\nfloat32 valence\nfloat32 arousal\nfloat32 confidence\n",
}


def fields(message: str) -> set[str]:
    """Names of a message's fields, constants left out."""
    lines = HRI_MSGS[message].splitlines()
    return {line.split()[1] for line in lines if "=" not in line}
