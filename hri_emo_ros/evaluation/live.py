# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A recording through the real nodes, over DDS: ``hri-emo replay --live``.

The nodes run as processes with use_sim_time; the bag's audio is published with its own stamps, /clock
with its receive times. What comes out is recorded and scored like an offline replay's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lifecycle_msgs.msg import Transition
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool

from hri_emo_msgs.msg import ConversationEmotion, EmotionExplanation, EmotionState, Speech
from hri_emo_msgs.msg import Transcript as TranscriptMsg
from hri_emo_ros.audio.pcm import PcmFormat
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.bag_writer import RELIABLE, new_bag
from hri_emo_ros.evaluation.bags import AudioBag, Sound, TruncatedBagError
from hri_emo_ros.evaluation.emotion_bag import TOPICS
from hri_emo_ros.evaluation.envelope import Envelope
from hri_emo_ros.evaluation.replay import Parameters, ReplayRun, read_reference
from hri_emo_ros.evaluation.replay_outputs import progress_bar
from hri_emo_ros.evaluation.rosbag_types import emotion_typestore
from hri_emo_ros.evaluation.utterances import UtteranceLog
from hri_emo_ros.messages import LATENCY_FIELDS
from hri_emo_ros.model.bundle import find_bundle, read_config
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.adaptive import reaches
from hri_emo_ros.nodes.audio_messages import AudioPublisher
from hri_emo_ros.nodes.conversions import chunk_of, quality_of, to_ns, to_time, transcript_of
from hri_emo_ros.nodes.graph import LIMIT, PIPELINE_NODES, Graph
from hri_emo_ros.pipeline import Outcome, RobotSpeaking, TranscriptRecord
from hri_emo_ros.types import AbstainReason, EmotionEstimate, Transcript, TranscriptStatus

LAST_WAIT = 60.0
"""Longest wait for the final states still due once the recording is over, s."""


def replay_live(
    parameters: Parameters,
    path: Path,
    topic: str = "",
    labels: Path | None = None,
    label_topic: str = "",
    speed: float = 1.0,
    out: Path | None = None,
) -> ReplayRun:
    """Start the nodes, play the bag to them, and collect what they publish.

    Args:
        parameters: of every node, as from `parameters.load_parameters`.
        path: rosbag2.
        topic: its audio topic; empty takes the only one.
        labels: CSV; None takes the bag's annotation topic.
        label_topic: annotation topic.
        speed: multiple of real time.
        out: OUT/bag holds what the nodes published.

    Raises:
        HriEmoError: the bag or the labels are refused, or a node does not start.
    """
    if not 0.0 < speed <= 100.0:
        raise HriEmoError(f"--speed is {speed:g}, must be above 0 and at most 100")
    values = {kind: dict(parameters[kind]) for kind in PIPELINE_NODES}
    with_words = values["asr_node"]["asr.backend"] != "none"
    if not with_words:
        values["emotion_node"]["transcript.source"] = "none"
    kinds = tuple(kind for kind in PIPELINE_NODES if with_words or kind != "asr_node")
    known = read_config(find_bundle(str(values["emotion_node"]["model.bundle"]))).model.labels
    with AudioBag(path, topic) as bag:
        reference = read_reference(bag, labels, label_topic, known)
        with Graph(
            nodes=kinds,
            parameters={k: values[k] for k in kinds},
            use_sim_time=True,
            # Words that are not published go from node to node within a process.
            single_process=with_words and not values["asr_node"]["publish_transcript"],
        ) as graph:
            recorder = _Recorder(graph, bag)
            player = _Player(graph, bag, speed, values["speech_node"])
            started = time.perf_counter()
            with progress_bar(path.name) as progress:
                player.play(progress)
            # The end of the recording ends the last utterance, as it does offline.
            graph.transition(Transition.TRANSITION_DEACTIVATE, ("speech_node",))
            player.wait(recorder.settled, LAST_WAIT)
            wall_time = time.perf_counter() - started
        if out is not None:
            recorder.write(out)
        log = recorder.log
        return ReplayRun(
            bag=path,
            topic=bag.topic,
            message_type=bag.message_type,
            duration=player.seconds,
            parameters=parameters,
            model_id=log.model_id,
            labels=log.labels or known,
            recogniser=recorder.recogniser if with_words else "none",
            utterances=log.utterances,
            reference=reference,
            counters=dict(recorder.counters),
            wall_time=wall_time,
            envelope=player.envelope,
            truncated=player.truncated,
            extra={"live": True, "play_speed": speed},
        )


