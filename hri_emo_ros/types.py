# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The values that travel through the pipeline, with or without ROS.

Everything here is a plain dataclass of numpy arrays and numbers. Audio is always float32, mono,
16 kHz, in [-1, 1]; times are seconds (float) unless the name ends in ``_ns`` (integer nanoseconds
of the sensor's clock) or ``_sample`` (an index at 16 kHz).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
"""Hz; the one rate behind the resampler (Silero VAD, Whisper and the speech encoders all use it)."""

LABELS = ("neutral", "happy", "sad", "angry", "fear", "disgust", "surprise")
"""The project's emotions, in the order of every probability vector of the shipped model."""

FloatArray = npt.NDArray[np.float32]


class AbstainReason(IntEnum):
    """Why an estimate should not be acted on; the numbers are those of EmotionState.msg."""

    NONE = 0
    NO_SPEECH = 1
    TOO_SHORT = 2
    CLIPPED = 3
    ROBOT_SPEAKING = 4
    LOW_CONFIDENCE = 5
    TOO_NOISY = 6
    NO_MODEL = 7
    ERROR = 8
    BAD_INPUT = 9
    NOT_SPEECH = 10


class Fault(IntEnum):
    """What is wrong with the microphone's signal; the numbers are those of SignalQuality.msg."""

    NONE = 0
    SILENT = 1
    STUCK = 2
    DEAD_CHANNEL = 3
    CANCELLING = 4
    OFFSET = 5
    FORMAT = 6


class TranscriptStatus(IntEnum):
    """What became of the words; the numbers are those of Transcript.msg and EmotionState.msg."""

    OK = 0
    EMPTY = 1
    """The recogniser heard no words."""
    REJECTED = 2
    """It wrote words that are not to be trusted."""
    FAILED = 3
    """It could not work on the utterance."""
    NONE = 4
    """Nothing has come from it."""


@dataclass(frozen=True)
class SignalQuality:
    """What can be said of a piece of audio without understanding it."""

    snr_db: float
    """Speech level over background level, dB; clamped to [-20, 60]; NaN when unknown."""
    level_dbfs: float
    """Level of the speech frames, dB relative to full scale (RMS of a full-scale square wave = 0)."""
    clipped_fraction: float
    """Share of samples at full scale, [0, 1]."""
    speech_fraction: float
    """Share of VAD frames that hold speech, [0, 1]."""
    input_level_dbfs: float = float("nan")
    """Level of the microphone's signal over the last second, speech or not, dBFS; NaN when unknown."""
    fault: Fault = Fault.NONE
    """What is wrong with the microphone's signal."""


@dataclass(frozen=True)
class SpeechChunk:
    """A piece of one utterance, published while the person still speaks."""

    utterance_id: int
    """Counts from 1 in each stream."""
    sequence: int
    """Counts from 0 in each utterance."""
    stamp_ns: int
    """Sensor time of this chunk's first sample, ns."""
    utterance_start_ns: int
    """Sensor time of the utterance's first sample (pre-roll included), ns."""
    first_sample: int
    """Index of this chunk's first sample within the utterance, at 16 kHz."""
    samples: FloatArray
    """[n] float32 in [-1, 1], 16 kHz mono; may be empty in the chunk that closes an utterance."""
    quality: SignalQuality
    """Of the whole utterance so far."""
    last: bool
    """Nothing follows in this utterance."""
    truncated: bool = False
    """The utterance was cut at its maximum length, not by a pause."""
    endpoint: bool = False
    """Speech seems to have ended (`segment.endpoint` of non-speech); it may yet go on."""
    speech_end_ns: int = 0
    """In `endpoint` and `last` chunks: sensor time at which the VAD last saw speech, ns; else 0.
    Latency counts from here."""
    stream_start_sample: int = 0
    """Index of the utterance's first sample in the whole stream at 16 kHz (for evaluation)."""
    robot_speaking: bool = False
    """The robot said that it was speaking during some part of the utterance so far."""
    dropped_samples: int = 0
    """Samples of the utterance so far that were lost before the front end and filled with silence."""
    beginning_lost: bool = False
    """The person spoke already at the utterance's first sample: what came before was not heard."""


@dataclass(frozen=True)
class Word:
    """A recognised word."""

    text: str
    start: float
    """Seconds from the utterance's first sample."""
    end: float
    confidence: float
    """[0, 1]."""


@dataclass(frozen=True)
class Transcript:
    """What was said in one utterance."""

    text: str
    words: tuple[Word, ...] = ()
    confidence: float = 1.0
    """[0, 1]; mean of the words' confidence for recognisers, 1 for text typed by a person."""
    language: str = ""
    """ISO 639-1, empty when unknown."""
    latency: float = 0.0
    """Seconds of computing spent by the recogniser."""
    word_times_estimated: bool = False
    """The words' times are shares of the speech by the words' length, not measured."""
    status: TranscriptStatus = TranscriptStatus.OK
    """EMPTY of itself where there is no text. The words of any other status than OK are not used."""
    status_text: str = ""
    """Why there are no words to use, in a sentence."""

    def __post_init__(self) -> None:
        if self.status is TranscriptStatus.OK and not self.text.strip():
            object.__setattr__(self, "status", TranscriptStatus.EMPTY)

    @property
    def usable(self) -> bool:
        """There are words, and an estimate may rest on them."""
        return self.status is TranscriptStatus.OK


@dataclass(frozen=True)
class Explanation:
    """Which word and which moment spoke for each emotion."""

    words: tuple[Word, ...]
    word_attribution: FloatArray
    """[labels, words]; positive speaks for the emotion; each row's absolute values sum to 1 (or 0)."""
    moment_attribution: FloatArray
    """[labels, frames]; as above over audio frames."""
    moment_period: float
    """Seconds from one frame to the next."""
    alignment: FloatArray
    """[words, frames]; each row sums to 1: where in the audio the encoder looked for each word."""

    def behind(self, seconds: float) -> Explanation:
        """The same of an utterance whose first `seconds` were not heard: moments there have no say."""
        if seconds <= 0.0 or self.moment_period <= 0.0 or not self.moment_attribution.shape[1]:
            return self
        moments = ((0, 0), (round(seconds / self.moment_period), 0))
        return replace(
            self,
            moment_attribution=np.pad(self.moment_attribution, moments),
            alignment=np.pad(self.alignment, moments),
        )


@dataclass(frozen=True)
class EmotionEstimate:
    """What the engine says of one utterance (so far)."""

    labels: tuple[str, ...]
    probabilities: FloatArray
    """[labels], calibrated, each in [0, 1]; sums to 1 for single-label models."""
    above_threshold: npt.NDArray[np.bool_]
    """[labels]; probability >= the bundle's fitted threshold."""
    uncertainty: float
    """Normalised entropy of the probabilities, [0, 1]; 1 is a uniform guess."""
    audio_weight: float
    """[0, 1]; audio_weight + text_weight = 1."""
    text_weight: float
    audio_weight_per_emotion: FloatArray
    """[labels]; with text_weight_per_emotion sums to 1 for each emotion."""
    text_weight_per_emotion: FloatArray
    duration: float
    """Seconds of audio covered."""
    model_id: str
    valence: float = float("nan")
    """[-1, 1]; NaN where the bundle gives the emotions no positions."""
    arousal: float = float("nan")
    """[-1, 1]; as valence."""
    voice_id: str = ""
    """Who spoke; empty when unknown."""
    voice_utterances: int = 0
    """Earlier utterances of that voice which this one was judged against."""
    beginning_lost: bool = False
    """Not all of the utterance was heard from its beginning."""
    abstain_reason: AbstainReason = AbstainReason.NONE
    quality: SignalQuality | None = None
    transcript: Transcript | None = None
    latency: dict[str, float] = field(default_factory=dict)
    """Seconds spent by stage: audio_encoder, text_encoder, fusion (the callers add asr, wait, ...)."""
    explanation: Explanation | None = None
    voice_statistics: FloatArray | None = None
    """[D], what the memory of the voice should learn (see `voices.baseline`); None without a voice and for
    models that judge every voice as an unknown one."""
    baseline_weight: float = 0.0
    """[0, 1]: how much it should count there."""

    @property
    def dominant(self) -> str:
        """The label of the highest probability; empty where there are none."""
        return self.labels[int(np.argmax(self.probabilities))] if self.probabilities.size else ""

    @property
    def computed(self) -> bool:
        """A model computed the probabilities; else they are placeholders that nobody is shown."""
        return self.probabilities.size > 0 and not (self.abstained and self.uncertainty >= 1.0)

    @property
    def abstained(self) -> bool:
        return self.abstain_reason is not AbstainReason.NONE

    @property
    def abstain_text(self) -> str:
        """Why the estimate abstained, in a sentence with the figures; empty if it did not."""
        quality = self.quality
        voiced = 0.0 if quality is None else quality.speech_fraction * self.duration
        clipped = 0.0 if quality is None else quality.clipped_fraction
        snr = "unknown"
        if quality is not None and not np.isnan(quality.snr_db):
            snr = f"{quality.snr_db:.0f} dB"
        top = float(self.probabilities.max()) if self.probabilities.size else 0.0
        return {
            AbstainReason.NONE: "",
            AbstainReason.NO_SPEECH: f"no voice in {self.duration:.2f} s of audio",
            AbstainReason.TOO_SHORT: f"only {voiced:.2f} s of voice (abstain.min_speech)",
            AbstainReason.CLIPPED: f"{clipped:.0%} of the samples clip (abstain.max_clipped): turn "
            "the microphone down",
            AbstainReason.ROBOT_SPEAKING: "the robot spoke during the utterance",
            AbstainReason.LOW_CONFIDENCE: f"highest probability only {top:.2f} "
            "(abstain.min_confidence)",
            AbstainReason.TOO_NOISY: f"signal-to-noise ratio {snr} and no words (abstain.min_snr)",
            AbstainReason.NO_MODEL: "no model bundle is loaded, see /diagnostics",
            AbstainReason.ERROR: "the estimate failed, see /diagnostics",
            AbstainReason.BAD_INPUT: "the microphone's signal is not what was said "
            f"({Fault.NONE.name if quality is None else quality.fault.name.lower()}), see /diagnostics",
            AbstainReason.NOT_SPEECH: "a human sound that is no speech",
        }[self.abstain_reason]
