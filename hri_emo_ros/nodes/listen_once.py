# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The action ListenOnce: waits for what is said next."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock, ClockType

from hri_emo_msgs.action import ListenOnce
from hri_emo_msgs.msg import EmotionState, Speech
from hri_emo_ros.nodes.lifecycle import HriNode

LONGEST = 3600.0
"""Seconds that a goal may ask for."""
Newest = dict[str, int]
"""stream_id -> utterance_id."""


@dataclass(eq=False)
class _Goal:
    handle: ServerGoalHandle[Any, Any, Any]
    passed_over: Newest
    """The newest utterances that had ended before the goal came: their final states are no answer."""
    timer: Any = None
    overdue: bool = False
    """The time is up, and somebody still speaks or is still being estimated."""


class ListenOnceServer:
    """Serves `listen_once` of an emotion node.

    Goals wait without a coroutine, which the executor would wake at every turn: each is ended by whatever
    callback comes first, that of a state, of its timer, of a cancellation or of the node's deactivation.

    Everything but `state` is called in the executor's thread.
    """

    def __init__(self, node: HriNode) -> None:
        self._node = node
        self._goals: list[_Goal] = []
        self._newest: Newest = {}
        """Heard last."""
        self._ended: Newest = {}
        """Whose end was heard last."""
        self._final: Newest = {}
        """Whose final state came last."""
        self._states: deque[EmotionState] = deque()
        self._lock = threading.Lock()
        self._wake = node.create_guard_condition(self.deliver)
        self._server = ActionServer(
            node,
            ListenOnce,
            "listen_once",
            # Never called: each goal is executed with its answer.
            execute_callback=lambda handle: ListenOnce.Result(),
            goal_callback=self._asked,
            handle_accepted_callback=self._accepted,
            cancel_callback=self._cancelled,
        )

    @property
    def waiting(self) -> int:
        """Goals that have not been answered."""
        return len(self._goals)

    def destroy(self) -> None:
        """With the node."""
        self._server.destroy()
        self._node.destroy_guard_condition(self._wake)

    def speech(self, message: Speech) -> None:
        """A chunk was heard."""
        self._newest[message.stream_id] = message.utterance_id
        if message.last:
            self._ended[message.stream_id] = message.utterance_id

    def state(self, message: EmotionState) -> None:
        """A state was published; may be called in any thread."""
        with self._lock:
            self._states.append(message)
        self._wake.trigger()

    def deliver(self) -> None:
        """Give the states that were published to those who wait."""
        while self._states:
            with self._lock:
                message = self._states.popleft()
            stream, utterance = message.stream_id, message.utterance_id
            final = message.stage == EmotionState.STAGE_FINAL
            if final:
                self._final[stream] = utterance
            for goal in list(self._goals):
                if utterance <= goal.passed_over.get(stream, 0):
                    continue
                if final:
                    self._finish(goal, ListenOnce.Result(heard=True, state=message))
                elif goal.handle.is_active:
                    goal.handle.publish_feedback(ListenOnce.Feedback(state=message))
        for goal in [goal for goal in self._goals if goal.overdue and not self._speaking(goal)]:
            self._time_is_up(goal)

    def end(self, why: str) -> None:
        """Abort whatever still waits."""
        self.deliver()
        for goal in list(self._goals):
            self._finish(goal, ListenOnce.Result(message=why), ServerGoalHandle.abort)
        for newest in (self._newest, self._ended, self._final):
            newest.clear()

    def _asked(self, request: ListenOnce.Goal) -> GoalResponse:
        if self._node.state != "active":
            self._node.get_logger().warning("listen_once refused: emotion_node is not active")
            return GoalResponse.REJECT
        if not 0.0 < request.timeout <= LONGEST:  # NaN is refused too.
            self._node.get_logger().warning(
                f"listen_once refused: timeout is {request.timeout:g}, must be above 0 and at most "
                f"{LONGEST:g} s"
            )
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _accepted(self, handle: ServerGoalHandle[Any, Any, Any]) -> None:
        goal = _Goal(handle, dict(self._ended))
        # Steady: a person waits no longer because simulated time stands still.
        goal.timer = self._node.create_timer(
            handle.request.timeout,
            lambda: self._time_is_up(goal),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self._goals.append(goal)

    def _speaking(self, goal: _Goal) -> bool:
        """An utterance that answers the goal has begun and has no final state yet."""
        return any(
            utterance > max(self._final.get(stream, 0), goal.passed_over.get(stream, 0))
            for stream, utterance in self._newest.items()
        )

    def _time_is_up(self, goal: _Goal) -> None:
        if goal.timer is not None:
            self._node.destroy_timer(goal.timer)
            goal.timer = None
        goal.overdue = True
        if goal in self._goals and not self._speaking(goal):
            timeout = goal.handle.request.timeout
            self._finish(goal, ListenOnce.Result(message=f"nobody spoke within {timeout:g} s"))

    def _cancelled(self, handle: ServerGoalHandle[Any, Any, Any]) -> CancelResponse:
        for goal in [goal for goal in self._goals if goal.handle == handle]:
            self._finish(goal, ListenOnce.Result(message="cancelled"), ServerGoalHandle.canceled)
        return CancelResponse.ACCEPT

    def _finish(
        self,
        goal: _Goal,
        result: ListenOnce.Result,
        how: Callable[[ServerGoalHandle[Any, Any, Any]], None] = ServerGoalHandle.succeed,
    ) -> None:
        self._goals.remove(goal)
        if goal.timer is not None:
            self._node.destroy_timer(goal.timer)
            goal.timer = None

        def answer(handle: ServerGoalHandle[Any, Any, Any]) -> ListenOnce.Result:
            how(handle)
            return result

        # In a task of the executor's next turn: a cancellation has become one by then.
        goal.handle.execute(answer)
