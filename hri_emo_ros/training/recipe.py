# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A training run as validated data: one YAML file, several stages if it needs them.

The file holds the settings that all stages share, and optionally ``stages``: a list of sections
that are laid over the shared ones in turn. An unknown or wrong key is named with what is allowed.
Every setting is used by a recipe in config/train.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.model.losses import LossConfig
from hri_emo_ros.training.splits import SplitRule

RECIPE_FILE = "config.yaml"
"""What a run folder keeps of its recipe."""

Range = tuple[float, float]
Share = Field(0.0, ge=0.0, le=1.0)


class Section(BaseModel):
    """Refuses keys that it does not have."""

    model_config = ConfigDict(extra="forbid")


class CorpusSection(Section):
    """One corpus to read."""

    name: str
    """Plug-in, see ``hri_emo_ros.data.corpora``."""
    path: str = ""
    """Folder; relative to the data root; empty takes the plug-in's usual place under it."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the plug-in."""
    split: SplitRule = SplitRule()
    weight: float = Field(1.0, ge=0.0)
    """How often its items are drawn in one epoch."""


class DataSection(Section):
    """What is learnt from."""

    corpora: list[CorpusSection] = Field(default_factory=list)
    fold: int | None = Field(None, ge=1)
    """Validation fold of corpora split by ``folds``; None trains on all of them."""
    leave_corpus_out: str | None = None
    """Validate on this corpus alone, train on all others."""


class PretrainedSection(Section):
    """Where weights come from. ``stage:NAME`` is the bundle of an earlier stage."""

    audio: str = ""
    """The voice encoder and head of this bundle."""
    text: str = ""
    """The text encoder, head and tokenizer of this bundle."""
    freeze_heads: bool = False
    """Keep the single-modality heads as they were: what the network says when one modality is absent
    stays exactly what the single-modality bundles say."""
    unheard: str = ""
    """``stage:NAME`` of a voice stage: the fusion learns from what its runs that left a fold out say of that
    fold's people (`training.unheard`), not from the head that has heard them."""
    unheard_runs: list[str] = Field(default_factory=list)
    """Filled in from `unheard`."""


class WaveformSection(Section):
    """Chances of changes (see `training.augment` for their ranges), drawn for each clip and epoch. In the
    versions of a recipe with baselines, clips of one speaker share the speed, and clips of a few speakers
    share a room: impulse response, equaliser, band and noise."""

    speed: float = Share
    crop: float = Share
    pitch: float = Share
    time_stretch: float = Share
    room: float = Share
    """Convolution with a room's impulse response, from the folder of `AugmentSection.rooms`."""
    equaliser: float = Share
    band_limit: float = Share
    time_mask: float = Share
    frequency_mask: float = Share
    silence: float = Share
    gain: float = Share


class NoiseSection(Section):
    """Noise of the kinds of `data.noise.NoiseBank`; the network is told its level, as on the robot."""

    p: float = Share
    snr_db: Range = (-5.0, 30.0)
    """Against the level of speech, as ``hri-emo evaluate`` mixes."""
    folder: str = ""
    """Recordings, relative to the data root; empty: made-up noise and babble alone."""


class WordsSection(Section):
    """What recognisers and typists make of words, and how sure a recogniser is of it."""

    lower: float = Share
    """Chance of lower case without punctuation, as recognisers write."""
    errors: float = Share
    """Chance that a text gets recognition errors at all."""
    error_rate: Range = (0.0, 0.6)
    """Share of the words hit: deleted, replaced by one that looks alike, or one put in."""
    heard: float = Share
    """Chance that a recorded pair comes with the recogniser's own words and confidence instead of the true
    words; they are recognised once and kept."""
    mismatched: float = Share
    """Chance of a mismatched transcript: other words with a low confidence, as a recogniser invents them."""


class DropSection(Section):
    """Chances that a modality of a pair is missing; never are both."""

    audio: float = Share
    text: float = Share


