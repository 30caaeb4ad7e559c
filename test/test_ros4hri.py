# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What a voice's messages of ROS4HRI hold, and the bridge that publishes them beside a built hri_msgs."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hri_definitions import EXPRESSIONS, HRI_MSGS, fields

from hri_emo_ros import ros4hri
from hri_emo_ros.types import LABELS, SAMPLE_RATE

HERE = Path(__file__).parent


def tone(frequency: float, seconds: float = 0.25) -> np.ndarray:
    """Ten harmonics at the amplitude of speech."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return sum(0.1 / k * np.sin(2 * np.pi * k * frequency * t) for k in range(1, 11)).astype(
        np.float32
    )


def test_every_label_has_an_expression_of_hri_msgs() -> None:
    assert set(ros4hri.EXPRESSIONS) == set(LABELS)
    assert set(ros4hri.EXPRESSIONS.values()) <= set(EXPRESSIONS)


def test_all_fields_are_filled() -> None:
    speech = ros4hri.live_speech("well", 0.9, "en", True, "locale")
    assert set(speech) == fields("LiveSpeech") - {"header"}
    shown = ros4hri.expression("fear", 0.8, -0.5, 0.6)
    assert set(shown) == fields("Expression") - {"header"}
    assert shown == {"expression": "scared", "valence": -0.5, "arousal": 0.6, "confidence": 0.8}
    assert set(ros4hri.audio_features(tone(200.0))) == fields("AudioFeatures")


def test_speech_that_goes_on_is_incremental_and_has_no_confidence() -> None:
    assert ros4hri.live_speech("well", 0.9, "en", False, "language") == {
        "incremental": "well", "final": "", "confidence": 0.0, "language": "en",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("voice", "stream", "expected"),
    [
        ("v2", "3fa29c01d2e4", "v2_3fa2"),
        ("", "3fa29c01d2e4", "anonymous_speaker"),
        ("2", "", "v2_"),
        ("Frau Müller", "ab", "Frau_M_ller_ab"),
    ],
)
def test_ids_begin_with_a_letter_and_fit_into_a_topic(
    voice: str, stream: str, expected: str
) -> None:
    assert ros4hri.voice_id(voice, stream) == expected


@pytest.mark.parametrize("frequency", [90.0, 130.0, 220.0, 340.0])
def test_pitch_is_that_of_a_harmonic_tone_and_noise_lowers_the_harmonics_ratio(
    frequency: float,
) -> None:
    clean = tone(frequency)
    noise = np.random.default_rng(0).normal(0.0, 1.0, len(clean))
    noise *= np.sqrt(np.mean(clean**2) / np.mean(noise**2))
    found = ros4hri.audio_features(clean)
    assert found["pitch"] * 500.0 == pytest.approx(frequency, rel=0.02)
    assert found["hnr"] > 15.0
    assert found["rms"] == pytest.approx(float(np.sqrt(np.mean(clean**2))))
    # As much noise as harmonics is 0 dB.
    noisy = ros4hri.audio_features((clean + noise).astype(np.float32))
    assert noisy["hnr"] == pytest.approx(0.0, abs=2.0)


def test_what_is_not_voiced_has_no_pitch_and_what_is_too_short_nothing() -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.1, 4000).astype(np.float32)
    found = ros4hri.audio_features(noise)
    assert math.isnan(found["pitch"])
    assert math.isnan(found["hnr"])
    assert found["zcr"] == pytest.approx(0.5, abs=0.05)
    assert all(math.isnan(v) for k, v in ros4hri.audio_features(noise[:100]).items() if k != "mfcc")


@pytest.mark.parametrize("field", ["locale", "language"])
def test_live_speech_of_either_release_becomes_a_transcript(field: str) -> None:
    pytest.importorskip("rclpy")
    from hri_emo_ros.nodes.conversions import transcript_of_live_speech
    from hri_emo_ros.nodes.hri_messages import language_field

    message = SimpleNamespace(incremental="", final=" well ", confidence=0.5, **{field: "en_GB"})
    kinds = SimpleNamespace(LiveSpeech=lambda: message)
    words = transcript_of_live_speech(message, language_field(kinds))
    assert (words.text, words.confidence, words.language) == ("well", 0.5, "en")
    message.confidence = 0.0
    assert transcript_of_live_speech(message, field).confidence == 1.0
    message.final, message.incremental = "", "we"
    assert transcript_of_live_speech(message, field).text == "we"


@pytest.mark.ros
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("node", "values"),
    [("ros4hri_bridge", {}), ("emotion_node", {"transcript.source": "live_speech"})],
)
def test_without_hri_msgs_what_needs_it_is_refused_in_one_sentence(
    ros_domain: int, tiny_bundle: Path, node: str, values: dict[str, str]
) -> None:
    pytest.importorskip("rclpy")
    from hri_emo_ros.errors import HriEmoError
    from hri_emo_ros.nodes.graph import Graph

    with (
        pytest.raises(HriEmoError, match=r"needs hri_msgs, which is not installed: apt install"),
        Graph(nodes=(node,), bundle=tiny_bundle, domain_id=ros_domain, parameters={node: values}),
    ):
        pass


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_hri_msgs(
    tmp_path_factory: pytest.TempPathFactory, ros_domain: int, tiny_bundle: Path
) -> None:
    """Runs with_hri_msgs.py where hri_msgs is installed."""
    pytest.importorskip("rclpy")
    from message_prefix import build_messages

    prefix = build_messages("hri_msgs", HRI_MSGS, tmp_path_factory.mktemp("hri_msgs"))
    paths = os.pathsep.join([prefix.environment["PYTHONPATH"], str(HERE)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / "with_hri_msgs.py"],
        env=prefix.environment | {"PYTHONPATH": paths, "TINY_BUNDLE": str(tiny_bundle)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
