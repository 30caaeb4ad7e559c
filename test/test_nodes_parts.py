# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The ROS layer's parts one by one: conversions, audio messages, the worker's queue."""

from __future__ import annotations

import array
import math
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo

from hri_emo_msgs.msg import EmotionState
from hri_emo_msgs.msg import Transcript as TranscriptMsg
from hri_emo_ros.audio.messages import info_format, read_message
from hri_emo_ros.audio.pcm import PcmFormat
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.nodes import audio_messages, conversions
from hri_emo_ros.pipeline import Outcome
from hri_emo_ros.types import (
    AbstainReason,
    EmotionEstimate,
    Explanation,
    SignalQuality,
    SpeechChunk,
    Transcript,
    TranscriptStatus,
    Word,
)
from hri_emo_ros.worker import Worker

QUALITY = SignalQuality(snr_db=12.5, level_dbfs=-30.0, clipped_fraction=0.25, speech_fraction=0.5)


def chunk(**changes: object) -> SpeechChunk:
    values: dict[str, object] = {
        "utterance_id": 7,
        "sequence": 3,
        "stamp_ns": 1_700_000_000_123_456_789,
        "utterance_start_ns": 1_700_000_000_000_000_001,
        "first_sample": 4096,
        "samples": np.linspace(-1, 1, 512, dtype=np.float32),
        "quality": QUALITY,
        "last": True,
        "truncated": True,
        "speech_end_ns": 1_700_000_000_100_000_000,
        "stream_start_sample": 99_000,
        "robot_speaking": True,
        "dropped_samples": 12,
        **changes,
    }
    return SpeechChunk(**values)  # type: ignore[arg-type]


def estimate(reason: AbstainReason = AbstainReason.NONE, **changes: object) -> EmotionEstimate:
    values: dict[str, object] = {
        "labels": ("happy", "sad"),
        "probabilities": np.array([0.25, 0.75], np.float32),
        "above_threshold": np.array([False, True]),
        "uncertainty": 0.8,
        "audio_weight": 0.6,
        "text_weight": 0.4,
        "audio_weight_per_emotion": np.array([0.5, 0.7], np.float32),
        "text_weight_per_emotion": np.array([0.5, 0.3], np.float32),
        "duration": 2.0,
        "model_id": "m@1",
        "abstain_reason": reason,
        "quality": QUALITY,
        "transcript": Transcript("oh no", (), 0.5, "en", 0.1),
        **changes,
    }
    return EmotionEstimate(**values)  # type: ignore[arg-type]


def outcome(found: EmotionEstimate) -> Outcome:
    latency = {
        "queue": 0.1, "asr": 0.2, "wait": 0.3, "audio_encoder": 0.4, "text_encoder": 0.5,
        "fusion": 0.6, "total": 2.1,
    }  # fmt: skip
    return Outcome(7, "final", 5_000_000_001, found, latency, 6_000_000_000)


def test_a_chunk_comes_out_of_its_message_as_it_went_in() -> None:
    before = chunk()
    message = conversions.chunk_message(before, "stream", "ear")
    after = conversions.chunk_of(message)
    assert np.array_equal(after.samples, before.samples)
    assert {**vars(after), "samples": 0} == {**vars(before), "samples": 0}
    assert message.header.frame_id == "ear"
    assert isinstance(message.samples, array.array)


def test_a_transcript_comes_out_of_its_message_as_it_went_in() -> None:
    words = (Word("oh", 0.5, 0.75, 0.5), Word("no", 1.0, 1.5, 1.0))
    before = Transcript("oh no", words, 0.75, "en", 0.25)
    message = conversions.transcript_message(
        before, chunk(), "s", "ear", recogniser="r", duration=2.0, queueing=0.5
    )
    assert conversions.transcript_of(message) == before
    assert message.status == TranscriptMsg.STATUS_OK
    assert message.utterance_id == 7


def test_empty_and_failed_transcripts_say_so() -> None:
    said = {"recogniser": "r", "duration": 2.0, "queueing": 0.0}
    empty = conversions.transcript_message(Transcript(""), chunk(), "s", "f", **said)  # type: ignore[arg-type]
    assert empty.status == TranscriptMsg.STATUS_EMPTY
    why = Transcript("", status=TranscriptStatus.FAILED, status_text="why")
    failed = conversions.transcript_message(why, chunk(), "s", "f", **said)  # type: ignore[arg-type]
    assert (failed.status, failed.status_text) == (TranscriptMsg.STATUS_FAILED, "why")


def test_refused_words_are_shown_apart_from_those_that_were_used() -> None:
    refused = Transcript(
        "you", confidence=0.3, status=TranscriptStatus.REJECTED, status_text="unsure"
    )
    said = {"recogniser": "r", "duration": 2.0, "queueing": 0.0}
    message = conversions.transcript_message(refused, chunk(), "s", "f", **said)  # type: ignore[arg-type]
    assert (message.status, message.text) == (TranscriptMsg.STATUS_REJECTED, "you")
    assert conversions.transcript_of(message) == replace(
        refused, confidence=pytest.approx(0.3), latency=0.0
    )
    state = conversions.state_message(outcome(estimate(transcript=refused)), "s", "ear")
    assert state.transcript_status == EmotionState.TRANSCRIPT_REJECTED
    assert (state.transcript, state.rejected_transcript) == ("", "you")


