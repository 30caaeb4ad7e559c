# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Bytes of uncompressed audio to float samples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from hri_emo_ros.audio.wav import WavHeader, looks_like_wav, parse_wav_header
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.parameters import SAMPLE_FORMATS
from hri_emo_ros.types import FloatArray

_SYNONYMS = {
    # GStreamer's and ALSA's names, ffmpeg's codecs, libsndfile's and numpy's types, PortAudio's constants.
    "UINT8": "U8",
    "INT8": "S8",
    "S16": "S16LE", "INT16": "S16LE", "16": "S16LE",
    # In ALSA, S24_LE lies in 32 bits and S24_3LE in 24; in GStreamer and ffmpeg, S24LE lies in 24.
    "S24_LE": "S24_32LE", "S24_BE": "S24_32BE", "S24_32": "S24_32LE", "S24_3LE": "S24LE",
    "S24_3BE": "S24BE", "S24": "S24LE", "INT24": "S24LE", "24": "S24LE",
    "S32": "S32LE", "INT32": "S32LE", "32": "S32LE",
    "F32": "F32LE", "FLOAT": "F32LE", "FLOAT32": "F32LE", "FLOATLE": "F32LE", "FLOATBE": "F32BE",
    "FLOAT32LE": "F32LE", "FLOAT32BE": "F32BE",
    "F64": "F64LE", "DOUBLE": "F64LE", "FLOAT64": "F64LE", "FLOAT64LE": "F64LE",
    "FLOAT64BE": "F64BE",
    # ITU-T G.711.
    "A_LAW": "ALAW", "A-LAW": "ALAW", "PCMA": "ALAW", "G711A": "ALAW", "G711_ALAW": "ALAW",
    "MU_LAW": "MULAW", "MU-LAW": "MULAW", "ULAW": "MULAW", "U-LAW": "MULAW", "U_LAW": "MULAW",
    "PCMU": "MULAW", "G711U": "MULAW", "G711_ULAW": "MULAW", "G711_MULAW": "MULAW",
}  # fmt: skip
_BYTES = {"ALAW": 1, "MULAW": 1, "S24_32LE": 4, "S24_32BE": 4}
"""Where the name does not tell the bits that a sample takes."""
_RAW_CODINGS = {"", "wave", "wav", "pcm", "raw", "lpcm", "linear", "audio/x-raw"}
_MAGIC = {b"ID3": "MP3", b"OggS": "Ogg", b"fLaC": "FLAC", b"RIFX": "big-endian WAV",
          b"\x1aE\xdf\xa3": "Matroska/WebM"}  # fmt: skip
_SEARCHED = 8192
"""Bytes at a stream's beginning, and of the last while frames are found, that are searched for MP3
frames wherever they begin."""
_MP3_CHAIN = 3
"""Frame headers that follow one another where each says: chance makes that of noise once in 2^45 places."""
_ADVICE = "set the parameter 'format' of the capture node to 'wave'"


def parse_sample_format(word: str) -> str:
    """The declared name (one of `SAMPLE_FORMATS`) of an encoding as AudioInfo messages spell it.

    Raises:
        HriEmoError: it means nothing known.
    """
    name = re.sub(r"^(PCM_|PA(?=INT|UINT|FLOAT)|AUDIO/X-)", "", word.strip().upper())
    if name not in _SYNONYMS:
        name = re.sub(r"_([LB]E)$", r"\1", name)
    name = _SYNONYMS.get(name, name)
    if name not in SAMPLE_FORMATS:
        raise HriEmoError(
            f"sample format {word!r} is not one of {', '.join(SAMPLE_FORMATS)}: "
            "set audio.sample_format, or audio.use_info to false if AudioInfo is wrong"
        )
    return name


def described_format(
    sample_rate: int, channels: int, sample_format: str, coding_format: str
) -> PcmFormat:
    """The format that the fields of ros-drivers' AudioInfo describe.

    Raises:
        HriEmoError: it is compressed or impossible; says which.
    """
    coding = coding_format.strip()
    if coding.lower() not in _RAW_CODINGS:
        # A-law and mu-law are codings to some and sample formats to others.
        if _is_law(coding):
            return PcmFormat(sample_rate, channels, coding)
        raise HriEmoError(
            f"audio is coded as {coding_format!r}, must be uncompressed PCM: {_ADVICE}, or "
            "audio.use_info to false if AudioInfo is wrong"
        )
    return PcmFormat(sample_rate, channels, sample_format)


def _is_law(word: str) -> bool:
    try:
        return parse_sample_format(word) in ("ALAW", "MULAW")
    except HriEmoError:
        return False


