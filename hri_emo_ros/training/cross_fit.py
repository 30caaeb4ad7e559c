"""The voice's answers as strangers will get them, for the fusion to learn from.

A head answers better and more surely for the speakers it was trained on than for anybody else. A gate that
is taught with such answers trusts the voice too much, in noise most of all. So while the fusion learns, each
voice is judged by a head that has not heard its speaker (stacking on out-of-fold answers, Wolpert 1992,
doi:10.1016/S0893-6080(05)80023-1); what is shipped is the head of all speakers.
"""

from __future__ import annotations

import torch
from torch import nn

from hri_emo_ros.training.batches import BatchMaker
from hri_emo_ros.training.config import OptimSection, TrainConfig
from hri_emo_ros.training.data import Sampler
from hri_emo_ros.training.module import TrainingModule
from hri_emo_ros.training.optim import make_optimizer, schedule
from hri_emo_ros.training.setup import Progress


def cross_fit(
    module: TrainingModule,
    sampler: Sampler,
    maker: BatchMaker,
    config: TrainConfig,
    progress: Progress,
) -> None:
    """Train the module's cross-fitted heads in place, on the pairs, noise and encoder of the fusion stage."""
    section, heads = config.pretrained.cross_fit, module.cross_fitted
    assert section is not None
    assert heads is not None
    device = next(heads.parameters()).device
    heads.requires_grad_(True).train()
    optim = OptimSection(
        epochs=section.epochs, lr=section.lr, weight_decay=section.weight_decay,
        schedule="one_cycle", warmup=0.2, clip_norm=2.0,
    )  # fmt: skip
    optimizer = make_optimizer(heads, set(), optim)
    steps = max(1, round(optim.epochs * sampler.batches))
    advance = progress("heads that have not heard the speaker", steps)
    batches = sampler.epoch(0)
    for step in range(steps):
        epoch, within = divmod(step, sampler.batches)
        if within == 0:
            batches = sampler.epoch(epoch)
        batch = maker.train(batches[within], epoch, step).to(device)
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
                    label_smoothing=config.loss.label_smoothing,
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
