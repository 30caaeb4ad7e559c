# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The robot's word that it speaks, beside audio of another clock: through the real nodes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import Log
from ros_playing import (
    DATA,
    START_NS,
    Heard,
    all_listen,
    clips,
    counter,
    create_publisher,
    double,
    later,
    listen,
    play,
    restart,
    said,
    set_parameter,
    tell,
    worked_off,
)
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.conversions import to_ns, to_time
from hri_emo_ros.nodes.graph import Graph
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]

SECOND = 1_000_000_000
GAP = 1.5
ROBOTS = "emodb_11a02Wc"
"""What the robot says; a person says something after it."""
TURN = round((GAP + len(read_audio(DATA / f"{ROBOTS}.flac")) / SAMPLE_RATE + 0.5) * 50)
"""Number of the message of 20 ms between the two."""


@pytest.fixture(scope="module")
def turns() -> FloatArray:
    """The robot, then a person."""
    return clips(ROBOTS, "emodb_10a07Ta", gap=GAP)


@pytest.fixture
def robot(graph: Graph) -> Iterator[Any]:
    publisher = create_publisher(graph, Bool, "robot_speaking", qos.EVENT, "speech_node")
    yield publisher
    tell(graph, publisher, Bool(data=False))
    graph.node.destroy_publisher(publisher)


