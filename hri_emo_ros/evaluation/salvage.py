# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Whatever can still be read of a bag whose storage file is cut short or was never closed.

Readers start from the index at the end of a file; a recorder that was killed never wrote it. Here the
file is read from its beginning up to where it breaks.
"""

from __future__ import annotations

import contextlib
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import lz4.frame
import zstandard
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
    MessageDefinitionFormat,
)

_MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = 0x03, 0x04, 0x05, 0x06
_LONGEST_RECORD = 1 << 30
"""A longer record is taken for garbage (bytes); recorders chunk at about 1 MB."""


class _Record(NamedTuple):
    op: int
    body: bytes


class SalvagedBag:
    """The readable beginning of one mcap or sqlite3 file, in the order in which it was written.

    Offers what this package uses of rosbags' reader: `connections`, `start_time`, `messages`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections: list[Connection] = []
        self.start_time = 2**63 - 1
        self.end_time = 0
        counts: dict[int, int] = {}
        for connection, stamp, _ in self.messages([]):
            self.start_time = min(self.start_time, stamp)
            self.end_time = max(self.end_time, stamp + 1)
            counts[connection.id] = counts.get(connection.id, 0) + 1
        self.connections = [c._replace(msgcount=counts.get(c.id, 0)) for c in self.connections]

    def messages(self, connections: list[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        """Messages of these topics (an empty list: of all), with receive times in ns."""
        topics = {connection.topic for connection in connections}
        scan = self._scan_sqlite if self.path.suffix == ".db3" else self._scan_mcap
        for connection, stamp, data in scan():
            if not topics or connection.topic in topics:
                yield connection, stamp, data

    def close(self) -> None:
        """Nothing is kept open."""

    def _add(self, connection: Connection) -> Connection:
        known = next((c for c in self.connections if c.id == connection.id), None)
        if known is None:
            self.connections.append(connection)
        return known or connection

    def _scan_mcap(self) -> Iterator[tuple[Connection, int, bytes]]:
        schemas: dict[int, tuple[str, MessageDefinition]] = {}
        channels: dict[int, Connection] = {}
        with self.path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return
            with contextlib.suppress(struct.error, UnicodeDecodeError):
                for op, body in _mcap_records(file):
                    if op == _SCHEMA:
                        schemas[struct.unpack_from("<H", body)[0]] = _schema(body)
                    elif op == _CHANNEL:
                        number, schema = struct.unpack_from("<HH", body)
                        topic, position = _text(body, 4)
                        encoding, _ = _text(body, position)
                        name, definition = schemas.get(
                            schema, ("", MessageDefinition(MessageDefinitionFormat.NONE, ""))
                        )
                        extra = ConnectionExtRosbag2(encoding, [])
                        channels[number] = self._add(
                            Connection(number, topic, name, definition, "", 0, extra, self)
                        )
                    elif op == _MESSAGE:
                        number, _, stamp, _ = struct.unpack_from("<HIQQ", body)
                        if number in channels:
                            yield channels[number], stamp, body[22:]

    def _scan_sqlite(self) -> Iterator[tuple[Connection, int, bytes]]:
        none = MessageDefinition(MessageDefinitionFormat.NONE, "")
        with (
            contextlib.suppress(sqlite3.DatabaseError),
            contextlib.closing(
                sqlite3.connect(f"file:{self.path}?mode=ro&immutable=1", uri=True)
            ) as database,
        ):
            # Without this SQLite refuses a file that is shorter than its header says.
            database.execute("PRAGMA writable_schema=ON")
            topics = {
                number: self._add(
                    Connection(
                        number, name, kind, none, "", 0, ConnectionExtRosbag2("cdr", []), self
                    )
                )
                for number, name, kind in database.execute("SELECT id, name, type FROM topics")
            }
            # In the order of the rows: the index on the stamps lies behind them and may be cut off.
            rows = database.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id")
            for number, stamp, data in rows:
                if number not in topics:
                    return  # SQLite reads what is missing as zeros
                yield topics[number], stamp, data


def _mcap_records(file: BinaryIO) -> Iterator[_Record]:
    """The records of a file, those within chunks among them, up to where it breaks."""
    while len(head := file.read(9)) == 9:
        op, length = struct.unpack("<BQ", head)
        if length > _LONGEST_RECORD:
            return
        body = file.read(length)
        if op == _CHUNK:
            yield from _chunk_records(body)
        elif len(body) == length:
            yield _Record(op, body)


def _chunk_records(body: bytes) -> Iterator[_Record]:
    """The records of a chunk, of which only the beginning may be there."""
    if len(body) < 32:
        return
    compression, position = _text(body, 28)
    data = _decompress(compression, body[position + 8 :])
    position = 0
    while position + 9 <= len(data):
        op, length = struct.unpack_from("<BQ", data, position)
        position += 9
        if position + length > len(data):
            return
        yield _Record(op, data[position : position + length])
        position += length


def _decompress(compression: str, data: bytes) -> bytes:
    with contextlib.suppress(zstandard.ZstdError, RuntimeError, EOFError):
        if compression == "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        if compression == "lz4":
            return bytes(lz4.frame.LZ4FrameDecompressor().decompress(data))
    return data if compression == "" else b""


def _text(body: bytes, position: int) -> tuple[str, int]:
    """A string behind its length, and the position behind it."""
    (length,) = struct.unpack_from("<I", body, position)
    end = position + 4 + length
    return body[position + 4 : end].decode(), end


def _schema(body: bytes) -> tuple[str, MessageDefinition]:
    name, position = _text(body, 2)
    encoding, position = _text(body, position)
    text, _ = _text(body, position)
    kind = {
        "ros2msg": MessageDefinitionFormat.MSG,
        "ros2idl": MessageDefinitionFormat.IDL,
    }.get(encoding, MessageDefinitionFormat.NONE)
    return name, MessageDefinition(kind, text)
