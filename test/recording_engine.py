# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""An engine that writes down what it is asked."""

from __future__ import annotations

import numpy as np

from hri_emo_ros.types import (
    LABELS,
    EmotionEstimate,
    SignalQuality,
    Transcript,
)
from hri_emo_ros.voices.baseline import Heard

QUALITY = SignalQuality(20.0, -20.0, 0.0, 0.8)


class Recorder:
    """An engine that notes what it is asked, so that the joining can be seen alone."""

    labels = LABELS
    model_id = "recorder"

    def __init__(self) -> None:
        self.asked: list[tuple[int, str | None, bool]] = []
        self.fail = False
        self.heard: list[tuple[float, float]] = []
        """Of the voice and of the room, utterances that each estimate was given."""
        self.contexts: list[tuple[str, ...]] = []
        """What was said before each estimate's utterance."""

    def hear(self, samples: np.ndarray, quality: SignalQuality) -> None:
        pass

    def estimate(
        self,
        samples: np.ndarray | None,
        transcript: Transcript | None,
        quality: SignalQuality | None = None,
        explain: bool = False,
        voice: Heard | None = None,
        room: Heard | None = None,
        context: tuple[str, ...] = (),
    ) -> EmotionEstimate:
        if self.fail:
            raise ValueError("out of order")
        count = 0 if samples is None else len(samples)
        words = transcript.text if transcript and transcript.usable else None
        self.asked.append((count, words, explain))
        self.contexts.append(context)
        self.heard.append((voice.count if voice else 0.0, room.count if room else 0.0))
        flat = np.full(len(LABELS), 1 / len(LABELS), np.float32)
        return EmotionEstimate(
            LABELS, flat, flat > 0.1, 1.0, 0.5, 0.5, flat, flat, count / 16000, self.model_id,
            quality=quality, transcript=transcript,
            voice_statistics=None if samples is None else np.full(4, count, np.float32),
            baseline_weight=1.0,
            latency={"audio_encoder": 0.2, "text_encoder": 0.1, "fusion": 0.01},
        )  # fmt: skip
