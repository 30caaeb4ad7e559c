"""The fusion learns from voices that are judged by heads which have not heard the speaker."""

from __future__ import annotations

from pathlib import Path

import corpus_trees
import pytest
import torch
from tiny_models import COMPACT_AUDIO, COMPACT_TEXT

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.bundle import load_bundle
from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.model.unimodal import AudioHead
from hri_emo_ros.training.config import TrainConfig, parse_config
from hri_emo_ros.data.corpus import Item
from hri_emo_ros.training.stages import resolve, train
from hri_emo_ros.training.trainer import Trainer
from hri_emo_ros.training.unheard_heads import NO_FOLD, CrossFittedHeads, speaker_folds

FOLDS = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    corpus_trees.ravdess(folder / "ravdess", actors=(1, 4, 8, 2))
    corpus_trees.goemotions(folder / "goemotions")
    return folder


def stages(folds: int = FOLDS) -> list[TrainConfig]:
    voices = {"name": "ravdess", "path": "ravdess"}
    words = {"name": "goemotions", "path": "goemotions", "split": {"method": "official"},
             "options": {"single_label_only": True}}  # fmt: skip
    optim = {"epochs": 1, "batch_size": 8, "lr": 3e-3}
    audio, text = ({"kind": "compact", "config": c} for c in (COMPACT_AUDIO, COMPACT_TEXT))
    frozen = {"kind": "compact", "unfreeze_last_n_layers": 0}
    sections: list[dict] = [
        {"stage": "voice", "data": {"fold": 5, "corpora": [voices]},
         "model": {"head": "audio_only", "audio": audio, "head_hidden": 16, "head_norm": "batch"}},
        {"stage": "words", "data": {"corpora": [words]},
         "model": {"head": "text_only", "text": text, "head_hidden": 16, "head_norm": "batch"}},
        {"stage": "fusion", "data": {"fold": 5, "corpora": [voices, words]},
         "model": {"head": "hri_emo", "audio": frozen, "text": frozen, "d_model": 16,
                   "head_hidden": 16, "head_norm": "batch"},
         "pretrained": {"audio": "stage:voice", "text": "stage:words", "freeze_heads": True,
                        "cross_fit": {"folds": folds, "epochs": 2, "lr": 3e-3}},
         "augment": {"ruin": {"audio_noise_p": 0.5}},
         "pairs": {"enabled": True, "validation": 12}},
    ]  # fmt: skip
    return [parse_config({"name": "crossed", "optim": optim, **s}) for s in sections]


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    train(stages(), root, out)
    return out


def item(number: int, speaker: str, label: int = 0) -> Item:
    target = tuple(float(k == label) for k in range(7))
    return Item(f"c/{number}", "c", "-", target, speaker=speaker, audio=Path("x"))


def test_no_speaker_is_in_two_folds_and_none_is_left_out():
    voices = [item(k, f"s{k % 6}", k % 4) for k in range(48)]
    found = speaker_folds(voices, FOLDS)
    assert set(found) == {v.id for v in voices}
    assert set(found.values()) == set(range(FOLDS))
    by_speaker = {
        v.speaker: {found[w.id] for w in voices if w.speaker == v.speaker} for v in voices
    }
    assert all(len(folds) == 1 for folds in by_speaker.values())


def test_more_folds_than_speakers_are_refused_by_name():
    with pytest.raises(
        HriEmoError, match=r"'pretrained.cross_fit.folds' is 3, must be at most .* 2"
    ):
        speaker_folds([item(k, f"s{k % 2}") for k in range(8)], FOLDS)


@pytest.mark.parametrize(
    ("head", "freeze"), [("hri_emo", False), ("late_fusion", True), ("text_only", True)]
)
def test_cross_fitting_where_no_frozen_voice_answers_is_refused(head, freeze):
    with pytest.raises(HriEmoError, match=r"configuration: 'pretrained\.cross_fit' needs"):
        parse_config(
            {"model": {"head": head}, "pretrained": {"cross_fit": {}, "freeze_heads": freeze}}
        )


def test_each_row_is_answered_by_the_head_of_its_fold():
    head = AudioHead(8, ModelConfig(head="audio_only", head_hidden=4))
    heads = CrossFittedHeads(head, FOLDS).eval()
    states, mask = torch.randn(4, 5, 8), torch.ones(4, 5, dtype=torch.bool)
    logits = heads(states, mask, torch.tensor([2, 0, NO_FOLD, 2]))
    assert (logits[2] == 0).all()
    for row, fold in ((0, 2), (1, 0), (3, 2)):
        alone = heads.heads[fold](states[row : row + 1], mask[row : row + 1])
        torch.testing.assert_close(logits[row], alone[0])
    assert not torch.equal(logits[0], heads.heads[1](states[:1], mask[:1])[0])


def fusion(root: Path, runs: Path, folder: Path) -> Trainer:
    return Trainer(resolve(stages()[2], runs, stages()), root, folder)


def test_a_head_learns_nothing_from_its_own_fold(root, trained, tmp_path):
    found = []
    for name in ("as it is", "poisoned"):
        trainer = fusion(root, trained, tmp_path / name)
        make = trainer.maker.train

        def poisoned(examples, epoch, number, make=make):
            batch = make(examples, epoch, number)
            batch.voice_targets[batch.folds == 0] = torch.eye(7)[4]
            return batch

        if name == "poisoned":
            trainer.maker.train = poisoned
        trainer._cross_fit()
        found.append([head.state_dict() for head in trainer.module.cross_fitted.heads])
    for fold, (clean, other) in enumerate(zip(*found, strict=True)):
        same = all(torch.equal(clean[name], other[name]) for name in clean)
        assert same == (fold == 0)


def test_the_fusion_hears_strangers_while_it_learns_and_its_own_head_afterwards(
    root, trained, tmp_path
):
    trainer = fusion(root, trained, tmp_path)
    module, model = trainer.module, trainer.network.model
    batch = trainer.maker.train(trainer.sampler.epoch(0)[0], 0, 0)
    heard = (batch.folds != NO_FOLD) & batch.model.audio_present
    assert heard.any()
    with torch.no_grad():
        states, mask = module.encode_audio(batch)
        module.train()
        learning = module.output(batch).audio_logits
        module.eval()
        afterwards = module.output(batch).audio_logits
        own = model.audio_head(states, mask)
        strangers = module.cross_fitted(states, mask, batch.folds)
    torch.testing.assert_close(learning, strangers)
    torch.testing.assert_close(afterwards, own)
    assert not torch.allclose(own[heard], strangers[heard])


def test_a_resumed_fusion_keeps_its_cross_fitted_heads(root, trained, tmp_path):
    whole = fusion(root, trained, tmp_path / "whole")
    whole.run()
    fusion(root, trained, tmp_path / "parts").run(stop_after=1)
    resumed = fusion(root, trained, tmp_path / "parts")
    resumed.run(resume=True)
    expected = whole.module.state_dict()
    assert any(name.startswith("cross_fitted.") for name in expected)
    for name, value in resumed.module.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)


def test_the_bundle_holds_the_head_of_all_speakers_alone(trained):
    voice, fused = (
        load_bundle(trained / "crossed_fold5" / name / "bundle").model.state_dict()
        for name in ("voice", "fusion")
    )
    assert not [name for name in fused if "cross_fitted" in name]
    for name, value in voice.items():
        if name.startswith("audio_head."):
            torch.testing.assert_close(fused[name], value)
