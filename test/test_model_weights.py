# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Modality weights tell what removal does; losses give the gate something to learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from tiny_models import SENTENCES, mixed_items, tiny_config, tiny_model, voice

from hri_emo_ros.model.batch import collate
from hri_emo_ros.model.items import ModelItem
from hri_emo_ros.model.losses import LossConfig, compute_losses, gate_loss
from hri_emo_ros.model.output import ModelOutput
from hri_emo_ros.model.weights import modality_weights

HEADS = ("hri_emo", "late_fusion", "audio_only", "text_only")


def output(logits, audio, text, beta=0.5, width=4):
    tensors = [torch.tensor([row], dtype=torch.float32) for row in (logits, audio, text)]
    yes = torch.ones(1, dtype=torch.bool)
    return ModelOutput(*tensors, torch.full((1, width), beta), yes, yes)


def weigh(output, objective="single_label"):
    return modality_weights(output.numpy(), objective)


@pytest.mark.parametrize("objective", ["single_label", "multi_label"])
def test_a_modality_whose_removal_changes_nothing_weighs_nothing(objective):
    strong, flat = [4.0, -1.0, -1.0], [0.0, 0.0, 0.0]
    heard = weigh(output(strong, strong, flat), objective)
    read = weigh(output(strong, flat, strong), objective)
    assert heard.audio > 0.9
    assert read.audio < 0.1
    assert (heard.audio_per_emotion > 0.9).all()


def test_each_emotion_has_its_own_weight():
    # The voice alone made the first emotion, the words alone kept the third one down.
    weights = weigh(output([3.0, 0.0, -3.0], [3.0, 0.0, 0.0], [0.0, 0.0, -3.0]), "multi_label")
    assert weights.audio_per_emotion[0, 0] > 0.95
    assert weights.audio_per_emotion[0, 2] < 0.05


def test_where_both_say_the_same_the_gate_decides():
    same = [2.0, 0.0, 0.0]
    assert weigh(output(same, same, same, beta=0.8)).audio == (pytest.approx(0.8))


@pytest.mark.parametrize("head", HEADS)
def test_weights_are_shares_and_an_absent_modality_has_none(head):
    bundle = tiny_model(tiny_config(head))
    with torch.no_grad():
        out = bundle.model(collate(mixed_items(), bundle.config, bundle.tokenizer))
    weights = weigh(out)
    for value in (weights.audio, weights.audio_per_emotion):
        assert ((value >= 0) & (value <= 1)).all()
    if head in ("hri_emo", "late_fusion"):
        assert weights.audio[2] == 1
        assert weights.audio[3] == 0
        assert weights.audio[4] == 0.5


@pytest.mark.parametrize("head", ["hri_emo", "late_fusion"])
@pytest.mark.parametrize("unimodal_path", [True, False])
def test_the_answers_behind_the_weights_are_those_of_real_removal(head, unimodal_path):
    bundle = tiny_model(tiny_config(head, unimodal_path=unimodal_path))
    batch = collate(
        [ModelItem(voice(0.6, i), SENTENCES[i], snr_db=10.0) for i in range(3)],
        bundle.config, bundle.tokenizer,
    )  # fmt: skip
    with torch.no_grad():
        out = bundle.model(batch)
        without_voice = bundle.model(batch.without("audio")).logits
        without_words = bundle.model(batch.without("text")).logits
    torch.testing.assert_close(out.text_logits, without_voice, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.audio_logits, without_words, atol=1e-5, rtol=1e-5)


def test_gate_loss_is_least_where_beta_trusts_the_modality_that_knows():
    target = torch.tensor([0])
    knows, wrong = [3.0, 0.0, 0.0], [0.0, 3.0, 0.0]
    losses = [
        float(gate_loss(output(knows, knows, wrong, beta), target, "single_label"))
        for beta in (0.1, 0.5, 0.95)
    ]
    assert losses[0] > losses[1] > losses[2]


def test_unimodal_losses_leave_absent_rows_out_and_may_have_their_own_targets():
    bundle = tiny_model(tiny_config())
    out = bundle.model(collate(mixed_items(), bundle.config, bundle.tokenizer))
    config = LossConfig(label_smoothing=0.0)
    targets = torch.tensor([0, 1, 2, 3, 4, 5])
    losses = compute_losses(out, targets, "single_label", config)
    expected = torch.nn.functional.cross_entropy(out.audio_logits[:3], targets[:3])
    torch.testing.assert_close(losses["audio"], expected)
    other = compute_losses(
        out, targets, "single_label", config, text_targets=torch.full_like(targets, 6)
    )
    assert other["text"] != losses["text"]
    assert other["audio"] == losses["audio"]


def test_soft_labels_are_targets_of_both_objectives():
    for objective in ("single_label", "multi_label"):
        bundle = tiny_model(tiny_config("audio_only", objective=objective))
        out = bundle.model(collate(mixed_items(), bundle.config, bundle.tokenizer))
        soft = torch.rand(6, 7).softmax(-1)
        total = compute_losses(out, soft, objective, LossConfig())["total"]
        assert torch.isfinite(total)
        total.backward()


def feature_items(rng, count):
    """Voice and words that each point at one of three classes, as clearly as their quality allows."""
    directions = np.random.default_rng(42).normal(size=(2, 3, 374))
    items, targets = [], []
    for _ in range(count):
        label = int(rng.integers(3))
        snr, confidence = rng.uniform(-10, 30), rng.uniform(0.1, 1.0)
        audio = directions[0, label, :74] * (snr + 10) / 40 + rng.normal(size=(5, 74))
        text = directions[1, label, 74:] * (rng.random() < confidence) + rng.normal(size=(4, 300))
        items.append(
            ModelItem(
                audio_features=audio.astype(np.float32),
                text_features=text.astype(np.float32),
                snr_db=snr,
                asr_confidence=confidence,
            )
        )
        targets.append(label)
    return items, torch.tensor(targets)


@torch.no_grad()
def removal_effect(model, batch):
    """[B], [B]: the fall of the predicted emotion's log-probability, in nats, when the voice and when the
    words are removed, each from a pass of its own over the whole network."""
    whole = torch.log_softmax(model(batch).logits, dim=-1)
    predicted = whole.argmax(-1, keepdim=True)
    drops = []
    for rest in (batch.without("audio"), batch.without("text")):
        drop = whole - torch.log_softmax(model(rest).logits, dim=-1)
        drops.append(drop.gather(-1, predicted).squeeze(-1))
    return drops


def test_a_trained_gate_follows_quality_and_weights_rank_as_removal_does():
    config = tiny_config("hri_emo", "features", "features", labels=("a", "b", "c"), dropout=0.0)
    bundle = tiny_model(config)
    model, rng = bundle.model.train(), np.random.default_rng(0)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(80):
        items, targets = feature_items(rng, 48)
        out = model(collate(items, config, None))
        optimiser.zero_grad()
        compute_losses(out, targets, "single_label", LossConfig(gate=1.0))["total"].backward()
        optimiser.step()
    model.eval()
    items, _ = feature_items(np.random.default_rng(9), 200)
    batch = collate(items, config, None)
    with torch.no_grad():
        out = model(batch)
    weights = weigh(out).audio
    voice_drop, word_drop = removal_effect(model, batch)
    assert spearmanr(weights, voice_drop).statistic > 0.6
    assert spearmanr(1 - weights, word_drop).statistic > 0.6
    assert spearmanr(out.gate, batch.snr_db).statistic > 0.3
    clean, noisy = weights[batch.snr_db > 20], weights[batch.snr_db < 0]
    assert clean.mean() - noisy.mean() > 0.15
