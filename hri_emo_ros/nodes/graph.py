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
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

import hri_emo_ros
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.parameters import Value, check

PIPELINE_NODES = ("speech_node", "asr_node", "emotion_node")
LIMIT = 60.0
"""Seconds after which a condition is given up: many times what it takes, however busy the machine is."""
_ANSWER_LOST = 5.0
"""Seconds without an answer after which a node is asked where it is."""
_LISTENERS = ("asr_node", "emotion_node", "ros4hri_bridge")
"""Who listens to `speech`."""
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

    A context manager: entering returns when all nodes are active and speech_node has found who listens to it,
    leaving ends every process.
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
        self.kinds, self._single, self._sim = tuple(nodes), single_process, use_sim_time
        self._autostart, self._localhost, self._log_level = autostart, localhost, log_level
        self._extra, self._timeout = dict(environment or {}), timeout
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.context: rclpy.Context | None = None
        self.node: Any = None
        self._executor: Any = None
        self._clients: dict[tuple[str, str], Any] = {}
        """By node and service; kept, since an answer is lost before both ends have found each other."""
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
            self.transition(Transition.TRANSITION_CONFIGURE, self.kinds)
            # Listeners before speakers, so that the first message finds its receiver.
            for kind in reversed(self.kinds):
                self.transition(Transition.TRANSITION_ACTIVATE, (kind,))
            self._await_listeners()
        else:
            for kind in self.kinds:
                self._client(GetState, kind, "get_state")

    def _await_listeners(self) -> None:
        """Until then nothing should be said: DDS may find one 3 s after the other, also on an idle machine."""
        listeners = [kind for kind in _LISTENERS if kind in self.kinds]
        if "speech_node" not in self.kinds or not listeners:
            return
        told: dict[str, dict[str, str]] = {}

        def take(message: DiagnosticArray) -> None:
            for status in message.status:
                told[f"/{status.name}"] = {value.key: value.value for value in status.values}

        def found() -> bool:
            own = {k: told.get(f"{self._namespace}/{k}: {k}") for k in ("speech_node", *listeners)}
            if not all(own.values()):
                return False
            wanted = [k for k in listeners if (own[k] or {}).get("recogniser") != "none"]
            return int((own["speech_node"] or {}).get("listeners", 0)) >= len(wanted)

        diagnostics = self.node.create_subscription(DiagnosticArray, "/diagnostics", take, 10)
        if not self.spin_until(found):
            raise HriEmoError(f"speech_node does not find who listens to it within {LIMIT:g} s")
        self.node.destroy_subscription(diagnostics)

    def _executables(self) -> dict[str, tuple[str, ...]]:
        if not self._single:
            return {kind: (kind,) for kind in self.kinds}
        others = {k: (k,) for k in self.kinds if k not in PIPELINE_NODES}
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
            return all(f.done() or k in there or self._ended(k) for k, f in futures.items())

        end = time.monotonic() + self._timeout
        while not self.spin_until(done, _ANSWER_LOST) and time.monotonic() < end:
            there |= {
                k for k, f in futures.items() if not f.done() and self._reached(k, transition)
            }
        for kind, future in futures.items():
            if kind in there:
                continue
            if not future.done():
                ended = self._ended(kind)
                reason = "has ended" if ended else f"did not answer within {self._timeout:g} s"
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

        Of each topic the node has then taken the message that had reached it before: topics are served first.

        Args:
            timeout: seconds; None is the graph's.

        Raises:
            HriEmoError: the node does not answer.
        """
        answer = self.call(GetState, kind, "get_state", GetState.Request(), timeout)
        return str(answer.current_state.label)

    def call(
        self, kind: Any, node: str, service: str, request: Any, timeout: float | None = None
    ) -> Any:
        """The answer of a node's service. It is asked again where an answer gets lost, so the request must bear that.

        Args:
            kind: the service's type.
            service: its name below the node's ("get_state").
            timeout: seconds; None is the graph's.

        Raises:
            HriEmoError: the node does not answer.
        """
        timeout = self._timeout if timeout is None else timeout
        client = self._client(kind, node, service)
        asked: list[Any] = []
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            asked.append(client.call_async(request))
            if self.spin_until(lambda: any(f.done() for f in asked), min(left, _ANSWER_LOST)):
                return next(f.result() for f in asked if f.done())
        raise HriEmoError(f"{node} did not answer within {timeout:g} s")

    def _client(self, kind: Any, node: str, service: str) -> Any:
        client = self._clients.get((node, service))
        if client is None:
            client = self.node.create_client(kind, f"{self._namespace}/{node}/{service}")
            self._clients[node, service] = client
        self.spin_until(lambda: self._ended(node) or client.service_is_ready(), self._timeout)
        if not client.service_is_ready():
            raise HriEmoError(f"{node} did not start: {self.output(node)}")
        return client

    def _ended(self, kind: str) -> bool:
        process = self.processes.get(self._process(kind))
        return process is not None and process.poll() is not None

    def _process(self, kind: str) -> str:
        """Name of the process that a node runs in."""
        return "pipeline" if self._single and kind in PIPELINE_NODES else kind

    def output(self, kind: str, lines: int = 3) -> str:
        """The last lines a node printed, ROS prefixes taken off."""
        name = self._process(kind)
        if self._folder is None or not (self._folder / f"{name}.txt").exists():
            return ""
        text = (self._folder / f"{name}.txt").read_text(encoding="utf-8", errors="replace")
        found = [line.split("]: ", 1)[-1].strip() for line in text.splitlines() if line.strip()]
        return " | ".join(dict.fromkeys(found[-lines:])) or "it printed nothing"

    # -- run ------------------------------------------------------------------------------------

    def spin(self, seconds: float) -> None:
        """Serve the callbacks of `node` for a while."""
        self.spin_until(lambda: False, seconds)

    def spin_until(self, condition: Callable[[], object], timeout: float = LIMIT) -> bool:
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
            self._clients.clear()
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
