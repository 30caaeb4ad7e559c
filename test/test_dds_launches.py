# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Starting and ending real nodes: nothing left behind, no network, clear refusals."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from ros_playing import (
    START_NS,
    Heard,
    all_listen,
    clips,
    counter,
    later,
    listen,
    play,
    restart,
    said,
    words_publisher,
)
from std_msgs.msg import String

from hri_emo_msgs.msg import EmotionState
from hri_emo_msgs.msg import Transcript as TranscriptMsg
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.nodes.graph import LIMIT, Graph
from hri_emo_ros.types import FloatArray

# Starting processes that load torch takes its time on a busy machine.
pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]
VOICE_ONLY = {"emotion_node": {"transcript.source": "none", "model.threads": 1}}
ROOT = Path(__file__).resolve().parent.parent


def _segments(processes: list[psutil.Process]) -> set[Path]:
    """Fast DDS's shared memory that these processes have open."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            found |= {Path(m.path) for m in process.memory_maps() if "/dev/shm/fast" in m.path}
    return found


def _hear_one(graph: Graph, recording: FloatArray) -> None:
    heard = listen(graph)
    play(graph, recording, topic="ear/audio")
    assert graph.spin_until(lambda: len(heard.finals) == 1)
    assert heard.finals[0].utterance_id == 1


def test_two_launches_after_one_another_leave_nothing_behind(
    tiny_bundle: Path, ros_domain: int
) -> None:
    recording = clips("emodb_10a07Ta", gap=1.0)
    before = set(Path("/dev/shm").glob("fast*"))
    memory: set[Path] = set()
    for namespace in ("", "robot1"):
        graph = Graph(
            single_process=True,
            bundle=tiny_bundle,
            domain_id=ros_domain,
            namespace=namespace,
            remaps={"audio": "ear/audio"},
            parameters={**VOICE_ONLY, "asr_node": {"asr.backend": "none"}},
        )
        with graph:
            children = [psutil.Process(p.pid) for p in graph.processes.values()]
            _hear_one(graph, recording)
            memory |= _segments(children)
        assert not any(child.is_running() for child in children)
    with (
        Graph(nodes=(), domain_id=ros_domain) as empty,
        Graph(nodes=(), domain_id=ros_domain) as other,
    ):
        # Where one is found that has just come, those that are left would be.
        for each in (empty, other):
            assert each.spin_until(lambda each=each: len(each.node.get_node_names()) > 1)
            assert each.node.get_node_names() == ["hri_emo_graph"] * 2
    # Ports are shared with whatever else runs on this machine, or was killed on it.
    left = {segment for segment in memory - before if segment.exists()}
    assert left <= _segments(list(psutil.process_iter()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_an_active_node_cleanly(ros_domain: int, number: signal.Signals) -> None:
    with Graph(nodes=("speech_node",), domain_id=ros_domain) as graph:
        process = graph.processes["speech_node"]
        process.send_signal(number)
        assert process.wait(LIMIT) == 0
        assert "Traceback" not in graph.output("speech_node", 50)


@pytest.mark.parametrize("broken", ["missing", "empty", "no weights"])
def test_a_bad_bundle_is_refused_in_one_line_and_the_node_lives(
    ros_domain: int, tiny_bundle: Path, tmp_path: Path, broken: str
) -> None:
    bundle = tmp_path / "bundle"
    if broken == "empty":
        bundle.mkdir()
    elif broken == "no weights":
        shutil.copytree(tiny_bundle, bundle)
        (bundle / "model.safetensors").write_bytes(b"not weights")
    with Graph(
        nodes=("emotion_node",), bundle=bundle, domain_id=ros_domain, autostart=False
    ) as graph:
        heard = listen(graph)
        with pytest.raises(HriEmoError) as refusal:
            graph.transition(Transition.TRANSITION_CONFIGURE, ("emotion_node",))
        assert str(bundle) in str(refusal.value)
        assert "\n" not in str(refusal.value)
        assert graph.state("emotion_node") == "unconfigured"
        assert graph.processes["emotion_node"].poll() is None
        said(graph, heard, "emotion_node", str(bundle), DiagnosticStatus.ERROR)


def test_a_whisper_folder_without_a_tokenizer_is_refused_at_once(
    ros_domain: int, tmp_path: Path
) -> None:
    folder = tmp_path / "whisper"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"")
    (folder / "config.json").write_text("{}", encoding="utf-8")
    with Graph(
        nodes=("asr_node",),
        parameters={"asr_node": {"asr.backend": "whisper", "whisper.model": str(folder)}},
        domain_id=ros_domain,
        autostart=False,
    ) as graph:
        with pytest.raises(HriEmoError, match=r"tokenizer\.json"):
            graph.transition(Transition.TRANSITION_CONFIGURE, ("asr_node",))
        assert graph.state("asr_node") == "unconfigured"


def test_unknown_parameters_and_values_in_a_file_are_named(ros_domain: int, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(
        textwrap.dedent("""\
            /**/speech_node:
              ros__parameters:
                vad.treshold: 0.5
                segment.pause: 60.0
                audio.timeout: 5
            """),
        encoding="utf-8",
    )
    with Graph(
        nodes=("speech_node",), params_file=params, domain_id=ros_domain, autostart=False
    ) as graph:
        with pytest.raises(HriEmoError) as refusal:
            graph.transition(Transition.TRANSITION_CONFIGURE, ("speech_node",))
        assert "vad.treshold" in str(refusal.value)
        assert "segment.pause" in str(refusal.value)
        # An integer for a number is what everybody means it to be.
        assert "'audio.timeout' is" not in str(refusal.value)
        assert graph.processes["speech_node"].poll() is None


def test_bad_values_from_python_are_refused_before_anything_starts(ros_domain: int) -> None:
    with pytest.raises(HriEmoError, match=r"vad\.threshold"):
        Graph(parameters={"speech_node": {"vad.threshold": 3.0}}, domain_id=ros_domain)


def test_speech_node_cuts_no_utterance_while_nobody_listens(
    tiny_bundle: Path, ros_domain: int
) -> None:
    with Graph(
        nodes=("speech_node", "emotion_node"), bundle=tiny_bundle, domain_id=ros_domain,
        parameters=VOICE_ONLY, autostart=False,
    ) as graph:  # fmt: skip
        heard = listen(graph, without=("speech",))
        graph.transition(Transition.TRANSITION_CONFIGURE, ("speech_node", "emotion_node"))
        graph.transition(Transition.TRANSITION_ACTIVATE, ("speech_node",))
        play(graph, clips("lj_LJ001-0008"), speed=8.0)
        graph.transition(Transition.TRANSITION_ACTIVATE, ("emotion_node",))
        later(graph, heard, "speech_node")
        all_listen(graph, heard)
        play(graph, clips("emodb_10a07Ta"), speed=8.0, start_ns=START_NS + 60 * 10**9)
        assert graph.spin_until(lambda: len(heard.finals) == 1)
        assert heard.finals[0].utterance_id == 1
        assert heard.finals[0].header.stamp.sec >= START_NS // 10**9 + 60
        status = later(graph, heard, "speech_node")
        assert float(counter(status, "audio that nobody listened to (s)")) > 2.0


def test_an_utterance_that_was_under_way_when_emotion_node_began_to_listen_says_so(
    tiny_bundle: Path, ros_domain: int
) -> None:
    with Graph(
        nodes=("speech_node", "emotion_node"), bundle=tiny_bundle, domain_id=ros_domain,
        parameters=VOICE_ONLY, autostart=False,
    ) as graph:  # fmt: skip
        heard = listen(graph)  # Somebody listens to `speech` from the beginning.
        graph.transition(Transition.TRANSITION_CONFIGURE, ("speech_node", "emotion_node"))
        graph.transition(Transition.TRANSITION_ACTIVATE, ("speech_node",))
        play(graph, clips("lj_LJ001-0008"), speed=8.0)
        assert graph.spin_until(lambda: len(heard.utterances) == 1)
        graph.transition(Transition.TRANSITION_ACTIVATE, ("emotion_node",))
        later(graph, heard, "speech_node")
        all_listen(graph, heard)
        play(graph, clips("emodb_10a07Ta"), speed=8.0, start_ns=START_NS + 60 * 10**9)
        assert graph.spin_until(lambda: len(heard.finals) == 1)
        assert heard.finals[0].utterance_id == 2
        assert not heard.finals[0].beginning_lost
        status = later(graph, heard, "emotion_node")
        assert counter(status, "utterances before this node listened") == "1"


def test_every_final_state_is_told_on_the_console_and_words_go_to_no_file(
    tiny_bundle: Path, ros_domain: int, tmp_path: Path
) -> None:
    logs = tmp_path / "log"
    with Graph(
        bundle=tiny_bundle, domain_id=ros_domain, log_level="info",
        parameters={"emotion_node": {"final.hold": 30.0, "model.threads": 1}},
        environment={"ROS_LOG_DIR": str(logs)},
    ) as graph:  # fmt: skip
        heard = listen(graph)
        play(graph, clips("lj_LJ001-0008"), speed=4.0)
        assert graph.spin_until(lambda: len(heard.finals) == 1)
        final = heard.finals[0]
        assert "surpassed" in final.transcript
        told = [line for line in graph.output("emotion_node", 20).split(" | ") if "voice" in line]
        assert len(told) == 1
        assert told[0].startswith("utterance 1: ")
        assert final.transcript in told[0]
        assert (final.dominant or "abstained") in told[0]
    written = "".join(path.read_text(errors="replace") for path in logs.rglob("*.log"))
    assert "active" in written  # The nodes' own lines are there.
    assert "surpassed" not in written


def test_the_robots_own_recogniser_may_send_plain_strings(
    tiny_bundle: Path, ros_domain: int
) -> None:
    with Graph(
        nodes=("speech_node", "emotion_node"),
        bundle=tiny_bundle,
        domain_id=ros_domain,
        namespace="robot2",
        remaps={"transcript": "hearing/text"},
        parameters={
            "emotion_node": {
                "transcript.source": "string",
                "final.hold": 30.0,
                "model.threads": 1,
            }
        },
    ) as graph:
        heard = listen(graph)
        robot = words_publisher(graph, heard, String, "hearing/text")
        play(graph, clips("emodb_10a07Ta"), speed=4.0)
        assert graph.spin_until(lambda: any(c.last for c in heard.speech))
        robot.publish(String(data="  it will be time in seven hours "))
        assert graph.spin_until(lambda: len(heard.finals) == 1)
        assert heard.finals[0].transcript == "it will be time in seven hours"
        assert heard.finals[0].text_weight > 0.0


def _unshare() -> list[str]:
    """Command that runs another one without any network but the loopback, if there is one here."""
    command = ["unshare", "--net", "--map-root-user", "sh", "-c"]
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("unshare or ip is not installed")
    probe = subprocess.run([*command, "ip link set lo up"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"no network namespaces here: {probe.stderr.decode().strip()}")
    return command


def test_everything_starts_and_works_without_a_network(
    tiny_bundle: Path, ros_domain: int, tmp_path: Path
) -> None:
    script = tmp_path / "offline.py"
    script.write_text(
        textwrap.dedent(f"""\
            import socket, sys
            sys.path.insert(0, {str(Path(__file__).parent)!r})
            from ros_playing import clips, listen, play
            from hri_emo_ros.nodes.graph import Graph
            try:
                socket.create_connection(("192.0.2.1", 443), timeout=3)
            except OSError as error:
                print("offline:", error)
            with Graph(
                single_process=True, bundle={str(tiny_bundle)!r}, domain_id={ros_domain},
                parameters={{"emotion_node": {{"final.hold": 30.0, "model.threads": 1}}}},
            ) as graph:
                heard = listen(graph)
                play(graph, clips("lj_LJ001-0008"), speed=2.0)
                assert graph.spin_until(lambda: len(heard.finals) == 1)
                print("heard:", heard.finals[0].transcript)
            """),
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*_unshare(), f"ip link set lo up; exec {sys.executable} {script}"],
        env=environment, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "heard:" in done.stdout


@pytest.fixture(scope="module")
def whole(tiny_bundle: Path, ros_domain: int) -> Iterator[tuple[Graph, Heard]]:
    """All three nodes with the shipped recogniser; last in this file, since they live to its end."""
    with Graph(
        bundle=tiny_bundle,
        domain_id=ros_domain,
        parameters={
            "emotion_node": {"final.hold": 30.0, "model.threads": 1},
        },
    ) as graph:
        yield graph, listen(graph)


def test_words_reach_the_final_state(whole: tuple[Graph, Heard]) -> None:
    graph, heard = whole
    play(graph, clips("lj_LJ001-0008", "emodb_10a07Ta"), speed=1.0)
    assert graph.spin_until(lambda: len(heard.finals) == 2)
    final = [t for t in heard.transcripts if t.stage == TranscriptMsg.STAGE_FINAL]
    assert [t.utterance_id for t in final] == [1, 2]
    taken_on = [t for t in heard.transcripts if t.status == TranscriptMsg.STATUS_NONE]
    assert [t.utterance_id for t in taken_on] == [1, 2]
    first = heard.finals[0]
    assert "surpassed" in first.transcript
    assert first.transcript == final[0].text
    assert 0.0 < first.text_weight < 1.0
    assert first.latency.asr > 0.0
    german = heard.finals[1]
    assert german.utterance_id == 2
    assert german.transcript_status == EmotionState.TRANSCRIPT_REJECTED
    assert (german.transcript, german.text_weight) == ("", 0.0)
    assert german.rejected_transcript == final[1].text != ""


def test_words_of_a_recogniser_that_is_switched_off_are_not_waited_for(
    whole: tuple[Graph, Heard],
) -> None:
    graph, heard = whole
    graph.transition(Transition.TRANSITION_DEACTIVATE, ("asr_node",))
    restart(graph)
    heard.start_over()
    play(graph, clips("lj_LJ001-0008"), speed=4.0)
    assert graph.spin_until(lambda: len(heard.finals) == 1)
    assert heard.finals[0].transcript == ""
    assert heard.finals[0].audio_weight == pytest.approx(1.0)
    assert heard.finals[0].text_weight == pytest.approx(0.0)
    # A recogniser that announces its work has announced none: the hold is 30 s.
    assert heard.finals[0].latency.waiting_for_words < 15.0
    assert heard.finals[0].transcript_status == EmotionState.TRANSCRIPT_NONE
