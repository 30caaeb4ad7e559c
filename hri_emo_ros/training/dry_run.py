"""One real training step of a configuration with random encoders of the real size.

Proves that a large configuration runs end to end on this machine, and what it costs, without a
download: the architecture of a named encoder is known here, its weights are random.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.batch import ModelItem, collate
from hri_emo_ros.model.config import EncoderSpec, ModelConfig
from hri_emo_ros.model.network import EmotionModel
from hri_emo_ros.model.tokenizer import train_tokenizer
from hri_emo_ros.training.batches import TrainBatch
from hri_emo_ros.training.module import TrainingModule
from hri_emo_ros.training.optim import Average, make_optimizer, schedule, tune_allocator
from hri_emo_ros.training.recipe import Recipe
from hri_emo_ros.types import SAMPLE_RATE

_LARGE_AUDIO: dict[str, Any] = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096, "feat_extract_norm": "layer", "do_stable_layer_norm": True,
}  # fmt: skip
# From the models' own config.json files; what is not named is transformers' default for the type,
# which is that of the base size.
_KNOWN: dict[str, dict[str, Any]] = {
    "microsoft/wavlm-base": {"model_type": "wavlm"},
    "microsoft/wavlm-base-plus": {"model_type": "wavlm"},
    "microsoft/wavlm-large": {"model_type": "wavlm", **_LARGE_AUDIO},
    "facebook/hubert-base-ls960": {"model_type": "hubert"},
    "facebook/hubert-large-ll60k": {"model_type": "hubert", **_LARGE_AUDIO},
    "facebook/wav2vec2-base": {"model_type": "wav2vec2"},
    "facebook/wav2vec2-large": {"model_type": "wav2vec2", **_LARGE_AUDIO},
    "roberta-base": {
        "model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514,
        "type_vocab_size": 1, "layer_norm_eps": 1e-5,
    },
    "bert-base-uncased": {"model_type": "bert"},
    "minilm": {
        "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
}  # fmt: skip
_WHISPER_BASE = {
    "hidden_size": 512, "conv_channels": 512, "num_attention_heads": 8, "query_size": 64,
    "value_size": 64, "intermediate_size": 2048,
}  # fmt: skip
_KNOWN["FacebookAI/roberta-base"] = _KNOWN["roberta-base"]
_WORDS = "that is not what i wanted to hear from you today at all"


@dataclass(frozen=True)
class DryRun:
    """What one step took."""

    stage: str
    head: str
    batch_size: int
    audio_seconds: float
    parameters: int
    trainable: int
    first_seconds: float
    """The first step, with everything that is lazily set up."""
    step_seconds: float
    """The second step."""
    peak_memory_gib: float
    """Of the process on the CPU, of the device on a GPU."""
    loss: float
    device: str

    def describe(self) -> str:
        return (
            f"{self.stage or self.head}: {self.parameters / 1e6:.1f} M parameters "
            f"({self.trainable / 1e6:.1f} M trained), batch {self.batch_size} of "
            f"{self.audio_seconds:g} s on {self.device}: step {self.step_seconds:.2f} s (first "
            f"{self.first_seconds:.2f} s), peak memory {self.peak_memory_gib:.2f} GiB, loss "
            f"{self.loss:.3f}"
        )


def random_encoder(spec: EncoderSpec, modality: str) -> EncoderSpec:
    """`spec` with its named encoder replaced by one of the same architecture and random weights.

    Raises:
        HriEmoError: the architecture of the name is not known here.
    """
    if not spec.name or spec.kind == "features":
        return spec
    if spec.kind == "compact":
        config = {**_WHISPER_BASE, **(spec.config or {})}
        return spec.model_copy(update={"name": "", "config": config})
    if spec.name not in _KNOWN:
        raise HriEmoError(
            f"'model.{modality}.name' is '{spec.name}', whose architecture is not known to "
            f"--dry-run-random; known: {', '.join(_KNOWN)} (or give 'model.{modality}.config')"
        )
    return spec.model_copy(update={"name": "", "config": _KNOWN[spec.name]})


def dry_run(
    recipe: Recipe, batch_size: int = 2, audio_seconds: float = 5.0, steps: int = 2
) -> DryRun:
    """Build the network and take `steps` (at least two) whole training steps on made-up input."""
    tune_allocator()
    model_config = recipe.model.model_copy(
        update={
            part: random_encoder(getattr(recipe.model, part), part) for part in ("audio", "text")
        }
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = EmotionModel(model_config, seed=recipe.seed)
    module = TrainingModule(model, recipe.loss).to(device).train()
    optimizer = make_optimizer(module, {"model.audio_encoder", "model.text_encoder"}, recipe.optim)
    average = Average(module, recipe.optim.ema) if recipe.optim.ema else None
    batch = _batch(model.config, batch_size, audio_seconds).to(device)
    seconds, loss = [], 0.0
    for step in range(max(2, steps)):
        start = time.perf_counter()
        schedule(optimizer, step, 10, recipe.optim.warmup)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.mixed_precision != "no"
                            and device.type == "cuda"):  # fmt: skip
            total = module(batch).losses["total"]
        total.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), recipe.optim.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if average is not None:
            average.update(step)
        loss = float(total.detach())
        seconds.append(time.perf_counter() - start)
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated() / 2**30
        name = torch.cuda.get_device_name()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        name = f"CPU, {torch.get_num_threads()} threads"
    parameters = list(model.parameters())
    return DryRun(
        stage=recipe.stage,
        head=model_config.head,
        batch_size=batch_size,
        audio_seconds=audio_seconds,
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        first_seconds=seconds[0],
        step_seconds=min(seconds[1:]),
        peak_memory_gib=memory,
        loss=loss,
        device=name,
    )


def _batch(config: ModelConfig, size: int, seconds: float) -> TrainBatch:
    rng = np.random.default_rng(0)
    tokenizer = train_tokenizer([_WORDS], 100) if config.text.kind != "features" else None
    frames, words = 50, 12
    items = [
        ModelItem(
            samples=rng.normal(0, 0.05, int(seconds * SAMPLE_RATE)).astype(np.float32),
            text=_WORDS,
            snr_db=20.0,
            audio_features=rng.normal(size=(frames, config.audio.width)).astype(np.float32)
            if config.audio.kind == "features"
            else None,
            text_features=rng.normal(size=(words, config.text.width)).astype(np.float32)
            if config.text.kind == "features"
            else None,
        )
        for _ in range(size)
    ]
    targets = torch.eye(len(config.labels))[torch.arange(size) % len(config.labels)]
    return TrainBatch(
        model=collate(items, config, tokenizer),
        targets=targets,
        voice_targets=targets,
        words_targets=targets,
        weights=torch.ones(size),
    )
