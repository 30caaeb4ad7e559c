"""Turns every utterance into words, as soon as it has ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hri_emo_msgs.msg import Speech
from hri_emo_msgs.msg import Transcript as TranscriptMsg
from hri_emo_ros.asr import Recogniser, make_recogniser
from hri_emo_ros.audio.utterance import UtteranceBuffer
from hri_emo_ros.nodes import conversions, qos
from hri_emo_ros.nodes.adaptive import AdaptiveSubscription
from hri_emo_ros.nodes.diagnostics import Level
from hri_emo_ros.nodes.lifecycle import HriNode, run
from hri_emo_ros.nodes.worker import Worker
from hri_emo_ros.parameters import Value
from hri_emo_ros.types import SpeechChunk, Transcript, TranscriptStatus


@dataclass(frozen=True)
class _Job:
    """A whole utterance that waits for the recogniser, or new parameter values."""

    speech: UtteranceBuffer | None = None
    last: SpeechChunk | None = None
    stream_id: str = ""
    frame_id: str = ""
    arrived: float = 0.0
    parameters: dict[str, Value] | None = None


class AsrNode(HriNode):
    """`speech` in, `transcript` out: one for each utterance, whatever happens to it."""

    def __init__(self) -> None:
        super().__init__("asr_node")
        self._recogniser: Recogniser | None = None
        self._worker: Worker[_Job] | None = None
        self._input: AdaptiveSubscription | None = None
        self._open: UtteranceBuffer | None = None
        self._stream = ""
        self._recognised = self._rejected = 0

    def build(self, parameters: dict[str, Value]) -> None:
        self._recogniser = make_recogniser(parameters)
        if self._recogniser is None:
            self.get_logger().info("asr.backend is 'none': no transcripts are published")
            return
        self._recogniser.warm_up()
        self._transcripts = self.create_lifecycle_publisher(
            TranscriptMsg, "transcript", qos.TRANSCRIPT
        )
        self._worker = Worker(
            "asr",
            self._work,
            lambda error: self.failed("asr", error),
            capacity=float(parameters["asr.queue"]),  # type: ignore[arg-type]
            cost=lambda job: 0.0 if job.speech is None else 1.0,
            dropped=self._on_dropped,
        )
        self._input = AdaptiveSubscription(
            self,
            "speech",
            {"hri_emo_msgs/msg/Speech": Speech},
            self._on_speech,
            qos.SPEECH,
            before_publisher=True,
        )

    def open(self) -> None:
        """The subscription is there already; `state` lets its messages through."""

    def close(self) -> None:
        self._open = None
        if self._worker is not None:
            self._worker.drain(5.0)

    def dismantle(self) -> None:
        if self._input is not None:
            self._input.destroy()
            self._input = None
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
        if hasattr(self, "_transcripts"):
            self.destroy_lifecycle_publisher(self._transcripts)
            del self._transcripts
        self._recogniser = None

    def changed(self, parameters: dict[str, Value]) -> None:
        if self._worker is not None:
            self._worker.put(_Job(parameters=parameters))

    def summary(self) -> str:
        return f": {self._recogniser.name if self._recogniser else 'no recogniser'}"

    def values(self) -> Mapping[str, object]:
        return {
            "recogniser": self._recogniser.name if self._recogniser else "none",
            "utterances recognised": self._recognised,
            "transcripts rejected": self._rejected,
            "utterances waiting": int(self._worker.waiting) if self._worker else 0,
        }

    def _on_speech(self, message: Speech) -> None:
        if self.state != "active" or self._worker is None:
            return
        chunk = conversions.chunk_of(message)
        speech = self._open
        if (
            speech is None
            or self._stream != message.stream_id
            or (speech.utterance_id != chunk.utterance_id)
        ):
            if speech is not None:
                self.diagnostics.count("utterances whose end was lost")
            self._stream = message.stream_id
            self._open = speech = UtteranceBuffer(chunk)
        elif not speech.add(chunk):
            self.diagnostics.count("late chunks")
            return
        if chunk.last:
            self._open = None
            self._worker.put(
                _Job(speech, chunk, message.stream_id, message.header.frame_id, time.monotonic())
            )

    def _work(self, job: _Job) -> None:
        assert self._recogniser is not None
        if job.speech is None or job.last is None:
            # Cheap: the recogniser keeps its model and takes over the values.
            configure: Any = self._recogniser
            configure.configure(job.parameters)
            return
        queueing = time.monotonic() - job.arrived
        try:
            transcript = self._recogniser.transcribe(job.speech.samples, job.speech.quality)
        except Exception as error:
            self.failed("asr", error)
            self._publish(job, _failed(f"{type(error).__name__}: {error}"), queueing)
            return
        self._recognised += 1
        self._rejected += transcript.status is TranscriptStatus.REJECTED
        self._publish(job, transcript, queueing)

    def _on_dropped(self, job: _Job) -> None:
        self.diagnostics.failure(
            "dropped utterances",
            "the recogniser is too slow: utterances pass without words (asr.queue, or a smaller "
            "whisper.model)",
            Level.WARN,
        )
        self._publish(job, _failed("asr.queue was full"), time.monotonic() - job.arrived)

    def _publish(self, job: _Job, transcript: Transcript, queueing: float) -> None:
        assert job.speech is not None
        assert job.last is not None
        assert self._recogniser is not None
        self._transcripts.publish(
            conversions.transcript_message(
                transcript,
                job.last,
                job.stream_id,
                job.frame_id,
                recogniser=self._recogniser.name,
                duration=job.speech.duration,
                queueing=queueing,
            )
        )


def _failed(why: str) -> Transcript:
    return Transcript("", status=TranscriptStatus.FAILED, status_text=why)


def main() -> int:
    """Entry point of the executable."""
    return run([AsrNode])


if __name__ == "__main__":
    raise SystemExit(main())
