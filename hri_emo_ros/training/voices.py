"""What the network hears of a clip: its samples, or the states of a voice encoder that is not trained.

A frozen encoder says the same of a clip each time, so its states are computed once, of the clean clip and of so
many changed versions, and kept on disk for every epoch, stage and fold of the same recipe.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hri_emo_ros.asr import Recogniser, make_recogniser
from hri_emo_ros.data.clips import decode
from hri_emo_ros.data.corpus import Item
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.model.baseline import voice_statistics
from hri_emo_ros.model.encoders import AudioEncoder
from hri_emo_ros.training.augment import Condition, Listener, Seeds
from hri_emo_ros.types import SAMPLE_RATE, FloatArray

HalfArray = npt.NDArray[np.float16]


@dataclass(frozen=True)
class ClipFacts:
    """What is known of a clip before training."""

    seconds: float
    snr_db: float = math.nan
    """As `audio.quality` measures it on the robot."""
    speech_seconds: float = math.nan


def samples_of(item: Item) -> FloatArray:
    """The clip's samples, [n] float32 at 16 kHz.

    Raises:
        HriEmoError: the file cannot be read or holds no samples.
    """
    assert item.audio is not None
    most = item.max_duration if item.max_duration is not None else math.inf
    samples = decode(item.audio, item.start, item.end, most)
    if len(samples) == 0:
        raise HriEmoError(f"'{item.audio}' is empty; remove it from the corpus")
    return samples


def survey(
    items: Iterable[Item], file: Path, with_quality: bool, progress: Callable[[], None]
) -> dict[str, ClipFacts]:
    """Decode every clip once, so that a broken one is found before training; by item id.

    Args:
        file: where facts are kept from run to run.
        with_quality: measure noise and speech, which takes ten times as long.
        progress: called after each clip.

    Raises:
        HriEmoError: a clip cannot be read or is empty.
    """
    from hri_emo_ros.audio.quality import measure_quality  # loads onnxruntime

    def facts(item: Item) -> list[float | None]:
        samples = samples_of(item)
        seconds = len(samples) / SAMPLE_RATE
        if not with_quality:
            return [seconds]
        quality = measure_quality(samples)
        snr = float(quality.snr_db) if math.isfinite(quality.snr_db) else None
        return [seconds, snr, float(quality.speech_fraction) * seconds]

    found = _kept(items, file, facts, 3 if with_quality else 1, progress)
    return {
        name: ClipFacts(*(math.nan if v is None else v for v in values))
        for name, values in found.items()
    }


def transcripts(
    items: Iterable[Item], file: Path, progress: Callable[[], None]
) -> dict[str, tuple[str, float]]:
    """What the robot's recogniser makes of clips (empty where nothing) and its confidence, by item id;
    arguments and errors as for `survey`."""
    recognisers: list[Recogniser] = []

    def words(item: Item) -> list[Any]:
        if item.heard is not None:
            return [item.heard, item.confidence]
        if not recognisers:
            recogniser = make_recogniser({})
            assert recogniser is not None  # "asr.backend" is not "none" by default
            recognisers.append(recogniser)
        said = recognisers[0].transcribe(samples_of(item))
        return [said.text, float(said.confidence)]

    return {name: (v[0], v[1]) for name, v in _kept(items, file, words, 2, progress).items()}


def _kept(
    items: Iterable[Item], file: Path, measure: Callable[[Item], list[Any]], size: int,
    progress: Callable[[], None],
) -> dict[str, list[Any]]:  # fmt: skip
    """At least `size` values for each clip by item id, from the file or measured anew."""
    kept: dict[str, list[Any]] = (
        json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    )
    found, changed = {}, False
    for item in items:
        key = identity(item)
        if len(kept.get(key, ())) < size:
            kept[key], changed = measure(item), True
        found[item.id] = kept[key]
        progress()
    if changed:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(kept), encoding="utf-8")
        os.replace(temporary, file)
    return found


def identity(item: Item) -> str:
    """What a clip's samples depend on: the file as it is today, and the stretch of it."""
    assert item.audio is not None
    stat = item.audio.stat()
    stretch = f"{item.start}|{item.end}|{item.max_duration}"
    return f"{item.audio.resolve()}|{stat.st_mtime_ns}|{stat.st_size}|{stretch}"


