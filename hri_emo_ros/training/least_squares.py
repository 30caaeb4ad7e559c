"""Linear least squares from running sums, and the choice of inputs that explain an output best."""

from __future__ import annotations

import torch
from torch import Tensor

_RIDGE = 1e-4
"""Of the inputs' mean variance: directions that hardly occur stay small."""
_AT_ONCE = 0.06
"""Share of the inputs dropped before the rest is solved anew; one by one, a layer takes a thousand inversions."""


class Moments:
    """Sums over frames of inputs [F, n] and outputs [F, m], for any number of frames."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: list[Tensor] = []

    def add(self, inputs: Tensor, outputs: Tensor) -> None:
        """Take in some frames."""
        x, y = inputs, outputs
        sums = [part.double() for part in (x.sum(0), y.sum(0), x.T @ x, x.T @ y)]
        before = self._sums or [torch.zeros_like(s) for s in sums]
        self._sums = [a + b for a, b in zip(before, sums, strict=True)]
        self._count += len(x)

    def centred(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Means [n], [m], covariance [n, n] with a small ridge, and cross-covariance [n, m]."""
        x, y, xx, xy = (s / self._count for s in self._sums)
        covariance = xx - torch.outer(x, x)
        ridge = _RIDGE * covariance.diagonal().mean().clamp_min(1e-12)
        return x, y, covariance + ridge * torch.eye(len(x)), xy - torch.outer(x, y)

    def solve(self) -> tuple[Tensor, Tensor]:
        """Weights [n, m] and bias [m] of the best linear map."""
        x, y, covariance, cross = self.centred()
        weights = torch.linalg.solve(covariance, cross)
        return weights.float(), (y - x @ weights).float()


def eliminate(moments: Moments, keep: int, group: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Drop inputs, by groups of neighbours, until `keep` groups are left.

    What goes next is what raises the squared error least when all others are solved anew: w' C w for
    the group's weights w [group, m] and the inverse C of its block of the inverse covariance.

    Returns:
        Numbers of the kept groups [keep] in order, weights [keep * group, m] and bias [m].
    """
    x, y, covariance, cross = moments.centred()
    kept = torch.arange(len(x)).unflatten(0, (-1, group))
    while True:
        columns = kept.flatten()
        inverse = torch.linalg.inv(covariance[columns][:, columns])
        weights = inverse @ cross[columns]
        if len(kept) == keep:
            bias = y - x[columns] @ weights
            return kept[:, 0] // group, weights.float(), bias.float()
        place = torch.arange(len(columns)).unflatten(0, (-1, group))
        blocks = torch.linalg.inv(inverse[place[:, :, None], place[:, None]])
        by_group = weights[place]  # [groups, group, m]
        cost = torch.einsum("gim,gij,gjm->g", by_group, blocks, by_group)
        count = min(len(kept) - keep, max(1, int(_AT_ONCE * len(kept))))
        kept = kept[cost.argsort()[count:].sort().values]
