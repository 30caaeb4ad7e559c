# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Joining speech and words: one final outcome per utterance, in order, whatever arrives when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from recording_engine import QUALITY, Recorder

from hri_emo_ros.audio.utterance import UtteranceBuffer
from hri_emo_ros.pipeline import (
    LATENCY_STAGES,
    Outcome,
    UtteranceJoiner,
)
from hri_emo_ros.types import (
    LABELS,
    AbstainReason,
    SpeechChunk,
    Transcript,
    TranscriptStatus,
)

SECOND = 1_000_000_000
AT_WORK = Transcript("", status=TranscriptStatus.NONE)
"""What a recogniser says of an utterance that it has taken on."""


class Rig:
    """A joiner with everything it emits."""

    def __init__(self, live: bool = True, **values: Any) -> None:
        self.engine = Recorder()
        self.outcomes: list[Outcome] = []
        names = {name.replace("__", "."): value for name, value in values.items()}
        self.joiner = UtteranceJoiner(self.engine, names, self.outcomes.append, live)

    def say(
        self, utterance: int, now: float, chunks: int = 4, last: bool = True, first: int = 0
    ) -> None:
        """Chunks of 0.25 s, all arriving at `now`."""
        for sequence in range(first, chunks):
            self.joiner.speech(
                chunk(utterance, sequence, last=last and sequence == chunks - 1), now
            )

    @property
    def finals(self) -> list[Outcome]:
        return [o for o in self.outcomes if o.stage == "final"]

    @property
    def provisionals(self) -> list[Outcome]:
        return [o for o in self.outcomes if o.stage == "provisional"]


def chunk(utterance: int, sequence: int, last: bool = False, **values: Any) -> SpeechChunk:
    start_ns = utterance * 100 * SECOND
    first = sequence * 4000
    made = SpeechChunk(
        utterance, sequence, start_ns + first * SECOND // 16000, start_ns, first,
        np.full(4000, 0.1, np.float32), QUALITY, last,
        speech_end_ns=start_ns + (first + 2000) * SECOND // 16000 if last else 0,
    )  # fmt: skip
    return replace(made, **values)


def test_words_that_come_in_time_make_the_final_at_once() -> None:
    rig = Rig()
    rig.say(1, now=1.0)
    assert rig.finals == []
    rig.joiner.transcript(1, Transcript("hello there", latency=0.4), now=1.5)
    [final] = rig.finals
    assert final.utterance_id == 1
    assert final.stamp_ns == 100 * SECOND
    assert rig.engine.asked[-1] == (16000, "hello there", False)


def test_without_words_voice_alone_speaks_after_the_hold() -> None:
    rig = Rig(final__hold=1.5)
    rig.say(1, now=1.0)
    rig.joiner.tick(2.4)
    assert rig.finals == []
    assert rig.joiner.next_deadline == pytest.approx(2.5)
    rig.joiner.tick(2.5)
    assert len(rig.finals) == 1
    assert rig.engine.asked[-1][1] is None
    assert rig.joiner.counters["without_words"] == 1
    assert rig.joiner.next_deadline is None


def test_words_that_come_too_late_are_counted_and_change_nothing() -> None:
    rig = Rig()
    rig.say(1, now=1.0)
    rig.joiner.tick(10.0)
    rig.joiner.transcript(1, Transcript("late"), now=11.0)
    assert len(rig.finals) == 1
    assert rig.joiner.counters["late_transcripts"] == 1


def test_words_that_lay_in_the_queue_came_in_time() -> None:
    rig = Rig(final__hold=1.5)
    rig.say(1, now=1.0)
    # The worker was busy until 5.0: a chunk and then the words had come at 2.0.
    rig.joiner.speech(chunk(2, 0), now=5.0, arrived=2.0)
    assert rig.finals == []
    rig.joiner.transcript(1, Transcript("in time"), now=5.1, arrived=2.0)
    assert rig.engine.asked[-1][1] == "in time"
    assert rig.finals[0].latency["queue"] == pytest.approx(3.1)


def test_a_recogniser_that_failed_is_not_waited_for() -> None:
    rig = Rig()
    rig.say(1, now=1.0)
    rig.joiner.transcript(1, None, now=1.1)
    assert len(rig.finals) == 1
    assert rig.engine.asked[-1][1] is None


def test_a_recogniser_that_announces_its_work_is_waited_for_only_where_it_is_at_work() -> None:
    rig = Rig(final__hold=3.0)
    rig.joiner.transcript(1, AT_WORK, now=0.5)  # May come ahead of the speech itself.
    rig.say(1, now=1.0)
    rig.joiner.tick(2.0)
    assert rig.finals == []
    rig.joiner.transcript(1, Transcript("one"), now=2.1)
    assert len(rig.finals) == 1
    rig.say(2, now=3.0)  # It was switched off meanwhile.
    assert len(rig.finals) == 2
    assert rig.joiner.counters["without_words"] == 1


def test_nobody_waits_for_words_where_nobody_can_send_any() -> None:
    rig = Rig(final__hold=3.0)
    rig.joiner.recogniser_present = False
    rig.say(1, now=1.0)
    assert len(rig.finals) == 1


def test_a_recogniser_that_has_gone_silent_is_not_waited_for_until_it_is_heard_again() -> None:
    rig = Rig(final__hold=3.0)
    for number in (1, 2):
        rig.say(number, now=10.0 * number)
        rig.joiner.tick(10.0 * number + 2.9)
        assert len(rig.finals) == number - 1
        rig.joiner.tick(10.0 * number + 3.0)
        assert len(rig.finals) == number
    rig.say(3, now=30.0)
    assert len(rig.finals) == 3
    rig.joiner.transcript(3, Transcript("back"), now=31.0)
    rig.say(4, now=40.0)
    rig.joiner.transcript(4, Transcript("in time"), now=41.0)
    assert rig.finals[-1].estimate.transcript == Transcript("in time")


def test_a_recogniser_that_announces_its_work_and_hangs_is_not_waited_for_for_ever() -> None:
    rig = Rig(final__hold=3.0)
    for number in (1, 2):
        rig.joiner.transcript(number, AT_WORK, now=10.0 * number)
        rig.say(number, now=10.0 * number)
        rig.joiner.tick(10.0 * number + 3.0)
        assert len(rig.finals) == number
    rig.joiner.transcript(3, AT_WORK, now=30.0)
    rig.say(3, now=30.0)
    assert len(rig.finals) == 3
    rig.joiner.transcript(3, Transcript("late"), now=34.0)  # It is back.
    rig.joiner.transcript(4, AT_WORK, now=40.0)
    rig.say(4, now=40.0)
    assert len(rig.finals) == 3


def test_words_at_an_endpoint_give_a_provisional_state_and_the_final_needs_no_work() -> None:
    rig = Rig()
    rig.joiner.speech(chunk(1, 0), now=1.0)
    rig.joiner.speech(chunk(1, 1, endpoint=True), now=1.2)
    rig.joiner.transcript(1, Transcript("oh no"), now=1.4, final=False)
    assert [o.estimate.transcript for o in rig.provisionals] == [None, Transcript("oh no")]
    asked = len(rig.engine.asked)
    rig.joiner.speech(chunk(1, 2, last=True, samples=np.zeros(0, np.float32)), now=1.7)
    rig.joiner.transcript(1, Transcript("oh no"), now=1.7)
    assert len(rig.engine.asked) == asked
    assert rig.finals[0].estimate is rig.provisionals[-1].estimate


def test_a_person_who_goes_on_is_estimated_anew() -> None:
    rig = Rig()
    rig.joiner.speech(chunk(1, 0, endpoint=True), now=1.0)
    rig.joiner.transcript(1, Transcript("oh"), now=1.1, final=False)
    rig.joiner.speech(chunk(1, 1, last=True), now=2.0)
    rig.joiner.transcript(1, Transcript("oh no"), now=2.1)
    assert rig.engine.asked[-1] == (8000, "oh no", False)


def test_refused_words_are_counted() -> None:
    rig = Rig()
    rig.say(1, now=1.0)
    rig.joiner.transcript(1, Transcript("you", status=TranscriptStatus.REJECTED), now=1.1)
    assert rig.engine.asked[-1][1] is None
    assert rig.joiner.counters["rejected_transcripts"] == 1


def test_an_utterance_whose_beginning_was_not_heard_says_so() -> None:
    rig = Rig(transcript__source="none")
    rig.say(1, now=1.0)
    rig.say(2, now=2.0, first=2)  # The first chunks were sent before anybody listened.
    rig.joiner.speech(chunk(3, 0, last=True, beginning_lost=True), now=3.0)
    assert [o.estimate.beginning_lost for o in rig.finals] == [False, True, True]


def test_an_empty_transcript_reaches_the_engine_as_none() -> None:
    rig = Rig()
    rig.say(1, now=1.0)
    rig.joiner.transcript(1, Transcript("  ", confidence=0.0), now=1.1)
    assert rig.engine.asked[-1][1] is None


def test_no_words_are_awaited_where_there_is_no_source() -> None:
    rig = Rig(transcript__source="none")
    rig.say(1, now=1.0)
    assert len(rig.finals) == 1
    assert rig.joiner.counters["without_words"] == 0


def test_finals_come_in_the_order_of_the_utterances() -> None:
    rig = Rig(final__hold=1.5)
    for number in (1, 2, 3):
        rig.say(number, now=float(number) / 10)
    rig.joiner.transcript(3, Transcript("three"), now=0.4)
    rig.joiner.transcript(2, Transcript("two"), now=0.5)
    assert rig.finals == []
    rig.joiner.tick(1.7)
    assert [o.utterance_id for o in rig.finals] == [1, 2, 3]
    assert [text for _, text, _ in rig.engine.asked[-3:]] == [None, "two", "three"]


def test_provisional_states_come_every_period_of_speech() -> None:
    rig = Rig(provisional__period=1.0)
    rig.say(1, now=1.0, chunks=13)
    assert [o.estimate.duration for o in rig.provisionals] == [1.0, 2.0, 3.0]
    assert all(o.utterance_id == 1 for o in rig.provisionals)


def test_the_cadence_does_not_depend_on_chunk_lengths() -> None:
    rig = Rig(provisional__period=1.0)
    long = np.full(40000, 0.1, np.float32)
    rig.joiner.speech(chunk(1, 0, samples=long), 0.0)
    rig.joiner.speech(chunk(1, 1, first_sample=40000), 0.0)
    rig.joiner.speech(chunk(1, 2, first_sample=44000), 0.0)
    assert [o.estimate.duration for o in rig.provisionals] == [2.5, 3.0]


def test_provisional_states_can_be_switched_off() -> None:
    rig = Rig(provisional__enabled=False)
    rig.say(1, now=1.0, chunks=13)
    assert rig.provisionals == []


def test_partial_words_serve_the_provisional_states_and_do_not_end_the_wait() -> None:
    rig = Rig(provisional__period=1.0)
    rig.say(1, now=1.0, chunks=2, last=False)
    rig.joiner.transcript(1, Transcript("i am"), now=1.1, final=False)
    rig.say(1, now=1.2, chunks=8, first=2)
    assert rig.engine.asked[-1][1] == "i am"
    assert rig.finals == []
    rig.joiner.transcript(1, Transcript("i am angry"), now=1.3)
    assert rig.engine.asked[-1][1] == "i am angry"


def words(rig: Rig) -> list[str]:
    """Of each final outcome."""
    return [o.estimate.transcript.text if o.estimate.transcript else "" for o in rig.finals]


def test_words_without_an_id_go_to_the_first_utterance_that_ended_without_words() -> None:
    rig = Rig()
    rig.say(1, now=1.0)
    rig.say(2, now=1.1)
    rig.say(3, now=1.2, chunks=1, last=False)
    rig.joiner.transcript(None, Transcript("first"), now=1.3)
    rig.joiner.transcript(None, Transcript("second"), now=1.4)
    assert words(rig) == ["first", "second"]


@pytest.mark.parametrize("delay", [3.5, 5.0, 8.0, 12.0])
def test_words_that_come_too_late_are_never_the_next_persons(delay: float) -> None:
    rig = Rig(final__hold=3.0)
    ends = [1.0, 5.0, 7.5, 12.0, 13.0, 20.0]
    events = [(end, "say", k + 1) for k, end in enumerate(ends)]
    events += [(end + delay, "hear", k + 1) for k, end in enumerate(ends)]
    events += [(tick / 10, "tick", 0) for tick in range(500)]
    for now, what, number in sorted(events):
        if what == "say":
            rig.say(number, now=now)
        elif what == "hear":
            rig.joiner.transcript(None, Transcript(f"words of {number}"), now=now)
        else:
            rig.joiner.tick(now)
    assert words(rig) == [""] * 6
    assert rig.joiner.counters["late_transcripts"] == 6
    assert rig.joiner.counters["without_words"] == 6


def test_what_is_owed_is_forgiven_after_a_while_or_with_a_word_that_there_was_none() -> None:
    rig = Rig(final__hold=3.0)
    rig.say(1, now=1.0)
    rig.joiner.tick(5.0)
    rig.joiner.transcript(None, Transcript(""), now=6.0)
    rig.say(2, now=7.0)
    rig.joiner.transcript(None, Transcript("second"), now=7.5)
    rig.say(3, now=10.0)
    rig.joiner.tick(15.0)
    rig.say(4, now=50.0)
    rig.joiner.transcript(None, Transcript("fourth"), now=50.5)
    assert words(rig) == ["", "second", "", "fourth"]


def test_words_that_come_before_the_end_of_speech_are_not_all() -> None:
    rig = Rig(final__hold=3.0)
    rig.joiner.speech(chunk(1, 0), now=1.0)
    rig.joiner.transcript(None, Transcript("come here"), now=1.1)
    for number in (1, 2, 3):
        rig.joiner.speech(chunk(1, number, last=number == 3), now=1.0 + 0.25 * number)
    assert rig.finals == []
    rig.joiner.transcript(None, Transcript("or"), now=2.0, final=False)
    rig.joiner.transcript(None, Transcript("or go"), now=2.1)
    assert words(rig) == ["come here or go"]


def test_words_without_an_id_may_come_before_our_end_of_speech() -> None:
    rig = Rig()
    rig.say(1, now=1.0, chunks=2, last=False)
    rig.joiner.transcript(None, Transcript("come here."), now=1.1)
    rig.joiner.transcript(None, Transcript("Now!"), now=1.2)
    rig.say(1, now=1.3, first=2)
    assert words(rig) == ["come here. Now!"]


def test_words_without_an_id_but_with_a_time_go_where_that_time_lies() -> None:
    rig = Rig()
    rig.say(1, now=1.0)
    rig.say(2, now=1.1)
    rig.joiner.transcript(None, Transcript("first"), now=1.3, spoken_ns=100 * SECOND + SECOND // 2)
    assert [o.utterance_id for o in rig.finals] == [1]
    rig.joiner.transcript(None, Transcript("second"), now=1.3, spoken_ns=9000 * SECOND)
    assert [o.utterance_id for o in rig.finals] == [1, 2]


def test_words_that_fit_no_utterance_are_counted() -> None:
    rig = Rig()
    rig.joiner.transcript(None, Transcript("who?"), now=1.0)
    rig.joiner.transcript(7, Transcript("what?"), now=1.0)
    assert rig.joiner.counters["unmatched_transcripts"] == 2


def test_more_utterances_than_the_queue_holds_finish_the_oldest() -> None:
    rig = Rig(utterance__queue=2)
    for number in (1, 2, 3):
        rig.say(number, now=1.0)
    assert [o.utterance_id for o in rig.finals] == [1]
    assert rig.joiner.in_work == 2
    assert rig.joiner.counters["overflow"] == 1


def test_an_engine_that_fails_gives_a_final_that_says_so_and_life_goes_on() -> None:
    rig = Rig(transcript__source="none", provisional__period=0.5)
    rig.engine.fail = True
    rig.say(1, now=1.0)
    rig.engine.fail = False
    rig.say(2, now=2.0)
    first, second = rig.finals
    assert first.estimate.abstain_reason is AbstainReason.ERROR
    assert "out of order" in first.error
    assert second.estimate.abstain_reason is AbstainReason.NONE
    assert rig.joiner.counters["errors"] == 2  # A provisional one and the final one.


def test_without_an_engine_every_final_abstains() -> None:
    outcomes: list[Outcome] = []
    joiner = UtteranceJoiner(None, {"transcript.source": "none"}, outcomes.append)
    joiner.speech(chunk(1, 0, last=True), 0.0)
    assert [o.estimate.abstain_reason for o in outcomes] == [AbstainReason.NO_MODEL]
    assert outcomes[0].estimate.labels == LABELS


@pytest.mark.parametrize(
    ("values", "reason"),
    [({"robot_speaking": True}, AbstainReason.ROBOT_SPEAKING),
     ({"quality": replace(QUALITY, speech_fraction=0.0)}, AbstainReason.NO_SPEECH),
     ({"samples": np.zeros(0, np.float32)}, AbstainReason.NO_SPEECH)],
    ids=["robot speaking", "no speech", "empty"],
)  # fmt: skip
def test_the_engine_is_not_asked_about_what_cannot_count(
    values: dict[str, Any], reason: AbstainReason
) -> None:
    rig = Rig(transcript__source="none", provisional__period=0.1)
    rig.joiner.speech(chunk(1, 0, last=True, **values), 0.0)
    [final] = rig.outcomes
    estimate = final.estimate
    assert rig.engine.asked == []
    assert estimate.abstain_reason is reason
    assert estimate.audio_weight + estimate.text_weight == 1.0
    assert not estimate.above_threshold.any()


def test_words_alone_are_estimated_where_the_voice_was_lost() -> None:
    rig = Rig()
    rig.joiner.speech(chunk(1, 0, last=True, samples=np.zeros(0, np.float32)), 0.0)
    rig.joiner.transcript(1, Transcript("so happy"), 0.1)
    assert rig.engine.asked == [(0, "so happy", False)]


def test_a_lost_chunk_leaves_silence_of_its_length() -> None:
    rig = Rig(transcript__source="none")
    rig.joiner.speech(chunk(1, 0), 0.0)
    rig.joiner.speech(chunk(1, 2, last=True), 0.0)
    assert rig.engine.asked == [(12000, None, False)]
    assert rig.joiner.counters["lost_chunks"] == 1


def test_repeated_and_belated_chunks_are_ignored() -> None:
    rig = Rig(transcript__source="none")
    rig.joiner.speech(chunk(1, 0), 0.0)
    rig.joiner.speech(chunk(1, 1), 0.0)
    rig.joiner.speech(chunk(1, 1), 0.0)
    rig.joiner.speech(chunk(1, 2, last=True), 0.0)
    rig.joiner.speech(chunk(1, 3, last=True), 0.0)
    assert rig.engine.asked == [(12000, None, False)]
    assert rig.joiner.counters["late_chunks"] == 2


def test_an_utterance_whose_end_was_lost_is_finished_by_the_next() -> None:
    rig = Rig(transcript__source="none")
    rig.say(1, now=1.0, last=False)
    rig.say(2, now=2.0)
    assert [o.utterance_id for o in rig.finals] == [1, 2]
    assert rig.joiner.counters["unclosed"] == 1


def test_an_utterance_that_goes_silent_for_long_is_finished() -> None:
    rig = Rig(transcript__source="none")
    rig.say(1, now=1.0, last=False)
    rig.joiner.tick(5.0)
    assert rig.finals == []
    rig.joiner.tick(12.0)
    assert len(rig.finals) == 1


def test_a_sender_that_starts_over_is_noticed() -> None:
    rig = Rig(transcript__source="none")
    rig.say(1, now=1.0)
    rig.say(2, now=2.0, last=False)
    rig.say(1, now=3.0)
    assert [o.utterance_id for o in rig.finals] == [1, 2, 1]


def test_joining_in_the_middle_of_an_utterance_takes_what_is_heard() -> None:
    rig = Rig(transcript__source="none")
    rig.say(5, now=1.0, chunks=6, first=4)
    [final] = rig.finals
    assert final.estimate.duration == 0.5
    assert final.stamp_ns == 501 * SECOND


def test_latency_of_a_live_final_counts_from_the_arrival_of_the_end_of_speech() -> None:
    rig = Rig(provisional__enabled=False, voices__enabled=False)
    # Each chunk arrives 50 ms after its last sample; the clock has another origin than the stamps.
    origin = 7.0 - 100.0
    for sequence in range(3):
        made = chunk(1, sequence)
        rig.joiner.speech(made, origin + made.stamp_ns / SECOND + 0.25 + 0.05)
    last = chunk(1, 3, last=True)
    closed = origin + last.speech_end_ns / SECOND + 0.6 + 0.05
    rig.joiner.speech(last, closed)
    rig.joiner.transcript(1, Transcript("words", latency=0.4), closed + 0.5)
    [final] = rig.finals
    assert tuple(final.latency) == LATENCY_STAGES
    assert final.latency["wait"] == pytest.approx(0.5)
    assert final.latency["asr"] == 0.4
    assert final.latency["audio_encoder"] == 0.2
    assert final.latency["total"] == pytest.approx(1.1, abs=0.05)
    assert final.speech_end_ns == last.speech_end_ns


def test_latency_offline_is_computing_time_only() -> None:
    rig = Rig(live=False, provisional__enabled=False)
    rig.say(1, now=1.0)
    rig.joiner.transcript(1, Transcript("words", latency=0.4), now=3.0)
    latency = rig.finals[0].latency
    assert latency["wait"] == latency["queue"] == 0.0
    assert latency["total"] == pytest.approx(0.4 + 0.2 + 0.1 + 0.01)


def test_an_explanation_is_asked_for_finals_only() -> None:
    rig = Rig(transcript__source="none", explanation__enabled=True, provisional__period=0.5)
    rig.say(1, now=1.0)
    assert [explain for _, _, explain in rig.engine.asked] == [False, True]


def test_flush_finishes_everything() -> None:
    rig = Rig()
    rig.say(1, now=1.0)
    rig.say(2, now=1.1, last=False)
    rig.joiner.flush(1.2)
    assert [o.utterance_id for o in rig.finals] == [1, 2]
    assert rig.joiner.in_work == 0


def test_parameters_can_change_while_running() -> None:
    rig = Rig(final__hold=30.0)
    rig.say(1, now=1.0)
    rig.joiner.configure({"final.hold": 0.5})
    rig.joiner.tick(1.6)
    assert len(rig.finals) == 1


def test_every_utterance_gets_exactly_one_final_whatever_happens() -> None:
    rng = np.random.default_rng(11)
    rig = Rig(utterance__queue=3, final__hold=0.5)
    now, sent = 0.0, 0
    for utterance in range(1, 200):
        chunks = int(rng.integers(1, 8))
        for sequence in range(chunks):
            now += float(rng.exponential(0.1))
            if rng.random() < 0.1 and sequence:
                continue  # Lost on the way.
            rig.joiner.speech(chunk(utterance, sequence, last=sequence == chunks - 1), now)
            target = utterance - int(rng.integers(0, 4))
            if rng.random() < 0.3:
                known = None if rng.random() < 0.3 else target
                rig.joiner.transcript(known, Transcript("word"), now)
            if rng.random() < 0.3:
                rig.joiner.tick(now)
        sent += 1
    rig.joiner.flush(now)
    assert [o.utterance_id for o in rig.finals] == list(range(1, sent + 1))


def test_the_buffer_joins_chunks_as_they_were_cut() -> None:
    samples = np.random.default_rng(0).standard_normal(10000).astype(np.float32)
    buffer = UtteranceBuffer(chunk(1, 0, samples=samples[:3000]))
    assert buffer.add(chunk(1, 1, samples=samples[3000:7000], first_sample=3000))
    assert buffer.add(chunk(1, 2, samples=samples[7000:], first_sample=7000, last=True))
    np.testing.assert_array_equal(buffer.samples, samples)
    assert buffer.closed
    assert buffer.duration == pytest.approx(0.625)


def conversation(rig: Rig, *words: Transcript | None) -> list[tuple[str, ...]]:
    """Utterances, 99 s from the end of each to the next, and with what context each was judged at last."""
    for number, said in enumerate(words, 1):
        rig.say(number, now=float(number))
        rig.joiner.transcript(number, said, now=float(number))
    return rig.engine.contexts


def test_words_are_read_with_what_was_said_before() -> None:
    rig = Rig(provisional__enabled=False, context__max_age=120.0)
    said = conversation(rig, Transcript("one"), Transcript("two"), Transcript("three"))
    assert said == [(), ("one",), ("two",)]  # two turns before it ended 199 s earlier
    rig = Rig(provisional__enabled=False, context__max_age=3600.0, context__turns=2)
    words = [Transcript(word) for word in ("one", "two", "three", "four")]
    assert conversation(rig, *words) == [(), ("one",), ("two", "one"), ("three", "two")]


def test_turns_without_words_or_too_long_ago_are_no_context() -> None:
    rig = Rig(provisional__enabled=False, context__max_age=120.0)
    refused = Transcript("eins", status=TranscriptStatus.REJECTED)
    assert conversation(rig, refused, None, Transcript("three")) == [(), (), ()]
    rig = Rig(provisional__enabled=False)  # a minute
    assert conversation(rig, Transcript("one"), Transcript("two")) == [(), ()]
    rig = Rig(provisional__enabled=False, context__max_age=3600.0, context__turns=0)
    assert conversation(rig, Transcript("one"), Transcript("two")) == [(), ()]


def test_who_is_forgotten_said_nothing() -> None:
    rig = Rig(provisional__enabled=False, context__max_age=3600.0)
    conversation(rig, Transcript("one"))
    rig.joiner.forget_voices()
    rig.say(2, now=2.0)
    rig.joiner.transcript(2, Transcript("two"), now=2.0)
    assert rig.engine.contexts[-1] == ()
