"""Whisper through faster-whisper (CTranslate2)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hri_emo_ros import parameters as declared
from hri_emo_ros.asr.filters import (
    collapse_repetitions,
    is_silence_phrase,
    make_transcript,
    worth_recognising,
)
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import SAMPLE_RATE, FloatArray, SignalQuality, Transcript, Word

_FILES = ("model.bin", "config.json", "tokenizer.json")
"""What a model folder must hold. Without tokenizer.json faster-whisper would ask the hub."""


class WhisperRecogniser:
    """Whole utterances through one Whisper model; greedy or beam search at temperature 0.

    Args:
        parameters: values of the asr node, by name; missing ones take their defaults.

    Raises:
        HriEmoError: a value is refused, or the model or device is not there.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        values = declared.check("asr_node", parameters)
        try:
            import faster_whisper
        except ImportError as error:
            raise HriEmoError(
                f"faster-whisper cannot be imported ({error}): install it, or set asr.backend"
            ) from error
        model = str(values["whisper.model"])
        download = bool(values["whisper.allow_download"])
        sizes = faster_whisper.available_models()
        _check_model(model, sizes)
        threads = int(values["asr.threads"])  # type: ignore[arg-type]
        try:
            self._model = faster_whisper.WhisperModel(
                model,
                device=str(values["whisper.device"]),
                compute_type=str(values["whisper.compute_type"]),
                cpu_threads=threads or max(1, (os.cpu_count() or 1) - 1),
                local_files_only=not download,
            )
        except Exception as error:  # The hub, the file system and CTranslate2 each have their own.
            raise _explain(error, values) from error
        self._name = f"faster-whisper:{Path(model).name}"
        self.configure(parameters)

    def configure(self, parameters: Mapping[str, Any]) -> None:
        """Take new values of the parameters that are not read-only.

        Raises:
            HriEmoError: a value is refused, or the model does not know the language.
        """
        values = declared.check("asr_node", parameters)
        language = str(values["whisper.language"])
        known = self._model.supported_languages
        if language and language not in known:
            raise HriEmoError(
                f"whisper.language is '{language}', must be empty or one of: {', '.join(known)}"
            )
        self._language = language
        self._beam = int(values["whisper.beam_size"])  # type: ignore[arg-type]
        self._no_speech = float(values["whisper.no_speech_threshold"])  # type: ignore[arg-type]
        self._min_confidence = float(values["asr.min_confidence"])  # type: ignore[arg-type]
        self._min_speech = float(values["asr.min_speech_fraction"])  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """The recogniser and its model."""
        return self._name

    def warm_up(self) -> None:
        """Recognise a second of faint noise."""
        noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
        self._decode(noise * np.float32(1e-3))

    def transcribe(self, samples: FloatArray, quality: SignalQuality | None = None) -> Transcript:
        """The words of one utterance ([n] float32, 16 kHz), with Whisper's word probabilities."""
        started = time.perf_counter()
        if not worth_recognising(samples, quality, self._min_speech):
            return Transcript("", confidence=0.0, latency=time.perf_counter() - started)
        words, language, no_speech = self._decode(samples)
        seconds = time.perf_counter() - started
        words = collapse_repetitions(words)
        transcript = make_transcript(words, "", self._min_confidence, language, seconds)
        if is_silence_phrase(transcript.text, transcript.confidence, no_speech, quality):
            return Transcript("", confidence=0.0, latency=seconds)
        return transcript

    def _decode(self, samples: FloatArray) -> tuple[list[Word], str, float]:
        """Words with their leading blanks, the language, the highest no-speech probability."""
        segments, info = self._model.transcribe(
            samples,
            language=self._language or None,
            beam_size=self._beam,
            temperature=0.0,  # Higher ones draw lots: the same speech would give other words.
            condition_on_previous_text=False,
            word_timestamps=True,
            no_speech_threshold=None,  # Its rule keeps confident inventions; ours is below.
        )
        duration = len(samples) / SAMPLE_RATE
        words: list[Word] = []
        no_speech = 0.0
        for segment in segments:
            if segment.no_speech_prob > self._no_speech:
                continue
            no_speech = max(no_speech, segment.no_speech_prob)
            words += [
                Word(w.word, min(float(w.start), duration), min(float(w.end), duration),
                     min(1.0, max(0.0, float(w.probability))))
                for w in segment.words or ()
            ]  # fmt: skip
        return words, str(info.language), no_speech


def _check_model(model: str, sizes: list[str]) -> None:
    """Refuse what could only fail, or end up asking the hub.

    Raises:
        HriEmoError: it is neither a complete folder nor a known name.
    """
    folder = Path(model)
    if not model:
        raise HriEmoError("whisper.model is empty: give a model folder, or set asr.backend")
    if folder.is_dir():
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise HriEmoError(
                f"whisper.model '{folder}' lacks {', '.join(missing)}: convert with "
                "ct2-transformers-converter --copy_files tokenizer.json preprocessor_config.json"
            )
    elif model not in sizes and model.count("/") != 1:
        raise HriEmoError(
            f"whisper.model '{model}' is neither a folder nor one of: {', '.join(sizes)}"
        )


def _explain(error: Exception, values: Mapping[str, Any]) -> HriEmoError:
    """The parameter to change, for a model that would not load."""
    model, device = values["whisper.model"], values["whisper.device"]
    text = " ".join(str(error).split())
    if "compute type" in text:
        compute = values["whisper.compute_type"]
        return HriEmoError(f"whisper.compute_type '{compute}' does not work here: {text}")
    if "CUDA" in text or "cuda" in text:
        return HriEmoError(f"whisper.device '{device}' does not work here ({text}): set it to cpu")
    if not Path(model).is_dir():
        if values["whisper.allow_download"]:
            return HriEmoError(f"whisper.model '{model}' cannot be fetched: {text}")
        return HriEmoError(
            f"whisper.model '{model}' is not on this machine: give a model folder, or set "
            "whisper.allow_download to true"
        )
    return HriEmoError(f"whisper.model '{model}' cannot be loaded: {text}")
