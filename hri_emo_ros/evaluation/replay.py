# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A recording through the very pipeline that runs on the robot, with no ROS running."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hri_emo_ros import __version__
from hri_emo_ros.asr import Recogniser, make_recogniser
from hri_emo_ros.audio.frontend import AudioFrontEnd
from hri_emo_ros.engine import EmotionEngine, make_engine
from hri_emo_ros.evaluation.bag_source import BagSource, Disturbance
from hri_emo_ros.evaluation.bags import AudioBag
from hri_emo_ros.evaluation.envelope import Envelope
from hri_emo_ros.evaluation.labels import Label, check_within, read_labels
from hri_emo_ros.evaluation.matching import Match, match_labels, segmentation
from hri_emo_ros.evaluation.scores import Answers, latency, score
from hri_emo_ros.evaluation.utterances import HeardUtterance, UtteranceLog
from hri_emo_ros.parameters import Value
from hri_emo_ros.pipeline import (
    Record,
    UtteranceJoiner,
    run_offline,
)

Parameters = Mapping[str, Mapping[str, Value]]
"""Node name -> parameter name -> value, complete, as `parameters.load_parameters` returns them."""


_VAD_BATCH = 32
"""Frames for the voice detector at once: nobody waits for a single one here."""


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
    parts: list[ReplayRun] = field(default_factory=list)
    """The recordings that this is the sum of; empty for a single one. Times count from the start of each."""

    @property
    def name(self) -> str:
        """Of the recording, or how many there are."""
        return self.bag.name if not self.parts else f"{len(self.parts)} recordings"

    @property
    def matches(self) -> list[Match]:
        """Labels with the utterances that answer them."""
        if self.parts:
            return [match for part in self.parts for match in part.matches]
        return match_labels(self.reference or [], self.utterances)

    def answers(self) -> Answers:
        """Truth and answer of each label."""
        return Answers(self.matches, self.labels)

    def summary(self) -> dict[str, Any]:
        """The run as JSON: figures first, then how to repeat it, then every utterance, or every recording."""
        finals = [u for u in self.utterances if u.final]
        matches = self.matches
        result: dict[str, Any] = {
            "bag": self.name,
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
            pre_roll = float(self.parameters["speech_node"]["segment.pre_roll"])
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
                **self._told(),
            }
        )

    def _told(self) -> dict[str, Any]:
        """Every label with its answer, and every utterance or recording."""
        if not self.parts:
            return {
                "items": [_item(match) for match in self.matches],
                "heard": [utterance.as_json() for utterance in self.utterances],
            }
        return {
            "items": [
                {"path": str(part.bag)} | _item(match)
                for part in self.parts
                for match in part.matches
            ],
            "recordings": [
                {
                    "bag": str(part.bag),
                    "duration": round(part.duration, 3),
                    "final_states": sum(u.final for u in part.utterances),
                    "abstained_states": sum(bool(u.abstained) for u in part.utterances if u.final),
                    "labels": None if part.reference is None else len(part.reference),
                    "faults": part.extra.get("faults", []),
                    "truncated": part.truncated or None,
                }
                for part in self.parts
            ],
        }


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


def merge(runs: Sequence[ReplayRun], wall_time: float) -> ReplayRun:
    """Several recordings, replayed with the same parameters, as one run: each figure is that over all of them.

    Args:
        runs: at least one.
        wall_time: seconds that all took together.
    """
    first = runs[0]
    labelled = [run.reference for run in runs if run.reference is not None]
    counters: Counter[str] = Counter()
    for run in runs:
        counters.update(run.counters)
    return replace(
        first,
        topic=", ".join(sorted({run.topic for run in runs})),
        message_type=", ".join(sorted({run.message_type for run in runs})),
        duration=sum(run.duration for run in runs),
        utterances=[utterance for run in runs for utterance in run.utterances],
        reference=[label for labels in labelled for label in labels] if labelled else None,
        counters=dict(counters),
        wall_time=wall_time,
        envelope=Envelope(),
        truncated=" ".join(run.truncated for run in runs if run.truncated),
        extra={},
        parts=list(runs),
    )


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
        self.engine = engine or make_engine(values)
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
            record: called with every record of the pipeline, in order; without, there are no provisional states,
                which nobody would read.
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
            source = BagSource(bag, parameters["speech_node"], disturb, progress)
            front_end = AudioFrontEnd(parameters["speech_node"], batch=_VAD_BATCH)
            values = dict(parameters["emotion_node"])
            if record is None:
                values["provisional.enabled"] = False
            joiner = UtteranceJoiner(self.engine, values, lambda outcome: None, live=False)
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
                extra={"faults": list(front_end.faults.values())} if front_end.faults else {},
            )


def read_reference(
    bag: AudioBag, labels: Path | None, label_topic: str, known: Sequence[str]
) -> list[Label] | None:
    """Labels from the file, else from the bag; None where there are none."""
    if labels is not None:
        return check_within(read_labels(labels, known), bag.duration, f"labels '{labels}'")
    return bag.labels(label_topic, known) or None
