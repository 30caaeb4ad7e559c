# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Moonshine (N. Jeffries et al., "Moonshine: Speech Recognition for Live Transcription and Voice
Commands", 2024, arXiv:2410.15608), English, through onnxruntime.

Its cost grows with the length of the utterance, where Whisper's encoder always sees 30 s. Its makers'
package brings the model; their library is not used, because it tells no probabilities.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hri_emo_ros import hardware
from hri_emo_ros import parameters as declared
from hri_emo_ros.asr.filters import geometric_mean, make_transcript, worth_recognising
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import SAMPLE_RATE, FloatArray, SignalQuality, Transcript, Word

PACKAGE = "moonshine-voice==0.0.73"
"""The last release that carries the tiny.en model."""
_FILES = ("encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin")
_START, _END = 1, 2
_FIRST_MARK = 32_000
"""Tokens from here on are marks of tasks, not text."""
_TOKENS_PER_SECOND = 10.0
"""Bound on the length: nobody speaks as fast, but on noise the decoder may write on for ever."""
_SPARE_TOKENS = 6
_BLANK = "\u2581".encode()
"""What stands for a blank in the vocabulary."""
_LONGEST = 30 * SAMPLE_RATE
"""Samples that the model was made for; what is longer is cut where it is quietest."""
_CUT_WINDOW = 4 * SAMPLE_RATE
_BLOCK = SAMPLE_RATE // 50
_SOUNDING = 1e-3
"""Power of a block over the loudest one's (-30 dB) above which it is taken for sound."""


class MoonshineRecogniser:
    """Whole utterances through Moonshine; greedy decoding.

    Args:
        parameters: values of the asr node, by name; missing ones take their defaults.

    Raises:
        HriEmoError: a value is refused, or the model is not there or not this one.
    """

    device = "cpu"

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        values = declared.check("asr_node", parameters)
        folder = find_model(str(values["moonshine.model"]))
        threads = hardware.threads(int(values["asr.threads"]))
        try:
            self._encoder, self._decoder = (
                # Without the arena 40 MB less, for 4 % more time.
                hardware.open_session(str(folder / name), threads, arena=False)
                for name in _FILES[:2]
            )
            self._tokens = _read_tokens(folder / _FILES[2])
            inputs = {i.name: i.shape for i in self._decoder.get_inputs()}
            self._cache = [name for name in inputs if name.startswith("past_key_values")]
            _, heads, _, size = inputs["past_key_values.0.decoder.key"]
            self._empty = np.zeros((1, heads, 0, size), np.float32)
            words = self._decoder.get_outputs()[0].shape[-1]
            if len(self._tokens) != words:
                raise ValueError(f"{_FILES[2]} holds {len(self._tokens)} tokens, not {words}")
            self._decode(np.zeros(SAMPLE_RATE, np.float32))
        except Exception as error:  # onnxruntime has a dozen types of its own
            text = " ".join(str(error).split())
            raise HriEmoError(
                f"moonshine.model '{folder}' is no Moonshine model that works here: {text}"
            ) from error
        self._name = f"moonshine:{folder.name}"
        self.configure(parameters)

    def check(self, parameters: Mapping[str, Any]) -> None:
        """All values that their bounds allow suit it."""

    def configure(self, parameters: Mapping[str, Any]) -> None:
        """Take new values of the parameters that are not read-only."""
        values = declared.check("asr_node", parameters)
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
        """The words of one utterance ([n] float32, 16 kHz); their times are estimates."""
        started = time.perf_counter()
        if not worth_recognising(samples, quality, self._min_speech):
            return Transcript("", confidence=0.0, latency=time.perf_counter() - started)
        words: list[Word] = []
        scores: list[float] = []
        endless = False
        for start, stop in _pieces(samples):
            tokens, logs = self._decode(samples[start:stop])
            found = self._words(tokens, logs)
            words += _spread(found, samples[start:stop], start / SAMPLE_RATE)
            scores += [score for _, marks in found for score in marks]
            endless |= tokens[-1] != _END
        return make_transcript(
            words, geometric_mean(scores), self._min_confidence, "en",
            time.perf_counter() - started, endless=endless, times_estimated=True,
        )  # fmt: skip

    def _words(self, tokens: list[int], logs: list[float]) -> list[tuple[str, list[float]]]:
        """Words with their leading blanks, each with the log-probabilities of its tokens; punctuation
        and the end, which say nothing of how well the words were heard, are not among those."""
        words: list[tuple[bytes, list[float]]] = []
        for token, log in zip(tokens, logs, strict=True):
            if token == _END or token >= _FIRST_MARK:
                continue
            text = self._tokens[token].replace(_BLANK, b" ")
            if text.startswith(b" ") or not words:
                words.append((b"", []))
            spoken = any(c.isalnum() for c in text.decode("utf-8", "ignore"))
            words[-1] = (words[-1][0] + text, words[-1][1] + [log] * spoken)
        return [(text.decode("utf-8", "replace"), marks) for text, marks in words]

    def _decode(self, samples: FloatArray) -> tuple[list[int], list[float]]:
        """Tokens and their log-probabilities; the last one is the end, if that was reached."""
        mask = np.ones((1, len(samples)), np.int64)
        sound = {"input_values": samples[None], "attention_mask": mask}
        [states] = self._encoder.run(["last_hidden_state"], sound)
        feeds: dict[str, Any] = {
            "encoder_hidden_states": states,
            "encoder_attention_mask": mask,  # of samples: the decoder thins it out itself
            "use_cache_branch": np.array([False]),
            **dict.fromkeys(self._cache, self._empty),
        }
        wanted = ["logits", *(name.replace("past_key_values", "present") for name in self._cache)]
        tokens, logs = [_START], []
        limit = math.ceil(len(samples) / SAMPLE_RATE * _TOKENS_PER_SECOND) + _SPARE_TOKENS
        while len(tokens) <= limit and tokens[-1] != _END:
            feeds["input_ids"] = np.array([tokens[-1:]])
            logits, *present = self._decoder.run(wanted, feeds)
            row = logits[0, -1]
            tokens.append(int(row.argmax()))
            logs.append(float(row[tokens[-1]] - np.logaddexp.reduce(row)))
            for name, value in zip(self._cache, present, strict=True):
                # What was made of the sound stays; the decoder gives it back only once.
                if ".decoder." in name or not feeds["use_cache_branch"][0]:
                    feeds[name] = value
            feeds["use_cache_branch"] = np.array([True])
        return tokens[1:], logs


