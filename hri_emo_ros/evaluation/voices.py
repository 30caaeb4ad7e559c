# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo voices``: how well the voices of a stream are told apart.

Bags of interleaved speakers of one corpus, drawn at random with whatever emotions they have, go through
a `VoiceMemory` as the emotion node's utterances do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hri_emo_ros.data.clips import decode
from hri_emo_ros.data.manifest import Row
from hri_emo_ros.data.metrics import bootstrap_interval
from hri_emo_ros.data.noise import mix
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.evaluate import noise_of, read_rows
from hri_emo_ros.types import SAMPLE_RATE
from hri_emo_ros.voices.clusters import VoiceSpace
from hri_emo_ros.voices.encoder import Embedding, SpeakerEncoder
from hri_emo_ros.voices.memory import VoiceMemory

LONG = 1.5
"""Seconds; shorter utterances are heard but not scored."""
SPOKEN = 5
"""Utterances of a speaker before which none of his is scored."""
_INVENTED_PER = 40


@dataclass(frozen=True)
class _Clip:
    row: Row
    embedding: Embedding
    seconds: float


@dataclass(frozen=True)
class _Bag:
    """A conversation and what was made of it."""

    clips: list[_Clip]
    ids: list[str]

    @property
    def owners(self) -> dict[str, str]:
        """Voice id -> the speaker of most of its utterances."""
        counts: dict[str, Counter[str]] = {}
        for clip, name in zip(self.clips, self.ids, strict=True):
            if name:
                counts.setdefault(name, Counter())[clip.row.speaker] += 1
        return {name: count.most_common(1)[0][0] for name, count in counts.items()}

    def answers(self) -> Iterator[tuple[_Clip, str]]:
        """Clips that are scored, each ``right``, ``wrong`` or ``unsure``."""
        owners, spoken = self.owners, Counter[str]()
        for clip, name in zip(self.clips, self.ids, strict=True):
            if spoken[clip.row.speaker] >= SPOKEN and clip.seconds > LONG:
                right = "right" if owners.get(name) == clip.row.speaker else "wrong"
                yield clip, right if name else "unsure"
            spoken[clip.row.speaker] += 1


