"""A training file: stages, overrides, and errors that name the key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.config import load_config, pick_stages
from hri_emo_ros.data.corpus import make_corpus

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
    voice, fusion = load_config(write(TWO))
    assert (voice.stage, voice.optim.epochs, voice.optim.batch_size) == ("voice", 1, 4)
    assert (fusion.stage, fusion.optim.epochs, fusion.model.head) == ("fusion", 3, "hri_emo")


def test_one_stage_can_be_picked_and_values_laid_over_it(write):
    configs = load_config(write(TWO), ["optim.lr=3e-5", "data.fold=2"])
    (only,) = pick_stages(configs, "fusion")
    assert (only.optim.lr, only.data.fold) == (3e-5, 2)
    with pytest.raises(HriEmoError, match=r"stage 'text' is not in .*one of: voice, fusion"):
        pick_stages(configs, "text")
    assert pick_stages(configs, None) == configs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimm: {}", r"unknown key 'optimm', must be one of: name, stage, seed"),
        ("optim: {lrr: 1}", r"unknown key 'optim.lrr', must be one of: epochs, batch_size"),
        ("augment: {mel: {settings: {warp: 1}}}", r"'augment.mel.settings.warp'.*warp_p"),
        ("data: {corpora: [{name: x, split: {methd: folds}}]}", r"split.methd'.*method"),
        ("model: {audio: {knd: compact}}", r"'model.audio.knd', must be one of: kind"),
        ("optim: {lr: -1}", r"'optim.lr' is -1: .*greater than 0"),
        ("model: {head: fancy}", r"'model.head' is 'fancy'.*late_fusion"),
        ("optim: {epochs: many}", r"'optim.epochs' is 'many'"),
        ("augment: {text: {lower_p: 2}}", r"'augment.text.lower_p' is 2"),
        ("loss: {gate: 0}", r"'loss.gate' is 0.*set it above 0"),
        ("name: a/b", r"'name' is 'a/b'.*plain folder name"),
        ("[1, 2]", "must hold a mapping"),
        ("a: [", "not YAML"),
        ("stages: [{}, {}]", "needs a 'name'"),
    ],
)
def test_wrong_keys_and_values_are_named_with_what_is_allowed(write, text, message):
    with pytest.raises(HriEmoError, match=message):
        load_config(write(text))


def test_overrides_must_be_key_value(write):
    with pytest.raises(HriEmoError, match="must be KEY=VALUE"):
        load_config(write("name: a"), ["optim.epochs"])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid_and_name_known_corpora(path):
    for config in load_config(path):
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
    for config in load_config(path):
        p = config.pretrained
        wanted = [p.bundle, p.audio, p.text, config.distill.teacher]
        assert {w.removeprefix("stage:") for w in wanted if w.startswith("stage:")} <= earlier
        earlier.add(config.stage)
