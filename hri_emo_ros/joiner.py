# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""From chunks of speech and transcripts to one final estimate per utterance.

`UtteranceJoiner` is the only place that decides when an estimate is made. The emotion node drives
it with messages and a clock, `pipeline.run_offline` with a recording: what differs is who calls,
not what is computed.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from hri_emo_ros import parameters as declared
from hri_emo_ros.audio.utterance import UtteranceBuffer
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.outcome import LATENCY_STAGES, Estimator, Outcome, abstained_estimate
from hri_emo_ros.types import (
    SAMPLE_RATE,
    AbstainReason,
    EmotionEstimate,
    Fault,
    SpeechChunk,
    Transcript,
    TranscriptStatus,
)
from hri_emo_ros.voices.encoder import Embedding, SpeakerEncoder, VoiceEncoder
from hri_emo_ros.voices.memory import NOBODY, Speaker, VoiceMemory
from hri_emo_ros.voices.profiles import load_profiles, save_profiles

SAVE_EVERY = 10.0
"""Seconds between writes of the voice profiles while people speak; what is not written yet is when the stream
ends."""
SILENT_AFTER = 2
"""Utterances in a row for whose words the whole hold was waited in vain: a recogniser that let so many pass
without a word of any kind is not waited for until it is heard again."""
STALE_AFTER = 10.0
"""Seconds without a chunk after which an utterance counts as ended although its end never came.

More than `segment.pause` may be (5 s): the front end holds audio back as long as a pause may end."""

OWED_FOR = 30.0
"""Seconds for which an utterance that got no words is owed those of a recogniser that names no utterance: what
such a one says next is that utterance's, too late, and not the next person's."""

CONTEXT_TURNS = 8
"""Most turns of a conversation that are kept as context of the next."""

_logger = logging.getLogger(__name__)


@dataclass
class _Pending:
    """An utterance in work."""

    audio: UtteranceBuffer
    last_arrival: float
    delay: float
    """Smallest (arrival - sensor time) of its chunks' last samples, s: relates the two clocks."""
    next_provisional: int
    closed_at: float = math.inf
    transcript: Transcript | None = None
    words_settled: bool = False
    """No more words are awaited."""
    told: Transcript | None = None
    """What a recogniser that names no utterance has said of it for good."""
    told_at: float = math.inf
    """When it last did."""
    queued: float = 0.0
    heard_until: float = 0.0
    """Time of its last sample, on the caller's clock."""
    estimated: tuple[Any, EmotionEstimate] | None = None
    """The newest estimate and what it was made of."""
    embedding: tuple[int, Embedding] | None = None
    """What its speaker's voice gave, and of how many samples."""
    speaker: Speaker = NOBODY
    """Whose it was last taken to be."""


