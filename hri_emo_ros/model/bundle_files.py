# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What is asked of a bundle's files before anything is made of them: a bundle may come from anybody.

Sizes are bounded, weights have the shapes that the configuration declares, and no file leads out of the folder.
ONNX Runtime itself reads external weights from wherever a graph says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hri_emo_ros.errors import HriEmoError

_MEGABYTE = 1 << 20
LARGEST = {".json": 64 * _MEGABYTE, ".onnx": 256 * _MEGABYTE, ".safetensors": 4096 * _MEGABYTE}
"""Bytes of a file, by suffix: wav2vec 2.0 large has 1.3 GB, graphs without weights have a few MB."""
_PARAMETER = "parameter 'model.bundle'"


def read_bounded(file: Path) -> bytes:
    """The content of a file of a bundle.

    Raises:
        HriEmoError: it is no ordinary file, larger than `LARGEST`, or cannot be read.
    """
    check_size(file)
    try:
        return file.read_bytes()
    except OSError as error:
        raise HriEmoError(f"cannot read '{file}': {error} ({_PARAMETER})") from error


def check_size(file: Path) -> None:
    """Raises HriEmoError where `file` is no ordinary file or larger than `LARGEST`."""
    most = LARGEST[file.suffix]
    try:
        size = (
            file.stat().st_size if file.is_file() else -1
        )  # A device or a pipe would be read for ever.
    except OSError as error:
        raise HriEmoError(f"cannot read '{file}': {error} ({_PARAMETER})") from error
    if size < 0:
        raise HriEmoError(f"'{file}' is no file ({_PARAMETER})")
    if size > most:
        raise HriEmoError(f"'{file}' has {size} bytes, must have at most {most} ({_PARAMETER})")


def held_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Of each array in a safetensors file, by its header alone.

    Raises:
        HriEmoError: it cannot be read, or its header does not fit its length.
    """
    from safetensors import SafetensorError, safe_open

    check_size(file)
    try:
        with safe_open(file, framework="numpy") as archive:
            return {name: tuple(archive.get_slice(name).get_shape()) for name in archive.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise HriEmoError(f"cannot read '{file}': {error} ({_PARAMETER})") from error


def check_graph(file: Path, content: bytes, allowed: set[str]) -> None:
    """Make sure that the ONNX graph in `file` takes its weights from `allowed` files beside it and from nowhere else.

    Raises:
        HriEmoError: it names another file, or is no ONNX graph.
    """
    try:
        named = set(_external_files(content))
    except (IndexError, UnicodeDecodeError, RecursionError) as error:
        raise HriEmoError(
            f"cannot load '{file}', it is no ONNX graph: run `hri-emo export` on the bundle again ({_PARAMETER})"
        ) from error
    if strange := named - allowed:
        raise HriEmoError(
            f"'{file}' takes weights from {', '.join(map(repr, sorted(strange)))}, must take them from "
            f"{', '.join(sorted(allowed))} ({_PARAMETER})"
        )


_MESSAGES: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
"""The messages of onnx.proto (ONNX IR 10) that lead to external weights: message -> field -> message."""


def _external_files(data: bytes, message: str = "Model") -> Iterator[str]:
    """The locations that any tensor of a serialised ModelProto names."""
    if message == "Entry":
        entry = {field: value for field, value in _fields(data) if isinstance(value, bytes)}
        if entry.get(1) == b"location":
            yield entry.get(2, b"").decode()
        return
    for field, value in _fields(data):
        inner = _MESSAGES[message].get(field)
        if inner is not None and isinstance(value, bytes):
            yield from _external_files(value, inner)


def _fields(data: bytes) -> Iterator[tuple[int, bytes | None]]:
    """(number, content where it has a length) of each field of a protobuf message.

    Raises:
        IndexError: that is none.
    """
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == 0:
            _, place = _varint(data, place)
            yield tag >> 3, None
            continue
        if kind not in (1, 2, 5):
            raise IndexError("a kind of field that ONNX does not use")
        length = {1: 8, 5: 4}.get(kind, 0)
        if kind == 2:
            length, place = _varint(data, place)
        if place + length > len(data):
            raise IndexError("a field is cut off")
        yield tag >> 3, data[place : place + length] if kind == 2 else None
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value & ((1 << 64) - 1), place
        if shift > 63:
            raise IndexError("a number is too long")