class _Recorder:
    """Everything the nodes publish, in the order in which it came."""

    def __init__(self, graph: Graph, bag: AudioBag) -> None:
        self.log = UtteranceLog(bag.origin_ns)
        self.recogniser = "unknown"
        self.counters = dict.fromkeys((name.lstrip("/") for name in TOPICS), 0)
        self._ended: set[int] = set()
        self._messages: list[tuple[str, int, bytes]] = []
        self._now_ns = bag.start_ns
        listeners = (
            (Speech, "speech", self._speech, qos.SPEECH),
            (TranscriptMsg, "transcript", self._transcript, qos.TRANSCRIPT),
            (EmotionState, "emotion_state", self._state, qos.EMOTION),
            (EmotionState, "emotion_final", partial(self._keep, "emotion_final"), qos.EMOTION),
            (
                ConversationEmotion,
                "conversation_emotion",
                partial(self._keep, "conversation_emotion"),
                qos.EMOTION,
            ),
            (
                EmotionExplanation,
                "emotion_explanation",
                partial(self._keep, "emotion_explanation"),
                qos.EMOTION,
            ),
            (Clock, "/clock", self._clock, 10),
        )
        for kind, name, callback, quality in listeners:
            graph.node.create_subscription(kind, name, callback, quality)

    def settled(self) -> bool:
        """Each utterance that ended has its final state, and all that comes with it."""
        finals = self.log.final_states
        return all(
            count == finals
            for count in (
                len(self._ended),
                self.counters["emotion_final"],
                self.counters["conversation_emotion"],
            )
        )

    def write(self, out: Path) -> None:
        """Write OUT/bag."""
        if (out / "bag").exists():
            raise HriEmoError(f"'{out / 'bag'}' exists already: give another folder with --out")
        out.mkdir(parents=True, exist_ok=True)
        store = emotion_typestore()
        with new_bag(out / "bag") as writer:
            connections = {
                name: writer.add_connection(
                    name, kind, typestore=store, offered_qos_profiles=[RELIABLE]
                )
                for name, kind in TOPICS.items()
            }
            for name, stamp_ns, data in self._messages:
                writer.write(connections[name], stamp_ns, data)

    def _keep(self, name: str, message: Any) -> None:
        self.counters[name] += 1
        self._messages.append((f"/{name}", self._now_ns, serialize_message(message)))

    def _clock(self, message: Clock) -> None:
        self._now_ns = max(self._now_ns, to_ns(message.clock))

    def _speech(self, message: Speech) -> None:
        self._keep("speech", message)
        self.log.add(chunk_of(message))
        if message.last:
            self._ended.add(message.utterance_id)

    def _transcript(self, message: TranscriptMsg) -> None:
        self._keep("transcript", message)
        self.recogniser = message.recogniser or self.recogniser
        stamp_ns = to_ns(message.header.stamp)
        self.log.add(
            TranscriptRecord(
                message.utterance_id,
                stamp_ns,
                transcript_of(message),
                message.duration,
                message.stage == TranscriptMsg.STAGE_FINAL,
            )
        )

    def _state(self, message: EmotionState) -> None:
        self._keep("emotion_state", message)
        self.log.add(_outcome(message))


