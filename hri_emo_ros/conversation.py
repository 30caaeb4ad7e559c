"""The tone of the last stretch of conversation, out of the final states: longer context than one utterance."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hri_emo_ros import parameters as declared
from hri_emo_ros.outcome import Outcome, normalised_entropy
from hri_emo_ros.types import AbstainReason

LEAST_SPEECH = 1.0
"""Seconds of speech in the window below which there is no tone to speak of."""
LEAST_SPAN = 5.0
"""Seconds from the first to the last utterance below which a slope is nothing but noise."""
OUTLIERS = 0.15
"""Share of utterances that say nothing of the tone, for the change point: a single odd one proves nothing."""
LEAST_ODDS = 3.0
"""Odds (Bayes factor) at which a change is reported."""
EITHER_SIDE = 2
"""Utterances before and after a change."""

Array = npt.NDArray[np.float64]
NAN = float("nan")


class Judge(Protocol):
    """What is asked of `hri_emo_ros.engine.EmotionEngine`."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def model_id(self) -> str: ...

    @property
    def thresholds(self) -> Sequence[float]:
        """Decision threshold of each label, [0, 1]."""
        ...

    @property
    def min_confidence(self) -> float:
        """Highest probability below which nothing is claimed, [0, 1]."""
        ...

    @property
    def multi_label(self) -> bool: ...


@dataclass(frozen=True)
class Tone:
    """Of one voice, or of all; fields and ranges are those of ConversationTone.msg."""

    voice_id: str
    utterances: int = 0
    speech_seconds: float = 0.0
    probabilities: tuple[float, ...] = ()
    above_threshold: tuple[bool, ...] = ()
    audio_weights: tuple[float, ...] = ()
    """Share of the voice in each emotion, [0, 1]."""
    dominant: str = ""
    uncertainty: float = 1.0
    valence: float = NAN
    arousal: float = NAN
    valence_trend: float = NAN
    arousal_trend: float = NAN
    abstain_text: str = ""
    changed_from: str = ""
    """Empty if the tone did not change."""
    change_ns: int = 0


@dataclass(frozen=True)
class ConversationState:
    """What ConversationEmotion.msg holds."""

    stamp_ns: int
    """Sensor time of the end of the newest utterance, ns."""
    window: float
    labels: tuple[str, ...]
    overall: Tone
    voices: tuple[Tone, ...]
    """Of each known voice, the one heard last first."""
    model_id: str


@dataclass(frozen=True)
class _Said:
    """What is kept of an utterance: figures, nothing of what was said."""

    voice_id: str
    start_ns: int
    end_ns: int
    speech: float
    """Seconds."""
    uncertainty: float
    probabilities: Array
    audio_weights: Array
    valence: float
    arousal: float


