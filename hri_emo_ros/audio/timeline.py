# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The sensor's time of every sample of a stream, and what its stamps tell of losses and of the rate.

Samples are counted; a message's *deviation* is how much later it is stamped than the samples counted since
the anchor put it. Some drivers stamp when the sound was taken, others when they publish, several messages in
a burst: deviations then make a sawtooth that comes back to where it was, and nothing is lost. What lifts the
deviation above all of the last second is a loss; what lifts it by less than a fiftieth of the time, slowly,
is two clocks that run differently.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from hri_emo_ros.types import SAMPLE_RATE

SECOND = 1_000_000_000
STAMP_TOLERANCE = SECOND // 10
"""Stamps of the sensor may be this far off before something counts as lost, ns; less where they are exact."""
RECEPTION_TOLERANCE = SECOND
"""The same for times of reception: a network that stalls for less has lost nothing, ns."""
LONGEST_LOSS = 60 * SECOND
"""A clock that is ahead by more was set, or the driver began anew: that is no sound that was lost, ns."""
_MEMORY = SECOND
"""Time over which deviations are compared, ns: several bursts of the longest that drivers send (0.4 s)."""
_FEW = 8
"""Messages that are compared at least."""
_FASTEST_DRIFT = 0.02
"""Two clocks differ by less, a share; the worst oscillators reach a thousandth."""
_RATE_MESSAGES = 64
"""Messages whose stamps tell the rate, where they are regular."""
_RATE_TIME = 20 * SECOND
"""Time after which bursts of 0.4 s no longer hide a rate that is wrong by `_RATE_TOLERANCE`, ns."""
_RATE_TOLERANCE = 0.04
"""Deviation of the stamps' rate from the declared one that cannot be drift, a share (44.1 for 48 kHz is 0.08)."""
_BURST = 0.4
"""Seconds by which a burst may falsify the time between two messages."""
_MOST_LOST = 1.25
"""Time by the stamps over that of the samples, which losses lengthen: a fifth lost is no wrong rate yet."""
_MANY_BREAKS = 4
"""Jumps back among the last `_RATE_MESSAGES` messages that no restart of a driver makes."""


@dataclass(frozen=True)
class Verdict:
    """What the stamp of a message says of what came before it."""

    lost_ns: int = 0
    """Sound that is missing before it."""
    restart: bool = False
    """It jumps back, or far ahead: another stretch of time begins."""
    moved: bool = False
    """The time of the samples is corrected from here on."""
    missed_ns: int = 0
    """Sound that was lost in the last seconds, one does not know where; `moved` with it."""


