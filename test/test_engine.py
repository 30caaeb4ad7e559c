# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The engine: one call from speech and words to an estimate, and to abstaining."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import SENTENCES, tiny_config, tiny_model, voice

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.engine import EmotionEngine, EngineInput
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.calibration import Calibration
from hri_emo_ros.types import (
    LABELS,
    AbstainReason,
    SignalQuality,
    Transcript,
    TranscriptStatus,
    Word,
)

GOOD = SignalQuality(snr_db=20.0, level_dbfs=-25.0, clipped_fraction=0.0, speech_fraction=0.9)
WORDS = Transcript("I am so happy", confidence=0.8)
CLIPS = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def engine(tiny_bundle):
    return EmotionEngine(tiny_bundle)


def test_an_estimate_is_complete_and_consistent(engine):
    engine.warm_up()
    estimate = engine.estimate(voice(1.2), WORDS, GOOD)
    assert estimate.labels == engine.labels == LABELS
    assert estimate.probabilities.sum() == pytest.approx(1.0, abs=1e-5)
    assert estimate.audio_weight + estimate.text_weight == pytest.approx(1.0)
    np.testing.assert_allclose(
        estimate.audio_weight_per_emotion + estimate.text_weight_per_emotion, 1.0, atol=1e-6
    )
    assert 0.0 < estimate.uncertainty <= 1.0
    assert estimate.duration == pytest.approx(1.2)
    assert set(estimate.latency) == {"audio_encoder", "text_encoder", "fusion"}
    assert all(seconds >= 0 for seconds in estimate.latency.values())
    assert estimate.model_id == engine.model_id
    assert estimate.model_id.startswith("tiny-")
    assert estimate.explanation is None
    assert estimate.abstain_reason is AbstainReason.NONE


def test_a_batch_gives_what_single_calls_give(engine):
    inputs = [
        EngineInput(voice(0.8, 1), WORDS, GOOD),
        EngineInput(voice(2.0, 2), None, GOOD),
        EngineInput(None, Transcript(SENTENCES[1])),
        EngineInput(None, None),
    ]
    for one, item in zip(engine.estimate_batch(inputs), inputs, strict=True):
        alone = engine.estimate(item.samples, item.transcript, item.quality)
        np.testing.assert_allclose(one.probabilities, alone.probabilities, atol=1e-5)
        assert one.audio_weight == pytest.approx(alone.audio_weight, abs=1e-4)
        assert one.abstain_reason == alone.abstain_reason


def test_a_voice_that_was_heard_ahead_is_not_encoded_again(engine, monkeypatch):
    heard = voice(1.5)
    at_once = engine.estimate(heard.copy(), WORDS, GOOD)
    encoded = []
    encode = engine.runtime.voice
    monkeypatch.setattr(
        engine.runtime, "voice", lambda batch: encoded.append(batch) or encode(batch)
    )
    engine.hear(heard, GOOD)
    ahead = engine.estimate(heard, WORDS, GOOD)
    assert len(encoded) == 1
    np.testing.assert_array_equal(ahead.probabilities, at_once.probabilities)
    assert ahead.latency["audio_encoder"] > 0  # what it took is told all the same


def test_an_absent_modality_weighs_nothing(engine):
    assert engine.estimate(voice(1.0), None, GOOD).audio_weight == 1.0
    assert engine.estimate(voice(1.0), Transcript("  "), GOOD).audio_weight == 1.0
    assert engine.estimate(None, WORDS).text_weight == 1.0


@pytest.mark.parametrize(
    ("samples", "transcript", "quality", "reason"),
    [
        (None, None, None, AbstainReason.NO_SPEECH),
        (np.zeros(0, np.float32), Transcript(""), None, AbstainReason.NO_SPEECH),
        (voice(1.0), None, SignalQuality(0.0, -80.0, 0.0, 0.9), AbstainReason.NO_SPEECH),
        (voice(1.0), None, SignalQuality(0.0, -30.0, 0.0, 0.0), AbstainReason.NO_SPEECH),
        (voice(0.2), None, GOOD, AbstainReason.TOO_SHORT),
        (voice(2.0), None, SignalQuality(20.0, -25.0, 0.0, 0.1), AbstainReason.TOO_SHORT),
        (voice(1.0), None, SignalQuality(20.0, -3.0, 0.3, 0.9), AbstainReason.CLIPPED),
        (voice(1.0), None, SignalQuality(-15.0, -25.0, 0.0, 0.9), AbstainReason.TOO_NOISY),
        (voice(1.0), WORDS, SignalQuality(-15.0, -25.0, 0.0, 0.9), AbstainReason.NONE),
        (voice(1.0), WORDS, SignalQuality(float("nan"), -25.0, 0.0, 0.9), AbstainReason.NONE),
    ],
)
def test_it_abstains_for_the_stated_reason(engine, samples, transcript, quality, reason):
    estimate = engine.estimate(samples, transcript, quality)
    assert estimate.abstain_reason is reason
    assert np.isfinite(estimate.probabilities).all()


def test_nothing_at_all_is_uniform_and_uncertain(engine):
    estimate = engine.estimate()
    np.testing.assert_allclose(estimate.probabilities, 1 / 7, atol=1e-6)
    assert estimate.uncertainty == pytest.approx(1.0)
    assert estimate.audio_weight == 0.5


