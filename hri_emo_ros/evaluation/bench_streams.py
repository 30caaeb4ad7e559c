# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The streams of ``hri-emo bench``: what one emotion_node takes for 1 to 16 microphones at which people speak without
end, and whether utterances that lie ready are better estimated together."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rclpy.node import Node

from hri_emo_msgs.msg import EmotionState, Speech
from hri_emo_ros.audio.frontend import AudioFrontEnd
from hri_emo_ros.engine import EmotionEngine, EngineInput, make_engine
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.bag_make import BagRecipe, make_bag
from hri_emo_ros.evaluation.bag_source import BagSource
from hri_emo_ros.evaluation.bags import AudioBag
from hri_emo_ros.evaluation.replay import Parameters
from hri_emo_ros.joiner import UtteranceJoiner
from hri_emo_ros.nodes import qos
from hri_emo_ros.nodes.conversions import chunk_message
from hri_emo_ros.nodes.graph import Graph
from hri_emo_ros.pipeline import run_offline
from hri_emo_ros.types import SAMPLE_RATE, SpeechChunk, Transcript

STREAMS = (1, 2, 4, 8, 16)
LAST_WAIT = 30.0
_REPEATS = 7
Due = tuple[float, SpeechChunk]
"""Seconds from the beginning at which speech_node would publish the chunk."""


