# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Microphones that are broken, mute or wired wrongly, through the real nodes over DDS and the real commands."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

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
    play,
    probabilities,
    restart,
    said,
    set_parameter,
    worked_off,
)

from hri_emo_msgs.msg import EmotionState, SignalQuality
from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.cli.main import main
from hri_emo_ros.evaluation.bag_make import BagRecipe, make_bag
from hri_emo_ros.nodes.graph import Graph
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

# Starting processes that load a model takes its time on a busy machine.
pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]

DATA = Path(__file__).parent / "data"
FAULTY = round(4.5 * SAMPLE_RATE)
"""Samples of a fault after which it is to be said: with a second for diagnostics that is within 5 s."""


@pytest.fixture(scope="module")
def recording() -> FloatArray:
    """One utterance after 4.5 s of a quiet room."""
    speech = clips("emodb_11a02Wc")
    room = np.random.default_rng(2).normal(0.0, 1e-3, FAULTY)
    return np.concatenate([room, speech + 10 * room[: len(speech)].mean()]).astype(np.float32)


@pytest.fixture(scope="module")
def reference(graph: Graph, collected: Heard, recording: FloatArray) -> EmotionState:
    """What one good channel gives."""
    restart(graph)
    collected.start_over()
    play(graph, recording)
    assert graph.spin_until(lambda: len(collected.finals) == 1)
    return collected.finals[0]


def chunks_of(channels: np.ndarray) -> tuple[list[bytes], AudioInfo]:
    """[n, channels] in [-1, 1] as messages of 20 ms and what AudioInfo says of them."""
    data = np.clip(np.rint(channels * 32768.0), -32768, 32767).astype("<i2")
    info = AudioInfo(
        channels=data.shape[1], sample_rate=SAMPLE_RATE, sample_format="S16LE", coding_format="wave"
    )
    return [data[i : i + 320].tobytes() for i in range(0, len(data), 320)], info


def play_channels(graph: Graph, channels: np.ndarray) -> int:
    chunks, info = chunks_of(channels)
    return play(graph, channels[:, 0], chunks=chunks, info=info)


def warned(graph: Graph, heard: Heard, text: str) -> DiagnosticStatus:
    """The diagnostics that say `text`, once they do."""
    status = said(graph, heard, "speech_node", text)
    assert status.level == DiagnosticStatus.WARN, status.message
    return status


def stereo(left: np.ndarray, right: np.ndarray | float) -> np.ndarray:
    return np.stack([left, np.broadcast_to(np.asarray(right, np.float32), left.shape)], axis=1)


WORKING = ("kind", "fault", "text")


@pytest.mark.parametrize(
    WORKING,
    [
        pytest.param("antiphase", SignalQuality.FAULT_CANCELLING, "one is inverted", marks=pytest.mark.fault(
            "sound", "stereo in antiphase: the channels cancel",
            does="listen to one channel; `quality.fault` CANCELLING",
            shows="the states of one good channel; WARN with the difference in dB and `audio.channel`",
        )),
        pytest.param("stuck", SignalQuality.FAULT_DEAD_CHANNEL, "channel 1 is stuck at +1.00", marks=pytest.mark.fault(
            "sound", "one of two channels stuck at full scale",
            does="leave it out; `quality.fault` DEAD_CHANNEL",
            shows="the states of one good channel; WARN that names the channel",
        )),
        pytest.param("dead", SignalQuality.FAULT_DEAD_CHANNEL, "channel 1 is silent", marks=pytest.mark.fault(
            "sound", "one of two channels dead",
            does="leave it out; `quality.fault` DEAD_CHANNEL",
            shows="the states of one good channel; WARN that names the channel",
        )),
    ],
)  # fmt: skip
def test_with_one_good_channel_the_states_are_its_states(
    graph: Graph, heard: Heard, recording: FloatArray, reference: EmotionState,
    kind: str, fault: int, text: str,
) -> None:  # fmt: skip
    other = {"antiphase": -recording, "stuck": 1.0, "dead": 0.0}[kind]
    play_channels(graph, stereo(recording, other))
    assert graph.spin_until(lambda: len(heard.finals) == 1)
    final = heard.finals[0]
    assert final.quality.fault == fault
    assert not final.abstained
    assert final.quality.clipped_fraction < 0.01
    assert probabilities(final) == pytest.approx(probabilities(reference), abs=0.02)
    assert final.quality.input_level_dbfs == pytest.approx(
        reference.quality.input_level_dbfs, abs=1.0
    )
    warned(graph, heard, text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(0.0, "digital silence", marks=pytest.mark.fault(
            "sound", "digital zeros: muted, unplugged, or the wrong device",
            does="publish nothing", shows="WARN within 5 s; input level -120 dBFS in `/diagnostics`",
        )),
        pytest.param(-1.0, "one value for 3 s (-1.00", marks=pytest.mark.fault(
            "sound", "the only channel stuck at full scale",
            does="publish nothing", shows="WARN within 5 s that names the value",
        )),
        pytest.param(0.25, "one value for 3 s (+0.25", marks=pytest.mark.fault(
            "sound", "the same sample all the time",
            does="publish nothing", shows="WARN within 5 s that names the value",
        )),
    ],
)  # fmt: skip
def test_a_dead_microphone_is_a_warning_within_5_s(
    graph: Graph, heard: Heard, value: float, text: str
) -> None:
    play_channels(graph, np.full((FAULTY, 1), value))
    status = warned(graph, heard, text)
    assert float(counter(status, "input level (dBFS)")) == -120.0
    assert heard.states == []


