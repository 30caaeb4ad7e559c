# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Constructed pairs: labels, what ruining does to the target, and that they are called constructed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hri_emo_ros.data.corpus import Item
from hri_emo_ros.data.labels import one_hot
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.augment import Conditions, Seeds
from hri_emo_ros.training.pairs import Example, PairMaker, Sampler, blend, from_item
from hri_emo_ros.training.recipe import AugmentSection, Recipe
from hri_emo_ros.types import LABELS

NEUTRAL, HAPPY, SAD = (LABELS.index(name) for name in ("neutral", "happy", "sad"))


def voice(label: str, number: int = 0) -> Item:
    name = f"v/{label}{number}"
    return Item(name, "v", label, one_hot(label), speaker="s", audio=Path("x.wav"))


def text(label: str, number: int = 0) -> Item:
    return Item(f"t/{label}{number}", "t", label, one_hot(label), text=f"some {label} words")


VOICES = [voice(label, k) for label in LABELS for k in range(4)]
TEXTS = [text(label, k) for label in LABELS for k in range(4)]


def test_pairs_have_the_labels_of_their_kind_and_are_marked_constructed():
    pairs = PairMaker(VOICES, TEXTS).draw(400, np.random.default_rng(0))
    assert all(pair.constructed for pair in pairs)
    assert set(Counter(pair.pairing for pair in pairs)) == {
        "matched", "neutral_voice", "neutral_words", "conflicting",
    }  # fmt: skip
    for pair in pairs:
        heard, read = np.argmax(pair.voice_target), np.argmax(pair.words_target)
        if pair.pairing == "matched":
            assert heard == read
        elif pair.pairing == "neutral_voice":
            assert heard == NEUTRAL != read
        elif pair.pairing == "neutral_words":
            assert read == NEUTRAL != heard
        else:
            assert heard != read
            assert NEUTRAL not in (heard, read)


def test_every_voice_is_used_before_any_is_used_again():
    pairs = PairMaker(VOICES, TEXTS).draw(len(VOICES), np.random.default_rng(0))
    assert {pair.voice.id for pair in pairs} == {item.id for item in VOICES}


def test_texts_with_several_labels_are_not_used():
    mixed = [Item("t/m", "t", "both", tuple([0.5, 0.5] + [0.0] * 5), text="both")]
    pairs = PairMaker(VOICES, TEXTS + mixed).draw(200, np.random.default_rng(0))
    assert "t/m" not in {pair.words.id for pair in pairs}


def test_pairs_need_both_sides():
    with pytest.raises(HriEmoError, match="0 clips and 28 texts"):
        PairMaker([], TEXTS)


def conflict() -> Example:
    return Example(voice("sad"), text("happy"), one_hot("sad"), one_hot("happy"), 0.5, True,
                   "conflicting")  # fmt: skip


def test_the_target_of_a_conflict_follows_what_can_be_trusted():
    both, deaf = blend(conflict(), 1.0, 1.0), blend(conflict(), 0.0, 1.0)
    assert (both[SAD], both[HAPPY]) == (0.5, 0.5)
    assert deaf[HAPPY] == 1.0
    assert blend(conflict(), 1.0, 0.0)[SAD] == 1.0
    assert all(sum(target) == pytest.approx(1.0) for target in (both, deaf))


def test_an_emotion_stands_beside_neutral_words_unless_it_cannot_be_heard():
    pair = Example(voice("sad"), text("neutral"), one_hot("sad"), one_hot("neutral"), 0.9, True,
                   "neutral_words")  # fmt: skip
    assert blend(pair, 1.0, 1.0)[SAD] == 1.0
    assert blend(pair, 0.0, 1.0)[NEUTRAL] == 1.0


def conditions(jitter: bool = False, **settings) -> Conditions:
    section = AugmentSection.model_validate(settings)
    texts = [item.text for item in TEXTS]
    return Conditions(section, texts, TEXTS, {"v/sad0": 35.0}, ["babble"], jitter)


def test_examples_without_noise_and_word_errors_are_left_alone():
    state = conditions().state(from_item(voice("sad")), True, error_rate=0.0)
    assert state.target == one_hot("sad")
    assert state.voice
    assert not state.words
    assert not state.noise


