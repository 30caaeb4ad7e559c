# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Starts the nodes as processes, configures and activates them, and leaves nothing behind.

What ``ros2 launch hri_emo_ros emotion.launch.py`` does, for machines without launch: the demo, live
replay and the integration tests use it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
import yaml
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

import hri_emo_ros
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.parameters import Value, check

PIPELINE_NODES = ("speech_node", "asr_node", "emotion_node")
_ANSWER_LOST = 5.0
"""Seconds without an answer after which a node is asked where it is."""
_LEADS_TO = {
    Transition.TRANSITION_CONFIGURE: "inactive",
    Transition.TRANSITION_CLEANUP: "unconfigured",
    Transition.TRANSITION_ACTIVATE: "active",
    Transition.TRANSITION_DEACTIVATE: "inactive",
}
_SOURCE_ROOT = Path(hri_emo_ros.__file__).resolve().parent.parent
_STOP_SIGNALS = ((signal.SIGINT, 8.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0))


class Graph:
    """The running nodes, and a ROS node of one's own beside them.

    A context manager: entering returns when all nodes are active, leaving ends every process.
    `node` lives in its own rclpy context, so that a program may run several graphs, one after
    another or at once; `spin` and `spin_until` serve its callbacks.

    Args:
        parameters: node kind -> parameter name -> value, checked before anything is started.
        params_file: ROS parameter file, below `parameters` in precedence.
        remaps: topic -> topic, for every node ("audio": "/mic/audio").
        namespace: of all nodes, e.g. "robot1".
        domain_id: ROS_DOMAIN_ID; None finds one that nobody on this machine uses.
        bundle: sets model.bundle; empty leaves what the parameters say.
        nodes: which to start; kinds of `parameters.NODES`.
        single_process: run them as one ``pipeline`` process.
        use_sim_time: follow /clock.
        autostart: configure and activate; otherwise they stay unconfigured.
        localhost: keep discovery on this machine.
        environment: added to the children's.
        timeout: seconds to wait for services and for each transition.

    Raises:
        HriEmoError: on entering, if a node ends or refuses a transition; says what it logged.
    """

    def __init__(
        self,
        *,
        parameters: Mapping[str, Mapping[str, Value]] | None = None,
        params_file: Path | None = None,
        remaps: Mapping[str, str] | None = None,
        namespace: str = "",
        domain_id: int | None = None,
        bundle: str | Path = "",
        nodes: Sequence[str] = PIPELINE_NODES,
        single_process: bool = False,
        use_sim_time: bool = False,
        autostart: bool = True,
        localhost: bool = True,
        log_level: str = "warn",
        environment: Mapping[str, str] | None = None,
        timeout: float = 150.0,
    ) -> None:
        values = {kind: dict(given) for kind, given in (parameters or {}).items()}
        if bundle:
            values.setdefault("emotion_node", {})["model.bundle"] = str(bundle)
        for kind, given in values.items():
            check(kind, given)
        self._values, self._params_file, self._remaps = values, params_file, dict(remaps or {})
        self._namespace = "/" + namespace.strip("/") if namespace.strip("/") else ""
        self.domain_id = free_domain() if domain_id is None else domain_id
        self._kinds, self._single, self._sim = tuple(nodes), single_process, use_sim_time
        self._autostart, self._localhost, self._log_level = autostart, localhost, log_level
        self._extra, self._timeout = dict(environment or {}), timeout
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.context: rclpy.Context | None = None
        self.node: Any = None
        self._executor: Any = None
        self._folder: Path | None = None

    # -- start ----------------------------------------------------------------------------------

    def __enter__(self) -> Graph:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def start(self) -> None:
        """Start everything; returns when the nodes are active (or, without autostart, there)."""
        self._folder = Path(tempfile.mkdtemp(prefix="hri_emo_"))
        for name, kinds in self._executables().items():
            self._spawn(name, kinds)
        self._open_node()
        if self._autostart:
            self.transition(Transition.TRANSITION_CONFIGURE, self._kinds)
            # Listeners before speakers, so that the first message finds its receiver.
            for kind in reversed(self._kinds):
                self.transition(Transition.TRANSITION_ACTIVATE, (kind,))
        else:
            for kind in self._kinds:
                self._client(GetState, kind, "get_state")

    def _executables(self) -> dict[str, tuple[str, ...]]:
        if not self._single:
            return {kind: (kind,) for kind in self._kinds}
        others = {k: (k,) for k in self._kinds if k not in PIPELINE_NODES}
        return {"pipeline": PIPELINE_NODES, **others}

    def _spawn(self, name: str, kinds: tuple[str, ...]) -> None:
        assert self._folder is not None
        command = [sys.executable, "-m", f"hri_emo_ros.nodes.{name}", *self._ros_arguments(kinds)]
        environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(self.domain_id),
            "ROS_LOG_DIR": str(self._folder / "log"),
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(_SOURCE_ROOT), os.environ.get("PYTHONPATH", "")])
            ),
            **self._extra,
        }
        if self._localhost:
            environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        with (self._folder / f"{name}.txt").open("wb") as output:
            self.processes[name] = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches them through stop() only, in order.
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    def _ros_arguments(self, kinds: tuple[str, ...]) -> list[str]:
        """The command line that launch would give."""
        assert self._folder is not None
        arguments = ["--ros-args"]
        if self._namespace:
            arguments += ["-r", f"__ns:={self._namespace}"]
        if self._params_file is not None:
            arguments += ["--params-file", str(self._params_file)]
        tree = {
            f"/**/{kind}": {
                "ros__parameters": {**self._values.get(kind, {}), "use_sim_time": self._sim}
            }
            for kind in kinds
        }
        own = self._folder / f"{'_'.join(kinds)}.yaml"
        own.write_text(yaml.safe_dump(tree), encoding="utf-8")
        arguments += ["--params-file", str(own)]
        for old, new in self._remaps.items():
            arguments += ["-r", f"{old}:={new}"]
        return [*arguments, "--log-level", self._log_level]

    def _open_node(self) -> None:
        self.context = rclpy.Context()
        before = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE")
        if self._localhost:
            os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        try:
            rclpy.init(
                args=[],
                context=self.context,
                domain_id=self.domain_id,
                signal_handler_options=rclpy.signals.SignalHandlerOptions.NO,
            )
            self.node = Node(
                "hri_emo_graph",
                context=self.context,
                namespace=self._namespace or None,
                start_parameter_services=False,
                enable_rosout=False,
            )
        finally:
            if before is None:
                os.environ.pop("ROS_AUTOMATIC_DISCOVERY_RANGE", None)
            else:
                os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = before
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)

    # -- life cycle -----------------------------------------------------------------------------

    def transition(self, transition: int, kinds: Sequence[str] = PIPELINE_NODES) -> None:
        """Send a lifecycle_msgs/Transition id to nodes, at once, and wait until all are done.

        Raises:
            HriEmoError: a node has ended, refuses, or does not answer within the timeout.
        """
        request = ChangeState.Request(transition=Transition(id=transition))
        clients = {kind: self._client(ChangeState, kind, "change_state") for kind in kinds}
        futures = {kind: client.call_async(request) for kind, client in clients.items()}
        there: set[str] = set()

        def done() -> bool:
            return self._dead() or all(f.done() or k in there for k, f in futures.items())

        end = time.monotonic() + self._timeout
        while not self.spin_until(done, _ANSWER_LOST) and time.monotonic() < end:
            there |= {
                k for k, f in futures.items() if not f.done() and self._reached(k, transition)
            }
        for client in clients.values():
            self.node.destroy_client(client)
        for kind, future in futures.items():
            if kind in there:
                continue
            if not future.done():
                reason = "has ended" if done() else f"did not answer within {self._timeout:g} s"
                raise HriEmoError(f"{kind} {reason}: {self.output(kind)}")
            if not future.result().success:
                raise HriEmoError(f"{kind}: {self.output(kind)}")

    def _reached(self, kind: str, transition: int) -> bool:
        """The node is where the transition leads: only its answer got lost, as on a busy machine before both
        ends have found each other."""
        try:
            return self.state(kind, _ANSWER_LOST) == _LEADS_TO.get(transition)
        except HriEmoError:
            return False

    def state(self, kind: str, timeout: float | None = None) -> str:
        """Lifecycle state of a node: "unconfigured", "inactive", "active", "finalized".

        Args:
            timeout: seconds; None is the graph's.

        Raises:
            HriEmoError: the node does not answer.
        """
        timeout = self._timeout if timeout is None else timeout
        client = self._client(GetState, kind, "get_state")
        future = client.call_async(GetState.Request())
        self.spin_until(future.done, timeout)
        self.node.destroy_client(client)
        if not future.done():
            raise HriEmoError(f"{kind} did not answer within {timeout:g} s")
        return str(future.result().current_state.label)

    def _client(self, kind: Any, node: str, service: str) -> Any:
        client = self.node.create_client(kind, f"{self._namespace}/{node}/{service}")
        self.spin_until(lambda: self._dead() or client.service_is_ready(), self._timeout)
        if not client.service_is_ready():
            raise HriEmoError(f"{node} did not start: {self.output(node)}")
        return client

    def _dead(self) -> bool:
        return any(process.poll() is not None for process in self.processes.values())

    def output(self, kind: str, lines: int = 3) -> str:
        """The last lines a node printed, ROS prefixes taken off."""
        name = "pipeline" if self._single and kind in PIPELINE_NODES else kind
        if self._folder is None or not (self._folder / f"{name}.txt").exists():
            return ""
        text = (self._folder / f"{name}.txt").read_text(encoding="utf-8", errors="replace")
        found = [line.split("]: ", 1)[-1].strip() for line in text.splitlines() if line.strip()]
        return " | ".join(dict.fromkeys(found[-lines:])) or "it printed nothing"

    # -- run ------------------------------------------------------------------------------------

    def spin(self, seconds: float) -> None:
        """Serve the callbacks of `node` for a while."""
        self.spin_until(lambda: False, seconds)

    def spin_until(self, condition: Callable[[], object], timeout: float) -> bool:
        """Serve the callbacks of `node` until `condition` holds; False after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._executor.spin_once(timeout_sec=min(0.05, left))
        return True

    # -- end ------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End every process (SIGINT, then harder), and remove what was written."""
        for number, patience in _STOP_SIGNALS:
            running = [p for p in self.processes.values() if p.poll() is None]
            for process in running:
                process.send_signal(number)
            deadline = time.monotonic() + patience
            for process in running:
                try:
                    process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    continue
        self.processes.clear()
        if self._executor is not None:
            self._executor.shutdown(timeout_sec=1.0)
            self._executor = None
        if self.node is not None:
            self.node.destroy_node()
            self.node = None
        if self.context is not None:
            self.context.try_shutdown()
            self.context.destroy()
            self.context = None
            # The node is full of cycles; while it exists, DDS keeps its shared memory.
            gc.collect()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def free_domain() -> int:
    """A ROS_DOMAIN_ID whose first participants' ports nobody on this machine holds."""
    candidates = list(range(1, 102))
    random.shuffle(candidates)
    for domain in candidates:
        if all(_port_is_free(7400 + 250 * domain + 10 + 2 * k) for k in range(5)):
            return domain
    raise HriEmoError("no free ROS_DOMAIN_ID from 1 to 101; give one with --domain")


def _port_is_free(port: int) -> bool:
    """RTPS discovery ports are 7400 + 250 * domain + 10 + 2 * participant (UDP)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


if sys.platform == "linux":
    _LIBC = ctypes.CDLL(None)

    def _die_with_parent() -> None:
        _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
