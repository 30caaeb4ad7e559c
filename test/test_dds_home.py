# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What a planner, a behaviour tree or a screen finds beside emotion_state, over real DDS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from action_msgs.msg import GoalStatus
from lifecycle_msgs.msg import Transition
from rclpy.action import ActionClient
from ros_playing import START_NS, Heard, clips, counter, later, play, restart
from std_srvs.srv import SetBool

from hri_emo_msgs.action import ListenOnce
from hri_emo_msgs.msg import ConversationEmotion, EmotionState
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.graph import Graph
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

# Starting processes that load torch takes its time on a busy machine.
pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def one() -> FloatArray:
    """One utterance, 3.4 s with the silence around it."""
    return clips("emodb_10a07Ta", gap=1.0)


@pytest.fixture(scope="module")
def graph(tiny_bundle: Path, ros_domain: int) -> Iterator[Graph]:
    with Graph(
        nodes=("speech_node", "emotion_node"),
        bundle=tiny_bundle,
        domain_id=ros_domain,
        parameters={
            # Nobody is taken to have stopped because a busy machine plays the second half late.
            "speech_node": {"audio.queue": 120.0, "audio.timeout": 3600.0},
            "emotion_node": {"transcript.source": "none", "model.threads": 1},
        },
    ) as running:
        yield running


def test_who_comes_late_hears_the_last_final_state_and_no_provisional_one(
    graph: Graph, heard: Heard, one: FloatArray
) -> None:
    play(graph, one)
    play(graph, one)
    assert graph.spin_until(lambda: len(heard.finals) >= 2), heard.status("emotion_node")
    assert len(heard.states) > len(heard.finals)
    late: list[EmotionState] = []
    graph.node.create_subscription(EmotionState, "emotion_final", late.append, qos.LATEST)
    assert graph.spin_until(lambda: late)
    assert late == [heard.finals[-1]]
    assert -1.0 <= late[0].valence <= 1.0
    assert -1.0 <= late[0].arousal <= 1.0


def test_the_tone_of_the_conversation_follows_each_final_state_and_is_latched(
    graph: Graph, heard: Heard, one: FloatArray
) -> None:
    tones: list[ConversationEmotion] = []
    subscription = graph.node.create_subscription(
        ConversationEmotion, "conversation_emotion", tones.append, qos.LATEST
    )
    play(graph, one)
    play(graph, one)

    def ours() -> list[ConversationEmotion]:
        # The latched one of an earlier test may be among them.
        streams = {final.stream_id for final in heard.finals}
        return [tone for tone in tones if tone.stream_id in streams]

    assert graph.spin_until(lambda: len(heard.finals) == len(ours()) == 2)
    graph.node.destroy_subscription(subscription)
    for tone, final in zip(ours(), heard.finals, strict=True):
        assert tone.stream_id == final.stream_id
        assert tone.model_id == final.model_id
        end = final.header.stamp.sec + final.header.stamp.nanosec * 1e-9 + final.duration
        assert tone.header.stamp.sec + tone.header.stamp.nanosec * 1e-9 == pytest.approx(end)
    assert [tone.overall.utterances for tone in ours()] == [1, 2]
    assert [s.label for s in ours()[-1].overall.scores] == [s.label for s in heard.finals[0].scores]
    assert sum(s.probability for s in ours()[-1].overall.scores) == pytest.approx(1.0, abs=1e-4)


class Goal:
    """A goal of listen_once, as a behaviour tree sends it."""

    def __init__(self, graph: Graph, timeout: float) -> None:
        self.graph = graph
        self.feedback: list[EmotionState] = []
        self.client = ActionClient(graph.node, ListenOnce, "listen_once")
        assert graph.spin_until(self.client.server_is_ready)
        sent = self.client.send_goal_async(
            ListenOnce.Goal(timeout=timeout),
            feedback_callback=lambda message: self.feedback.append(message.feedback.state),
        )
        assert graph.spin_until(sent.done)
        self.handle: Any = sent.result()
        self.answer = self.handle.get_result_async() if self.handle.accepted else None

    def result(self) -> tuple[int, Any]:
        """(GoalStatus, ListenOnce.Result)."""
        assert self.answer is not None
        assert self.graph.spin_until(self.answer.done)
        self.client.destroy()
        found = self.answer.result()
        return found.status, found.result


def test_listen_once_gives_the_next_final_state_to_all_who_asked(
    graph: Graph, heard: Heard, one: FloatArray
) -> None:
    goals = [Goal(graph, 60.0), Goal(graph, 50.0)]
    play(graph, one, speed=2.0)
    for goal in goals:
        status, result = goal.result()
        assert status == GoalStatus.STATUS_SUCCEEDED
        assert result.heard
        assert result.state == heard.finals[0]
        assert goal.feedback
        assert goal.feedback == [s for s in heard.states if s.stage != s.STAGE_FINAL]


