# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A thread that works off a bounded queue, so that ROS callbacks only have to append to it."""

from __future__ import annotations

import contextlib
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
        spare: items that go first when there is no room (provisional work).
        dropped: called, in the thread of `put`, with each item that had to go; of equals the oldest
            goes first, so that what is worked on stays fresh.
        idle: called every `period` seconds when nothing waits.
        period: seconds; None never calls `idle`.
        asleep: while this holds `idle` has nothing to wait for and is not called before the next item.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[T], None],
        failed: Callable[[BaseException], None],
        *,
        capacity: float,
        cost: Callable[[T], float] = lambda item: 1.0,
        spare: Callable[[T], bool] = lambda item: False,
        dropped: Callable[[T], None] = lambda item: None,
        idle: Callable[[], None] | None = None,
        period: float | None = None,
        asleep: Callable[[], bool] = lambda: False,
    ) -> None:
        self._name, self._handle, self._failed, self._idle = name, handle, failed, idle
        self._capacity, self._cost, self._spare, self._dropped = capacity, cost, spare, dropped
        self._period, self._asleep = period, asleep
        self._items: deque[T] = deque()
        self._waiting_cost = 0.0
        self._changed = threading.Condition()
        self._since: float | None = None
        """When the item in hand was begun; None between two."""
        self._stopping = False
        self._rested = False
        self._start()

    def put(self, item: T) -> None:
        """Append an item; over capacity the oldest ones are dropped."""
        lost: list[T] = []
        with self._changed:
            if self._stopping:
                return
            self._items.append(item)
            self._waiting_cost += self._cost(item)
            while self._waiting_cost > self._capacity:
                # deque.remove compares with ==, which arrays do not answer: delete by place.
                place = self._least_wanted()
                if place is None:
                    break
                lost.append(self._items[place])
                self._waiting_cost -= self._cost(self._items[place])
                del self._items[place]
            self._changed.notify()
        for item_lost in lost:
            self._dropped(item_lost)

    def _least_wanted(self) -> int | None:
        """Place of the item to drop: the oldest spare one, else the oldest but the newest."""
        first = None
        for place, item in enumerate(self._items):
            if self._cost(item) > 0:
                if self._spare(item):
                    return place
                first = place if first is None else first
        return None if first == len(self._items) - 1 else first

    @property
    def waiting(self) -> float:
        """Cost of the items that wait."""
        with self._changed:
            return self._waiting_cost

    @property
    def busy(self) -> float:
        """Seconds for which it has been at the item in hand; 0 between two."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def revive(self) -> bool:
        """Start a new thread if the old one has died; whether that was so."""
        with self._changed:
            if self._stopping or self._thread.is_alive():
                return False
            self._since = None
            self._start()
            return True

    def drain(self, timeout: float) -> bool:
        """Wait until everything put so far is handled; False if that took longer than `timeout`."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._items or self._since is not None:
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

    def _start(self) -> None:
        # A daemon, so that a hanging library call cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def _ticks(self) -> bool:
        # Once more after the last item: what it has changed is told.
        return self._period is not None and not (self._rested and self._asleep())

    def _run(self) -> None:
        next_idle = time.monotonic()
        while True:
            item: T | None = None
            have = False
            with self._changed:
                if not self._items and not self._stopping:
                    wait = next_idle - time.monotonic() if self._ticks() else None
                    if wait is None or wait > 0:
                        self._changed.wait(wait)
                if self._stopping:
                    return
                if self._items:
                    item, have = self._items.popleft(), True
                    self._rested = False
                    # Sums of fractions drift: start over whenever the queue is empty.
                    left = self._waiting_cost - self._cost(item)
                    self._waiting_cost = left if self._items else 0.0
                    self._since = time.monotonic()
            try:
                if have:
                    self._handle(item)  # type: ignore[arg-type]
                elif (
                    self._idle is not None
                    and self._period is not None
                    and time.monotonic() >= next_idle
                ):
                    next_idle = time.monotonic() + self._period
                    self._rested = True
                    self._idle()
            except (
                BaseException
            ) as error:  # A library's SystemExit would end the thread in silence.
                with contextlib.suppress(Exception):
                    self._failed(error)
            finally:
                with self._changed:
                    self._since = None
                    if not self._items:
                        self._changed.notify_all()
