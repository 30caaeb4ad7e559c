# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Joins speech and words and publishes the emotion of every utterance."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from std_msgs.msg import String

from hri_emo_msgs.msg import ConversationEmotion, EmotionExplanation, EmotionState, Speech
from hri_emo_msgs.msg import Transcript as TranscriptMsg
from hri_emo_msgs.srv import ForgetVoices
from hri_emo_ros.conversation import Conversation
from hri_emo_ros.engine import EmotionEngine, make_engine
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.nodes import conversions, in_process, qos
from hri_emo_ros.nodes.adaptive import AdaptiveSubscription
from hri_emo_ros.nodes.diagnostics import Level
from hri_emo_ros.nodes.hri_messages import hri_messages, language_field
from hri_emo_ros.nodes.lifecycle import STUCK, HriNode, run
from hri_emo_ros.nodes.listen_once import ListenOnceServer
from hri_emo_ros.parameters import Value
from hri_emo_ros.pipeline import Outcome, UtteranceJoiner
from hri_emo_ros.types import AbstainReason, Transcript
from hri_emo_ros.view.shown import from_message
from hri_emo_ros.watched import WatchedEngine
from hri_emo_ros.worker import Worker

TICK = 0.02
"""Seconds between looks for utterances whose wait for words is over."""
FORGET_WAIT = 10.0
"""Seconds that a request to forget waits for the utterance in work."""
CLOCK_TOLERANCE = 2.0
"""Seconds by which chunks may be behind this node's clock, or ahead of it, that are stamped by it: what may be
a pause is held back."""
QUEUE = 4000
"""Messages that may wait while the model works: a quarter of an hour of speech."""


