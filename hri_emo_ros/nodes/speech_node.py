# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Listens to a robot's audio topic and publishes what people say, utterance by utterance."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from hri_emo_msgs.msg import Speech
from hri_emo_ros.audio.arrival import LIKELY_DELAY
from hri_emo_ros.audio.frontend import AudioFrontEnd
from hri_emo_ros.audio.input import InputReport
from hri_emo_ros.audio.messages import info_format, read_message
from hri_emo_ros.audio.pcm import PcmFormat, declared_format
from hri_emo_ros.audio.segments import SegmenterConfig
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.nodes import audio_messages, conversions, qos
from hri_emo_ros.nodes.adaptive import AdaptiveSubscription
from hri_emo_ros.nodes.diagnostics import Level
from hri_emo_ros.nodes.lifecycle import HriNode, run
from hri_emo_ros.parameters import Value
from hri_emo_ros.types import Fault, SpeechChunk
from hri_emo_ros.worker import Worker

INFO_WAIT = 1.0
"""Seconds for which the first audio is held back when somebody publishes AudioInfo: a latched
message may come in later than the first sound, which would be read in the wrong format."""
FOUND = 5.0
"""Seconds after the start within which DDS finds who listens: one after 0.1 s, the next after 3 (measured with Fast DDS
3.2, idle). What is said to the first alone is lost to the others, so the audio is held back meanwhile."""
OURS = frozenset({"asr_node", "emotion_node"})
"""Nobody else is awaited where these listen."""


@dataclass(frozen=True)
class _Job:
    """Something to do in the worker's thread, in order with the audio."""

    do: Callable[[], None]
    seconds: float = 0.0
    """Audio it holds; 0 for commands, which are never dropped."""


