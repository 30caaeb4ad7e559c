"""The four heads: one interface, exact masks, honest behaviour without a modality."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hri_emo_ros.model.batch import ModelItem, collate
from hri_emo_ros.model.weights import modality_weights, removal_effect
from tiny_models import SENTENCES, mixed_items, tiny_config, tiny_model, voice

HEADS = ("hri_emo", "late_fusion", "audio_only", "text_only")


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("audio", "text"),
    [("compact", "compact"), ("wavlm", "roberta"), ("hubert", "bert"), ("wav2vec2", "bert")],
)
def test_an_item_alone_equals_the_same_item_in_a_padded_batch(head, audio, text):
    bundle = tiny_model(tiny_config(head, audio, text))
    items = mixed_items()
    with torch.no_grad():
        together = bundle.model(collate(items, bundle.config, bundle.tokenizer))
        for row, item in enumerate(items):
            alone = bundle.model(collate([item], bundle.config, bundle.tokenizer))
            for name in ("logits", "audio_logits", "text_logits", "beta"):
                torch.testing.assert_close(
                    getattr(alone, name)[0], getattr(together, name)[row], atol=1e-5, rtol=1e-5
                )
