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
from ros_playing import (
    START_NS,
    Heard,
    clips,
    double,
    later,
    listen,
    play,
    restart,
    said,
    set_parameter,
    tell,
    words_publisher,
)
from std_msgs.msg import String

from hri_emo_msgs.msg import EmotionState
from hri_emo_msgs.msg import Transcript as TranscriptMsg
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
    return listen(graph, without=("transcript",))  # It has another type here.


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


@pytest.fixture
def robot(graph: Graph, heard: Heard) -> Iterator[Any]:
    """A recogniser of plain strings that emotion_node knows of."""
    made = words_publisher(graph, heard, String)
    yield made
    graph.node.destroy_publisher(made)


@pytest.mark.fault(
    "words", "a recogniser of plain strings that is slower than `final.hold`, every time",
    does="finals from the voice alone; what comes late is nobody's, never the next person's",
    shows="`transcript_status` NONE; `late_transcripts` counts; WARN that names `final.hold`",
)  # fmt: skip
def test_late_strings_are_never_the_next_persons(
    graph: Graph, heard: Heard, robot: Any, one: FloatArray
) -> None:
    for number in range(3):
        play(graph, one, start_ns=START_NS + number * 60 * SECOND)
        if number:
            # The person before is heard while this one's words are awaited.
            assert graph.spin_until(lambda n=number: len(heard.utterances) > n)
            robot.publish(String(data=f"words of {number}"))
        assert graph.spin_until(lambda n=number: len(heard.finals) > n)
    robot.publish(String(data="words of 3"))
    status = said(graph, heard, "emotion_node", "final.hold")
    assert status.level == DiagnosticStatus.WARN
    assert [f.transcript for f in heard.finals] == [""] * 3
    assert {f.transcript_status for f in heard.finals} == {EmotionState.TRANSCRIPT_NONE}
    assert all(f.text_weight == 0.0 for f in heard.finals if not f.abstained)
    assert graph.spin_until(lambda: heard.value("emotion_node", "late_transcripts") == "3")
    # Nothing is owed any more: a recogniser that has caught up is heard again.
    assert set_parameter(graph, "emotion_node", "final.hold", double(30.0))[0]
    play(graph, one, start_ns=START_NS + 300 * SECOND)
    assert graph.spin_until(lambda: len(heard.utterances) > 3)
    robot.publish(String(data="words of 4"))
    assert graph.spin_until(lambda: len(heard.finals) > 3)
    assert heard.finals[3].transcript == "words of 4"
    assert set_parameter(graph, "emotion_node", "final.hold", double(HOLD))[0]


@pytest.mark.fault(
    "words", "the stream starts over while a slow recogniser still owes the words of an utterance",
    does="take them for that utterance's", shows="`late_transcripts` counts; the next final has no words of it",
)  # fmt: skip
def test_words_of_the_stream_before_are_nobodys(
    graph: Graph, heard: Heard, robot: Any, one: FloatArray
) -> None:
    play(graph, one)
    assert graph.spin_until(lambda: heard.finals)
    restart(graph)
    play(graph, one)
    assert graph.spin_until(lambda: len(heard.utterances) > 1)
    robot.publish(String(data="of the stream before"))
    assert graph.spin_until(lambda: len(heard.finals) > 1)
    assert heard.finals[0].stream_id != heard.finals[1].stream_id
    assert [f.transcript for f in heard.finals] == ["", ""]
    tell(graph, robot, String(data=""), "emotion_node")


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
    carry = f"/{topic} is to carry {wanted}"
    status = later(graph, heard, node, lambda s: carry in s.message and "/stranger (" in s.message)
    expected = DiagnosticStatus.WARN if topic == "speech" else DiagnosticStatus.ERROR
    assert status.level in (expected, DiagnosticStatus.ERROR)
    assert f"remap '{topic}'" in status.message
    stranger.destroy_node()
    stranger.context.shutdown()
    # With the stranger it goes.
    later(graph, heard, node, lambda s: "is to carry" not in s.message)


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
        robot = words_publisher(graph, heard, TranscriptMsg)
        # The second utterance's words come first.
        start = time.time_ns()
        play(graph, clips("emodb_10a07Ta", "emodb_11a02Wc"), start_ns=start, speed=1.0)
        assert graph.spin_until(lambda: len(heard.utterances) == 2)
        begins = [m.utterance_start for m in heard.speech if m.last]
        for number in (1, 0):
            words = TranscriptMsg(text=f"words of {number}", stage=TranscriptMsg.STAGE_FINAL)
            words.header.stamp.sec = begins[number].sec + 1
            words.header.stamp.nanosec = begins[number].nanosec
            robot.publish(words)
        assert graph.spin_until(lambda: len(heard.finals) == 2)
        assert [f.transcript for f in heard.finals] == ["words of 0", "words of 1"]
        # 5 s behind, the words' own clock would name another utterance.
        start = time.time_ns() - 5 * SECOND
        heard.clear()
        play(graph, clips("emodb_10a07Ta", "emodb_11a02Wc"), start_ns=start, speed=1.0)
        assert graph.spin_until(lambda: len(heard.utterances) == 2)
        for number in (0, 1):
            words = TranscriptMsg(text=f"words of {number}", stage=TranscriptMsg.STAGE_FINAL)
            words.header.stamp = to_time(time.time_ns() - 5 * SECOND)
            robot.publish(words)
        assert graph.spin_until(lambda: len(heard.finals) == 2)
        assert [f.transcript for f in heard.finals] == ["words of 0", "words of 1"]
