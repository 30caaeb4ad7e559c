# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Plays samples to a running graph in every way a robot may, and collects what comes out."""

from __future__ import annotations

import array
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import soxr
from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.duration import Duration
from rclpy.qos import QoSProfile, ReliabilityPolicy

from hri_emo_msgs.msg import EmotionExplanation, EmotionState, Speech
from hri_emo_msgs.msg import Transcript as TranscriptMsg
from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.adaptive import reaches
from hri_emo_ros.nodes.conversions import to_ns, to_time
from hri_emo_ros.nodes.graph import LIMIT, Graph
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

DATA = Path(__file__).parent / "data"
_met: WeakSet[Any] = WeakSet()
"""Publishers of which something was acknowledged: both ends have found each other. What comes before that is sent again
3 s later, Fast DDS's heartbeat; and so long the acknowledgement of anything but the first would take."""
START_NS = 1_700_000_000_000_000_000
"""Sensor time of the first sample: years away from this machine's clock."""


def clips(*names: str, gap: float = 1.2) -> FloatArray:
    """Clips of test/data one after another, with silence before, between and after; 16 kHz."""
    # Not digital silence: no microphone gives that.
    rng = np.random.default_rng(1)
    pieces: list[Any] = []
    for name in names:
        pieces += [np.zeros(round(gap * SAMPLE_RATE)), read_audio(DATA / f"{name}.flac")]
    pieces.append(np.zeros(round(gap * SAMPLE_RATE)))
    joined = np.concatenate(pieces)
    return (joined + rng.normal(0.0, 1e-4, len(joined))).astype(np.float32)


@dataclass
class Heard:
    """What the graph published since `clear`."""

    states: list[EmotionState] = field(default_factory=list)
    speech: list[Speech] = field(default_factory=list)
    transcripts: list[TranscriptMsg] = field(default_factory=list)
    explanations: list[EmotionExplanation] = field(default_factory=list)
    statuses: list[DiagnosticStatus] = field(default_factory=list)
    subscriptions: list[Any] = field(default_factory=list)
    written: dict[str, int] = field(default_factory=dict)
    """When each node, by its status' name, wrote its newest diagnostics, ns of its clock."""
    _seen: set[str] = field(default_factory=set)
    _over: set[str] = field(default_factory=set)
    """Streams of which nothing is heard any more."""
    _since_ns: int = 0

    def clear(self) -> None:
        self._seen |= {m.stream_id for m in (*self.states, *self.speech, *self.transcripts)}
        for part in (
            self.states, self.speech, self.transcripts, self.explanations, self.statuses,
        ):  # fmt: skip
            part.clear()

    def start_over(self) -> None:
        """Nothing heard yet; what is still on its way of streams heard before is not heard either."""
        self.clear()
        self._over |= self._seen
        self._since_ns = time.time_ns()

    def take(self, part: list[Any]) -> Callable[[Any], None]:
        """What adds a message to `part`."""

        def keep(message: Any) -> None:
            if message.stream_id not in self._over:
                part.append(message)

        return keep

    def take_diagnostics(self, message: DiagnosticArray) -> None:
        stamp = to_ns(message.header.stamp)
        if stamp >= self._since_ns:
            self.statuses.extend(message.status)
            self.written |= {status.name: stamp for status in message.status}

    @property
    def finals(self) -> list[EmotionState]:
        return [s for s in self.states if s.stage == EmotionState.STAGE_FINAL]

    @property
    def utterances(self) -> list[tuple[int, int]]:
        """(first sample in the stream, samples) of each utterance that has ended."""
        return [
            (m.stream_start_sample, m.first_sample + len(m.samples)) for m in self.speech if m.last
        ]

    def status(self, node: str) -> DiagnosticStatus | None:
        """The newest diagnostics of a node."""
        found = [s for s in self.statuses if s.name.endswith(f": {node}")]
        return found[-1] if found else None

    def value(self, node: str, name: str) -> str:
        """What a node's newest diagnostics list under a name; empty if nothing."""
        status = self.status(node)
        return counter(status, name) if status is not None else ""


def counter(status: DiagnosticStatus, name: str) -> str:
    """What a node lists under a name; empty if nothing."""
    return next((value.value for value in status.values if value.key == name), "")


def probabilities(state: EmotionState) -> list[float]:
    """Of each emotion, in the model's order."""
    return [score.probability for score in state.scores]


