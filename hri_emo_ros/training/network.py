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
from hri_emo_ros.model.tokenizer import TextTokenizer, load_tokenizer
from hri_emo_ros.training.recipe import Recipe


@dataclass
class Network:
    """A model and its tokenizer, with the names of parameters that were pretrained."""

    model: EmotionModel
    tokenizer: TextTokenizer | None
    pretrained: set[str]


def make_network(recipe: Recipe, folder: Path) -> Network:
    """Build the network and fill in pretrained weights.

    Args:
        recipe: ``stage:`` names are already folders.
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
            updates[part] = found = packaged_encoder(spec, folder)
            if part == "text":
                tokenizer = load_tokenizer(found.name, found.allow_download)
        elif part == "text":
            raise HriEmoError("'model.text.name' is empty: name a text encoder with its tokenizer")
    model = EmotionModel(config.model_copy(update=updates), seed=recipe.seed)
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
            "model needs; give 'model' the same encoder"
        )
    target.load_state_dict(wanted, strict=False)
