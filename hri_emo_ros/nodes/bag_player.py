# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Plays the audio of a rosbag2 to a topic, as `ros2 bag play` would where that is installed."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from rclpy.node import Node

from hri_emo_ros.audio.pcm import PcmFormat
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.bags import AudioBag
from hri_emo_ros.nodes.audio_messages import AudioPublisher
from hri_emo_ros.pipeline import RobotSpeaking


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
        self._path, self._speed = path, speed
        self._audio = AudioPublisher(node, None)
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
        """speech_node will hear what is played."""
        return self._audio.reaches("speech_node")

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
        known: PcmFormat | None = None
        first_ns = first_receive_ns = 0
        due = 0.0
        for sound in bag.sounds():
            if isinstance(sound, RobotSpeaking):
                continue
            message = sound.message
            if not self.start_ns:
                # A microphone's chunk arrives when its last sample has been recorded.
                pcm = message.format or known or PcmFormat(16_000)
                length = len(message.data) / (pcm.sample_rate * pcm.frame_bytes)
                self.start_ns, first_ns = time.time_ns() - round(length * 1e9), message.stamp_ns
                first_receive_ns = message.receive_ns
                due = time.monotonic()
            if sound.format != known:
                known = sound.format
                self._audio.tell(known)
            # A chunk is there once its last sample has been recorded: that is the receive time.
            self.position = max(0.0, (message.receive_ns - first_receive_ns) * 1e-9)
            wait = due + self.position / self._speed - time.monotonic()
            if self._ending.wait(max(0.0, wait)):
                return
            stamp_ns = self.start_ns + message.stamp_ns - first_ns
            self._audio.send(message.data, stamp_ns, "microphone")
