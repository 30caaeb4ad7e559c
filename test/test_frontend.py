# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Messages in, chunks of speech out: formats, time, breaks, the robot's own voice."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hri_emo_ros.audio.arrival import Arrivals
from hri_emo_ros.audio.files import read_audio, read_samples
from hri_emo_ros.audio.frontend import AudioFrontEnd
from hri_emo_ros.audio.pcm import PcmFormat
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.parameters import SAMPLE_FORMATS
from hri_emo_ros.types import Fault, SpeechChunk

DATA = Path(__file__).parent / "data"
START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


class LevelDetector:
    """Speech is what is louder than -40 dB: for tests of time, where onsets must be exact."""

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        return (np.abs(frames).max(axis=1) > 0.01).astype(np.float32)

    def reset(self) -> None:
        pass


@pytest.fixture(scope="module")
def recording() -> np.ndarray:
    """Two people one after the other in a little noise, 8 s at 16 kHz."""
    pause = np.zeros(16000, np.float32)
    parts = [read_audio(DATA / f"{name}.flac") for name in ("emodb_11a02Wc", "lj_LJ001-0002")]
    samples = np.concatenate([pause, parts[0], pause, parts[1], pause])
    noise = np.random.default_rng(0).standard_normal(len(samples)).astype(np.float32)
    return np.clip(samples + noise * np.float32(1e-3), -1, 1)


def at_rate(samples: np.ndarray, rate: int) -> np.ndarray:
    import soxr

    return np.clip(soxr.resample(samples, 16000, rate, quality="VHQ"), -1, 1)


def pcm(samples: np.ndarray) -> bytes:
    return np.round(samples * 32767).astype("<i2").tobytes()


def feed(
    front_end: AudioFrontEnd, data: bytes, step: int, start_ns: int = START, frame: int = 2
) -> list[SpeechChunk]:
    """Push `data` in messages of `step` bytes, each stamped with the time of its first sample."""
    chunks: list[SpeechChunk] = []
    rate = front_end.format.sample_rate
    for at in range(0, len(data), step):
        stamp = start_ns + at // frame * SECOND // rate
        chunks += front_end.push(data[at : at + step], stamp)
    return chunks


def facts(chunks: list[SpeechChunk]) -> list[tuple[Any, ...]]:
    return [
        (c.utterance_id, c.sequence, c.stamp_ns, c.utterance_start_ns, c.first_sample,
         c.samples.tobytes(), str(c.quality), c.last, c.truncated, c.speech_end_ns,
         c.stream_start_sample)
        for c in chunks
    ]  # fmt: skip


