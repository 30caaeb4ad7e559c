"""Training end to end on made-up corpora in official layouts."""

from __future__ import annotations

import csv
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
    COMPACT_TEXT,
    TEXT_CONFIGS,
    tiny_config,
    tiny_model,
)

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.batch import ModelItem, collate
from hri_emo_ros.model.bundle import load_bundle
from hri_emo_ros.model.config import EncoderSpec
from hri_emo_ros.training.augment_config import RuinSection
from hri_emo_ros.training.card import write_card
from hri_emo_ros.training.config import OptimSection, TrainConfig, parse_config
from hri_emo_ros.training.data import load_data
from hri_emo_ros.training.dry_run import dry_run, random_encoder
from hri_emo_ros.training.finish import _intervals
from hri_emo_ros.training.optim import make_optimizer
from hri_emo_ros.training.pairs import from_item
from hri_emo_ros.training.ruin import Ruin
from hri_emo_ros.training.text_augment import WordErrors
from hri_emo_ros.training.trainer import Trainer
from hri_emo_ros.training.validation import Predictions

VOICE = {
    "name": "voice",
    "data": {"corpora": [{"name": "ravdess", "path": "ravdess"}], "fold": 5},
    "model": {"head": "audio_only", "audio": {"kind": "compact", "config": COMPACT_AUDIO},
              "head_hidden": 16, "head_norm": "batch"},
    "augment": {"mel": {"enabled": True, "speeds": [1.0, 1.1], "crops": [[0.5, 20]]}},
    "auxiliary": {"words_weight": 0.3, "intensity_weight": 0.1},
    "optim": {"epochs": 4, "batch_size": 8, "lr": 3e-3, "ema": 0.9,
              "schedule": "one_cycle", "balance": 0.5},
}  # fmt: skip
_GOEMOTIONS = {"name": "goemotions", "path": "goemotions", "split": {"method": "official"},
               "options": {"single_label_only": True}}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    corpus_trees.ravdess(folder / "ravdess", actors=(1, 4, 8, 2), takes=2)
    corpus_trees.goemotions(folder / "goemotions")
    corpus_trees.meld(folder / "meld")
    corpus_trees.mosei(folder / "mosei")
    return folder


def configured(base: dict, **changes) -> TrainConfig:
    merged = json.loads(json.dumps(base))
    for key, value in changes.items():
        section, name = key.split("__")
        merged.setdefault(section, {})[name] = value
    return parse_config(merged)


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("runs") / "voice"
    config = configured(VOICE).model_copy(update={"save_misclassified": True})
    return folder, Trainer(config, root, folder).run()


def test_a_run_leaves_a_bundle_that_loads_and_figures_by_corpus(trained):
    folder, result = trained
    bundle = load_bundle(folder / "bundle")
    assert bundle.model_id == result["model_id"]
    figures = result["validation"]["ravdess"]
    assert {"ua", "macro_f1", "weighted_f1", "ece", "own_words_ua"} <= set(figures)
    assert result["train_by_corpus"] == {"ravdess": 48}
    assert result["left_out"]["ravdess"] == {"song": 1}
    assert json.loads((folder / "metrics.json").read_text())["steps"] == 24
    assert "ravdess" in bundle.card
    assert "CC BY-NC-SA" in bundle.card


def test_the_bundle_says_what_the_trainer_validated(trained, root):
    """The mel cache of the trainer and the waveform path of the robot agree."""
    folder, _ = trained
    bundle = load_bundle(folder / "bundle")
    stored = np.load(folder / "validation.npz")
    items = {i.id: i for i in load_data(configured(VOICE), root).validation}
    from hri_emo_ros.audio.files import read_audio

    samples = [read_audio(items[i].audio) for i in stored["ids"][:4]]
    batch = collate([ModelItem(samples=s) for s in samples], bundle.config, None)
    logits = bundle.model(batch).logits.numpy()
    # 16-bit weights, cache and samples lie between them.
    np.testing.assert_allclose(logits, stored["logits"][:4], atol=0.05)


def test_misclassified_clips_are_saved_with_their_labels(trained):
    folder, result = trained
    rows = list(csv.DictReader((folder / "misclassified" / "misclassified.csv").open()))
    assert len(rows) == result["misclassified"] > 0
    assert all((folder / "misclassified" / row["file"]).is_file() for row in rows)
    assert all(row["true"] != row["predicted"] for row in rows)


def test_nothing_is_pickled_and_tensorboard_is_written(trained):
    folder, _ = trained
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert not suffixes & {".pt", ".bin", ".pkl", ".pth"}
    assert list((folder / "tensorboard").glob("events.*"))
    assert not (folder / "checkpoint.new").exists()


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in trainer.module.state_dict().items()}


def test_resuming_gives_the_same_weights_as_never_stopping(root, tmp_path):
    config = configured(VOICE)
    whole = Trainer(config, root, tmp_path / "whole")
    whole.run()
    first = Trainer(config, root, tmp_path / "parts")
    assert first.run(stop_after=9) == {}
    second = Trainer(config, root, tmp_path / "parts")
    second.run(resume=True)
    expected = weights(whole)
    for name, value in weights(second).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)


