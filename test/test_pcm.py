# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Bytes of PCM to float samples."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest

from hri_emo_ros.audio.pcm import (
    PcmDecoder,
    PcmFormat,
    decode,
    described_format,
    parse_sample_format,
)
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.parameters import SAMPLE_FORMATS

VALUES = np.array([-1.0, -0.5, 0.0, 0.25, 0.75])


LAWS = {
    # ITU-T G.711, tables 1 and 2: some codes and their values on the scale of 16 bits.
    "ALAW": {0xD5: 8, 0x55: -8, 0x80: 5504, 0x00: -5504, 0xAA: 32256, 0x2A: -32256, 0xC5: 264},
    "MULAW": {0xFF: 0, 0x7F: 0, 0x80: 32124, 0x00: -32124, 0xFE: 8, 0xE0: 372, 0x60: -372},
}


def encode(values: np.ndarray, sample_format: str) -> bytes:
    """Samples in [-1, 1] as bytes, written independently of the decoder."""
    order = ">" if sample_format.endswith("BE") else "<"
    kind, _, container = sample_format.strip("BLE").partition("_")
    bits = int(kind[1:])
    if kind[0] == "F":
        return values.astype(f"{order}f{bits // 8}").tobytes()
    codes = np.minimum(np.round(values * 2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1).astype(np.int64)
    if kind[0] == "U":
        codes += 2 ** (bits - 1)
    endian = "big" if order == ">" else "little"
    # What a container holds beyond the sample is not said: here it is no sign.
    padding = b"\x5a" if container else b""
    return b"".join(
        (padding if endian == "big" else b"")
        + int(code).to_bytes(bits // 8, endian, signed=kind[0] == "S")
        + (padding if endian == "little" else b"")
        for code in codes.flat
    )


@pytest.mark.parametrize("sample_format", [f for f in SAMPLE_FORMATS if f not in LAWS])
def test_every_declared_format_decodes_to_the_same_samples(sample_format: str) -> None:
    stereo = np.stack([VALUES, VALUES[::-1]], axis=1)
    decoded = decode(encode(stereo, sample_format), PcmFormat(16000, 2, sample_format))
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, stereo, atol=1e-6)


@pytest.mark.parametrize("law", LAWS)
def test_telephone_codes_decode_to_the_values_of_their_tables(law: str) -> None:
    codes = np.array(list(LAWS[law]), np.uint8)
    decoded = decode(codes.tobytes(), PcmFormat(8000, 1, law))[:, 0] * 32768
    np.testing.assert_array_equal(decoded, list(LAWS[law].values()))
    every = decode(bytes(range(256)), PcmFormat(8000, 1, law))
    assert np.count_nonzero(np.abs(every) >= PcmFormat(8000, 1, law).full_scale) == 2


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 640])
@pytest.mark.parametrize("sample_format", ["S16LE", "S24BE", "S24_32LE", "F64LE"])
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
     ("paInt16", "S16LE"), (" U8 ", "U8"), ("FLOAT64_BE", "F64BE"),
     # 24 bits: alone or in 32 (ALSA; GStreamer; PortAudio and ffmpeg; PipeWire; libsndfile).
     ("S24_3LE", "S24LE"), ("S24_LE", "S24_32LE"), ("S24_BE", "S24_32BE"), ("S32_LE", "S32LE"),
     ("S24LE", "S24LE"), ("S24_32LE", "S24_32LE"), ("S24_32BE", "S24_32BE"), ("S32LE", "S32LE"),
     ("paInt24", "S24LE"), ("paInt32", "S32LE"), ("pcm_s24le", "S24LE"), ("S24_32", "S24_32LE"),
     ("PCM_24", "S24LE"), ("S16_LE", "S16LE"), ("S16_BE", "S16BE"), ("FLOAT_LE", "F32LE"),
     ("A_LAW", "ALAW"), ("MU_LAW", "MULAW"), ("audio/x-mulaw", "MULAW"), ("audio/x-alaw", "ALAW"),
     ("pcm_mulaw", "MULAW"), ("ULAW", "MULAW"), ("PCMA", "ALAW")],
)  # fmt: skip
def test_other_spellings_of_a_format_are_understood(word: str, expected: str) -> None:
    assert parse_sample_format(word) == expected


def test_an_unknown_format_is_named_with_what_is_allowed() -> None:
    with pytest.raises(HriEmoError, match=r"'S20_3LE'.*S16LE.*audio\.sample_format"):
        PcmFormat(8000, 1, "S20_3LE")


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
     (b"RIFX" + bytes(60), "WAV"), (3 * mp3_frame(), "MP3"), (3 * mp3_frame()[:50], "MP3")],
)  # fmt: skip
def test_compressed_audio_is_recognised_by_its_bytes(data: bytes, name: str) -> None:
    if data == 3 * mp3_frame()[:50]:
        data = mp3_frame()[200:] + 2 * mp3_frame() + mp3_frame()[:50]  # Cut anywhere.
    with pytest.raises(HriEmoError, match=rf"{name}.*PCM.*'format' .* 'wave'"):
        PcmDecoder(PcmFormat(16000)).decode(data)


