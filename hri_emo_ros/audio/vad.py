# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Silero voice activity detection, frame by frame.

The network in ``silero_vad.onnx`` beside this file is the maker's ``silero_vad_16k_sequence.onnx`` of
silero-vad 6.2.3 (https://pypi.org/project/silero-vad, MIT licence in ``silero_vad.LICENSE.txt``),
unchanged. It gives the same probabilities as that release's ``silero_vad.onnx``, bit for bit, of any
number of frames in one call, at half the size: it leaves out the one for 8 kHz.
"""

from __future__ import annotations

import zlib
from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.hardware import open_session
from hri_emo_ros.types import FloatArray

if TYPE_CHECKING:
    import onnxruntime

MODEL = Path(__file__).with_name("silero_vad.onnx")
MODEL_NAME = "Silero VAD 6.2.3"
_CRC32 = 0xBE08E204
"""Of its file; against damage, not malice, and not worth the 4 MB that a library of hashes takes."""

FRAME = 512
"""Samples of a frame at 16 kHz (32 ms); the network knows no other length."""
_CONTEXT = 64
"""Samples of the frame before that the network sees with each frame."""
_STATE = (1, 1, 128)

# By itself the network is deaf to speech with peaks at -40 dBFS, and to shouts at full scale once it has
# heard a few; raising noise together with speech would make it deaf to the beginning of the speech. What
# each of these is worth is in docs/voice_activity.md.
_QUIET_PEAK, _LOUD_PEAK = 0.1, 0.3
"""Peaks (-20, -10 dBFS) between which sound is left alone; quieter sound is raised, louder one lowered."""
_NOISE_PEAK = 0.01
"""Peak (-40 dBFS) above which what is heard between the words is not raised."""
_MOST_GAIN = 10.0
_PEAK_DECAY = 0.98
"""By frame: the peak that was heard is forgotten with a time constant of 1.6 s."""
_NOISE_FRAMES = 31
"""Frames (1 s) whose quietest counts as what is heard between the words."""


class SpeechDetector(Protocol):
    """Anything that says how likely a frame holds speech."""

    def probabilities(self, frames: FloatArray) -> FloatArray:
        """[n, 512] consecutive frames at 16 kHz -> [n] in [0, 1]."""

    def reset(self) -> None:
        """Forget what was heard: the next frame starts a stream."""


class SileroVad:
    """Silero VAD with its state kept from frame to frame, behind a gain that follows the peaks.

    One thread: a frame takes 0.1 ms, and the result must not depend on the number of cores.

    Raises:
        HriEmoError: the network's file is missing or damaged.
    """

    def __init__(self) -> None:
        self._session = _session(MODEL)
        self.reset()

    def reset(self) -> None:
        """Forget what was heard: the next frame starts a stream."""
        self._context: FloatArray = np.zeros(_CONTEXT, np.float32)
        self._h = self._c = np.zeros(_STATE, np.float32)
        self._peak = 0.0
        self._peaks: deque[float] = deque(maxlen=_NOISE_FRAMES)

    def probability(self, frame: FloatArray) -> float:
        """Probability that `frame` (float32 [512], 16 kHz) holds speech, [0, 1]."""
        return float(self.probabilities(frame[None])[0])

    def probabilities(self, frames: FloatArray) -> FloatArray:
        """The same of consecutive frames, float32 [n, 512]: equal to n calls, at less cost."""
        inputs = np.empty((len(frames), _CONTEXT + FRAME), np.float32)
        inputs[0, :_CONTEXT] = self._context
        inputs[1:, :_CONTEXT] = frames[:-1, -_CONTEXT:]
        inputs[:, _CONTEXT:] = frames
        self._context = inputs[-1, -_CONTEXT:].copy()
        inputs *= self._gains(frames)[:, None]
        probabilities, self._h, self._c = self._session.run(
            None, {"input": inputs, "h": self._h, "c": self._c}
        )
        return np.asarray(probabilities, np.float32).reshape(len(frames))

    def _gains(self, frames: FloatArray) -> FloatArray:
        """What each frame is multiplied with, [n]."""
        gains = np.empty(len(frames), np.float32)
        for i, peak in enumerate(np.abs(frames).max(axis=1).tolist()):
            self._peaks.append(peak)
            self._peak = max(peak, self._peak * _PEAK_DECAY, 1e-9)
            raised = min(_QUIET_PEAK / self._peak, _NOISE_PEAK / max(min(self._peaks), 1e-9))
            lowered = min(_LOUD_PEAK / self._peak, 1.0)
            gains[i] = min(max(raised, lowered), _MOST_GAIN)
        return gains


@lru_cache(maxsize=1)
def _session(path: Path) -> onnxruntime.InferenceSession:
    """Loaded once in a process: it holds no state between calls."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise HriEmoError(
            f"the voice detector's network '{path}' cannot be read ({error.strerror}): install "
            "hri_emo_ros again, which carries it"
        ) from error
    # A changed weight would load without a word and hear wrongly.
    if zlib.crc32(content) != _CRC32:
        raise HriEmoError(
            f"the voice detector's network '{path}' ({len(content)} bytes) is damaged: install "
            "hri_emo_ros again, which carries it"
        )
    return open_session(content)
