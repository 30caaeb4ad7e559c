# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The launch file: its content under the real launch, its command lines everywhere."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from rcl_interfaces.srv import GetParameters
from ros_playing import DATA

from hri_emo_ros.nodes.graph import LIMIT, Graph

ROOT = Path(__file__).resolve().parent.parent
LAUNCH_FILE = ROOT / "launch" / "emotion.launch.py"
ARGUMENTS = {
    "namespace", "params_file", "audio_topic", "audio_info_topic", "robot_speaking_topic",
    "transcript_topic", "model", "device", "asr", "whisper_model", "single_process",
    "use_sim_time", "log_level", "ros4hri", "autostart", "respawn",
}  # fmt: skip


def _description() -> Any:
    # launch_ros alone: the folder "launch" of this repository passes for a package.
    pytest.importorskip("launch_ros")
    spec = importlib.util.spec_from_file_location("emotion_launch", LAUNCH_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


def _entities(**given: str) -> list[Any]:
    """What the launch file starts with these arguments."""
    description = _description()
    from launch import LaunchContext

    context = LaunchContext()
    context.launch_configurations.update(given)
    *declarations, start = description.entities
    for declaration in declarations:
        declaration.visit(context)
    found: list[Any] = start.execute(context)
    return found


def test_every_argument_is_declared_and_described() -> None:
    from_launch = _description().get_launch_arguments()
    assert {argument.name for argument in from_launch} == ARGUMENTS
    assert all(argument.description for argument in from_launch)


class _Nodes:
    """The launched nodes, without processes: what each transition makes launch do."""

    def __init__(self, **given: str) -> None:
        entities = _entities(**given)
        from launch.actions import RegisterEventHandler
        from launch_ros.actions import LifecycleNode

        self.nodes = [e for e in entities if isinstance(e, LifecycleNode)]
        self.handlers = [e.event_handler for e in entities if isinstance(e, RegisterEventHandler)]

    def activated(self, name: str, start: str, goal: str) -> list[str]:
        """Which nodes are activated when one goes from `start` to `goal`."""
        from launch_ros.events.lifecycle import StateTransition
        from lifecycle_msgs.msg import State, TransitionEvent

        from launch import LaunchContext

        node = next(n for n in self.nodes if _name(n) == name)
        message = TransitionEvent(start_state=State(label=start), goal_state=State(label=goal))
        event = StateTransition(action=node, msg=message)
        found = []
        for handler in self.handlers:
            if handler.matches(event):
                for action in handler.entities:
                    for emit in action.execute(LaunchContext()) or []:
                        change = emit.event
                        found += [n for n in self.nodes if change.lifecycle_node_matcher(n)]
        return [_name(n) for n in found]


def _name(node: Any) -> str:
    return str(node._Node__node_executable)


def test_listeners_are_activated_as_they_are_ready_and_speech_node_last() -> None:
    nodes = _Nodes()
    assert len(nodes.nodes) == 3
    assert nodes.activated("speech_node", "configuring", "inactive") == []
    assert nodes.activated("asr_node", "configuring", "inactive") == ["asr_node"]
    assert nodes.activated("asr_node", "activating", "active") == []
    assert nodes.activated("emotion_node", "configuring", "inactive") == ["emotion_node"]
    assert nodes.activated("emotion_node", "activating", "active") == ["speech_node"]


def test_what_somebody_deactivates_by_hand_stays_so() -> None:
    nodes = _Nodes(asr="none")
    nodes.activated("speech_node", "configuring", "inactive")
    assert nodes.activated("emotion_node", "activating", "active") == ["speech_node"]
    assert nodes.activated("speech_node", "deactivating", "inactive") == []
    assert nodes.activated("emotion_node", "deactivating", "inactive") == []
    assert nodes.activated("emotion_node", "activating", "active") == []


@pytest.mark.fault(
    "node", "after launch has started the nodes, somebody cleans one up and configures it by hand",
    does="launch activates each node once and leaves the rest to that hand",
    shows="the node stays `inactive`",
)  # fmt: skip
def test_what_somebody_configures_by_hand_is_not_activated_behind_their_back() -> None:
    nodes = _Nodes()
    for name in ("asr_node", "emotion_node"):
        assert nodes.activated(name, "configuring", "inactive") == [name]
        nodes.activated(name, "activating", "active")
        assert nodes.activated(name, "configuring", "inactive") == []
    assert nodes.activated("speech_node", "configuring", "inactive") == ["speech_node"]
    assert nodes.activated("speech_node", "configuring", "inactive") == []
    refused = _Nodes()
    assert refused.activated("emotion_node", "configuring", "unconfigured") == []
    assert refused.activated("emotion_node", "configuring", "inactive") == []


def test_a_recogniser_that_cannot_be_configured_is_not_waited_for() -> None:
    nodes = _Nodes()
    nodes.activated("speech_node", "configuring", "inactive")
    nodes.activated("emotion_node", "activating", "active")
    assert nodes.activated("asr_node", "configuring", "unconfigured") == ["speech_node"]


def test_the_bridge_is_activated_before_speech_node_and_not_waited_for_either() -> None:
    for transition, activated in (
        (("activating", "active"), ["speech_node"]),
        (("configuring", "unconfigured"), ["speech_node"]),
    ):
        nodes = _Nodes(asr="none", ros4hri="true")
        nodes.activated("speech_node", "configuring", "inactive")
        assert nodes.activated("emotion_node", "activating", "active") == []
        assert nodes.activated("ros4hri_bridge", *transition) == activated


def test_arguments_choose_the_nodes() -> None:
    without = _entities(asr="none")
    from launch_ros.actions import LifecycleNode, Node

    assert sum(isinstance(e, LifecycleNode) for e in without) == 2
    single = _entities(single_process="true")
    assert [type(e) for e in single] == [Node]
    assert [type(e) for e in _entities(single_process="true", ros4hri="true")] == [Node, Node]
    assert all(isinstance(e, LifecycleNode) for e in _entities(autostart="false"))
    (silent,) = _entities(single_process="true", asr="none")
    assert {"--autostart", "--no-asr"} <= set(_words(silent))
    assert "--no-asr" not in _words(single[0])


def test_nodes_that_are_to_be_respawned_start_themselves() -> None:
    pytest.importorskip("launch_ros")
    from launch_ros.actions import LifecycleNode, Node

    respawned = _entities(respawn="true")
    assert [type(e) for e in respawned] == [Node] * 3
    assert all("--autostart" in _words(e) for e in respawned)
    by_hand = _entities(respawn="true", autostart="false")
    assert [type(e) for e in by_hand] == [LifecycleNode] * 3
    assert not any("--autostart" in _words(e) for e in by_hand)


def _words(node: Any) -> list[str]:
    """The literal words of its command line."""
    return [part.text for word in node.cmd for part in word if hasattr(part, "text")]


LARGER = """
import sys

from launch import LaunchDescription, LaunchService
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace


def emotion(**arguments):
    source = PythonLaunchDescriptionSource(sys.argv[1])
    common = {"model": sys.argv[2], "asr": "none", "log_level": "warn"}
    return IncludeLaunchDescription(source, launch_arguments={**common, **arguments}.items())


service = LaunchService(argv=[])
service.include_launch_description(
    LaunchDescription(
        [
            GroupAction([PushRosNamespace("robot/head"), emotion(audio_topic="/mic")]),
            emotion(namespace="right", single_process="true"),
            emotion(namespace="left", respawn="true"),
        ]
    )
)
sys.exit(service.run())
"""


@pytest.mark.ros
def test_it_composes_into_a_larger_launch(
    ros_domain: int, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Three times in one launch file, each in its namespace and started in its own way."""
    pytest.importorskip("launch_ros")
    program, output = tmp_path / "larger.py", tmp_path / "output.txt"
    program.write_text(LARGER, encoding="utf-8")
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(ros_domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOG_DIR": str(tmp_path / "log"),
    }
    with output.open("w") as file:
        launched = subprocess.Popen(
            [sys.executable, program, LAUNCH_FILE, tiny_bundle],
            env=environment,
            cwd=tmp_path,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        with Graph(nodes=(), domain_id=ros_domain) as graph:
            for space in ("robot/head", "right", "left"):
                for node in ("speech_node", "emotion_node"):
                    assert _becomes_active(graph, f"/{space}/{node}"), output.read_text()
            topics = {name for name, _ in graph.node.get_topic_names_and_types()}
            assert {"/mic", "/right/audio", "/left/audio", "/robot/head/audio_info"} <= topics
            assert "/audio" not in topics
        launched.send_signal(signal.SIGINT)
        assert launched.wait(LIMIT) == 0
    finally:
        if launched.poll() is None:
            launched.kill()
            launched.wait()


def _becomes_active(graph: Graph, node: str) -> bool:
    return graph.spin_until(lambda: graph.state(node.strip("/")) == "active")


def _executable(name: str) -> list[str]:
    """Where `ros2 run` finds it, or the module itself in an environment without installation."""
    installed = Path(sysconfig.get_path("data")) / "lib" / "hri_emo_ros" / name
    if installed.exists():
        return [sys.executable, str(installed)]
    return [sys.executable, "-m", f"hri_emo_ros.nodes.{name}"]


@pytest.mark.ros
def test_every_executable_takes_the_command_line_that_launch_gives_it(
    ros_domain: int, tmp_path: Path
) -> None:
    overrides = tmp_path / "launch_params"
    overrides.write_text(
        "/**:\n  ros__parameters:\n    use_sim_time: false\n    model.bundle: somewhere\n"
        "    asr.backend: moonshine\n",
        encoding="utf-8",
    )
    common = ["--params-file", str(ROOT / "config" / "emotion.yaml")]
    common += ["--params-file", str(overrides), "-r", "audio:=/mic/audio"]
    environment = _environment(ros_domain)
    processes = []
    try:
        for namespace, name in (
            ("/one", "speech_node"), ("/one", "asr_node"), ("/one", "emotion_node"),
            ("/one", "audio_player"), ("/one", "ros4hri_bridge"), ("/two", "pipeline"),
        ):  # fmt: skip
            command = [*_executable(name), "--ros-args", "--log-level", "info", "--ros-args"]
            if name != "pipeline":
                command += ["-r", f"__node:={name}"]
            command += ["-r", f"__ns:={namespace}", *common]
            if name == "audio_player":
                command += ["-p", f"player.files:=[{DATA / 'jfk_1961.flac'}]"]
            processes.append(subprocess.Popen(command, env=environment))
        names = ("speech_node", "asr_node", "emotion_node")
        expected = {("one", n) for n in (*names, "audio_player", "ros4hri_bridge")} | {
            ("two", n) for n in names
        }
        with Graph(nodes=(), domain_id=ros_domain) as graph:

            def present() -> set[tuple[str, str]]:
                pairs = graph.node.get_node_names_and_namespaces()
                return {(space.strip("/"), name) for name, space in pairs}

            assert graph.spin_until(lambda: expected <= present()), present()
            for space in ("one", "two"):
                _check_parameters(graph, space)
        for process in processes:
            process.terminate()
        assert [process.wait(LIMIT) for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.mark.fault(
    "node", "`single_process:=true asr:=none`",
    does="start no recogniser and no asr_node in the process",
    shows="speech_node and emotion_node alone; final states from the voice alone",
)  # fmt: skip
@pytest.mark.ros
def test_a_single_process_without_a_recogniser_has_no_asr_node(
    ros_domain: int, tiny_bundle: Path
) -> None:
    command = [
        *_executable("pipeline"),
        "--autostart",
        "--no-asr",
        "--ros-args",
        "-r",
        "__ns:=/no_asr",
    ]
    command += ["-p", f"model.bundle:={tiny_bundle}", "-p", "transcript.source:=none"]
    process = subprocess.Popen(command, env=_environment(ros_domain))
    try:
        with Graph(nodes=(), domain_id=ros_domain) as graph:
            assert _becomes_active(graph, "/no_asr/speech_node")
            pairs = graph.node.get_node_names_and_namespaces()
            names = {name for name, space in pairs if space == "/no_asr"}
            assert names == {"speech_node", "emotion_node"}
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _environment(domain: int) -> dict[str, str]:
    return {
        **os.environ,
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }


def _check_parameters(graph: Graph, space: str) -> None:
    for node, name, value in (
        ("emotion_node", "model.bundle", "somewhere"),
        ("asr_node", "asr.backend", "moonshine"),
    ):
        request = GetParameters.Request(names=[name])
        answer = graph.call(GetParameters, f"{space}/{node}", "get_parameters", request)
        assert answer.values[0].string_value == value