def test_words_speak_alone_where_the_audio_holds_no_voice(engine):
    silent = SignalQuality(float("nan"), -90.0, 0.0, 0.0)
    with_silence = engine.estimate(np.zeros(16_000, np.float32), WORDS, silent)
    alone = engine.estimate(None, WORDS)
    np.testing.assert_allclose(with_silence.probabilities, alone.probabilities, atol=1e-6)
    assert with_silence.text_weight == 1.0


@pytest.mark.parametrize("status", [TranscriptStatus.REJECTED, TranscriptStatus.FAILED])
def test_words_that_are_not_to_be_trusted_are_carried_and_not_used(engine, status):
    clip = voice(1.5)
    refused = Transcript(WORDS.text, status=status)
    estimate = engine.estimate(clip, refused, GOOD)
    alone = engine.estimate(clip, None, GOOD)
    np.testing.assert_array_equal(estimate.probabilities, alone.probabilities)
    assert estimate.text_weight == 0.0
    assert estimate.transcript is refused


def test_quality_is_measured_where_nobody_gave_it(engine):
    speech = engine.estimate(read_audio(CLIPS / "lj_LJ001-0008.flac"))
    assert speech.quality is not None
    assert speech.quality.speech_fraction > 0.3
    noise = np.random.default_rng(0).normal(0, 0.05, 16_000).astype(np.float32)
    assert engine.estimate(noise).abstain_reason is AbstainReason.NO_SPEECH


def test_calibration_and_thresholds_are_applied():
    bundle = tiny_model(tiny_config())
    plain = EmotionEngine(bundle).estimate(None, WORDS).probabilities
    bundle.calibration = Calibration.identity(7).model_copy(
        update={"temperature_text": [1e-2], "thresholds": [0.0] + [1.1] * 6}
    )
    sharp = EmotionEngine(bundle).estimate(None, WORDS)
    assert sharp.probabilities.max() > plain.max()
    assert sharp.above_threshold.tolist() == [True] + [False] * 6


def test_low_confidence_abstains_by_the_bundles_level_unless_a_parameter_says_otherwise():
    bundle = tiny_model(tiny_config())
    bundle.calibration = Calibration.identity(7).model_copy(update={"abstain_confidence": 0.999})
    assert EmotionEngine(bundle).estimate(None, WORDS).abstain_reason is (
        AbstainReason.LOW_CONFIDENCE
    )
    own = EmotionEngine(bundle, parameters={"abstain.min_confidence": 0.01})
    assert own.estimate(None, WORDS).abstain_reason is AbstainReason.NONE


def test_multi_label_models_give_independent_probabilities():
    engine = EmotionEngine(tiny_model(tiny_config(objective="multi_label")))
    estimate = engine.estimate(voice(1.0), WORDS, GOOD)
    assert estimate.probabilities.sum() != pytest.approx(1.0, abs=1e-3)
    assert 0.0 <= estimate.uncertainty <= 1.0


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (np.zeros((100, 2), np.float32), "must be mono"),
        (np.zeros(16_000, np.int16), "must be mono float32"),
        (np.full(16_000, np.nan, np.float32), "NaN"),
    ],
)
def test_samples_that_cannot_be_right_are_refused(engine, samples, sentence):
    with pytest.raises(HriEmoError, match=sentence):
        engine.estimate(samples, None, GOOD)


def test_wrong_devices_and_parameters_are_refused(tiny_bundle):
    with pytest.raises(HriEmoError, match=r"device is 'tpu'.*model\.device"):
        EmotionEngine(tiny_bundle, device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(HriEmoError, match="finds no GPU"):
            EmotionEngine(tiny_bundle, device="cuda")
    with pytest.raises(HriEmoError, match=r"abstain\.min_speech"):
        EmotionEngine(tiny_bundle, parameters={"abstain.min_speech": -1.0})


def test_threads_may_call_at_the_same_time(engine):
    clips = [voice(0.5 + 0.3 * i, i) for i in range(4)]
    expected = [engine.estimate(clip, WORDS, GOOD).probabilities for clip in clips]
    got: list = [None] * 4

    def call(index: int) -> None:
        for _ in range(3):
            got[index] = engine.estimate(clips[index], WORDS, GOOD).probabilities

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(expected, got, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_explanation_comes_only_on_request_and_does_not_change_the_answer(engine):
    words = (Word("I'm", 0.1, 0.3, 0.9), Word("happy", 0.3, 0.8, 0.7))
    transcript = Transcript("I'm happy", words, 0.8)
    clip = voice(1.0)
    plain = engine.estimate(clip, transcript, GOOD)
    explained = engine.estimate(clip, transcript, GOOD, explain=True)
    np.testing.assert_allclose(plain.probabilities, explained.probabilities, atol=1e-5)
    explanation = explained.explanation
    assert explanation.words == words
    frames = explanation.moment_attribution.shape[1]
    assert frames * explanation.moment_period == pytest.approx(1.0, abs=0.1)
    np.testing.assert_allclose(np.abs(explanation.word_attribution).sum(1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.abs(explanation.moment_attribution).sum(1), 1.0, atol=1e-5)
    assert explanation.alignment.shape == (2, frames)
    np.testing.assert_allclose(explanation.alignment.sum(1), 1.0, atol=1e-5)