def bench_streams(
    parameters: Parameters,
    manifest: Path,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure; voices alone, since each microphone has a recogniser of its own.

    Args:
        parameters: of every node.
        manifest: clips that are spoken, one after another with pauses, at every microphone.
        folder: where the recording is made; None takes a temporary one.
        say: called with each finding as a line of text.

    Returns:
        JSON: ``streams`` (by number: utterances, ``final_ms`` from the closing chunk to the final state, ``of_a_core``)
        and ``batches`` (by number of utterances that lie ready: ms for each, one by one and together).

    Raises:
        HriEmoError: a node does not start, or nothing was heard.
    """
    values = {kind: dict(own) for kind, own in parameters.items()}
    values["emotion_node"]["transcript.source"] = "none"
    with tempfile.TemporaryDirectory(dir=folder) as name:
        bag = Path(name) / "bag"
        make_bag(
            BagRecipe(manifest, gap=(1.2, 2.0), noise="pink", snr_db=30.0, level_dbfs=-26.0), bag
        )
        spoken = _chunks(bag, values)
    result: dict[str, Any] = {"streams": [], "batches": []}
    say("| microphones | utterances | final after p50, ms | p95 | of a core |")
    say("|---|---|---|---|---|")
    with Graph(
        parameters={"emotion_node": values["emotion_node"]}, nodes=("emotion_node",)
    ) as graph:
        finals: dict[tuple[str, int], float] = {}

        def state(message: EmotionState) -> None:
            if message.stage == EmotionState.STAGE_FINAL:
                finals[message.stream_id, message.utterance_id] = time.monotonic()

        graph.node.create_subscription(EmotionState, "emotion_state", state, qos.EMOTION)
        # One participant, a node for each microphone: emotion_node counts those.
        nodes = [
            Node("speech_node", namespace=f"microphone_{k}", context=graph.context)
            for k in range(max(STREAMS))
        ]
        for count in STREAMS:
            found = _round(graph, nodes[:count], spoken, finals)
            result["streams"].append(found)
            times = found["final_ms"]
            say(f"| {count} | {found['utterances']} | {times['p50']:.0f} | {times['p95']:.0f} | "
                f"{found['of_a_core']:.2f} |")  # fmt: skip
        for node in nodes:
            node.destroy_node()
    result["batches"] = _batches(make_engine(values["emotion_node"]), spoken)
    say("| utterances that lie ready | one by one, ms each | together, ms each |")
    say("|---|---|---|")
    for row in result["batches"]:
        say(f"| {row['utterances']} | {row['one_by_one_ms']:.1f} | {row['together_ms']:.1f} |")
    return result


def _chunks(bag: Path, values: Parameters) -> list[Due]:
    """What speech_node makes of a recording, and when."""
    settings = values["speech_node"]
    found: list[Due] = []
    with AudioBag(bag) as audio:
        source = BagSource(audio, settings, None, None)
        deaf = UtteranceJoiner(None, values["emotion_node"], lambda outcome: None, live=False)
        for record in run_offline(source.inputs(), AudioFrontEnd(settings), None, deaf):
            if not isinstance(record, SpeechChunk):
                continue
            due = record.stamp_ns + round(len(record.samples) / SAMPLE_RATE * 1e9)
            if record.last or record.endpoint:
                wait = "segment.pause" if record.last else "segment.endpoint"
                due = max(due, record.speech_end_ns + round(float(settings[wait]) * 1e9))
            found.append(((due - audio.origin_ns) * 1e-9, record))
    if not found:
        raise HriEmoError("nobody was heard in the clips: give others with --manifest")
    return found


def _round(
    graph: Graph, nodes: list[Node], spoken: list[Due], finals: dict[tuple[str, int], float]
) -> dict[str, Any]:
    """Every microphone hears the same; each begins a little later than the one before."""
    finals.clear()
    process = psutil.Process(graph.processes["emotion_node"].pid)
    publishers = [node.create_publisher(Speech, "/speech", qos.SPEECH) for node in nodes]
    if not graph.spin_until(lambda: all(p.get_subscription_count() for p in publishers)):
        raise HriEmoError("emotion_node does not listen: is the machine too slow?")
    length = spoken[-1][0]
    schedule = sorted(
        (
            (due + length / len(spoken) * k / len(nodes), k, chunk)
            for k in range(len(nodes))
            for due, chunk in spoken
        ),
        key=lambda one: (one[0], one[1]),
    )
    streams = [f"{len(nodes)} streams, {k}" for k in range(len(nodes))]
    ended: dict[tuple[str, int], float] = {}
    busy, began = sum(process.cpu_times()[:2]), time.monotonic()
    for due, k, chunk in schedule:
        message = chunk_message(chunk, streams[k], f"microphone_{k}")
        graph.spin(max(0.0, began + due - time.monotonic()))
        publishers[k].publish(message)
        if chunk.last:
            ended[streams[k], chunk.utterance_id] = time.monotonic()
    graph.spin_until(lambda: finals.keys() >= ended.keys(), LAST_WAIT)
    share = (sum(process.cpu_times()[:2]) - busy) / (time.monotonic() - began)
    for node, publisher in zip(nodes, publishers, strict=True):
        node.destroy_publisher(publisher)
    took = [(finals[one] - at) * 1e3 for one, at in ended.items() if one in finals]
    if not took:
        raise HriEmoError("no final state came: is the machine too slow?")
    return {
        "streams": len(nodes),
        "utterances": len(ended),
        "finals_missing": len(ended) - len(took),
        "final_ms": {f"p{q}": round(float(np.percentile(took, q)), 1) for q in (50, 95, 99)},
        "of_a_core": round(share, 3),
    }


def _batches(engine: EmotionEngine, spoken: list[Due]) -> list[dict[str, Any]]:
    """Medians of processor time, which other programs on the machine disturb least."""
    by_utterance: dict[int, list[SpeechChunk]] = {}
    for _, chunk in spoken:
        by_utterance.setdefault(chunk.utterance_id, []).append(chunk)
    utterances = list(by_utterance.values())
    words = Transcript("kids are talking by the door")

    def ready(count: int) -> list[EngineInput]:
        """Never the same arrays: the engine knows those that it has just heard."""
        return [
            EngineInput(np.concatenate([c.samples for c in chunks]), words, chunks[-1].quality)
            for chunks in (utterances[k % len(utterances)] for k in range(count))
        ]

    engine.warm_up()
    rows = []
    for count in STREAMS:
        alone, together = [], []
        for _ in range(_REPEATS):
            inputs = ready(count)
            started = time.process_time()
            for one in inputs:
                engine.estimate_batch([one])
            alone.append(time.process_time() - started)
            inputs = ready(count)
            started = time.process_time()
            engine.estimate_batch(inputs)
            together.append(time.process_time() - started)
        rows.append(
            {
                "utterances": count,
                "one_by_one_ms": round(statistics.median(alone) / count * 1e3, 2),
                "together_ms": round(statistics.median(together) / count * 1e3, 2),
            }
        )
    return rows
