# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The interfaces: documented field by field, consistent, serializable."""

from __future__ import annotations

import math
import re
from array import array
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INTERFACES = sorted(path for path in ROOT.glob("*/*") if path.suffix in (".msg", ".srv", ".action"))
FIELD = re.compile(r"^(?P<type>[\w/]+(\[\d*\])?)\s+(?P<name>\w+)(?P<value>\s*=\s*\S+)?")

hri_emo_msgs = pytest.importorskip("hri_emo_msgs.msg")


def fields(path: Path) -> list[tuple[str, str, bool, str]]:
    """(type, name, is a constant, comment) of each line that declares something.

    A comment stands above one field or above a block of fields without blank lines, or behind it.
    """
    found = []
    comment: list[str] = []
    for line in path.read_text().splitlines():
        if not line.strip() or line == "---":
            comment = []
        elif line.startswith("#"):
            comment.append(line.lstrip("# "))
        else:
            declaration = FIELD.match(line)
            assert declaration, f"{path.name}: {line}"
            behind = line.partition("#")[2].strip()
            found.append(
                (
                    declaration["type"],
                    declaration["name"],
                    declaration["value"] is not None,
                    behind or " ".join(comment),
                )
            )
    return found


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.stem)
def test_every_field_says_what_it_means(path: Path) -> None:
    declared = fields(path)
    assert declared
    for _, name, constant, comment in declared:
        if not constant or name not in ("STAGE_PROVISIONAL", "STAGE_FINAL", "FAULT_NONE"):
            assert len(comment) > 10, f"{path.name}: {name} has no comment"


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.stem)
def test_every_measured_quantity_has_a_unit_or_range(path: Path) -> None:
    text = path.read_text()
    units = re.compile(r"\[-?\d|seconds|\bdB\b|\bHz\b|samples|sum to|wall-clock", re.IGNORECASE)
    for kind, name, constant, comment in fields(path):
        if kind.startswith("float") and not constant:
            # A message about one thing may say it once, at its head.
            head = text.split("\n\n")[0]
            assert units.search(comment) or units.search(head) or "same per" in comment, (
                f"{path.name}: {name}"
            )


def test_a_transcripts_status_has_the_numbers_of_the_states() -> None:
    for name in ("OK", "EMPTY", "REJECTED", "FAILED", "NONE"):
        state = getattr(hri_emo_msgs.EmotionState, f"TRANSCRIPT_{name}")
        assert getattr(hri_emo_msgs.Transcript, f"STATUS_{name}") == state


def test_stages_agree() -> None:
    for name in ("EmotionState", "Transcript", "EmotionExplanation"):
        message = getattr(hri_emo_msgs, name)
        assert (message.STAGE_PROVISIONAL, message.STAGE_FINAL) == (0, 1)


def test_serialized_speech_comes_back_bit_for_bit() -> None:
    from rclpy.serialization import deserialize_message, serialize_message

    samples = array("f", [math.sin(k) for k in range(4000)])
    speech = hri_emo_msgs.Speech(utterance_id=2**63, sequence=7, last=True, samples=samples)
    speech.quality.snr_db = float("nan")
    back = deserialize_message(serialize_message(speech), hri_emo_msgs.Speech)
    assert back.samples == samples
    assert (back.utterance_id, back.sequence, back.last) == (2**63, 7, True)
    assert math.isnan(back.quality.snr_db)


def test_serialized_state_comes_back() -> None:
    from rclpy.serialization import deserialize_message, serialize_message

    scores = [
        hri_emo_msgs.EmotionScore(label="neutral", probability=0.25),
        hri_emo_msgs.EmotionScore(label="happy", probability=0.75, above_threshold=True),
    ]
    state = hri_emo_msgs.EmotionState(
        scores=scores,
        dominant="happy",
        transcript="schöne Grüße",
        audio_weight=0.5,
        text_weight=0.5,
    )
    state.latency.total = 0.25
    assert deserialize_message(serialize_message(state), hri_emo_msgs.EmotionState) == state
