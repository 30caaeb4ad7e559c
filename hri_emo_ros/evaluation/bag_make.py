# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo bag make``: a labelled recording out of single clips, the same one every time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Writer
from rosbags.typesys.store import Typestore

from hri_emo_ros.data.clips import read_clip, speech_bounds, speech_level
from hri_emo_ros.data.manifest import Row, read_manifest
from hri_emo_ros.data.noise import NoiseSource
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.bag_writer import LATCHED, RELIABLE, new_bag
from hri_emo_ros.evaluation.bags import LABEL_TOPIC
from hri_emo_ros.evaluation.labels import Label, write_labels
from hri_emo_ros.evaluation.rosbag_types import (
    AUDIO_DATA,
    AUDIO_DATA_STAMPED,
    AUDIO_INFO,
    AUDIO_STAMPED,
    audio_typestore,
)

FloatArray = npt.NDArray[np.float32]
MESSAGES = {
    "AudioData": AUDIO_DATA,
    "AudioDataStamped": AUDIO_DATA_STAMPED,
    "AudioStamped": AUDIO_STAMPED,
}
_STRING = "std_msgs/msg/String"
_PYAUDIO_INT16 = 8


@dataclass(frozen=True)
class BagRecipe:
    """Everything that decides what is in the bag."""

    manifest: Path
    """CSV: path (relative to it), emotion, and optionally speaker, text, start, end (s)."""
    gap: tuple[float, float] = (0.5, 2.0)
    """Shortest and longest silence before each clip, s; drawn evenly."""
    noise: str = ""
    """Folder or file of noises, ``white`` or ``pink``; empty adds none."""
    snr_db: float = 20.0
    """Mean level of the speech over that of the noise, dB."""
    burst: tuple[float, float, float] | None = None
    """From where to where, s, the noise is at another `snr_db` (the third, dB); None is nowhere."""
    message: str = "AudioDataStamped"
    chunk_ms: float = 20.0
    rate: int = 16_000
    channels: int = 1
    level_dbfs: float | None = None
    """RMS level to which each clip's speech is brought; None leaves the clips as they are."""
    seed: int = 0
    storage: str = "mcap"
    topic: str = "/audio"
    repeat: int = 1
    """How often the manifest is gone through."""
    shuffle: bool = False
    start_ns: int = 1_700_000_000_000_000_000
    """Stamp of the first sample: fixed, so that the same recipe gives the same bag."""

    def check(self) -> None:
        """Raises HriEmoError for a value that makes no bag."""
        low, high = self.gap
        if not 0.0 <= low <= high <= 3600.0:
            raise HriEmoError(
                f"--gap is {low:g}:{high:g}, must be MIN:MAX seconds, 0 <= MIN <= MAX"
            )
        if self.burst is not None and not 0.0 <= self.burst[0] < self.burst[1]:
            raise HriEmoError(
                f"--burst is {self.burst[0]:g}:{self.burst[1]:g}:{self.burst[2]:g}, must be "
                "BEGIN:END:SNR, 0 <= BEGIN < END seconds"
            )
        if self.burst is not None and not self.noise:
            raise HriEmoError("--burst needs a noise: give one with --noise")
        if self.message not in MESSAGES:
            raise HriEmoError(f"--message '{self.message}' must be one of: {', '.join(MESSAGES)}")
        if not 1.0 <= self.chunk_ms <= 10_000.0:
            raise HriEmoError(f"--chunk-ms is {self.chunk_ms:g}, must be 1 to 10000")
        if not 4_000 <= self.rate <= 192_000:
            raise HriEmoError(f"--rate is {self.rate}, must be 4000 to 192000 Hz")
        if not 1 <= self.channels <= 32:
            raise HriEmoError(f"--channels is {self.channels}, must be 1 to 32")


