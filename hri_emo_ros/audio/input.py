# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The microphone's signal as it arrives: its level, what is wrong with it, and the mix of its channels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hri_emo_ros.audio.pcm import PcmFormat
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import Fault, FloatArray

BLOCK = 0.1
"""Seconds after which the signal is judged and the mix may change."""
_WINDOW = 30
"""Blocks that are judged (3 s): longer than pauses in which a driver sends zeros."""
_LEVEL_WINDOW = 10
"""Blocks that make the level (1 s)."""
_ENOUGH = 10
"""Blocks after which a mix can be judged."""
_SILENT = 10**-8.8
"""Power (-88 dBFS: 16 bits of which only the last one moves) below which nothing is there."""
_AUDIBLE = 10**-7.5
"""Power (-75 dBFS) from which on channels can be compared."""
_STUCK = 0.9
"""Mean, of full scale, that no sound has."""
_CANCELLED, _UNCANCELLED = 0.1, 0.2
"""The power of a mean of n channels that have nothing in common is an n-th of theirs. A mean of less than a
tenth of that is one of channels that cancel each other, until it has more than a fifth."""
_OFFSET, _NO_OFFSET = 0.01, 0.005
"""Mean, of full scale, that is an offset where it exceeds the sound, and that no longer is one."""


@dataclass(frozen=True)
class InputReport:
    """What can be said of the signal up to some place."""

    level_dbfs: float = math.nan
    """Root mean square over the last second without the mean, of the channels that are listened to, dBFS."""
    fault: Fault = Fault.NONE
    text: str = ""
    """The fault in a sentence that names what to change; empty where there is none."""


@dataclass(frozen=True)
class Mix:
    """What becomes of a piece of input."""

    mono: FloatArray
    """[n]"""
    clipped: npt.NDArray[np.int64]
    """Indices of samples at full scale in a channel that is listened to."""
    reports: list[tuple[int, InputReport]]
    """Verdicts, each with the number of the piece's samples after which it holds."""


