# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Training against how a voice usually sounds: what is drawn, what is measured, and that figures say what was known."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import corpus_trees
import numpy as np
import pytest
import torch
from tiny_models import COMPACT_AUDIO

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.data.clip_facts import samples_of
from hri_emo_ros.data.heard import Crowd, pick
from hri_emo_ros.data.sounds import other_sound
from hri_emo_ros.model.baseline import voice_statistics
from hri_emo_ros.model.batch import collate
from hri_emo_ros.model.bundle import load_bundle
from hri_emo_ros.model.items import ModelItem
from hri_emo_ros.model.losses import LossConfig, compute_losses
from hri_emo_ros.model.output import ModelOutput
from hri_emo_ros.training.known import KNOWN
from hri_emo_ros.training.loop import Trainer
from hri_emo_ros.training.recipe import parse_recipe
from hri_emo_ros.training.voices import Rooms

RECIPE = {
    "name": "voice",
    "data": {"corpora": [{"name": "ravdess", "path": "ravdess"}], "fold": 2},
    "model": {"head": "audio_only", "voice_hidden": 16, "voice_components": [8, 8], "baseline": {},
              "audio": {"kind": "compact", "config": COMPACT_AUDIO, "unfreeze_last_n_layers": 0}},
    "augment": {"versions": 1, "waveform": {"speed": 0.5}, "noise": {"p": 0.5}},
    "optim": {"epochs": 2, "batch_size": 16},
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    corpus_trees.ravdess(folder / "ravdess", actors=(1, 11, 20, 21, 4, 10), takes=1)
    return folder


@pytest.fixture(scope="module")
def trainer(root, tmp_path_factory) -> Trainer:
    return Trainer(parse_recipe(RECIPE), root, tmp_path_factory.mktemp("runs") / "voice")


def test_a_share_of_what_was_heard_is_neutral_as_far_as_there_is_enough():
    pool = np.arange(20)
    neutral = pool < 8
    rng = np.random.default_rng(0)
    drawn = pick(rng, pool, neutral, 10, 0.7)
    assert len(set(drawn.tolist())) == 10
    assert neutral[drawn].sum() == 7
    assert neutral[pick(rng, pool, neutral, 16, 0.7)].sum() == 8
    assert sorted(pick(rng, pool, neutral, None, 0.7)) == pool.tolist()
    assert len(pick(rng, pool[:3], neutral[:3], 10, None)) == 3


def test_a_clip_is_in_nobody_elses_baseline_but_its_voices_and_its_rooms():
    crowd = Crowd(["a", "a", "b", "", "c"], ["x", "x", "x", "x", "y"], np.zeros(5, bool))
    assert crowd.own(0).tolist() == [1]
    assert crowd.others(0).tolist() == [2]
    assert crowd.own(3).tolist() == []
    assert crowd.others(4).tolist() == []


def test_a_few_speakers_share_a_room_in_each_version_and_other_ones_in_the_next(trainer):
    rooms = Rooms(trainer.data.train, 0)
    first, second = ({item.speaker: rooms(item, v) for item in trainer.data.train} for v in (1, 2))
    assert max(Counter(first.values()).values()) <= 4
    assert {rooms(item, 0) for item in trainer.data.train} == {"ravdess"}
    a, b = (next(i for i in trainer.data.train if i.speaker == s) for s in list(first)[:2])
    assert (rooms.seeds(a, 1).room == rooms.seeds(b, 1).room) == (
        first[a.speaker] == first[b.speaker]
    )
    assert rooms.seeds(a, 1).voice != rooms.seeds(a, 2).voice
    assert first.keys() == second.keys()


def test_the_population_is_measured_on_training_voices_and_ships_with_the_model(trainer):
    states, items = trainer.maker.sources.states, trainer.data.train
    speakers = {i.speaker for i in items}
    means = [
        np.mean([states.statistics(i, 0) for i in items if i.speaker == s], axis=0)
        for s in speakers
    ]
    population = trainer.network.model.baseline.population.numpy()
    np.testing.assert_allclose(population, np.mean(means, axis=0), atol=1e-3)
    assert (trainer.network.model.baseline.deviation > 0).all()


def test_baselines_are_drawn_in_any_number_and_repeat(trainer):
    known, item = trainer.maker.sources.known, trainer.data.train[0]
    rng = np.random.default_rng(0)
    drawn = [known.draw(item, 0, rng) for _ in range(200)]
    assert {0.0, 1.0} < {b.voice_count for b in drawn}
    assert max(b.voice_count for b in drawn) == 6.0  # of seven other clips: `most_of_voice`
    assert 0.15 < np.mean([b.voice_count == 0 for b in drawn]) < 0.4
    batch, again = (trainer.maker.train(trainer.sampler.epoch(0)[0], 0, 0) for _ in range(2))
    torch.testing.assert_close(batch.model.baseline, again.model.baseline, equal_nan=True)


def test_statistics_alone_give_the_answer_that_the_clip_gives(trainer, tmp_path):
    """The trainer's short cut, which reads no sequence, and the robot's way agree."""
    result = trainer.run()
    bundle = load_bundle(trainer.folder / "bundle")
    assert set(result["by_known"]) == set(KNOWN)
    stored = np.load(trainer.folder / "validation 3.npz")
    items = {i.id: i for i in trainer.data.validation}
    known = trainer.maker.sources.known_validation
    given = [
        ModelItem(samples=read_audio(items[i].audio), baseline=known.stated(items[i], 3, 0))
        for i in stored["ids"]
    ]
    logits = bundle.model(collate(given, bundle.config, None)).logits.numpy()
    np.testing.assert_allclose(logits, stored["logits"], atol=0.1)
    assert stored["shares"][:, 0] == pytest.approx(3 / 7)


def test_the_temperature_is_fitted_to_what_was_known(trainer):
    result = trainer.run(resume=True)
    assert 1.0 not in result["calibration"]["known_audio"]


def test_a_label_that_a_corpus_lacks_is_not_held_against_its_voices():
    logits = torch.zeros(2, 7, requires_grad=True)
    present, absent = torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)
    output = ModelOutput(logits, logits, torch.zeros(2, 7), torch.ones(2, 1), present, absent)
    allowed = torch.ones(2, 7, dtype=torch.bool)
    allowed[0, 6] = False
    targets = torch.eye(7)[[1, 1]]
    config = LossConfig(own_labels=True)
    compute_losses(output, targets, "single_label", config, allowed=allowed)["total"].backward()
    assert logits.grad[0, 6] == 0.0
    assert logits.grad[1, 6] > 0.0
    assert logits.grad[0, 1] < 0.0


