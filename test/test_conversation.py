# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The tone of a conversation: what counts, when it changes, when nothing is claimed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from recording_engine import QUALITY

from hri_emo_ros.conversation import Conversation, change_point
from hri_emo_ros.engine import EmotionEngine
from hri_emo_ros.model.affect import POSITIONS, expectation
from hri_emo_ros.outcome import Outcome, normalised_entropy
from hri_emo_ros.types import LABELS, AbstainReason, EmotionEstimate

START_NS = 1_700_000_000_000_000_000
PLACES = np.array([POSITIONS[label] for label in LABELS])


@dataclass
class Judge:
    labels: tuple[str, ...] = LABELS
    model_id: str = "judge"
    thresholds: tuple[float, ...] = (0.4,) * len(LABELS)
    min_confidence: float = 0.35
    multi_label: bool = False


def final(
    label: str,
    at: float,
    *,
    sure: float = 0.8,
    seconds: float = 2.0,
    voice: str = "",
    reason: AbstainReason = AbstainReason.NONE,
    p: np.ndarray | None = None,
) -> Outcome:
    """The final state of an utterance that starts `at` seconds after the first."""
    if p is None:
        p = np.full(len(LABELS), (1.0 - sure) / (len(LABELS) - 1), np.float32)
        p[LABELS.index(label)] = sure
    p = p.astype(np.float32)
    half = np.full(len(LABELS), 0.5, np.float32)
    valence, arousal = expectation(p, PLACES)
    estimate = EmotionEstimate(
        LABELS, p, p > 0.4, normalised_entropy(p, False), 0.5, 0.5, half, half, seconds, "judge",
        valence=valence, arousal=arousal, voice_id=voice, abstain_reason=reason,
        quality=replace(QUALITY, speech_fraction=1.0),
    )  # fmt: skip
    return Outcome(1, "final", START_NS + round(at * 1e9), estimate, {})


@pytest.fixture
def conversation() -> Conversation:
    return Conversation(Judge(), {})


def test_the_shipped_engine_is_a_judge() -> None:
    engine = EmotionEngine(threads=1)
    said = Conversation(engine, {}).hear(final("angry", 0.0))
    assert said.labels == engine.labels
    assert said.overall.dominant == "angry"
    assert said.model_id == engine.model_id


def test_one_state_is_its_own_tone(conversation: Conversation) -> None:
    outcome = final("sad", 0.0)
    said = conversation.hear(outcome)
    tone = said.overall
    assert said.stamp_ns == START_NS + 2_000_000_000
    assert tone.probabilities == pytest.approx(outcome.estimate.probabilities)
    assert (tone.dominant, tone.utterances, tone.speech_seconds) == ("sad", 1, 2.0)
    assert tone.uncertainty == pytest.approx(outcome.estimate.uncertainty, abs=1e-6)
    assert tone.valence == pytest.approx(outcome.estimate.valence)
    assert tone.above_threshold == tuple(label == "sad" for label in LABELS)
    assert math.isnan(tone.valence_trend)
    assert said.voices == ()


@pytest.mark.parametrize(
    ("more", "less"),
    [
        ({"seconds": 4.0}, {"seconds": 2.0}),
        ({"sure": 0.9}, {"sure": 0.5}),
        ({"at": 14.0}, {"at": 0.0}),
    ],
    ids=["longer", "surer", "newer"],
)
def test_what_weighs_more(
    conversation: Conversation, more: dict[str, float], less: dict[str, float]
) -> None:
    both = [("happy", {"at": 0.0} | more), ("sad", {"at": 0.0} | less)]
    both.sort(key=lambda pair: pair[1]["at"])
    for label, given in both:
        said = conversation.hear(final(label, **given))  # type: ignore[arg-type]
    p = dict(zip(LABELS, said.overall.probabilities, strict=True))
    assert p["happy"] > p["sad"] + 0.1
    assert sum(said.overall.probabilities) == pytest.approx(1.0, abs=1e-6)


def test_what_is_older_than_the_window_is_forgotten(conversation: Conversation) -> None:
    for k in range(4):
        conversation.hear(final("angry", 4.0 * k))
    assert conversation.hear(final("happy", 60.0)).overall.utterances == 1
    conversation.configure({"conversation.window": 100.0})
    assert conversation.hear(final("happy", 64.0)).window == 100.0
    assert conversation.hear(final("happy", 68.0)).overall.utterances == 3
    conversation.clear()
    assert conversation.hear(final("happy", 70.0)).overall.utterances == 1


@pytest.mark.parametrize("back", [20.0, 1.6e9])
def test_what_was_said_before_the_sensors_clock_was_set_back_counts_no_more(
    conversation: Conversation, back: float
) -> None:
    conversation.hear(final("sad", 0.0))
    tone = conversation.hear(final("happy", -back)).overall
    assert (tone.dominant, tone.utterances) == ("happy", 1)


