"""Words that recognisers invent, and how they are kept out.

Recognisers are trained to write something: on silence and noise they write what training material
said most often, or one phrase over and over (for Whisper: A. Koenecke et al., "Careless Whisper:
Speech-to-Text Hallucination Harms", FAccT 2024). An emotion read from such words is wrong with
great confidence, so in doubt no words are better.
"""

from __future__ import annotations

import unicodedata
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
_LONGEST_PHRASE = 8
"""Words of a phrase that is looked for repeated."""


def worth_recognising(
    samples: FloatArray, quality: SignalQuality | None, min_speech_fraction: float
) -> bool:
    """Whether there is anything in an utterance for a recogniser.

    Args:
        samples: [n] float32, 16 kHz mono.
        quality: of the utterance, if known.
        min_speech_fraction: share of frames with speech below which there is not, [0, 1].
    """
    if len(samples) < _SHORTEST or mean_square(samples) < _FAINTEST:
        return False
    return quality is None or quality.speech_fraction >= min_speech_fraction


def collapse_repetitions(words: Sequence[Word]) -> list[Word]:
    """Keep the first of a phrase that is said over and over.

    People do say "no no no": single words count from five times on, pairs from four, longer
    phrases from three.
    """
    keys = [_plain(word.text) for word in words]
    kept: list[Word] = []
    at = 0
    while at < len(words):
        for size in range(1, _LONGEST_PHRASE + 1):
            phrase = keys[at : at + size]
            times = 1
            while keys[at + times * size : at + (times + 1) * size] == phrase:
                times += 1
            if times >= max(3, 6 - size):
                kept += words[at : at + size]
                at += times * size
                break
        else:
            kept.append(words[at])
            at += 1
    return kept


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
        confidence: geometric mean of the tokens' probabilities, [0, 1].
        min_confidence: below it the transcript is REJECTED, [0, 1] (`asr.min_confidence`).
        language: ISO 639-1 or empty.
        latency: s of computing.
        endless: the recogniser found no end, as it does on noise: REJECTED, however sure it was.
        times_estimated: the words' times were not measured.

    Returns:
        EMPTY, with confidence 0, if there are no words.
    """
    text = "".join(word.text for word in words).strip()
    if not text:
        return Transcript("", confidence=0.0, latency=latency)
    why = ""
    if endless:
        why = "the recogniser wrote on without an end"
    elif confidence < min_confidence:
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


def _plain(text: str) -> str:
    """Lower case, without punctuation and outer blanks."""
    letters = (c for c in text.casefold() if not unicodedata.category(c).startswith("P"))
    return "".join(letters).strip()
