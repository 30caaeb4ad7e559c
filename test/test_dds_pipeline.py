# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Real nodes as processes, real DDS: whatever the audio looks like, the same states come out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from audio_common_msgs.msg import AudioInfo
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters
from ros_playing import (
    START_NS,
    Heard,
    clips,
    create_publisher,
    double,
    play,
    probabilities,
    restart,
    said,
    set_parameter,
    tell,
    worked_off,
)
from std_msgs.msg import Bool

from hri_emo_msgs.msg import EmotionState
from hri_emo_msgs.srv import ForgetVoices
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.graph import Graph
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

# Starting processes that load torch takes its time on a busy machine.
pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]

FRAME = 512
"""Samples of one VAD frame."""
FIRST = len(clips("emodb_11a02Wc"))
"""Samples of the recording that hold its first utterance and the pause after it."""


@pytest.fixture(scope="module")
def recording() -> FloatArray:
    """Three utterances, about 11 s."""
    return clips("emodb_11a02Wc", "emodb_10a07Ta", "lj_LJ001-0008")


@pytest.fixture(scope="module")
def graph(tiny_bundle: Path, ros_domain: int) -> Iterator[Graph]:
    with Graph(
        nodes=("speech_node", "emotion_node"),
        bundle=tiny_bundle,
        domain_id=ros_domain,
        parameters={
            "speech_node": {"audio.queue": 120.0, "audio.timeout": 60.0},
            "emotion_node": {
                "transcript.source": "none",
                "model.threads": 1,
                "explanation.enabled": True,
            },
        },
    ) as running:
        yield running


def finish(graph: Graph, heard: Heard, count: int) -> list[EmotionState]:
    """Wait for `count` final states, and until nothing more can come."""
    assert graph.spin_until(lambda: len(heard.finals) >= count), (
        f"{len(heard.finals)} of {count} final states; "
        f"{heard.status('speech_node')} {heard.status('emotion_node')}"
    )
    worked_off(graph, heard)
    return heard.finals


@pytest.fixture(scope="module")
def reference(
    graph: Graph, collected: Heard, recording: FloatArray
) -> tuple[list[tuple[int, int]], list[EmotionState]]:
    """What 20 ms chunks of 16 kHz mono give."""
    restart(graph)
    collected.start_over()
    play(graph, recording)
    finals = list(finish(graph, collected, 3))
    return list(collected.utterances), finals


def test_one_final_state_per_utterance_in_order_with_the_sensors_stamp(
    reference: tuple[list[tuple[int, int]], list[EmotionState]],
) -> None:
    utterances, finals = reference
    assert [f.utterance_id for f in finals] == [1, 2, 3]
    assert len({f.stream_id for f in finals}) == 1
    for (start, samples), final in zip(utterances, finals, strict=True):
        stamp = final.header.stamp.sec * 1_000_000_000 + final.header.stamp.nanosec
        assert stamp == START_NS + start * 1_000_000_000 // SAMPLE_RATE
        assert final.header.frame_id == "left_ear"
        assert final.duration == pytest.approx(samples / SAMPLE_RATE)
        assert sum(probabilities(final)) == pytest.approx(1.0, abs=1e-4), final.abstain_text
        assert final.audio_weight + final.text_weight == pytest.approx(1.0)
        assert final.latency.total > 0.0


