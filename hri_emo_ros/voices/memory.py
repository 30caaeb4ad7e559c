# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The voices of a stream: who speaks, and what each has given so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from hri_emo_ros.types import FloatArray, SignalQuality
from hri_emo_ros.voices.baseline import Heard
from hri_emo_ros.voices.clusters import (
    Array,
    Points,
    VoiceSpace,
    affinity,
    cluster,
    ratio,
    voice_space,
)
from hri_emo_ros.voices.encoder import NOTHING, Embedding, SpeakerEncoder, VoiceEncoder

LEAST_SPEECH = 0.8
"""Seconds of speech below which nobody is told by the voice."""
LEAST_SNR = 3.0
"""dB below which nobody is."""
_KEPT = 64
"""Utterances kept one by one, so that they can still change voice."""
_JOIN = -5.0
"""Log likelihood ratio at which two groups are one voice."""
_LEAST_GROUP = 5
"""Utterances that make a new voice, once there is one."""
_FAR, _LEAST_FAR = -25.0, 2
"""So many are enough where the ratio to every voice known is below this: of one voice in another emotion, half a
percent of utterances are below -12."""
_TEMPER = 0.2
"""Power of the likelihoods when utterances are compared: what one emotion does to a voice is common to all
frames and directions, so they say less than they seem to."""
_NEW = 0.3
"""Odds of a voice never heard against each of those heard."""
_SURE = 0.9
"""Posterior probability from which on an utterance is a voice's."""
_MOST_POINTS = 16.0
"""A voice rests on as many utterances at most: it can still drift."""
_MOST_OTHER = 32.0
"""Utterances that a voice counts as at most in what everybody else gave."""
_FADE = 64.0
"""Utterances of a voice after which an older one counts half in its baseline."""


@dataclass(frozen=True)
class Speaker:
    """Whose an utterance is taken to be."""

    voice_id: str
    """``v1``, ``v2``, ...; empty where it cannot be told."""
    utterances: int
    """Of that voice heard before this one; 0 where it cannot be told."""
    number: int = -1
    """Of the utterance in the memory, for `VoiceMemory.learn`; -1 if it was not kept."""


NOBODY = Speaker("", 0)


@dataclass(eq=False)
class _Utterance:
    """One that may still change voice."""

    number: int
    point: Array
    seconds: float
    group: str = ""
    """Id of the voice whose group it is in; empty for none."""
    told: str = ""
    """The voice that it was said to be of; empty where none was."""
    doubtful: bool = False
    """Its group is not the voice that it was said to be of."""
    heard: Heard | None = None
    """Its weighted statistics."""

    @property
    def voice(self) -> str:
        """The voice that it counts for, empty for none; that of its group, which may change."""
        return self.told if self.doubtful else self.group or self.told


@dataclass
class Voice:
    """What is known of a voice besides its latest utterances."""

    last_heard_ns: int
    points: Points | None = None
    heard: Heard | None = None
    utterances: int = 0
    seconds: float = 0.0