def listen(
    graph: Graph, nodes: Iterable[str] | None = None, without: Collection[str] = ()
) -> Heard:
    """Collect everything from now on; returns when all that is published will be heard.

    Args:
        nodes: those to be heard, with their namespaces; None for the graph's own.
        without: topics that are not listened to. Whoever listens to `speech` makes speech_node speak.
    """
    heard, node = Heard(), graph.node
    for topic, kind, part, quality in (
        ("emotion_state", EmotionState, heard.states, qos.EMOTION),
        ("speech", Speech, heard.speech, qos.SPEECH),
        ("transcript", TranscriptMsg, heard.transcripts, qos.TRANSCRIPT),
        ("emotion_explanation", EmotionExplanation, heard.explanations, qos.EMOTION),
    ):
        if topic not in without:
            subscription = node.create_subscription(kind, topic, heard.take(part), quality)
            heard.subscriptions.append(subscription)
    last = node.create_subscription(DiagnosticArray, "/diagnostics", heard.take_diagnostics, 100)
    heard.subscriptions.append(last)
    space = node.get_namespace().strip("/")
    own = [f"{space}/{kind}".lstrip("/") for kind in graph.kinds]
    wanted = set(own if nodes is None else nodes)

    # A node that has found the last subscription has found those made before it.
    assert graph.spin_until(lambda: wanted <= {s.name.partition(":")[0] for s in heard.statuses}), (
        heard.statuses
    )
    all_listen(graph, heard)
    return heard


def all_listen(graph: Graph, heard: Heard) -> None:
    """Wait until each speech_node that is configured has found all who listen: one is enough for it to speak."""

    def found() -> bool:
        newest = {status.name: status for status in heard.statuses}
        there = graph.node.get_subscriptions_info_by_topic("speech")
        wanted = {
            name.rpartition(" ")[2]
            for name, status in newest.items()
            if name.endswith((": asr_node", ": emotion_node"))
            and counter(status, "state") == "active"
            and counter(status, "recogniser") != "none"
        }
        return wanted <= {s.node_name for s in there} and all(
            counter(status, "listeners") in ("", str(len(there))) for status in newest.values()
        )

    assert graph.spin_until(found), heard.status("speech_node")


def create_publisher(graph: Graph, kind: Any, topic: str, quality: Any, to: str) -> Any:
    """One that the node `to` will hear all from."""
    made = graph.node.create_publisher(kind, topic, quality)
    assert graph.spin_until(lambda: reaches(graph.node, made, to)), graph.output(to)
    return made


def words_publisher(graph: Graph, heard: Heard, kind: Any, topic: str = "transcript") -> Any:
    """One that emotion_node knows of: it waits for words where anybody publishes them."""
    made = create_publisher(graph, kind, topic, qos.TRANSCRIPT, "emotion_node")
    own = graph.node.get_fully_qualified_name()
    assert graph.spin_until(lambda: heard.value("emotion_node", "words from") == own)
    return made


def tell(graph: Graph, publisher: Any, message: Any, to: str = "speech_node") -> None:
    """Publish; returns when the node has taken it."""
    publisher.publish(message)
    if publisher not in _met:
        assert publisher.wait_for_all_acked(Duration(seconds=LIMIT))
        _met.add(publisher)
    graph.state(to)


def later(
    graph: Graph,
    heard: Heard,
    node: str,
    condition: Callable[[DiagnosticStatus], object] = lambda status: True,
) -> DiagnosticStatus:
    """The diagnostics that `node` writes from now on, once `condition` holds of them."""
    began, found = time.time_ns(), []

    def holds() -> bool:
        status = heard.status(node)
        if status is None or heard.written[status.name] < began or not condition(status):
            return False
        found.append(status)
        return True

    assert graph.spin_until(holds), heard.status(node)
    return found[0]


def said(
    graph: Graph, heard: Heard, node: str, text: str, level: bytes | None = None
) -> DiagnosticStatus:
    """The first diagnostics since `clear` in which `node` says `text`, once it does."""

    def found() -> list[DiagnosticStatus]:
        return [
            s
            for s in heard.statuses
            if s.name.endswith(f": {node}") and text in s.message and level in (None, s.level)
        ]

    assert graph.spin_until(found), heard.status(node)
    return found()[0]


