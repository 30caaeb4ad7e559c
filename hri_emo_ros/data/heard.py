# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Which other clips stand for what was heard of a voice and its room, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hri_emo_ros.types import FloatArray
from hri_emo_ros.voices.baseline import Heard

IntArray = npt.NDArray[np.int64]


def pick(
    rng: np.random.Generator,
    pool: IntArray,
    neutral: npt.NDArray[np.bool_],
    count: int | None,
    share: float | None,
) -> IntArray:
    """`count` different ones of `pool`, or as many as there are.

    Args:
        neutral: of which clip of the pool the label is neutral.
        count: None takes all.
        share: of neutral ones among them, as far as there are so many of each; None draws as they come.
    """
    if count is None or len(pool) == 0:
        return pool
    if share is None:
        return rng.choice(pool, min(count, len(pool)), replace=False)
    calm, moved = pool[neutral], pool[~neutral]
    wanted = min(round(share * count), len(calm))
    return np.concatenate(
        [
            rng.choice(calm, wanted, replace=False),
            rng.choice(moved, min(count - wanted, len(moved)), replace=False),
        ]
    )


class Crowd:
    """Clips by speaker, and who is heard in the same room.

    Args:
        speakers: of each clip; empty where it is not known: nobody's voice, and in nobody's room.
        rooms: of each clip, anything that compares.
        neutral: [n] bool.
    """

    def __init__(
        self, speakers: Sequence[str], rooms: Sequence[str], neutral: npt.NDArray[np.bool_]
    ) -> None:
        self.speakers, self.rooms, self.neutral = np.array(speakers), np.array(rooms), neutral
        known = self.speakers != ""
        self._voices = _by(self.speakers, known)
        self._rooms = _by(self.rooms, known)

    def own(self, index: int) -> IntArray:
        """Other clips of the same speaker."""
        clips = self._voices.get(self.speakers[index], np.zeros(0, np.int64))
        return clips[clips != index]

    def others(self, index: int) -> IntArray:
        """Clips of other speakers in the same room."""
        clips = self._rooms.get(self.rooms[index], np.zeros(0, np.int64))
        return clips[self.speakers[clips] != self.speakers[index]]

    def draw(
        self,
        rng: np.random.Generator,
        index: int,
        voice: int | None,
        room: int | None,
        share: float | None,
    ) -> tuple[IntArray, IntArray]:
        """`voice` clips of the speaker and `room` clips of others (see `pick`), never the clip itself."""
        own, others = self.own(index), self.others(index)
        return (
            pick(rng, own, self.neutral[own], voice, share),
            pick(rng, others, self.neutral[others], room, share),
        )


def _by(names: npt.NDArray[np.str_], known: npt.NDArray[np.bool_]) -> dict[str, IntArray]:
    return {str(name): np.flatnonzero((names == name) & known) for name in np.unique(names)}


def heard_of(statistics: FloatArray) -> Heard:
    """What utterances of statistics [n, D] amount to, each counted in full."""
    return Heard(np.asarray(statistics.sum(0), np.float32), float(len(statistics)))