def test_the_network_is_told_about_the_noise_that_is_added():
    quiet = conditions().state(conflict(), True, -10.0, 0.0, noise="babble")
    assert (quiet.noise, quiet.noise_snr_db) == ("babble", -10.0)
    assert quiet.told_snr_db == pytest.approx(-10.0, abs=0.01)
    assert quiet.target[HAPPY] > 0.6
    clean = conditions().state(conflict(), True, error_rate=0.0)
    assert clean.noise == ""
    assert clean.told_snr_db == pytest.approx(35.0)
    gone = conditions().state(conflict(), False, -10.0, 0.0, noise="babble")
    assert gone.noise == ""
    assert np.isnan([gone.noise_snr_db, gone.told_snr_db]).all()


def test_in_training_the_network_is_told_as_a_robot_measures():
    draw = conditions(jitter=True)
    rng = np.random.default_rng(0)
    told = np.array(
        [
            draw.state(conflict(), True, 0.0, 0.0, rng=rng, noise="babble").told_snr_db
            for _ in range(300)
        ]
    )
    assert 0.03 < np.isnan(told).mean() < 0.2
    assert 2.0 < np.nanstd(told) < 4.0


def test_without_noise_at_hand_none_is_added():
    silent = Conditions(AugmentSection.model_validate({"noise": {"p": 1.0}}), [], TEXTS, {})
    state = silent(conflict(), np.random.default_rng(0))
    assert state.noise == ""
    assert np.isnan(state.noise_snr_db)


def test_a_mismatched_transcript_has_low_confidence_and_leaves_the_voice_to_decide():
    rng = np.random.default_rng(3)
    state = conditions().state(conflict(), True, mismatched=True, rng=rng)
    assert state.text in {item.text for item in TEXTS}
    assert state.confidence <= 0.5
    assert state.target[SAD] == 1.0


def test_never_are_both_modalities_dropped_and_everything_is_drawn():
    draw = conditions(drop={"audio": 0.4, "text": 0.4}, noise={"p": 0.5}, words={"errors": 0.5})
    rng = np.random.default_rng(0)
    noises = [draw.noise(Seeds(k, k, k)) for k in range(200)]
    states = [draw(conflict(), rng, noise) for noise in noises]
    assert all(state.voice or state.words for state in states)
    assert {(s.voice, s.words) for s in states} == {(True, True), (True, False), (False, True)}
    told = [s.told_snr_db for s in states if np.isfinite(s.noise_snr_db)]
    assert min(told) < 5.0 < max(told)


def test_a_voice_without_words_is_never_dropped():
    assert conditions(drop={"audio": 1.0})(from_item(voice("sad")), np.random.default_rng(0)).voice


def test_precomputed_words_are_not_lost_to_a_mismatched_transcript():
    features = np.zeros((3, 4), np.float32)
    item = Item("m/1", "m", "sad", one_hot("sad"), audio_features=features, text_features=features)
    state = conditions(words={"mismatched": 1.0})(from_item(item), np.random.default_rng(0))
    assert state.voice and state.words


def test_an_epoch_shows_constructed_pairs_and_recorded_ones_and_repeats():
    recorded = [
        Item(f"r/{k}", "r", "sad", one_hot("sad"), audio=Path("x.wav"), text="so", conversation="d")
        for k in range(6)
    ]
    recipe = Recipe.model_validate(
        {"pairs": {"per_epoch": 20}, "optim": {"batch_size": 8},
         "data": {"corpora": [{"name": "r", "weight": 2.0}]}}
    )  # fmt: skip
    epoch = Sampler(recipe, [*VOICES, *TEXTS, *recorded], {}).epoch(0)
    assert epoch == Sampler(recipe, [*VOICES, *TEXTS, *recorded], {}).epoch(0)
    shown = Counter(example.constructed for batch in epoch for example in batch)
    assert shown == {True: 20, False: 12}
    assert all(e.item.corpus == "r" for batch in epoch for e in batch if not e.constructed)
