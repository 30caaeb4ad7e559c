"""Heads that have not heard a speaker, and the folds of speakers that they leave out; `cross_fit` trains them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor, nn

from hri_emo_ros.data.corpus import Item
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.unimodal import AudioHead

NO_FOLD = -1
"""Of an example without a voice."""


class CrossFittedHeads(nn.Module):
    """As many heads as folds of speakers; the k-th has not heard fold k.

    Args:
        head: for the sizes; its weights are not taken.
        folds: how many.
    """

    def __init__(self, head: AudioHead, folds: int) -> None:
        super().__init__()
        self.labels = head.classifier[-1].out_features
        self.heads = nn.ModuleList(copy.deepcopy(head) for _ in range(folds))
        for part in self.modules():
            if isinstance(part, (nn.Linear, nn.BatchNorm1d, nn.LayerNorm)):
                part.reset_parameters()

    def forward(self, states: Tensor, mask: Tensor, folds: Tensor) -> Tensor:
        """States [B, F, D], mask [B, F] and folds [B] -> logits [B, L], each row by the head that has not
        heard it; zeros for `NO_FOLD`."""
        logits = states.new_zeros(len(folds), self.labels)
        for fold, head in enumerate(self.heads):
            rows = folds == fold
            if bool(rows.any()):
                logits[rows] = head(states[rows], mask[rows]).to(logits.dtype)
        return logits


def speaker_folds(voices: Sequence[Item], folds: int) -> dict[str, int]:
    """Fold by item id: no speaker in two, corpora and classes spread evenly.

    Raises:
        HriEmoError: there are fewer speakers than folds.
    """
    speakers = [item.speaker or item.id for item in voices]
    if len(set(speakers)) < folds:
        raise HriEmoError(
            f"'pretrained.cross_fit.folds' is {folds}, must be at most the number of speakers that "
            f"are trained on: {len(set(speakers))}"
        )
    strata = [f"{item.corpus} {item.class_index}" for item in voices]
    splitter = StratifiedGroupKFold(folds)
    found: dict[str, int] = {}
    for fold, (_, rows) in enumerate(splitter.split(np.zeros(len(voices)), strata, speakers)):
        found.update({voices[row].id: fold for row in rows})
    return found
