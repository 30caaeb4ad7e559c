# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Formats as robots' drivers spell and send them, through the real nodes over DDS and the real commands."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("rclpy")

from audio_common_msgs.msg import AudioInfo
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import ParameterType, ParameterValue
from ros_playing import (
    START_NS,
    Heard,
    clips,
    counter,
    later,
    pcm,
    play,
    restart,
    said,
    set_parameter,
)

from hri_emo_ros.cli.main import main
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.graph import Graph
from hri_emo_ros.types import FloatArray

# Starting processes that load a model takes its time on a busy machine.
pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def recording() -> FloatArray:
    """One utterance, about 4 s."""
    return clips("emodb_11a02Wc")


@pytest.fixture(scope="module")
def reference(graph: Graph, collected: Heard, recording: FloatArray) -> tuple[int, int]:
    """The utterance as 16 bits at 16 kHz give it: first sample, samples."""
    restart(graph)
    collected.start_over()
    play(graph, recording)
    assert graph.spin_until(lambda: len(collected.finals) == 1)
    return collected.utterances[0]


def told(sample_format: str, rate: int = 16000, coding: str = "wave") -> AudioInfo:
    return AudioInfo(
        channels=1, sample_rate=rate, sample_format=sample_format, coding_format=coding
    )


def _codes(samples: FloatArray, bits: int) -> np.ndarray:
    return np.clip(np.rint(samples.astype(np.float64) * 2.0 ** (bits - 1)), -(2 ** (bits - 1)),
                   2 ** (bits - 1) - 1).astype("<i4")  # fmt: skip


def _in_32(samples: FloatArray) -> bytes:
    """24 bits in the lower three bytes; ALSA leaves the fourth to chance."""
    raw = _codes(samples, 24).view(np.uint8).reshape(-1, 4).copy()
    raw[:, 3] = np.arange(len(raw)) % 251
    return raw.tobytes()


def _law(samples: FloatArray, subtype: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, format="RAW", subtype=subtype)
    return buffer.getvalue()


ENCODINGS = {
    "S24_LE": _in_32,
    "S24_32LE": _in_32,
    "S24_32BE": lambda s: np.frombuffer(_in_32(s), "<u4").astype(">u4").tobytes(),
    "S24_3LE": lambda s: _codes(s, 24).view(np.uint8).reshape(-1, 4)[:, :3].tobytes(),
    "S32_LE": lambda s: (_codes(s, 24) << 8).tobytes(),
    "A_LAW": lambda s: _law(s, "ALAW"),
    "MU_LAW": lambda s: _law(s, "ULAW"),
}
FRAME_BYTES = {"S24_3LE": 3, "A_LAW": 1, "MU_LAW": 1}


@pytest.mark.parametrize(
    "spelling",
    [
        pytest.param("S24_LE", marks=pytest.mark.fault(
            "format", "24 bits in 32 as ALSA spells it (S24_LE), the fourth byte anything",
            does="read its lower three bytes", shows="the same states as from 16 bits",
        )),
        pytest.param("S24_32LE", marks=pytest.mark.fault(
            "format", "24 bits in 32 as GStreamer spells it (S24_32LE)",
            does="read its lower three bytes", shows="the same states as from 16 bits",
        )),
        pytest.param("S24_32BE", marks=pytest.mark.fault(
            "format", "24 bits in 32, big-endian (S24_32BE)",
            does="read its lower three bytes", shows="the same states as from 16 bits",
        )),
        pytest.param("S24_3LE", marks=pytest.mark.fault(
            "format", "24 bits in 24 as ALSA spells it (S24_3LE; PortAudio: paInt24)",
            does="read it as S24LE", shows="the same states as from 16 bits",
        )),
        pytest.param("S32_LE", marks=pytest.mark.fault(
            "format", "24 bits in the upper bytes of 32 (S32_LE)",
            does="read it as S32LE", shows="the same states as from 16 bits",
        )),
        pytest.param("A_LAW", marks=pytest.mark.fault(
            "format", "A-law", does="decode it by its table", shows="the same states as from 16 bits",
        )),
        pytest.param("MU_LAW", marks=pytest.mark.fault(
            "format", "mu-law", does="decode it by its table", shows="the same states as from 16 bits",
        )),
    ],
)  # fmt: skip
def test_encodings_are_heard_alike_as_drivers_spell_them(
    graph: Graph, heard: Heard, recording: FloatArray, reference: tuple[int, int], spelling: str
) -> None:
    data = ENCODINGS[spelling](recording)
    step = 320 * FRAME_BYTES.get(spelling, 4)
    chunks = [data[i : i + step] for i in range(0, len(data), step)]
    play(graph, recording, chunks=chunks, info=told(spelling))
    assert graph.spin_until(lambda: len(heard.finals) == 1)
    start, samples = heard.utterances[0]
    tolerance = 512 if spelling.endswith("LAW") else 0
    assert abs(start - reference[0]) <= tolerance
    assert abs(start + samples - sum(reference)) <= tolerance
    assert not heard.finals[0].abstained


