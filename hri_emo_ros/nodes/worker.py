# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A thread that works off a bounded queue, so that ROS callbacks only have to append to it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Worker(Generic[T]):
    """Handles items one by one, in order, in a thread of its own.

    Args:
        handle: called with each item, in the thread.
        failed: called with whatever `handle` or `idle` raised; the thread goes on.
        capacity: sum of the costs of the items that may wait.
        cost: what an item counts for; items that cost 0 (commands) are never dropped.
        dropped: called, in the thread of `put`, with each item that had to go; the oldest goes
            first, so that what is worked on stays fresh.
        idle: called every `period` seconds when nothing waits.
        period: seconds; None never calls `idle`.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[T], None],
        failed: Callable[[Exception], None],
        *,
        capacity: float,
        cost: Callable[[T], float] = lambda item: 1.0,
        dropped: Callable[[T], None] = lambda item: None,
        idle: Callable[[], None] | None = None,
        period: float | None = None,
    ) -> None:
        self._handle, self._failed, self._idle = handle, failed, idle
        self._capacity, self._cost, self._dropped = capacity, cost, dropped
        self._period = period
        self._items: deque[T] = deque()
        self._waiting_cost = 0.0
        self._changed = threading.Condition()
        self._busy = False
        self._stopping = False
        # A daemon, so that a hanging library call cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Append an item; over capacity the oldest ones are dropped."""
        lost: list[T] = []
        with self._changed:
            if self._stopping:
                return
            self._items.append(item)
            self._waiting_cost += self._cost(item)
            while self._waiting_cost > self._capacity:
                oldest = next((i for i in self._items if self._cost(i) > 0), None)
                if oldest is None or oldest is item:
                    break
                # deque.remove compares with ==, which arrays do not answer: delete by place.
                del self._items[next(k for k, i in enumerate(self._items) if i is oldest)]
                self._waiting_cost -= self._cost(oldest)
                lost.append(oldest)
            self._changed.notify()
        for item_lost in lost:
            self._dropped(item_lost)

    @property
    def waiting(self) -> float:
        """Cost of the items that wait."""
        with self._changed:
            return self._waiting_cost

    def drain(self, timeout: float) -> bool:
        """Wait until everything put so far is handled; False if that took longer than `timeout`."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._items or self._busy:
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    return False
                self._changed.wait(left)
        return True

    def stop(self, timeout: float = 10.0) -> bool:
        """End the thread after the item in hand; what still waits is left undone."""
        with self._changed:
            self._stopping = True
            self._items.clear()
            self._waiting_cost = 0.0
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        next_idle = time.monotonic()
        while True:
            item: T | None = None
            have = False
            with self._changed:
                if not self._items and not self._stopping:
                    wait = None if self._period is None else next_idle - time.monotonic()
                    if wait is None or wait > 0:
                        self._changed.wait(wait)
                if self._stopping:
                    return
                if self._items:
                    item, have = self._items.popleft(), True
                    # Sums of fractions drift: start over whenever the queue is empty.
                    left = self._waiting_cost - self._cost(item)
                    self._waiting_cost = left if self._items else 0.0
                    self._busy = True
            try:
                if have:
                    self._handle(item)  # type: ignore[arg-type]
                elif (
                    self._idle is not None
                    and self._period is not None
                    and time.monotonic() >= next_idle
                ):
                    next_idle = time.monotonic() + self._period
                    self._idle()
            except Exception as error:
                self._failed(error)
            finally:
                with self._changed:
                    self._busy = False
                    if not self._items:
                        self._changed.notify_all()
