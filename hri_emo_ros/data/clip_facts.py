# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What is found out about clips once and kept from run to run: lengths, noise, what a recogniser makes of them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hri_emo_ros.asr import Recogniser, make_recogniser
from hri_emo_ros.data.clips import decode
from hri_emo_ros.data.corpus import Item
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import SAMPLE_RATE, FloatArray


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
