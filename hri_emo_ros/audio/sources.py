# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Files and microphones as blocks of 16-bit PCM: what `audio_player` and `hri-emo listen` hear."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile
import soxr

from hri_emo_ros.audio.files import read_samples
from hri_emo_ros.errors import HriEmoError

Block = np.ndarray[Any, np.dtype[np.int16]]

STALL = 3.0
"""Seconds without sound after which a microphone counts as gone; a muted one gives zeros."""
PORTAUDIO_HINT = "the microphone needs the PortAudio library: sudo apt-get install libportaudio2"


class Source(Protocol):
    """Interleaved int16 blocks [frames, channels] of `sample_rate`."""

    sample_rate: int
    channels: int
    live: bool
    """Blocks come when the sound does; otherwise as fast as they are asked for."""
    position: int
    """Frames from the beginning to the block that came last, those that were lost with them."""

    def blocks(self) -> Iterator[Block]: ...

    def close(self) -> None: ...


class FileSource:
    """Files one after another, each followed by `gap` seconds of silence.

    Args:
        paths: WAV, FLAC or whatever else libsndfile reads.
        sample_rate: Hz to convert to; 0 keeps the first file's (others are converted to it).
        channels: to spread or mix to; 0 keeps the first file's.
        chunk_ms: length of a block.

    Raises:
        HriEmoError: a file is missing or unreadable; all are looked at before the first is played.
    """

    live = False

    def __init__(
        self,
        paths: list[str],
        sample_rate: int,
        channels: int,
        chunk_ms: int,
        gap: float,
        loop: bool,
    ) -> None:
        self._paths = [Path(path) for path in paths if path]
        if not self._paths:
            raise HriEmoError("nothing to play: set player.files or player.microphone")
        infos = []
        for path in self._paths:
            try:
                infos.append(soundfile.info(str(path)))
            except (OSError, soundfile.SoundFileError) as error:
                raise HriEmoError(f"player.files: cannot read '{path}': {error}") from error
        self.sample_rate = sample_rate or int(infos[0].samplerate)
        self.channels = channels or int(infos[0].channels)
        self._frames = max(1, round(self.sample_rate * chunk_ms / 1000))
        self._gap, self._loop = gap, loop
        self.position = 0

    def blocks(self) -> Iterator[Block]:
        """Full blocks throughout; the last one is filled up with silence."""
        rest: Block = np.zeros((0, self.channels), np.int16)
        silence = np.zeros((round(self._gap * self.sample_rate), self.channels), np.int16)
        while True:
            for path in self._paths:
                rest = np.concatenate([rest, self._read(path), silence])
                whole = len(rest) // self._frames * self._frames
                for start in range(0, whole, self._frames):
                    yield rest[start : start + self._frames]
                    self.position += self._frames
                rest = rest[whole:]
            if not self._loop:
                break
        if len(rest):
            yield np.concatenate(
                [rest, np.zeros((self._frames - len(rest), self.channels), np.int16)]
            )

    def close(self) -> None:
        """Nothing stays open between blocks."""

    def _read(self, path: Path) -> Block:
        samples, rate = read_samples(path)
        if rate != self.sample_rate:
            samples = soxr.resample(samples, rate, self.sample_rate)
        if samples.shape[1] != self.channels:
            samples = np.repeat(samples.mean(axis=1, keepdims=True), self.channels, axis=1)
        scaled = np.clip(np.rint(samples * 32768.0), -32768, 32767)
        return scaled.astype(np.int16)


class MicrophoneSource:
    """A sound device.

    Args:
        device: name, number, or "default".
        sample_rate: Hz; 0 takes the device's own.
        channels: 0 takes one.

    Raises:
        HriEmoError: PortAudio is missing, or there is no such device or it refuses the format.
    """

    live = True

    def __init__(self, device: str, sample_rate: int, channels: int, chunk_ms: int) -> None:
        sounddevice = import_sounddevice()
        chosen: int | str | None = int(device) if device.isdigit() else device
        if device == "default":
            chosen = None
        self._queue: queue.Queue[tuple[int, Block]] = queue.Queue(maxsize=500)
        self._given = 0
        self.position = 0
        self.lost = 0
        """Frames that nobody fetched in time."""
        self.overflows = 0
        """How often the device lost some before they came here, by its own account."""
        try:
            info: Any = sounddevice.query_devices(chosen, "input")
            self.sample_rate = sample_rate or int(info["default_samplerate"])
            self.channels = channels or 1
            self._stream = sounddevice.InputStream(
                samplerate=self.sample_rate,
                blocksize=max(1, round(self.sample_rate * chunk_ms / 1000)),
                device=chosen,
                channels=self.channels,
                dtype="int16",
                callback=self._take,
            )
        except (ValueError, sounddevice.PortAudioError) as error:
            names = [d["name"] for d in sounddevice.query_devices() if d["max_input_channels"] > 0]
            raise HriEmoError(
                f"microphone '{device}' cannot be opened ({error}); inputs here: "
                + (", ".join(repr(n) for n in names) or "none")
            ) from error
        self._open = True

    def blocks(self) -> Iterator[Block]:
        """Blocks as they are recorded, until `close`.

        Raises:
            HriEmoError: none has come for `STALL` seconds.
        """
        self._stream.start()
        heard = time.monotonic()
        while self._open:
            try:
                self.position, block = self._queue.get(timeout=0.2)
                heard = time.monotonic()
                yield block
            except queue.Empty:
                if time.monotonic() - heard >= STALL:
                    raise HriEmoError(
                        f"the microphone has given nothing for {STALL:g} s: was it unplugged?"
                    ) from None

    def close(self) -> None:
        self._open = False
        # PortAudio may wait for a device that is gone for ever.
        closing = threading.Thread(target=self._stream.close, daemon=True)
        closing.start()
        closing.join(1.0)

    def _take(self, data: Block, frames: int, time: Any, status: Any) -> None:
        self.overflows += bool(status and status.input_overflow)
        try:
            self._queue.put_nowait((self._given, data.copy()))
        except queue.Full:
            self.lost += frames
        self._given += frames


def import_sounddevice() -> Any:
    """The sounddevice module.

    Raises:
        HriEmoError: it or the PortAudio library is not installed.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        raise HriEmoError(PORTAUDIO_HINT) from error
    return sounddevice
