# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The header of a WAV file, found in a stream of messages or in a file whose length nobody filled in."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hri_emo_ros.errors import HriEmoError

_FORMATS = {
    (1, 8): "U8", (1, 16): "S16LE", (1, 24): "S24LE", (1, 32): "S32LE",
    (3, 32): "F32LE", (3, 64): "F64LE", (6, 8): "ALAW", (7, 8): "MULAW",
}  # fmt: skip
"""(wFormatTag, bits of a sample's container) -> sample format (RFC 2361; Microsoft's mmreg.h)."""
_EXTENSIBLE = 0xFFFE
_LONGEST = 1 << 16
"""Bytes; a longer header is taken for garbage."""
_UNKNOWN = 0x7FFF0000
"""Data sizes from here on stand for "not known yet" (writers use 2^31 - 1, 2^31 - 4096, 2^32 - 1)."""


@dataclass(frozen=True)
class WavHeader:
    """What stands before the samples."""

    size: int
    """Bytes up to the first sample."""
    sample_rate: int
    channels: int
    sample_format: str
    data_bytes: int
    """Length of the samples; 0 if unknown."""


def looks_like_wav(data: bytes) -> bool:
    """`data` starts as a WAV file does."""
    return data[:4] in (b"RIFF", b"RF64") and b"WAVE".startswith(data[8:12])


def parse_wav_header(data: bytes) -> WavHeader | None:
    """The header that `data` begins with; None if it is not complete yet.

    Raises:
        HriEmoError: it is none, or holds no PCM.
    """
    place, described = 12, b""
    while place + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, place)
        place += 8
        if name == b"data":
            return _header(place, described, length)
        if place + length > _LONGEST:
            raise _endless()
        if name == b"fmt ":
            described = data[place : place + length]
        place += length + length % 2
    return None


def _endless() -> HriEmoError:
    return HriEmoError(
        f"the audio begins with a WAV header of more than {_LONGEST} bytes without samples: set the "
        "capture node to send PCM without headers"
    )


def _header(size: int, described: bytes, length: int) -> WavHeader:
    if len(described) < 16:
        raise HriEmoError("the audio begins with a WAV header without 'fmt ': is it damaged?")
    tag, channels, rate, _, align, bits = struct.unpack_from("<HHIIHH", described)
    if tag == _EXTENSIBLE and len(described) >= 26:
        (tag,) = struct.unpack_from("<H", described, 24)
    # The container counts: 20 or 24 bits lie in the upper ones of it.
    container = 8 * align // channels if channels and align else bits
    name = _FORMATS.get((tag, container))
    if name is None:
        raise HriEmoError(
            f"the audio has a WAV header of coding 0x{tag:04x} with {container} bits, must be "
            "uncompressed PCM: set the capture node to 16-bit PCM"
        )
    return WavHeader(size, rate, channels, name, 0 if length >= _UNKNOWN else length)
