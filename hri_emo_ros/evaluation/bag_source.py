# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A bag as the pipeline's input, and what the report shows of the sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np

from hri_emo_ros.audio.pcm import PcmFormat
from hri_emo_ros.evaluation.bags import AudioBag, Sound, TruncatedBagError
from hri_emo_ros.evaluation.envelope import Envelope
from hri_emo_ros.parameters import Value
from hri_emo_ros.pipeline import AudioMessage, Input, RobotSpeaking
from hri_emo_ros.types import FloatArray

_BLOCK = 0.25
"""Seconds of audio handed to the front end at once."""
_SAME_STAMP_NS = 500_000
"""Deviation up to which a message follows the one before without a gap."""


class Disturbance(Protocol):
    """Something that happens to the sound between the recording and the pipeline."""

    def __call__(self, samples: FloatArray, sample_rate: int) -> FloatArray:
        """[frames, channels] in and out, message by message.

        As many frames come out as go in, unless the object has an `output_rate` (Hz).
        """


class BagSource:
    """Turns a bag into the pipeline's inputs and keeps what the report shows of the sound.

    Messages whose stamps follow one another without a gap are put together: the front end's result
    does not depend on how the sound is cut, its speed does.
    """

    def __init__(
        self,
        bag: AudioBag,
        parameters: Mapping[str, Value],
        disturb: Disturbance | None,
        progress: Callable[[float, float], None] | None,
    ) -> None:
        self._bag, self._disturb, self._progress = bag, disturb, progress
        self._output_rate: int | None = getattr(disturb, "output_rate", None)
        self._sounds = bag.sounds(parameters)
        self._format: PcmFormat | None = None
        self._started = False
        self._block: list[FloatArray] = []
        self._block_frames = 0
        self._block_stamp_ns = self._block_receive_ns = 0
        self.envelope = Envelope()
        self.truncated = ""
        self.seconds = 0.0
        """Audio handed out so far, in the bag's time."""

    def inputs(self) -> Iterator[Input]:
        """Formats, audio and when the robot spoke, in order."""
        try:
            for event in self._sounds:
                if isinstance(event, RobotSpeaking):
                    yield from self._taken()
                    yield event
                    continue
                if event.format != self._format:
                    yield from self._taken()
                    self._format = event.format
                    # A disturbance may be another microphone's rate.
                    rate = self._output_rate or event.format.sample_rate
                    yield replace(event.format, sample_rate=rate)
                yield from self._take(event)
        except TruncatedBagError as error:
            self.truncated = str(error)
        yield from self._taken()
        if self._progress is not None:
            self._progress(self._bag.duration, self._bag.duration)

    def _take(self, sound: Sound) -> Iterator[AudioMessage]:
        samples = self._heard(sound)
        event, rate = sound.message, self._output_rate or sound.format.sample_rate
        if not event.stamped:
            # Reception jitters, and the front end looks at each message's.
            yield AudioMessage(samples, event.stamp_ns, received=True)
            return
        due_ns = self._block_stamp_ns + self._block_frames * 1_000_000_000 // rate
        # What a resampler holds back comes with the next message: its stamps no longer fit.
        follows = self._output_rate is not None or abs(event.stamp_ns - due_ns) < _SAME_STAMP_NS
        if self._block and (not follows or self._block_frames >= _BLOCK * rate):
            yield from self._taken()
        if len(samples) == 0:
            return
        if not self._block:
            self._block_stamp_ns = event.stamp_ns
        self._block.append(samples)
        self._block_receive_ns = event.receive_ns
        self._block_frames += len(samples)

    def _taken(self) -> Iterator[AudioMessage]:
        """The block collected, if any."""
        if self._block:
            known = self._output_rate is None or not self._started
            self._started = True
            samples = np.concatenate(self._block) if len(self._block) > 1 else self._block[0]
            self._block, self._block_frames = [], 0
            stamp_ns = self._block_stamp_ns if known else None
            yield AudioMessage(samples, stamp_ns, arrived_ns=self._block_receive_ns)

    def _heard(self, sound: Sound) -> FloatArray:
        """The message's samples as the pipeline is to hear them."""
        samples, rate = sound.frames, sound.format.sample_rate
        self.seconds = max(self.seconds, sound.start + len(samples) / rate)
        if self._disturb is not None:
            samples = self._disturb(samples, rate)
        self.envelope.add(samples, sound.start, self._output_rate or rate)
        if self._progress is not None:
            self._progress(self._bag.seconds(sound.message.receive_ns), self._bag.duration)
        return samples
