# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The start of ``hri-emo bench``: how soon processes are there, what they hold, what silence costs, and what one
utterance costs the model. ONNX Runtime and torch, which executed everything before, take turns."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from hri_emo_ros.data.clips import read_clip
from hri_emo_ros.engine import make_engine
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.bag_make import spoken
from hri_emo_ros.evaluation.replay import Parameters
from hri_emo_ros.nodes.graph import PIPELINE_NODES, free_domain
from hri_emo_ros.parameters import Value
from hri_emo_ros.types import SAMPLE_RATE, FloatArray, SignalQuality, Transcript

RUNTIMES = ("onnx", "torch")
SILENT_SECONDS = 10.0
_START_WAIT = 120.0
_STOP_WAIT = 20.0
_PASSES = 20
_WORDS = "Kids are talking by the door, and I am so happy to see you."
_GOOD = SignalQuality(snr_db=20.0, level_dbfs=-25.0, clipped_fraction=0.0, speech_fraction=1.0)


@dataclass
class _Running:
    """Processes that are active."""

    active: float
    """Seconds from the first one's start until the last was active."""
    memory: float
    """Resident together, MB."""
    silent: float
    """Of a core, while nothing is published, together."""


def bench_start(
    parameters: Parameters,
    manifest: Path,
    rounds: int = 3,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Start each node alone, the three together and all in one process, the command `file`, and the model.

    Args:
        parameters: of every node.
        manifest: its first clip is what the command and the model are given.
        rounds: how often each is started; figures are medians.
        say: called with each finding as a line of text.

    Returns:
        JSON: by process and runtime ``active_s``, ``memory_mb``, ``silent``; ``file_s``; ``utterance_ms``.

    Raises:
        HriEmoError: a node does not become active, or the bundle is not exported.
    """
    row = spoken(manifest)[0]
    assert row.path is not None
    samples = read_clip(row.path, SAMPLE_RATE, row.start, row.end)
    what = [(kind,) for kind in PIPELINE_NODES] + [PIPELINE_NODES, ("pipeline",)]
    found: dict[str, list[_Running]] = {}
    files: dict[str, list[float]] = {}
    for number in range(rounds):
        say(f"start, round {number + 1} of {rounds} ...")
        for runtime in RUNTIMES:
            for kinds in what:
                if (
                    runtime == RUNTIMES[-1]
                    and kinds[0] in ("speech_node", "asr_node")
                    and len(kinds) == 1
                ):
                    continue  # they hold no such model
                key = f"{' + '.join(kinds)}, {runtime}"
                found.setdefault(key, []).append(_start(parameters, kinds, runtime))
            files.setdefault(runtime, []).append(_file(parameters, row.path, runtime))
    result: dict[str, Any] = {
        "processes": {
            name: {
                "active_s": round(statistics.median(r.active for r in runs), 2),
                "memory_mb": round(statistics.median(r.memory for r in runs), 1),
                "silent": round(statistics.median(r.silent for r in runs), 4),
            }
            for name, runs in found.items()
        },
        "file_s": {name: round(statistics.median(times), 2) for name, times in files.items()},
        "utterance_ms": _utterance(parameters, samples),
    }
    for line in table(result):
        say(line)
    return result


def table(result: dict[str, Any]) -> list[str]:
    """The result as lines of Markdown tables."""
    lines = ["| | active after, s | resident, MB | of a core, silent |", "|---|---|---|---|"]
    for name, found in result["processes"].items():
        lines.append(
            f"| {name} | {found['active_s']:.2f} | {found['memory_mb']:.0f} | {100 * found['silent']:.1f} % |"
        )
    lines += ["", "| | |", "|---|---|"]
    lines += [f"| `hri-emo file`, {k}, s | {v:.2f} |" for k, v in result["file_s"].items()]
    for runtime, stages in result["utterance_ms"].items():
        parts = ", ".join(f"{stage} {ms:.1f}" for stage, ms in stages.items())
        lines.append(f"| 3 s of voice and words on one thread, {runtime}, ms | {parts} |")
    return lines


def _parameter_file(
    parameters: Parameters, kinds: Sequence[str], runtime: str, folder: Path
) -> Path:
    """The nodes' parameters as ROS reads them."""
    tree: dict[str, Any] = {}
    for kind in kinds:
        own: dict[str, Value] = dict(parameters[kind])
        if kind == "emotion_node":
            own["model.runtime"] = runtime
        tree[f"/**/{kind}"] = {"ros__parameters": own}
    file = folder / "parameters.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return file


def _start(parameters: Parameters, kinds: Sequence[str], runtime: str) -> _Running:
    """Start one process for each of `kinds` as a launch file would, and end them."""
    environment = {**os.environ, "ROS_DOMAIN_ID": str(free_domain())}
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        environment["ROS_LOG_DIR"] = name
        nodes = PIPELINE_NODES if kinds == ("pipeline",) else kinds
        own = _parameter_file(parameters, nodes, runtime, Path(name))
        arguments = ["--autostart", "--ros-args", "--params-file", str(own)]
        began = time.perf_counter()
        started = []
        for kind in kinds:
            log = Path(name) / f"{kind}.txt"
            process = subprocess.Popen(
                [sys.executable, "-m", f"hri_emo_ros.nodes.{kind}", *arguments],
                env=environment, stdout=stack.enter_context(log.open("wb")), stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(_end, process)
            started.append((process, log, 3 if kind == "pipeline" else 1))
        while not all(log.read_text().count("]: active") >= count for _, log, count in started):
            if any(p.poll() is not None for p, *_ in started) or (
                time.perf_counter() - began > _START_WAIT
            ):
                told = " ".join(log.read_text().strip()[-300:] for _, log, _ in started)
                raise HriEmoError(f"{' + '.join(kinds)} did not become active: {told}")
            time.sleep(0.01)
        active = time.perf_counter() - began
        time.sleep(1.0)  # what starting left to do is no part of silence
        watched = [psutil.Process(process.pid) for process, *_ in started]
        before = sum(sum(p.cpu_times()[:2]) for p in watched)
        time.sleep(SILENT_SECONDS)
        silent = (sum(sum(p.cpu_times()[:2]) for p in watched) - before) / SILENT_SECONDS
        return _Running(active, sum(p.memory_info().rss for p in watched) / 2**20, silent)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_WAIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _file(parameters: Parameters, clip: Path, runtime: str) -> float:
    """Seconds that `hri-emo file` takes for one clip, its recogniser included."""
    with tempfile.TemporaryDirectory() as name:
        own = _parameter_file(parameters, PIPELINE_NODES, runtime, Path(name))
        command = [
            sys.executable,
            "-m",
            "hri_emo_ros.cli.main",
            "file",
            str(clip),
            "--params",
            str(own),
        ]
        began = time.perf_counter()
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise HriEmoError(f"hri-emo file: {done.stderr.strip()[-300:]}")
        return time.perf_counter() - began


def _utterance(parameters: Parameters, samples: FloatArray) -> dict[str, dict[str, float]]:
    """Medians by stage, ms, of one utterance of 3 s through both runtimes in turn, on one thread; and of the
    processor's time, which others on the machine do not lengthen as much."""
    voice = np.resize(samples, 3 * SAMPLE_RATE)
    values = {**parameters["emotion_node"], "model.threads": 1}
    engines = {name: make_engine({**values, "model.runtime": name}) for name in RUNTIMES}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in RUNTIMES}
    for number in range(_PASSES + 2):
        for name, engine in engines.items():
            # A copy: the engine knows what it has just heard.
            own, began = voice.copy(), time.process_time()
            estimate = engine.estimate(own, Transcript(_WORDS), _GOOD)
            used = time.process_time() - began
            if number >= 2:
                times[name].append({**estimate.latency, "of processor": used})
    return {
        name: {
            stage: round(1e3 * statistics.median(run[stage] for run in runs), 2)
            for stage in runs[0]
        }
        for name, runs in times.items()
    }
