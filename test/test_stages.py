# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Stages of a training file in a row: what they hand on, where they lie, what resuming leaves alone."""

from __future__ import annotations

import io
import json
from pathlib import Path

import corpus_trees
import pytest
import torch
from rich.console import Console
from tiny_models import COMPACT_AUDIO, tiny_text_encoder

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.evaluate import read_rows
from hri_emo_ros.evaluation.runs import find_runs, plot
from hri_emo_ros.model.batch import collate
from hri_emo_ros.model.bundle import load_bundle
from hri_emo_ros.model.items import ModelItem
from hri_emo_ros.training.known import KNOWN
from hri_emo_ros.training.loop import Trainer
from hri_emo_ros.training.recipe import LeftOutSection, Recipe, parse_recipe
from hri_emo_ros.training.stages import plan, resolve, run_folder, train
from hri_emo_ros.training.unheard import UnheardVoices

STAGES = {
    "name": "three",
    "data": {"fold": 5},
    "model": {"max_text_tokens": 32, "head_hidden": 16, "d_model": 16,
              "feedforward": 32, "attention_heads": 2, "gate_hidden": 8, "voice_components": [8]},
    "optim": {"epochs": 1, "batch_size": 8},
}  # fmt: skip
_RAVDESS = {"name": "ravdess", "path": "ravdess"}
_GOEMOTIONS = {"name": "goemotions", "path": "goemotions", "split": {"method": "official"},
               "options": {"single_label_only": True}}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    corpus_trees.ravdess(folder / "ravdess", actors=(1, 4, 8, 2))
    corpus_trees.goemotions(folder / "goemotions")
    return folder


def stage(name: str, **sections) -> Recipe:
    merged = json.loads(json.dumps(STAGES)) | {"stage": name}
    for key, value in sections.items():
        merged[key] = merged.get(key, {}) | value if isinstance(value, dict) else value
    return parse_recipe(merged)


def three_stages() -> list[Recipe]:
    compact_audio = {"kind": "compact", "config": COMPACT_AUDIO, "unfreeze_last_n_layers": 0}
    text = {"name": tiny_text_encoder(), "unfreeze_last_n_layers": -1}
    voice = stage("voice", data={"fold": 5, "corpora": [_RAVDESS]},
                  model={"head": "audio_only", "audio": compact_audio, "baseline": {}},
                  augment={"versions": 1, "noise": {"p": 0.5}})  # fmt: skip
    words = stage("words", data={"fold": 5, "corpora": [_GOEMOTIONS]},
                  model={"head": "text_only", "text": text},
                  augment={"words": {"lower": 0.5, "errors": 0.5}})  # fmt: skip
    fusion = stage(
        "fusion", data={"fold": 5, "corpora": [_RAVDESS, _GOEMOTIONS]},
        model={"head": "hri_emo", "audio": {"kind": "compact"}, "baseline": {}},
        pretrained={"audio": "stage:voice", "text": "stage:words", "freeze_heads": True},
        pairs={"per_epoch": 24, "validation": 12},
        augment={"versions": 1, "noise": {"p": 0.5}, "drop": {"audio": 0.1, "text": 0.1},
                 "words": {"mismatched": 0.2, "errors": 0.5}},
        monitor="macro_f1",
    )  # fmt: skip
    return [voice, words, fusion]


@pytest.fixture(scope="module")
def staged(root, tmp_path_factory) -> tuple[Path, list[dict]]:
    out = tmp_path_factory.mktemp("staged")
    return out / "three_fold5", train(three_stages(), root, out)


def test_a_run_leaves_its_validation_side_as_a_manifest_for_evaluate(staged):
    folder, _ = staged
    found = read_rows(folder / "fusion" / "validation.csv", "both")
    assert found.rows and not found.refused
    assert all(row.path is not None and row.path.is_file() and row.text for row in found.rows)
    assert read_rows(folder / "voice" / "validation.csv", "audio").rows


