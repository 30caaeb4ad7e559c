"""A voice is judged against how it usually sounds, and words by what was said before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import SENTENCES, tiny_config, tiny_model, tiny_tokenizer, voice

from hri_emo_ros.engine import EmotionEngine, EngineInput
from hri_emo_ros.model.baseline import CLAMP, RelativeStates, voice_statistics
from hri_emo_ros.model.batch import ModelItem, collate
from hri_emo_ros.model.bundle import Bundle, load_bundle, save_bundle
from hri_emo_ros.model.config import ContextConfig
from hri_emo_ros.types import SignalQuality, Transcript
from hri_emo_ros.voices.baseline import Baseline, BaselineConfig, Heard

GOOD = SignalQuality(snr_db=20.0, level_dbfs=-25.0, clipped_fraction=0.0, speech_fraction=0.9)
WORDS = Transcript("I am so happy", confidence=0.8)


def relative_bundle(head: str = "hri_emo", members: int = 2) -> Bundle:
    """A tiny network with baselines that has learnt what is usual and that counts matter."""
    bundle = tiny_model(tiny_config(head, baseline=BaselineConfig(), voice_members=members))
    torch.manual_seed(1)
    size = 2 * bundle.model.baseline.size
    bundle.model.baseline.set(torch.randn(size), torch.rand(size) + 0.5)
    for member in bundle.model.audio_head.members:
        torch.nn.init.normal_(member.known.weight)
        torch.nn.init.normal_(member.sure.weight, std=0.3)
    return bundle


@pytest.fixture(scope="module")
def engine() -> EmotionEngine:
    return EmotionEngine(relative_bundle())


def heard(engine: EmotionEngine, count: float, seed: int = 0) -> Heard:
    mean = np.random.default_rng(seed).normal(size=len(engine.population)).astype(np.float32)
    return Heard(mean * np.float32(count), count)


def test_an_utterance_that_is_its_own_baseline_differs_in_nothing():
    module = RelativeStates(8)
    module.set(torch.zeros(16), torch.rand(16) + 0.5)
    states = torch.randn(2, 11, 8)
    mask = torch.arange(11)[None] < torch.tensor([[11], [6]])
    usual = voice_statistics(states, mask)
    difference = module.statistics(module(states, mask, usual), mask, usual)
    torch.testing.assert_close(difference, torch.zeros(2, 16), atol=1e-3, rtol=0)


def test_differences_count_in_deviations_of_one_voice_and_are_bounded():
    module = RelativeStates(4)
    module.set(torch.zeros(8), torch.full((8,), 0.5))
    states, mask = torch.randn(1, 9, 4), torch.ones(1, 9, dtype=torch.bool)
    usual = voice_statistics(states, mask)
    louder = module.statistics(module(states + 1.0, mask, usual), mask, usual)
    torch.testing.assert_close(louder[:, :4], torch.full((1, 4), 2.0), atol=1e-4, rtol=0)
    far = module.statistics(module(states + 100.0, mask, usual), mask, usual)
    assert float(far.abs().max()) == CLAMP


def test_of_a_stranger_the_population_is_expected(engine):
    stranger = engine.estimate(voice(1.2), WORDS, GOOD)
    average = Baseline(engine.population, 0.0, 0.0)
    batch = collate([ModelItem(voice(1.2), baseline=average)], engine.bundle.config, None)
    nobody = collate([ModelItem(voice(1.2))], engine.bundle.config, None)
    torch.testing.assert_close(
        engine.model(batch).audio_logits, engine.model(nobody).audio_logits, atol=1e-5, rtol=0
    )
    nothing = Heard.nothing(len(engine.population))
    same = engine.estimate(voice(1.2), WORDS, GOOD, voice=nothing, room=nothing)
    np.testing.assert_allclose(same.probabilities, stranger.probabilities, atol=1e-6)


@pytest.mark.parametrize("level", ["voice", "room"])
def test_what_was_heard_before_changes_the_answer_to_the_voice(engine, level):
    stranger = engine.estimate(voice(1.2), None, GOOD)
    known = engine.estimate(voice(1.2), None, GOOD, **{level: heard(engine, 8.0)})
    assert np.abs(known.probabilities - stranger.probabilities).max() > 0.01
    words = engine.estimate(None, WORDS, None, **{level: heard(engine, 8.0)})
    np.testing.assert_allclose(words.probabilities, engine.estimate(None, WORDS).probabilities)


def test_how_much_was_heard_matters_beside_its_mean(engine):
    config = engine.bundle.config
    answers = []
    for count in (0.0, 3.0, 30.0):
        item = ModelItem(voice(1.2), baseline=Baseline(engine.population, count, 0.0))
        answers.append(engine.model(collate([item], config, None)).audio_logits)
    assert not torch.allclose(answers[0], answers[1], atol=1e-3)
    assert not torch.allclose(answers[1], answers[2], atol=1e-3)


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
    batch = collate([ModelItem(voice(1.2))], engine.bundle.config, None)
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
    loaded = load_bundle(save_bundle(engine.bundle, tmp_path / "relative"))
    np.testing.assert_array_equal(loaded.model.baseline.population, engine.population)
    assert loaded.config.baseline == engine.baseline_config
    expected = engine.estimate(voice(1.2), WORDS, GOOD, voice=heard(engine, 4.0))
    actual = EmotionEngine(loaded).estimate(voice(1.2), WORDS, GOOD, voice=heard(engine, 4.0))
    np.testing.assert_allclose(actual.probabilities, expected.probabilities, atol=5e-3)


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
