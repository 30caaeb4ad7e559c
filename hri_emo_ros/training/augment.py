"""Waveform augmentation through audiomentations, for encoders that read waveforms."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.training.augment_config import WaveformSection
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

_SHORTEST = 0.1
"""Seconds; nothing is cropped below this."""


class WaveformAugment:
    """A chain of audiomentations transforms, in the order in which the world does it.

    Args:
        config: probabilities and ranges.
        root: folders of noise and room responses are relative to it.

    Raises:
        HriEmoError: audiomentations is missing, or a folder that is needed is.
    """

    def __init__(self, config: WaveformSection, root: Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import audiomentations
        except (ImportError, OSError) as error:
            raise HriEmoError(
                "'augment.waveform' needs audiomentations: pip install audiomentations"
            ) from error
        self.config = config
        self._compose = audiomentations.Compose(_transforms(audiomentations, config, root))

    @property
    def active(self) -> bool:
        """Whether anything has a chance to happen."""
        return bool(self._compose.transforms) or self.config.crop.p > 0 or self.config.silence.p > 0

    def __call__(self, samples: FloatArray, seed: int) -> FloatArray:
        """[n] -> [m] float32; the same seed gives the same result."""
        # audiomentations draws from both global generators.
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        rng = np.random.default_rng(seed)
        samples = _crop(samples, self.config, rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on clips that happen to be silent or already loud
            samples = self._compose(samples=samples, sample_rate=SAMPLE_RATE)
        return _pad(np.asarray(samples, dtype=np.float32), self.config, rng)


def _crop(samples: FloatArray, config: WaveformSection, rng: np.random.Generator) -> FloatArray:
    if rng.random() >= config.crop.p:
        return samples
    least = int(_SHORTEST * SAMPLE_RATE)
    length = max(int(rng.uniform(config.crop.shortest, 1.0) * len(samples)), least)
    if length >= len(samples):
        return samples
    start = int(rng.integers(len(samples) - length + 1))
    return samples[start : start + length]


def _pad(samples: FloatArray, config: WaveformSection, rng: np.random.Generator) -> FloatArray:
    if rng.random() >= config.silence.p:
        return samples
    before, after = (int(s * SAMPLE_RATE) for s in rng.uniform(*config.silence.seconds, size=2))
    return np.pad(samples, (before, after))


def _transforms(library: Any, c: WaveformSection, root: Path) -> list[Any]:
    built: list[Any] = []

    def add(name: str, p: float, **options: Any) -> None:
        if p > 0.0:
            built.append(getattr(library, name)(p=p, **options))

    add("PitchShift", c.pitch.p, min_semitones=c.pitch.semitones[0],
        max_semitones=c.pitch.semitones[1])  # fmt: skip
    add("TimeStretch", c.time_stretch.p, min_rate=c.time_stretch.rate[0],
        max_rate=c.time_stretch.rate[1], leave_length_unchanged=False)  # fmt: skip
    if c.room.p > 0.0:
        add("ApplyImpulseResponse", c.room.p, leave_length_unchanged=True,
            ir_path=_folder(root, c.room.folder, "augment.waveform.room.folder"))  # fmt: skip
    add("Shift", c.shift.p, min_shift=c.shift.fraction[0], max_shift=c.shift.fraction[1],
        rollover=False)  # fmt: skip
    if c.noise.p > 0.0:
        add("AddBackgroundNoise", c.noise.p, min_snr_db=c.noise.snr_db[0],
            max_snr_db=c.noise.snr_db[1],
            sounds_path=_noise_folders(_folder(root, c.noise.folder, "augment.waveform.noise.folder")),
            )  # fmt: skip
    add("AddGaussianSNR", c.gaussian_noise.p, min_snr_db=c.gaussian_noise.snr_db[0],
        max_snr_db=c.gaussian_noise.snr_db[1])  # fmt: skip
    if c.band_limit.p > 0.0:
        # One draw for both edges: a band has two.
        built.append(
            library.BandPassFilter(
                p=c.band_limit.p,
                min_center_freq=(c.band_limit.low_hz[0] + c.band_limit.high_hz[0]) / 2,
                max_center_freq=(c.band_limit.low_hz[1] + c.band_limit.high_hz[1]) / 2,
                min_bandwidth_fraction=1.6,
                max_bandwidth_fraction=1.9,
                min_rolloff=24,
                max_rolloff=48,
            )
        )
    add("TimeMask", c.time_mask.p, min_band_part=c.time_mask.fraction[0],
        max_band_part=c.time_mask.fraction[1], fade_duration=0.005)  # fmt: skip
    add("BandStopFilter", c.frequency_mask.p, min_center_freq=c.frequency_mask.center_hz[0],
        max_center_freq=c.frequency_mask.center_hz[1],
        min_bandwidth_fraction=c.frequency_mask.bandwidth[0],
        max_bandwidth_fraction=c.frequency_mask.bandwidth[1])  # fmt: skip
    add("Gain", c.gain.p, min_gain_db=c.gain.gain_db[0], max_gain_db=c.gain.gain_db[1])
    return built


def _noise_folders(folder: Path) -> list[Path]:
    """MUSAN's three folders where they are, else the folder itself."""
    parts = [folder / name for name in ("noise", "speech", "music") if (folder / name).is_dir()]
    return parts or [folder]


def _folder(root: Path, name: str, key: str) -> Path:
    folder = root / name
    if not name or not folder.is_dir():
        raise HriEmoError(
            f"'{key}' is '{name}', must be a folder of sounds under the data root '{root}'"
        )
    return folder
