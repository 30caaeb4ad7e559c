"""Audio out of rosbag2, with no ROS: which topic, in which format, message by message."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import apsw
import numpy as np
import zstandard
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, ReaderError

from hri_emo_ros.audio.pcm import PcmFormat, check_coding_format
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.labels import Label, check_within, ordered, parse_annotation
from hri_emo_ros.evaluation.rosbag_types import (
    AUDIO_DATA,
    AUDIO_INFO,
    AUDIO_STAMPED,
    AUDIO_TYPES,
    PYAUDIO_FORMATS,
    typestore_for,
)
from hri_emo_ros.evaluation.salvage import SalvagedBag
from hri_emo_ros.pipeline import RobotSpeaking

LABEL_TOPIC = "/emotion_labels"
"""std_msgs/String, each message one JSON object with the keys of the labels' CSV."""

_STRING = "std_msgs/msg/String"
_BOOL = "std_msgs/msg/Bool"
_CLOCK_TOLERANCE_NS = 5_000_000_000
"""Stamps further than this from the receive times count from another origin (a sensor's boot)."""
# What rosbags and its storages raise on broken files; none of it is documented.
_BROKEN = (
    ReaderError, AssertionError, struct.error, apsw.Error, zstandard.ZstdError, IndexError,
    KeyError, TypeError, ValueError, RuntimeError, EOFError,
)  # fmt: skip


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
        path: the bag's folder, or one .mcap or .db3 file of it.
        topic: the audio topic; empty takes the only one there is.

    Raises:
        HriEmoError: no bag, no or several audio topics, an unknown type, compressed audio.
    """

    def __init__(self, path: Path, topic: str = "") -> None:
        self.path = path
        self._storage, self._damaged = _open(path)
        try:
            self._connection = self._choose(topic)
            self.topic = self._connection.topic
            self.message_type = self._connection.msgtype
            self.start_ns = self._storage.start_time
            self.duration = max(0, self._storage.end_time - 1 - self.start_ns) * 1e-9
            """Seconds from the first to the last message of any topic."""
            self.message_count = self._connection.msgcount
            self._store = typestore_for(self._connection)
            self.format = self._info()
            self._robot = self._robot_topic()
            self.origin_ns = self._origin()
            """Sensor stamp of the bag's start: what to subtract from stamps to get the bag's time."""
        except BaseException:
            self._storage.close()
            raise

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
        self._storage.close()

    def seconds(self, receive_ns: int) -> float:
        """Time since the bag's start."""
        return (receive_ns - self.start_ns) * 1e-9

    def messages(self) -> Iterator[RecordedAudio]:
        """Audio messages in order of receipt.

        Raises:
            TruncatedBagError: at the end, where the bag breaks off.
        """
        for event in self.events():
            if isinstance(event, RecordedAudio):
                yield event

    def events(self) -> Iterator[RecordedAudio | RobotSpeaking]:
        """Audio, and when the robot said that it spoke (a std_msgs/Bool named robot_speaking).

        Raises:
            TruncatedBagError: at the end, where the bag breaks off.
        """
        last = self.start_ns
        count = 0
        wanted = [self._connection, *([self._robot] if self._robot else [])]
        try:
            for connection, receive_ns, raw in self._storage.messages(wanted):
                last = receive_ns
                if connection.topic != self.topic:
                    active: Any = typestore_for(connection).deserialize_cdr(raw, _BOOL)
                    stamp_ns = receive_ns - self.start_ns + self.origin_ns
                    yield RobotSpeaking(bool(active.data), stamp_ns)
                    continue
                count += 1
                yield self._decode(self._deserialise(raw), receive_ns)
        except _BROKEN as error:
            raise self._truncated(count, last) from error
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
        for _, _, raw in self._storage.messages([connection]):
            message: Any = store.deserialize_cdr(raw, _STRING)
            labels.append(
                parse_annotation(message.data, where, known)
                if known
                else parse_annotation(message.data, where)
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

    def _info(self) -> PcmFormat | None:
        """The first AudioInfo that belongs to the audio topic."""
        if self.message_type == AUDIO_STAMPED:
            first = next(iter(self._storage.messages([self._connection])), None)
            return self._decode(self._deserialise(first[2]), 0).format if first else None
        infos = [c for c in self._storage.connections if c.msgtype == AUDIO_INFO]
        # /mic/audio and /mic/audio_info share most of their beginning.
        infos.sort(key=lambda c: _shared(c.topic, self.topic), reverse=True)
        for connection in infos:
            store = typestore_for(connection)
            for _, _, raw in self._storage.messages([connection]):
                info: Any = store.deserialize_cdr(raw, AUDIO_INFO)
                try:
                    check_coding_format(info.coding_format)
                    return PcmFormat(int(info.sample_rate), int(info.channels), info.sample_format)
                except HriEmoError as error:
                    raise HriEmoError(
                        f"bag '{self.path}' topic '{connection.topic}': {error}"
                    ) from error
        return None

    def _robot_topic(self) -> Connection | None:
        return next(
            (
                c
                for c in self._storage.connections
                if c.msgtype == _BOOL and c.topic.rsplit("/", 1)[-1] == "robot_speaking"
            ),
            None,
        )

    def _origin(self) -> int:
        """The bag's start on the sensor's clock.

        Where both clocks count from the same origin they are taken for one, so that the transport's
        real delay stays in; else the first message is taken to be received at once.
        """
        for _, receive_ns, raw in self._storage.messages([self._connection]):
            difference = receive_ns - self._decode(self._deserialise(raw), receive_ns).stamp_ns
            return self.start_ns - (difference if abs(difference) > _CLOCK_TOLERANCE_NS else 0)
        return self.start_ns

    def _deserialise(self, raw: bytes) -> Any:
        return self._store.deserialize_cdr(raw, self.message_type)

    def _decode(self, message: Any, receive_ns: int) -> RecordedAudio:
        if self.message_type == AUDIO_DATA:
            if not hasattr(message, "data"):
                raise HriEmoError(
                    f"bag '{self.path}': topic '{self.topic}' holds AudioData of mgonzs13's "
                    "audio_common without its format; record AudioStamped"
                )
            return RecordedAudio(receive_ns, receive_ns, message.data.tobytes(), False, None)
        stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        stamped = stamp != 0
        stamp = stamp or receive_ns
        if self.message_type == AUDIO_STAMPED:
            data, form = self._typed(message.audio)
            return RecordedAudio(stamp, receive_ns, data, stamped, form)
        return RecordedAudio(stamp, receive_ns, message.audio.data.tobytes(), stamped, None)

    def _typed(self, audio: Any) -> tuple[bytes, PcmFormat]:
        """Bytes and format of mgonzs13's Audio, whose samples lie in the array of their type."""
        form = PYAUDIO_FORMATS.get(int(audio.info.format))
        if form is None:
            known = ", ".join(f"{code} ({name})" for code, name in PYAUDIO_FORMATS.items())
            raise HriEmoError(
                f"bag '{self.path}': topic '{self.topic}' has the sample format "
                f"{audio.info.format}, must be one of: {known}"
            )
        array = {
            "F32LE": audio.audio_data.float32_data,
            "S32LE": audio.audio_data.int32_data,
            "S16LE": audio.audio_data.int16_data,
            "S8": audio.audio_data.int8_data,
            "U8": audio.audio_data.uint8_data,
        }[form]
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        return data.tobytes(), PcmFormat(int(audio.info.rate), int(audio.info.channels), form)

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


def _open(path: Path) -> tuple[_Storage, str]:
    """The bag's storage, and what is wrong with it (empty when nothing is)."""
    if not path.exists():
        raise HriEmoError(f"there is no bag '{path}'")
    if path.is_dir() and not (path / "metadata.yaml").exists():
        files = sorted((*path.glob("*.mcap"), *path.glob("*.db3")))
        hint = f"or give one file of it, '{files[0]}'" if files else "is this a rosbag2 folder?"
        raise HriEmoError(
            f"bag '{path}' has no metadata.yaml: write it with 'ros2 bag reindex {path}', {hint}"
        )
    if path.is_file() and path.suffix not in (".mcap", ".db3"):
        raise HriEmoError(f"'{path}' is no rosbag2: give its folder, or its .mcap or .db3 file")
    reader = Reader(path)
    try:
        reader.open()
    except _BROKEN as error:
        reason = f"{error}".strip().rstrip(".") or type(error).__name__
        salvaged = _salvage(path)
        if salvaged is None or not salvaged.connections:
            raise HriEmoError(f"bag '{path}' cannot be read: {reason}") from error
        return salvaged, reason
    return reader, ""  # type: ignore[return-value]


def _salvage(path: Path) -> SalvagedBag | None:
    """A damaged bag's storage file, where there is one that can be scanned."""
    files = [path] if path.is_file() else sorted((*path.glob("*.mcap"), *path.glob("*.db3")))
    # Of a bag split into several files it is the last that breaks off, and without an index the
    # whole cannot be put in order: only a single file is salvaged.
    return SalvagedBag(files[0]) if len(files) == 1 else None
