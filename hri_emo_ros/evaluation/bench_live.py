# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The live part of ``hri-emo bench``: how long after speech the states stand, and what the nodes cost.

A recording is played at real time to the real nodes, separate processes over DDS. Beside it, alternating, runs a
reference with the structure of the system that came before: it records until the pause is over, pads with zeros to
10 s, then recognises, encodes the voice, encodes the words and classifies, one after another, with the same weights
on the same machine. What is to be compared is the ratio of the two.
"""

from __future__ import annotations

import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rclpy.node import Node

from hri_emo_msgs.msg import EmotionState, Speech
from hri_emo_ros.asr import make_recogniser
from hri_emo_ros.asr.endpoint import Recognition, SpeechCollector
from hri_emo_ros.engine import make_engine
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.bag_make import BagRecipe, make_bag
from hri_emo_ros.evaluation.replay import Parameters
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.bag_player import BagPlayer
from hri_emo_ros.nodes.conversions import chunk_of, to_ns
from hri_emo_ros.nodes.graph import PIPELINE_NODES, Graph
from hri_emo_ros.types import SAMPLE_RATE

PADDED_SECONDS = 10.0
"""To which the reference pads every utterance."""
SILENT_SECONDS = 10.0
"""Over which the cost of silence is measured."""
LAST_WAIT = 60.0
LONGEST = 8.0
"""Seconds: utterances up to this length count for the figures; longer ones are listed apart."""


@dataclass
class _Utterance:
    """One utterance; times are seconds of the wall clock."""

    duration: float = 0.0
    speech_end: float = 0.0
    paused: float = 0.0
    """When `segment.pause` had passed."""
    words_at: float = 0.0
    """When the first state with all its words stood, provisional or final; 0 if none had any."""
    words_duration: float = 0.0
    """Seconds that the newest provisional state with words covered."""
    final_at: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    with_words: bool = False


def bench_live(
    parameters: Parameters,
    manifest: Path,
    rounds: int = 3,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure the running graph and the reference, `rounds` times each, in turn.

    Args:
        parameters: of every node.
        manifest: clips that the recording is made of.
        rounds: how often each is run.
        folder: where the recording is made; None takes a temporary one.
        say: called with each finding as a line of text.

    Returns:
        JSON: ``latency`` (ms: p50, p95, p99), ``stages``, ``reference``, ``ratio``, ``processor``, ``memory_mb``,
        ``active_after_s``, ``by_length``.

    Raises:
        HriEmoError: a node does not start, or nothing was heard.
    """
    ours: list[_Utterance] = []
    theirs: list[_Utterance] = []
    costs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        bag = Path(name) / "bag"
        make_bag(
            BagRecipe(manifest, gap=(1.2, 2.0), noise="pink", snr_db=30.0, level_dbfs=-26.0), bag
        )
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}: the nodes, in real time ...")
            found, cost = _graph_round(parameters, bag)
            ours += found
            costs.append(cost)
            say(f"round {number + 1} of {rounds}: the reference, in real time ...")
            theirs += _reference_round(parameters, bag)
    if not any(u.duration <= LONGEST for u in ours) or not theirs:
        raise HriEmoError("no utterance was heard: is the machine too slow for its audio?")
    short = [u for u in ours if u.duration <= LONGEST]
    latency = {
        "speech to provisional with words": [
            u.words_at - u.speech_end for u in short if u.words_at
        ],
        **_finals(short),
    }
    reference = _finals([u for u in theirs if u.duration <= LONGEST])
    result: dict[str, Any] = {
        "rounds": rounds,
        "utterances": len(ours),
        "finals with words": sum(u.with_words for u in ours),
        "latency": {name: _percentiles(values) for name, values in latency.items()},
        "stages": {
            stage: _percentiles([u.stages[stage] for u in short]) for stage in short[0].stages
        },
        "reference": {name: _percentiles(values) for name, values in reference.items()},
        "ratio": {
            name: round(statistics.median(values) / statistics.median(latency[name]), 2)
            for name, values in reference.items()
        },
        "by_length": [
            {
                "duration": round(u.duration, 2),
                "provisional_ms": round((u.words_at - u.speech_end) * 1e3) if u.words_at else None,
                "final_after_pause_ms": round((u.final_at - u.paused) * 1e3),
            }
            for u in sorted(ours, key=lambda u: u.duration)
        ],
        **_median_costs(costs),
    }
    for line in table(result):
        say(line)
    return result


