# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Hands messages from node to node of one process, past DDS: those that are not to be on the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_takers: dict[str, Callable[[Any], None]] = {}


def take(topic: str, taker: Callable[[Any], None]) -> None:
    """Have `taker` called with what is handed over under the fully qualified name `topic`, in whichever thread."""
    _takers[topic] = taker


def leave(topic: str) -> None:
    """Take no more."""
    _takers.pop(topic, None)


def hand_over(topic: str, message: Any) -> bool:
    """Give `message` to who takes it in this process; False if nobody does."""
    taker = _takers.get(topic)
    if taker is not None:
        taker(message)
    return taker is not None
