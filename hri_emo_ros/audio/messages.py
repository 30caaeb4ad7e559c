# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What the audio messages of robots hold, whether they come over DDS or out of a bag.

Two packages are called audio_common_msgs: ros-drivers' (AudioData is ``uint8[] data``; AudioDataStamped;
AudioInfo on a topic of its own) and mgonzs13's (AudioStamped: typed samples, their format beside them).
Messages are taken by their fields, so that nothing of ROS is needed here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from hri_emo_ros.audio.pcm import PcmFormat, described_format
from hri_emo_ros.errors import HriEmoError

TYPED_FIELDS = {
    1: ("float32_data", "F32"),
    2: ("int32_data", "S32"),
    4: ("int24_data", "S24_32"),
    8: ("int16_data", "S16"),
    16: ("int8_data", "S8"),
    32: ("uint8_data", "U8"),
}
"""PortAudio's code in mgonzs13's AudioInfo.format -> field of AudioData, encoding of its samples."""
_ORDER = "LE" if sys.byteorder == "little" else "BE"


@dataclass(frozen=True)
class MessageAudio:
    """One audio message, whatever its type was."""

    data: bytes
    stamp_ns: int | None
    """Of the header; None if the message has none, or 0 in it."""
    frame_id: str
    format: PcmFormat | None
    """What the message itself says; None if it says nothing."""


def read_message(message: Any) -> MessageAudio:
    """What a message of any of the types carries.

    Raises:
        HriEmoError: samples without a format, in none of the known fields, or in an impossible format.
    """
    if hasattr(message, "data"):
        return MessageAudio(_bytes(message.data), None, "", None)
    header = getattr(message, "header", None)
    audio = getattr(message, "audio", None)
    if header is None or audio is None:
        raise HriEmoError(
            "the audio messages are AudioData of mgonzs13's audio_common, which tell no format: "
            "publish or record AudioStamped"
        )
    stamp = int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)
    if hasattr(audio, "data"):
        return MessageAudio(_bytes(audio.data), stamp or None, header.frame_id, None)
    if not hasattr(audio, "audio_data"):
        raise HriEmoError("the audio messages are of a definition that is not known here")
    data, described = _typed(audio.audio_data, audio.info)
    return MessageAudio(data, stamp or None, header.frame_id, described)


def info_format(info: Any) -> PcmFormat:
    """The format that an AudioInfo on a topic of its own describes.

    Raises:
        HriEmoError: it is compressed or impossible; says which.
    """
    return described_format(
        int(info.sample_rate), int(info.channels), info.sample_format, info.coding_format
    )


def _typed(samples: Any, info: Any) -> tuple[bytes, PcmFormat]:
    """Bytes and format of the field that holds samples, or of the one that the code names."""
    code = int(info.format)
    filled = [c for c, (f, _) in TYPED_FIELDS.items() if len(getattr(samples, f, ()))]
    if code not in TYPED_FIELDS or (filled and code not in filled):
        known = ", ".join(f"{c} ({field})" for c, (field, _) in TYPED_FIELDS.items())
        held = ", ".join(TYPED_FIELDS[c][0] for c in filled) or "none"
        raise HriEmoError(
            f"an AudioStamped message has the sample format {code} and its samples in {held}, "
            f"must be one of: {known}"
        )
    field, name = TYPED_FIELDS[code]
    values = getattr(samples, field, ())
    data = _bytes(values)
    if code == 4 and len(values) * 4 == int(info.chunk) * int(info.channels) * 3:
        name = "S24"  # That version's recorder put PortAudio's three bytes a sample in one after another.
    order = "" if name in ("S8", "U8") else _ORDER
    return data, PcmFormat(int(info.rate), int(info.channels), name + order)


def _bytes(samples: Any) -> bytes:
    """Of an array.array (rclpy) or a numpy array (rosbags), in this machine's byte order."""
    return samples.tobytes() if hasattr(samples, "tobytes") else bytes(samples)
