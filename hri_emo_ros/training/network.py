# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The network of a recipe, with pretrained weights filled in, and its tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.bundle import load_bundle
from hri_emo_ros.model.config import EncoderSpec
from hri_emo_ros.model.network import EmotionModel
from hri_emo_ros.model.packaged import packaged_encoder
from hri_emo_ros.model.tokenizer import TextTokenizer, load_tokenizer, train_tokenizer
from hri_emo_ros.training.items import Data
from hri_emo_ros.training.recipe import Recipe

_VOCABULARY = 4300


@dataclass
class Network:
    """A model and its tokenizer, with the names of parameters that were pretrained."""

    model: EmotionModel
    tokenizer: TextTokenizer | None
    pretrained: set[str]


def make_network(recipe: Recipe, data: Data, folder: Path) -> Network:
    """Build the network and fill in pretrained weights.

    Args:
        recipe: ``stage:`` names are already folders.
        data: texts for a vocabulary where the text encoder starts from nothing.
        folder: where an encoder made out of a packaged one is put.

    Raises:
        HriEmoError: weights are missing or do not fit.
    """
    torch.manual_seed(recipe.seed)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # a BERT without pooler is what is wanted
    config = recipe.model
    sources = {
        part: load_bundle(getattr(recipe.pretrained, part))
        for part in ("audio", "text")
        if getattr(recipe.pretrained, part)
    }
    updates: dict[str, EncoderSpec] = {}
    tokenizer: TextTokenizer | None = None
    for part in ("audio", "text"):
        spec: EncoderSpec = getattr(config, part)
        if not getattr(config, f"uses_{part}") or spec.kind == "features":
            continue
        if part in sources:
            # The bundle's own encoder configuration, with this run's say on what is trained.
            taken = getattr(sources[part].model.portable_config(), part)
            updates[part] = taken.model_copy(
                update={"unfreeze_last_n_layers": spec.unfreeze_last_n_layers}
            )
            tokenizer = sources[part].tokenizer if part == "text" else tokenizer
        elif spec.name:
            updates[part] = packaged_encoder(spec, folder)
    config = config.model_copy(update=updates)
    if config.uses_text and config.text.kind != "features" and tokenizer is None:
        tokenizer = _tokenizer(config.text, data)
        if config.text.kind == "compact" and not (config.text.config or {}).get("vocab_size"):
            size = {"vocab_size": tokenizer.vocabulary_size}
            spec = config.text
            spec = spec.model_copy(update={"config": {**(spec.config or {}), **size}})
            config = config.model_copy(update={"text": spec})
    model = EmotionModel(config, seed=recipe.seed)
    for part, source in sources.items():
        _copy_weights(source.model, model, part, getattr(recipe.pretrained, part))
    return Network(model, tokenizer, {f"model.{part}_encoder." for part in updates})


def _copy_weights(source: EmotionModel, target: EmotionModel, part: str, name: str) -> None:
    """Copy an encoder and its head; what both have must fit whole."""
    own = target.state_dict()
    prefixes = (
        f"{part}_encoder.",
        f"{part}_head.",
        *(("baseline.", "speech.") if part == "audio" else ()),
    )
    wanted = {k: v for k, v in source.state_dict().items() if k.startswith(prefixes) and k in own}
    for key, value in wanted.items():
        if own[key].shape != value.shape:
            raise HriEmoError(
                f"'pretrained': '{key}' is {list(value.shape)} in bundle '{name}' but "
                f"{list(own[key].shape)} in the model; give 'model' the same sizes (head_hidden, "
                "d_model, ...)"
            )
    missing = [k for k in own if k.startswith(prefixes) and k not in wanted]
    if not wanted or missing:
        raise HriEmoError(
            f"'pretrained': bundle '{name}' has no '{missing[0] if missing else 'weight'}' that the "
            "model needs; give 'model' the same head_norm and encoder"
        )
    target.load_state_dict(wanted, strict=False)


def _tokenizer(spec: EncoderSpec, data: Data) -> TextTokenizer:
    place = spec.tokenizer or (spec.name if spec.kind == "transformers" else "")
    if place:
        return load_tokenizer(place, spec.allow_download)
    texts = [item.text for item in data.train if item.text]
    size = int((spec.config or {}).get("vocab_size", _VOCABULARY))
    return train_tokenizer(texts, size)
