"""Modalities made bad on purpose: without it a gate has nothing to learn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hri_emo_ros.data.corpus import Item
from hri_emo_ros.training.augment_config import RuinSection
from hri_emo_ros.training.pairs import Example, Target, blend
from hri_emo_ros.training.text_augment import WordErrors, confidence_after

_HALF_SNR_DB = -4.0
"""Where half of what a voice says about emotion is lost: at -5 dB the recall above chance is 0.46 of that of
clean voices in pink noise, 0.71 in recorded noise, 0.11 in babble. It only shapes the targets of pairs whose
voice and words disagree."""
_SNR_SLOPE_DB = 3.0
_INTACT_SNR_DB = 40.0


@dataclass(frozen=True)
class Ruined:
    """What has become of an example, and what the network is told of it."""

    target: Target
    words_target: Target
    voice: bool
    """The voice is still there."""
    words: bool
    text: str | None
    noise: str = ""
    """Kind of the noise to add; empty for none."""
    noise_snr_db: float = math.nan
    """Its level, as ``hri-emo evaluate`` mixes; NaN for none."""
    told_snr_db: float = math.nan
    """NaN: unknown."""
    confidence: float = 1.0


def intact(example: Example) -> Ruined:
    """The example as it is, with nothing told of its quality."""
    return Ruined(
        target=example.target,
        words_target=example.words_target,
        voice=example.voice is not None,
        words=example.words is not None,
        text=example.words.text if example.words is not None else None,
    )


class Ruin:
    """Draws what happens to an example.

    Args:
        config: probabilities and ranges.
        errors: makes recognition errors.
        strangers: texts to draw an invented sentence from.
        quality: item id -> SNR (dB) and seconds of speech of the clean clip.
        noises: kinds of noise at hand; without any, none is added.
    """

    def __init__(
        self,
        config: RuinSection,
        errors: WordErrors,
        strangers: Sequence[Item],
        quality: Mapping[str, tuple[float, float]],
        noises: Sequence[str] = (),
    ) -> None:
        self.config, self.errors, self.strangers = config, errors, list(strangers)
        self.quality, self.noises = quality, tuple(noises)

    def __call__(self, example: Example, rng: np.random.Generator) -> Ruined:
        """Draw for one example; never are both modalities dropped."""
        c = self.config
        voice, words = example.voice is not None, example.words is not None
        drop = rng.random()
        drop_audio = voice and words and drop < c.drop_audio_p
        drop_text = voice and words and not drop_audio and drop < c.drop_audio_p + c.drop_text_p
        snr = math.nan
        audible = example.voice is not None and example.voice.audio is not None
        if self.noises and audible and not drop_audio and rng.random() < c.audio_noise_p:
            snr = float(rng.uniform(*c.snr_db))
        if drop_text or not words:
            return self.state(example, voice and not drop_audio, snr, rng=rng)
        if self.strangers and rng.random() < c.random_text_p:
            return self.state(example, voice and not drop_audio, snr, stranger=True, rng=rng)
        rate = float(rng.uniform(*c.error_rate)) if rng.random() < c.text_errors_p else 0.0
        return self.state(example, voice and not drop_audio, snr, rate, rng=rng)

    def state(
        self,
        example: Example,
        voice: bool,
        noise_snr_db: float = math.nan,
        error_rate: float | None = None,
        stranger: bool = False,
        rng: np.random.Generator | None = None,
        noise: str = "",
    ) -> Ruined:
        """The example in a given condition.

        Args:
            voice: keep the voice.
            noise_snr_db: level of the noise to add, dB; NaN for none.
            error_rate: of the words; None drops them unless `stranger`.
            stranger: somebody else's words in place of its own, with a low confidence.
            rng: of the draws; None draws the same each time.
            noise: kind of the noise; empty draws one.
        """
        rng = rng if rng is not None else np.random.default_rng(0)
        audible = voice and example.voice is not None and example.voice.audio is not None
        if not audible or not self.noises or math.isnan(noise_snr_db):
            noise, noise_snr_db = "", math.nan
        elif not noise:
            noise = self.noises[int(rng.integers(len(self.noises)))]
        told = math.nan
        if example.voice is not None and audible:
            told = self._told(example.voice, noise_snr_db, rng)
        text, confidence = None, 1.0
        words_target = example.words_target
        own = example.words.text if example.words is not None else None
        # Precomputed features cannot be misheard: they are there or not.
        words = example.words is not None and example.words.text_features is not None
        words = words and error_rate is not None
        trust = 1.0 if words else 0.0
        if stranger and self.strangers:
            other = self.strangers[int(rng.integers(len(self.strangers)))]
            text, words_target = other.text, other.target
            confidence = float(rng.uniform(0.05, 0.5))
        elif error_rate is not None and own:
            text = self.errors(own, error_rate, rng) if error_rate > 0.0 else own
            confidence = confidence_after(error_rate, rng)
            trust = (1.0 - error_rate) ** 2
        if text and rng.random() < self.config.confidence_unknown_p:
            confidence = 1.0
        return Ruined(
            target=blend(example, _hearable(noise_snr_db) if voice else 0.0, trust),
            words_target=words_target,
            voice=voice,
            words=words or text is not None,
            text=text,
            noise=noise,
            noise_snr_db=noise_snr_db,
            told_snr_db=told,
            confidence=confidence,
        )

    def _told(self, voice: Item, noise_snr_db: float, rng: np.random.Generator) -> float:
        if rng.random() < self.config.snr_unknown_p:
            return math.nan
        clean = self.quality.get(voice.id, (_INTACT_SNR_DB, 0.0))[0]
        clean = clean if math.isfinite(clean) else _INTACT_SNR_DB
        power = 10 ** (-clean / 10)
        if math.isfinite(noise_snr_db):
            power += 10 ** (-noise_snr_db / 10)
        told = -10 * math.log10(power) + rng.normal(0.0, self.config.snr_jitter_db)
        return float(np.clip(told, -20.0, 60.0))


def _hearable(snr_db: float) -> float:
    return (
        1.0
        if math.isnan(snr_db)
        else 1.0 / (1.0 + math.exp((_HALF_SNR_DB - snr_db) / _SNR_SLOPE_DB))
    )
