# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Text -> subword ids with the words they belong to, through the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordPieceTrainer

from hri_emo_ros.errors import HriEmoError

TOKENIZER_FILE = "tokenizer.json"
_PAD_TOKENS = ("[PAD]", "<pad>")


@dataclass(frozen=True)
class EncodedText:
    """One text as the encoder reads it."""

    ids: list[int]
    """Token ids with the special ones at both ends."""
    words: list[str]
    """The text split at white space; only those that got at least one token."""
    word_of_token: list[int]
    """For each token the index in `words`; -1 for special tokens."""


class TextTokenizer:
    """A `tokenizers.Tokenizer` with what the network needs to know about it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        ids = [tokenizer.token_to_id(token) for token in _PAD_TOKENS]
        self.pad_id = next((index for index in ids if index is not None), 0)

    @property
    def vocabulary_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str, max_tokens: int) -> EncodedText:
        """Encode `text`, keeping its beginning when it has more than `max_tokens` tokens."""
        text = text.strip()
        self._tokenizer.enable_truncation(max_tokens)
        encoding = self._tokenizer.encode(text)
        spans = _word_spans(text)
        owners = [
            _owner(span, spans) if not special else -1
            for span, special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
        ]
        seen = sorted({owner for owner in owners if owner >= 0})
        renumber = {old: new for new, old in enumerate(seen)}
        return EncodedText(
            ids=list(encoding.ids),
            words=[text[spans[old][0] : spans[old][1]] for old in seen],
            word_of_token=[renumber.get(owner, -1) for owner in owners],
        )

    def encode_turn(self, text: str, max_tokens: int) -> list[int]:
        """Ids of an earlier turn, to stand behind an utterance: at most `max_tokens` and a separator."""
        self._tokenizer.no_truncation()
        separator = self._tokenizer.encode("").ids[-1:]
        return (
            self._tokenizer.encode(text.strip(), add_special_tokens=False).ids[:max_tokens]
            + separator
        )

    def save(self, folder: Path) -> None:
        """Write tokenizer.json into `folder`."""
        self._tokenizer.no_truncation()
        self._tokenizer.save(str(folder / TOKENIZER_FILE))


def load_tokenizer(source: str | Path, allow_download: bool = False) -> TextTokenizer:
    """Load a tokenizer from a tokenizer.json, a folder, or (with `allow_download`) a model name.

    Raises:
        HriEmoError: there is no such tokenizer.
    """
    path = Path(source)
    file = path / TOKENIZER_FILE if path.is_dir() else path
    if file.is_file():
        try:
            return TextTokenizer(Tokenizer.from_file(str(file)))
        except Exception as error:  # tokenizers raises plain Exception
            raise HriEmoError(f"cannot read tokenizer '{file}': {error}") from error
    try:
        from transformers import AutoTokenizer  # 3 s to import, and only older folders need it

        slow_or_fast = AutoTokenizer.from_pretrained(
            str(source), local_files_only=not allow_download, use_fast=True
        )
        return TextTokenizer(slow_or_fast.backend_tokenizer)
    except Exception as error:  # a dozen types, from OSError to those of the hub's client
        raise HriEmoError(
            f"no tokenizer in '{source}': give a folder with {TOKENIZER_FILE} "
            "(parameter 'model.text.name')"
        ) from error


def train_tokenizer(texts: Iterable[str], vocabulary_size: int = 8000) -> TextTokenizer:
    """A lower-case WordPiece tokenizer in BERT's form, trained on `texts`; the same texts give the
    same tokenizer."""
    texts = list(texts)
    normalizer = BertNormalizer(lowercase=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # The trainer numbers word-inner characters in the order of a hash map, and the numbers decide
    # between equally frequent merges. Given as special tokens they are numbered in advance; the
    # tokenizer is then built afresh from the vocabulary, where they are ordinary ones.
    characters = sorted({c for text in texts for c in normalizer.normalize_str(text)})
    inner = [f"##{c}" for c in characters if not c.isspace()]
    trained = Tokenizer(WordPiece(unk_token="[UNK]"))
    trained.normalizer, trained.pre_tokenizer = normalizer, BertPreTokenizer()
    trained.train_from_iterator(
        texts,
        WordPieceTrainer(
            vocab_size=vocabulary_size, special_tokens=special + inner, show_progress=False
        ),
    )
    tokenizer = Tokenizer(WordPiece(trained.get_vocab(), unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return TextTokenizer(tokenizer)


def _word_spans(text: str) -> list[tuple[int, int]]:
    spans, start = [], None
    for index, character in enumerate(text + " "):
        if character.isspace():
            if start is not None:
                spans.append((start, index))
            start = None
        elif start is None:
            start = index
    return spans


def _owner(span: tuple[int, int], words: list[tuple[int, int]]) -> int:
    """Index of the word in which the token's last character lies: byte-level tokens may start with the
    blank before a word, or be nothing else, and then belong to the word behind it."""
    stop = span[1]
    return next((i for i, (start, end) in enumerate(words) if start <= stop <= end), -1)
