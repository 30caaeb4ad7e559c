# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Two speech_nodes, one emotion_node: each microphone's utterances, words and waiting are its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus
from ros_playing import Heard, clips, counter, listen, play, restart, said, words_publisher

from hri_emo_msgs.msg import EmotionState, Speech
from hri_emo_msgs.msg import Transcript as TranscriptMsg
from hri_emo_ros.nodes.graph import Graph
from hri_emo_ros.types import FloatArray

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]

SIDES = ("left", "right")
Graphs = dict[str, Graph]


@pytest.fixture(scope="module")
def graphs(tiny_bundle: Path, ros_domain: int) -> Iterator[Graphs]:
    with ExitStack() as stack:
        running = {
            "robot": stack.enter_context(
                Graph(
                    nodes=("emotion_node",),
                    bundle=tiny_bundle,
                    domain_id=ros_domain,
                    # Nobody waits that long: words that are awaited are awaited to the end.
                    parameters={"emotion_node": {"final.hold": 30.0, "model.threads": 1}},
                )
            )
        }
        for side in SIDES:
            running[side] = stack.enter_context(
                Graph(
                    nodes=("speech_node",),
                    namespace=side,
                    remaps={"speech": "/speech"},
                    domain_id=ros_domain,
                    parameters={"speech_node": {"audio.queue": 120.0}},
                )
            )
        yield running


@pytest.fixture(scope="module")
def heard(graphs: Graphs) -> Heard:
    nodes = ("emotion_node", "left/speech_node", "right/speech_node")
    return listen(graphs["robot"], nodes)


@pytest.fixture
def recogniser(graphs: Graphs, heard: Heard) -> Iterator[Any]:
    """A publisher of words; in the end emotion_node knows that it has gone."""
    robot = graphs["robot"]
    made = words_publisher(robot, heard, TranscriptMsg)
    yield made
    robot.node.destroy_publisher(made)
    assert robot.spin_until(lambda: heard.value("emotion_node", "words from") == "nobody")


@pytest.fixture(scope="module")
def one() -> FloatArray:
    return clips("emodb_10a07Ta", gap=1.0)


def said_by(graphs: Graphs, side: str, heard: Heard, samples: FloatArray) -> Speech:
    """The last chunk of an utterance that the microphone of that side hears."""
    before = len(heard.utterances)
    play(graphs[side], samples)
    robot = graphs["robot"]
    assert robot.spin_until(lambda: len(heard.utterances) > before)
    return [message for message in heard.speech if message.last][-1]


def words(of: Speech, text: str, status: int = TranscriptMsg.STATUS_OK) -> TranscriptMsg:
    stage = TranscriptMsg.STAGE_PROVISIONAL
    if status == TranscriptMsg.STATUS_OK:
        stage = TranscriptMsg.STAGE_FINAL
    found = TranscriptMsg(stream_id=of.stream_id, utterance_id=of.utterance_id, stage=stage, text=text,
                          status=status, confidence=1.0)  # fmt: skip
    found.header.stamp = of.utterance_start
    return found


def finals_of(heard: Heard, speech: Speech) -> list[EmotionState]:
    return [final for final in heard.finals if final.stream_id == speech.stream_id]


def test_the_final_state_of_one_does_not_wait_for_the_words_of_the_other(
    graphs: Graphs, heard: Heard, recogniser: Any, one: FloatArray
) -> None:
    robot = graphs["robot"]
    left = said_by(graphs, "left", heard, one)
    right = said_by(graphs, "right", heard, one)
    assert left.stream_id != right.stream_id
    assert (left.utterance_id, right.utterance_id) == (1, 1)
    recogniser.publish(words(right, "on the right"))
    assert robot.spin_until(lambda: finals_of(heard, right))
    assert not finals_of(heard, left)
    recogniser.publish(words(left, "on the left"))
    assert robot.spin_until(lambda: finals_of(heard, left))
    assert [final.transcript for final in heard.finals] == ["on the right", "on the left"]
    assert [final.voice_id for final in heard.finals] in (["v1", "v1"], ["", ""])
    assert robot.spin_until(lambda: heard.value("emotion_node", "microphones") == "2")
    # The same again: both go on, each with its own numbers.
    again = {side: said_by(graphs, side, heard, one) for side in SIDES}
    for side in SIDES:
        recogniser.publish(words(again[side], f"again {side}"))
    assert robot.spin_until(lambda: len(heard.finals) == 4)
    assert [final.utterance_id for final in heard.finals] == [1, 1, 2, 2]
    assert [f.transcript for f in finals_of(heard, left)] == ["on the left", "again left"]


def test_a_microphone_that_starts_over_goes_on_beside_the_other(
    graphs: Graphs, heard: Heard, one: FloatArray
) -> None:
    robot = graphs["robot"]
    before = len(heard.finals)
    restart(graphs["left"])
    last = {side: said_by(graphs, side, heard, one) for side in SIDES}
    assert robot.spin_until(lambda: len(heard.finals) == before + 2)
    assert [final.utterance_id for final in finals_of(heard, last["left"])] == [1]
    assert [final.utterance_id for final in finals_of(heard, last["right"])] == [1, 2, 3]
    heard.statuses.clear()
    assert robot.spin_until(lambda: heard.value("emotion_node", "microphones") == "2")


@pytest.mark.fault(
    "words", "plain strings, or words without a stream, while several microphones are heard",
    does="nobody's words: finals from the voice alone", shows="WARN that tells to name the stream",
)  # fmt: skip
def test_words_that_may_be_anybodys_are_nobodys(
    graphs: Graphs, heard: Heard, recogniser: Any, one: FloatArray
) -> None:
    robot = graphs["robot"]
    last = said_by(graphs, "left", heard, one)
    found = words(last, "whose words are these")
    found.stream_id = ""
    recogniser.publish(found)
    assert robot.spin_until(
        lambda: any("words that name no stream" in s.message for s in heard.statuses)
    )
    recogniser.publish(words(last, "the left one's"))
    assert robot.spin_until(lambda: len(finals_of(heard, last)) == 2)
    assert finals_of(heard, last)[-1].transcript == "the left one's"


@pytest.mark.fault(
    "words", "emotion_node does not hear a microphone that the recogniser hears",
    does="count each utterance", shows="no state; WARN that its speech does not come; `failures: unheard speech`",
)  # fmt: skip
def test_words_of_a_microphone_that_is_not_heard_are_a_warning(
    graphs: Graphs, heard: Heard, recogniser: Any
) -> None:
    found = TranscriptMsg(stream_id="another", utterance_id=1, stage=TranscriptMsg.STAGE_FINAL)
    recogniser.publish(found)
    status = said(graphs["robot"], heard, "emotion_node", "that emotion_node does not hear")
    assert status.level == DiagnosticStatus.WARN
    assert counter(status, "failures: unheard speech") == "1"