class SpeechNode(HriNode):
    """`audio`, `audio_info` and `robot_speaking` in, `speech` out; `~/mute`."""

    def __init__(self, **options: Any) -> None:
        super().__init__("speech_node", **options)
        self._front_end: AudioFrontEnd | None = None
        self._worker: Worker[_Job] | None = None
        self._subscriptions_: list[AdaptiveSubscription] = []
        self._robot_speaks = False
        self._robot_since = 0.0
        """When it began to speak, steady clock, s."""
        self._clocks_apart = False
        """It was said already."""
        self._unheard = 0.0
        """Seconds of audio that came while nobody listened to `speech`."""
        self._listened_to = False
        self._listeners = 0
        self._started = time.monotonic()
        self._muted = False
        """Nothing is listened to, in whatever state the node is or comes to be."""
        self._mute = self.create_service(SetBool, "~/mute", self._on_mute)

    def build(self, parameters: dict[str, Value]) -> None:
        self._settings = parameters
        self._format = declared_format(parameters)
        self._info: PcmFormat | None = None
        self._info_refused = False
        self._carried = False
        """The messages say themselves in what format they are."""
        self._frame = str(parameters["audio.frame_id"])
        self._stream = ""
        self._held: list[Callable[[], None]] = []
        """What waits for AudioInfo or for listeners, in the order in which it came."""
        self._held_seconds = 0.0
        """Of audio among it."""
        self._listened_to, self._listeners = False, 0
        self._opened = self._last_audio = time.monotonic()
        self._heard = False
        self._front_end = AudioFrontEnd(parameters)
        self._speech = self.create_lifecycle_publisher(Speech, "speech", qos.SPEECH)
        self._worker = Worker(
            "speech",
            lambda job: job.do(),
            lambda error: self.failed("audio", error),
            capacity=float(parameters["audio.queue"]),
            cost=lambda job: job.seconds,
            dropped=self._on_dropped,
        )
        types = audio_messages.audio_types(str(parameters["audio.message_type"]))
        self._audio = AdaptiveSubscription(
            self, "audio", types, self._on_audio, qos.AUDIO, "check audio.message_type"
        )
        self._infos = AdaptiveSubscription(
            self,
            "audio_info",
            audio_messages.info_types(),
            self._on_info,
            qos.AUDIO_INFO,
            "set audio.use_info to false",
        )
        self._robot = AdaptiveSubscription(
            self,
            "robot_speaking",
            {"std_msgs/msg/Bool": Bool},
            self._on_robot_speaking,
            qos.EVENT,
        )
        self._subscriptions_ = [self._audio, self._infos, self._robot]
        self._tell_muted()
        self.look_often(self._look)

    def open(self) -> None:
        # A new stream: numbers of utterances start over, and listeners can tell.
        self._stream = uuid.uuid4().hex[:12]
        self._opened = self._last_audio = time.monotonic()
        self._heard = self._clocks_apart = False
        self._command(self._restart)
        if self._robot_speaks:
            self._tell_robot()

    def take_rest(self) -> None:
        for subscription in self._subscriptions_:
            subscription.take_rest()

    def close(self) -> None:
        self._release()
        self._command(self._flush)
        if self._worker is not None:
            self._worker.drain(self.patience)
        self.diagnostics.condition("no audio", Level.OK)

    def dismantle(self) -> None:
        for subscription in self._subscriptions_:
            subscription.destroy()
        self._subscriptions_ = []
        self.look_no_more(self._look)
        if self._worker is not None:
            self._worker.stop(self.patience)
            self._worker = None
        if hasattr(self, "_speech"):
            self.destroy_lifecycle_publisher(self._speech)
            del self._speech
        self._front_end = None

    def check_together(self, parameters: dict[str, Value]) -> None:
        if self._front_end is not None:
            self._front_end.check(parameters)
        else:
            SegmenterConfig.from_parameters(parameters)

    def changed(self, parameters: dict[str, Value]) -> None:
        before, self._settings = self._settings, parameters
        declared = declared_format(parameters)
        self._command(lambda: self._configure(parameters))
        if not parameters["audio.use_info"]:
            self._refuse_info("")
        untold = not self._carried and (self._info is None or not parameters["audio.use_info"])
        if untold and (declared, parameters["audio.use_info"]) != (
            declared_format(before), before["audio.use_info"]
        ):  # fmt: skip
            self._set_format(declared)

    def summary(self) -> str:
        return f": listens to {self._audio.topic}"

    def values(self) -> Mapping[str, object]:
        if self._front_end is None:
            return {}
        shown = self._front_end.format
        return {
            "topic": self._audio.topic,
            "type": self._audio.type_name or "none yet",
            "format": f"{shown.sample_rate} Hz, {shown.channels} ch, {shown.sample_format}",
            "format from": "AudioInfo" if self._format is self._info else "parameters or message",
            "stamps behind this node's clock (s)": self._front_end.behind,
            "robot speaking": self._robot_speaks,
            "input level (dBFS)": self._front_end.input.level_dbfs,
            "muted": self._muted,
            "audio waiting (s)": float(self._worker.waiting) if self._worker else 0.0,
            "listeners": self._listeners,
            "audio that nobody listened to (s)": round(self._unheard, 2),
            **self._front_end.counters,
        }

    # -- callbacks: append only -----------------------------------------------------------------

    def _on_audio(self, message: Any) -> None:
        if self.state != "active":
            return
        self._last_audio = time.monotonic()
        self._heard = True
        if self._muted:
            self.diagnostics.count("messages while muted")
            return
        received_ns = self.get_clock().now().nanoseconds
        if self._info_awaited() or self._listeners_awaited():
            self._held.append(lambda: self._pass(message, received_ns))
            self._held_seconds += self._seconds(message)
            return
        self._release()
        self._pass(message, received_ns)

    def _on_mute(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data and not self._muted and self._front_end is not None:
            # What was said before is finished as it stands, also what was not decoded yet.
            self._release()
            self._command(self._flush)
        self._muted = request.data
        self._tell_muted()
        response.success = True
        response.message = "muted" if self._muted else "listening"
        return response

    def _tell_muted(self) -> None:
        self.diagnostics.condition(
            "muted",
            Level.WARN if self._muted else Level.OK,
            "muted: nothing that is said is listened to (service ~/mute)",
        )

    def _info_awaited(self) -> bool:
        return (
            bool(self._settings["audio.use_info"])
            and self._info is None
            and time.monotonic() - self._opened < INFO_WAIT
            and bool(self._infos.publishers())
        )

    def _listeners_awaited(self) -> bool:
        """Somebody listens already, and others may not have been found yet."""
        count = self._speech.get_subscription_count()
        if count != self._listeners:
            self._listeners = count
            self.diagnostics.publish()  # Others wait for it.
        full = self._held_seconds > 0.5 * float(self._settings["audio.queue"])
        if self._listened_to or full or time.monotonic() - self._started >= FOUND:
            return False
        there = self.get_subscriptions_info_by_topic(self._speech.topic_name)
        complete = {s.node_name for s in there} >= OURS and self._listeners >= len(there)
        return self._listeners > 0 and not complete

    def _seconds(self, message: Any) -> float:
        """Of the audio in a message, as far as its format is known."""
        try:
            audio = read_message(message)
        except HriEmoError:
            return 0.0  # It will be told when the message is passed on.
        pcm = audio.format or self._format
        return len(audio.data) / (pcm.sample_rate * pcm.frame_bytes)

    def _release(self) -> None:
        held, self._held, self._held_seconds = self._held, [], 0.0
        for pass_on in held:
            pass_on()

    def _pass(self, message: Any, received_ns: int) -> None:
        try:
            audio = read_message(message)
        except HriEmoError as error:
            self.failed("audio", error)
            return
        if self._info_refused and audio.format is None:
            # Bytes of an unknown coding would be heard as loud noise, or as somebody.
            self.diagnostics.count("refused messages")
            return
        self._carried = audio.format is not None
        if audio.format is not None and audio.format != self._format:
            self._set_format(audio.format)
        self._frame = audio.frame_id or str(self._settings["audio.frame_id"])
        bytes_per_second = self._format.sample_rate * self._format.frame_bytes
        stamp = received_ns if audio.stamp_ns is None else audio.stamp_ns
        received = audio.stamp_ns is None
        self._command(
            lambda: self._push(audio.data, stamp, received, received_ns),
            len(audio.data) / bytes_per_second,
        )

    def _on_info(self, message: Any) -> None:
        if not self._settings["audio.use_info"]:
            return
        try:
            self._info = info_format(message)
        except HriEmoError as error:
            self._refuse_info(str(error))
            return
        self._refuse_info("")
        self._set_format(self._info)

    def _refuse_info(self, reason: str) -> None:
        self._info_refused = bool(reason)
        level = Level.ERROR if reason else Level.OK
        self.diagnostics.condition("audio_info", level, reason)

    def _on_robot_speaking(self, message: Bool) -> None:
        if message.data and not self._robot_speaks:
            self._robot_since = time.monotonic()
        self._robot_speaks = message.data
        if self.state == "active":
            self._tell_robot()

    def _tell_robot(self) -> None:
        active, arrived_ns = self._robot_speaks, self.get_clock().now().nanoseconds

        def tell() -> None:
            self._command(lambda: self._note_robot(active, arrived_ns))

        if self._held:  # The audio that came before it is told first.
            self._held.append(tell)
        else:
            tell()

    def _look(self) -> None:
        """Say so when no audio comes, and who publishes what on the topic."""
        awaited = self._listeners_awaited()
        if self.state != "active":
            return
        self._check_robot()
        self._check_clocks()
        silent = time.monotonic() - self._last_audio
        if self._held and not (awaited or self._info_awaited()):
            self._release()
        if silent < float(self._settings["audio.timeout"]):
            self.diagnostics.condition("no audio", Level.OK)
            self._check_input()
            return
        if self._heard:
            self._heard = False
            # The person is not kept open for as long as the microphone is away.
            self._command(self._flush)
        advice = (
            ""
            if self._audio.type_name
            else ("; remap 'audio' to the robot's topic or check audio.message_type")
        )
        self.diagnostics.condition(
            "no audio",
            Level.ERROR,
            f"no audio on {self._audio.topic} for {float(self._settings['audio.timeout']):g} s; "
            f"there: {self._audio.describe_publishers()}{advice}",
        )

    def _check_input(self) -> None:
        report = self._front_end.input if self._front_end is not None else InputReport()
        text, level = report.text, Level.OK
        if report.fault is Fault.FORMAT:
            level = Level.ERROR
            if len(self._audio.publishers()) > 1:
                text += f"; more than one node publishes: {self._audio.describe_publishers()}"
        # Some microphones are muted while the robot speaks.
        elif report.fault is not Fault.NONE and not self._robot_speaks:
            level = Level.WARN
        self.diagnostics.condition("input", level, text)

    def _check_robot(self) -> None:
        """A robot that never says that it has stopped leaves people unheard."""
        limit = float(self._settings["robot_speaking.limit"])
        seconds = time.monotonic() - self._robot_since
        level, text = Level.OK, ""
        if self._robot_speaks and seconds > limit:
            level = Level.WARN
            heard = (
                "nothing is listened to"
                if self._settings["robot_speaking.mute"]
                else "all states abstain"
            )
            text = (
                f"{self._robot.topic} has been true for more than {limit:g} s and {heard} meanwhile; its "
                f"publisher: {self._robot.describe_publishers()} (robot_speaking.limit)"
            )
        self.diagnostics.condition("robot speaking", level, text)

    def _check_clocks(self) -> None:
        behind = self._front_end.behind if self._front_end is not None else 0.0
        if self._clocks_apart or not abs(behind) * 1e9 > LIKELY_DELAY:
            return
        self._clocks_apart = True
        self.get_logger().warning(
            f"the audio's stamps are {abs(behind):.1f} s {'behind' if behind > 0 else 'ahead of'} this node's "
            "clock: states carry the audio's, and robot_speaking is taken for the samples that come in with it"
        )

    def _on_dropped(self, job: _Job) -> None:
        self.diagnostics.count("dropped messages")
        self.diagnostics.failure(
            "dropped audio", "speech_node is too slow for its audio: some is dropped", Level.WARN
        )

    def _set_format(self, pcm_format: PcmFormat) -> None:
        self._format = pcm_format
        self._command(lambda: self._change_format(pcm_format))

    def _command(self, do: Callable[[], None], seconds: float = 0.0) -> None:
        if self._worker is not None:
            self._worker.put(_Job(do, seconds))

    # -- in the worker's thread -----------------------------------------------------------------

    def _push(self, data: bytes, stamp_ns: int, received: bool, arrived_ns: int) -> None:
        if self._front_end is None:
            return
        if self._speech.get_subscription_count() == 0:
            # An utterance cut for nobody would be lost, and its end taken for a whole one.
            if self._listened_to:
                self._listened_to = False
                self._flush()
            bytes_per_second = self._format.sample_rate * self._format.frame_bytes
            self._unheard += len(data) / bytes_per_second
            return
        if not self._listened_to:
            self._listened_to = True
            self.get_logger().info(
                f"{self._unheard:.1f} s of audio passed before anybody listened to "
                f"{self._speech.topic_name}"
            )
        self._publish(self._front_end.push(data, stamp_ns, received, arrived_ns))

    def _restart(self) -> None:
        self._front_end = AudioFrontEnd(self._settings)
        self._front_end.set_format(self._format)
        self._listened_to = False

    def _change_format(self, pcm_format: PcmFormat) -> None:
        if self._front_end is not None:
            self._front_end.set_format(pcm_format)

    def _note_robot(self, active: bool, arrived_ns: int) -> None:
        if self._front_end is not None:
            self._front_end.robot_speaking(active, arrived_ns)

    def _flush(self) -> None:
        if self._front_end is not None:
            self._publish(self._front_end.flush())

    def _configure(self, parameters: dict[str, Value]) -> None:
        if self._front_end is not None:
            self._front_end.configure(parameters)

    def _publish(self, chunks: list[SpeechChunk]) -> None:
        for chunk in chunks:
            self._speech.publish(conversions.chunk_message(chunk, self._stream, self._frame))


def main() -> int:
    """Entry point of the executable."""
    return run([SpeechNode])


if __name__ == "__main__":
    raise SystemExit(main())