def evaluate_voices(
    manifests: Sequence[Path],
    speakers: Sequence[int] = (1, 2, 3, 4),
    bags: int = 10,
    turns: int = 14,
    snr_db: float | None = None,
    noise: str = "pink",
    seed: int = 0,
    space: VoiceSpace | None = None,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Draw bags, run them, count.

    Args:
        manifests: CSVs as of `hri-emo evaluate` with the column speaker; the speakers of a bag are of one.
        speakers: how many are in a bag; `bags` of each number and manifest.
        turns: utterances of each speaker in a bag.
        snr_db: adds noise at this signal-to-noise ratio to every clip.
        noise: pink, white, babble or a folder.
        space: compares voices instead of the package's own, for speakers that the latter was fitted on.
        progress: called after each clip and each bag.

    Returns:
        Figures over all, by manifest, by number of speakers and by sex. Intervals are 95 % bootstrap over
        bags.

    Raises:
        HriEmoError: a manifest cannot be used, or a number of speakers is asked for that it has not.
    """
    rng = np.random.default_rng(seed)
    played: list[tuple[str, int, _Bag]] = []
    for manifest in manifests:
        by_speaker = _by_speaker(manifest, turns, max(speakers), snr_db, noise, progress)
        for count in speakers:
            for _ in range(bags):
                clips = _draw(rng, by_speaker, count, turns)
                memory = VoiceMemory() if space is None else VoiceMemory(space=space)
                ids = [
                    memory.place(clip.embedding, number * 1_000_000_000).voice_id
                    for number, clip in enumerate(clips)
                ]
                played.append((manifest.parent.name, count, _Bag(clips, ids)))
                progress()
    names = sorted({name for name, _, _ in played})
    return {
        **_figures([bag for _, _, bag in played]),
        "by_manifest": {n: _figures([b for name, _, b in played if name == n]) for n in names},
        "by_speakers": {str(k): _figures([b for _, c, b in played if c == k]) for k in speakers},
        "by_sex": {
            sex: _rates([bag for _, _, bag in played], sex)
            for sex in sorted({clip.row.sex for _, _, bag in played for clip in bag.clips})
            if sex
        },
        "snr_db": snr_db,
        "noise": noise if snr_db is not None else "",
        "bags": len(played),
        "seed": seed,
    }


def _by_speaker(
    manifest: Path,
    turns: int,
    most: int,
    snr_db: float | None,
    noise: str,
    progress: Callable[[], None],
) -> dict[str, list[_Clip]]:
    """Clips of the speakers who have enough of them, embedded."""
    found = read_rows(manifest, "audio")
    counts = Counter(row.speaker for row in found.rows if row.speaker)
    rows = [row for row in found.rows if counts[row.speaker] >= turns]
    usable = len({row.speaker for row in rows})
    if usable < most:
        raise HriEmoError(
            f"bags of {most} voices with {turns} utterances each need as many speakers in '{manifest}' "
            f"(column speaker), which has {usable}: give --voices or --turns smaller numbers"
        )
    found.rows = rows
    encoder = SpeakerEncoder()
    source = None if snr_db is None else noise_of(noise, found)(0)
    clips: dict[str, list[_Clip]] = {}
    for row in rows:
        assert row.path is not None
        samples = decode(row.path, row.start, row.end, min(row.seconds, 60.0))
        if source is not None and snr_db is not None:
            samples = mix(samples, source.take(len(samples)), snr_db)
        seconds = len(samples) / SAMPLE_RATE
        clips.setdefault(row.speaker, []).append(_Clip(row, encoder.embed(samples), seconds))
        progress()
    return clips


def _draw(
    rng: np.random.Generator, clips: dict[str, list[_Clip]], count: int, turns: int
) -> list[_Clip]:
    chosen = rng.choice(sorted(clips), count, replace=False)
    drawn = [clips[name][i] for name in chosen for i in rng.permutation(len(clips[name]))[:turns]]
    return [drawn[i] for i in rng.permutation(len(drawn))]


def _rates(bags: Sequence[_Bag], sex: str = "") -> dict[str, Any]:
    """Shares of the scored utterances, with intervals for the wrong ones."""
    answers = [[a for clip, a in bag.answers() if sex in ("", clip.row.sex)] for bag in bags]
    wrong = np.array([part.count("wrong") for part in answers])
    unsure = np.array([part.count("unsure") for part in answers])
    scored = np.array([len(part) for part in answers])

    def share(chosen: npt.NDArray[np.int64]) -> float:
        return float(wrong[chosen].sum() / max(1, scored[chosen].sum()))

    interval = bootstrap_interval(share, len(bags))
    return {
        "scored": int(scored.sum()),
        "wrong": interval.value,
        "wrong_interval": [interval.low, interval.high],
        "unsure": float(unsure.sum() / max(1, scored.sum())),
    }


def _figures(bags: Sequence[_Bag]) -> dict[str, Any]:
    speakers = np.array([len({clip.row.speaker for clip in bag.clips}) for bag in bags])
    heard = np.array([len(bag.clips) for bag in bags])
    found = np.array([len(bag.owners) for bag in bags])
    known = np.array([len(set(bag.owners.values())) for bag in bags])

    def invented(chosen: npt.NDArray[np.int64]) -> float:
        return float((found - known)[chosen].sum() / heard[chosen].sum() * _INVENTED_PER)

    interval = bootstrap_interval(invented, len(bags))
    return {
        **_rates(bags),
        "speakers": float(speakers.mean()),
        "voices_found": float(found.mean()),
        "speakers_found": float(known.mean()),
        "invented_per_40": interval.value,
        "invented_interval": [interval.low, interval.high],
    }