class VoiceStates:
    """States and statistics of a frozen voice encoder, by clip and version; version 0 is the clean clip.

    Args:
        folder: where they are kept.
        encoder: the frozen encoder.
        listener: changes clips.
        recipe: what the changes depend on besides clip and seeds (settings, noises).
        versions: changed versions of each training clip.
    """

    def __init__(
        self, folder: Path, encoder: AudioEncoder, listener: Listener, recipe: str, versions: int
    ) -> None:
        self.folder, self.encoder, self.listener, self.versions = (
            folder,
            encoder,
            listener,
            versions,
        )
        digest = hashlib.sha256()
        for name, value in encoder.state_dict().items():
            digest.update(name.encode())
            digest.update(value.cpu().numpy().tobytes())
        # The configuration tells which states are given out; weights alone do not.
        digest.update(json.dumps(encoder.model.config.to_diff_dict(), sort_keys=True).encode())
        self._encoder_key, self._recipe = digest.hexdigest(), recipe
        self._statistics: dict[tuple[str, int], HalfArray] = {}
        self._files: dict[tuple[str, int], Path] = {}

    def load(
        self,
        items: Iterable[Item],
        versions: Callable[[Item, int], tuple[Condition, Seeds, str]],
        changed: bool,
        progress: Callable[[], None],
    ) -> None:
        """Compute what is not kept yet, and read every clip's statistics.

        Args:
            versions: noise and seeds of a version of a clip, and all that it depends on.
            changed: all versions, not the clean one alone.
            progress: called after each clip.
        """
        for item in items:
            for version in range(self.versions + 1 if changed else 1):
                condition, seeds, told = versions(item, version)
                key = f"{self._encoder_key}|{identity(item)}|"
                key += f"{self._recipe}|{told}" if version else "clean"
                name = hashlib.sha256(key.encode()).hexdigest()[:32]
                file = self.folder / name[:2] / f"{name}.npz"
                if not file.is_file():
                    states = self.compute(item, condition, seeds if version else None)
                    self._keep(file, states)
                with np.load(file, allow_pickle=False) as archive:
                    self._statistics[item.id, version] = archive["statistics"]
                self._files[item.id, version] = file
            progress()

    def _keep(self, file: Path, states: HalfArray) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}.npz")
        wide = torch.from_numpy(states.astype(np.float32))[None]
        statistics = voice_statistics(wide, torch.ones(wide.shape[:2], dtype=torch.bool))[0]
        np.savez(temporary, states=states, statistics=statistics.half().numpy())
        os.replace(temporary, file)

    def compute(self, item: Item, condition: Condition, seeds: Seeds | None = None) -> HalfArray:
        """States [F, H] of a clip in a condition, changed where there are seeds."""
        return self.encode(self.listener(samples_of(item), condition, seeds, item.id))

    @torch.no_grad()
    def encode(self, samples: FloatArray) -> HalfArray:
        """States [F, H] of any sound."""
        waveform = torch.from_numpy(np.ascontiguousarray(samples))[None]
        device = next(self.encoder.parameters()).device
        mask = torch.ones_like(waveform, dtype=torch.bool)
        states, frames = self.encoder(waveform.to(device), mask.to(device))
        return np.asarray(states[0][frames[0]].half().cpu().numpy())

    def states(self, item: Item, version: int) -> HalfArray:
        """[F, H] of a clip that was loaded."""
        with np.load(self._files[item.id, version], allow_pickle=False) as archive:
            return np.asarray(archive["states"])

    def statistics(self, item: Item, version: int) -> FloatArray:
        """[2 H] of a clip that was loaded; see `model.baseline.voice_statistics`."""
        return self._statistics[item.id, version].astype(np.float32)