@dataclass
class VoiceMemory:
    """Tells voices apart and keeps what each usually gives.

    An utterance joins the voices heard by clustering all that is kept, so several that belong together
    correct what a single one could not tell: two voices taken for one part, and one taken for two is
    joined again. An id once given keeps the voice that most of its utterances are of, and is never given
    anew. Memory is bounded by `most_voices`. Not thread-safe.

    Args:
        most_voices: more are not kept; the one heard longest ago is forgotten.
        forget_after: seconds without a word after which a voice is forgotten; 0 never.
        counters: what happens is counted here, under keys beginning with ``voice``.
        encoder: tells how a voice sounds.
        space: in which voices are compared; the package's own unless an evaluation leaves speakers out.
    """

    most_voices: int = 16
    forget_after: float = 0.0
    space: VoiceSpace = field(default_factory=lambda: voice_space())
    counters: dict[str, int] = field(default_factory=dict)
    encoder: VoiceEncoder = field(default_factory=SpeakerEncoder)

    def __post_init__(self) -> None:
        for name in ("voices_found", "voices_forgotten", "voices_joined", "voice_unsure"):
            self.counters.setdefault(name, 0)
        self._recent: list[_Utterance] = []
        self._voices: dict[str, Voice] = {}
        self._rest: Heard | None = None
        """Of utterances without a voice that are no longer kept one by one."""
        self._found: tuple[list[_Group], dict[int, str]] | None = None
        """Groups of what is kept, and those that are voices; None where they may have changed."""
        self._numbers = 0
        self._next = 1

    @property
    def names(self) -> list[str]:
        """Ids of the voices known."""
        return list(self._voices)

    @property
    def voices(self) -> dict[str, Voice]:
        """By id, everything of each voice taken together."""
        return {name: self._whole(name) for name in self._voices}

    @property
    def next_number(self) -> int:
        """Of the next new voice's id."""
        return self._next

    def restore(self, voices: dict[str, Voice], next_number: int) -> None:
        """Go on with the voices of an earlier memory; those heard longest ago beyond the limit go.

        Raises:
            ValueError: an id is not below `next_number`, or a point has another length than the space's.
        """
        for name, voice in voices.items():
            if not int(name[1:]) < next_number:
                raise ValueError(f"{name} is not below {next_number}")
            if voice.points is not None and voice.points.total.shape != self.space.between.shape:
                raise ValueError(f"{name} has a point of {voice.points.total.shape}")
        self._voices, self._next = dict(voices), max(self._next, next_number)
        self._found = None
        self._keep_within("")

    def warm_up(self) -> None:
        """Load what the first utterance would otherwise wait for."""
        self.encoder.warm_up()

    def identify(
        self,
        samples: FloatArray,
        quality: SignalQuality | None = None,
        stamp_ns: int = 0,
        final: bool = True,
    ) -> Speaker:
        """`embed` and `place` at once."""
        return self.place(self.embed(samples, quality), stamp_ns, final)

    def embed(self, samples: FloatArray, quality: SignalQuality | None = None) -> Embedding:
        """What an utterance tells of its speaker.

        Args:
            samples: [n] float32, 16 kHz mono.
            quality: of the samples; below 3 dB they tell nothing.
        """
        if quality is not None and quality.snr_db < LEAST_SNR:
            return NOTHING
        return self.encoder.embed(samples)

    def place(self, embedding: Embedding, stamp_ns: int = 0, final: bool = True) -> Speaker:
        """Say whose an utterance is.

        Args:
            embedding: of `embed`; with less than 0.8 s of speech nobody is told.
            stamp_ns: when it was spoken, ns.
            final: whether the utterance is whole and to be remembered; otherwise nothing changes.
        """
        if final:
            self._forget_silent(stamp_ns)
        if embedding.seconds < LEAST_SPEECH:
            self.counters["voice_unsure"] += final
            return NOBODY
        utterance = _Utterance(-1, self.space.place(embedding.vector), embedding.seconds)
        return self._remember(utterance, stamp_ns) if final else self._guess(utterance)

    def learn(self, speaker: Speaker, statistics: FloatArray, weight: float) -> None:
        """Take what an utterance gave into its voice's baseline.

        Args:
            speaker: as `place` returned it for a final utterance.
            statistics: [D], the same D in every call.
            weight: how much it counts, [0, 1].
        """
        heard = Heard.nothing(len(statistics)).add(statistics, weight)
        for utterance in reversed(self._recent):
            if utterance.number == speaker.number:
                utterance.heard = heard
                return
        self._rest = _faded(self._rest, heard)

    def heard(self, voice_id: str) -> tuple[Heard | None, Heard | None]:
        """What was learnt of a voice, and of everybody else; None where nothing was.

        Nobody counts as more than 32 utterances of everybody else.
        """
        heard = {name: self._whole(name).heard for name in self._voices}
        own = heard.pop(voice_id, None)
        others = [h.capped(_MOST_OTHER) for h in heard.values() if h is not None]
        nobodys = [u.heard for u in self._recent if not u.voice]
        return own, _sum([self._rest, *nobodys, *others])

    def forget(self, voice_id: str | None = None) -> int:
        """Forget a voice, or with None everything; returns how many voices that were."""
        if voice_id is None:
            count = len(self._voices)
            self._voices.clear()
            self._recent.clear()
            self._rest = None
        else:
            count = int(self._voices.pop(voice_id, None) is not None)
            self._recent = [u for u in self._recent if voice_id not in (u.voice, u.group)]
            for utterance in self._recent:
                if utterance.told == voice_id:
                    utterance.told = ""
        self._found = None
        self.counters["voices_forgotten"] += count
        return count

    def _guess(self, utterance: _Utterance) -> Speaker:
        """By the groups as they were last found."""
        if self._found is None:
            groups = self._groups(self._recent)
            self._found = (groups, self._named(groups))
        name = self._tell(utterance, *self._found)
        return Speaker(name, self._whole(name).utterances) if name else NOBODY

    def _remember(self, utterance: _Utterance, stamp_ns: int) -> Speaker:
        self._numbers += 1
        utterance.number = self._numbers
        self._recent.append(utterance)
        groups = self._groups(self._recent)
        names = self._named(groups)
        for k, group in enumerate(groups):
            if k not in names and self._proven(group, [groups[i] for i in names]):
                names[k] = self._new_voice(stamp_ns)
        for k, group in enumerate(groups):
            for member in group.members:
                member.group = names.get(k, "")
            for name in group.voices:
                if k in names and name not in names.values():
                    self._join(name, names[k])
        for name in [n for n, voice in self._voices.items() if not voice.points]:
            if not any(u.group == name for u in self._recent):
                self._join(name, "")  # All its utterances turned out to be others'.
        utterance.told = self._tell(utterance, groups, names)
        utterance.doubtful = utterance.group != "" and utterance.told != utterance.group
        speaker = NOBODY
        if utterance.told:
            self._voices[utterance.told].last_heard_ns = stamp_ns
            speaker = Speaker(utterance.told, self._whole(utterance.told).utterances - 1)
        else:
            self.counters["voice_unsure"] += 1
        self._found = (groups, names)
        self._let_go()
        self._keep_within(utterance.voice)
        return replace(speaker, number=utterance.number)

    def _keep_within(self, speaking: str) -> None:
        """Forget the voices heard longest ago beyond `most_voices`, never the one that speaks."""
        while len(self._voices) > self.most_voices:
            others = [name for name in self._voices if name != speaking]
            self.forget(min(others, key=lambda name: self._voices[name].last_heard_ns))

    def _proven(self, group: _Group, voices: list[_Group]) -> bool:
        """Whether a group is a voice of its own beside those known."""
        size = len(group.members)
        if not voices or size >= _LEAST_GROUP:
            return True
        own = _total(group.points)
        return size >= _LEAST_FAR and all(
            ratio(self.space.between, own, _total(voice.points)) < _FAR for voice in voices
        )

    def _new_voice(self, stamp_ns: int) -> str:
        name = f"v{self._next}"
        self._next += 1
        self._voices[name] = Voice(stamp_ns)
        self.counters["voices_found"] += 1
        return name

    def _join(self, gone: str, kept: str) -> None:
        """`gone` turned out to be `kept`, or several; its id is not given again."""
        voice = self._voices.pop(gone)
        if kept:
            self._voices[kept] = _joined(self._voices[kept], voice)
        for utterance in self._recent:
            if utterance.told == gone:
                utterance.told = kept
        self.counters["voices_joined"] += 1

    def _forget_silent(self, now_ns: int) -> None:
        if self.forget_after <= 0:
            return
        oldest = now_ns - round(self.forget_after * 1e9)
        for name, voice in list(self._voices.items()):
            # Where the sensor's clock was set back, nobody is kept longer for it.
            voice.last_heard_ns = min(voice.last_heard_ns, now_ns)
            if voice.last_heard_ns < oldest:
                self.forget(name)

    def _let_go(self) -> None:
        """Fold the oldest utterance beyond what is kept into its voice."""
        while len(self._recent) > _KEPT:
            old = self._recent.pop(0)
            if old.voice:
                self._voices[old.voice] = _with(self._voices[old.voice], [old])
            elif old.heard is not None:
                self._rest = _faded(self._rest, old.heard)

    def _whole(self, name: str) -> Voice:
        return _with(self._voices[name], (u for u in self._recent if u.voice == name))

    def _groups(self, recent: list[_Utterance]) -> list[_Group]:
        """Partition what is kept; each voice's older utterances go as one."""
        older = [(name, voice.points) for name, voice in self._voices.items() if voice.points]
        items = [points for _, points in older] + [Points.of(u.point) for u in recent]
        parts = cluster(self.space.between, items, _JOIN)
        return [
            _Group(
                [older[i][0] for i in part if i < len(older)],
                [recent[i - len(older)] for i in part if i >= len(older)],
                [items[i] for i in part],
            )
            for part in parts
        ]

    def _named(self, groups: list[_Group]) -> dict[int, str]:
        """Group -> the id that most of it carries; an id goes to the group that has most of it."""
        votes: dict[tuple[int, str], float] = {}
        for k, group in enumerate(groups):
            for member in group.members:
                if member.group:
                    votes[k, member.group] = votes.get((k, member.group), 0.0) + 1.0
            for name in group.voices:
                points = self._voices[name].points
                votes[k, name] = votes.get((k, name), 0.0) + (points.count if points else 0.0)
        names: dict[int, str] = {}
        for k, name in sorted(votes, key=lambda v: (-votes[v], int(v[1][1:]))):
            if k not in names and name not in names.values():
                names[k] = name
        return names

    def _tell(self, utterance: _Utterance, groups: list[_Group], names: dict[int, str]) -> str:
        """The voice that explains the utterance better by far than the others and than a new one; empty
        if none does."""
        own = Points.of(utterance.point)
        scores, told = [np.log(_NEW) + self._score(utterance, Points.none(len(own.total)))], [""]
        for k, group in enumerate(groups):
            points = _total(group.points)
            if utterance in group.members:
                if k in names and len(group.points) == 1:
                    return names[k]  # A new voice's first utterance.
                points = points - own
            if k in names or points.count > 1.5:
                scores.append(self._score(utterance, points))
                told.append(names.get(k, ""))
        odds = np.exp(np.array(scores) - max(scores))
        best = int(odds.argmax())
        return told[best] if odds[best] / odds.sum() >= _SURE else ""

    def _score(self, utterance: _Utterance, points: Points) -> float:
        return _TEMPER * affinity(self.space.between, utterance.point, points, _MOST_POINTS)


