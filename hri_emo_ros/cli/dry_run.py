# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""One real training step of a recipe with random encoders of the real size.

Proves that a large recipe runs end to end on this machine, and what it costs, without a download: the
architecture of a named encoder is known here, its weights are random.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.batch import collate
from hri_emo_ros.model.config import EncoderSpec, ModelConfig
from hri_emo_ros.model.items import ModelItem
from hri_emo_ros.model.network import EmotionModel
from hri_emo_ros.model.packaged import MINILM
from hri_emo_ros.model.tokenizer import train_tokenizer
from hri_emo_ros.training.batches import TrainBatch
from hri_emo_ros.training.module import TrainingModule
from hri_emo_ros.training.optim import Average, make_optimizer, schedule
from hri_emo_ros.training.recipe import Recipe
from hri_emo_ros.types import SAMPLE_RATE

# Of the shipped recipes, from the models' own config.json files; what is not named is transformers'
# default for the type, which is that of the base size.
_KNOWN: dict[str, dict[str, Any]] = {
    "microsoft/wavlm-base-plus": {"model_type": "wavlm"},
    "facebook/hubert-base-ls960": {"model_type": "hubert"},
    "facebook/wav2vec2-base": {"model_type": "wav2vec2"},
    "roberta-base": {
        "model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514,
        "type_vocab_size": 1, "layer_norm_eps": 1e-5,
    },
    MINILM: {
        "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
}  # fmt: skip
_WORDS = "that is not what i wanted to hear from you today at all"
_BATCH, _SECONDS = 2, 5.0


@dataclass(frozen=True)
class DryRun:
    """What one step took."""

    name: str
    parameters: int
    trainable: int
    step_seconds: float
    """The second step: the first sets much up."""
    peak_memory_gib: float
    """Of the process on the CPU, of the device on a GPU."""
    loss: float
    device: str

    def describe(self) -> str:
        return (
            f"{self.name}: {self.parameters / 1e6:.1f} M parameters ({self.trainable / 1e6:.1f} M "
            f"trained), batch {_BATCH} of at most {_SECONDS:g} s on {self.device}: step "
            f"{self.step_seconds:.2f} s, peak memory {self.peak_memory_gib:.2f} GiB, loss {self.loss:.3f}"
        )


def random_encoder(spec: EncoderSpec, modality: str) -> EncoderSpec:
    """`spec` with its named encoder replaced by one of the same architecture and random weights.

    Raises:
        HriEmoError: the architecture of the name is not known here.
    """
    if not spec.name or spec.kind == "features":
        return spec
    if spec.kind == "compact":  # its defaults are whisper-base's
        return spec.model_copy(update={"name": ""})
    if spec.name not in _KNOWN:
        raise HriEmoError(
            f"'model.{modality}.name' is '{spec.name}', whose architecture is not known to "
            f"--dry-run-random; known: {', '.join(_KNOWN)} (or give 'model.{modality}.config')"
        )
    named = {"name": "", "allow_download": False}
    return spec.model_copy(update={**named, "config": _KNOWN[spec.name]})


def random_network(config: ModelConfig) -> ModelConfig:
    """`config` with both encoders as in `random_encoder`."""
    encoders = {part: random_encoder(getattr(config, part), part) for part in ("audio", "text")}
    return config.model_copy(update=encoders)


def dry_run(recipe: Recipe, audio_seconds: float = _SECONDS) -> DryRun:
    """Build the network and take two whole training steps on made-up input."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = EmotionModel(random_network(recipe.model), seed=recipe.seed)
    module = TrainingModule(model, recipe.loss).to(device).train()
    optimizer = make_optimizer(module, {"model.audio_encoder", "model.text_encoder"}, recipe.optim)
    average = Average(module, recipe.optim.ema) if recipe.optim.ema else None
    batch = _batch(model.config, audio_seconds).to(device)
    half = recipe.mixed_precision != "no" and device.type == "cuda"
    seconds, loss = 0.0, 0.0
    for step in range(2):
        start = time.perf_counter()
        schedule(optimizer, step, 10, recipe.optim.warmup)
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            total = module(batch).losses["total"]
        total.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), recipe.optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            average.update(step)
        loss, seconds = float(total.detach()), time.perf_counter() - start
    if device.type == "cuda":
        memory, name = torch.cuda.max_memory_allocated() / 2**30, torch.cuda.get_device_name()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        name = f"CPU, {torch.get_num_threads()} threads"
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return DryRun(
        recipe.stage or recipe.model.head, sum(n for n, _ in sizes),
        sum(n for n, learns in sizes if learns), seconds, memory, loss, name,
    )  # fmt: skip


def _batch(config: ModelConfig, seconds: float) -> TrainBatch:
    rng = np.random.default_rng(0)
    tokenizer = train_tokenizer([_WORDS], 100) if config.text.kind != "features" else None
    audio, text = (
        rng.normal(size=(20, spec.width)).astype(np.float32) if spec.kind == "features" else None
        for spec in (config.audio, config.text)
    )
    samples = rng.normal(0, 0.05, int(seconds * SAMPLE_RATE)).astype(np.float32)
    item = ModelItem(samples, _WORDS, snr_db=20.0, audio_features=audio, text_features=text)
    items = [item] * _BATCH
    targets = torch.eye(len(config.labels))[:_BATCH]
    weights = torch.ones(_BATCH)
    return TrainBatch(collate(items, config, tokenizer), targets, targets, targets, weights)
