"""A recording through the very pipeline that runs on the robot, with no ROS running."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from hri_emo_ros import __version__
from hri_emo_ros.asr import Recogniser, make_recogniser
from hri_emo_ros.audio.frontend import AudioFrontEnd
from hri_emo_ros.audio.pcm import PcmDecoder, PcmFormat
from hri_emo_ros.engine import EmotionEngine
from hri_emo_ros.evaluation.bags import AudioBag, RecordedAudio, TruncatedBagError
from hri_emo_ros.evaluation.envelope import Envelope
from hri_emo_ros.evaluation.labels import Label, check_within, read_labels
from hri_emo_ros.evaluation.matching import Match, match_labels, segmentation
from hri_emo_ros.evaluation.scores import Answers, latency, score
from hri_emo_ros.evaluation.utterances import HeardUtterance, UtteranceLog
from hri_emo_ros.parameters import Value
from hri_emo_ros.pipeline import (
    AudioMessage,
    Input,
    Record,
    RobotSpeaking,
    UtteranceJoiner,
    run_offline,
)
from hri_emo_ros.types import FloatArray

Parameters = Mapping[str, Mapping[str, Value]]
"""Node name -> parameter name -> value, complete, as `parameters.load_parameters` returns them."""


_VAD_BATCH = 32
"""Frames for the voice detector at once: nobody waits for a single one here."""


class Disturbance(Protocol):
    """Something that happens to the sound between the recording and the pipeline."""

    def __call__(self, samples: FloatArray, sample_rate: int) -> FloatArray:
        """[frames, channels] in and out, message by message.

        As many frames come out as go in, unless the object has an `output_rate` (Hz).
        """


@dataclass
class ReplayRun:
    """What came out of one replay, and what it was made with."""

    bag: Path
    topic: str
    message_type: str
    duration: float
    """Seconds."""
    parameters: Parameters
    model_id: str
    labels: tuple[str, ...]
    """The model's emotions."""
    recogniser: str
    utterances: list[HeardUtterance]
    reference: list[Label] | None
    """What a person says about the recording; None where nobody did."""
    counters: dict[str, int]
    wall_time: float
    """Seconds that it took."""
    envelope: Envelope = field(default_factory=Envelope)
    truncated: str = ""
    """Where the bag breaks off, in a sentence; empty for a whole bag."""
    extra: dict[str, Any] = field(default_factory=dict)
    """More of what belongs into the JSON, e.g. ``ablation``."""

    @property
    def matches(self) -> list[Match]:
        """Labels with the utterances that answer them."""
        return match_labels(self.reference or [], self.utterances)

    def answers(self) -> Answers:
        """Truth and answer of each label."""
        return Answers(self.matches, self.labels)

    def summary(self) -> dict[str, Any]:
        """The run as JSON: figures first, then how to repeat it, then every utterance."""
        finals = [u for u in self.utterances if u.final]
        matches = self.matches
        result: dict[str, Any] = {
            "bag": self.bag.name,
            "topic": self.topic,
            "message_type": self.message_type,
            "duration": round(self.duration, 3),
            "truncated": self.truncated or None,
            "final_states": len(finals),
            "abstained_states": sum(bool(u.abstained) for u in finals),
        }
        if self.reference is None:
            result |= {"latency": latency(finals)}
        else:
            pre_roll = float(self.parameters["speech_node"]["segment.pre_roll"])  # type: ignore[arg-type]
            result |= score(self.answers(), finals, matches if self.recogniser != "none" else [])
            result |= {"segmentation": segmentation(matches, self.utterances, pre_roll)}
        return (
            result
            | self.extra
            | {
                "model": self.model_id,
                "recogniser": self.recogniser,
                "version": __version__,
                "labels": list(self.labels),
                "parameters": {node: dict(values) for node, values in self.parameters.items()},
                "counters": self.counters,
                "wall_time": round(self.wall_time, 3),
                "speed": round(self.duration / self.wall_time, 2) if self.wall_time else None,
                "items": [_item(match) for match in matches],
                "heard": [utterance.as_json() for utterance in self.utterances],
            }
        )


def _item(match: Match) -> dict[str, Any]:
    """One label and its answer, as `hri-emo compare` pairs them."""
    best = match.best
    return {
        "start": round(match.label.start, 3),
        "end": round(match.label.end, 3),
        "emotion": match.label.emotion,
        "speaker": match.label.speaker,
        "text": match.label.text,
        "utterances": [utterance.utterance_id for utterance in match.heard],
        "predicted": best.dominant if best else "",
        "probabilities": [round(p, 6) for p in best.probabilities] if best else [],
        "abstained": best.abstained if best else "",
        "transcript": match.transcript,
    }


