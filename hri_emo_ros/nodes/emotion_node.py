# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Joins speech and words and publishes the emotion of every utterance."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from std_msgs.msg import String

from hri_emo_msgs.msg import ConversationEmotion, EmotionExplanation, EmotionState, Speech
from hri_emo_msgs.msg import Transcript as TranscriptMsg
from hri_emo_msgs.srv import ForgetVoices
from hri_emo_ros.conversation import Conversation
from hri_emo_ros.engine import EmotionEngine, make_engine
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.nodes import conversions, in_process, qos
from hri_emo_ros.nodes.adaptive import AdaptiveSubscription, node_of
from hri_emo_ros.nodes.diagnostics import Level
from hri_emo_ros.nodes.hri_messages import hri_messages, language_field
from hri_emo_ros.nodes.lifecycle import STUCK, HriNode, run
from hri_emo_ros.nodes.listen_once import ListenOnceServer
from hri_emo_ros.nodes.streams import Stream, Streams, speakers
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
MOST_OVER = 32
"""Streams that are remembered after their end."""
QUEUE = 4000
"""Messages that may wait while the model works: a quarter of an hour of speech."""


@dataclass(kw_only=True)
class _Microphone(Stream):
    joiner: UtteranceJoiner
    conversation: Conversation
    clocks_apart: bool = True
    """The audio's stamps are not of this node's clock."""


