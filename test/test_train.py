# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Training end to end on made-up corpora in official layouts."""

from __future__ import annotations

import csv
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import corpus_trees
import numpy as np
import pytest
import torch
import yaml
from tiny_models import (
    AUDIO_CONFIGS,
    COMPACT_AUDIO,
    TEXT_CONFIGS,
    tiny_config,
    tiny_model,
    tiny_text_encoder,
)

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.cli.dry_run import dry_run, random_encoder
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.batch import collate
from hri_emo_ros.model.bundle import Bundle, load_bundle, save_bundle
from hri_emo_ros.model.calibration import Calibration
from hri_emo_ros.model.config import VoiceSpec
from hri_emo_ros.model.items import ModelItem
from hri_emo_ros.training.card import write_card
from hri_emo_ros.training.items import load_data
from hri_emo_ros.training.loop import Trainer
from hri_emo_ros.training.optim import make_optimizer
from hri_emo_ros.training.predictions import Predictions, intervals, scores_by_corpus
from hri_emo_ros.training.recipe import OptimSection, Recipe, parse_recipe
from hri_emo_ros.training.voices import VoiceStates

VOICE = {
    "name": "voice",
    "data": {"corpora": [{"name": "ravdess", "path": "ravdess"}], "fold": 5},
    "model": {"head": "audio_only", "head_hidden": 16,
              "audio": {"kind": "compact", "config": COMPACT_AUDIO, "unfreeze_last_n_layers": -1}},
    "augment": {"waveform": {"gain": 0.5, "crop": 0.3}, "noise": {"p": 0.3}},
    "optim": {"epochs": 4, "batch_size": 8, "lr": 3e-3, "ema": 0.9, "balance": 0.5},
}  # fmt: skip
GOEMOTIONS = {"name": "goemotions", "path": "goemotions", "split": {"method": "official"},
              "options": {"single_label_only": True}}  # fmt: skip
MELD = {"name": "meld", "path": "meld", "split": {"method": "official", "shared_speakers": True}}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    corpus_trees.ravdess(folder / "ravdess", actors=(1, 4, 8, 2), takes=2)
    corpus_trees.goemotions(folder / "goemotions")
    corpus_trees.meld(folder / "meld")
    corpus_trees.mosei(folder / "mosei")
    return folder


def changed(base: dict, **changes) -> Recipe:
    merged = json.loads(json.dumps(base))
    for key, value in changes.items():
        *sections, name = key.split("__")
        place = merged
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return parse_recipe(merged)


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("runs") / "voice"
    return folder, Trainer(changed(VOICE), root, folder).run()


def test_a_run_leaves_a_bundle_that_loads_and_figures_by_corpus(trained):
    folder, result = trained
    bundle = load_bundle(folder / "bundle")
    assert bundle.model_id == result["model_id"]
    assert {"ua", "macro_f1", "weighted_f1", "ece"} <= set(result["validation"]["ravdess"])
    assert result["train_by_corpus"] == {"ravdess": 48}
    assert result["left_out"]["ravdess"] == {"song": 1}
    assert json.loads((folder / "metrics.json").read_text())["steps"] == 24
    assert "CC BY-NC-SA" in bundle.card


def test_the_bundle_says_what_the_trainer_validated(trained, root):
    """The trainer's batches and the waveform path of the robot agree."""
    folder, _ = trained
    bundle = load_bundle(folder / "bundle")
    stored = np.load(folder / "validation.npz")
    items = {i.id: i for i in load_data(changed(VOICE), root).validation}
    samples = [read_audio(items[i].audio) for i in stored["ids"][:4]]
    batch = collate([ModelItem(samples=s) for s in samples], bundle.config, None)
    logits = bundle.model(batch).logits.numpy()
    np.testing.assert_allclose(logits, stored["logits"][:4], atol=0.05)  # 16-bit weights


def test_misclassified_clips_are_put_together_with_their_labels(trained):
    folder, result = trained
    rows = list(csv.DictReader((folder / "misclassified" / "misclassified.csv").open()))
    assert len(rows) == result["misclassified"] > 0
    assert all(len(read_audio(folder / "misclassified" / row["file"])) > 0 for row in rows)
    assert all(row["true"] != row["predicted"] for row in rows)