def test_three_stages_end_in_a_fusion_bundle(staged):
    folder, results = staged
    assert [r["head"] for r in results] == ["audio_only", "text_only", "hri_emo"]
    conditions = results[-1]["conditions"]
    assert conditions["constructed"] == conditions["n"]
    assert results[-1]["constructed"] == 1.0
    assert {"both", "voice_only", "words_only", "pink_-5_db", "mismatched_transcript"} <= set(
        conditions
    )
    assert conditions["voice_only"]["audio_weight"] == 1.0
    assert conditions["words_only"]["audio_weight"] == 0.0
    assert "constructed" in results[-1]["validation"]
    assert set(results[-1]["by_known"]) == set(KNOWN)
    card = load_bundle(folder / "fusion" / "bundle").card
    assert "0 in 100 were recorded; the others are **constructed**" in card


def test_frozen_parts_say_in_the_fusion_what_they_said_alone(staged, root):
    folder, _ = staged
    voice, fused = (load_bundle(folder / name / "bundle") for name in ("voice", "fusion"))
    from hri_emo_ros.audio.files import read_audio

    clip = next((root / "ravdess").rglob("*.wav"))
    items = [ModelItem(samples=read_audio(clip))]
    alone = voice.model(collate(items, voice.config, None)).logits
    inside = fused.model(collate(items, fused.config, fused.tokenizer)).logits
    torch.testing.assert_close(inside, alone, atol=1e-4, rtol=1e-4)


def test_the_fusion_judges_voices_against_the_population_that_its_voice_stage_measured(staged):
    folder, _ = staged
    voice, fused = (load_bundle(folder / name / "bundle").model for name in ("voice", "fusion"))
    assert torch.equal(voice.baseline.population, fused.baseline.population)
    assert torch.equal(voice.baseline.deviation, fused.baseline.deviation)


def test_a_stage_that_was_not_trained_is_named(tmp_path):
    with pytest.raises(HriEmoError, match="'stage:voice': there is no bundle"):
        resolve(three_stages()[2], tmp_path, three_stages())
    with pytest.raises(HriEmoError, match="'stage:voice': there is no such stage"):
        resolve(three_stages()[2], tmp_path)


def test_stages_without_folds_are_shared_between_folds(tmp_path):
    voice, words, fusion = (run_folder(c, tmp_path).parent.name for c in three_stages())
    assert (voice, words, fusion) == ("three_fold5", "three", "three_fold5")


def test_a_corpus_to_leave_out_must_be_somewhere(root, tmp_path):
    config = three_stages()[0]
    data = config.data.model_copy(update={"leave_corpus_out": "emodbb"})
    config = config.model_copy(update={"data": data})
    with pytest.raises(HriEmoError, match=r"'data.leave_corpus_out' is 'emodbb'.*ravdess"):
        train([config], root, tmp_path)


def test_resuming_a_staged_run_leaves_finished_stages_alone(staged, root):
    folder, _ = staged
    screen = Console(file=io.StringIO(), width=200)
    assert train(three_stages(), root, folder.parent, resume=True, console=screen) == []
    said = screen.file.getvalue()
    assert "words: finished in" in said
    assert "it was trained with" not in said


def test_resuming_tells_which_settings_of_a_finished_stage_have_changed(staged, root):
    folder, _ = staged
    again = three_stages()
    section = again[1].optim.model_copy(update={"epochs": 3.0})
    again[1] = again[1].model_copy(update={"optim": section})
    screen = Console(file=io.StringIO(), width=200)
    assert train(again, root, folder.parent, resume=True, console=screen) == []
    lines = [x for x in screen.file.getvalue().splitlines() if "it was trained with" in x]
    assert len(lines) == 1
    assert lines[0].startswith("words: finished")
    assert "optim.epochs 1.0 (now 3.0)" in lines[0]


