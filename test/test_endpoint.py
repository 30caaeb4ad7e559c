# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""When an utterance is recognised: at each endpoint and at its end, and nothing twice."""

from __future__ import annotations

from typing import Any

import numpy as np

from hri_emo_ros.asr.endpoint import EndpointRecogniser, SpeechCollector
from hri_emo_ros.types import SignalQuality, SpeechChunk, Transcript

QUALITY = SignalQuality(20.0, -20.0, 0.0, 0.8)


def chunk(utterance: int, sequence: int, samples: int = 4000, **values: Any) -> SpeechChunk:
    return SpeechChunk(
        utterance, sequence, 0, 0, sequence * 4000, np.full(samples, 0.1, np.float32), QUALITY,
        **{"last": False, **values},
    )  # fmt: skip


class Counting:
    """A recogniser that says how much it was given."""

    name = "counting"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def transcribe(self, samples: np.ndarray, quality: Any = None) -> Transcript:
        self.asked.append(len(samples))
        return Transcript(f"{len(samples)} samples")

    def warm_up(self) -> None: ...


def test_an_utterance_that_stopped_at_its_endpoint_is_recognised_once() -> None:
    collector, recogniser = SpeechCollector(), Counting()
    words = EndpointRecogniser(recogniser)
    assert collector.add(chunk(1, 0)) is None
    early = collector.add(chunk(1, 1, endpoint=True))
    assert early is not None
    assert not early.final
    first = words.recognise(early)
    late = collector.add(chunk(1, 2, samples=0, last=True))
    assert late is not None
    assert late.final
    assert words.recognise(late) is first
    assert recogniser.asked == [8000]


def test_a_person_who_goes_on_is_recognised_from_the_beginning() -> None:
    collector, recogniser = SpeechCollector(), Counting()
    words = EndpointRecogniser(recogniser)
    for made in (chunk(1, 0, endpoint=True), chunk(1, 1, endpoint=True), chunk(1, 2, last=True)):
        due = collector.add(made)
        assert due is not None
        words.recognise(due)
    assert recogniser.asked == [4000, 8000, 12000]


def test_the_next_utterance_begins_anew_and_a_lost_end_is_counted() -> None:
    collector = SpeechCollector()
    assert collector.add(chunk(1, 0)) is None
    due = collector.add(chunk(2, 0, last=True))
    assert due is not None
    assert len(due.samples) == 4000
    assert (collector.unclosed, collector.late) == (1, 0)
    assert collector.add(chunk(3, 0), "a") is None
    again = collector.add(chunk(3, 0, endpoint=True), "another stream")
    assert again is not None
    assert len(again.samples) == 4000