def _wav_header(rate: int, size: int) -> bytes:
    described = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    body = b"WAVEfmt " + described + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", (size + 36) & 0xFFFFFFFF) + body


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(0, marks=pytest.mark.fault(
            "format", "a WAV header in the stream, length 0, another rate than AudioInfo's",
            does="take the header out and follow its format",
            shows="states; the format in `/diagnostics`; `format_changes` 1 or 0",
        )),
        pytest.param(0xFFFFFFFF, marks=pytest.mark.fault(
            "format", "a WAV header in the stream, length 0xFFFFFFFF",
            does="take the header out and follow its format",
            shows="states; the format in `/diagnostics`",
        )),
    ],
)  # fmt: skip
def test_a_wav_header_in_the_stream_is_followed(
    graph: Graph, heard: Heard, recording: FloatArray, reference: tuple[int, int], size: int
) -> None:
    data = pcm(recording, 44100, 1)
    chunks = [data[i : i + 882].tobytes() for i in range(0, len(data), 882)]
    chunks[0] = _wav_header(44100, size) + chunks[0]
    # The stamps are those of 20 ms, whatever the bytes.
    play(graph, recording, chunks=chunks, info=told("S16LE"))
    assert graph.spin_until(lambda: len(heard.finals) == 1)
    assert abs(heard.utterances[0][0] - reference[0]) <= 512
    assert not heard.finals[0].abstained
    assert graph.spin_until(lambda: heard.value("speech_node", "format") == "44100 Hz, 1 ch, S16LE")


@pytest.mark.fault(
    "format", "AudioInfo changes while the nodes run (16 kHz, then 44.1 kHz)",
    does="read what follows in the new format", shows="states of both; `format_changes` 1",
)  # fmt: skip
def test_a_changed_audio_info_is_followed(
    graph: Graph, heard: Heard, recording: FloatArray, reference: tuple[int, int]
) -> None:
    play(graph, recording)
    play(graph, recording, rate=44100, start_ns=START_NS + 10_000_000_000)
    assert graph.spin_until(lambda: len(heard.finals) == 2)
    assert not any(final.abstained for final in heard.finals)
    lengths = [samples for _, samples in heard.utterances]
    assert abs(lengths[0] - lengths[1]) <= 1024
    assert counter(later(graph, heard, "speech_node"), "format_changes") == "1"


@pytest.mark.fault(
    "format", "AudioInfo repeated ten times a second", does="take it as no news",
    shows="the same utterance; `format_changes` 0",
)  # fmt: skip
def test_a_repeated_audio_info_cuts_nothing(
    graph: Graph, heard: Heard, recording: FloatArray, reference: tuple[int, int]
) -> None:
    repeated = graph.node.create_publisher(AudioInfo, "audio_info", qos.AUDIO_INFO)
    timer = graph.node.create_timer(0.1, lambda: repeated.publish(told("S16LE")))
    try:
        play(graph, recording, speed=2.0)
        assert graph.spin_until(lambda: len(heard.finals) == 1)
    finally:
        graph.node.destroy_timer(timer)
        graph.node.destroy_publisher(repeated)
    assert heard.utterances == [reference]


