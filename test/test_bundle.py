# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A bundle is a folder that is all it takes; a broken one is explained in one sentence."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from tiny_models import mixed_items, tiny_config, tiny_model

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.batch import collate
from hri_emo_ros.model.bundle import find_bundle, load_bundle, save_bundle
from hri_emo_ros.model.calibration import Calibration
from hri_emo_ros.model.export import export_bundle
from hri_emo_ros.model.tokenizer import load_tokenizer


def logits(bundle):
    with torch.no_grad():
        return bundle.model(collate(mixed_items(), bundle.config, bundle.tokenizer)).logits


@pytest.mark.parametrize("head", ["hri_emo", "late_fusion", "audio_only", "text_only"])
@pytest.mark.parametrize(
    ("audio", "text"), [("compact", "bert"), ("wavlm", "roberta"), ("wav2vec2", "bert")]
)
def test_float32_loads_back_exactly_without_network_or_other_folders(
    head, audio, text, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    bundle = tiny_model(tiny_config(head, audio, text))
    bundle.calibration = Calibration.identity(7).model_copy(update={"temperature_text": [2.0]})
    bundle.card, bundle.training = "# My card\n", {"ua": 0.5}
    loaded = load_bundle(save_bundle(bundle, tmp_path / "made" / "here", "float32"))
    assert torch.equal(logits(loaded), logits(bundle))
    assert (loaded.calibration, loaded.card, loaded.training) == (
        bundle.calibration, bundle.card, bundle.training,
    )  # fmt: skip
    assert loaded.model_id == bundle.model_id
    assert loaded.name == "tiny"
    assert not loaded.model.training


def weights_size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def test_float16_halves_the_size_and_hardly_changes_the_answer(tmp_path):
    bundle = tiny_model(tiny_config())
    full = save_bundle(bundle, tmp_path / "full", "float32")
    half = save_bundle(bundle, tmp_path / "half")
    assert weights_size(half) < 0.75 * weights_size(full)
    difference = logits(load_bundle(tmp_path / "half")) - logits(bundle)
    assert difference.abs().max() < 0.02


def test_saving_a_loaded_bundle_again_gives_the_same_files(tmp_path, tiny_bundle):
    copy = save_bundle(load_bundle(tiny_bundle), tmp_path / "copy")
    export_bundle(copy)
    for file in tiny_bundle.iterdir():
        assert (copy / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_model_id_changes_with_the_weights(tmp_path):
    one, other = tiny_model(tiny_config(), seed=1), tiny_model(tiny_config(), seed=2)
    save_bundle(one, tmp_path / "one")
    save_bundle(other, tmp_path / "other")
    assert one.model_id != other.model_id


def test_other_users_may_read_every_file_of_a_bundle(tmp_path):
    before = os.umask(0o022)
    try:
        save_bundle(tiny_model(tiny_config()), tmp_path / "b")
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "b").iterdir() if path.is_file()]
    assert len(files) > 3
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in files)


def test_no_pickle_is_written(tiny_bundle):
    assert sorted(file.name for file in tiny_bundle.iterdir()) == [
        "README.md", "config.json", "head.onnx", "model.safetensors", "tokenizer.json", "voice.onnx",
        "voice.safetensors", "words.onnx", "words.safetensors",
    ]  # fmt: skip


def test_models_that_share_an_encoder_differ_in_the_other_files_only(tmp_path):
    one, other = tiny_model(tiny_config(), seed=1), tiny_model(tiny_config(), seed=2)
    other.model.audio_encoder.load_state_dict(one.model.audio_encoder.state_dict())
    folders = [save_bundle(m, tmp_path / name) for m, name in ((one, "one"), (other, "other"))]
    same = {
        file.name: file.read_bytes() == (folders[1] / file.name).read_bytes()
        for file in folders[0].glob("*.safetensors")
    }
    assert same == {
        "voice.safetensors": True,
        "words.safetensors": False,
        "model.safetensors": False,
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda f: edit_config(f, calibration__abstain_confidence=0.123),
        lambda f: edit_config(f, model__gate_slope=4.0),
        lambda f: flip(f / "words.safetensors", -1),
        lambda f: (f / "tokenizer.json").write_text((f / "tokenizer.json").read_text() + " "),
    ],
)
def test_a_bundle_that_is_not_what_its_identity_says_is_refused(tmp_path, tiny_bundle, change):
    folder = tmp_path / "b"
    shutil.copytree(tiny_bundle, folder)
    change(folder)
    with pytest.raises(HriEmoError, match="says model_id 'tiny-") as refused:
        load_bundle(folder)
    # A change that was meant is a new model, with the identity that the message tells.
    found = str(refused.value).split("' is '")[1].split("'")[0]
    edit_config(folder, model_id=found)
    assert load_bundle(folder).model_id == found != load_bundle(tiny_bundle).model_id


