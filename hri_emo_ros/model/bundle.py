# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A model as a folder: config.json, safetensors of its parts, tokenizer.json, README.md.

An encoder is a file of its own, so that models which share one differ in the other files only.
Nothing else is needed to load it: no network, no other folder, no pickle.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.affect import SOURCE, Affect, known_positions
from hri_emo_ros.model.bundle_files import check_size, held_shapes, read_bounded
from hri_emo_ros.model.calibration import Calibration
from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.model.tokenizer import TOKENIZER_FILE, TextTokenizer, load_tokenizer

if TYPE_CHECKING:
    import torch

    from hri_emo_ros.model.network import EmotionModel

SCHEMA_VERSION: Literal[1] = 1
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
ENCODER_FILES = {"audio_encoder": "voice.safetensors", "text_encoder": "words.safetensors"}
"""By the part of `EmotionModel` whose weights they hold; the rest is in `WEIGHTS_FILE`."""
GRAPH_FILES = {"voice": "voice.onnx", "words": "words.onnx", "head": "head.onnx"}
"""What `hri_emo_ros.model.export` adds: what ONNX Runtime computes with the weights in those files."""
SHIPPED = "compact"
_PARAMETER = "parameter 'model.bundle'"
_LARGEST, _MOST_LAYERS = 1 << 20, 256
"""Bounds of a network's sizes: the largest vocabularies have a quarter of a million words, and of its layers."""


class Graphs(BaseModel):
    """What `hri-emo export` has written for ONNX Runtime."""

    model_config = ConfigDict(extra="forbid")

    model_id: str
    """Of the bundle that they were made of: they name places in its files."""
    int8: bool
    """Matrix products take 8-bit integers."""
    sha256: dict[str, str]
    """File -> digest."""


class BundleConfig(BaseModel):
    """config.json."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = SCHEMA_VERSION
    model_id: str = Field(min_length=1)
    """The name, "-" and the first 8 digits of a SHA-256 over all that decides an answer: see `_identity`. Goes into
    every estimate."""
    sample_rate: Literal[16000] = 16000
    model: ModelConfig
    calibration: Calibration
    affect: Affect = Field(default_factory=dict)
    """Label -> [valence, arousal], each in [-1, 1]; empty, or complete: then estimates have both."""
    affect_source: str = ""
    """Where the positions are from."""
    graphs: Graphs | None = None
    """Written by `hri-emo export`; None before."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Free notes of the trainer: configuration, data, figures."""

    @model_validator(mode="after")
    def _contained(self) -> BundleConfig:
        for part, spec in (("audio", self.model.audio), ("text", self.model.text)):
            if spec.name or spec.allow_download:
                raise ValueError(
                    f"model.{part} names an encoder elsewhere: name must be empty in a bundle, and allow_download "
                    "false"
                )
        _check_bounds("model", self.model.model_dump())
        return self

    @model_validator(mode="after")
    def _affect(self) -> BundleConfig:
        if not self.affect:
            return self
        if set(self.affect) != set(self.model.labels):
            raise ValueError(
                f"affect has {', '.join(self.affect)}, must have the labels: {', '.join(self.model.labels)}"
            )
        if not all(-1.0 <= value <= 1.0 for place in self.affect.values() for value in place):
            raise ValueError("affect must be [valence, arousal], each in [-1, 1]")
        if not self.affect_source:
            raise ValueError("affect_source must say where the positions in affect are from")
        return self


