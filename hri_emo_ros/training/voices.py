# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What the network hears of a clip: its samples, or the states of a voice encoder that is not trained.

A frozen encoder says the same of a clip each time, so its states are computed once, of the clean clip and of so
many changed versions, and kept on disk for every epoch, stage and fold of the same recipe. In each version a few
speakers of a corpus are in one room, with its noise and its microphone, as the people are that a robot hears.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hri_emo_ros.data.clip_facts import identity, samples_of
from hri_emo_ros.data.corpus import Item
from hri_emo_ros.model.baseline import voice_statistics
from hri_emo_ros.model.encoders import AudioEncoder
from hri_emo_ros.training.augment import Condition, Conditions, Listener, Seeds
from hri_emo_ros.types import FloatArray

HalfArray = npt.NDArray[np.float16]
_NOT_TOLD = ("_name_or_path", "architectures", "dtype", "transformers_version")
"""Where an encoder's configuration comes from, which does not change its states."""


_TOGETHER = 4
"""Speakers in a room."""


class Rooms:
    """Which speakers are together in which version of the clips.

    Args:
        items: whose speakers are told.
        seed: of the draws.
    """

    def __init__(self, items: Sequence[Item], seed: int) -> None:
        self.seed = seed
        speakers: dict[str, set[str]] = {}
        for item in items:
            speakers.setdefault(item.corpus, set()).add(item.speaker)
        self._speakers = {corpus: sorted(names) for corpus, names in speakers.items()}
        self._places: dict[tuple[str, int], dict[str, int]] = {}

    def __call__(self, item: Item, version: int) -> str:
        """Name of the room; that of the corpus for the clean version."""
        if version == 0:
            return item.corpus
        key = (item.corpus, version)
        if key not in self._places:
            names = self._speakers[item.corpus]
            rng = np.random.default_rng([self.seed, version, zlib.crc32(item.corpus.encode())])
            self._places[key] = {names[k]: i for i, k in enumerate(rng.permutation(len(names)))}
        return f"{item.corpus}/{self._places[key][item.speaker] // _TOGETHER}"

    def seeds(self, item: Item, version: int) -> Seeds:
        """Of what happens to a clip in a version."""
        seed = f"{self.seed}/{version}"
        return Seeds.of(seed, item.id, item.speaker, self(item, version))


def babble_beside(item: Item) -> str:
    """Kind of noise: babble of the voices in the clip's corpus and fold."""
    return f"babble of {item.corpus} {item.fold}"


class VoiceStates:
    """States and statistics of a frozen voice encoder, by clip and version; version 0 is the clean clip.

    Args:
        folder: where they are kept.
        encoder: the frozen encoder.
        listener: changes clips.
        conditions: draws their noise.
        rooms: who is together.
        settings: what the changes depend on besides clip and seeds.
        versions: changed versions of each training clip.
    """

    def __init__(
        self, folder: Path, encoder: AudioEncoder, listener: Listener, conditions: Conditions,
        rooms: Rooms, settings: str, versions: int,
    ) -> None:  # fmt: skip
        self.folder, self.encoder, self.listener = folder, encoder, listener
        self.conditions, self.rooms, self.versions = conditions, rooms, versions
        self._encoder_key, self._settings = _encoder_key(encoder), settings
        self._statistics: dict[tuple[str, int], HalfArray] = {}
        self._files: dict[tuple[str, int], Path] = {}

    def load(self, items: Iterable[Item], changed: bool, progress: Callable[[], None]) -> None:
        """Compute what is not kept yet, and read every clip's statistics.

        Args:
            changed: all versions, not the clean one alone.
            progress: called after each clip.
        """
        for item in items:
            for version in range(self.versions + 1 if changed else 1):
                condition, seeds, told = self._version(item, version)
                key = f"{self._encoder_key}|{identity(item)}|"
                key += f"{self._settings}|{told}" if version else "clean"
                name = hashlib.sha256(key.encode()).hexdigest()[:32]
                file = self.folder / name[:2] / f"{name}.npz"
                if not file.is_file():
                    states = self.compute(item, condition, seeds if version else None)
                    self._keep(file, states)
                with np.load(file, allow_pickle=False) as archive:
                    self._statistics[item.id, version] = archive["statistics"]
                self._files[item.id, version] = file
            progress()

    def _version(self, item: Item, version: int) -> tuple[Condition, Seeds, str]:
        """Noise and seeds of a version of a clip, and all that they depend on."""
        seeds = self.rooms.seeds(item, version)
        kind, snr = self.conditions.noise(seeds) if version else ("", math.nan)
        # Of those who are left out together with the clip: so a run that leaves them out hears none of them,
        # and all runs share the states.
        kind = babble_beside(item) if kind == "babble" else kind
        condition = Condition(item.target, item.target, True, False, None, kind, snr)
        bank = self.listener.bank
        return condition, seeds, f"{seeds}|{snr:.2f}|{bank.digest(kind) if bank and kind else ''}"

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


def _encoder_key(encoder: AudioEncoder) -> str:
    """The same for an encoder and for what a stage's bundle makes of it, which has 16-bit weights."""
    digest = hashlib.sha256()
    for name, value in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(
            (value.half() if value.is_floating_point() else value).cpu().numpy().tobytes()
        )
    # The configuration tells which states are given out; weights alone do not.
    config = encoder.model.config.to_diff_dict()
    told = {name: value for name, value in config.items() if name not in _NOT_TOLD}
    digest.update(json.dumps(told, sort_keys=True).encode())
    return digest.hexdigest()
