"""Settings of augmentation, constructed pairs and ruined modalities; see `config`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from hri_emo_ros.training.mel_augment import MelAugmentConfig

Range = tuple[float, float]


class Section(BaseModel):
    """Refuses keys that it does not have."""

    model_config = ConfigDict(extra="forbid")


class Chance(Section):
    """An augmentation with its probability per item."""

    p: float = Field(0.0, ge=0.0, le=1.0)


class NoiseFolder(Chance):
    """Recorded noise: a folder in MUSAN's layout (noise/, speech/, music/) or any with sounds."""

    folder: str = ""
    """Relative to the data root."""
    snr_db: Range = (0.0, 30.0)


class GaussianNoise(Chance):
    snr_db: Range = (5.0, 40.0)


class Gain(Chance):
    gain_db: Range = (-18.0, 6.0)


class PitchShift(Chance):
    semitones: Range = (-2.0, 2.0)


class TimeStretch(Chance):
    rate: Range = (0.9, 1.1)


class Shift(Chance):
    fraction: Range = (-0.1, 0.1)


class RoomResponse(Chance):
    folder: str = ""
    """Impulse responses; relative to the data root."""


class TimeMask(Chance):
    fraction: Range = (0.0, 0.15)


class FrequencyMask(Chance):
    """Silences a band (audiomentations' BandStopFilter)."""

    center_hz: Range = (200.0, 4000.0)
    bandwidth: Range = (0.3, 1.0)
    """Of the band, as a fraction of its centre."""


class BandLimit(Chance):
    """Narrow channels such as the telephone."""

    low_hz: Range = (60.0, 400.0)
    high_hz: Range = (3000.0, 7600.0)


class Crop(Chance):
    """A random stretch of the clip at a random position."""

    shortest: float = Field(0.65, gt=0.0, le=1.0)
    """Relative to the clip."""


class SilencePadding(Chance):
    seconds: Range = (0.0, 1.0)
    """Of silence before and after, each."""


class WaveformSection(Section):
    """Augmentation of waveforms (through audiomentations), for encoders that read them."""

    crop: Crop = Crop()
    pitch: PitchShift = PitchShift()
    time_stretch: TimeStretch = TimeStretch()
    room: RoomResponse = RoomResponse()
    shift: Shift = Shift()
    noise: NoiseFolder = NoiseFolder()
    gaussian_noise: GaussianNoise = GaussianNoise()
    band_limit: BandLimit = BandLimit()
    time_mask: TimeMask = TimeMask()
    frequency_mask: FrequencyMask = FrequencyMask()
    silence: SilencePadding = SilencePadding()
    gain: Gain = Gain()


class MelSection(Section):
    """Augmentation of mel powers, for the compact audio encoder: a hundredth of the cost."""

    enabled: bool = False
    speeds: list[float] = [1.0]
    """Playback speeds (pitch and tempo together) made once for each clip and drawn from."""
    speed_p: float = Field(0.6, ge=0.0, le=1.0)
    """Chance of a speed other than the first."""
    silence_p: float = Field(0.25, ge=0.0, le=1.0)
    """Chance to keep up to `silence_s` of what surrounds the speech."""
    silence_s: float = Field(0.6, ge=0.0)
    crops: list[tuple[float, int]] = []
    """Pairs (share of training, frames): until that share of the epochs clips are cropped at random
    to at most so many frames of 10 ms; short crops first make training fast."""
    noise_folder: str = ""
    """Sounds for the noise, relative to the data root; pink, brown, white and babble are always
    there."""
    settings: MelAugmentConfig = MelAugmentConfig()


class TextSection(Section):
    """Augmentation of words, as recognisers and typists change them."""

    lower_p: float = Field(0.0, ge=0.0, le=1.0)
    """Lower case without punctuation, as recognisers write."""
    errors_p: float = Field(0.0, ge=0.0, le=1.0)
    """Chance that a text gets recognition errors at all."""
    error_rate: Range = (0.0, 0.6)
    """Share of the words hit: deleted, replaced by one that looks alike, or one put in."""


class PairsSection(Section):
    """Audio and text corpora put together, since no paired corpus is at hand."""

    enabled: bool = False
    matched: float = Field(0.6, ge=0.0)
    """Relative frequency of pairs with the same label."""
    neutral_voice: float = Field(0.15, ge=0.0)
    """... of neutral voice with emotional words."""
    neutral_words: float = Field(0.15, ge=0.0)
    conflicting: float = Field(0.1, ge=0.0)
    """... of two different emotions: the target is shared between them."""
    per_epoch: int = Field(0, ge=0)
    """Pairs drawn in an epoch; 0 draws as many as there are audio clips."""
    validation: int = Field(2000, ge=1)
    """Pairs on the validation side, drawn once."""


class RuinSection(Section):
    """Modalities made bad on purpose, so that the gate has something to learn."""

    audio_noise_p: float = Field(0.0, ge=0.0, le=1.0)
    snr_db: Range = (-5.0, 30.0)
    """Against the level of speech, as ``hri-emo evaluate`` mixes."""
    snr_jitter_db: float = Field(3.0, ge=0.0)
    """Standard deviation of the SNR that the network is told around the true one."""
    snr_unknown_p: float = Field(0.1, ge=0.0, le=1.0)
    """Chance that it is told nothing."""
    drop_audio_p: float = Field(0.0, ge=0.0, le=1.0)
    drop_text_p: float = Field(0.0, ge=0.0, le=1.0)
    random_text_p: float = Field(0.0, ge=0.0, le=1.0)
    """Chance of somebody else's words with a low confidence: an invention of the recogniser."""
    text_errors_p: float = Field(0.0, ge=0.0, le=1.0)
    error_rate: Range = (0.0, 0.6)
    confidence_unknown_p: float = Field(0.1, ge=0.0, le=1.0)
    """Chance that the confidence says 1 whatever happened to the words."""


class AugmentSection(Section):
    """Only in training, never in validation."""

    waveform: WaveformSection = WaveformSection()
    mel: MelSection = MelSection()
    text: TextSection = TextSection()
    ruin: RuinSection = RuinSection()
