"""The sensor's time of every sample of a stream."""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass

from hri_emo_ros.types import SAMPLE_RATE

SECOND = 1_000_000_000
STAMP_TOLERANCE = SECOND // 10
"""Stamps of the sensor may be this far off before something counts as lost, ns."""
RECEPTION_TOLERANCE = SECOND
"""The same for times of reception: a network that stalls for less has lost nothing, ns."""
_RATE_WINDOW = 64
"""Messages over which the rate is measured."""


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

    The time of a sample is that of the first message plus the samples counted since. An epoch is a
    stretch of input without a break; stream indices run on across epochs. All in integers.
    """

    def __init__(self) -> None:
        self._anchors: deque[_Anchor] = deque()
        self._deviation = 0
        self._recent: deque[tuple[int, int]] = deque(maxlen=_RATE_WINDOW)
        self._total = 0

    def begin(self, stream_start: int, rate: int, stamp_ns: int) -> None:
        """Start an epoch."""
        self._anchors.append(_Anchor(stream_start, rate, 0, stamp_ns))
        self._deviation = 0

    def expected(self, sample: int) -> int:
        """Time at which input sample `sample` of the present epoch is due, ns."""
        last = self._anchors[-1]
        return last.stamp_ns + (sample - last.sample) * SECOND // last.rate

    def check(self, sample: int, stamp_ns: int, tolerance: int) -> int:
        """Compare a message's stamp with the time its first sample is due.

        A deviation that has grown slowly (the two clocks run differently) moves the time of the
        samples from here on.

        Returns:
            How far the stamp jumped against the message before, ns; 0 within the tolerance.
        """
        deviation = stamp_ns - self.expected(sample)
        jump = deviation - self._deviation
        if abs(jump) > tolerance:
            return jump
        self._deviation = deviation
        return 0

    def correct_drift(self, sample: int, stamp_ns: int, tolerance: int) -> bool:
        """Move the time of the samples from `sample` on if it has drifted out of tolerance."""
        if abs(self._deviation) <= tolerance:
            return False
        last = self._anchors[-1]
        self._anchors.append(_Anchor(last.stream_start, last.rate, sample, stamp_ns))
        self._deviation = 0
        return True

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

    def count(self, samples: int, stamp_ns: int) -> None:
        """Note a message for `measured_rate`."""
        self._recent.append((stamp_ns, self._total))
        self._total += samples

    @property
    def measured_rate(self) -> float | None:
        """Samples per second of the stamps' clock over the last messages; None if unknown.

        The median over messages is blind to single gaps; bursts of reception times are averaged.
        """
        if len(self._recent) < _RATE_WINDOW:
            return None
        pairs = list(self._recent)
        spans = sorted(
            (after[0] - before[0]) / (after[1] - before[1])
            for before, after in itertools.pairwise(pairs)
            if after[1] > before[1]
        )
        if not spans:
            return None
        middle = spans[len(spans) // 2]
        whole = (pairs[-1][0] - pairs[0][0]) / max(1, pairs[-1][1] - pairs[0][1])
        period = middle if middle > 0 else whole
        return SECOND / period if period > 0 else None
