# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Telling speech from other sounds: a logistic regression over what the frozen voice encoder says of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from hri_emo_ros.data.clip_facts import samples_of
from hri_emo_ros.data.corpus import Item
from hri_emo_ros.data.noise import NoiseBank, mix
from hri_emo_ros.data.sounds import other_sound
from hri_emo_ros.model.baseline import voice_statistics
from hri_emo_ros.model.network import EmotionModel
from hri_emo_ros.training.voices import VoiceStates
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

SPEECH_THRESHOLD = 0.5
"""Of the probability: 96 % of 160 recorded sounds that are no speech, of people never heard, lie below."""
_SOUNDS, _OF_EACH = 480, 4
"""Made in all, and of one clip, at most."""
_NOISE_SHARE, _IN_NOISE = 0.15, 0.7
"""Of the sounds that are nothing but noise, and of the others that stand in some."""
_STRENGTH = 0.01
"""Inverse regularisation of the regression."""


@torch.no_grad()
def fit_speech(
    model: EmotionModel, voices: Sequence[Item], states: VoiceStates, bank: NoiseBank, seed: int
) -> None:
    """Fill in `model.speech` from clean training voices and as many kinds of other sounds.

    Args:
        model: with its baseline measured.
        voices: training clips, whose states are loaded; sounds are made out of some of them.
        bank: noises, which are sounds too.
        seed: of the draws.
    """
    rng = np.random.default_rng([seed, 5])
    count = min(_SOUNDS, _OF_EACH * len(voices))
    sounds = [_sound(voices[int(rng.integers(len(voices)))], bank, rng) for _ in range(count)]
    statistics = [states.statistics(item, 0) for item in voices]
    for sound in sounds:
        heard = torch.from_numpy(states.encode(sound).astype(np.float32))[None]
        everywhere = torch.ones(heard.shape[:2], dtype=torch.bool)
        statistics.append(voice_statistics(heard, everywhere)[0].numpy())
    population = model.baseline.population[None]
    _, absolute = model.baseline.compare(torch.from_numpy(np.stack(statistics)), population)
    is_speech = np.arange(len(statistics)) < len(voices)
    fitted = LogisticRegression(C=_STRENGTH, max_iter=500, class_weight="balanced").fit(
        absolute.numpy(), is_speech
    )
    model.speech.weight.copy_(torch.from_numpy(fitted.coef_))
    model.speech.bias.copy_(torch.from_numpy(fitted.intercept_))


def _sound(voice: Item, bank: NoiseBank, rng: np.random.Generator) -> FloatArray:
    kinds = [kind for kind in bank.kinds if kind != "babble"]
    kind = kinds[int(rng.integers(len(kinds)))]
    if rng.random() < _NOISE_SHARE:
        noise = bank.stretch(kind, int(rng.uniform(1, 4) * SAMPLE_RATE), rng)
        return np.asarray(0.05 * noise, dtype=np.float32)
    sound = other_sound(samples_of(voice), rng)
    if rng.random() >= _IN_NOISE:
        return sound
    return mix(sound, bank.stretch(kind, len(sound), rng), float(rng.uniform(10.0, 45.0)))
