# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Says in ROS4HRI's topics (REP-155) who speaks, what, and in what mood."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.publisher import Publisher
from std_msgs.msg import Bool

from hri_emo_msgs.msg import EmotionState, Speech
from hri_emo_ros import ros4hri
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.conversions import fill
from hri_emo_ros.nodes.hri_messages import hri_messages, language_field
from hri_emo_ros.nodes.lifecycle import HriNode, run
from hri_emo_ros.parameters import Value
from hri_emo_ros.types import AbstainReason

PERIOD = 1.0
"""Seconds between two lists of the voices: for whoever comes late and does not ask for latched messages."""
VOICES = "/humans/voices"


@dataclass
class _Voice:
    """A voice that is tracked, and the publishers of its topics."""

    is_speaking: Publisher[Bool]
    speech: Publisher[Any]
    features: Publisher[Any]
    expression: Publisher[Any]
    heard: float
    """When, steady clock, s."""


class Ros4HriBridge(HriNode):
    """`speech` and `emotion_state` in, /humans/voices/... out.

    An utterance is the anonymous speaker's until a state says whose it is.
    """

    def __init__(self) -> None:
        super().__init__("ros4hri_bridge")
        self._voices: dict[str, _Voice] = {}
        self._utterance: tuple[str, int] = ("", 0)
        """Being spoken."""
        self._speaker = ""
        """Its id; empty while nobody speaks."""
        self._inputs: list[Any] = []
        self._timer: Any = None

    def build(self, parameters: dict[str, Value]) -> None:
        self._messages = hri_messages("ros4hri_bridge")
        self._language = language_field(self._messages)
        self._timeout = float(parameters["tracked.timeout"])
        self._tracked = self.create_publisher(
            self._messages.IdsList, f"{VOICES}/tracked", qos.LATEST
        )

    def open(self) -> None:
        self._inputs = [
            self.create_subscription(Speech, "speech", self._on_speech, qos.SPEECH),
            self.create_subscription(EmotionState, "emotion_state", self._on_state, qos.EMOTION),
        ]
        self._timer = self.create_timer(
            PERIOD, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._tell_tracked()

    def close(self) -> None:
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        self._speaks("")
        for voice_id in list(self._voices):
            self._forget(voice_id)
        self._tell_tracked()

    def dismantle(self) -> None:
        if hasattr(self, "_tracked"):
            self.destroy_publisher(self._tracked)
            del self._tracked

    def changed(self, parameters: dict[str, Value]) -> None:
        self._timeout = float(parameters["tracked.timeout"])

    def values(self) -> Mapping[str, object]:
        return {"voices tracked": ", ".join(self._voices) or "none"}

    def _on_speech(self, message: Speech) -> None:
        utterance = (message.stream_id, message.utterance_id)
        if utterance != self._utterance:
            self._utterance = utterance
            self._speaks(ros4hri.ANONYMOUS)
        if self._speaker and len(message.samples) >= ros4hri.FRAME:
            samples = np.frombuffer(message.samples, np.float32)
            features = fill(self._messages.AudioFeatures, ros4hri.audio_features(samples))
            self._voice(self._speaker).features.publish(features)
        if message.last:
            self._speaks("")

    def _on_state(self, message: EmotionState) -> None:
        voice_id = ros4hri.voice_id(message.voice_id, message.stream_id)
        utterance = (message.stream_id, message.utterance_id)
        if self._speaker and utterance == self._utterance:
            self._speaks(voice_id)
        voice = self._voice(voice_id)
        final = message.stage == EmotionState.STAGE_FINAL
        if message.transcript:
            words = ros4hri.live_speech(
                message.transcript,
                message.transcript_confidence,
                message.language,
                final,
                self._language,
            )
            voice.speech.publish(
                fill(self._messages.LiveSpeech, {"header": message.header, **words})
            )
        if final and message.abstain_reason == AbstainReason.NONE:
            self._tell_expression(voice, message)
        if voice_id != ros4hri.ANONYMOUS and self._speaker != ros4hri.ANONYMOUS:
            self._forget(ros4hri.ANONYMOUS)

    def _tell_expression(self, voice: _Voice, message: EmotionState) -> None:
        if message.dominant not in ros4hri.EXPRESSIONS:
            self.diagnostics.count("emotions that hri_msgs/Expression does not have")
            return
        shown = ros4hri.expression(
            message.dominant,
            max(score.probability for score in message.scores),
            message.valence,
            message.arousal,
        )
        voice.expression.publish(
            fill(self._messages.Expression, {"header": message.header, **shown})
        )

    def _speaks(self, voice_id: str) -> None:
        """`voice_id` speaks now, and nobody else; empty is nobody."""
        if voice_id == self._speaker:
            return
        before, self._speaker = self._speaker, voice_id
        if before in self._voices:
            self._voices[before].is_speaking.publish(Bool(data=False))
        if voice_id:
            self._voice(voice_id).is_speaking.publish(Bool(data=True))

    def _voice(self, voice_id: str) -> _Voice:
        voice = self._voices.get(voice_id)
        if voice is None:
            place = f"{VOICES}/{voice_id}"
            kinds = self._messages
            # Latched: whoever learns of the voice from the list still gets what made it known.
            voice = self._voices[voice_id] = _Voice(
                self.create_publisher(Bool, f"{place}/is_speaking", qos.LATEST),
                self.create_publisher(kinds.LiveSpeech, f"{place}/speech", qos.EVENT),
                self.create_publisher(kinds.AudioFeatures, f"{place}/features", qos.LATEST),
                self.create_publisher(kinds.Expression, f"{place}/expression", qos.LATEST),
                0.0,
            )
            self._tell_tracked()
        voice.heard = time.monotonic()
        return voice

    def _forget(self, voice_id: str) -> None:
        voice = self._voices.pop(voice_id, None)
        if voice is None:
            return
        for publisher in (voice.is_speaking, voice.speech, voice.features, voice.expression):
            self.destroy_publisher(publisher)
        self._tell_tracked()

    def _look(self) -> None:
        now = time.monotonic()
        for voice_id, voice in list(self._voices.items()):
            if voice_id != self._speaker and now - voice.heard > self._timeout:
                self._forget(voice_id)
        self._tell_tracked()

    def _tell_tracked(self) -> None:
        message = self._messages.IdsList(ids=list(self._voices))
        message.header.stamp = self.get_clock().now().to_msg()
        self._tracked.publish(message)


def main() -> int:
    """Entry point of the executable."""
    return run([Ros4HriBridge])


if __name__ == "__main__":
    raise SystemExit(main())
