# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What comes out of the pipeline for one utterance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from hri_emo_ros.audio.utterance import UtteranceBuffer
from hri_emo_ros.types import (
    LABELS,
    AbstainReason,
    EmotionEstimate,
    FloatArray,
    SignalQuality,
    Transcript,
)

if TYPE_CHECKING:
    from hri_emo_ros.voices.baseline import (
        Heard,  # with pydantic, which two of three nodes do without
    )

LATENCY_STAGES = ("queue", "asr", "wait", "audio_encoder", "text_encoder", "fusion", "total")
"""Keys of `Outcome.latency`, always all of them; seconds, 0 for a stage that did not run."""


class Estimator(Protocol):
    """What the joiner asks of `hri_emo_ros.engine.EmotionEngine`."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def model_id(self) -> str: ...

    def hear(self, samples: FloatArray, quality: SignalQuality) -> None: ...

    def estimate(
        self,
        samples: FloatArray | None,
        transcript: Transcript | None,
        quality: SignalQuality | None = None,
        explain: bool = False,
        voice: Heard | None = None,
        room: Heard | None = None,
        context: tuple[str, ...] = (),
    ) -> EmotionEstimate: ...


@dataclass(frozen=True)
class Outcome:
    """One estimate, ready to be published."""

    utterance_id: int
    stage: Literal["provisional", "final"]
    stamp_ns: int
    """Sensor time of the utterance's first sample, ns."""
    estimate: EmotionEstimate
    latency: dict[str, float]
    """Seconds by stage, see `LATENCY_STAGES`; the stages may overlap."""
    speech_end_ns: int = 0
    """In final outcomes: sensor time of the end of speech, ns; 0 if unknown."""
    error: str = ""
    """What went wrong, where the estimate abstains with `AbstainReason.ERROR`."""


def normalised_entropy(p: npt.NDArray[np.floating], multi_label: bool) -> float:
    """[0, 1]; for multi-label the mean of the labels' binary entropies."""
    p = np.clip(p.astype(np.float64), 1e-12, 1.0)
    if multi_label:
        q = np.clip(1.0 - p, 1e-12, 1.0)
        return float(np.clip(-(p * np.log2(p) + q * np.log2(q)).mean(), 0.0, 1.0))
    return float(np.clip(-(p * np.log(p)).sum() / np.log(len(p)), 0.0, 1.0))


def abstained_estimate(
    engine: Estimator | None,
    reason: AbstainReason,
    audio: UtteranceBuffer,
    transcript: Transcript | None,
) -> EmotionEstimate:
    """An estimate that claims nothing: uniform probabilities, no modality ahead of the other."""
    labels = LABELS if engine is None else tuple(engine.labels)
    half = np.full(len(labels), 0.5, np.float32)
    return EmotionEstimate(
        labels=labels,
        probabilities=np.full(len(labels), 1.0 / len(labels), np.float32),
        above_threshold=np.zeros(len(labels), np.bool_),
        uncertainty=1.0,
        audio_weight=0.5,
        text_weight=0.5,
        audio_weight_per_emotion=half,
        text_weight_per_emotion=half.copy(),
        duration=audio.duration,
        model_id="" if engine is None else engine.model_id,
        beginning_lost=audio.beginning_lost,
        abstain_reason=reason,
        quality=audio.quality,
        transcript=transcript,
    )
