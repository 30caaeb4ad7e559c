# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Audio out of rosbag2, with no ROS: which topic, in which format, message by message."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Protocol

import zstandard
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader

from hri_emo_ros import parameters as declared
from hri_emo_ros.audio.messages import info_format, read_message
from hri_emo_ros.audio.pcm import PcmDecoder, PcmFormat, declared_format
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.labels import Label, check_within, ordered, parse_annotation
from hri_emo_ros.evaluation.rosbag_types import (
    AUDIO_INFO,
    AUDIO_STAMPED,
    AUDIO_TYPES,
    typestore_for,
)
from hri_emo_ros.evaluation.salvage import SalvagedBag
from hri_emo_ros.parameters import Value
from hri_emo_ros.pipeline import RobotSpeaking
from hri_emo_ros.types import FloatArray

LABEL_TOPIC = "/emotion_labels"
"""std_msgs/String, each message one JSON object with the keys of the labels' CSV."""

_STRING = "std_msgs/msg/String"
_BOOL = "std_msgs/msg/Bool"
_CLOCK_TOLERANCE_NS = 5_000_000_000
"""Stamps further than this from the receive times count from another origin (a sensor's boot)."""
_STORAGES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
_ZSTD = zstandard.FRAME_HEADER
"""What a compressed message begins with; a CDR message begins with 0."""


class TruncatedBagError(HriEmoError):
    """The bag breaks off; what could be read has been handed out before."""


@dataclass(frozen=True)
class RecordedAudio:
    """One message of the audio topic."""

    stamp_ns: int
    """The header's stamp; the receive time where there is none."""
    receive_ns: int
    """When the recorder got it."""
    data: bytes
    stamped: bool
    """`stamp_ns` is the header's."""
    format: PcmFormat | None
    """Set where the message itself tells (AudioStamped)."""


@dataclass(frozen=True)
class Sound:
    """A message's samples, in the format that holds at its place."""

    message: RecordedAudio
    frames: FloatArray
    """[n, channels], full scale [-1, 1]."""
    format: PcmFormat
    start: float
    """Time of the first sample, s from the bag's start."""