class AugmentSection(Section):
    """Only in training, never in validation."""

    versions: int = Field(0, ge=0)
    """0 changes a clip anew each time it is drawn; N computes the states of a frozen voice encoder once, for
    the clean clip and N changed versions, and keeps them on disk."""
    waveform: WaveformSection = WaveformSection()
    rooms: str = ""
    """Folder of impulse responses, relative to the data root."""
    noise: NoiseSection = NoiseSection()
    words: WordsSection = WordsSection()
    drop: DropSection = DropSection()


class PairsSection(Section):
    """Voices and words of different corpora put together (`training.pairs`), beside the recorded pairs."""

    per_epoch: int = Field(ge=1)
    """Pairs drawn in an epoch."""
    validation: int = Field(2000, ge=1)
    """Pairs on the validation side, drawn once."""


class LeftOutSection(Section):
    """Runs of the same stage that `hri-emo train` does before it, with what they build on: their validation
    sides calibrate it, and their figures are those that its card shows."""

    folds: list[int] = Field(default_factory=list)
    corpora: list[str] = Field(default_factory=list)


class OptimSection(Section):
    """AdamW with warm-up and cosine."""

    epochs: float = Field(20.0, gt=0.0)
    batch_size: int = Field(32, ge=1)
    accumulate: int = Field(1, ge=1)
    """Batches per step."""
    lr: float = Field(1e-3, gt=0.0)
    """Of AdamW."""
    encoder_lr: float | None = Field(None, gt=0.0)
    """Of pretrained encoders; None takes `lr`."""
    gate_lr: float | None = Field(None, gt=0.0)
    """Of the reliability gate; None is `lr`. A gate that learns fast learns the training speakers."""
    weight_decay: float = Field(0.01, ge=0.0)
    """Not of biases and norms."""
    warmup: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of all steps."""
    clip_norm: float = Field(1.0, gt=0.0)
    ema: float = Field(0.0, ge=0.0, lt=1.0)
    """Decay of the averaged weights that are validated and shipped; 0 for none."""
    balance: float = Field(0.0, ge=0.0, le=1.0)
    """Loss weight = (frequency of the item's corpus and class) ** -balance; 0 for none."""


class Recipe(Section):
    """Everything that one stage needs."""

    name: str = "run"
    stage: str = ""
    """Filled in from the entry of ``stages``."""
    seed: int = Field(0, ge=0)
    data: DataSection = DataSection()
    model: ModelConfig = ModelConfig()
    pretrained: PretrainedSection = PretrainedSection()
    augment: AugmentSection = AugmentSection()
    pairs: PairsSection | None = None
    """None learns from items as they are."""
    optim: OptimSection = OptimSection()
    loss: LossConfig = LossConfig()
    left_out: LeftOutSection = LeftOutSection()
    calibrate_on: list[str] = Field(default_factory=list)
    """Folders of runs of the same recipe whose validation logits calibrate this one and whose figures its
    card shows; filled in from `left_out`, empty calibrates on its own validation side."""
    early_stopping: int = Field(0, ge=0)
    """Validations without a better `monitor` before training ends; 0 never stops early."""
    monitor: Literal["ua", "macro_f1", "weighted_f1"] = "ua"
    select: Literal["best", "last"] = "best"
    """Which weights the bundle gets: the best validation's, or the last (an honest figure where the
    validation side is what is reported)."""
    validate_every: float = Field(1.0, gt=0.0)
    """Epochs between validations."""
    mixed_precision: Literal["no", "bf16"] = "no"

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not name or "/" in name or name.startswith("."):
            raise ValueError("must be a plain folder name")
        return name

    @model_validator(mode="after")
    def _together(self) -> Recipe:
        model, versions = self.model, self.augment.versions
        learns = model.audio.kind == "features" or model.audio.unfreeze_last_n_layers != 0
        if model.uses_audio and versions and learns:
            raise ValueError(
                "'augment.versions' needs a voice encoder that does not learn: set "
                "'model.audio.unfreeze_last_n_layers: 0'"
            )
        if model.uses_audio and model.baseline and not versions:
            raise ValueError(
                "'model.baseline' needs the states of all clips: set 'augment.versions' above 0"
            )
        if model.head == "hri_emo" and model.unimodal_path and not self.loss.gate:
            raise ValueError(
                "'loss.gate' is 0, and with 'model.unimodal_path: true' the gate learns from nothing "
                "else: set it above 0"
            )
        return self


def load_recipes(path: str | Path, overrides: Sequence[str] = ()) -> list[Recipe]:
    """Read a training file.

    Args:
        path: YAML.
        overrides: ``key.sub=value`` laid over every stage, the value in YAML.

    Returns:
        The stages in order, at least one.

    Raises:
        HriEmoError: the file is no YAML mapping, or a key or value is wrong.
    """
    file = Path(path)
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise HriEmoError(f"cannot read the training configuration '{file}': {error}") from error
    except yaml.YAMLError as error:
        raise HriEmoError(f"'{file}' is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise HriEmoError(f"'{file}' must hold a mapping of settings")
    stages = data.pop("stages", None) or [{}]
    if not isinstance(stages, list) or not all(isinstance(s, dict) for s in stages):
        raise HriEmoError(f"'{file}': 'stages' must be a list of sections")
    if len(stages) > 1 and any("name" not in s for s in stages):
        raise HriEmoError(f"'{file}': each of the 'stages' needs a 'name'")
    recipes = []
    for section in stages:
        own = {"stage" if key == "name" else key: value for key, value in section.items()}
        merged = _merge(copy.deepcopy(data), own)
        for override in overrides:
            _override(merged, override)
        place = f"'{file}'" + (f", stage '{section['name']}'" if "name" in section else "")
        recipes.append(parse_recipe(merged, place))
    return recipes


def pick_stages(recipes: Sequence[Recipe], stage: str | None) -> list[Recipe]:
    """The stage of that name, or all for None.

    Raises:
        HriEmoError: there is none.
    """
    chosen = [recipe for recipe in recipes if stage in (None, recipe.stage)]
    if not chosen:
        names = ", ".join(recipe.stage for recipe in recipes if recipe.stage) or "none"
        raise HriEmoError(f"stage '{stage}' is not in the file, must be one of: {names}")
    return chosen


def parse_recipe(data: Mapping[str, Any], place: str = "the training configuration") -> Recipe:
    """Validate one stage.

    Raises:
        HriEmoError: names the first wrong key, its value and what is allowed there.
    """
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise HriEmoError(f"{place}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        parent = _section(Recipe, first["loc"][:-1])
        allowed = f", must be one of: {', '.join(parent)}" if parent else ""
        return f"unknown key '{where}'{allowed}"
    if not where:  # about several keys, which the message names
        return str(first["msg"]).removeprefix("Value error, ")
    return f"'{where}' is {first['input']!r}: {first['msg']}"


def _section(model: Any, location: Sequence[str | int]) -> list[str]:
    """Names of the keys allowed at `location`."""
    for part in location:
        if isinstance(part, str):
            field = model.model_fields.get(part)
            model = section_of(field.annotation) if field is not None else None
            if model is None:
                return []
    return list(model.model_fields)


def section_of(annotation: Any) -> Any:
    """The section that a key of that type holds, itself or in a list; None for a plain value."""
    kinds = [c for c in (annotation, *get_args(annotation)) if isinstance(c, type)]
    return next((c for c in kinds if issubclass(c, BaseModel)), None)


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = copy.deepcopy(value)
    return base


def _override(data: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise HriEmoError(f"'--set {override}' must be KEY=VALUE, for example optim.epochs=5")
    *parents, last = key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise HriEmoError(f"'--set {override}': '{parent}' is not a section")
    data[last] = yaml.safe_load(text)