def _finals(utterances: list[_Utterance]) -> dict[str, list[float]]:
    """How long the final states took, s."""
    return {
        "speech to final": [u.final_at - u.speech_end for u in utterances],
        "pause over to final": [u.final_at - u.paused for u in utterances],
    }


def table(result: dict[str, Any]) -> list[str]:
    """The result as lines of a Markdown table."""
    lines = ["| | p50 | p95 | p99 |", "|---|---|---|---|"]

    def row(name: str, found: dict[str, float]) -> None:
        lines.append(f"| {name} | {found['p50']:.0f} | {found['p95']:.0f} | {found['p99']:.0f} |")

    for name, found in result["latency"].items():
        row(f"{name}, ms", found)
    for name, found in result["reference"].items():
        row(f"reference: {name}, ms", found)
    for name, found in result["stages"].items():
        row(f"stage {name}, ms", found)
    lines += ["", "| | |", "|---|---|"]
    for name, value in result["ratio"].items():
        lines.append(f"| reference over nodes, {name} (medians) | {value:.1f} |")
    for node, seconds in result["active_after_s"].items():
        lines.append(f"| {node}: active after, s | {seconds:.1f} |")
    for node, cost in result["processor"].items():
        lines.append(
            f"| {node}: share of a core silent, speaking | {cost['silent']:.3f}, {cost['speaking']:.3f} |"
        )
    for node, size in result["memory_mb"].items():
        lines.append(f"| {node}: resident, MB | {size:.0f} |")
    return lines


def _graph_round(parameters: Parameters, bag: Path) -> tuple[list[_Utterance], dict[str, Any]]:
    values = {kind: dict(parameters[kind]) for kind in PIPELINE_NODES}
    pause = float(values["speech_node"]["segment.pause"])
    started = time.monotonic()
    with Graph(parameters=values) as graph:
        active = time.monotonic() - started
        listener = _Listener(graph.node, pause)
        processes = {name: psutil.Process(p.pid) for name, p in graph.processes.items()}
        player = BagPlayer(graph.node, bag)
        _await_listener(graph, player)
        before = _processor(processes)
        graph.spin(SILENT_SECONDS)
        silent = {k: (v - before[k]) / SILENT_SECONDS for k, v in _processor(processes).items()}
        before, began = _processor(processes), time.monotonic()
        player.start()
        graph.spin_until(player.finished.is_set, 3600.0)
        seconds = time.monotonic() - began
        speaking = {k: (v - before[k]) / seconds for k, v in _processor(processes).items()}
        graph.spin_until(listener.settled, LAST_WAIT)
        memory = {name: p.memory_info().rss / 2**20 for name, p in processes.items()}
        player.stop()
    cost = {"active": active, "silent": silent, "speaking": speaking, "memory": memory}
    return listener.finished(), cost


def _await_listener(graph: Graph, player: BagPlayer) -> None:
    if not graph.spin_until(player.ready):
        raise HriEmoError("speech_node does not listen to the recording: is the machine too slow?")


def _processor(processes: dict[str, psutil.Process]) -> dict[str, float]:
    """Seconds of processor used by each so far."""
    return {name: sum(p.cpu_times()[:2]) for name, p in processes.items()}


