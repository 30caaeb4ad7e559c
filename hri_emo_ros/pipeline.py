# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A recording through front end, recogniser and engine, without ROS: live equals offline.

The nodes and this module drive the same objects; `UtteranceJoiner` lives in `hri_emo_ros.joiner`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from hri_emo_ros.asr import Recogniser
from hri_emo_ros.asr.endpoint import EndpointRecogniser, SpeechCollector
from hri_emo_ros.audio.frontend import AudioFrontEnd
from hri_emo_ros.audio.pcm import PcmFormat
from hri_emo_ros.audio.quality import measure_quality
from hri_emo_ros.joiner import UtteranceJoiner
from hri_emo_ros.outcome import LATENCY_STAGES, Estimator, Outcome
from hri_emo_ros.types import SAMPLE_RATE, FloatArray, SpeechChunk, Transcript, TranscriptStatus

__all__ = [
    "LATENCY_STAGES",
    "AudioMessage",
    "Estimator",
    "Input",
    "Outcome",
    "Record",
    "RobotSpeaking",
    "TranscriptRecord",
    "UtteranceJoiner",
    "run_offline",
    "run_whole",
]


@dataclass(frozen=True)
class AudioMessage:
    """Audio as a topic or a file gives it."""

    data: bytes | FloatArray
    """PCM bytes in the front end's format, or float samples [n] or [n, channels] at its rate."""
    stamp_ns: int | None
    """Time of the first sample, or of reception, ns; None if unknown."""
    received: bool = False
    """`stamp_ns` is the time of reception."""
    arrived_ns: int | None = None
    """When the message came, on the clock of `RobotSpeaking`, ns; None if unknown or `stamp_ns`."""


@dataclass(frozen=True)
class RobotSpeaking:
    """The robot starts or stops to speak."""

    active: bool
    arrived_ns: int
    """When one was told so, ns."""


@dataclass(frozen=True)
class TranscriptRecord:
    """A transcript with the utterance it belongs to."""

    utterance_id: int
    stamp_ns: int
    """Sensor time of the utterance's first sample, ns."""
    transcript: Transcript
    duration: float = 0.0
    """Seconds of the utterance that were recognised."""
    final: bool = True
    """These are all the words."""


Input = AudioMessage | RobotSpeaking | PcmFormat
Record = SpeechChunk | TranscriptRecord | Outcome


def run_whole(
    samples: FloatArray,
    transcript: Transcript | None,
    joiner: UtteranceJoiner,
    utterance_id: int = 1,
    stamp_ns: int = 0,
) -> Outcome:
    """A clip as one utterance, whatever pauses are in it.

    Args:
        samples: [n] float32, 16 kHz mono.
        transcript: None for voice alone.
        joiner: made with `live=False`; goes on with the voices that it has heard.
        utterance_id: an id that it has had begins a new stream.
        stamp_ns: when the clip was spoken, ns.
    """
    outcomes: list[Outcome] = []
    before, joiner.emit = joiner.emit, outcomes.append
    quality = measure_quality(samples)
    chunk = SpeechChunk(utterance_id, 0, stamp_ns, stamp_ns, 0, samples, quality, last=True)
    now = stamp_ns * 1e-9
    try:
        joiner.speech(chunk, now)
        if joiner.words_expected:
            joiner.transcript(utterance_id, transcript, now)
        joiner.flush(now)
    finally:
        joiner.emit = before
    return outcomes[-1]


def run_offline(
    inputs: Iterable[Input],
    front_end: AudioFrontEnd,
    recogniser: Recogniser | None,
    joiner: UtteranceJoiner,
) -> Iterator[Record]:
    """Run a recording through the whole pipeline as fast as the machine goes.

    Words always arrive in time. Memory does not grow with the recording: `inputs` is read as the
    records are asked for. The joiner's own `emit` is not called; its outcomes are yielded instead.

    Args:
        inputs: audio, robot-speaking events and changes of format, in order of time.
        front_end: fresh or reset.
        recogniser: None for voice alone.
        joiner: made with `live=False`.

    Yields:
        Chunks, transcripts and outcomes in the order in which the nodes would publish them.

    Raises:
        HriEmoError: from the front end (undecodable audio) or the recogniser.
    """
    outcomes: list[Outcome] = []
    before, joiner.emit = joiner.emit, outcomes.append
    collector = SpeechCollector()
    words = None
    if recogniser is not None and joiner.words_expected:
        words = EndpointRecogniser(recogniser)
    joiner.recogniser_present = words is not None
    now = 0.0
    try:
        for chunks in _chunks(inputs, front_end):
            for chunk in chunks:
                now = max(now, chunk.stamp_ns * 1e-9 + len(chunk.samples) / SAMPLE_RATE)
                yield chunk
                joiner.speech(chunk, now)
                if words is not None and chunk.sequence == 0:
                    taken = Transcript("", status=TranscriptStatus.NONE)
                    yield TranscriptRecord(
                        chunk.utterance_id, chunk.utterance_start_ns, taken, final=False
                    )
                due = collector.add(chunk)
                if due is not None and words is not None:
                    transcript = words.recognise(due)
                    yield TranscriptRecord(
                        chunk.utterance_id, due.stamp_ns, transcript, due.duration, due.final
                    )
                    joiner.transcript(chunk.utterance_id, transcript, now, final=due.final)
                yield from outcomes
                outcomes.clear()
        joiner.flush(now)
        yield from outcomes
    finally:
        joiner.emit = before


def _chunks(inputs: Iterable[Input], front_end: AudioFrontEnd) -> Iterator[list[SpeechChunk]]:
    for item in inputs:
        if isinstance(item, PcmFormat):
            front_end.set_format(item)
        elif isinstance(item, RobotSpeaking):
            front_end.robot_speaking(item.active, item.arrived_ns)
        elif isinstance(item.data, np.ndarray):
            yield front_end.push_samples(item.data, item.stamp_ns, item.received, item.arrived_ns)
        else:
            yield front_end.push(item.data, item.stamp_ns, item.received, item.arrived_ns)
    yield front_end.flush()
