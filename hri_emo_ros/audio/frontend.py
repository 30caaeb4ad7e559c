# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""From messages of audio to chunks of speech: decoding, resampling, offset, segmentation, time."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hri_emo_ros import parameters as declared
from hri_emo_ros.audio.arrival import Arrivals
from hri_emo_ros.audio.input import InputMeter, InputReport, check_channel
from hri_emo_ros.audio.offset import OffsetFilter
from hri_emo_ros.audio.pcm import PcmDecoder, PcmFormat, declared_format
from hri_emo_ros.audio.resample import StreamingResampler
from hri_emo_ros.audio.segmenter import Segmenter
from hri_emo_ros.audio.segments import SegmentChunk, SegmenterConfig
from hri_emo_ros.audio.timeline import RECEPTION_TOLERANCE, SECOND, STAMP_TOLERANCE, Timeline
from hri_emo_ros.audio.vad import SpeechDetector
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import SAMPLE_RATE, Fault, FloatArray, SpeechChunk


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
        self._arrivals = Arrivals()
        self._robot: list[tuple[int, int | None]] = []
        """Stream indices between which the robot speaks, its echo with it; None where it still does."""
        self._dropped: list[tuple[int, int]] = []
        self._pending: list[SpeechChunk] = []
        self._segmenter = Segmenter(
            SegmenterConfig.from_parameters(values), vad, self._robot_speaks, batch
        )
        self.counters.update(self._segmenter.counters)
        self._channel = self._next_channel = -1
        self._format = self._told = declared_format(values)
        self._meter: InputMeter | None = None
        self._reports: deque[tuple[int, InputReport]] = deque([(0, InputReport())])
        """Verdicts on the input and the stream index from which each holds."""
        self._meter_report = InputReport()
        self._contradiction = ""
        self.faults: dict[Fault, str] = {}
        """What was wrong with the input at any time, each with a sentence."""
        self.configure(parameters)
        self._begin_stream()

    def configure(self, parameters: Mapping[str, Any]) -> None:
        """Take new thresholds, lengths and channel; the format is `set_format`'s.

        An utterance that is open ends by the old ones.

        Raises:
            HriEmoError: a value is refused; the old ones stay.
        """
        values = declared.check("speech_node", parameters)
        config = self.check(values)
        self._segmenter.configure(config)
        self._next_channel = int(values["audio.channel"])
        self._tail = round(float(values["robot_speaking.tail"]) * SAMPLE_RATE)

    def check(self, values: Mapping[str, Any]) -> SegmenterConfig:
        """What the lengths and thresholds among the speech node's values come to.

        Raises:
            HriEmoError: they do not fit one another, or `audio.channel` not the audio that comes.
        """
        if self._meter is not None:  # Before the first audio its format is not known.
            check_channel(int(values["audio.channel"]), self._format.channels)
        return SegmenterConfig.from_parameters(values)

    @property
    def format(self) -> PcmFormat:
        """How bytes are read at present."""
        return self._format

    @property
    def speaking(self) -> bool:
        """An utterance is open."""
        return self._segmenter.speaking

    @property
    def input(self) -> InputReport:
        """Level of the input and what is wrong with it, now."""
        return self._reports[-1][1]

    def set_format(self, pcm_format: PcmFormat) -> None:
        """Read what follows as `pcm_format`. The chunk that closes an open utterance comes with the
        next `push` or `flush`."""
        if pcm_format == self._told:
            return  # Told once more, it is no news against the headers heard since.
        self._told = pcm_format
        if pcm_format != self._format:
            self._change_format(pcm_format)
            self._begin_stream()

    @property
    def behind(self) -> float:
        """Seconds by which the stamps are behind the clock by which messages arrive; NaN if unknown."""
        return self._arrivals.behind

    def push(
        self,
        data: bytes,
        stamp_ns: int | None,
        received: bool = False,
        arrived_ns: int | None = None,
    ) -> list[SpeechChunk]:
        """Take the bytes of a message and return the chunks that they complete.

        Args:
            data: PCM in the present format; a frame may be split between messages.
            stamp_ns: sensor time of the first sample, ns; None continues from the message before.
            received: `stamp_ns` is the time of reception instead. Its jitter of up to 1 s is ignored,
                and the message's first sample is taken to be its length older.
            arrived_ns: when the message came, on the clock of `robot_speaking`, ns; None if that is not
                known or is `stamp_ns`.

        Raises:
            HriEmoError: the bytes are those of a compressed format, or `audio.channel` is not among
                the format's channels.
        """
        frames = self._decoder.decode(data)
        if self._decoder.format != self._format:  # A WAV header was in the stream.
            self._change_format(self._decoder.format)
            self._begin_time()
        return self._push(frames, stamp_ns, received, arrived_ns)

    def push_samples(
        self,
        samples: FloatArray,
        stamp_ns: int | None,
        received: bool = False,
        arrived_ns: int | None = None,
    ) -> list[SpeechChunk]:
        """As `push`, of float samples [n] or [n, channels] at the format's rate, full scale [-1, 1].

        Raises:
            HriEmoError: they have another number of channels than the format, or `audio.channel` is not
                among them.
        """
        frames = np.asarray(samples, np.float32)
        if frames.ndim == 1:
            frames = frames[:, None]
        if frames.shape[1] != self._format.channels:
            raise HriEmoError(
                f"audio has {frames.shape[1]} channels, must have {self._format.channels}: "
                "set audio.channels"
            )
        return self._push(frames, stamp_ns, received, arrived_ns)

    def robot_speaking(self, active: bool, arrived_ns: int) -> None:
        """The robot starts or stops to speak; one was told so at `arrived_ns` of the clock by which messages
        arrive.

        Applies to audio not yet pushed.
        """
        place = self._arrivals.place(arrived_ns, self._place(self._samples))
        if self._robot and self._robot[-1][1] is None:
            if active:
                return
            begin, _ = self._robot.pop()
            self._robot.append((begin, place + self._tail))
        elif active:
            self._robot.append((place, None))

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

    def _change_format(self, pcm_format: PcmFormat) -> None:
        self.counters["format_changes"] += self.counters["messages"] > 0
        self._pending += self._break()
        self._format = pcm_format
        self._meter = None

    def _begin_stream(self) -> None:
        self._decoder = PcmDecoder(self._format)
        self._begin_time()

    def _begin_time(self) -> None:
        self._timeline = Timeline()
        self._contradiction = ""
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._resampler = StreamingResampler(self._format.sample_rate)
        self._offset = OffsetFilter()
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

    def _push(
        self, frames: FloatArray, stamp_ns: int | None, received: bool, arrived_ns: int | None
    ) -> list[SpeechChunk]:
        self.counters["messages"] += 1
        self.counters["received_samples"] += len(frames)
        chunks = self._taken()
        if len(frames) == 0:
            return chunks
        if arrived_ns is None and received:
            arrived_ns = stamp_ns
        if stamp_ns is not None:
            if received:
                stamp_ns -= len(frames) * SECOND // self._format.sample_rate
            tolerance = RECEPTION_TOLERANCE if received else STAMP_TOLERANCE
            chunks += self._keep_time(stamp_ns, len(frames), tolerance)
        elif not self._anchored:
            self._anchor(0)
        chunks += self._feed(frames)
        if arrived_ns is not None:
            length_ns = len(frames) * SECOND // self._format.sample_rate
            taken_ns = None if stamp_ns is None or received else stamp_ns + length_ns
            self._arrivals.note(arrived_ns, self._place(self._samples), taken_ns)
        self._count()
        earliest = self._segmenter.earliest
        self._timeline.forget_before(earliest)
        while len(self._reports) > 1 and self._reports[1][0] <= earliest:
            self._reports.popleft()
        return chunks

    def _anchor(self, stamp_ns: int) -> None:
        self._timeline.begin(self._epoch_start, self._format.sample_rate, stamp_ns)
        self._anchored = True

    def _keep_time(self, stamp_ns: int, count: int, tolerance: int) -> list[SpeechChunk]:
        """Deal with a stamp that is not where the samples counted so far put it."""
        if not self._anchored:
            self._anchor(stamp_ns)
        verdict = self._timeline.observe(self._samples, count, stamp_ns, tolerance)
        self._report_contradiction()
        self.counters["restarts"] += verdict.restart
        self.counters["gaps"] += bool(verdict.lost_ns or verdict.missed_ns)
        self.counters["clock_corrections"] += verdict.moved and not verdict.missed_ns
        lost = (verdict.lost_ns + verdict.missed_ns) * SAMPLE_RATE // SECOND
        self.counters["dropped_samples"] += lost
        if not (verdict.restart or verdict.lost_ns):
            return []
        if 0 < lost <= self._segmenter.config.pause:
            at = self._place(self._samples)
            earliest = self._segmenter.earliest
            self._dropped = [d for d in self._dropped if d[1] > earliest] + [(at, at + lost)]
            missing = verdict.lost_ns * self._format.sample_rate // SECOND
            return self._feed(np.zeros((missing, self._format.channels), np.float32))
        chunks = self._break()
        self._begin_epoch()
        self._anchor(stamp_ns)
        return chunks

    def _report_contradiction(self) -> None:
        """Say so when the stamps begin or cease to contradict the format."""
        rate = self._timeline.contradiction
        text = "" if rate is None else _contradicted(rate, self._format)
        if (text == "") != (self._contradiction == ""):
            self._contradiction = text
            self._note(self._place(self._samples), self._meter_report)
        elif text:
            self._contradiction = text

    def _note(self, position: int, report: InputReport) -> None:
        """A verdict on the input holds from `position` on."""
        self._meter_report = report
        if self._contradiction:
            report = InputReport(report.level_dbfs, Fault.FORMAT, self._contradiction)
        self._reports.append((position, report))
        if report.fault is not Fault.NONE:
            self.faults[report.fault] = report.text

    def _feed(self, frames: FloatArray) -> list[SpeechChunk]:
        """Clean, mix, resample, take off the offset and segment; [n, channels]."""
        if self._channel != self._next_channel and not self.speaking:
            self._channel, self._meter = self._next_channel, None
        if self._meter is None:
            self._meter = InputMeter(self._format, self._channel)
        peak = float(np.abs(frames).max())
        if not peak <= 1.0:  # NaN is not less either.
            bad = ~np.isfinite(frames)
            self.counters["bad_samples"] += int(np.count_nonzero(bad))
            frames, peak = np.clip(np.where(bad, np.float32(0.0), frames), -1.0, 1.0), 1.0
        mix = self._meter.take(frames, peak)
        self.counters["clipped_samples"] += len(mix.clipped)
        places = self._place(self._samples + mix.clipped)
        for count, report in mix.reports:
            self._note(self._place(self._samples + count), report)
        self._samples += len(mix.mono)
        return self._segment(self._resampler.process(mix.mono), places)

    def _place(self, sample: Any) -> Any:
        """Stream index of an input sample of this epoch, or of an array of them."""
        return sample * SAMPLE_RATE // self._format.sample_rate + self._epoch_start

    def _segment(self, samples: FloatArray, clipped: npt.NDArray[np.int64]) -> list[SpeechChunk]:
        self.counters["stream_samples"] += len(samples)
        weight = SAMPLE_RATE / self._format.sample_rate
        samples = self._offset.process(samples)
        return [self._chunk(c) for c in self._segmenter.push(samples, clipped, weight)]

    def _count(self) -> None:
        self.counters.update(self._segmenter.counters)

    def _chunk(self, chunk: SegmentChunk) -> SpeechChunk:
        def time(position: int) -> int:
            return start_ns + (position - chunk.utterance_start) * SECOND // SAMPLE_RATE

        start_ns = self._timeline.stamp(chunk.utterance_start)
        end = chunk.start + len(chunk.samples)
        self._dropped = [d for d in self._dropped if d[1] > chunk.utterance_start]
        held = [report for place, report in self._reports if place <= end]
        fault = held[-1].fault
        # What was read in the wrong format once is not what was said.
        if any(report.fault is Fault.FORMAT for report in held):
            fault = Fault.FORMAT
        return SpeechChunk(
            utterance_id=chunk.utterance_id,
            sequence=chunk.sequence,
            stamp_ns=time(chunk.start),
            utterance_start_ns=start_ns,
            first_sample=chunk.start - chunk.utterance_start,
            samples=chunk.samples,
            quality=replace(chunk.quality, input_level_dbfs=held[-1].level_dbfs, fault=fault),
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
        self._robot = [r for r in self._robot if r[1] is None or r[1] > begin]
        return any(a < end for a, _ in self._robot)


def _contradicted(rate: float, pcm_format: PcmFormat) -> str:
    """What to say of a rate that stamps speak of; 0 where they jump back and forth."""
    if rate == 0.0:
        return "the stamps of the audio jump back and forth: does more than one node publish it?"
    return (
        f"audio comes at {rate:.0f} samples a second by its stamps but is read as "
        f"{pcm_format.sample_rate} Hz, {pcm_format.channels} ch, {pcm_format.sample_format}: check "
        "audio.sample_rate, audio.channels and audio.sample_format, or AudioInfo (audio.use_info)"
    )
