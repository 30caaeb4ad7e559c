# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The whole pipeline over a recording, without ROS: what the nodes would publish, in their order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording_engine import Recorder

from hri_emo_ros.asr import make_recogniser
from hri_emo_ros.asr.endpoint import SpeechCollector
from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.audio.frontend import AudioFrontEnd
from hri_emo_ros.audio.pcm import PcmFormat
from hri_emo_ros.pipeline import (
    AudioMessage,
    Outcome,
    RobotSpeaking,
    TranscriptRecord,
    UtteranceJoiner,
    run_offline,
)
from hri_emo_ros.types import (
    SignalQuality,
    SpeechChunk,
    Transcript,
    TranscriptStatus,
    Word,
)

DATA = Path(__file__).parent / "data"
SECOND = 1_000_000_000


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
    assert [k for k in kinds if k in ("SpeechChunk", "final")] == ["SpeechChunk", "final"] * 2
    told = [r for r in records if isinstance(r, TranscriptRecord)]
    words = [r for r in told if r.transcript.status is not TranscriptStatus.NONE]
    assert [r.utterance_id for r in told if r not in words] == [1, 2], "taken on, both"
    assert [w.utterance_id for w in words if w.final] == [1, 2]
    assert {w.utterance_id for w in words if not w.final} == {1, 2}
    assert kinds[-2:] == ["TranscriptRecord", "final"]
    assert kinds.count("provisional") >= 2
    assert all(record.transcript.text.endswith("samples") for record in words)
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
    collector = SpeechCollector()
    waiting: list[tuple[float, int, Transcript]] = []

    def hear(chunks: list[SpeechChunk]) -> None:
        for piece in chunks:
            joiner.speech(piece, now)
            due = collector.add(piece)
            if due is None:
                continue
            words = spotter.transcribe(due.samples, due.quality)
            if due.final:
                waiting.append((now + 1.0, piece.utterance_id, words))
            else:
                joiner.transcript(piece.utterance_id, words, now, final=False)

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


def test_offline_with_the_shipped_recogniser(recording: np.ndarray) -> None:
    recogniser = make_recogniser({})
    engine = Recorder()
    records = list(
        run_offline(
            messages(recording[-3 * 16000 :]), AudioFrontEnd({}), recogniser, offline_joiner(engine)
        )
    )
    [words] = [r for r in records if isinstance(r, TranscriptRecord) and r.final]
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
