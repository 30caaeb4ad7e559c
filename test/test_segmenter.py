# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The state machine that cuts utterances.

Most tests drive it with a detector for which a sample's value is the probability of speech: the
stream is then written as (probability, frames), and every boundary can be computed by hand.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from hri_emo_ros import parameters
from hri_emo_ros.audio.segmenter import SegmentChunk, Segmenter, SegmenterConfig
from hri_emo_ros.errors import HriEmoError

FRAME = 512


class ValueDetector:
    """Probability of speech = mean of the frame."""

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        return frames.mean(axis=1)

    def reset(self) -> None:
        pass


def config(**values: Any) -> SegmenterConfig:
    names = {name.replace("__", "."): value for name, value in values.items()}
    return SegmenterConfig.from_parameters(parameters.check("speech_node", names))


def stream(*runs: tuple[float, int]) -> np.ndarray:
    """Frames of a probability each; every sample differs a little, so that places can be told."""
    levels = np.concatenate([np.full(count * FRAME, level) for level, count in runs])
    return (levels + np.arange(len(levels)) * 1e-8).astype(np.float32)


def segment(
    samples: np.ndarray, sizes: tuple[int, ...] = (320,), batch: int = 1, **values: Any
) -> list[SegmentChunk]:
    segmenter = Segmenter(config(**values), ValueDetector(), batch=batch)
    chunks, at, i = [], 0, 0
    while at < len(samples):
        chunks += segmenter.push(samples[at : at + sizes[i % len(sizes)]])
        at += sizes[i % len(sizes)]
        i += 1
    return chunks + segmenter.flush()


def utterances(chunks: list[SegmentChunk]) -> list[list[SegmentChunk]]:
    grouped: dict[int, list[SegmentChunk]] = {}
    for chunk in chunks:
        grouped.setdefault(chunk.utterance_id, []).append(chunk)
    return list(grouped.values())


def check_well_formed(chunks: list[SegmentChunk], samples: np.ndarray) -> list[tuple[int, int]]:
    """Chunks come in order, without holes; returns each utterance's [start, end)."""
    spans = []
    for number, utterance in enumerate(utterances(chunks), start=1):
        assert {c.utterance_id for c in utterance} == {number}
        assert [c.sequence for c in utterance] == list(range(len(utterance)))
        assert [c.last for c in utterance] == [False] * (len(utterance) - 1) + [True]
        joined = np.concatenate([c.samples for c in utterance])
        start = utterance[0].utterance_start
        at = start
        for chunk in utterance:
            assert chunk.start == at
            assert chunk.utterance_start == start
            at += len(chunk.samples)
        np.testing.assert_array_equal(joined, samples[start : start + len(joined)])
        spans.append((start, start + len(joined)))
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    return spans


def facts(chunks: list[SegmentChunk]) -> list[tuple[Any, ...]]:
    return [
        (c.utterance_id, c.sequence, c.start, c.samples.tobytes(), str(c.quality), c.last,
         c.truncated, c.endpoint, c.speech_end, c.beginning_lost)
        for c in chunks
    ]  # fmt: skip


def test_boundaries_are_pre_roll_before_and_hang_over_after_the_speech() -> None:
    samples = stream((0.1, 40), (0.9, 30), (0.1, 40))
    [(start, end)] = check_well_formed(segment(samples), samples)
    assert start == 40 * FRAME - 4800
    assert end == 70 * FRAME + 2560


def test_speech_shorter_than_min_speech_is_no_utterance() -> None:
    assert segment(stream((0.1, 40), (0.9, 7), (0.1, 40)), segment__min_speech=0.25) == []
    assert segment(stream((0.1, 40), (0.9, 8), (0.1, 40)), segment__min_speech=0.25) != []


def test_min_speech_adds_up_over_short_pauses_and_starts_at_the_first() -> None:
    samples = stream((0.1, 40), (0.9, 4), (0.1, 10), (0.9, 4), (0.1, 40))
    [(start, _)] = check_well_formed(segment(samples, segment__min_speech=0.25), samples)
    assert start == 40 * FRAME - 4800