class _Storage(Protocol):
    connections: list[Connection]
    start_time: int
    end_time: int

    def messages(self, connections: list[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        """Messages of these topics."""

    def close(self) -> None:
        """Release the file."""


class AudioBag:
    """A recording with one audio topic to listen to.

    A context manager; reading is streamed, so memory does not grow with the bag's length.

    Args:
        path: the bag's folder, or one .mcap or .db3 file of it, compressed (.zstd) or not.
        topic: the audio topic; empty takes the only one there is.

    Raises:
        HriEmoError: no bag, no or several audio topics, an unknown type, compressed audio.
    """

    def __init__(self, path: Path, topic: str = "") -> None:
        self.path = path
        self._resources = ExitStack()
        try:
            self._open(topic)
        except HriEmoError:
            self.close()
            raise
        except (
            Exception
        ) as error:  # Nothing of what the libraries raise on broken files is documented.
            self.close()
            raise HriEmoError(f"bag '{path}' cannot be read: {_reason(error)}") from error
        except BaseException:
            self.close()
            raise

    def _open(self, topic: str) -> None:
        self._storage, self._damaged = _open_storage(self.path, self._resources)
        self._connection = self._choose(topic)
        self.topic = self._connection.topic
        self.message_type = self._connection.msgtype
        self.start_ns = self._storage.start_time
        self.duration = max(0, self._storage.end_time - 1 - self.start_ns) * 1e-9
        """Seconds from the first to the last message of any topic."""
        self.message_count = self._connection.msgcount
        example = next(self._raw([self._connection]), None)
        self._store = typestore_for(self._connection, example[2] if example else b"")
        first = self._decode(example[2], example[1]) if example else None
        self._info = self._info_topic()
        self._format: PcmFormat | HriEmoError | None = (
            first.format if first and first.format else self._first_info()
        )
        self._robot = self._robot_topic()
        self.origin_ns = self.start_ns - self._clock_difference(first)
        """Sensor stamp of the bag's start: what to subtract from stamps to get the bag's time."""

    @property
    def format(self) -> PcmFormat | None:
        """What the first message or the first AudioInfo tells; None if nothing does.

        Raises:
            HriEmoError: AudioInfo tells of compressed audio or of nothing possible.
        """
        if isinstance(self._format, HriEmoError):
            raise self._format
        return self._format

    def __enter__(self) -> AudioBag:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the bag's files."""
        self._resources.close()

    def seconds(self, receive_ns: int) -> float:
        """Time since the bag's start."""
        return (receive_ns - self.start_ns) * 1e-9

    def messages(self) -> Iterator[RecordedAudio]:
        """Audio messages in order of receipt.

        Raises:
            TruncatedBagError: at the end, where the bag breaks off.
        """
        for event in self.events(follow_info=False):
            if isinstance(event, RecordedAudio):
                yield event

    def sounds(
        self, parameters: Mapping[str, Value] | None = None
    ) -> Iterator[Sound | RobotSpeaking]:
        """Decoded audio, each message in the format that holds where it stands.

        Args:
            parameters: of the speech node, for a bag that tells no format (or is not to be asked).

        Raises:
            HriEmoError: compressed or impossible audio; `TruncatedBagError` as `events`.
        """
        values = declared.check("speech_node", parameters or {})
        use_info = bool(values["audio.use_info"])
        decoder = PcmDecoder((self.format if use_info else None) or declared_format(values))
        told: PcmFormat | None = None
        for event in self.events(follow_info=use_info):
            if isinstance(event, RobotSpeaking):
                yield event
                continue
            new = event if isinstance(event, PcmFormat) else event.format
            if new is not None and new != told:
                told = new
                if new != decoder.format:
                    decoder = PcmDecoder(new)
            if isinstance(event, RecordedAudio):
                frames = decoder.decode(event.data)
                start = (event.stamp_ns - self.origin_ns) * 1e-9
                if not event.stamped:
                    start -= len(frames) / decoder.format.sample_rate
                yield Sound(event, frames, decoder.format, start)

    def events(
        self, follow_info: bool = True
    ) -> Iterator[RecordedAudio | RobotSpeaking | PcmFormat]:
        """Audio, each new format that AudioInfo tells (if `follow_info`), and when the robot said that
        it spoke (a std_msgs/Bool named robot_speaking).

        Raises:
            HriEmoError: AudioInfo tells of compressed audio or of nothing possible.
            TruncatedBagError: at the end, where the bag breaks off.
        """
        last = self.start_ns
        count = 0
        told = self._format
        info = self._info if follow_info else None
        wanted = [c for c in (self._connection, self._robot, info) if c is not None]
        try:
            for connection, receive_ns, raw in self._raw(wanted):
                last = receive_ns
                if connection.topic == self.topic:
                    count += 1
                    yield self._decode(raw, receive_ns)
                elif connection.msgtype == _BOOL:
                    active: Any = typestore_for(connection).deserialize_cdr(raw, _BOOL)
                    yield RobotSpeaking(bool(active.data), receive_ns)
                elif (new := self._told(connection, raw)) != told:
                    told = new
                    yield new
        except HriEmoError:
            raise
        except Exception as error:
            self._damaged = self._damaged or _reason(error)
        if self._damaged:
            raise self._truncated(count, last)

    def labels(self, topic: str = "", known: Sequence[str] | None = None) -> list[Label]:
        """Labels from the annotation topic; none where the bag has no such topic.

        Args:
            topic: a std_msgs/String topic; empty takes `LABEL_TOPIC` if it is there.
            known: the model's emotions.

        Raises:
            HriEmoError: the named topic is not there, or a label is refused.
        """
        connection = next(
            (c for c in self._storage.connections if c.topic == (topic or LABEL_TOPIC)), None
        )
        if connection is None or connection.msgtype != _STRING:
            if topic:
                raise HriEmoError(
                    f"bag '{self.path}' has no {_STRING} topic '{topic}' to take labels from"
                )
            return []
        where = f"bag '{self.path}' topic '{connection.topic}'"
        store = typestore_for(connection)
        labels = []
        for text in self._strings(connection, store):
            labels.append(
                parse_annotation(text, where, known) if known else parse_annotation(text, where)
            )
        return check_within(ordered(labels, where), self.duration, where)

    def _choose(self, topic: str) -> Connection:
        connections = self._storage.connections
        audio = [c for c in connections if c.msgtype in AUDIO_TYPES]
        listing = ", ".join(f"{c.topic} ({c.msgtype})" for c in connections) or "nothing"
        if topic:
            named = next((c for c in connections if c.topic == topic), None)
            if named is None:
                raise HriEmoError(f"bag '{self.path}' has no topic '{topic}'; it holds: {listing}")
            if named.msgtype not in AUDIO_TYPES:
                raise HriEmoError(
                    f"bag '{self.path}': topic '{topic}' has the type '{named.msgtype}', which is "
                    f"none that carries audio here: {', '.join(AUDIO_TYPES)}"
                )
            return named
        if not audio:
            raise HriEmoError(
                f"bag '{self.path}' has no audio topic ({', '.join(AUDIO_TYPES)}); it holds: "
                f"{listing}"
            )
        if len(audio) > 1:
            raise HriEmoError(
                f"bag '{self.path}' has {len(audio)} audio topics, choose one with --topic: "
                + ", ".join(f"{c.topic} ({c.msgtype})" for c in audio)
            )
        return audio[0]

    def _info_topic(self) -> Connection | None:
        """The AudioInfo that belongs to the audio topic."""
        if self.message_type == AUDIO_STAMPED:
            return None
        infos = [c for c in self._storage.connections if c.msgtype == AUDIO_INFO]
        # /mic/audio and /mic/audio_info share most of their beginning.
        return max(infos, key=lambda c: _shared(c.topic, self.topic), default=None)

    def _first_info(self) -> PcmFormat | HriEmoError | None:
        if self._info is None:
            return None
        for connection, _, raw in self._raw([self._info]):
            try:
                return self._told(connection, raw)
            except HriEmoError as error:
                return error
        return None

    def _told(self, connection: Connection, raw: bytes) -> PcmFormat:
        try:
            return info_format(typestore_for(connection).deserialize_cdr(raw, AUDIO_INFO))
        except HriEmoError as error:
            raise HriEmoError(f"bag '{self.path}' topic '{connection.topic}': {error}") from error

    def _strings(self, connection: Connection, store: Any) -> Iterator[str]:
        """The texts on a std_msgs/String topic, up to where the bag breaks off."""
        try:
            for _, _, raw in self._raw([connection]):
                yield store.deserialize_cdr(raw, _STRING).data
        except Exception as error:
            self._damaged = self._damaged or _reason(error)

    def _raw(self, connections: list[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        for connection, receive_ns, raw in self._storage.messages(connections):
            # A file of a bag whose messages are compressed says so in metadata.yaml only.
            plain = _decompressed(raw) if bytes(raw[:4]) == _ZSTD else raw
            yield connection, receive_ns, plain

    def _robot_topic(self) -> Connection | None:
        return next(
            (
                c
                for c in self._storage.connections
                if c.msgtype == _BOOL and c.topic.rsplit("/", 1)[-1] == "robot_speaking"
            ),
            None,
        )

    def _clock_difference(self, first: RecordedAudio | None) -> int:
        """Receive time of the first message less its stamp, if the two count from different origins.

        Where both clocks count from the same origin they are taken for one, so that the transport's
        real delay stays in; else the first message is taken to be received at once.
        """
        difference = first.receive_ns - first.stamp_ns if first is not None else 0
        return difference if abs(difference) > _CLOCK_TOLERANCE_NS else 0

    def _decode(self, raw: bytes, receive_ns: int) -> RecordedAudio:
        message = self._store.deserialize_cdr(raw, self.message_type)
        try:
            audio = read_message(message)
        except HriEmoError as error:
            raise HriEmoError(f"bag '{self.path}' topic '{self.topic}': {error}") from error
        stamp = receive_ns if audio.stamp_ns is None else audio.stamp_ns
        return RecordedAudio(
            stamp, receive_ns, audio.data, audio.stamp_ns is not None, audio.format
        )

    def _truncated(self, count: int, last_ns: int) -> TruncatedBagError:
        return TruncatedBagError(
            f"bag '{self.path}' is truncated or was never closed ({self._damaged or 'broken data'}): "
            f"{count} messages of '{self.topic}', up to {self.seconds(last_ns):.2f} s, could be "
            "read; mend it with 'mcap recover' or sqlite3's '.recover' and 'ros2 bag reindex'"
        )


def _shared(one: str, other: str) -> int:
    """Length of the common beginning."""
    for position, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return position
    return min(len(one), len(other))


def _reason(error: Exception) -> str:
    """What a library says, on one line."""
    text = " ".join(f"{error}".split()).rstrip(".")
    return text[:300] or type(error).__name__


def _open_storage(path: Path, resources: ExitStack) -> tuple[_Storage, str]:
    """The bag's storage, and what is wrong with it (empty when nothing is)."""
    if not path.exists():
        raise HriEmoError(f"there is no bag '{path}'")
    if path.is_dir() and not (path / "metadata.yaml").exists():
        files = sorted(f for f in path.iterdir() if f.name.endswith(_STORAGES))
        hint = f"or give one file of it, '{files[0]}'" if files else "is this a rosbag2 folder?"
        raise HriEmoError(
            f"bag '{path}' has no metadata.yaml: write it with 'ros2 bag reindex {path}', {hint}"
        )
    if path.is_file() and not path.name.endswith(_STORAGES):
        raise HriEmoError(
            f"'{path}' is no rosbag2: give its folder, or one file of it ({', '.join(_STORAGES)})"
        )
    readable = _unpacked(path, resources) if path.suffix == ".zstd" else path
    readable = _with_journals(readable, resources)
    reader = Reader(readable)
    try:
        reader.open()
    except Exception as error:
        reason = _reason(error).replace(str(readable), str(path))
        salvaged = _salvage(readable)
        if salvaged is None or not salvaged.connections:
            raise HriEmoError(f"bag '{path}' cannot be read: {reason}") from error
        return salvaged, reason
    resources.callback(reader.close)
    return reader, ""  # type: ignore[return-value]


def _unpacked(path: Path, resources: ExitStack) -> Path:
    """A compressed storage file, decompressed into a temporary folder."""
    target = Path(resources.enter_context(TemporaryDirectory())) / path.stem
    with path.open("rb") as packed, target.open("wb") as plain:
        zstandard.ZstdDecompressor().copy_stream(packed, plain)
    return target


def _decompressed(message: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(message)


def _with_journals(path: Path, resources: ExitStack) -> Path:
    """The bag with what a killed recorder left in SQLite's journals put into its files.

    rosbags reads past a journal, and SQLite would write into the bag's folder: copies are made of what
    has one, in a temporary folder beside links to the rest.
    """
    files = [path] if path.is_file() else sorted(path.iterdir())
    journals = [j for f in files if f.suffix == ".db3" for j in _journals(f)]
    if not journals:
        return path
    folder = Path(resources.enter_context(TemporaryDirectory())) / path.stem
    folder.mkdir()
    for file in files:
        copy = folder / file.name
        if not _journals(file):
            copy.symlink_to(file.resolve())
            continue
        for source in (file, *_journals(file)):
            shutil.copyfile(source, folder / source.name)
        with closing(sqlite3.connect(copy)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return folder / path.name if path.is_file() else folder


def _journals(file: Path) -> list[Path]:
    """SQLite's write-ahead log and rollback journal of a file, where they hold anything."""
    found = (file.with_name(file.name + suffix) for suffix in ("-wal", "-journal"))
    return [journal for journal in found if journal.is_file() and journal.stat().st_size]


def _salvage(path: Path) -> SalvagedBag | None:
    """A damaged bag's storage file, where there is one that can be scanned."""
    files = [path] if path.is_file() else sorted((*path.glob("*.mcap"), *path.glob("*.db3")))
    # Of a bag split into several files it is the last that breaks off, and without an index the
    # whole cannot be put in order: only a single file is salvaged.
    return SalvagedBag(files[0]) if len(files) == 1 else None
