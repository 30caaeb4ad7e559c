# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Stamps that jump, stall, come in bursts or contradict the format: through the nodes and through replay."""

from __future__ import annotations

import array
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from rosbags.rosbag2 import StoragePlugin, Writer

pytest.importorskip("rclpy")

from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from ros_playing import (
    START_NS,
    Heard,
    clips,
    counter,
    create_publisher,
    later,
    pcm,
    play,
    probabilities,
    restart,
    said,
    tell,
    worked_off,
)

from hri_emo_msgs.msg import EmotionState, SignalQuality
from hri_emo_ros.cli.main import main
from hri_emo_ros.evaluation.rosbag_types import (
    AUDIO_DATA,
    AUDIO_DATA_STAMPED,
    AUDIO_INFO,
    AUDIO_STAMPED,
    audio_typestore,
)
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.conversions import to_time
from hri_emo_ros.nodes.graph import Graph
from hri_emo_ros.types import FloatArray

# Starting processes that load a model takes its time on a busy machine.
pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]

SECOND = 1_000_000_000
MS = 1_000_000


@pytest.fixture(scope="module")
def recording() -> FloatArray:
    """One utterance, about 4 s."""
    return clips("emodb_11a02Wc")


@pytest.fixture(scope="module")
def reference(graph: Graph, collected: Heard, recording: FloatArray) -> EmotionState:
    restart(graph)
    collected.start_over()
    play(graph, recording)
    assert graph.spin_until(lambda: len(collected.finals) == 1)
    return collected.finals[0]


def counted(graph: Graph, heard: Heard, messages: int) -> dict[str, str]:
    """What speech_node lists once it has counted so many messages."""
    status = later(
        graph, heard, "speech_node", lambda s: int(counter(s, "messages") or 0) >= messages
    )
    return {value.key: value.value for value in status.values}


@pytest.mark.parametrize(
    ("rate", "channels", "claimed", "text"),
    [
        pytest.param(44100, 1, (16000, 1), "comes at 44100 samples a second", marks=pytest.mark.fault(
            "time", "44.1 kHz read as 16 kHz (no AudioInfo, or one that lies)",
            does="abstain: BAD_INPUT, `quality.fault` FORMAT; fill in nothing",
            shows="ERROR with both rates and the parameters",
        )),
        pytest.param(44100, 1, (48000, 1), "comes at 44100 samples a second", marks=pytest.mark.fault(
            "time", "44.1 kHz read as 48 kHz",
            does="abstain: BAD_INPUT", shows="ERROR with both rates and the parameters",
        )),
        pytest.param(16000, 2, (16000, 1), "comes at 32000 samples a second", marks=pytest.mark.fault(
            "time", "stereo read as mono: twice the samples",
            does="abstain: BAD_INPUT", shows="ERROR with both rates and the parameters",
        )),
        pytest.param(16000, 1, (16000, 2), "comes at 8000 samples a second", marks=pytest.mark.fault(
            "time", "mono read as stereo: half the samples",
            does="abstain: BAD_INPUT", shows="ERROR with both rates and the parameters",
        )),
    ],
)  # fmt: skip
def test_what_the_stamps_contradict_is_not_estimated(
    graph: Graph, heard: Heard, recording: FloatArray,
    rate: int, channels: int, claimed: tuple[int, int], text: str,
) -> None:  # fmt: skip
    info = AudioInfo(
        channels=claimed[1], sample_rate=claimed[0], sample_format="S16LE", coding_format="wave"
    )
    sent = play(graph, np.tile(recording, 3), rate=rate, channels=channels, info=info)
    status = said(graph, heard, "speech_node", text)
    assert status.level == DiagnosticStatus.ERROR
    assert f"read as {claimed[0]} Hz, {claimed[1]} ch" in status.message
    assert "audio.sample_rate" in status.message
    assert int(counted(graph, heard, sent)["dropped_samples"]) < 1600
    worked_off(graph, heard)
    for final in heard.finals:
        assert final.abstain_reason == EmotionState.ABSTAIN_BAD_INPUT
        assert final.quality.fault == SignalQuality.FAULT_FORMAT
        assert final.dominant == ""


