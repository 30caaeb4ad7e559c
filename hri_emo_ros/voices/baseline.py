# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""How a voice usually sounds: a hierarchy of means, population, room, voice.

What is averaged is one vector an utterance, `u` [D], that the voice encoder gives; nothing here looks
into it. Each level is shrunk to the one above by how much it rests on (an empirical Bayes estimate with
a prior worth K utterances: C. Morris, "Parametric empirical Bayes inference", JASA 78(381), 1983).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hri_emo_ros.types import FloatArray


@dataclass(frozen=True)
class Heard:
    """What has been heard of one voice, or of several."""

    total: FloatArray
    """[D] sum of weight * u."""
    count: float
    """Sum of the weights: the effective number of utterances."""

    @staticmethod
    def nothing(size: int) -> Heard:
        """Of no utterance yet; `size` is D."""
        return Heard(np.zeros(size, np.float32), 0.0)

    def add(self, u: FloatArray, weight: float = 1.0) -> Heard:
        """With one more utterance; `weight` in [0, 1]."""
        return Heard(
            np.asarray(self.total + np.float32(weight) * u, np.float32), self.count + weight
        )

    def __add__(self, other: Heard) -> Heard:
        return Heard(np.asarray(self.total + other.total, np.float32), self.count + other.count)

    def scaled(self, factor: float) -> Heard:
        """The same mean resting on `factor` times as much."""
        return Heard(np.asarray(self.total * np.float32(factor), np.float32), self.count * factor)

    def capped(self, most: float) -> Heard:
        """The same mean resting on at most `most` utterances."""
        return self if self.count <= most else self.scaled(most / self.count)


@dataclass(frozen=True)
class Baseline:
    """What an utterance is judged against."""

    mean: FloatArray
    """[D] what this voice usually gives."""
    voice_count: float
    """Effective number of utterances of the voice in it; 0 for an unknown voice."""
    room_count: float
    """Effective number of utterances of other voices of the stream in it."""


class BaselineConfig(BaseModel):
    """How far each level is trusted; part of a bundle's config.json."""

    model_config = ConfigDict(extra="forbid")

    shrink_room: float = Field(4.0, gt=0.0)
    """Utterances of others at which the room counts as much as the population."""
    shrink_voice: float = Field(4.0, gt=0.0)
    """Utterances of the voice at which it counts as much as its room."""
    most_of_voice: float = Field(6.0, gt=0.0)
    """More utterances of the voice count as that many. What is gained with more is small, and somebody who is
    angry for long would become neutral."""
    most_of_room: float = Field(32.0, gt=0.0)
    """More utterances of others count as that many."""


def combine(
    config: BaselineConfig, population: FloatArray, voice: Heard | None, room: Heard | None
) -> Baseline:
    """Shrink the room to the population and the voice to the room.

    Args:
        population: [D] mean of the training speakers' means.
        voice: of the voice that speaks; None if it is unknown.
        room: of the stream's other voices; None if none was heard.
    """
    nothing = Heard.nothing(len(population))
    voice = (voice or nothing).capped(config.most_of_voice)
    room = (room or nothing).capped(config.most_of_room)
    mean = (room.total + config.shrink_room * population) / (room.count + config.shrink_room)
    mean = (voice.total + config.shrink_voice * mean) / (voice.count + config.shrink_voice)
    return Baseline(np.asarray(mean, np.float32), voice.count, room.count)