@dataclass
class _Group:
    voices: list[str]
    """Whose older utterances are in it."""
    members: list[_Utterance]
    points: list[Points]


def _total(points: Iterable[Points]) -> Points:
    first, *others = points
    for other in others:
        first = first + other
    return first


def _sum(parts: Iterable[Heard | None]) -> Heard | None:
    total: Heard | None = None
    for part in parts:
        if part is not None:
            total = part if total is None else total + part
    return total


def _faded(before: Heard | None, new: Heard | None) -> Heard | None:
    """`new` on top of what was heard, which then counts a little less."""
    if before is None or new is None:
        return before or new
    return before.scaled(2.0 ** (-new.count / _FADE)) + new


def _with(voice: Voice, utterances: Iterable[_Utterance]) -> Voice:
    """The voice with some of its utterances folded in, oldest first."""
    points, heard = voice.points, voice.heard
    count, seconds = voice.utterances, voice.seconds
    for utterance in utterances:
        point = Points.of(utterance.point)
        points = (point if points is None else points + point).capped(_MOST_POINTS)
        heard = _faded(heard, utterance.heard)
        count += 1
        seconds += utterance.seconds
    return Voice(voice.last_heard_ns, points, heard, count, seconds)


def _joined(one: Voice, other: Voice) -> Voice:
    points = [p for p in (one.points, other.points) if p is not None]
    return Voice(
        max(one.last_heard_ns, other.last_heard_ns),
        _total(points).capped(_MOST_POINTS) if points else None,
        _sum([one.heard, other.heard]),
        one.utterances + other.utterances,
        one.seconds + other.seconds,
    )
