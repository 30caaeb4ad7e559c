# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Parameters that change while the nodes run: refused with the bound, taken at once, and no utterance is cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from ros_playing import Heard, clips, counter, double, later, play, set_parameter, worked_off

from hri_emo_ros.nodes.graph import Graph

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]

DEFAULTS = {
    "segment.max_length": 15.0, "segment.pre_roll": 0.3, "segment.pause": 0.6, "vad.threshold": 0.4,
    "segment.min_speech": 0.25,
}  # fmt: skip


def integer(value: int) -> ParameterValue:
    return ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value)


def set_at_once(graph: Graph, values: dict[str, ParameterValue]) -> tuple[bool, str]:
    """Like `ros2 param load` of a node that has them all: (accepted, why not)."""
    changes = [Parameter(name=name, value=value) for name, value in values.items()]
    request = SetParametersAtomically.Request(parameters=changes)
    service = "set_parameters_atomically"
    result = graph.call(SetParametersAtomically, "speech_node", service, request).result
    return result.successful, result.reason


def present(graph: Graph, *names: str) -> list[float]:
    request = GetParameters.Request(names=list(names))
    answer = graph.call(GetParameters, "speech_node", "get_parameters", request)
    return [value.double_value for value in answer.values]


@pytest.fixture
def restored(graph: Graph) -> Iterator[None]:
    yield
    assert set_at_once(graph, {k: double(v) for k, v in DEFAULTS.items()}) == (True, "")


@pytest.mark.fault(
    "node", "a parameter out of its bounds, or lengths that do not fit one another",
    does="refuse them and keep the old ones, all of them",
    shows="the refusal names both parameters and the bound",
)  # fmt: skip
def test_a_refusal_names_the_bound_and_changes_nothing(
    graph: Graph, heard: Heard, restored: None
) -> None:
    accepted, reason = set_parameter(graph, "speech_node", "segment.pause", double(9.0))
    assert not accepted
    assert "segment.pause" in reason and "0.1" in reason and "5.0" in reason
    accepted, reason = set_parameter(graph, "speech_node", "segment.min_speech", double(5.0))
    assert accepted, reason
    accepted, reason = set_parameter(graph, "speech_node", "segment.max_length", double(5.2))
    assert not accepted
    assert "segment.max_length is 5.2 s" in reason
    assert "segment.pre_roll + segment.min_speech (5.3 s)" in reason
    # One of several is refused: none is taken.
    both = {"segment.pause": double(1.0), "segment.max_length": double(1.0)}
    accepted, reason = set_at_once(graph, both)
    assert not accepted and "segment.max_length is 1 s" in reason
    assert present(graph, "segment.pause", "segment.max_length") == [0.6, 15.0]
    # What fits together is taken, though each alone would not.
    both = {"segment.min_speech": double(0.1), "segment.max_length": double(1.0)}
    assert set_at_once(graph, both) == (True, "")


@pytest.mark.fault(
    "node", "an integer for a number (`ros2 param set /speech_node segment.pause 1`)",
    does="take it", shows="the parameter is 1.0",
)  # fmt: skip
def test_an_integer_will_do_where_a_number_is_meant(
    graph: Graph, heard: Heard, restored: None
) -> None:
    assert set_parameter(graph, "speech_node", "segment.pause", integer(1)) == (True, "")
    assert present(graph, "segment.pause") == [1.0]
    accepted, reason = set_parameter(graph, "speech_node", "segment.pause", integer(9))
    assert not accepted and "5.0" in reason
    assert set_parameter(graph, "emotion_node", "final.hold", integer(3)) == (True, "")
    assert not set_parameter(graph, "speech_node", "audio.channels", double(2.0))[0]


@pytest.mark.fault(
    "node", "parameters change in the midst of an utterance (lengths, thresholds, channel)",
    does="end it by the old ones, take the new ones with the next",
    shows="one utterance, sample for sample the same; the next by the new lengths",
)  # fmt: skip
def test_no_utterance_is_cut_by_a_change(graph: Graph, heard: Heard, restored: None) -> None:
    recording = clips("emodb_11a02Wc", "lj_LJ001-0008")
    play(graph, recording)
    assert graph.spin_until(lambda: len(heard.finals) == 2)
    (_, first), (_, second) = heard.utterances
    heard.clear()

    def change() -> None:
        assert graph.spin_until(lambda: heard.speech)  # It is being spoken.
        values = {"segment.max_length": 1.0, "segment.pause": 0.1, "vad.threshold": 0.5}
        assert set_at_once(graph, {k: double(v) for k, v in values.items()}) == (True, "")

    sent = play(graph, recording, start_ns=2 * 10**18, events={110: change})
    worked_off(graph, heard, 2 * sent)
    lengths = [samples for _, samples in heard.utterances]
    assert lengths[0] == first
    assert len(lengths) > 2 and max(lengths[1:]) < second


@pytest.mark.fault(
    "node", "`audio.channel` that the present audio does not have is set while it plays",
    does="refuse it, go on", shows="the refusal names the channels; one state",
)  # fmt: skip
def test_a_channel_that_the_present_audio_does_not_have_is_refused(
    graph: Graph, heard: Heard, restored: None
) -> None:
    recording = clips("emodb_11a02Wc")
    answers: list[tuple[bool, str]] = []
    failures = counter(later(graph, heard, "speech_node"), "failures: audio")

    def change() -> None:
        assert graph.spin_until(lambda: heard.speech)
        answers.append(set_parameter(graph, "speech_node", "audio.channel", integer(2)))

    play(graph, recording, channels=2, events={110: change})
    assert graph.spin_until(lambda: heard.finals)
    assert answers == [(False, "audio.channel is 2, must be -1 to 1: the audio has 2 channel(s)")]
    assert counter(later(graph, heard, "speech_node"), "failures: audio") == failures


@pytest.mark.fault(
    "node", "a language that the recogniser's model does not know is set while it runs",
    does="refuse it, go on in the old one", shows="the refusal names the languages",
)  # fmt: skip
def test_a_language_that_the_model_does_not_know_is_refused(tiny_whisper: Path) -> None:
    values = {"asr.backend": "whisper", "whisper.model": str(tiny_whisper), "asr.threads": 1}
    with Graph(nodes=("asr_node",), parameters={"asr_node": values}) as running:

        def language(name: str) -> tuple[bool, str]:
            value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=name)
            return set_parameter(running, "asr_node", "whisper.language", value)

        accepted, reason = language("de")
        assert not accepted
        assert reason.startswith("whisper.language is 'de', must be empty or one of: en")
        assert language("en") == (True, "")