def test_a_transcript_whose_status_is_not_known_is_not_used() -> None:
    assert not conversions.transcript_of(TranscriptMsg(text="hi", status=200)).usable


def test_confidence_that_a_recogniser_does_not_give_counts_as_full() -> None:
    message = TranscriptMsg(text=" hi ", confidence=math.nan)
    assert conversions.transcript_of(message).confidence == 1.0
    assert conversions.transcript_of(message).text == "hi"


def test_every_stage_of_the_latency_has_its_field() -> None:
    message = conversions.state_message(outcome(estimate()), "s", "ear")
    latency = message.latency
    found = [latency.queueing, latency.asr, latency.waiting_for_words, latency.audio_encoder]
    found += [latency.text_encoder, latency.fusion, latency.total]
    assert np.allclose(found, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 2.1])


def test_a_state_holds_the_estimate() -> None:
    message = conversions.state_message(outcome(estimate()), "s", "ear")
    assert message.dominant == "sad"
    assert [score.label for score in message.scores] == ["happy", "sad"]
    assert [score.probability for score in message.scores] == [0.25, 0.75]
    assert [score.above_threshold for score in message.scores] == [False, True]
    assert message.scores[1].audio_weight == pytest.approx(0.7)
    assert message.quality.snr_db == 12.5
    assert message.transcript_status == EmotionState.TRANSCRIPT_OK
    assert message.stage == EmotionState.STAGE_FINAL
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (5, 1)
    assert message.transcript == "oh no"
    assert not message.abstained
    assert message.abstain_text == ""


def test_an_abstained_state_claims_nothing() -> None:
    found = estimate(AbstainReason.CLIPPED)
    message = conversions.state_message(outcome(found), "s", "ear")
    assert message.dominant == ""
    assert not any(score.above_threshold for score in message.scores)
    assert "25%" in message.abstain_text
    assert message.abstain_reason == EmotionState.ABSTAIN_CLIPPED
    nothing = estimate(AbstainReason.NO_SPEECH, uncertainty=1.0)
    message = conversions.state_message(outcome(nothing), "s", "ear")
    assert len(message.scores) == 0
    assert message.audio_weight == message.text_weight == 0.5


def test_reasons_to_abstain_have_the_same_numbers_in_message_and_type() -> None:
    for reason in AbstainReason:
        assert getattr(EmotionState, f"ABSTAIN_{reason.name}") == int(reason)
        text = estimate(reason).abstain_text
        assert bool(text) == (reason is not AbstainReason.NONE)


def test_an_explanation_is_row_major() -> None:
    explanation = Explanation(
        words=(Word("oh", 0.0, 0.5, 1.0),),
        word_attribution=np.array([[1.0], [-1.0]], np.float32),
        moment_attribution=np.arange(6, dtype=np.float32).reshape(2, 3),
        moment_period=0.02,
        alignment=np.array([[0.2, 0.3, 0.5]], np.float32),
    )
    message = conversions.explanation_message(outcome(estimate()), explanation, "s", "ear")
    assert message.moment_count == 3
    assert message.moment_attribution[1 * 3 + 2] == 5.0
    assert np.allclose(message.alignment, [0.2, 0.3, 0.5])


def test_audio_of_both_ros_drivers_types_is_read() -> None:
    part = AudioData(data=array.array("B", b"\x01\x02"))
    assert read_message(part).data == b"\x01\x02"
    assert read_message(part).stamp_ns is None
    stamped = AudioDataStamped(audio=part)
    stamped.header.frame_id = "ear"
    assert read_message(stamped).stamp_ns is None  # A stamp of 0 is none.
    stamped.header.stamp.sec = 3
    received = read_message(stamped)
    assert (received.stamp_ns, received.frame_id) == (3_000_000_000, "ear")


def audio_stamped(code: int, chunk: int = 1, **fields: array.array[Any]) -> SimpleNamespace:
    """mgonzs13's message: that package has the same name and cannot be installed beside this one."""
    names = ("float32_data", "int32_data", "int24_data", "int16_data", "int8_data", "uint8_data")
    return SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=1, nanosec=2), frame_id="ear"),
        audio=SimpleNamespace(
            audio_data=SimpleNamespace(**(dict.fromkeys(names, ()) | fields)),
            info=SimpleNamespace(rate=44100, channels=2, format=code, chunk=chunk),
        ),
    )


