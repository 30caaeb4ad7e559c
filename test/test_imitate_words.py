"""Teaching a pruned text encoder what the whole network makes of a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import corpus_trees
import pytest
import torch
from tiny_models import TEXT_CONFIGS, tiny_tokenizer
from transformers import AutoConfig, AutoModel

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.bundle import load_bundle
from hri_emo_ros.training.config import ImitateWordsSection, parse_config
from hri_emo_ros.training.imitate_words import imitate_words, sentence_embeddings
from hri_emo_ros.training.trainer import Trainer


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = AutoConfig.for_model(**(TEXT_CONFIGS["bert"] | {"vocab_size": 300}))
    AutoModel.from_config(config, add_pooling_layer=False).save_pretrained(folder)
    tiny_tokenizer().save(folder)
    return folder


@pytest.fixture(scope="module")
def pruned_and_taught(bert: Path) -> dict[str, Any]:
    corpus = {"name": "goemotions", "path": "goemotions", "split": {"method": "official"}}
    return {
        "name": "words",
        "data": {"corpora": [corpus]},
        "prune": {
            "source": str(bert), "layers": [1], "vocabulary_size": 120, "max_positions": 32,
            "imitate": {"epochs": 2.0},
        },
        "model": {"head": "text_only", "max_text_tokens": 32, "text": {"unfreeze_last_n_layers": 0}},
        "optim": {"epochs": 2, "batch_size": 4, "ema": 0.9},
    }  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    corpus_trees.goemotions(folder / "goemotions")
    return folder


def test_a_sentence_in_a_batch_means_what_it_means_alone(bert: Path) -> None:
    texts = ["no", "I am happy, and the day is long", "so sad today"]
    together = sentence_embeddings(bert, texts, 32, lambda: None)
    for text, found in zip(texts, together, strict=True):
        alone = sentence_embeddings(bert, [text], 32, lambda: None)[0]
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)
    assert (together[0] - together[1]).abs().max() > 0.01


def test_imitation_brings_sentences_closer_to_the_whole_network(
    pruned_and_taught: dict[str, Any], bert: Path, root: Path, tmp_path: Path
) -> None:
    trainer = Trainer(parse_config(pruned_and_taught), root, tmp_path / "run")
    model = trainer.network.model
    left = [
        imitate_words(
            model, bert, trainer.sampler, trainer.maker,
            ImitateWordsSection(epochs=epochs, lr=3e-3), lambda *_: lambda: None,
        )
        for epochs in (1.0, 60.0)
    ]  # fmt: skip
    assert left[1] < 0.3 * left[0]
    assert not any(parameter.requires_grad for parameter in model.text_encoder.parameters())


def test_a_run_ships_the_taught_encoder_which_the_head_left_alone(
    pruned_and_taught: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    trainer = Trainer(parse_config(pruned_and_taught), root, tmp_path / "run")
    before = {k: v.clone() for k, v in trainer.network.model.text_encoder.state_dict().items()}
    assert trainer.run(stop_after=2) == {}
    taught = {k: v.clone() for k, v in trainer.network.model.text_encoder.state_dict().items()}
    moved = [name for name, value in before.items() if not torch.equal(taught[name], value)]
    assert any("word_embeddings" in name for name in moved)
    assert any("encoder.layer.0.output" in name for name in moved)

    Trainer(parse_config(pruned_and_taught), root, tmp_path / "run").run(resume=True)
    shipped = load_bundle(tmp_path / "run" / "bundle").model.text_encoder.state_dict()
    for name, value in taught.items():
        torch.testing.assert_close(shipped[name], value, atol=2e-3, rtol=2e-3)  # 16-bit weights


def test_an_encoder_out_of_a_bundle_is_neither_pruned_nor_taught(
    pruned_and_taught: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    Trainer(parse_config(pruned_and_taught), root, tmp_path / "first").run()
    bundle = tmp_path / "first" / "bundle"
    again = pruned_and_taught | {"pretrained": {"text": str(bundle)}}
    trainer = Trainer(parse_config(again), root, tmp_path / "second")
    trainer.run(stop_after=2)
    taken = trainer.network.model.text_encoder.state_dict()
    for name, value in load_bundle(bundle).model.text_encoder.state_dict().items():
        torch.testing.assert_close(taken[name], value, atol=0, rtol=0)


def test_imitation_while_pairs_are_drawn_is_refused(pruned_and_taught: dict[str, Any]) -> None:
    with pytest.raises(HriEmoError, match=r"prune\.imitate.*pairs\.enabled"):
        parse_config(pruned_and_taught | {"pairs": {"enabled": True}})


def test_a_folder_without_an_encoder_is_refused(
    pruned_and_taught: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    prune = pruned_and_taught["prune"] | {"source": str(tmp_path)}
    config = parse_config(pruned_and_taught | {"prune": prune})
    with pytest.raises(HriEmoError, match=r"holds no config\.json"):
        Trainer(config, root, tmp_path / "run")
