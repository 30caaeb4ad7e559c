# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Networks of the real kinds with tiny random encoders, made in a moment, for any test."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hri_emo_ros.model.bundle import Bundle
from hri_emo_ros.model.calibration import Calibration
from hri_emo_ros.model.config import ModelConfig, VoiceSpec, WordsSpec
from hri_emo_ros.model.items import ModelItem
from hri_emo_ros.model.network import EmotionModel
from hri_emo_ros.model.tokenizer import TextTokenizer, train_tokenizer

SENTENCES = [
    "I am so happy to see you today",
    "this makes me really angry and sad",
    "what a wonderful surprise that was",
    "I am afraid of the dark",
    "that smell is disgusting",
    "please put the cup on the table",
]

_SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
_CONVOLUTIONS = {
    "conv_dim": [16, 16, 16],
    "conv_kernel": [10, 8, 4],
    "conv_stride": [5, 8, 8],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
AUDIO_CONFIGS: dict[str, dict[str, Any]] = {
    "wavlm": {"model_type": "wavlm", **_SIZE, **_CONVOLUTIONS, "feat_extract_norm": "group"},
    "hubert": {
        "model_type": "hubert",
        **_SIZE,
        **_CONVOLUTIONS,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
    },
    "wav2vec2": {"model_type": "wav2vec2", **_SIZE, **_CONVOLUTIONS, "feat_extract_norm": "group"},
}
_WORDS = {**_SIZE, "vocab_size": 300}
TEXT_CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", **_WORDS, "max_position_embeddings": 64},
    "roberta": {
        "model_type": "roberta",
        **_WORDS,
        "max_position_embeddings": 66,
        "pad_token_id": 0,
    },
}
COMPACT_AUDIO = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                 "intermediate_size": 32, "state_layers": [1]}  # fmt: skip


def tiny_tokenizer() -> TextTokenizer:
    return train_tokenizer(SENTENCES * 4, 300)


@functools.cache
def tiny_text_encoder() -> str:
    """Folder of a BERT with random weights and its tokenizer, as a recipe names one."""
    from transformers import AutoConfig, AutoModel

    folder = Path(tempfile.mkdtemp(prefix="hri_emo_tiny_bert_"))
    atexit.register(shutil.rmtree, folder, True)
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(**TEXT_CONFIGS["bert"])).save_pretrained(folder)
    tiny_tokenizer().save(folder)
    return str(folder)


def tiny_config(
    head: str = "hri_emo", audio: str = "compact", text: str = "bert", **changes: Any
) -> ModelConfig:
    """A network a few thousand weights large; `audio` and `text` name the encoders' kinds."""
    learns = {"unfreeze_last_n_layers": -1}
    audio_spec = (
        VoiceSpec(kind="compact", config=COMPACT_AUDIO, **learns)
        if audio == "compact"
        else VoiceSpec(kind="features", width=74)
        if audio == "features"
        else VoiceSpec(kind="transformers", config=AUDIO_CONFIGS[audio])
    )
    text_spec = (
        WordsSpec(kind="features", width=300)
        if text == "features"
        else WordsSpec(kind="transformers", config=dict(TEXT_CONFIGS[text]), **learns)
    )
    values = {
        "d_model": 16,
        "attention_heads": 2,
        "feedforward": 32,
        "head_hidden": 16,
        "gate_hidden": 16,
        "max_text_tokens": 32,
        **changes,
    }
    return ModelConfig(head=head, audio=audio_spec, text=text_spec, **values)  # type: ignore[arg-type]


def tiny_model(config: ModelConfig, seed: int = 0) -> Bundle:
    """A bundle in memory with random weights and an identity calibration."""
    model = EmotionModel(config, seed=seed).eval()
    if config.head == "hri_emo":  # as if they had learnt: fresh queries correct nothing
        torch.nn.init.normal_(model.fusion.decoder.readout, std=config.d_model**-0.5)
    return Bundle(
        model=model,
        tokenizer=tiny_tokenizer(),
        calibration=Calibration.identity(len(config.labels)),
        name="tiny",
    )


def voice(seconds: float, seed: int = 0) -> np.ndarray:
    """Something like a voice: a harmonic tone with a syllable-like envelope and a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * 16_000)) / 16_000
    pitch = rng.uniform(90, 250)
    tone = sum(np.sin(2 * np.pi * pitch * k * t + rng.uniform(0, 6)) / k for k in range(1, 20))
    envelope = 0.2 + np.clip(np.sin(2 * np.pi * rng.uniform(2, 4) * t), 0, None)
    return (0.1 * tone * envelope + 0.003 * rng.normal(size=len(t))).astype(np.float32)


def mixed_items() -> list[ModelItem]:
    """Utterances of different length: both modalities, only one, none."""
    return [
        ModelItem(voice(1.0, 1), SENTENCES[0], snr_db=20.0, asr_confidence=0.9),
        ModelItem(voice(2.3, 2), SENTENCES[4], snr_db=float("nan"), asr_confidence=0.4),
        ModelItem(voice(0.6, 3), None, snr_db=5.0),
        ModelItem(None, SENTENCES[1]),
        ModelItem(None, "  "),
        ModelItem(voice(0.01, 4), ""),
    ]
