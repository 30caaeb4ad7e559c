# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Which utterances are of one voice: agglomerative clustering on the evidence of a two-covariance model.

A voice is drawn from N(0, diag(between)) and each of its utterances from N(voice, I), in the space of
`VoiceSpace` (N. Brummer and E. de Villiers, "The speaker partitioning problem", Odyssey 2010: PLDA with
full-rank covariances). The evidence of a set of utterances then has a closed form, whatever their number,
so several utterances count for what they are worth together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import FloatArray

SPACE = Path(__file__).parent / "speaker_space.safetensors"
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class VoiceSpace:
    """Where utterances of one voice differ by 1 in every direction, whatever their emotion.

    Fitted once on acted speech of 107 voices (tools/speaker_space.py); see README.md beside.
    """

    mean: FloatArray
    """[256]"""
    projection: FloatArray
    """[256, d]"""
    between: FloatArray
    """[d] variance of voices."""

    def place(self, vector: FloatArray) -> Array:
        """An embedding [256] -> a point [d]."""
        return np.asarray((vector - self.mean) @ self.projection, np.float64)


def load_space(path: Path) -> VoiceSpace:
    """One that tools/speaker_space.py wrote.

    Raises:
        HriEmoError: it is none.
    """
    try:
        return VoiceSpace(**{k: v.astype(np.float32) for k, v in load_file(path).items()})
    except (OSError, SafetensorError, TypeError) as error:
        raise HriEmoError(
            f"cannot read '{path}' as a space of voices ({error}): give a file that "
            "tools/speaker_space.py wrote"
        ) from error


@lru_cache(maxsize=1)
def voice_space() -> VoiceSpace:
    """The one that the package carries."""
    return load_space(SPACE)


@dataclass(frozen=True)
class Points:
    """One utterance, or several of one voice, by what their evidence depends on."""

    count: float
    total: Array
    """[d] sum of the points."""
    square: float
    """Sum of their squared lengths."""

    @staticmethod
    def of(point: Array) -> Points:
        return Points(1.0, point, float(point @ point))

    def __add__(self, other: Points) -> Points:
        return Points(
            self.count + other.count, self.total + other.total, self.square + other.square
        )

    @staticmethod
    def none(size: int) -> Points:
        """Of no utterance; `size` is d."""
        return Points(0.0, np.zeros(size), 0.0)

    def __sub__(self, other: Points) -> Points:
        return Points(
            self.count - other.count, self.total - other.total, self.square - other.square
        )

    def capped(self, most: float) -> Points:
        """The same voice resting on at most `most` utterances."""
        share = most / max(most, self.count)
        return Points(self.count * share, self.total * share, self.square * share)


def _evidence(between: FloatArray, count: Array, total: Array, square: Array) -> Array:
    """Log density [m] of m sets of utterances, without the constant that all partitions share.

    Args:
        count: [m]. total: [m, d]. square: [m].
    """
    different, which = np.unique(count, return_inverse=True)  # few: logarithms are dear
    spread = 1.0 + different[:, None] * between
    explained = np.einsum("md,md->m", total**2, (between / spread)[which])
    return np.asarray(0.5 * (explained - np.log(spread).sum(axis=1)[which] - square))


def cluster(between: FloatArray, items: Sequence[Points], threshold: float) -> list[list[int]]:
    """Merge the two groups that speak most for being one voice until none gains `threshold`.

    Args:
        between: [d], of the `VoiceSpace`.
        threshold: log likelihood ratio of one voice to two at which two groups are joined; below 0
            joins groups that look like two voices.

    Returns:
        Groups of indices into `items`, each with its smallest first.
    """
    if not items:
        return []
    size = len(items)
    count = np.array([item.count for item in items])
    total = np.stack([item.total for item in items])
    square = np.array([item.square for item in items])
    alone = _evidence(between, count, total, square)
    members = [[i] for i in range(size)]
    alive = np.ones(size, bool)
    gain = np.full((size, size), -np.inf)

    def compare(i: int, others: npt.NDArray[np.intp]) -> None:
        together = _evidence(
            between, count[i] + count[others], total[i] + total[others], square[i] + square[others]
        )
        gain[np.minimum(i, others), np.maximum(i, others)] = together - alone[i] - alone[others]

    for i in range(size - 1):
        compare(i, np.arange(i + 1, size))
    for _ in range(size - 1):
        i, j = divmod(int(gain.argmax()), size)
        if not gain[i, j] >= threshold:
            break
        count[i] += count[j]
        total[i] += total[j]
        square[i] += square[j]
        members[i] += members[j]
        alive[j] = False
        gain[j, :] = gain[:, j] = -np.inf
        alone[i] = _evidence(between, count[i : i + 1], total[i : i + 1], square[i : i + 1])[0]
        others = np.flatnonzero(alive)
        compare(i, others[others != i])
    return [sorted(members[i]) for i in np.flatnonzero(alive)]


def ratio(between: FloatArray, one: Points, other: Points) -> float:
    """Log likelihood ratio of two groups being one voice to their being two."""
    parts = (one, other, one + other)
    first, second, both = _evidence(
        between,
        np.array([p.count for p in parts]),
        np.stack([p.total for p in parts]),
        np.array([p.square for p in parts]),
    )
    return float(both - first - second)


def affinity(between: FloatArray, point: Array, group: Points, most: float) -> float:
    """Log density of an utterance [d] given others of its voice, those counting as at most `most`."""
    seen = group.capped(most)
    left = between / (1.0 + seen.count * between)  # what is still unknown of the voice
    spread = 1.0 + left
    return float(-0.5 * ((point - left * seen.total) ** 2 / spread + np.log(spread)).sum())
