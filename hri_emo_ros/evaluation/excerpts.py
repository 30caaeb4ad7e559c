# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Stretches of a recording as the pipeline hears them: 16 kHz mono, cut by time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hri_emo_ros.audio.input import InputMeter
from hri_emo_ros.audio.pcm import PcmFormat
from hri_emo_ros.audio.resample import StreamingResampler
from hri_emo_ros.evaluation.bags import AudioBag, TruncatedBagError
from hri_emo_ros.parameters import Value
from hri_emo_ros.pipeline import RobotSpeaking
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
        self._channel = int(parameters["audio.channel"])
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
        resampler = StreamingResampler(SAMPLE_RATE)
        meter: InputMeter | None = None
        pcm_format, rate, heard = PcmFormat(SAMPLE_RATE), SAMPLE_RATE, 0.0
        try:
            for sound in self._bag.sounds(parameters):
                if isinstance(sound, RobotSpeaking):
                    continue
                if meter is None or sound.format != pcm_format:
                    yield resampler.flush()
                    pcm_format, rate = sound.format, sound.format.sample_rate
                    resampler = StreamingResampler(rate)
                    meter = InputMeter(pcm_format, self._channel)
                frames = sound.frames
                gap = sound.start - heard
                if gap > 0.1:
                    frames = np.pad(frames, ((round(gap * rate), 0), (0, 0)))
                heard += len(frames) / rate
                yield resampler.process(meter.take(np.nan_to_num(frames)).mono)
        except TruncatedBagError:
            pass
        yield resampler.flush()
