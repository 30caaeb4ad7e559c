# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A voice is judged against how it usually sounds, and words by what was said before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import SENTENCES, tiny_config, tiny_model, tiny_tokenizer, voice

from hri_emo_ros.engine import EmotionEngine, EngineInput
from hri_emo_ros.model.baseline import RelativeStates, shares, voice_statistics
from hri_emo_ros.model.batch import collate
from hri_emo_ros.model.bundle import Bundle, load_bundle, save_bundle
from hri_emo_ros.model.config import ContextConfig
from hri_emo_ros.model.items import ModelItem
from hri_emo_ros.types import AbstainReason, SignalQuality, Transcript
from hri_emo_ros.voices.baseline import Baseline, BaselineConfig, Heard

GOOD = SignalQuality(snr_db=20.0, level_dbfs=-25.0, clipped_fraction=0.0, speech_fraction=0.9)
WORDS = Transcript("I am so happy", confidence=0.8)


def relative_bundle(head: str = "hri_emo") -> Bundle:
    """A tiny network that has learnt what is usual, and to tell sounds."""
    config = tiny_config(head, baseline=BaselineConfig(), voice_components=(6, 12))
    bundle = tiny_model(config)
    torch.manual_seed(1)
    fit(bundle.model.baseline)
    torch.nn.init.normal_(bundle.model.speech.weight, std=0.1)
    return bundle


def fit(module: RelativeStates) -> torch.Tensor:
    """Two corpora of two speakers, each with an offset and a spread of its own; gives their statistics."""
    size = 2 * module.size
    rows, speakers, corpora = [], [], []
    for number in range(4):
        offset = 3.0 * torch.randn(size)
        rows.append(offset + torch.randn(20, size) @ torch.diag(torch.rand(size) + 0.2))
        speakers += [f"s{number}"] * 20
        corpora += ["a" if number < 3 else "b"] * 20
    module.fit(torch.cat(rows), speakers, corpora)
    return torch.cat(rows)


@pytest.fixture(scope="module")
def engine() -> EmotionEngine:
    return EmotionEngine(relative_bundle())


def heard(engine: EmotionEngine, count: float, seed: int = 0) -> Heard:
    mean = np.random.default_rng(seed).normal(size=len(engine.population)).astype(np.float32)
    return Heard(mean * np.float32(count), count)


def test_an_utterance_that_is_its_own_baseline_differs_in_nothing():
    module = RelativeStates(8, 5)
    fit(module)
    states = torch.randn(2, 11, 8)
    mask = torch.arange(11)[None] < torch.tensor([[11], [6]])
    usual = voice_statistics(states, mask)
    relative, absolute = module.statistics(module(states, mask, usual), mask, usual)
    torch.testing.assert_close(relative, torch.zeros(2, 5), atol=1e-3, rtol=0)
    expected = module.read((usual - module.population) / module.deviation)
    torch.testing.assert_close(absolute, expected, atol=1e-3, rtol=0)


def test_what_is_usual_counts_every_corpus_and_speaker_alike_and_differences_are_within_voices():
    module = RelativeStates(8, 16)
    statistics = fit(module)
    means = statistics.unflatten(0, (4, 20)).mean(1)
    expected = (means[:3].mean(0) + means[3]) / 2
    torch.testing.assert_close(module.population, expected, atol=1e-4, rtol=0)
    within = (statistics.unflatten(0, (4, 20)) - means[:, None]).flatten(0, 1)
    torch.testing.assert_close(module.deviation, within.std(0, correction=0), atol=2e-3, rtol=0)
    read = module.read(within / module.deviation)
    covariance = read.T @ read / len(read)
    torch.testing.assert_close(covariance.trace(), torch.tensor(16.0), atol=0.05, rtol=0)
    torch.testing.assert_close(covariance, torch.diag(covariance.diag()), atol=1e-2, rtol=0)
    assert (covariance.diag().diff() <= 1e-3).all()  # the strongest first


def test_an_utterance_far_from_all_that_was_heard_has_bounded_components():
    module = RelativeStates(4, 3)
    fit(module)
    states, mask = torch.randn(1, 9, 4), torch.ones(1, 9, dtype=torch.bool)
    far, farther = (
        module.statistics(module(states + by, mask, torch.zeros(1, 8)), mask, torch.zeros(1, 8))[0]
        for by in (1e4, 1e5)
    )
    torch.testing.assert_close(far, farther, rtol=1e-2, atol=1e-2)


