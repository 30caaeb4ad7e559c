# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What the system made of a recording, utterance by utterance, in the recording's own time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from hri_emo_ros.pipeline import LATENCY_STAGES, Outcome, Record, TranscriptRecord
from hri_emo_ros.types import (
    SAMPLE_RATE,
    EmotionEstimate,
    SignalQuality,
    SpeechChunk,
    Transcript,
    TranscriptStatus,
)


@dataclass(frozen=True)
class ProvisionalState:
    """What was thought while the person still spoke."""

    until: float
    """Seconds from the bag's start up to which audio was heard."""
    probabilities: list[float]
    audio_weight: float


@dataclass
class HeardUtterance:
    """One utterance and its final state; times are seconds from the bag's start."""

    utterance_id: int
    start: float
    """First sample, pre-roll included."""
    end: float
    """Behind the last sample, hang-over included."""
    speech_end: float = float("nan")
    """Where speech was last heard."""
    stream_start_sample: int = 0
    """First sample in the stream at 16 kHz."""
    truncated: bool = False
    probabilities: list[float] = field(default_factory=list)
    """By the model's labels; empty where nothing was estimated."""
    dominant: str = ""
    """Label of the highest probability, also where the state abstained."""
    abstained: str = ""
    """Reason in lower case, e.g. ``too_short``; empty where the state did not abstain."""
    uncertainty: float = 1.0
    audio_weight: float = 0.5
    text_weight: float = 0.5
    audio_weight_per_emotion: list[float] = field(default_factory=list)
    transcript: str = ""
    """The words that the estimate used."""
    transcript_status: str = "none"
    """`TranscriptStatus` in lower case."""
    rejected_transcript: str = ""
    """Words that were recognised and refused."""
    transcript_confidence: float = 0.0
    language: str = ""
    words: list[tuple[str, float, float]] = field(default_factory=list)
    """Word, start and end in the bag's time."""
    snr_db: float = float("nan")
    level_dbfs: float = float("nan")
    clipped_fraction: float = 0.0
    speech_fraction: float = 1.0
    latency: dict[str, float] = field(default_factory=dict)
    """Seconds by stage (`pipeline.LATENCY_STAGES`)."""
    voice_id: str = ""
    """Who spoke; empty where it could not be told."""
    voice_utterances: int = 0
    """Earlier utterances of that voice which this one was judged against."""
    provisional: list[ProvisionalState] = field(default_factory=list)
    final: bool = False
    """The final state has come."""

    @property
    def quality(self) -> SignalQuality:
        """As the final state was estimated with."""
        return SignalQuality(
            self.snr_db, self.level_dbfs, self.clipped_fraction, self.speech_fraction
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def utterance_from_json(value: Mapping[str, Any]) -> HeardUtterance:
    """Inverse of `HeardUtterance.as_json`."""
    fields = dict(value)
    for name in ("speech_end", "snr_db", "level_dbfs"):
        fields[name] = float("nan") if fields[name] is None else fields[name]
    fields["words"] = [(str(w), float(a), float(b)) for w, a, b in fields["words"]]
    fields["provisional"] = [ProvisionalState(**state) for state in fields["provisional"]]
    return HeardUtterance(**fields)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


class UtteranceLog:
    """Collects utterances from the records of the pipeline, live or offline.

    Args:
        origin_ns: what is subtracted from sensor stamps to count from the bag's start.
    """

    def __init__(self, origin_ns: int) -> None:
        self.origin_ns = origin_ns
        self.utterances: list[HeardUtterance] = []
        self.final_states = 0
        self.model_id = ""
        self.labels: tuple[str, ...] = ()
        self._open: dict[int, HeardUtterance] = {}
        self._finished: dict[int, HeardUtterance] = {}

    def seconds(self, stamp_ns: int) -> float:
        """A sensor stamp in the bag's time."""
        return (stamp_ns - self.origin_ns) * 1e-9

    def add(self, record: Record) -> HeardUtterance | None:
        """Take a record; returns the utterance whose final state it is."""
        if isinstance(record, SpeechChunk):
            self._add_chunk(record)
        elif isinstance(record, TranscriptRecord):
            utterance = self._open.get(record.utterance_id)
            if utterance is not None:
                _add_words(utterance, record.transcript)
        else:
            return self._add_outcome(record)
        return None

    def _add_chunk(self, chunk: SpeechChunk) -> None:
        utterance = self._open.get(chunk.utterance_id)
        if utterance is None and chunk.sequence > 0:
            # Live, a state may overtake the last chunks: they come on topics of their own.
            utterance = self._finished.get(chunk.utterance_id)
        if utterance is None:
            utterance = HeardUtterance(
                chunk.utterance_id,
                self.seconds(chunk.utterance_start_ns),
                0.0,
                stream_start_sample=chunk.stream_start_sample,
            )
            self._open[chunk.utterance_id] = utterance
            self.utterances.append(utterance)
        samples = chunk.first_sample + len(chunk.samples)
        utterance.end = utterance.start + samples / SAMPLE_RATE
        _add_quality(utterance, chunk.quality)
        if chunk.last:
            utterance.truncated = chunk.truncated
            if chunk.speech_end_ns:
                utterance.speech_end = self.seconds(chunk.speech_end_ns)

    def _add_outcome(self, outcome: Outcome) -> HeardUtterance | None:
        estimate = outcome.estimate
        self.labels, self.model_id = estimate.labels or self.labels, estimate.model_id
        utterance = self._open.get(outcome.utterance_id)
        if utterance is None:
            # Its speech was not recorded (another tool's bag): the state alone tells of it.
            start = self.seconds(outcome.stamp_ns)
            utterance = HeardUtterance(outcome.utterance_id, start, start + estimate.duration)
            self._open[outcome.utterance_id] = utterance
            self.utterances.append(utterance)
        if outcome.stage == "provisional":
            utterance.provisional.append(
                ProvisionalState(
                    utterance.start + estimate.duration,
                    [float(p) for p in estimate.probabilities],
                    float(estimate.audio_weight),
                )
            )
            return None
        _add_estimate(utterance, estimate)
        utterance.latency = {s: float(outcome.latency.get(s, 0.0)) for s in LATENCY_STAGES}
        utterance.final = True
        self.final_states += 1
        self._finished[outcome.utterance_id] = self._open.pop(outcome.utterance_id)
        return utterance


def _add_quality(utterance: HeardUtterance, quality: SignalQuality) -> None:
    utterance.snr_db = float(quality.snr_db)
    utterance.level_dbfs = float(quality.level_dbfs)
    utterance.clipped_fraction = float(quality.clipped_fraction)
    utterance.speech_fraction = float(quality.speech_fraction)


def _add_words(utterance: HeardUtterance, transcript: Transcript) -> None:
    rejected = transcript.status is TranscriptStatus.REJECTED
    utterance.transcript = transcript.text if transcript.usable else ""
    utterance.transcript_status = transcript.status.name.lower()
    utterance.rejected_transcript = transcript.text if rejected else ""
    utterance.transcript_confidence = float(transcript.confidence) if transcript.text else 0.0
    utterance.language = transcript.language
    if transcript.words:
        utterance.words = [
            (word.text, utterance.start + word.start, utterance.start + word.end)
            for word in transcript.words
            if transcript.usable
        ]


def _add_estimate(utterance: HeardUtterance, estimate: EmotionEstimate) -> None:
    if estimate.abstained:
        utterance.abstained = estimate.abstain_reason.name.lower()
    if estimate.computed:
        utterance.probabilities = [float(p) for p in estimate.probabilities]
        utterance.dominant = estimate.dominant
    utterance.voice_id = estimate.voice_id
    utterance.voice_utterances = estimate.voice_utterances
    utterance.uncertainty = float(estimate.uncertainty)
    utterance.audio_weight = float(estimate.audio_weight)
    utterance.text_weight = float(estimate.text_weight)
    utterance.audio_weight_per_emotion = [float(w) for w in estimate.audio_weight_per_emotion]
    if estimate.quality is not None:
        _add_quality(utterance, estimate.quality)
    if estimate.transcript is not None:
        _add_words(utterance, estimate.transcript)