def test_resuming_without_a_checkpoint_or_with_another_model_is_refused(root, tmp_path):
    with pytest.raises(HriEmoError, match="no checkpoint"):
        Trainer(configured(VOICE), root, tmp_path / "new").run(resume=True)
    Trainer(configured(VOICE), root, tmp_path / "a").run(stop_after=1)
    other = configured(VOICE, model__head_hidden=8)
    with pytest.raises(HriEmoError, match="does not fit"):
        Trainer(other, root, tmp_path / "a").run(resume=True)


def test_training_learns_what_can_be_learnt(root, tmp_path):
    """Each emotion of the made-up corpus has its own pitch."""
    config = configured(VOICE, optim__epochs=25)
    mel = config.augment.mel.model_copy(update={"enabled": False, "crops": []})
    config = config.model_copy(
        update={"augment": config.augment.model_copy(update={"mel": mel}), "select": "last"}
    )
    result = Trainer(config, root, tmp_path / "learn").run()
    assert result["validation"]["ravdess"]["ua"] > 0.5


@pytest.mark.parametrize("head", ["hri_emo", "late_fusion"])
def test_any_transformers_encoders_train_on_paired_waveforms(head, root, tmp_path):
    config = parse_config(
        {
            "name": "paired",
            "data": {"corpora": [{"name": "meld", "path": "meld",
                                  "split": {"method": "official", "shared_speakers": True}}]},
            "model": {
                "head": head, "d_model": 16, "feedforward": 32, "attention_heads": 2,
                "max_text_tokens": 32,
                "audio": {"kind": "transformers", "config": AUDIO_CONFIGS["wavlm"],
                          "layer_weighted_sum": True, "unfreeze_last_n_layers": 1},
                "text": {"kind": "compact", "config": COMPACT_TEXT},
            },
            "augment": {"waveform": {"gain": {"p": 1.0}, "crop": {"p": 0.5}},
                        "ruin": {"audio_noise_p": 0.5, "drop_text_p": 0.2}},
            "optim": {"epochs": 1, "batch_size": 4, "accumulate": 1},
        }
    )  # fmt: skip
    result = Trainer(config, root, tmp_path / head).run()
    assert result["shared_speakers"] == ["meld"]
    assert not result["constructed"]
    assert result["validation"]["meld"]["n"] == 6


def test_multi_label_features_train_on_the_official_split(root, tmp_path):
    config = parse_config(
        {
            "name": "mosei",
            "data": {"corpora": [{"name": "mosei", "path": "mosei",
                                  "split": {"method": "official"}}]},
            "model": {"head": "hri_emo", "objective": "multi_label", "d_model": 16,
                      "feedforward": 32, "attention_heads": 2,
                      "audio": {"kind": "features", "width": 74},
                      "text": {"kind": "features", "width": 300}},
            "optim": {"epochs": 2, "batch_size": 4},
            "monitor": "macro_f1",
        }
    )  # fmt: skip
    result = Trainer(config, root, tmp_path / "mosei").run()
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
    assert set(rates.values()) == {1e-3, 1e-4, 1e-5}
    plain = make_optimizer(module, set(), OptimSection(lr=1e-3))
    assert {g["lr"] for g in plain.param_groups} == {1e-3}


def test_precomputed_words_are_not_lost_when_modalities_are_ruined(root):
    config = parse_config({"data": {"corpora": [{"name": "mosei", "path": "mosei",
                                                 "split": {"method": "official"}}]},
                           "model": {"audio": {"kind": "features", "width": 74},
                                     "text": {"kind": "features", "width": 300}}})  # fmt: skip
    item = load_data(config, root).train[0]
    ruin = Ruin(RuinSection(audio_noise_p=1.0, random_text_p=1.0), WordErrors([]), [], {})
    state = ruin(from_item(item), np.random.default_rng(0))
    assert state.voice
    assert state.words
    assert np.isnan(state.noise_snr_db)


def test_a_teacher_and_a_pruned_encoder_can_start_the_words(root, tmp_path):
    from tiny_models import tiny_tokenizer
    from transformers import AutoConfig, AutoModel

    source = tmp_path / "bert"
    config = AutoConfig.for_model(**(TEXT_CONFIGS["bert"] | {"vocab_size": 300}))
    AutoModel.from_config(config, add_pooling_layer=False).save_pretrained(source)
    tiny_tokenizer().save(source)
    base = {
        "data": {"corpora": [_GOEMOTIONS]},
        "model": {"head": "text_only", "max_text_tokens": 32,
                  "text": {"unfreeze_last_n_layers": -1}},
        "optim": {"epochs": 1, "batch_size": 4},
    }  # fmt: skip
    prune = {"source": str(source), "layers": [1], "vocabulary_size": 120, "max_positions": 32}
    teacher = parse_config(base | {"name": "teacher", "prune": prune})
    Trainer(teacher, root, tmp_path / "teacher").run()
    pupil = parse_config(
        base | {"name": "pupil", "distill": {"teacher": str(tmp_path / "teacher" / "bundle")},
                "pretrained": {"text": str(tmp_path / "teacher" / "bundle")}}
    )  # fmt: skip
    result = Trainer(pupil, root, tmp_path / "pupil").run()
    assert result["parameters"] == load_count(tmp_path / "teacher" / "bundle")
    assert "teacher" in result["history"][0]["train"]
    smaller = prune | {"vocabulary_size": 100, "intermediate_size": 8}
    small = Trainer(
        parse_config(
            base | {"name": "small", "prune": smaller,
                    "distill": {"teacher": str(tmp_path / "teacher" / "bundle")}}
        ), root, tmp_path / "small",
    ).run()  # fmt: skip
    assert small["parameters"] < result["parameters"]
    assert "teacher" in small["history"][0]["train"]


