# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Turning logits into probabilities that can be believed, and thresholds on them.

Temperature scaling (Guo et al. 2017): logits are divided by one temperature (single-label) or one per
label (multi-label) that minimises the negative log-likelihood on a split held out of training. Confidence
differs with what the network could use, so voice alone, words alone and both have temperatures of
their own; and with what the voice could be compared to, so that a temperature is a geometric mean of those for an
unknown voice, a known room and a known voice, weighted by their shares in the baseline (`model.baseline.shares`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from hri_emo_ros.model.answer import Answer, log_sigmoid, log_softmax
from hri_emo_ros.model.config import Objective


class Calibration(BaseModel):
    """Fitted on one split, stored in the bundle."""

    model_config = ConfigDict(extra="forbid")

    temperature_both: list[float] = Field(min_length=1)
    """[1] or [labels]; > 0."""
    temperature_audio: list[float] = Field(min_length=1)
    """Where only the voice is present."""
    temperature_text: list[float] = Field(min_length=1)
    """Where only words are present."""
    known_both: tuple[float, float] = (1.0, 1.0)
    """What a baseline of the voice alone, and one of its room alone, multiply `temperature_both` with; > 0."""
    known_audio: tuple[float, float] = (1.0, 1.0)
    """As `known_both`, for `temperature_audio`."""
    thresholds: list[float]
    """[labels]; probability at which an emotion counts as present."""
    abstain_confidence: float = Field(default=0.0, ge=0.0, le=1.0)
    """Top probability below which the estimate should not be acted on."""
    speech_threshold: float = Field(default=0.0, ge=0.0, le=1.0)
    """Probability of speech below which a sound is taken for another one; 0 takes all for speech."""

    @model_validator(mode="after")
    def _check(self) -> Calibration:
        for values in (self.temperature_both, self.temperature_audio, self.temperature_text):
            if len(values) not in (1, len(self.thresholds)) or not all(t > 0 for t in values):
                raise ValueError("temperatures must be one or one per label, each > 0")
        if not all(factor > 0 for factor in (*self.known_both, *self.known_audio)):
            raise ValueError("the factors of known_both and known_audio must be > 0")
        return self

    @staticmethod
    def identity(labels: int) -> Calibration:
        """No change to the logits, thresholds of 0.5, no abstention."""
        return Calibration(
            temperature_both=[1.0],
            temperature_audio=[1.0],
            temperature_text=[1.0],
            thresholds=[0.5] * labels,
        )

    def scale(
        self,
        logits: np.ndarray,
        audio_present: np.ndarray,
        text_present: np.ndarray,
        shares: np.ndarray | None = None,
    ) -> np.ndarray:
        """Logits [B, L] divided by the temperature for what is present ([B] bool each).

        Args:
            shares: [B, 2] of the voice and of its room in the baseline; None for an unknown one's.
        """
        both, audio, text = (
            np.broadcast_to(np.asarray(t, logits.dtype), logits.shape)
            for t in (self.temperature_both, self.temperature_audio, self.temperature_text)
        )
        if shares is not None:
            both, audio = (
                t * np.exp(shares @ np.log(known).astype(logits.dtype))[:, None]
                for t, known in ((both, self.known_both), (audio, self.known_audio))
            )
        alone = np.where(text_present[:, None], text, audio)
        return np.asarray(logits / np.where((audio_present & text_present)[:, None], both, alone))

    def apply(self, output: Answer[np.ndarray]) -> Answer[np.ndarray]:
        """`output` with its three logits calibrated, each by what it was computed from."""
        yes = np.ones_like(output.audio_present)
        return replace(
            output,
            logits=self.scale(
                output.logits, output.audio_present, output.text_present, output.shares
            ),
            audio_logits=self.scale(output.audio_logits, yes, ~yes, output.shares),
            text_logits=self.scale(output.text_logits, ~yes, yes),
        )


def probabilities(logits: np.ndarray, objective: Objective) -> np.ndarray:
    """[B, L] in [0, 1]: softmax, or a sigmoid for each label."""
    scale = log_softmax if objective == "single_label" else log_sigmoid
    return np.asarray(np.exp(scale(logits)))
