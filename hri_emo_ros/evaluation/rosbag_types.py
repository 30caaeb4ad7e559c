# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Message definitions for reading and writing bags without ROS.

Two packages are called ``audio_common_msgs``, and their AudioData and AudioInfo differ:
ros-drivers' (bytes in a format told by AudioInfo) and mgonzs13's (typed arrays, the format beside
them, all in AudioStamped). Their definitions are written down here because a bag may come without;
those of ``hri_emo_msgs`` are read from where they are installed, or from the source tree.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from hri_emo_ros.errors import HriEmoError

AUDIO_DATA = "audio_common_msgs/msg/AudioData"
AUDIO_DATA_STAMPED = "audio_common_msgs/msg/AudioDataStamped"
AUDIO_STAMPED = "audio_common_msgs/msg/AudioStamped"
AUDIO_INFO = "audio_common_msgs/msg/AudioInfo"
AUDIO_TYPES = (AUDIO_DATA, AUDIO_DATA_STAMPED, AUDIO_STAMPED)
SPEECH = "hri_emo_msgs/msg/Speech"
TRANSCRIPT = "hri_emo_msgs/msg/Transcript"
EMOTION_STATE = "hri_emo_msgs/msg/EmotionState"
CONVERSATION = "hri_emo_msgs/msg/ConversationEmotion"
EXPLANATION = "hri_emo_msgs/msg/EmotionExplanation"

# https://github.com/ros-drivers/audio_common (ros2 branch): what rosdep installs.
_ROS_DRIVERS = {
    AUDIO_DATA: "uint8[] data\n",
    AUDIO_DATA_STAMPED: "std_msgs/Header header\naudio_common_msgs/AudioData audio\n",
    AUDIO_INFO: (
        "uint8 channels\nuint32 sample_rate\nstring sample_format\nuint32 bitrate\n"
        "string coding_format\n"
    ),
}
# https://github.com/mgonzs13/audio_common
MGONZS13 = {
    AUDIO_DATA: (
        "float32[] float32_data\nint32[] int32_data\nint16[] int16_data\nint8[] int8_data\n"
        "uint8[] uint8_data\n"
    ),
    AUDIO_INFO: "int32 format\nint32 channels\nint32 rate\nint32 chunk\n",
    "audio_common_msgs/msg/Audio": (
        "audio_common_msgs/AudioData audio_data\naudio_common_msgs/AudioInfo info\n"
    ),
    AUDIO_STAMPED: "std_msgs/Header header\naudio_common_msgs/Audio audio\n",
}

_MGONZS13_2023 = MGONZS13 | {
    AUDIO_DATA: (
        "float32[] float32_data\nint32[] int32_data\nint32[] int24_data\nint16[] int16_data\n"
        "int8[] int8_data\nuint8[] uint8_data\n"
    ),
}
"""As it was from May 2023 to May 2024."""


def _base_store() -> Typestore:
    # Humble's definitions of std_msgs and builtin_interfaces equal those of every later release.
    return get_typestore(Stores.ROS2_HUMBLE)


def _register(store: Typestore, definitions: dict[str, str]) -> Typestore:
    types: dict[str, object] = {}
    for name, text in definitions.items():
        types.update(get_types_from_msg(text, name))
    store.register(types)  # type: ignore[arg-type]
    return store


def audio_typestore(message_type: str) -> Typestore:
    """The definitions of the family that `message_type` (one of `AUDIO_TYPES`) belongs to."""
    family = MGONZS13 if message_type == AUDIO_STAMPED else _ROS_DRIVERS
    return _register(_base_store(), family)


def _audio_typestore(message_type: str, example: bytes) -> Typestore:
    store = audio_typestore(message_type)
    if example and message_type == AUDIO_STAMPED:
        try:
            store.deserialize_cdr(example, message_type)
        except Exception:  # rosbags says by anything at all that bytes are left over or missing.
            return _register(_base_store(), _MGONZS13_2023)
    return store


def typestore_for(connection: Connection, example: bytes = b"") -> Typestore:
    """Definitions for one topic: those the bag carries, else those known here.

    Args:
        example: a message of the topic, which tells apart two versions of a definition.

    Raises:
        HriEmoError: the bag carries none and the type is not known, or one that cannot be read.
    """
    store = _base_store()
    definition = connection.msgdef
    if definition.format is not MessageDefinitionFormat.NONE:
        try:
            if definition.format is MessageDefinitionFormat.MSG:
                types = get_types_from_msg(definition.data, connection.msgtype)
            else:
                types = get_types_from_idl(definition.data)
            store.register({n: fields for n, fields in types.items() if n not in store.fielddefs})
            return store
        except Exception as error:  # rosbags says it in many ways.
            raise HriEmoError(
                f"topic '{connection.topic}': the definition of '{connection.msgtype}' in the bag cannot "
                f"be read ({type(error).__name__})"
            ) from error
    if connection.msgtype in (*AUDIO_TYPES, AUDIO_INFO):
        return _audio_typestore(connection.msgtype, example)
    if connection.msgtype in store.fielddefs:
        return store
    raise HriEmoError(
        f"topic '{connection.topic}' has the type '{connection.msgtype}', whose definition is "
        "neither in the bag nor known here; record the bag with message definitions (mcap)"
    )


def message_folder(package: str = "hri_emo_msgs") -> Path:
    """Where the package's .msg files are: ament prefixes, this environment, the source tree.

    Raises:
        HriEmoError: they are in none of these.
    """
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    folders = [prefix / "share" / package / "msg" for prefix in (*prefixes, Path(sys.prefix))]
    folders.append(Path(__file__).resolve().parents[2] / package / "msg")
    for folder in folders:
        if any(folder.glob("*.msg")):
            return folder
    raise HriEmoError(
        f"the message definitions of {package} are not installed: run 'make' in the repository, "
        "or source the workspace that holds them"
    )


@cache
def emotion_typestore() -> Typestore:
    """Standard messages and those of hri_emo_msgs."""
    folder = message_folder()
    definitions = {
        f"hri_emo_msgs/msg/{path.stem}": path.read_text(encoding="utf-8")
        for path in sorted(folder.glob("*.msg"))
    }
    return _register(_base_store(), definitions)
