# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Watches emotion_state and the nodes' diagnostics and shows them in the terminal."""

from __future__ import annotations

import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from hri_emo_msgs.msg import EmotionState
from hri_emo_ros.nodes import qos
from hri_emo_ros.parameters import NODES
from hri_emo_ros.view.shown import Shown, from_message
from hri_emo_ros.view.terminal import screen

STALE = 3.0
"""Seconds without diagnostics after which a node counts as gone."""
LEVELS = {0: ("ok", "green"), 1: ("warning", "yellow"), 2: ("ERROR", "red"), 3: ("stale", "dim")}


class _Watch:
    """What was heard of the graph so far."""

    def __init__(self, namespace: str) -> None:
        self._prefix = f"{namespace.strip('/')}/" if namespace.strip("/") else ""
        self.now: Shown | None = None
        self.finals: list[Shown] = []
        self.health: dict[str, tuple[float, int, str]] = {}
        self._epoch_ns = 0

    def state(self, message: EmotionState) -> None:
        stamp = message.header.stamp
        self._epoch_ns = self._epoch_ns or stamp.sec * 1_000_000_000
        self.now = from_message(message, self._epoch_ns)
        if self.now.final:
            self.finals.append(self.now)

    def diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name = status.name.partition(":")[0]
            if name.startswith(self._prefix) and name.rsplit("/", 1)[-1] in NODES:
                self.health[name] = (time.monotonic(), status.level[0], status.message)

    def lines(self) -> list[tuple[str, str]]:
        """(text, style) for each node."""
        if not self.health:
            return [("no nodes heard on /diagnostics: are they running in this domain?", "red")]
        found = []
        for name, (heard, level, text) in sorted(self.health.items()):
            late = time.monotonic() - heard > STALE
            word, style = LEVELS.get(3 if late else level, LEVELS[3])
            found.append((f"{name}: {word}" + (f"  {text}" if level and not late else ""), style))
        return found


def watch(namespace: str = "", topic: str = "emotion_state", seconds: float = 0.0) -> int:
    """Show a running graph until Ctrl-C or for so many seconds; 0 if anything was heard."""
    rclpy.init()
    heard = _Watch(namespace)
    node = rclpy.create_node("hri_emo_monitor", namespace=namespace or None, enable_rosout=False)
    node.create_subscription(EmotionState, topic, heard.state, qos.EMOTION)
    node.create_subscription(DiagnosticArray, "/diagnostics", heard.diagnostics, 10)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        _follow(executor, heard, time.monotonic() + seconds if seconds else float("inf"))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        rclpy.try_shutdown()
    return 0 if heard.health or heard.finals else 1


def _follow(executor: SingleThreadedExecutor, heard: _Watch, until: float) -> None:
    console = Console()
    if console.is_terminal:
        with Live(console=console, refresh_per_second=8) as live:
            while time.monotonic() < until:
                executor.spin_once(timeout_sec=0.1)
                lines = [Text(text, style=style) for text, style in heard.lines()]
                live.update(Group(*lines, screen(heard.now, heard.finals, "emotion_state")))
        return
    printed = 0
    told: list[tuple[str, str]] = []
    while time.monotonic() < until:
        executor.spin_once(timeout_sec=0.1)
        if heard.health and heard.lines() != told:
            told = heard.lines()
            for text, _ in told:
                console.print(text, markup=False, highlight=False, soft_wrap=True)
        for shown in heard.finals[printed:]:
            console.print(shown.line, markup=False, highlight=False, soft_wrap=True)
        printed = len(heard.finals)
