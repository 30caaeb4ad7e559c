# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What the world does to an utterance on its way to the network: to the waveform, to the words, to both.

An example becomes a `Condition`: what is left of it, what the network is told of its quality, and what the
right answer then is. Drawn for training only; validation states its conditions by name.
"""

from __future__ import annotations

import math
import random
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from hri_emo_ros.data.corpus import Item
from hri_emo_ros.data.noise import NoiseBank, mix
from hri_emo_ros.data.words import WordErrors, plain
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.pairs import Example, Target, blend
from hri_emo_ros.training.recipe import AugmentSection, WaveformSection
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

_SHORTEST = 0.1
"""Seconds; nothing is cropped below this."""
_SHORTEST_CROP = 0.65
"""Of the clip."""
_SPEEDS = (0.88, 1.12)
"""Of playback: pitch, formants and tempo together (Ko et al. 2015, Interspeech)."""
_NOISE_JITTER_DB = 5.0
"""How far the level of a room's noise differs from utterance to utterance, either way."""
_SILENCE_S = 0.5
"""At most, before and after each."""

_HALF_SNR_DB = -4.0
"""Where half of what a voice says about emotion is lost: at -5 dB the recall above chance is 0.46 of that of
clean voices in pink noise, 0.71 in recorded noise, 0.11 in babble. It only shapes the targets of pairs whose
voice and words disagree."""
_SNR_SLOPE_DB = 3.0
_INTACT_SNR_DB = 40.0
_JITTER_DB = 3.0
"""Standard deviation of the SNR that the network is told around the true one."""
_UNKNOWN = 0.1
"""Chance that the network is told nothing of the SNR, and that a confidence says 1 whatever happened."""


# The waveform


@dataclass(frozen=True)
class Seeds:
    """Of what is drawn for a clip, for its voice, and for the room that it is heard in."""

    clip: int
    voice: int
    room: int

    @staticmethod
    def of(seed: str, clip: str, voice: str = "", room: str = "") -> Seeds:
        """From names; what is not named is drawn for the clip."""
        numbers = (zlib.crc32(f"{seed}/{name or clip}".encode()) for name in (clip, voice, room))
        return Seeds(*numbers)


class WaveformAugment:
    """Changes to a waveform, in the order in which the world makes them: the speaker's voice, the clip, the
    room and the channel. Most are audiomentations'.

    Args:
        config: their chances.
        rooms: folder of impulse responses; None where `config.room` is 0.

    Raises:
        HriEmoError: audiomentations is missing, or the folder is.
    """

    def __init__(self, config: WaveformSection, rooms: Path | None) -> None:
        self.config = config
        if config.room and (rooms is None or not rooms.is_dir()):
            raise HriEmoError(
                f"'augment.rooms' is '{rooms or ''}', must be a folder of impulse responses under "
                "the data root where 'augment.waveform.room' is above 0"
            )
        extra = {"room": {"ir_path": str(rooms)}}
        self._clip = _chain(config, _OF_THE_CLIP, extra)
        self._room = _chain(config, _OF_THE_ROOM, extra)

    def __call__(self, samples: FloatArray, seeds: Seeds) -> FloatArray:
        """[n] -> [m] float32; the same seeds give the same result."""
        rng = np.random.default_rng(seeds.voice)
        if rng.random() < self.config.speed:
            rate = float(rng.uniform(*_SPEEDS))
            samples = np.asarray(soxr.resample(samples, SAMPLE_RATE * rate, SAMPLE_RATE))
        rng = np.random.default_rng(seeds.clip)
        if rng.random() < self.config.crop:
            least = int(_SHORTEST * SAMPLE_RATE)
            length = max(int(rng.uniform(_SHORTEST_CROP, 1.0) * len(samples)), least)
            start = int(rng.integers(max(0, len(samples) - length) + 1))
            samples = samples[start : start + length]
        samples = _applied(self._clip, samples, seeds.clip)
        samples = _applied(self._room, samples, seeds.room)
        if rng.random() < self.config.silence:
            around = rng.uniform(0.0, _SILENCE_S * SAMPLE_RATE, size=2).astype(np.int64)
            samples = np.pad(samples, around)
        return np.asarray(samples, dtype=np.float32)


