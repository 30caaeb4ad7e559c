# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""All three nodes in one process and one executor: for small robots and demos."""

from __future__ import annotations

import sys

from hri_emo_ros.nodes.asr_node import AsrNode
from hri_emo_ros.nodes.emotion_node import EmotionNode
from hri_emo_ros.nodes.lifecycle import run
from hri_emo_ros.nodes.speech_node import SpeechNode


def main() -> int:
    """Entry point of the executable; ``--no-asr`` leaves asr_node out."""
    arguments = [a for a in sys.argv if a != "--no-asr"]
    nodes = (
        [SpeechNode, EmotionNode] if "--no-asr" in sys.argv else [SpeechNode, AsrNode, EmotionNode]
    )
    return run(nodes, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
