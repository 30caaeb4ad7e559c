# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The streams of several microphones, told apart by what `Speech` carries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from hri_emo_msgs.msg import Speech
from hri_emo_ros.nodes.adaptive import AdaptiveSubscription, node_of


@dataclass
class Stream:
    """What a node keeps of the microphone whose stream this is; the nodes add to it."""

    stream_id: str = ""
    """Empty before anything was heard."""
    frame_id: str = ""
    heard: float = 0.0
    """When its latest chunk came, on the steady clock, s."""


S = TypeVar("S", bound=Stream)


def speakers(speech: AdaptiveSubscription) -> int:
    """How many speech_nodes publish on the topic; one that died and its successor count once."""
    names = [node_of(publisher) for publisher in speech.publishers()]
    # Two that have not told their names yet are two: one must not be taken for the other's successor.
    return len(set(filter(None, names))) + names.count("")


class Streams(Generic[S]):
    """As many streams as there are speech_nodes.

    A speech_node that starts over names its stream anew, and goes on with what is kept of the old one. Which that
    was is told by frame_id, or else it is the one heard longest ago.

    Args:
        make: for one more microphone.
        most: how many speech_nodes there are now; asked where an unknown stream begins.
        ended: told before a stream is followed by the next of its microphone.

    Raises:
        HriEmoError: what `make` raises for the first one.
    """

    def __init__(
        self,
        make: Callable[[], S],
        most: Callable[[], int],
        ended: Callable[[S], None] = lambda stream: None,
    ) -> None:
        self._make, self._most, self._ended = make, most, ended
        self._streams = [make()]

    def __iter__(self) -> Iterator[S]:
        return iter(list(self._streams))

    def get(self, stream_id: str) -> S | None:
        """The stream of that name; the only one there is where it is empty, and None where that is not clear."""
        if stream_id:
            return next((s for s in self._streams if s.stream_id == stream_id), None)
        heard = [s for s in self._streams if s.stream_id] or self._streams
        return max(heard, key=lambda s: s.heard) if len(heard) == 1 or self._most() < 2 else None

    def of(self, message: Speech) -> tuple[S, bool]:
        """The stream that a chunk belongs to, and whether this is its first."""
        stream = next((s for s in self._streams if s.stream_id == message.stream_id), None)
        new = stream is None
        if stream is None:
            stream = self._place(message.header.frame_id)
            self._ended(stream)
            stream.stream_id = message.stream_id
        stream.frame_id, stream.heard = message.header.frame_id, time.monotonic()
        return stream, new

    def _place(self, frame_id: str) -> S:
        free = [s for s in self._streams if not s.stream_id]
        if not free and len(self._streams) < self._most():
            self._streams.append(self._make())
            return self._streams[-1]
        return min(free or self._streams, key=lambda s: (s.frame_id != frame_id, s.heard))