class EmotionNode(HriNode):
    """`speech` and `transcript` in; states, their explanations and the conversation's tone out; `listen_once`.

    All waiting is on the computer's steady clock, whatever /clock says: a recogniser takes the same
    time however fast a recording is played.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("emotion_node", **options)
        self._joiner: UtteranceJoiner | None = None
        self._conversation: Conversation | None = None
        self._engine: WatchedEngine | None = None
        self._worker: Worker[Callable[[], None]] | None = None
        self._inputs: list[AdaptiveSubscription] = []
        self._words: AdaptiveSubscription | None = None
        self._forget: Any = None
        self._stream = ""
        self._frame = ""
        self._clocks_apart = True
        """The audio's stamps are not of this node's clock."""
        self._listeners = ListenOnceServer(self)
        self._handed_over = False
        """The words come from asr_node in this process; what it publishes has none."""
        self._announced: TranscriptMsg | None = None
        """Of an utterance of a stream whose speech has not come yet."""

    def build(self, parameters: dict[str, Value]) -> None:
        source = str(parameters["transcript.source"])
        self._words_type = self._type_of_words(source)
        self._engine = WatchedEngine(parameters, self._load, self.out_of_order)
        self._joiner = UtteranceJoiner(
            self._engine, parameters, self._publish, encoder=self._engine
        )
        self.stuck_after = 2.0 * float(parameters["model.timeout"]) + STUCK
        self._conversation = Conversation(self._engine, parameters)
        self._publishes_words = bool(parameters["publish_transcript"])
        self._states = self.create_lifecycle_publisher(EmotionState, "emotion_state", qos.EMOTION)
        self._finals = self.create_lifecycle_publisher(EmotionState, "emotion_final", qos.LATEST)
        self._tones = self.create_lifecycle_publisher(
            ConversationEmotion, "conversation_emotion", qos.LATEST
        )
        self._explanations = self.create_lifecycle_publisher(
            EmotionExplanation, "emotion_explanation", qos.EMOTION
        )
        self._forget = self.create_service(ForgetVoices, "~/forget_voices", self._on_forget)
        self._worker = Worker(
            "emotion",
            lambda job: job(),
            lambda error: self.failed("estimate", error),
            capacity=QUEUE,
            dropped=lambda job: self.diagnostics.failure(
                "dropped messages",
                "emotion_node is too slow for what it hears: messages are dropped",
                Level.WARN,
            ),
            idle=self._tick,
            period=TICK,
            asleep=lambda: self._joiner is None or not self._joiner.in_work,
        )

    def _load(self, parameters: Mapping[str, Any]) -> EmotionEngine:
        return self.on_device("model.device", parameters, make_engine)

    def open(self) -> None:
        # Not before: speech_node sees by it that somebody listens.
        self._inputs = [
            AdaptiveSubscription(
                self,
                "speech",
                {"hri_emo_msgs/msg/Speech": Speech},
                self._on_speech,
                qos.SPEECH,
            )
        ]
        if self._words_type is None:
            return
        name, kind, callback = self._words_type
        self._words = AdaptiveSubscription(
            self,
            "transcript",
            {name: kind},
            callback,
            qos.TRANSCRIPT,
            "set transcript.source",
        )
        self._inputs.append(self._words)
        self._handed_over = False
        if kind is TranscriptMsg:
            in_process.take(self._words.topic, self._on_handed_over)
        self.look_often(self._look_for_recogniser)
        self._look_for_recogniser()

    def _type_of_words(self, source: str) -> tuple[str, type, Callable[[Any], None]] | None:
        """(type's name, class, what takes a message) of `transcript.source`; None where no words come."""
        if source == "none":
            return None
        if source == "string":
            return "std_msgs/msg/String", String, self._on_string
        if source == "live_speech":
            kinds = hri_messages("parameter 'transcript.source' is 'live_speech', which")
            self._language = language_field(kinds)
            return "hri_msgs/msg/LiveSpeech", kinds.LiveSpeech, self._on_live_speech
        return "hri_emo_msgs/msg/Transcript", TranscriptMsg, self._on_transcript

    def _look_for_recogniser(self) -> None:
        """Words are not waited for where nobody can send any."""
        if self._joiner is not None and self._words is not None:
            self._joiner.recogniser_present = bool(self._words.publishers())

    def close(self) -> None:
        if self._words is not None:
            in_process.leave(self._words.topic)
        self.look_no_more(self._look_for_recogniser)
        for subscription in self._inputs:
            subscription.destroy()
        self._inputs, self._words = [], None
        if self._worker is not None and self._joiner is not None:
            joiner = self._joiner
            self._worker.put(lambda: joiner.restart(time.monotonic()))
            self._worker.drain(self.patience)
        self._listeners.end("emotion_node was deactivated")

    def destroy_node(self) -> None:
        self._listeners.destroy()
        super().destroy_node()

    def dismantle(self) -> None:
        if self._forget is not None:
            self.destroy_service(self._forget)
            self._forget = None
        if self._worker is not None:
            self._worker.stop(self.patience)
            self._worker = None
        if self._engine is not None:
            self._engine.watched.close(self.patience)
        for name in ("_states", "_finals", "_tones", "_explanations"):
            if hasattr(self, name):
                self.destroy_lifecycle_publisher(getattr(self, name))
                delattr(self, name)
        self._joiner = self._engine = self._conversation = None

    def changed(self, parameters: dict[str, Value]) -> None:
        configured = (self._engine, self._joiner, self._conversation)
        if self._worker is not None:
            self._worker.put(lambda: self._configure(configured, parameters))

    def summary(self) -> str:
        engine = self._engine
        return f": model {engine.model_id} on {engine.device}, {engine.runtime}" if engine else ""

    def values(self) -> Mapping[str, object]:
        joiner, engine = self._joiner, self._engine
        if joiner is None or engine is None:
            return {}
        return {
            "model": engine.model_id,
            "device": engine.device,
            "labels": ", ".join(engine.labels),
            "utterances in work": joiner.in_work,
            "goals of listen_once waiting": self._listeners.waiting,
            "messages waiting": int(self._worker.waiting) if self._worker else 0,
            "voices known": len(joiner.voices.names) if joiner.voices else 0,
            **engine.watched.counters,
            **joiner.counters,
        }

    # -- callbacks: append only -----------------------------------------------------------------

    def _on_speech(self, message: Speech) -> None:
        if self.state == "active":
            self._listeners.speech(message)
        self._put(self._take_speech, message)

    def _on_transcript(self, message: TranscriptMsg) -> None:
        if not self._handed_over:
            self._put(self._take_transcript, message)

    def _on_handed_over(self, message: TranscriptMsg) -> None:
        """In asr_node's thread."""
        self._handed_over = True
        self._put(self._take_transcript, message)

    def _on_string(self, message: String) -> None:
        self._put(self._take_string, message)

    def _on_forget(
        self, request: ForgetVoices.Request, response: ForgetVoices.Response
    ) -> ForgetVoices.Response:
        joiner, worker = self._joiner, self._worker
        if joiner is None or worker is None:
            response.message = "emotion_node is not configured and knows no voices"
            return response
        done = threading.Event()

        def forget() -> None:
            try:
                response.forgotten = joiner.forget_voices(request.voice_id)
                if self._conversation is not None:
                    self._conversation.forget(request.voice_id)
                response.success = response.forgotten > 0 or not request.voice_id
                what = f"voice '{request.voice_id}' is not known; " if not response.success else ""
                response.message = f"{what}{response.forgotten} voice(s) forgotten"
            except HriEmoError as error:
                response.message = str(error)
            finally:
                done.set()

        worker.put(forget)
        if not done.wait(FORGET_WAIT):
            response.message = (
                "emotion_node is busy; the voice is forgotten after the utterance in work"
            )
        return response

    def _on_live_speech(self, message: Any) -> None:
        self._put(self._take_live_speech, message)

    def _put(self, take: Callable[[Any, float], None], message: Any) -> None:
        if self.state == "active" and self._worker is not None:
            arrived = time.monotonic()
            self._worker.put(lambda: take(message, arrived))

    # -- in the worker's thread -----------------------------------------------------------------

    def _take_speech(self, message: Speech, arrived: float) -> None:
        assert self._joiner is not None
        if message.stream_id != self._stream:
            self._joiner.restart(time.monotonic())
            self._stream = message.stream_id
            if self._conversation is not None:
                self._conversation.clear()
            if message.utterance_id > 1:
                self.diagnostics.count(
                    "utterances before this node listened", message.utterance_id - 1
                )
                self.get_logger().warning(
                    f"{message.utterance_id - 1} utterance(s) of this stream were heard before "
                    "emotion_node listened"
                )
            if self._announced is not None and self._announced.stream_id == self._stream:
                self._take_transcript(self._announced, arrived)
            self._announced = None
        self._frame = message.header.frame_id
        behind_ns = self.get_clock().now().nanoseconds - conversions.to_ns(message.header.stamp)
        self._clocks_apart = not -CLOCK_TOLERANCE <= behind_ns * 1e-9 <= CLOCK_TOLERANCE
        self._joiner.speech(conversions.chunk_of(message), time.monotonic(), arrived)

    def _take_transcript(self, message: TranscriptMsg, arrived: float) -> None:
        assert self._joiner is not None
        if message.stream_id and message.stream_id != self._stream:
            if message.status == TranscriptMsg.STATUS_NONE:
                self._announced = message
            else:
                self.diagnostics.count("transcripts of another stream")
            return
        self._join(
            conversions.transcript_of(message),
            arrived - max(0.0, message.queueing),
            message.stage == TranscriptMsg.STAGE_FINAL,
            message.utterance_id or None,
            conversions.to_ns(message.header.stamp),
        )

    def _take_string(self, message: String, arrived: float) -> None:
        self._join(Transcript(message.data.strip()), arrived)

    def _take_live_speech(self, message: Any, arrived: float) -> None:
        words = conversions.transcript_of_live_speech(message, self._language)
        self._join(words, arrived, bool(message.final))

    def _join(
        self,
        words: Transcript,
        arrived: float,
        final: bool = True,
        utterance_id: int | None = None,
        spoken_ns: int = 0,
    ) -> None:
        assert self._joiner is not None
        # A recogniser that names no utterance may stamp its words by another clock than the audio's.
        spoken = spoken_ns if spoken_ns and not self._clocks_apart else None
        late = self._joiner.counters["late_transcripts"]
        self._joiner.transcript(
            utterance_id, words, time.monotonic(), arrived, final=final, spoken_ns=spoken
        )
        if self._joiner.counters["late_transcripts"] > late:
            advice = (
                "" if utterance_id else "; a recogniser that hears no words is to send empty ones"
            )
            self.diagnostics.failure(
                "late words",
                "words came after their utterance's final state: they are dropped; the recogniser is too "
                f"slow for final.hold{advice}",
                Level.WARN,
            )

    def _tick(self) -> None:
        if self._joiner is not None:
            self._joiner.tick(time.monotonic())
            self.diagnostics.condition(
                "words",
                Level.WARN if self._joiner.recogniser_silent else Level.OK,
                "the recogniser sends no words: the voice alone speaks until it does",
            )

    def _configure(self, parts: Iterable[Any], parameters: dict[str, Value]) -> None:
        self.stuck_after = 2.0 * float(parameters["model.timeout"]) + STUCK
        for part in parts:
            part.configure(parameters)

    def _publish(self, outcome: Outcome) -> None:
        if outcome.estimate.abstain_reason is AbstainReason.ERROR:
            self.diagnostics.failure(
                "estimate", f"utterance {outcome.utterance_id}: {outcome.error}"
            )
        place, words = (self._stream, self._frame), self._publishes_words
        message = conversions.state_message(outcome, *place, words)
        self._states.publish(message)
        self._listeners.state(message)
        if outcome.stage == "final":
            self._finals.publish(message)
            if self._conversation is not None:
                tone = self._conversation.hear(outcome)
                self._tones.publish(conversions.conversation_message(tone, *place))
            self.console(from_message(message).sentence)
        found = outcome.estimate.explanation
        if found is not None:
            self._explanations.publish(
                conversions.explanation_message(outcome, found, *place, words)
            )


def main() -> int:
    """Entry point of the executable."""
    return run([EmotionNode])


if __name__ == "__main__":
    raise SystemExit(main())
