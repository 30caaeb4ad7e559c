# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Relates what happens at some time to the samples that arrive then.

The robot's word that it speaks carries no sample time, and the microphone's stamps may be of another clock
than everything else: years away, seconds behind, set back. What can be told is which samples come in with it.
"""

from __future__ import annotations

import math
from collections import deque

from hri_emo_ros.types import SAMPLE_RATE

_SECOND = 1_000_000_000
_MEMORY = _SECOND // 2
"""Time over which arrivals are compared, ns: the network delays single messages, drivers send bursts."""
LIKELY_DELAY = _SECOND
"""Stamps that are behind their arrival by no more, or ahead by no more, are of the same clock, ns: drivers
and networks take a while."""


class Arrivals:
    """Which stream sample arrives at what time, by the messages of the last half-second.

    Times of arrival are of the listener's clock, whichever; it may be set, ahead or back.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[int, int, int | None]] = deque()
        """Of each message: when it arrived; when the stream's first sample would have; by how much its stamp
        (of the end of its last sample) is behind. All ns."""

    def note(self, arrived_ns: int, end: int, stamp_ns: int | None) -> None:
        """A message arrived.

        Args:
            arrived_ns: when, ns.
            end: stream index behind its last sample.
            stamp_ns: sensor time at `end`, ns; None if it is not stamped.
        """
        if self._recent and arrived_ns < self._recent[-1][0]:
            self._recent.clear()  # The clock was set back.
        behind = None if stamp_ns is None else arrived_ns - stamp_ns
        self._recent.append((arrived_ns, arrived_ns - end * _SECOND // SAMPLE_RATE, behind))
        while self._recent[0][0] < arrived_ns - _MEMORY:
            self._recent.popleft()

    def place(self, now_ns: int, end: int) -> int:
        """Stream index of the sample that is spoken at `now_ns`, as far as the clocks can tell.

        That is the sample that arrives then or, where stamps are of the same clock, the later one that was
        taken then. Never before `end`, the samples that have arrived; no more than two seconds ahead of them.
        """
        if not self._recent:
            return end
        ahead = now_ns - min(start for _, start, _ in self._recent) - end * _SECOND // SAMPLE_RATE
        if not 0 <= ahead <= LIKELY_DELAY:
            return end  # No audio comes at present, or the clock was set.
        behind = self._least_behind()
        if behind is not None and 0 < behind <= LIKELY_DELAY:
            ahead += behind
        return end + ahead * SAMPLE_RATE // _SECOND

    @property
    def behind(self) -> float:
        """Seconds by which the stamps are behind the arrival; NaN where there are none."""
        behind = self._least_behind()
        return math.nan if behind is None else behind / _SECOND

    def _least_behind(self) -> int | None:
        # A copy, made at once: nodes ask in another thread than the one that notes.
        recent = tuple(self._recent)
        return min((behind for *_, behind in recent if behind is not None), default=None)