class UtteranceJoiner:
    """Joins speech and words by utterance and has each utterance estimated.

    Passive: it owns no thread and no clock. Every call takes `now`, seconds of any clock that does
    not go backwards; `emit` is called from within, finals in the order of the utterances and exactly
    one for each. Not thread-safe: one worker calls everything.

    Args:
        engine: makes the estimates; None gives abstained ones (`AbstainReason.NO_MODEL`).
        parameters: values of the emotion node, by name; missing ones take their defaults.
        emit: receives each outcome.
        live: whether `now` runs with the sound. Only then do the latencies hold waiting times;
            otherwise they are times of computing.
        encoder: tells voices apart; None makes the package's own.

    Raises:
        HriEmoError: a value or the file of profiles is refused.
    """

    def __init__(
        self,
        engine: Estimator | None,
        parameters: Mapping[str, Any],
        emit: Callable[[Outcome], None],
        live: bool = True,
        encoder: VoiceEncoder | None = None,
    ) -> None:
        self.engine = engine
        self._encoder = encoder
        self.emit = emit
        self.live = live
        self.counters: dict[str, int] = dict.fromkeys(
            (
                "chunks",
                "lost_chunks",
                "late_chunks",
                "unclosed",
                "finals",
                "provisionals",
                "provisionals_skipped",
                "abstained",
                "without_words",
                "rejected_transcripts",
                "late_transcripts",
                "unmatched_transcripts",
                "overflow",
                "errors",
                "profiles_not_written",
            ),
            0,
        )
        self.last_error = ""
        self.recogniser_present = True
        """Somebody is there who may send words; the caller's to set."""
        self._claims = False
        """The recogniser announces the utterances that it works on (`TranscriptStatus.NONE`)."""
        self._claimed = 0
        """Newest utterance that it has announced; may come ahead of the speech."""
        self._in_vain = 0
        """Holds in a row at whose end nothing had been heard of a recogniser."""
        self._wordless = 0
        """Utterances in a row that ended without a word from the recogniser that is there."""
        self._utterances: OrderedDict[int, _Pending] = OrderedDict()
        self._newest = 0
        self._owed: deque[float] = deque()
        """When the utterances ended whose words may still come from a recogniser that names none."""
        self._said: deque[tuple[int, str]] = deque(maxlen=CONTEXT_TURNS)
        """When the latest utterances with words ended (sensor time, ns) and what they were, latest first."""
        self.voices: VoiceMemory | None = None
        """Who was heard; None where voices are not told apart (`voices.enabled`)."""
        self._saved = -math.inf
        self._unsaved = False
        self.configure(parameters)

    def configure(self, parameters: Mapping[str, Any]) -> None:
        """Take new parameter values; utterances in work go on under them.

        Raises:
            HriEmoError: a name is not declared or a value is refused.
        """
        values = declared.check("emotion_node", parameters)
        self._words_expected = values["transcript.source"] != "none"
        self._hold = float(values["final.hold"])
        self._provisional = bool(values["provisional.enabled"])
        self._period = round(float(values["provisional.period"]) * SAMPLE_RATE)
        self._explain = bool(values["explanation.enabled"])
        self._bound = int(values["utterance.queue"])
        self._context_turns = int(values["context.turns"])
        self._context_age = round(float(values["context.max_age"]) * 1e9)
        self._configure_voices(values)

    def _configure_voices(self, values: Mapping[str, Any]) -> None:
        if not values["voices.enabled"]:
            self.voices = None
            return
        self._profiles = str(values["voices.profiles"])
        if self.voices is None:
            voices = VoiceMemory(
                int(values["voices.max"]),
                counters=self.counters,
                encoder=self._encoder or SpeakerEncoder(),
            )
            if self._profiles and self.engine is not None:
                load_profiles(voices, Path(self._profiles), self.engine.model_id)
            self.voices = voices
        self.voices.most_voices = int(values["voices.max"])
        self.voices.forget_after = float(values["voices.forget_after"]) * 3600.0

    def forget_voices(self, voice_id: str = "") -> int:
        """Forget a voice, or all of them and what was said; returns how many voices that were. The file of
        profiles forgets too.

        Raises:
            HriEmoError: the file cannot be written; the memory has forgotten all the same.
        """
        if not voice_id:
            self._said.clear()
        if self.voices is None:
            return 0
        count = self.voices.forget(voice_id or None)
        if self._profiles and self.engine is not None:
            save_profiles(self.voices, Path(self._profiles), self.engine.model_id)
        return count

    @property
    def words_expected(self) -> bool:
        """Whether utterances wait for words at all (`transcript.source`)."""
        return self._words_expected

    @property
    def recogniser_silent(self) -> bool:
        """Words were awaited in vain for so many utterances in a row that they no longer are."""
        return self._in_vain >= SILENT_AFTER

    @property
    def words_missing(self) -> bool:
        """A recogniser is there, and nothing has come from it for several utterances."""
        return self._wordless >= SILENT_AFTER

    @property
    def in_work(self) -> int:
        """Utterances that have no final outcome yet."""
        return len(self._utterances)

    @property
    def next_deadline(self) -> float | None:
        """Time at which `tick` will have something to do, or None."""
        times = [
            pending.closed_at + self._hold
            if pending.audio.closed
            else pending.last_arrival + STALE_AFTER
            for pending in self._utterances.values()
        ]
        return min(times, default=None)

    def speech(self, chunk: SpeechChunk, now: float, arrived: float | None = None) -> None:
        """Take a chunk.

        Args:
            chunk: the next chunk of the open utterance or the first of a new one. A first chunk
                whose id was there before means that the sender started over.
            now: seconds.
            arrived: when the chunk came in, if it lay in a queue since; same clock.
        """
        self.counters["chunks"] += 1
        arrived = now if arrived is None else arrived
        pending = self._utterances.get(chunk.utterance_id)
        if chunk.utterance_id <= self._newest and chunk.sequence == 0 and chunk.first_sample == 0:
            self.restart(now)
            pending = None
        if pending is not None:
            before = pending.audio.lost_samples
            if not pending.audio.add(chunk):
                self.counters["late_chunks"] += 1
                return
            self.counters["lost_chunks"] += pending.audio.lost_samples > before
        elif chunk.utterance_id <= self._newest:
            self.counters["late_chunks"] += 1
            return
        else:
            pending = self._open(chunk, now)
        self._note_arrival(pending, chunk, arrived)
        pending.queued = now - arrived
        if chunk.last:
            pending.closed_at = arrived
            if pending.told_at < chunk.speech_end_ns * 1e-9 + pending.delay:
                pending.words_settled = (
                    False  # Speech went on after them: the rest is still to come.
                )
        elif self._provisional and (
            chunk.endpoint or len(pending.audio) >= pending.next_provisional
        ):
            pending.next_provisional = (len(pending.audio) // self._period + 1) * self._period
            if pending.queued * SAMPLE_RATE > self._period:
                # Behind by more than a period: what the person says now matters more than what they said then.
                self.counters["provisionals_skipped"] += 1
            else:
                self._estimate_provisional(pending, now)
        self._finish_ready(now, arrived)

    def transcript(
        self,
        utterance_id: int | None,
        transcript: Transcript | None,
        now: float,
        arrived: float | None = None,
        final: bool = True,
        spoken_ns: int | None = None,
    ) -> None:
        """Take the words of an utterance.

        A recogniser that knows no utterances gives `utterance_id` None. Its words then go to the utterance that
        `spoken_ns` falls into. Else they are taken to come in order: to the one that got none in time and is
        owed them (`OWED_FOR`; that is too late, and counted), then to the first that has ended and awaits
        words, then to the one being spoken (added to what it has): recognisers report after the end of
        speech, and those with a shorter pause than ours report before we call it an end.

        Args:
            utterance_id: as in the chunks, or None.
            transcript: None says that no words will come; one of status NONE that the recogniser has
                taken the utterance on, so that its words are worth waiting for.
            now: seconds.
            arrived: when the words came in, if they lay in a queue since; same clock.
            spoken_ns: sensor time at which the words began or ended, ns; used without an id only.
            final: whether these are all the words; partial ones serve provisional estimates and
                stand in for the final ones should these not come in time.
        """
        if transcript is not None and transcript.status is TranscriptStatus.NONE:
            self._claims = True
            if utterance_id is not None:
                self._claimed = max(self._claimed, utterance_id)
            return
        # An announcement alone does not count: one that hangs still announces.
        self._in_vain = self._wordless = 0
        arrived = now if arrived is None else arrived
        if utterance_id is None:
            pending, late = self._whose(spoken_ns, arrived, final)
        else:
            pending, late = self._utterances.get(utterance_id), utterance_id <= self._newest
        if pending is None:
            self.counters["late_transcripts" if late else "unmatched_transcripts"] += 1
            return
        pending.queued += now - arrived
        if transcript is not None:
            if utterance_id is None and pending.told is not None:
                transcript = _append(pending.told, transcript)
            pending.transcript = transcript
            if utterance_id is None and final:
                pending.told, pending.told_at = transcript, arrived
        pending.words_settled = pending.words_settled or final
        if not final and not pending.audio.closed and self._provisional:
            self._estimate_provisional(pending, now)
        self._finish_ready(now, arrived)

    def tick(self, now: float) -> None:
        """Finish what has waited long enough. To be called when nothing lies in a queue."""
        for pending in self._utterances.values():
            if not pending.audio.closed and now - pending.last_arrival >= STALE_AFTER:
                self._close(pending, now)
        self._finish_ready(now, now)

    def flush(self, now: float) -> None:
        """Finish everything at once; nothing more will come."""
        for pending in self._utterances.values():
            if not pending.audio.closed:
                self._close(pending, now)
        while self._utterances:
            self._finish_oldest(now)
        self._save_voices(now, every=0.0)

    def restart(self, now: float) -> None:
        """Finish everything and forget the ids and what was said: the sender starts over."""
        self.flush(now)
        self._said.clear()
        self._newest = self._claimed = 0

    def _open(self, chunk: SpeechChunk, now: float) -> _Pending:
        for other in self._utterances.values():
            if not other.audio.closed:  # Utterances do not interleave: its end was lost.
                self._close(other, now)
        pending = _Pending(UtteranceBuffer(chunk), now, math.inf, self._period)
        pending.words_settled = not self._words_expected
        self._utterances[chunk.utterance_id] = pending
        self._newest = chunk.utterance_id
        while len(self._utterances) > self._bound:
            self.counters["overflow"] += 1
            self._finish_oldest(now)
        return pending

    def _close(self, pending: _Pending, now: float) -> None:
        pending.audio.close()
        pending.closed_at = now
        self.counters["unclosed"] += 1

    def _note_arrival(self, pending: _Pending, chunk: SpeechChunk, arrived: float) -> None:
        end = chunk.stamp_ns * 1e-9 + len(chunk.samples) / SAMPLE_RATE
        pending.delay = min(pending.delay, arrived - end)
        pending.heard_until = end + pending.delay
        pending.last_arrival = arrived

    def _whose(
        self, spoken_ns: int | None, arrived: float, final: bool
    ) -> tuple[_Pending | None, bool]:
        """Whose the words are that name no utterance; whether they are those of one that is finished."""
        if spoken_ns is not None:
            for pending in self._utterances.values():
                begin = pending.audio.stamp_ns
                if begin <= spoken_ns <= begin + int(pending.audio.duration * 1e9):
                    return pending, False
        while self._owed and arrived - self._owed[0] > OWED_FOR:
            self._owed.popleft()
        if self._owed:
            if final:
                self._owed.popleft()
            return None, True
        awaiting = [p for p in self._utterances.values() if p.audio.closed and not p.words_settled]
        speaking = [p for p in self._utterances.values() if not p.audio.closed]
        return next(iter(awaiting + speaking), None), False

    def _finish_ready(self, now: float, heard_until: float) -> None:
        """Finish what has its words, or had not got them in time by `heard_until`.

        What arrived after that may still lie in the caller's queue: words in it came in time.
        """
        while self._utterances:
            oldest = next(iter(self._utterances.values()))
            if not oldest.audio.closed:
                return
            if self._awaits_words(oldest):
                if heard_until < oldest.closed_at + self._hold:
                    return
                self._in_vain += 1
            self._finish_oldest(now)

    def _awaits_words(self, pending: _Pending) -> bool:
        """Words may still come: a recogniser is at work on this utterance, as far as is known."""
        if pending.words_settled or not self.recogniser_present:
            return False
        if self._claims and pending.audio.utterance_id > self._claimed:
            return False
        return not self.recogniser_silent

    def _finish_oldest(self, now: float) -> None:
        _, pending = self._utterances.popitem(last=False)
        if self._words_expected and not pending.words_settled and pending.told is None:
            self.counters["without_words"] += 1
            self._wordless += self.recogniser_present
            if self.recogniser_present:
                self._owed.append(min(pending.closed_at, now))
        if pending.transcript and pending.transcript.status is TranscriptStatus.REJECTED:
            self.counters["rejected_transcripts"] += 1
        started = time.perf_counter()
        speaker = self._speaker(pending, final=True)
        estimate, error = self._estimate(pending, self._explain, speaker)
        seconds = time.perf_counter() - started
        self._learn(speaker, estimate)
        self._keep_words(pending)
        latency = self._latency(pending, estimate)
        if self.live:
            latency["wait"] = max(0.0, now - pending.closed_at)
            end = pending.audio.speech_end_ns * 1e-9 + pending.delay
            if not pending.audio.speech_end_ns:
                end = pending.closed_at
            latency["total"] = max(0.0, now - end) + seconds
        self.counters["finals"] += 1
        self.counters["abstained"] += estimate.abstained
        self.emit(
            Outcome(
                pending.audio.utterance_id,
                "final",
                pending.audio.stamp_ns,
                estimate,
                latency,
                pending.audio.speech_end_ns,
                error,
            )
        )
        self._save_voices(now, every=SAVE_EVERY)

    def _estimate_provisional(self, pending: _Pending, now: float) -> None:
        if self.engine is None or self._unfit(pending) is not AbstainReason.NONE:
            return  # Nothing to tell before the final outcome.
        started = time.perf_counter()
        estimate, error = self._estimate(pending, False, self._speaker(pending, final=False))
        seconds = time.perf_counter() - started
        latency = self._latency(pending, estimate)
        if self.live:
            latency["total"] = max(0.0, now - pending.heard_until) + seconds
        self.counters["provisionals"] += 1
        self.emit(
            Outcome(
                pending.audio.utterance_id,
                "provisional",
                pending.audio.stamp_ns,
                estimate,
                latency,
                error=error,
            )
        )

    def _latency(self, pending: _Pending, estimate: EmotionEstimate) -> dict[str, float]:
        latency = dict.fromkeys(LATENCY_STAGES, 0.0)
        latency |= {k: v for k, v in estimate.latency.items() if k in latency and k != "total"}
        latency["asr"] = pending.transcript.latency if pending.transcript else 0.0
        latency["total"] = sum(latency.values())
        if self.live:
            latency["queue"] = max(0.0, pending.queued)
        return latency

    def _unfit(self, pending: _Pending) -> AbstainReason:
        """Why there is no point in asking the engine."""
        words = pending.transcript is not None and pending.transcript.usable
        if pending.audio.quality.fault is Fault.FORMAT:
            return AbstainReason.BAD_INPUT
        if pending.audio.robot_speaking:
            return AbstainReason.ROBOT_SPEAKING
        silent = len(pending.audio) == 0 or pending.audio.quality.speech_fraction == 0.0
        return AbstainReason.NO_SPEECH if silent and not words else AbstainReason.NONE

    def _speaker(self, pending: _Pending, final: bool) -> Speaker:
        """Whose the utterance is; final ones are remembered."""
        audio = pending.audio
        fit = self.engine is not None and self._unfit(pending) is AbstainReason.NONE
        if self.voices is None or not fit or not len(audio):
            return NOBODY
        tried = pending.embedding is not None and not audio.at_endpoint
        if not final and (pending.speaker.voice_id or tried):
            # The voice does not change within an utterance; and while the person still speaks, trying
            # again and again would cost more than the estimates.
            return pending.speaker
        try:
            if pending.embedding is None or pending.embedding[0] != len(audio):
                pending.embedding = (len(audio), self._embed(self.voices, audio))
            pending.speaker = self.voices.place(pending.embedding[1], audio.stamp_ns, final)
            return pending.speaker
        except Exception as problem:
            self._failed(f"voice of utterance {audio.utterance_id}", problem)
            return NOBODY

    def _embed(self, voices: VoiceMemory, audio: UtteranceBuffer) -> Embedding:
        """What tells the speaker, while the model hears the voice: neither needs the other."""
        with ThreadPoolExecutor(1) as beside:
            embedding = beside.submit(voices.embed, audio.samples, audio.quality)
            if self.engine is not None:
                # What fails here fails again, and is told, when it estimates.
                with contextlib.suppress(Exception):
                    self.engine.hear(audio.samples, audio.quality)
        return embedding.result()

    def _learn(self, speaker: Speaker, estimate: EmotionEstimate) -> None:
        """Keep how the voice sounded."""
        if self.voices is not None:
            if estimate.voice_statistics is not None:
                self.voices.learn(speaker, estimate.voice_statistics, estimate.baseline_weight)
            self._unsaved = True

    def _keep_words(self, pending: _Pending) -> None:
        """Keep what was said, as context of what follows."""
        words = pending.transcript
        if words is not None and words.usable and not pending.audio.robot_speaking:
            audio = pending.audio
            if self._said and self._said[0][0] > audio.stamp_ns + round(audio.duration * 1e9):
                self._said.clear()  # The sensor's clock was set back.
            self._said.appendleft((audio.stamp_ns + round(audio.duration * 1e9), words.text))

    def _context(self, stamp_ns: int) -> tuple[str, ...]:
        """What was said shortly before `stamp_ns`, latest turn first."""
        turns = (text for end, text in self._said if 0 <= stamp_ns - end <= self._context_age)
        return tuple(islice(turns, self._context_turns))

    def _save_voices(self, now: float, every: float) -> None:
        due = self._unsaved and now - self._saved >= every
        if not due or not self._profiles or self.voices is None or self.engine is None:
            return
        self._saved, self._unsaved = now, False
        try:
            save_profiles(self.voices, Path(self._profiles), self.engine.model_id)
        except HriEmoError as problem:
            self.counters["profiles_not_written"] += 1
            self.last_error = str(problem)
            _logger.error("%s", problem)

    def _estimate(
        self, pending: _Pending, explain: bool, speaker: Speaker
    ) -> tuple[EmotionEstimate, str]:
        """The estimate and an error's text."""
        reason = self._unfit(pending)
        if self.engine is None:
            reason = AbstainReason.NO_MODEL
        transcript = pending.transcript
        audio = pending.audio
        # At the end of an utterance that stopped at its endpoint there is nothing new.
        whose = (speaker.voice_id, speaker.utterances)
        context = self._context(audio.stamp_ns)
        made_of = (len(audio), audio.quality, transcript, explain, whose, context)
        if pending.estimated is not None and pending.estimated[0] == made_of:
            return pending.estimated[1], ""
        error = ""
        voice, room = (None, None) if self.voices is None else self.voices.heard(speaker.voice_id)
        known = 0 if voice is None else speaker.utterances
        if reason is AbstainReason.NONE and self.engine is not None:
            try:
                samples = audio.samples if len(audio) else None
                estimate = self.engine.estimate(
                    samples, transcript, audio.quality, explain, voice, room, context
                )
                estimate = replace(
                    estimate,
                    beginning_lost=audio.beginning_lost,
                    voice_id=speaker.voice_id,
                    voice_utterances=known,
                )
                pending.estimated = (made_of, estimate)
                return estimate, ""
            except Exception as problem:  # Whatever fails in the model, the pipeline lives on.
                reason = AbstainReason.ERROR
                error = self._failed(f"estimate of utterance {audio.utterance_id}", problem)
        estimate = abstained_estimate(self.engine, reason, audio, transcript)
        return replace(estimate, voice_id=speaker.voice_id), error

    def _failed(self, what: str, problem: Exception) -> str:
        known = isinstance(problem, HriEmoError)
        self.last_error = str(problem) if known else f"{type(problem).__name__}: {problem}"
        self.counters["errors"] += 1
        _logger.error("%s failed: %s", what, self.last_error)
        return self.last_error


def _append(before: Transcript, after: Transcript) -> Transcript:
    """Two reports of a recogniser about one utterance."""
    return replace(
        after,
        text=f"{before.text} {after.text}".strip(),
        words=before.words + after.words,
        confidence=min(before.confidence, after.confidence),
        latency=before.latency + after.latency,
    )