def test_bursts_further_apart_than_a_pause_do_not_add_up() -> None:
    bursts = [(0.9, 4), (0.1, 19)] * 5
    assert segment(stream((0.1, 20), *bursts), segment__min_speech=0.25) == []


def test_a_pause_shorter_than_the_limit_stays_within_the_utterance() -> None:
    samples = stream((0.1, 20), (0.9, 20), (0.1, 18), (0.9, 20), (0.1, 40))
    assert len(check_well_formed(segment(samples, segment__pause=0.6), samples)) == 1
    samples = stream((0.1, 20), (0.9, 20), (0.1, 19), (0.9, 20), (0.1, 40))
    assert len(check_well_formed(segment(samples, segment__pause=0.6), samples)) == 2


def test_hysteresis_holds_speech_between_the_thresholds() -> None:
    weak_start = stream((0.1, 20), (0.4, 30), (0.1, 40))
    assert segment(weak_start, vad__threshold=0.5, vad__release_threshold=0.35) == []
    weak_end = stream((0.1, 20), (0.9, 10), (0.4, 30), (0.1, 40))
    [(_, end)] = check_well_formed(segment(weak_end), weak_end)
    assert end == 60 * FRAME + 2560


def test_a_release_threshold_above_the_threshold_acts_as_the_threshold() -> None:
    assert config(vad__threshold=0.3, vad__release_threshold=0.9).release_threshold == 0.3


def test_at_an_endpoint_the_utterance_is_given_out_as_it_will_be_if_it_ends_there() -> None:
    samples = stream((0.1, 20), (0.9, 30), (0.1, 40))
    chunks = segment(samples)
    endpoint, last = chunks[-2:]
    assert [c.endpoint for c in chunks] == [False] * (len(chunks) - 2) + [True, False]
    assert endpoint.speech_end == last.speech_end == 50 * FRAME
    assert len(last.samples) == 0
    assert last.quality == endpoint.quality


def test_an_endpoint_comes_before_the_pause_is_over() -> None:
    segmenter = Segmenter(config(segment__endpoint=0.16, segment__pause=0.6), ValueDetector())
    segmenter.push(stream((0.1, 20), (0.9, 30)))
    chunks = [segmenter.push(stream((0.1, 1))) for _ in range(30)]
    assert [k for k, made in enumerate(chunks) if any(c.endpoint for c in made)] == [4]  # 0.16 s
    assert [k for k, made in enumerate(chunks) if any(c.last for c in made)] == [18]  # 0.6 s


