"""The output bag of a replay: /speech, /transcript and /emotion_state as the nodes publish them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rosbags.rosbag2 import Writer

from hri_emo_ros.evaluation.bag_writer import RELIABLE
from hri_emo_ros.evaluation.rosbag_types import (
    EMOTION_STATE,
    SPEECH,
    TRANSCRIPT,
    emotion_typestore,
)
from hri_emo_ros.pipeline import Outcome, Record, TranscriptRecord
from hri_emo_ros.types import SAMPLE_RATE, SignalQuality, SpeechChunk, Transcript, Word

TOPICS = {"/speech": SPEECH, "/transcript": TRANSCRIPT, "/emotion_state": EMOTION_STATE}
FRAME_ID = "microphone"


class EmotionBagWriter:
    """Writes the pipeline's records into an open bag.

    Args:
        writer: of a new bag.
        stream_id: of all messages.
        recogniser: name of the recogniser.
    """

    def __init__(self, writer: Writer, stream_id: str, recogniser: str) -> None:
        self._writer = writer
        self._stream, self._recogniser = stream_id, recogniser
        self._store = emotion_typestore()
        self._types: Any = self._store.types
        self._connections = {
            kind: writer.add_connection(
                topic, kind, typestore=self._store, offered_qos_profiles=[RELIABLE]
            )
            for topic, kind in TOPICS.items()
        }
        self._now_ns = 0
        self._duration = 0.0

    def write(self, record: Record) -> None:
        """Write one record at the sensor time up to which had been heard."""
        if isinstance(record, SpeechChunk):
            length_ns = len(record.samples) * 1_000_000_000 // SAMPLE_RATE
            self._now_ns = max(self._now_ns, record.stamp_ns + length_ns)
            self._duration = (record.first_sample + len(record.samples)) / SAMPLE_RATE
            self._put(SPEECH, self._speech(record))
        elif isinstance(record, TranscriptRecord):
            self._put(TRANSCRIPT, self._transcript(record))
        else:
            self._put(EMOTION_STATE, self._state(record))

    def _put(self, kind: str, message: Any) -> None:
        data = self._store.serialize_cdr(message, kind)
        self._writer.write(self._connections[kind], self._now_ns, data)

    def _make(self, name: str, **fields: Any) -> Any:
        return self._types[name if "/" in name else f"hri_emo_msgs/msg/{name}"](**fields)

    def _time(self, stamp_ns: int) -> Any:
        seconds, nanoseconds = divmod(max(0, stamp_ns), 1_000_000_000)
        return self._make("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)

    def _header(self, stamp_ns: int) -> Any:
        return self._make("std_msgs/msg/Header", stamp=self._time(stamp_ns), frame_id=FRAME_ID)

    def _quality(self, quality: SignalQuality) -> Any:
        return self._make(
            "SignalQuality",
            snr_db=float(quality.snr_db),
            level_dbfs=float(quality.level_dbfs),
            clipped_fraction=float(quality.clipped_fraction),
            speech_fraction=float(quality.speech_fraction),
        )

    def _speech(self, chunk: SpeechChunk) -> Any:
        return self._make(
            "Speech",
            header=self._header(chunk.stamp_ns),
            stream_id=self._stream,
            utterance_id=chunk.utterance_id,
            sequence=chunk.sequence,
            utterance_start=self._time(chunk.utterance_start_ns),
            first_sample=chunk.first_sample,
            stream_start_sample=chunk.stream_start_sample,
            sample_rate=SAMPLE_RATE,
            samples=np.ascontiguousarray(chunk.samples, np.float32),
            quality=self._quality(chunk.quality),
            last=chunk.last,
            speech_end=self._time(chunk.speech_end_ns),
            truncated=chunk.truncated,
            robot_speaking=chunk.robot_speaking,
            dropped_samples=chunk.dropped_samples,
        )

    def _transcript(self, record: TranscriptRecord) -> Any:
        transcript = record.transcript
        heard = bool(transcript.text)
        kind = self._types[TRANSCRIPT]
        return self._make(
            "Transcript",
            header=self._header(record.stamp_ns),
            stream_id=self._stream,
            utterance_id=record.utterance_id,
            stage=kind.STAGE_FINAL,
            duration=self._duration,
            text=transcript.text,
            words=self._words(transcript.words),
            confidence=float(transcript.confidence) if heard else math.nan,
            language=transcript.language,
            language_confidence=math.nan,
            status=kind.STATUS_OK if heard else kind.STATUS_EMPTY,
            status_text="" if heard else "no words recognised",
            recogniser=self._recogniser,
            latency=float(transcript.latency),
            queueing=0.0,
        )

    def _words(self, words: Sequence[Word]) -> list[Any]:
        return [
            self._make(
                "Word",
                text=word.text,
                start=float(word.start),
                end=float(word.end),
                confidence=float(word.confidence),
            )
            for word in words
        ]

    def _state(self, outcome: Outcome) -> Any:
        estimate = outcome.estimate
        transcript = estimate.transcript or Transcript("", confidence=0.0)
        abstained = estimate.abstained
        kind = self._types[EMOTION_STATE]
        final = outcome.stage == "final"
        return self._make(
            "EmotionState",
            header=self._header(outcome.stamp_ns),
            duration=float(estimate.duration),
            stream_id=self._stream,
            utterance_id=outcome.utterance_id,
            voice_id="",
            stage=kind.STAGE_FINAL if final else kind.STAGE_PROVISIONAL,
            labels=list(estimate.labels),
            probabilities=_floats(estimate.probabilities),
            above_threshold=estimate.above_threshold & (not abstained),
            dominant="" if abstained else estimate.dominant,
            uncertainty=float(estimate.uncertainty),
            abstained=abstained,
            abstain_reason=int(estimate.abstain_reason),
            abstain_text=estimate.abstain_text,
            audio_weight=float(estimate.audio_weight),
            text_weight=float(estimate.text_weight),
            audio_weight_per_emotion=_floats(estimate.audio_weight_per_emotion),
            text_weight_per_emotion=_floats(estimate.text_weight_per_emotion),
            snr_db=float(estimate.quality.snr_db) if estimate.quality else math.nan,
            transcript=transcript.text,
            transcript_confidence=float(transcript.confidence) if transcript.text else 0.0,
            language=transcript.language,
            model_id=estimate.model_id,
            latency=self._latency(outcome.latency),
        )

    def _latency(self, seconds: dict[str, float]) -> Any:
        return self._make(
            "StageLatency",
            asr=seconds["asr"],
            audio_encoder=seconds["audio_encoder"],
            text_encoder=seconds["text_encoder"],
            fusion=seconds["fusion"],
            queueing=seconds["queue"],
            waiting_for_words=seconds["wait"],
            total=seconds["total"],
        )


def _floats(values: Any) -> Any:
    return np.ascontiguousarray(values, dtype=np.float32)