_OF_THE_CLIP: dict[str, tuple[str, dict[str, Any]]] = {
    "pitch": ("PitchShift", {"min_semitones": -2.0, "max_semitones": 2.0}),
    "time_stretch": ("TimeStretch", {"min_rate": 0.9, "max_rate": 1.1, "leave_length_unchanged": False}),
    "time_mask": ("TimeMask", {"min_band_part": 0.0, "max_band_part": 0.15, "fade_duration": 0.005}),
    "frequency_mask": ("BandStopFilter", {
        "min_center_freq": 200.0, "max_center_freq": 4000.0, "min_bandwidth_fraction": 0.3,
        "max_bandwidth_fraction": 1.0}),
    "gain": ("Gain", {"min_gain_db": -18.0, "max_gain_db": 6.0}),
}  # fmt: skip
"""By the setting that holds their chance: audiomentations' name and ranges."""
_OF_THE_ROOM: dict[str, tuple[str, dict[str, Any]]] = {
    "room": ("ApplyImpulseResponse", {"leave_length_unchanged": True}),
    "equaliser": ("SevenBandParametricEQ", {"min_gain_db": -6.0, "max_gain_db": 6.0}),
    # One draw for both edges of a narrow channel: 60 to 400 Hz and 3 to 7.6 kHz.
    "band_limit": ("BandPassFilter", {
        "min_center_freq": 1530.0, "max_center_freq": 4000.0, "min_bandwidth_fraction": 1.6,
        "max_bandwidth_fraction": 1.9, "min_rolloff": 24, "max_rolloff": 48}),
}  # fmt: skip


def _chain(
    config: WaveformSection,
    table: Mapping[str, tuple[str, dict[str, Any]]],
    extra: Mapping[str, dict[str, Any]],
) -> Any:
    """audiomentations' chain of what has a chance; None where nothing has."""
    wanted = [name for name in table if getattr(config, name)]
    if not wanted:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import audiomentations
    except (ImportError, OSError) as error:
        raise HriEmoError(
            "'augment.waveform' needs audiomentations: pip install audiomentations"
        ) from error
    return audiomentations.Compose(
        [
            getattr(audiomentations, table[name][0])(
                p=getattr(config, name), **table[name][1], **extra.get(name, {})
            )
            for name in wanted
        ]
    )


def _applied(chain: Any, samples: FloatArray, seed: int) -> FloatArray:
    if chain is None:
        return samples
    # audiomentations draws from both global generators.
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on clips that happen to be silent or loud
        changed: FloatArray = chain(samples=samples, sample_rate=SAMPLE_RATE)
    return changed


# The words


def confidence_after(rate: float, rng: np.random.Generator) -> float:
    """A recogniser's confidence where a share `rate` of the words is wrong, in [0.02, 1].

    A chosen model, not a measured one: linear in the error rate with some scatter, so that the
    network learns a tendency and no recogniser's particular scale.
    """
    return float(np.clip(0.95 - 0.9 * rate + rng.normal(0.0, 0.08), 0.02, 1.0))


# Both


@dataclass(frozen=True)
class Condition:
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


