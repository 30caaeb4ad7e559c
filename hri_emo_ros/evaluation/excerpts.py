"""Stretches of a recording as the pipeline hears them: 16 kHz mono, cut by time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hri_emo_ros.audio.pcm import PcmDecoder, PcmFormat
from hri_emo_ros.audio.resample import StreamingResampler
from hri_emo_ros.evaluation.bags import AudioBag, TruncatedBagError
from hri_emo_ros.parameters import Value
from hri_emo_ros.types import SAMPLE_RATE, FloatArray


def excerpts(
    path: Path, topic: str, parameters: Mapping[str, Value], spans: Sequence[tuple[float, float]]
) -> Iterator[FloatArray]:
    """The sound of each span, in the order of the spans.

    Args:
        path: the bag.
        topic: its audio topic.
        parameters: of the speech node (channel, format where the bag tells none).
        spans: start and end, s from the bag's start; starts may step back a little from one span to
            the next, which bounds what is held in memory.

    Yields:
        [n] float32 at 16 kHz; shorter where a span reaches beyond the recording.
    """
    with AudioBag(path, topic) as bag:
        stream = _Stream(bag, parameters)
        earliest = np.minimum.accumulate([start for start, _ in spans][::-1])[::-1]
        for number, (start, end) in enumerate(spans):
            if end <= start:
                yield np.zeros(0, np.float32)
                continue
            yield stream.cut(start, end, keep_from=float(earliest[number]))


class _Stream:
    """Decoded sound of a bag, held from `keep_from` on."""

    def __init__(self, bag: AudioBag, parameters: Mapping[str, Value]) -> None:
        self._bag = bag
        self._channel = int(parameters["audio.channel"])  # type: ignore[arg-type]
        self._pieces = self._read(parameters)
        self._held: FloatArray = np.zeros(0, np.float32)
        self._first = 0
        """Index of the first held sample, at 16 kHz from the bag's start."""
        self._done = False

    def cut(self, start: float, end: float, keep_from: float) -> FloatArray:
        a, b = max(0, round(start * SAMPLE_RATE)), round(end * SAMPLE_RATE)
        held = [self._held]
        while not self._done and self._first + sum(map(len, held)) < b:
            piece = next(self._pieces, None)
            if piece is None:
                self._done = True
            else:
                held.append(piece)
        self._held = np.concatenate(held)
        drop = min(max(0, round(keep_from * SAMPLE_RATE) - self._first), len(self._held))
        self._held, self._first = self._held[drop:], self._first + drop
        return self._held[max(0, a - self._first) : max(0, b - self._first)].copy()

    def _read(self, parameters: Mapping[str, Value]) -> Iterator[FloatArray]:
        """16 kHz mono; a gap in the stamps is filled with silence."""
        pcm_format = PcmFormat(
            int(parameters["audio.sample_rate"]),  # type: ignore[arg-type]
            int(parameters["audio.channels"]),  # type: ignore[arg-type]
            str(parameters["audio.sample_format"]),
        )
        if parameters["audio.use_info"] and self._bag.format is not None:
            pcm_format = self._bag.format
        decoder, resampler = PcmDecoder(pcm_format), StreamingResampler(pcm_format.sample_rate)
        written = 0
        try:
            for message in self._bag.messages():
                frames = decoder.decode(message.data)
                start = (message.stamp_ns - self._bag.origin_ns) * 1e-9
                if not message.stamped:
                    start -= len(frames) / pcm_format.sample_rate
                gap = round(start * pcm_format.sample_rate) - written
                if gap > pcm_format.sample_rate // 10:
                    frames = np.pad(frames, ((gap, 0), (0, 0)))
                written += len(frames)
                mono = frames.mean(axis=1) if self._channel < 0 else frames[:, self._channel]
                yield resampler.process(np.ascontiguousarray(mono, np.float32))
        except TruncatedBagError:
            pass
        yield resampler.flush()
