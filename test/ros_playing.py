# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Plays samples to a running graph in every way a robot may, and collects what comes out."""

from __future__ import annotations

import array
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from hri_emo_ros.nodes.conversions import to_time
from hri_emo_ros.nodes.graph import Graph
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

DATA = Path(__file__).parent / "data"
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

    def clear(self) -> None:
        for part in (
            self.states, self.speech, self.transcripts, self.explanations, self.statuses,
        ):  # fmt: skip
            part.clear()

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


def counter(status: DiagnosticStatus, name: str) -> str:
    """What a node lists under a name; empty if nothing."""
    return next((value.value for value in status.values if value.key == name), "")


def probabilities(state: EmotionState) -> list[float]:
    """Of each emotion, in the model's order."""
    return [score.probability for score in state.scores]


def listen(graph: Graph) -> Heard:
    """Collect everything from now on."""
    heard, node = listen_to_states(graph), graph.node
    node.create_subscription(Speech, "speech", heard.speech.append, qos.SPEECH)
    node.create_subscription(TranscriptMsg, "transcript", heard.transcripts.append, qos.TRANSCRIPT)
    node.create_subscription(
        EmotionExplanation, "emotion_explanation", heard.explanations.append, qos.EMOTION
    )
    return heard


def listen_to_states(graph: Graph) -> Heard:
    """Collect states and diagnostics; whoever listens to `speech` too makes speech_node speak."""
    heard, node = Heard(), graph.node
    node.create_subscription(EmotionState, "emotion_state", heard.states.append, qos.EMOTION)

    def diagnostics(message: DiagnosticArray) -> None:
        heard.statuses.extend(message.status)

    node.create_subscription(DiagnosticArray, "/diagnostics", diagnostics, 100)
    return heard


def restart(graph: Graph, kind: str = "speech_node") -> None:
    """Deactivate and activate: a new stream."""
    graph.transition(Transition.TRANSITION_DEACTIVATE, (kind,))
    graph.transition(Transition.TRANSITION_ACTIVATE, (kind,))


def set_parameter(graph: Graph, node: str, name: str, value: ParameterValue) -> tuple[bool, str]:
    """Like `ros2 param set`: (accepted, why not)."""
    client = graph.node.create_client(SetParameters, f"/{node}/set_parameters")
    assert client.wait_for_service(10.0)
    request = SetParameters.Request(parameters=[ParameterMsg(name=name, value=value)])
    future = client.call_async(request)
    assert graph.spin_until(future.done, 10.0)
    graph.node.destroy_client(client)
    result = future.result().results[0]
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
) -> None:
    """Publish samples (or ready-made `chunks`) as a robot's driver would, faster than real time.

    `stamps`: of each chunk, ns from `start_ns`; None counts samples. `events`: what happens before the chunks
    of these numbers.
    """
    node = graph.node
    if info is None:
        info = AudioInfo(
            channels=channels, sample_rate=rate, sample_format="S16LE", coding_format="wave"
        )
    told = node.create_publisher(AudioInfo, "audio_info", qos.AUDIO_INFO)
    told.publish(info)
    assert graph.spin_until(lambda: told.get_subscription_count() > 0, 30.0)
    # A busy node must have it before the audio that it tells of.
    assert told.wait_for_all_acked(Duration(seconds=30.0))
    graph.spin(0.3)
    reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    kind: Any = AudioDataStamped if stamped else AudioData
    out = node.create_publisher(kind, topic, QoSProfile(depth=1000, reliability=reliability))
    assert graph.spin_until(lambda: out.get_subscription_count() > 0, 10.0)
    graph.spin(0.1)
    frames = round(rate * chunk_ms / 1000)
    if chunks is None:
        data = pcm(samples, rate, channels)
        chunks = [data[k : k + frames].tobytes() for k in range(0, len(data), frames)]
    began = time.monotonic()
    for number, chunk in enumerate(chunks):
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
    graph.spin(0.3)
    node.destroy_publisher(out)
    node.destroy_publisher(told)
