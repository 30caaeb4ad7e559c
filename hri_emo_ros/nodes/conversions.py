# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Between ROS messages and the project's dataclasses; what a message holds is `hri_emo_ros.messages`'.

Arrays go into messages as ``array.array`` (rclpy copies those at memory speed; numpy arrays item
by item) and come out through ``np.frombuffer`` without a copy.
"""

from __future__ import annotations

import array
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time

from hri_emo_msgs.msg import (
    ConversationEmotion,
    ConversationTone,
    EmotionExplanation,
    EmotionScore,
    EmotionState,
    Speech,
)
from hri_emo_msgs.msg import SignalQuality as SignalQualityMsg
from hri_emo_msgs.msg import Transcript as TranscriptMsg
from hri_emo_msgs.msg import Word as WordMsg
from hri_emo_ros import messages
from hri_emo_ros.types import (
    Explanation,
    Fault,
    SignalQuality,
    SpeechChunk,
    Transcript,
    TranscriptStatus,
    Word,
)

if TYPE_CHECKING:
    from hri_emo_ros.conversation import ConversationState
    from hri_emo_ros.outcome import Outcome

M = TypeVar("M")


def to_time(stamp_ns: int) -> Time:
    """Nanoseconds since the epoch -> Time; negative ones become 0."""
    return Time(**messages.time(stamp_ns))


def to_ns(stamp: Time) -> int:
    """Time -> nanoseconds since the epoch."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def fill(kind: type[M], fields: Mapping[str, Any]) -> M:
    """A message of the class `kind` from nested dicts of its fields."""
    message = kind()
    types = kind.get_fields_and_field_types()
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            value = floats(value)
        elif isinstance(value, Mapping):
            value = fill(type(getattr(message, name)), value)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            element = types[name].removeprefix("sequence<").rstrip(">").rpartition("/")[2]
            value = [fill(_ELEMENTS[element], item) for item in value]
        elif isinstance(value, (int, float, np.generic)):
            # An int for a float, or one of numpy's numbers, would abort the process when it is published.
            value = type(getattr(message, name))(value)
        setattr(message, name, value)
    return message


_ELEMENTS: dict[str, type] = {
    "ConversationTone": ConversationTone,
    "EmotionScore": EmotionScore,
    "Word": WordMsg,
}


def floats(values: npt.ArrayLike) -> array.array[float]:
    """Any shape of numbers -> float32[] field, row-major."""
    return array.array("f", np.ascontiguousarray(values, dtype=np.float32).tobytes())


def quality_of(message: SignalQualityMsg) -> SignalQuality:
    return SignalQuality(
        snr_db=message.snr_db,
        level_dbfs=message.level_dbfs,
        clipped_fraction=message.clipped_fraction,
        speech_fraction=message.speech_fraction,
        input_level_dbfs=message.input_level_dbfs,
        fault=Fault(message.fault) if message.fault in iter(Fault) else Fault.NONE,
    )


def chunk_message(chunk: SpeechChunk, stream_id: str, frame_id: str) -> Speech:
    """SpeechChunk -> Speech."""
    return fill(Speech, messages.speech(chunk, stream_id, frame_id))


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
        endpoint=message.endpoint,
        speech_end_ns=to_ns(message.speech_end),
        stream_start_sample=message.stream_start_sample,
        robot_speaking=message.robot_speaking,
        dropped_samples=message.dropped_samples,
        beginning_lost=message.beginning_lost,
    )


def transcript_message(
    transcript: Transcript,
    chunk: SpeechChunk,
    stream_id: str,
    frame_id: str,
    *,
    recogniser: str,
    duration: float,
    queueing: float,
    final: bool = True,
    words: bool = True,
) -> TranscriptMsg:
    """What a recogniser made of one utterance -> Transcript; see `messages.transcript`.

    Args:
        chunk: one of the utterance's.
        words: with the words that were said.
    """
    fields = messages.transcript(
        transcript,
        chunk.utterance_id,
        chunk.utterance_start_ns,
        stream_id,
        frame_id,
        final=final,
        recogniser=recogniser,
        duration=duration,
        queueing=queueing,
    )
    return fill(TranscriptMsg, fields if words else messages.without_words(fields))


def transcript_of(message: TranscriptMsg) -> Transcript:
    """Transcript message -> Transcript; unknown confidences count as full."""
    known = message.status in iter(TranscriptStatus)
    return Transcript(
        text=message.text.strip(),
        words=tuple(Word(w.text, w.start, w.end, _known(w.confidence, 1.0)) for w in message.words),
        confidence=_known(message.confidence, 1.0),
        language=message.language,
        latency=_known(message.latency, 0.0),
        word_times_estimated=message.word_times_estimated,
        # A status of a later version: the words may be anything, so they are not used.
        status=TranscriptStatus(message.status) if known else TranscriptStatus.REJECTED,
        status_text=message.status_text,
    )


def transcript_of_live_speech(message: Any, language_field: str) -> Transcript:
    """hri_msgs/LiveSpeech -> Transcript; a confidence of 0, which none sets, counts as full.

    The stamp is not used: it is not said whether it is that of the words or of the message.
    """
    confidence = float(message.confidence)
    return Transcript(
        (message.final or message.incremental).strip(),
        confidence=min(confidence, 1.0) if message.final and confidence > 0.0 else 1.0,
        # "en_GB" or "en-GB" -> "en".
        language=getattr(message, language_field).replace("-", "_").partition("_")[0].lower(),
    )


def state_message(
    outcome: Outcome, stream_id: str, frame_id: str, words: bool = True
) -> EmotionState:
    """Outcome of one utterance (so far) -> EmotionState, with the words that were said or without."""
    fields = messages.state(outcome, stream_id, frame_id)
    return fill(EmotionState, fields if words else messages.without_words(fields))


def explanation_message(
    outcome: Outcome, explanation: Explanation, stream_id: str, frame_id: str, words: bool = True
) -> EmotionExplanation:
    """Explanation of an outcome -> EmotionExplanation, with the words that were said or without."""
    fields = messages.explanation(outcome, explanation, stream_id, frame_id)
    return fill(EmotionExplanation, fields if words else messages.without_words(fields))


def conversation_message(
    found: ConversationState, stream_id: str, frame_id: str
) -> ConversationEmotion:
    """The tone of a conversation -> ConversationEmotion."""
    return fill(ConversationEmotion, messages.conversation(found, stream_id, frame_id))


def _known(value: float, otherwise: float) -> float:
    return otherwise if math.isnan(value) else float(value)