def _mp3(samples: FloatArray) -> list[bytes]:
    """As audio_capture with `format: mp3` sends it: some 36 ms of whole frames a message."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16000, format="MP3", subtype="MPEG_LAYER_III")
    # Behind the frame that tells the length of a file, which no stream has.
    data = buffer.getvalue()[400:]
    return [data[i : i + 216] for i in range(0, len(data), 216)]


@pytest.mark.fault(
    "format", "MP3 on AudioData, nobody says so",
    does="recognise its frames and refuse them (decoding by libsndfile is for whole files only)",
    shows="ERROR: set the parameter 'format' of the capture node to 'wave'; `failures: audio` counts",
)  # fmt: skip
def test_mp3_is_refused_with_the_capture_nodes_parameter(
    graph: Graph, heard: Heard, recording: FloatArray
) -> None:
    play(graph, recording, chunks=_mp3(recording), speed=2.0)
    status = said(graph, heard, "speech_node", "carries MP3", DiagnosticStatus.ERROR)
    assert "'format' of the capture node to 'wave'" in status.message
    assert int(counter(status, "failures: audio")) > 0
    assert heard.finals == []
    restart(graph)
    play(graph, recording)
    assert graph.spin_until(lambda: len(heard.finals) == 1)


@pytest.mark.fault(
    "format", "AudioInfo says mp3",
    does="hear nothing of it until another AudioInfo comes or `audio.use_info` is false",
    shows="ERROR naming coding and parameter; `refused messages` counts; no states",
)  # fmt: skip
def test_audio_is_not_heard_while_its_info_says_that_it_is_compressed(
    graph: Graph, heard: Heard, recording: FloatArray
) -> None:
    play(graph, recording, info=told("S16LE", coding="mp3"))

    def refused() -> bool:
        return int(heard.value("speech_node", "refused messages") or 0) > 100

    assert graph.spin_until(refused)
    status = heard.status("speech_node")
    assert status is not None
    assert status.level == DiagnosticStatus.ERROR
    assert "'mp3'" in status.message
    assert "audio.use_info" in status.message
    assert heard.finals == []
    off = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=False)
    on = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=True)
    assert set_parameter(graph, "speech_node", "audio.use_info", off) == (True, "")
    play(graph, recording, info=told("S16LE", coding="mp3"))
    assert graph.spin_until(lambda: len(heard.finals) == 1)
    assert set_parameter(graph, "speech_node", "audio.use_info", on) == (True, "")
    restart(graph)
    play(graph, recording)
    assert graph.spin_until(lambda: len(heard.finals) == 2)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(0, marks=pytest.mark.fault(
            "format", "a WAV file whose header says length 0 (written to a pipe, or by what was killed)",
            does="read it to its end", shows="the same as from the whole file",
        )),
        pytest.param(0xFFFFFFFF, marks=pytest.mark.fault(
            "format", "a WAV file whose header says length 0xFFFFFFFF",
            does="read it to its end", shows="the same as from the whole file",
        )),
    ],
)  # fmt: skip
def test_a_wav_file_of_unknown_length_is_read_whole(
    tiny_bundle: Path, tmp_path: Path, recording: FloatArray, size: int,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data = pcm(recording, 16000, 1)
    soundfile.write(tmp_path / "whole.wav", data, 16000)
    (tmp_path / "piped.wav").write_bytes(_wav_header(16000, size) + data.tobytes())
    found = []
    for name in ("whole.wav", "piped.wav"):
        arguments = ["file", str(tmp_path / name), "--bundle", str(tiny_bundle), "--asr", "none"]
        assert main([*arguments, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)[0]["utterances"])
    for utterance in (*found[0], *found[1]):
        del utterance["latency"]
    assert len(found[0]) == 1
    assert found[0] == found[1]
