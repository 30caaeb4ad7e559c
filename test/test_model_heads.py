# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The four heads: one interface, exact masks, honest behaviour without a modality."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import SENTENCES, mixed_items, tiny_config, tiny_model, voice

from hri_emo_ros.model.batch import collate
from hri_emo_ros.model.hri_emo import HriEmoFusion, UnimodalEvidence, normalised_entropy
from hri_emo_ros.model.items import ModelItem
from hri_emo_ros.model.losses import gate_loss
from hri_emo_ros.model.network import EmotionModel
from hri_emo_ros.model.output import EncodedBatch

HEADS = ("hri_emo", "late_fusion", "audio_only", "text_only")


def score(bundle, items):
    with torch.no_grad():
        return bundle.model(collate(items, bundle.config, bundle.tokenizer))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("audio", "text"),
    [("compact", "bert"), ("wavlm", "roberta"), ("hubert", "bert"), ("wav2vec2", "bert")],
)
def test_an_item_alone_equals_the_same_item_in_a_padded_batch(head, audio, text):
    bundle = tiny_model(tiny_config(head, audio, text))
    items = mixed_items()
    together = score(bundle, items)
    for row, item in enumerate(items):
        alone = score(bundle, [item])
        for name in ("logits", "audio_logits", "text_logits", "beta"):
            torch.testing.assert_close(
                getattr(alone, name)[0], getattr(together, name)[row], atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("sequence", [True, False])
def test_precomputed_features_of_any_two_widths_are_inputs(head, sequence):
    bundle = tiny_model(tiny_config(head, "features", "features", objective="multi_label"))
    rng = np.random.default_rng(0)
    lengths = [(7, 3), (4, 9), (0, 5), (6, 0)] if sequence else [(1, 1), (1, 0)]
    items = [
        ModelItem(
            audio_features=rng.normal(size=(a, 74) if sequence else 74).astype(np.float32)
            if a
            else None,
            text_features=rng.normal(size=(t, 300) if sequence else 300).astype(np.float32)
            if t
            else None,
        )
        for a, t in lengths
    ]
    together = score(bundle, items)
    assert together.logits.shape == (len(items), 7)
    for row, item in enumerate(items):
        torch.testing.assert_close(
            score(bundle, [item]).logits[0], together.logits[row], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("unimodal_path", [True, False])
def test_beta_is_exactly_one_without_words_and_zero_without_voice(unimodal_path):
    bundle = tiny_model(tiny_config(unimodal_path=unimodal_path))
    beta = score(
        bundle, [ModelItem(voice(0.5), None), ModelItem(None, SENTENCES[0]), ModelItem()]
    ).beta
    assert (beta[0] == 1).all()
    assert (beta[1] == 0).all()
    assert (beta[2] == 0.5).all()


def test_without_a_modality_hri_emo_answers_as_the_other_alone_does():
    bundle = tiny_model(tiny_config())
    out = score(
        bundle,
        [
            ModelItem(voice(0.7), SENTENCES[1]),
            ModelItem(voice(0.7), None),
            ModelItem(None, SENTENCES[1]),
        ],
    )
    torch.testing.assert_close(out.logits[1], out.audio_logits[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.logits[2], out.text_logits[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("gate", "voice", "words"),
    [
        (0.5, 1.0, 1.0),
        (0.8, 1.0, 0.0),
        (0.6, 1.0, 0.5),
        (0.34, 0.2, 1.0),
    ],
)
def test_an_even_gate_counts_both_answers_in_full_and_takes_away_from_one_only(gate, voice, words):
    z_a, z_t = torch.tensor([[2.0, -1.0, 0.0]]), torch.tensor([[0.0, 1.0, -3.0]])
    evidence = UnimodalEvidence(z_a, z_t)
    fusion = HriEmoFusion(8, 8, tiny_config().model_copy(update={"gate_slope": 5.0}))
    found = fusion._experts(torch.tensor([[gate]]), evidence)
    torch.testing.assert_close(found, voice * z_a + words * z_t)


def test_the_gate_judges_answers_and_conditions_and_not_whose_voice_it_is():
    bundle = tiny_model(tiny_config())
    batch = collate([ModelItem(voice(0.7), SENTENCES[1])], bundle.config, bundle.tokenizer)
    with torch.no_grad():
        heard = EncodedBatch(*bundle.model.encode_audio(batch), *bundle.model.encode_text(batch))
        other = replace(heard, audio=heard.audio.roll(3, -1))
        z = torch.tensor([[1.0, 0, 0, 3.0, 0, 0, 0]])
        first, second = (bundle.model.fuse(e, batch, audio_logits=z) for e in (heard, other))
        asked = bundle.model.fuse(heard, batch, audio_logits=2 * z)
    assert torch.equal(first.beta, second.beta)
    assert not torch.equal(first.beta, asked.beta)


def test_the_queries_correct_nothing_before_they_have_learnt_to():
    bundle = tiny_model(tiny_config())
    fresh = EmotionModel(bundle.config, seed=0).eval()
    batch = collate([ModelItem(voice(0.7), SENTENCES[1])], bundle.config, bundle.tokenizer)
    with torch.no_grad():
        out = fresh(batch)
    evidence = UnimodalEvidence(out.audio_logits, out.text_logits)
    sum_of_both = fresh.fusion._experts(out.gate[:, None], evidence)
    torch.testing.assert_close(out.logits, sum_of_both, atol=1e-6, rtol=1e-5)


def test_the_answers_loss_cannot_move_the_mean_of_the_gate_but_the_gates_own_can():
    bundle = tiny_model(tiny_config())
    model = bundle.model.train()
    torch.nn.init.normal_(model.fusion.decoder.readout)
    batch = collate([ModelItem(voice(0.7), SENTENCES[1])], bundle.config, bundle.tokenizer)
    out = model(batch)
    bias = model.fusion.gate.mlp[-1].bias
    targets = torch.tensor([1])
    answer = torch.nn.functional.cross_entropy(out.logits, targets)
    (moved,) = torch.autograd.grad(answer, bias, retain_graph=True)
    slope = out.beta[0] * (1 - out.beta[0])
    assert (moved / slope).sum().abs() < 1e-4 * (moved / slope).abs().sum()
    assert moved.abs().sum() > 0  # how channels differ is learnt from the answer
    (moved,) = torch.autograd.grad(gate_loss(out, targets, "single_label"), bias)
    assert (moved / slope).sum().abs() > 0.5 * (moved / slope).abs().sum()
    # Explanations need the gradient of everything.
    model.eval()
    with torch.enable_grad():
        (moved,) = torch.autograd.grad(
            torch.nn.functional.cross_entropy(model(batch).logits, targets), bias
        )
    assert (moved / slope).sum().abs() > 1e-3 * (moved / slope).abs().sum()


def test_the_queries_count_in_full_in_training_and_by_half_after_it():
    bundle = tiny_model(tiny_config(dropout=0.0))
    torch.nn.init.normal_(bundle.model.fusion.decoder.readout)
    batch = collate([ModelItem(voice(0.7), SENTENCES[1])], bundle.config, bundle.tokenizer)
    with torch.no_grad():
        heard = EncodedBatch(*bundle.model.encode_audio(batch), *bundle.model.encode_text(batch))

    def correction(training: bool) -> torch.Tensor:
        bundle.model.fusion.train(training)
        with torch.no_grad():
            out = bundle.model.fuse(heard, batch)
        evidence = UnimodalEvidence(out.audio_logits, out.text_logits)
        return out.logits - bundle.model.fusion._experts(out.gate[:, None], evidence)

    learning, in_use = correction(True), correction(False)
    assert in_use.abs().max() > 1e-3
    torch.testing.assert_close(learning, 2 * in_use)


@pytest.mark.parametrize("multi_label", [False, True])
def test_entropy_runs_from_0_for_certainty_to_1_for_none(multi_label):
    logits = torch.tensor([[0.0] * 4, [90.0, -90.0, -90.0, -90.0]], requires_grad=True)
    entropy = normalised_entropy(logits, multi_label)
    assert entropy[:, 0].tolist() == pytest.approx([1.0, 0.0], abs=1e-4)
    entropy.sum().backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("head", HEADS)
def test_with_nothing_present_the_answer_is_uniform(head):
    bundle = tiny_model(tiny_config(head))
    assert (score(bundle, [ModelItem(None, ""), ModelItem(voice(0.01), " ")]).logits == 0).all()


def test_every_voice_frame_reaches_the_emotion_queries():
    """Ten words must not cut the audio to ten frames: a change at its end changes the answer."""
    config = tiny_config("hri_emo", "features", "features", unimodal_path=False)
    bundle = tiny_model(config)
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(200, 74)).astype(np.float32)
    text = rng.normal(size=(3, 300)).astype(np.float32)
    changed = audio.copy()
    changed[-1] = -changed[-1]
    out = score(
        bundle,
        [
            ModelItem(audio_features=audio, text_features=text),
            ModelItem(audio_features=changed, text_features=text),
        ],
    )
    assert (out.logits[0] - out.logits[1]).abs().max() > 1e-5


def test_the_gate_sees_signal_quality_and_recogniser_confidence():
    bundle = tiny_model(tiny_config())
    clip, words = voice(0.5), SENTENCES[2]
    beta = score(
        bundle,
        [
            ModelItem(clip, words, snr_db=30.0, asr_confidence=0.9),
            ModelItem(clip, words, snr_db=-5.0, asr_confidence=0.9),
            ModelItem(clip, words, snr_db=30.0, asr_confidence=0.1),
            ModelItem(clip, words, snr_db=float("nan"), asr_confidence=0.9),
        ],
    ).beta
    assert torch.isfinite(beta).all()
    assert all((beta[0] - beta[row]).abs().max() > 1e-4 for row in (1, 2, 3))


@pytest.mark.parametrize("head", HEADS)
def test_the_same_seed_gives_the_same_network_and_training_step(head):
    results = []
    for _ in range(2):
        bundle = tiny_model(tiny_config(head), seed=3)
        model = bundle.model.train()
        torch.manual_seed(7)
        out = model(collate(mixed_items(), bundle.config, bundle.tokenizer))
        out.logits.square().sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((out.logits.detach(), gradient))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_words_beyond_the_encoders_positions_are_left_out():
    bundle = tiny_model(tiny_config("text_only", text="roberta", max_text_tokens=500))
    out = score(bundle, [ModelItem(None, " ".join(SENTENCES * 20))])
    assert bundle.config.max_text_tokens == 65
    assert torch.isfinite(out.logits).all()


def test_long_audio_is_seen_from_its_end():
    bundle = tiny_model(tiny_config("audio_only", max_audio_seconds=1.0))
    clip = voice(2.0)
    out = score(bundle, [ModelItem(clip), ModelItem(clip[-16000:])])
    assert torch.equal(out.logits[0], out.logits[1])
