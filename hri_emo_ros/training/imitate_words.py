"""Teach a pruned text encoder what the whole network makes of a sentence.

The student reads a text as recognisers and typists leave it; the mean of its states, through a linear map
that is thrown away afterwards, learns the mean of the whole network's states of the clean text, by their
mean squared error (as DistilBERT and TinyBERT learn before any task: Jiao et al. 2020, arXiv:1909.10351).
No label is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.layers import masked_mean
from hri_emo_ros.model.network import EmotionModel
from hri_emo_ros.model.tokenizer import load_tokenizer
from hri_emo_ros.training.batches import BatchMaker
from hri_emo_ros.training.config import ImitateWordsSection
from hri_emo_ros.training.data import Sampler
from hri_emo_ros.training.optim import imitation_optimizer, imitation_rate
from hri_emo_ros.training.setup import Progress

_BATCH = 64
_CLIP_NORM = 1.0
_EPOCH = 1_000_000
"""Number of the first epoch of imitation: texts are disturbed otherwise than in those that follow."""


def imitate_words(
    model: EmotionModel,
    source: Path,
    sampler: Sampler,
    maker: BatchMaker,
    section: ImitateWordsSection,
    progress: Progress,
) -> float:
    """Train every weight of the text encoder, in place, on its own device.

    Args:
        model: holds the student.
        source: transformers folder of the whole network.
        sampler: draws the training texts; not pairs.
        maker: makes them batches.
        section: of the configuration.
        progress: starts a bar: (what, how many) -> function to call after each.

    Returns:
        Mean squared error over the last epoch, where what is to be learnt has variance 1.

    Raises:
        HriEmoError: no item has a text.
    """
    items = {e.item.id: e.item for e in sampler.examples if e.item.text}
    texts = [item.text for item in items.values() if item.text]
    if not texts:
        raise HriEmoError("'prune.imitate' needs corpora with texts in 'data.corpora'")
    embeddings = sentence_embeddings(
        source, texts, model.config.max_text_tokens,
        progress("the whole network's sentences", len(texts)),
    )  # fmt: skip
    centred = embeddings - embeddings.mean(0)
    wanted = centred / centred.square().mean().sqrt()
    row_of = {name: row for row, name in enumerate(items)}

    encoder = model.text_encoder
    device = next(encoder.parameters()).device
    frozen = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    encoder.requires_grad_(True).train()
    outwards = nn.Linear(encoder.hidden_size, wanted.shape[1]).to(device)
    parameters = [*encoder.parameters(), *outwards.parameters()]
    optimizer = imitation_optimizer(parameters, section.lr)
    steps = max(1, round(section.epochs * sampler.batches))
    bar = progress("imitating the whole network", steps)
    errors: list[float] = []
    for step in range(steps):
        epoch, number = divmod(step, sampler.batches)
        if number == 0:
            drawn = sampler.epoch(_EPOCH + epoch)
        examples = [e for e in drawn[number] if e.item.id in row_of]
        if not examples:
            continue
        batch = maker.train(examples, _EPOCH + epoch, number).to(device)
        states, mask = model.encode_text(batch.model)
        target = wanted[[row_of[e.item.id] for e in examples]].to(device)
        error = (outwards(masked_mean(states, mask)) - target).square().mean()
        for group in optimizer.param_groups:
            group["lr"] = section.lr * imitation_rate(step, steps)
        optimizer.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(parameters, _CLIP_NORM)
        optimizer.step()
        errors.append(float(error.detach()))
        bar()
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return float(np.mean(errors[-sampler.batches :]))


@torch.no_grad()
def sentence_embeddings(
    source: Path, texts: Sequence[str], max_tokens: int, progress: Callable[[], None]
) -> Tensor:
    """[texts, d]: the mean of a transformers encoder's last states over each text's tokens."""
    encoder = AutoModel.from_pretrained(source, local_files_only=True).eval()
    tokenizer = load_tokenizer(source)
    tokens = [torch.tensor(tokenizer.encode(text, max_tokens).ids) for text in texts]
    result = torch.zeros(len(texts), encoder.config.hidden_size)
    order = sorted(range(len(texts)), key=lambda row: len(tokens[row]))
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        part = [tokens[row] for row in rows]
        ids = nn.utils.rnn.pad_sequence(part, True, tokenizer.pad_id)
        mask = nn.utils.rnn.pad_sequence([torch.ones(len(t)).long() for t in part], True)
        states = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        result[rows] = masked_mean(states, mask.bool())
        for _ in rows:
            progress()
    return result
