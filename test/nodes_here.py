# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Real nodes in the test's own process, talking over DDS as ever, so that faults can be put into what they load."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter

from hri_emo_ros.nodes.graph import Graph
from hri_emo_ros.nodes.lifecycle import HriNode
from hri_emo_ros.parameters import Value


class NodesHere:
    """A context manager: the nodes, unconfigured, in an executor's thread of their own.

    Args:
        makers: the nodes' classes, listeners last.
        parameters: node kind -> parameter name -> value.
    """

    def __init__(
        self,
        domain: int,
        makers: Sequence[Callable[..., HriNode]],
        parameters: Mapping[str, Mapping[str, Value]],
    ) -> None:
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context, domain_id=domain)
        self._executor = SingleThreadedExecutor(context=self.context)
        self.nodes: dict[str, Any] = {}
        for make in makers:
            kind = make.__module__.rpartition(".")[2]
            given = [Parameter(n, value=v) for n, v in parameters.get(kind, {}).items()]
            node = make(context=self.context, parameter_overrides=given)
            self.nodes[node.kind] = node
            self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def start(self, graph: Graph) -> None:
        """Configure and activate all, as launch does."""
        graph.transition(Transition.TRANSITION_CONFIGURE, tuple(self.nodes))
        for kind in reversed(self.nodes):
            graph.transition(Transition.TRANSITION_ACTIVATE, (kind,))

    def __enter__(self) -> NodesHere:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown(timeout_sec=5.0)
        self._thread.join(10.0)
        for node in self.nodes.values():
            node.finish()
            node.destroy_node()
        self.nodes.clear()
        self.context.try_shutdown()
        self.context.destroy()
        # The nodes are full of cycles; while they exist, others see their topics and services.
        del node
        gc.collect()


class Fault:
    """What a wrapped call does instead of its work; the test switches it."""

    def __init__(self) -> None:
        self.kind: type[BaseException] | str | None = None
        """"hang", "slow", an exception's type, or None for none."""
        self.seconds = 0.0
        self.calls = 0
        self.released = threading.Event()

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(*args: Any, **named: Any) -> Any:
            self.calls += 1
            if self.kind == "hang":
                self.released.wait()
            elif self.kind == "slow":
                self.released.wait(self.seconds)
            elif isinstance(self.kind, type):
                raise self.kind("injected")
            return call(*args, **named)

        return faulty

    def clear(self) -> None:
        """No fault any more; calls that hang return."""
        self.kind, self.calls = None, 0
        self.released.set()
        self.released = threading.Event()
