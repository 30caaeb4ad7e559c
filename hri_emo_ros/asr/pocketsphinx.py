"""PocketSphinx: the recogniser that needs no download. A fallback; dictation errs every second word."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hri_emo_ros import parameters as declared
from hri_emo_ros.asr.filters import collapse_repetitions, make_transcript, worth_recognising
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import SAMPLE_RATE, FloatArray, SignalQuality, Transcript, Word

_FRAME_RATE = 100
_FILLER = re.compile(r"^(<.*>|\[.*\]|\+\+.*\+\+)$")
"""Sentence marks, silence and noises, which the decoder reports as words."""
_VARIANT = re.compile(r"\(\d+\)$")
"""The mark of a second pronunciation: 'and(2)'."""


class PocketsphinxRecogniser:
    """Whole utterances through one decoder that is kept alive.

    Its adaptation to the channel is started afresh with each utterance, so that a transcript depends
    on the utterance alone.

    Args:
        parameters: values of the asr node, by name; missing ones take their defaults.

    Raises:
        HriEmoError: a value is refused or the model cannot be loaded.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        values = declared.check("asr_node", parameters)
        try:
            from pocketsphinx import Decoder
        except ImportError as error:
            raise HriEmoError(
                f"pocketsphinx cannot be imported ({error}): install it, or set asr.backend"
            ) from error
        folder = str(values["pocketsphinx.model"])
        options: dict[str, Any] = _find_model(Path(folder)) if folder else {}
        try:
            self._decoder = Decoder(
                samprate=SAMPLE_RATE, frate=_FRAME_RATE, loglevel="FATAL", **options
            )
        except (RuntimeError, ValueError) as error:
            raise HriEmoError(
                f"pocketsphinx cannot load its model from '{folder or 'its package'}' ({error}): "
                "check pocketsphinx.model"
            ) from error
        self._name = f"pocketsphinx:{Path(folder).name if folder else 'en-us'}"
        # A folder of one's own may hold any language; only what is carried is known.
        self._language = "" if folder else "en"
        self.configure(parameters)

    def configure(self, parameters: Mapping[str, Any]) -> None:
        """Take new values of the parameters that are not read-only."""
        values = declared.check("asr_node", parameters)
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
        """The words of one utterance ([n] float32, 16 kHz), with calibrated posteriors as confidences."""
        started = time.perf_counter()
        words: list[Word] = []
        if worth_recognising(samples, quality, self._min_speech):
            words = collapse_repetitions(self._decode(samples))
        seconds = time.perf_counter() - started
        return make_transcript(words, " ", self._min_confidence, self._language, seconds)

    def _decode(self, samples: FloatArray) -> list[Word]:
        pcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
        decoder = self._decoder
        decoder.reinit_feat()  # Or the mean of the utterances before shifts the features.
        decoder.start_utt()
        try:
            decoder.process_raw(pcm.tobytes(), full_utt=True)
        finally:
            decoder.end_utt()
        if decoder.hyp() is None:
            return []
        return [
            Word(
                text=_VARIANT.sub("", segment.word),
                start=segment.start_frame / _FRAME_RATE,
                end=min((segment.end_frame + 1) / _FRAME_RATE, len(samples) / SAMPLE_RATE),
                confidence=_confidence(segment.prob),
            )
            for segment in decoder.seg()
            if not _FILLER.match(segment.word)
        ]


def _confidence(posterior: float) -> float:
    """Share of words with this posterior that are right, [0, 1].

    The posteriors order words well but are far too low for doubtful ones (a third of those near 0.03 is
    right). The curve is fitted by eye to 159 words of LJ Speech and JFK's address, 75 % of them right:
    0.03 -> 0.33, 0.13 -> 0.55, 0.35 -> 0.75, 0.71 -> 0.86, 0.98 -> 0.89 were measured.
    """
    return float(0.92 * min(1.0, max(0.0, posterior)) ** 0.3)


def _find_model(folder: Path) -> dict[str, str | None]:
    """The decoder's options for a model folder.

    Raises:
        HriEmoError: a part is missing.
    """
    if not folder.is_dir():
        raise HriEmoError(f"pocketsphinx.model '{folder}' is not a folder")
    acoustic = next(iter(sorted(folder.rglob("mdef*"))), None)
    dictionary = next(iter(sorted([*folder.rglob("*.dict"), *folder.rglob("*.dic")])), None)
    grammar = next(iter(sorted([*folder.rglob("*.gram"), *folder.rglob("*.jsgf")])), None)
    language = next(
        (p for p in sorted(folder.rglob("*.lm*")) if "phone" not in p.name),
        None,
    )
    if acoustic is None or dictionary is None or (grammar is None and language is None):
        raise HriEmoError(
            f"pocketsphinx.model '{folder}' must hold an acoustic model (mdef and its neighbours), "
            "a dictionary (*.dict) and a language model (*.lm, *.lm.bin) or grammar (*.gram, *.jsgf)"
        )
    options: dict[str, str | None] = {"hmm": str(acoustic.parent), "dict": str(dictionary)}
    if grammar is not None:
        return options | {"jsgf": str(grammar), "lm": None}
    return options | {"lm": str(language)}