def test_of_an_unknown_voice_the_population_is_expected(engine):
    unknown = engine.estimate(voice(1.2), WORDS, GOOD)
    average = Baseline(engine.population, 0.0, 0.0)
    batch = collate([ModelItem(voice(1.2), baseline=average)], engine.config, None)
    nobody = collate([ModelItem(voice(1.2))], engine.config, None)
    torch.testing.assert_close(
        engine.model(batch).audio_logits, engine.model(nobody).audio_logits, atol=1e-5, rtol=0
    )
    nothing = Heard.nothing(len(engine.population))
    same = engine.estimate(voice(1.2), WORDS, GOOD, voice=nothing, room=nothing)
    np.testing.assert_allclose(same.probabilities, unknown.probabilities, atol=1e-6)


@pytest.mark.parametrize("level", ["voice", "room"])
def test_what_was_heard_before_changes_the_answer_to_the_voice(engine, level):
    unknown = engine.estimate(voice(1.2), None, GOOD)
    known = engine.estimate(voice(1.2), None, GOOD, **{level: heard(engine, 8.0)})
    assert np.abs(known.probabilities - unknown.probabilities).max() > 0.005
    words = engine.estimate(None, WORDS, None, **{level: heard(engine, 8.0)})
    np.testing.assert_allclose(words.probabilities, engine.estimate(None, WORDS).probabilities)


def test_a_known_voice_is_answered_more_surely_where_calibration_says_so(engine):
    bundle = relative_bundle()
    bundle.calibration = bundle.calibration.model_copy(update={"known_audio": (0.2, 1.0)})
    surer = EmotionEngine(bundle)
    known = heard(engine, 30.0)
    before, after = (e.estimate(voice(1.2), None, GOOD, voice=known) for e in (engine, surer))
    assert after.uncertainty < before.uncertainty
    unknown_voices = [e.estimate(voice(1.2), None, GOOD).probabilities for e in (engine, surer)]
    np.testing.assert_allclose(*unknown_voices, atol=1e-6)


def test_somebody_who_is_their_own_baseline_is_still_heard_as_an_unknown_voice_would_be_in_part():
    model = relative_bundle("audio_only").model
    batch = collate([ModelItem(voice(1.2))], model.config, None)
    usual = voice_statistics(*model.encode_voice(batch))[0].detach().numpy()
    known = collate(
        [ModelItem(voice(1.2), baseline=Baseline(usual, 20.0, 0.0))], model.config, None
    )
    unknown, used_to = model(batch).logits, model(known).logits
    nothing = model.audio_head(torch.zeros(1, 12), torch.ones(1))
    own = model.config.own_view
    expected = own * nothing + (1 - own) * unknown
    torch.testing.assert_close(used_to, expected, atol=1e-3, rtol=0)


def test_shares_are_those_of_the_hierarchy():
    config = BaselineConfig(shrink_room=2.0, shrink_voice=4.0)
    actual = shares(torch.tensor([[0.0, 0.0], [4.0, 2.0], [12.0, 0.0]]), config)
    torch.testing.assert_close(actual, torch.tensor([[0.0, 0.0], [0.5, 0.25], [0.75, 0.0]]))


def test_known_and_unknown_voices_in_one_batch_answer_as_alone(engine):
    inputs = [
        EngineInput(voice(0.9, 1), WORDS, GOOD, voice=heard(engine, 5.0)),
        EngineInput(voice(2.0, 2), None, GOOD),
        EngineInput(None, WORDS, None, voice=heard(engine, 5.0)),
        EngineInput(voice(0.7, 3), None, GOOD, room=heard(engine, 20.0, 1)),
    ]
    for one, item in zip(engine.estimate_batch(inputs), inputs, strict=True):
        alone = engine.estimate(
            item.samples, item.transcript, item.quality, voice=item.voice, room=item.room
        )
        np.testing.assert_allclose(one.probabilities, alone.probabilities, atol=1e-5)


def test_an_estimate_says_what_the_voices_memory_should_learn(engine):
    estimate = engine.estimate(voice(1.2), WORDS, GOOD)
    batch = collate([ModelItem(voice(1.2))], engine.config, None)
    raw, mask = engine.model.encode_voice(batch)
    np.testing.assert_allclose(
        estimate.voice_statistics, voice_statistics(raw, mask)[0].detach().numpy(), atol=1e-4
    )
    again = engine.estimate(voice(1.2), WORDS, GOOD, voice=heard(engine, 9.0))
    np.testing.assert_allclose(again.voice_statistics, estimate.voice_statistics, atol=1e-6)
    assert estimate.baseline_weight == 1.0
    assert 0.0 < engine.estimate(voice(0.5), WORDS, GOOD).baseline_weight < 0.6
    silent = engine.estimate(None, WORDS)
    assert silent.voice_statistics is None
    assert silent.baseline_weight == 0.0


