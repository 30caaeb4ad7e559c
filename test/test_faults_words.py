# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Words that come late, of the wrong type, or from a recogniser that names no utterance: through the real nodes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from ros_playing import START_NS, Heard, clips, counter, listen, listen_to_states, play, restart
from std_msgs.msg import String

from hri_emo_msgs.msg import EmotionState, Speech
from hri_emo_msgs.msg import Transcript as TranscriptMsg
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.conversions import to_time
from hri_emo_ros.nodes.graph import Graph
from hri_emo_ros.types import FloatArray

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]

HOLD = 1.0
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def graph(tiny_bundle: Path, ros_domain: int) -> Iterator[Graph]:
    with Graph(
        nodes=("speech_node", "emotion_node"),
        bundle=tiny_bundle,
        domain_id=ros_domain,
        parameters={
            "speech_node": {"audio.queue": 120.0},
            "emotion_node": {
                "transcript.source": "string", "final.hold": HOLD, "model.threads": 1,
            },
        },
    ) as running:  # fmt: skip
        yield running


@pytest.fixture(scope="module")
def collected(graph: Graph) -> Heard:
    heard = listen_to_states(graph)
    graph.node.create_subscription(Speech, "speech", heard.speech.append, qos.SPEECH)
    return heard


@pytest.fixture
def stranger(graph: Graph) -> Iterator[Node]:
    """Another process' node: one participant cannot have two types on a topic."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=graph.domain_id)
    node = Node("stranger", context=context, start_parameter_services=False)
    yield node
    if rclpy.ok(context=context):
        node.destroy_node()
    context.try_shutdown()
    context.destroy()


@pytest.fixture(scope="module")
def one() -> FloatArray:
    return clips("emodb_10a07Ta", gap=1.0)


def said(graph: Graph, heard: Heard, node: str, text: str) -> DiagnosticStatus:
    """The diagnostics of a node that say `text`, once they do."""

    def found() -> list[DiagnosticStatus]:
        return [s for s in heard.statuses if s.name.endswith(f": {node}") and text in s.message]

    assert graph.spin_until(found, 30.0), heard.status(node)
    return found()[-1]


@pytest.mark.fault(
    "words", "a recogniser of plain strings that is slower than `final.hold`, every time",
    does="finals from the voice alone; what comes late is nobody's, never the next person's",
    shows="`transcript_status` NONE; `late_transcripts` counts; WARN that names `final.hold`",
)  # fmt: skip
def test_late_strings_are_never_the_next_persons(
    graph: Graph, heard: Heard, one: FloatArray
) -> None:
    robot = graph.node.create_publisher(String, "transcript", qos.TRANSCRIPT)
    assert graph.spin_until(robot.get_subscription_count, 30.0)
    graph.spin(1.0)  # emotion_node looks twice a second whether anybody publishes words.
    for number in range(3):
        play(graph, one, start_ns=START_NS + number * 60 * SECOND)
        if number:
            # The person before is heard while this one's words are awaited.
            assert graph.spin_until(lambda n=number: len(heard.utterances) > n, 30.0)
            robot.publish(String(data=f"words of {number}"))
        assert graph.spin_until(lambda n=number: len(heard.finals) > n, 30.0)
    robot.publish(String(data="words of 3"))
    status = said(graph, heard, "emotion_node", "final.hold")
    assert status.level == DiagnosticStatus.WARN
    assert [f.transcript for f in heard.finals] == [""] * 3
    assert {f.transcript_status for f in heard.finals} == {EmotionState.TRANSCRIPT_NONE}
    assert all(f.text_weight == 0.0 for f in heard.finals if not f.abstained)

    def late() -> bool:
        status = heard.status("emotion_node")
        return status is not None and counter(status, "late_transcripts") == "3"

    assert graph.spin_until(late, 30.0), heard.status("emotion_node")
    # Nothing is owed any more: a recogniser that has caught up is heard again.
    play(graph, one, start_ns=START_NS + 300 * SECOND)
    assert graph.spin_until(lambda: len(heard.utterances) > 3, 30.0)
    robot.publish(String(data="words of 4"))
    assert graph.spin_until(lambda: len(heard.finals) > 3, 30.0)
    assert heard.finals[3].transcript == "words of 4"
    graph.node.destroy_publisher(robot)


@pytest.mark.fault(
    "words", "the stream starts over while a slow recogniser still owes the words of an utterance",
    does="take them for that utterance's", shows="`late_transcripts` counts; the next final has no words of it",
)  # fmt: skip
def test_words_of_the_stream_before_are_nobodys(
    graph: Graph, heard: Heard, one: FloatArray
) -> None:
    robot = graph.node.create_publisher(String, "transcript", qos.TRANSCRIPT)
    assert graph.spin_until(robot.get_subscription_count, 30.0)
    graph.spin(1.0)
    play(graph, one)
    assert graph.spin_until(lambda: heard.finals, 30.0)
    restart(graph)
    play(graph, one)
    assert graph.spin_until(lambda: len(heard.utterances) > 1, 30.0)
    robot.publish(String(data="of the stream before"))
    assert graph.spin_until(lambda: len(heard.finals) > 1, 30.0)
    assert heard.finals[0].stream_id != heard.finals[1].stream_id
    assert [f.transcript for f in heard.finals] == ["", ""]
    robot.publish(String(data=""))
    graph.spin(0.5)
    graph.node.destroy_publisher(robot)


@pytest.mark.parametrize(
    ("topic", "kind", "node", "wanted"),
    [
        pytest.param("transcript", TranscriptMsg, "emotion_node", "std_msgs/msg/String", marks=pytest.mark.fault(
            "words", "another type on `transcript` than `transcript.source` says",
            does="hear no words, wait for none",
            shows="ERROR with both types, who publishes, and `transcript.source`",
        )),
        pytest.param("robot_speaking", String, "speech_node", "std_msgs/msg/Bool", marks=pytest.mark.fault(
            "words", "another type on `robot_speaking`", does="cannot tell when the robot speaks",
            shows="ERROR with both types and who publishes",
        )),
        pytest.param("audio_info", String, "speech_node", "audio_common_msgs/msg/AudioInfo", marks=pytest.mark.fault(
            "words", "another type on `audio_info`", does="read the audio by the parameters",
            shows="ERROR with both types, who publishes, and `audio.use_info`",
        )),
        pytest.param("speech", String, "emotion_node", "hri_emo_msgs/msg/Speech", marks=pytest.mark.fault(
            "words", "another type on `speech` beside ours", does="go on with ours",
            shows="WARN with both types and who publishes",
        )),
    ],
)  # fmt: skip
def test_another_type_is_said_with_who_publishes_it(
    graph: Graph, heard: Heard, stranger: Node, topic: str, kind: Any, node: str, wanted: str
) -> None:
    stranger.create_publisher(kind, topic, 10)
    status = said(graph, heard, node, f"/{topic} is to carry {wanted}")
    expected = DiagnosticStatus.WARN if topic == "speech" else DiagnosticStatus.ERROR
    assert status.level in (expected, DiagnosticStatus.ERROR)
    assert "/stranger (" in status.message
    assert f"remap '{topic}'" in status.message
    stranger.destroy_node()
    stranger.context.shutdown()
    # With the stranger it goes.
    assert graph.spin_until(lambda: "is to carry" not in heard.status(node).message, 30.0)


@pytest.mark.fault(
    "words", "Transcript without an utterance's number, its time that of the words, by the audio's clock or another",
    does="give them to the utterance at that time; where the clocks are apart, to the first that awaits words",
    shows="each final with its own words",
)  # fmt: skip
def test_words_with_a_time_go_to_the_utterance_at_that_time(
    tiny_bundle: Path, one: FloatArray
) -> None:
    with Graph(
        nodes=("speech_node", "emotion_node"),
        bundle=tiny_bundle,
        parameters={"emotion_node": {"final.hold": 20.0, "model.threads": 1}},
    ) as graph:
        heard = listen(graph)
        robot = graph.node.create_publisher(TranscriptMsg, "transcript", qos.TRANSCRIPT)
        assert graph.spin_until(robot.get_subscription_count, 30.0)
        graph.spin(1.0)
        # The second utterance's words come first.
        start = time.time_ns()
        play(graph, clips("emodb_10a07Ta", "emodb_11a02Wc"), start_ns=start, speed=1.0)
        assert graph.spin_until(lambda: len(heard.utterances) == 2, 30.0)
        begins = [m.utterance_start for m in heard.speech if m.last]
        for number in (1, 0):
            words = TranscriptMsg(text=f"words of {number}", stage=TranscriptMsg.STAGE_FINAL)
            words.header.stamp.sec = begins[number].sec + 1
            words.header.stamp.nanosec = begins[number].nanosec
            robot.publish(words)
        assert graph.spin_until(lambda: len(heard.finals) == 2, 30.0)
        assert [f.transcript for f in heard.finals] == ["words of 0", "words of 1"]
        # 5 s behind, the words' own clock would name another utterance.
        start = time.time_ns() - 5 * SECOND
        heard.clear()
        play(graph, clips("emodb_10a07Ta", "emodb_11a02Wc"), start_ns=start, speed=1.0)
        assert graph.spin_until(lambda: len(heard.utterances) == 2, 30.0)
        for number in (0, 1):
            words = TranscriptMsg(text=f"words of {number}", stage=TranscriptMsg.STAGE_FINAL)
            words.header.stamp = to_time(time.time_ns() - 5 * SECOND)
            robot.publish(words)
        assert graph.spin_until(lambda: len(heard.finals) == 2, 30.0)
        assert [f.transcript for f in heard.finals] == ["words of 0", "words of 1"]
