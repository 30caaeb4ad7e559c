# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""One utterance put together again from its chunks; the same code in every node and offline."""

from __future__ import annotations

import numpy as np

from hri_emo_ros.types import SAMPLE_RATE, FloatArray, SignalQuality, SpeechChunk


class UtteranceBuffer:
    """Collects the chunks of one utterance.

    A chunk lost on the way leaves silence of its length, so that the times of words stay right. If
    the first chunk heard is not the utterance's first, the buffer begins with what was heard.
    """

    def __init__(self, chunk: SpeechChunk) -> None:
        self.utterance_id = chunk.utterance_id
        self.stamp_ns = chunk.stamp_ns
        """Sensor time of the first sample held, ns."""
        self.stream_start_sample = chunk.stream_start_sample + chunk.first_sample
        self.quality: SignalQuality = chunk.quality
        self.beginning_lost = chunk.beginning_lost or chunk.first_sample > 0
        """What is held does not begin where the person began."""
        self.robot_speaking = False
        self.truncated = False
        self.closed = False
        """The chunk that ends the utterance has come."""
        self.speech_end_ns = 0
        self.at_endpoint = False
        """Speech seems to have ended with what is held."""
        self.lost_samples = 0
        """Samples between chunks that never came."""
        self._base = chunk.first_sample
        self._next_sequence = chunk.sequence
        self._length = 0
        self._pieces: list[FloatArray] = []
        self.add(chunk)

    def add(self, chunk: SpeechChunk) -> bool:
        """Append a chunk; False if it is a repetition or comes too late to be of use."""
        if self.closed or chunk.sequence < self._next_sequence:
            return False
        gap = chunk.first_sample - self._base - self._length
        if gap < 0:
            return False
        if gap > 0:
            self._append(np.zeros(gap, np.float32))
            self.lost_samples += gap
        self._next_sequence = chunk.sequence + 1
        self._append(chunk.samples)
        self.quality = chunk.quality
        self.at_endpoint = chunk.endpoint or chunk.last
        self.robot_speaking = self.robot_speaking or chunk.robot_speaking
        if chunk.last:
            self.closed = True
            self.truncated = chunk.truncated
            self.speech_end_ns = chunk.speech_end_ns
        return True

    def close(self) -> None:
        """End the utterance although its last chunk did not come."""
        self.closed = True

    def _append(self, samples: FloatArray) -> None:
        if len(samples):
            self._pieces.append(samples)
            self._length += len(samples)

    def __len__(self) -> int:
        """Samples held."""
        return self._length

    @property
    def duration(self) -> float:
        """Length of what is held, s."""
        return self._length / SAMPLE_RATE

    @property
    def samples(self) -> FloatArray:
        """[n] float32, 16 kHz mono: everything up to now. Do not write to it."""
        if len(self._pieces) != 1:
            joined = np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.float32)
            self._pieces = [joined]
        return self._pieces[0]
