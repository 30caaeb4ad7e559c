# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Turns every utterance into words, from the moment at which it seems to have ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hri_emo_msgs.msg import Speech
from hri_emo_msgs.msg import Transcript as TranscriptMsg
from hri_emo_ros.asr import LoadedRecogniser, make_recogniser
from hri_emo_ros.asr.endpoint import EndpointRecogniser, Recognition, SpeechCollector
from hri_emo_ros.nodes import conversions, in_process, qos
from hri_emo_ros.nodes.adaptive import AdaptiveSubscription
from hri_emo_ros.nodes.diagnostics import Level
from hri_emo_ros.nodes.lifecycle import STUCK, HriNode, run
from hri_emo_ros.nodes.streams import Stream, Streams, speakers
from hri_emo_ros.parameters import Value
from hri_emo_ros.types import SpeechChunk, Transcript, TranscriptStatus
from hri_emo_ros.watched import WatchedRecogniser
from hri_emo_ros.worker import Worker


@dataclass
class _Microphone(Stream):
    words: EndpointRecogniser | None = None
    collector: SpeechCollector = field(default_factory=SpeechCollector)
    newest: Recognition | None = None
    """The newest speech to be recognised; older speech of the same utterance is passed over."""
    last_claim: tuple[str, int] = ("", 0)


@dataclass(frozen=True)
class _Job:
    """Speech that waits for the recogniser, or new parameter values."""

    speech: Recognition | None = None
    microphone: _Microphone | None = None
    stream_id: str = ""
    frame_id: str = ""
    arrived: float = 0.0
    parameters: dict[str, Value] | None = None


