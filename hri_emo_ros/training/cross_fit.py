"""The voice's answers as strangers will get them, for the fusion to learn from.

A head answers better and more surely for the speakers it was trained on than for anybody else. A gate that
is taught with such answers trusts the voice too much, in noise most of all. So while the fusion learns, each
voice is judged by a head that has not heard its speaker (stacking on out-of-fold answers, Wolpert 1992,
doi:10.1016/S0893-6080(05)80023-1); what is shipped is the head of all speakers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor, nn

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.unimodal import AudioHead
from hri_emo_ros.training.config import OptimSection
from hri_emo_ros.training.corpus import Item
from hri_emo_ros.training.optim import make_optimizer, schedule

if TYPE_CHECKING:
    from hri_emo_ros.training.trainer import Trainer

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


def cross_fit(
    trainer: Trainer, heads: CrossFittedHeads, bar: Callable[[str, int], Callable[[], None]]
) -> None:
    """Train the heads in place, on the pairs, noise and encoder of the fusion stage."""
    section = trainer.config.pretrained.cross_fit
    assert section is not None
    module = trainer.module
    heads.requires_grad_(True).train()
    optim = OptimSection(
        epochs=section.epochs, lr=section.lr, weight_decay=section.weight_decay,
        schedule="one_cycle", warmup=0.2, clip_norm=2.0,
    )  # fmt: skip
    optimizer = make_optimizer(heads, set(), optim)
    steps = max(1, round(optim.epochs * trainer.sampler.batches))
    advance = bar("heads that have not heard the speaker", steps)
    batches = trainer.sampler.epoch(0)
    for step in range(steps):
        epoch, within = divmod(step, trainer.sampler.batches)
        if within == 0:
            batches = trainer.sampler.epoch(epoch)
        batch = trainer.maker.train(batches[within], epoch, step).to(trainer.accelerator.device)
        with torch.no_grad():
            states, mask = module.encode_audio(batch)
        schedule(optimizer, step, steps, optim)
        losses = []
        for fold, head in enumerate(heads.heads):
            rows = (batch.folds != fold) & mask.any(1)
            if int(rows.sum()) < 2:  # BatchNorm needs two
                continue
            logits = head(states[rows], mask[rows])
            losses.append(
                nn.functional.cross_entropy(
                    logits, batch.voice_targets[rows],
                    label_smoothing=trainer.config.loss.label_smoothing,
                )
            )  # fmt: skip
        if losses:
            torch.stack(losses).sum().backward()
            for head in heads.heads:  # each by itself: what one learns is no business of another
                nn.utils.clip_grad_norm_(head.parameters(), optim.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        advance()
    heads.requires_grad_(False).eval()
