# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Starts speech_node, asr_node and emotion_node, configures and activates them.

    ros2 launch hri_emo_ros emotion.launch.py audio_topic:=/mic/audio asr:=whisper \
        whisper_model:=/models/faster-whisper-small

`ros2 launch hri_emo_ros emotion.launch.py --show-args` lists all arguments.
"""

import os

import lifecycle_msgs.msg
from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.events import matches_action
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState

from launch import LaunchDescription

PACKAGE = "hri_emo_ros"
NODES = ("speech_node", "asr_node", "emotion_node")
BOOLEANS = ["true", "false"]


def generate_launch_description():
    params_file = os.path.join(get_package_share_directory(PACKAGE), "config", "emotion.yaml")
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "namespace", default_value="", description="Namespace of nodes and topics."
            ),
            DeclareLaunchArgument(
                "params_file", default_value=params_file, description="Parameters of all nodes."
            ),
            DeclareLaunchArgument(
                "audio_topic", default_value="audio", description="The robot's audio topic."
            ),
            DeclareLaunchArgument(
                "audio_info_topic", default_value="audio_info", description="Its AudioInfo topic."
            ),
            DeclareLaunchArgument(
                "robot_speaking_topic",
                default_value="robot_speaking",
                description="std_msgs/Bool: true while the robot speaks.",
            ),
            DeclareLaunchArgument(
                "transcript_topic",
                default_value="transcript",
                description="Words from here; with asr:=none, the robot's own recogniser's topic.",
            ),
            DeclareLaunchArgument(
                "model",
                default_value="",
                description="Model bundle (folder or name); empty: as in params_file.",
            ),
            DeclareLaunchArgument(
                "device",
                default_value="",
                choices=["", "auto", "cpu", "cuda"],
                description="Device of model and Whisper; empty: as in params_file.",
            ),
            DeclareLaunchArgument(
                "asr",
                default_value="",
                choices=["", "auto", "moonshine", "whisper", "none"],
                description="Recogniser; none starts no asr_node; empty: as in params_file.",
            ),
            DeclareLaunchArgument(
                "whisper_model",
                default_value="",
                description="faster-whisper model folder; empty: as in params_file.",
            ),
            DeclareLaunchArgument(
                "single_process",
                default_value="false",
                choices=BOOLEANS,
                description="All nodes in one process.",
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="false",
                choices=BOOLEANS,
                description="Follow /clock (ros2 bag play --clock).",
            ),
            DeclareLaunchArgument(
                "log_level", default_value="info", description="debug, info, warn, error or fatal."
            ),
            DeclareLaunchArgument(
                "ros4hri",
                default_value="false",
                choices=BOOLEANS,
                description="Also say it all in the topics of ROS4HRI (needs hri_msgs).",
            ),
            DeclareLaunchArgument(
                "autostart",
                default_value="true",
                choices=BOOLEANS,
                description="Configure and activate the nodes.",
            ),
            DeclareLaunchArgument(
                "respawn",
                default_value="false",
                choices=BOOLEANS,
                description="Start a process that ended anew, after 2 s.",
            ),
            OpaqueFunction(function=_start),
        ]
    )


def _start(context):
    """The nodes, once the arguments' values are known."""
    given = context.launch_configurations
    nodes = [name for name in NODES if not (name == "asr_node" and given["asr"] == "none")]
    optional = ["ros4hri_bridge"] if given["ros4hri"] == "true" else []
    common = {
        "package": PACKAGE,
        "namespace": given["namespace"],
        "output": "screen",
        "parameters": [given["params_file"], _overrides(given)],
        "remappings": [
            (name, given[f"{name}_topic"])
            for name in ("audio", "audio_info", "robot_speaking", "transcript")
            if given[f"{name}_topic"] != name
        ],
        "ros_arguments": ["--log-level", given["log_level"]],
        "respawn": given["respawn"] == "true",
        "respawn_delay": 2.0,
    }
    autostart = given["autostart"] == "true"
    arguments = ["--autostart"] if autostart else []
    if given["single_process"] == "true":
        # Three nodes, each with its own name: no `name` here, and the process starts them itself.
        pipeline = arguments + (["--no-asr"] if given["asr"] == "none" else [])
        return [
            Node(executable="pipeline", arguments=pipeline, **common),
            *(Node(executable=name, arguments=arguments, **common) for name in optional),
        ]
    nodes += optional
    if autostart and common["respawn"]:
        # Each starts itself: a request of launch's may still go to the process that has just ended.
        return [Node(executable=name, name=name, arguments=arguments, **common) for name in nodes]
    lifecycle = {name: LifecycleNode(executable=name, name=name, **common) for name in nodes}
    if not autostart:
        return list(lifecycle.values())
    return [
        *_started_in_order(lifecycle),
        *lifecycle.values(),
        *(_transition(node, "CONFIGURE") for node in lifecycle.values()),
    ]


def _started_in_order(lifecycle):
    """Activates the listeners as they are ready and speech_node last, so that nothing is said to nobody.

    A recogniser that cannot be configured is not waited for: the voice alone speaks then; nor is the bridge.
    """
    speech = lifecycle["speech_node"]
    awaited, starting = set(lifecycle), set(lifecycle)

    def configured(name):
        # Once: whoever cleans up and configures by hand later activates by hand too.
        first = name in starting
        starting.discard(name)
        return [_transition(lifecycle[name], "ACTIVATE")] if first else []

    def refused(name):
        starting.discard(name)
        return ready(name) if name in ("asr_node", "ros4hri_bridge") else []

    def ready(name):
        last = awaited == {name}
        awaited.discard(name)
        return [_transition(speech, "ACTIVATE")] if last else []

    def handler(name, start, goal, then):
        return RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=lifecycle[name],
                # Without start_state, a node deactivated by hand would be activated again.
                start_state=start,
                goal_state=goal,
                entities=[OpaqueFunction(function=lambda context: then(name))],
            )
        )

    handlers = [handler("speech_node", "configuring", "inactive", ready)]
    for name in lifecycle:
        if name == "speech_node":
            continue
        handlers += [
            handler(name, "configuring", "inactive", configured),
            handler(name, "configuring", "unconfigured", refused),
            handler(name, "activating", "active", ready),
        ]
    return handlers


def _overrides(given):
    """Parameters that the arguments set on top of the file."""
    values = {"use_sim_time": given["use_sim_time"] == "true"}
    for argument, parameters in {
        "model": ["model.bundle"],
        "device": ["model.device", "whisper.device"],
        "asr": ["asr.backend"],
        "whisper_model": ["whisper.model"],
    }.items():
        if given[argument]:
            values.update(dict.fromkeys(parameters, given[argument]))
    if given["asr"] == "none" and given["transcript_topic"] == "transcript":
        # Nobody will send words, so nobody needs to wait for them.
        values["transcript.source"] = "none"
    return values


def _transition(node, name):
    return EmitEvent(
        event=ChangeState(
            lifecycle_node_matcher=matches_action(node),
            transition_id=getattr(lifecycle_msgs.msg.Transition, f"TRANSITION_{name}"),
        )
    )
