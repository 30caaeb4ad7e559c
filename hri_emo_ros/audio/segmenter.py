# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Cuts a stream of samples into utterances and releases them in chunks while they are spoken.

Everything is decided per frame of 512 samples and counted in samples, so the result does not depend
on how the stream is cut into calls, nor on any clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import numpy.typing as npt

from hri_emo_ros.audio.buffer import SampleBuffer
from hri_emo_ros.audio.quality import Frame, NoiseFloor, QualityMeter, mean_square
from hri_emo_ros.audio.segments import SegmentChunk, SegmenterConfig
from hri_emo_ros.audio.vad import FRAME, SileroVad, SpeechDetector
from hri_emo_ros.types import SAMPLE_RATE, FloatArray, SignalQuality

BEGINNING = SAMPLE_RATE // 10
"""Samples: speech found within the first 0.1 s of what is heard began before; the voice detector takes a
few frames to find it."""


@dataclass
class _Utterance:
    """The open utterance."""

    id: int
    start: int
    frames: list[Frame]
    meter: QualityMeter
    beginning_lost: bool = False
    released: int = 0
    """Everything before this index has been given out."""
    sequence: int = 0
    endpoint: int = -1
    """`speech_end` at the newest endpoint."""
    quality: SignalQuality | None = None
    """As of the newest endpoint: that of the utterance, should it end there."""
    speech_end: int = field(init=False)
    robot_speaking: bool = field(init=False)

    def __post_init__(self) -> None:
        self.released = self.start
        self.speech_end = max((f.end for f in self.frames if f.speech), default=self.start)
        self.robot_speaking = any(f.robot_speaking for f in self.frames)

    def add(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.meter.add(frame)
        self.robot_speaking = self.robot_speaking or frame.robot_speaking
        if frame.speech:
            self.speech_end = frame.end


class Segmenter:
    """The state machine.

    Idle until `min_speech` of speech has been heard with no pause of `pause` in between; then an
    utterance is open, beginning `pre_roll` before its first speech frame, until a pause of `pause`
    or `max_length`. It ends `hang_over` after its last speech frame. Audio that may still turn out
    to be the pause is held back, so the chunks put end to end are the utterance exactly.

    After `endpoint` of non-speech everything is given out in a chunk marked so, with the quality that
    the utterance will have if it ends there: who works on it then has all of it, and the closing chunk
    adds nothing. If speech goes on, that was a pause within the utterance.

    An utterance of `max_length` is cut behind the quietest frame of its last second (`cut_window`)
    and marked truncated; the next one begins with the very next sample.

    Args:
        config: see `configure`.
        vad: Silero VAD if None.
        robot_speaks: tells whether the robot speaks in a range of stream indices.
        batch: frames to collect before the voice detector is asked; changes no result.
    """

    def __init__(
        self,
        config: SegmenterConfig,
        vad: SpeechDetector | None = None,
        robot_speaks: Callable[[int, int], bool] | None = None,
        batch: int = 1,
    ) -> None:
        self.config = self._next_config = config
        self.counters = {"utterances": 0, "truncated": 0, "discarded_bursts": 0, "muted_samples": 0}
        self._vad: SpeechDetector = vad if vad is not None else SileroVad()
        self._robot_speaks = robot_speaks
        self._batch = batch
        self._noise = NoiseFloor()
        self._next_id = 1
        self._rest: FloatArray = np.zeros(0, np.float32)
        self._position = 0
        self._clipped: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._clip_weight = 1.0
        self._muted = False
        self._deaf_until = 0
        """Stream index before which nothing was heard."""
        self._clear()

    def _clear(self) -> None:
        """Forget what was heard; counting goes on."""
        self._deaf_until = self._position
        self._buffer = SampleBuffer(self._position)
        self._frames: list[Frame] = []
        self._utterance: _Utterance | None = None
        self._candidate: int | None = None
        self._candidate_speech = 0
        self._candidate_end = 0
        self._speech = False
        self._vad.reset()

    def configure(self, config: SegmenterConfig) -> None:
        """Take new thresholds and lengths, all at once; an utterance that is open ends by the old ones."""
        self._next_config = config

    @property
    def position(self) -> int:
        """Samples taken since the beginning, those of an incomplete frame included."""
        return self._position + len(self._rest)

    @property
    def earliest(self) -> int:
        """Stream index of the earliest sample that a chunk may still begin or count from."""
        if self._utterance is not None:
            return self._utterance.start
        return self._buffer.start

    @property
    def speaking(self) -> bool:
        """An utterance is open."""
        return self._utterance is not None

    def push(
        self,
        samples: FloatArray,
        clipped: npt.NDArray[np.int64] | None = None,
        clip_weight: float = 1.0,
    ) -> list[SegmentChunk]:
        """Take samples ([n] float32, 16 kHz) and return the chunks that they complete.

        Args:
            samples: any number of them.
            clipped: stream indices of clipped samples, ascending, at or behind `position`; None
                finds them among `samples`.
            clip_weight: samples at 16 kHz that each of `clipped` stands for.
        """
        self._clip_weight = clip_weight
        if clipped is None:
            clipped = np.flatnonzero(np.abs(samples) >= 0.999) + self.position
        if len(clipped):
            self._clipped = np.concatenate([self._clipped, clipped])
        stream = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        whole = len(stream) - len(stream) % FRAME
        if whole < self._batch * FRAME:
            self._rest = stream.copy()
            return []
        self._rest = stream[whole:].copy()
        return self._take(stream[:whole].reshape(-1, FRAME))

    def flush(self) -> list[SegmentChunk]:
        """The stream breaks off: close the open utterance and forget the rest. Ids go on."""
        chunks: list[SegmentChunk] = []
        rest, self._rest = self._rest, self._rest[:0]
        whole = len(rest) - len(rest) % FRAME
        if whole:
            chunks += self._take(rest[:whole].reshape(-1, FRAME))
        if length := len(rest) - whole:
            chunks += self._take(np.pad(rest[whole:], (0, FRAME - length))[None], length)
        chunks += self._interrupt()
        self._clear()
        self._clipped = self._clipped[:0]
        return chunks

    def reset(self) -> None:
        """Drop the open utterance without a word. Ids and positions go on."""
        self._position += len(self._rest)
        self._rest = self._rest[:0]
        self._clipped = self._clipped[:0]
        self._noise = NoiseFloor()
        self._clear()

    def _interrupt(self) -> list[SegmentChunk]:
        if self._utterance is not None:
            return self._close(self._utterance)
        self.counters["discarded_bursts"] += self._candidate is not None
        self._candidate = None
        return []

    def _take(self, frames: FloatArray, length: int = FRAME) -> list[SegmentChunk]:
        """Go through frames [n, 512]; only `length` samples of each are the stream's."""
        begins = self._position + length * np.arange(len(frames))
        robot = [
            self._robot_speaks is not None and self._robot_speaks(int(b), int(b) + length)
            for b in begins
        ]
        chunks: list[SegmentChunk] = []
        for heard, run in groupby(
            range(len(frames)), lambda i: not (robot[i] and self.config.mute)
        ):
            indices = list(run)
            if not heard:
                chunks += self._mute(length * len(indices))
                continue
            self._muted = False
            probabilities = self._vad.probabilities(frames[indices[0] : indices[-1] + 1])
            for i, probability in zip(indices, probabilities, strict=True):
                chunks += self._step(frames[i, :length], float(probability), robot[i])
        return chunks

    def _mute(self, count: int) -> list[SegmentChunk]:
        """Pass over samples unheard."""
        chunks: list[SegmentChunk] = []
        if not self._muted:
            chunks = self._interrupt()
            self._clear()
        self.config = self._next_config
        self._muted = True
        self._position += count
        self._deaf_until = self._position
        self._clipped = self._clipped[np.searchsorted(self._clipped, self._position) :]
        self._buffer = SampleBuffer(self._position)
        self.counters["muted_samples"] += count
        return chunks

    def _step(self, samples: FloatArray, probability: float, robot: bool) -> list[SegmentChunk]:
        """Take one frame."""
        self._position += len(samples)
        count = int(np.searchsorted(self._clipped, self._position)) if len(self._clipped) else 0
        self._clipped = self._clipped[count:]
        self._speech = probability >= (
            self.config.release_threshold if self._speech else self.config.threshold
        )
        frame = Frame(
            end=self._position,
            power=mean_square(samples),
            speech=self._speech,
            clipped=count * self._clip_weight,
            length=len(samples),
            robot_speaking=robot,
        )
        self._buffer.append(samples)
        self._noise.observe(frame.power, frame.speech)
        if self._utterance is None:
            self._frames.append(frame)
            self._listen(frame)
        else:
            self._utterance.add(frame)
        return self._advance() if self._utterance is not None else []

    def _listen(self, frame: Frame) -> None:
        """Idle: open an utterance if there has been enough speech."""
        config = self.config = self._next_config
        if frame.speech:
            if self._candidate is None:
                self._candidate = frame.end - frame.length
                self._candidate_speech = 0
            self._candidate_speech += frame.length
            self._candidate_end = frame.end
        elif self._candidate is not None and frame.end - self._candidate_end >= config.pause:
            self._candidate = None
            self.counters["discarded_bursts"] += 1
        start = max(
            self._buffer.start,
            (frame.end if self._candidate is None else self._candidate) - config.pre_roll,
        )
        self._buffer.drop_before(start)
        while self._frames and self._frames[0].end <= start:
            del self._frames[0]
        if self._candidate is not None and self._candidate_speech >= config.min_speech:
            lost = self._candidate - self._deaf_until < BEGINNING
            self._open(start, self._frames, lost)
            self._frames = []
            self._candidate = None

    def _open(self, start: int, frames: list[Frame], beginning_lost: bool = False) -> None:
        self._utterance = _Utterance(
            self._next_id, start, frames, QualityMeter(self._noise, frames), beginning_lost
        )
        self._next_id += 1
        self.counters["utterances"] += 1

    def _advance(self) -> list[SegmentChunk]:
        """Give out what is certain to belong to the open utterance; close or cut it."""
        chunks: list[SegmentChunk] = []
        config = self.config
        while (utterance := self._utterance) is not None:
            certain = min(self._position, utterance.speech_end + config.hang_over)
            if certain - utterance.start > config.max_length:
                chunks += self._cut(utterance)
                continue
            quiet = self._position - utterance.speech_end
            if quiet >= config.pause:
                return chunks + self._close(utterance)
            if quiet >= config.endpoint:
                if utterance.endpoint != utterance.speech_end:
                    chunks += self._endpoint(utterance, certain)
                break
            # What lies in the cut window may yet be the next utterance's.
            certain = min(certain, utterance.start + config.max_length - config.cut_window)
            while certain - utterance.released >= config.chunk:
                chunks.append(self._release(utterance, utterance.released + config.chunk))
            break
        return chunks

    def _cut(self, utterance: _Utterance) -> list[SegmentChunk]:
        """End an utterance at its maximum length and go on with the next."""
        latest = utterance.start + self.config.max_length
        earliest = max(latest - self.config.cut_window, utterance.released)
        places = [f for f in utterance.frames if earliest < f.end <= latest]
        # None where all was given out at an endpoint: then cut where we stand.
        cut = min(places, key=lambda f: f.power).end if places else max(latest, earliest)
        before = [f for f in utterance.frames if f.end <= cut]
        after = [f for f in utterance.frames if f.end > cut]
        utterance.speech_end = max((f.end for f in before if f.speech), default=utterance.start)
        utterance.robot_speaking = any(f.robot_speaking for f in before)
        self.counters["truncated"] += 1
        chunks = self._close(utterance, cut)
        if any(f.speech for f in after):
            self._open(cut, after)
        return chunks

    def _endpoint(self, utterance: _Utterance, end: int) -> list[SegmentChunk]:
        """Speech seems to have ended: give out everything up to `end`."""
        utterance.endpoint = utterance.speech_end
        utterance.quality = self._quality(utterance, end)
        chunks = self._release_to(utterance, end)
        chunks.append(self._release(utterance, end, endpoint=True))
        return chunks

    def _quality(self, utterance: _Utterance, end: int) -> SignalQuality:
        """Of the utterance if it ends at `end`."""
        frames = (f for f in utterance.frames if f.end - f.length < end)
        return QualityMeter(self._noise, frames).quality()

    def _release_to(self, utterance: _Utterance, end: int) -> list[SegmentChunk]:
        """Whole chunks that leave something up to `end`."""
        chunks: list[SegmentChunk] = []
        while end - utterance.released > self.config.chunk:
            chunks.append(self._release(utterance, utterance.released + self.config.chunk))
        return chunks

    def _close(self, utterance: _Utterance, cut: int | None = None) -> list[SegmentChunk]:
        end = cut
        if end is None:
            end = min(self._position, utterance.speech_end + self.config.hang_over)
        # Nothing was added since the endpoint: whoever worked on it then need not work again.
        ended_there = utterance.endpoint == utterance.speech_end and utterance.released == end
        if utterance.quality is None or not ended_there:
            utterance.quality = self._quality(utterance, end)
        chunks = self._release_to(utterance, end)
        chunks.append(self._release(utterance, end, last=True, truncated=cut is not None))
        # Frames of the pause may be the next utterance's pre-roll, but no sample is given out twice.
        self._frames = [f for f in utterance.frames if f.end > end]
        self._utterance = None
        self._candidate = None
        return chunks

    def _release(
        self,
        utterance: _Utterance,
        end: int,
        last: bool = False,
        truncated: bool = False,
        endpoint: bool = False,
    ) -> SegmentChunk:
        start = utterance.released
        quality = utterance.quality if last or endpoint else utterance.meter.quality()
        assert quality is not None
        chunk = SegmentChunk(
            utterance.id,
            utterance.sequence,
            start,
            utterance.start,
            self._buffer.copy(start, end),
            quality,
            last,
            truncated,
            endpoint,
            utterance.speech_end,
            utterance.robot_speaking,
            utterance.beginning_lost,
        )
        utterance.released = end
        utterance.sequence += 1
        self._buffer.drop_before(end)
        return chunk