def test_texts_with_several_labels_are_in_neither_figures_nor_intervals(root, tmp_path):
    config = parse_config(
        {"data": {"corpora": [_GOEMOTIONS]}, "model": {"head": "text_only"},
         "optim": {"epochs": 1, "batch_size": 4}}
    )  # fmt: skip
    trainer = Trainer(config, root, tmp_path / "run")
    targets = np.zeros((2, 7), np.float32)
    targets[0, 1], targets[1, [2, 3]] = 1.0, 0.5
    item = trainer.examples[0]
    nothing = np.zeros(2, np.float32)
    predictions = Predictions([item, item], np.eye(7, dtype=np.float32)[[1, 1]], targets,
                              nothing > 0, nothing == 0, nothing, nothing, 0.0)  # fmt: skip
    assert trainer.scores(predictions)["goemotions"]["weighted_f1"] == 1.0
    assert _intervals(predictions)["goemotions"]["weighted_f1"] == [1.0, 1.0]


def load_count(folder: Path) -> int:
    return sum(p.numel() for p in load_bundle(folder).model.parameters())


def test_texts_that_stand_in_validation_are_not_trained_on(root):
    config = parse_config({"data": {"corpora": [_GOEMOTIONS]}, "model": {"head": "text_only"}})
    data = load_data(config, root)
    assert data.left_out["goemotions"]["text is also in validation"] == 1
    assert not {item.text for item in data.train} & {item.text for item in data.validation}


def test_early_stopping_ends_a_run_that_gets_no_better(root, tmp_path):
    config = configured(VOICE, optim__lr=1e-9, optim__epochs=10)
    optim = config.optim.model_copy(update={"ema": 0.0})
    config = config.model_copy(update={"early_stopping": 2, "optim": optim, "monitor": "ua"})
    result = Trainer(config, root, tmp_path / "early").run()
    assert result["steps"] < 60


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_train_together_under_torchrun(root, tmp_path):
    config = tmp_path / "two.yaml"
    config.write_text(
        yaml.safe_dump(VOICE | {"name": "two", "optim": VOICE["optim"] | {"epochs": 1}})
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               "-m", "hri_emo_ros.cli.main", "train", str(config), "--data-root", str(root),
               "--out", str(tmp_path)]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stderr[-2000:]
    # Each process takes half of the epoch's batches.
    metrics = json.loads((tmp_path / "two_fold5" / "metrics.json").read_text())
    assert metrics["steps"] == 3
    assert done.stdout.count("bundle:") == 1


def test_the_large_configurations_take_a_real_step_at_any_size():
    config = parse_config(
        {"model": {"head": "hri_emo", "d_model": 16, "feedforward": 32, "attention_heads": 2,
                   "audio": {"kind": "transformers", "config": AUDIO_CONFIGS["hubert"]},
                   "text": {"kind": "compact", "config": COMPACT_TEXT}}}
    )  # fmt: skip
    result = dry_run(config, audio_seconds=1.0)
    assert result.step_seconds > 0
    assert result.trainable < result.parameters
    spec = EncoderSpec(kind="transformers", name="facebook/hubert-base-ls960")
    assert random_encoder(spec, "audio").config == {"model_type": "hubert"}
    with pytest.raises(HriEmoError, match="architecture is not known"):
        random_encoder(EncoderSpec(kind="transformers", name="somebody/else"), "audio")


def test_the_card_puts_folds_side_by_side_and_names_what_encoders_were_cut_out_of(tmp_path):
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
    config = parse_config(
        {
            "model": {"head": "audio_only"},
            "card_runs": runs,
            "prune_audio": {"source": "whisper-base"},
        }
    )
    nothing = SimpleNamespace(left_out={})
    card = write_card(config, {**common, "fold": None, "leave_corpus_out": None}, nothing)
    # Student's t with one degree of freedom: 12.7 standard errors of 0.1.
    assert "| ravdess | shared | 0.500 | 0.700 | 0.600 [-0.671, 1.871] |" in card
    assert "| emodb | 2 | 0.400 | 0.500 | 0.250 |" in card
    assert "The voice encoder was cut out of OpenAI's whisper-base (MIT)." in card
