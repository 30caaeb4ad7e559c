# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Turning logits into probabilities that can be believed, and thresholds on them.

Temperature scaling (Guo et al. 2017): logits are divided by one temperature (single-label) or one per
label (multi-label) that minimises the negative log-likelihood on a split held out of training. Confidence
differs with what the network could use, so voice alone, words alone and both have temperatures of
their own; and with what the voice could be compared to, so that a temperature is a geometric mean of those for a
stranger, a known room and a known voice, weighted by their shares in the baseline (`model.baseline.shares`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from hri_emo_ros.model.config import Objective
from hri_emo_ros.model.output import ModelOutput

_LEAST_ITEMS = 20
"""Fewer utterances of one kind do not determine a temperature; the joint one is used instead."""


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
        logits: Tensor,
        audio_present: Tensor,
        text_present: Tensor,
        shares: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, L] divided by the temperature for what is present ([B] bool each).

        Args:
            shares: [B, 2] of the voice and of its room in the baseline; None for a stranger's.
        """
        both, audio, text = (
            logits.new_tensor(t).expand(logits.shape[-1])
            for t in (self.temperature_both, self.temperature_audio, self.temperature_text)
        )
        if shares is not None:
            both, audio = (
                t * (shares.to(logits.dtype) @ logits.new_tensor(known).log()).exp()[:, None]
                for t, known in ((both, self.known_both), (audio, self.known_audio))
            )
        temperature = torch.where(
            (audio_present & text_present)[:, None],
            both,
            torch.where(text_present[:, None], text, audio),
        )
        return logits / temperature

    def apply(self, output: ModelOutput) -> ModelOutput:
        """`output` with its three logits calibrated, each by what it was computed from."""
        yes = torch.ones_like(output.audio_present)
        return replace(
            output,
            logits=self.scale(
                output.logits, output.audio_present, output.text_present, output.shares
            ),
            audio_logits=self.scale(output.audio_logits, yes, ~yes, output.shares),
            text_logits=self.scale(output.text_logits, ~yes, yes),
        )


def probabilities(logits: Tensor, objective: Objective) -> Tensor:
    """[B, L] in [0, 1]: softmax, or a sigmoid for each label."""
    if objective == "single_label":
        return torch.softmax(logits, dim=-1)
    return torch.sigmoid(logits)


def fit_calibration(
    logits: Tensor,
    targets: Tensor,
    audio_present: Tensor,
    text_present: Tensor,
    objective: Objective,
    abstain_share: float = 0.1,
    shares: Tensor | None = None,
) -> Calibration:
    """Fit temperatures, thresholds and the abstention level on one split.

    Args:
        logits: [N, L] of utterances that training has not seen.
        targets: [N] class indices, or [N, L] in [0, 1] (>= 0.5 counts as present for thresholds).
        audio_present, text_present: [N] bool. Give the utterances in every condition of use (voice
            alone, words alone, both): a condition with fewer than 20 takes the joint temperature.
        abstain_share: the abstention level is the quantile of the top probability at this share.
        shares: [N, 2] as for `Calibration.scale`, spread over what is met in use; None fits none of the
            factors for known voices and rooms.
    """
    logits = logits.detach().double().cpu()
    labels = logits.shape[-1]
    soft = (
        targets.double().cpu()
        if targets.ndim == 2
        else torch.nn.functional.one_hot(targets.cpu(), labels).double()
    )
    audio, text = audio_present.cpu(), text_present.cpu()
    if shares is None:
        shares = torch.zeros(len(logits), 2)
    shares = shares.detach().double().cpu()
    joint = _temperature(logits, soft, shares, objective)
    fitted = {}
    for name, rows in (("both", audio & text), ("audio", audio & ~text), ("text", text & ~audio)):
        enough = int(rows.sum()) >= _LEAST_ITEMS
        fitted[name] = (
            _temperature(logits[rows], soft[rows], shares[rows], objective) if enough else joint
        )
    result = Calibration(
        temperature_both=fitted["both"][0],
        temperature_audio=fitted["audio"][0],
        temperature_text=fitted["text"][0],
        known_both=fitted["both"][1],
        known_audio=fitted["audio"][1],
        thresholds=[0.5] * labels,
    )
    p = probabilities(result.scale(logits, audio, text, shares), objective).numpy()
    return result.model_copy(
        update={
            "thresholds": fit_thresholds(p, soft.numpy() >= 0.5),
            "abstain_confidence": float(np.quantile(p.max(1), abstain_share)),
        }
    )


def fit_thresholds(p: np.ndarray, present: np.ndarray) -> list[float]:
    """For each label the probability threshold of greatest F1 (the midpoint between neighbours).

    Args:
        p: [N, L] calibrated probabilities.
        present: [N, L] bool. A label that never occurs keeps 0.5.
    """
    thresholds = []
    for column, truth in zip(p.T, present.T, strict=True):
        if not truth.any():
            thresholds.append(0.5)
            continue
        order = np.argsort(-column, kind="stable")
        ranked = column[order]
        hits = np.cumsum(truth[order])
        f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + truth.sum())
        # A threshold cannot separate equal probabilities: only ends of ties are candidates.
        f1[:-1][ranked[:-1] == ranked[1:]] = -1.0
        best = int(np.argmax(f1))
        below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
        thresholds.append(float((ranked[best] + below) / 2))
    return thresholds


def _temperature(
    logits: Tensor, soft: Tensor, shares: Tensor, objective: Objective
) -> tuple[list[float], tuple[float, float]]:
    """The temperature(s) and the two factors on them of least negative log-likelihood, by L-BFGS on their
    logarithm."""
    count = logits.shape[-1] if objective == "multi_label" else 1
    log_t = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    log_known = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log_t, log_known], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        scaled = logits / (log_t + (shares @ log_known)[:, None]).exp()
        if objective == "multi_label":
            loss = torch.nn.functional.binary_cross_entropy_with_logits(scaled, soft)
        else:
            loss = torch.nn.functional.cross_entropy(scaled, soft)
        # A perfectly separable split would send the temperature to 0.
        loss = loss + 1e-3 * (log_t.square().mean() + log_known.square().mean())
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    temperatures, known = (x.detach().exp().clamp(0.05, 20.0) for x in (log_t, log_known))
    return temperatures.tolist(), (float(known[0]), float(known[1]))