class _Listener:
    """Notes when what arrives."""

    def __init__(self, node: Node, pause: float) -> None:
        self._pause = pause
        self._utterances: dict[int, _Utterance] = {}
        node.create_subscription(Speech, "speech", self._speech, qos.SPEECH)
        node.create_subscription(EmotionState, "emotion_state", self._state, qos.EMOTION)

    def settled(self) -> bool:
        return all(u.final_at for u in self._utterances.values())

    def finished(self) -> list[_Utterance]:
        return [u for u in self._utterances.values() if u.final_at and u.paused]

    def _speech(self, message: Speech) -> None:
        utterance = self._utterances.setdefault(message.utterance_id, _Utterance())
        if message.last and not message.truncated:
            utterance.speech_end = to_ns(message.speech_end) * 1e-9
            utterance.paused = utterance.speech_end + self._pause

    def _state(self, message: EmotionState) -> None:
        now = time.time()
        utterance = self._utterances.setdefault(message.utterance_id, _Utterance())
        words = message.transcript_status == EmotionState.TRANSCRIPT_OK
        if message.stage == EmotionState.STAGE_PROVISIONAL:
            if words:
                utterance.words_at, utterance.words_duration = now, message.duration
            return
        utterance.final_at, utterance.with_words = now, words
        utterance.duration = message.duration
        # A provisional state from a pause within the utterance did not hold all that was said.
        if utterance.words_duration < message.duration or not words:
            utterance.words_at = now if words else 0.0
        latency = message.latency
        utterance.stages = {
            name: float(getattr(latency, name))
            for name in latency.get_fields_and_field_types()
            if name != "total"
        }


def _reference_round(parameters: Parameters, bag: Path) -> list[_Utterance]:
    values = {kind: dict(parameters[kind]) for kind in PIPELINE_NODES}
    with Graph(parameters={"speech_node": values["speech_node"]}, nodes=("speech_node",)) as graph:
        reference = _Reference(graph.node, values)
        player = BagPlayer(graph.node, bag)
        _await_listener(graph, player)
        player.start()
        graph.spin_until(player.finished.is_set, 3600.0)
        graph.spin_until(reference.settled, LAST_WAIT)
        player.stop()
    return reference.utterances


class _Reference:
    """Record until the end, zero-pad to 10 s, recognise, encode voice, encode words, classify, in sequence."""

    def __init__(self, node: Node, values: Parameters) -> None:
        self.utterances: list[_Utterance] = []
        recogniser = make_recogniser(values["asr_node"])
        if recogniser is None:
            raise HriEmoError("asr.backend is 'none': the reference needs a recogniser")
        emotion = values["emotion_node"]
        self._engine = make_engine(emotion)
        self._engine.warm_up()
        recogniser.warm_up()
        self._recogniser = recogniser
        self._pause = float(values["speech_node"]["segment.pause"])
        self._collector = SpeechCollector()
        self._jobs: queue.Queue[Recognition] = queue.Queue()
        self._open = 0
        node.create_subscription(Speech, "speech", self._speech, qos.SPEECH)
        threading.Thread(target=self._work, daemon=True).start()

    def settled(self) -> bool:
        return self._open == 0

    def _speech(self, message: Speech) -> None:
        due = self._collector.add(chunk_of(message), message.stream_id)
        if due is not None and due.final:
            self._open += 1
            self._jobs.put(due)

    def _work(self) -> None:
        while True:
            speech = self._jobs.get()
            padded = np.zeros(
                max(len(speech.samples), round(PADDED_SECONDS * SAMPLE_RATE)), np.float32
            )
            padded[: len(speech.samples)] = speech.samples
            words = self._recogniser.transcribe(padded, speech.quality)
            self._engine.estimate(padded, words, speech.quality)
            end = speech.chunk.speech_end_ns * 1e-9
            self.utterances.append(
                _Utterance(
                    duration=speech.duration,
                    speech_end=end,
                    paused=end + self._pause,
                    final_at=time.time(),
                )
            )
            self._open -= 1


def _percentiles(values: list[float]) -> dict[str, float]:
    """Milliseconds."""
    if not values:
        return dict.fromkeys(("p50", "p95", "p99"), float("nan"))
    found = np.percentile(np.asarray(values) * 1e3, (50, 95, 99))
    return dict(zip(("p50", "p95", "p99"), (round(float(v), 1) for v in found), strict=True))


def _median_costs(costs: list[dict[str, Any]]) -> dict[str, Any]:
    nodes = list(costs[0]["memory"])
    return {
        "processor": {
            node: {
                when: round(statistics.median(c[when][node] for c in costs), 4)
                for when in ("silent", "speaking")
            }
            for node in nodes
        },
        "memory_mb": {
            node: round(statistics.median(c["memory"][node] for c in costs), 1) for node in nodes
        },
        "active_after_s": {"whole graph": round(statistics.median(c["active"] for c in costs), 2)},
    }