def test_runs_are_compared_in_a_table_and_a_plot(staged, tmp_path):
    folder, _ = staged
    runs = find_runs(folder.parent)
    assert [r.name for r in runs] == ["three/words", "three_fold5/fusion", "three_fold5/voice"]
    assert runs[2].figure("ravdess", "ua") is not None
    plot(runs, "ua", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
    with pytest.raises(HriEmoError, match="no finished run"):
        find_runs(tmp_path)


def test_a_model_trained_on_everything_takes_its_folds_calibration(staged, root, tmp_path):
    folder, results = staged
    recipe = three_stages()[0]
    data = recipe.data.model_copy(update={"fold": None})
    recipe = recipe.model_copy(update={"data": data, "calibrate_on": [str(folder / "fusion")]})
    result = Trainer(recipe, root, tmp_path / "all").run()
    assert "validation" not in result
    fitted = results[-1]["calibration"]
    for part in ("temperature_both", "temperature_audio", "temperature_text"):
        assert result["calibration"][part] == pytest.approx(fitted[part], rel=0.01)


def test_one_command_trains_what_leaves_people_out_first_and_calibrates_on_it(root, tmp_path):
    voice, words, fusion = (
        recipe.model_copy(update={"data": recipe.data.model_copy(update={"fold": None})})
        for recipe in three_stages()
    )
    voice = voice.model_copy(update={"left_out": LeftOutSection(folds=[1, 2], corpora=["ravdess"])})
    fusion = fusion.model_copy(update={"left_out": LeftOutSection(folds=[2])})
    recipes = [voice, words, fusion]
    order = [
        str(run_folder(r, tmp_path).relative_to(tmp_path)) for r, _ in plan(recipes, None, tmp_path)
    ]
    assert order == [
        "three_fold1/voice", "three_fold2/voice", "three_without_ravdess/voice",
        "three_fold2/voice", "three/words", "three_fold2/fusion",
        "three/voice", "three/words", "three/fusion",
    ]  # fmt: skip
    final = plan(recipes, "fusion", tmp_path)[-1][0]
    # Its voice head is frozen, so what the voice's own stage has left out calibrates it too.
    assert final.calibrate_on == [
        str(tmp_path / run)
        for run in (
            "three_fold2/fusion", "three_fold1/voice", "three_fold2/voice", "three_without_ravdess/voice"
        )
    ]  # fmt: skip
    free = fusion.pretrained.model_copy(update={"freeze_heads": False})
    free = fusion.model_copy(update={"pretrained": free})
    final = plan([voice, words, free], "fusion", tmp_path)[-1][0]
    assert final.calibrate_on == [str(tmp_path / "three_fold2" / "fusion")]
    chosen = [voice.model_copy(update={"data": voice.data.model_copy(update={"fold": 2})})]
    assert len(plan(chosen, None, tmp_path)) == 1
    unheard = fusion.pretrained.model_copy(update={"unheard": "stage:voice"})
    recipes = [
        r.model_copy(update={"data": r.data.model_copy(update={"fold": 2})})
        for r in (voice, words, fusion.model_copy(update={"pretrained": unheard}))
    ]
    order = [
        str(run_folder(r, tmp_path).relative_to(tmp_path)) for r, _ in plan(recipes, None, tmp_path)
    ]
    assert order[:2] == ["three_fold1/voice", "three_fold2/voice"]  # asked of the other people
    assert order[2:] == ["three_fold2/voice", "three/words", "three_fold2/fusion"]


def test_a_fusion_learns_from_what_those_say_who_have_not_heard_a_speaker(staged, root, tmp_path):
    folder, _ = staged
    runs = [str(folder / "voice")]
    fusion = resolve(three_stages()[2], folder.parent, three_stages())
    data = fusion.data.model_copy(update={"fold": 1})
    pretrained = fusion.pretrained.model_copy(update={"unheard_runs": runs})
    recipe = fusion.model_copy(update={"data": data, "pretrained": pretrained})
    trainer = Trainer(recipe, root, tmp_path / "fusion")
    examples = trainer.sampler.epoch(0)[0]
    batch = trainer.maker.train(examples, 0, 0)
    unheard = [e.voice is not None and e.voice.fold == 5 for e in examples]
    present = batch.model.audio_present.tolist()
    known = (~torch.isnan(batch.audio_logits).any(1)).tolist()
    assert known == [u and p for u, p in zip(unheard, present, strict=True)]
    assert any(known) and not all(known)
    trainer.module.train()
    heard = trainer.module(batch).output.audio_logits
    torch.testing.assert_close(heard[known], batch.audio_logits[known])
    assert not torch.isnan(heard).any()
    with pytest.raises(HriEmoError, match=r"'pretrained.unheard': there is no finished run"):
        UnheardVoices([tmp_path])
