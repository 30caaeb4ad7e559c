# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
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
            EMPTY, with confidence 0, where nothing was said; REJECTED below `asr.min_confidence`.
        """

    def warm_up(self) -> None:
        """Recognise something once, so that the first utterance is not the slowest."""


class LoadedRecogniser(Recogniser, Protocol):
    """A recogniser with a model of its own."""

    @property
    def device(self) -> str:
        """cpu or cuda."""

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raises HriEmoError where a value does not suit the model; in any thread, at once."""

    def configure(self, parameters: Mapping[str, Any]) -> None:
        """Take new values of the parameters that are not read-only.

        Raises:
            HriEmoError: a value is refused.
        """


def make_recogniser(parameters: Mapping[str, Any]) -> LoadedRecogniser | None:
    """The recogniser that the values of the asr node ask for; None for ``asr.backend: none``.

    Raises:
        HriEmoError: a value is refused, or the model cannot be loaded.
    """
    values = declared.check("asr_node", parameters)
    backend = choose_backend(values)
    # Imported where wanted: each brings a library that the other does not need.
    if backend == "whisper":
        from hri_emo_ros.asr.whisper import WhisperRecogniser

        return WhisperRecogniser(values)
    if backend == "moonshine":
        from hri_emo_ros.asr.moonshine import MoonshineRecogniser

        return MoonshineRecogniser(values)
    return None


def choose_backend(values: Mapping[str, Any]) -> str:
    """What `asr.backend` means here: moonshine, whisper or none.

    Args:
        values: all of the asr node's.
    """
    backend = str(values["asr.backend"])
    if backend != "auto":
        return backend
    if values["whisper.model"]:
        return "whisper"
    from hri_emo_ros.asr.whisper import cuda_devices, installed_models

    wanted = values["whisper.device"] != "cpu"
    return "whisper" if wanted and installed_models() and cuda_devices() else "moonshine"