@dataclass(frozen=True)
class PcmFormat:
    """How the bytes of a stream are to be read.

    Args:
        sample_rate: Hz, 4000 to 192000.
        channels: interleaved, 1 to 32.
        sample_format: one of `SAMPLE_FORMATS`, or a word `parse_sample_format` knows.

    Raises:
        HriEmoError: a value is out of range.
    """

    sample_rate: int
    channels: int = 1
    sample_format: str = "S16LE"

    def __post_init__(self) -> None:
        if not 4000 <= self.sample_rate <= 192000:
            raise HriEmoError(
                f"sample rate {self.sample_rate} Hz must be 4000 to 192000: set audio.sample_rate"
            )
        if not 1 <= self.channels <= 32:
            raise HriEmoError(f"{self.channels} channels must be 1 to 32: set audio.channels")
        object.__setattr__(self, "sample_format", parse_sample_format(self.sample_format))

    @cached_property
    def sample_bytes(self) -> int:
        """Bytes of one sample of one channel."""
        known = _BYTES.get(self.sample_format)
        return known if known is not None else int(self.sample_format.strip("USFLBE")) // 8

    @cached_property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return self.sample_bytes * self.channels

    @cached_property
    def full_scale(self) -> float:
        """Magnitude from which a sample counts as clipped.

        The largest code of mu-law is 0.980, of A-law 0.984, the largest positive one of 8 bits 0.992;
        one code below full scale is allowed for, since some converters clip there.
        """
        if self.sample_format in ("ALAW", "MULAW"):
            return 0.98
        return 0.99 if self.sample_bytes == 1 else 0.999


def declared_format(values: Mapping[str, Any]) -> PcmFormat:
    """The format that the speech node's parameters declare.

    Raises:
        HriEmoError: as `PcmFormat`.
    """
    return PcmFormat(
        int(values["audio.sample_rate"]),
        int(values["audio.channels"]),
        str(values["audio.sample_format"]),
    )


def decode(data: bytes, pcm_format: PcmFormat) -> FloatArray:
    """Whole frames of interleaved PCM as float32 [frames, channels], full scale [-1, 1].

    Raises:
        HriEmoError: the length is not a whole number of frames.
    """
    if len(data) % pcm_format.frame_bytes:
        raise HriEmoError(
            f"{len(data)} bytes are no whole number of {pcm_format.frame_bytes}-byte frames "
            f"({pcm_format.channels} x {pcm_format.sample_format}): check audio.channels and "
            "audio.sample_format"
        )
    name, width = pcm_format.sample_format, pcm_format.sample_bytes
    order = ">" if name.endswith("BE") else "<"
    if name in ("ALAW", "MULAW"):
        flat = _g711_table(name)[np.frombuffer(data, np.uint8)]
    elif name.startswith("S24_32"):
        # In the lower three bytes: what the fourth holds is not said, so it is shifted out.
        flat = (np.frombuffer(data, f"{order}i4") << 8).astype(np.float32) / np.float32(2**31)
    elif name == "U8":
        flat = (np.frombuffer(data, np.uint8).astype(np.float32) - 128.0) / 128.0
    elif name.startswith("F"):
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # A huge double becomes inf: a bad sample.
            flat = np.frombuffer(data, f"{order}f{width}").astype(np.float32)
    elif width == 3:
        # Into the upper three bytes of an int32, so that the sign comes out right.
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)[
            :, :: 1 if order == "<" else -1
        ]
        flat = padded.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
    else:
        flat = np.frombuffer(data, f"{order}i{width}").astype(np.float32)
        flat /= np.float32(2 ** (8 * width - 1))
    return flat.reshape(-1, pcm_format.channels)


@cache
def _g711_table(name: str) -> FloatArray:
    """Value of each of the 256 codes, [-1, 1] (ITU-T G.711, 1988, tables 1a and 2a)."""
    codes = np.arange(256)
    if name == "MULAW":
        inverted = ~codes & 0xFF
        exponent, mantissa = inverted >> 4 & 7, inverted & 15
        magnitude = ((2 * mantissa + 33) << exponent) - 33
        values = np.where(inverted & 0x80, -magnitude, magnitude) * 4
    else:
        inverted = codes ^ 0x55  # Every other bit is sent inverted.
        exponent, mantissa = inverted >> 4 & 7, inverted & 15
        magnitude = np.where(
            exponent == 0, 2 * mantissa + 1, (2 * mantissa + 33) << np.maximum(exponent - 1, 0)
        )
        values = np.where(inverted & 0x80, magnitude, -magnitude) * 8
    return (values / 32768.0).astype(np.float32)