def test_speech_that_goes_on_after_an_endpoint_stays_one_utterance() -> None:
    samples = stream((0.1, 20), (0.9, 20), (0.1, 8), (0.9, 20), (0.1, 12), (0.9, 5), (0.1, 40))
    chunks = segment(samples)
    assert len(check_well_formed(chunks, samples)) == 1
    assert [c.speech_end // FRAME for c in chunks if c.endpoint] == [40, 68, 85]


def test_without_an_earlier_endpoint_the_pause_alone_ends_an_utterance() -> None:
    samples = stream((0.1, 20), (0.9, 30), (0.1, 40))
    chunks = segment(samples, segment__endpoint=0.6, segment__pause=0.6)
    assert not any(c.endpoint for c in chunks)
    assert chunks[-1].last


def test_speech_that_is_there_already_when_listening_begins_has_lost_its_beginning() -> None:
    lost = segment(stream((0.9, 30), (0.1, 40), (0.9, 30), (0.1, 40)))
    assert {c.utterance_id: c.beginning_lost for c in lost} == {1: True, 2: False}
    robot = stream((0.1, 20), (0.9, 60), (0.1, 40))
    segmenter = Segmenter(
        config(), ValueDetector(), robot_speaks=lambda begin, end: begin < 40 * FRAME
    )
    assert all(c.beginning_lost for c in segmenter.push(robot))


@pytest.mark.parametrize(("endpoint", "pause"), [(0.512, 2.0), (2.0, 0.512)])
def test_hang_over_is_at_most_what_ends_the_speech(endpoint: float, pause: float) -> None:
    samples = stream((0.1, 40), (0.9, 30), (0.1, 100))
    values = {"segment__hang_over": 5.0, "segment__endpoint": endpoint, "segment__pause": pause}
    [(_, end)] = check_well_formed(segment(samples, **values), samples)
    assert end == 70 * FRAME + 16 * FRAME


def test_pre_roll_never_repeats_samples_of_the_utterance_before() -> None:
    samples = stream((0.9, 20), (0.1, 19), (0.9, 20), (0.1, 40))
    spans = check_well_formed(segment(samples, segment__pre_roll=2.0), samples)
    assert spans[0][0] == 0
    assert spans[1][0] == spans[0][1]


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize(
    "sizes", [(1,), (160,), (512,), (1600,), (7, 1000, 1), (100_000,)], ids=str
)
def test_any_cutting_of_the_input_gives_the_same_chunks(sizes: tuple[int, ...], batch: int) -> None:
    rng = np.random.default_rng(3)
    runs = [
        (float(p), int(n)) for p, n in zip(rng.random(60), rng.integers(1, 30, 60), strict=True)
    ]
    samples = stream(*runs)[:-100]
    if sizes == (1,):
        samples = samples[:60_000]
    values = {"segment__max_length": 3.0}
    reference = segment(samples, (320,), **values)
    assert len(reference) > 5
    assert facts(segment(samples, sizes, batch, **values)) == facts(reference)


def test_chunks_are_released_while_the_person_speaks() -> None:
    segmenter = Segmenter(config(segment__chunk=0.25), ValueDetector())
    chunks = segmenter.push(stream((0.1, 20), (0.9, 60)))
    assert len(chunks) >= 7
    assert not any(c.last for c in chunks)
    assert {len(c.samples) for c in chunks} == {4000}


def test_what_may_be_the_pause_is_held_back_until_it_is_known() -> None:
    segmenter = Segmenter(config(), ValueDetector())
    chunks = segmenter.push(stream((0.1, 20), (0.9, 30), (0.1, 18)))
    given_out = chunks[-1].start + len(chunks[-1].samples)
    assert given_out <= 50 * FRAME + 3200
    resumed = segmenter.push(stream((0.9, 20)))
    assert resumed[0].start == given_out
    assert sum(len(c.samples) for c in resumed) >= 20 * FRAME


def test_speech_end_is_the_last_speech_frame() -> None:
    last = segment(stream((0.1, 20), (0.9, 30), (0.1, 10), (0.9, 5), (0.1, 40)))[-1]
    assert last.last
    assert last.speech_end == 65 * FRAME


def test_long_speech_is_cut_at_its_quietest_place_and_loses_no_sample() -> None:
    samples = stream((0.1, 20), (0.9, 300), (0.1, 40))
    dip = 20 * FRAME - 4800 + 5 * 16000 - 10 * FRAME
    dip -= dip % FRAME
    samples[dip : dip + FRAME] = 0.6
    chunks = segment(samples, segment__max_length=5.0)
    spans = check_well_formed(chunks, samples)
    assert spans[0][1] == dip + FRAME
    assert all(end - start <= 5 * 16000 for start, end in spans)
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert [u[-1].truncated for u in utterances(chunks)] == [True] * (len(spans) - 1) + [False]
    assert spans[-1][1] == 320 * FRAME + 2560


def test_a_pause_at_the_maximum_length_ends_the_utterance_as_a_pause() -> None:
    frames = (5 * 16000 - 4800 - 3200) // FRAME
    samples = stream((0.1, 20), (0.9, frames), (0.1, 40))
    chunks = segment(samples, segment__max_length=5.0)
    assert len(check_well_formed(chunks, samples)) == 1
    assert not chunks[-1].truncated


def test_the_end_of_the_stream_closes_the_open_utterance() -> None:
    samples = stream((0.1, 20), (0.9, 30))[:-100]
    [(_, end)] = check_well_formed(segment(samples), samples)
    assert end == len(samples)


def test_after_a_flush_ids_and_positions_go_on() -> None:
    segmenter = Segmenter(config(), ValueDetector())
    part = stream((0.1, 20), (0.9, 30))
    first = segmenter.push(part) + segmenter.flush()
    second = segmenter.push(part) + segmenter.flush()
    assert {c.utterance_id for c in first} == {1}
    assert {c.utterance_id for c in second} == {2}
    assert second[0].utterance_start == len(part) + 20 * FRAME - 4800


def test_reset_drops_the_open_utterance() -> None:
    segmenter = Segmenter(config(), ValueDetector())
    segmenter.push(stream((0.1, 20), (0.9, 30)))
    segmenter.reset()
    assert segmenter.push(stream((0.1, 100))) + segmenter.flush() == []


def test_what_is_heard_while_the_robot_speaks_is_discarded() -> None:
    samples = stream((0.1, 20), (0.9, 100), (0.1, 40))
    robot = (50 * FRAME, 90 * FRAME)
    segmenter = Segmenter(
        config(), ValueDetector(), robot_speaks=lambda a, b: a < robot[1] and b > robot[0]
    )
    spans = check_well_formed(segmenter.push(samples) + segmenter.flush(), samples)
    assert spans[0] == (20 * FRAME - 4800, 50 * FRAME)
    assert spans[1][0] == 90 * FRAME
    assert segmenter.counters["muted_samples"] == 40 * FRAME


def test_without_muting_the_utterance_is_marked() -> None:
    segmenter = Segmenter(
        config(robot_speaking__mute=False),
        ValueDetector(),
        robot_speaks=lambda a, b: 30 * FRAME <= a < 40 * FRAME,
    )
    samples = stream((0.1, 20), (0.9, 30), (0.1, 40), (0.9, 30), (0.1, 40))
    chunks = segmenter.push(samples)
    first, second = utterances(chunks)
    assert first[-1].robot_speaking
    assert not any(c.robot_speaking for c in second)


def test_quality_of_an_utterance_covers_its_frames() -> None:
    samples = stream((0.1, 40), (0.9, 30), (0.1, 40))
    quality = segment(samples)[-1].quality
    # 4800 samples of pre-roll touch 10 frames, 2560 of hang-over 5.
    assert quality.speech_fraction == pytest.approx(30 / 45)
    assert quality.level_dbfs == pytest.approx(20 * np.log10(0.9), abs=0.1)
    assert quality.snr_db == pytest.approx(20 * np.log10(9), abs=0.3)


def test_a_maximum_shorter_than_what_opens_an_utterance_is_refused() -> None:
    with pytest.raises(HriEmoError, match=r"segment\.max_length is 1 s.*segment\.pre_roll"):
        config(segment__max_length=1.0, segment__pre_roll=0.9)


def test_an_open_utterance_ends_by_the_lengths_that_it_began_with() -> None:
    one, two = (0.1, 20), (0.9, 100)
    samples = stream(one, two, (0.1, 5), two, (0.1, 40), two, (0.1, 10), two, (0.1, 40))
    expected = Segmenter(config(), ValueDetector()).push(samples)
    segmenter = Segmenter(config(), ValueDetector())
    chunks = segmenter.push(samples[: 60 * FRAME])
    assert segmenter.speaking
    # By these the utterance would be cut three times over.
    segmenter.configure(config(segment__max_length=2.0, segment__pause=0.1, vad__threshold=0.99))
    segmenter.configure(config(segment__max_length=2.0, segment__pause=0.1))
    chunks += segmenter.push(samples[60 * FRAME :])
    begun = [c for c in expected if c.utterance_id == 1]
    assert [(c.start, len(c.samples)) for c in chunks if c.utterance_id == 1] == [
        (c.start, len(c.samples)) for c in begun
    ]
    later = [c for c in chunks if c.last and c.utterance_id > 1]
    assert len(later) > 1 == len({c.utterance_id for c in expected if c.utterance_id > 1})
    check_well_formed(chunks, samples)
