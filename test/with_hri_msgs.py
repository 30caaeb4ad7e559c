# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The bridge to ROS4HRI beside real hri_msgs; run by test_ros4hri.py, which builds them first."""

from __future__ import annotations

import array
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hri_definitions import HRI_MSGS, fields
from hri_msgs import msg as hri  # type: ignore[import-not-found]
from policy_rules import allowed, outside, used
from ros_playing import clips, listen, play, words_publisher
from std_msgs.msg import Bool

from hri_emo_msgs.msg import EmotionScore, EmotionState, Speech
from hri_emo_ros import ros4hri
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.graph import Graph

pytestmark = pytest.mark.timeout(600)
STREAM = "3fa29c01d2e4"


@dataclass
class Voices:
    """What was published under /humans/voices, each topic's messages in order."""

    graph: Graph
    tracked: list[list[str]] = field(default_factory=list)
    messages: dict[str, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.graph.node.create_subscription(
            hri.IdsList, "/humans/voices/tracked", self._ids, qos.LATEST
        )

    def _ids(self, message: Any) -> None:
        if not self.tracked or self.tracked[-1] != list(message.ids):
            self.tracked.append(list(message.ids))
        kinds = {
            "is_speaking": (Bool, qos.LATEST),
            "speech": (hri.LiveSpeech, qos.EVENT),
            "features": (hri.AudioFeatures, qos.LATEST),
            "expression": (hri.Expression, qos.LATEST),
        }
        for voice in message.ids:
            for name, (kind, quality) in kinds.items():
                topic = f"{voice}/{name}"
                if topic not in self.messages:
                    self.messages[topic] = []
                    self.graph.node.create_subscription(
                        kind, f"/humans/voices/{topic}", self.messages[topic].append, quality
                    )

    def speaking(self, voice: str) -> bool | None:
        """The newest of a voice, None if nothing was said of it."""
        found = self.messages.get(f"{voice}/is_speaking", [])
        return found[-1].data if found else None


def state(utterance: int, voice: str, *, final: bool, text: str = "", **more: Any) -> EmotionState:
    found = EmotionState(
        stream_id=STREAM, utterance_id=utterance, voice_id=voice, stage=int(final), dominant="fear",
        transcript=text, transcript_confidence=0.75, language="en", valence=-0.5, arousal=0.25,
        scores=[EmotionScore(label="fear", probability=0.75)], **more,
    )  # fmt: skip
    found.header.frame_id = "left_ear"
    found.header.stamp.sec = 7
    return found


def speech(utterance: int, sequence: int, last: bool = False) -> Speech:
    t = np.arange(4000) / 16000
    samples = (0.2 * np.sign(np.sin(2 * np.pi * 200.0 * t))).astype(np.float32)
    found = Speech(stream_id=STREAM, utterance_id=utterance, sequence=sequence, last=last)
    found.samples = array.array("f", samples.tobytes())
    return found


def test_the_fields_are_those_of_the_definitions() -> None:
    for name in HRI_MSGS:
        assert set(getattr(hri, name).get_fields_and_field_types()) == fields(name)


@pytest.fixture(scope="module")
def bridge() -> Iterator[Graph]:
    with Graph(
        nodes=("ros4hri_bridge",), parameters={"ros4hri_bridge": {"tracked.timeout": 2.0}}
    ) as graph:
        yield graph


def test_a_voice_from_its_first_sound_until_it_is_no_longer_tracked(bridge: Graph) -> None:
    voices = Voices(bridge)
    sounds = bridge.node.create_publisher(Speech, "speech", qos.SPEECH)
    states = bridge.node.create_publisher(EmotionState, "emotion_state", qos.EMOTION)
    assert bridge.spin_until(
        lambda: sounds.get_subscription_count() and states.get_subscription_count()
    )

    sounds.publish(speech(1, 0))
    assert bridge.spin_until(lambda: voices.speaking("anonymous_speaker"))
    states.publish(state(1, "v1", final=False, text="I do"))
    assert bridge.spin_until(lambda: voices.speaking("v1_3fa2"))
    assert bridge.spin_until(lambda: voices.messages["v1_3fa2/speech"])
    incremental = voices.messages["v1_3fa2/speech"][0]
    assert (incremental.incremental, incremental.final) == ("I do", "")
    assert bridge.spin_until(lambda: voices.tracked[-1] == ["v1_3fa2"]), voices.tracked

    sounds.publish(speech(1, 1, last=True))
    assert bridge.spin_until(lambda: voices.speaking("v1_3fa2") is False)
    assert bridge.spin_until(lambda: voices.messages["v1_3fa2/features"])
    features = voices.messages["v1_3fa2/features"][0]
    assert features.pitch * 500 == pytest.approx(200, rel=0.02)
    assert features.rms == pytest.approx(0.2, abs=0.01)
    assert list(features.mfcc) == []

    states.publish(state(1, "v1", final=True, text="I do not know"))
    assert bridge.spin_until(lambda: voices.messages["v1_3fa2/expression"])
    expression = voices.messages["v1_3fa2/expression"][0]
    assert expression.expression == hri.Expression.SCARED
    assert (expression.valence, expression.arousal, expression.confidence) == (-0.5, 0.25, 0.75)
    assert (expression.header.frame_id, expression.header.stamp.sec) == ("left_ear", 7)
    assert bridge.spin_until(lambda: len(voices.messages["v1_3fa2/speech"]) == 2)
    final = voices.messages["v1_3fa2/speech"][1]
    assert (final.incremental, final.final, final.locale) == ("", "I do not know", "en")
    assert final.confidence == pytest.approx(0.75)

    # A state that abstained claims no expression.
    states.publish(state(2, "v2", final=True, text="and", abstained=True, abstain_reason=5))
    assert bridge.spin_until(lambda: voices.messages.get("v2_3fa2/speech"))
    assert voices.messages["v2_3fa2/expression"] == []
    assert bridge.spin_until(lambda: voices.tracked[-1] == []), voices.tracked
    bridge.node.destroy_publisher(sounds)
    bridge.node.destroy_publisher(states)


def test_the_whole_pipeline_with_words_from_live_speech() -> None:
    with Graph(
        nodes=("speech_node", "emotion_node", "ros4hri_bridge"),
        bundle=os.environ["TINY_BUNDLE"],
        remaps={"transcript": "/humans/voices/visitor/speech"},
        parameters={
            "speech_node": {"audio.queue": 120.0},
            "emotion_node": {
                "transcript.source": "live_speech", "model.threads": 1, "final.hold": 30.0,
            },
        },
    ) as graph:  # fmt: skip
        heard, voices = listen(graph), Voices(graph)
        words = words_publisher(graph, heard, hri.LiveSpeech, "/humans/voices/visitor/speech")
        play(graph, clips("emodb_10a07Ta", gap=1.0))
        assert graph.spin_until(lambda: heard.speech and heard.speech[-1].last)
        words.publish(hri.LiveSpeech(final="in sieben Stunden", confidence=0.9, locale="de_DE"))
        assert graph.spin_until(lambda: heard.finals), heard.status("emotion_node")
        final = heard.finals[0]
        assert (final.transcript, final.language) == ("in sieben Stunden", "de")
        assert final.transcript_confidence == pytest.approx(0.9)
        assert 0.0 < final.text_weight < 1.0
        voice = ros4hri.voice_id(final.voice_id, final.stream_id)
        assert graph.spin_until(lambda: voices.messages.get(f"{voice}/speech")), voices.tracked
        assert voices.messages[f"{voice}/speech"][-1].final == "in sieben Stunden"
        assert graph.spin_until(lambda: not voices.speaking(voice))
        assert (
            outside(used(graph, "ros4hri_bridge"), allowed("ros4hri_bridge", "ros4hri_bridge"))
            == []
        )
        # Whoever speaks is nobody until a state says who it is.
        assert graph.spin_until(lambda: ["anonymous_speaker"] in voices.tracked)
        if voice != ros4hri.ANONYMOUS:
            assert voices.tracked[-1] == [voice]
