# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A training file: stages, overrides, and errors that name the key and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hri_emo_ros.data.corpus import make_corpus
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.recipe import (
    Recipe,
    load_recipes,
    pick_stages,
    section_of,
)

SHIPPED = sorted((Path(__file__).parents[1] / "config" / "train").glob("*.yaml"))


@pytest.fixture
def write(tmp_path):
    def written(text: str) -> Path:
        path = tmp_path / "train.yaml"
        path.write_text(text)
        return path

    return written


TWO = """
name: two
optim: {epochs: 3, batch_size: 4}
stages:
  - {name: voice, model: {head: audio_only}, optim: {epochs: 1}}
  - {name: fusion, pretrained: {audio: "stage:voice"}}
"""


def test_stages_are_laid_over_the_shared_settings(write):
    voice, fusion = load_recipes(write(TWO))
    assert (voice.stage, voice.optim.epochs, voice.optim.batch_size) == ("voice", 1, 4)
    assert (fusion.stage, fusion.optim.epochs, fusion.model.head) == ("fusion", 3, "hri_emo")


def test_one_stage_can_be_picked_and_values_laid_over_it(write):
    recipes = load_recipes(write(TWO), ["optim.lr=3e-5", "data.fold=2"])
    (only,) = pick_stages(recipes, "fusion")
    assert (only.optim.lr, only.data.fold) == (3e-5, 2)
    with pytest.raises(HriEmoError, match=r"stage 'text' is not in .*one of: voice, fusion"):
        pick_stages(recipes, "text")
    assert pick_stages(recipes, None) == recipes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimm: {}", r"unknown key 'optimm', must be one of: name, stage, seed"),
        ("optim: {lrr: 1}", r"unknown key 'optim.lrr', must be one of: epochs, batch_size"),
        ("augment: {waveform: {warp: 1}}", r"'augment.waveform.warp'.*must be one of: speed"),
        ("data: {corpora: [{name: x, split: {methd: folds}}]}", r"split.methd'.*method"),
        ("model: {audio: {knd: compact}}", r"'model.audio.knd', must be one of: kind"),
        ("optim: {lr: -1}", r"'optim.lr' is -1: .*greater than 0"),
        ("model: {head: fancy}", r"'model.head' is 'fancy'.*late_fusion"),
        ("optim: {epochs: many}", r"'optim.epochs' is 'many'"),
        ("augment: {words: {lower: 2}}", r"'augment.words.lower' is 2"),
        (
            "{augment: {versions: 2}, model: {audio: {unfreeze_last_n_layers: -1}}}",
            r"'augment.versions' needs",
        ),
        ("loss: {gate: 0}", r"'loss.gate' is 0.*set it above 0"),
        ("name: a/b", r"'name' is 'a/b'.*plain folder name"),
        ("[1, 2]", "must hold a mapping"),
        ("a: [", "not YAML"),
        ("stages: [{}, {}]", "needs a 'name'"),
    ],
)
def test_wrong_keys_and_values_are_named_with_what_is_allowed(write, text, message):
    with pytest.raises(HriEmoError, match=message):
        load_recipes(write(text))


def test_overrides_must_be_key_value(write):
    with pytest.raises(HriEmoError, match="must be KEY=VALUE"):
        load_recipes(write("name: a"), ["optim.epochs"])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid_and_name_known_corpora(path):
    for config in load_recipes(path):
        assert config.data.corpora
        for section in config.data.corpora:
            make_corpus(section.name, section.options)


def test_the_five_configurations_are_shipped():
    assert {path.stem for path in SHIPPED} == {
        "compact", "wavlm_roberta", "hubert_audio", "late_fusion", "mosei_features",
    }  # fmt: skip


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_stages_build_on_earlier_ones(path):
    earlier: set[str] = set()
    for recipe in load_recipes(path):
        wanted = [recipe.pretrained.audio, recipe.pretrained.text]
        assert {w.removeprefix("stage:") for w in wanted if w.startswith("stage:")} <= earlier
        earlier.add(recipe.stage)


ELSEWHERE = {
    "stage": "the name of an entry of `stages`",
    "calibrate_on": "filled in from `left_out`",
    "pretrained.unheard_runs": "filled in from `pretrained.unheard`",
    "data.fold": "--fold, and the runs of `left_out`",
    "data.leave_corpus_out": "--set, and the runs of `left_out`",
    "data.corpora.path": "where somebody keeps a corpus, or a manifest of their own",
    "model.labels": "part of a bundle: what its answers are called",
    "model.audio.normalize": "part of a bundle: told by the encoder's own files",
    "model.text.config": "part of a bundle: the encoder's own configuration",
}
"""Settings that no recipe in config/train has to make, and who makes them."""


def test_every_setting_is_used_by_a_shipped_recipe():
    used = {key for key, _ in made()}
    assert set(settings(Recipe)) - used == set(ELSEWHERE)


def test_every_choice_that_a_setting_offers_is_used_by_a_shipped_recipe():
    """Where none makes the setting, the default is."""
    used = {(key, value) for key, value in made() if isinstance(value, str)}
    unused = {
        (key, choice)
        for key, field in settings(Recipe).items()
        for kind in (field.annotation, *get_args(field.annotation))
        for choice in (get_args(kind) if get_origin(kind) is Literal else ())
        if choice != field.default and (key, choice) not in used
    }
    assert unused == set()


def settings(model: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """Every key of the schema, by dotted name."""
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        inner = settings(section, f"{prefix}{name}.") if section is not None else {}
        found |= inner or {f"{prefix}{name}": field}
    return found


def made() -> set[tuple[str, Any]]:
    """Every key that a shipped recipe sets, by dotted name, with its value where that is a plain one."""
    found: set[tuple[str, Any]] = set()
    for path in SHIPPED:
        data = yaml.safe_load(path.read_text())
        for stage in [data, *data.get("stages", ())]:
            found |= set(leaves(stage))
    return found


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        for entry in value:
            yield from leaves(entry, prefix)
    elif isinstance(value, dict):
        yield prefix.rstrip("."), None
        for key, inner in value.items():
            yield from leaves(inner, f"{prefix}{key}.")
    else:
        yield prefix.rstrip("."), value if isinstance(value, str) else None