class AsrNode(HriNode):
    """`speech` in, `transcript` out.

    For each utterance one that says that it is taken on, one at each endpoint, and exactly one final one,
    whatever happens to it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("asr_node", **options)
        self._recogniser: WatchedRecogniser | None = None
        self._worker: Worker[_Job] | None = None
        self._input: AdaptiveSubscription | None = None
        self._streams: Streams[_Microphone] | None = None
        self._recognised = self._passed_over = self._rejected = 0

    def build(self, parameters: dict[str, Value]) -> None:
        if parameters["asr.backend"] == "none":
            self.get_logger().info("asr.backend is 'none': no transcripts are published")
            return
        self._recogniser = WatchedRecogniser(parameters, self._load, self.out_of_order)
        self.stuck_after = float(parameters["asr.timeout"]) + STUCK
        recogniser = self._recogniser
        self._streams = Streams(
            lambda: _Microphone(words=EndpointRecogniser(recogniser)),
            lambda: speakers(self._input) if self._input is not None else 1,
        )
        self._publishes_words = bool(parameters["publish_transcript"])
        self._transcripts = self.create_lifecycle_publisher(
            TranscriptMsg, "transcript", qos.TRANSCRIPT
        )
        self._worker = Worker(
            "asr",
            self._work,
            lambda error: self.failed("asr", error),
            capacity=float(parameters["asr.queue"]),
            cost=lambda job: float(job.speech is not None),
            spare=lambda job: job.speech is not None and not job.speech.final,
            dropped=self._on_dropped,
        )

    def _load(self, parameters: Mapping[str, Any]) -> LoadedRecogniser | None:
        return self.on_device("whisper.device", parameters, make_recogniser)

    def open(self) -> None:
        if self._worker is None:
            return
        # Not before: speech_node sees by it that somebody listens.
        self._input = AdaptiveSubscription(
            self,
            "speech",
            {"hri_emo_msgs/msg/Speech": Speech},
            self._on_speech,
            qos.SPEECH,
        )

    def take_rest(self) -> None:
        if self._input is not None:
            self._input.take_rest()

    def close(self) -> None:
        if self._input is not None:
            self._input.destroy()
            self._input = None
        for microphone in self._streams or ():
            microphone.collector.clear()
        if self._worker is not None:
            self._worker.drain(self.patience)

    def dismantle(self) -> None:
        if self._worker is not None:
            self._worker.stop(self.patience)
            self._worker = None
        if hasattr(self, "_transcripts"):
            self.destroy_lifecycle_publisher(self._transcripts)
            del self._transcripts
        if self._recogniser is not None:
            self._recogniser.watched.close(self.patience)
            self._recogniser = self._streams = None

    def check_together(self, parameters: dict[str, Value]) -> None:
        if self._recogniser is not None:
            self._recogniser.check(parameters)

    def changed(self, parameters: dict[str, Value]) -> None:
        if self._worker is not None:
            self._worker.put(_Job(parameters=parameters))

    def summary(self) -> str:
        return f": {self._recogniser.name if self._recogniser else 'no recogniser'}"

    def values(self) -> Mapping[str, object]:
        recogniser, streams = self._recogniser, self._streams
        if recogniser is None or streams is None:
            return {"recogniser": "none"}
        return {
            "recogniser": recogniser.name,
            "device": recogniser.device,
            **recogniser.watched.counters,
            "utterances recognised": self._recognised,
            "transcripts rejected": self._rejected,
            "provisional recognitions passed over": self._passed_over,
            "microphones": sum(bool(m.stream_id) for m in streams),
            "utterances whose end was lost": sum(m.collector.unclosed for m in streams),
            "late chunks": sum(m.collector.late for m in streams),
            "utterances waiting": int(self._worker.waiting) if self._worker else 0,
        }

    def _on_speech(self, message: Speech) -> None:
        if self.state != "active" or self._worker is None or self._streams is None:
            return
        chunk = conversions.chunk_of(message)
        microphone, _ = self._streams.of(message)
        utterance = (message.stream_id, chunk.utterance_id)
        frame_id = message.header.frame_id
        if utterance != microphone.last_claim:
            microphone.last_claim = utterance
            taken = Transcript("", status=TranscriptStatus.NONE)
            job = _Job(stream_id=message.stream_id, frame_id=frame_id)
            self._publish(job, chunk, taken, final=False)
        speech = microphone.collector.add(chunk, message.stream_id)
        if speech is not None:
            microphone.newest = speech
            arrived = time.monotonic()
            self._worker.put(_Job(speech, microphone, message.stream_id, frame_id, arrived))

    def _work(self, job: _Job) -> None:
        assert self._recogniser is not None
        speech = job.speech
        if speech is None:
            # Cheap: the recogniser keeps its model and takes over the values.
            assert job.parameters is not None
            self.stuck_after = float(job.parameters["asr.timeout"]) + STUCK
            self._recogniser.configure(job.parameters)
            return
        assert job.microphone is not None
        assert job.microphone.words is not None
        if not speech.final and speech is not job.microphone.newest:
            self._passed_over += 1
            return
        queueing = time.monotonic() - job.arrived
        try:
            transcript = job.microphone.words.recognise(speech)
        except Exception as error:
            transcript = _failed(self.failed("asr", error))
        if speech.final:
            self._recognised += transcript.status is not TranscriptStatus.FAILED
            self._rejected += transcript.status is TranscriptStatus.REJECTED
        self._publish(job, speech.chunk, transcript, speech.final, speech.duration, queueing)

    def _on_dropped(self, job: _Job) -> None:
        assert job.speech is not None
        if not job.speech.final:
            self._passed_over += 1
            return
        self.diagnostics.failure(
            "dropped utterances",
            "the recogniser is too slow: utterances pass without words (asr.queue, or a smaller "
            "whisper.model)",
            Level.WARN,
        )
        waited = time.monotonic() - job.arrived
        full = _failed("asr.queue was full")
        self._publish(job, job.speech.chunk, full, True, job.speech.duration, waited)

    def _publish(
        self,
        job: _Job,
        chunk: SpeechChunk,
        transcript: Transcript,
        final: bool,
        duration: float = 0.0,
        queueing: float = 0.0,
    ) -> None:
        assert self._recogniser is not None

        def message(words: bool) -> TranscriptMsg:
            return conversions.transcript_message(
                transcript,
                chunk,
                job.stream_id,
                job.frame_id,
                recogniser=name,
                duration=duration,
                queueing=queueing,
                final=final,
                words=words,
            )

        name = self._recogniser.name
        if not self._publishes_words:
            # First, so that emotion_node knows that it need not listen to what has no words.
            self._hand_over(message(words=True))
        self._transcripts.publish(message(words=self._publishes_words))

    def _hand_over(self, message: TranscriptMsg) -> None:
        taken = in_process.hand_over(self._transcripts.topic_name, message)
        self.diagnostics.condition(
            "words",
            Level.OK if taken else Level.ERROR,
            "publish_transcript is false, and no active emotion_node is in this process: words reach nobody; "
            "run all nodes in one (single_process:=true), or set asr.backend to none",
        )


def _failed(why: str) -> Transcript:
    return Transcript("", status=TranscriptStatus.FAILED, status_text=why)


def main() -> int:
    """Entry point of the executable."""
    return run([AsrNode])


if __name__ == "__main__":
    raise SystemExit(main())
