"""The audio messages robots publish: which types there are here, and what is in them.

Two packages are called audio_common_msgs: ros-drivers' (AudioData is ``uint8[] data``;
AudioDataStamped; AudioInfo on a topic of its own) and mgonzs13's (AudioStamped carries typed
samples with their format). Only one of them can be installed in a workspace.
"""

from __future__ import annotations

import array
import importlib
import sys
from dataclasses import dataclass
from typing import Any

from hri_emo_ros.audio.pcm import PcmFormat, check_coding_format
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.nodes.conversions import to_ns

PACKAGE = "audio_common_msgs"
PREFERRED = ("AudioDataStamped", "AudioStamped", "AudioData")
"""Stamped ones first: a topic that carries several types is taken at its best."""
_ORDER = "LE" if sys.byteorder == "little" else "BE"
_TYPED_FIELDS = {
    "int16_data": f"S16{_ORDER}",
    "float32_data": f"F32{_ORDER}",
    "int32_data": f"S32{_ORDER}",
    "int8_data": "S8",
    "uint8_data": "U8",
}


@dataclass(frozen=True)
class ReceivedAudio:
    """One audio message, whatever its type was."""

    data: bytes
    stamp_ns: int | None
    """None if the message has no stamp, or 0 in it."""
    frame_id: str
    format: PcmFormat | None
    """What the message itself says; None if it says nothing."""


def audio_types(wanted: str) -> dict[str, type]:
    """ROS type name -> class, for those of `wanted` ("auto" or a name) that are installed.

    Raises:
        HriEmoError: none of them is.
    """
    try:
        module = importlib.import_module(f"{PACKAGE}.msg")
    except ImportError as error:
        raise HriEmoError(
            f"{PACKAGE} is not installed: sudo apt-get install ros-$ROS_DISTRO-audio-common-msgs"
        ) from error
    names = PREFERRED if wanted == "auto" else (wanted,)
    found = {f"{PACKAGE}/msg/{n}": getattr(module, n) for n in names if hasattr(module, n)}
    # In mgonzs13's family AudioData is only a part of AudioStamped and says nothing of its format.
    found = {n: c for n, c in found.items() if n.endswith("Stamped") or hasattr(c(), "data")}
    if not found:
        raise HriEmoError(
            f"audio.message_type is '{wanted}', which the installed {PACKAGE} does not have"
        )
    return found


def info_types() -> dict[str, type]:
    """AudioInfo, where it is a message to be published on its own; else nothing."""
    module: Any = importlib.import_module(f"{PACKAGE}.msg")
    info = getattr(module, "AudioInfo", None)
    own = info is not None and hasattr(info(), "sample_format")
    return {f"{PACKAGE}/msg/AudioInfo": info} if own else {}


def read_message(message: Any) -> ReceivedAudio:
    """What a message of any of the types carries.

    Raises:
        HriEmoError: an AudioStamped without samples or with an impossible format.
    """
    header = getattr(message, "header", None)
    stamp = to_ns(header.stamp) if header is not None else 0
    frame = header.frame_id if header is not None else ""
    if hasattr(message, "data"):
        return ReceivedAudio(_bytes(message.data), None, "", None)
    if hasattr(message.audio, "data"):
        return ReceivedAudio(_bytes(message.audio.data), stamp or None, frame, None)
    info = message.audio.info
    for field, sample_format in _TYPED_FIELDS.items():
        samples = getattr(message.audio.audio_data, field)
        if len(samples):
            declared = PcmFormat(int(info.rate), int(info.channels), sample_format)
            return ReceivedAudio(_bytes(samples), stamp or None, frame, declared)
    raise HriEmoError("an AudioStamped message holds no samples in any of its fields")


def info_format(info: Any) -> PcmFormat:
    """The format that an AudioInfo describes.

    Raises:
        HriEmoError: it is compressed or impossible; says which.
    """
    check_coding_format(info.coding_format)
    return PcmFormat(int(info.sample_rate), int(info.channels), info.sample_format)


def _bytes(samples: Any) -> bytes:
    return samples.tobytes() if isinstance(samples, array.array) else bytes(samples)