class _Player:
    """Publishes the bag: audio with its own stamps, /clock with the times of receipt."""

    def __init__(self, graph: Graph, bag: AudioBag, speed: float, parameters: Any) -> None:
        self._graph, self._bag, self._speed = graph, bag, speed
        self._parameters = parameters
        self._format: PcmFormat | None = None
        self.envelope = Envelope()
        self.truncated = ""
        self.seconds = 0.0
        node = graph.node
        self._clock = node.create_publisher(Clock, "/clock", 10)
        self._robot = node.create_publisher(Bool, "robot_speaking", qos.EVENT)
        self._now_ns = 0.0

    def play(self, progress: Callable[[float, float], None]) -> None:
        """Returns when the last message has been sent."""
        first = next(self._bag.messages(), None)
        if first is None:
            return
        audio = AudioPublisher(self._graph.node, None, first.stamped)
        if self._parameters["audio.use_info"] and self._bag.format is not None:
            self._format = self._bag.format
            audio.tell(self._bag.format)
        kinds = self._graph.kinds
        ready = self._graph.spin_until(
            lambda: (
                audio.reaches("speech_node")
                and reaches(self._graph.node, self._robot, "speech_node")
                and self._clock.get_subscription_count()
                >= self._graph.node.count_subscribers("/clock")
                > len(kinds)  # The recorder too.
            )
        )
        if not ready:
            raise HriEmoError(f"speech_node does not listen: {self._graph.output('speech_node')}")
        self._tell_time(first.receive_ns)
        audio.arrived(LIMIT)
        self._taken()
        began, met = time.monotonic(), False
        try:
            for event in self._bag.sounds(self._parameters):
                if isinstance(event, RobotSpeaking):
                    receive_ns = event.arrived_ns
                else:
                    receive_ns = event.message.receive_ns
                due = began + (receive_ns - first.receive_ns) * 1e-9 / self._speed
                self._graph.spin(max(0.001, due - time.monotonic()))
                self._tell_time(receive_ns)
                if isinstance(event, RobotSpeaking):
                    self._robot.publish(Bool(data=event.active))
                else:
                    self._send(audio, event)
                    if not met:
                        # Before both ends have found each other, what is sent comes 3 s late.
                        sent = time.monotonic()
                        met = audio.arrived(LIMIT)
                        began += time.monotonic() - sent
                progress(self._bag.seconds(receive_ns), self._bag.duration)
        except TruncatedBagError as error:
            self.truncated = str(error)
        self._taken()

    def wait(self, condition: Callable[[], bool], timeout: float) -> None:
        """Let time go on, at its ordinary pace, until `condition` holds."""
        began, start_ns = time.monotonic(), self._now_ns
        while not condition() and time.monotonic() - began < timeout:
            self._tell_time(start_ns + int((time.monotonic() - began) * 1e9))
            self._graph.spin(0.05)
        # Explanations come last, and an abstained state has none to wait for.
        self._graph.spin(0.5)

    def _send(self, audio: AudioPublisher, sound: Sound) -> None:
        if sound.format != self._format:
            self._tell(audio, sound.format)
        audio.send(sound.message.data, sound.message.stamp_ns, "microphone")
        rate = sound.format.sample_rate
        self.envelope.add(sound.frames, sound.start, rate)
        self.seconds = max(self.seconds, sound.start + len(sound.frames) / rate)

    def _tell(self, audio: AudioPublisher, pcm_format: PcmFormat) -> None:
        self._format = pcm_format
        audio.tell(pcm_format)
        # On a topic of its own: it is to come before the audio that it tells of.
        self._taken()

    def _taken(self) -> None:
        """Wait until the nodes have taken what was sent on topics of their own. Acknowledgements would take 3 s."""
        for kind in self._graph.kinds:
            self._graph.state(kind)

    def _tell_time(self, stamp_ns: float) -> None:
        self._now_ns = stamp_ns
        self._clock.publish(Clock(clock=to_time(int(stamp_ns))))


def _outcome(message: EmotionState) -> Outcome:
    """EmotionState -> Outcome, as far as the evaluation needs it."""
    scores = message.scores
    words = message.transcript or message.rejected_transcript
    estimate = EmotionEstimate(
        labels=tuple(score.label for score in scores),
        probabilities=np.array([score.probability for score in scores], np.float32),
        above_threshold=np.array([score.above_threshold for score in scores], np.bool_),
        uncertainty=message.uncertainty,
        audio_weight=message.audio_weight,
        text_weight=message.text_weight,
        audio_weight_per_emotion=np.array([score.audio_weight for score in scores], np.float32),
        text_weight_per_emotion=np.array([score.text_weight for score in scores], np.float32),
        duration=message.duration,
        model_id=message.model_id,
        valence=message.valence,
        arousal=message.arousal,
        voice_id=message.voice_id,
        voice_utterances=message.voice_utterances,
        beginning_lost=message.beginning_lost,
        abstain_reason=AbstainReason(message.abstain_reason),
        quality=quality_of(message.quality),
        transcript=Transcript(
            words,
            confidence=message.transcript_confidence,
            language=message.language,
            status=TranscriptStatus(message.transcript_status),
        ),
    )
    final = message.stage == EmotionState.STAGE_FINAL
    return Outcome(
        utterance_id=message.utterance_id,
        stage="final" if final else "provisional",
        stamp_ns=to_ns(message.header.stamp),
        estimate=estimate,
        latency={
            stage: float(getattr(message.latency, name)) for stage, name in LATENCY_FIELDS.items()
        },
    )
