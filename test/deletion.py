# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Does the explanation explain? Remove what it points at and see whether the answer changes more than
it does when as much is removed elsewhere (Samek et al. 2017; DeYoung et al. 2020's comprehensiveness)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hri_emo_ros.engine import EmotionEngine, EngineInput
from hri_emo_ros.types import SAMPLE_RATE, FloatArray, Word


@dataclass(frozen=True)
class DeletionResult:
    """Mean fall of the dominant emotion's score (logit less the mean of logits) over utterances."""

    moments_attributed: float
    """When the most attributed share of the moments is muted; NaN without any voice."""
    moments_random: float
    """When as much is muted elsewhere."""
    words_attributed: float
    """When the most attributed share of the words (at least one) is left out; NaN without words."""
    words_random: float
    moments_count: int
    """Utterances with a voice."""
    words_count: int
    """Utterances with at least two words."""


def deletion_check(
    engine: EmotionEngine,
    items: Sequence[EngineInput],
    fraction: float = 0.1,
    seed: int = 0,
    draws: int = 3,
) -> DeletionResult:
    """Compare attributed with random deletion over `items`.

    Args:
        fraction: share of moments and of words to remove, (0, 1).
        draws: random deletions per utterance, averaged.
    """
    rng = np.random.default_rng(seed)
    falls: dict[str, list[float]] = {"ma": [], "mr": [], "wa": [], "wr": []}
    for item in items:
        whole = engine.estimate(item.samples, item.transcript, item.quality, explain=True)
        explanation = whole.explanation
        if explanation is None:
            continue
        emotion = int(np.argmax(whole.probabilities))
        # The quality stays the whole utterance's: the check is about the removed piece itself.
        item = replace(item, quality=whole.quality)
        moments = explanation.moment_attribution[emotion]
        if item.samples is not None and len(moments) > 1:
            variants = []
            for mask in _masks(moments, fraction, draws, rng):
                samples = without_moments(
                    item.samples, mask, explanation.moment_period, len(moments)
                )
                variants.append(replace(item, samples=samples))
            _record(engine, item, variants, emotion, falls["ma"], falls["mr"])
        weights = explanation.word_attribution[emotion]
        if item.transcript is not None and len(weights) > 1:
            variants = []
            for mask in _masks(weights, fraction, draws, rng):
                text = without_words(explanation.words, mask)
                variants.append(
                    replace(item, transcript=replace(item.transcript, text=text, words=()))
                )
            _record(engine, item, variants, emotion, falls["wa"], falls["wr"])
    means = {
        name: float(np.mean(values)) if values else float("nan") for name, values in falls.items()
    }
    return DeletionResult(
        means["ma"], means["mr"], means["wa"], means["wr"], len(falls["ma"]), len(falls["wa"])
    )


def _masks(
    attribution: FloatArray, fraction: float, draws: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """The attributed mask, then `draws` random ones."""
    pairs = [deletion_masks(attribution, fraction, rng) for _ in range(draws)]
    return [pairs[0][0], *(random for _, random in pairs)]


def _record(
    engine: EmotionEngine,
    item: EngineInput,
    variants: list[EngineInput],
    emotion: int,
    attributed: list[float],
    random: list[float],
) -> None:
    logits = engine.logits([item, *variants])
    scores = logits[:, emotion] - logits.mean(axis=1)
    falls = scores[0] - scores[1:]
    attributed.append(float(falls[0]))
    random.append(float(falls[1:].mean()))


def deletion_masks(
    attribution: FloatArray, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The most attributed share of [n] positions, and the same pattern somewhere else.

    The control is the first mask turned round by a random amount, so that both consist of runs of the
    same lengths: holes scattered at random would hurt a voice more than one gap of the same size, and
    the comparison would be about gaps.

    Returns:
        Two boolean masks [n] with the same number of true, at least one.
    """
    count = max(1, round(fraction * len(attribution)))
    most = np.zeros(len(attribution), dtype=bool)
    most[np.argsort(-attribution, kind="stable")[:count]] = True
    turn = int(rng.integers(1, len(attribution))) if len(attribution) > 1 else 0
    return most, np.roll(most, turn)


def without_moments(
    samples: FloatArray, removed: np.ndarray, period: float, total_frames: int
) -> FloatArray:
    """`samples` with the frames of the boolean mask `removed` [frames] muted."""
    owner = np.minimum(
        (np.arange(len(samples)) / (period * SAMPLE_RATE)).astype(int), total_frames - 1
    )
    return np.where(removed[owner], np.float32(0.0), samples).astype(np.float32)


def without_words(words: tuple[Word, ...], removed: np.ndarray) -> str:
    """The text that remains of `words` without those of the boolean mask `removed`."""
    return " ".join(word.text for word, gone in zip(words, removed, strict=True) if not gone)
