# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What is known of a voice before an utterance: drawn for training, stated for validation.

A voice's baseline is made of its other clips of the same version (`training.voices`).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np

from hri_emo_ros.data.corpus import Item
from hri_emo_ros.data.heard import Crowd, heard_of
from hri_emo_ros.training.voices import VoiceStates
from hri_emo_ros.types import LABELS, FloatArray
from hri_emo_ros.voices.baseline import Baseline, BaselineConfig, combine

_NEUTRAL = LABELS.index("neutral")

_NOTHING, _NOBODY = 0.25, 0.35
"""Chances that nothing is known of the voice, and that nobody else was heard in the room."""
_MOST_OWN, _OTHERS = 32, (2, 40)
"""Else so many utterances, as many as there are, even on a logarithmic scale."""
_AS_THEY_COME, _CONVERSATION = 0.35, 0.35
"""Chances that these are drawn whatever their emotion, and that `NEUTRAL_SHARE` of them are neutral as in
conversations; else any share is."""
NEUTRAL_SHARE = 0.7

KNOWN = {"0": (0, 0), "0 in a room": (0, 20), "3": (3, 0), "10": (10, 0), "10 in a room": (10, 20)}
"""How many utterances of the voice and of others the validation side is scored with, by name."""


class Known:
    """Draws baselines.

    Args:
        config: of the network.
        states: with the statistics of every item and version.
        items: that are heard; without a speaker nothing is known of the voice.
        versions: changed versions that are loaded.
        population: [D].
    """

    def __init__(
        self, config: BaselineConfig, states: VoiceStates, items: Sequence[Item], versions: int,
        population: FloatArray,
    ) -> None:  # fmt: skip
        self.config, self.states, self.items = config, states, list(items)
        self._index = {item.id: k for k, item in enumerate(items)}
        neutral = np.array([item.class_index == _NEUTRAL for item in items])
        speakers = [item.speaker for item in items]
        self._crowds = [
            Crowd(speakers, [states.rooms(item, v) for item in items], neutral)
            for v in range(versions + 1)
        ]
        self.population = population

    def draw(self, item: Item, version: int, rng: np.random.Generator) -> Baseline:
        """For training: any number, any mixture."""
        voice = 0 if rng.random() < _NOTHING else _log_uniform(rng, 1, _MOST_OWN)
        room = 0 if rng.random() < _NOBODY else _log_uniform(rng, *_OTHERS)
        chance = rng.random()
        share: float | None = float(rng.random())
        if chance < _AS_THEY_COME:
            share = None
        elif chance < _AS_THEY_COME + _CONVERSATION:
            share = NEUTRAL_SHARE
        return self._baseline(item, version, rng, voice, room, share)

    def stated(self, item: Item, voice: int, room: int) -> Baseline:
        """For validation: so many clean clips, the same each time."""
        rng = np.random.default_rng([zlib.crc32(item.id.encode()), voice, room])
        return self._baseline(item, 0, rng, voice, room, NEUTRAL_SHARE)

    def _baseline(
        self, item: Item, version: int, rng: np.random.Generator, voice: int, room: int,
        share: float | None,
    ) -> Baseline:  # fmt: skip
        crowd = self._crowds[version]
        parts = [
            heard_of(self._statistics(rows, version)) if len(rows) else None
            for rows in crowd.draw(rng, self._index[item.id], voice, room, share)
        ]
        return combine(self.config, self.population, *parts)

    def _statistics(self, rows: np.ndarray, version: int) -> FloatArray:
        return np.stack([self.states.statistics(self.items[k], version) for k in rows])


def _log_uniform(rng: np.random.Generator, low: int, high: int) -> int:
    return round(math.exp(rng.uniform(math.log(low), math.log(high))))
