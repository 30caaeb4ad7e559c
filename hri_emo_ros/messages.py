# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What each message of hri_emo_msgs holds, as nested dicts of its fields: one mapping for everybody.

The nodes fill rclpy's classes from these, the output bag of `hri-emo replay` those of rosbags, so that a
recorded state is field for field the one that a node publishes. No ROS is imported here. Times are
integer nanoseconds, numbers Python's, arrays numpy's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hri_emo_ros.conversation import ConversationState, Tone
from hri_emo_ros.outcome import Outcome
from hri_emo_ros.types import (
    SAMPLE_RATE,
    EmotionEstimate,
    Explanation,
    SignalQuality,
    SpeechChunk,
    Transcript,
    TranscriptStatus,
    Word,
)

STAGE_PROVISIONAL = 0
STAGE_FINAL = 1

LATENCY_FIELDS = {
    "asr": "asr",
    "audio_encoder": "audio_encoder",
    "text_encoder": "text_encoder",
    "fusion": "fusion",
    "queue": "queueing",
    "wait": "waiting_for_words",
    "total": "total",
}
"""Stage name in `Outcome.latency` -> field of StageLatency.msg."""

Fields = dict[str, Any]
NAN = math.nan


def header(stamp_ns: int, frame_id: str) -> Fields:
    return {"stamp": time(stamp_ns), "frame_id": frame_id}


def time(stamp_ns: int) -> Fields:
    """Nanoseconds since the epoch; negative ones become 0."""
    seconds, nanoseconds = divmod(max(0, int(stamp_ns)), 1_000_000_000)
    return {"sec": seconds, "nanosec": nanoseconds}


def quality(found: SignalQuality | None) -> Fields:
    """SignalQuality.msg; one that says nothing where nothing is known."""
    if found is None:
        found = SignalQuality(NAN, NAN, 0.0, 0.0)
    return {
        "snr_db": float(found.snr_db),
        "level_dbfs": float(found.level_dbfs),
        "clipped_fraction": float(found.clipped_fraction),
        "speech_fraction": float(found.speech_fraction),
        "input_level_dbfs": float(found.input_level_dbfs),
        "fault": int(found.fault),
    }


def speech(chunk: SpeechChunk, stream_id: str, frame_id: str) -> Fields:
    """Speech.msg."""
    return {
        "header": header(chunk.stamp_ns, frame_id),
        "stream_id": stream_id,
        "utterance_id": chunk.utterance_id,
        "sequence": chunk.sequence,
        "utterance_start": time(chunk.utterance_start_ns),
        "first_sample": chunk.first_sample,
        "stream_start_sample": chunk.stream_start_sample,
        "sample_rate": SAMPLE_RATE,
        "samples": np.ascontiguousarray(chunk.samples, np.float32),
        "quality": quality(chunk.quality),
        "last": chunk.last,
        "endpoint": chunk.endpoint,
        "speech_end": time(chunk.speech_end_ns),
        "truncated": chunk.truncated,
        "robot_speaking": chunk.robot_speaking,
        "dropped_samples": chunk.dropped_samples,
        "beginning_lost": chunk.beginning_lost,
    }


def transcript(
    found: Transcript,
    utterance_id: int,
    stamp_ns: int,
    stream_id: str,
    frame_id: str,
    *,
    final: bool,
    recogniser: str,
    duration: float,
    queueing: float = 0.0,
) -> Fields:
    """Transcript.msg.

    Args:
        found: what the recogniser made of the utterance, or why it made nothing.
        stamp_ns: sensor time of the utterance's first sample, ns.
        duration: seconds of audio recognised.
        queueing: seconds the utterance waited for the recogniser.
    """
    shown = bool(found.text)
    return {
        "header": header(stamp_ns, frame_id),
        "stream_id": stream_id,
        "utterance_id": utterance_id,
        "stage": STAGE_FINAL if final else STAGE_PROVISIONAL,
        "duration": float(duration),
        "text": found.text,
        "words": words(found.words),
        "word_times_estimated": found.word_times_estimated,
        "confidence": float(found.confidence) if shown else NAN,
        "language": found.language,
        "language_confidence": NAN,
        "status": int(found.status),
        "status_text": found.status_text
        or ("no words recognised" if found.status is TranscriptStatus.EMPTY else ""),
        "recogniser": recogniser,
        "latency": float(found.latency),
        "queueing": float(queueing),
    }


def without_words(fields: Fields) -> Fields:
    """Transcript.msg, EmotionState.msg or EmotionExplanation.msg with no word of what was said (parameters
    `publish_transcript`); the words' number and times stay."""
    kept = dict(fields)
    for name in ("text", "transcript", "rejected_transcript"):
        if name in kept:
            kept[name] = ""
    if "words" in kept:
        kept["words"] = [{**word, "text": ""} for word in kept["words"]]
    return kept