def _check_bounds(name: str, value: Any) -> None:
    """Raise ValueError where a network would be larger than any that a robot runs."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_bounds(f"{name}.{key}", inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_bounds(name, inner)
    elif isinstance(value, int):
        most = _MOST_LAYERS if name.endswith("layers") else _LARGEST
        if abs(value) > most:
            raise ValueError(f"{name} is {value}, must be at most {most}")


@dataclass
class Bundle:
    """A model ready for use, with all that belongs to it."""

    model: EmotionModel
    tokenizer: TextTokenizer | None
    calibration: Calibration
    name: str = "model"
    card: str = ""
    """README.md; empty writes a minimal one."""
    affect: Affect | None = None
    """Label -> (valence, arousal); None has `save_bundle` take those of `model.affect`, empty is none."""
    affect_source: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    model_id: str = ""
    """Filled in by `save_bundle` and `load_bundle`."""

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def labels(self) -> tuple[str, ...]:
        return self.model.config.labels

    @property
    def document(self) -> BundleConfig:
        """What config.json says."""
        return BundleConfig(
            model_id=self.model_id or self.name,
            model=self.model.portable_config(),
            calibration=self.calibration,
            affect=self.affect or {},
            affect_source=self.affect_source if self.affect else "",
            training=self.training,
        )


def save_bundle(
    bundle: Bundle, path: str | Path, precision: Literal["float16", "float32"] = "float16"
) -> Path:
    """Write `bundle` into the folder `path`, which is made if need be.

    float16 halves the size of the parameters; they are float32 again after loading.

    Raises:
        HriEmoError: the folder cannot be written, or a text encoder lacks its tokenizer.
    """
    import torch
    from safetensors.torch import save

    folder = Path(path)
    config = bundle.config
    if config.uses_text and config.text.kind != "features" and bundle.tokenizer is None:
        raise HriEmoError(f"cannot save bundle '{folder}': its text encoder needs a tokenizer")
    # Buffers (filter banks, running variances down to 1e-8) keep their precision: they are small.
    parameters = {name for name, _ in bundle.model.named_parameters()}
    dtype = getattr(torch, precision)
    weights = {
        name: (value.to(dtype) if name in parameters else value).cpu().contiguous().clone()
        for name, value in bundle.model.state_dict().items()
    }
    if bundle.affect is None:
        bundle.affect, bundle.affect_source = known_positions(config.labels), SOURCE
    document = bundle.document
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for graph in GRAPH_FILES.values():
            (folder / graph).unlink(missing_ok=True)  # they are of a bundle that was here before
        for file in (WEIGHTS_FILE, *ENCODER_FILES.values()):
            part = {name: value for name, value in weights.items() if _file_of(name) == file}
            if not part:
                (folder / file).unlink(missing_ok=True)  # of a bundle that was here before
                continue
            # Not save_file: its files can be read by their owner alone, and a robot's nodes may be another's.
            (folder / file).write_bytes(save(part, metadata={"format": "pt"}))
        (folder / TOKENIZER_FILE).unlink(missing_ok=True)
        if bundle.tokenizer is not None:
            bundle.tokenizer.save(folder)
        settings = json.loads(document.model_dump_json())
        bundle.model_id = settings["model_id"] = _identity(folder, settings, bundle.name)
        text = json.dumps(settings, indent=1, ensure_ascii=False)
        (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
        document = document.model_copy(update={"model_id": bundle.model_id})
        (folder / CARD_FILE).write_text(bundle.card or _minimal_card(document), encoding="utf-8")
    except OSError as error:
        raise HriEmoError(f"cannot write bundle '{folder}': {error}") from error
    return folder


def load_bundle(path: str | Path = "", device: str = "cpu") -> Bundle:
    """Load a bundle; its model is in evaluation mode.

    Args:
        path: a folder, or a name under the package's models; empty is the shipped compact model.

    Raises:
        HriEmoError: the folder is missing or is no usable bundle, or its files are not those that its model_id
            was made of.
    """
    import torch

    from hri_emo_ros.model.network import EmotionModel

    folder = find_bundle(path)
    document = read_config(folder)
    try:
        with torch.device(
            "meta"
        ):  # Shapes alone: nothing is allocated for what the files do not hold.
            declared = {
                name: tuple(value.shape)
                for name, value in EmotionModel(document.model).state_dict().items()
            }
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise HriEmoError(
            f"bundle '{folder}' has a {CONFIG_FILE} of which no network can be made: {error} ({_PARAMETER})"
        ) from error
    _check_weights(folder, declared)
    tokenizer = read_tokenizer(folder, document.model)
    check_identity(folder)
    model = EmotionModel(document.model)
    weights = _read_weights(folder, {_file_of(name) for name in declared})
    model.load_state_dict({name: _restore(value) for name, value in weights.items()})
    model.eval().requires_grad_(False).to(device)
    card = folder / CARD_FILE
    return Bundle(
        model=model,
        tokenizer=tokenizer,
        calibration=document.calibration,
        name=document.model_id.rsplit("-", 1)[0],
        card=card.read_text(encoding="utf-8") if card.is_file() else "",
        affect=document.affect,
        affect_source=document.affect_source,
        training=document.training,
        model_id=document.model_id,
    )


def find_bundle(path: str | Path = "") -> Path:
    """The folder that `path` names (see `load_bundle`).

    Raises:
        HriEmoError: there is no such folder; the places looked at are listed.
    """
    name = str(path).strip() or SHIPPED
    candidates = [Path(name).expanduser(), *(folder / name for folder in _model_folders())]
    if not str(path).strip():
        candidates = candidates[1:]
    for candidate in candidates:
        if (candidate / CONFIG_FILE).is_file():
            return candidate
    for candidate in candidates:
        if candidate.is_dir():
            raise HriEmoError(
                f"folder '{candidate}' is no bundle: it has no {CONFIG_FILE} ({_PARAMETER})"
            )
    looked = ", ".join(f"'{candidate}'" for candidate in candidates)
    raise HriEmoError(f"no model bundle '{name}'; looked at {looked} ({_PARAMETER})")


def _model_folders() -> Iterator[Path]:
    """Where bundles are shipped: the source tree, then the ament share folder where there is one."""
    yield Path(__file__).resolve().parents[2] / "models"
    try:
        packages = import_module("ament_index_python.packages")
        yield Path(packages.get_package_share_directory("hri_emo_ros")) / "models"
    except (ImportError, LookupError, OSError):
        # No ROS, package not installed (a KeyError), no AMENT_PREFIX_PATH (an OSError).
        return


def read_config(folder: Path) -> BundleConfig:
    """config.json of a bundle.

    Raises:
        HriEmoError: it cannot be read or is not valid.
    """
    file = folder / CONFIG_FILE
    try:
        raw = json.loads(read_bounded(file))
    except (ValueError, RecursionError) as error:
        raise HriEmoError(f"cannot read '{file}': {error} ({_PARAMETER})") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        raise HriEmoError(
            f"bundle '{folder}' has schema_version {version!r}, must be {SCHEMA_VERSION} ({_PARAMETER})"
        )
    try:
        document = BundleConfig.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise HriEmoError(f"'{file}': {place}: {first['msg']} ({_PARAMETER})") from error
    if len(document.calibration.thresholds) != len(document.model.labels):
        raise HriEmoError(
            f"bundle '{folder}' has {len(document.calibration.thresholds)} thresholds for "
            f"{len(document.model.labels)} labels ({_PARAMETER})"
        )
    return document


def write_graphs(folder: Path, graphs: Graphs) -> None:
    """Note in config.json which graphs are there.

    Raises:
        HriEmoError: the file cannot be read or written.
    """
    file = folder / CONFIG_FILE
    try:
        settings = json.loads(file.read_text(encoding="utf-8")) | {"graphs": graphs.model_dump()}
        file.write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        raise HriEmoError(f"cannot write '{file}': {error}") from error


def read_tokenizer(folder: Path, config: ModelConfig) -> TextTokenizer | None:
    """The bundle's tokenizer; None where its network reads no text.

    Raises:
        HriEmoError: the file is missing or cannot be read.
    """
    if not config.uses_text or config.text.kind == "features":
        return None
    if not (folder / TOKENIZER_FILE).is_file():
        raise HriEmoError(f"bundle '{folder}' has no {TOKENIZER_FILE} ({_PARAMETER})")
    check_size(folder / TOKENIZER_FILE)
    return load_tokenizer(folder / TOKENIZER_FILE)


def _file_of(name: str) -> str:
    """The file that holds the weight of that name."""
    return ENCODER_FILES.get(name.split(".", 1)[0], WEIGHTS_FILE)


def _check_weights(folder: Path, declared: dict[str, tuple[int, ...]]) -> None:
    """Raise HriEmoError where the files do not hold the arrays that config.json declares."""
    held: dict[str, tuple[int, ...]] = {}
    for name in sorted({_file_of(name) for name in declared}):
        if not (folder / name).exists():
            raise HriEmoError(f"bundle '{folder}' has no {name} ({_PARAMETER})")
        held |= held_shapes(folder / name)
    for name in sorted(declared.keys() | held.keys()):
        if declared.get(name) != held.get(name):
            shapes = [str(list(x[name])) if name in x else "none" for x in (held, declared)]
            raise HriEmoError(
                f"the weights of bundle '{folder}' do not fit its {CONFIG_FILE}: '{name}' has the shape "
                f"{shapes[0]}, must have {shapes[1]} ({_PARAMETER})"
            )


def _read_weights(folder: Path, files: set[str]) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    weights: dict[str, torch.Tensor] = {}
    for name in sorted(files):
        file = folder / name
        try:
            weights |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise HriEmoError(f"cannot read '{file}': {error} ({_PARAMETER})") from error
    return weights


def _restore(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


def _identity(folder: Path, settings: dict[str, Any], name: str) -> str:
    """`name` and the digits of what decides an answer: the weights' files, the tokenizer, and of config.json all
    but the identity itself, what was made of it, and the trainer's notes."""
    digest = hashlib.sha256()
    for file in (WEIGHTS_FILE, *sorted(ENCODER_FILES.values()), TOKENIZER_FILE):
        if (folder / file).exists():
            check_size(folder / file)
            digest.update(f"{file}\n".encode())
            with (folder / file).open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    decides = {k: v for k, v in settings.items() if k not in ("model_id", "training", "graphs")}
    digest.update(json.dumps(decides, sort_keys=True).encode())
    return f"{name}-{digest.hexdigest()[:8]}"


def check_identity(folder: Path) -> None:
    """Make sure that a bundle's files are those that its model_id was made of.

    Raises:
        HriEmoError: they are not, or one cannot be read.
    """
    try:
        settings = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        said = str(settings["model_id"])
        found = _identity(folder, settings, said.rsplit("-", 1)[0])
    except OSError as error:
        raise HriEmoError(f"cannot read bundle '{folder}': {error} ({_PARAMETER})") from error
    if found != said:
        raise HriEmoError(
            f"bundle '{folder}' is '{found}', but its {CONFIG_FILE} says model_id '{said}': a file of it was "
            f"damaged or changed; copy it anew, or, if the change was meant, write '{found}' there ({_PARAMETER})"
        )


def _minimal_card(document: BundleConfig) -> str:
    name = re.sub(r"-[0-9a-f]{8}$", "", document.model_id)
    return (
        f"# {name}\n\nModel {document.model_id}: head `{document.model.head}`, labels "
        f"{', '.join(document.model.labels)}. No card was written for it.\n"
    )
