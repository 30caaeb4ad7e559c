# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Silero voice activity detection."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hri_emo_ros.audio import vad
from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.errors import HriEmoError

DATA = Path(__file__).parent / "data"
MAKERS = [
    0.02629,
    0.03037,
    0.03738,
    0.0395,
    0.03297,
    0.35261,
    0.75843,
    0.84455,
    0.91861,
    0.92981,
    0.95111,
    0.9469,
]
"""Frames 12 to 23 of the clip below by silero-vad 6.2.3's own silero_vad.onnx, called as its OnnxWrapper does."""


def frames_of(name: str) -> np.ndarray:
    samples = read_audio(DATA / name)
    return samples[: len(samples) // vad.FRAME * vad.FRAME].reshape(-1, vad.FRAME)


def test_frame_by_frame_equals_all_frames_at_once() -> None:
    frames = frames_of("jfk_1961.flac")[:200]
    one_by_one = vad.SileroVad()
    single = np.array([one_by_one.probability(frame) for frame in frames], np.float32)
    np.testing.assert_array_equal(vad.SileroVad().probabilities(frames), single)


def test_behind_the_gain_is_the_makers_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vad, "_MOST_GAIN", 1.0)
    monkeypatch.setattr(vad, "_LOUD_PEAK", 1.0)
    found = vad.SileroVad().probabilities(frames_of("ravdess_03-01-06-02-02-01-08.flac"))
    np.testing.assert_allclose(found[12:24], MAKERS, atol=1e-4)


@pytest.mark.parametrize("clip", ["jfk_1961", "ravdess_03-01-05-02-01-02-02"])
def test_quiet_speech_is_heard_as_loud_speech_is(clip: str) -> None:
    frames = frames_of(f"{clip}.flac")
    frames = frames / np.abs(frames).max()
    loud = vad.SileroVad().probabilities(frames) >= 0.4
    assert loud.mean() > 0.3
    for peak in (0.1, 0.01):  # -20, -40 dBFS
        quiet = (np.rint(frames * peak * 32768) / 32768).astype(np.float32)
        assert np.mean((vad.SileroVad().probabilities(quiet) >= 0.4) != loud) < 0.1


def test_noise_is_not_raised_over_the_beginning_of_speech() -> None:
    """A gain that followed the peaks alone would raise the room and fall with the first word, which the
    network then misses."""
    speech = read_audio(DATA / "ravdess_03-01-06-02-02-01-08.flac")
    noise = np.random.default_rng(2).standard_normal(len(speech) + 64_000).astype(np.float32)
    mixed = noise * np.float32(0.002)
    mixed[64_000:] += speech
    frames = mixed[: len(mixed) // vad.FRAME * vad.FRAME].reshape(-1, vad.FRAME)
    heard = np.flatnonzero(vad.SileroVad().probabilities(frames) >= 0.4)
    onset = np.flatnonzero(np.abs(speech) > 0.05)[0] / vad.FRAME
    assert heard[0] - 64_000 / vad.FRAME == pytest.approx(onset, abs=4)


def test_the_callers_samples_stay_as_they_are() -> None:
    frames = frames_of("lj_LJ001-0002.flac")
    before = frames.copy()
    vad.SileroVad().probabilities(frames)
    np.testing.assert_array_equal(frames, before)


def test_speech_is_told_from_noise_and_silence() -> None:
    speech = vad.SileroVad().probabilities(frames_of("lj_LJ001-0008.flac"))
    noise = np.random.default_rng(0).standard_normal((60, vad.FRAME)).astype(np.float32) * 0.05
    assert np.mean(speech > 0.5) > 0.6
    assert vad.SileroVad().probabilities(noise).max() < 0.5
    assert vad.SileroVad().probabilities(np.zeros((60, vad.FRAME), np.float32)).max() < 0.2


def test_reset_forgets_what_was_heard() -> None:
    frames = frames_of("lj_LJ001-0002.flac")
    detector = vad.SileroVad()
    first = detector.probabilities(frames)
    assert not np.array_equal(detector.probabilities(frames), first)
    detector.reset()
    np.testing.assert_array_equal(detector.probabilities(frames), first)


@pytest.mark.parametrize("fault", ["missing", "empty", "cut", "flipped"])
def test_a_network_that_is_not_the_makers_is_refused_in_one_sentence(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "silero_vad.onnx"
    content = bytearray(vad.MODEL.read_bytes())
    if fault == "flipped":
        content[len(content) // 2] ^= 1  # A weight: it would load.
    if fault != "missing":
        path.write_bytes({"empty": b"", "cut": content[:-1000], "flipped": content}[fault])
    monkeypatch.setattr(vad, "MODEL", path)
    with pytest.raises(HriEmoError) as refused:
        vad.SileroVad()
    assert str(path) in str(refused.value)
    assert "install hri_emo_ros again" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_the_detector_needs_no_recogniser_and_no_torch() -> None:
    code = (
        "import sys; from hri_emo_ros.audio.vad import SileroVad; SileroVad();"
        "sys.exit(any(m in sys.modules for m in ('faster_whisper', 'ctranslate2', 'torch', 'scipy')))"
    )
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