def make_bag(recipe: BagRecipe, out: Path) -> list[Label]:
    """Write the bag, and beside its data ``labels.csv`` and ``recipe.json``.

    Returns:
        The labels, which are also on the topic ``/emotion_labels``.

    Raises:
        HriEmoError: the recipe, the manifest or a clip is refused, or `out` exists.
    """
    recipe.check()
    clips = spoken(recipe.manifest)
    noise = _noise(recipe, clips)
    labels: list[Label] = []
    with new_bag(out, recipe.storage) as writer:
        audio = _AudioTopic(writer, recipe)
        annotations = _AnnotationTopic(writer, recipe)
        for block in _blocks(_sounds(recipe, clips, noise, labels), recipe):
            audio.write(block)
            annotations.write(labels, audio.time_ns)
        annotations.write(labels, audio.time_ns, everything=True)
    write_labels(out / "labels.csv", labels)
    content = asdict(recipe) | {"manifest": recipe.manifest.name}
    (out / "recipe.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return labels


def spoken(manifest: Path) -> list[Row]:
    """The lines of a manifest, all of which must be clips.

    Raises:
        HriEmoError: a line is refused or names no file, or there is none.
    """
    rows = read_manifest(manifest).strictly()
    for row in rows:
        if row.path is None:
            raise HriEmoError(f"the manifest '{manifest}' line {row.line}: path is empty")
    return rows


def _noise(recipe: BagRecipe, clips: Sequence[Row]) -> NoiseSource | None:
    """The background, at its distance from the mean level of all clips' speech."""
    # Reads every clip once, so a broken one is found before anything is written.
    powers = [speech_level(_sample(clip, recipe)) ** 2 for clip in clips]
    if not recipe.noise:
        return None
    noise = NoiseSource(recipe.noise, recipe.rate, recipe.seed)
    noise.gain = float(np.mean(powers) ** 0.5) / 10 ** (recipe.snr_db / 20)
    return noise


def _sounds(
    recipe: BagRecipe, clips: Sequence[Row], noise: NoiseSource | None, labels: list[Label]
) -> Iterator[FloatArray]:
    """Gap, clip, gap, ..., clip, gap over the noise, [n] float32; adds to `labels` on the way."""
    random = np.random.default_rng(recipe.seed)
    position = 0

    def over_noise(samples: FloatArray) -> FloatArray:
        nonlocal position
        begin, position = position, position + len(samples)
        if noise is None:
            return samples
        background = noise.take(len(samples))
        if recipe.burst is not None:
            first, last, snr_db = recipe.burst
            seconds = np.arange(begin, position) / recipe.rate
            louder = np.float32(10 ** ((recipe.snr_db - snr_db) / 20))
            background = np.where(
                (seconds >= first) & (seconds < last), louder * background, background
            )
        return samples + background

    def gap() -> FloatArray:
        length = round(random.uniform(*recipe.gap) * recipe.rate)
        return np.zeros(length, np.float32)

    for _ in range(recipe.repeat):
        order = list(range(len(clips)))
        if recipe.shuffle:
            random.shuffle(order)
        for index in order:
            yield over_noise(gap())
            samples = _sample(clips[index], recipe)
            start, end = speech_bounds(samples, recipe.rate)
            seconds = position / recipe.rate
            clip = clips[index]
            labels.append(
                Label(seconds + start, seconds + end, clip.label, clip.speaker, clip.text)
            )
            yield over_noise(samples)
    yield over_noise(gap())


def _sample(clip: Row, recipe: BagRecipe) -> FloatArray:
    """The clip at the bag's rate and level, [n]; never louder than full scale."""
    assert clip.path is not None
    samples = read_clip(clip.path, recipe.rate, clip.start, clip.end)
    if recipe.level_dbfs is not None:
        level, peak = speech_level(samples), float(np.abs(samples).max(initial=0.0))
        if level > 0:
            samples = samples * min(10 ** (recipe.level_dbfs / 20) / level, 0.99 / peak)
    return samples.astype(np.float32)


def _blocks(sounds: Iterator[FloatArray], recipe: BagRecipe) -> Iterator[FloatArray]:
    """Cut a stream of arrays into chunks; the last one is filled up with silence."""
    length = max(1, round(recipe.chunk_ms * 1e-3 * recipe.rate))
    rest: FloatArray = np.zeros(0, np.float32)
    for sound in sounds:
        rest = np.concatenate([rest, sound])
        whole = len(rest) // length
        yield from rest[: whole * length].reshape(whole, length)
        rest = rest[whole * length :]
    if len(rest):
        yield np.pad(rest, (0, length - len(rest)))


class _AudioTopic:
    """Writes PCM blocks as messages of the recipe's family, AudioInfo first."""

    def __init__(self, writer: Writer, recipe: BagRecipe) -> None:
        self._writer, self._recipe = writer, recipe
        self._type = MESSAGES[recipe.message]
        self._store: Typestore = audio_typestore(self._type)
        self._types: Any = self._store.types
        self._frames = 0
        if recipe.message != "AudioStamped":
            self._write_info()
        self._connection = self._add(recipe.topic, self._type, latched=False)

    @property
    def time_ns(self) -> int:
        """Time of the next sample."""
        return self._recipe.start_ns + self._frames * 1_000_000_000 // self._recipe.rate

    def write(self, block: FloatArray) -> None:
        """One message of [n] samples; all channels carry the same."""
        stamp = self.time_ns
        pcm = np.clip(np.rint(block * 32768.0), -32768, 32767).astype("<i2")
        pcm = np.repeat(pcm, self._recipe.channels)
        message = self._message(pcm, stamp)
        self._frames += len(block)
        # Without a header the time of receipt is all there is, and no sample is received early.
        receive = self.time_ns if self._type == AUDIO_DATA else stamp
        data = self._store.serialize_cdr(message, self._type)
        self._writer.write(self._connection, receive, data)

    def _message(self, pcm: npt.NDArray[np.int16], stamp_ns: int) -> Any:
        make = self._types
        header = make["std_msgs/msg/Header"](
            make["builtin_interfaces/msg/Time"](
                stamp_ns // 1_000_000_000, stamp_ns % 1_000_000_000
            ),
            "microphone",
        )
        if self._type == AUDIO_STAMPED:
            empty = {"float32_data": np.float32, "int32_data": np.int32, "int8_data": np.int8,
                     "uint8_data": np.uint8}  # fmt: skip
            data = make[AUDIO_DATA](
                int16_data=pcm, **{name: np.zeros(0, kind) for name, kind in empty.items()}
            )
            info = make[AUDIO_INFO](
                _PYAUDIO_INT16, self._recipe.channels, self._recipe.rate,
                len(pcm) // self._recipe.channels,
            )  # fmt: skip
            audio = make["audio_common_msgs/msg/Audio"](data, info)
            return make[AUDIO_STAMPED](header, audio)
        data = make[AUDIO_DATA](pcm.view(np.uint8))
        return make[AUDIO_DATA_STAMPED](header, data) if self._type != AUDIO_DATA else data

    def _write_info(self) -> None:
        recipe = self._recipe
        info = self._types[AUDIO_INFO](
            recipe.channels, recipe.rate, "S16LE", recipe.rate * recipe.channels * 16, "wave"
        )
        connection = self._add(f"{recipe.topic}_info", AUDIO_INFO, latched=True)
        self._writer.write(connection, recipe.start_ns, self._store.serialize_cdr(info, AUDIO_INFO))

    def _add(self, topic: str, kind: str, latched: bool) -> Connection:
        return self._writer.add_connection(
            topic, kind, typestore=self._store,
            offered_qos_profiles=[LATCHED if latched else RELIABLE],
        )  # fmt: skip


class _AnnotationTopic:
    """The labels inside the bag, each as soon as its stretch is over."""

    def __init__(self, writer: Writer, recipe: BagRecipe) -> None:
        self._writer, self._recipe = writer, recipe
        self._store = audio_typestore(AUDIO_DATA)
        self._connection = writer.add_connection(LABEL_TOPIC, _STRING, typestore=self._store)
        self._written = 0

    def write(self, labels: Sequence[Label], now_ns: int, everything: bool = False) -> None:
        """Write the labels that ended before `now_ns`."""
        make: Any = self._store.types[_STRING]
        for label in list(islice(labels, self._written, None)):
            end_ns = self._recipe.start_ns + round(label.end * 1e9)
            if end_ns > now_ns and not everything:
                return
            fields = asdict(label) | {"start": round(label.start, 3), "end": round(label.end, 3)}
            data = self._store.serialize_cdr(make(json.dumps(fields, ensure_ascii=False)), _STRING)
            # Never later than the last audio message: the bag's length is that of its sound.
            self._writer.write(self._connection, min(end_ns, now_ns - 1), data)
            self._written += 1