def words(found: Sequence[Word]) -> list[Fields]:
    """Word.msg of each."""
    return [
        {
            "text": word.text,
            "start": float(word.start),
            "end": float(word.end),
            "confidence": float(word.confidence),
        }
        for word in found
    ]


def state(outcome: Outcome, stream_id: str, frame_id: str) -> Fields:
    """EmotionState.msg."""
    estimate = outcome.estimate
    computed = estimate.computed
    said = estimate.transcript or Transcript("", status=TranscriptStatus.NONE)
    return {
        "header": header(outcome.stamp_ns, frame_id),
        "duration": float(estimate.duration),
        "stream_id": stream_id,
        "utterance_id": outcome.utterance_id,
        "voice_id": estimate.voice_id,
        "voice_utterances": int(estimate.voice_utterances),
        "stage": _stage(outcome),
        "scores": scores(estimate) if computed else [],
        "dominant": estimate.dominant if computed and not estimate.abstained else "",
        "uncertainty": float(estimate.uncertainty) if computed else 1.0,
        "valence": float(estimate.valence) if computed else NAN,
        "arousal": float(estimate.arousal) if computed else NAN,
        "abstained": estimate.abstained,
        "abstain_reason": int(estimate.abstain_reason),
        "abstain_text": estimate.abstain_text,
        "audio_weight": float(estimate.audio_weight) if computed else 0.5,
        "text_weight": float(estimate.text_weight) if computed else 0.5,
        "beginning_lost": estimate.beginning_lost,
        "quality": quality(estimate.quality),
        "transcript_status": int(said.status),
        "transcript": said.text if said.usable else "",
        "rejected_transcript": said.text if said.status is TranscriptStatus.REJECTED else "",
        "transcript_confidence": float(said.confidence) if said.text else 0.0,
        "language": said.language if said.text else "",
        "model_id": estimate.model_id,
        "latency": latency(outcome.latency),
    }


def scores(estimate: EmotionEstimate) -> list[Fields]:
    """EmotionScore.msg of each label."""
    return [
        {
            "label": label,
            "probability": float(estimate.probabilities[k]),
            "above_threshold": bool(estimate.above_threshold[k]) and not estimate.abstained,
            "audio_weight": float(estimate.audio_weight_per_emotion[k]),
            "text_weight": float(estimate.text_weight_per_emotion[k]),
        }
        for k, label in enumerate(estimate.labels)
    ]


def latency(seconds: dict[str, float]) -> Fields:
    """StageLatency.msg."""
    return {
        field: max(0.0, float(seconds.get(stage, 0.0))) for stage, field in LATENCY_FIELDS.items()
    }


def explanation(outcome: Outcome, found: Explanation, stream_id: str, frame_id: str) -> Fields:
    """EmotionExplanation.msg."""
    return {
        "header": header(outcome.stamp_ns, frame_id),
        "stream_id": stream_id,
        "utterance_id": outcome.utterance_id,
        "stage": _stage(outcome),
        "model_id": outcome.estimate.model_id,
        "labels": list(outcome.estimate.labels),
        "words": words(found.words),
        "moment_count": int(found.moment_attribution.shape[-1]),
        "moment_period": float(found.moment_period),
        "word_attribution": _row_major(found.word_attribution),
        "moment_attribution": _row_major(found.moment_attribution),
        "alignment": _row_major(found.alignment),
    }


def conversation(found: ConversationState, stream_id: str, frame_id: str) -> Fields:
    """ConversationEmotion.msg."""
    return {
        "header": header(found.stamp_ns, frame_id),
        "stream_id": stream_id,
        "window": float(found.window),
        "overall": _tone(found.overall, found.labels),
        "voices": [_tone(tone, found.labels) for tone in found.voices],
        "model_id": found.model_id,
    }


def _tone(tone: Tone, labels: Sequence[str]) -> Fields:
    """ConversationTone.msg."""
    scored = zip(labels, tone.probabilities, tone.above_threshold, tone.audio_weights, strict=False)
    return {
        "voice_id": tone.voice_id,
        "utterances": tone.utterances,
        "speech_seconds": tone.speech_seconds,
        "scores": [
            {
                "label": label,
                "probability": probability,
                "above_threshold": above,
                "audio_weight": audio,
                "text_weight": 1.0 - audio,
            }
            for label, probability, above, audio in scored
        ],
        "dominant": tone.dominant,
        "uncertainty": tone.uncertainty,
        "valence": tone.valence,
        "arousal": tone.arousal,
        "valence_trend": tone.valence_trend,
        "arousal_trend": tone.arousal_trend,
        "abstained": bool(tone.abstain_text),
        "abstain_text": tone.abstain_text,
        "changed": bool(tone.changed_from),
        "changed_from": tone.changed_from,
        "change_time": time(tone.change_ns),
    }


def _row_major(values: Any) -> Any:
    return np.ascontiguousarray(values, np.float32).reshape(-1)


def _stage(outcome: Outcome) -> int:
    return STAGE_FINAL if outcome.stage == "final" else STAGE_PROVISIONAL
