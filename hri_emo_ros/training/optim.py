# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Optimiser, schedule and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hri_emo_ros.training.recipe import OptimSection

_GATE = "model.fusion.gate."


def make_optimizer(
    module: nn.Module, pretrained: set[str], config: OptimSection
) -> torch.optim.Optimizer:
    """AdamW: no weight decay on biases and norms, rates of their own for pretrained encoders and the gate.

    Args:
        module: what is trained; frozen parameters are left out.
        pretrained: prefixes of the names of pretrained parameters.
        config: see `OptimSection`.
    """
    rates = {_GATE: config.gate_lr or config.lr}
    rates |= dict.fromkeys(pretrained, config.encoder_lr or config.lr)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            lr = next((r for part, r in rates.items() if name.startswith(part)), config.lr)
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((lr, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": lr, "initial_lr": lr, "weight_decay": decay}
            for (lr, decay), parameters in groups.items()
        ],
        fused=True,
    )


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """What the learning rate is multiplied with at `step` of `total`: linearly up for the share `warmup`, then
    down to 0 along a cosine. A function of the step alone, so resuming needs no scheduler state."""
    warm = warmup * total
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1.0, total - warm)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


def schedule(optimizer: torch.optim.Optimizer, step: int, total: int, warmup: float) -> None:
    """Set every rate for `step`."""
    factor = learning_rate_factor(step, total, warmup)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


class Average:
    """Exponential moving average of the parameters that learn.

    Warm-up: the decay starts at (1 + step) / (10 + step), as in TensorFlow's, so early averages are
    not held back by the random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.values = {name: value.detach().clone() for name, value in _learning(module)}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the module's values after `step` steps."""
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        current = [value.detach() for _, value in _learning(self.module)]
        torch._foreach_lerp_(list(self.values.values()), current, weight)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the module's values with the average's; a second call exchanges them back."""
        for name, value in _learning(self.module):
            other = self.values[name].clone()
            self.values[name].copy_(value)
            value.copy_(other)


def _learning(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in module.named_parameters() if value.requires_grad)
