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


def frames_of(name: str) -> np.ndarray:
    samples = read_audio(DATA / name)
    return samples[: len(samples) // vad.FRAME * vad.FRAME].reshape(-1, vad.FRAME)


def test_frame_by_frame_equals_all_frames_at_once() -> None:
    frames = frames_of("jfk_1961.flac")[:200]
    one_by_one = vad.SileroVad()
    single = np.array([one_by_one.probability(frame) for frame in frames], np.float32)
    np.testing.assert_array_equal(vad.SileroVad().probabilities(frames), single)


def test_agrees_with_the_implementation_the_network_came_with() -> None:
    faster_whisper_vad = pytest.importorskip("faster_whisper.vad")
    frames = frames_of("lj_LJ001-0002.flac")
    theirs = faster_whisper_vad.get_vad_model()(frames.reshape(-1).copy())
    # Not the last frame: theirs zeroes its last 64 samples.
    ours = vad.SileroVad().probabilities(frames)
    np.testing.assert_allclose(ours[:-1], theirs.ravel()[:-1], atol=1e-5)


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


def test_a_missing_network_is_reported_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vad.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HriEmoError, match="pip install"):
        vad.find_model()


def test_the_network_is_found_without_loading_the_recogniser() -> None:
    code = (
        "import sys; from hri_emo_ros.audio.vad import SileroVad; SileroVad();"
        "sys.exit('faster_whisper' in sys.modules or 'ctranslate2' in sys.modules)"
    )
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