def ends(chunks: list[SpeechChunk]) -> list[SpeechChunk]:
    return [c for c in chunks if c.last]


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_chunk_length_changes_nothing(recording: np.ndarray, rate: int) -> None:
    data = pcm(at_rate(recording, rate))
    results = []
    for step in (rate // 100 * 2, rate // 50 * 2, rate * 32 // 1000 * 2, rate // 10 * 2, 1999):
        front_end = AudioFrontEnd({"audio.sample_rate": rate}, batch=8 if step > 2000 else 1)
        results.append(facts(feed(front_end, data, step) + front_end.flush()))
    assert len({f[0] for f in results[0]}) == 2
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize(
    ("rate", "tolerance"),
    # Half of a consonant lies above the 4 kHz of a telephone: its onset is heard later.
    [(8000, 0.25), (44100, 0.04), (48000, 0.04)],
)
def test_other_rates_give_the_same_utterances(
    recording: np.ndarray, rate: int, tolerance: float
) -> None:
    reference = AudioFrontEnd({})
    expected = ends(feed(reference, pcm(recording), 640) + reference.flush())
    front_end = AudioFrontEnd({"audio.sample_rate": rate})
    found = ends(feed(front_end, pcm(at_rate(recording, rate)), rate // 25) + front_end.flush())
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert abs(a.utterance_start_ns - b.utterance_start_ns) <= tolerance * SECOND
        assert abs(a.speech_end_ns - b.speech_end_ns) <= tolerance * SECOND


def test_one_channel_of_many_can_be_chosen(recording: np.ndarray) -> None:
    mono = AudioFrontEnd({})
    expected = facts(mono.push(pcm(recording), START) + mono.flush())
    stereo = np.stack([np.zeros_like(recording), recording], axis=1)
    front_end = AudioFrontEnd({"audio.channels": 2, "audio.channel": 1})
    assert facts(feed(front_end, pcm(stereo), 1280, frame=4) + front_end.flush()) == expected


def test_the_mean_of_equal_channels_is_each_of_them(recording: np.ndarray) -> None:
    mono = AudioFrontEnd({})
    expected = facts(mono.push(pcm(recording), START) + mono.flush())
    front_end = AudioFrontEnd({"audio.channels": 2})
    stereo = pcm(np.stack([recording, recording], axis=1))
    assert facts(feed(front_end, stereo, 1280, frame=4) + front_end.flush()) == expected


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_the_stamp_of_an_onset_is_right_to_a_millisecond(rate: int) -> None:
    onset = 1.2345
    signal = np.zeros(rate * 3, np.float32)
    first = round(onset * rate)
    signal[first : first + rate] = 0.5 * np.sin(np.arange(rate) * 2 * np.pi * 500 / rate)
    front_end = AudioFrontEnd({"audio.sample_rate": rate}, LevelDetector())
    chunks = feed(front_end, pcm(signal), rate // 50 * 2) + front_end.flush()
    samples = np.concatenate([c.samples for c in chunks])
    assert len(ends(chunks)) == 1
    # The tone has risen to a tenth of its height within 0.1 ms.
    heard = int(np.argmax(np.abs(samples) > 0.05))
    time = (chunks[0].utterance_start_ns - START) / SECOND + heard / 16000
    assert abs(time - onset) < 1e-3
    assert chunks[0].stream_start_sample + heard == pytest.approx(onset * 16000, abs=16)


def test_chunk_stamps_follow_from_the_utterance_start(recording: np.ndarray) -> None:
    front_end = AudioFrontEnd({})
    for chunk in feed(front_end, pcm(recording), 640) + front_end.flush():
        assert chunk.stamp_ns == chunk.utterance_start_ns + chunk.first_sample * SECOND // 16000


def test_jitter_of_stamps_below_the_tolerance_is_ignored(recording: np.ndarray) -> None:
    clean, jittery = AudioFrontEnd({}), AudioFrontEnd({})
    data, rng = pcm(recording), np.random.default_rng(0)
    chunks = []
    for i, at in enumerate(range(0, len(data), 640)):
        jitter = int(rng.integers(-40, 40)) * 1_000_000 if i else 0
        chunks += jittery.push(data[at : at + 640], START + at // 2 * SECOND // 16000 + jitter)
    assert facts(chunks + jittery.flush()) == facts(feed(clean, data, 640) + clean.flush())
    assert jittery.counters["gaps"] == jittery.counters["restarts"] == 0


def tone(seconds: float) -> np.ndarray:
    return (0.3 * np.sin(np.arange(int(seconds * 16000)) * 0.3)).astype(np.float32)


def test_a_short_loss_is_filled_with_silence_and_counted() -> None:
    front_end = AudioFrontEnd({}, LevelDetector())
    chunks = feed(front_end, pcm(tone(1)), 640)
    chunks += feed(front_end, pcm(tone(1)), 640, START + int(1.3 * SECOND)) + front_end.flush()
    assert len(ends(chunks)) == 1
    samples = np.concatenate([c.samples for c in chunks])
    assert len(samples) == int(2.3 * 16000)
    # The high-pass that takes off the offset rings for some ms.
    assert np.abs(samples[17600 : int(1.3 * 16000)]).max() < 1e-5
    assert chunks[-1].dropped_samples == int(0.3 * 16000) == front_end.counters["dropped_samples"]
    assert front_end.counters["gaps"] == 1


def test_a_long_gap_closes_the_open_utterance_and_moves_the_time() -> None:
    front_end = AudioFrontEnd({}, LevelDetector())
    chunks = feed(front_end, pcm(tone(1)), 640)
    chunks += feed(front_end, pcm(tone(1)), 640, START + 10 * SECOND) + front_end.flush()
    first, second = ends(chunks)
    assert first.speech_end_ns == START + SECOND
    assert second.utterance_start_ns == START + 10 * SECOND
    assert second.stream_start_sample == 16000
    assert front_end.counters["gaps"] == 1


def test_stamps_going_backwards_are_a_restart() -> None:
    front_end = AudioFrontEnd({}, LevelDetector())
    chunks = feed(front_end, pcm(tone(1)), 640)
    chunks += feed(front_end, pcm(tone(1)), 640, START - 100 * SECOND) + front_end.flush()
    first, second = ends(chunks)
    assert (first.utterance_id, second.utterance_id) == (1, 2)
    assert second.utterance_start_ns == START - 100 * SECOND
    assert front_end.counters["restarts"] == 1


def test_a_clock_that_is_set_far_ahead_loses_nothing() -> None:
    front_end = AudioFrontEnd({}, LevelDetector())
    chunks = feed(front_end, pcm(tone(1)), 640)
    chunks += feed(front_end, pcm(tone(1)), 640, START + 5000 * SECOND) + front_end.flush()
    first, second = ends(chunks)
    assert (first.utterance_id, second.utterance_id) == (1, 2)
    assert second.utterance_start_ns == START + 5000 * SECOND
    assert front_end.counters["restarts"] == 1
    assert front_end.counters["dropped_samples"] == front_end.counters["gaps"] == 0


def test_a_burst_too_short_for_an_utterance_is_discarded_at_a_gap() -> None:
    front_end = AudioFrontEnd({}, LevelDetector())
    chunks = feed(front_end, pcm(tone(0.15)), 640)
    chunks += feed(front_end, pcm(np.zeros(16000)), 640, START + 10 * SECOND) + front_end.flush()
    assert chunks == []
    assert front_end.counters["discarded_bursts"] == 1


def test_drifting_clocks_correct_the_time_without_a_break() -> None:
    front_end = AudioFrontEnd({}, LevelDetector())
    silence, drift = pcm(np.zeros(320)), 1.01
    for i in range(1000):
        front_end.push(silence, START + int(i * 0.02 * drift * SECOND))
    chunks = []
    for i in range(1000, 1100):
        chunks += front_end.push(pcm(tone(0.02)), START + int(i * 0.02 * drift * SECOND))
    chunks += front_end.flush()
    onset = chunks[0].utterance_start_ns + int(0.3 * SECOND)
    assert abs(onset - (START + int(20 * drift * SECOND))) <= 0.14 * SECOND
    assert front_end.counters["gaps"] == front_end.counters["restarts"] == 0
    assert front_end.counters["clock_corrections"] == 2
    assert len(ends(chunks)) == 1


def test_times_of_reception_may_jitter_by_a_network_stall(recording: np.ndarray) -> None:
    clean, stalled = AudioFrontEnd({}), AudioFrontEnd({})
    data = pcm(recording)
    expected = feed(clean, data, 640, START) + clean.flush()
    chunks = []
    for i, at in enumerate(range(0, len(data), 640)):
        sent = START + (at // 2 + 320) * SECOND // 16000
        late = 800_000_000 if 100 <= i < 120 else 0
        chunks += stalled.push(data[at : at + 640], sent + late, received=True)
    assert facts(chunks + stalled.flush()) == facts(expected)


def test_without_stamps_time_is_counted_from_zero(recording: np.ndarray) -> None:
    stamped, unstamped = AudioFrontEnd({}), AudioFrontEnd({})
    data = pcm(recording)
    expected = feed(stamped, data, 640, 0) + stamped.flush()
    chunks = [
        c for at in range(0, len(data), 640) for c in unstamped.push(data[at : at + 640], None)
    ]
    assert facts(chunks + unstamped.flush()) == facts(expected)


def test_a_format_change_closes_the_open_utterance() -> None:
    front_end = AudioFrontEnd({}, LevelDetector())
    chunks = feed(front_end, pcm(tone(1)), 640)
    front_end.set_format(PcmFormat(8000, 2, "F32LE"))
    assert front_end.counters["format_changes"] == 1
    stereo = np.repeat(tone(1)[::2, None], 2, axis=1).astype("<f4").tobytes()
    chunks += feed(front_end, stereo, 1280, START + SECOND, frame=8) + front_end.flush()
    first, second = ends(chunks)
    assert first.speech_end_ns == START + SECOND
    assert second.utterance_start_ns == START + SECOND


def test_the_same_format_again_changes_nothing(recording: np.ndarray) -> None:
    front_end = AudioFrontEnd({})
    data = pcm(recording)
    chunks = feed(front_end, data[:100_000], 640)
    front_end.set_format(PcmFormat(16000, 1, "s16le"))
    chunks += feed(front_end, data[100_000:], 640, START + 50_000 * SECOND // 16000)
    reference = AudioFrontEnd({})
    expected = feed(reference, data, 640) + reference.flush()
    assert facts(chunks + front_end.flush()) == facts(expected)


def test_bad_float_samples_are_zeroed_and_counted() -> None:
    front_end = AudioFrontEnd({"audio.sample_format": "F32LE"}, LevelDetector())
    samples = tone(1)
    samples[8000:8010] = np.nan
    samples[8020] = np.inf
    samples[8030] = 7.0
    chunks = front_end.push(samples.tobytes(), START) + front_end.flush()
    heard = np.concatenate([c.samples for c in chunks])
    assert np.isfinite(heard).all()
    assert np.abs(heard).max() <= 1.0
    assert np.abs(heard[8000:8010]).max() < 0.01  # zero but for what the high-pass remembers
    assert front_end.counters["bad_samples"] == 11
    assert front_end.counters["clipped_samples"] == 1


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_constant_offset_changes_neither_what_is_found_nor_its_snr(
    recording: np.ndarray, rate: int
) -> None:
    clean, offset = (
        AudioFrontEnd({"audio.sample_rate": rate, "audio.sample_format": "F32LE"}) for _ in range(2)
    )
    samples = at_rate(recording * np.float32(0.9), rate).astype(np.float32)
    shifted = samples + np.float32(10 ** (-23 / 20))
    assert np.abs(shifted).max() < 1.0
    found = []
    for front_end, signal in ((clean, samples), (offset, shifted)):
        step = rate // 50 * 4
        found.append(ends(feed(front_end, signal.tobytes(), step, frame=4) + front_end.flush()))
    assert len(found[0]) == len(found[1]) == 2
    for before, after in zip(*found, strict=True):
        assert after.quality.snr_db == pytest.approx(before.quality.snr_db, abs=1.0)
        assert after.quality.level_dbfs == pytest.approx(before.quality.level_dbfs, abs=0.2)
        assert after.utterance_start_ns == pytest.approx(before.utterance_start_ns, abs=SECOND / 20)
        assert after.speech_end_ns == pytest.approx(before.speech_end_ns, abs=SECOND / 20)


def test_clipping_is_judged_before_the_offset_is_taken_off() -> None:
    loud = np.clip(tone(1) * 3 + np.float32(0.3), -1, 1).astype(np.float32)
    front_end = AudioFrontEnd({"audio.sample_format": "F32LE"}, LevelDetector())
    chunks = front_end.push(loud.tobytes(), START) + front_end.flush()
    clipped = np.abs(loud) >= front_end.format.full_scale
    assert front_end.counters["clipped_samples"] == np.count_nonzero(clipped) > 0
    assert chunks[-1].quality.clipped_fraction == pytest.approx(np.mean(clipped), rel=0.1)


def test_float_samples_can_be_pushed_directly(recording: np.ndarray) -> None:
    exact = (np.round(recording * 32767) / 32768 + 0.0).astype(np.float32)  # No -0.0.
    bytes_in, floats_in = AudioFrontEnd({}), AudioFrontEnd({})
    expected = facts(bytes_in.push(pcm(recording), START) + bytes_in.flush())
    assert facts(floats_in.push_samples(exact, START) + floats_in.flush()) == expected
    with pytest.raises(HriEmoError, match=r"2 channels, must have 1.*audio\.channels"):
        floats_in.push_samples(np.zeros((10, 2), np.float32), START)


def arriving(
    front_end: AudioFrontEnd,
    data: bytes,
    events: dict[float, bool],
    *,
    burst: int = 1,
    delay: float = 0.0,
    stamps_ahead: float = 0.0,
    clock_set: tuple[float, float] = (0.0, 0.0),
) -> list[SpeechChunk]:
    """Push messages of 20 ms that arrive `burst` at a time, `delay` s after their last sample was taken, with the
    robot's word at the given times (s); the listener's clock is set on by clock_set[1] s at clock_set[0] s."""

    def on_clock(seconds: float) -> int:
        return START + round((seconds + (clock_set[1] if seconds >= clock_set[0] else 0.0)) * 1e9)

    chunks: list[SpeechChunk] = []
    waiting = dict(events)
    for number in range(len(data) // 640):
        arrived = (number // burst + 1) * burst * 0.02 + delay
        for at in [at for at in waiting if at < arrived]:
            front_end.robot_speaking(waiting.pop(at), on_clock(at))
        stamp = START + number * 20_000_000 + round(stamps_ahead * 1e9)
        piece = data[640 * number : 640 * (number + 1)]
        chunks += front_end.push(piece, stamp, arrived_ns=on_clock(arrived))
    return chunks + front_end.flush()


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"burst": 20},
        {"delay": 0.5},
        {"stamps_ahead": -5000.0},
        {"stamps_ahead": -3.0},
        {"stamps_ahead": 3.0, "burst": 20},
        {"clock_set": (1.0, -1000.0)},
        {"clock_set": (2.5, 1000.0)},
    ],
    ids=str,
)
def test_what_the_robot_says_is_discarded_with_its_echo(how: dict[str, Any]) -> None:
    front_end = AudioFrontEnd({"robot_speaking.tail": 0.3}, LevelDetector())
    chunks = arriving(front_end, pcm(tone(5)), {2.0: True, 3.0: False}, **how)
    first, second = ends(chunks)
    place = first.stream_start_sample + first.first_sample + len(first.samples)
    assert abs(place - 32000) <= 0.06 * 16000
    assert abs(second.stream_start_sample - 3.3 * 16000) <= 0.06 * 16000
    assert front_end.counters["muted_samples"] == pytest.approx(1.3 * 16000, abs=1024)


def test_the_robots_word_holds_where_the_stamps_jump_back() -> None:
    front_end = AudioFrontEnd({"robot_speaking.tail": 0.3}, LevelDetector())
    assert math.isnan(front_end.behind)
    sound = pcm(tone(3))
    assert ends(arriving(front_end, sound, {0.0: True}, stamps_ahead=5000.0)) == []
    assert front_end.behind == pytest.approx(-5000.0)
    # The recording begins again; the robot has not stopped, and then does.
    (only,) = ends(arriving(front_end, sound, {1.0: False}))
    assert abs(only.utterance_start_ns - (START + 1.3 * SECOND)) <= 0.06 * SECOND
    assert ends(arriving(front_end, sound, {}))[0].speech_end_ns == START + 3 * SECOND


def test_without_muting_utterances_over_the_robot_are_marked() -> None:
    front_end = AudioFrontEnd({"robot_speaking.mute": False}, LevelDetector())
    signal = np.concatenate([tone(1), np.zeros(32000, np.float32), tone(1)])
    chunks = arriving(front_end, pcm(signal), {0.5: True, 0.7: False})
    assert [c.robot_speaking for c in ends(chunks)] == [True, False]


def test_reset_forgets_the_open_utterance_and_keeps_counting_ids() -> None:
    front_end = AudioFrontEnd({}, LevelDetector())
    feed(front_end, pcm(tone(1)), 640)
    front_end.reset()
    chunks = feed(front_end, pcm(tone(1)), 640, START + 50 * SECOND) + front_end.flush()
    assert {c.utterance_id for c in chunks} == {2}
    assert chunks[0].utterance_start_ns == START + 50 * SECOND


def stamped(
    front_end: AudioFrontEnd,
    samples: np.ndarray,
    stamps: list[int],
    size: int = 320,
    received: bool = False,
) -> list[SpeechChunk]:
    """Push messages of `size` samples with these stamps (ns from START); None loses the message."""
    data, chunks = pcm(samples), []
    for i, stamp in enumerate(stamps):
        piece = data[2 * i * size : 2 * (i + 1) * size]
        if stamp is not None and piece:
            chunks += front_end.push(piece, START + stamp, received=received)
    return chunks + front_end.flush()


MS = 1_000_000
ROOM = np.random.default_rng(3).normal(0.0, 1e-3, 30 * 16000)
"""Half a minute in which nobody speaks."""


@pytest.mark.parametrize("burst", [3, 8, 20])
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("size", [20, 10])
def test_stamps_of_bursts_lose_nothing(
    recording: np.ndarray, burst: int, first: int, size: int
) -> None:
    """Published, and stamped then, several at a time; the stream begins with the `first` of a burst."""
    count = len(recording) // (16 * size)
    stamps = [
        ((i + first) // burst + 1) * burst * size * MS + i % burst * MS // 5 for i in range(count)
    ]
    front_end, reference = AudioFrontEnd({}), AudioFrontEnd({})
    found = stamped(front_end, recording, stamps, 16 * size)
    expected = stamped(reference, recording, [i * size * MS for i in range(count)], 16 * size)
    assert [(c.utterance_id, c.first_sample, c.samples.tobytes()) for c in found] == [
        (c.utterance_id, c.first_sample, c.samples.tobytes()) for c in expected
    ]
    for name in ("gaps", "restarts", "dropped_samples"):
        assert front_end.counters[name] == 0, name
    assert front_end.faults == {}
    # The last stamp of a burst is the nearest to its samples: a message's length late, and up to 0.1 s is let be.
    late = ends(found)[-1].speech_end_ns - ends(expected)[-1].speech_end_ns - first * size * MS
    assert 0 <= late <= (110 + size) * MS


@pytest.mark.parametrize("size", [20, 64, 96])
@pytest.mark.parametrize("jitter", [0, 1])
def test_every_tenth_message_lost_is_loss_and_no_drift(size: int, jitter: int) -> None:
    rng, count = np.random.default_rng(0), 30_000 // size
    stamps = [
        None if i % 10 == 9 else i * size * MS + int(rng.integers(-jitter, jitter + 1)) * MS
        for i in range(count)
    ]
    front_end = AudioFrontEnd({}, LevelDetector())
    stamped(front_end, ROOM, stamps, 16 * size)
    lost = (sum(stamp is None for stamp in stamps[:-1])) * 16 * size
    assert front_end.counters["dropped_samples"] == pytest.approx(lost, rel=0.12)
    assert front_end.counters["clock_corrections"] == front_end.counters["restarts"] == 0
    assert front_end.faults == {}


def test_loss_under_jittering_stamps_is_counted_when_it_adds_up() -> None:
    """The stamps jitter by more than a message: no single loss can be told."""
    rng = np.random.default_rng(0)
    stamps = [
        None if i % 10 == 9 else i * 20 * MS + int(rng.integers(0, 40)) * MS for i in range(1500)
    ]
    front_end = AudioFrontEnd({}, LevelDetector())
    stamped(front_end, ROOM, stamps)
    assert front_end.counters["dropped_samples"] == pytest.approx(3 * 16000, rel=0.15)
    assert front_end.counters["clock_corrections"] == 0
    assert front_end.faults == {}


@pytest.mark.parametrize(
    ("declared", "actual"), [(16000, 44100), (44100, 16000), (48000, 44100), (44100, 48000),
                             (16000, 8000), (8000, 16000), (16000, 32000), (16000, 48000)]
)  # fmt: skip
@pytest.mark.parametrize("size", [10, 20, 100])
def test_stamps_that_contradict_the_rate_are_said_and_marked(
    declared: int, actual: int, size: int
) -> None:
    front_end = AudioFrontEnd({"audio.sample_rate": declared}, LevelDetector())
    samples = np.tile(np.concatenate([np.zeros(8000), tone(1.0)]), 2)
    samples = np.interp(np.arange(3 * actual) / actual, np.arange(len(samples)) / 16000, samples)
    count = 3000 // size
    chunks = stamped(
        front_end, samples, [i * size * MS for i in range(count)], actual * size // 1000
    )
    assert Fault.FORMAT in front_end.faults
    assert f"comes at {actual} samples" in front_end.faults[Fault.FORMAT]
    last = ends(chunks)[-1]
    assert last.quality.fault is Fault.FORMAT
    assert front_end.counters["dropped_samples"] < declared // 10


@pytest.mark.parametrize("apart", [0, 7, 1_000_000])
def test_two_drivers_by_turns_contradict_the_format(apart: int) -> None:
    """Both publish 20 ms each; `apart`: how far apart they stamp, ms."""
    front_end = AudioFrontEnd({}, LevelDetector())
    stamps = [i // 2 * 20 * MS + i % 2 * apart * MS for i in range(400)]
    stamped(front_end, np.tile(tone(1.0), 8), stamps)
    assert Fault.FORMAT in front_end.faults


def test_two_drivers_without_stamps_contradict_the_format() -> None:
    front_end = AudioFrontEnd({}, LevelDetector())
    stamped(front_end, np.tile(tone(1.0), 8), [i // 2 * 20 * MS for i in range(400)], received=True)
    assert Fault.FORMAT in front_end.faults


def test_a_contradiction_that_ends_is_over() -> None:
    front_end = AudioFrontEnd({"audio.sample_rate": 16000}, LevelDetector())
    front_end.set_format(PcmFormat(8000))
    stamped(front_end, tone(3.0), [i * 20 * MS for i in range(150)])
    assert front_end.input.fault is Fault.FORMAT
    front_end.set_format(PcmFormat(16000))
    stamped(front_end, tone(3.0), [(200 + i) * 20 * MS for i in range(150)])
    assert front_end.input.fault is Fault.NONE


def test_a_channel_that_is_not_there_is_refused_when_the_format_is_known() -> None:
    front_end = AudioFrontEnd({"audio.channel": 1})
    front_end.set_format(PcmFormat(16000, 2))
    front_end.push(bytes(1280), 0)
    front_end.set_format(PcmFormat(16000))
    with pytest.raises(HriEmoError, match=r"audio\.channel is 1, must be -1 to 0"):
        front_end.push(bytes(640), None)
    front_end.set_format(PcmFormat(16000, 2))
    front_end.push(bytes(1280), None)
    with pytest.raises(HriEmoError, match=r"audio\.channel is 2, must be -1 to 1"):
        front_end.configure({"audio.channel": 2})
    front_end.push(bytes(1280), None)


def test_thresholds_can_change_while_running(recording: np.ndarray) -> None:
    front_end = AudioFrontEnd({})
    front_end.configure({"segment.min_speech": 5.0})
    assert feed(front_end, pcm(recording), 640) + front_end.flush() == []
    with pytest.raises(HriEmoError, match=r"vad\.threshold"):
        front_end.configure({"vad.threshold": 2.0})


def test_an_utterance_is_heard_on_one_channel_to_its_end() -> None:
    front_end = AudioFrontEnd({"audio.channels": 2, "audio.channel": 0}, LevelDetector())
    sound = np.concatenate([tone(2), np.zeros(32000, np.float32), tone(2)])
    data = pcm(np.stack([sound, 0.5 * sound], axis=1))
    half = 4 * 16000
    chunks = feed(front_end, data[:half], 1280, frame=4)
    assert front_end.speaking
    front_end.configure({"audio.channels": 2, "audio.channel": 1})
    chunks += feed(front_end, data[half:], 1280, START + SECOND, frame=4) + front_end.flush()
    first, second = (
        np.concatenate([c.samples for c in chunks if c.utterance_id == k]) for k in (1, 2)
    )
    assert np.abs(second).max() == pytest.approx(0.5 * np.abs(first[-8000:]).max(), rel=0.05)
    assert np.abs(first[-16000:]).max() == pytest.approx(np.abs(first[:16000]).max(), rel=0.05)


def test_arbitrary_bytes_never_break_the_front_end() -> None:
    rng = np.random.default_rng(5)
    front_end = AudioFrontEnd({"audio.sample_format": "F32LE", "audio.channels": 3})
    for i in range(200):
        stamp = int(rng.integers(0, 2**62)) if i % 7 == 0 else START + i * SECOND // 50
        for chunk in front_end.push(rng.bytes(int(rng.integers(0, 3000))), stamp):
            assert np.isfinite(chunk.samples).all()
    front_end.flush()


def test_whatever_comes_is_sound_or_one_sentence() -> None:
    """Random formats, stamps, parameters, bytes, headers and events."""
    rng = np.random.default_rng(0)
    formats = [*SAMPLE_FORMATS, "S16_LE", "A_LAW", "mp3", ""]
    counts = {"sound": 0, "sentence": 0}
    for _ in range(60):
        front_end = AudioFrontEnd({"audio.channel": int(rng.integers(-1, 3))}, LevelDetector())
        now = START
        for _ in range(50):
            data = rng.bytes(int(rng.choice([0, 1, 640, 640, 12_800])))
            if rng.integers(30) == 0:
                data = b"RIFF" + rng.bytes(4) + b"WAVE" + data
            now += int(rng.choice([20, 20, 20, 0, 300, -500, 10**7])) * 1_000_000
            try:
                event = int(rng.integers(12))
                if event == 0:
                    rate, channels = int(rng.integers(1, 200_000)), int(rng.integers(0, 9))
                    front_end.set_format(PcmFormat(rate, channels, str(rng.choice(formats))))
                elif event == 1:
                    front_end.configure({"audio.channel": int(rng.integers(-1, 3))})
                elif event == 2:
                    front_end.robot_speaking(bool(rng.integers(2)), now)
                for chunk in front_end.push(data, now, received=bool(rng.integers(2))):
                    assert np.abs(chunk.samples).max(initial=0.0) <= 1.0  # NaN is not.
                    assert 0.0 <= chunk.quality.clipped_fraction <= 1.0
                counts["sound"] += 1
            except HriEmoError as refused:
                counts["sentence"] += len(str(refused).splitlines()) == 1
    assert sum(counts.values()) == 3000
    assert min(counts.values()) > 300


def test_a_file_is_read_as_16_khz_mono(tmp_path: Path) -> None:
    import soundfile

    stereo = np.stack([tone(1)[::2], -tone(1)[::2]], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 8000)
    assert len(read_audio(tmp_path / "a.wav")) == 16000
    assert np.abs(read_audio(tmp_path / "a.wav")).max() < 1e-3
    samples, rate = read_samples(tmp_path / "a.wav")
    assert samples.shape == (8000, 2)
    assert rate == 8000


@pytest.mark.parametrize(
    ("content", "message"), [(None, "there is no"), (b"hello", "cannot read"), (b"", "cannot read")]
)
def test_a_file_that_is_no_audio_is_named(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "clip.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(HriEmoError, match=rf"{message}.*clip\.wav"):
        read_audio(path)


def test_quality_of_a_chunk_is_known_while_speech_goes_on(recording: np.ndarray) -> None:
    front_end = AudioFrontEnd({})
    chunks = feed(front_end, pcm(recording), 640)
    assert all(math.isfinite(c.quality.level_dbfs) for c in chunks)
    assert all(c.quality.speech_fraction > 0.3 for c in chunks)


def test_how_far_stamps_are_behind_may_be_asked_while_messages_arrive() -> None:
    arrivals, ended = Arrivals(), threading.Event()

    def note() -> None:
        at = 0
        while not ended.is_set():
            at += 10_000_000
            arrivals.note(at, at // 62_500, at - 5_000_000)

    thread = threading.Thread(target=note)
    thread.start()
    try:
        while arrivals.behind != 0.005:
            pass
        assert {arrivals.behind for _ in range(20_000)} == {0.005}
    finally:
        ended.set()
        thread.join()
