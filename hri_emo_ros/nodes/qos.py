# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Qualities of service of every topic, and why.

Nothing of an utterance may be lost on its way through our own nodes, so what they exchange is
reliable with a history that holds a busy minute. Reliable publishers serve best-effort subscribers
too. What robots publish is taken as they offer it: see `hri_emo_ros.nodes.adaptive`.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _reliable(depth: int, durability: DurabilityPolicy = DurabilityPolicy.VOLATILE) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=durability,
    )


AUDIO = _reliable(1000)
"""10 s of 10 ms chunks: bridges a pause of the receiver without losing a sample."""
AUDIO_INFO = _reliable(1, DurabilityPolicy.TRANSIENT_LOCAL)
"""Latched: whoever comes late still learns the format."""
SPEECH = _reliable(500)
"""Two minutes of 0.25 s chunks: the emotion node reads on when a slow model lets go."""
TRANSCRIPT = _reliable(100)
EMOTION = _reliable(100)
LATEST = _reliable(1, DurabilityPolicy.TRANSIENT_LOCAL)
"""Latched: whoever comes late still learns what was last said."""
EVENT = _reliable(10, DurabilityPolicy.TRANSIENT_LOCAL)
"""robot_speaking; the robot may be speaking already when a node that hears it starts."""