@pytest.mark.parametrize(
    ("clock", "loop"),
    [
        pytest.param(lambda: 5000 * SECOND, False, marks=pytest.mark.fault(
            "time", "audio stamped by a clock that began with the driver (5000 s)",
            does="take robot_speaking for the samples that come in with it",
            shows="no state of what the robot says; one WARN line, and the difference in `/diagnostics`",
        )),
        pytest.param(lambda: time.time_ns() - 7 * SECOND, False, marks=pytest.mark.fault(
            "time", "audio stamped by a clock that is seconds behind",
            does="take robot_speaking for the samples that come in with it",
            shows="no state of what the robot says; one WARN line, and the difference in `/diagnostics`",
        )),
        pytest.param(lambda: START_NS, True, marks=pytest.mark.fault(
            "time", "the stamps jump back while the robot speaks (a bag that is played in a loop)",
            does="go on being deaf to it; begin a new stretch of time", shows="`restarts` 1; the person's state",
        )),
    ],
)  # fmt: skip
def test_the_robots_voice_is_not_heard_whatever_clock_stamps_the_audio(
    graph: Graph, heard: Heard, robot: Any, turns: FloatArray, clock: Any, loop: bool
) -> None:
    lines: list[str] = []
    log = graph.node.create_subscription(Log, "/rosout", lambda m: lines.append(m.msg), 100)
    start, count = clock(), -(-len(turns) // 320)
    middle = TURN // 2
    stamps = [number * SECOND // 50 for number in range(count)]
    if loop:
        stamps = [
            stamp - (middle * SECOND // 50 if stamp >= middle * SECOND // 50 else 0)
            for stamp in stamps
        ]
    played: list[int] = []
    events = {
        round(GAP * 50) - 20: lambda: tell(graph, robot, Bool(data=True)),
        TURN: lambda: tell(graph, robot, Bool(data=False)),
        count - 1: lambda: played.append(time.time_ns()),
    }
    sent = play(graph, turns, start_ns=start, stamps=stamps, events=events, speed=1.0)
    worked_off(graph, heard, sent)
    (final,) = heard.finals
    assert to_ns(final.header.stamp) > start + stamps[TURN]
    assert not final.abstained
    status = heard.status("speech_node")
    assert status is not None
    behind = float(counter(status, "stamps behind this node's clock (s)"))
    assert behind == pytest.approx((played[0] - start - stamps[-1]) * 1e-9, rel=0.01, abs=5.0)
    assert counter(status, "restarts") == str(int(loop))
    assert len([line for line in lines if "this node's clock" in line]) == 1, lines
    graph.node.destroy_subscription(log)


@pytest.mark.fault(
    "time", "speech_node, then the node that says robot_speaking, is restarted while the robot speaks",
    does="go on being deaf, and hear again when the new one says false",
    shows="no state of what the robot says; the person's",
)  # fmt: skip
def test_the_robots_word_survives_restarts_of_either_side(
    graph: Graph, heard: Heard, turns: FloatArray
) -> None:
    first = create_publisher(graph, Bool, "robot_speaking", qos.EVENT, "speech_node")
    tell(graph, first, Bool(data=True))
    restart(graph)
    graph.transition(Transition.TRANSITION_DEACTIVATE, ("speech_node",))
    graph.transition(Transition.TRANSITION_CLEANUP, ("speech_node",))
    graph.transition(Transition.TRANSITION_CONFIGURE, ("speech_node",))
    graph.transition(Transition.TRANSITION_ACTIVATE, ("speech_node",))
    later(graph, heard, "speech_node")
    all_listen(graph, heard)
    play(graph, turns[: 320 * TURN], speed=4.0)
    graph.node.destroy_publisher(first)
    second = create_publisher(graph, Bool, "robot_speaking", qos.EVENT, "speech_node")
    sent = play(graph, turns[: 320 * TURN], start_ns=START_NS + 60 * SECOND, speed=4.0)
    worked_off(graph, heard, 2 * sent)
    assert heard.speech == []
    tell(graph, second, Bool(data=False))
    play(graph, turns[320 * TURN :], start_ns=START_NS + 90 * SECOND, speed=4.0)
    assert graph.spin_until(lambda: heard.finals)
    graph.node.destroy_publisher(second)


@pytest.mark.fault(
    "time", "robot_speaking stays true (its node crashed in the midst of a sentence)",
    does="stay deaf: it may speak still", shows="WARN after `robot_speaking.limit` that names who publishes it",
)  # fmt: skip
def test_a_robot_that_never_stops_is_a_warning(graph: Graph, heard: Heard, robot: Any) -> None:
    assert set_parameter(graph, "speech_node", "robot_speaking.limit", double(1.0))[0]
    robot.publish(Bool(data=True))
    status = said(graph, heard, "speech_node", "has been true for more than 1 s")
    assert status.level in (DiagnosticStatus.WARN, DiagnosticStatus.ERROR)
    assert "/robot_speaking" in status.message
    assert "/hri_emo_graph (std_msgs/msg/Bool)" in status.message
    robot.publish(Bool(data=False))
    later(graph, heard, "speech_node", lambda s: "has been true" not in s.message)
    assert set_parameter(graph, "speech_node", "robot_speaking.limit", double(60.0))[0]


@pytest.mark.fault(
    "time", "/clock is set back while the robot speaks (simulated time)",
    does="go on being deaf to it; take its end for the samples that come in then",
    shows="nothing of what the robot says on `speech`; the person's utterance",
)  # fmt: skip
def test_a_reset_of_clock_loses_no_word_of_the_robots(turns: FloatArray) -> None:
    with Graph(nodes=("speech_node",), use_sim_time=True) as graph:
        heard = listen(graph)
        clock = graph.node.create_publisher(Clock, "/clock", 10)
        robot = create_publisher(graph, Bool, "robot_speaking", qos.EVENT, "speech_node")
        assert graph.spin_until(clock.get_subscription_count)

        def at(seconds: float) -> Any:
            return lambda: clock.publish(Clock(clock=to_time(round(seconds * SECOND))))

        def at_message(number: int, active: bool | None = None) -> Any:
            def event() -> None:
                at(number / 50 + (900.0 if number < TURN // 2 else 10.0))()
                if active is not None:
                    graph.state("speech_node")  # The clock is set before the robot speaks.
                    tell(graph, robot, Bool(data=active))

            return event

        begin = round(GAP * 50) - 20
        events = {number: at_message(number) for number in range(0, 10_000, 5)}
        events |= {begin: at_message(begin, True), TURN: at_message(TURN, False)}
        sent = play(graph, turns, start_ns=77 * SECOND, events=events, speed=1.0)
        assert graph.spin_until(lambda: heard.utterances), heard.status("speech_node")
        assert graph.spin_until(lambda: heard.value("speech_node", "messages") == str(sent))
        ((spoken, _),) = heard.utterances
        assert spoken > 320 * TURN
