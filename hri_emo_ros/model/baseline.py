"""A voice's states relative to how that voice usually sounds.

What an encoder says of an utterance is mostly who speaks, into which microphone and in which room. Less the
mean of what the same voice gave before, and in units of how much one voice's utterances differ, it says how this
utterance differs from the speaker's others (per-speaker normalisation, e.g. Sethu et al. 2007,
doi:10.1109/ICDSP.2007.4288544; here with the mean shrunk to the room's and the population's, `voices.baseline`).
The raw states are not given beside it: from them a network learns which corpus it hears.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hri_emo_ros.model.layers import masked_mean
from hri_emo_ros.voices.baseline import BaselineConfig

CLAMP = 6.0
"""Largest distance from the baseline, in within-speaker deviations, that anything behind it sees."""
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
    """

    population: Tensor
    """[2 H]: mean of the statistics over the training speakers."""
    deviation: Tensor
    """[2 H]: root mean square over training speakers of the deviation of the statistics within each."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("population", torch.zeros(2 * size))
        self.register_buffer("deviation", torch.ones(2 * size))

    def set(self, population: Tensor, deviation: Tensor) -> None:
        """Take what training has measured, both [2 H]; the deviation must be positive."""
        self.population.copy_(population)
        self.deviation.copy_(deviation)

    def known(self, baseline: Tensor) -> Tensor:
        """Baselines [B, 2 H] with the population's in rows that are NaN (nothing was heard)."""
        return torch.where(torch.isnan(baseline), self.population, baseline)

    def forward(self, states: Tensor, mask: Tensor, baseline: Tensor) -> Tensor:
        """Raw states [B, F, H] -> relative ones, zeros in masked positions."""
        mean = self.known(baseline)[:, None, : self.size]
        relative = (states - mean) / self.deviation[: self.size]
        return relative * mask.unsqueeze(-1)

    def statistics(self, relative: Tensor, mask: Tensor, baseline: Tensor) -> Tensor:
        """How mean and deviation of an utterance differ from the baseline's, [B, 2 H] within ±`CLAMP`, from the
        relative states [B, F, H]; zeros where there is no frame."""
        own = voice_statistics(relative, mask)
        unit, spread = self.deviation.split(self.size)
        usual = self.known(baseline)[:, self.size :]
        deviation = (own[:, self.size :] * unit - usual) / spread
        present = mask.any(1, keepdim=True)
        return torch.cat([own[:, : self.size], deviation], dim=1).clamp(-CLAMP, CLAMP) * present
