# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The demo: nodes as processes, a recording over DDS, a live view, a picture at the end."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.live import Live

from hri_emo_msgs.msg import EmotionState, Speech
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.bags import AudioBag, Sound
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.bag_player import BagPlayer
from hri_emo_ros.nodes.graph import PIPELINE_NODES, Graph
from hri_emo_ros.parameters import Value
from hri_emo_ros.types import FloatArray
from hri_emo_ros.view import picture as pictures
from hri_emo_ros.view.shown import Shown, from_message
from hri_emo_ros.view.terminal import history_table, screen

LAST_WAIT = 20.0
"""Longest wait for the last final state after the recording's end, seconds, on a slow machine."""
QUIET = 1.5
"""Seconds after the recording's end in which its last chunks may still arrive."""


class Demo:
    """Plays `recording` through the nodes and shows what they publish.

    Args:
        picture: file to draw into.
        speed: multiple of real time.
        bundle: model bundle; empty is the shipped one.
        asr: value of asr.backend.
        domain: ROS_DOMAIN_ID; None takes a free one, so that no other robot hears the demo.
        live: redraw the terminal; otherwise one line is printed for each final state.
    """

    def __init__(
        self,
        *,
        recording: Path,
        picture: Path,
        speed: float,
        bundle: str = "",
        asr: str = "auto",
        whisper_model: str = "",
        domain: int | None = None,
        single_process: bool = False,
        live: bool = False,
    ) -> None:
        self._recording, self._picture, self._speed = recording, picture, speed
        self._bundle, self._asr, self._whisper = bundle, asr, whisper_model
        self._domain, self._single, self._live = domain, single_process, live
        self._console = Console()
        self._states: list[EmotionState] = []
        self._heard: set[int] = set()
        """Utterances that have begun."""

    def run(self) -> int:
        """Returns 0 when at least one final state came.

        Raises:
            HriEmoError: the recording cannot be read, or a node does not start.
        """
        began = time.monotonic()
        with AudioBag(self._recording) as bag:  # Wrong paths show before anything is started.
            seconds = bag.duration
        say = self._console.print
        say(f"starting the nodes as processes ({', '.join(self._kinds())}) ...", highlight=False)
        with Graph(
            nodes=self._kinds(),
            parameters=self._parameters(),
            bundle=self._bundle,
            domain_id=self._domain,
            single_process=self._single and self._asr != "none",
        ) as graph:
            say(
                f"active after {time.monotonic() - began:.1f} s on ROS_DOMAIN_ID "
                f"{graph.domain_id}; playing {seconds:.0f} s of {self._recording.name} "
                f"at {self._speed:g}x",
                highlight=False,
            )
            epoch_ns = self._play(graph)
        shown = [from_message(message, epoch_ns) for message in self._states]
        finals = [state for state in shown if state.final]
        if not finals:
            raise HriEmoError(
                f"nothing was heard in '{self._recording}': see `hri-emo monitor` and /diagnostics"
            )
        if self._live:
            say(history_table(finals))
        self._draw(shown)
        median = statistics.median(state.latency for state in finals) * 1000
        say(
            f"{len(finals)} utterances, {len(shown) - len(finals)} provisional states; final states "
            f"{median:.0f} ms (median) after the end of speech; picture: {self._picture}; "
            f"{time.monotonic() - began:.0f} s in all",
            highlight=False,
            soft_wrap=True,
        )
        return 0

    def _kinds(self) -> tuple[str, ...]:
        return tuple(k for k in PIPELINE_NODES if not (k == "asr_node" and self._asr == "none"))

    def _parameters(self) -> dict[str, dict[str, Value]]:
        words: Value = "none" if self._asr == "none" else "transcript"
        parameters: dict[str, dict[str, Value]] = {"emotion_node": {"transcript.source": words}}
        if self._asr != "none":
            parameters["asr_node"] = {"asr.backend": self._asr, "whisper.model": self._whisper}
        return parameters

    def _play(self, graph: Graph) -> int:
        """Returns the stamp of the recording's first sample as played, ns."""
        graph.node.create_subscription(
            EmotionState, "emotion_state", self._states.append, qos.EMOTION
        )
        graph.node.create_subscription(
            Speech, "speech", lambda chunk: self._heard.add(chunk.utterance_id), qos.SPEECH
        )
        player = BagPlayer(graph.node, self._recording, self._speed)
        if not graph.spin_until(player.ready):
            raise HriEmoError(f"speech_node does not listen: {graph.output('speech_node')}")
        player.start()
        try:
            if self._live:
                with Live(console=self._console, refresh_per_second=8, transient=True) as live:
                    self._follow(graph, player, live)
            else:
                self._follow(graph, player, None)
        finally:
            player.stop()
        if player.error is not None:
            raise player.error
        return player.start_ns

    def _follow(self, graph: Graph, player: BagPlayer, live: Live | None) -> None:
        printed = 0
        ended = 0.0
        while True:
            graph.spin(0.1)
            shown = [from_message(message, player.start_ns) for message in self._states]
            finals = [state for state in shown if state.final]
            if live is not None:
                title = f"{self._recording.name}  {player.position:5.1f} s"
                live.update(screen(shown[-1] if shown else None, finals, title))
            for state in finals[printed:] if live is None else ():
                self._console.print(state.line, markup=False, highlight=False, soft_wrap=True)
            printed = len(finals)
            if player.finished.is_set():
                ended = ended or time.monotonic()
                waited = time.monotonic() - ended
                complete = self._heard <= {state.utterance for state in finals}
                if waited > LAST_WAIT or (complete and waited > QUIET):
                    return

    def _draw(self, shown: list[Shown]) -> None:
        samples, rate, references = read_recording(self._recording)
        models = {m.model_id for m in self._states}
        pictures.draw(
            self._picture,
            samples,
            rate,
            shown,
            f"{self._recording.name}: what the nodes said  (model {', '.join(sorted(models))})",
            references,
        )


def read_recording(
    path: Path,
) -> tuple[FloatArray, int, list[tuple[float, float, str]]]:
    """Mono samples of a bag's audio, their rate, and its labels (start, end, emotion)."""
    with AudioBag(path) as bag:
        sounds = [sound for sound in bag.sounds() if isinstance(sound, Sound)]
        labels = [(label.start, label.end, label.emotion) for label in bag.labels()]
    rate = sounds[0].format.sample_rate if sounds else 16_000
    pieces = [
        _at_rate(sound.frames.mean(axis=1, dtype=np.float32), sound.format.sample_rate, rate)
        for sound in sounds
    ]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32), rate, labels


def _at_rate(samples: FloatArray, rate: int, wanted: int) -> FloatArray:
    """For the picture only: interpolated where a recording changes its rate."""
    if rate == wanted:
        return samples
    places = np.arange(round(len(samples) * wanted / rate)) * (rate / wanted)
    return np.interp(places, np.arange(len(samples)), samples).astype(np.float32)