class Conversation:
    """Listens to final states and says what the tone of the last ``conversation.window`` seconds is.

    An utterance counts by its speech time, its certainty (1 - uncertainty) and its age, which halves its
    weight every half window. Those that abstained count only where the model was unsure
    (`AbstainReason.LOW_CONFIDENCE`): their probabilities hold, and weigh little. After a change of tone what
    was said before it counts no more.

    Args:
        judge: the engine that made the states.
        parameters: emotion_node values by name.

    Raises:
        HriEmoError: a parameter is refused.
    """

    def __init__(self, judge: Judge, parameters: Mapping[str, Any]) -> None:
        self._judge = judge
        self._said: deque[_Said] = deque()
        self.configure(parameters)

    def configure(self, parameters: Mapping[str, Any]) -> None:
        """Take new parameter values.

        Raises:
            HriEmoError: a name is not declared or a value is refused.
        """
        values = declared.check("emotion_node", parameters)
        self._window = float(values["conversation.window"])

    def clear(self) -> None:
        """Another stream begins."""
        self._said.clear()

    def forget(self, voice_id: str = "") -> None:
        """A voice is forgotten, "" = all: what it said stays in the tone of all, as nobody's."""
        self._said = deque(
            replace(said, voice_id="") if voice_id in ("", said.voice_id) else said
            for said in self._said
        )

    def hear(self, outcome: Outcome) -> ConversationState:
        """Take the final state of the next utterance; says the tone with it."""
        estimate = outcome.estimate
        end_ns = outcome.stamp_ns + round(estimate.duration * 1e9)
        share = 1.0 if estimate.quality is None else estimate.quality.speech_fraction
        unsure = estimate.abstain_reason is AbstainReason.LOW_CONFIDENCE
        if estimate.computed and (unsure or not estimate.abstained):
            self._said.append(
                _Said(
                    estimate.voice_id,
                    outcome.stamp_ns,
                    end_ns,
                    share * estimate.duration,
                    estimate.uncertainty,
                    np.asarray(estimate.probabilities, np.float64),
                    np.asarray(estimate.audio_weight_per_emotion, np.float64),
                    estimate.valence,
                    estimate.arousal,
                )
            )
        while self._said and end_ns - self._said[0].end_ns > self._window * 1e9:
            self._said.popleft()
        voices = dict.fromkeys(said.voice_id for said in reversed(self._said) if said.voice_id)
        return ConversationState(
            stamp_ns=end_ns,
            window=self._window,
            labels=tuple(self._judge.labels),
            overall=self._tone("", list(self._said), end_ns),
            voices=tuple(
                self._tone(voice, [s for s in self._said if s.voice_id == voice], end_ns)
                for voice in voices
            ),
            model_id=self._judge.model_id,
        )

    def _tone(self, voice_id: str, said: list[_Said], now_ns: int) -> Tone:
        tone = Tone(voice_id, len(said), sum((s.speech for s in said), 0.0))
        if tone.speech_seconds < LEAST_SPEECH:
            return replace(
                tone,
                abstain_text=f"only {tone.speech_seconds:.1f} s of speech to go by in the last "
                f"{self._window:g} s (at least {LEAST_SPEECH:g} s)",
            )
        valence_trend = _slope(said, [s.valence for s in said])
        arousal_trend = _slope(said, [s.arousal for s in said])
        change = change_point(np.stack([s.probabilities for s in said]))
        changed: dict[str, Any] = {}
        if change is not None:
            first, before = change
            said = said[first:]
            changed = {"changed_from": self._judge.labels[before], "change_ns": said[0].start_ns}
        weights = np.array([_weight(s, now_ns, self._window) for s in said])
        weights /= weights.sum()
        p = weights @ np.stack([s.probabilities for s in said])
        tone = replace(
            tone,
            valence_trend=valence_trend,
            arousal_trend=arousal_trend,
            utterances=len(said),
            speech_seconds=sum(s.speech for s in said),
            probabilities=tuple(p.tolist()),
            above_threshold=(False,) * len(p),
            audio_weights=tuple((weights @ np.stack([s.audio_weights for s in said])).tolist()),
            uncertainty=normalised_entropy(p, self._judge.multi_label),
            valence=float(weights @ [s.valence for s in said]),
            arousal=float(weights @ [s.arousal for s in said]),
        )
        if p.max() < self._judge.min_confidence:
            return replace(
                tone,
                abstain_text=f"highest mean probability only {p.max():.2f} (abstain.min_confidence)",
            )
        return replace(
            tone,
            **changed,
            dominant=self._judge.labels[int(p.argmax())],
            above_threshold=tuple((p >= np.asarray(self._judge.thresholds)).tolist()),
        )


def change_point(probabilities: Array) -> tuple[int, int] | None:
    """Where the emotion of a row of utterances changed, if it did.

    Compares, as a Bayes factor, that all utterances carry one emotion with that the first ones carry one and
    the others another, `EITHER_SIDE` at least on either side (all emotions and all places alike likely
    before). A calibrated probability is taken for the likelihood of its emotion, with `OUTLIERS` of the
    utterances saying nothing. The place reported is the likeliest one.

    Args:
        probabilities: [utterances, labels], in order of time.

    Returns:
        (index of the first utterance of the new emotion, label of the old one), or None.
    """
    count, labels = probabilities.shape
    if count < 2 * EITHER_SIDE or labels < 2:
        return None
    share = probabilities / np.maximum(probabilities.sum(1, keepdims=True), 1e-12)
    evidence = np.log((1.0 - OUTLIERS) * share + OUTLIERS / labels)
    total = np.concatenate([np.zeros((1, labels)), np.cumsum(evidence, 0)])
    places = np.arange(EITHER_SIDE, count - EITHER_SIDE + 1)
    # [places, old, new]
    joint = total[places, :, None] + (total[-1] - total[places])[:, None, :]
    joint[:, np.arange(labels), np.arange(labels)] = -np.inf
    one = np.logaddexp.reduce(total[-1]) - math.log(labels)
    two = np.logaddexp.reduce(joint, axis=None) - math.log(joint.size - len(places) * labels)
    if two - one < math.log(LEAST_ODDS):
        return None
    place, before, _ = np.unravel_index(int(joint.argmax()), joint.shape)
    return int(places[place]), int(before)


def _weight(said: _Said, now_ns: int, window: float) -> float:
    age = (now_ns - said.end_ns) * 1e-9
    return max(said.speech, 1e-3) * max(1.0 - said.uncertainty, 1e-3) * 0.5 ** (2.0 * age / window)


def _slope(said: Sequence[_Said], values: Sequence[float]) -> float:
    """Change of the values per minute, by a straight line weighted with speech time and certainty."""
    times = np.array([(s.start_ns + s.end_ns) / 2 - said[0].start_ns for s in said]) * 1e-9 / 60.0
    weights = np.array([_weight(s, s.end_ns, 1.0) for s in said])
    if len(said) < 3 or (times[-1] - times[0]) * 60.0 < LEAST_SPAN or np.isnan(values).any():
        return NAN
    weights /= weights.sum()
    away = times - weights @ times
    return float((weights * away) @ np.asarray(values) / ((weights * away) @ away))
