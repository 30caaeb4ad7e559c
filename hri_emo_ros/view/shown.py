# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""One estimate as people are shown it, from wherever it came; no library but the standard one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hri_emo_ros import messages
from hri_emo_ros.outcome import Outcome


@dataclass(frozen=True)
class Shown:
    """One estimate, from wherever it came."""

    utterance: int
    start: float
    """Seconds since the first sound, or of the clock."""
    duration: float
    final: bool
    words: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    dominant: str
    """Empty when abstained."""
    abstained: str
    """Why; empty when not."""
    audio_weight: float
    text_weight: float
    latency: float
    """Seconds from the end of speech to the estimate."""
    asr: float
    """Seconds of recognition."""

    @property
    def verdict(self) -> str:
        if self.abstained:
            return f"abstained: {self.abstained}"
        top = max(self.probabilities, default=0.0)
        return f"{self.dominant} {top:.2f}"

    @property
    def sentence(self) -> str:
        """For a node's log: what, how sure, on what, how late."""
        return (
            f"utterance {self.utterance}: {self.verdict}; voice {self.audio_weight:.2f}, words "
            f"{self.text_weight:.2f}: {self.words or 'none'}; {self.latency * 1000:.0f} ms after speech"
        )

    @property
    def line(self) -> str:
        """In one line, for logs and pipes."""
        return (
            f"{self.start:7.2f} s  {self.duration:5.2f} s  {self.verdict:<18}  "
            f"voice {self.audio_weight:.2f} words {self.text_weight:.2f}  "
            f"{self.latency * 1000:5.0f} ms  {self.words or '-'}"
        )


def from_message(message: Any, epoch_ns: int = 0) -> Shown:
    """Of a hri_emo_msgs/EmotionState."""
    stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
    return Shown(
        utterance=message.utterance_id,
        start=(stamp_ns - epoch_ns) * 1e-9,
        duration=message.duration,
        final=message.stage == 1,
        words=_words(message.transcript, message.rejected_transcript),
        labels=tuple(score.label for score in message.scores),
        probabilities=tuple(score.probability for score in message.scores),
        dominant=message.dominant,
        abstained=message.abstain_text if message.abstained else "",
        audio_weight=message.audio_weight,
        text_weight=message.text_weight,
        latency=message.latency.total,
        asr=message.latency.asr,
    )


def from_outcome(outcome: Outcome, epoch_ns: int = 0) -> Shown:
    """Of what the pipeline emits without ROS."""
    estimate = outcome.estimate
    fields = messages.state(outcome, "", "")
    return Shown(
        utterance=outcome.utterance_id,
        start=(outcome.stamp_ns - epoch_ns) * 1e-9,
        duration=estimate.duration,
        final=outcome.stage == "final",
        words=_words(fields["transcript"], fields["rejected_transcript"]),
        labels=estimate.labels,
        probabilities=tuple(float(p) for p in estimate.probabilities),
        dominant="" if estimate.abstained else estimate.dominant,
        abstained=estimate.abstain_text,
        audio_weight=float(estimate.audio_weight),
        text_weight=float(estimate.text_weight),
        latency=outcome.latency["total"],
        asr=outcome.latency["asr"],
    )


def _words(used: str, rejected: str) -> str:
    return f"(refused: {rejected})" if rejected else used