def find_model(folder: str) -> Path:
    """The model's folder: the named one, or the installed package's.

    Raises:
        HriEmoError: there is none, or a file is missing.
    """
    if folder:
        path = Path(folder)
    else:
        spec = importlib.util.find_spec("moonshine_voice")  # located, not imported
        if spec is None or spec.origin is None:
            raise HriEmoError(
                f"Moonshine's model is not installed: pip install --no-deps {PACKAGE}, or name a "
                f"folder with {', '.join(_FILES)} in moonshine.model, or set asr.backend"
            )
        path = Path(spec.origin).parent / "assets" / "tiny-en"
    missing = [name for name in _FILES if not (path / name).is_file()]
    if missing:
        raise HriEmoError(f"moonshine.model '{path}' lacks {', '.join(missing)}")
    return path


def _read_tokens(path: Path) -> list[bytes]:
    """The vocabulary: each token's length (one byte, or two of seven bits each) and its bytes."""
    data, tokens, at = path.read_bytes(), [], 0
    while at < len(data):
        size, at = data[at], at + 1
        if size >= 128:
            size, at = size - 128 + 128 * data[at], at + 1
        tokens.append(data[at : at + size])
        at += size
    return tokens


def _spread(words: list[tuple[str, list[float]]], samples: FloatArray, offset: float) -> list[Word]:
    """Words that take turns in the sound, each for a share by its letters."""
    ends = np.cumsum([0, *(len(text) for text, _ in words)])
    first, last = _sounding(samples)
    times = offset + first + (last - first) * ends / max(1, ends[-1])
    return [
        Word(text, float(start), float(end), geometric_mean(marks))
        for (text, marks), start, end in zip(words, times[:-1], times[1:], strict=True)
    ]


def _block_powers(samples: FloatArray) -> FloatArray:
    """Mean square of each whole block of 20 ms, [n // 320]."""
    blocks = samples[: len(samples) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    return np.asarray(np.mean(blocks**2, axis=1))


def _sounding(samples: FloatArray) -> tuple[float, float]:
    """Seconds from the beginning to the first and behind the last sound in `samples`."""
    powers = _block_powers(samples)
    loud = np.flatnonzero(powers >= _SOUNDING * powers.max(initial=0.0))
    if not len(loud):
        return 0.0, len(samples) / SAMPLE_RATE
    return float(loud[0] * _BLOCK / SAMPLE_RATE), float((loud[-1] + 1) * _BLOCK / SAMPLE_RATE)


def _pieces(samples: FloatArray) -> Iterator[tuple[int, int]]:
    """Where to cut what is longer than 30 s: at the quietest block from 25 to 29 s, so that what is left is
    no shorter than a second."""
    start = 0
    while len(samples) - start > _LONGEST:
        window = start + _LONGEST - SAMPLE_RATE - _CUT_WINDOW
        quietest = int(np.argmin(_block_powers(samples[window : window + _CUT_WINDOW])))
        stop = window + quietest * _BLOCK
        yield start, stop
        start = stop
    yield start, len(samples)