def test_the_trainers_notes_are_no_part_of_the_identity(tmp_path, tiny_bundle):
    folder = tmp_path / "b"
    shutil.copytree(tiny_bundle, folder)
    edit_config(folder, training={"note": "trained on a Tuesday"})
    assert load_bundle(folder).model_id == load_bundle(tiny_bundle).model_id


def flip(file, byte):
    content = bytearray(file.read_bytes())
    content[byte] ^= 1
    file.write_bytes(bytes(content))


def test_a_bundle_written_over_another_leaves_no_encoder_behind(tmp_path):
    save_bundle(tiny_model(tiny_config()), tmp_path / "b")
    save_bundle(tiny_model(tiny_config("audio_only")), tmp_path / "b")
    assert not (tmp_path / "b" / "words.safetensors").exists()
    assert load_bundle(tmp_path / "b").config.head == "audio_only"


def edit_config(folder, **changes):
    file = folder / "config.json"
    document = json.loads(file.read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = document
        for parent in parents:
            target = target[parent]
        target[last] = value
    file.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: (f / "config.json").unlink(), "is no bundle: it has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "cannot read"),
        (lambda f: edit_config(f, schema_version=99), "schema_version 99, must be 1"),
        (lambda f: edit_config(f, model__head="magic"), "model.head.*hri_emo"),
        (lambda f: edit_config(f, model__colour="red"), "model.colour"),
        (lambda f: edit_config(f, model__d_model=32), "do not fit its config.json"),
        (lambda f: edit_config(f, calibration__thresholds=[0.5]), "1 thresholds for 7 labels"),
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"PK\x03\x04zip"), "cannot read"),
        (lambda f: (f / "words.safetensors").unlink(), "has no words.safetensors"),
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda f: (f / "tokenizer.json").write_text("no"), "cannot read tokenizer"),
        (lambda f: shutil.rmtree(f), "no model bundle"),
    ],
)  # fmt: skip
def test_a_broken_bundle_is_explained_in_a_sentence(damage, sentence, tiny_bundle, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_bundle, folder)
    damage(folder)
    with pytest.raises(HriEmoError, match=sentence) as caught:
        load_bundle(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_where_it_was_looked_for():
    with pytest.raises(
        HriEmoError, match=r"no model bundle 'nonsense'.*models/nonsense.*model\.bundle"
    ):
        find_bundle("nonsense")


def test_names_are_found_in_the_ament_share_folder(tmp_path, tiny_bundle, monkeypatch):
    pytest.importorskip("ament_index_python")
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "hri_emo_ros").touch()
    place = tmp_path / "share" / "hri_emo_ros" / "models" / "mine"
    shutil.copytree(tiny_bundle, place)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert find_bundle("mine") == place


def test_a_text_model_without_its_tokenizer_is_not_saved(tmp_path):
    bundle = tiny_model(tiny_config())
    bundle.tokenizer = None
    with pytest.raises(HriEmoError, match="text encoder needs a tokenizer"):
        save_bundle(bundle, tmp_path / "x")


def test_tokens_know_their_words():
    bundle = tiny_model(tiny_config())
    encoded = bundle.tokenizer.encode("  happy,  angrily sad! ", 32)
    assert encoded.words == ["happy,", "angrily", "sad!"]
    assert encoded.word_of_token[0] == encoded.word_of_token[-1] == -1
    assert set(encoded.word_of_token) == {-1, 0, 1, 2}
    short = bundle.tokenizer.encode("happy and sad and angry", 4)
    assert len(short.ids) == 4
    assert short.words == ["happy", "and"]


def test_byte_level_tokenizers_know_their_words_too(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.train_from_iterator(
        ["so very happy today"] * 9,
        trainers.BpeTrainer(
            vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<s>", "<pad>", "</s>"], show_progress=False,
        ),
    )  # fmt: skip
    raw.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.pad_id == 1
    encoded = tokenizer.encode("so very unhappy", 32)
    assert encoded.words == ["so", "very", "unhappy"]
    assert [w for w in encoded.word_of_token if w >= 0] == encoded.word_of_token
