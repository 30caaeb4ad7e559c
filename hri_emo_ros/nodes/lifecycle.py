# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What all nodes share: parameters from their one declaration, life cycle, diagnostics, start and end."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import rclpy
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import LoggingSeverity
from rclpy.parameter import Parameter as RosParameter
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.hardware import return_freed_memory
from hri_emo_ros.nodes.diagnostics import Diagnostics, Level
from hri_emo_ros.nodes.type_support import leave_generator_out
from hri_emo_ros.parameters import NODES, Parameter, Value
from hri_emo_ros.worker import Worker

# ROS declares these by itself, or anyone may give them to every node.
_FOREIGN = ("use_sim_time", "start_type_description_service", "qos_overrides.")
PATIENCE, LAST_PATIENCE = 5.0, 0.5
"""Seconds for which a transition waits for the work in hand; and the end of the process."""
LOOK_PERIOD = 0.2
"""Seconds between looks at what ROS tells nobody: who publishes what, whether audio still comes."""
STUCK = 5.0
"""Seconds at one message, beyond what its models may take, after which a worker counts as stuck."""

M = TypeVar("M")


class HriNode(LifecycleNode):
    """A lifecycle node whose parameters are those of `hri_emo_ros.parameters`.

    Subclasses say what they are in four steps; each runs in the executor's thread:

    - `build(parameters)` makes everything, may take seconds, raises HriEmoError to refuse;
    - `open()` lets messages through, in no time;
    - `close()` finishes what is open and lets no more through;
    - `dismantle()` releases whatever `build` made, however far it got.

    Args:
        kind: key of `parameters.NODES`, and the node's name unless it is remapped.
    """

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__(kind, automatically_declare_parameters_from_overrides=True, **options)
        self.kind = kind
        self.state = "unconfigured"
        self.patience = PATIENCE
        self.stuck_after = STUCK
        self._worker: Worker[Any] | None = None
        self._problems: list[str] = []
        self._declared: dict[str, Parameter] = {p.name: p for p in NODES[kind]}
        self._declare()
        self.diagnostics = Diagnostics(self, self._values)
        self.add_pre_set_parameters_callback(self._widen)
        self._looks: list[Callable[[], None]] = [self._watch_worker]
        # One timer for all: each time that the executor wakes costs ten times what a look does.
        self.create_timer(
            LOOK_PERIOD, self._look_around, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self.add_on_set_parameters_callback(self._check_changes)
        self.add_post_set_parameters_callback(self._take_changes)
        if self._problems:
            self.diagnostics.condition(
                "configure", Level.ERROR, "; ".join(self._problems), log=False
            )

    # -- what subclasses fill in ----------------------------------------------------------------

    def build(self, parameters: dict[str, Value]) -> None:
        raise NotImplementedError

    def open(self) -> None:
        raise NotImplementedError

    def take_rest(self) -> None:
        """Take what has come before the node is closed, and lies in DDS still."""

    def close(self) -> None:
        raise NotImplementedError

    def dismantle(self) -> None:
        raise NotImplementedError

    def check_together(self, parameters: dict[str, Value]) -> None:
        """Raise HriEmoError where values that are allowed each by itself do not fit one another."""

    def changed(self, parameters: dict[str, Value]) -> None:
        """All parameters after some changed while configured."""

    def summary(self) -> str:
        """What to add to the log line that says that the node is active."""
        return ""

    def values(self) -> Mapping[str, object]:
        """Counters and identities for diagnostics."""
        return {}

    # -- parameters -----------------------------------------------------------------------------

    def parameters(self) -> dict[str, Value]:
        """The present value of every declared parameter."""
        found: dict[str, Value] = {}
        for name, parameter in self._declared.items():
            value = self.get_parameter(name).value
            found[name] = list(value) if isinstance(parameter.default, list) else value
        return found

    def _declare(self) -> None:
        for name in [n for n in self._parameters if n not in self._declared]:
            if name.startswith(_FOREIGN):
                continue
            self.undeclare_parameter(name)
            if not _known_elsewhere(name):
                self._problems.append(
                    f"{self.kind} has no parameter '{name}'; it has: {', '.join(self._declared)}"
                )
        for parameter in self._declared.values():
            value = parameter.default
            if self.has_parameter(parameter.name):
                given = self.get_parameter(parameter.name).value
                self.undeclare_parameter(parameter.name)
                try:
                    value = parameter.check(given)
                except HriEmoError as error:
                    # The node lives on with the default, and refuses to be configured.
                    self._problems.append(str(error))
            self.declare_parameter(
                parameter.name, value, _descriptor(parameter), ignore_override=True
            )

    def _widen(self, changes: list[RosParameter]) -> list[RosParameter]:
        """An integer will do where a number is meant: `ros2 param set` makes one of "1"."""
        return [
            RosParameter(change.name, value=float(change.value))
            if change.type_ is RosParameter.Type.INTEGER
            and change.name in self._declared
            and isinstance(self._declared[change.name].default, float)
            else change
            for change in changes
        ]

    def _check_changes(self, changes: list[RosParameter]) -> SetParametersResult:
        own = {c.name: c.value for c in changes if c.name in self._declared}
        try:
            checked = {name: self._declared[name].check(value) for name, value in own.items()}
            if checked:
                self.check_together(self.parameters() | checked)
        except HriEmoError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take_changes(self, changes: list[RosParameter]) -> None:
        if self.state in ("inactive", "active") and any(c.name in self._declared for c in changes):
            self.guarded("parameters", lambda: self.changed(self.parameters()))

    # -- life cycle -----------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self._problems:
            return self._refuse("; ".join(self._problems))
        self.diagnostics.clear()
        try:
            self.build(self.parameters())
        except HriEmoError as error:
            self.dismantle()
            return self._refuse(str(error))
        except Exception as error:
            self.dismantle()
            return self._refuse(f"cannot be configured: {type(error).__name__}: {error}")
        self.state = "inactive"
        return_freed_memory()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self.open()
        self.state = "active"
        self.get_logger().info(f"active{self.summary()}")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.take_rest()
        self.state = "inactive"
        self.close()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.state = "unconfigured"
        self.dismantle()
        self.diagnostics.clear()
        # A model's wrapper is a cycle: left to chance, the old one is there still while the next is loaded.
        gc.collect()
        return_freed_memory()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.finish()
        self.state = "finalized"
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.guarded("error", self.close)
        self.dismantle()
        self.state = "unconfigured"
        return super().on_error(state)

    def finish(self) -> None:
        """Close and release everything, whatever the state; soon, whatever hangs."""
        self.patience = LAST_PATIENCE
        if self.state == "active":
            self.close()
        if self.state in ("active", "inactive"):
            self.state = "unconfigured"
            self.dismantle()

    def guarded(self, kind: str, action: Callable[[], None]) -> None:
        """Run `action`; what it raises becomes a diagnostic and one log line, never an exit."""
        try:
            action()
        except Exception as error:
            self.failed(kind, error)

    def failed(self, kind: str, error: BaseException) -> str:
        """Report a failure that the node survives; returns it in words."""
        known = isinstance(error, HriEmoError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        self.diagnostics.failure(kind, text)
        return text

    def out_of_order(self, problem: str) -> None:
        """Say that the node's model does not work, or (empty) that it works again."""
        self.diagnostics.condition("model", Level.ERROR if problem else Level.OK, problem)

    def on_device(
        self, parameter: str, values: Mapping[str, Any], make: Callable[[Mapping[str, Any]], M]
    ) -> M:
        """What `make` makes; on the CPU, and said, where `parameter` is auto and the GPU there does not work."""
        try:
            made = make(values)
        except Exception as error:
            if values[parameter] != "auto":
                raise
            made = make({**values, parameter: "cpu"})
            text = f"{parameter} is auto, and the GPU does not work ({error}): the CPU does it"
            self.diagnostics.condition("device", Level.WARN, text)
            return made
        self.diagnostics.condition("device", Level.OK)
        return made

    def look_often(self, look: Callable[[], None]) -> None:
        """Call `look` every `LOOK_PERIOD`, in the executor's thread."""
        self._looks.append(look)

    def look_no_more(self, look: Callable[[], None]) -> None:
        """The opposite; nothing if it is not looked for."""
        if look in self._looks:
            self._looks.remove(look)

    def _look_around(self) -> None:
        for look in tuple(self._looks):
            self.guarded("callback", look)

    def _watch_worker(self) -> None:
        """A thread that is gone or stuck is never silence."""
        worker = self._worker
        if worker is None:
            self.diagnostics.condition("stuck", Level.OK)
            return
        if worker.revive():
            self.diagnostics.failure("worker", "the worker's thread was gone: started again")
        stuck = worker.busy >= self.stuck_after
        self.diagnostics.condition(
            "stuck",
            Level.ERROR if stuck else Level.OK,
            f"has been at one message for more than {self.stuck_after:g} s: it hangs",
        )

    def console(self, text: str) -> None:
        """One INFO line on the console alone: what people say belongs neither on disk nor on /rosout."""
        if self.get_logger().is_enabled_for(LoggingSeverity.INFO):
            now = time.time()
            print(f"[INFO] [{now:.9f}] [{self.get_logger().name}]: {text}", flush=True)

    def _refuse(self, reason: str) -> TransitionCallbackReturn:
        self.diagnostics.clear()
        self.diagnostics.condition("configure", Level.ERROR, reason)
        self.diagnostics.publish()
        return TransitionCallbackReturn.FAILURE

    def _values(self) -> Mapping[str, object]:
        return {"state": self.state, **(self.values() if self.state != "unconfigured" else {})}


def run(makers: Sequence[Callable[[], HriNode]], args: Sequence[str] | None = None) -> int:
    """Run nodes in one executor until SIGINT or SIGTERM; the main of every executable.

    ``--autostart`` (not a ROS argument) configures and activates them at once; without it launch
    or ``ros2 lifecycle set`` does.
    """
    arguments = list(sys.argv if args is None else args)
    own = remove_ros_args(arguments)[1:]
    if unknown := [a for a in own if a != "--autostart"]:
        print(
            f"unknown argument '{unknown[0]}'; allowed: --autostart, --ros-args ...",
            file=sys.stderr,
        )
        return 2
    leave_generator_out()
    ending = threading.Event()

    def interrupt(number: int, frame: object) -> None:
        # The first signal ends the nodes, wherever they are; a second one must not end that.
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        ending.set()
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    try:
        # rclpy's own handlers would end DDS before the nodes have said their last.
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        _run_nodes(makers, "--autostart" in own, ending)
    except KeyboardInterrupt:
        pass
    except Exception:
        # What a signal interrupts may fail in many ways.
        if not ending.is_set():
            raise
    finally:
        try:
            # Uninstalling handlers that were never installed would bring the default ones back.
            rclpy.try_shutdown(uninstall_handlers=False)
            # The nodes are full of cycles; while they exist, DDS keeps its shared memory.
            gc.collect()
            rclpy.get_default_context().destroy()
        except Exception:
            # A node that a signal stopped while it was made cannot be taken apart as a whole one.
            if not ending.is_set():
                raise
    sys.stdout.flush()
    sys.stderr.flush()
    # Not through the interpreter's end: it waits for native code of threads that hang, and takes seconds.
    os._exit(0)


def _run_nodes(
    makers: Sequence[Callable[[], HriNode]], autostart: bool, ending: threading.Event
) -> None:
    nodes: list[HriNode] = []
    # Single-threaded: callbacks only append to queues, and several threads take turns badly.
    executor = SingleThreadedExecutor()
    try:
        for make in makers:
            nodes.append(make())
            executor.add_node(nodes[-1])
        if autostart:
            ready = [n for n in nodes if n.trigger_configure() == TransitionCallbackReturn.SUCCESS]
            # Listeners before speakers, so that the first message finds its receiver.
            for node in reversed(ready):
                node.trigger_activate()
        # Where a signal's exception is swallowed, by a destructor or in native code, its mark stands.
        while rclpy.ok() and not ending.is_set():
            try:
                executor.spin_once(timeout_sec=0.2)
            except ExternalShutdownException:
                return
            except Exception as error:
                # What a callback raises does not end the process.
                nodes[0].failed("callback", error)
    finally:
        for node in nodes:
            node.guarded("shutdown", node.finish)
        executor.shutdown(timeout_sec=1.0)
        for node in nodes:
            node.destroy_node()


def _known_elsewhere(name: str) -> bool:
    return any(p.name == name for parameters in NODES.values() for p in parameters)


def _descriptor(parameter: Parameter) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        name=parameter.name,
        description=parameter.description,
        read_only=parameter.read_only,
        additional_constraints=parameter.bounds(),
    )
    low, high = parameter.minimum, parameter.maximum
    if low is None and high is None:
        return descriptor
    if isinstance(parameter.default, int) and not isinstance(parameter.default, bool):
        descriptor.integer_range = [
            IntegerRange(
                from_value=int(low if low is not None else -(2**63)),
                to_value=int(high if high is not None else 2**63 - 1),
                step=0,
            )
        ]
    elif isinstance(parameter.default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(
                from_value=float(low if low is not None else -sys.float_info.max),
                to_value=float(high if high is not None else sys.float_info.max),
                step=0.0,
            )
        ]
    return descriptor