@dataclass(frozen=True)
class _Anchor:
    """From here on: input sample `sample` of the epoch was taken at `stamp_ns`."""

    stream_start: int
    """Stream index (16 kHz) of the epoch's first sample."""
    rate: int
    sample: int
    stamp_ns: int

    @property
    def position(self) -> int:
        """Stream index of `sample`, rounded up."""
        return self.stream_start - (-self.sample * SAMPLE_RATE // self.rate)


class Timeline:
    """Relates input samples, stream samples at 16 kHz and the stamps of messages.

    An epoch is a stretch of input without a break; stream indices run on across epochs. All in integers.
    """

    def __init__(self) -> None:
        self._anchors: deque[_Anchor] = deque()
        self._steps: deque[tuple[int, int]] = deque()
        """For each message: time since the one before by the stamps, and by that one's samples, ns."""
        self._step_time = 0
        self._breaks: deque[bool] = deque(maxlen=_RATE_MESSAGES)
        self._last: tuple[int, int] | None = None
        """Stamp and length of the message before, ns."""
        self._wrong: float | None = None
        self._fresh = 0
        self._begin_epoch()

    def begin(self, stream_start: int, rate: int, stamp_ns: int) -> None:
        """Start an epoch with the message that is observed next."""
        self._anchors.append(_Anchor(stream_start, rate, 0, stamp_ns))
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._deviations: deque[tuple[int, int]] = deque()
        """Due time and deviation of the last messages, ns."""
        self._begun = self._moved_at = 0
        self._messages = 0
        self._bursts = False

    def expected(self, sample: int) -> int:
        """Time at which input sample `sample` of the present epoch is due, ns."""
        last = self._anchors[-1]
        return last.stamp_ns + (sample - last.sample) * SECOND // last.rate

    def observe(self, sample: int, count: int, stamp_ns: int, tolerance: int) -> Verdict:
        """Judge the stamp of a message of `count` samples that begins with `sample` of this epoch.

        Where sound was lost, the caller fills it in or begins an epoch; this message's samples are counted
        from behind it.
        """
        due = self.expected(sample)
        length = count * SECOND // self._anchors[-1].rate
        deviation = stamp_ns - due
        if self._messages == 0:
            self._begun = self._moved_at = due
        verdict = Verdict()
        if self._last is not None:
            since, before = stamp_ns - self._last[0], self._last[1]
            if since < -tolerance or deviation > LONGEST_LOSS:
                verdict = Verdict(restart=True)
            else:
                self._bursts = self._bursts or since < before // 2
                if self._messages:
                    verdict = self._judge(due, deviation, before, tolerance)
                self._note_step(since - verdict.lost_ns, before)
            self._breaks.append(verdict.restart)
            if verdict.restart and sum(self._breaks) >= _MANY_BREAKS:
                self._wrong = 0.0
        self._last = (stamp_ns, length)
        self._messages += 1
        if not verdict.restart:
            self._deviations.append((due, deviation - verdict.lost_ns))
            while len(self._deviations) > _FEW and self._deviations[0][0] < due - _MEMORY:
                self._deviations.popleft()
        if not (verdict.restart or verdict.lost_ns):
            verdict = self._follow(sample, due, tolerance)
        return verdict

    def _judge(self, due: int, deviation: int, length: int, tolerance: int) -> Verdict:
        """Whether something was lost before this message."""
        if deviation - self._deviations[-1][1] <= min(length // 2, tolerance):
            return Verdict()  # As nearly always: less than anything that could be lost.
        values = [value for _, value in self._deviations]
        highest, spread = max(values), max(values) - min(values)
        rise = deviation - highest
        exact = len(values) >= _FEW and spread < length // 2 and tolerance <= STAMP_TOLERANCE
        allowed = min(length // 2, tolerance) if exact else max(tolerance, spread)
        if rise <= allowed or self._wrong is not None:
            return Verdict()
        # A stream may begin in the midst of a burst: the first ones tell how far apart stamps are.
        learning = due - self._begun < _MEMORY and (self._bursts or self._messages < 3)
        if learning and rise < _MEMORY:
            return Verdict()
        return Verdict(
            lost_ns=rise if self._bursts else deviation - round(statistics.median(values))
        )

    def _follow(self, sample: int, due: int, tolerance: int) -> Verdict:
        """Move the time of the samples where all of the last second lies off.

        The earliest of a burst's stamps are nearest to the time of their samples.
        """
        lowest = min(value for _, value in self._deviations)
        # At the beginning a burst has not come back yet to where it was.
        if abs(lowest) <= tolerance or due - self._begun < _MEMORY:
            return Verdict()
        last = self._anchors[-1]
        stamp_ns = self.expected(sample) + lowest
        self._anchors.append(_Anchor(last.stream_start, last.rate, sample, stamp_ns))
        fast = lowest > _FASTEST_DRIFT * (due - self._moved_at) and self._wrong is None
        self._moved_at = due + lowest
        self._begun += lowest
        self._deviations = deque((at + lowest, value - lowest) for at, value in self._deviations)
        return Verdict(moved=True, missed_ns=lowest if fast else 0)

    def stamp(self, position: int) -> int:
        """Sensor time of a stream sample, ns."""
        anchor = self._anchors[0]
        for candidate in self._anchors:
            if candidate.position <= position:
                anchor = candidate
        offset = (position - anchor.stream_start) * anchor.rate - anchor.sample * SAMPLE_RATE
        return anchor.stamp_ns + offset * SECOND // (SAMPLE_RATE * anchor.rate)

    def forget_before(self, position: int) -> None:
        """Let go of what only concerns earlier stream samples."""
        while len(self._anchors) > 1 and self._anchors[1].position <= position:
            self._anchors.popleft()

    @property
    def contradiction(self) -> float | None:
        """Samples per second of the stamps' clock where those contradict the rate; None where they do not.

        0 where the stamps jump back and forth.
        """
        return self._wrong

    def _note_step(self, since: int, length: int) -> None:
        self._steps.append((since, length))
        self._step_time += length
        while len(self._steps) > _RATE_MESSAGES and self._step_time > _RATE_TIME:
            self._step_time -= self._steps.popleft()[1]
        self._fresh += 1
        if self._fresh >= _FEW:
            self._fresh = 0
            self._wrong = self._measure()

    def _measure(self) -> float | None:
        if sum(self._breaks) >= _MANY_BREAKS:
            return 0.0
        rate = self._anchors[-1].rate
        newest: list[tuple[int, int]] = []
        time = 0
        for step in reversed(self._steps):
            if len(newest) >= _RATE_MESSAGES and time >= SECOND:
                break
            newest.append(step)
            time += max(step)
        ratios = sorted(since / length for since, length in newest if length)
        if len(ratios) < 2 * _FEW or time < SECOND:
            return None
        middle, quarter = ratios[len(ratios) // 2], len(ratios) // 4
        stamped, counted = _totals(newest)
        regular = ratios[-quarter - 1] - ratios[quarter] < 0.1 * middle
        # In bursts most stamps follow at once, and the whole comes at another rate than most of it.
        if regular and abs(stamped / counted - middle) < 0.1 * middle:
            return rate / middle if abs(middle - 1.0) > _RATE_TOLERANCE else None
        # Bursts, jitter, losses, or two drivers by turns: the whole tells, less exactly.
        stamped, counted = _totals(self._steps)
        seconds = max(stamped, counted) / SECOND
        error = _RATE_TOLERANCE + _BURST / seconds
        if seconds < 4.0 or 1.0 - error <= stamped / counted <= _MOST_LOST + error:
            return None
        return rate * counted / stamped if stamped > 0 else 0.0


def _totals(steps: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Time by the stamps, and by the samples, ns."""
    stamped, counted = (sum(part) for part in zip(*steps, strict=True))
    return stamped, max(1, counted)