class Conditions:
    """Draws what happens to an example, or states it.

    Args:
        config: chances and ranges.
        texts: give the vocabulary of recognition errors.
        others: items whose words make mismatched transcripts.
        levels: item id -> SNR of the clean clip, dB.
        noises: kinds of noise at hand; without any, none is added.
        jitter: tell the network SNR and confidence with errors, as a robot measures them.
    """

    def __init__(
        self,
        config: AugmentSection,
        texts: Iterable[str],
        others: Sequence[Item],
        levels: Mapping[str, float],
        noises: Sequence[str] = (),
        jitter: bool = True,
    ) -> None:
        self.config, self.errors, self.others = config, WordErrors(texts), list(others)
        self.levels, self.noises, self.jitter = levels, tuple(noises), jitter

    def noise(self, seeds: Seeds) -> tuple[str, float]:
        """Kind and level (dB) of the noise to add; empty and NaN for none."""
        rng = np.random.default_rng(seeds.room)
        if not self.noises or rng.random() >= self.config.noise.p:
            return "", math.nan
        kind = self.noises[int(rng.integers(len(self.noises)))]
        low, high = self.config.noise.snr_db
        jitter = np.random.default_rng(seeds.clip).uniform(-_NOISE_JITTER_DB, _NOISE_JITTER_DB)
        return kind, float(np.clip(rng.uniform(low, high) + jitter, low, high))

    def __call__(
        self,
        example: Example,
        rng: np.random.Generator,
        noise: tuple[str, float] = ("", math.nan),
        heard: tuple[str, float] | None = None,
    ) -> Condition:
        """Draw for one example; never are both modalities dropped.

        Args:
            noise: kind and level in the clip; see `noise`.
            heard: what a recogniser made of the clip, and its confidence.
        """
        drop, said = self.config.drop, self.config.words
        voice, words = example.voice is not None, example.words is not None
        chance = rng.random()
        drop_audio = voice and words and chance < drop.audio
        drop_text = voice and words and not drop_audio and chance < drop.audio + drop.text
        kind, snr = noise
        keep = voice and not drop_audio
        if drop_text or not words:
            return self.state(example, keep, snr, rng=rng, noise=kind)
        if voice and self.others and rng.random() < said.mismatched:
            return self.state(example, keep, snr, mismatched=True, rng=rng, noise=kind)
        if heard is not None and keep and rng.random() < said.heard:
            condition = self.state(example, keep, snr, None, rng=rng, noise=kind)
            text, confidence = heard
            return replace(condition, text=text or None, words=bool(text), confidence=confidence)
        rate = float(rng.uniform(*said.error_rate)) if rng.random() < said.errors else 0.0
        condition = self.state(example, keep, snr, rate, rng=rng, noise=kind)
        if condition.text and rng.random() < said.lower:
            condition = replace(condition, text=plain(condition.text))
        return condition

    def state(
        self,
        example: Example,
        voice: bool,
        noise_snr_db: float = math.nan,
        error_rate: float | None = None,
        mismatched: bool = False,
        rng: np.random.Generator | None = None,
        noise: str = "",
    ) -> Condition:
        """The example in a given condition.

        Args:
            voice: keep the voice.
            noise_snr_db: level of the noise to add, dB.
            error_rate: of the words; None drops them unless `mismatched`.
            mismatched: another item's words in place of its own, with a low confidence.
            rng: of the draws; None draws the same each time.
            noise: kind of the noise; empty for none.
        """
        rng = rng if rng is not None else np.random.default_rng(0)
        audible = voice and example.voice is not None and example.voice.audio is not None
        if not audible or noise not in self.noises:
            noise, noise_snr_db = "", math.nan
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
        if mismatched and self.others:
            other = self.others[int(rng.integers(len(self.others)))]
            text, words_target = other.text, other.target
            confidence = float(rng.uniform(0.05, 0.5))
        elif error_rate is not None and own:
            text = self.errors(own, error_rate, rng) if error_rate > 0.0 else own
            confidence = confidence_after(error_rate, rng) if voice else 1.0
            trust = (1.0 - error_rate) ** 2
        if text and self.jitter and rng.random() < _UNKNOWN:
            confidence = 1.0
        return Condition(
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
        if self.jitter and rng.random() < _UNKNOWN:
            return math.nan
        clean = self.levels.get(voice.id, math.nan)
        clean = clean if math.isfinite(clean) else _INTACT_SNR_DB
        power = 10 ** (-clean / 10)
        if math.isfinite(noise_snr_db):
            power += 10 ** (-noise_snr_db / 10)
        jitter = rng.normal(0.0, _JITTER_DB) if self.jitter else 0.0
        return float(np.clip(-10 * math.log10(power) + jitter, -20.0, 60.0))


def _hearable(snr_db: float) -> float:
    if math.isnan(snr_db):
        return 1.0
    return 1.0 / (1.0 + math.exp((_HALF_SNR_DB - snr_db) / _SNR_SLOPE_DB))


class Listener:
    """A clip as it reaches the network's ears: changed, cut to length, in noise.

    Args:
        waveform: of training clips.
        bank: noises; None where no condition asks for any.
        most: samples; of a longer clip a random stretch is taken in training, else the end, as the engine does.
    """

    def __init__(self, waveform: WaveformAugment, bank: NoiseBank | None, most: int) -> None:
        self.waveform, self.bank, self.most = waveform, bank, most

    def __call__(
        self, samples: FloatArray, condition: Condition, seeds: Seeds | None, name: str = ""
    ) -> FloatArray:
        """[n] -> [m]; the same seeds give the same. Without seeds only the noise is added, drawn by `name`."""
        rng = np.random.default_rng(seeds.clip if seeds is not None else zlib.crc32(name.encode()))
        if seeds is not None:
            samples = self.waveform(samples, seeds)
        if len(samples) > self.most:
            spare = len(samples) - self.most
            start = int(rng.integers(spare + 1)) if seeds is not None else spare
            samples = samples[start : start + self.most]
        if condition.noise and self.bank is not None:
            noise = self.bank.stretch(condition.noise, len(samples), rng)
            samples = mix(samples, noise, condition.noise_snr_db)
        return samples
