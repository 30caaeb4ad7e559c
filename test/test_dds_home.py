"""What a planner, a behaviour tree or a screen finds beside emotion_state, over real DDS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from ros_playing import Heard, clips, listen, play, restart

from hri_emo_msgs.msg import ConversationEmotion, EmotionState
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.graph import Graph
from hri_emo_ros.types import FloatArray

# Starting processes that load torch takes its time on a busy machine.
pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]
WAIT = 60.0
"""Seconds: generous, for a busy machine; nothing here waits for a time."""


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
            "speech_node": {"audio.queue": 120.0, "audio.timeout": 1.0},
            "emotion_node": {"transcript.source": "none", "model.threads": 1},
        },
    ) as running:
        yield running


@pytest.fixture(scope="module")
def collected(graph: Graph) -> Heard:
    return listen(graph)


@pytest.fixture
def heard(graph: Graph, collected: Heard) -> Heard:
    """A new stream, nothing heard yet."""
    restart(graph)
    graph.spin(0.3)
    collected.clear()
    return collected


def test_who_comes_late_hears_the_last_final_state_and_no_provisional_one(
    graph: Graph, heard: Heard, one: FloatArray
) -> None:
    play(graph, one)
    play(graph, one)
    assert graph.spin_until(lambda: len(heard.finals) >= 2, WAIT), heard.status("emotion_node")
    assert len(heard.states) > len(heard.finals)
    late: list[EmotionState] = []
    graph.node.create_subscription(EmotionState, "emotion_final", late.append, qos.LATEST)
    assert graph.spin_until(lambda: late, WAIT)
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

    assert graph.spin_until(lambda: len(heard.finals) == len(ours()) == 2, WAIT)
    graph.node.destroy_subscription(subscription)
    for tone, final in zip(ours(), heard.finals, strict=True):
        assert tone.stream_id == final.stream_id
        assert tone.model_id == final.model_id
        end = final.header.stamp.sec + final.header.stamp.nanosec * 1e-9 + final.duration
        assert tone.header.stamp.sec + tone.header.stamp.nanosec * 1e-9 == pytest.approx(end)
    assert [tone.overall.utterances for tone in ours()] == [1, 2]
    assert [s.label for s in ours()[-1].overall.scores] == [s.label for s in heard.finals[0].scores]
    assert sum(s.probability for s in ours()[-1].overall.scores) == pytest.approx(1.0, abs=1e-4)
