# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Words that recognisers invent, and how they are kept out.

Recognisers are trained to write something: on silence and noise they write what training material
said most often, or one phrase over and over (for Whisper: A. Koenecke et al., "Careless Whisper:
Speech-to-Text Hallucination Harms", FAccT 2024). An emotion read from such words is wrong with
great confidence, so in doubt no words are better.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace

from hri_emo_ros.audio.quality import mean_square
from hri_emo_ros.types import (
    SAMPLE_RATE,
    FloatArray,
    SignalQuality,
    Transcript,
    TranscriptStatus,
    Word,
)

_SHORTEST = SAMPLE_RATE // 10
"""Samples below which there is no word."""
_FAINTEST = 1e-8
"""Power (-80 dB) below which there is nothing to recognise."""
_MOST_REPETITION = 2.4
"""Length of a text over that of its compressed form above which it goes round in circles: what Whisper's
authors take (A. Radford et al., 2022). Of 1,400 real English utterances none reached 1.6."""
_SUBTITLE_MARKS = "©♪♫"
"""What nobody says, and recognisers learnt to write for music and sounds."""


def worth_recognising(
    samples: FloatArray, quality: SignalQuality | None, min_speech_fraction: float
) -> bool:
    """Whether there is anything in an utterance for a recogniser.

    Args:
        samples: [n] float32, 16 kHz mono.
        quality: of the utterance, if known.
        min_speech_fraction: share of frames with speech below which there is not, [0, 1].
    """
    # `not ... >=` also turns away what is no number.
    if len(samples) < _SHORTEST or not _FAINTEST <= mean_square(samples) < math.inf:
        return False
    return quality is None or quality.speech_fraction >= min_speech_fraction


def geometric_mean(logs: Sequence[float]) -> float:
    """Of probabilities, [0, 1], from their logarithms; 0 of none."""
    return math.exp(math.fsum(logs) / len(logs)) if logs else 0.0


def make_transcript(
    words: Sequence[Word],
    confidence: float,
    min_confidence: float,
    language: str,
    latency: float,
    *,
    endless: bool = False,
    times_estimated: bool = False,
) -> Transcript:
    """Words as a transcript, refused as a whole where they are likely invented.

    Args:
        words: in order of time; their texts bring their own blanks.
        confidence: geometric mean of the probabilities of the words' tokens, [0, 1].
        min_confidence: below it the transcript is REJECTED, [0, 1] (`asr.min_confidence`).
        language: ISO 639-1 or empty.
        latency: s of computing.
        endless: the recogniser found no end, as it does on noise: REJECTED, however sure it was.
        times_estimated: the words' times were not measured.

    Returns:
        EMPTY, with confidence 0, if there are no words.
    """
    text = "".join(word.text for word in words).strip()
    if not any(c.isalnum() for c in text):
        return Transcript("", confidence=0.0, latency=latency)
    why = ""
    if endless:
        why = "the recogniser wrote on without an end"
    elif len(text.encode()) > _MOST_REPETITION * len(zlib.compress(text.encode())):
        why = "the recogniser wrote the same over and over"
    elif any(mark in text for mark in _SUBTITLE_MARKS):
        why = "the recogniser wrote what stands in subtitles of music"
    elif not confidence >= min_confidence:
        why = f"confidence {confidence:.2f} is below {min_confidence:.2f} (asr.min_confidence)"
    return Transcript(
        text=text,
        words=tuple(replace(w, text=w.text.strip()) for w in words if w.text.strip()),
        confidence=confidence,
        language=language,
        latency=latency,
        word_times_estimated=times_estimated,
        status=TranscriptStatus.REJECTED if why else TranscriptStatus.OK,
        status_text=why,
    )