def test_speech_is_told_from_other_sounds_in_training_already(trainer):
    states, model = trainer.maker.sources.states, trainer.network.model
    rng = np.random.default_rng(7)
    clips = [samples_of(item) for item in trainer.data.train[:12]]
    sounds = [
        torch.from_numpy(states.encode(other_sound(clip, rng)).astype(np.float32)) for clip in clips
    ]
    heard = [torch.from_numpy(states.statistics(item, 0)) for item in trainer.data.train]
    other = [voice_statistics(s[None], torch.ones(1, len(s), dtype=torch.bool))[0] for s in sounds]
    baseline = model.baseline

    def logit(statistics: list[torch.Tensor]) -> torch.Tensor:
        _, absolute = baseline.compare(torch.stack(statistics), baseline.population)
        return model.speech(absolute).detach().squeeze(1)

    assert (logit(heard) > 0).float().mean() > 0.8
    assert (logit(other) < 0).float().mean() > 0.6


def test_other_sounds_are_of_many_kinds_and_repeat_with_their_generator(trainer):
    clip = samples_of(trainer.data.train[0])
    sounds = [other_sound(clip, np.random.default_rng(k)) for k in range(25)]
    np.testing.assert_array_equal(sounds[3], other_sound(clip, np.random.default_rng(3)))
    assert len({len(sound) for sound in sounds}) > 20
    for sound in sounds:
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() == pytest.approx(0.3, abs=1e-5)
