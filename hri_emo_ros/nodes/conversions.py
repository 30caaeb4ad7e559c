"""Between ROS messages and the project's dataclasses.

Arrays go into messages as ``array.array`` (rclpy copies those at memory speed; numpy arrays item
by item) and come out through ``np.frombuffer`` without a copy.
"""

from __future__ import annotations

import array
import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time

from hri_emo_msgs.msg import EmotionExplanation, EmotionState, Speech, StageLatency
from hri_emo_msgs.msg import SignalQuality as SignalQualityMsg
from hri_emo_msgs.msg import Transcript as TranscriptMsg
from hri_emo_msgs.msg import Word as WordMsg
from hri_emo_ros.types import (
    SAMPLE_RATE,
    Explanation,
    SignalQuality,
    SpeechChunk,
    Transcript,
    Word,
)

if TYPE_CHECKING:
    # Not at run time: the speech node never loads what the pipeline stands on.
    from hri_emo_ros.pipeline import Outcome

NAN = float("nan")


def to_time(stamp_ns: int) -> Time:
    """Nanoseconds since the epoch -> Time; negative ones become 0."""
    seconds, nanoseconds = divmod(max(0, int(stamp_ns)), 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def to_ns(stamp: Time) -> int:
    """Time -> nanoseconds since the epoch."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def floats(values: npt.ArrayLike) -> array.array[float]:
    """Any shape of numbers -> float32[] field, row-major."""
    return array.array("f", np.ascontiguousarray(values, dtype=np.float32).tobytes())


def quality_message(quality: SignalQuality) -> SignalQualityMsg:
    return SignalQualityMsg(
        snr_db=float(quality.snr_db),
        level_dbfs=float(quality.level_dbfs),
        clipped_fraction=float(quality.clipped_fraction),
        speech_fraction=float(quality.speech_fraction),
    )


def quality_of(message: SignalQualityMsg) -> SignalQuality:
    return SignalQuality(
        snr_db=message.snr_db,
        level_dbfs=message.level_dbfs,
        clipped_fraction=message.clipped_fraction,
        speech_fraction=message.speech_fraction,
    )


def chunk_message(chunk: SpeechChunk, stream_id: str, frame_id: str) -> Speech:
    """SpeechChunk -> Speech."""
    message = Speech(
        stream_id=stream_id,
        utterance_id=chunk.utterance_id,
        sequence=chunk.sequence,
        utterance_start=to_time(chunk.utterance_start_ns),
        first_sample=chunk.first_sample,
        stream_start_sample=chunk.stream_start_sample,
        sample_rate=SAMPLE_RATE,
        samples=floats(chunk.samples),
        quality=quality_message(chunk.quality),
        last=chunk.last,
        speech_end=to_time(chunk.speech_end_ns),
        truncated=chunk.truncated,
        robot_speaking=chunk.robot_speaking,
        dropped_samples=chunk.dropped_samples,
    )
    message.header.stamp = to_time(chunk.stamp_ns)
    message.header.frame_id = frame_id
    return message


def chunk_of(message: Speech) -> SpeechChunk:
    """Speech -> SpeechChunk; the samples are a view of the message's."""
    return SpeechChunk(
        utterance_id=message.utterance_id,
        sequence=message.sequence,
        stamp_ns=to_ns(message.header.stamp),
        utterance_start_ns=to_ns(message.utterance_start),
        first_sample=message.first_sample,
        samples=np.frombuffer(message.samples, dtype=np.float32),
        quality=quality_of(message.quality),
        last=message.last,
        truncated=message.truncated,
        speech_end_ns=to_ns(message.speech_end),
        stream_start_sample=message.stream_start_sample,
        robot_speaking=message.robot_speaking,
        dropped_samples=message.dropped_samples,
    )


def transcript_message(
    transcript: Transcript | None,
    chunk: SpeechChunk,
    stream_id: str,
    frame_id: str,
    *,
    recogniser: str,
    duration: float,
    queueing: float,
    failure: str = "",
) -> TranscriptMsg:
    """What a recogniser made of one utterance -> Transcript.

    Args:
        transcript: None if the recogniser could not work on it; `failure` says why.
        chunk: the utterance's last chunk.
        duration: seconds of audio recognised.
        queueing: seconds the utterance waited for the recogniser.
    """
    message = TranscriptMsg(
        stream_id=stream_id,
        utterance_id=chunk.utterance_id,
        stage=TranscriptMsg.STAGE_FINAL,
        duration=float(duration),
        recogniser=recogniser,
        queueing=float(queueing),
        confidence=NAN,
        language_confidence=NAN,
    )
    message.header.stamp = to_time(chunk.utterance_start_ns)
    message.header.frame_id = frame_id
    if transcript is None:
        message.status, message.status_text = TranscriptMsg.STATUS_FAILED, failure
    elif not transcript.text:
        message.status = TranscriptMsg.STATUS_EMPTY
        message.status_text = "no words recognised"
        message.language, message.latency = transcript.language, float(transcript.latency)
    else:
        message.status, message.text = TranscriptMsg.STATUS_OK, transcript.text
        message.words = [word_message(word) for word in transcript.words]
        message.confidence = float(transcript.confidence)
        message.language, message.latency = transcript.language, float(transcript.latency)
    return message


def transcript_of(message: TranscriptMsg) -> Transcript:
    """Transcript message -> Transcript; unknown confidences count as full."""
    return Transcript(
        text=message.text.strip() if message.status == TranscriptMsg.STATUS_OK else "",
        words=tuple(Word(w.text, w.start, w.end, _known(w.confidence, 1.0)) for w in message.words),
        confidence=_known(message.confidence, 1.0),
        language=message.language,
        latency=_known(message.latency, 0.0),
    )


def word_message(word: Word) -> WordMsg:
    return WordMsg(
        text=word.text,
        start=float(word.start),
        end=float(word.end),
        confidence=float(word.confidence),
    )


def state_message(outcome: Outcome, stream_id: str, frame_id: str) -> EmotionState:
    """Outcome of one utterance (so far) -> EmotionState."""
    estimate = outcome.estimate
    # The uniform guess of an abstained estimate was not computed by a model.
    computed = estimate.probabilities.size > 0 and not (
        estimate.abstained and estimate.uncertainty >= 1.0
    )
    transcript = estimate.transcript if estimate.transcript and estimate.transcript.text else None
    abstained = estimate.abstained
    message = EmotionState(
        duration=float(estimate.duration),
        stream_id=stream_id,
        utterance_id=outcome.utterance_id,
        stage=_stage(outcome),
        labels=list(estimate.labels),
        probabilities=floats(estimate.probabilities if computed else ()),
        above_threshold=[bool(a) and not abstained for a in estimate.above_threshold],
        dominant=estimate.dominant if computed and not abstained else "",
        uncertainty=float(estimate.uncertainty) if computed else 1.0,
        abstained=abstained,
        abstain_reason=int(estimate.abstain_reason),
        abstain_text=estimate.abstain_text,
        audio_weight=float(estimate.audio_weight) if computed else 0.5,
        text_weight=float(estimate.text_weight) if computed else 0.5,
        audio_weight_per_emotion=floats(estimate.audio_weight_per_emotion if computed else ()),
        text_weight_per_emotion=floats(estimate.text_weight_per_emotion if computed else ()),
        snr_db=float(estimate.quality.snr_db) if estimate.quality else NAN,
        transcript=transcript.text if transcript else "",
        transcript_confidence=float(transcript.confidence) if transcript else 0.0,
        language=transcript.language if transcript else "",
        model_id=estimate.model_id,
        latency=latency_message(outcome.latency),
    )
    message.header.stamp = to_time(outcome.stamp_ns)
    message.header.frame_id = frame_id
    return message


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


def latency_message(latency: dict[str, float]) -> StageLatency:
    return StageLatency(
        **{field: max(0.0, float(latency.get(s, 0.0))) for s, field in LATENCY_FIELDS.items()}
    )


def explanation_message(
    outcome: Outcome, explanation: Explanation, stream_id: str, frame_id: str
) -> EmotionExplanation:
    """Explanation of an outcome -> EmotionExplanation."""
    message = EmotionExplanation(
        stream_id=stream_id,
        utterance_id=outcome.utterance_id,
        stage=_stage(outcome),
        model_id=outcome.estimate.model_id,
        labels=list(outcome.estimate.labels),
        words=[word_message(word) for word in explanation.words],
        moment_count=int(explanation.moment_attribution.shape[-1]),
        moment_period=float(explanation.moment_period),
        word_attribution=floats(explanation.word_attribution),
        moment_attribution=floats(explanation.moment_attribution),
        alignment=floats(explanation.alignment),
    )
    message.header.stamp = to_time(outcome.stamp_ns)
    message.header.frame_id = frame_id
    return message


def _stage(outcome: Outcome) -> int:
    final = outcome.stage == "final"
    return EmotionState.STAGE_FINAL if final else EmotionState.STAGE_PROVISIONAL


def _known(value: float, otherwise: float) -> float:
    return otherwise if math.isnan(value) else float(value)
