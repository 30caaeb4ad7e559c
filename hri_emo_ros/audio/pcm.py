"""Bytes of uncompressed audio to float samples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.parameters import SAMPLE_FORMATS
from hri_emo_ros.types import FloatArray

_SYNONYMS = {
    # GStreamer's and ALSA's names, ffmpeg's codecs, numpy's types, PortAudio's constants.
    "PCM_U8": "U8", "UINT8": "U8", "PAUINT8": "U8",
    "PCM_S8": "S8", "INT8": "S8", "PAINT8": "S8",
    "S16": "S16LE", "PCM_S16": "S16LE", "INT16": "S16LE", "PAINT16": "S16LE", "PCM_16": "S16LE",
    "S24": "S24LE", "S24_3LE": "S24LE", "S24_3BE": "S24BE", "PCM_S24": "S24LE", "INT24": "S24LE",
    "PAINT24": "S24LE", "PCM_24": "S24LE",
    "S32": "S32LE", "PCM_S32": "S32LE", "INT32": "S32LE", "PAINT32": "S32LE", "PCM_32": "S32LE",
    "F32": "F32LE", "FLOAT": "F32LE", "FLOAT32": "F32LE", "FLOAT_LE": "F32LE",
    "FLOAT_BE": "F32BE", "PAFLOAT32": "F32LE", "PCM_F32": "F32LE",
    "F64": "F64LE", "DOUBLE": "F64LE", "FLOAT64": "F64LE", "FLOAT64_LE": "F64LE",
    "FLOAT64_BE": "F64BE", "PCM_F64": "F64LE",
}  # fmt: skip
_RAW_CODINGS = {"", "wave", "wav", "pcm", "raw", "lpcm", "linear"}
_MAGIC = {b"ID3": "MP3", b"OggS": "Ogg", b"fLaC": "FLAC", b"RIFF": "a WAV file's header",
          b"\x1aE\xdf\xa3": "Matroska/WebM"}  # fmt: skip
_SNIFFED_MESSAGES = 25
"""Messages looked at for MP3 frames; noise looks like one once in some millions of messages."""


def parse_sample_format(word: str) -> str:
    """The declared name (one of `SAMPLE_FORMATS`) of an encoding as AudioInfo messages spell it.

    Raises:
        HriEmoError: it means nothing known.
    """
    name = word.strip().upper()
    name = _SYNONYMS.get(name, name)
    if name.startswith("PCM_"):
        name = name.removeprefix("PCM_")
    if name not in SAMPLE_FORMATS:
        raise HriEmoError(
            f"sample format {word!r} is not one of {', '.join(SAMPLE_FORMATS)}: "
            "set audio.sample_format, or audio.use_info to false if AudioInfo is wrong"
        )
    return name


def check_coding_format(word: str) -> None:
    """Refuse compressed audio by the name AudioInfo gives it.

    Raises:
        HriEmoError: the coding is none of the uncompressed ones.
    """
    if word.strip().lower() not in _RAW_CODINGS:
        raise HriEmoError(
            f"audio is coded as {word!r}, must be uncompressed PCM: "
            "start the capture node with format:=wave"
        )


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
        return int(self.sample_format.strip("USFLBE")) // 8

    @cached_property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return self.sample_bytes * self.channels

    @cached_property
    def full_scale(self) -> float:
        """Magnitude from which a sample counts as clipped.

        The largest positive code of 8 bits is 0.992; one code below full scale is allowed for, since
        some converters clip there.
        """
        return 0.99 if self.sample_bytes == 1 else 0.999


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
    if name == "U8":
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


class PcmDecoder:
    """Decodes a stream of messages; a frame split between two messages is put together again."""

    def __init__(self, pcm_format: PcmFormat) -> None:
        self.format = pcm_format
        self._rest = b""
        self._messages = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame begun but not complete."""
        return len(self._rest)

    def decode(self, data: bytes) -> FloatArray:
        """The frames completed by this message: float32 [frames, channels].

        Raises:
            HriEmoError: the bytes are those of a compressed format or a file.
        """
        if self._messages < _SNIFFED_MESSAGES:
            found = sniff_container(data)
            if found:
                raise HriEmoError(
                    f"the audio topic carries {found}, must be uncompressed PCM: "
                    "start the capture node with format:=wave"
                )
            self._messages += 1
        data = self._rest + data
        whole = len(data) - len(data) % self.format.frame_bytes
        self._rest = data[whole:]
        return decode(data[:whole], self.format)


def sniff_container(data: bytes) -> str:
    """The name of the file format or codec whose bytes these plainly are, or an empty string."""
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return name
    length = _mp3_frame_length(data)
    # One header may be chance; it must fill the message or be followed by another one.
    if length and (length == len(data) or _mp3_frame_length(data[length:])):
        return "MP3"
    return ""


_MP3_KBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


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
