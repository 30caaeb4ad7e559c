# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo listen``: the microphone through the same pipeline, without ROS."""

from __future__ import annotations

import argparse
import queue
import sys
import time
from collections import deque

from rich.console import Console
from rich.live import Live

from hri_emo_ros.asr import Recogniser, make_recogniser
from hri_emo_ros.asr.endpoint import EndpointRecogniser, Recognition, SpeechCollector
from hri_emo_ros.audio.frontend import AudioFrontEnd
from hri_emo_ros.audio.pcm import PcmFormat
from hri_emo_ros.audio.sources import Block, MicrophoneSource
from hri_emo_ros.cli.file import add_pipeline_arguments, pipeline_parameters
from hri_emo_ros.engine import make_engine
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.pipeline import Outcome, UtteranceJoiner
from hri_emo_ros.types import SpeechChunk, Transcript, TranscriptStatus
from hri_emo_ros.view.shown import Shown, from_outcome
from hri_emo_ros.view.terminal import screen
from hri_emo_ros.watched import WatchedEngine, WatchedRecogniser
from hri_emo_ros.worker import Worker

_SHOWN = 50
"""Final states kept for the screen."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--device", default="default", help="microphone, by name or number (%(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=0.0, help="stop after so long; 0 goes on until Ctrl-C"
    )
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Listen until Ctrl-C."""
    values = pipeline_parameters(args)
    # The microphone first: without one there is no need to load a model.
    channels = max(1, int(values["speech_node"]["audio.channel"]) + 1)
    microphone = MicrophoneSource(args.device, sample_rate=0, channels=channels, chunk_ms=20)
    try:
        engine = WatchedEngine(values["emotion_node"], make_engine, _say)
        words = None
        if values["asr_node"]["asr.backend"] != "none":
            recogniser = WatchedRecogniser(values["asr_node"], make_recogniser, _say)
            words = _Words(recogniser, int(values["asr_node"]["asr.queue"]))
        view = _View(live=sys.stdout.isatty())
        joiner = UtteranceJoiner(engine, values["emotion_node"], view.take, encoder=engine)
        joiner.recogniser_present = words is not None
        front_end = AudioFrontEnd(values["speech_node"])
        front_end.set_format(PcmFormat(microphone.sample_rate, microphone.channels, "S16LE"))
        with view:
            _listen(microphone, front_end, joiner, words, view, args.seconds)
    except KeyboardInterrupt:
        print()
    finally:
        microphone.close()
    return 0


def _say(problem: str) -> None:
    if problem:
        print(problem, file=sys.stderr)


def _listen(
    microphone: MicrophoneSource,
    front_end: AudioFrontEnd,
    joiner: UtteranceJoiner,
    words: _Words | None,
    view: _View,
    seconds: float,
) -> None:
    begin = time.monotonic()
    start_ns = time.time_ns()
    fault = ""
    lost = overflows = 0

    def hear(chunks: list[SpeechChunk]) -> None:
        for chunk in chunks:
            joiner.speech(chunk, time.monotonic())
            if words is not None:
                words.speech(chunk)

    def go_on() -> None:
        for due, transcript in words.ready() if words is not None else ():
            joiner.transcript(due.chunk.utterance_id, transcript, time.monotonic(), final=due.final)
        joiner.tick(time.monotonic())

    try:
        for block in microphone.blocks():
            # Sound that was lost is a gap in time, which the front end fills and counts.
            heard = microphone.position / microphone.sample_rate
            hear(front_end.push(_bytes(block), start_ns + round(heard * 1e9)))
            go_on()
            if front_end.input.text != fault:
                fault = front_end.input.text
                print(fault or "the microphone works again", file=sys.stderr)
            if (microphone.lost, microphone.overflows) != (lost, overflows):
                if not lost and not overflows:
                    print("sound is lost: this machine is too slow for it", file=sys.stderr)
                lost, overflows = microphone.lost, microphone.overflows
            view.show(heard)
            if seconds and time.monotonic() - begin >= seconds:
                break
    finally:
        hear(front_end.flush())
        while joiner.in_work:  # At most `final.hold`: then the voice alone speaks.
            go_on()
            time.sleep(0.02)
        joiner.flush(time.monotonic())
        if lost or overflows:
            print(
                f"lost: {lost / microphone.sample_rate:.2f} s of sound here, and some {overflows} times in the "
                "device; states of utterances with gaps say so",
                file=sys.stderr,
            )
        if words is not None and words.dropped:
            print(
                f"{words.dropped} utterances passed without words: asr.queue was full",
                file=sys.stderr,
            )


class _Words:
    """Recognises in a thread of its own, so that listening goes on meanwhile.

    Args:
        most: recognitions that may wait; provisional ones go first.
    """

    def __init__(self, recogniser: Recogniser, most: int) -> None:
        self._collector = SpeechCollector()
        self._done: queue.SimpleQueue[tuple[Recognition, Transcript]] = queue.SimpleQueue()
        self._newest: Recognition | None = None
        self._words = EndpointRecogniser(recogniser)
        self.dropped = 0
        """Utterances for which there was no room."""
        self._worker: Worker[Recognition] = Worker(
            "words",
            self._work,
            lambda error: _say(f"recogniser: {type(error).__name__}: {error}"),
            capacity=most,
            spare=lambda speech: not speech.final,
            dropped=self._drop,
        )

    def speech(self, chunk: SpeechChunk) -> None:
        due = self._collector.add(chunk)
        if due is not None:
            self._newest = due
            self._worker.put(due)

    def ready(self) -> list[tuple[Recognition, Transcript]]:
        found = []
        while not self._done.empty():
            found.append(self._done.get())
        return found

    def _work(self, speech: Recognition) -> None:
        if not speech.final and speech is not self._newest:
            return  # The person went on meanwhile.
        try:
            transcript = self._words.recognise(speech)
        except Exception as error:  # Voice alone speaks then; listening goes on.
            known = isinstance(error, HriEmoError)
            why = str(error) if known else f"{type(error).__name__}: {error}"
            _say(f"recogniser: {why}")
            transcript = Transcript("", status=TranscriptStatus.FAILED, status_text=why)
        self._done.put((speech, transcript))

    def _drop(self, speech: Recognition) -> None:
        if speech.final:
            self.dropped += 1
            why = "asr.queue was full"
            transcript = Transcript("", status=TranscriptStatus.FAILED, status_text=why)
            self._done.put((speech, transcript))


class _View:
    """A live screen on a terminal, one line a final estimate elsewhere."""

    def __init__(self, live: bool) -> None:
        self._console = Console()
        self._live = Live(console=self._console, refresh_per_second=8) if live else None
        self._now: Shown | None = None
        self._finals: deque[Shown] = deque(maxlen=_SHOWN)
        self._origin = time.time()

    def __enter__(self) -> _View:
        if self._live is not None:
            self._live.start()
        else:
            self._console.print("listening; Ctrl-C ends")
        return self

    def __exit__(self, *details: object) -> None:
        if self._live is not None:
            self._live.stop()

    def take(self, outcome: Outcome) -> None:
        self._now = from_outcome(outcome, round(self._origin * 1e9))
        if self._now.final:
            self._finals.append(self._now)
            if self._live is None:
                self._console.print(self._now.line, markup=False, highlight=False, soft_wrap=True)

    def show(self, seconds: float) -> None:
        if self._live is not None:
            self._live.update(screen(self._now, list(self._finals), f"microphone  {seconds:.0f} s"))


def _bytes(block: Block) -> bytes:
    return block.astype("<i2", copy=False).tobytes()
