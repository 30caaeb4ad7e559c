# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A voice's states relative to how that voice usually sounds.

What an encoder says of an utterance is mostly who speaks, into which microphone and in which room. Less the
mean of what the same voice gave before, and in units of how much one voice's utterances differ, it says how this
utterance differs from the speaker's others (per-speaker normalisation, e.g. Sethu et al. 2007,
doi:10.1109/ICDSP.2007.4288544; here with the mean shrunk to the room's and the population's, `voices.baseline`).
The raw states are not given beside it: from them a network learns which corpus it hears. For the same reason only
the principal components of those differences are read in which utterances of one voice differ most.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hri_emo_ros.model.layers import masked_mean
from hri_emo_ros.voices.baseline import BaselineConfig

_CLAMP = 8.0
"""Largest distance from the baseline, in within-speaker deviations, that the statistics show."""
_LEAST_DEVIATION = 1e-3
"""Of a statistic within speakers, on the scale of the states."""
_LEAST_UTTERANCES = 5
_LEAST_VARIANCE = 1e-5
"""The square root has no gradient at 0, which one frame or digital silence would give."""


def voice_statistics(states: Tensor, mask: Tensor) -> Tensor:
    """Mean and standard deviation over the real frames: [B, F, H], [B, F] -> [B, 2 H]; zeros where there is
    none."""
    mean = masked_mean(states, mask)
    variance = masked_mean((states - mean.unsqueeze(1)).square(), mask)
    deviation = (variance + _LEAST_VARIANCE).sqrt() * mask.any(1, keepdim=True)
    return torch.cat([mean, deviation], dim=1)


def shares(heard: Tensor, config: BaselineConfig) -> Tensor:
    """What the voice and its room make up of a baseline (`voices.baseline.combine`); the rest is the
    population's. Counts [B, 2] -> [B, 2], in [0, 1)."""
    voice, room = heard.unbind(-1)
    own = voice / (voice + config.shrink_voice)
    return torch.stack([own, (1 - own) * room / (room + config.shrink_room)], dim=-1)


class RelativeStates(nn.Module):
    """States and their statistics less a baseline, in within-speaker deviations.

    Args:
        size: H, width of the encoder's states.
        components: C, directions in which the statistics are read.
    """

    population: Tensor
    """[2 H]: mean of the statistics over the training speakers."""
    deviation: Tensor
    """[2 H]: root mean square over training speakers of the deviation of the statistics within each."""

    components: Tensor
    """[C, 2 H]: what the differences, in deviations, are multiplied with."""

    def __init__(self, size: int, components: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("population", torch.zeros(2 * size))
        self.register_buffer("deviation", torch.ones(2 * size))
        self.register_buffer("components", torch.eye(components, 2 * size))

    def fit(self, statistics: Tensor, speakers: Sequence[str], corpora: Sequence[str]) -> None:
        """Measure what is usual and how one voice differs from utterance to utterance.

        Args:
            statistics: [N, 2 H] of clean training utterances.
            speakers, corpora: of each. Every speaker of a corpus counts alike in the population, and so does every
                corpus; deviations and components are those within speakers of at least five utterances.
        """
        rows: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row, key in enumerate(zip(corpora, speakers, strict=True)):
            rows[key].append(row)
        means: dict[str, list[Tensor]] = defaultdict(list)
        within: list[Tensor] = []
        for (corpus, _), own in rows.items():
            mean = statistics[own].mean(0)
            means[corpus].append(mean)
            if len(own) >= _LEAST_UTTERANCES:
                within.append(statistics[own] - mean)
        variance = torch.stack([own.square().mean(0) for own in within]).mean(0)
        self.population.copy_(torch.stack([torch.stack(m).mean(0) for m in means.values()]).mean(0))
        self.deviation.copy_(variance.sqrt() + _LEAST_DEVIATION)
        differences = torch.cat(within) / self.deviation
        covariance = differences.T @ differences / len(differences)
        strength, directions = torch.linalg.eigh(covariance.double())
        count = len(self.components)
        unit = (
            strength[-count:].mean().sqrt()
        )  # one for all: a component counts by how much it varies
        self.components.copy_((directions[:, -count:].flip(1) / unit).T)

    def known(self, baseline: Tensor) -> Tensor:
        """Baselines [B, 2 H] with the population's in rows that are NaN (nothing was heard)."""
        return torch.where(torch.isnan(baseline), self.population, baseline)

    def forward(self, states: Tensor, mask: Tensor, baseline: Tensor) -> Tensor:
        """Raw states [B, F, H] -> relative ones, zeros in masked positions."""
        mean = self.known(baseline)[:, None, : self.size]
        relative = (states - mean) / self.deviation[: self.size]
        return relative * mask.unsqueeze(-1)

    def statistics(self, relative: Tensor, mask: Tensor, baseline: Tensor) -> tuple[Tensor, Tensor]:
        """How mean and deviation of utterances differ from their baselines', and from the population's, as
        components [B, C] each, from the relative states [B, F, H]; zeros where there is no frame."""
        own = voice_statistics(relative, mask)
        unit, spread = self.deviation.split(self.size)
        usual = self.known(baseline)
        deviation = (own[:, self.size :] * unit - usual[:, self.size :]) / spread
        difference = torch.cat([own[:, : self.size], deviation], dim=1) * mask.any(1, keepdim=True)
        offset = (usual - self.population) / self.deviation * mask.any(1, keepdim=True)
        return self.read(difference), self.read(difference + offset)

    def compare(self, statistics: Tensor, baseline: Tensor) -> tuple[Tensor, Tensor]:
        """As `statistics`, from those of the raw states [B, 2 H]."""
        usual, unit = self.known(baseline), self.deviation
        return self.read((statistics - usual) / unit), self.read(
            (statistics - self.population) / unit
        )

    def read(self, difference: Tensor) -> Tensor:
        """Components [B, C] of differences [B, 2 H] in deviations."""
        return difference.clamp(-_CLAMP, _CLAMP) @ self.components.T
