# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What a node says of itself on /diagnostics: one status, once a second, alive or not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from enum import IntEnum

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

PERIOD = 1.0
"""Seconds between two messages."""
MEMORY = 10.0
"""Seconds for which a single failure still colours the status."""


class Level(IntEnum):
    """The levels of diagnostic_msgs/DiagnosticStatus."""

    OK = 0
    WARN = 1
    ERROR = 2


class Diagnostics:
    """Collects conditions, failures and counters of one node and publishes them.

    A *condition* holds until it is cleared ("no audio"); a *failure* is an event ("this message
    could not be decoded") that shows for `MEMORY` seconds and is logged, once per `MEMORY` seconds
    and kind. Counters are read when the message is made. All methods may be called from any thread.

    Args:
        node: its name heads the status; its clock stamps the messages.
        values: called for each message: name -> value to list (counters, identities).
    """

    def __init__(self, node: Node, values: Callable[[], Mapping[str, object]]) -> None:
        self._node, self._values = node, values
        self._lock = threading.Lock()
        self._conditions: dict[str, tuple[Level, str]] = {}
        self._failures: dict[str, tuple[float, Level, str]] = {}
        self._logged: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Steady: diagnostics must go on when simulated time stands still.
        self._timer = node.create_timer(
            PERIOD, self.publish, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def condition(self, kind: str, level: Level, text: str = "", log: bool = True) -> None:
        """Set or, with level OK, clear a lasting condition; a new one is logged if `log`."""
        with self._lock:
            before = self._conditions.get(kind)
            if level is Level.OK:
                self._conditions.pop(kind, None)
            else:
                self._conditions[kind] = (level, text)
        if log and level is not Level.OK and (before is None or before[0] is not level):
            self._log(kind, level, text)
        elif level is Level.OK and before is not None:
            with self._lock:
                self._logged.pop(kind, None)

    def failure(self, kind: str, text: str, level: Level = Level.ERROR) -> None:
        """Count an event that should not happen and say so."""
        with self._lock:
            self._failures[kind] = (time.monotonic(), level, text)
            self._counts[f"failures: {kind}"] = self._counts.get(f"failures: {kind}", 0) + 1
        self._log(kind, level, text)

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter that is listed in every message from now on."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + by

    def clear(self) -> None:
        """Forget conditions and failures (the node was cleaned up); counters stay."""
        with self._lock:
            self._conditions.clear()
            self._failures.clear()
            self._logged.clear()

    def publish(self) -> None:
        """Publish the status now."""
        message = DiagnosticArray(status=[self.status()])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def status(self) -> DiagnosticStatus:
        """The status as it is now; the worst condition or failure makes level and message."""
        now = time.monotonic()
        values = dict(self._values())
        with self._lock:
            reports = list(self._conditions.values())
            reports += [(lv, tx) for at, lv, tx in self._failures.values() if now - at < MEMORY]
            values.update(self._counts)
        level = max((lv for lv, _ in reports), default=Level.OK)
        texts = [text for lv, text in sorted(reports, key=lambda report: -report[0])]
        return DiagnosticStatus(
            level=bytes([level]),
            name=f"{self._node.get_fully_qualified_name().lstrip('/')}: {self._node.get_name()}",
            message="; ".join(texts) or "OK",
            hardware_id="",
            values=[KeyValue(key=str(k), value=_text(v)) for k, v in values.items()],
        )

    def _log(self, kind: str, level: Level, text: str) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._logged.get(kind, -MEMORY) < MEMORY:
                return
            self._logged[kind] = now
        logger = self._node.get_logger()
        # A call of its own for each severity: rclpy raises where one line of code changes it.
        if level is Level.ERROR:
            logger.error(text)
        else:
            logger.warning(text)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