class InputMeter:
    """Mixes channels and watches them; the same input gives the same output, however it is cut.

    `channel` -1 takes the mean of one or two channels. Of more it takes the first, which is the processed
    one or as good as any other in microphone arrays (the last one often holds what the robot plays): see
    docs/faults.md for what was measured. Channels found dead, and means that cancel, are left out.

    Args:
        pcm_format: of the input.
        channel: to listen to, from 0; -1 chooses.

    Raises:
        HriEmoError: the format has no such channel.
    """

    def __init__(self, pcm_format: PcmFormat, channel: int) -> None:
        count = pcm_format.channels
        check_channel(channel, count)
        self._full_scale = pcm_format.full_scale
        self._length = max(1, round(BLOCK * pcm_format.sample_rate))
        self._candidates = list(range(count)) if channel < 0 else [channel]
        self._mean = len(self._candidates) <= 2
        self._listened = self._candidates if self._mean else self._candidates[:1]
        self._held: list[FloatArray] = []
        self._held_length = 0
        heard = len(self._candidates) + (self._mean and len(self._candidates) > 1)
        self._blocks = np.zeros((_WINDOW, 2, heard))
        """Mean and mean square of each candidate, and of their mean, the last ones first; [:_seen] are filled."""
        self._seen = 0
        self._cancelling = self._offset = False
        self.report = InputReport()
        """The newest verdict."""

    def take(self, frames: FloatArray, peak: float = 1.0) -> Mix:
        """Mix the next input: finite float32 [n, channels], full scale [-1, 1], none beyond `peak`."""
        mono: list[FloatArray] = []
        clipped: list[npt.NDArray[np.int64]] = []
        reports = []
        done = 0
        while done < len(frames):
            piece = frames[done : done + self._length - self._held_length]
            mono.append(self._mixed(piece))
            if peak >= self._full_scale:
                clipped.append(self._clipped(piece) + done)
            done += len(piece)
            self._held.append(piece)
            self._held_length += len(piece)
            if self._held_length == self._length:
                self._judge(np.concatenate(self._held) if len(self._held) > 1 else piece)
                self._held, self._held_length = [], 0
                reports.append((done, self.report))
        places = np.concatenate(clipped) if clipped else np.zeros(0, np.int64)
        if len(mono) == 1:
            return Mix(mono[0], places, reports)
        return Mix(np.concatenate(mono) if mono else np.zeros(0, np.float32), places, reports)

    def _mixed(self, piece: FloatArray) -> FloatArray:
        # Channel by channel: a sum over an axis may round differently for other lengths.
        mono: FloatArray = piece[:, self._listened[0]].copy()
        for channel in self._listened[1:]:
            mono += piece[:, channel]
        if len(self._listened) > 1:
            mono /= np.float32(len(self._listened))
        return mono

    def _clipped(self, piece: FloatArray) -> npt.NDArray[np.int64]:
        return np.flatnonzero((np.abs(piece[:, self._listened]) >= self._full_scale).any(axis=1))

    def _judge(self, block: FloatArray) -> None:
        """Look at the last seconds, and choose what is listened to from here on."""
        heard = block[:, self._candidates].astype(np.float64)
        if self._mean and heard.shape[1] > 1:
            heard = np.concatenate([heard, heard.mean(axis=1, keepdims=True)], axis=1)
        self._blocks[1:] = self._blocks[:-1].copy()
        self._blocks[0] = heard.mean(axis=0), np.square(heard).mean(axis=0)
        self._seen = min(self._seen + 1, _WINDOW)
        fault, text = self._fault()
        last = self._blocks[: min(self._seen, _LEVEL_WINDOW)].mean(axis=0)
        places = [self._candidates.index(channel) for channel in self._listened]
        power = float(np.mean((last[1] - last[0] ** 2)[places]))
        self.report = InputReport(10.0 * math.log10(max(power, 1e-12)), fault, text)

    def _fault(self) -> tuple[Fault, str]:
        mean, square = self._blocks[: self._seen].mean(axis=0)
        power = square - mean**2
        count = len(self._candidates)
        newest = self._blocks[0][0]
        dead = [self._dead(float(newest[i]), float(mean[i]), float(power[i])) for i in range(count)]
        living = [i for i in range(count) if not dead[i]]
        if not living:
            self._listen(range(count) if self._mean else [0])
            return self._nothing(dead, float(mean[0]))
        if self._mean and len(living) == count > 1:
            self._compare(power)
            if self._cancelling:
                self._listen([0])
                quieter = 10.0 * math.log10(power[:count].mean() / max(power[count], 1e-12))
                return Fault.CANCELLING, (
                    f"the mean of the {count} channels is {quieter:.0f} dB quieter than they are, one is "
                    f"inverted: channel {self._listened[0]} is listened to; set audio.channel"
                )
        self._listen(living if self._mean else living[:1])
        left_out = range(count) if self._mean else range(living[0])
        if lost := [i for i in left_out if dead[i]]:
            named = ", ".join(f"channel {self._candidates[i]} {dead[i]}" for i in lost)
            return Fault.DEAD_CHANNEL, (
                f"of {count} channels {named}: left out; mend it or set audio.channel"
            )
        return self._judge_offset(float(mean[living[0]]), float(power[living[0]]))

    def _dead(self, newest: float, mean: float, power: float) -> str:
        """What is wrong with a channel; empty if nothing is."""
        if abs(newest) >= _STUCK:  # At once: it would be heard as a bang when it is left out later.
            return f"is stuck at {newest:+.2f} of full scale"
        if self._seen < _WINDOW:
            return ""
        if power < _SILENT and abs(mean) >= _OFFSET:
            return f"is stuck at {mean:+.2f} of full scale"
        return "is silent" if power < _SILENT else ""

    def _nothing(self, dead: list[str], mean: float) -> tuple[Fault, str]:
        seconds = f"{self._seen * BLOCK:.1g}"
        if all(reason == "is silent" for reason in dead):
            return Fault.SILENT, (
                f"the microphone has given digital silence for {seconds} s: is it muted, unplugged, or "
                "the wrong device?"
            )
        return Fault.STUCK, (
            f"the microphone has given one value for {seconds} s ({mean:+.2f} of full scale): is it "
            "broken, or audio.sample_format wrong?"
        )

    def _compare(self, power: npt.NDArray[np.float64]) -> None:
        count = len(self._candidates)
        channels, mix = float(power[:count].mean()), float(power[count])
        if self._seen < _ENOUGH or channels < _AUDIBLE:
            return
        limit = _UNCANCELLED if self._cancelling else _CANCELLED
        self._cancelling = mix < limit * channels / count

    def _judge_offset(self, mean: float, power: float) -> tuple[Fault, str]:
        self._offset = abs(mean) > _NO_OFFSET and (
            self._offset or (abs(mean) > _OFFSET and mean**2 > power)
        )
        if not self._offset or self._seen < _ENOUGH:
            return Fault.NONE, ""
        return Fault.OFFSET, (
            f"the audio has a constant offset of {mean:+.2f} of full scale, larger than the sound: it is "
            "taken off; check the sound card"
        )

    def _listen(self, places: range | list[int]) -> None:
        self._listened = [self._candidates[i] for i in places]


def check_channel(channel: int, channels: int) -> None:
    """Raises HriEmoError where `audio.channel` is not among a format's channels."""
    if channel >= channels:
        raise HriEmoError(
            f"audio.channel is {channel}, must be -1 to {channels - 1}: "
            f"the audio has {channels} channel(s)"
        )


def mix_whole(samples: FloatArray, pcm_format: PcmFormat, channel: int) -> FloatArray:
    """A whole recording [n, channels] as mono [n], mixed as the front end does.

    Raises:
        HriEmoError: there is no such channel.
    """
    return InputMeter(pcm_format, channel).take(np.nan_to_num(samples)).mono