def test_listen_once_does_not_answer_with_what_was_said_before(
    graph: Graph, heard: Heard, one: FloatArray
) -> None:
    play(graph, one)
    assert graph.spin_until(lambda: heard.finals)
    status, result = Goal(graph, 0.3).result()
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert not result.heard
    assert result.message == "nobody spoke within 0.3 s"


def test_listen_once_hears_out_who_speaks_when_its_time_is_up(
    graph: Graph, heard: Heard, one: FloatArray
) -> None:
    half = len(one) // 2
    play(graph, one[:half])
    assert graph.spin_until(lambda: heard.speech), "nobody has begun to speak"
    goal = Goal(graph, 0.05)
    for _ in range(2):  # A second apart: its time is up between them.
        later(graph, heard, "emotion_node")
    assert heard.value("emotion_node", "goals of listen_once waiting") == "1"
    assert not goal.answer.done()
    begin = START_NS + half * 1_000_000_000 // SAMPLE_RATE
    play(graph, one[half:], start_ns=begin)
    status, result = goal.result()
    assert (status, result.heard) == (GoalStatus.STATUS_SUCCEEDED, True)
    assert result.state == heard.finals[0]


def test_listen_once_can_be_cancelled(graph: Graph, heard: Heard) -> None:
    goal, other = Goal(graph, 60.0), Goal(graph, 60.0)
    cancelled = goal.handle.cancel_goal_async()
    assert graph.spin_until(cancelled.done)
    assert len(cancelled.result().goals_canceling) == 1
    status, result = goal.result()
    assert (status, result.heard) == (GoalStatus.STATUS_CANCELED, False)
    assert not other.answer.done()
    other.handle.cancel_goal_async()
    assert other.result()[0] == GoalStatus.STATUS_CANCELED


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), 1e9])
def test_listen_once_refuses_a_timeout_that_is_none(graph: Graph, timeout: float) -> None:
    assert not Goal(graph, timeout).handle.accepted
    assert "timeout is" in graph.output("emotion_node")


def test_deactivation_ends_what_waits_and_refuses_more(graph: Graph, heard: Heard) -> None:
    goal = Goal(graph, 60.0)
    graph.transition(Transition.TRANSITION_DEACTIVATE, ("emotion_node",))
    status, result = goal.result()
    assert (status, result.heard) == (GoalStatus.STATUS_ABORTED, False)
    assert result.message == "emotion_node was deactivated"
    assert not Goal(graph, 1.0).handle.accepted
    graph.transition(Transition.TRANSITION_ACTIVATE, ("emotion_node",))
    assert Goal(graph, 0.1).result()[0] == GoalStatus.STATUS_SUCCEEDED


def mute(graph: Graph, muted: bool) -> None:
    assert graph.call(SetBool, "speech_node", "mute", SetBool.Request(data=muted)).success


def test_while_muted_nothing_is_heard_and_diagnostics_say_so(
    graph: Graph, heard: Heard, one: FloatArray
) -> None:
    def said() -> tuple[bytes, str, str]:
        status = heard.status("speech_node")
        if status is None:
            return b"", "", ""
        return status.level, status.message, counter(status, "messages while muted")

    mute(graph, True)
    play(graph, one)
    messages = -(-len(one) // 320)
    assert graph.spin_until(lambda: said()[2] == str(messages)), said()
    assert said()[0] == b"\x01"
    assert "muted: nothing that is said is listened to" in said()[1]
    restart(graph)
    assert not heard.speech
    mute(graph, False)
    assert graph.spin_until(lambda: "muted" not in said()[1])
    play(graph, one)
    assert graph.spin_until(lambda: heard.finals)
    assert heard.finals[0].utterance_id == 1


def test_an_utterance_that_is_muted_away_is_finished_as_it_stands(
    graph: Graph, heard: Heard, one: FloatArray
) -> None:
    half = len(one) // 2
    play(graph, one[:half])
    assert graph.spin_until(lambda: heard.speech)
    assert not heard.finals
    mute(graph, True)
    assert graph.spin_until(lambda: heard.finals)
    play(graph, one[half:], start_ns=START_NS + half * 1_000_000_000 // SAMPLE_RATE)
    mute(graph, False)
    assert len(heard.finals) == 1
    assert heard.finals[0].duration < half / SAMPLE_RATE


def test_the_page_of_topics_names_whatever_the_nodes_offer(graph: Graph, heard: Heard) -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "topics.md").read_text()
    offered: set[str] = set()
    for node in ("speech_node", "emotion_node"):
        for find in (graph.node.get_publisher_names_and_types_by_node,
                     graph.node.get_service_names_and_types_by_node):  # fmt: skip
            offered |= {name for name, _ in find(node, "/")}
    own = {
        re.sub("/_action/.*", "", name)
        for name in offered
        if not re.search(r"rosout|parameter|transition|_state$|states$|type_desc", name)
        or name == "/emotion_state"
    }
    assert "/listen_once" in own
    assert "/speech_node/mute" in own
    missing = {n for n in own if f"`{n}`" not in page and f"`{n.lstrip('/')}`" not in page}
    assert missing == set()
