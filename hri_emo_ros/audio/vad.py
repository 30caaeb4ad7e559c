"""Silero voice activity detection, frame by frame."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import FloatArray

FRAME = 512
"""Samples of a frame at 16 kHz (32 ms); the network knows no other length."""
_CONTEXT = 64
"""Samples of the frame before that the network sees with each frame."""
_HIDDEN = (1, 1, 128)


class SpeechDetector(Protocol):
    """Anything that says how likely a frame holds speech."""

    def probabilities(self, frames: FloatArray) -> FloatArray:
        """[n, 512] consecutive frames at 16 kHz -> [n] in [0, 1]."""

    def reset(self) -> None:
        """Forget what was heard: the next frame starts a stream."""


def find_model() -> Path:
    """The Silero VAD v6 network that the faster-whisper package carries (MIT licence).

    The package is located, not imported: that would load ctranslate2.

    Raises:
        HriEmoError: the package or the file is missing.
    """
    spec = importlib.util.find_spec("faster_whisper")
    if spec is not None and spec.origin:
        path = Path(spec.origin).parent / "assets" / "silero_vad_v6.onnx"
        if path.is_file():
            return path
    raise HriEmoError(
        "the voice activity detector's network (silero_vad_v6.onnx) is missing: "
        "install faster-whisper 1.2 (pip install 'faster-whisper>=1.2,<1.3')"
    )


class SileroVad:
    """Silero VAD v6 with its state kept from frame to frame.

    One thread: a frame takes 0.1 ms, and the result must not depend on the number of cores.
    """

    def __init__(self) -> None:
        self._session = _session()
        self.reset()

    def reset(self) -> None:
        """Forget what was heard: the next frame starts a stream."""
        self._context: FloatArray = np.zeros(_CONTEXT, np.float32)
        self._h = self._c = np.zeros(_HIDDEN, np.float32)

    def probability(self, frame: FloatArray) -> float:
        """Probability that `frame` (float32 [512], 16 kHz) holds speech, [0, 1]."""
        return float(self.probabilities(frame[None])[0])

    def probabilities(self, frames: FloatArray) -> FloatArray:
        """The same of consecutive frames, float32 [n, 512]: equal to n calls, at less cost."""
        inputs = np.empty((len(frames), _CONTEXT + FRAME), np.float32)
        inputs[0, :_CONTEXT] = self._context
        inputs[1:, :_CONTEXT] = frames[:-1, -_CONTEXT:]
        inputs[:, _CONTEXT:] = frames
        self._context = inputs[-1, -_CONTEXT:]
        probabilities, self._h, self._c = self._session.run(
            None, {"input": inputs, "h": self._h, "c": self._c}
        )
        return np.asarray(probabilities, np.float32)


@lru_cache(maxsize=1)
def _session() -> onnxruntime.InferenceSession:
    """Loaded once in a process: it holds no state between calls."""
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(find_model()), sess_options=options, providers=["CPUExecutionProvider"]
    )
