# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Attention and pooling that respect masks exactly.

Masks are boolean, [batch, length], true where a position is real. A row without any real position
is legal everywhere (an absent modality) and yields zeros, never NaN; and what stands in masked
positions never reaches a real one, so an item's result does not depend on the batch it is in.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of the real positions: [B, N, D], [B, N] -> [B, D]; zeros where there are none."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension among true positions; zeros where none is true."""
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=-1) * mask.to(scores.dtype)


class AttentiveStatistics(nn.Module):
    """Weighted mean and deviation over the real positions, learned weights per head of the channels.

    Okabe et al. 2018 (arXiv:1803.10963).
    """

    def __init__(self, width: int, heads: int = 4, bottleneck: int = 64) -> None:
        super().__init__()
        # Odd widths (precomputed features projected to them) leave one head.
        self.heads = heads if width % heads == 0 else 1
        self.score = nn.Sequential(
            nn.Linear(width, bottleneck), nn.Tanh(), nn.Linear(bottleneck, self.heads)
        )

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """[B, N, D], [B, N] -> [B, 2 D]; zeros where there is nothing."""
        weights = masked_softmax(self.score(states).transpose(1, 2), mask.unsqueeze(1))
        split = states.unflatten(-1, (self.heads, -1))
        mean = torch.einsum("bhn,bnhd->bhd", weights, split)
        variance = torch.einsum("bhn,bnhd->bhd", weights, (split - mean.unsqueeze(1)).square())
        # 1e-5: the square root has no gradient at 0, which one frame or digital silence would give.
        pooled = torch.cat([mean.flatten(1), (variance + 1e-5).sqrt().flatten(1)], dim=1)
        return pooled * mask.any(1, keepdim=True)


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al. 2017) that can return its weights."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = dropout

    def forward(
        self,
        queries: Tensor,
        memory: Tensor,
        mask: Tensor,
        bias: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from `queries` [B, Q, D] to `memory` [B, N, D].

        Args:
            mask: [B, N], true where memory is real.
            bias: [B, N], added to every score.
            need_weights: also return the weights [B, Q, N], the mean over heads.
        """
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, queries), (self.key, memory), (self.value, memory))
        )
        allowed = mask[:, None, None, :]
        weights = None
        if need_weights:
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            if bias is not None:
                scores = scores + bias[:, None, None, :]
            weights = masked_softmax(scores, allowed)
            mixed = nn.functional.dropout(weights, self.dropout, self.training) @ v
            weights = weights.mean(1)
        else:
            # A finite minimum, not -inf: a row without real positions must not become NaN.
            additive = torch.zeros_like(mask, dtype=q.dtype) if bias is None else bias
            additive = additive.masked_fill(~mask, torch.finfo(q.dtype).min)[:, None, None, :]
            mixed = nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=additive, dropout_p=self.dropout if self.training else 0.0
            )
        present = mask.any(-1)[:, None, None].to(queries.dtype)
        return self.out(mixed.transpose(1, 2).flatten(-2)) * present, weights


class AttentionBlock(nn.Module):
    """Attention and a feed-forward layer, each followed by residual and LayerNorm (post-norm)."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(width, heads, dropout)
        self.norm_attention = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, feedforward),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(feedforward, width),
        )
        self.norm_feedforward = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        states: Tensor,
        memory: Tensor,
        mask: Tensor,
        bias: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As `MultiHeadAttention.forward`; with ``memory is states`` this is self-attention."""
        attended, weights = self.attention(states, memory, mask, bias, need_weights)
        states = self.norm_attention(states + self.dropout(attended))
        states = self.norm_feedforward(states + self.dropout(self.feedforward(states)))
        return states, weights


def sinusoidal_positions(length: int, width: int, like: Tensor) -> Tensor:
    """[length, width] position code of Vaswani et al. (2017)."""
    position = torch.arange(length, device=like.device, dtype=torch.float32).unsqueeze(1)
    index = torch.arange(0, width, 2, device=like.device, dtype=torch.float32)
    angle = position * torch.exp(-math.log(10_000.0) * index / width)
    code = torch.zeros(length, width, device=like.device)
    code[:, 0::2] = torch.sin(angle)
    code[:, 1::2] = torch.cos(angle)[:, : width // 2]
    return code.to(like.dtype)
