"""Plays the audio of a rosbag2 to a topic, as `ros2 bag play` would where that is installed."""

from __future__ import annotations

import array
import threading
import time
from pathlib import Path
from typing import Any

from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo
from rclpy.node import Node

from hri_emo_ros.audio.pcm import PcmFormat
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.bags import AudioBag
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.conversions import to_time


class BagPlayer:
    """Publishes a bag's audio on `audio`, stamped as if it was spoken from now on.

    Args:
        node: to publish with.
        path: the bag.
        speed: multiple of real time.
    """

    def __init__(self, node: Node, path: Path, speed: float = 1.0) -> None:
        if speed <= 0:
            raise HriEmoError(f"speed is {speed:g}, must be above 0: change --speed")
        self._node, self._path, self._speed = node, path, speed
        self._audio = node.create_publisher(AudioDataStamped, "audio", qos.AUDIO)
        self._info = node.create_publisher(AudioInfo, "audio_info", qos.AUDIO_INFO)
        self._thread = threading.Thread(target=self._play, name="bag", daemon=True)
        self._ending = threading.Event()
        self.start_ns = 0
        """Stamp of the first message; 0 before it is sent."""
        self.position = 0.0
        """Seconds played."""
        self.finished = threading.Event()
        self.error: Exception | None = None

    def start(self) -> None:
        """Play in a thread of its own."""
        self._thread.start()

    def ready(self) -> bool:
        """Somebody listens."""
        return self._audio.get_subscription_count() > 0

    def stop(self) -> None:
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def _play(self) -> None:
        try:
            with AudioBag(self._path) as bag:
                self._run(bag)
        except Exception as error:
            self.error = error
        finally:
            self.finished.set()

    def _run(self, bag: AudioBag) -> None:
        known: PcmFormat | None = bag.format
        if known is not None:
            self._tell(known)
        first_ns = first_receive_ns = 0
        due = 0.0
        for message in bag.messages():
            if not self.start_ns:
                # A microphone's chunk arrives when its last sample has been recorded.
                pcm = message.format or known or PcmFormat(16_000)
                length = len(message.data) / (pcm.sample_rate * pcm.frame_bytes)
                self.start_ns, first_ns = time.time_ns() - round(length * 1e9), message.stamp_ns
                first_receive_ns = message.receive_ns
                due = time.monotonic()
            if message.format is not None and message.format != known:
                known = message.format
                self._tell(known)
            # A chunk is there once its last sample has been recorded: that is the receive time.
            self.position = max(0.0, (message.receive_ns - first_receive_ns) * 1e-9)
            wait = due + self.position / self._speed - time.monotonic()
            if self._ending.wait(max(0.0, wait)):
                return
            self._send(message.data, self.start_ns + message.stamp_ns - first_ns)

    def _tell(self, pcm: PcmFormat) -> None:
        self._info.publish(
            AudioInfo(
                channels=pcm.channels,
                sample_rate=pcm.sample_rate,
                sample_format=pcm.sample_format,
                coding_format="wave",
            )
        )

    def _send(self, data: bytes, stamp_ns: int) -> None:
        message: Any = AudioDataStamped(audio=AudioData(data=array.array("B", data)))
        message.header.stamp = to_time(stamp_ns)
        message.header.frame_id = "microphone"
        self._audio.publish(message)
