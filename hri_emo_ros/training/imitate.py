"""Teach a thinned voice encoder to hear through noise what the whole network hears without it.

The student gets a clip as rooms, lines and noise leave it and learns the states that the whole network
gives for the clean clip, by their mean squared error (FitNets, Romero et al. 2015, arXiv:1412.6550). No
label is used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hri_emo_ros.data.corpus import Item
from hri_emo_ros.model.compact_audio import CompactAudioEncoder
from hri_emo_ros.training.config import ImitateSection
from hri_emo_ros.training.mel_augment import MelAugment
from hri_emo_ros.training.mel_store import HalfArray, MelStore, collate_power
from hri_emo_ros.training.optim import imitation_optimizer, imitation_rate
from hri_emo_ros.training.prune_audio_encoder import whole_states
from hri_emo_ros.training.setup import Progress

_CLIP_NORM = 1.0


def imitate(
    encoder: CompactAudioEncoder,
    whole: CompactAudioEncoder,
    voices: Sequence[Item],
    store: MelStore,
    augment: MelAugment,
    section: ImitateSection,
    seed: int,
    progress: Progress,
) -> float:
    """Train every weight of `encoder`, in place, on its own device.

    Args:
        encoder: the student.
        whole: the teacher, as deep as the student.
        voices: training clips, all in `store`.
        augment: what is done to the student's input; lengths and pitch stay.
        section: of the configuration.
        seed: of order and augmentation.
        progress: starts a bar: (what, how many) -> function to call after each.

    Returns:
        Mean squared error over the last epoch, where the teacher's states have variance 1.
    """
    bar = progress("the whole network's states", len(voices))
    active = [store.full(item)[slice(*store.span(item))] for item in voices]
    targets = []
    for clip in active:
        targets.append(_target(whole, clip))
        bar()
    deviation, mean = torch.std_mean(torch.cat(targets).float(), dim=0)

    device = next(encoder.parameters()).device
    frozen = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    encoder.requires_grad_(True).train()
    optimizer = imitation_optimizer(encoder.parameters(), section.lr)
    rng = np.random.default_rng(seed)
    augment.seed(seed)
    batches = max(1, len(voices) // section.batch_size)
    steps = max(1, round(section.epochs * batches))
    bar = progress("imitating the whole network", steps)
    errors: list[float] = []
    order = rng.permutation(len(voices))
    for step in range(steps):
        if step % batches == 0:
            order = rng.permutation(len(voices))
        rows = order[step % batches * section.batch_size :][: section.batch_size]
        # From the first frame on: states know their place in the utterance.
        clips = [active[row][: section.frames] for row in rows]
        wanted = [
            (targets[row][: -(-len(clip) // store.encoder.stride)].float() - mean) / deviation
            for row, clip in zip(rows, clips, strict=True)
        ]
        power, lengths = collate_power(clips)
        power = augment.corrupt(power, lengths)
        valid = torch.arange(power.shape[1])[None] < lengths[:, None]
        # The mask of the teacher's frames: what noise does to the active ones must not shift them.
        output = encoder.encode(whole.normalise(power, valid)[0].to(device), valid.to(device))
        target = nn.utils.rnn.pad_sequence(wanted, batch_first=True).to(device)
        assert output.frame_mask is not None
        error = (output.last_hidden_state - target)[output.frame_mask].square().mean()
        for group in optimizer.param_groups:
            group["lr"] = section.lr * imitation_rate(step, steps)
        optimizer.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), _CLIP_NORM)
        optimizer.step()
        errors.append(float(error.detach()))
        bar()
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return float(np.mean(errors[-batches:]))


def _target(whole: CompactAudioEncoder, clip: HalfArray) -> Tensor:
    """[F, d] 16-bit floats: the whole network's last states of a clean clip, normalised per frame."""
    power, lengths = collate_power([clip])
    log_mel, _ = whole.normalise(power, torch.ones(1, int(lengths[0]), dtype=torch.bool))
    states = whole_states(whole, log_mel[0])[-1]
    return nn.functional.layer_norm(states, states.shape[1:]).half()
