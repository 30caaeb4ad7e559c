# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The messages of ROS4HRI, where they are installed."""

from __future__ import annotations

import importlib
from typing import Any

from hri_emo_ros.errors import HriEmoError


def hri_messages(asked_by: str) -> Any:
    """The module hri_msgs.msg.

    Args:
        asked_by: the node or the parameter that needs it, for the message.

    Raises:
        HriEmoError: hri_msgs is not installed.
    """
    try:
        return importlib.import_module("hri_msgs.msg")
    except ImportError as error:
        raise HriEmoError(
            f"{asked_by} needs hri_msgs, which is not installed: apt install ros-$ROS_DISTRO-hri-msgs, or "
            "build https://github.com/ros4hri/hri_msgs in the workspace"
        ) from error


def language_field(messages: Any) -> str:
    """Name of LiveSpeech's field for the language: it was renamed in hri_msgs 2.1."""
    return "locale" if hasattr(messages.LiveSpeech(), "locale") else "language"