def test_abstained_states_count_only_where_the_model_was_unsure(conversation: Conversation) -> None:
    conversation.hear(final("angry", 0.0, reason=AbstainReason.ROBOT_SPEAKING))
    said = conversation.hear(final("angry", 3.0, reason=AbstainReason.CLIPPED))
    assert said.overall.utterances == 0
    assert "0.0 s of speech" in said.overall.abstain_text
    assert said.overall.probabilities == ()
    assert said.stamp_ns == START_NS + 5_000_000_000
    unsure = [
        conversation.hear(final("sad", 6.0 + 3 * k, sure=0.5, reason=AbstainReason.LOW_CONFIDENCE))
        for k in range(3)
    ]
    assert unsure[-1].overall.dominant == "sad"


def test_contradictory_speech_claims_nothing(conversation: Conversation) -> None:
    for k, label in enumerate(("happy", "sad", "angry", "neutral", "fear", "surprise")):
        tone = conversation.hear(final(label, 3.0 * k, sure=0.6)).overall
    assert "abstain.min_confidence" in tone.abstain_text
    assert tone.dominant == ""
    assert not any(tone.above_threshold)
    assert len(tone.probabilities) == len(LABELS)
    assert tone.uncertainty > 0.8


def test_each_voice_has_its_own_tone_and_the_one_heard_last_comes_first(
    conversation: Conversation,
) -> None:
    for k in range(3):
        conversation.hear(final("angry", 6.0 * k, voice="v1"))
        said = conversation.hear(final("happy", 6.0 * k + 3.0, voice="v2"))
    assert [(tone.voice_id, tone.dominant) for tone in said.voices] == [
        ("v2", "happy"), ("v1", "angry"),
    ]  # fmt: skip
    assert [tone.utterances for tone in said.voices] == [3, 3]
    assert said.overall.utterances == 6
    # Two people who differ all the time are no change of tone.
    assert said.overall.changed_from == ""


def test_a_forgotten_voice_has_no_tone_of_its_own(conversation: Conversation) -> None:
    for k in range(3):
        conversation.hear(final("angry", 6.0 * k, voice="v1"))
        conversation.hear(final("happy", 6.0 * k + 3.0, voice="v2"))
    conversation.forget("v1")
    said = conversation.hear(final("happy", 20.0, voice="v2"))
    assert [tone.voice_id for tone in said.voices] == ["v2"]
    assert said.overall.utterances == 7
    conversation.forget()
    assert conversation.hear(final("happy", 23.0)).voices == ()


def test_a_straight_line_of_valence_is_found_in_units_per_minute(
    conversation: Conversation,
) -> None:
    for k in range(6):
        p = np.zeros(len(LABELS))
        p[LABELS.index("happy")], p[LABELS.index("neutral")] = 0.1 * k, 1.0 - 0.1 * k
        tone = conversation.hear(final("", 4.0 * k, p=p)).overall
    valence, arousal = POSITIONS["happy"]
    assert tone.valence_trend == pytest.approx(0.1 * valence * 60 / 4, rel=1e-3)
    assert tone.arousal_trend == pytest.approx(0.1 * arousal * 60 / 4, rel=1e-3)


@pytest.mark.parametrize("before", [2, 3, 6])
def test_a_change_is_reported_with_the_second_utterance_and_what_was_before_counts_no_more(
    conversation: Conversation, before: int
) -> None:
    for k in range(before):
        assert conversation.hear(final("neutral", 3.0 * k)).overall.changed_from == ""
    first = conversation.hear(final("angry", 3.0 * before)).overall
    assert first.changed_from == ""
    tone = conversation.hear(final("angry", 3.0 * (before + 1))).overall
    assert (tone.changed_from, tone.dominant, tone.utterances) == ("neutral", "angry", 2)
    assert tone.change_ns == START_NS + 3_000_000_000 * before
    # It stays reported, with the same time, as long as both sides are within the window.
    later = conversation.hear(final("angry", 3.0 * (before + 2))).overall
    assert (later.changed_from, later.change_ns) == ("neutral", tone.change_ns)


@pytest.mark.parametrize("label", LABELS)
def test_steady_talk_and_a_single_odd_utterance_give_no_change(
    conversation: Conversation, label: str
) -> None:
    odd = "happy" if label != "happy" else "sad"
    for k in range(30):
        said = conversation.hear(final(odd if k % 10 == 5 else label, 3.0 * k, sure=0.7))
        assert said.overall.changed_from == ""


def simulated(rng: np.random.Generator, label: int) -> np.ndarray:
    """Probabilities as of a well calibrated model that names 97 of 100 utterances rightly."""
    z = rng.normal(0.0, 1.0, len(LABELS))
    z[label] += 4.0
    return np.asarray(np.exp(z) / np.exp(z).sum())


def test_simulated_states_show_changes_within_two_utterances_and_steady_talk_none() -> None:
    rng = np.random.default_rng(0)
    found = false = 0
    for _ in range(300):
        old, new = rng.choice(len(LABELS), 2, replace=False)
        p = np.stack(
            [simulated(rng, old) for _ in range(6)] + [simulated(rng, new) for _ in range(2)]
        )
        false += change_point(p[:6]) is not None
        change = change_point(p)
        found += change is not None and change[0] == 6 and change[1] == old
    assert found >= 0.9 * 300, found
    assert false <= 0.01 * 300, false