@pytest.mark.fault(
    "sound", "the microphone is plugged in again", does="go on by themselves",
    shows="the warning goes; states",
)  # fmt: skip
def test_the_warning_goes_with_the_fault(graph: Graph, heard: Heard, recording: FloatArray) -> None:
    play_channels(graph, np.zeros((FAULTY, 1)))
    warned(graph, heard, "digital silence")
    play(graph, recording, start_ns=START_NS + 30 * 1_000_000_000)
    assert graph.spin_until(lambda: len(heard.finals) == 1)
    assert heard.finals[0].quality.fault == SignalQuality.FAULT_NONE
    assert "digital silence" not in later(graph, heard, "speech_node").message


@pytest.mark.fault(
    "sound", "a constant offset larger than the sound",
    does="say so; `quality.fault` OFFSET", shows="WARN with the offset; states",
)  # fmt: skip
def test_an_offset_is_said(graph: Graph, heard: Heard, recording: FloatArray) -> None:
    play_channels(graph, 0.5 * recording[:, None] + 0.2)
    warned(graph, heard, "constant offset of +0.20")
    assert graph.spin_until(lambda: len(heard.finals) == 1)
    assert heard.finals[0].quality.fault == SignalQuality.FAULT_OFFSET


@pytest.mark.fault(
    "sound", "24 bits in the lower bytes of 32 declared as S32LE: 48 dB too quiet",
    does="publish the level of the input", shows="`quality.input_level_dbfs`, 48 dB below",
)  # fmt: skip
def test_the_level_of_the_input_is_published(
    graph: Graph, heard: Heard, recording: FloatArray, reference: EmotionState
) -> None:
    data = np.rint(recording.astype(np.float64) * 2**23).astype("<i4")
    info = AudioInfo(
        channels=1, sample_rate=SAMPLE_RATE, sample_format="S32_LE", coding_format="wave"
    )
    chunks = [data[i : i + 320].tobytes() for i in range(0, len(data), 320)]
    play(graph, recording, chunks=chunks, info=info)

    def level() -> float:
        return float(heard.value("speech_node", "input level (dBFS)") or "nan")

    assert graph.spin_until(lambda: level() < -88.0), level()
    for final in heard.finals:
        expected = reference.quality.input_level_dbfs - 20 * np.log10(256)
        assert final.quality.input_level_dbfs == pytest.approx(expected, abs=4.0)


@pytest.mark.fault(
    "sound", "six channels of an array: processed voice, four microphones, the robot's own playback",
    does="listen to the first", shows="no state of what the robot plays; else those of one channel",
)  # fmt: skip
def test_of_many_channels_the_playback_is_not_heard(
    graph: Graph, heard: Heard, recording: FloatArray, reference: EmotionState
) -> None:
    robot = np.zeros_like(recording)
    speech = read_audio(DATA / "lj_LJ001-0008.flac")
    robot[SAMPLE_RATE // 2 :][: len(speech)] = speech
    raw = [np.roll(recording, shift) * 0.5 for shift in (1, 2, 3, 4)]
    sent = play_channels(graph, np.stack([recording, *raw, robot], axis=1))
    worked_off(graph, heard, sent)
    (final,) = heard.finals
    assert probabilities(final) == pytest.approx(probabilities(reference), abs=1e-3)


def _integer(value: int) -> ParameterValue:
    return ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value)


