"""From messages of audio to chunks of speech: decoding, resampling, segmentation, time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hri_emo_ros import parameters as declared
from hri_emo_ros.audio.pcm import PcmDecoder, PcmFormat
from hri_emo_ros.audio.resample import StreamingResampler
from hri_emo_ros.audio.segmenter import Segmenter
from hri_emo_ros.audio.segments import SegmentChunk, SegmenterConfig
from hri_emo_ros.audio.timeline import RECEPTION_TOLERANCE, SECOND, STAMP_TOLERANCE, Timeline
from hri_emo_ros.audio.vad import SpeechDetector
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import SAMPLE_RATE, FloatArray, SpeechChunk


class AudioFrontEnd:
    """What the speech node computes; not thread-safe.

    The same input gives the same chunks, bit for bit, however it is cut into messages.

    Breaks: sensor stamps that jump ahead by no more than `segment.pause` are a loss that is filled
    with silence; by more, or back, they end the open utterance, as a change of format does. Slow drift
    between the sensor's clock and its sample count corrects the stamps and nothing else.

    Args:
        parameters: values of the speech node, by name; missing ones take their defaults.
        vad: Silero VAD if None.
        batch: frames of 32 ms that the voice detector takes at a time. More than one is faster and
            later; the chunks are the same.

    Raises:
        HriEmoError: a value is refused.
    """

    def __init__(
        self, parameters: Mapping[str, Any], vad: SpeechDetector | None = None, batch: int = 1
    ) -> None:
        values = declared.check("speech_node", parameters)
        self.counters: dict[str, int] = dict.fromkeys(
            ("messages", "received_samples", "stream_samples", "bad_samples", "clipped_samples",
             "dropped_samples", "gaps", "restarts", "clock_corrections", "format_changes"), 0)  # fmt: skip
        self._robot: list[tuple[int, int | None]] = []
        self._dropped: list[tuple[int, int]] = []
        self._pending: list[SpeechChunk] = []
        self._segmenter = Segmenter(
            SegmenterConfig.from_parameters(values), vad, self._robot_speaks, batch
        )
        self.counters.update(self._segmenter.counters)
        self._format = PcmFormat(
            int(values["audio.sample_rate"]),  # type: ignore[arg-type]
            int(values["audio.channels"]),  # type: ignore[arg-type]
            str(values["audio.sample_format"]),
        )
        self.configure(parameters)
        self._begin_stream()

    def configure(self, parameters: Mapping[str, Any]) -> None:
        """Take new thresholds, lengths and channel; the format is `set_format`'s.

        Raises:
            HriEmoError: a value is refused; the old ones stay.
        """
        values = declared.check("speech_node", parameters)
        config = SegmenterConfig.from_parameters(values)
        self._check_channel(int(values["audio.channel"]), self._format)  # type: ignore[arg-type]
        self._segmenter.config = config
        self._channel = int(values["audio.channel"])  # type: ignore[arg-type]
        self._tail = round(float(values["robot_speaking.tail"]) * SECOND)  # type: ignore[arg-type]

    @property
    def format(self) -> PcmFormat:
        """How bytes are read at present."""
        return self._format

    @property
    def speaking(self) -> bool:
        """An utterance is open."""
        return self._segmenter.speaking

    @property
    def measured_rate(self) -> float | None:
        """Sample rate that the stamps of the last 64 messages speak of, Hz; None if unknown.

        Far from the format's rate, it tells that the rate is declared wrongly.
        """
        return self._timeline.measured_rate

    def set_format(self, pcm_format: PcmFormat) -> None:
        """Read what follows as `pcm_format`. The chunk that closes an open utterance comes with the
        next `push` or `flush`.

        Raises:
            HriEmoError: `audio.channel` is not among its channels; the old format stays.
        """
        if pcm_format == self._format:
            return
        self._check_channel(self._channel, pcm_format)
        if self.counters["messages"]:
            self.counters["format_changes"] += 1
        self._pending += self._break()
        self._format = pcm_format
        self._begin_stream()

    def push(self, data: bytes, stamp_ns: int | None, received: bool = False) -> list[SpeechChunk]:
        """Take the bytes of a message and return the chunks that they complete.

        Args:
            data: PCM in the present format; a frame may be split between messages.
            stamp_ns: sensor time of the first sample, ns; None continues from the message before.
            received: `stamp_ns` is the time of reception instead. Its jitter of up to 1 s is ignored,
                and the message's first sample is taken to be its length older.

        Raises:
            HriEmoError: the bytes are those of a compressed format.
        """
        return self._push(self._decoder.decode(data), stamp_ns, received)

    def push_samples(
        self, samples: FloatArray, stamp_ns: int | None, received: bool = False
    ) -> list[SpeechChunk]:
        """As `push`, of float samples [n] or [n, channels] at the format's rate, full scale [-1, 1].

        Raises:
            HriEmoError: they have another number of channels than the format.
        """
        frames = np.asarray(samples, np.float32)
        if frames.ndim == 1:
            frames = frames[:, None]
        if frames.shape[1] != self._format.channels:
            raise HriEmoError(
                f"audio has {frames.shape[1]} channels, must have {self._format.channels}: "
                "set audio.channels"
            )
        return self._push(frames, stamp_ns, received)

    def robot_speaking(self, active: bool, stamp_ns: int) -> None:
        """The robot starts or stops to speak at `stamp_ns` of the sensor's clock.

        Applies to audio not yet pushed; may come ahead of it.
        """
        if self._robot and self._robot[-1][1] is None:
            if active:
                return
            begin, _ = self._robot.pop()
            self._robot.append((begin, stamp_ns + self._tail))
        elif active:
            self._robot.append((stamp_ns, None))

    def flush(self) -> list[SpeechChunk]:
        """The stream ends: close the open utterance. What follows starts anew; ids go on."""
        chunks = self._taken() + self._break()
        self._begin_stream()
        return chunks

    def reset(self) -> None:
        """Drop everything in work without a word; ids and counters go on."""
        self._pending.clear()
        self._robot.clear()
        self._segmenter.reset()
        self._begin_stream()

    def _check_channel(self, channel: int, pcm_format: PcmFormat) -> None:
        if channel >= pcm_format.channels:
            raise HriEmoError(
                f"audio.channel is {channel}, must be -1 to {pcm_format.channels - 1}: "
                f"the audio has {pcm_format.channels} channel(s)"
            )

    def _begin_stream(self) -> None:
        self._decoder = PcmDecoder(self._format)
        self._timeline = Timeline()
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._resampler = StreamingResampler(self._format.sample_rate)
        self._epoch_start = self._segmenter.position
        self._anchored = False
        self._samples = 0
        """Input samples of this epoch."""

    def _taken(self) -> list[SpeechChunk]:
        taken, self._pending = self._pending, []
        return taken

    def _break(self) -> list[SpeechChunk]:
        """Let out what the filters hold and close the open utterance."""
        tail = self._resampler.flush()
        chunks = self._segment(tail, np.zeros(0, np.int64)) if len(tail) else []
        chunks += [self._chunk(c) for c in self._segmenter.flush()]
        self._count()
        return chunks

    def _push(self, frames: FloatArray, stamp_ns: int | None, received: bool) -> list[SpeechChunk]:
        self.counters["messages"] += 1
        self.counters["received_samples"] += len(frames)
        chunks = self._taken()
        if len(frames) == 0:
            return chunks
        if stamp_ns is not None:
            if received:
                stamp_ns -= len(frames) * SECOND // self._format.sample_rate
            tolerance = RECEPTION_TOLERANCE if received else STAMP_TOLERANCE
            chunks += self._keep_time(stamp_ns, tolerance)
            self._timeline.count(len(frames), stamp_ns)
        elif not self._anchored:
            self._anchor(0)
        chunks += self._feed(frames)
        self._count()
        self._timeline.forget_before(self._segmenter.earliest)
        return chunks

    def _anchor(self, stamp_ns: int) -> None:
        self._timeline.begin(self._epoch_start, self._format.sample_rate, stamp_ns)
        self._anchored = True

    def _keep_time(self, stamp_ns: int, tolerance: int) -> list[SpeechChunk]:
        """Deal with a stamp that is not where the samples counted so far put it."""
        if not self._anchored:
            self._anchor(stamp_ns)
            return []
        jump = self._timeline.check(self._samples, stamp_ns, tolerance)
        if jump == 0:
            if self._timeline.correct_drift(self._samples, stamp_ns, tolerance):
                self.counters["clock_corrections"] += 1
            return []
        self.counters["gaps" if jump > 0 else "restarts"] += 1
        missing = max(0, jump) * self._format.sample_rate // SECOND
        lost = max(0, jump) * SAMPLE_RATE // SECOND
        self.counters["dropped_samples"] += lost
        if 0 < lost <= self._segmenter.config.pause:
            at = self._samples * SAMPLE_RATE // self._format.sample_rate + self._epoch_start
            earliest = self._segmenter.earliest
            self._dropped = [d for d in self._dropped if d[1] > earliest] + [(at, at + lost)]
            return self._feed(np.zeros((missing, self._format.channels), np.float32))
        chunks = self._break()
        self._begin_epoch()
        self._anchor(stamp_ns)
        return chunks

    def _feed(self, frames: FloatArray) -> list[SpeechChunk]:
        """Clean, mix, resample and segment; [n, channels]."""
        if self._channel >= 0:
            frames = frames[:, self._channel : self._channel + 1]
        clipped: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        if not np.abs(frames).max() < self._format.full_scale:  # NaN is not less either.
            bad = ~np.isfinite(frames)
            self.counters["bad_samples"] += int(np.count_nonzero(bad))
            frames = np.where(bad, np.float32(0.0), frames)
            clipped = np.flatnonzero((np.abs(frames) >= self._format.full_scale).any(axis=1))
            self.counters["clipped_samples"] += len(clipped)
            frames = np.clip(frames, -1.0, 1.0)
        # Channel by channel: a sum over an axis may round differently for other lengths.
        mono = frames[:, 0].copy()
        for channel in range(1, frames.shape[1]):
            mono += frames[:, channel]
        if frames.shape[1] > 1:
            mono /= np.float32(frames.shape[1])
        rate = self._format.sample_rate
        places = (self._samples + clipped) * SAMPLE_RATE // rate + self._epoch_start
        self._samples += len(mono)
        return self._segment(self._resampler.process(mono), places)

    def _segment(self, samples: FloatArray, clipped: npt.NDArray[np.int64]) -> list[SpeechChunk]:
        self.counters["stream_samples"] += len(samples)
        weight = SAMPLE_RATE / self._format.sample_rate
        if weight != 1.0:  # Ringing of the resampler may exceed full scale.
            samples = np.clip(samples, -1.0, 1.0)
        return [self._chunk(c) for c in self._segmenter.push(samples, clipped, weight)]

    def _count(self) -> None:
        self.counters.update(self._segmenter.counters)

    def _chunk(self, chunk: SegmentChunk) -> SpeechChunk:
        def time(position: int) -> int:
            return start_ns + (position - chunk.utterance_start) * SECOND // SAMPLE_RATE

        start_ns = self._timeline.stamp(chunk.utterance_start)
        end = chunk.start + len(chunk.samples)
        self._dropped = [d for d in self._dropped if d[1] > chunk.utterance_start]
        return SpeechChunk(
            utterance_id=chunk.utterance_id,
            sequence=chunk.sequence,
            stamp_ns=time(chunk.start),
            utterance_start_ns=start_ns,
            first_sample=chunk.start - chunk.utterance_start,
            samples=chunk.samples,
            quality=chunk.quality,
            last=chunk.last,
            truncated=chunk.truncated,
            endpoint=chunk.endpoint,
            speech_end_ns=time(min(chunk.speech_end, end)) if chunk.last or chunk.endpoint else 0,
            stream_start_sample=chunk.utterance_start,
            robot_speaking=chunk.robot_speaking,
            dropped_samples=sum(
                max(0, min(b, end) - max(a, chunk.utterance_start)) for a, b in self._dropped
            ),
            beginning_lost=chunk.beginning_lost,
        )

    def _robot_speaks(self, begin: int, end: int) -> bool:
        """Whether the robot (or its echo) is heard in a range of stream samples."""
        if not self._robot:
            return False
        begin_ns, end_ns = self._timeline.stamp(begin), self._timeline.stamp(end)
        # Stamps may go backwards: only what is a minute old is surely over.
        self._robot = [r for r in self._robot if r[1] is None or r[1] > begin_ns - 60 * SECOND]
        return any(a < end_ns and (b is None or b > begin_ns) for a, b in self._robot)
