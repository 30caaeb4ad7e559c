# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Explanations point at what matters, and the picture gets drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from deletion import deletion_check, deletion_masks, without_moments, without_words
from tiny_models import SENTENCES, tiny_config, tiny_model, voice

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.cli.main import main
from hri_emo_ros.engine import EmotionEngine, EngineInput
from hri_emo_ros.model.batch import collate
from hri_emo_ros.model.items import ModelItem
from hri_emo_ros.model.losses import LossConfig, compute_losses
from hri_emo_ros.types import SignalQuality, Transcript, Word

GOOD = SignalQuality(20.0, -25.0, 0.0, 1.0)
CLIPS = Path(__file__).parent / "data"


def good_or_bad(label, rng):
    """Six words of which one tells the class."""
    words = list(
        rng.choice(
            [
                "I",
                "am",
                "so",
                "to",
                "see",
                "you",
                "this",
                "what",
                "a",
                "that",
                "was",
                "of",
                "the",
                "on",
                "table",
            ],
            6,
        )
    )
    words.insert(
        int(rng.integers(7)), (("happy", "wonderful"), ("angry", "sad"))[label][rng.integers(2)]
    )
    return " ".join(words)


def trained_on_words(steps):
    config = tiny_config("text_only", labels=("first", "second"), dropout=0.0)
    config.text.config["hidden_dropout_prob"] = 0.0
    bundle = tiny_model(config)
    rng = np.random.default_rng(0)
    optimiser = torch.optim.AdamW(bundle.model.parameters(), 5e-3)
    bundle.model.train()
    for _ in range(steps):
        labels = rng.integers(0, 2, 12)
        items = [ModelItem(None, good_or_bad(k, rng)) for k in labels]
        out = bundle.model(collate(items, config, bundle.tokenizer))
        optimiser.zero_grad()
        compute_losses(out, torch.from_numpy(labels), "single_label", LossConfig())[
            "total"
        ].backward()
        optimiser.step()
    return EmotionEngine(bundle)


def test_muting_the_moments_it_points_at_changes_the_answer_more_than_muting_others():
    clips = [path for path in sorted(CLIPS.glob("*.flac")) if not path.name.startswith("lj_")]
    items = [EngineInput(read_audio(path), None, GOOD) for path in clips]
    result = deletion_check(EmotionEngine("", threads=1), items)
    assert result.moments_count == len(clips) > 5
    assert result.moments_attributed > 1.5 * result.moments_random
    assert np.isnan(result.words_attributed)


def test_leaving_out_the_words_it_points_at_changes_the_answer_more_than_leaving_out_others():
    rng = np.random.default_rng(5)
    items = [EngineInput(None, Transcript(good_or_bad(k % 2, rng))) for k in range(16)]
    result = deletion_check(trained_on_words(60), items)
    assert result.words_count == 16
    assert result.words_attributed > result.words_random + 0.5


def test_random_deletion_removes_as_much_in_the_same_pattern():
    attribution = np.random.default_rng(0).normal(size=50).astype(np.float32)
    most, other = deletion_masks(attribution, 0.1, np.random.default_rng(1))
    assert most.sum() == other.sum() == 5
    assert attribution[most].min() > attribution[~most].max()
    assert not np.array_equal(most, other)


def test_removal_mutes_frames_and_drops_words():
    removed = np.array([False, True, False])
    muted = without_moments(np.ones(3 * 640, np.float32), removed, 0.04, 3)
    assert muted.reshape(3, 640).mean(1).tolist() == [1, 0, 1]
    words = tuple(Word(text, 0, 0, 1) for text in ["not", "so", "good"])
    assert without_words(words, removed) == "not good"


@pytest.mark.parametrize("head", ["hri_emo", "late_fusion", "audio_only", "text_only"])
@pytest.mark.parametrize("features", [False, True])
def test_every_head_explains_whatever_is_present(head, features):
    if features:
        engine = EmotionEngine(tiny_model(tiny_config(head, "wavlm", "roberta")))
    else:
        engine = EmotionEngine(tiny_model(tiny_config(head)))
    for samples, text in (
        (voice(0.8), SENTENCES[0]),
        (voice(0.8), ""),
        (None, SENTENCES[0]),
        (None, ""),
    ):
        estimate = engine.estimate(samples, Transcript(text), GOOD, explain=True)
        explanation = estimate.explanation
        hears = samples is not None and head != "text_only"
        reads = bool(text) and head != "audio_only"
        assert (explanation.moment_attribution.shape[1] > 0) == hears
        assert len(explanation.words) == (len(text.split()) if reads else 0)
        assert np.isfinite(explanation.moment_attribution).all()
        assert np.isfinite(explanation.word_attribution).all()


@pytest.mark.parametrize(
    "text", [SENTENCES[0], "", " ".join(SENTENCES * 3)], ids=["short", "none", "long"]
)
def test_the_command_draws_a_picture(text, tiny_bundle, tmp_path, capsys):
    out = tmp_path / "why.png"
    clip = CLIPS / "lj_LJ001-0008.flac"
    assert (
        main(
            ["explain", str(clip), "--text", text, "--bundle", str(tiny_bundle), "--out", str(out)]
        )
        == 0
    )
    assert out.read_bytes().startswith(b"\x89PNG")
    assert str(out) in capsys.readouterr().out


def test_the_command_says_what_is_wrong(tiny_bundle, tmp_path, capsys):
    clip = str(CLIPS / "lj_LJ001-0008.flac")
    common = ["--text", "hi", "--bundle", str(tiny_bundle), "--out"]
    assert main(["explain", "nowhere.wav", *common, str(tmp_path / "a.png")]) == 2
    assert "nowhere.wav" in capsys.readouterr().err
    assert main(["explain", clip, *common, str(tmp_path / "no" / "folder" / "a.png")]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["explain", clip, *common, str(tmp_path / "a.xyz")]) == 2
    assert "a.xyz" in capsys.readouterr().err


def test_of_more_than_the_encoder_hears_the_moments_are_those_that_it_heard(tmp_path: Path) -> None:
    engine = EmotionEngine(tiny_model(tiny_config(max_audio_seconds=2.0)))
    samples, words = voice(6.0, 3), Transcript("I am so happy to see you")
    # As many seconds of speech in both, which the network is told too.
    whole = engine.estimate(samples, words, replace(GOOD, speech_fraction=1 / 3), explain=True)
    heard = engine.estimate(samples[-32000:], words, GOOD, explain=True)
    assert whole.explanation is not None and heard.explanation is not None
    period = whole.explanation.moment_period
    moments = whole.explanation.moment_attribution
    assert moments.shape[1] * period == pytest.approx(6.0, abs=2 * period)
    length = heard.explanation.moment_attribution.shape[1]
    assert not moments[:, :-length].any()
    np.testing.assert_allclose(
        moments[:, -length:], heard.explanation.moment_attribution, atol=1e-4
    )
    assert not whole.explanation.alignment[:, :-length].any()
    np.testing.assert_allclose(whole.explanation.alignment.sum(1), 1.0, atol=1e-4)
