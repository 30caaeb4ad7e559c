# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Plays files or a microphone to the audio topic, as a robot's audio driver would."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from hri_emo_ros.audio.pcm import PcmFormat
from hri_emo_ros.audio.sources import FileSource, MicrophoneSource, Source
from hri_emo_ros.nodes.audio_messages import AudioPublisher
from hri_emo_ros.nodes.lifecycle import HriNode, run
from hri_emo_ros.parameters import Value


class AudioPlayer(HriNode):
    """Publishes on `audio`, and where the messages do not tell the format, on `audio_info`.

    Each chunk is published when its last sample would have been recorded; its stamp is the time of
    its first sample, counted in samples from the start of playing.
    """

    def __init__(self) -> None:
        super().__init__("audio_player")
        self._source: Source | None = None
        self._publisher: AudioPublisher | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._frames = 0
        self.finished = False

    def build(self, parameters: dict[str, Value]) -> None:
        self._settings = parameters
        self._source = self._make_source()
        stamped = parameters["player.message_type"] != "AudioData"
        self._publisher = AudioPublisher(self, None, stamped, lifecycle=True)

    def open(self) -> None:
        if self._source is None:
            self._source = self._make_source()
        assert self._publisher is not None
        self._publisher.tell(PcmFormat(self._source.sample_rate, self._source.channels, "S16LE"))
        self._ending.clear()
        self._thread = threading.Thread(target=self._play, args=(self._source,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        if self._source is not None:
            self._source.close()
            self._source = None
        if self._thread is not None:
            self._thread.join(5.0)
            self._thread = None

    def dismantle(self) -> None:
        self.close()
        if self._publisher is not None:
            self._publisher.destroy()
            self._publisher = None

    def changed(self, parameters: dict[str, Value]) -> None:
        self._settings = parameters

    def values(self) -> Mapping[str, object]:
        return {"frames played": self._frames, "finished": self.finished}

    def _make_source(self) -> Source:
        p = self._settings
        rate, channels = int(p["player.sample_rate"]), int(p["player.channels"])
        chunk = int(p["player.chunk_ms"])
        if p["player.microphone"]:
            return MicrophoneSource(str(p["player.microphone"]), rate, channels, chunk)
        return FileSource(
            list(p["player.files"]),
            rate,
            channels,
            chunk,
            float(p["player.gap"]),
            bool(p["player.loop"]),
        )

    def _play(self, source: Source) -> None:
        publisher = self._publisher
        assert publisher is not None
        try:
            self._wait_for_subscriber(publisher)
            due, began_ns = time.monotonic(), self.get_clock().now().nanoseconds
            self._frames, self.finished = 0, False
            for block in source.blocks():
                end = (self._frames + len(block)) / source.sample_rate
                speed = float(self._settings["player.speed"])
                if not source.live and speed > 0:
                    due += len(block) / source.sample_rate / speed
                    self._ending.wait(max(0.0, due - time.monotonic()))
                if self._ending.is_set():
                    return
                if source.live and source.position == 0:
                    began_ns = self.get_clock().now().nanoseconds - round(end * 1e9)
                publisher.send(
                    block.astype("<i2", copy=False).tobytes(),
                    began_ns + round(source.position / source.sample_rate * 1e9),
                    str(self._settings["player.frame_id"]),
                )
                self._frames += len(block)
            self.finished = True
            self.get_logger().info(f"played {self._frames / source.sample_rate:.1f} s")
        except Exception as error:
            if not self._ending.is_set():
                self.failed("playing", error)

    def _wait_for_subscriber(self, publisher: AudioPublisher) -> None:
        deadline = time.monotonic() + float(self._settings["player.wait_for_subscribers"])
        while publisher.subscribers == 0 and time.monotonic() < deadline:
            if self._ending.wait(0.05):
                return


def main() -> int:
    """Entry point of the executable."""
    return run([AudioPlayer])


if __name__ == "__main__":
    raise SystemExit(main())
