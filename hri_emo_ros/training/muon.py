"""Muon for convolutions and linear maps: momentum whose update is made (nearly) orthogonal.

After K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), with the
update's size matched to Adam's (J. Liu et al. 2025, arXiv:2502.16982), so that learning rate and
weight decay mean what they mean for AdamW. torch.optim.Muon takes matrices only; here a kernel
[out, in, ...] is treated as the matrix [out, in * ...].
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)  # Newton-Schulz coefficients with the steepest slope at zero
_STEPS = 5
_ADAM_RMS = 0.2  # typical root mean square of Adam's update, per unit of learning rate


def orthogonalised(matrix: Tensor) -> Tensor:
    """The nearest orthogonal matrix, roughly: every singular value is moved to 0.7-1.2."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    a, b, c = _QUINTIC
    for _ in range(_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay; parameters need two dimensions or more."""

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 4e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.05,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(gradient)
                state["momentum"].lerp_(gradient, 1 - group["momentum"])
                update = orthogonalised(
                    gradient.lerp(state["momentum"], group["momentum"]).flatten(1)
                )
                size = _ADAM_RMS * max(update.shape) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"] * size)
