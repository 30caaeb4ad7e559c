# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Transitions in any order and number, refusals, and signals at any time: nothing is left behind."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nodes_here import NodesHere
from ros_playing import all_listen, clips, later, listen, play, said

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.nodes.asr_node import AsrNode
from hri_emo_ros.nodes.emotion_node import EmotionNode
from hri_emo_ros.nodes.graph import LIMIT, Graph
from hri_emo_ros.nodes.speech_node import SpeechNode

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]

LEGAL = {
    "unconfigured": {Transition.TRANSITION_CONFIGURE: "inactive"},
    "inactive": {
        Transition.TRANSITION_ACTIVATE: "active",
        Transition.TRANSITION_CLEANUP: "unconfigured",
    },
    "active": {Transition.TRANSITION_DEACTIVATE: "inactive"},
}
EVERY = (
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_DEACTIVATE,
)


def held(node: Any) -> dict[str, Any]:
    """What a node has open."""
    return {
        "publishers": sorted(p.topic for p in node.publishers),
        "subscriptions": sorted(s.topic_name for s in node.subscriptions),
        "services": sorted(s.service_name for s in node.services),
        "timers": len(list(node.timers)),
        "threads": threading.active_count(),
    }


@pytest.mark.fault(
    "node", "transitions in any order, refused ones among them, hundreds of them",
    does="take the legal ones, refuse the others; the same topics, services, timers, threads and files each time",
    shows="the states that they should have; then a final state as ever",
)  # fmt: skip
def test_transitions_in_any_order_leave_nothing_behind(tiny_bundle: Path, ros_domain: int) -> None:
    parameters = {
        "asr_node": {"asr.backend": "moonshine", "asr.threads": 1},
        "emotion_node": {"model.bundle": str(tiny_bundle), "model.threads": 1, "final.hold": 30.0},
    }
    chance, seen = random.Random(0), {}
    with (
        NodesHere(ros_domain, (SpeechNode, AsrNode, EmotionNode), parameters) as nodes,
        Graph(nodes=(), domain_id=ros_domain) as graph,
    ):
        heard = listen(graph, nodes.nodes)
        states = dict.fromkeys(nodes.nodes, "unconfigured")
        # Once through, so that what is loaded once in a process is there.
        for step in (*EVERY[::2], *EVERY[::-2]):
            graph.transition(step, tuple(states))
        files = psutil.Process().num_fds()
        for _ in range(120):
            kind = chance.choice(list(states))
            step = chance.choice(EVERY)
            goal = LEGAL[states[kind]].get(step)
            if goal is None:
                with pytest.raises(HriEmoError):
                    graph.transition(step, (kind,))
            else:
                graph.transition(step, (kind,))
                states[kind] = goal
            assert nodes.nodes[kind].state == states[kind]
            now = {kind: held(node) for kind, node in nodes.nodes.items()}
            assert now == seen.setdefault(tuple(states.values()), now)
        assert psutil.Process().num_fds() <= files + 5
        for kind in ("emotion_node", "asr_node", "speech_node"):
            if states[kind] == "unconfigured":
                graph.transition(Transition.TRANSITION_CONFIGURE, (kind,))
            if states[kind] != "active":
                graph.transition(Transition.TRANSITION_ACTIVATE, (kind,))
        later(graph, heard, "speech_node")
        all_listen(graph, heard)
        heard.start_over()
        play(graph, clips("lj_LJ001-0008"), speed=4.0)
        assert graph.spin_until(lambda: len(heard.finals) == 1)
        assert "surpassed" in heard.finals[0].transcript


@pytest.mark.fault(
    "node", "a value that a node cannot work with: no such model, recogniser, type or combination",
    does="refuse to be configured, any number of times; leave no topic, service, timer or thread behind",
    shows="ERROR that names the parameter; the node lives, `unconfigured`",
)  # fmt: skip
def test_a_refused_configuration_leaves_nothing_behind(tiny_bundle: Path, ros_domain: int) -> None:
    wrong = {
        "speech_node": {"segment.max_length": 1.0, "segment.pre_roll": 2.0},
        "asr_node": {"asr.backend": "whisper", "whisper.model": "/nowhere"},
        "emotion_node": {"model.bundle": str(tiny_bundle), "voices.profiles": "/dev/null/x"},
    }
    with (
        NodesHere(ros_domain, (SpeechNode, AsrNode, EmotionNode), wrong) as nodes,
        Graph(nodes=(), domain_id=ros_domain) as graph,
    ):
        heard = listen(graph, nodes.nodes)
        for kind in nodes.nodes:
            node: Any = nodes.nodes[kind]
            name = list(wrong[kind])[-1]
            before = None
            for _ in range(3):
                with pytest.raises(HriEmoError):
                    graph.transition(Transition.TRANSITION_CONFIGURE, (kind,))
                assert node.state == "unconfigured"
                now = held(node)
                before = before or now
                assert now == before
            assert not {"/speech", "/transcript", "/emotion_state", "/audio"} & {
                *before["publishers"], *before["subscriptions"]
            }  # fmt: skip

            said(graph, heard, kind, name, DiagnosticStatus.ERROR)


@pytest.mark.fault(
    "node", "SIGINT or SIGTERM, once or twice in a moment, while a node loads its model or works",
    does="end the utterance in work, end within 2 s (measured; see below) with exit code 0",
    shows="nothing: no traceback",
)  # fmt: skip
@pytest.mark.parametrize(
    ("number", "when"),
    [
        (signal.SIGINT, 0.0), (signal.SIGINT, 0.3), (signal.SIGINT, 1.0), (signal.SIGINT, None),
        (signal.SIGTERM, 0.3), (signal.SIGTERM, None),
    ],
)  # fmt: skip
def test_a_signal_ends_nodes_at_any_time(
    ros_domain: int, number: signal.Signals, when: float | None
) -> None:
    with Graph(
        nodes=("speech_node", "asr_node", "emotion_node"), single_process=True,
        domain_id=ros_domain, autostart=when is None, log_level="info",
    ) as graph:  # fmt: skip
        process = graph.processes["pipeline"]
        if when is not None:
            request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
            client = graph._client(ChangeState, "emotion_node", "change_state")
            client.call_async(request)
            graph.spin(when)  # Wherever it is then.
        process.send_signal(number)
        graph.spin(0.05)
        if process.poll() is None:
            process.send_signal(number)
        assert process.wait(LIMIT) == 0
        assert "Traceback" not in graph.output("speech_node", 50)