def test_audio_stamped_of_the_other_family_brings_its_format() -> None:
    received = read_message(audio_stamped(8, int16_data=array.array("h", [1, -1])))
    assert received.format == PcmFormat(44100, 2, "S16LE")
    assert received.data == b"\x01\x00\xff\xff"
    assert (received.stamp_ns, received.frame_id) == (1_000_000_002, "ear")


def test_24_bits_of_the_other_family_are_one_word_each_or_packed_into_words() -> None:
    words = array.array("i", [1, -1, 2, -2])
    received = read_message(audio_stamped(4, chunk=2, int24_data=words))
    assert received.format == PcmFormat(44100, 2, "S24_32LE")
    packed = array.array("i", range(3))
    assert read_message(audio_stamped(4, chunk=2, int24_data=packed)).format == PcmFormat(
        44100, 2, "S24LE"
    )


def test_audio_stamped_with_another_field_than_its_format_names_is_refused() -> None:
    for code in (1, 99):
        with pytest.raises(HriEmoError, match=rf"format {code} and its samples in int16_data"):
            read_message(audio_stamped(code, int16_data=array.array("h", [1])))
    with pytest.raises(HriEmoError, match="publish or record AudioStamped"):
        read_message(SimpleNamespace(int16_data=()))


def test_types_that_are_not_installed_are_named() -> None:
    assert "audio_common_msgs/msg/AudioDataStamped" in audio_messages.audio_types("auto")
    if "audio_common_msgs/msg/AudioStamped" not in audio_messages.audio_types("auto"):
        with pytest.raises(HriEmoError, match=r"audio\.message_type is 'AudioStamped'"):
            audio_messages.audio_types("AudioStamped")


def test_audio_info_is_checked() -> None:
    info = AudioInfo(channels=2, sample_rate=44100, sample_format="S16LE", coding_format="wave")
    assert info_format(info) == PcmFormat(44100, 2, "S16LE")
    info.coding_format = "mp3"
    with pytest.raises(HriEmoError, match="mp3"):
        info_format(info)
    info.coding_format, info.sample_rate = "wave", 0
    with pytest.raises(HriEmoError, match="sample rate 0"):
        info_format(info)


def test_a_worker_keeps_order_and_survives_failures() -> None:
    done: list[int] = []
    failures: list[str] = []

    def handle(item: int) -> None:
        if item == 2:
            raise ValueError("two")
        done.append(item)

    worker: Worker[int] = Worker("w", handle, lambda e: failures.append(str(e)), capacity=100)
    for item in range(5):
        worker.put(item)
    assert worker.drain(5.0)
    assert (done, failures) == ([0, 1, 3, 4], ["two"])
    assert worker.stop()
    worker.put(9)
    assert done[-1] == 4


def test_a_full_worker_drops_the_oldest_but_never_a_command() -> None:
    gate, entered = threading.Event(), threading.Event()
    done: list[str] = []
    dropped: list[str] = []

    def handle(item: str) -> None:
        entered.set()
        gate.wait(5.0)
        done.append(item)

    worker: Worker[str] = Worker(
        "w", handle, lambda error: None, capacity=2.0,
        cost=lambda item: 0.0 if item.isupper() else 1.0, dropped=dropped.append,
    )  # fmt: skip
    worker.put("first")
    assert entered.wait(5.0)  # It is in hand now and waits no more.
    for item in ("a", "COMMAND", "b", "c"):
        worker.put(item)
    assert dropped == ["a"]
    gate.set()
    assert worker.drain(5.0)
    assert done == ["first", "COMMAND", "b", "c"]
    worker.stop()


def test_an_idle_worker_is_called_now_and_then() -> None:
    calls = threading.Semaphore(0)
    worker: Worker[int] = Worker(
        "w", lambda item: None, lambda error: None, capacity=1, idle=calls.release, period=0.01
    )
    assert all(calls.acquire(timeout=5.0) for _ in range(3))
    assert worker.stop()


def test_what_lies_in_the_queue_is_read_before_a_deadline_is_acted_on() -> None:
    seen: list[str] = []
    gate = threading.Event()

    def handle(item: str) -> None:
        gate.wait(5.0)
        seen.append(item)

    worker: Worker[str] = Worker(
        "w", handle, lambda error: None, capacity=10, idle=lambda: seen.append("deadline"),
        period=0.001,
    )  # fmt: skip
    worker.put("estimate")
    worker.put("words")
    seen.clear()
    gate.set()
    assert worker.drain(5.0)
    worker.stop()
    assert seen[:2] == ["estimate", "words"]


def test_a_node_may_warn_and_then_report_an_error() -> None:
    import rclpy
    from rclpy.context import Context
    from rclpy.node import Node

    from hri_emo_ros.nodes.diagnostics import Diagnostics, Level

    context = Context()
    rclpy.init(context=context)
    try:
        node = Node("warns", context=context)
        diagnostics = Diagnostics(node, dict)
        diagnostics.failure("first", "a warning", Level.WARN)
        diagnostics.failure("second", "an error", Level.ERROR)
        assert diagnostics.status().level == bytes([Level.ERROR])
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