@pytest.mark.fault(
    "sound", "`audio.channel` that the audio does not have",
    does="hear nothing until it has",
    shows="ERROR with the channels there are, when the format is known and not before",
)  # fmt: skip
def test_a_channel_that_is_not_there_is_said_when_the_format_is_known(
    graph: Graph, heard: Heard, recording: FloatArray, reference: EmotionState
) -> None:
    try:
        assert set_parameter(graph, "speech_node", "audio.channel", _integer(1)) == (True, "")
        assert "audio.channel" not in later(graph, heard, "speech_node").message
        play(graph, recording[: 2 * SAMPLE_RATE])
        said(graph, heard, "speech_node", "audio.channel is 1, must be -1 to 0")
        restart(graph)
        play_channels(graph, stereo(0.01 * recording[::-1], recording))
        assert graph.spin_until(lambda: len(heard.finals) == 1)
        assert probabilities(heard.finals[0]) == pytest.approx(probabilities(reference), abs=0.02)
    finally:
        set_parameter(graph, "speech_node", "audio.channel", _integer(-1))


def _params(folder: Path, channel: int) -> Path:
    file = folder / "params.yaml"
    file.write_text(f"/**/speech_node:\n  ros__parameters:\n    audio.channel: {channel}\n")
    return file


@pytest.mark.parametrize("channel", [0, 1])
@pytest.mark.fault(
    "sound", "`audio.channel` in `hri-emo file`",
    does="listen to that channel, as the node does", shows="the states of that channel",
)  # fmt: skip
def test_a_channel_is_the_same_in_file(
    tiny_bundle: Path, tmp_path: Path, recording: FloatArray, channel: int,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    both = np.stack([recording[FAULTY - 8000 :], 0.3 * recording[FAULTY - 8000 :][::-1]], axis=1)
    soundfile.write(tmp_path / "both.wav", both, SAMPLE_RATE)
    soundfile.write(tmp_path / "one.wav", both[:, channel], SAMPLE_RATE)
    common = ["--bundle", str(tiny_bundle), "--asr", "none", "--json"]
    found: list[Any] = []
    for arguments in (
        ["file", str(tmp_path / "both.wav"), "--params", str(_params(tmp_path, channel))],
        ["file", str(tmp_path / "one.wav")],
    ):
        assert main([*arguments, *common]) == 0
        found.append(json.loads(capsys.readouterr().out)[0]["utterances"])
    for utterance in (*found[0], *found[1]):
        del utterance["latency"]
    assert found[0] == found[1]
    assert (
        main(["file", str(tmp_path / "one.wav"), "--params", str(_params(tmp_path, 1)), *common])
        == 2
    )
    assert "audio.channel is 1, must be -1 to 0" in capsys.readouterr().err


@pytest.mark.fault(
    "sound", "`audio.channel` in `hri-emo replay`, of a bag that has it or not",
    does="listen to that channel, or end with status 2", shows="one sentence with the channels there are",
)  # fmt: skip
def test_a_channel_is_the_same_in_replay(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"path,emotion\n{DATA}/emodb_11a02Wc.flac,angry\n")
    recipe = BagRecipe(manifest, gap=(0.7, 0.8), noise="pink", snr_db=30.0, channels=2)
    make_bag(recipe, tmp_path / "bag")
    common = ["--bundle", str(tiny_bundle), "--asr", "none", "--json", str(tmp_path / "run.json")]
    heard = []
    for channel in (-1, 1):
        more = ["--set", f"audio.channel:={channel}"]
        assert main(["replay", str(tmp_path / "bag"), *common, *more]) == 0
        heard.append(json.loads((tmp_path / "run.json").read_text())["heard"][0]["probabilities"])
    assert heard[0] == pytest.approx(heard[1], abs=1e-4)
    capsys.readouterr()
    assert main(["replay", str(tmp_path / "bag"), *common, "--set", "audio.channel:=2"]) == 2
    assert "audio.channel is 2, must be -1 to 1" in capsys.readouterr().err


@pytest.mark.fault(
    "sound", "a dead channel in a file or a recording",
    does="leave it out", shows="a line on stderr that names the channel",
)  # fmt: skip
def test_file_says_what_is_wrong_with_the_sound(
    tiny_bundle: Path, tmp_path: Path, recording: FloatArray, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "dead.wav", stereo(recording, 0.0), SAMPLE_RATE)
    arguments = ["file", str(tmp_path / "dead.wav"), "--bundle", str(tiny_bundle), "--asr", "none"]
    assert main([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert "channel 1 is silent" in captured.err
    (utterance,) = json.loads(captured.out)[0]["utterances"]
    assert utterance["quality"]["fault"] == "dead_channel"


class FakeSound:
    """Stands in for sounddevice: a device of two channels that plays what it is given, once."""

    class PortAudioError(Exception):
        pass

    def __init__(self, channels: np.ndarray) -> None:
        self.channels = channels
        self.opened = 0

    def query_devices(self, device: object = None, kind: str = "") -> dict[str, Any]:
        return {"default_samplerate": SAMPLE_RATE, "max_input_channels": 2, "name": "fake"}

    def InputStream(self, *, channels: int, callback: Any, blocksize: int, **_: Any) -> Any:
        self.opened = channels
        data = np.rint(self.channels[:, :channels] * 32767).astype(np.int16)

        class Stream:
            def start(self) -> None:
                for start in range(0, len(data) - blocksize + 1, blocksize):
                    callback(data[start : start + blocksize], blocksize, None, None)

            def close(self) -> None:
                threading.Event().wait()  # PortAudio may never return from a device that is gone.

        return Stream()


@pytest.mark.fault(
    "sound", "`audio.channel` in `hri-emo listen`, and a microphone that gives zeros first",
    does="open as many channels and listen to that one",
    shows="a line on stderr that names the fault, and one when it is over; states",
)  # fmt: skip
@pytest.mark.fault(
    "sound", "the microphone of `hri-emo listen` is unplugged, with `--seconds` or without",
    does="finish what was heard and end with status 2", shows="one sentence",
)  # fmt: skip
def test_a_channel_is_the_same_in_listen_and_its_faults_are_said(
    tiny_bundle: Path, tmp_path: Path, recording: FloatArray, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    voice = np.concatenate(
        [np.zeros(FAULTY), recording[FAULTY:]]
    )[
        : 490
        * 320  # Its queue is full.
    ]
    device = FakeSound(np.stack([np.full_like(voice, 0.5), voice], axis=1))
    monkeypatch.setattr("hri_emo_ros.audio.sources.import_sounddevice", lambda: device)
    arguments = ["listen", "--bundle", str(tiny_bundle), "--asr", "none", "--seconds", "3600"]
    assert main([*arguments, "--params", str(_params(tmp_path, 1))]) == 2
    captured = capsys.readouterr()
    assert device.opened == 2
    assert captured.err.index("digital silence") < captured.err.index("works again")
    assert "given nothing for 3 s: was it unplugged?" in captured.err
    assert captured.out.count("voice 1.00") == 1  # One final state.


@pytest.mark.fault(
    "sound", "`hri-emo listen` on a machine that is too slow: sound is lost here or in the device",
    does="keep its place in time as a gap, which is filled with silence; end as ever",
    shows="a line on stderr at the first loss, the sum at the end",
)  # fmt: skip
def test_listen_says_what_is_lost(
    tiny_bundle: Path, recording: FloatArray, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    quiet = np.random.default_rng(0).normal(0.0, 1e-3, 520 * 320)
    # 500 blocks of 20 ms find room; 20 and what follows do not.
    device = FakeSound(np.stack([quiet, quiet], axis=1))
    monkeypatch.setattr("hri_emo_ros.audio.sources.import_sounddevice", lambda: device)
    assert main(["listen", "--bundle", str(tiny_bundle), "--asr", "none"]) == 2
    said = capsys.readouterr().err
    assert "sound is lost: this machine is too slow" in said
    assert "lost: 0.40 s of sound here" in said
