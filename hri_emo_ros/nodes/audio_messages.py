# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Which audio messages are installed here, and publishing in them."""

from __future__ import annotations

import array
import importlib
from typing import Any

from rclpy.duration import Duration

from hri_emo_ros.audio.messages import TYPED_FIELDS
from hri_emo_ros.audio.pcm import PcmDecoder, PcmFormat
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.adaptive import reaches
from hri_emo_ros.nodes.conversions import to_time

PACKAGE = "audio_common_msgs"
PREFERRED = ("AudioDataStamped", "AudioStamped", "AudioData")
"""Stamped ones first: a topic that carries several types is taken at its best."""


def audio_types(wanted: str) -> dict[str, type]:
    """ROS type name -> class, for those of `wanted` ("auto" or a name) that are installed.

    Raises:
        HriEmoError: none of them is.
    """
    module = _messages()
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
    info = getattr(_messages(), "AudioInfo", None)
    own = info is not None and hasattr(info(), "sample_format")
    return {f"{PACKAGE}/msg/AudioInfo": info} if own else {}


class AudioPublisher:
    """Publishes PCM as a robot's driver does, in the installed family's messages.

    ros-drivers': the bytes as they are, as AudioDataStamped or AudioData, and AudioInfo, latched.
    mgonzs13's: AudioStamped, 16-bit samples as they are, all others as float32; unstamped is a stamp of 0.

    Args:
        node: to publish with.
        pcm_format: of what will be sent; None leaves it untold and takes 16 kHz, mono, S16LE where the
            family cannot leave it so.
        stamped: with the time of the first sample.
        lifecycle: publish only while the node is active.

    Raises:
        HriEmoError: neither family is installed.
    """

    def __init__(
        self, node: Any, pcm_format: PcmFormat | None, stamped: bool = True, lifecycle: bool = False
    ) -> None:
        self._node, self._stamped = node, stamped
        self._lifecycle = lifecycle
        self._module = _messages()
        self._typed = hasattr(self._module, "AudioStamped")
        name = "AudioStamped" if self._typed else "AudioDataStamped" if stamped else "AudioData"
        self._audio = self._create(getattr(self._module, name), "audio", qos.AUDIO)
        self._info = (
            None
            if self._typed
            else self._create(self._module.AudioInfo, "audio_info", qos.AUDIO_INFO)
        )
        self._decoder = PcmDecoder(pcm_format or PcmFormat(16_000))
        if pcm_format is not None:
            self.tell(pcm_format)

    @property
    def subscribers(self) -> int:
        """Who listens to the audio."""
        return int(self._audio.get_subscription_count())

    def reaches(self, listener: str) -> bool:
        """Whether the node named `listener` will hear all that is sent and told."""
        return all(
            reaches(self._node, publisher, listener)
            for publisher in (self._audio, self._info)
            if publisher is not None
        )

    def arrived(self, timeout: float) -> bool:
        """Wait until all that was sent and told has come to who listens; False after `timeout` seconds.

        Quick only for the first message: the acknowledgement of others waits for Fast DDS's heartbeat, 3 s.
        """
        return all(
            publisher.wait_for_all_acked(Duration(seconds=timeout))
            for publisher in (self._audio, self._info)
            if publisher is not None
        )

    def tell(self, pcm_format: PcmFormat) -> None:
        """What follows is in this format."""
        if pcm_format != self._decoder.format:
            self._decoder = PcmDecoder(pcm_format)
        if self._info is not None:
            self._info.publish(
                self._module.AudioInfo(
                    channels=pcm_format.channels,
                    sample_rate=pcm_format.sample_rate,
                    sample_format=pcm_format.sample_format,
                    bitrate=pcm_format.sample_rate * pcm_format.frame_bytes * 8,
                    coding_format="wave",
                )
            )

    def send(self, data: bytes, stamp_ns: int, frame_id: str) -> None:
        """Publish the bytes of one message; `stamp_ns` is the time of its first sample.

        Raises:
            HriEmoError: they are those of a compressed format and are to go out as typed samples.
        """
        if self._typed:
            message = self._typed_message(data)
        else:
            message = self._module.AudioData(data=array.array("B", data))
            if self._stamped:
                message = self._module.AudioDataStamped(audio=message)
        if hasattr(message, "header"):
            message.header.stamp = to_time(stamp_ns if self._stamped else 0)
            message.header.frame_id = frame_id
        self._audio.publish(message)

    def destroy(self) -> None:
        """Take the publishers from the node."""
        for publisher in filter(None, (self._audio, self._info)):
            if self._lifecycle:
                self._node.destroy_lifecycle_publisher(publisher)
            else:
                self._node.destroy_publisher(publisher)

    def _create(self, kind: type, topic: str, quality: Any) -> Any:
        create = (
            self._node.create_lifecycle_publisher
            if self._lifecycle
            else self._node.create_publisher
        )
        return create(kind, topic, quality)

    def _typed_message(self, data: bytes) -> Any:
        frames = self._decoder.decode(data)
        pcm = self._decoder.format
        message = self._module.AudioStamped()
        if pcm.sample_format == "S16LE":
            code, values = 8, array.array("h", (frames * 32768.0).astype("i2").tobytes())
        else:
            code, values = 1, array.array("f", frames.tobytes())
        setattr(message.audio.audio_data, TYPED_FIELDS[code][0], values)
        info = message.audio.info
        info.format, info.channels, info.rate = code, pcm.channels, pcm.sample_rate
        info.chunk = len(frames)
        return message


def _messages() -> Any:
    try:
        return importlib.import_module(f"{PACKAGE}.msg")
    except ImportError as error:
        raise HriEmoError(
            f"{PACKAGE} is not installed: sudo apt-get install ros-$ROS_DISTRO-audio-common-msgs"
        ) from error