@pytest.mark.parametrize("chunk_ms", [10, 32, 100])
def test_length_of_chunks_does_not_matter(
    graph: Graph,
    heard: Heard,
    recording: FloatArray,
    reference: tuple[list[tuple[int, int]], list[EmotionState]],
    chunk_ms: int,
) -> None:
    play(graph, recording, chunk_ms=chunk_ms)
    finals = finish(graph, heard, 3)
    assert heard.utterances == reference[0]
    assert len(finals) == 3
    for ours, theirs in zip(finals, reference[1], strict=True):
        assert ours.header.stamp == theirs.header.stamp
        assert np.allclose(probabilities(ours), probabilities(theirs), atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_sample_rate_does_not_matter(
    graph: Graph,
    heard: Heard,
    recording: FloatArray,
    reference: tuple[list[tuple[int, int]], list[EmotionState]],
    rate: int,
) -> None:
    play(graph, recording, rate=rate)
    finals = finish(graph, heard, 3)
    # Hisses at the beginning and the end of an utterance lie above a telephone's band.
    tolerance = (8 if rate == 8000 else 1) * FRAME
    for ours, theirs in zip(heard.utterances, reference[0], strict=True):
        assert abs(ours[0] - theirs[0]) <= tolerance
        assert abs(sum(ours) - sum(theirs)) <= tolerance
    if rate > SAMPLE_RATE:
        for mine, other in zip(finals, reference[1], strict=True):
            assert np.allclose(probabilities(mine), probabilities(other), atol=0.02)


def test_stereo_is_its_mean(
    graph: Graph,
    heard: Heard,
    recording: FloatArray,
    reference: tuple[list[tuple[int, int]], list[EmotionState]],
) -> None:
    play(graph, recording, channels=2)
    finals = finish(graph, heard, 3)
    assert heard.utterances == reference[0]
    for ours, theirs in zip(finals, reference[1], strict=True):
        assert np.allclose(probabilities(ours), probabilities(theirs), atol=1e-6)


def test_unstamped_audio_counts_from_its_reception(
    graph: Graph,
    heard: Heard,
    recording: FloatArray,
    reference: tuple[list[tuple[int, int]], list[EmotionState]],
) -> None:
    play(graph, recording[:FIRST], stamped=False, speed=2.0)
    finals = finish(graph, heard, 1)
    # The times of reception are a busy machine's.
    assert heard.utterances[0] == pytest.approx(reference[0][0], abs=0.1 * SAMPLE_RATE)
    now = graph.node.get_clock().now().nanoseconds * 1e-9
    assert abs(finals[0].header.stamp.sec - now) < 60.0
    assert finals[0].header.frame_id == "microphone"


def test_best_effort_publishers_are_heard_too(
    graph: Graph, heard: Heard, recording: FloatArray
) -> None:
    play(graph, recording[:FIRST], reliable=False, speed=2.0)
    assert len(finish(graph, heard, 1)) == 1


def test_chunks_are_numbered_without_gaps_and_explanations_come_with_final_states(
    graph: Graph, heard: Heard, recording: FloatArray
) -> None:
    play(graph, recording[:FIRST])
    final = finish(graph, heard, 1)[0]
    assert [c.sequence for c in heard.speech] == list(range(len(heard.speech)))
    places = itertools.pairwise(heard.speech)
    assert all(a.first_sample + len(a.samples) == b.first_sample for a, b in places)
    assert heard.speech[-1].last
    assert graph.spin_until(lambda: len(heard.explanations) == 1)
    explanation = heard.explanations[0]
    assert explanation.utterance_id == final.utterance_id
    assert len(explanation.moment_attribution) == len(final.scores) * explanation.moment_count


def test_provisional_states_come_before_the_final_one(
    reference: tuple[list[tuple[int, int]], list[EmotionState]],
    graph: Graph,
    heard: Heard,
    recording: FloatArray,
) -> None:
    play(graph, recording[:FIRST])
    finish(graph, heard, 1)
    stages = [s.stage for s in heard.states]
    assert stages == [EmotionState.STAGE_PROVISIONAL] * (len(stages) - 1) + [
        EmotionState.STAGE_FINAL
    ]
    assert len(stages) >= 2
    durations = [s.duration for s in heard.states]
    assert durations == sorted(durations)


def test_what_the_robot_says_itself_is_discarded(
    graph: Graph, heard: Heard, recording: FloatArray
) -> None:
    robot = create_publisher(graph, Bool, "robot_speaking", qos.EVENT, "speech_node")
    tell(graph, robot, Bool(data=True))
    now = graph.node.get_clock().now().nanoseconds
    worked_off(graph, heard, play(graph, recording[:FIRST], start_ns=now))
    assert heard.finals == []
    tell(graph, robot, Bool(data=False))
    after = graph.node.get_clock().now().nanoseconds + 10_000_000_000
    play(graph, recording[:FIRST], start_ns=after)
    assert len(finish(graph, heard, 1)) == 1
    graph.node.destroy_publisher(robot)


def test_no_audio_is_an_error_that_names_the_topic(graph: Graph, heard: Heard) -> None:
    assert set_parameter(graph, "speech_node", "audio.timeout", double(1.0))[0]
    status = said(graph, heard, "speech_node", "no audio on /audio", DiagnosticStatus.ERROR)
    assert "for 1 s" in status.message
    assert "no publisher" in status.message
    assert set_parameter(graph, "speech_node", "audio.timeout", double(60.0))[0]


def test_compressed_or_unknown_formats_are_reported_and_survived(
    graph: Graph, heard: Heard, recording: FloatArray
) -> None:
    bad = AudioInfo(channels=1, sample_rate=16000, sample_format="S16LE", coding_format="mp3")
    mp3 = [b"ID3\x04" + bytes(636)] * 30
    play(graph, recording, chunks=mp3, info=bad)
    said(graph, heard, "speech_node", "uncompressed PCM")
    assert graph.state("speech_node") == "active"
    restart(graph)
    heard.start_over()
    play(graph, recording[:FIRST])
    assert len(finish(graph, heard, 1)) == 1


def test_wrong_rate_is_noticed_by_the_stamps(
    graph: Graph, heard: Heard, recording: FloatArray
) -> None:
    lie = AudioInfo(channels=1, sample_rate=8000, sample_format="S16LE", coding_format="wave")
    play(graph, recording[:FIRST], info=lie, speed=2.0)
    said(graph, heard, "speech_node", "audio.sample_rate")


def test_parameters_change_at_run_time_within_their_bounds(
    graph: Graph, heard: Heard, recording: FloatArray
) -> None:
    refused, reason = set_parameter(graph, "speech_node", "vad.threshold", double(7.0))
    assert not refused
    assert "vad.threshold" in reason
    refused, reason = set_parameter(
        graph, "emotion_node", "model.bundle",
        ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="other"),
    )  # fmt: skip
    assert not refused
    assert "read-only" in reason
    accepted, reason = set_parameter(graph, "speech_node", "segment.max_length", double(1.0))
    assert accepted, reason
    play(graph, recording[:FIRST])
    finish(graph, heard, 2)
    assert set_parameter(graph, "speech_node", "segment.max_length", double(15.0))[0]
    assert max(samples for _, samples in heard.utterances) <= 1.3 * SAMPLE_RATE


def test_voices_are_told_and_forgotten_on_request(
    graph: Graph, heard: Heard, recording: FloatArray
) -> None:
    def forget(voice_id: str) -> ForgetVoices.Response:
        request = ForgetVoices.Request(voice_id=voice_id)
        response: ForgetVoices.Response = graph.call(
            ForgetVoices, "emotion_node", "forget_voices", request
        )
        return response

    assert forget("").success
    play(graph, recording)
    told = finish(graph, heard, 3)[0].voice_id
    assert told.startswith("v")
    unknown = forget("v999")
    assert not unknown.success and "v999" in unknown.message
    known = forget(told)
    assert known.success and known.forgotten == 1
    assert forget("").forgotten == 0


def test_parameters_describe_themselves(graph: Graph) -> None:
    request = DescribeParameters.Request(names=["vad.threshold"])
    answer = graph.call(DescribeParameters, "speech_node", "describe_parameters", request)
    descriptor = answer.descriptors[0]
    assert descriptor.type == ParameterType.PARAMETER_DOUBLE
    assert descriptor.floating_point_range[0].to_value == 0.99
    assert "utterance" in descriptor.description
