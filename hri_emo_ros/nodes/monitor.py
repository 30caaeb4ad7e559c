# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Watches a running graph and shows it in the terminal, and on a page for browsers."""

from __future__ import annotations

import time
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from hri_emo_msgs.msg import ConversationEmotion, EmotionState, Transcript
from hri_emo_ros.nodes import qos
from hri_emo_ros.parameters import NODES
from hri_emo_ros.view.shown import Shown, from_message
from hri_emo_ros.view.terminal import screen
from hri_emo_ros.view.web import LivePage, parse_address, plain

STALE = 3.0
"""Seconds without diagnostics after which a node counts as gone."""
LEVELS = ("ok", "warning", "error", "stale")
STYLES = {"ok": "green", "warning": "yellow", "error": "red", "stale": "dim"}


class _Watch:
    """What was heard of the graph so far."""

    def __init__(self, namespace: str, page: LivePage | None) -> None:
        self._prefix = f"{namespace.strip('/')}/" if namespace.strip("/") else ""
        self._page = page
        self.now: Shown | None = None
        self.finals: list[Shown] = []
        self._health: dict[str, tuple[float, int, str, dict[str, str]]] = {}
        self._epoch_ns = 0

    def state(self, message: EmotionState) -> None:
        stamp = message.header.stamp
        self._epoch_ns = self._epoch_ns or stamp.sec * 1_000_000_000
        self.now = from_message(message, self._epoch_ns)
        if self.now.final:
            self.finals.append(self.now)
        self.tell("state", message, keep=self.now.final)

    def tell(self, kind: str, message: Any, keep: bool = True) -> None:
        """Pass a message on to the page, if there is one."""
        if self._page is not None:
            self._page.tell(kind, plain(message), keep)

    def diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            name = status.name.partition(":")[0]
            if name.startswith(self._prefix) and name.rsplit("/", 1)[-1] in NODES:
                values = {each.key: each.value for each in status.values}
                self._health[name] = (
                    time.monotonic(), status.level[0], status.message, values,
                )  # fmt: skip

    def tell_health(self) -> None:
        """Pass the nodes' health on to the page."""
        self.tell("health", self.health())

    def health(self) -> list[dict[str, Any]]:
        """Of each node heard: name, level (one of LEVELS), text and all values of its diagnostics."""
        return [
            {
                "name": name,
                "level": "stale" if time.monotonic() - at > STALE else LEVELS[min(level, 3)],
                "text": text,
                "values": values,
            }
            for name, (at, level, text, values) in sorted(self._health.items())
        ]

    def lines(self) -> list[tuple[str, str]]:
        """(text, style) for each node."""
        health = self.health()
        if not health:
            return [("no nodes heard on /diagnostics: are they running in this domain?", "red")]
        found = []
        for each in health:
            level = each["level"]
            text = f"  {each['text']}" if level in ("warning", "error") else ""
            word = level.upper() if level == "error" else level
            found.append((f"{each['name']}: {word}{text}", STYLES[level]))
        return found


def watch(
    namespace: str = "", topic: str = "emotion_state", seconds: float = 0.0, web: str = ""
) -> int:
    """Show a running graph until Ctrl-C or for so many seconds; 0 if anything was heard.

    Args:
        web: "PORT" or "HOST:PORT": serve it as a page, too; "" does not.

    Raises:
        HriEmoError: the page cannot be served there.
    """
    page = LivePage(*parse_address(web), histories=["state"]) if web else None
    if page is not None:
        print(f"live page: {page.url}", flush=True)
    rclpy.init()
    heard = _Watch(namespace, page)
    node = rclpy.create_node("hri_emo_monitor", namespace=namespace or None, enable_rosout=False)
    node.create_subscription(EmotionState, topic, heard.state, qos.EMOTION)
    node.create_subscription(DiagnosticArray, "/diagnostics", heard.diagnostics, 10)
    if page is not None:
        node.create_subscription(
            Transcript, "transcript", lambda m: heard.tell("transcript", m), qos.TRANSCRIPT
        )
        node.create_subscription(
            ConversationEmotion,
            "conversation_emotion",
            lambda m: heard.tell("conversation", m),
            qos.LATEST,
        )
        node.create_timer(1.0, heard.tell_health)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        _follow(executor, heard, time.monotonic() + seconds if seconds else float("inf"))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        if page is not None:
            page.close()
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        rclpy.try_shutdown()
    return 0 if heard.health() or heard.finals else 1


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
        if heard.health() and heard.lines() != told:
            told = heard.lines()
            for text, _ in told:
                console.print(text, markup=False, highlight=False, soft_wrap=True)
        for shown in heard.finals[printed:]:
            console.print(shown.line, markup=False, highlight=False, soft_wrap=True)
        printed = len(heard.finals)
