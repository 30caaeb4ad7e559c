# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The output bag of a replay: what the nodes publish, as they publish it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.rosbag2 import Writer

from hri_emo_ros import messages
from hri_emo_ros.conversation import Conversation
from hri_emo_ros.evaluation.bag_writer import RELIABLE
from hri_emo_ros.evaluation.rosbag_types import (
    CONVERSATION,
    EMOTION_STATE,
    EXPLANATION,
    SPEECH,
    TRANSCRIPT,
    emotion_typestore,
)
from hri_emo_ros.parameters import Value
from hri_emo_ros.pipeline import Record, TranscriptRecord
from hri_emo_ros.types import SAMPLE_RATE, SpeechChunk

TOPICS = {
    "/speech": SPEECH,
    "/transcript": TRANSCRIPT,
    "/emotion_state": EMOTION_STATE,
    "/emotion_final": EMOTION_STATE,
    "/conversation_emotion": CONVERSATION,
    "/emotion_explanation": EXPLANATION,
}
"""What the nodes publish of the person: topic -> type."""
FRAME_ID = "microphone"


class EmotionBagWriter:
    """Writes the pipeline's records into an open bag.

    Args:
        writer: of a new bag.
        stream_id: of all messages.
        recogniser: name of the recogniser.
        conversation: what listens to the final states.
        parameters: of each node; whether they publish words.
    """

    def __init__(
        self,
        writer: Writer,
        stream_id: str,
        recogniser: str,
        conversation: Conversation,
        parameters: Mapping[str, Mapping[str, Value]],
    ) -> None:
        self._writer = writer
        self._stream, self._recogniser = stream_id, recogniser
        self._conversation = conversation
        kinds = {"asr_node": (TRANSCRIPT,), "emotion_node": (EMOTION_STATE, EXPLANATION)}
        self._wordless = {
            kind
            for node, found in kinds.items()
            for kind in found
            if not parameters[node]["publish_transcript"]
        }
        self._store = emotion_typestore()
        self._connections = {
            topic: writer.add_connection(
                topic, kind, typestore=self._store, offered_qos_profiles=[RELIABLE]
            )
            for topic, kind in TOPICS.items()
        }
        self._now_ns = 0

    def write(self, record: Record) -> None:
        """Write one record at the sensor time up to which had been heard."""
        if isinstance(record, SpeechChunk):
            length_ns = len(record.samples) * 1_000_000_000 // SAMPLE_RATE
            self._now_ns = max(self._now_ns, record.stamp_ns + length_ns)
            self._put("/speech", messages.speech(record, self._stream, FRAME_ID))
        elif isinstance(record, TranscriptRecord):
            fields = messages.transcript(
                record.transcript,
                record.utterance_id,
                record.stamp_ns,
                self._stream,
                FRAME_ID,
                final=record.final,
                recogniser=self._recogniser,
                duration=record.duration,
            )
            self._put("/transcript", fields)
        else:
            state = messages.state(record, self._stream, FRAME_ID)
            self._put("/emotion_state", state)
            if record.stage == "final":
                self._put("/emotion_final", state)
                tone = self._conversation.hear(record)
                fields = messages.conversation(tone, self._stream, FRAME_ID)
                self._put("/conversation_emotion", fields)
            found = record.estimate.explanation
            if found is not None:
                fields = messages.explanation(record, found, self._stream, FRAME_ID)
                self._put("/emotion_explanation", fields)

    def _put(self, topic: str, fields: messages.Fields) -> None:
        kind = TOPICS[topic]
        if kind in self._wordless:
            fields = messages.without_words(fields)
        data = self._store.serialize_cdr(self._fill(kind, fields), kind)
        self._writer.write(self._connections[topic], self._now_ns, data)

    def _fill(self, kind: str, fields: Mapping[str, Any]) -> Any:
        """The message `kind` from nested dicts of its fields."""
        _, declared = self._store.fielddefs[kind]
        filled: dict[str, Any] = {}
        for name, (node, detail) in declared:
            value = fields[name]
            if isinstance(value, Mapping):
                value = self._fill(str(detail), value)
            elif node is Nodetype.SEQUENCE and not isinstance(value, np.ndarray):
                element = detail[0][1] if isinstance(detail[0], tuple) else ""
                value = [
                    self._fill(str(element), item) if isinstance(item, Mapping) else item
                    for item in value
                ]
            filled[name] = value
        return self._store.types[kind](**filled)