class PcmDecoder:
    """Decodes a stream of messages; a frame split between two messages is put together again.

    A WAV header at the beginning of a message is taken out, and its format followed: `format` then
    tells it. The length that the header states ends the samples within a message only; what comes
    later is read on, since headers of streams state lengths that are not known yet.
    """

    def __init__(self, pcm_format: PcmFormat) -> None:
        self.format = pcm_format
        self._rest = b""
        self._header = b""
        """Beginning of a WAV header that is not complete."""
        self._left = 0
        """Bytes that the last header announced and that have not come yet; 0 if unknown."""
        self._refused: HriEmoError | None = None
        self._heard = 0
        self._searched = b""
        self._mp3 = False

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame begun but not complete."""
        return len(self._rest)

    def decode(self, data: bytes) -> FloatArray:
        """The frames completed by this message: float32 [frames, channels], in `format`.

        Raises:
            HriEmoError: the bytes are those of a compressed format or a file.
        """
        data = self._header + data
        self._header = b""
        if looks_like_wav(data):
            self._refused = None
            try:
                header = parse_wav_header(data)
                if header is not None:
                    self._follow(header)
            except HriEmoError as error:
                self._refused = error
                raise
            if header is None:
                self._header = data
                return np.zeros((0, self.format.channels), np.float32)
            data = data[header.size :]
        elif self._refused is not None:
            raise self._refused  # What follows such a header is no PCM either.
        else:
            self._refuse_compressed(data)
        if self._left and self._left < len(data):
            # Behind the samples a file has tags; another file may follow at once.
            data, behind = data[: self._left], data[self._left :]
            self._left = 0
            return self._with_next(self._whole_frames(data), behind)
        self._left = max(0, self._left - len(data))
        return self._whole_frames(data)

    def _follow(self, header: WavHeader) -> None:
        self.format = PcmFormat(header.sample_rate, header.channels, header.sample_format)
        self._rest = b""
        self._left = header.data_bytes

    def _with_next(self, frames: FloatArray, behind: bytes) -> FloatArray:
        if not looks_like_wav(behind):
            return frames
        before = self.format
        following = self.decode(behind)
        # Of two formats in one message the later one goes on.
        return np.concatenate([frames, following]) if self.format == before else following

    def _whole_frames(self, data: bytes) -> FloatArray:
        data = self._rest + data
        whole = len(data) - len(data) % self.format.frame_bytes
        self._rest = data[whole:]
        return decode(data[:whole], self.format)

    def _refuse_compressed(self, data: bytes) -> None:
        found = sniff_container(data)
        # Messages may be cut anywhere in MP3 frames, and hold less than one.
        if self._mp3 or self._heard < _SEARCHED:
            self._heard += len(data)
            self._searched = (self._searched + data)[-_SEARCHED:]
            self._mp3 = _holds_mp3(self._searched)
            found = found or ("MP3" if self._mp3 else "")
        if found:
            raise HriEmoError(
                f"the audio topic carries {found}, must be uncompressed PCM: {_ADVICE}"
            )


def sniff_container(data: bytes) -> str:
    """The name of the file format or codec whose bytes these plainly are, or an empty string."""
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return name
    return "MP3" if _mp3_chain(data) else ""


_MP3_KBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


_MP3_SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")
"""First two bytes of a frame of layer III, of MPEG 1, 2 or 2.5."""


def _holds_mp3(data: bytes) -> bool:
    """MP3 frames follow one another somewhere in `data`."""
    return any(_mp3_chain(data, found.start()) for found in _MP3_SYNC.finditer(data))


def _mp3_chain(data: bytes, place: int = 0) -> bool:
    """At `place` begin several MP3 frames of one version and rate."""
    first = data[place : place + 4]
    for _ in range(_MP3_CHAIN):
        head = data[place : place + 4]
        length = _mp3_frame_length(head)
        if not length or head[1] != first[1] or (head[2] ^ first[2]) & 0x0C:
            return False
        place += length
    return True


def _mp3_frame_length(data: bytes) -> int:
    """Bytes of the MPEG layer III frame that `data` starts with; 0 if it does not (ISO 11172-3)."""
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE6 != 0xE2:
        return 0
    version, bits, rate = data[1] >> 3 & 3, data[2] >> 4, data[2] >> 2 & 3
    if version == 1 or bits in (0, 15) or rate == 3:
        return 0
    per_frame = 144000 if version == 3 else 72000
    padding = data[2] >> 1 & 1
    return per_frame * _MP3_KBITS[version == 3][bits] // _MP3_RATES[version][rate] + padding
