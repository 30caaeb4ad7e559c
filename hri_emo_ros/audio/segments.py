# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What the segmenter is told and what it gives out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import SAMPLE_RATE, FloatArray, SignalQuality


@dataclass(frozen=True)
class SegmenterConfig:
    """Thresholds as probabilities, lengths in samples at 16 kHz; see `parameters.SPEECH_NODE`."""

    threshold: float
    release_threshold: float
    """At most `threshold`."""
    min_speech: int
    pause: int
    max_length: int
    pre_roll: int
    endpoint: int
    """Non-speech after which speech seems to have ended; at or above `pause`, only the pause ends it."""
    hang_over: int
    """At most `endpoint` and `pause`: when speech seems to have ended, all of an utterance that ends
    there has been given out."""
    chunk: int
    mute: bool

    @classmethod
    def from_parameters(cls, values: Mapping[str, Any]) -> SegmenterConfig:
        """Take the speech node's values; a release threshold above the threshold acts as that one.

        Raises:
            HriEmoError: an utterance could not be as short as `segment.max_length`.
        """
        opening = values["segment.pre_roll"] + values["segment.min_speech"]
        if values["segment.max_length"] <= opening:
            raise HriEmoError(
                f"segment.max_length is {values['segment.max_length']:g} s, must be more than "
                f"segment.pre_roll + segment.min_speech ({opening:g} s)"
            )

        def samples(name: str) -> int:
            return round(float(values[name]) * SAMPLE_RATE)

        return cls(
            threshold=values["vad.threshold"],
            release_threshold=min(values["vad.release_threshold"], values["vad.threshold"]),
            min_speech=samples("segment.min_speech"),
            pause=samples("segment.pause"),
            max_length=samples("segment.max_length"),
            pre_roll=samples("segment.pre_roll"),
            endpoint=samples("segment.endpoint"),
            hang_over=min(
                samples("segment.hang_over"),
                samples("segment.endpoint"),
                samples("segment.pause"),
            ),
            chunk=samples("segment.chunk"),
            mute=values["robot_speaking.mute"],
        )

    @property
    def cut_window(self) -> int:
        """Samples before the maximum length among which the quietest place is looked for."""
        return min(SAMPLE_RATE, self.max_length // 4)


@dataclass(frozen=True)
class SegmentChunk:
    """A piece of an utterance; positions are stream indices at 16 kHz."""

    utterance_id: int
    sequence: int
    start: int
    utterance_start: int
    samples: FloatArray
    quality: SignalQuality
    last: bool
    truncated: bool
    endpoint: bool
    speech_end: int
    """One past the last sample of the last speech frame so far."""
    robot_speaking: bool
    beginning_lost: bool
