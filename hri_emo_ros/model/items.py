# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What a network takes: utterances of any length, side by side, with everything absent marked.

Arrays here; `model.batch` has the same as tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.model.tokenizer import TextTokenizer
from hri_emo_ros.types import SAMPLE_RATE, FloatArray
from hri_emo_ros.voices.baseline import Baseline

A = TypeVar("A")
"""numpy's array or torch's tensor."""

MIN_AUDIO_SAMPLES = 400
"""Shorter audio counts as absent: the receptive field of one wav2vec 2.0 frame, 25 ms."""


@dataclass
class ModelItem:
    """One utterance. Whatever is None, too short or empty is absent; both may be."""

    samples: FloatArray | None = None
    """[n] float32 in [-1, 1], 16 kHz mono."""
    text: str | None = None
    snr_db: float = float("nan")
    """Signal-to-noise ratio, dB; NaN when unknown."""
    asr_confidence: float = 1.0
    """[0, 1]; 1 for text that a person typed."""
    speech_seconds: float = float("nan")
    """Seconds of speech in the samples; NaN takes their whole length."""
    audio_features: FloatArray | None = None
    """[frames, width] or [width] in place of samples, for a ``features`` encoder."""
    text_features: FloatArray | None = None
    """[words, width] or [width] in place of text, for a ``features`` encoder."""
    baseline: Baseline | None = None
    """How the voice usually sounds; None when nothing was heard yet, and for networks without baseline."""
    context: tuple[str, ...] = ()
    """What was said before in the conversation, latest turn first."""


@dataclass
class Batch(Generic[A]):
    """B utterances, padded with zeros on the right."""

    waveform: A
    """[B, T] float32, or features [B, frames, width]."""
    audio_lengths: A
    """[B] int64: real samples (or feature frames) of each row; 0 where absent."""
    input_ids: A
    """[B, N] int64 token ids of the utterance and, behind it, of the context; or features [B, words, width]
    float32."""
    text_mask: A
    """[B, N] bool, true on the utterance's tokens."""
    context_mask: A
    """[B, N] bool, true on the tokens of earlier turns."""
    audio_present: A
    """[B] bool."""
    text_present: A
    """[B] bool."""
    snr_db: A
    """[B] float32, NaN where unknown."""
    asr_confidence: A
    """[B] float32 in [0, 1]."""
    speech_seconds: A
    """[B] float32."""
    word_count: A
    """[B] float32."""
    baseline: A
    """[B, 2 H] float32, rows of NaN where nothing was heard ([B, 1] if nowhere)."""
    heard: A
    """[B, 2] float32: on how many utterances of the voice and of its room the baseline rests."""


def pad(
    items: Sequence[ModelItem], config: ModelConfig, tokenizer: TextTokenizer | None
) -> Batch[np.ndarray]:
    """Put `items` into one batch.

    Args:
        config: decides between samples and features and caps their length.
        tokenizer: needed where the text encoder reads tokens and the head uses text.
    """
    limit = int(config.max_audio_seconds * SAMPLE_RATE)
    audio_rows: list[np.ndarray] = []
    text_rows: list[np.ndarray] = []
    read_rows: list[np.ndarray] = []  # text and context
    for item in items:
        audio_rows.append(_audio_row(item, config, limit))
        text = _text_row(item, config, tokenizer)
        text_rows.append(text)
        context = _context(len(text), item, config, tokenizer)
        read_rows.append(np.concatenate([text, context]) if context else text)
    audio_lengths, text_lengths, read_lengths = (
        np.array([len(row) for row in rows], np.int64)
        for rows in (audio_rows, text_rows, read_rows)
    )
    input_ids = _pad(read_rows)
    positions = np.arange(input_ids.shape[1])[None]
    if input_ids.ndim == 2 and tokenizer is not None:
        input_ids[positions >= read_lengths[:, None]] = tokenizer.pad_id
    seconds = [
        0.0
        if len(row) == 0
        else item.speech_seconds
        if np.isfinite(item.speech_seconds)
        else _seconds(row, config)
        for item, row in zip(items, audio_rows, strict=True)
    ]
    words = [
        0 if len(row) == 0 else len(item.text.split()) if item.text else len(row)
        for item, row in zip(items, text_rows, strict=True)
    ]
    return Batch(
        waveform=_pad(audio_rows),
        audio_lengths=audio_lengths,
        input_ids=input_ids,
        text_mask=positions < text_lengths[:, None],
        context_mask=(positions >= text_lengths[:, None]) & (positions < read_lengths[:, None]),
        audio_present=audio_lengths > 0,
        text_present=text_lengths > 0,
        snr_db=np.array([item.snr_db for item in items], np.float32),
        asr_confidence=np.array([item.asr_confidence for item in items], np.float32),
        speech_seconds=np.array(seconds, np.float32),
        word_count=np.array(words, np.float32),
        **_baselines(items),
    )


def _baselines(items: Sequence[ModelItem]) -> dict[str, Any]:
    """`Batch.baseline` and `Batch.heard`."""
    size = max((len(item.baseline.mean) for item in items if item.baseline), default=1)
    means = np.full((len(items), size), np.nan, np.float32)
    heard = np.zeros((len(items), 2), np.float32)
    for row, item in enumerate(items):
        if item.baseline is not None:
            means[row] = item.baseline.mean
            heard[row] = item.baseline.voice_count, item.baseline.room_count
    return {"baseline": means, "heard": heard}


def _audio_row(item: ModelItem, config: ModelConfig, limit: int) -> np.ndarray:
    if config.audio.kind == "features":
        return _feature_row(item.audio_features, config.audio.width)
    if not config.uses_audio or item.samples is None or len(item.samples) < MIN_AUDIO_SAMPLES:
        return np.zeros(0, np.float32)
    return np.asarray(item.samples[-limit:], dtype=np.float32)


def _text_row(item: ModelItem, config: ModelConfig, tokenizer: TextTokenizer | None) -> np.ndarray:
    if config.text.kind == "features":
        return _feature_row(item.text_features, config.text.width)
    if not config.uses_text or tokenizer is None or not item.text or not item.text.strip():
        return np.zeros(0, np.int64)
    return np.asarray(tokenizer.encode(item.text, config.max_text_tokens).ids, dtype=np.int64)


def _context(
    used: int, item: ModelItem, config: ModelConfig, tokenizer: TextTokenizer | None
) -> list[int]:
    """Token ids of the earlier turns that fit behind the `used` tokens of the utterance."""
    context, ids = config.context, list[int]()
    if context is None or tokenizer is None or used == 0:
        return ids
    for turn in item.context[: context.turns]:
        more = tokenizer.encode_turn(turn, context.turn_tokens)
        if used + len(ids) + len(more) > context.max_tokens:
            break
        ids += more
    return ids


def _feature_row(features: FloatArray | None, width: int) -> np.ndarray:
    if features is None:
        return np.zeros((0, width), np.float32)
    return np.atleast_2d(np.asarray(features, dtype=np.float32))


def _seconds(row: np.ndarray, config: ModelConfig) -> float:
    return 0.0 if config.audio.kind == "features" else len(row) / SAMPLE_RATE


def _pad(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of different length -> one array, at least one position long."""
    length = max(1, *(len(row) for row in rows)) if rows else 1
    first = rows[0]
    padded = np.zeros((len(rows), length, *first.shape[1:]), dtype=first.dtype)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded
