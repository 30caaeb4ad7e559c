"""Joining speech and words: one final outcome per utterance, in order, whatever arrives when."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hri_emo_ros.asr import make_recogniser
from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.audio.frontend import AudioFrontEnd
from hri_emo_ros.audio.pcm import PcmFormat
from hri_emo_ros.audio.utterance import UtteranceBuffer
from hri_emo_ros.pipeline import (
    LATENCY_STAGES,
    AudioMessage,
    Outcome,
    RobotSpeaking,
    TranscriptRecord,
    UtteranceJoiner,
    run_offline,
)
from hri_emo_ros.types import (
    LABELS,
    AbstainReason,
    EmotionEstimate,
    SignalQuality,
    SpeechChunk,
    Transcript,
    Word,
)

DATA = Path(__file__).parent / "data"
SECOND = 1_000_000_000
QUALITY = SignalQuality(20.0, -20.0, 0.0, 0.8)


class Recorder:
    """An engine that notes what it is asked, so that the joining can be seen alone."""

    labels = LABELS
    model_id = "recorder"

    def __init__(self) -> None:
        self.asked: list[tuple[int, str | None, bool]] = []
        self.fail = False

    def estimate(
        self,
        samples: np.ndarray | None,
        transcript: Transcript | None,
        quality: SignalQuality | None = None,
        explain: bool = False,
    ) -> EmotionEstimate:
        if self.fail:
            raise ValueError("out of order")
        count = 0 if samples is None else len(samples)
        self.asked.append((count, transcript and transcript.text, explain))
        flat = np.full(len(LABELS), 1 / len(LABELS), np.float32)
        return EmotionEstimate(
            LABELS, flat, flat > 0.1, 1.0, 0.5, 0.5, flat, flat, count / 16000, self.model_id,
            quality=quality, transcript=transcript,
            latency={"audio_encoder": 0.2, "text_encoder": 0.1, "fusion": 0.01},
        )  # fmt: skip


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


def test_words_without_an_id_go_to_the_newest_utterance_that_ended_without_words() -> None:
    rig = Rig()
    rig.say(1, now=1.0)
    rig.say(2, now=1.1)
    rig.say(3, now=1.2, chunks=1, last=False)
    rig.joiner.transcript(None, Transcript("second"), now=1.3)
    rig.joiner.transcript(None, Transcript("first"), now=1.4)
    assert [o.estimate.transcript.text for o in rig.finals if o.estimate.transcript] == [
        "first",
        "second",
    ]


def test_words_without_an_id_may_come_before_our_end_of_speech() -> None:
    rig = Rig()
    rig.say(1, now=1.0, chunks=2, last=False)
    rig.joiner.transcript(None, Transcript("come here."), now=1.1)
    rig.joiner.transcript(None, Transcript("Now!"), now=1.2)
    rig.say(1, now=1.3, first=2)
    [final] = rig.finals
    assert final.estimate.transcript is not None
    assert final.estimate.transcript.text == "come here. Now!"


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
    rig = Rig(provisional__enabled=False)
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


# -- Offline ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recording() -> np.ndarray:
    """Two utterances in a little noise, 16 kHz."""
    pause = np.zeros(16000, np.float32)
    names = ("emodb_11a02Wc", "lj_LJ001-0002")
    parts = [np.concatenate([pause, read_audio(DATA / f"{n}.flac")]) for n in names]
    samples = np.concatenate([*parts, pause])
    return (
        samples + np.random.default_rng(0).standard_normal(len(samples)).astype(np.float32) * 1e-3
    )


def messages(samples: np.ndarray, step: int = 320) -> Iterator[AudioMessage]:
    data = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
    for at in range(0, len(data), step * 2):
        yield AudioMessage(data[at : at + step * 2], 5 * SECOND + at // 2 * SECOND // 16000)


class Spotter:
    """A recogniser that says how long the utterance was."""

    name = "spotter"

    def transcribe(self, samples: np.ndarray, quality: SignalQuality | None = None) -> Transcript:
        text = f"{len(samples)} samples"
        return Transcript(text, (Word(text, 0.0, 1.0, 0.5),), 0.5, "en", 0.01)

    def warm_up(self) -> None:
        pass


def offline_joiner(engine: Any, **values: Any) -> UtteranceJoiner:
    names = {name.replace("__", "."): value for name, value in values.items()}
    return UtteranceJoiner(engine, names, lambda outcome: None, live=False)


def test_offline_gives_speech_then_words_then_the_final(recording: np.ndarray) -> None:
    engine = Recorder()
    records = list(
        run_offline(messages(recording), AudioFrontEnd({}), Spotter(), offline_joiner(engine))
    )
    kinds = [
        type(r).__name__ if not isinstance(r, Outcome) else r.stage
        for r in records
        if not (isinstance(r, SpeechChunk) and not r.last)
    ]
    one = ["SpeechChunk", "TranscriptRecord", "final"]
    assert [k for k in kinds if k != "provisional"] == one * 2
    assert kinds.count("provisional") >= 2
    for record in records:
        if isinstance(record, TranscriptRecord):
            assert record.transcript.text.endswith("samples")
    finals = [r for r in records if isinstance(r, Outcome) and r.stage == "final"]
    asked = [a for a in engine.asked if a[1]]
    assert [f"{count} samples" for count, _, _ in asked] == [text for _, text, _ in asked]
    assert [f.utterance_id for f in finals] == [1, 2]
    assert all(f.stamp_ns > 5 * SECOND for f in finals)


def test_live_and_offline_give_the_same_estimates(recording: np.ndarray, tiny_bundle: Path) -> None:
    from hri_emo_ros.engine import EmotionEngine

    engine = EmotionEngine(tiny_bundle)

    def key(outcome: Outcome) -> tuple[Any, ...]:
        estimate = outcome.estimate
        return (outcome.utterance_id, outcome.stage, outcome.stamp_ns, outcome.speech_end_ns,
                estimate.probabilities.tobytes(), estimate.audio_weight)  # fmt: skip

    offline = [
        key(r)
        for r in run_offline(
            messages(recording, 320), AudioFrontEnd({}, batch=16), Spotter(), offline_joiner(engine)
        )
        if isinstance(r, Outcome)
    ]
    # Live: other chunk lengths, words that come while the next utterance is already heard.
    live: list[Outcome] = []
    joiner = UtteranceJoiner(engine, {"final.hold": 30.0}, live.append)
    front_end, spotter, now = AudioFrontEnd({}), Spotter(), 0.0
    speech: UtteranceBuffer | None = None
    waiting: list[tuple[float, int, Transcript]] = []

    def hear(chunks: list[SpeechChunk]) -> None:
        nonlocal speech
        for piece in chunks:
            joiner.speech(piece, now)
            if speech is None or piece.sequence == 0:
                speech = UtteranceBuffer(piece)
            else:
                speech.add(piece)
            if piece.last:
                words = spotter.transcribe(speech.samples, speech.quality)
                waiting.append((now + 1.0, piece.utterance_id, words))

    for message in messages(recording, 512):
        now += 0.032
        assert isinstance(message.data, bytes)
        hear(front_end.push(message.data, message.stamp_ns))
        while waiting and waiting[0][0] <= now:
            _, utterance_id, words = waiting.pop(0)
            joiner.transcript(utterance_id, words, now)
        joiner.tick(now)
    hear(front_end.flush())
    for _, utterance_id, words in waiting:
        joiner.transcript(utterance_id, words, now)
    joiner.flush(now)
    assert [key(o) for o in live if o.stage == "final"] == [k for k in offline if k[1] == "final"]
    provisional = [k for k in offline if k[1] == "provisional"]
    assert [key(o) for o in live if o.stage == "provisional"] == provisional


def test_offline_without_a_recogniser_voice_alone_speaks(recording: np.ndarray) -> None:
    engine = Recorder()
    for values in ({}, {"transcript__source": "none"}):
        joiner = offline_joiner(engine, **values)
        records = list(run_offline(messages(recording), AudioFrontEnd({}), None, joiner))
        finals = [r for r in records if isinstance(r, Outcome) and r.stage == "final"]
        assert len(finals) == 2
        assert joiner.counters["late_transcripts"] == 0
    assert {text for _, text, _ in engine.asked} == {None}


def test_offline_with_the_recogniser_that_needs_no_download(recording: np.ndarray) -> None:
    recogniser = make_recogniser({"asr.backend": "pocketsphinx"})
    engine = Recorder()
    records = list(
        run_offline(
            messages(recording[-3 * 16000 :]), AudioFrontEnd({}), recogniser, offline_joiner(engine)
        )
    )
    [words] = [r for r in records if isinstance(r, TranscriptRecord)]
    assert "comparatively" in words.transcript.text
    assert engine.asked[-1][1] == words.transcript.text


def test_offline_hears_the_robot_and_changes_of_format(recording: np.ndarray) -> None:
    def inputs() -> Iterator[Any]:
        yield RobotSpeaking(True, 0)
        yield from messages(recording)
        yield RobotSpeaking(False, 5 * SECOND + int(len(recording) / 16000 * SECOND))
        yield PcmFormat(16000, 1, "F32LE")
        after = 5 * SECOND + int((len(recording) / 16000 + 1) * SECOND)
        yield AudioMessage(recording.astype(np.float32), after)

    engine = Recorder()
    records = list(run_offline(inputs(), AudioFrontEnd({}), None, offline_joiner(engine)))
    finals = [r for r in records if isinstance(r, Outcome) and r.stage == "final"]
    assert len(finals) == 2
    assert all(f.stamp_ns > 5 * SECOND + len(recording) / 16000 * SECOND for f in finals)


def test_offline_memory_does_not_grow_with_the_recording(recording: np.ndarray) -> None:
    import tracemalloc

    def endless() -> Iterator[AudioMessage]:
        stamp = 0
        pcm = np.round(np.clip(recording, -1, 1) * 32767).astype("<i2").tobytes()
        while True:
            yield AudioMessage(pcm, stamp)
            stamp += len(recording) * SECOND // 16000

    run = run_offline(endless(), AudioFrontEnd({}, batch=64), None, offline_joiner(Recorder()))
    peaks = []
    tracemalloc.start()
    for _ in range(2):
        tracemalloc.reset_peak()
        for _ in range(100):
            next(run)
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2_000_000


def test_the_callers_emit_is_given_back(recording: np.ndarray) -> None:
    seen: list[Outcome] = []
    joiner = UtteranceJoiner(Recorder(), {}, seen.append, live=False)
    run = run_offline(messages(recording), AudioFrontEnd({}), None, joiner)
    next(run)
    next(run)  # The first chunk has been joined now.
    run.close()
    joiner.flush(math.inf)
    assert len(seen) == 1
