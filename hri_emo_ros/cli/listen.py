# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo listen``: the microphone through the same pipeline, without ROS."""

from __future__ import annotations

import argparse
import queue
import sys
import threading
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
from hri_emo_ros.pipeline import Outcome, UtteranceJoiner
from hri_emo_ros.types import SpeechChunk, Transcript, TranscriptStatus
from hri_emo_ros.view.shown import Shown, from_outcome
from hri_emo_ros.view.terminal import screen

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
        engine = make_engine(values["emotion_node"])
        engine.warm_up()
        recogniser = make_recogniser(values["asr_node"])
        view = _View(live=sys.stdout.isatty())
        joiner = UtteranceJoiner(engine, values["emotion_node"], view.take)
        front_end = AudioFrontEnd(values["speech_node"])
        front_end.set_format(PcmFormat(microphone.sample_rate, microphone.channels, "S16LE"))
        with view:
            _listen(microphone, front_end, joiner, recogniser, view, args.seconds)
    except KeyboardInterrupt:
        print()
    finally:
        microphone.close()
    return 0


def _listen(
    microphone: MicrophoneSource,
    front_end: AudioFrontEnd,
    joiner: UtteranceJoiner,
    recogniser: Recogniser | None,
    view: _View,
    seconds: float,
) -> None:
    begin = time.monotonic()
    start_ns = time.time_ns()
    words = _Words(recogniser)
    taken = 0
    fault = ""
    try:
        for block in microphone.blocks():
            now = time.monotonic()
            stamp = start_ns + round(taken / microphone.sample_rate * 1e9)
            taken += len(block)
            for chunk in front_end.push(_bytes(block), stamp):
                joiner.speech(chunk, now)
                words.speech(chunk)
            for due, transcript in words.ready():
                joiner.transcript(
                    due.chunk.utterance_id, transcript, time.monotonic(), final=due.final
                )
            joiner.tick(time.monotonic())
            if front_end.input.text != fault:
                fault = front_end.input.text
                print(fault or "the microphone works again", file=sys.stderr)
            view.show(taken / microphone.sample_rate)
            if seconds and now - begin >= seconds:
                break
    finally:
        for chunk in front_end.flush():
            joiner.speech(chunk, time.monotonic())
        joiner.flush(time.monotonic())
        if microphone.lost:
            print(
                f"{microphone.lost} blocks of 20 ms were lost: this machine is too slow for them",
                file=sys.stderr,
            )


class _Words:
    """Recognises in a thread of its own, so that listening goes on meanwhile."""

    def __init__(self, recogniser: Recogniser | None) -> None:
        self._collector = SpeechCollector()
        self._jobs: queue.Queue[Recognition] = queue.Queue()
        self._done: queue.Queue[tuple[Recognition, Transcript]] = queue.Queue()
        self._newest: Recognition | None = None
        self._listening = recogniser is not None
        if recogniser is not None:
            words = EndpointRecogniser(recogniser)
            threading.Thread(target=self._work, args=(words,), daemon=True).start()

    def speech(self, chunk: SpeechChunk) -> None:
        due = self._collector.add(chunk)
        if due is not None and self._listening:
            self._newest = due
            self._jobs.put(due)

    def ready(self) -> list[tuple[Recognition, Transcript]]:
        found = []
        while not self._done.empty():
            found.append(self._done.get())
        return found

    def _work(self, words: EndpointRecogniser) -> None:
        while True:
            speech = self._jobs.get()
            if not speech.final and speech is not self._newest:
                continue  # The person went on meanwhile.
            try:
                transcript = words.recognise(speech)
            except Exception as error:  # Voice alone speaks then; listening goes on.
                why = f"{type(error).__name__}: {error}"
                print(f"recogniser: {why}", file=sys.stderr)
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
