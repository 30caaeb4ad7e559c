"""Bytes of PCM to float samples."""

from __future__ import annotations

import numpy as np
import pytest

from hri_emo_ros.audio.pcm import (
    PcmDecoder,
    PcmFormat,
    check_coding_format,
    decode,
    parse_sample_format,
)
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.parameters import SAMPLE_FORMATS

VALUES = np.array([-1.0, -0.5, 0.0, 0.25, 0.75])


def encode(values: np.ndarray, sample_format: str) -> bytes:
    """Samples in [-1, 1] as bytes, written independently of the decoder."""
    order = ">" if sample_format.endswith("BE") else "<"
    kind, bits = sample_format[0], int("".join(c for c in sample_format if c.isdigit()))
    if kind == "F":
        return values.astype(f"{order}f{bits // 8}").tobytes()
    codes = np.round(values * 2 ** (bits - 1)).astype(np.int64)
    if kind == "U":
        codes += 2 ** (bits - 1)
    endian = "big" if order == ">" else "little"
    return b"".join(
        int(code).to_bytes(bits // 8, endian, signed=kind == "S") for code in codes.flat
    )


@pytest.mark.parametrize("sample_format", SAMPLE_FORMATS)
def test_every_declared_format_decodes_to_the_same_samples(sample_format: str) -> None:
    stereo = np.stack([VALUES, VALUES[::-1]], axis=1)
    decoded = decode(encode(stereo, sample_format), PcmFormat(16000, 2, sample_format))
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, stereo, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 640])
@pytest.mark.parametrize("sample_format", ["S16LE", "S24BE", "F64LE"])
def test_frames_split_between_messages_are_put_together(sample_format: str, size: int) -> None:
    rng = np.random.default_rng(0)
    pcm_format = PcmFormat(16000, 2, sample_format)
    data = encode(rng.uniform(-0.9, 0.9, (50, 2)), sample_format)
    decoder = PcmDecoder(pcm_format)
    pieces = [decoder.decode(data[i : i + size]) for i in range(0, len(data), size)]
    np.testing.assert_array_equal(np.concatenate(pieces), decode(data, pcm_format))
    assert decoder.pending_bytes == 0
    decoder.decode(b"\x01")
    assert decoder.pending_bytes == 1


@pytest.mark.parametrize(
    ("word", "expected"),
    [("S16LE", "S16LE"), ("s16le", "S16LE"), ("pcm_s24be", "S24BE"), ("float32", "F32LE"),
     ("S24_3LE", "S24LE"), ("paInt16", "S16LE"), (" U8 ", "U8"), ("FLOAT64_BE", "F64BE")],
)  # fmt: skip
def test_other_spellings_of_a_format_are_understood(word: str, expected: str) -> None:
    assert parse_sample_format(word) == expected


def test_an_unknown_format_is_named_with_what_is_allowed() -> None:
    with pytest.raises(HriEmoError, match=r"'MULAW'.*S16LE.*audio\.sample_format"):
        PcmFormat(8000, 1, "MULAW")


@pytest.mark.parametrize(
    ("values", "parameter"),
    [
        ((0, 1), "audio.sample_rate"),
        ((16000, 0), "audio.channels"),
        ((16000, 33), "audio.channels"),
    ],
)
def test_impossible_rates_and_channels_are_refused(values: tuple[int, int], parameter: str) -> None:
    with pytest.raises(HriEmoError, match=parameter.replace(".", r"\.")):
        PcmFormat(*values)


def test_a_length_that_is_no_whole_number_of_frames_is_refused() -> None:
    with pytest.raises(HriEmoError, match=r"3 bytes.*audio\.channels"):
        decode(b"\0\0\0", PcmFormat(16000, 2))


def mp3_frame() -> bytes:
    """MPEG-1 layer III, 128 kbit/s, 44.1 kHz: 417 bytes."""
    return b"\xff\xfb\x90\x00" + bytes(413)


@pytest.mark.parametrize(
    ("data", "name"),
    [(b"ID3\x04" + bytes(60), "MP3"), (b"OggS" + bytes(60), "Ogg"), (b"fLaC" + bytes(60), "FLAC"),
     (b"RIFF" + bytes(60), "WAV"), (mp3_frame(), "MP3"), (mp3_frame() + mp3_frame()[:50], "MP3")],
)  # fmt: skip
def test_compressed_audio_is_recognised_by_its_bytes(data: bytes, name: str) -> None:
    with pytest.raises(HriEmoError, match=rf"{name}.*PCM"):
        PcmDecoder(PcmFormat(16000)).decode(data)


def test_pcm_that_looks_like_one_mp3_header_is_decoded() -> None:
    assert len(PcmDecoder(PcmFormat(16000)).decode(b"\xff\xfb\x90\x00" + bytes(636))) == 320


def test_noise_is_not_taken_for_compressed_audio() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        decoder = PcmDecoder(PcmFormat(16000))
        for _ in range(10):
            decoder.decode(rng.bytes(640))


def test_coding_formats_other_than_pcm_are_refused() -> None:
    for word in ("", "wave", "PCM", "raw"):
        check_coding_format(word)
    with pytest.raises(HriEmoError, match=r"'mp3'.*format:=wave"):
        check_coding_format("mp3")