class EmotionNode(HriNode):
    """`speech` and `transcript` in; states, their explanations and the conversation's tone out; `listen_once`.

    Each microphone whose stream is heard has its own utterances, voices and conversation: nothing of one waits for
    another's words. What lies ready is estimated one after the other, in order: a batch would take as long
    (docs/performance.md).

    All waiting is on the computer's steady clock, whatever /clock says: a recogniser takes the same
    time however fast a recording is played.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("emotion_node", **options)
        self._streams: Streams[_Microphone] | None = None
        self._engine: WatchedEngine | None = None
        self._worker: Worker[Callable[[], None]] | None = None
        self._inputs: list[AdaptiveSubscription] = []
        self._words: AdaptiveSubscription | None = None
        self._forget: Any = None
        self._words_come = True
        """Somebody is there who may send words."""
        self._words_from = ""
        """The nodes that may, as last seen."""
        self._listeners = ListenOnceServer(self)
        self._handed_over = False
        """The words come from asr_node in this process; what it publishes has none."""
        self._over: deque[str] = deque(maxlen=MOST_OVER)
        """Streams that others have followed: words of theirs may still come."""
        self._announced: TranscriptMsg | None = None
        """Of an utterance of a stream whose speech has not come yet."""

    def build(self, parameters: dict[str, Value]) -> None:
        source = str(parameters["transcript.source"])
        self._words_type = self._type_of_words(source)
        self._engine = WatchedEngine(parameters, self._load, self.out_of_order)
        self._settings = parameters
        self._streams = Streams(self._microphone, self._microphones, self._ended)
        self.stuck_after = 2.0 * float(parameters["model.timeout"]) + STUCK
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
            asleep=lambda: not any(m.joiner.in_work for m in self._streams or ()),
        )

    def _microphone(self) -> _Microphone:
        """What is kept of one more microphone."""
        assert self._engine is not None
        settings = self._settings_of(first=self._streams is None)
        joiner = UtteranceJoiner(self._engine, settings, lambda outcome: None, encoder=self._engine)
        joiner.recogniser_present = self._words_come
        microphone = _Microphone(joiner=joiner, conversation=Conversation(self._engine, settings))
        joiner.emit = partial(self._publish, microphone)
        return microphone

    def _settings_of(self, first: bool) -> dict[str, Value]:
        """Two would write over each other's profiles."""
        return self._settings if first else {**self._settings, "voices.profiles": ""}

    def _microphones(self) -> int:
        """How many speech_nodes are to be heard."""
        return speakers(self._inputs[0]) if self._inputs else 1

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
        if self._streams is not None and self._words is not None:
            found = self._words.publishers()
            self._words_come = bool(found)
            self._words_from = ", ".join(
                sorted({node_of(p) or "a node yet unknown" for p in found})
            )
            for microphone in self._streams:
                microphone.joiner.recogniser_present = self._words_come

    def take_rest(self) -> None:
        for subscription in self._inputs:
            subscription.take_rest()

    def close(self) -> None:
        if self._words is not None:
            in_process.leave(self._words.topic)
        self.look_no_more(self._look_for_recogniser)
        for subscription in self._inputs:
            subscription.destroy()
        self._inputs, self._words, self._words_from = [], None, ""
        if self._worker is not None:
            self._worker.put(self._end_all)
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
        self._streams = self._engine = None

    def changed(self, parameters: dict[str, Value]) -> None:
        if self._worker is not None:
            self._worker.put(lambda: self._configure(parameters))

    def summary(self) -> str:
        engine = self._engine
        return f": model {engine.model_id} on {engine.device}, {engine.runtime}" if engine else ""

    def values(self) -> Mapping[str, object]:
        streams, engine = self._streams, self._engine
        if streams is None or engine is None:
            return {}
        joiners = [microphone.joiner for microphone in streams]
        counters: Counter[str] = Counter()
        for joiner in joiners:
            counters.update(joiner.counters)
        return {
            "model": engine.model_id,
            "device": engine.device,
            "labels": ", ".join(engine.labels),
            "microphones": sum(bool(microphone.stream_id) for microphone in streams),
            "words from": self._words_from or "nobody",
            "utterances in work": sum(joiner.in_work for joiner in joiners),
            "goals of listen_once waiting": self._listeners.waiting,
            "messages waiting": int(self._worker.waiting) if self._worker else 0,
            "voices known": sum(len(joiner.voices.names) for joiner in joiners if joiner.voices),
            **engine.watched.counters,
            **counters,
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
        streams, worker = self._streams, self._worker
        if streams is None or worker is None:
            response.message = "emotion_node is not configured and knows no voices"
            return response
        done = threading.Event()

        def forget() -> None:
            try:
                for microphone in streams:
                    response.forgotten += microphone.joiner.forget_voices(request.voice_id)
                    microphone.conversation.forget(request.voice_id)
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

    def _end_all(self) -> None:
        for microphone in self._streams or ():
            microphone.joiner.restart(time.monotonic())

    def _ended(self, microphone: _Microphone) -> None:
        self._over.append(microphone.stream_id)
        microphone.joiner.restart(time.monotonic())
        microphone.conversation.clear()

    def _take_speech(self, message: Speech, arrived: float) -> None:
        assert self._streams is not None
        microphone, new = self._streams.of(message)
        if new:
            if message.utterance_id > 1:
                missed = message.utterance_id - 1
                self.diagnostics.count("utterances before this node listened", missed)
                self.diagnostics.failure(
                    "missed utterances",
                    f"{missed} utterance(s) of this stream were heard before emotion_node listened",
                    Level.WARN,
                )
            if self._announced is not None and self._announced.stream_id == message.stream_id:
                self._take_transcript(self._announced, arrived)
            self._announced = None
        behind_ns = self.get_clock().now().nanoseconds - conversions.to_ns(message.header.stamp)
        microphone.clocks_apart = not -CLOCK_TOLERANCE <= behind_ns * 1e-9 <= CLOCK_TOLERANCE
        microphone.joiner.speech(conversions.chunk_of(message), time.monotonic(), arrived)

    def _take_transcript(self, message: TranscriptMsg, arrived: float) -> None:
        assert self._streams is not None
        if message.stream_id and self._streams.get(message.stream_id) is None:
            if message.status == TranscriptMsg.STATUS_NONE:
                self._announced = message
            elif message.stream_id in self._over:
                self.diagnostics.count("transcripts of another stream")
            else:
                self.diagnostics.failure(
                    "unheard speech",
                    "words come of a microphone that emotion_node does not hear: their utterance has no state; it "
                    "has only begun to listen, or `speech` is not the one that the recogniser hears",
                    Level.WARN,
                )
            return
        self._join(
            conversions.transcript_of(message),
            arrived - max(0.0, message.queueing),
            message.stage == TranscriptMsg.STAGE_FINAL,
            message.utterance_id or None,
            conversions.to_ns(message.header.stamp),
            message.stream_id,
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
        stream_id: str = "",
    ) -> None:
        assert self._streams is not None
        microphone = self._streams.get(stream_id)
        if microphone is None:
            self.diagnostics.failure(
                "words of nobody",
                "words that name no stream are dropped while several microphones are heard: nobody can tell "
                "whose they are; publish hri_emo_msgs/Transcript with stream_id (transcript.source: transcript)",
                Level.WARN,
            )
            return
        joiner = microphone.joiner
        # A recogniser that names no utterance may stamp its words by another clock than the audio's.
        spoken = spoken_ns if spoken_ns and not microphone.clocks_apart else None
        late = joiner.counters["late_transcripts"]
        joiner.transcript(
            utterance_id, words, time.monotonic(), arrived, final=final, spoken_ns=spoken
        )
        if joiner.counters["late_transcripts"] > late:
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
        joiners = [microphone.joiner for microphone in self._streams or ()]
        for joiner in joiners:
            joiner.tick(time.monotonic())
        self.diagnostics.condition(
            "words",
            Level.WARN if any(joiner.words_missing for joiner in joiners) else Level.OK,
            "the recogniser sends no words: the voice alone speaks until it does",
        )
        self.diagnostics.condition(
            "profiles",
            Level.WARN if self._settings["voices.profiles"] and len(joiners) > 1 else Level.OK,
            "voices.profiles keeps the voices of the microphone that was heard first, not of the others",
        )

    def _configure(self, parameters: dict[str, Value]) -> None:
        if self._streams is None or self._engine is None:
            return
        self.stuck_after = 2.0 * float(parameters["model.timeout"]) + STUCK
        self._settings = parameters
        self._engine.configure(parameters)
        for number, microphone in enumerate(self._streams):
            settings = self._settings_of(first=number == 0)
            microphone.joiner.configure(settings)
            microphone.conversation.configure(settings)

    def _publish(self, microphone: _Microphone, outcome: Outcome) -> None:
        if outcome.estimate.abstain_reason is AbstainReason.ERROR:
            self.diagnostics.failure(
                "estimate", f"utterance {outcome.utterance_id}: {outcome.error}"
            )
        source, words = (microphone.stream_id, microphone.frame_id), self._publishes_words
        message = conversions.state_message(outcome, *source, words)
        self._states.publish(message)
        self._listeners.state(message)
        if outcome.stage == "final":
            self._finals.publish(message)
            tone = microphone.conversation.hear(outcome)
            self._tones.publish(conversions.conversation_message(tone, *source))
            self.console(from_message(message).sentence)
        found = outcome.estimate.explanation
        if found is not None:
            self._explanations.publish(
                conversions.explanation_message(outcome, found, *source, words)
            )


def main() -> int:
    """Entry point of the executable."""
    return run([EmotionNode])


if __name__ == "__main__":
    raise SystemExit(main())
