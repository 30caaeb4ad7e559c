"""Words that recognisers invent, and how they are kept out.

Recognisers are trained to write something: on silence and noise they write what training material
said most often, or one phrase over and over (for Whisper: A. Koenecke et al., "Careless Whisper:
Speech-to-Text Hallucination Harms", FAccT 2024). An emotion read from such words is wrong with
great confidence, so in doubt no words are better.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

from hri_emo_ros.audio.quality import mean_square
from hri_emo_ros.types import SAMPLE_RATE, FloatArray, SignalQuality, Transcript, Word

_SHORTEST = SAMPLE_RATE // 10
"""Samples below which there is no word."""
_FAINTEST = 1e-8
"""Power (-80 dB) below which there is nothing to recognise."""
_LONGEST_PHRASE = 8
"""Words of a phrase that is looked for repeated."""
_DOUBTFUL_CONFIDENCE = 0.6
_DOUBTFUL_NO_SPEECH = 0.3
_DOUBTFUL_SPEECH_FRACTION = 0.3

# What Whisper writes on silence in the languages people met it in; without punctuation, lower case.
_SILENCE_PHRASES = frozenset((
    "you", "bye", "bye bye", "thank you", "thank you very much", "thanks for watching",
    "thank you for watching", "thank you so much for watching", "please subscribe",
    "thanks for listening", "see you next time", "see you in the next video",
    "subtitles by the amaraorg community", "subtitles by", "transcription by castingwords",
    "untertitel der amaraorgcommunity", "untertitel im auftrag des zdf für funk 2017",
    "untertitelung des zdf 2020", "vielen dank", "vielen dank fürs zuschauen",
    "soustitres réalisés par la communauté damaraorg", "merci davoir regardé cette vidéo",
    "subtítulos realizados por la comunidad de amaraorg", "gracias por ver el video",
    "sottotitoli creati dalla comunità amaraorg", "napisy stworzone przez społeczność amaraorg",
    "dziękuję za uwagę", "продолжение следует", "ご視聴ありがとうございました", "感谢观看",
))  # fmt: skip


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


def is_silence_phrase(
    text: str, confidence: float, no_speech: float, quality: SignalQuality | None
) -> bool:
    """Whether `text` is what Whisper writes on silence, and something else speaks against it too.

    Args:
        text: the whole transcript.
        confidence: mean confidence of its words, [0, 1].
        no_speech: the recogniser's own probability that nobody spoke, [0, 1].
        quality: of the utterance, if known.
    """
    if " ".join(_plain(text).split()) not in _SILENCE_PHRASES:
        return False
    return (
        confidence < _DOUBTFUL_CONFIDENCE
        or no_speech > _DOUBTFUL_NO_SPEECH
        or (quality is not None and quality.speech_fraction < _DOUBTFUL_SPEECH_FRACTION)
    )


def make_transcript(
    words: Sequence[Word], separator: str, min_confidence: float, language: str, latency: float
) -> Transcript:
    """Words as a transcript; those below `min_confidence` are left out.

    Args:
        words: in order of time; where `separator` is empty their texts bring their own blanks.
        separator: between words in the text.
        min_confidence: [0, 1].
        language: ISO 639-1 or empty.
        latency: s of computing.

    Returns:
        Text "" and confidence 0 if no word is left.
    """
    kept = [word for word in words if word.confidence >= min_confidence and word.text.strip()]
    if not kept:
        return Transcript("", confidence=0.0, latency=latency)
    return Transcript(
        text=separator.join(word.text for word in kept).strip(),
        words=tuple(Word(w.text.strip(), w.start, w.end, w.confidence) for w in kept),
        confidence=math.fsum(word.confidence for word in kept) / len(kept),
        language=language,
        latency=latency,
    )


def _plain(text: str) -> str:
    """Lower case, without punctuation and outer blanks."""
    letters = (c for c in text.casefold() if not unicodedata.category(c).startswith("P"))
    return "".join(letters).strip()