class Replayer:
    """Model and recogniser, loaded once, and as many recordings as wanted.

    Args:
        parameters: from `parameters.load_parameters`.
        engine: made from the parameters if None.
        recogniser: made from the parameters if None and `asr.backend` is not ``none``.

    Raises:
        HriEmoError: the model or the recogniser cannot be loaded.
    """

    def __init__(
        self,
        parameters: Parameters,
        engine: EmotionEngine | None = None,
        recogniser: Recogniser | None = None,
    ) -> None:
        self.parameters = parameters
        values = dict(parameters["emotion_node"])
        self.engine = engine or EmotionEngine(
            str(values["model.bundle"]),
            str(values["model.device"]),
            int(values["model.threads"]),  # type: ignore[arg-type]
            values,
        )
        self.recogniser = recogniser or make_recogniser(parameters["asr_node"])
        self.engine.warm_up()
        if self.recogniser is not None:
            self.recogniser.warm_up()

    @property
    def recogniser_name(self) -> str:
        """For people and records."""
        return self.recogniser.name if self.recogniser else "none"

    def run(
        self,
        path: Path,
        topic: str = "",
        labels: Path | None = None,
        label_topic: str = "",
        disturb: Disturbance | None = None,
        record: Callable[[Record], None] | None = None,
        progress: Callable[[float, float], None] | None = None,
        recogniser: Recogniser | None = None,
        parameters: Parameters | None = None,
    ) -> ReplayRun:
        """Replay one bag.

        Args:
            path: rosbag2 folder or storage file.
            topic: audio topic; empty takes the only one.
            labels: CSV; None takes those on the bag's annotation topic, if any.
            label_topic: annotation topic, std_msgs/String.
            disturb: applied to the decoded audio.
            record: called with every record of the pipeline, in order.
            progress: called with (seconds done, seconds in all).
            recogniser: instead of this object's own.
            parameters: instead of this object's own; the model stays.

        Raises:
            HriEmoError: the bag, the labels or the audio is refused.
        """
        parameters = parameters or self.parameters
        recogniser = recogniser or self.recogniser
        # The engine's thresholds of abstaining are parameters of the emotion node too.
        self.engine.configure(dict(parameters["emotion_node"]))
        with AudioBag(path, topic) as bag:
            reference = read_reference(bag, labels, label_topic, self.engine.labels)
            source = _BagSource(bag, parameters["speech_node"], disturb, progress)
            front_end = AudioFrontEnd(parameters["speech_node"], batch=_VAD_BATCH)
            joiner = UtteranceJoiner(
                self.engine, parameters["emotion_node"], lambda outcome: None, live=False
            )
            log = UtteranceLog(bag.origin_ns)
            started = time.perf_counter()
            for item in run_offline(source.inputs(), front_end, recogniser, joiner):
                log.add(item)
                if record is not None:
                    record(item)
            return ReplayRun(
                bag=path,
                topic=bag.topic,
                message_type=bag.message_type,
                duration=source.seconds,
                parameters=parameters,
                model_id=self.engine.model_id,
                labels=self.engine.labels,
                recogniser=recogniser.name if recogniser else "none",
                utterances=log.utterances,
                reference=reference,
                counters={**front_end.counters, **joiner.counters},
                wall_time=time.perf_counter() - started,
                envelope=source.envelope,
                truncated=source.truncated,
            )


def read_reference(
    bag: AudioBag, labels: Path | None, label_topic: str, known: Sequence[str]
) -> list[Label] | None:
    """Labels from the file, else from the bag; None where there are none."""
    if labels is not None:
        return check_within(read_labels(labels, known), bag.duration, f"labels '{labels}'")
    return bag.labels(label_topic, known) or None


class _BagSource:
    """Turns a bag into the pipeline's inputs and keeps what the report shows of the sound."""

    def __init__(
        self,
        bag: AudioBag,
        parameters: Mapping[str, Value],
        disturb: Disturbance | None,
        progress: Callable[[float, float], None] | None,
    ) -> None:
        self._bag, self._disturb, self._progress = bag, disturb, progress
        self._output_rate: int | None = getattr(disturb, "output_rate", None)
        self._use_info = bool(parameters["audio.use_info"])
        self._format = PcmFormat(
            int(parameters["audio.sample_rate"]),  # type: ignore[arg-type]
            int(parameters["audio.channels"]),  # type: ignore[arg-type]
            str(parameters["audio.sample_format"]),
        )
        self._decoder = PcmDecoder(self._format)
        self._started = False
        self.envelope = Envelope()
        self.truncated = ""
        self.seconds = 0.0
        """Audio handed out so far, in the bag's time."""

    def inputs(self) -> Iterator[Input]:
        told = self._bag.format if self._use_info else None
        yield self._switch(told or self._format)
        try:
            for event in self._bag.events():
                if isinstance(event, RobotSpeaking):
                    yield event
                    continue
                if event.format is not None and event.format != self._format:
                    yield self._switch(event.format)
                yield self._message(event)
        except TruncatedBagError as error:
            self.truncated = str(error)
        if self._progress is not None:
            self._progress(self._bag.duration, self._bag.duration)

    def _switch(self, pcm_format: PcmFormat) -> PcmFormat:
        self._format = pcm_format
        self._decoder = PcmDecoder(pcm_format)
        # A disturbance may be another microphone's rate.
        return replace(pcm_format, sample_rate=self._output_rate or pcm_format.sample_rate)

    def _message(self, event: RecordedAudio) -> AudioMessage:
        samples = self._decoder.decode(event.data)
        rate = self._format.sample_rate
        start = (event.stamp_ns - self._bag.origin_ns) * 1e-9
        if not event.stamped:
            start -= len(samples) / rate
        self.seconds = max(self.seconds, start + len(samples) / rate)
        if self._disturb is not None:
            samples = self._disturb(samples, rate)
        self.envelope.add(samples, start, self._output_rate or rate)
        if self._progress is not None:
            self._progress(self._bag.seconds(event.receive_ns), self._bag.duration)
        # What a resampler holds back comes with the next message: stamps no longer fit.
        stamp_ns = event.stamp_ns if self._output_rate is None or not self._started else None
        self._started = self._started or len(samples) > 0
        return AudioMessage(samples, stamp_ns, received=not event.stamped)