def worked_off(graph: Graph, heard: Heard, sent: int = 0) -> None:
    """Wait until speech_node has worked off `sent` messages, and both nodes all that followed: nothing more comes."""
    later(
        graph, heard, "speech_node",
        lambda s: int(counter(s, "messages") or 0) >= sent and counter(s, "audio waiting (s)") == "0",
    )  # fmt: skip

    def finished(status: DiagnosticStatus) -> bool:
        ended = {(m.stream_id, m.utterance_id) for m in heard.speech if m.last}
        idle = counter(status, "utterances in work") == counter(status, "messages waiting") == "0"
        return idle and ended <= {(f.stream_id, f.utterance_id) for f in heard.finals}

    later(graph, heard, "emotion_node", finished)


def restart(graph: Graph, kind: str = "speech_node") -> None:
    """Deactivate and activate: a new stream."""
    graph.transition(Transition.TRANSITION_DEACTIVATE, (kind,))
    graph.transition(Transition.TRANSITION_ACTIVATE, (kind,))


def configure_anew(graph: Graph, kind: str) -> None:
    """From the beginning: nothing is left of what it said."""
    for transition in (
        Transition.TRANSITION_DEACTIVATE,
        Transition.TRANSITION_CLEANUP,
        Transition.TRANSITION_CONFIGURE,
        Transition.TRANSITION_ACTIVATE,
    ):
        graph.transition(transition, (kind,))


def set_parameter(graph: Graph, node: str, name: str, value: ParameterValue) -> tuple[bool, str]:
    """Like `ros2 param set`: (accepted, why not)."""
    request = SetParameters.Request(parameters=[ParameterMsg(name=name, value=value)])
    result = graph.call(SetParameters, node, "set_parameters", request).results[0]
    return result.successful, result.reason


def double(value: float) -> ParameterValue:
    return ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)


def pcm(samples: FloatArray, rate: int, channels: int) -> np.ndarray:
    """16 kHz float mono -> int16 [frames, channels] at `rate`."""
    if rate != SAMPLE_RATE:
        samples = soxr.resample(samples, SAMPLE_RATE, rate).astype(np.float32)
    scaled = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
    return np.repeat(scaled[:, None], channels, axis=1)


def play(
    graph: Graph,
    samples: FloatArray,
    *,
    rate: int = SAMPLE_RATE,
    channels: int = 1,
    chunk_ms: int = 20,
    speed: float = 8.0,
    stamped: bool = True,
    start_ns: int = START_NS,
    info: AudioInfo | None = None,
    reliable: bool = True,
    topic: str = "audio",
    chunks: Sequence[bytes] | None = None,
    stamps: Sequence[int] | None = None,
    events: Mapping[int, Callable[[], None]] | None = None,
) -> int:
    """Publish samples (or ready-made `chunks`) as a robot's driver would, faster than real time.

    Returns how many messages that were, when they have reached speech_node.

    `stamps`: of each chunk, ns from `start_ns`; None counts samples. `events`: what happens before the chunks
    of these numbers.
    """
    if info is None:
        info = AudioInfo(
            channels=channels, sample_rate=rate, sample_format="S16LE", coding_format="wave"
        )
    told = create_publisher(graph, AudioInfo, "audio_info", qos.AUDIO_INFO, "speech_node")
    tell(graph, told, info)
    reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    kind: Any = AudioDataStamped if stamped else AudioData
    quality = QoSProfile(depth=1000, reliability=reliability)
    out = create_publisher(graph, kind, topic, quality, "speech_node")
    frames = round(rate * chunk_ms / 1000)
    if chunks is None:
        data = pcm(samples, rate, channels)
        chunks = [data[k : k + frames].tobytes() for k in range(0, len(data), frames)]
    began = time.monotonic()
    for number, chunk in enumerate(chunks):
        if number == 1 and stamped:  # Without stamps a pause is one of the sound.
            assert out.wait_for_all_acked(Duration(seconds=LIMIT))  # See `_met`.
            began = time.monotonic() - frames / rate / speed
        if events and number in events:
            events[number]()
        part = AudioData(data=array.array("B", chunk))
        if stamped:
            part = AudioDataStamped(audio=part)
            counted = number * frames * 1_000_000_000 // rate
            part.header.stamp = to_time(start_ns + (stamps[number] if stamps else counted))
            part.header.frame_id = "left_ear"
        out.publish(part)
        if number % 5 == 0:
            graph.spin(max(0.0, began + (number + 1) * frames / rate / speed - time.monotonic()))
    # What has not arrived would go with the publisher.
    graph.state("speech_node")
    graph.node.destroy_publisher(out)
    graph.node.destroy_publisher(told)
    return len(chunks)