def test_nothing_is_pickled_and_tensorboard_is_written(trained):
    folder, _ = trained
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert not suffixes & {".pt", ".bin", ".pkl", ".pth"}
    assert list((folder / "tensorboard").glob("events.*"))
    assert not (folder / "checkpoint.new").exists()


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in trainer.module.state_dict().items()}


@pytest.mark.parametrize("versions", [0, 2])
def test_resuming_gives_the_same_weights_as_never_stopping(versions, root, tmp_path):
    """With clips changed anew each time, and with states that are kept."""
    recipe = changed(
        VOICE, optim__epochs=2, augment__versions=versions,
        model__audio__unfreeze_last_n_layers=0 if versions else -1,
    )  # fmt: skip
    whole = Trainer(recipe, root, tmp_path / "whole")
    whole.run()
    assert Trainer(recipe, root, tmp_path / "parts").run(stop_after=7) == {}
    second = Trainer(recipe, root, tmp_path / "parts")
    second.run(resume=True)
    expected = weights(whole)
    for name, value in weights(second).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)


def test_resuming_without_a_checkpoint_or_with_another_model_is_refused(root, tmp_path):
    with pytest.raises(HriEmoError, match="no checkpoint"):
        Trainer(changed(VOICE), root, tmp_path / "new").run(resume=True)
    Trainer(changed(VOICE), root, tmp_path / "a").run(stop_after=1)
    other = changed(VOICE, model__head_hidden=8)
    with pytest.raises(HriEmoError, match="does not fit"):
        Trainer(other, root, tmp_path / "a").run(resume=True)


def test_training_learns_what_can_be_learnt(root, tmp_path):
    """Each emotion of the made-up corpus has its own pitch."""
    recipe = changed(
        VOICE, optim__epochs=25, select="last", augment__waveform={}, augment__noise={}
    )
    result = Trainer(recipe, root, tmp_path / "learn").run()
    assert result["validation"]["ravdess"]["ua"] > 0.5


def test_states_of_a_frozen_encoder_are_kept_and_are_those_of_the_clip(root, tmp_path):
    # Noise in every changed version, and none in the clip as it is.
    recipe = changed(
        VOICE, augment__versions=2, augment__noise__p=1.0,
        model__audio__unfreeze_last_n_layers=0,
    )  # fmt: skip
    first = Trainer(recipe, root, tmp_path / "first", kept=tmp_path / "kept")
    files = {f: f.stat().st_mtime_ns for f in (tmp_path / "kept" / "states").rglob("*.npz")}
    states, item = first.maker.sources.states, first.data.train[0]
    assert states is not None
    assert len(files) == 3 * len(first.data.train) + len(first.data.validation)
    versions = [states.states(item, v) for v in range(3)]
    assert not any(
        a.shape == b.shape and np.allclose(a, b) for a, b in itertools.combinations(versions, 2)
    )
    batch = collate([ModelItem(samples=read_audio(item.audio))], first.network.model.config, None)
    with torch.no_grad():
        encoded, mask = first.network.model.eval().encode_voice(batch)
    direct = encoded[0][mask[0]].numpy()
    np.testing.assert_allclose(versions[0], direct, atol=1e-2)
    assert states.statistics(item, 0)[:32] == pytest.approx(direct.mean(0), abs=1e-2)
    Trainer(recipe, root, tmp_path / "second", kept=tmp_path / "kept")
    # The next stage gets the encoder out of a bundle, with weights of 16 bits, and finds the states too.
    network = first.network
    bundle = Bundle(network.model, None, Calibration.identity(len(recipe.model.labels)))
    save_bundle(bundle, tmp_path / "kept_encoder")
    encoder = load_bundle(tmp_path / "kept_encoder").model.audio_encoder
    again = VoiceStates(
        states.folder,
        encoder,
        states.listener,
        states.conditions,
        states.rooms,
        states._settings,
        2,
    )
    again.load(first.data.train, True, lambda: None)
    assert files == {f: f.stat().st_mtime_ns for f in (tmp_path / "kept" / "states").rglob("*.npz")}


