# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Do the exported graphs say what the network in torch says?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hri_emo_ros.data.clips import read_clip
from hri_emo_ros.data.manifest import Row
from hri_emo_ros.engine import EmotionEngine, EngineInput
from hri_emo_ros.types import SAMPLE_RATE, Transcript
from hri_emo_ros.voices.baseline import Heard

TOLERANCE = 1e-3
"""Of a probability, between float32 graphs and torch."""


@dataclass(frozen=True)
class Parity:
    """How two runtimes differ over the same utterances."""

    utterances: int
    probability: float
    """Largest difference of a probability."""
    weight: float
    """Largest difference of the voice's weight."""
    abstentions: int
    """Utterances on which one abstains for another reason than the other, or one alone does."""
    dominant: int
    """Utterances of which they find another emotion likeliest."""


def compare_runtimes(bundle: str | Path, rows: Sequence[Row], threads: int = 0) -> Parity:
    """Estimate each clip with its voice alone, its words alone and both, as an unknown and as a known voice.

    Raises:
        HriEmoError: a clip or the bundle cannot be read.
    """
    onnx, torch = (
        EmotionEngine(bundle, runtime=runtime, threads=threads) for runtime in ("onnx", "torch")
    )
    probability, weight, abstentions, dominant, count = 0.0, 0.0, 0, 0, 0
    before: tuple[str, ...] = ()
    for item in _inputs(rows, len(onnx.population)):
        known = {"voice": item.voice, "context": before}
        a, b = (
            engine.estimate(item.samples, item.transcript, item.quality, **known)  # type: ignore[arg-type]
            for engine in (onnx, torch)
        )
        probability = max(probability, float(np.abs(a.probabilities - b.probabilities).max()))
        weight = max(weight, abs(a.audio_weight - b.audio_weight))
        abstentions += a.abstain_reason is not b.abstain_reason
        dominant += a.dominant != b.dominant
        count += 1
        if item.transcript is not None:
            before = (item.transcript.text, *before[:3])
    return Parity(count, probability, weight, abstentions, dominant)


def _inputs(rows: Sequence[Row], size: int) -> list[EngineInput]:
    rng = np.random.default_rng(0)
    inputs = []
    for row in rows:
        words = Transcript(row.text) if row.text else None
        if row.path is None:
            inputs.append(EngineInput(None, words))
            continue
        samples = read_clip(row.path, SAMPLE_RATE, row.start, row.end)
        heard = Heard((2.0 * rng.normal(size=size)).astype(np.float32), 2.0) if size else None
        inputs += [
            EngineInput(samples, words), EngineInput(samples, words, voice=heard),
            EngineInput(samples, None, voice=heard), EngineInput(None, words),
        ]  # fmt: skip
    return inputs