@pytest.mark.parametrize("size", [100, 417, 960])
def test_mp3_in_messages_of_any_length_is_refused_for_as_long_as_it_goes_on(size: int) -> None:
    stream = mp3_frame()[100:] + 40 * mp3_frame()
    decoder, refused = PcmDecoder(PcmFormat(16000)), []
    for start in range(0, len(stream), size):
        try:
            decoder.decode(stream[start : start + size])
            refused.append(False)
        except HriEmoError:
            refused.append(True)
    assert refused == sorted(refused)
    assert refused.index(True) * size <= 3 * 417 + size
    # The capture node was set right.
    for _ in range(20):
        with contextlib.suppress(HriEmoError):
            decoder.decode(bytes(640))
    assert len(decoder.decode(bytes(640))) == 320


def test_pcm_that_looks_like_one_mp3_header_is_decoded() -> None:
    assert len(PcmDecoder(PcmFormat(16000)).decode(b"\xff\xfb\x90\x00" + bytes(636))) == 320


def test_noise_is_not_taken_for_compressed_audio() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        decoder = PcmDecoder(PcmFormat(16000))
        for _ in range(20):
            decoder.decode(rng.bytes(640))


def test_codings_that_are_compressed_are_refused_and_the_others_are_not() -> None:
    for word in ("", "wave", "PCM", "raw", "audio/x-raw"):
        assert described_format(16000, 1, "S16LE", word) == PcmFormat(16000)
    assert described_format(8000, 1, "S16LE", "mulaw") == PcmFormat(8000, 1, "MULAW")
    with pytest.raises(HriEmoError, match=r"'mp3'.*'format' .* 'wave'.*audio\.use_info"):
        described_format(16000, 1, "S16LE", "mp3")


def wav(samples: bytes, size: int | None = None, behind: bytes = b"", **values: int) -> bytes:
    """A WAV file; `size` is the length that its header states."""
    told = {"tag": 1, "channels": 1, "rate": 16000, "bits": 16, **values}
    align = told["channels"] * told["bits"] // 8
    described = struct.pack(
        "<HHIIHH", told["tag"], told["channels"], told["rate"], told["rate"] * align, align,
        told["bits"],
    )  # fmt: skip
    stated = len(samples) if size is None else size
    head = b"LIST" + struct.pack("<I", 4) + b"INFO" + b"data" + struct.pack("<I", stated)
    body = b"WAVEfmt " + struct.pack("<I", 16) + described + head + samples + behind
    return b"RIFF" + struct.pack("<I", len(body) & 0xFFFFFFFF) + body


SOUND = np.arange(-400, 400, dtype="<i2")


@pytest.mark.parametrize("stated", [None, 0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
@pytest.mark.parametrize("cut", [7, 44, 56, 640, 4000])
def test_a_wav_header_in_the_stream_is_taken_out_whatever_length_it_states(
    stated: int | None, cut: int
) -> None:
    stream = wav(SOUND.tobytes(), stated, rate=8000) + SOUND.tobytes() * (stated is not None)
    decoder = PcmDecoder(PcmFormat(16000))
    pieces = [decoder.decode(stream[i : i + cut]) for i in range(0, len(stream), cut)]
    assert decoder.format == PcmFormat(8000)
    expected = np.tile(SOUND, 1 if stated is None else 2) / 32768
    np.testing.assert_allclose(np.concatenate(pieces)[:, 0], expected)


def test_messages_that_are_wav_files_with_tags_give_their_samples_only() -> None:
    decoder = PcmDecoder(PcmFormat(16000))
    one = wav(SOUND.tobytes(), behind=b"LIST\x04\0\0\0INFO")
    pieces = [decoder.decode(one), decoder.decode(one), decoder.decode(one + one)]
    np.testing.assert_allclose(np.concatenate(pieces)[:, 0], np.tile(SOUND, 3) / 32768)


@pytest.mark.parametrize(
    ("values", "name"),
    [({"bits": 8}, "U8"), ({"bits": 24}, "S24LE"), ({"bits": 32}, "S32LE"),
     ({"tag": 3, "bits": 32}, "F32LE"), ({"tag": 6, "bits": 8}, "ALAW"),
     ({"tag": 7, "bits": 8}, "MULAW")],
)  # fmt: skip
def test_a_wav_header_tells_the_encoding(values: dict[str, int], name: str) -> None:
    decoder = PcmDecoder(PcmFormat(16000))
    decoder.decode(wav(bytes(48), channels=2, rate=48000, **values))
    assert decoder.format == PcmFormat(48000, 2, name)


@pytest.mark.parametrize(
    "data", [wav(b"", tag=0x55), wav(b"", bits=40), b"RIFF\0\0\0\0WAVE" + bytes(70000)]
)
def test_a_wav_header_without_pcm_is_one_sentence(data: bytes) -> None:
    decoder = PcmDecoder(PcmFormat(16000))
    for message in (data, bytes(640), bytes(640)):  # What follows is no PCM either.
        with pytest.raises(HriEmoError, match="WAV header"):
            decoder.decode(message)
    assert len(decoder.decode(wav(SOUND.tobytes()))) == len(SOUND)


def test_mutated_headers_are_one_sentence_or_samples() -> None:
    rng = np.random.default_rng(0)
    seed = wav(SOUND.tobytes()[:200], channels=2)
    for _ in range(3000):
        data = bytearray(seed)
        for _ in range(int(rng.integers(1, 8))):
            data[int(rng.integers(4, len(data)))] = int(rng.integers(256))
        decoder = PcmDecoder(PcmFormat(16000))
        with contextlib.suppress(HriEmoError):
            for start in range(0, len(data), 64):
                assert decoder.decode(bytes(data[start : start + 64])).ndim == 2
