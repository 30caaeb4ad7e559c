# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The voices of a `VoiceMemory` as a file: statistics and embeddings, no audio, no words.

safetensors with one JSON object under the key ``voices`` of its metadata: format, model (whose statistics
these are), space (in which voices are compared), next id and each voice's counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import FloatArray
from hri_emo_ros.voices.baseline import Heard
from hri_emo_ros.voices.clusters import SPACE, Points
from hri_emo_ros.voices.encoder import MODEL
from hri_emo_ros.voices.memory import Voice, VoiceMemory

_FORMAT = 1
_MOST_BYTES = 32 << 20
"""A larger file is none of ours: 256 voices of 16,384 numbers each have 17 MB."""
_MOST_VOICES, _MOST_SIZE = 256, 16_384
_PARAMETER = "parameter 'voices.profiles'"


def _check_writable(path: Path) -> None:
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise HriEmoError(
            f"cannot write the voice profiles '{path}' ('{above}' is no folder to write to): set {_PARAMETER} to a "
            "file that can be written, or leave it empty to keep none"
        )


def save_profiles(memory: VoiceMemory, path: Path, model_id: str) -> None:
    """Write what the memory knows, readable by its owner alone; the file is replaced at once or not at all.

    Args:
        model_id: of the bundle whose statistics the memory holds.

    Raises:
        HriEmoError: the file cannot be written.
    """
    tensors: dict[str, FloatArray] = {}
    voices: dict[str, Any] = {}
    whole = memory.voices
    for name, voice in whole.items():
        voices[name] = {
            "utterances": voice.utterances,
            "seconds": round(voice.seconds, 3),
            "last_heard_ns": voice.last_heard_ns,
        }
        if voice.points is not None:
            voices[name] |= {"points": voice.points.count, "square": voice.points.square}
            tensors[f"{name}.points"] = voice.points.total.astype(np.float32)
        if voice.heard is not None:
            voices[name]["heard"] = voice.heard.count
            tensors[f"{name}.heard"] = voice.heard.total
    content = {
        "format": _FORMAT,
        "model": model_id,
        "space": _space(),
        "next": memory.next_number,
        "voices": voices,
    }
    data = save(tensors, {"voices": json.dumps(content)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            try:  # Such files are made readable by their owner alone.
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise HriEmoError(
            f"cannot write the voice profiles '{path}' ({error.strerror}): set {_PARAMETER} to a "
            "file in a folder that can be written, or leave it empty to keep none"
        ) from error


def load_profiles(memory: VoiceMemory, path: Path, model_id: str) -> int:
    """Put the file's voices into a memory that has none; returns how many there are, 0 without a file.

    Raises:
        HriEmoError: the file cannot be read, is broken or is another model's, or there is none and it cannot be
            written; the memory is unchanged.
    """
    try:
        if not path.exists():
            _check_writable(path)
            return 0
        if path.stat().st_size > _MOST_BYTES:
            raise _Broken(f"it has more than {_MOST_BYTES >> 20} MB")
        data = path.read_bytes()
    except OSError as error:
        raise HriEmoError(
            f"cannot read the voice profiles '{path}' ({error.strerror}): set {_PARAMETER} to a "
            "file that can be read, or leave it empty to keep none"
        ) from error
    except _Broken as error:
        raise _refusal(path, str(error)) from error
    try:
        content = _content(data)
        if content["format"] != _FORMAT:
            raise _Broken(f"its format is {content['format']!r}, must be {_FORMAT}")
        for key, mine in (("model", model_id), ("space", _space())):
            if content[key] != mine:
                raise _Broken(f"it was made with {key} {content[key]!r:.80}, this is {mine!r}")
        tensors = load(data)
        voices = {str(name): _voice(str(name), v, tensors) for name, v in content["voices"].items()}
        if len(voices) > _MOST_VOICES:
            raise _Broken(f"it holds {len(voices)} voices, at most {_MOST_VOICES} are allowed")
        sizes = {len(v.heard.total) for v in voices.values() if v.heard is not None}
        if len(sizes) > 1:
            raise _Broken(f"its statistics have different lengths: {sorted(sizes)}")
        memory.restore(voices, int(content["next"]))
    except (
        _Broken, SafetensorError, ValueError, TypeError, KeyError, AttributeError, IndexError,
        OverflowError, RecursionError,
    ) as error:  # fmt: skip
        reason = str(error) if isinstance(error, _Broken) else "it is not a whole profile file"
        raise _refusal(path, reason) from error
    return len(voices)


class _Broken(Exception):
    """What is wrong with a file, as the end of a sentence."""


def _refusal(path: Path, reason: str) -> HriEmoError:
    return HriEmoError(
        f"the voice profiles '{path}' cannot be used, {reason}: set {_PARAMETER} to another file, or "
        "delete this one to start anew"
    )


def _content(data: bytes) -> Any:
    """The JSON under ``voices``, with the sizes of the tensors checked before any is made."""
    (length,) = struct.unpack("<Q", data[:8]) if len(data) >= 8 else (len(data),)
    if length > len(data) - 8:
        raise _Broken("it is cut off")
    header = json.loads(data[8 : 8 + length])
    content = json.loads(header.pop("__metadata__")["voices"])
    for name, tensor in header.items():
        shape = tensor["shape"]
        if tensor["dtype"] != "F32" or len(shape) != 1 or not 0 < shape[0] <= _MOST_SIZE:
            raise _Broken(
                f"'{name}' is {tensor['dtype']} {shape}, must be F32 of 1 to {_MOST_SIZE}"
            )
    return content


def _voice(name: str, value: dict[str, Any], tensors: dict[str, FloatArray]) -> Voice:
    if not (name[:1] == "v" and name[1:].isdecimal()):
        raise _Broken(f"it names a voice {name!r:.40}, must be v1, v2, ...")
    points = heard = None
    if "points" in value:
        total = tensors[f"{name}.points"].astype(np.float64)
        points = Points(max(_number(value["points"]), 1e-3), total, _number(value["square"]))
    if "heard" in value:
        heard = Heard(tensors[f"{name}.heard"], _number(value["heard"]))
    finite: list[Any] = [points.total] if points else []
    finite += [heard.total] if heard else []
    if not all(np.isfinite(tensor).all() for tensor in finite):
        raise _Broken(f"voice {name} holds numbers that are not finite")
    return Voice(
        int(value["last_heard_ns"]), points, heard, int(_number(value["utterances"])),
        _number(value["seconds"]),
    )  # fmt: skip


def _number(value: Any) -> float:
    number = float(value)
    if not 0.0 <= number < 1e12:
        raise _Broken(f"it holds the count {value!r:.40}")
    return number


@lru_cache(maxsize=1)
def _space() -> str:
    """What embeddings are comparable with."""
    return hashlib.sha256(MODEL.read_bytes() + SPACE.read_bytes()).hexdigest()[:16]
