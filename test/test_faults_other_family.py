# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""With mgonzs13's audio_common_msgs installed in place of ros-drivers': what plays audio plays that family."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from message_prefix import MessagePrefix, build_messages

from hri_emo_ros.evaluation.bag_make import BagRecipe, make_bag
from hri_emo_ros.evaluation.rosbag_types import MGONZS13

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(900)]

DATA = Path(__file__).parent / "data"
PLAYED = """
import sys, time
from pathlib import Path
from hri_emo_ros.nodes.graph import Graph
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from hri_emo_msgs.msg import EmotionState, Speech
from hri_emo_ros.nodes import qos
with Graph(
    nodes=("audio_player", "speech_node", "emotion_node"), bundle=sys.argv[1],
    parameters={
        "audio_player": {"player.files": [sys.argv[2]], "player.gap": 1.0},
        "speech_node": {"audio.queue": 120.0},
        "emotion_node": {"transcript.source": "none", "model.threads": 1},
    },
) as graph:
    states, speech, values, counts = [], [], {}, []
    client = graph.node.create_client(SetParameters, "/speech_node/set_parameters")
    number = lambda value: ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)
    whole = lambda value: ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=value)
    changes = [
        Parameter(name="vad.threshold", value=number(0.45)),
        Parameter(name="audio.sample_rate", value=whole(22050)),
        Parameter(name="segment.max_length", value=number(1.0)),
    ]
    def change(message):
        speech.append(message)
        if len(speech) == 1:  # In the midst of the utterance.
            client.call_async(SetParameters.Request(parameters=changes))
    graph.node.create_subscription(Speech, "speech", change, qos.SPEECH)
    graph.node.create_subscription(EmotionState, "emotion_state", states.append, qos.EMOTION)
    def status(message):
        for one in message.status:
            if one.name.endswith(": speech_node"):
                values.update({v.key: v.value for v in one.values})
                counts.append(values.get("messages"))
    graph.node.create_subscription(DiagnosticArray, "/diagnostics", status, 10)
    assert graph.spin_until(lambda: any(s.stage == EmotionState.STAGE_FINAL for s in states))
    assert graph.spin_until(lambda: values.get("format", "").startswith("44100"))
    assert graph.spin_until(lambda: len(set(counts[-3:])) == 1)  # It is played to its end.
    print(values["type"], "|", values["format"], "|", values["format_changes"], values["utterances"])
"""


@pytest.fixture(scope="module")
def other_family(tmp_path_factory: pytest.TempPathFactory) -> MessagePrefix:
    definitions = {name.rsplit("/", 1)[1]: text for name, text in MGONZS13.items()}
    return build_messages("audio_common_msgs", definitions, tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> BagRecipe:
    manifest = tmp_path_factory.mktemp("clips") / "manifest.csv"
    manifest.write_text(f"path,emotion\n{DATA}/emodb_11a02Wc.flac,angry\n")
    return BagRecipe(manifest, gap=(1.0, 1.1), noise="pink", snr_db=30.0, level_dbfs=-26.0)


def run(
    family: MessagePrefix, *command: str, domain: int | None = None
) -> subprocess.CompletedProcess[str]:
    environment = family.environment
    if domain is not None:
        environment = environment | {"ROS_DOMAIN_ID": str(domain)}
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.fault(
    "recording", "mgonzs13's audio_common_msgs installed: `replay --live`",
    does="publish AudioStamped", shows="the same utterances and probabilities as offline",
)  # fmt: skip
@pytest.mark.parametrize("message", ["AudioDataStamped", "AudioStamped"])
def test_live_replay_plays_the_other_family(
    other_family: MessagePrefix, recipe: BagRecipe, tmp_path: Path, tiny_bundle: Path, message: str
) -> None:
    from dataclasses import replace

    make_bag(replace(recipe, message=message, rate=44100, channels=2), tmp_path / "bag")
    arguments = ["-m", "hri_emo_ros.cli.main", "replay", str(tmp_path / "bag"), "--bundle"]
    arguments += [str(tiny_bundle), "--asr", "none", "--set", "audio.queue:=120.0"]
    offline = run(other_family, *arguments, "--json", str(tmp_path / "offline.json"))
    assert offline.returncode == 0, offline.stderr
    live = run(other_family, *arguments, "--live", "--json", str(tmp_path / "live.json"))
    assert live.returncode == 0, live.stderr
    (ours,), (theirs,) = (
        json.loads((tmp_path / name).read_text())["heard"] for name in ("live.json", "offline.json")
    )
    assert (ours["start"], ours["end"]) == (theirs["start"], theirs["end"])
    assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-4)


@pytest.mark.fault(
    "recording", "mgonzs13's audio_common_msgs installed: `hri-emo demo`",
    does="publish AudioStamped", shows="states and the picture",
)  # fmt: skip
def test_the_demo_plays_the_other_family(
    other_family: MessagePrefix, recipe: BagRecipe, tmp_path: Path, tiny_bundle: Path
) -> None:
    make_bag(recipe, tmp_path / "bag")
    done = run(
        other_family, "-m", "hri_emo_ros.cli.main", "demo", "--recording", str(tmp_path / "bag"),
        "--bundle", str(tiny_bundle), "--asr", "none", "--out", str(tmp_path / "demo.png"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 utterances" in done.stdout
    assert (tmp_path / "demo.png").stat().st_size > 10_000


@pytest.mark.fault(
    "recording", "mgonzs13's audio_common_msgs installed: `audio_player`",
    does="publish AudioStamped", shows="states; type and format in `/diagnostics`",
)  # fmt: skip
@pytest.mark.fault(
    "node", "parameters change in the midst of an utterance, messages carry their format",
    does="end the utterance by the old ones; read the audio as its messages say",
    shows="one state; `format_changes` 0",
)  # fmt: skip
def test_the_audio_player_plays_the_other_family(
    other_family: MessagePrefix, tmp_path: Path, tiny_bundle: Path
) -> None:
    import soundfile
    import soxr

    samples, rate = soundfile.read(DATA / "emodb_11a02Wc.flac", dtype="float32")
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, soxr.resample(samples, rate, 44100), 44100)
    script = tmp_path / "played.py"
    script.write_text(PLAYED)
    done = run(other_family, str(script), str(tiny_bundle), os.fspath(clip))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "audio_common_msgs/msg/AudioStamped | 44100 Hz, 1 ch, S16LE | 0 1" in done.stdout