@pytest.mark.parametrize(("head", "versions"), [("hri_emo", 0), ("late_fusion", 2)])
def test_the_seed_systems_train_on_paired_waveforms(head, versions, root, tmp_path):
    recipe = parse_recipe(
        {
            "name": "paired",
            "data": {"corpora": [MELD]},
            "model": {
                "head": head, "d_model": 16, "feedforward": 32, "attention_heads": 2,
                "max_text_tokens": 32,
                "audio": {"kind": "transformers", "config": AUDIO_CONFIGS["wavlm"],
                          "layer_weighted_sum": head == "hri_emo",
                          "unfreeze_last_n_layers": 1 if head == "hri_emo" else 0},
                "text": {"name": tiny_text_encoder(), "unfreeze_last_n_layers": -1},
            },
            "augment": {"versions": versions, "waveform": {"gain": 1.0, "crop": 0.5},
                        "noise": {"p": 0.5}, "drop": {"text": 0.2}},
            "optim": {"epochs": 1, "batch_size": 4, "accumulate": 1},
        }
    )  # fmt: skip
    result = Trainer(recipe, root, tmp_path / head).run()
    assert result["shared_speakers"] == ["meld"]
    assert not result["constructed"]
    assert result["validation"]["meld"]["n"] == 6
    assert result["conditions"]["voice_only"]["audio_weight"] == 1.0


def test_multi_label_features_train_on_the_official_split(root, tmp_path):
    recipe = parse_recipe(
        {
            "name": "mosei",
            "data": {"corpora": [{"name": "mosei", "path": "mosei",
                                  "split": {"method": "official"}}]},
            "model": {"head": "hri_emo", "objective": "multi_label", "unimodal_path": False,
                      "d_model": 16, "feedforward": 32, "attention_heads": 2,
                      "audio": {"kind": "features", "width": 74},
                      "text": {"kind": "features", "width": 300}},
            "augment": {"drop": {"audio": 0.2, "text": 0.2}},
            "optim": {"epochs": 2, "batch_size": 4},
            "monitor": "macro_f1",
        }
    )  # fmt: skip
    result = Trainer(recipe, root, tmp_path / "mosei").run()
    assert 0.0 <= result["validation"]["mosei"]["macro_f1"] <= 1.0
    assert len(result["calibration"]["thresholds"]) == 7


def test_encoders_and_the_gate_learn_at_rates_of_their_own():
    module = torch.nn.Module()
    module.model = tiny_model(tiny_config()).model
    section = OptimSection(lr=1e-3, encoder_lr=1e-5, gate_lr=1e-4)
    optimizer = make_optimizer(module, {"model.text_encoder."}, section)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in module.named_parameters():
        wanted = 1e-4 if ".gate." in name else 1e-5 if ".text_encoder." in name else 1e-3
        assert rates.get(id(parameter), wanted) == wanted, name
    plain = make_optimizer(module, set(), OptimSection(lr=1e-3))
    assert {g["lr"] for g in plain.param_groups} == {1e-3}


def test_texts_with_several_labels_are_in_neither_figures_nor_intervals(root):
    recipe = parse_recipe({"data": {"corpora": [GOEMOTIONS]}, "model": {"head": "text_only"}})
    item = load_data(recipe, root).validation[0]
    example = SimpleNamespace(item=item, constructed=False)
    targets = np.zeros((2, 7), np.float32)
    targets[0, 1], targets[1, [2, 3]] = 1.0, 0.5
    nothing = np.zeros(2, np.float32)
    predictions = Predictions([example, example], np.eye(7, dtype=np.float32)[[1, 1]], targets,
                              nothing > 0, nothing == 0, nothing, nothing,
                              np.zeros((2, 2), np.float32), 0.0)  # fmt: skip
    assert scores_by_corpus(predictions, False)["goemotions"]["weighted_f1"] == 1.0
    assert intervals(predictions)["goemotions"]["weighted_f1"] == [1.0, 1.0]


def test_texts_that_stand_in_validation_are_not_trained_on(root):
    recipe = parse_recipe({"data": {"corpora": [GOEMOTIONS]}, "model": {"head": "text_only"}})
    data = load_data(recipe, root)
    assert data.left_out["goemotions"]["text is also in validation"] == 1
    assert not {item.text for item in data.train} & {item.text for item in data.validation}