def test_a_network_without_baselines_has_nothing_to_learn():
    plain = EmotionEngine(tiny_model(tiny_config()))
    estimate = plain.estimate(voice(1.2), WORDS, GOOD)
    assert plain.baseline_config is None
    assert estimate.voice_statistics is None


def test_a_bundle_keeps_what_is_usual(tmp_path, engine):
    loaded = load_bundle(save_bundle(relative_bundle(), tmp_path / "relative"))
    np.testing.assert_array_equal(loaded.model.baseline.population, engine.population)
    assert loaded.config.baseline == engine.baseline_config
    expected = engine.estimate(voice(1.2), WORDS, GOOD, voice=heard(engine, 4.0))
    actual = EmotionEngine(loaded).estimate(voice(1.2), WORDS, GOOD, voice=heard(engine, 4.0))
    np.testing.assert_allclose(actual.probabilities, expected.probabilities, atol=5e-3)


def test_a_sound_that_is_no_speech_is_not_judged_and_teaches_nothing():
    bundle = relative_bundle()
    bundle.calibration = bundle.calibration.model_copy(update={"speech_threshold": 0.5})
    estimates = []
    for logit in (9.0, -9.0):
        torch.nn.init.zeros_(bundle.model.speech.weight)
        torch.nn.init.constant_(bundle.model.speech.bias, logit)
        estimates.append(EmotionEngine(bundle).estimate(voice(1.2), WORDS, GOOD))
    speech, sound = estimates
    assert speech.abstain_reason is AbstainReason.NONE
    assert speech.baseline_weight == 1.0
    assert sound.abstain_reason is AbstainReason.NOT_SPEECH
    assert sound.baseline_weight == 0.0
    written = EmotionEngine(bundle).estimate(None, WORDS)
    assert written.abstain_reason is AbstainReason.NONE


@pytest.fixture(scope="module")
def reader() -> EmotionEngine:
    context = ContextConfig(turns=2, turn_tokens=6, max_tokens=32)
    return EmotionEngine(tiny_model(tiny_config(text="bert", context=context)))


def test_what_was_said_before_changes_the_answer_to_the_words_alone(reader):
    alone = reader.estimate(voice(1.2), WORDS, GOOD)
    after = reader.estimate(voice(1.2), WORDS, GOOD, context=(SENTENCES[1],))
    assert np.abs(after.probabilities - alone.probabilities).max() > 1e-4
    heard_alone = reader.estimate(voice(1.2), None, GOOD)
    heard_after = reader.estimate(voice(1.2), None, GOOD, context=(SENTENCES[1],))
    np.testing.assert_array_equal(heard_after.probabilities, heard_alone.probabilities)


def test_turns_further_back_than_the_network_reads_change_nothing(reader):
    turns = (SENTENCES[1], SENTENCES[3])
    expected = reader.estimate(None, WORDS, context=turns).probabilities
    actual = reader.estimate(None, WORDS, context=(*turns, SENTENCES[4])).probabilities
    np.testing.assert_array_equal(actual, expected)


def test_the_utterance_is_never_cut_for_its_context():
    config = tiny_config(text="bert", context=ContextConfig(turns=3, turn_tokens=4, max_tokens=20))
    tokenizer = tiny_tokenizer()
    items = [
        ModelItem(None, text, context=tuple(SENTENCES)) for text in ("I am", " ".join(SENTENCES))
    ]
    batch = collate(items, config, tokenizer)
    whole = [len(tokenizer.encode(item.text, config.max_text_tokens).ids) for item in items]
    assert batch.text_mask.sum(1).tolist() == whole
    assert batch.context_mask.sum(1).tolist() == [
        15,
        0,
    ]  # three turns of four tokens and a separator


def test_turns_in_a_padded_batch_read_as_alone(reader):
    inputs = [
        EngineInput(None, Transcript(SENTENCES[0]), None, context=(SENTENCES[2],)),
        EngineInput(None, Transcript("I am"), None),
        EngineInput(None, Transcript("so happy"), None, context=tuple(SENTENCES[3:5])),
    ]
    for one, item in zip(reader.estimate_batch(inputs), inputs, strict=True):
        alone = reader.estimate(None, item.transcript, context=item.context)
        np.testing.assert_allclose(one.probabilities, alone.probabilities, atol=1e-5)


def test_only_the_utterances_words_are_explained(reader):
    explained = reader.estimate(
        voice(1.2), WORDS, GOOD, explain=True, context=(SENTENCES[1],)
    ).explanation
    assert [word.text for word in explained.words] == WORDS.text.split()
    np.testing.assert_allclose(np.abs(explained.word_attribution).sum(1), 1.0, atol=1e-5)
