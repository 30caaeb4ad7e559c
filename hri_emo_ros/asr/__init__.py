"""Recognisers: an utterance in, its words out. No ROS, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from hri_emo_ros import parameters as declared
from hri_emo_ros.types import FloatArray, SignalQuality, Transcript


class Recogniser(Protocol):
    """What every recogniser does."""

    @property
    def name(self) -> str:
        """Which recogniser and model, for people and records."""

    def transcribe(self, samples: FloatArray, quality: SignalQuality | None = None) -> Transcript:
        """The words of one utterance.

        Args:
            samples: [n] float32, 16 kHz mono.
            quality: lets utterances without speech be skipped.

        Returns:
            ``Transcript("")`` with confidence 0 where nothing was said.
        """

    def warm_up(self) -> None:
        """Recognise something once, so that the first utterance is not the slowest."""


def make_recogniser(parameters: Mapping[str, Any]) -> Recogniser | None:
    """The recogniser that the values of the asr node ask for; None for ``asr.backend: none``.

    Raises:
        HriEmoError: a value is refused, or the model cannot be loaded.
    """
    values = declared.check("asr_node", parameters)
    backend = values["asr.backend"]
    if backend == "auto":
        backend = "whisper" if values["whisper.model"] else "pocketsphinx"
    # Imported where wanted: each brings a library that the other does not need.
    if backend == "whisper":
        from hri_emo_ros.asr.whisper import WhisperRecogniser

        return WhisperRecogniser(values)
    if backend == "pocketsphinx":
        from hri_emo_ros.asr.pocketsphinx import PocketsphinxRecogniser

        return PocketsphinxRecogniser(values)
    return None