def test_early_stopping_ends_a_run_that_gets_no_better(root, tmp_path):
    recipe = changed(VOICE, optim__lr=1e-9, optim__epochs=10, optim__ema=0.0, early_stopping=2)
    assert Trainer(recipe, root, tmp_path / "early").run()["steps"] < 60


def test_a_broken_clip_is_found_before_training(tmp_path):
    corpus_trees.ravdess(tmp_path / "ravdess", actors=(1, 2))
    clip = next((tmp_path / "ravdess").rglob("*.wav"))
    clip.write_bytes(b"no sound")
    with pytest.raises(HriEmoError, match=f"cannot read '{clip}'"):
        Trainer(changed(VOICE), tmp_path, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_train_together_under_torchrun(root, tmp_path):
    recipe = tmp_path / "two.yaml"
    recipe.write_text(
        yaml.safe_dump(VOICE | {"name": "two", "optim": VOICE["optim"] | {"epochs": 1}})
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "-m", "hri_emo_ros.cli.main", "train", str(recipe), "--data-root", str(root),
               "--out", str(tmp_path)]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stderr[-2000:]
    # Each process takes half of the epoch's batches.
    metrics = json.loads((tmp_path / "two_fold5" / "metrics.json").read_text())
    assert metrics["steps"] == 3
    assert done.stdout.count("bundle:") == 1


def test_the_large_recipes_take_a_real_step_at_any_size():
    recipe = parse_recipe(
        {"model": {"head": "hri_emo", "d_model": 16, "feedforward": 32, "attention_heads": 2,
                   "audio": {"kind": "transformers", "config": AUDIO_CONFIGS["hubert"]},
                   "text": {"config": TEXT_CONFIGS["bert"], "unfreeze_last_n_layers": -1}}}
    )  # fmt: skip
    result = dry_run(recipe, audio_seconds=1.0)
    assert result.step_seconds > 0
    assert result.trainable < result.parameters
    spec = VoiceSpec(kind="transformers", name="facebook/hubert-base-ls960")
    assert random_encoder(spec, "audio").config == {"model_type": "hubert"}
    with pytest.raises(HriEmoError, match="architecture is not known"):
        random_encoder(VoiceSpec(kind="transformers", name="somebody/else"), "audio")


def test_the_card_puts_folds_together_and_names_where_encoders_come_from(tmp_path):
    common = {"head": "audio_only", "stage": "voice", "parameters": 7, "shared_speakers": [],
              "constructed": False, "train_by_corpus": {"ravdess": 4},
              "validation_by_corpus": {"ravdess": 2}}  # fmt: skip
    scores = {"n": 2, "macro_f1": 0.5, "weighted_f1": 0.5, "ece": 0.1, "chance_ua": 0.25}
    runs = []
    for name, fold, left_out, ua in (
        ("a", 1, None, 0.5),
        ("b", 2, None, 0.7),
        ("c", None, "emodb", 0.4),
    ):
        folder = tmp_path / name / "voice"
        folder.mkdir(parents=True)
        corpus = left_out or "ravdess"
        metrics = {**common, "fold": fold, "leave_corpus_out": left_out,
                   "validation": {corpus: {**scores, "ua": ua}}}  # fmt: skip
        (folder / "metrics.json").write_text(json.dumps(metrics))
        runs.append(str(folder))
    recipe = parse_recipe(
        {
            "model": {"head": "audio_only", "audio": {"name": "whisper-base"}},
            "calibrate_on": runs,
        }
    )
    whole = {**common, "fold": None, "leave_corpus_out": None, "constructed": 0.545}
    card = write_card(recipe, whole, {})
    # Student's t with one degree of freedom: 12.7 standard errors of 0.1.
    assert "| ravdess | 0.250 | 0.600 [-0.671, 1.871] |" in card
    assert "| emodb | 0.250 | 0.400 |" in card
    assert "45 in 100 were recorded; the others are **constructed**" in card
    assert "The voice encoder is the first layers of OpenAI's whisper-base (MIT)." in card
