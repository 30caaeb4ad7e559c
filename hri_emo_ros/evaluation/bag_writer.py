# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""rosbag2 writing: the container settings that every bag of this package shares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError

from hri_emo_ros.errors import HriEmoError

STORAGES = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}

_FOREVER = QosTime(0, 0)
LATCHED = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
    _FOREVER, _FOREVER, QosLiveliness.AUTOMATIC, _FOREVER, False,
)  # fmt: skip
"""For AudioInfo: whoever subscribes late still gets it from ``ros2 bag play``."""
RELIABLE = LATCHED._replace(durability=QosDurability.VOLATILE, depth=100)


@contextmanager
def new_bag(path: Path, storage: str = "mcap") -> Iterator[Writer]:
    """A rosbag2 folder to write into; its metadata.yaml is written at the end.

    Raises:
        HriEmoError: the folder is there already, or the storage is unknown.
    """
    if storage not in STORAGES:
        raise HriEmoError(f"storage '{storage}' must be one of: {', '.join(STORAGES)}")
    try:
        # Metadata version 8 is the last that Humble's rosbag2 reads too.
        with Writer(path, version=8, storage_plugin=STORAGES[storage]) as writer:
            yield writer
    except WriterError as error:
        raise HriEmoError(f"cannot write the bag '{path}': {error}") from error
    except OSError as error:
        raise HriEmoError(f"cannot write the bag '{path}': {error.strerror}") from error