@pytest.mark.parametrize(
    "apart",
    [
        pytest.param(7 * MS, marks=pytest.mark.fault(
            "time", "two nodes publish on the audio topic, their messages interleaved",
            does="abstain: BAD_INPUT", shows="ERROR that names both nodes",
        )),
        pytest.param(5000 * SECOND, marks=pytest.mark.fault(
            "time", "two nodes publish on the audio topic, with clocks 5000 s apart",
            does="abstain or hear nothing", shows="ERROR that names both nodes",
        )),
    ],
)  # fmt: skip
def test_two_publishers_are_named(
    graph: Graph, heard: Heard, recording: FloatArray, apart: int
) -> None:
    other = Node("second_microphone", context=graph.context, start_parameter_services=False)
    told = create_publisher(graph, AudioInfo, "audio_info", qos.AUDIO_INFO, "speech_node")
    info = AudioInfo(channels=1, sample_rate=16000, sample_format="S16LE", coding_format="wave")
    tell(graph, told, info)
    both = [
        create_publisher(graph, AudioDataStamped, "audio", 1000, "speech_node"),
        other.create_publisher(AudioDataStamped, "audio", 1000),
    ]
    assert graph.spin_until(both[1].get_subscription_count)
    data = pcm(np.tile(recording, 3), 16000, 1)
    try:
        for number in range(len(data) // 320):
            for publisher, late in zip(both, (0, apart), strict=True):
                chunk = data[number * 320 : (number + 1) * 320].tobytes()
                message = AudioDataStamped(audio=AudioData(data=array.array("B", chunk)))
                message.header.stamp = to_time(START_NS + number * 20 * MS + late)
                publisher.publish(message)
            graph.spin(0.004)
        named = ("more than one node publishes", "/second_microphone (")
        status = later(graph, heard, "speech_node", lambda s: all(n in s.message for n in named))
        assert status.level == DiagnosticStatus.ERROR
        assert "/hri_emo_graph (audio_common_msgs/msg/AudioDataStamped)" in status.message
        assert "/second_microphone (audio_common_msgs/msg/AudioDataStamped)" in status.message
        worked_off(graph, heard)
        for final in heard.finals:
            assert final.abstained
    finally:
        other.destroy_node()
        for publisher in (told, both[0]):
            graph.node.destroy_publisher(publisher)


def burst_stamps(count: int, burst: int) -> list[int]:
    """Of messages of 20 ms that are stamped when they are published, `burst` at a time."""
    return [(i // burst + 1) * burst * 20 * MS + i % burst * MS // 5 for i in range(count)]


@pytest.mark.parametrize(
    "burst",
    [
        pytest.param(8, marks=pytest.mark.fault(
            "time", "stamped when it is published, 160 ms at a time (USB and network microphones)",
            does="count samples; fill in nothing", shows="the same states; `dropped_samples` 0",
        )),
        pytest.param(20, marks=pytest.mark.fault(
            "time", "stamped when it is published, 400 ms at a time",
            does="count samples; fill in nothing", shows="the same states; `dropped_samples` 0",
        )),
    ],
)  # fmt: skip
def test_bursts_are_no_loss(
    graph: Graph, heard: Heard, recording: FloatArray, reference: EmotionState, burst: int
) -> None:
    count = -(-len(recording) // 320)
    sent = play(graph, recording, stamps=burst_stamps(count, burst))
    assert graph.spin_until(lambda: len(heard.finals) == 1)
    assert probabilities(heard.finals[0]) == pytest.approx(probabilities(reference), abs=1e-5)
    assert heard.finals[0].duration == pytest.approx(reference.duration)
    assert not heard.finals[0].abstained
    values = counted(graph, heard, sent)
    assert values["dropped_samples"] == values["gaps"] == values["restarts"] == "0"
    assert all(
        s.level != DiagnosticStatus.ERROR for s in heard.statuses if "samples a" in s.message
    )


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(20, marks=pytest.mark.fault(
            "time", "every tenth message of 20 ms is lost",
            does="fill the places with silence", shows="`dropped_samples` counts them; `clock_corrections` 0",
        )),
        pytest.param(64, marks=pytest.mark.fault(
            "time", "every tenth message of 64 ms is lost",
            does="fill the places with silence", shows="`dropped_samples` counts them; `clock_corrections` 0",
        )),
        pytest.param(96, marks=pytest.mark.fault(
            "time", "every tenth message of 96 ms is lost",
            does="fill the places with silence", shows="`dropped_samples` counts them; `clock_corrections` 0",
        )),
    ],
)  # fmt: skip
def test_losses_are_counted_and_are_no_drift(
    graph: Graph, heard: Heard, recording: FloatArray, size: int
) -> None:
    data, frames = pcm(np.tile(recording, 4), 16000, 1), 16 * size
    numbers = [i for i in range(len(data) // frames) if i % 10 != 9]
    chunks = [data[i * frames : (i + 1) * frames].tobytes() for i in numbers]
    play(graph, recording, chunks=chunks, chunk_ms=size, stamps=[i * size * MS for i in numbers])
    values = counted(graph, heard, len(chunks))
    lost = (numbers[-1] + 1 - len(numbers)) * frames
    assert int(values["dropped_samples"]) == pytest.approx(lost, rel=0.15)
    assert values["clock_corrections"] == values["restarts"] == "0"
    assert graph.spin_until(lambda: any(m.dropped_samples > 0 for m in heard.speech))


def write_bag(
    path: Path,
    samples: FloatArray,
    rate: int,
    kind: str,
    told: bool,
    stamps: list[int] | None = None,
    robot: Mapping[int, bool] | None = None,
) -> None:
    """Messages of 20 ms at `rate`; `told`: with AudioInfo (AudioStamped always tells); `robot`: what
    robot_speaking says before the messages of these numbers."""
    store = audio_typestore(kind)
    make: Any = store.types
    data = np.rint(soxr.resample(samples, 16000, rate) * 32767).astype("<i2")
    frames = rate // 50
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        audio = writer.add_connection("/audio", kind, typestore=store)
        if told and kind == AUDIO_DATA_STAMPED:
            info = writer.add_connection("/audio_info", AUDIO_INFO, typestore=store)
            raw = store.serialize_cdr(make[AUDIO_INFO](1, rate, "S16LE", 0, "wave"), AUDIO_INFO)
            writer.write(info, START_NS, raw)
        if robot:
            says = writer.add_connection("/robot_speaking", "std_msgs/msg/Bool", typestore=store)
        for number in range(len(data) // frames):
            if robot and number in robot:
                raw = store.serialize_cdr(
                    make["std_msgs/msg/Bool"](robot[number]), "std_msgs/msg/Bool"
                )
                writer.write(says, START_NS + number * 20 * MS + MS, raw)
            piece = data[number * frames : (number + 1) * frames]
            stamp = START_NS + (stamps[number] if stamps else number * 20 * MS)
            header = make["std_msgs/msg/Header"](
                make["builtin_interfaces/msg/Time"](stamp // SECOND, stamp % SECOND), "mic"
            )
            if kind == AUDIO_STAMPED:
                none = {f"{n}_data": np.zeros(0, n) for n in ("float32", "int32", "int8", "uint8")}
                sound = make["audio_common_msgs/msg/Audio"](
                    make[AUDIO_DATA](int16_data=piece, **none),
                    make[AUDIO_INFO](8, 1, rate, frames),
                )
            else:
                sound = make[AUDIO_DATA](piece.view(np.uint8))
            raw = store.serialize_cdr(make[kind](header, sound), kind)
            writer.write(audio, max(stamp, START_NS + (number + 1) * 20 * MS), raw)


def replay(bag: Path, bundle: Path, out: Path, *more: str) -> dict[str, Any]:
    arguments = ["replay", str(bag), "--bundle", str(bundle), "--asr", "none", "--json", str(out)]
    assert main([*arguments, "--set", "audio.queue:=120.0", *more]) == 0
    return json.loads(out.read_text())


@pytest.mark.parametrize("kind", [AUDIO_DATA_STAMPED, AUDIO_STAMPED])
@pytest.mark.fault(
    "time", "bursts of 400 ms in a recording, of either family's messages",
    does="count samples; fill in nothing", shows="the same states as from even stamps",
)  # fmt: skip
def test_bursts_in_a_recording_are_no_loss(
    tiny_bundle: Path, tmp_path: Path, recording: FloatArray, kind: str
) -> None:
    count = len(recording) // 320
    write_bag(tmp_path / "even", recording, 16000, kind, told=True)
    write_bag(tmp_path / "burst", recording, 16000, kind, told=True, stamps=burst_stamps(count, 20))
    even = replay(tmp_path / "even", tiny_bundle, tmp_path / "even.json")
    burst = replay(tmp_path / "burst", tiny_bundle, tmp_path / "burst.json")
    assert burst["counters"]["dropped_samples"] == burst["counters"]["restarts"] == 0
    (ours,), (theirs,) = burst["heard"], even["heard"]
    assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)
    assert ours["end"] - ours["start"] == pytest.approx(theirs["end"] - theirs["start"])


@pytest.mark.fault(
    "time", "robot_speaking in a recording whose audio is stamped by another clock (5000 s behind)",
    does="take it for the samples that were received with it, in `replay` as in `replay --live`",
    shows="no state of what the robot says; the same utterance in both",
)  # fmt: skip
def test_the_robots_voice_in_a_recording_is_not_heard_whatever_clock_stamps_it(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    turns = clips("emodb_11a02Wc", "emodb_10a07Ta", gap=1.5)
    count = len(turns) // 320
    behind = [(number * 20 * MS) - 5000 * SECOND for number in range(count)]
    turn = round((1.5 + 2.0 + 0.8) * 50)
    robot = {50: True, turn: False}
    write_bag(
        tmp_path / "bag", turns, 16000, AUDIO_DATA_STAMPED, told=True, stamps=behind, robot=robot
    )
    offline = replay(tmp_path / "bag", tiny_bundle, tmp_path / "offline.json")
    live = replay(tmp_path / "bag", tiny_bundle, tmp_path / "live.json", "--live", "--speed", "2")
    (ours,), (theirs,) = live["heard"], offline["heard"]
    assert theirs["start"] > turn / 50
    assert (ours["start"], ours["end"]) == pytest.approx((theirs["start"], theirs["end"]), abs=0.04)
    unmuted = replay(
        tmp_path / "bag", tiny_bundle, tmp_path / "all.json", "--set", "robot_speaking.mute:=false"
    )
    assert [bool(u["abstained"]) for u in unmuted["heard"]] == [True, False]


@pytest.mark.fault(
    "time", "a later file of a split bag, without the AudioInfo: 44.1 kHz read as 16 kHz",
    does="abstain in `replay` as in `replay --live`: BAD_INPUT",
    shows="abstained states; a line on stderr with both rates",
)  # fmt: skip
def test_a_recording_that_contradicts_its_format_abstains_offline_as_live(
    tiny_bundle: Path, tmp_path: Path, recording: FloatArray, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bag(tmp_path / "bag", np.tile(recording, 2), 44100, AUDIO_DATA_STAMPED, told=False)
    offline = replay(tmp_path / "bag", tiny_bundle, tmp_path / "offline.json")
    assert "comes at 44100 samples a second by its stamps but is read as 16000 Hz" in (
        capsys.readouterr().err
    )
    live = replay(tmp_path / "bag", tiny_bundle, tmp_path / "live.json", "--live")
    assert offline["final_states"] == live["final_states"] > 0
    for run in (offline, live):
        assert {u["abstained"] for u in run["heard"]} == {"bad_input"}
    told = replay(
        tmp_path / "bag", tiny_bundle, tmp_path / "told.json", "--set", "audio.sample_rate:=44100"
    )
    assert told["final_states"] == 2
    assert told["abstained_states"] == 0
