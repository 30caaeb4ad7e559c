# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What is kept off the wire, and what the nodes say of more than they heard: through the real nodes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.action import ActionClient
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_playing import clips, listen, play, said, worked_off
from std_msgs.msg import String

from hri_emo_msgs.action import ListenOnce
from hri_emo_msgs.msg import EmotionState
from hri_emo_ros.nodes.graph import Graph

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]

WORD = b"surpassed"
"""Of "Has never been surpassed."."""
ENCODER_HEARS = 1.0


@pytest.fixture(scope="module")
def short_of_hearing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose encoder hears the last second."""
    from tiny_models import tiny_config, tiny_model

    from hri_emo_ros.model.bundle import save_bundle

    folder = tmp_path_factory.mktemp("bundle") / "short"
    return save_bundle(tiny_model(tiny_config(max_audio_seconds=ENCODER_HEARS)), folder)


class Wire:
    """All that is published on any topic, as bytes."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.messages: dict[str, list[bytes]] = {}

    def look(self) -> None:
        """Listen to topics that are new."""
        for topic, kinds in self._graph.node.get_topic_names_and_types():
            package, part, name = kinds[0].split("/")
            if topic in self.messages or part != "msg":
                continue
            offers = self._graph.node.get_publishers_info_by_topic(topic)
            if not offers:
                continue
            found = self.messages[topic] = []
            quality = offers[0].qos_profile
            self._graph.node.create_subscription(
                getattr(import_module(f"{package}.msg"), name), topic, found.append,
                QoSProfile(
                    depth=1000,
                    reliability=ReliabilityPolicy.RELIABLE
                    if quality.reliability == ReliabilityPolicy.RELIABLE
                    else ReliabilityPolicy.BEST_EFFORT,
                    durability=DurabilityPolicy.TRANSIENT_LOCAL
                    if quality.durability == DurabilityPolicy.TRANSIENT_LOCAL
                    else DurabilityPolicy.VOLATILE,
                ),
                raw=True,
            )  # fmt: skip

    def topics_with(self, text: bytes) -> list[str]:
        return [t for t, found in self.messages.items() if any(text in m for m in found)]


@pytest.mark.fault(
    "trust", "`publish_transcript: false`, all nodes in one process",
    does="use the words and publish none: `transcript`, states, explanations, the answer of `listen_once`",
    shows="`transcript_status` OK, `text_weight` > 0; no word on any topic",
)  # fmt: skip
@pytest.mark.fault(
    "trust", "an explanation of more than the model's encoder hears",
    does="point at the moments that it heard", shows="moments over the whole utterance, zero where nothing was heard",
)  # fmt: skip
def test_no_word_is_on_the_wire(short_of_hearing: Path) -> None:
    kept = {"publish_transcript": False}
    with Graph(
        bundle=short_of_hearing,
        single_process=True,
        log_level="info",
        parameters={
            "speech_node": {"audio.queue": 120.0},
            "asr_node": {"asr.threads": 1, **kept},
            "emotion_node": {
                "model.threads": 1, "final.hold": 30.0, "explanation.enabled": True, **kept,
            },
        },
    ) as graph:  # fmt: skip
        wire, heard = Wire(graph), listen(graph)
        control = graph.node.create_publisher(String, "control", 10)
        client = ActionClient(graph.node, ListenOnce, "listen_once")
        assert graph.spin_until(client.server_is_ready)
        feedback: list[Any] = []
        asked = client.send_goal_async(ListenOnce.Goal(timeout=60.0), feedback.append)
        assert graph.spin_until(asked.done)
        answer = asked.result().get_result_async()
        wire.look()
        control.publish(String(data=f"never been {WORD.decode()}"))
        looks = dict.fromkeys((10, 50, 90), wire.look)
        sent = play(graph, clips("lj_LJ001-0008"), speed=2.0, events=looks)
        assert graph.spin_until(lambda: heard.finals and answer.done())
        worked_off(graph, heard, sent)
        final = heard.finals[0]
        assert final.transcript_status == EmotionState.TRANSCRIPT_OK
        assert final.text_weight > 0.0
        assert final.transcript == final.rejected_transcript == ""
        assert answer.result().result.state.transcript == ""
        assert feedback and all(f.feedback.state.transcript == "" for f in feedback)
        assert len(heard.explanations[0].words) == 4
        for topic in (
            "transcript",
            "emotion_state",
            "emotion_final",
            "emotion_explanation",
            "rosout",
        ):
            assert wire.messages[f"/{topic}"], topic
        assert wire.topics_with(WORD) == ["/control"]
        assert WORD.decode() not in graph.output("emotion_node", 200)
        client.destroy()

        explained = heard.explanations[0]
        period = explained.moment_period
        assert explained.moment_count * period == pytest.approx(final.duration, abs=2 * period)
        shares = np.abs(np.array(explained.moment_attribution)).reshape(7, -1)
        unheard = round((final.duration - ENCODER_HEARS) / period)
        assert 0 < unheard < explained.moment_count
        assert not shares[:, :unheard].any()
        assert (shares[:, unheard:].sum(1) > 0.99).all()


@pytest.mark.fault(
    "trust", "`publish_transcript: false` in asr_node, emotion_node in another process",
    does="publish no word; the voice alone speaks", shows="ERROR: words reach nobody, `single_process:=true`",
)  # fmt: skip
def test_words_that_reach_nobody_are_an_error(tiny_bundle: Path) -> None:
    with Graph(
        bundle=tiny_bundle,
        parameters={
            "speech_node": {"audio.queue": 120.0},
            "asr_node": {"asr.threads": 1, "publish_transcript": False},
            "emotion_node": {"model.threads": 1, "final.hold": 30.0},
        },
    ) as graph:
        heard = listen(graph)
        play(graph, clips("lj_LJ001-0008"), speed=2.0)
        assert graph.spin_until(lambda: heard.finals)
        assert [t.text for t in heard.transcripts if t.text] == []
        assert heard.finals[0].transcript == ""
        assert heard.finals[0].text_weight == 0.0

        status = said(graph, heard, "asr_node", "words reach nobody", DiagnosticStatus.ERROR)
        assert "single_process:=true" in status.message
